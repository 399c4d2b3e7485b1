"""
``durable watch``: a run as it goes, a line for each change, with a bar where its code tells how far it is.
"""

from __future__ import annotations

import sqlite3
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import add_database, await_change, data_version, database_path, open_readonly, snapshot
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.output import Output, iso, printable
from durable._cli.terminal.problems import FINDING, NOT_FOUND, OK, CommandError
from durable._core.durations import span
from durable._core.program.progress import Progress
from durable._shell.reads.run_rows import RunRow
from durable._shell.reports.watched_rows import Watched, watched_run

#: Characters of a bar.
_BAR: Final = 24
_EPILOG: Final = """\
It ends with the run, or with Ctrl-C; the exit code is 1 if the run has failed.

examples:
  durable watch 019a3b
  durable watch key:import-7 --json | jq .progress"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_database(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write what changes."""
    with closing(open_readonly(database_path(args))) as conn:
        status, last = "", ""
        for seen in _changes(conn, find_run(conn, args.run).run_id):
            row = seen.details.row
            status = row.status
            if out.json:
                out.value(_json(seen))
            elif (line := _line(seen, out)) != last:
                last = line
                out.line(f"{out.dim(f'{span(max(0.0, time.time() - row.created_at)):>8}')}  {line}")
            out.flush()
    return FINDING if status == "failed" else OK


def _changes(conn: sqlite3.Connection, run_id: str) -> Iterator[Watched]:
    """The run as it stands, and after each change; then the run that it continued as."""
    before: Any = None
    while True:
        version = data_version(conn)
        with snapshot(conn):
            seen = watched_run(conn, run_id)
        if seen is None:
            msg = f"run {run_id!r} is gone: it was deleted, or pruned"
            raise CommandError(msg, NOT_FOUND)
        row = seen.details.row
        state = (row.status, row.progress, row.attributes, row.reason, seen.step, seen.details.waits)
        if state != before:
            before = state
            yield seen
        if row.successor is not None:
            run_id = row.successor
        elif seen.has_ended:
            return
        else:
            await_change(conn, version)


def _line(seen: Watched, out: Output) -> str:
    row = seen.details.row
    parts = [out.status(row.status)]
    if row.progress is not None:
        parts.append(_progress(row.progress))
    if seen.step is not None and row.status == "running":
        attempt = f", attempt {seen.step.attempt}" if seen.step.attempt > 1 else ""
        parts.append(f"step {printable(seen.step.name)} at {seen.step.position}{attempt}")
    if waiting := _waiting(row, seen):
        parts.append(f"waits for {waiting}")
    if row.reason:
        parts.append(printable(row.reason.strip().partition("\n")[0]))
    return "  ".join(parts)


def _waiting(row: RunRow, seen: Watched) -> str:
    if row.status != "waiting":
        return ""
    named = [f"{each.kind} {each.name}".strip() if each.name else str(each.kind) for each in seen.details.waits]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""  # noqa: PLR2004 - as many as fit a line
    return printable(", ".join(named[:3])) + more


def _progress(progress: Progress) -> str:
    share = progress.share
    if share is None:
        return printable(str(progress))
    full = round(share * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {printable(str(progress))}"


def _json(seen: Watched) -> dict[str, Any]:
    row = seen.details.row
    return {
        "run_id": row.run_id,
        "workflow": row.workflow,
        "status": row.status,
        "step": None if seen.step is None else seen.step._asdict(),
        "progress": None if row.progress is None else row.progress._asdict(),
        "reason": row.reason,
        "ended_at": iso(row.ended_at),
    }
