"""
What can be asked of a journal from outside: starts, signals, cancels, pauses, retries, forks.

Each request is a function of an open transaction, so it is recorded whole or not at all, in
whatever state the run is. The engine runs them through its commit groups, a `Client` in another
process through the owner or, where nobody owns the file, by itself. Names and arguments are
plain, so that they can travel as JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

from durable._core.journal import history
from durable._core.journal.events import Event, Payload, ResumeRequested, RunStarted, SignalReceived
from durable._shell.reads.event_rows import last_run, load_history
from durable._shell.reads.ready_rows import read_ready
from durable._shell.reads.run_rows import ENDS, RunRow, run_by_id
from durable._shell.requests.batch_requests import BATCH_REQUESTS, numbered
from durable._shell.requests.prune_requests import prune, prune_batches
from durable._shell.rows.rows import Effects, NewRun, RunState, Stopped
from durable._shell.storage.bulk import write_many
from durable._shell.writes import slots
from durable._shell.writes.feeds import refill
from durable._shell.writes.importing import give_up_absent, import_runs
from durable._shell.writes.places import Lines
from durable._shell.writes.run_writes import INSERT_WAITS, create_each, insert_run, write_rows
from durable._shell.writes.schedule_writes import pause_schedule, resume_schedule, trigger_schedule
from durable._shell.writes.turn_writes import add_wait
from durable._shell.writes.wakeups import claim, let_in, needs_slot, put_item, request_cancel
from durable.errors import RunExistsError, RunNotFoundError, RunStateError

#: Signals that no turn of a run has taken in yet, for its fork: those that one has are in the copied history.
_COPY_SIGNALS = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, name, wakes)
SELECT ?, kind, position, at, body, value, payload, name, wakes FROM durable_inbox
WHERE run = ? AND kind = ? ORDER BY item
"""


def _find(conn: sqlite3.Connection, run_id: str) -> RunRow:
    found = run_by_id(conn, run_id)
    if found is None:
        raise RunNotFoundError("id", run_id)
    return found


def _current(conn: sqlite3.Connection, run_id: str) -> RunRow:
    """The run called *run_id*, or the one that it continued as."""
    found = _find(conn, run_id)
    while found.successor is not None:
        found = _find(conn, found.successor)
    return found


def start(conn: sqlite3.Connection, effects: Effects, *, runs: Sequence[NewRun]) -> list[str]:
    """Create runs, or find them by key or id: all of them, or none."""
    numbering, lines = numbered(conn), Lines(conn)
    # A client that recorded them by itself has no numbers to give.
    news = [new if new.run > 0 else lines.placed(evolve(new, run=numbering())) for new in runs]
    return list(create_each(conn, news, effects))


def signal(
    conn: sqlite3.Connection,
    effects: Effects,
    *,
    run_id: str,
    name: str,
    payload: Payload,
    dedup: str | None,
    now: float,
) -> bool:
    """Put a signal into a run's inbox; False if its *dedup* id was accepted before."""
    run = _current(conn, run_id)
    # First of all: who repeats a signal that was accepted did nothing wrong, whatever became of the run.
    if (
        dedup is not None
        and conn.execute("SELECT 1 FROM durable_dedup WHERE run = ? AND dedup = ?", (run.run, dedup)).fetchone()
    ):
        return False
    if run.status in ENDS:
        raise RunStateError(run_id, run.status, f"signal {name!r} to", "Start a new run")
    if dedup is not None:
        conn.execute("INSERT INTO durable_dedup (run, dedup) VALUES (?, ?)", (run.run, dedup))
    waiting = conn.execute(
        "SELECT 1 FROM durable_waits WHERE run = ? AND kind = 'signal' AND name = ? LIMIT 1", (run.run, name)
    ).fetchone()
    put_item(conn, run.run, SignalReceived(name, payload, now), effects, wakes=waiting is not None)
    return True


def cancel(conn: sqlite3.Connection, effects: Effects, *, run_id: str, reason: str, now: float) -> bool:
    """Ask a run to end; False if it has ended already."""
    return request_cancel(conn, _current(conn, run_id).run, reason, now, effects)


def pause(conn: sqlite3.Connection, effects: Effects, *, run_id: str, now: float) -> bool:
    """Let a run begin nothing more until it is resumed; False if it is paused already."""
    run = _current(conn, run_id)
    if run.status in ENDS or run.status == "blocked":
        raise RunStateError(run_id, run.status, "pause")
    if run.status == "paused":
        return False
    conn.execute(
        "UPDATE durable_runs SET status = 'paused', ready_at = NULL, reason = ? WHERE run = ?",
        (f"paused while {run.status}", run.run),
    )
    let_in(conn, slots.step_aside(conn, run.run, now, effects), now, effects)
    effects.paused.add(run.run)
    effects.stopped.append(Stopped("paused", run.run_id, run.workflow))
    return True


def resume(conn: sqlite3.Connection, effects: Effects, *, run_id: str, now: float) -> bool:
    """Let a paused or blocked run go on; False if it is neither."""
    run = _current(conn, run_id)
    if run.status in ENDS:
        raise RunStateError(
            run_id, run.status, "resume", "A failed run can be retried" if run.status == "failed" else ""
        )
    if run.status not in ("paused", "blocked"):
        return False
    if run.status == "blocked":
        conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'code'", (run.run,))
        put_item(conn, run.run, ResumeRequested(now), effects, wakes=False)
    _make_ready(conn, run, now, effects)
    give_up_absent(conn, run.run, now, effects)
    refill(conn, run.run, now, effects)
    return True


