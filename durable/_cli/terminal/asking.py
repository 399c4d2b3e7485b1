"""
Asking a person before something is changed that cannot be undone, or that concerns many.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from durable._cli.terminal.output import printable
from durable._cli.terminal.problems import CommandError

_YES = ("y", "yes")


def add_yes(parser: ArgumentParser) -> None:
    """The option that answers beforehand."""
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def confirm(question: str, args: Namespace) -> bool:
    """
    Whether *question* was answered with yes: by ``--yes``, or by the person at the terminal.

    Anything but y or yes is a no.

    Raises:
        CommandError: Nobody can be asked.
    """
    if args.yes:
        return True
    if not sys.stdin.isatty():
        msg = f"{question} Nobody can be asked, since this is not a terminal: repeat it with --yes"
        raise CommandError(msg)
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in _YES
