"""
One attempt of a step, as an activity; and what workflows of the server may not ask it themselves.

An attempt is that of an embedded engine: timeouts, threads and processes, `context()`, cursors and memos, middleware
and retry policies, all as they are. What differs is where the answer goes.

Start with `attempts`.
"""
