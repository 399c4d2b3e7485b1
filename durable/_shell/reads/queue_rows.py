"""
Numbers of queues that were changed at run time, and hold in place of those of the code.
"""

from __future__ import annotations

import sqlite3

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
