"""
Which journal, which runs: what the arguments of commands mean.

Opens journals for reading only, on the main thread, beside a running engine and without an application: neither
asyncio nor structlog is imported. What changes something is left to commands, which ask the owner for it.

Start with `files`, how a journal is opened; then `filters` and `finding`, how runs are chosen.
"""
