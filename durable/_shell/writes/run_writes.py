"""
New runs: their rows, and the rules about keys and ids. Runs on the writer's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, assert_never

from attrs import evolve

from durable._core.codec.digests import may_be_equal
from durable._core.journal.events import SignalReceived
from durable._shell.claims import keys, slots
from durable._shell.reads.run_rows import last_of_chain
from durable._shell.rows.rows import Effects, EventTuple, Large, NewRun, RunState, labels_json, ready_run
from durable._shell.rows.templates import to_json
from durable._shell.storage.bulk import NULL, write_many
from durable._shell.storage.run_labels import note_labels
from durable._shell.writes.wakeups import claim, keep_payload, put_signal, request_cancel
from durable.errors import LimitReachedError, RunExistsError, RunNotFoundError, UsageError

_INSERT_RUNS = """
INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, place, ready_at, key, key_live,
    key_ttl, arguments, parent, position, labels, retry, timeout, expires_at, follows, follow_ups, batch,
    callback, created_at)
VALUES {rows}
"""
_INSERT_EVENTS = """
INSERT INTO durable_events (run, seq, kind, position, at, body, value, checksum)
VALUES {rows}
"""
_INSERT_LARGE_EVENTS = """
INSERT INTO durable_events (run, seq, kind, position, at, body, checksum, value, payload)
VALUES {rows}
"""
#: Where the labels stand in a row of a run.
_LABELS: Final = 16
INSERT_WAITS = """
INSERT OR REPLACE INTO durable_waits (run, grp, position, kind, wake_on, name, target, fire_at, since)
VALUES {rows}
"""


#: The value in a row of an event.
_value_of: Final = itemgetter(6)


def write_rows(conn: sqlite3.Connection, rows: list[Any]) -> None:
    """Append rows of events; large payloads go to their own table."""
    if Large in map(type, map(_value_of, rows)):
        write_many(conn, _INSERT_LARGE_EVENTS, [_with_payload(conn, row) for row in rows])
    else:
        write_many(conn, _INSERT_EVENTS, rows, is_bound=True)


def _with_payload(conn: sqlite3.Connection, row: EventTuple) -> Sequence[Any]:
    *others, value, checksum = row
    if type(value) is Large:
        return *others, checksum, None, keep_payload(conn, value)
    return *others, checksum, value, None


def write_runs(conn: sqlite3.Connection, runs: list[Any], events: list[Any], waits: Sequence[Any]) -> None:
    """
    Write what `add_run` has added, and other such rows: `NULL` where they are empty.

    Raises:
        UsageError: The id of one is another run's.
    """
    try:
        write_many(conn, _INSERT_RUNS, runs, is_bound=True)
    except sqlite3.IntegrityError as error:
        taken = _taken_id(conn, runs)
        if taken is None:
            raise
        msg = f"the run that it starts would be called {taken!r}, as another run is: prune that one, then resume this"
        raise UsageError(msg) from error
    labelled = [row[0] for row in runs if row[_LABELS] is not NULL]
    if labelled:
        note_labels(conn, labelled)
    write_rows(conn, events)
    write_many(conn, INSERT_WAITS, waits, is_bound=True)


def _taken_id(conn: sqlite3.Connection, runs: Sequence[Any]) -> str | None:
    """The first id in the rows of new *runs* that another run has."""
    for run, run_id, *_ in runs:
        if conn.execute("SELECT 1 FROM durable_runs WHERE run_id = ? AND run <> ?", (run_id, run)).fetchone():
            return str(run_id)
    return None


def add_run(new: NewRun, runs: list[Any], events: list[Any], waits: list[Any], effects: Effects) -> None:
    """Add the rows of *new* to those of a transaction."""
    at = new.started.at
    follow_ups = to_json(new.follow_ups) if new.follow_ups else None
    key = NULL if new.key is None else new.key
    runs.append(
        (
            new.run,
            new.run_id,
            new.workflow,
            new.version,
            new.kind,
            "pending",
            new.queue,
            new.priority,
            new.place,
            at if new.due_at is None and not new.behind else NULL,
            key,
            key,
            NULL if new.key_ttl is None else new.key_ttl,
            new.arguments,
            NULL if new.parent is None else new.parent,
            NULL if new.position is None else new.position,
            labels_json(new.labels) if new.labels else NULL,
            NULL if new.retry is None else new.retry,
            NULL if new.timeout is None else new.timeout,
            NULL if new.expires_at is None else new.expires_at,
            NULL if new.follows is None else new.follows,
            NULL if follow_ups is None else follow_ups,
            NULL if new.batch is None else new.batch,
            NULL if new.callback is None else new.callback,
            at,
        )
    )
    if new.due_at is None and not new.behind:
        effects.ready.append(ready_run(new, follow_ups, events))
    else:
        events += RunState(new.run, new.run_id, new.workflow, new.queue).append((new.started,))
        waits += [(new.run, "", str(run), "start", "any", NULL, run, NULL, at) for run in new.behind]
        if new.due_at is not None:
            waits.append((new.run, "", "", "start", "any", NULL, NULL, new.due_at, at))
            effects.fires(new.due_at)
    if new.expires_at is not None:
        waits.append((new.run, "", "", "expiry", "any", NULL, NULL, new.expires_at, at))
        effects.fires(new.expires_at)


def insert_run(conn: sqlite3.Connection, new: NewRun, effects: Effects, *, waits_since: float | None = None) -> None:
    """
    Create a run whose id and key are known to be free.

    A limit is the run's own if it is a workflow, or if the limit rejects or replaces runs; that of
    another job is for its attempts. A delayed run asks when it is due. Where *waits_since* is given,
    it waits for its slot from then on, whatever the limit says.

    Raises:
        LimitReachedError: The limit rejects it.
    """
    conflict = None if new.limit is None else slots.on_conflict(conn, new.limit)
    if new.limit is None or (new.kind != "workflow" and conflict == "wait"):
        insert_plain(conn, [new], effects)
        return
    waits, is_due = waits_since is not None, new.due_at is None and not new.behind
    at = new.started.at if waits_since is None else waits_since
    if is_due and not waits:
        _check_room(conn, new, at)
    mine = Effects()
    insert_plain(conn, [new], mine)
    mine.ready.clear()
    effects.add(mine)
    conn.execute(
        "UPDATE durable_runs SET limit_name = ?, limit_key = ?, ready_at = NULL WHERE run = ?",
        (new.limit, new.limit_key, new.run),
    )
    if is_due:
        claim(conn, new.run, at, effects, waits=waits)


def _check_room(conn: sqlite3.Connection, new: NewRun, at: float) -> None:
    if new.limit is None or slots.on_conflict(conn, new.limit) != "reject":
        return
    if not slots.has_room(conn, new.limit, new.limit_key, at):
        raise LimitReachedError(new.limit, new.limit_key, new.run_id)


def insert_plain(conn: sqlite3.Connection, news: Sequence[NewRun], effects: Effects) -> None:
    """Create runs in whose way nothing can stand: table by table, which costs a third of run by run."""
    runs: list[Any] = []
    events: list[Any] = []
    waits: list[Any] = []
    for new in news:
        add_run(new, runs, events, waits, effects)
    write_runs(conn, runs, events, waits)


def create_each(conn: sqlite3.Connection, news: Iterable[NewRun], effects: Effects) -> Iterator[str]:
    """
    `get_or_create` for each of many; the ids, to be taken to the end: that is when all are written.

    Those in whose way nothing can stand are written together: at the end, or before the next one that may find them.
    """
    plain: list[NewRun] = []
    for new in news:
        if not new.may_be_refused:
            plain.append(new)
            yield new.run_id
            continue
        insert_plain(conn, plain, effects)
        plain.clear()
        yield get_or_create(conn, new, effects)
    insert_plain(conn, plain, effects)


def get_or_create(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> str:
    """
    The id of the run that *new* stands for: created, or found by its key or chosen id.

    Whatever refuses it does so before anything is written, since a child is refused in the middle of a turn.

    Raises:
        KeyConflictError: The key belongs to a run with other arguments, or `on_conflict` is reject.
        RunExistsError: The id does.
        LimitReachedError: No slot of its limit is free, and the limit rejects it.
        RunStateError, RunNotFoundError: It exists and has ended, or was pruned, and was to get signals.
    """
    run_id = _found_or_created(conn, new, effects)
    if new.signals:
        run = last_of_chain(conn, run_id)
        if run is None:  # joined by a key that was kept
            raise RunNotFoundError("id", run_id)
        for signal in new.signals:
            put_signal(conn, run, SignalReceived(signal.name, signal.payload, new.started.at), effects)
        if effects.ready and effects.ready[-1].run == run.run:
            effects.ready[-1] = evolve(effects.ready[-1], fresh=None)  # there is more to load than its start
    return run_id


def _found_or_created(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> str:
    if new.chosen_id:
        found = conn.execute(
            "SELECT run_id, arguments, workflow FROM durable_runs WHERE run_id = ?", (new.run_id,)
        ).fetchone()
        if found is not None:
            if may_be_equal(found[1], new.arguments) and new.on_conflict == "join":
                _joined(conn, new, new.run_id)
                return new.run_id
            raise RunExistsError(new.run_id, f"a run of {found[2]!r}" + _same(found[1], new))
    key = new.key
    if key is not None and (holder := keys.holder_of(conn, key)) is not None:
        verdict = keys.verdict(holder, new)
        match verdict:
            case "join":
                _joined(conn, new, holder.run_id)
                return holder.run_id
            case "renew":
                _renew(conn, holder, new, effects)
                _joined(conn, new, holder.run_id)
                return holder.run_id
            case "follow":
                new = evolve(new, behind=(*new.behind, holder.run))
            case "replace":
                _check_due_room(conn, new)
                request_cancel(conn, holder.run, f"replaced by {new.run_id}", new.started.at, effects)
            case "take":
                _check_due_room(conn, new)
            case _:
                assert_never(verdict)
        keys.free_key(conn, key)
    insert_run(conn, new, effects)
    return new.run_id


def _check_due_room(conn: sqlite3.Connection, new: NewRun) -> None:
    if new.due_at is None and not new.behind:
        _check_room(conn, new, new.started.at)


def _renew(conn: sqlite3.Connection, holder: keys.Holder, new: NewRun, effects: Effects) -> None:
    """
    Give the arguments of *new* to a run that waits to begin: all else of it stays.

    All its history is that it exists, which nobody has acted on: that one event is written anew. Should its driver
    have begun with the old one, the first turn is refused, and made again: see `keys.made_too_early`.
    """
    queue, created_at = conn.execute(
        "SELECT queue, created_at FROM durable_runs WHERE run = ?", (holder.run,)
    ).fetchone()
    started = evolve(new.started, seed=holder.run_id, at=created_at)
    conn.execute("DELETE FROM durable_events WHERE run = ?", (holder.run,))
    state = RunState(holder.run, holder.run_id, holder.workflow, queue)
    write_rows(conn, state.append([started]))
    conn.execute(
        "UPDATE durable_runs SET arguments = ?, version = ?, "
        "limit_key = CASE WHEN limit_name IS NULL THEN NULL ELSE ? END WHERE run = ?",
        (new.arguments, new.version, new.limit_key, holder.run),
    )
    keys.note_renewed(conn, holder.run, state.chain)
    effects.arrived.add(holder.run)  # what memory knows of it is stale


def _joined(conn: sqlite3.Connection, new: NewRun, run_id: str) -> None:
    """A start found the run called *run_id*; a parent that awaits it is known by its wait."""
    if new.parent is None:
        keep_for_others(conn, run_id)


def keep_for_others(conn: sqlite3.Connection, run_id: str) -> None:
    """Somebody else wants this run, too: it does not end with the parent that was first."""
    conn.execute("UPDATE durable_runs SET on_parent_end = 'abandon' WHERE run_id = ? AND parent IS NOT NULL", (run_id,))


def _same(recorded: str, new: NewRun) -> str:
    return " with the same arguments" if may_be_equal(recorded, new.arguments) else " with other arguments"