def _make_ready(conn: sqlite3.Connection, run: RunRow, now: float, effects: Effects) -> None:
    delayed = conn.execute("SELECT 1 FROM durable_waits WHERE run = ? AND kind = 'start'", (run.run,)).fetchone()
    waits = needs_slot(conn, run.run)
    status = "pending" if run.started_at is None or waits else "running"
    conn.execute(
        "UPDATE durable_runs SET status = ?, ready_at = ?, reason = NULL, ended_at = NULL WHERE run = ?",
        (status, None if delayed or waits else now, run.run),
    )
    let_in(conn, slots.come_back(conn, run.run, now, effects), now, effects)
    if delayed:
        return
    if waits:
        claim(conn, run.run, now, effects, waits=True)
    else:
        effects.ready.append(read_ready(conn, run.run))


def retry(conn: sqlite3.Connection, effects: Effects, *, run_id: str, path: str, now: float) -> bool:
    """
    Let a failed run go on from what failed; completed steps and children are not repeated.

    False if the run is under way already.
    """
    run = _current(conn, run_id)
    if run.status not in ENDS:
        return False
    if run.status != "failed":
        raise RunStateError(run_id, run.status, "retry", "Only failed runs can be retried; fork it instead")
    events = load_history(conn, path, run)
    reopened = history.reopened(events, now)
    state = RunState(run.run, run.run_id, run.workflow, run.queue, len(events))
    (state.chain,) = conn.execute(
        "SELECT checksum FROM durable_events WHERE run = ? AND seq = ?", (run.run, len(events))
    ).fetchone()
    write_rows(conn, state.append([reopened]))
    for _, child_id in history.open_children([*events, reopened]):
        child = run_by_id(conn, child_id)
        if child is not None and child.status == "failed":
            retry(conn, effects, run_id=child_id, path=path, now=now)
    _wait_again(conn, run.run, [*events, reopened], now, effects)
    _make_ready(conn, run, now, effects)
    return True


def _wait_again(conn: sqlite3.Connection, run: int, events: Sequence[Event], now: float, effects: Effects) -> None:
    """The rows of what a reopened or copied history still waits for."""
    for position, target in history.open_children(events):
        add_wait(conn, run, position, target, now, effects)
    for wait in history.open_timers(events):
        row = (run, wait.group, wait.position, wait.kind, "any", wait.name, None, wait.fire_at, now)
        write_many(conn, INSERT_WAITS, [row])
        if wait.fire_at is not None:
            effects.fires(wait.fire_at)
    for position, name, key in history.open_slots(events):
        let_in(conn, slots.ask(conn, run, position, name, key, now, effects), now, effects)


def fork(
    conn: sqlite3.Connection,
    effects: Effects,
    *,
    run_id: str,
    at: str,
    replace: Mapping[str, Payload],
    new_id: str,
    number: int,
    path: str,
    now: float,
) -> str:
    """A new run that goes on from position *at* of another, with some outcomes replaced; its id."""
    run = _find(conn, run_id)
    if run_by_id(conn, new_id) is not None:
        raise RunExistsError(new_id, "a fork is a new run")
    events = history.fork(load_history(conn, path, run), run_id=run_id, at=at, replace=replace, now=now)
    started = events[0]
    assert isinstance(started, RunStarted)
    arguments, place, limit, limit_key, policy = conn.execute(
        "SELECT arguments, place, limit_name, limit_key, retry FROM durable_runs WHERE run = ?", (run.run,)
    ).fetchone()
    if number <= 0:
        number = last_run(conn) + 1
    new = NewRun(
        run=number,
        run_id=new_id,
        workflow=run.workflow,
        version=run.version,
        sort=run.sort,
        queue=run.queue,
        priority=run.priority,
        key=None,
        arguments=arguments or "",
        labels=run.labels,
        started=started,
        due_at=None,
        deadline=None,
        timeout=None,
        retry=policy,
        place=place,
        limit=limit,
        limit_key=limit_key or "",
    )
    mine = Effects()
    insert_run(conn, new, mine, waits_since=now)
    state = RunState(number, new_id, run.workflow, run.queue)
    state.append([started])
    write_rows(conn, state.append(events[1:]))
    conn.execute("UPDATE durable_runs SET created_at = ? WHERE run = ?", (now, number))
    _wait_again(conn, number, events, now, effects)
    conn.execute(_COPY_SIGNALS, (number, run.run, SignalReceived.kind))
    if not needs_slot(conn, number):
        conn.execute("UPDATE durable_runs SET ready_at = ? WHERE run = ?", (now, number))
        effects.ready.append(read_ready(conn, number))
    elif mine.next_fire_at is not None:
        effects.fires(mine.next_fire_at)
    return new_id


def pause_queue(conn: sqlite3.Connection, effects: Effects, *, queue: str, paused: bool, now: float) -> bool:
    """Begin nothing more from a queue, or again."""
    conn.execute(
        "INSERT INTO durable_queues (name, paused_at) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at",
        (queue, now if paused else None),
    )
    return True


def clear_queue(conn: sqlite3.Connection, effects: Effects, *, queue: str, now: float) -> int:
    """Cancel every run of a queue that has not begun; how many."""
    rows = conn.execute("SELECT run FROM durable_runs WHERE queue = ? AND status = 'pending'", (queue,)).fetchall()
    return sum(request_cancel(conn, run, f"queue {queue!r} was cleared", now, effects) for (run,) in rows)


#: Requests by the name under which they travel.
REQUESTS: Mapping[str, Callable[..., Any]] = {
    "start": start,
    "signal": signal,
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "retry": retry,
    "fork": fork,
    "import": import_runs,
    "pause_queue": pause_queue,
    "clear_queue": clear_queue,
    "pause_schedule": pause_schedule,
    "resume_schedule": resume_schedule,
    "trigger_schedule": trigger_schedule,
    "prune": prune,
    "prune_batches": prune_batches,
    **BATCH_REQUESTS,
}
