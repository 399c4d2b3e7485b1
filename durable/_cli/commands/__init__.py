"""
One module a command, called as the command is; loaded when that command is asked for, so that help costs nothing.

Their rooms are the groups of ``durable --help``. Each module has `configure`, its arguments, and `run`, which returns
the exit code. An application is imported only where its code or its types are needed.

Start with `look`, then `change`.
"""
