"""
What a commit group writes: the turns of many runs. Runs on the writer's thread.

All functions take the connection inside an open transaction, and the `Effects` to which they
add what the loop must do after the COMMIT. Rows of many turns are gathered and written table
by table, many rows a statement: see `bulk`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import read_object
from durable._core.journal.events import (
    CancelRequested,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    RequestAccepted,
    RequestRefused,
    RunArrival,
    SignalReceived,
)
from durable._core.journal.waits import Wait
from durable._core.policies.limits import limit_name
from durable._core.run.decision import Decision, SignalAction
from durable._core.statuses import ENDS
from durable._shell.claims import slots
from durable._shell.claims.keys import made_too_early
from durable._shell.reads.event_rows import cancel_in_inbox, read_end
from durable._shell.reads.run_rows import current_run, last_id
from durable._shell.rows.rows import (
    BrokenHook,
    DroppedNotes,
    Effects,
    Ended,
    LastTurn,
    NewRun,
    RunResult,
    RunState,
    Stopped,
    TurnWrite,
)
from durable._shell.rows.templates import from_json
from durable._shell.storage.bulk import NULL, about_many, join_many, write_many
from durable._shell.storage.run_counts import count_ended
from durable._shell.writes import answers
from durable._shell.writes.apart import apart
from durable._shell.writes.batch_ends import tell_batches
from durable._shell.writes.feeds import close_feed, close_feeds, open_feed
from durable._shell.writes.hook_writes import follow, note_broken
from durable._shell.writes.run_writes import (
    INSERT_WAITS,
    add_run,
    get_or_create,
    insert_run,
    keep_for_others,
    write_rows,
    write_runs,
)
from durable._shell.writes.said_writes import write_said
from durable._shell.writes.schedule_writes import killed_the_process, pause_killer
from durable._shell.writes.waiters import AwaitedEnd, tell_waiters
from durable._shell.writes.wakeups import is_open, let_in, put_item, request_cancel, send_signal, wake
from durable.errors import KeyConflictError, LimitReachedError, RunExistsError, RunNotFoundError, RunStateError

_MOVE_SIGNALS = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, name, wakes)
SELECT ?, kind, position, at, body, value, payload, name, 0 FROM durable_inbox
WHERE run = ? AND kind = ? AND item <= ? ORDER BY item
"""
#: Signals that no turn has taken in, of runs whose last turns took in their inboxes up to some item.
_UNREAD = f"""
SELECT i.run, i.name FROM (VALUES {{rows}}) AS ending
CROSS JOIN durable_inbox AS i ON i.run = ending.column1 AND i.item > ending.column2 AND i.kind = {SignalReceived.kind}
"""  # noqa: S608 - a constant

_TAKEN_IN = """
DELETE FROM durable_inbox WHERE item IN (
    SELECT i.item FROM durable_inbox AS i
    JOIN (VALUES {rows}) AS taken ON i.run = taken.column1 AND i.item <= taken.column2
)
"""
_RUNNING = """
UPDATE durable_runs SET status = 'running', started_at = coalesce(started_at, begun.column2)
FROM (VALUES {rows}) AS begun WHERE run = begun.column1 AND status = 'pending'
"""
_ENDED = """
UPDATE durable_runs SET status = ended.column2, ended_at = ended.column3, ready_at = NULL, reason = ended.column4,
    started_at = coalesce(started_at, ended.column3)
FROM (VALUES {rows}) AS ended WHERE run = ended.column1
"""
#: Why a child is cancelled whose race is lost, or whose time is over.
NOT_AWAITED = "its parent no longer waits for it"
#: Children that a run awaits where it asked for them: one that it started, and one that was staged, are left alone.
_AWAITED_CHILDREN = """
SELECT r.run FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.target
WHERE w.run = ? AND w.kind = 'child' AND r.parent = w.run AND r.position = w.position AND r.ended_at IS NULL
"""
_SHARED = """
SELECT 1 FROM durable_runs WHERE run = ? AND on_parent_end = 'abandon'
UNION ALL SELECT 1 FROM durable_waits WHERE target = ? AND kind = 'child' AND run <> ? LIMIT 1
"""
_TIED = "SELECT run FROM durable_runs WHERE parent IN ({items}) AND on_parent_end = 'cancel' AND ended_at IS NULL"
_NO_WAITS = "DELETE FROM durable_waits WHERE run IN ({items})"
#: But for signals: what nobody asked for is kept with the run.
_NO_ITEMS = f"DELETE FROM durable_inbox WHERE run IN ({{items}}) AND kind <> {SignalReceived.kind}"  # noqa: S608 - a constant


