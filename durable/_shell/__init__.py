"""
The part that does: asyncio, SQLite, threads, processes, logs. It may import `durable._core`.

Read in this order: `schema` (tables), `database` (connections), `records` (SQL as
functions), `commits` (group commit), `steps` (one attempt), `driver` (one run),
`scheduler` (which run next), `engine` (open, start, signal, close).
"""
