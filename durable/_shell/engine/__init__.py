"""An engine: opened, scheduled, supervised, closed."""
