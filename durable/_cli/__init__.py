"""
The command line, `durable`. Each command is a module, loaded when it is asked for.

What reads imports neither asyncio nor structlog nor an application: it must answer at once, beside a running engine.
What changes something goes through `Client`, to the journal's owner. Rooms: `terminal` and `journals` (what commands
share), `drawing`, `commands`.

Start with `main`, the table of commands; then `commands`.
"""

from collections.abc import Sequence


def command_line(argv: Sequence[str] | None = None) -> int:
    """
    Carry out one command of the `durable` command line: for programs that bring it along, as frozen ones must.

    Args:
        argv: The command's name and arguments; by default those of the process.

    Returns:
        The exit code: 0 well, 1 a finding, 2 wrong usage, 3 not found.

    Example:
        >>> command_line(["list", "--db", "none.db"])  # which is told on stderr
        3
    """
    from durable._cli.main import main  # noqa: PLC0415 - to import `durable` costs no argparse

    return main(argv)
