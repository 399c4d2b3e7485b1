"""
Feeds: the later children of a `for_each` with a window, started by the file itself.

Each success of a child creates the next one in the same transaction, its wait row included, and so does a failure
that is tolerated. So the parent is woken once, at the last end or at a failure, instead of being replayed at every
one: 10,000 items cost their children, not the square of that. The parent's own next turn finds in
its inbox what ended, goes through the same window item by item, and records each child that it finds
started. Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Literal, TypeAlias

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.journal.events import ChildSucceeded, SignalReceived
from durable._shell.rows.rows import Effects, NewFeed, NewRun
from durable._shell.rows.templates import begun, from_json, to_json
from durable._shell.storage.bulk import write_many
from durable._shell.storage.seals import is_sound
from durable._shell.writes.damage import isolate
from durable._shell.writes.run_writes import INSERT_WAITS, insert_run
from durable._shell.writes.wakeups import request_cancel

_COPY = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, wakes)
SELECT run, kind, position, at, body, value, payload, wakes FROM durable_inbox WHERE item = ?
"""
_FEED = """
SELECT r.status, f.tolerate, f.size
FROM durable_runs AS r LEFT JOIN durable_feeds AS f ON f.run = r.run AND f.position = ? WHERE r.run = ?
"""
_UNDER_WAY = "SELECT count(*) FROM durable_waits WHERE run = ? AND kind = 'child' AND name = ?"
# The ends of children that are owed: not signals, which have names of their own.
_OWED = "SELECT count(*) FROM durable_inbox WHERE run = ? AND name = ? AND kind <> ?"
_PAY = "UPDATE durable_inbox SET name = NULL WHERE run = ? AND name = ? AND kind <> ?"

#: What the end of a child led to: the next one; the next one once its paused run is resumed; none any more, because
#: of its failure; or none, as there were none to come.
Fed: TypeAlias = Literal["fed", "owed", "stopped", "over"]


def open_feed(conn: sqlite3.Connection, run: int, new: NewFeed) -> None:
    """Keep the items that a window has no room for yet."""
    feed = new.feed
    conn.execute(
        "INSERT INTO durable_feeds (run, position, size, grp, wake_on, template, tolerate) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run, feed.position, feed.window, feed.group, feed.wake_on, to_json([new.template]), feed.tolerate),
    )
    conn.executemany(
        "INSERT INTO durable_feed_items (run, position, item, child, child_id, value) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (run, feed.position, index, number, child_id, arguments)
            for (index, child_id, arguments), number in zip(feed.children, new.numbers, strict=True)
        ],
    )


def feed(
    conn: sqlite3.Connection, run: int, position: str, ended: int, *, succeeded: bool, at: float, effects: Effects
) -> Fed:
    """
    A child of the `for_each` at *position* of *run* has ended: start the next one, or none any more.

    While the run is paused the next one is owed to it: `refill` makes up for that, or `put_behind`.
    """
    status, tolerate, size = conn.execute(_FEED, (position, run)).fetchone()
    if size is None or (tolerate is not None and tolerate < 0):
        return "over"
    paused = status == "paused"
    if not succeeded:
        if tolerate is None:
            _drop(conn, run, position)
            return "stopped"
        if tolerate == 0 and not paused:
            _drop(conn, run, position)
            return "over"
        conn.execute("UPDATE durable_feeds SET tolerate = tolerate - 1 WHERE run = ? AND position = ?", (run, position))
        if tolerate == 0:  # `refill` starts what was owed before, and drops it
            return "over"
    if paused:
        return "owed"
    place = conn.execute("SELECT place FROM durable_runs WHERE run = ?", (ended,)).fetchone()
    _start_next(conn, run, position, 0.0 if place is None else place[0] + 1, at, effects)
    return "fed"


def put_behind(conn: sqlite3.Connection, run: int, position: str) -> None:
    """
    Let a run hear of the failure in a feed before the successes that found it paused.

    In the order in which they came, it would wait for the children that it owes them, and nobody starts those.
    """
    items = conn.execute(
        "SELECT item FROM durable_inbox WHERE run = ? AND kind = ? AND name = ? ORDER BY item",
        (run, ChildSucceeded.kind, position),
    ).fetchall()
    conn.executemany(_COPY, items)
    conn.executemany("DELETE FROM durable_inbox WHERE item = ?", items)


