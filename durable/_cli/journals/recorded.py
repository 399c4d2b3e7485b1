"""
Recorded runs for commands that replay: from a journal, live or a copy, or from exported files.
"""

from __future__ import annotations

import os
import sqlite3
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.filters import add_filters, filter_from
from durable._cli.journals.finding import find_run
from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import OPEN
from durable._shell.reads.run_rows import RunRow, list_runs
from durable._shell.reports.exporting import load_run_history, read_histories
from durable.errors import JournalCorruptError


class Damaged(NamedTuple):
    """A run of which not all can be read."""

    row: RunRow
    error: JournalCorruptError


#: Runs read before the file is let go again for a moment: no read holds up a checkpoint for long.
_PAGE = 200
#: How exported journals are called, so that a missing one is not taken for a run.
_SUFFIXES = (".jsonl", ".json")


def add_recorded(parser: ArgumentParser, *, filters: bool) -> None:
    """The arguments that say which runs; with *filters*, all that fit where none is named."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN|FILE",
        help="a run of the journal (its id, the beginning of it, or key:KEY), or an exported journal",
    )
    add_database(parser)
    if filters:
        add_filters(parser)


def recorded_runs(args: Namespace, now: float, *, filters: bool, whole: bool = False) -> Iterator[RunHistory | Damaged]:
    """
    The runs that were asked for, each with its history; oldest last where they are found by filters.

    Args:
        args: As parsed.
        now: Epoch seconds; spans of filters count from it.
        filters: Whether filters were declared: then no run named means all that fit.
        whole: With *filters*, runs that have ended as well; by default open ones, unless a status is asked for.
    """
    for text in args.runs:
        if os.path.isfile(text):
            yield from read_histories(text)
        elif text.endswith(_SUFFIXES):
            msg = f"there is no file {text}"
            raise CommandError(msg, NOT_FOUND)
        else:
            yield _one(database_path(args), text)
    if not args.runs and filters:
        yield from _fitting(args, now, whole=whole)


def _one(path: str, text: str) -> RunHistory | Damaged:
    with closing(open_readonly(path)) as conn:
        conn.execute("BEGIN")  # so that the run, its inbox and its notes are of one moment
        return _loaded(conn, path, find_run(conn, text))


def _loaded(conn: sqlite3.Connection, path: str, row: RunRow) -> RunHistory | Damaged:
    try:
        return load_run_history(conn, path, row)
    except JournalCorruptError as error:
        return Damaged(row, error)


def _fitting(args: Namespace, now: float, *, whole: bool) -> Iterator[RunHistory | Damaged]:
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        wanted = filter_from(args, now, conn)
        if wanted.status is None and not whole:
            wanted = wanted._replace(status=OPEN)
        before: int | None = None
        while page := list_runs(conn, wanted, before, _PAGE):
            conn.execute("BEGIN")
            found = [_loaded(conn, path, row) for row in page]
            conn.execute("ROLLBACK")
            yield from found
            before = page[-1].run