class TurnOutdatedError(Exception):
    """What has arrived meanwhile changes what a turn means: it is to be made again with that, see `write_turns`."""


#: Of a step that has succeeded: its cursor, and the memos of an earlier success that a retry has set aside.
_DROP_OLD_NOTES = """
DELETE FROM durable_notes WHERE run = ? AND position = ? AND (name = 'cursor' OR name GLOB 'kept:*')
"""
#: By a name that no later attempt finds, should the step be asked for once more.
_KEEP_MEMOS = """
UPDATE durable_notes SET name = 'kept:' || name WHERE run = ? AND position = ? AND name GLOB 'memo:*'
"""


def write_turns(conn: sqlite3.Connection, turns: Sequence[TurnWrite], effects: Effects) -> None:
    """
    Write *turns*, of different runs.

    But for those that would end a run which has not heard all yet, those made from arguments that the run has not
    any more, and those that close a feed whose children they do not all know: `Effects.listening` names these.
    """
    if all([turn.is_usual for turn in turns]):  # noqa: C419 - a generator costs more than the few that it may spare
        effects.turns += turns
        write_rows(conn, [row for turn in turns for row in turn.events])
        return
    ending = [turn for turn in turns if turn.status is not None and isinstance(turn, LastTurn)]
    unread = _unread(conn, ending)
    if unread:
        effects.listening |= {turn.state.run for turn in ending if _listens(turn, unread)}
        turns = [turn for turn in turns if turn.state.run not in effects.listening]
    too_early = made_too_early(conn, turns)
    if too_early:
        effects.listening |= too_early
        turns = [turn for turn in turns if turn.state.run not in too_early]
    outrun = {turn.state.run for turn in turns if not turn.is_plain and turn.feeds_next and _is_outrun(conn, turn)}
    if outrun:
        effects.listening |= outrun
        turns = [turn for turn in turns if turn.state.run not in outrun]
    events: list[Any] = []
    runs: list[Any] = []
    waits: list[Any] = []
    running: list[Any] = []
    items: list[Any] = []
    noted: list[tuple[int, DroppedNotes]] = []
    freed: list[TurnWrite] = []
    ended: list[LastTurn] = []
    keyed: list[tuple[TurnWrite, NewRun, Wait | None]] = []
    slotted: list[TurnWrite] = []
    asking: list[TurnWrite] = []
    others: list[TurnWrite] = []
    effects.turns += turns
    for turn in turns:
        events += turn.events
        if turn.is_usual:
            continue
        if not turn.is_plain:
            others.append(turn)
            for child, wait in _children(turn) if turn.children else ():
                if child.may_be_refused:
                    keyed.append((turn, child, wait))
                    continue
                add_run(child, runs, events, waits, effects)
                if wait is not None:
                    waits.append(_wait_row(turn.state.run, wait, child.run, turn.at))
            if turn.decision.slots or turn.decision.slots_released:
                slotted.append(turn)
            if turn.decision.requests:
                asking.append(turn)
        if turn.deadline is not None:
            waits.append((turn.state.run, "", "", "deadline", "any", NULL, NULL, turn.deadline, turn.at))
            effects.fires(turn.deadline)
        if turn.inbox_upto:
            items.append((turn.state.run, turn.inbox_upto))
        if turn.notes is not None:
            noted.append((turn.state.run, turn.notes))
        if turn.status is None:  # as of nearly all
            continue
        if turn.status == "waiting":
            freed.append(turn)
        elif turn.status == "running":
            running.append((turn.state.run, turn.at))
        elif isinstance(turn, LastTurn):
            ended.append(turn)
    write_runs(conn, runs, events, ())
    shared: set[tuple[int, str]] = set()
    for turn in others:
        for wait in turn.decision.waits_closed:
            if wait.wake_on != "any":
                shared.add((turn.state.run, wait.group))
            conn.execute(
                "DELETE FROM durable_waits WHERE run = ? AND grp = ? AND position = ? AND kind = ?",
                (turn.state.run, wait.group, wait.position, wait.kind),
            )
    write_many(conn, INSERT_WAITS, waits, is_bound=True)
    write_many(conn, _TAKEN_IN, items, is_bound=True)
    for turn in others:
        if turn.decision.waits:
            _add_waits(conn, turn, effects)
    for turn, child, wait in keyed:
        _join_child(conn, turn, child, wait, effects)
    write_many(conn, _RUNNING, running, is_bound=True)
    for run, group in shared:
        _look_behind(conn, run, group, effects)
    for turn in others:
        _write_rest(conn, turn, effects)
    for run, notes in noted:
        _drop_notes(conn, run, notes)
    if slotted:
        _write_slots(conn, slotted, effects)
    for turn in freed:
        if turn.unconsumed:  # its next attempt waits
            _carry_over(conn, turn.state.run, turn.state.run, turn.unconsumed, effects)
        _free(conn, turn, effects)
    if ended:
        _end(conn, ended, unread, effects)
    for turn in asking:  # last, since what a run that ends here has not heard was looked for above
        _ask_runs(conn, turn, effects)


