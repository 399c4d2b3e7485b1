"""Which journal, which runs: what the arguments of commands mean."""
