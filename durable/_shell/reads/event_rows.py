"""
What the engine and its clients read of events, inboxes and places in line. Runs on the reader's thread.

Short transactions. What lists and describes runs stands in `run_rows`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.journal.columns import from_row
from durable._core.journal.events import CancelRequested, Event
from durable._core.light_frozen import light_frozen
from durable._core.recorded.export_format import StepNote
from durable._core.recorded.memos import RecordedMemo, memos_in
from durable._core.statuses import ENDS, STATUSES
from durable._shell.reads.damaged_rows import misplaced, require_sound, require_sound_notes
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.ready_rows import SELECT_READY, ready_run
from durable._shell.reads.run_rows import RunRow, damaged, last_of_chain
from durable._shell.rows.checksums import is_chained
from durable._shell.rows.rows import (
    InboxItem,
    ReadyRun,
    RunResult,
    RunState,
    payload_digest,
    read_events,
    read_more_events,
)
from durable._shell.storage.connections import is_no_text
from durable.errors import DecodeError, DurableError, JournalCorruptError


def read_end(conn: sqlite3.Connection, run: int) -> RunResult:
    """Status, closing payload and reason of a run that has ended."""
    row = conn.execute(
        "SELECT r.status, coalesce(e.value, p.value), r.reason FROM durable_runs AS r "
        "LEFT JOIN durable_events AS e ON e.run = r.run AND e.seq = "
        "(SELECT max(seq) FROM durable_events WHERE run = r.run) "
        "LEFT JOIN durable_payloads AS p ON p.payload = e.payload WHERE r.run = ?",
        (run,),
    ).fetchone()
    return RunResult(row[0], row[1], row[2] or "")


def outcome_of(conn: sqlite3.Connection, path: str, run_id: str) -> tuple[RunRow | None, RunResult | None]:
    """
    The run called *run_id*, or the one it continued as; and its outcome, if it has ended.

    Raises:
        JournalDamagedError: It has no status that a run can have: nobody would ever hear of its end.
        JournalCorruptError: As `checked_end`.
    """
    row = last_of_chain(conn, run_id)
    if row is not None and row.status not in STATUSES:
        raise damaged(conn, f"run {row.run_id!r} has the status {row.status!r:.40}")
    return row, None if row is None or row.status not in ENDS else checked_end(conn, path, row)


def checked_end(conn: sqlite3.Connection, path: str, row: RunRow) -> RunResult:
    """
    `read_end` of *row*, compared with its checksum.

    Raises:
        JournalCorruptError: If it does not match.
    """
    size = 0
    try:
        (size,) = conn.execute("SELECT coalesce(max(seq), 0) FROM durable_events WHERE run = ?", (row.run,)).fetchone()
        found = conn.execute(_LAST_EVENTS, (row.run, size - 1)).fetchall()
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
        found = []
    before = found[0][6] if len(found) > 1 else 0
    if not found or not is_chained(found[-1][6], before, *found[-1][1:6]):
        found = _end_among_others(conn, path, row)
        if not found:
            raise JournalCorruptError(path, row.run_id, size, "it does not match its checksum")
    return RunResult(row.status, found[-1][5], row.reason or "")


def _end_among_others(conn: sqlite3.Connection, path: str, row: RunRow) -> list[Any]:
    """The last event of a run with which `misplaced` ones stand; [] if that is not all that is wrong."""
    others = {each.seq for each in misplaced(conn, row.run)}
    rows = [each for each in event_rows(conn, row.run) if each[0] not in others]
    try:
        read_more_events(path, row.run_id, rows, 0, 0, [])
    except (JournalCorruptError, DecodeError):
        return []
    return rows[-1:] if others else []


_EVENT_COLUMNS = """
SELECT e.seq, e.kind, e.position, e.at, e.body, coalesce(e.value, p.value), e.checksum
FROM durable_events AS e LEFT JOIN durable_payloads AS p ON p.payload = e.payload
WHERE e.run = ? ORDER BY e.seq
"""
_EVENTS_AFTER = """
SELECT e.seq, e.kind, e.position, e.at, e.body, coalesce(e.value, p.value), e.checksum
FROM durable_events AS e LEFT JOIN durable_payloads AS p ON p.payload = e.payload
WHERE e.run = ? AND e.seq > ? ORDER BY e.seq LIMIT ?
"""
_LAST_EVENTS = """
SELECT e.seq, e.kind, e.position, e.at, e.body, coalesce(e.value, p.value), e.checksum
FROM durable_events AS e LEFT JOIN durable_payloads AS p ON p.payload = e.payload
WHERE e.run = ? AND e.seq >= ? ORDER BY e.seq
"""


@light_frozen
class Loaded:
    """A run as the driver takes it over: its events as rows, and what waits in its inbox."""

    #: Whether it still could proceed when it was read.
    ready: bool
    #: Whether a turn of it was written: one that was forked has events, and has not begun.
    begun: bool
    rows: list[Any]
    items: list[InboxItem]


def load_run(conn: sqlite3.Connection, run: int) -> Loaded:
    """
    All of one run, read in one go.

    Raises:
        JournalDamagedError: What it published, what arrived for it, or what its steps noted does not fit its seal.
    """
    row = conn.execute("SELECT ready_at, started_at, checksum FROM durable_runs WHERE run = ?", (run,)).fetchone()
    ready_at, started_at, seal = row or (None, None, None)
    if seal is not None:
        require_sound(conn, run, "durable_runs", run)
    require_sound_notes(conn, run)
    return Loaded(ready_at is not None, started_at is not None, event_rows(conn, run), load_items(conn, run, 0))


def event_rows(conn: sqlite3.Connection, run: int) -> list[Any]:
    """All events of one run as rows. Text that is none any more ends them with a row that no checksum fits."""
    try:
        return conn.execute(_EVENT_COLUMNS, (run,)).fetchall()
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
    rows: list[Any] = []
    cursor = conn.execute(_EVENT_COLUMNS, (run,))
    while True:
        try:
            rows.append(next(cursor))
        except sqlite3.OperationalError:
            return [*rows, (len(rows) + 1, 0, None, 0.0, None, None, None)]


def load_items(conn: sqlite3.Connection, run: int, after: int) -> list[InboxItem]:
    """
    The inbox of a run, in order of arrival, from behind item *after*.

    Raises:
        JournalDamagedError: An item does not fit its seal.
    """
    rows = conn.execute(
        "SELECT i.item, i.kind, i.position, i.body, coalesce(i.value, p.value), i.at, i.checksum, p.digest "
        "FROM durable_inbox AS i "
        "LEFT JOIN durable_payloads AS p ON p.payload = i.payload WHERE i.run = ? AND i.item > ? ORDER BY i.item",
        (run, after),
    ).fetchall()
    return [
        InboxItem(item, from_row(kind, position, body, value, at))
        for item, kind, position, body, value, at, seal, digest in rows
        if seal is None or _is_its_own(conn, run, item, value, digest)
    ]


def _is_its_own(conn: sqlite3.Connection, run: int, item: int, value: Payload | None, digest: bytes | None) -> bool:
    """Whether an item that was sealed is *run*'s. Raises as `load_items`."""
    if not require_sound(conn, run, "durable_inbox", item):
        return False
    if digest is not None and value is not None and payload_digest(value) != digest:
        raise damaged(conn, f"the large value of item {item} in the inbox of run number {run} is another one")
    return True