def begin_created(conn: sqlite3.Connection, turns: Sequence[TurnWrite], effects: Effects) -> None:
    """
    Write the first *turns* of those runs that *effects* created, and that may begin: `Effects.begun` names these.

    Not of those that were cancelled since, or were sent something. What cannot be written is left out, too: its run is
    there, and its turn is made again.
    """
    touched = effects.arrived | effects.paused
    ready = {each.run for each in effects.ready if each.run not in touched}
    created = [turn for turn in turns if turn.state.run in ready]
    refused = {turn.state.run for turn, _ in apart(conn, created, write_turns, effects)}
    effects.begun |= {turn.state.run for turn in created} - refused - effects.listening


def _look_behind(conn: sqlite3.Connection, run: int, group: str, effects: Effects) -> None:
    """
    The last row of a group may be gone with this turn: what arrived for the others of it meanwhile wakes the run.

    When it came, the row was there, so that it woke nobody; and this turn began without it.
    """
    if is_open(conn, run, group):
        return
    missed = conn.execute(
        "UPDATE durable_inbox SET wakes = 1 WHERE run = ? AND wakes = 0 AND position IS NOT NULL", (run,)
    )
    if missed.rowcount:
        effects.arrived.add(run)


def _is_outrun(conn: sqlite3.Connection, turn: TurnWrite) -> bool:
    """Whether a feed that *turn* closes has started a child that it does not know."""
    wanted = json.dumps(turn.feeds_next)
    found = conn.execute("SELECT 1 FROM durable_runs WHERE run_id IN (SELECT value FROM json_each(?))", (wanted,))
    return found.fetchone() is not None


def _children(turn: TurnWrite) -> Iterator[tuple[NewRun, Wait | None]]:
    """The runs that *turn* creates, each with the wait for it, if the code awaits it."""
    waits = {wait.position: wait for wait in turn.decision.waits if wait.kind == "child"}
    for child in turn.children:
        yield child, waits.get(child.position or "")


def _write_slots(conn: sqlite3.Connection, turns: Sequence[TurnWrite], effects: Effects) -> None:
    """Slots that are given up, then those that are asked for: who waits already goes first."""
    for turn in turns:
        for position in turn.decision.slots_released:
            let_in(conn, slots.release(conn, turn.state.run, position, turn.at, effects), turn.at, effects)
    for turn in turns:
        slots.register(conn, turn.limits)
        for asked in turn.decision.slots:
            name = limit_name(asked.limit)
            let_in(
                conn,
                slots.ask(conn, turn.state.run, asked.position, name, asked.key, turn.at, effects),
                turn.at,
                effects,
            )


