"""
`Engine.check`: the runs that the code at hand would break. Read page by page, replayed one by one.

The event loop is the application's: between two runs it gets its turn.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.recorded.check import CheckedRun, CheckReport, check_run
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import OPEN
from durable._shell.log import log
from durable._shell.reads.run_rows import Filter, RunRow, list_runs
from durable._shell.reports.exporting import load_run_history
from durable.errors import JournalCorruptError

#: Runs read in one go: their histories are in memory together.
_PAGE = 50


async def check_journal(
    read: Callable[..., Awaitable[Any]], path: str, definitions: Definitions, codec: Codec, *, whole: bool
) -> CheckReport:
    """
    Replay every open run of a journal (with *whole*, every run) against *definitions*.

    Args:
        read: Gives the result of a function of a connection.
        path: Of the file, for reports.
        definitions: The code at hand.
        codec: Decodes recorded values.
        whole: Runs that have ended, too.
    """
    report = CheckReport()
    before: int | None = None
    while page := await read(partial(_page, path=path, before=before, whole=whole)):
        before = page[-1][0].run
        for row, recorded in page:
            if isinstance(recorded, JournalCorruptError):
                report.add(unreadable(row, recorded))
            else:
                report.add(check_run(recorded, definitions, codec))
            await asyncio.sleep(0)
    return report


def unreadable(row: RunRow, error: JournalCorruptError) -> CheckedRun:
    """What is said of a run that cannot be replayed, since an event of it is damaged."""
    return CheckedRun(row.run_id, row.workflow, row.version, row.status, "unreadable", str(error), error)


def _page(
    conn: sqlite3.Connection, path: str, before: int | None, *, whole: bool
) -> list[tuple[RunRow, RunHistory | JournalCorruptError]]:
    wanted = Filter() if whole else Filter(status=OPEN)
    return [(row, _history(conn, path, row)) for row in list_runs(conn, wanted, before, _PAGE)]


def _history(conn: sqlite3.Connection, path: str, row: RunRow) -> RunHistory | JournalCorruptError:
    try:
        return load_run_history(conn, path, row)
    except JournalCorruptError as error:
        return error


def report_at_opening(report: CheckReport, path: str) -> None:
    """Log each run that the code at hand would break, and a summary."""
    for found in report.findings:
        log.error(
            "check.finding", path=path, run_id=found.run_id, workflow=found.workflow, verdict=found.verdict,
            report=found.report,
        )  # fmt: skip
    log.info("check.done", path=path, checked=sum(report.counts.values()), findings=len(report.findings))
