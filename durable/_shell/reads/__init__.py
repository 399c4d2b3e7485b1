"""Functions of a connection that only read. Light: the command line imports them before asyncio."""
