"""
The part that does: asyncio, SQLite, threads, processes, logs. It may import `durable._core`.

To follow one run from top to bottom, read `engine` (start, ask), `starting` (an op becomes a
run), `scheduler` (which run next), `driver` (its turns), `steps` (one attempt), `recorder` (a
decision becomes rows), `commits` (many turns, one transaction), `turn_writes`, `run_writes` and
`wakeups` (what such a transaction does), `handle` (the result). Below them: `schema` (tables),
`database` and `connections` (the file), `ownership` (one process a file), `event_rows` (events), and
what the command line reads with: `run_rows`, `why`, `census`. Beside them: `lifecycle` (open,
supervise, close), `requests` (what can be asked from outside), `server`, `wire` and `client`
(other processes), `exporting`, `importing` and `import_ties` (runs as files), `dry_run` and `stand_ins`
(runs in memory).
"""
