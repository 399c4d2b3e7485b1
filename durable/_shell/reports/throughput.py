"""
How many runs ended lately, by minute: from the latest events, so that it costs the same in a file of any size.

Light, as `census` is.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from durable._core.light_tuples import NamedTuple

#: Minutes that are told.
MINUTES: Final = 60
#: Events that are looked at, at most: the latest.
MOST_EVENTS: Final = 60_000
#: The kinds of events that are counted, in the order of `Ended`: by number, since events bring attrs along.
KINDS: Final = (2, 3, 4)
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


def throughput(conn: sqlite3.Connection, now: float) -> Throughput:
    """The ends of runs in the last hour, from the latest events."""
    (latest,) = conn.execute("SELECT coalesce(max(id), 0) FROM durable_events").fetchone()
    first = conn.execute("SELECT at FROM durable_events WHERE id > ? ORDER BY id LIMIT 1", (latest - MOST_EVENTS,))
    row = first.fetchone()
    seconds = MINUTES * 60.0
    if row is not None and latest > MOST_EVENTS:
        seconds = max(60.0, min(seconds, now - row[0]))
    found = [[0, 0, 0] for _ in range(MINUTES)]
    for kind, at in conn.execute(_ENDS, (latest - MOST_EVENTS, *KINDS, now - seconds)):
        minute = MINUTES - 1 - int(max(0.0, now - at) // 60)
        if 0 <= minute < MINUTES:
            found[minute][KINDS.index(kind)] += 1
    return Throughput([Ended(*each) for each in found], seconds)
