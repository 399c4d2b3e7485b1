"""
Requests to continue from what is recorded: a failed run retried, a copy of a run, runs of another journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from durable._core.codec.codec import Payload
from durable._core.journal import history
from durable._core.journal.events import Event, RunExpired, SignalReceived
from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import ENDS
from durable._shell.claims import slots
from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.event_rows import load_history
from durable._shell.reads.ready_rows import read_ready
from durable._shell.reads.run_rows import current_run, require_run, run_by_id
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.requests.run_requests import make_ready
from durable._shell.rows.rows import Effects, NewRun, RunState
from durable._shell.storage.bulk import write_many
from durable._shell.writes.batch_ends import reopen_batches
from durable._shell.writes.hook_writes import ask_again
from durable._shell.writes.run_writes import INSERT_WAITS, insert_run, write_rows
from durable._shell.writes.turn_writes import add_wait
from durable._shell.writes.wakeups import let_in, needs_slot
from durable.errors import BatchNotFoundError, RetryRefusedError, RunExistsError, RunStateError

#: Signals that no turn of a run has taken in yet, for its fork: those that one has are in the copied history.
_COPY_SIGNALS = """
INSERT INTO durable_inbox (run, kind, position, at, body, value, payload, name, wakes)
SELECT ?, kind, position, at, body, value, payload, name, wakes FROM durable_inbox
WHERE run = ? AND kind = ? ORDER BY item
"""


_BATCHES = """
SELECT coalesce(batch, callback) FROM durable_runs WHERE run = ? AND coalesce(batch, callback) IS NOT NULL
"""
#: Members and callbacks, of a batch and those nested in it, that a retry is for.
_TO_RETRY = """
WITH RECURSIVE tree(batch) AS (
    VALUES (?) UNION SELECT b.batch FROM durable_batches AS b JOIN tree ON b.parent = tree.batch
)
SELECT r.run_id FROM durable_runs AS r WHERE (r.batch IN tree OR r.callback IN tree) AND (
    r.status = 'failed' OR (r.status = 'cancelled'
        AND NOT EXISTS (SELECT 1 FROM durable_events AS e WHERE e.run = r.run AND e.position IS NOT NULL))
)
ORDER BY r.run
"""
_NO_CANCEL = """
WITH RECURSIVE tree(batch) AS (
    VALUES (?) UNION SELECT b.batch FROM durable_batches AS b JOIN tree ON b.parent = tree.batch
)
UPDATE durable_batches SET cancelled_at = NULL, reason = NULL WHERE batch IN tree
"""


@light_frozen
class RetryRun(JournalRequest[bool]):
    """
    Let a failed run continue from what failed; completed steps and children are not repeated.

    So does one begin that was cancelled before it had.

    False if the run is running already. It is refused if the failure has led to other steps.
    """

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Reopen its history, and those of its children that failed."""
        return _retry(conn, self.run_id, effects, env, force=False)


