"""
Waits, inboxes and wake-ups. Runs on the writer's thread, inside an open transaction.

Wake-ups are rows: what ends a wait deletes its row and puts an arrival into the inbox of
the run that waited; if that was the last row of its group (or the wait says so), the run is
marked ready in the same transaction. Nothing is counted, so a parent's wake-up costs the same
with ten members and with ten thousand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeAlias

from durable._core.admission import Places
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.codec.json_text import read_object
from durable._core.journal.columns import to_row
from durable._core.journal.events import (
    CancelRequested,
    CleanupTimedOut,
    Event,
    HeartbeatMissed,
    RunExpired,
    RunTimedOut,
    SignalReceived,
    SlotGranted,
    StepInterrupted,
    StepNotBegun,
    TimerFired,
)
from durable._core.statuses import ENDS, HELD
from durable._shell.claims import slots
from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.damaged_rows import owner_of
from durable._shell.reads.lenient import LOST, fetch_all
from durable._shell.reads.ready_rows import read_ready
from durable._shell.reads.run_rows import HELD_SQL, RunRow, current_run
from durable._shell.rows.rows import LARGE_BYTES, Damaged, Effects, Large, ReadyRun, Stopped, stored
from durable._shell.storage.bulk import NULL, about_many, write_many
from durable._shell.storage.seals import is_sound
from durable._shell.writes.apart import apart
from durable.errors import RunStateError

INSERT_ITEMS = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, name, wakes)
VALUES {rows}
"""
DELETE_WAITS = "DELETE FROM durable_waits WHERE wait IN ({items})"
_UNPAUSE = "UPDATE durable_runs SET status = 'pending', reason = NULL WHERE run = ? AND started_at IS NULL"
_IS_HELD = f"SELECT 1 FROM durable_runs WHERE run = ? AND status IN {HELD_SQL}"  # noqa: S608 - a constant
_MOVE_UP = """
INSERT OR IGNORE INTO durable_waits (run, grp, position, kind, wake_on, target, since)
SELECT behind.run, '', mine.position, 'start', 'any', mine.target, behind.since
FROM durable_waits AS mine, durable_waits AS behind
WHERE mine.run = :run AND mine.kind = 'start' AND mine.target IS NOT NULL
  AND behind.target = :run AND behind.kind = 'start'
"""
#: A run and what it has started: who has nothing in progress (a job may wait for a slot, or its next attempt), and
#: whose windows are to start no more. Not below one that cleans up already: what it has started since is part of that.
#: Of these only what ends with the wait for it: a run that was merely started, or staged, or that others want, stays.
_BELOW = """
WITH RECURSIVE below(run, status, sort) AS (
    SELECT run, 'asked', sort FROM durable_runs WHERE run = ?
    UNION
    SELECT r.run, r.status, r.sort FROM durable_runs AS r JOIN below ON r.parent = below.run
    WHERE r.ended_at IS NULL AND r.on_parent_end IS NULL
        AND EXISTS (
            SELECT 1 FROM durable_waits AS w
            WHERE w.target = r.run AND w.run = below.run AND w.kind = 'child' AND w.position = r.position
        )
        AND NOT EXISTS (
            SELECT 1 FROM durable_waits AS w WHERE w.target = r.run AND w.run <> below.run AND w.kind = 'child'
        )
        AND NOT EXISTS (SELECT 1 FROM durable_waits AS w WHERE w.run = below.run AND w.kind = 'cleanup')
)
SELECT run, status = 'pending' OR (status = 'waiting' AND sort = 'job'),
    EXISTS (SELECT 1 FROM durable_feeds AS f WHERE f.run = below.run)
        AND NOT EXISTS (SELECT 1 FROM durable_waits AS w WHERE w.run = below.run AND w.kind = 'cleanup')
FROM below ORDER BY run
"""


def keep_payload(conn: sqlite3.Connection, large: Large) -> int:
    """The row of a large payload, which is stored if no equal one is."""
    row = conn.execute("SELECT payload FROM durable_payloads WHERE digest = ?", (large.digest,)).fetchone()
    if row is not None:
        return int(row[0])
    added = conn.execute("INSERT INTO durable_payloads (digest, value) VALUES (?, ?)", (large.digest, large.value))
    return added.lastrowid or 0


