"""
What an open engine does beside its runs: each task and what it keeps, from the scheduler to the socket.

On the event loop. A task knows the parts that it is given, never the engine that holds them: which there are, and in
which order they begin and end, is for `engine.running` to say. What is decided about rows, `reads` and `writes` decide.

Start with `scheduler`, which run is driven next, and `supervisor`, what becomes of what a task raises; then `ticker`,
the schedules, and `server`, the ear for other processes.
"""
