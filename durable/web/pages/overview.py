"""
The first page: what there is, what happens, and what needs a person.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from starlette.responses import Response

from durable._cli.commands.look.list import why_in_short
from durable._cli.journals.owners import failure_of, owner_of
from durable._core.journal.events import RunCancelled, RunFailed, RunSucceeded
from durable._core.statuses import STATUSES
from durable._shell.reads.run_rows import Filter, RunRow, list_runs, paused_queues
from durable._shell.reads.schedule_rows import all_schedules
from durable._shell.reports.census import Census, census
from durable._shell.rows.schedule_row import ScheduleRow
from durable.web.call import Call
from durable.web.journal import at_one_moment

#: Minutes of the chart.
MINUTES: Final = 60
#: Events that are looked at for it, at most: the latest. So the page costs the same in a file of any size.
MOST_EVENTS: Final = 60_000
#: Runs that are named as needing a person.
NAMED: Final = 8
#: The kinds of events that are counted, in the order of `Ended`.
_KINDS: Final = (RunSucceeded.kind, RunFailed.kind, RunCancelled.kind)
_ENDS: Final = "SELECT kind, at FROM durable_events WHERE id > ? AND kind IN (?, ?, ?) AND at >= ?"


class Ended(NamedTuple):
    """Runs that ended in one minute."""

    succeeded: int
    failed: int
    cancelled: int


class Throughput(NamedTuple):
    """How many runs ended lately."""

    #: By minute, the oldest first.
    minutes: list[Ended]
    #: Seconds that the numbers are about: fewer than asked for, where so much happened that not all was looked at.
    seconds: float

    @property
    def ended(self) -> Ended:
        """All of them."""
        return Ended(*(sum(each[i] for each in self.minutes) for i in range(3)))

    @property
    def most(self) -> int:
        """In the busiest minute; at least 1."""
        return max(1, *(sum(each) for each in self.minutes))


class Overview(NamedTuple):
    """What the page shows."""

    census: Census
    #: Blocked, failed and paused runs: the latest of each, and why.
    people: list[tuple[RunRow, str]]
    throughput: Throughput
    schedules: list[ScheduleRow]


@at_one_moment
def read_overview(conn: sqlite3.Connection, now: float) -> Overview:
    """All of it, of one moment."""
    counts = census(conn)
    paused = set(paused_queues(conn))
    rows = [
        row
        for status in ("blocked", "failed", "paused")
        for row in list_runs(conn, Filter(status=(status,)), None, NAMED)
    ]
    people = [(row, why_in_short(conn, row, paused, now)) for row in rows[:NAMED]]
    return Overview(counts, people, throughput(conn, now), all_schedules(conn)[:NAMED])


def throughput(conn: sqlite3.Connection, now: float) -> Throughput:
    """The ends of runs in the last hour, from the latest events."""
    (latest,) = conn.execute("SELECT coalesce(max(id), 0) FROM durable_events").fetchone()
    first = conn.execute("SELECT at FROM durable_events WHERE id > ? ORDER BY id LIMIT 1", (latest - MOST_EVENTS,))
    row = first.fetchone()
    seconds = MINUTES * 60.0
    if row is not None and latest > MOST_EVENTS:
        seconds = max(60.0, min(seconds, now - row[0]))
    found = [[0, 0, 0] for _ in range(MINUTES)]
    for kind, at in conn.execute(_ENDS, (latest - MOST_EVENTS, *_KINDS, now - seconds)):
        minute = MINUTES - 1 - int(max(0.0, now - at) // 60)
        if 0 <= minute < MINUTES:
            found[minute][_KINDS.index(kind)] += 1
    return Throughput([Ended(*each) for each in found], seconds)


async def overview(call: Call) -> Response:
    """The page."""
    journal = call.journal
    found = await journal.read(read_overview, call.now)
    workflows = sorted(found.census.workflows.items())
    statuses = [each for each in STATUSES if found.census.statuses.get(each)]
    return call.answer(
        "overview.html", found=found, workflows=workflows, statuses=statuses,
        health=journal.health(), owner=owner_of(journal.path), failure=failure_of(journal.path),
    )  # fmt: skip
