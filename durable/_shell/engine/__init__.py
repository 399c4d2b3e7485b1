"""
An engine: opened, scheduled, supervised, closed. The only room that knows all the others.

On the event loop, in a task group of its own: it holds the database, the socket and those who wait for a result, and
starts a driver for each run whose turn it is. What it decides about rows it asks `reads` and `writes` for.

Start with `engine`, what users call; then `backend`, what handles ask, `running`, the parts of an open engine, and
`scheduler`, which run is next.
"""
