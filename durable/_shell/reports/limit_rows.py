"""
Named limits with the numbers that hold, and who is in them. Light, as `run_rows` is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from durable._core.light_tuples import NamedTuple


class SlotInfo(NamedTuple):
    """Who has a slot of a limit, or waits for one. Instants are epoch seconds, UTC."""

    #: Id of the run.
    run: str
    #: Of its step; None where the slot is the run's own.
    position: str | None
    #: Of the limit, where that has keys.
    key: str | None
    #: When it got the slot; of who waits, since when.
    since: float
    #: When the rate lets it in, if that is what it waits for.
    due: float | None = None


class LimitDetails(NamedTuple):
    """A limit with the numbers that hold, and who is in it."""

    name: str
    concurrency: int | None
    grants: int | None
    per: float | None
    changed: bool
    inside: int
    waiting: int
    holders: Sequence[SlotInfo]
    waiters: Sequence[SlotInfo]


#: Of those who are in a limit, and of those who wait, that are told.
_MOST_SLOTS: Final = 100
_LIMITS: Final = """
SELECT name, concurrency, count, per, own IS NOT NULL,
    (SELECT count(*) FROM durable_slots AS s WHERE s.name = l.name AND granted_at IS NOT NULL),
    (SELECT count(*) FROM durable_slots AS s WHERE s.name = l.name AND granted_at IS NULL)
FROM durable_limits AS l
"""
_HOLDERS: Final = """
SELECT r.run_id, nullif(s.position, ''), nullif(s.key, ''), s.granted_at, NULL
FROM durable_slots AS s JOIN durable_runs AS r ON r.run = s.run
WHERE s.name = ? AND s.granted_at IS NOT NULL ORDER BY s.granted_at, s.slot LIMIT ?
"""
_WAITERS: Final = """
SELECT r.run_id, nullif(s.position, ''), nullif(s.key, ''), s.since, s.due_at
FROM durable_slots AS s JOIN durable_runs AS r ON r.run = s.run
WHERE s.name = ? AND s.granted_at IS NULL ORDER BY s.slot LIMIT ?
"""


def limit_row(conn: sqlite3.Connection, name: str) -> LimitDetails | None:
    """The limit called *name*; None if no engine has had it."""
    row = conn.execute(f"{_LIMITS} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _limit_row(conn, *row)


def all_limit_rows(conn: sqlite3.Connection) -> list[LimitDetails]:
    """All that an engine has had, by name."""
    return [_limit_row(conn, *row) for row in conn.execute(f"{_LIMITS} ORDER BY name").fetchall()]


def _limit_row(
    conn: sqlite3.Connection,
    name: str,
    concurrency: int | None,
    grants: int | None,
    per: float | None,
    changed: int,
    inside: int,
    waiting: int,
) -> LimitDetails:
    holders = [SlotInfo(*each) for each in conn.execute(_HOLDERS, (name, _MOST_SLOTS))]
    waiters = [SlotInfo(*each) for each in conn.execute(_WAITERS, (name, _MOST_SLOTS))]
    return LimitDetails(name, concurrency, grants, per, bool(changed), inside, waiting, holders, waiters)
