"""Functions of an open transaction, run on the writer's thread: no event loop, no log, no clock."""