def _write_rest(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """What few turns have: a block, attributes, children to cancel."""
    run, decision = turn.state.run, turn.decision
    if turn.status == "blocked":
        conn.execute(
            "UPDATE durable_runs SET status = 'blocked', ready_at = NULL, reason = ? WHERE run = ?",
            (decision.blocked, run),
        )
        effects.stopped.append(Stopped("blocked", turn.state.run_id, turn.state.workflow))
        let_in(conn, slots.step_aside(conn, run, turn.at, effects, under_way=turn.under_way), turn.at, effects)
    if turn.attributes is not None:
        (before,) = conn.execute("SELECT attributes FROM durable_runs WHERE run = ?", (run,)).fetchone()
        conn.execute("UPDATE durable_runs SET attributes = ? WHERE run = ?", (turn.attributes(before), run))
    if decision.replies:
        answers.answer(conn, run, decision.replies, turn.at, effects)
    if decision.troubled and any(step.abandoned for step in decision.troubled):
        for position, is_job in turn.outlasting:
            slots.outlive(conn, run, position, is_job=is_job)
        _note_abandoned(conn, run, {step.position: step.step for step in decision.troubled if step.abandoned})
    if turn.said:
        write_said(conn, turn.said, effects)
    if decision.compensated is not None:
        conn.execute("UPDATE durable_runs SET compensated = ? WHERE run = ?", (decision.compensated, run))
    for position in decision.feeds_closed:
        close_feed(conn, run, position, turn.at, effects)
    for run_id in decision.cancelled_children:
        row = conn.execute("SELECT run FROM durable_runs WHERE run_id = ? AND parent = ?", (run_id, run)).fetchone()
        # A run that it only awaited, or joined by key, is not its to cancel; nor is one that others wait for.
        if row is not None and not _is_shared(conn, row[0], run):
            request_cancel(conn, row[0], NOT_AWAITED, turn.at, effects)
    for wait in decision.waits_ending:
        _await_end(conn, run, wait, turn.at, effects)
    if decision.cancel_all_children:
        close_feeds(conn, run, turn.at, effects)
        born_now = {child.run for child in turn.children}  # by the clean-up
        for (child,) in conn.execute(_AWAITED_CHILDREN, (run,)).fetchall():
            if child in born_now or _is_shared(conn, child, run):
                continue
            request_cancel(conn, child, "its parent was cancelled", turn.at, effects)
    for started in decision.children:
        if started.ends_with_parent:
            conn.execute(
                "UPDATE durable_runs SET on_parent_end = 'cancel' WHERE parent = ? AND position = ? "
                "AND on_parent_end IS NULL",
                (run, started.position),
            )
    for new in turn.feeds:
        open_feed(conn, run, new)


def _note_abandoned(conn: sqlite3.Connection, run: int, steps: Mapping[str, str]) -> None:
    (known,) = conn.execute("SELECT abandoned FROM durable_runs WHERE run = ?", (run,)).fetchone()
    value = json.dumps({**(read_object(known) or {}), **steps}, ensure_ascii=False)
    conn.execute("UPDATE durable_runs SET abandoned = ? WHERE run = ?", (value, run))


def _is_shared(conn: sqlite3.Connection, child: int, parent: int) -> bool:
    """Whether others than its *parent* want a child: a caller who joined it by its key, or runs that wait for it."""
    return conn.execute(_SHARED, (child, child, parent)).fetchone() is not None


def _drop_notes(conn: sqlite3.Connection, run: int, notes: DroppedNotes) -> None:
    if notes.everything:
        conn.execute("DELETE FROM durable_notes WHERE run = ?", (run,))
        return
    for position in notes.succeeded:
        conn.execute(_DROP_OLD_NOTES, (run, position))
        conn.execute(_KEEP_MEMOS, (run, position))
    for position in notes.positions:
        conn.execute("DELETE FROM durable_notes WHERE run = ? AND position = ?", (run, position))
    if notes.ended:
        conn.execute("DELETE FROM durable_notes WHERE run = ? AND name NOT GLOB 'kept:*'", (run,))


def keep_note(conn: sqlite3.Connection, run: int, position: str, name: str, value: Payload, at: float) -> None:
    """Keep what a running step has noted: a cursor, a memo."""
    conn.execute(
        "INSERT OR REPLACE INTO durable_notes (run, position, name, value, at) VALUES (?, ?, ?, ?, ?)",
        (run, position, name, value, at),
    )


def _await_end(conn: sqlite3.Connection, run: int, wait: Wait, at: float, effects: Effects) -> None:
    """A child is cancelled, and *run* waits until it has ended: unless nothing will tell, or it is not *run*'s."""
    row = conn.execute(
        "SELECT w.wait, r.run, r.parent FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.target "
        "WHERE w.run = ? AND w.position = ? AND w.kind = 'child'",
        (run, wait.position),
    ).fetchone()
    if row is not None and row[2] == run and not _is_shared(conn, row[1], run):
        if cancel_in_inbox(conn, row[1]) is None:  # the one that was started continued as this one
            request_cancel(conn, row[1], NOT_AWAITED, at, effects)
        return
    if row is not None:  # joined by its key, by this run or by others: it continues
        conn.execute("DELETE FROM durable_waits WHERE wait = ?", (row[0],))
    elif conn.execute(
        "UPDATE durable_inbox SET wakes = 1 WHERE run = ? AND position = ?", (run, wait.position)
    ).rowcount:  # it has ended, when others of its group were still to end, so that nobody was woken
        wake(conn, run, at, effects)
        return
    # Else it is an item of a feed that was closed before the child was started.
    put_item(conn, run, ChildCancelled(wait.position, wait.run_id or "", NOT_AWAITED, at), effects, wakes=True)


def _wait_row(run: int, wait: Wait, target: int | None, at: float) -> tuple[Any, ...]:
    """As a row: `NULL` where it is empty."""
    name = NULL if wait.name is None else wait.name
    fire_at = NULL if wait.fire_at is None else wait.fire_at
    awaited = NULL if target is None else target
    return (run, wait.group, wait.position, wait.kind, wait.wake_on, name, awaited, fire_at, at)


def _add_waits(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """Waits other than for children that this turn creates."""
    run = turn.state.run
    born = {child.position for child in turn.children}
    for wait in turn.decision.waits:
        if wait.kind == "child":
            if wait.position not in born:
                _await_run(conn, run, wait, turn.at, effects)
            continue
        write_many(conn, INSERT_WAITS, [_wait_row(run, wait, None, turn.at)])
        if wait.fire_at is not None:
            effects.fires(wait.fire_at)
        if wait.kind in ("signal", "request"):
            early = conn.execute(
                "UPDATE durable_inbox SET wakes = 1 WHERE run = ? AND kind = ? AND name = ?",
                (run, SignalReceived.kind, wait.name),
            )
            if early.rowcount:
                effects.arrived.add(run)


def add_wait(conn: sqlite3.Connection, run: int, position: str, run_id: str, at: float, effects: Effects) -> None:
    """Let *run* wait, at *position*, for the run called *run_id*."""
    _await_run(conn, run, Wait(position, "child", position, "any", run_id=run_id), at, effects)


def _await_run(conn: sqlite3.Connection, run: int, wait: Wait, at: float, effects: Effects) -> None:
    """Wait for a run that was there before; if it has ended, that arrives at once."""
    row = conn.execute(
        "SELECT run, status FROM durable_runs WHERE run_id = ?", (last_id(conn, wait.run_id or ""),)
    ).fetchone()
    if row is None:
        _put_missing(conn, run, wait, at, effects)
        return
    target, status = row
    write_many(conn, INSERT_WAITS, [_wait_row(run, wait, target, at)])
    if status in ENDS:
        tell_waiters(conn, [AwaitedEnd(target, wait.run_id or "", *read_end(conn, target), at)], effects)


def _put_missing(conn: sqlite3.Connection, run: int, wait: Wait, at: float, effects: Effects) -> None:
    """The run to wait for does not exist (it was pruned): that is its outcome."""
    event = ChildCancelled(wait.position, wait.run_id or "", "no such run (it may have been pruned)", at)
    put_item(conn, run, event, effects, wakes=True)


def _free(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """Let go of a run that waits, unless something arrived since its turn began."""
    run = turn.state.run
    if (
        turn.decision.requests  # whose answers come with this turn
        or conn.execute("SELECT 1 FROM durable_inbox WHERE run = ? AND wakes = 1 LIMIT 1", (run,)).fetchone()
    ):
        write_many(conn, _RUNNING, [(run, turn.at)])  # with its first turn it has begun
        effects.kept.add(run)
        return
    conn.execute(
        "UPDATE durable_runs SET status = 'waiting', ready_at = NULL, started_at = coalesce(started_at, ?) "
        "WHERE run = ? AND status IN ('running', 'pending')",
        (turn.at, run),
    )


# --- signals that nobody asked for -----------------------------------------------------------------------


def _unread(conn: sqlite3.Connection, ending: Sequence[LastTurn]) -> dict[int, Counter[str]]:
    """The signals in the inboxes of runs that are to end, by run: how many of each name."""
    found: dict[int, Counter[str]] = {}
    for run, name in join_many(conn, _UNREAD, [(turn.state.run, turn.inbox_upto) for turn in ending]):
        found.setdefault(run, Counter())[name] += 1
    return found


def _listens(turn: LastTurn, unread: Mapping[int, Counter[str]]) -> bool:
    """Whether the code may ask for what is unread. Behind an unread signal of its name, another changes nothing."""
    return turn.listens and not unread.get(turn.state.run, Counter()).keys() <= turn.unread.keys()


def _carry_over(
    conn: sqlite3.Connection, run: int, target: int, unconsumed: Sequence[RunArrival], effects: Effects
) -> None:
    """Give to run *target*, in its order, what *run* took in and did not consume, then the signals in its inbox."""
    (newest,) = conn.execute("SELECT coalesce(max(item), 0) FROM durable_inbox WHERE run = ?", (run,)).fetchone()
    for event in unconsumed:
        put_item(conn, target, event, effects, wakes=not isinstance(event, SignalReceived))
    moved = conn.execute(_MOVE_SIGNALS, (target, run, SignalReceived.kind, newest))
    conn.execute(
        "DELETE FROM durable_inbox WHERE run = ? AND kind = ? AND item <= ?", (run, SignalReceived.kind, newest)
    )
    if unconsumed or moved.rowcount:
        effects.arrived.add(target)


def _keep_unread(
    conn: sqlite3.Connection, turn: LastTurn, waiting: Counter[str] | None, effects: Effects
) -> Mapping[str, int]:
    """Keep with the run what nobody asked for: in its history, or in its inbox; how many of each name."""
    if waiting is None and not turn.unread and not turn.unconsumed:
        return turn.unread
    if turn.unconsumed:
        _carry_over(conn, turn.state.run, turn.state.run, turn.unconsumed, effects)
    unread = Counter(turn.unread) + Counter(event.name for event in _signals(turn.unconsumed)) + (waiting or Counter())
    text = json.dumps(unread, ensure_ascii=False, sort_keys=True)
    conn.execute("UPDATE durable_runs SET unread = ? WHERE run = ?", (text, turn.state.run))
    return unread


def _signals(events: Sequence[RunArrival]) -> Iterator[SignalReceived]:
    return (event for event in events if isinstance(event, SignalReceived))


# --- ends ------------------------------------------------------------------------------------------------


def _end(
    conn: sqlite3.Connection, turns: Sequence[LastTurn], waiting: Mapping[int, Counter[str]], effects: Effects
) -> None:
    """Write the ends of runs, and tell those who wait for them."""
    runs = [turn.state.run for turn in turns]
    paused = {turn.state.run for turn in turns if turn.successor is not None and _is_paused(conn, turn.state.run)}
    write_many(conn, _ENDED, [(turn.state.run, turn.status, turn.at, _reason(turn)) for turn in turns], is_bound=True)
    count_ended(conn, [(turn.state.workflow, str(turn.status)) for turn in turns])
    about_many(conn, _NO_WAITS, runs)
    at = turns[0].at
    over = [turn.state.run for turn in turns if turn.successor is None]
    let_in(conn, slots.release_runs(conn, over, at, effects), at, effects)
    ends: list[AwaitedEnd] = []
    for turn in turns:
        state, status = turn.state, str(turn.status)
        outcome: RunResult | None = None
        unread: Mapping[str, int] = {}
        if turn.successor is not None:
            _continue(conn, turn, turn.successor, effects)
            if state.run in paused:  # since the turn began
                _pause_unborn(conn, turn.successor, effects)
        else:
            outcome = RunResult(status, turn.decision.outcome, turn.decision.reason)
            ends.append(AwaitedEnd(state.run, state.run_id, *outcome, turn.at))
            unread = _keep_unread(conn, turn, waiting.get(state.run), effects)
        for new in turn.follow_ups:
            follow(conn, state, new, effects)
        if turn.broken_hooks:
            note_broken(conn, state.run, turn.broken_hooks, turn.at)
        effects.ended.append(Ended(state.run, state.run_id, state.workflow, status, outcome, unread))
        if killed_the_process(turn.decision.reason):
            pause_killer(conn, state.run_id, turn.at, effects)
    about_many(conn, _NO_ITEMS, runs)
    for (child,) in about_many(conn, _TIED, over):
        request_cancel(conn, child, "its parent has ended", at, effects)
    tell_waiters(conn, ends, effects)
    tell_batches(conn, turns, effects)


def _reason(turn: LastTurn) -> str | float:
    """Why it ended, `NULL` where that is not said."""
    return (turn.decision.reason or NULL) if turn.successor is None else NULL


def _is_paused(conn: sqlite3.Connection, run: int) -> bool:
    (status,) = conn.execute("SELECT status FROM durable_runs WHERE run = ?", (run,)).fetchone()
    return bool(status == "paused")


def _pause_unborn(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> None:
    """What a run continues as waits, too, for the person who paused it; unless it is to end."""
    paused = conn.execute(
        "UPDATE durable_runs SET status = 'paused', ready_at = NULL, reason = 'paused while pending' "
        "WHERE run = ? AND NOT EXISTS (SELECT 1 FROM durable_inbox AS i WHERE i.run = durable_runs.run AND i.kind = ?)",
        (new.run, CancelRequested.kind),
    )
    if paused.rowcount:
        effects.paused.add(new.run)


def _continue(conn: sqlite3.Connection, turn: LastTurn, successor: NewRun, effects: Effects) -> None:
    """The run continues as another: what waited for it, its key, parent, batch, follow-ups and signals go over."""
    run = turn.state.run
    parent, position, key, until, arguments, follows, then, *limit = conn.execute(
        "SELECT parent, position, key_live, coalesce(key_until, started_at + key_ttl), arguments, follows, follow_ups, "
        "limit_name, limit_key FROM durable_runs WHERE run = ?",
        (run,),
    ).fetchone()
    conn.execute(
        "UPDATE durable_runs SET key_live = NULL, successor = ?, batch = NULL, callback = NULL WHERE run = ?",
        (successor.run_id, run),
    )
    state = turn.state
    successor = evolve(
        successor, parent=parent, position=position, key=key, key_ttl=None, follows=follows, batch=state.batch,
        callback=state.callback, follow_ups=(*(from_json(then) if then else ()), *successor.follow_ups),
    )  # fmt: skip
    if key is not None:  # by which the callers of the first of the chain find it, with what they ask for
        successor = evolve(successor, arguments=arguments)
    if limit == [successor.limit, successor.limit_key]:  # its slot goes over too, so it must not stand in line for one
        insert_run(conn, evolve(successor, limit=None), effects)
        conn.execute("UPDATE durable_runs SET limit_name = ?, limit_key = ? WHERE run = ?", (*limit, successor.run))
        conn.execute("UPDATE durable_slots SET run = ? WHERE run = ? AND position = ''", (successor.run, run))
    else:
        insert_run(conn, successor, effects, waits_since=turn.at)
    let_in(conn, slots.release_runs(conn, [run], turn.at, effects), turn.at, effects)
    conn.execute("UPDATE durable_runs SET key_until = ? WHERE run = ?", (until, successor.run))
    conn.execute("UPDATE durable_waits SET target = ? WHERE target = ?", (successor.run, run))
    conn.execute("UPDATE durable_dedup SET run = ? WHERE run = ?", (successor.run, run))
    conn.execute(
        "UPDATE durable_runs SET parent = ? WHERE parent = ? AND on_parent_end = 'cancel'", (successor.run, run)
    )
    asked = cancel_in_inbox(conn, run)
    for event in turn.unconsumed:
        if isinstance(event, CancelRequested):
            asked = event
    _carry_over(conn, run, successor.run, [*_signals(turn.unconsumed)], effects)
    answers.carry_over(conn, run, successor.run)
    if asked is not None:
        request_cancel(conn, successor.run, asked.reason, turn.at, effects)


def _join_child(conn: sqlite3.Connection, turn: TurnWrite, child: NewRun, wait: Wait | None, effects: Effects) -> None:
    """A child with a key or chosen id: created, or joined if its run exists; a conflict is its failure."""
    run, at = turn.state.run, turn.at
    position = child.position or ""
    try:
        run_id = get_or_create(conn, child, effects)
    except (KeyConflictError, LimitReachedError, RunExistsError, RunStateError, RunNotFoundError) as error:
        outcome = turn.refusal(error) if turn.refusal is not None else None
        put_item(conn, run, ChildFailed(position, "", outcome, at), effects, wakes=True)
        return
    found = conn.execute("SELECT run, status FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone()
    if wait is None:
        if run_id != child.run_id:
            keep_for_others(conn, run_id)
        if child.may_exist:
            put_item(conn, run, ChildJoined(position, run_id, at), effects, wakes=True)
        return
    if found is None:  # by a key that was kept
        _put_missing(conn, run, evolve(wait, run_id=run_id), at, effects)
        return
    target, status = found
    write_many(conn, INSERT_WAITS, [_wait_row(run, wait, target, at)])
    if status in ENDS:
        tell_waiters(conn, [AwaitedEnd(target, run_id, *read_end(conn, target), at)], effects)


def _ask_runs(conn: sqlite3.Connection, turn: TurnWrite, effects: Effects) -> None:
    """Do what a turn asks of other runs; the answers are arrivals, unless it is the last of its own run."""
    run, at = turn.state.run, turn.at
    for asked in turn.decision.requests:
        answer: RequestAccepted | RequestRefused
        try:
            if isinstance(asked, SignalAction):
                signal = SignalReceived(asked.name, asked.payload, at)
                send_signal(conn, asked.run_id, signal, asked.dedup, effects)
                answer = RequestAccepted(asked.position, None, at)
            else:
                accepted = request_cancel(conn, current_run(conn, asked.run_id).run, asked.reason, at, effects)
                answer = RequestAccepted(asked.position, json.dumps(accepted), at)
        except (RunNotFoundError, RunStateError) as error:
            failure = turn.refusal(error) if turn.refusal is not None else None
            answer = RequestRefused(asked.position, failure, at)
        if not isinstance(turn, LastTurn):
            put_item(conn, run, answer, effects, wakes=True)


def end_undriven(
    conn: sqlite3.Connection,
    state: RunState,
    end: Decision,
    at: float,
    follow_ups: Sequence[NewRun],
    broken_hooks: Sequence[BrokenHook],
    allocate: Callable[[], int],
    effects: Effects,
) -> None:
    """End a run whose code is not driven, as *end* says: without clean-up."""
    assert end.ended is not None, "it is an end"
    seq, chain = conn.execute(
        "SELECT seq, checksum FROM durable_events WHERE run = ? ORDER BY seq DESC LIMIT 1", (state.run,)
    ).fetchone()
    state = evolve(state, seq=seq, chain=chain)
    end.cancel_all_children = True
    rows = state.append(end.events)
    turn = LastTurn(state, at, end, rows, status=end.ended)
    turn.allocate, turn.follow_ups, turn.broken_hooks = allocate, follow_ups, broken_hooks
    write_turns(conn, [turn], effects)