def cancel_in_inbox(conn: sqlite3.Connection, run: int) -> CancelRequested | None:
    """The request to cancel a run that no turn has taken in yet."""
    row = conn.execute(
        "SELECT kind, position, body, value, at FROM durable_inbox WHERE run = ? AND kind = ? ORDER BY item LIMIT 1",
        (run, CancelRequested.kind),
    ).fetchone()
    found = None if row is None else from_row(*row)
    return found if isinstance(found, CancelRequested) else None


def load_history(conn: sqlite3.Connection, path: str, run: RunRow) -> list[Event]:
    """The events of *run*, checked."""
    state = RunState(run.run, run.run_id, run.workflow, run.queue)
    return read_events(path, state, event_rows(conn, run.run))


def event_rows_after(conn: sqlite3.Connection, run: int, seq: int, limit: int) -> list[Any]:
    """Up to *limit* events of one run as rows, from behind *seq*; a damaged text ends them as in `columns`."""
    try:
        return conn.execute(_EVENTS_AFTER, (run, seq, limit)).fetchall()
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
    return [row for row in event_rows(conn, run) if row[0] > seq][:limit]


def readable_events(rows: Sequence[Any], path: str, run: RunRow) -> tuple[list[Event], DurableError | None]:
    """
    The events of *run* as far as they can be trusted, and what is wrong with the next one.

    *rows* are those of `columns`.
    """
    state = RunState(run.run, run.run_id, run.workflow, run.queue)
    try:
        return read_events(path, state, rows), None
    except JournalCorruptError as error:
        return read_events(path, state, rows[: error.seq - 1]), error
    except DecodeError as error:
        events: list[Event] = []
        with suppress(DecodeError):
            for _, kind, position, at, body, value, _ in rows:
                events.append(from_row(kind, position, body, value, at))
        return events, error


