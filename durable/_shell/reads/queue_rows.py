"""
Numbers of queues and limits that were changed at run time, and hold in place of those of the code.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from durable._core.admission import Queue
from durable._core.codec.json_text import read_list
from durable._core.policies.limits import Rate
from durable._shell.reads.event_rows import recent_starts
from durable._shell.reads.lenient import fetch_all
from durable._shell.rows.rows import ChangedQueue, Damaged
from durable.errors import DefinitionError


def changed_queues(conn: sqlite3.Connection, now: float) -> tuple[dict[str, ChangedQueue], list[Damaged]]:
    """The queues with other numbers than the code has for them; and those whose numbers cannot be read."""
    found: dict[str, ChangedQueue] = {}
    damaged: list[Damaged] = []
    rows = fetch_all(conn, "SELECT name, changed FROM durable_queues WHERE changed IS NOT NULL")
    for name, changed in rows:
        try:
            found[name] = changed_queue(conn, name, changed, now, None)
        except ValueError as error:
            damaged.append(Damaged("queue", name, f"{error}. Those of the code hold: change or reset them"))
    return found, damaged


def changed_queue(
    conn: sqlite3.Connection, name: str, changed: str | None, now: float, own: Rate | None
) -> ChangedQueue:
    """
    A queue with the numbers in *changed*, a column of `durable_queues`; None are the code's, whose rate is *own*.

    Raises:
        ValueError: They are none.
    """
    numbers = None if changed is None else _queue(name, changed)
    rate = own if numbers is None else numbers.rate
    starts = [] if rate is None else recent_starts(conn, name, since=now - rate.per, count=rate.count)
    return ChangedQueue(numbers, starts)


def numbers_of_queue(conn: sqlite3.Connection, name: str) -> Queue | None:
    """The numbers that hold in place of the code's; None if those do, as where they are damaged."""
    rows = fetch_all(conn, "SELECT changed FROM durable_queues WHERE name = ?", (name,))
    try:
        return None if not rows or rows[0][0] is None else _queue(name, rows[0][0])
    except ValueError:
        return None


def _queue(name: str, changed: str) -> Queue:
    numbers = read_list(changed, int | None, int | None, int | float | None)
    try:
        if numbers is not None:
            concurrency, count, per = numbers
            return Queue(name, concurrency, rate=None if count is None else Rate(count, per=per))
    except DefinitionError:
        pass
    msg = f"these are no numbers of a queue: {changed!r:.80}"
    raise ValueError(msg)


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
