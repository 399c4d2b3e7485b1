"""What crosses to the writer's thread and back: runs, turns, and what a commit caused. Values, no I/O."""