def put_item(conn: sqlite3.Connection, run: int, event: Event, effects: Effects, *, wakes: bool) -> None:
    """Put an arrival into a run's inbox, and wake the run if it *wakes*."""
    write_many(conn, INSERT_ITEMS, [item_row(conn, run, event, wakes=wakes)], is_bound=True)
    if wakes:
        wake(conn, run, event.at, effects)


def put_signal(conn: sqlite3.Connection, run: RunRow, signal: SignalReceived, effects: Effects) -> None:
    """
    Put a signal into a run's inbox, and wake the run if it waits for one of that name.

    Raises:
        RunStateError: The run has ended.
    """
    if run.status in ENDS:
        what = f"ask {signal.name!r} of" if signal.request else f"signal {signal.name!r} to"
        raise RunStateError(run.run_id, run.status, what, "Start a new run")
    waiting = conn.execute(
        "SELECT 1 FROM durable_waits WHERE run = ? AND kind IN ('signal', 'request') AND name = ? LIMIT 1",
        (run.run, signal.name),
    ).fetchone()
    put_item(conn, run.run, signal, effects, wakes=waiting is not None)


def send_signal(
    conn: sqlite3.Connection, run_id: str, signal: SignalReceived, dedup: str | None, effects: Effects
) -> bool:
    """
    Send a signal to the run called *run_id*; False if *dedup* was accepted before.

    Raises:
        RunNotFoundError, RunStateError: There is no such run, or it has ended. Nothing was written.
    """
    run = current_run(conn, run_id)
    # First of all: who repeats a signal that was accepted did nothing wrong, whatever became of the run.
    if (
        dedup is not None
        and conn.execute("SELECT 1 FROM durable_dedup WHERE run = ? AND dedup = ?", (run.run, dedup)).fetchone()
    ):
        return False
    put_signal(conn, run, signal, effects)
    if dedup is not None:
        conn.execute("INSERT INTO durable_dedup (run, dedup) VALUES (?, ?)", (run.run, dedup))
    return True


def close_callback(conn: sqlite3.Connection, run: int, position: str) -> None:
    """Let nobody answer a callback any more."""
    conn.execute(
        "DELETE FROM durable_waits WHERE run = ? AND position = ? AND kind IN ('callback', 'heartbeat')",
        (run, position),
    )


def item_row(
    conn: sqlite3.Connection, run: int, event: Event, *, wakes: bool, name: str | None = None
) -> tuple[Any, ...]:
    """An arrival as a row of the inbox, `NULL` where it is empty; *name*: the feed that owes a run for it."""
    kind, position, body, value = to_row(event)
    kept: Any = NULL if value is None else value if len(value) < LARGE_BYTES else stored(value)
    payload: Any = NULL
    if type(kept) is Large:
        kept, payload = NULL, keep_payload(conn, kept)
    name = event.name if kind == SignalReceived.kind else name
    placed = NULL if position is None else position
    called = NULL if name is None else name
    return (run, kind, placed, event.at, NULL if body is None else body, kept, payload, called, wakes)