def ready_runs(conn: sqlite3.Connection, queue: str, limit: int) -> list[ReadyRun]:
    """
    The first *limit* runs of *queue* that could proceed.

    One of which nothing but its start is recorded comes with that, so that nobody has to read it again.
    """
    rows = fetch_all(conn, _READY_RUNS, (queue, limit))
    return [_with_start(ready_run(row[:-5]), *row[-5:]) for row in rows]


_READY_RUNS = (
    "SELECT r.*, e.at, e.body, e.value, e.checksum, e.kind FROM (" + SELECT_READY + "WHERE queue = ? "  # noqa: S608 - constants
    "AND ready_at IS NOT NULL ORDER BY priority DESC, place, ready_at, run LIMIT ?) AS r "
    # Large payloads stay in the file: a thousand of them would be a gigabyte.
    "LEFT JOIN durable_events AS e ON e.run = r.run AND e.seq = 1 AND NOT r.begun AND e.payload IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM durable_events AS n WHERE n.run = r.run AND n.seq = 2) "
    "AND NOT EXISTS (SELECT 1 FROM durable_inbox AS i WHERE i.run = r.run)"
)


def _with_start(ready: ReadyRun, at: float, body: str | None, value: Any, recorded: int, kind: int | None) -> ReadyRun:
    if kind is None or not is_chained(recorded, 0, kind, None, at, body, value):
        return ready  # not judged here, since its driver loads it, and blocks it if it is damaged
    event = from_row(kind, None, body, value, at)
    return evolve(ready, fresh=(event, recorded)) if event.category == "start" else ready


def places(conn: sqlite3.Connection) -> list[tuple[str, str | None, float, float]]:
    """(queue, group, first place, last place) of the groups of runs that could begin, see `Places.recover`."""
    return fetch_all(
        conn,
        "SELECT queue, coalesce("
        "char(10) || CASE WHEN json_valid(labels) THEN json_extract(labels, '$.\"' || fair_by || '\"') END, "
        "CASE WHEN parent IS NULL THEN workflow END) AS grp, min(place), max(place) "
        "FROM durable_runs AS r LEFT JOIN durable_queues AS q ON q.name = r.queue "
        "WHERE ready_at IS NOT NULL AND started_at IS NULL GROUP BY queue, grp",
    )


