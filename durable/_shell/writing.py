"""
What a commit group writes: turns, new runs, ends, wake-ups. Runs on the writer's thread.

All functions take the connection inside an open transaction, and the `Effects` to which they
add what the loop must do after the COMMIT. Rows of many turns are gathered and written table
by table, because `executemany` costs a third of single statements.

Wake-ups are rows: whoever ends a wait deletes its row and puts an arrival into the inbox of
the run that waited; if that was the last row of its group (or the wait says so), the run is
marked ready in the same transaction. Nothing is counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from durable._core.decision import Wait
from durable._core.event_rows import to_row
from durable._core.events import (
    CancelRequested,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildSucceeded,
    CleanupTimedOut,
    Event,
    Payload,
    RunTimedOut,
    SignalReceived,
    TimerFired,
)
from durable._shell.rows import ENDS, Effects, Large, NewRun, ReadyRun, RunState, TurnWrite, stored
from durable.errors import KeyConflictError, RunExistsError

_INSERT_RUN = """
INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, ready_at, key, key_live,
    arguments, parent, position, labels, created_at)
VALUES (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_EVENT = """
INSERT INTO durable_events (run, seq, kind, position, at, body, value, payload, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_WAIT = """
INSERT OR REPLACE INTO durable_waits (run, grp, position, kind, wake_on, name, target, fire_at, since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_ITEM = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, name, wakes)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT_READY = """
SELECT run, run_id, workflow, sort, queue, priority, ready_at, labels FROM durable_runs WHERE run = ?
"""


def write_turns(conn: sqlite3.Connection, turns: Sequence[TurnWrite], effects: Effects) -> None:
    """Write *turns*, of different runs."""
    events: list[Any] = []
    runs: list[Any] = []
    waits: list[Any] = []
    running: list[Any] = []
    items: list[Any] = []
    freed: list[TurnWrite] = []
    ended: list[TurnWrite] = []
    keyed: list[tuple[TurnWrite, NewRun, Wait | None]] = []
    for turn in turns:
        events += turn.events
        for child, wait in turn.children:
            if child.key is not None or child.chosen_id:
                keyed.append((turn, child, wait))
                continue
            _add_run(child, runs, events, waits, effects)
            if wait is not None:
                waits.append(_wait_row(turn.state.run, wait, child.run, turn.at))
        if turn.inbox_upto:
            items.append((turn.state.run, turn.inbox_upto))
        if turn.status == "waiting":
            freed.append(turn)
        elif turn.status == "running":
            running.append((turn.at, turn.state.run))
        elif turn.status in ENDS:
            ended.append(turn)
    if runs:
        conn.executemany(_INSERT_RUN, runs)
    write_rows(conn, events)
    for turn in turns:
        for wait in turn.waits_closed:
            conn.execute(
                "DELETE FROM durable_waits WHERE run = ? AND grp = ? AND position = ? AND kind = ?",
                (turn.state.run, wait.group, wait.position, wait.kind),
            )
    if waits:
        conn.executemany(_INSERT_WAIT, waits)
    if items:
        conn.executemany("DELETE FROM durable_inbox WHERE run = ? AND item <= ?", items)
    for turn in turns:
        if turn.waits:
            _add_waits(conn, turn, effects)
    for turn, child, wait in keyed:
        _join_child(conn, turn, child, wait, effects)
    if running:
        conn.executemany(
            "UPDATE durable_runs SET status = 'running', started_at = coalesce(started_at, ?) "
            "WHERE run = ? AND status = 'pending'",
            running,
        )
    for turn in turns:
        _write_rest(conn, turn, effects)
    for turn in freed:
        _free(conn, turn, effects)
    for turn in ended:
        _end(conn, turn, effects)


def write_rows(conn: sqlite3.Connection, rows: list[Any]) -> None:
    """Append rows of events; large payloads go to their own table."""
    if any(type(row[6]) is Large for row in rows):
        rows = [
            (*row[:6], None, keep_payload(conn, row[6]), row[8]) if type(row[6]) is Large else row for row in rows
        ]
    if rows:
        conn.executemany(_INSERT_EVENT, rows)


def keep_payload(conn: sqlite3.Connection, large: Large) -> int:
    """The row of a large payload, which is stored if no equal one is."""
    row = conn.execute("SELECT payload FROM durable_payloads WHERE digest = ?", (large.digest,)).fetchone()
    if row is None:
        row = (
            conn.execute(
                "INSERT INTO durable_payloads (digest, value) VALUES (?, ?)", (large.digest, large.value)
            ).lastrowid,
        )
    return int(row[0])


def _write_rest(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """What few turns have: a block, attributes, notes that are done with, children to cancel."""
    run = turn.state.run
    if turn.status == "blocked":
        conn.execute(
            "UPDATE durable_runs SET status = 'blocked', ready_at = NULL, reason = ? WHERE run = ?", (turn.reason, run)
        )
    if turn.attributes is not None:
        (before,) = conn.execute("SELECT attributes FROM durable_runs WHERE run = ?", (run,)).fetchone()
        conn.execute("UPDATE durable_runs SET attributes = ? WHERE run = ?", (turn.attributes(before), run))
    for position in turn.notes_done:
        conn.execute("DELETE FROM durable_notes WHERE run = ? AND position = ?", (run, position))
    for run_id in turn.cancelled_children:
        row = conn.execute("SELECT run FROM durable_runs WHERE run_id = ? AND parent = ?", (run_id, run)).fetchone()
        if row is not None:  # a run that it only awaited, or joined by key, is not its to cancel
            request_cancel(conn, row[0], "its parent no longer waits for it", turn.at, effects)
    if turn.cancel_all_children:
        for (child,) in conn.execute(
            "SELECT run FROM durable_runs WHERE parent = ? AND ended_at IS NULL", (run,)
        ).fetchall():
            request_cancel(conn, child, "its parent was cancelled", turn.at, effects)


# --- waits and wake-ups ------------------------------------------------------------------------------


def _wait_row(run: int, wait: Wait, target: int | None, at: float) -> tuple[Any, ...]:
    return (run, wait.group, wait.position, wait.kind, wait.wake_on, wait.name, target, wait.fire_at, at)


def _add_waits(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """Waits other than for children that this turn creates."""
    run = turn.state.run
    for wait in turn.waits:
        target = None
        if wait.kind == "child":
            row = conn.execute(
                "SELECT run, status FROM durable_runs WHERE run_id = ?", (_last_of_chain(conn, wait.run_id or ""),)
            ).fetchone()
            if row is None:
                _put_missing(conn, run, wait, turn.at, effects)
                continue
            target = row[0]
            conn.execute(_INSERT_WAIT, _wait_row(run, wait, target, turn.at))
            if row[1] in ENDS:
                status, event, reason = read_end(conn, target)
                _tell_waiters(conn, target, wait.run_id or "", status, event, reason, turn.at, effects)
            continue
        conn.execute(_INSERT_WAIT, _wait_row(run, wait, target, turn.at))
        if wait.fire_at is not None:
            effects.fires(wait.fire_at)
        if wait.kind == "signal":
            early = conn.execute(
                "UPDATE durable_inbox SET wakes = 1 WHERE run = ? AND kind = ? AND name = ?",
                (run, SignalReceived.kind, wait.name),
            )
            if early.rowcount:
                effects.arrived.add(run)


def add_wait(
    conn: sqlite3.Connection, run: int, position: str, run_id: str, at: float, effects: Effects
) -> None:
    """Let *run* wait, at *position*, for the run called *run_id*."""
    state = RunState(run, "", "", "")
    waits = [Wait(position, "child", position, "any", run_id=run_id)]
    _add_waits(conn, TurnWrite(state, at, waits=waits), effects)


def _last_of_chain(conn: sqlite3.Connection, run_id: str) -> str:
    """The run that *run_id* continued as, if it did."""
    while row := conn.execute(
        "SELECT successor FROM durable_runs WHERE run_id = ? AND successor IS NOT NULL", (run_id,)
    ).fetchone():
        run_id = row[0]
    return run_id


def _put_missing(conn: sqlite3.Connection, run: int, wait: Wait, at: float, effects: Effects) -> None:
    """The run to wait for does not exist (it was pruned): that is its outcome."""
    event = ChildCancelled(wait.position, wait.run_id or "", "no such run (it may have been pruned)", at)
    put_item(conn, run, event, effects, wakes=True)


def put_item(conn: sqlite3.Connection, run: int, event: Event, effects: Effects, *, wakes: bool) -> None:
    """Put an arrival into a run's inbox, and wake the run if it *wakes*."""
    kind, position, body, value = to_row(event)
    kept = stored(value)
    payload = keep_payload(conn, kept) if isinstance(kept, Large) else None
    name = event.name if isinstance(event, SignalReceived) else None
    inline = None if payload is not None else kept
    conn.execute(_INSERT_ITEM, (run, kind, position, event.at, body, inline, payload, name, wakes))
    if wakes:
        wake(conn, run, event.at, effects)


def wake(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> None:
    """Mark a freed run ready; an active one is told."""
    woken = conn.execute(
        "UPDATE durable_runs SET status = 'running', ready_at = ? WHERE run = ? AND status = 'waiting'", (at, run)
    )
    if woken.rowcount:
        effects.ready.append(read_ready(conn, run))
    else:
        effects.arrived.add(run)


def read_ready(conn: sqlite3.Connection, run: int) -> ReadyRun:
    """A run as the scheduler sees it."""
    return ready_run(conn.execute(_SELECT_READY, (run,)).fetchone())


def ready_run(row: Sequence[Any]) -> ReadyRun:
    """A row of `_SELECT_READY`'s columns."""
    labels = json.loads(row[7]) if row[7] else {}
    return ReadyRun(row[0], row[1], row[2], row[3], row[4], row[5], row[6] or 0.0, labels)


def _free(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """Let go of a run that waits, unless something arrived since its turn began."""
    run = turn.state.run
    if conn.execute("SELECT 1 FROM durable_inbox WHERE run = ? AND wakes = 1 LIMIT 1", (run,)).fetchone():
        effects.kept.add(run)
        return
    conn.execute(
        "UPDATE durable_runs SET status = 'waiting', ready_at = NULL, started_at = coalesce(started_at, ?) "
        "WHERE run = ? AND status IN ('running', 'pending')",
        (turn.at, run),
    )


def fire_due(conn: sqlite3.Connection, now: float, limit: int, effects: Effects) -> int:
    """Let up to *limit* timers fire that are due, in the order of their deadlines; how many did."""
    due = conn.execute(
        "SELECT wait, run, grp, position, kind, wake_on, fire_at, since FROM durable_waits "
        "WHERE fire_at <= ? ORDER BY fire_at, wait LIMIT ?",
        (now, limit),
    ).fetchall()
    conn.executemany("DELETE FROM durable_waits WHERE wait = ?", [(row[0],) for row in due])
    for _, run, group, position, kind, wake_on, fire_at, since in due:
        if kind == "start":
            _start_due(conn, run, now, effects)
        elif kind == "deadline":
            put_item(conn, run, RunTimedOut(fire_at - since, now), effects, wakes=True)
        elif kind == "cleanup":
            put_item(conn, run, CleanupTimedOut(now), effects, wakes=True)
        else:
            wakes = wake_on == "any" or not _is_open(conn, run, group)
            put_item(conn, run, TimerFired(position, now), effects, wakes=wakes)
    row = conn.execute("SELECT min(fire_at) FROM durable_waits WHERE fire_at IS NOT NULL").fetchone()
    if row[0] is not None:
        effects.fires(row[0])
    return len(due)


def _start_due(conn: sqlite3.Connection, run: int, now: float, effects: Effects) -> None:
    due = conn.execute(
        "UPDATE durable_runs SET ready_at = ? WHERE run = ? AND status = 'pending' AND ready_at IS NULL", (now, run)
    )
    if due.rowcount:
        effects.ready.append(read_ready(conn, run))


def _is_open(conn: sqlite3.Connection, run: int, group: str) -> bool:
    found = conn.execute("SELECT 1 FROM durable_waits WHERE run = ? AND grp = ? LIMIT 1", (run, group)).fetchone()
    return found is not None


def request_cancel(conn: sqlite3.Connection, run: int, reason: str, at: float, effects: Effects) -> bool:
    """Ask a run to end; False if it has. A run that waits for its start is made ready to do so."""
    row = conn.execute("SELECT status, ready_at FROM durable_runs WHERE run = ?", (run,)).fetchone()
    if row is None or row[0] in ENDS:
        return False
    if row[0] in ("paused", "blocked"):  # a person wants it gone: it need not be resumed first
        conn.execute(
            "UPDATE durable_runs SET status = 'waiting', ready_at = NULL, reason = NULL WHERE run = ?", (run,)
        )
    elif row[0] == "pending" and row[1] is None:
        conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'start'", (run,))
        conn.execute("UPDATE durable_runs SET status = 'waiting' WHERE run = ?", (run,))
    put_item(conn, run, CancelRequested(reason, at), effects, wakes=True)
    return True


# --- ends --------------------------------------------------------------------------------------------


def _end(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    state, status = turn.state, str(turn.status)
    run = state.run
    conn.execute(
        "UPDATE durable_runs SET status = ?, ended_at = ?, ready_at = NULL, reason = ?, "
        "started_at = coalesce(started_at, ?) WHERE run = ?",
        (status, turn.at, turn.reason or None, turn.at, run),
    )
    conn.execute("DELETE FROM durable_waits WHERE run = ?", (run,))
    conn.execute("DELETE FROM durable_inbox WHERE run = ?", (run,))
    if turn.successor is not None:
        _continue(conn, run, turn.successor, effects)
    else:
        _tell_waiters(conn, run, state.run_id, status, turn.outcome, turn.reason or "", turn.at, effects)
    effects.ended.append((run, state.run_id, state.workflow, status))


def _continue(conn: sqlite3.Connection, run: int, successor: NewRun, effects: Effects) -> None:
    """The run goes on as another: what waited for it, its key and its parent go over."""
    parent, position, key = conn.execute(
        "SELECT parent, position, key_live FROM durable_runs WHERE run = ?", (run,)
    ).fetchone()
    conn.execute("UPDATE durable_runs SET key_live = NULL, successor = ? WHERE run = ?", (successor.run_id, run))
    insert_run(conn, successor, effects)
    conn.execute(
        "UPDATE durable_runs SET parent = ?, position = ?, key = ?, key_live = ? WHERE run = ?",
        (parent, position, key, key, successor.run),
    )
    conn.execute("UPDATE durable_waits SET target = ? WHERE target = ?", (successor.run, run))


def _tell_waiters(  # noqa: PLR0913 - the facts of one end
    conn: sqlite3.Connection,
    run: int,
    run_id: str,
    status: str,
    outcome: Payload | None,
    reason: str,
    at: float,
    effects: Effects,
) -> None:
    waiters = conn.execute(
        "SELECT wait, run, grp, position, wake_on FROM durable_waits WHERE target = ?", (run,)
    ).fetchall()
    for wait, waiter, group, position, wake_on in waiters:
        conn.execute("DELETE FROM durable_waits WHERE wait = ?", (wait,))
        event: Event
        if status == "succeeded":
            event = ChildSucceeded(position, outcome, at)
        elif status == "failed":
            event = ChildFailed(position, run_id, outcome, at)
        else:
            event = ChildCancelled(position, run_id, reason, at)
        wakes = (
            wake_on == "any"
            or (wake_on == "failure" and status != "succeeded")
            or not _is_open(conn, waiter, group)
        )
        put_item(conn, waiter, event, effects, wakes=wakes)


def read_end(conn: sqlite3.Connection, run: int) -> tuple[str, Payload | None, str]:
    """Status, closing payload and reason of a run that has ended."""
    row = conn.execute(
        "SELECT r.status, coalesce(e.value, p.value), r.reason FROM durable_runs AS r "
        "LEFT JOIN durable_events AS e ON e.run = r.run AND e.seq = "
        "(SELECT max(seq) FROM durable_events WHERE run = r.run) "
        "LEFT JOIN durable_payloads AS p ON p.payload = e.payload WHERE r.run = ?",
        (run,),
    ).fetchone()
    return row[0], row[1], row[2] or ""


# --- new runs ---------------------------------------------------------------------------------------------


def _add_run(new: NewRun, runs: list[Any], events: list[Any], waits: list[Any], effects: Effects) -> None:
    at = new.started.at
    ready_at = at if new.due_at is None else None
    runs.append(
        (
            new.run,
            new.run_id,
            new.workflow,
            new.version,
            new.sort,
            new.queue,
            new.priority,
            ready_at,
            new.key,
            new.key,
            new.arguments,
            new.parent,
            new.position,
            new.labels_json(),
            at,
        )
    )
    state = RunState(new.run, new.run_id, new.workflow, new.queue)
    events += state.append([new.started])
    if new.due_at is not None:
        waits.append((new.run, "", "", "start", "any", None, None, new.due_at, at))
        effects.fires(new.due_at)
    else:
        fresh = (new.started, state.chain)
        effects.ready.append(
            ReadyRun(
                new.run, new.run_id, new.workflow, new.sort, new.queue, new.priority, at, new.labels, fresh
            )
        )
    if new.deadline is not None:
        waits.append((new.run, "", "", "deadline", "any", None, None, new.deadline, at))
        effects.fires(new.deadline)


def insert_run(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> None:
    """Create a run whose id and key are known to be free."""
    runs: list[Any] = []
    events: list[Any] = []
    waits: list[Any] = []
    _add_run(new, runs, events, waits, effects)
    conn.executemany(_INSERT_RUN, runs)
    write_rows(conn, events)
    conn.executemany(_INSERT_WAIT, waits)


def get_or_create(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> str:
    """
    The id of the run that *new* stands for: created, or found by its key or chosen id.

    Raises:
        KeyConflictError: The key belongs to a run with other arguments, or `on_conflict` is reject.
        RunExistsError: The id does.
    """
    if new.chosen_id:
        found = conn.execute(
            "SELECT run_id, arguments, workflow FROM durable_runs WHERE run_id = ?", (new.run_id,)
        ).fetchone()
        if found is not None:
            if found[1] == new.arguments and new.on_conflict == "join":
                return new.run_id
            raise RunExistsError(new.run_id, f"a run of {found[2]!r}" + _same(found[1], new))
    if new.key is not None:
        row = conn.execute(
            "SELECT run, run_id, arguments, workflow, status FROM durable_runs WHERE key_live = ?", (new.key,)
        ).fetchone()
        if row is not None and not _make_way(conn, new, row, effects):
            return str(row[1])
    insert_run(conn, new, effects)
    return new.run_id


def _same(recorded: str, new: NewRun) -> str:
    return " with the same arguments" if recorded == new.arguments else " with other arguments"


def _make_way(conn: sqlite3.Connection, new: NewRun, row: Sequence[Any], effects: Effects) -> bool:
    """Whether the run that has the key gives it up for *new*; raises if they may not share it."""
    run, run_id, arguments, workflow, status = row
    assert new.key is not None
    replaces = new.on_conflict == "replace" or (new.on_conflict == "rerun" and status in ENDS)
    if replaces:
        request_cancel(conn, run, f"replaced by {new.run_id}", new.started.at, effects)
        conn.execute("UPDATE durable_runs SET key_live = NULL WHERE run = ?", (run,))
        return True
    if arguments != new.arguments or new.on_conflict == "reject":
        recorded = f"{workflow!r}" + (" (on_conflict='reject')" if arguments == new.arguments else "")
        raise KeyConflictError(new.key, run_id, recorded, f"{new.workflow!r}{_same(arguments, new)}")
    return False


def _join_child(
    conn: sqlite3.Connection, turn: TurnWrite, child: NewRun, wait: Wait | None, effects: Effects
) -> None:
    """A child with a key or chosen id: created, or joined if its run exists; a conflict is its failure."""
    run, at = turn.state.run, turn.at
    position = child.position or ""
    try:
        run_id = get_or_create(conn, child, effects)
    except (KeyConflictError, RunExistsError) as error:
        outcome = turn.refusal(error) if turn.refusal is not None else None
        put_item(conn, run, ChildFailed(position, child.run_id, outcome, at), effects, wakes=True)
        return
    (target, status) = conn.execute("SELECT run, status FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone()
    if wait is None:
        put_item(conn, run, ChildJoined(position, run_id, at), effects, wakes=True)
        return
    conn.execute(_INSERT_WAIT, _wait_row(run, wait, target, at))
    if status in ENDS:
        end_status, outcome, reason = read_end(conn, target)
        _tell_waiters(conn, target, run_id, end_status, outcome, reason, at, effects)

