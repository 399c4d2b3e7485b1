"""
The part that does: asyncio, SQLite, threads, processes, logs. It may import `durable._core`.

To follow one run from top to bottom, read `engine` (start, ask), `starting` (an op becomes a
run), `scheduler` (which run next), `driver` (its turns), `steps` (one attempt), `recording` (a
decision becomes rows), `commits` (many turns, one transaction), `writing`, `creating` and
`waking` (what such a transaction does), `handle` (the result). Below them: `schema` (tables),
`database` and `connections` (the file), `ownership` (one process a file), `reading` (events), and
what the command line reads with: `looking`, `whys`, `census`. Beside them: `lifecycle` (open,
supervise, close), `requests` (what can be asked from outside), `server`, `wire` and `client`
(other processes), `exporting`, `importing` and `import_ties` (runs as files), `dry_run` and `stand_ins`
(runs in memory).
"""