def recent_starts(conn: sqlite3.Connection, queue: str, since: float, count: int) -> list[float]:
    """When the latest *count* runs of *queue* began that began after *since*."""
    rows = conn.execute(
        "SELECT started_at FROM durable_runs WHERE queue = ? AND started_at > ? ORDER BY started_at DESC LIMIT ?",
        (queue, since, count),
    )
    return [at for (at,) in rows]


def ready_queues(conn: sqlite3.Connection) -> list[str]:
    """The queues in which something could proceed."""
    rows = fetch_all(
        conn,
        "WITH RECURSIVE q(name) AS (SELECT min(queue) FROM durable_runs WHERE ready_at IS NOT NULL UNION ALL "
        "SELECT (SELECT min(queue) FROM durable_runs WHERE ready_at IS NOT NULL AND queue > q.name) "
        "FROM q WHERE q.name IS NOT NULL) SELECT name FROM q WHERE name IS NOT NULL",
    )
    return [name for (name,) in rows]


def next_fire_at(conn: sqlite3.Connection) -> float | None:
    """When the next timer is due."""
    timers = conn.execute(
        "SELECT min(fire_at) FROM durable_waits WHERE fire_at IS NOT NULL "
        "UNION ALL SELECT min(due_at) FROM durable_slots WHERE due_at IS NOT NULL"
    ).fetchall()
    return min((at for (at,) in timers if at is not None), default=None)


def last_run(conn: sqlite3.Connection) -> int:
    """
    The highest run number, those included that children of feeds are to have.

    And one that only an event names, since damage put it there: no new run gets that event.
    """
    (last,) = conn.execute("SELECT coalesce(max(run), 0) FROM durable_runs WHERE run < ?", (_NO_RUN,)).fetchone()
    (named,) = conn.execute("SELECT coalesce(max(run), 0) FROM durable_events WHERE run < ?", (_NO_RUN,)).fetchone()
    (promised,) = conn.execute(
        "SELECT coalesce(max(child), 0) FROM durable_feed_items WHERE child < ?", (_NO_RUN,)
    ).fetchone()
    return int(max(last, named, promised))


#: No number that was given to a run: behind one that a flipped bit made so large, none would be left for others.
_NO_RUN = 2**62


_LATEST_NOTE = "SELECT max(at) FROM durable_notes WHERE run = ? AND position = ? AND name NOT GLOB 'kept:*'"


def latest_note_at(conn: sqlite3.Connection, run: int, position: str) -> float | None:
    """When a step recorded its newest cursor or memo, if it did."""
    row = conn.execute(_LATEST_NOTE, (run, position)).fetchone()
    at: float | None = row[0]
    return at


def notes_of(conn: sqlite3.Connection, run: int) -> dict[str, dict[str, Any]]:
    """The cursors and memos of a run, by position and name; also those that are kept of steps that have succeeded."""
    found: dict[str, dict[str, Any]] = {}
    rows = conn.execute("SELECT position, name, value FROM durable_notes WHERE run = ? ORDER BY at, name", (run,))
    for position, name, value in rows:
        found.setdefault(position, {})[name.removeprefix("kept:")] = value
    return found


def memos_of(conn: sqlite3.Connection, run: int, most: int = -1) -> list[RecordedMemo]:
    """The memos of a run's steps, in the order in which they were recorded; with *most* the newest."""
    rows = fetch_all(
        conn,
        "SELECT position, name, value, at FROM durable_notes WHERE run = ? AND name GLOB '*memo:*'"
        " ORDER BY at DESC, position DESC, name DESC LIMIT ?",
        (run, most),
    )
    return memos_in(StepNote(*row) for row in reversed(rows))


def notes_left(conn: sqlite3.Connection, run: int, position: str) -> dict[str, Any]:
    """The cursors and memos that an earlier attempt of a step left."""
    return dict(
        conn.execute(
            "SELECT name, value FROM durable_notes WHERE run = ? AND position = ? AND name NOT GLOB 'kept:*'",
            (run, position),
        ).fetchall()
    )
