"""
The first page: what there is, what happens, and what needs a person.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from starlette.responses import Response

from durable._cli.commands.look.list import why_in_short
from durable._cli.journals.owners import failure_of, owner_of
from durable._core.statuses import STATUSES
from durable._shell.reads.run_rows import Filter, RunRow, list_runs, paused_queues
from durable._shell.reads.schedule_rows import all_schedules
from durable._shell.reports.census import Census, census, ended_since
from durable._shell.reports.throughput import Throughput, throughput
from durable._shell.rows.schedule_row import ScheduleRow
from durable.web.call import Call
from durable.web.journal import at_one_moment

#: Seconds of a day: how many runs ended in the last is told, too.
DAY: Final = 86_400
#: Runs that are named as needing a person.
NAMED: Final = 8


class Overview(NamedTuple):
    """What the page shows."""

    census: Census
    #: Status -> how many runs have ended so in the last day.
    day: dict[str, int]
    #: Blocked, failed and paused runs: the latest of each, and why.
    people: list[tuple[RunRow, str]]
    throughput: Throughput
    schedules: list[ScheduleRow]


@at_one_moment
def read_overview(conn: sqlite3.Connection, now: float) -> Overview:
    """All of it, of one moment."""
    paused = set(paused_queues(conn))
    rows = [
        row
        for status in ("blocked", "failed", "paused")
        for row in list_runs(conn, Filter(status=(status,)), None, NAMED)
    ]
    people = [(row, why_in_short(conn, row, paused, now)) for row in rows[:NAMED]]
    schedules = all_schedules(conn)[:NAMED]
    return Overview(census(conn), ended_since(conn, now - DAY), people, throughput(conn, now), schedules)


async def overview(call: Call) -> Response:
    """The page; where there is none, the list of runs."""
    if "" not in call.source.pages:
        return call.go_to("runs")
    journal = call.journal
    found = await journal.read(read_overview, call.now)
    workflows = sorted(found.census.workflows.items())
    statuses = [each for each in STATUSES if found.census.statuses.get(each)]
    return call.answer(
        "overview.html", found=found, workflows=workflows, statuses=statuses,
        health=journal.health(), owner=owner_of(journal.path), failure=failure_of(journal.path),
    )  # fmt: skip
