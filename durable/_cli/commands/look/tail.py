"""
``durable tail``: what a run emits to a stream, as it comes.
"""

from __future__ import annotations

import sqlite3
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import add_database, await_change, data_version, database_path, open_readonly, snapshot
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.arguments import text_argument
from durable._cli.terminal.output import Output, ago, iso
from durable._cli.terminal.problems import NOT_FOUND, OK, CommandError
from durable._cli.terminal.values import plain, value_lines
from durable._shell.reads.run_rows import RunRow
from durable._shell.reads.stream_rows import PAGE, ItemRow, stream_page, streams_of

_EPILOG: Final = """\
A text is written as it is, other values as JSON, each on a line. A line says where a new attempt of a step begins.

examples:
  durable tail 019a3b                          its streams
  durable tail 019a3b tokens                   what is there, then what comes, until the run ends, or Ctrl-C
  durable tail 019a3b tokens --after 517 --json"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument("stream", nargs="?", type=text_argument, metavar="STREAM", help="default: name its streams")
    add_database(parser)
    parser.add_argument("--after", type=int, default=0, metavar="SEQ", help="only items behind this number")
    parser.add_argument("--no-follow", action="store_true", help="only what is there already")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the items."""
    with closing(open_readonly(database_path(args))) as conn:
        row = find_run(conn, args.run)
        if args.stream is None:
            _streams(conn, row, out)
            return OK
        before: ItemRow | None = None
        for item in _items(conn, row, args):
            if out.json:
                out.value({**item._asdict(), "value": plain(item.value), "at": iso(item.at)})
            else:
                _write(item, before, out)
            out.flush()
            before = item
    return OK


def _streams(conn: sqlite3.Connection, row: RunRow, out: Output) -> None:
    found = streams_of(conn, row.run_id)
    if out.json:
        for name, items, at in found:
            out.value({"stream": name, "items": items, "latest_at": iso(at)})
    elif found:
        out.table(("STREAM", "ITEMS", "LATEST"), [(name, f"{items:,}", f"{ago(at)} ago") for name, items, at in found])
    else:
        out.line("no streams: the run has emitted nothing")


def _items(conn: sqlite3.Connection, row: RunRow, args: Namespace) -> Iterator[ItemRow]:
    """Those behind ``--after``; unless told not to follow, until the run, or what it continued as, has ended."""
    run_id, after = row.run_id, args.after
    while True:
        version = data_version(conn)
        with snapshot(conn):
            page = stream_page(conn, run_id, args.stream, after)
        if page is None:
            msg = f"run {run_id!r} is gone: it was deleted, or pruned"
            raise CommandError(msg, NOT_FOUND)
        for item in page.items:
            after = item.seq
            yield item
        if len(page.items) == PAGE:
            continue
        if page.successor is not None:
            run_id = page.successor
        elif page.ended or args.no_follow:
            return
        else:
            await_change(conn, version)


def _write(item: ItemRow, before: ItemRow | None, out: Output) -> None:
    if item.attempt > 1 and (before is None or (item.position, item.attempt) != (before.position, before.attempt)):
        out.line(out.dim(f"attempt {item.attempt} of the step at {item.position}"))
    value: Any = plain(item.value)
    for line in value.splitlines() or [""] if isinstance(value, str) else value_lines(item.value, full=True):
        out.line(line)
