"""
The command line, `durable`. Each command is a module, loaded when it is asked for.

`main` knows their names and what they are for; `output` writes tables and JSON; `files` opens a
journal for reading. What reads imports neither asyncio nor structlog nor an application: it must
answer at once, beside a running engine. What changes something goes through `Client`.
"""
