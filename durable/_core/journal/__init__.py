"""What is recorded of a run, and what that says. Pure functions of lists of events."""
