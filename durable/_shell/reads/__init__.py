"""
Functions of an open connection that only read: rows in, values out.

They run on the thread that has the connection: the reader's, the writer's inside a transaction, or the command
line's own, beside a running engine. No event loop, log or clock; imports are light, so that `durable list` answers at
once.

Start with `run_rows`, what is known of a run; then `event_rows`, its history.
"""
