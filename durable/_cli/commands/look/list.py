"""
``durable list``: runs, newest first.

Read page by page, each page with its reasons in one short transaction.
"""

from __future__ import annotations

import os
import sqlite3
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import DATABASE_VARIABLE, add_database, database_path, open_readonly, snapshot
from durable._cli.journals.filters import FILTERS_HELP, PAGE_LENGTH, add_filters, add_paging, filter_from, spelled
from durable._cli.journals.finding import short_ids
from durable._cli.terminal.output import Output, ago, iso
from durable._cli.terminal.problems import OK
from durable._core.statuses import ENDS
from durable._shell.reads.run_rows import Filter, RunRow, list_runs, paused_queues
from durable._shell.reads.why import awaited

#: Runs read in one transaction. Rows of a page are a few hundred bytes; it takes milliseconds.
_PAGE: Final = 200
_HEADS: Final = ("RUN", "WORKFLOW", "STATUS", "CREATED", "KEY", "WHY")
#: Columns below which the reasons of runs cannot be read beside them.
_READABLE: Final = 36


def configure(_command: str, parser: ArgumentParser) -> None:
    """Filters, and how much of what they leave."""
    add_database(parser)
    add_filters(parser)
    add_paging(parser)
    parser.epilog = (
        f"{FILTERS_HELP}\n\n"
        "examples:\n"
        "  durable list --status failed,blocked --since 2h\n"
        "  durable list --workflow ride --label city=Bern --limit 50\n"
        "  durable list --waiting-for approved --json"
    )


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the runs that fit."""
    now = time.time()
    with closing(open_readonly(database_path(args))) as conn:
        wanted = filter_from(args, now, conn)
        found = _runs(conn, wanted, args.after, args.limit, now)
        if out.json:
            for row, why in found:
                out.value(as_json(row, why))
            return OK
        rows = list(found)
        more = bool(rows) and len(rows) == args.limit and bool(list_runs(conn, wanted, rows[-1][0].run, 1))
        names = short_ids(conn, [row.run_id for row, _ in rows]) if out.width else {}
    if not rows:
        out.line("no runs" if wanted == Filter() and args.after is None else "no runs fit")
        return OK
    _table(rows, names, out, now)
    if more:
        out.line(out.dim(f"more: {_again(args, rows[-1][0].run)}"))
    return OK


def as_json(row: RunRow, why: str) -> dict[str, Any]:
    """A run for programs. Keys are only ever added."""
    return {
        "run_id": row.run_id,
        "workflow": row.workflow,
        "version": row.version,
        "sort": row.kind,
        "status": row.status,
        "queue": row.queue,
        "priority": row.priority,
        "key": row.key,
        "labels": row.labels,
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "parent": row.parent,
        "position": row.position,
        "root": row.root,
        "forked_from": row.forked_from,
        "follows": row.follows,
        "successor": row.successor,
        "batch": row.batch,
        "reason": row.reason,
        "waits_for": None if row.status in ENDS or row.reason else why or None,
        "progress": None if row.progress is None else row.progress._asdict(),
        "cursor": row.run,
    }


def why_in_short(conn: sqlite3.Connection, row: RunRow, paused: set[str], now: float) -> str:
    """What a run waits for, or why it ended or stopped: the first line of it."""
    if row.reason:
        return row.reason.strip().partition("\n")[0]
    if row.status == "succeeded":
        return "" if row.successor is None else f"continued as {row.successor}"
    if row.status == "waiting" or (row.status == "pending" and row.ready_at is None):
        return awaited(conn, row, now)
    if row.status == "pending":
        return f"queue {row.queue!r}, which is paused" if row.queue in paused else f"a slot of queue {row.queue!r}"
    return ""


def _runs(
    conn: sqlite3.Connection, wanted: Filter, after: int | None, limit: int, now: float
) -> Iterator[tuple[RunRow, str]]:
    left, before = limit, after
    while True:
        size = min(_PAGE, left) if limit else _PAGE
        with snapshot(conn):
            paused = set(paused_queues(conn))
            page = [(row, why_in_short(conn, row, paused, now)) for row in list_runs(conn, wanted, before, size)]
        yield from page
        left -= len(page)
        if len(page) < size or (limit and not left):
            return
        before = page[-1][0].run


def _table(rows: list[tuple[RunRow, str]], names: Mapping[str, str], out: Output, now: float) -> None:
    """A line for each run; where that has no room for why it is as it is, a second one."""
    keyed = any(row.key for row, _ in rows)
    cells = [
        (
            names.get(row.run_id, row.run_id), row.workflow + (" (fork)" if row.forked_from else ""), row.status,
            f"{ago(row.created_at, now)} ago", *((row.key or "",) if keyed else ()), _detail(row, why),
        )
        for row, why in rows
    ]  # fmt: skip
    out.table(_HEADS if keyed else (*_HEADS[:4], _HEADS[5]), cells, readable=_READABLE)


def _detail(row: RunRow, why: str) -> str:
    """How far a run has come, and why it goes no further."""
    return why if row.progress is None or row.status in ENDS else "; ".join(filter(None, (str(row.progress), why)))


def _again(args: Namespace, cursor: int) -> str:
    import shlex  # noqa: PLC0415 - a millisecond that most lists need not spend

    limit = [] if args.limit == PAGE_LENGTH else ["--limit", str(args.limit)]
    path = [] if args.db == os.environ.get(DATABASE_VARIABLE) else ["--db", args.db]
    return shlex.join(["durable", "list", *path, *spelled(args), *limit, "--after", str(cursor)])
