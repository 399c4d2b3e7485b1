"""
Reads streams, and whether there is news of a run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from durable._core.codec.codec import Payload
from durable._core.light_tuples import NamedTuple
from durable._core.statuses import ENDS, STATUSES
from durable._shell.reads.run_rows import damaged
from durable._shell.storage.seals import fits_seal

#: Items of a page.
PAGE: Final = 500

_NEWS = """
SELECT r.run, r.successor, r.status, r.said, r.ready_at IS NOT NULL,
    (SELECT max(seq) FROM durable_events WHERE run = r.run)
FROM durable_runs AS r WHERE r.run_id = ?
"""
_NAMES = """
SELECT s.stream, s.items, latest.at FROM (
    SELECT stream, count(*) AS items, min(entry) AS first, max(entry) AS last FROM durable_stream_items
    WHERE run = (SELECT run FROM durable_runs WHERE run_id = ?) GROUP BY stream
) AS s JOIN durable_stream_items AS latest ON latest.entry = s.last ORDER BY s.first
"""
_ITEMS = """
SELECT entry, value, position, attempt, at, checksum FROM durable_stream_items
WHERE run = ? AND stream = ? AND entry > ? ORDER BY entry LIMIT ?
"""
_LATEST = """
SELECT entry, value, position, attempt, at FROM durable_stream_items
WHERE run = (SELECT run FROM durable_runs WHERE run_id = ?) AND stream = ? ORDER BY entry DESC LIMIT ?
"""


class ItemRow(NamedTuple):
    """An item of a stream."""

    seq: int
    value: Payload
    position: str
    attempt: int
    at: float


class StreamPage(NamedTuple):
    """Items of a stream, and what the run is like in that very moment."""

    items: list[ItemRow]
    #: Whether the run has ended; then there are no more behind these, unless it continued as its successor.
    ended: bool
    successor: str | None
    mark: str


def news_mark(conn: sqlite3.Connection, run_id: str) -> tuple[int, str] | None:
    """The number of a run, and a text that changes whenever there is news of it; None if there is no such run."""
    row = conn.execute(_NEWS, (run_id,)).fetchone()
    return None if row is None else (row[0], _mark(row))


def stream_page(conn: sqlite3.Connection, run_id: str, stream: str, after: int) -> StreamPage | None:
    """
    The items of a stream behind *after*; None if there is no such run.

    Raises:
        JournalDamagedError: One of them does not fit its seal, or the run is none that can have any.
    """
    row = conn.execute(_NEWS, (run_id,)).fetchone()
    if row is None:
        return None
    if row[5] is None:  # its number is another than that of its events, and of its items
        raise damaged(conn, f"run {run_id!r} has no events")
    if row[2] not in STATUSES:  # nobody would ever hear of its end
        raise damaged(conn, f"run {run_id!r} has the status {row[2]!r:.40}")
    items: list[ItemRow] = []
    for *columns, seal in conn.execute(_ITEMS, (row[0], stream, after, PAGE)):
        item = ItemRow(*columns)
        if not fits_seal(seal, item.seq, row[0], stream, item.position, item.attempt, item.value, item.at):
            raise damaged(conn, f"item {item.seq} of stream {stream!r} of run {run_id!r} does not match its checksum")
        items.append(item)
    return StreamPage(items, row[2] in ENDS, row[1], _mark(row))


def latest_items(conn: sqlite3.Connection, run_id: str, stream: str, limit: int) -> list[ItemRow]:
    """The last items of a stream, the oldest of them first."""
    return [ItemRow(*each) for each in conn.execute(_LATEST, (run_id, stream, limit)).fetchall()][::-1]


def _mark(row: Sequence[object]) -> str:
    return ":".join(map(str, row[2:]))


def streams_of(conn: sqlite3.Connection, run_id: str) -> list[tuple[str, int, float]]:
    """The streams of a run, in the order in which they began: name, items, time of the latest."""
    return conn.execute(_NAMES, (run_id,)).fetchall()
