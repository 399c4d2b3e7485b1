"""
Which open runs today's code would break: what `durable check` tells, for the code that the dashboard was given.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final, NamedTuple

from starlette.responses import Response

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.recorded.check import CheckReport, check_run
from durable._core.statuses import OPEN
from durable._shell.engine.checks import unreadable
from durable._shell.reads.run_rows import Filter, list_runs
from durable._shell.reports.exporting import load_run_history
from durable.errors import JournalCorruptError
from durable.web.call import Call
from durable.web.moments import require_code

#: Seconds that a page may take: the latest runs are checked within that.
MOST_SECONDS: Final = 5.0
_PAGE: Final = 50


class Checked(NamedTuple):
    """What was found, and whether every open run was looked at."""

    report: CheckReport
    #: How many were looked at.
    runs: int
    complete: bool


def check_open(conn: sqlite3.Connection, path: str, definitions: Definitions, codec: Codec) -> Checked:
    """Replay open runs, the latest first, as many as the time allows."""
    report, count, before = CheckReport(), 0, None
    deadline = time.monotonic() + MOST_SECONDS
    while page := list_runs(conn, Filter(status=OPEN), before, _PAGE):
        before = page[-1].run
        for row in page:
            if time.monotonic() > deadline:
                return Checked(report, count, complete=False)
            count += 1
            try:
                report.add(check_run(load_run_history(conn, path, row), definitions, codec))
            except JournalCorruptError as error:
                report.add(unreadable(row, error))
    return Checked(report, count, complete=True)


async def check(call: Call) -> Response:
    """The page: equal reports together."""
    journal = call.journal
    if journal.definitions is None:
        return call.answer("check.html", checked=None)
    checked = await journal.read(check_open, journal.path, require_code(journal.definitions), journal.codec)
    return call.answer("check.html", checked=checked)
