"""
One module a command, called as the command is; loaded when that command is asked for, so that help costs nothing.

Each has `configure`, its arguments, and `run`, which returns the exit code. What reads stays on the main thread,
without asyncio; what changes something makes an event loop and goes through `Client`. An application is imported only
where its code or its types are needed.

Start with `show`, one that reads; then `requests`, those that change something.
"""
