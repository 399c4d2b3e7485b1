"""
Who learns that a run has ended. Runs on the writer's thread, inside an open transaction.

The rows that wait for it are closed, its outcome goes into the inboxes of those who waited, and
a run whose group is complete is woken. Nothing is counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from durable._core.codec.codec import Payload
from durable._core.journal.events import ChildCancelled, ChildFailed, ChildSucceeded, Event
from durable._core.light_frozen import light_frozen
from durable._shell.rows.rows import Effects
from durable._shell.storage.bulk import about_many, write_many
from durable._shell.storage.seals import is_sound
from durable._shell.writes.damage import isolate
from durable._shell.writes.feeds import feed, member_range, put_behind
from durable._shell.writes.wakeups import DELETE_WAITS, INSERT_ITEMS, is_open, item_row, request_cancel, start_due, wake

_WAITS_FOR = """
SELECT target, wait, run, grp, position, wake_on, name, kind, checksum FROM durable_waits
WHERE target IN ({items}) ORDER BY wait
"""


@light_frozen
class AwaitedEnd:
    """How a run ended."""

    run: int
    run_id: str
    status: str
    outcome: Payload | None
    reason: str
    at: float

    def arrival(self, position: str) -> Event:
        """The event that this is for a run that waited at *position*."""
        if self.status == "succeeded":
            return ChildSucceeded(position, self.outcome, self.at)
        if self.status == "failed":
            return ChildFailed(position, self.run_id, self.outcome, self.at)
        return ChildCancelled(position, self.run_id, self.reason, self.at)


def tell_waiters(conn: sqlite3.Connection, ends: Sequence[AwaitedEnd], effects: Effects) -> None:
    """
    Close the waits for runs that ended, and wake the runs whose group is complete.

    Taken together for a whole commit group: 500 children that end at once close their rows and
    put their outcomes in a handful of statements, and their parent is looked at once.
    """
    closed: list[int] = []
    fed: list[tuple[int, str, str, AwaitedEnd]] = []
    items: list[tuple[int, str, str, str, Event]] = []
    in_line: dict[int, float] = {}
    failed: list[tuple[int, str, float]] = []
    waits: dict[int, list[Any]] = {}
    for target, *wait in about_many(conn, _WAITS_FOR, [end.run for end in ends]):
        waits.setdefault(target, []).append(wait)
    for end in ends:
        for wait, waiter, group, position, wake_on, feeds, kind, seal in waits.get(end.run, ()):
            if seal is not None and not is_sound(conn, "durable_waits", wait):
                isolate(conn, "durable_waits", (wait,), end.at, effects)
                continue
            closed.append(wait)
            if kind == "start":
                in_line[waiter] = end.at
                continue
            if feeds is not None:
                fed.append((waiter, feeds, position, end))
            wakes = wake_on
            if end.status != "succeeded" and wake_on in ("failure", "fail_fast"):
                wakes = "any"
                if wake_on == "fail_fast":
                    failed.append((waiter, position.rpartition(".")[0], end.at))
            items.append((waiter, group, position, wakes, end.arrival(position)))
    if not closed:
        return
    about_many(conn, DELETE_WAITS, closed)
    for waiter, at in in_line.items():
        start_due(conn, waiter, at, effects)
    owed: dict[tuple[int, str], str] = {}
    stopped: list[tuple[int, str]] = []
    for waiter, feeds, position, end in fed:
        succeeded = end.status == "succeeded"
        led_to = feed(conn, waiter, feeds, end.run, succeeded=succeeded, at=end.at, effects=effects)
        if led_to == "owed":
            owed[waiter, position] = feeds
        elif led_to == "stopped":
            stopped.append((waiter, feeds))
    complete: dict[tuple[int, str], bool] = {}
    rows: list[Any] = []
    woken: dict[int, float] = {}
    for waiter, group, position, wake_on, event in items:
        wakes = wake_on == "any"
        if not wakes:
            of_one = waiter, group
            if of_one not in complete:
                complete[of_one] = not is_open(conn, waiter, group)
            wakes = complete[of_one]
        rows.append(item_row(conn, waiter, event, wakes=wakes, name=owed.get((waiter, position)) if owed else None))
        if wakes:
            woken[waiter] = event.at
    write_many(conn, INSERT_ITEMS, rows, is_bound=True)
    for waiter, feeds in stopped:
        put_behind(conn, waiter, feeds)
    for waiter, at in woken.items():
        wake(conn, waiter, at, effects)
    for waiter, owner, at in failed:
        _cancel_members(conn, waiter, owner, at, effects)


def _cancel_members(conn: sqlite3.Connection, run: int, position: str, at: float, effects: Effects) -> None:
    """
    Cancel the children in the group at *position* of *run*: one has failed, and it fails fast.

    The run's next turn would, too; but until then one of them could begin in the slot that the failed one left.
    """
    first, behind = member_range(position)
    conn.execute("DELETE FROM durable_feed_items WHERE run = ? AND position > ? AND position < ?", (run, first, behind))
    for (child,) in conn.execute(
        # by its waits, so that children which are only started are left alone
        "SELECT r.run FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.target "
        "WHERE w.run = ? AND w.kind = 'child' AND w.position > ? AND w.position < ? "
        "AND r.parent = w.run AND r.ended_at IS NULL",
        (run, first, behind),
    ).fetchall():
        request_cancel(conn, child, "its parent no longer waits for it", at, effects)