def wake(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> None:
    """Mark a freed run ready; an active one is notified."""
    woken = conn.execute(
        "UPDATE durable_runs SET status = 'running', ready_at = ? WHERE run = ? AND status = 'waiting'", (at, run)
    )
    if woken.rowcount:
        effects.ready.append(read_ready(conn, run))
    else:
        effects.arrived.add(run)


def is_open(conn: sqlite3.Connection, run: int, group: str) -> bool:
    """Whether a group of waits has a row left."""
    found = conn.execute("SELECT 1 FROM durable_waits WHERE run = ? AND grp = ? LIMIT 1", (run, group)).fetchone()
    return found is not None


def fire_due(conn: sqlite3.Connection, now: float, limit: int, effects: Effects, places: Places | None = None) -> int:
    """
    Let up to *limit* timers fire that are due, in the order of their deadlines; how many did.

    A run whose delay is over gets its place in line here, among those of *places*: not before what waits already.
    """
    due = conn.execute(_DUE, (now, limit)).fetchall()
    _fire(conn, due, now, PlacesFromFile(conn, places), effects)
    _next_timer(conn, effects)
    let_in(conn, slots.grant_due(conn, now, limit, effects), now, effects)
    return len(due)


def fire_apart(
    conn: sqlite3.Connection, now: float, limit: int, effects: Effects, places: Places | None = None
) -> None:
    """
    As `fire_due`, once that has failed: what cannot fire blocks its run, and all others fire.

    A line of a limit in which nobody can be let in stands still until the next one leaves it.
    """
    lines = PlacesFromFile(conn, places)

    def fire(conn: sqlite3.Connection, due: Sequence[_Timer], mine: Effects) -> None:
        if any(isinstance(text, str) and LOST in text for timer in due for text in timer):
            raise ValueError("a text of it cannot be read")
        _fire(conn, due, now, lines, mine)

    due: list[_Timer] = fetch_all(conn, _DUE, (now, limit))
    for (wait, run, _, position, kind, *_), error in apart(conn, due, fire, effects):
        if not is_sound(conn, "durable_waits", wait):
            run = owner_of(conn, "durable_waits", (wait,))  # noqa: PLW2901 - it may be what was damaged
        conn.execute("DELETE FROM durable_waits WHERE wait = ?", (wait,))
        block_damaged(conn, run, f"its {kind} at {position!r} is damaged", error, effects)
    _next_timer(conn, effects)

    def grant(conn: sqlite3.Connection, _: Sequence[None], mine: Effects) -> None:
        let_in(conn, slots.grant_due(conn, now, limit, mine), now, mine)

    for _, error in apart(conn, [None], grant, effects):
        conn.execute("UPDATE durable_slots SET due_at = NULL WHERE due_at <= ?", (now,))
        effects.damaged.append(Damaged("limits", "", one_line(error)))


_Timer: TypeAlias = tuple[int, int, str, str, str, str, float, float, int | None]
_DUE = """
SELECT wait, run, grp, position, kind, wake_on, fire_at, since, checksum FROM durable_waits
WHERE fire_at <= ? ORDER BY fire_at, wait LIMIT ?
"""


def _next_timer(conn: sqlite3.Connection, effects: Effects) -> None:
    row = conn.execute("SELECT min(fire_at) FROM durable_waits WHERE fire_at IS NOT NULL").fetchone()
    if row[0] is not None:
        effects.fires(row[0])


def _fire(conn: sqlite3.Connection, due: Sequence[_Timer], now: float, lines: PlacesFromFile, effects: Effects) -> None:
    """Let *due* fire, in their order."""
    for wait, *_, seal in due:
        if seal is not None and not is_sound(conn, "durable_waits", wait):
            raise ValueError("it does not match its checksum")
    about_many(conn, DELETE_WAITS, [row[0] for row in due])
    for _, run, group, position, kind, wake_on, fire_at, since, _ in due:
        if kind == "start":
            _line_up(conn, run, lines, now)
            start_due(conn, run, now, effects)
        elif kind == "deadline":
            # rounded to what was given, since the difference of two instants is off by some 1e-7
            seconds = round(fire_at - since, 3)
            put_item(conn, run, RunTimedOut(seconds, now), effects, wakes=True)
            _hurry_unborn(conn, run, effects)
        elif kind == "expiry":
            _expire(conn, run, fire_at, now, effects)
        elif kind == "cleanup":
            put_item(conn, run, CleanupTimedOut(now), effects, wakes=True)
        elif kind in ("callback", "heartbeat"):
            close_callback(conn, run, position)
            over = TimerFired(position, now) if kind == "callback" else HeartbeatMissed(position, now)
            put_item(conn, run, over, effects, wakes=True)
        else:
            wakes = wake_on == "any" or not is_open(conn, run, group)
            put_item(conn, run, TimerFired(position, now), effects, wakes=wakes)


def block_damaged(conn: sqlite3.Connection, run: int, what: str, error: BaseException, effects: Effects) -> None:
    """Block a run, if it is there and open, because of *what* belongs to it."""
    reason = f"JournalDamagedError: {what}: {one_line(error)}"
    blocked = fetch_all(
        conn,
        "UPDATE durable_runs SET status = 'blocked', ready_at = NULL, reason = ? WHERE run = ? AND ended_at IS NULL "
        "RETURNING run_id, workflow",
        (reason, run),
    )
    run_id, workflow = blocked[0] if blocked else (str(run), "")
    if blocked:
        effects.paused.add(run)
        effects.stopped.append(Stopped("blocked", run_id, workflow))
    effects.damaged.append(Damaged("run", run_id, reason))


def _line_up(conn: sqlite3.Connection, run: int, lines: PlacesFromFile, at: float) -> None:
    """Give a run that is due its place."""
    queue, workflow, parent, labels = conn.execute(
        "SELECT queue, workflow, parent, labels FROM durable_runs WHERE run = ?", (run,)
    ).fetchone()
    place = lines.place(queue, workflow, parent, read_object(labels) or {}, at)
    conn.execute("UPDATE durable_runs SET place = ? WHERE run = ?", (place, run))


def _expire(conn: sqlite3.Connection, run: int, expires_at: float, now: float, effects: Effects) -> None:
    """
    Give up a run that has not begun, paused or not.

    Whether it has, its own turn decides, since one may be on its way to the file; and a job that is in line for its
    first slot has not.
    """
    unborn = conn.execute(
        "SELECT status FROM durable_runs WHERE run = ? AND ended_at IS NULL AND (started_at IS NULL OR sort = 'job')",
        (run,),
    ).fetchone()
    if unborn is None:
        return
    if unborn[0] == "paused":
        conn.execute(_UNPAUSE, (run,))
    put_item(conn, run, RunExpired(expires_at, now), effects, wakes=True)
    _hurry_unborn(conn, run, effects)


def start_due(conn: sqlite3.Connection, run: int, now: float, effects: Effects) -> None:
    """Let a run begin, unless it waits for something else first: its delay, the ends of runs before it, or a slot."""
    due = conn.execute(
        "SELECT 1 FROM durable_runs AS r WHERE run = ? AND status = 'pending' AND ready_at IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM durable_waits AS w WHERE w.run = r.run AND w.kind = 'start')",
        (run,),
    ).fetchone()
    if due is None:
        return
    if needs_slot(conn, run):
        claim(conn, run, now, effects)
    else:
        _make_ready(conn, run, now, effects)


def _make_ready(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> None:
    ready = conn.execute(
        "UPDATE durable_runs SET ready_at = ?, status = CASE WHEN started_at IS NULL THEN 'pending' ELSE 'running' END "
        "WHERE run = ? AND status = 'pending' AND ready_at IS NULL",
        (at, run),
    )
    if ready.rowcount:
        effects.ready.append(read_ready(conn, run))


# --- slots of limits -----------------------------------------------------------------------------------


def let_in(conn: sqlite3.Connection, granted: slots.Granted, at: float, effects: Effects) -> None:
    """Tell those who were let in: a step by an arrival, a run by making it ready."""
    for run, position in granted:
        if position:
            put_item(conn, run, SlotGranted(position, at), effects, wakes=True)
        else:
            _make_ready(conn, run, at, effects)


def put_back(conn: sqlite3.Connection, run: int, outcomes: Sequence[Event], effects: Effects) -> None:
    """
    Keep the outcomes of attempts that ended while their run continues no further, and let go of their slots.

    One that was cut off keeps its slot for its next attempt, unless somebody has to let the run
    continue first.
    """
    for event in outcomes:
        put_item(conn, run, event, effects, wakes=True)
        position = event.position or ""
        if not isinstance(event, (StepInterrupted, StepNotBegun)):
            let_in(conn, slots.release(conn, run, position, event.at, effects), event.at, effects)
        elif conn.execute(_IS_HELD, (run,)).fetchone():
            let_in(conn, slots.step_aside(conn, run, event.at, effects, idle=(position,)), event.at, effects)


def needs_slot(conn: sqlite3.Connection, run: int) -> bool:
    """Whether a run has a limit of its own, and no slot of it."""
    found = conn.execute(
        "SELECT 1 FROM durable_runs AS r WHERE run = ? AND limit_name IS NOT NULL AND NOT EXISTS (SELECT 1 "
        "FROM durable_slots AS s WHERE s.run = r.run AND s.position = '' AND s.granted_at IS NOT NULL)",
        (run,),
    ).fetchone()
    return found is not None


def claim(conn: sqlite3.Connection, run: int, at: float, effects: Effects, *, waits: bool = False) -> None:
    """Ask for the slot that a run needs before it begins, as its limit says; *waits*: in line, whatever that says."""
    name, key = conn.execute("SELECT limit_name, limit_key FROM durable_runs WHERE run = ?", (run,)).fetchone()
    conflict = "wait" if waits else slots.on_conflict(conn, name)
    if conflict == "reject" and not slots.has_room(conn, name, key, at):
        request_cancel(conn, run, f"limit {name!r} was reached when it was due", at, effects)
        return
    granted = slots.ask(conn, run, "", name, key, at, effects)
    if conflict == "replace":
        for other in slots.runs_to_replace(conn, name, key):
            request_cancel(conn, other, f"another run took its place under limit {name!r}", at, effects)
    let_in(conn, granted, at, effects)


# --- cancelling ----------------------------------------------------------------------------------------


def request_cancel(conn: sqlite3.Connection, run: int, reason: str, at: float, effects: Effects) -> bool:
    """Ask a run to end; False if it has. It need be neither due nor resumed for that."""
    row = conn.execute("SELECT status, started_at FROM durable_runs WHERE run = ?", (run,)).fetchone()
    if row is None or row[0] in ENDS:
        return False
    status, started_at = row
    if status in HELD:
        conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'code'", (run,))
        effects.given_up.add(run)
        after = "pending" if started_at is None else "waiting"
        conn.execute("UPDATE durable_runs SET status = ?, ready_at = NULL, reason = NULL WHERE run = ?", (after, run))
    _put_cancel(conn, run, reason, at, effects)
    # What runs below is cancelled by its own parent's turn; what has not begun must not begin until then,
    # in a slot that one of the others leaves, or in its place in a window.
    for below, idle, feeds in conn.execute(_BELOW, (run,)).fetchall():
        if feeds:
            conn.execute("DELETE FROM durable_feed_items WHERE run = ?", (below,))
        if idle:
            _put_cancel(conn, below, "its parent was cancelled", at, effects)
    return True


def _put_cancel(conn: sqlite3.Connection, run: int, reason: str, at: float, effects: Effects) -> None:
    put_item(conn, run, CancelRequested(reason, at), effects, wakes=True)
    _hurry_unborn(conn, run, effects)


def _hurry_unborn(conn: sqlite3.Connection, run: int, effects: Effects) -> None:
    """Let a run that has not begun end now, due or not: its code never runs, so it takes no slot."""
    unborn = conn.execute(
        "UPDATE durable_runs SET ready_at = coalesce(ready_at, created_at) WHERE run = ? AND status = 'pending'", (run,)
    )
    if unborn.rowcount:
        # Who stands in line behind it then stands behind those that it stood behind.
        conn.execute(_MOVE_UP, {"run": run})
        conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'start'", (run,))
        effects.unborn.append(read_ready(conn, run))


def read_unborn(conn: sqlite3.Connection) -> list[ReadyRun]:
    """Runs that were cancelled, or ran out of time, before they began, and have not ended yet."""
    rows = conn.execute(
        # From the inboxes to the runs: SQLite would look through all runs, of which there may be a million.
        "SELECT DISTINCT r.run FROM durable_inbox AS i CROSS JOIN durable_runs AS r ON r.run = i.run "
        "WHERE i.wakes = 1 AND i.kind IN (?, ?, ?) AND r.status = 'pending' AND r.ready_at IS NOT NULL",
        (CancelRequested.kind, RunTimedOut.kind, RunExpired.kind),
    ).fetchall()
    return [read_ready(conn, run) for (run,) in rows]


def await_code(conn: sqlite3.Connection, run: int, at: float) -> None:
    """Note that a blocked run may resume as soon as other code is there: each opening tries."""
    conn.execute(
        "INSERT OR REPLACE INTO durable_waits (run, grp, position, kind, wake_on, since) "
        "VALUES (?, 'code', '', 'code', 'any', ?)",
        (run, at),
    )


def retry_blocked(conn: sqlite3.Connection, at: float) -> None:
    """Make the runs ready that were blocked by missing or changed code: it may be back."""
    blocked = conn.execute("DELETE FROM durable_waits WHERE kind = 'code' RETURNING run").fetchall()
    conn.executemany(
        "UPDATE durable_runs SET status = CASE WHEN started_at IS NULL THEN 'pending' ELSE 'running' END, "
        "ready_at = CASE WHEN EXISTS (SELECT 1 FROM durable_slots AS s WHERE s.run = durable_runs.run "
        "AND s.position = '' AND s.granted_at IS NULL) THEN NULL ELSE ? END, reason = NULL "
        "WHERE run = ? AND status = 'blocked'",
        [(at, run) for (run,) in blocked],
    )