def refill(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> None:
    """Start what the feeds of a run have room for: it was paused."""
    feeds = conn.execute("SELECT position, size, tolerate FROM durable_feeds WHERE run = ?", (run,)).fetchall()
    for position, size, tolerate in feeds:
        if tolerate is None or tolerate >= 0:
            (under_way,) = conn.execute(_UNDER_WAY, (run, position)).fetchone()
            room = size - under_way
        else:  # a failure was one too many, behind these
            (room,) = conn.execute(_OWED, (run, position, SignalReceived.kind)).fetchone()
        for _ in range(room):
            _start_next(conn, run, position, 0.0, at, effects)
        if tolerate is not None and tolerate < 0:
            _drop(conn, run, position)
        conn.execute(_PAY, (run, position, SignalReceived.kind))


def close_feed(conn: sqlite3.Connection, run: int, position: str, at: float, effects: Effects) -> None:
    """
    Start no more, and cancel the running children: the run may not know of all of them yet.

    Their waits stay: a cancelled child is waited for until it has ended.
    """
    _drop(conn, run, position)
    first, behind = member_range(position)
    for (child,) in conn.execute(
        "SELECT run FROM durable_runs WHERE parent = ? AND ended_at IS NULL AND position > ? AND position < ?",
        (run, first, behind),
    ).fetchall():
        request_cancel(conn, child, "its parent no longer waits for it", at, effects)


def close_feeds(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> None:
    """As `close_feed`, for all of a run."""
    for (position,) in conn.execute("SELECT position FROM durable_feeds WHERE run = ?", (run,)).fetchall():
        close_feed(conn, run, position, at, effects)


def member_range(position: str) -> tuple[str, str]:
    """Between what two strings the positions of a group's members stand, however deep they are."""
    return f"{position}.", f"{position}/"  # because "/" is the character behind "."


def _drop(conn: sqlite3.Connection, run: int, position: str) -> None:
    conn.execute("DELETE FROM durable_feeds WHERE run = ? AND position = ?", (run, position))
    conn.execute("DELETE FROM durable_feed_items WHERE run = ? AND position = ?", (run, position))


def _start_next(conn: sqlite3.Connection, run: int, position: str, place: float, at: float, effects: Effects) -> None:
    row = conn.execute(
        "SELECT i.item, i.child, i.child_id, i.value, f.template, f.grp, f.wake_on, i.checksum, f.checksum "
        "FROM durable_feed_items AS i "
        "JOIN durable_feeds AS f ON f.run = i.run AND f.position = i.position "
        "WHERE i.run = ? AND i.position = ? ORDER BY i.item LIMIT 1",
        (run, position),
    ).fetchone()
    if row is None:
        _drop(conn, run, position)
        return
    item, number, child_id, arguments, template, group, wake_on, of_item, of_feed = row
    if of_item is not None and not is_sound(conn, "durable_feed_items", run, position, item):
        isolate(conn, "durable_feed_items", (run, position, item), at, effects)
        return
    if of_feed is not None and not is_sound(conn, "durable_feeds", run, position):
        isolate(conn, "durable_feeds", (run, position), at, effects)
        return
    conn.execute("DELETE FROM durable_feed_items WHERE run = ? AND position = ? AND item = ?", (run, position, item))
    where = f"{position}.{item}"
    new = _child(template, number, child_id, arguments, at)
    insert_run(conn, evolve(new, parent=run, position=where, place=place), effects, waits_since=at)
    write_many(conn, INSERT_WAITS, [(run, group, where, "child", wake_on, position, number, None, at)])


def _child(template: str, number: int, child_id: str, arguments: Payload, at: float) -> NewRun:
    (kept,) = from_json(template)
    new = begun(kept, run=number, run_id=child_id, now=at)
    return evolve(new, started=evolve(new.started, value=arguments))
