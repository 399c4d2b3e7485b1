"""
The part that does: asyncio, SQLite, threads, processes, sockets, logs. It asks `durable._core` what to do.

Each room says on which thread its lines run: `storage` makes the threads; `reads`, `writes` and `requests` are
functions of a connection, run there; `rows` holds what crosses between; `turns`, `handles` and `engine` live on the
event loop. What is to be done is recorded before it is done: no step starts ahead of the commit that says so.

Start with `turns`, to follow one run; or with `engine`, to see who starts it, and when.
"""
