"""``durable restore``: a backup into the place of a journal."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import closing
from typing import Final

from durable._cli.journals.files import open_readonly
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import NOT_FOUND, OK, CommandError

_EPILOG: Final = """\
Stop the engine first: the journal must have no owner. The backup is copied and verified as a whole before anything is
changed. What was in its place is kept beside it, under another name, with its write-ahead log (-wal); nothing of it is
applied to the backup, as it would be if that were copied by hand.

example:
  durable restore /backups/rides-monday.db --to rides.db"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("backup", metavar="BACKUP", help="made by `durable backup`, or another sound copy")
    parser.add_argument("--to", metavar="FILE", required=True, help="the journal that it becomes; need not exist")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Restore it, and say what was kept."""
    from durable._shell.ownership.restoring import restore  # noqa: PLC0415 - brings what others need not

    if not os.path.exists(args.backup):
        msg = f"no backup at {args.backup}: the file does not exist"
        raise CommandError(msg, NOT_FOUND)
    with closing(open_readonly(args.backup)) as conn:
        kept = restore(conn, args.backup, args.to)
    if out.json:
        out.value({"path": os.path.realpath(args.to), "kept": kept})
        return OK
    out.line(f"{args.to} is now what {args.backup} was, verified as a whole")
    if kept:
        out.line(f"what it was before is kept: {', '.join(kept)}")
    return OK