@light_frozen
class RetryRunAnyway(JournalRequest[bool]):
    """As `RetryRun`, whatever the failure has led to: the run continues from before that."""

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Reopen its history, and those of its children that failed."""
        return _retry(conn, self.run_id, effects, env, force=True)


@light_frozen
class RetryHooks(JournalRequest[int]):
    """Make up for the hooks of a run that went wrong, and for the starts that were refused; how many there are."""

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> int:
        """Start those anew, and have an engine call these."""
        run = current_run(conn, self.run_id)
        if run.status not in ENDS:
            raise RunStateError(self.run_id, run.status, "retry the hooks of", "They are called when it has ended")
        return ask_again(conn, run.run, env.now, env.numbers(conn), effects)


@light_frozen
class ForkRun(JournalRequest[str]):
    """A new run that continues from position *at* of another, with some outcomes replaced; its id."""

    run_id: str
    at: str
    replace: Mapping[str, Payload]
    new_id: str

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return tuple(self.replace.values())

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> str:
        """Copy the history up to there."""
        run, now = require_run(conn, self.run_id), env.now
        if run_by_id(conn, self.new_id) is not None:
            raise RunExistsError(self.new_id, "a fork is a new run")
        recorded = load_history(conn, env.path, run)
        events = history.fork(recorded, run_id=self.run_id, at=self.at, replace=self.replace, now=now)
        started = history.start_of(events)
        arguments, limit, limit_key, policy, timeout = conn.execute(
            "SELECT arguments, limit_name, limit_key, retry, timeout FROM durable_runs WHERE run = ?", (run.run,)
        ).fetchone()
        number = env.numbers(conn)()
        new = NewRun(
            run=number,
            run_id=self.new_id,
            workflow=run.workflow,
            version=run.version,
            kind=run.kind,
            queue=run.queue,
            priority=run.priority,
            key=None,
            arguments=arguments or "",
            labels=run.labels,
            started=started,
            due_at=None,
            timeout=timeout,
            retry=policy,
            place=PlacesFromFile(conn, env.places).place(run.queue, run.workflow, None, run.labels, now),
            limit=limit,
            limit_key=limit_key or "",
        )
        mine = Effects()
        insert_run(conn, new, mine, waits_since=now)
        state = RunState(number, self.new_id, run.workflow, run.queue)
        state.append([started])
        write_rows(conn, state.append(events[1:]))
        conn.execute("UPDATE durable_runs SET created_at = ?, forked_from = ? WHERE run = ?", (now, run.run_id, number))
        _wait_again(conn, number, events, now, effects)
        conn.execute(_COPY_SIGNALS, (number, run.run, SignalReceived.kind))
        if not needs_slot(conn, number):
            conn.execute("UPDATE durable_runs SET ready_at = ? WHERE run = ?", (now, number))
            effects.ready.append(read_ready(conn, number))
        elif mine.next_fire_at is not None:
            effects.fires(mine.next_fire_at)
        return self.new_id


@late_frozen
class Imported:
    """What an import came to: ids of the runs that were written, and of those that were there already."""

    runs: list[str]
    present: list[str]


@light_frozen
class ImportRuns(JournalRequest[Imported]):
    """Write runs of another journal into this one: all of them, or none. See `importing`."""

    histories: tuple[RunHistory, ...]

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Imported:
        """Write those that are not here yet."""
        from durable._shell.importing.importing import import_runs  # noqa: PLC0415 - for those who import

        runs, present = import_runs(
            conn, effects, histories=self.histories, path=env.path, now=env.now, allocate=env.numbers(conn)
        )
        return Imported(runs, present)


@light_frozen
class RetryBatch(JournalRequest[int]):
    """As `RetryRun` (by *force* `RetryRunAnyway`), for all that failed in a batch, or never began; how many runs."""

    batch_id: str
    force: bool

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> int:
        """Retry each of them, or none."""
        row = conn.execute("SELECT batch FROM durable_batches WHERE batch_id = ?", (self.batch_id,)).fetchone()
        if row is None:
            raise BatchNotFoundError("id", self.batch_id)
        found = conn.execute(_TO_RETRY, row).fetchall()
        for (run_id,) in found:
            _retry(conn, run_id, effects, env, force=self.force)
        if found:
            conn.execute(_NO_CANCEL, row)
        return len(found)


REQUESTS = (RetryRun, RetryRunAnyway, RetryBatch, RetryHooks, ForkRun, ImportRuns)


def _retry(conn: sqlite3.Connection, run_id: str, effects: Effects, env: Env, *, force: bool) -> bool:
    run, now = current_run(conn, run_id), env.now
    if run.status not in ENDS:
        return False
    events = load_history(conn, env.path, run)
    unborn = history.never_began(events)
    if run.status != "failed" and not (run.status == "cancelled" and unborn):
        raise RunStateError(run_id, run.status, "retry", "Only failed runs can be retried; fork it instead")
    reopened = history.reopened(events, now)
    ran = () if force or unborn else history.ran_since(events, reopened)
    if ran:
        named = [f"{event.describe()} at {event.position}" for event in ran]
        raise RetryRefusedError(run_id, named, history.is_compensated(events))
    state = RunState(run.run, run.run_id, run.workflow, run.queue, len(events))
    (state.chain,) = conn.execute(
        "SELECT checksum FROM durable_events WHERE run = ? AND seq = ?", (run.run, len(events))
    ).fetchone()
    write_rows(conn, state.append([reopened]))
    for child_id in history.open_waits([*events, reopened]).children.values():
        child = run_by_id(conn, child_id)
        if child is not None and child.status == "failed":
            _retry(conn, child_id, effects, env, force=force)
    # It is wanted, however late; and what said that it has begun may just have been set aside.
    conn.execute("UPDATE durable_runs SET compensated = 0, expires_at = NULL WHERE run = ?", (run.run,))
    # One that expired has not begun, whatever it had asked for by then; unless an earlier retry has set that aside.
    if unborn or any(isinstance(event, RunExpired) for event in history.effective(events)[0]):
        conn.execute("UPDATE durable_runs SET started_at = NULL WHERE run = ?", (run.run,))
        run = run._replace(started_at=None)
    _wait_again(conn, run.run, [*events, reopened], now, effects)
    for (batch,) in conn.execute(_BATCHES, (run.run,)).fetchall():
        reopen_batches(conn, batch)
    make_ready(conn, run, now, effects)
    return True


def _wait_again(conn: sqlite3.Connection, run: int, events: Sequence[Event], now: float, effects: Effects) -> None:
    """The rows of what a reopened or copied history still waits for."""
    waits = history.open_waits(events)
    for position, target in waits.children.items():
        add_wait(conn, run, position, target, now, effects)
    for wait in waits.timers.values():
        row = (run, wait.group, wait.position, wait.kind, "any", wait.name, None, wait.fire_at, now)
        write_many(conn, INSERT_WAITS, [row])
        if wait.fire_at is not None:
            effects.fires(wait.fire_at)
    for position, seconds in waits.heartbeats.items():
        row = (run, position, position, "heartbeat", "any", None, None, now + seconds, now)
        write_many(conn, INSERT_WAITS, [row])
        effects.fires(now + seconds)
    for position, (name, key) in waits.slots.items():
        let_in(conn, slots.ask(conn, run, position, name, key, now, effects), now, effects)
