"""
Requests about runs: start, signal, cancel, pause, resume, resolve.
"""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Final

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import loads
from durable._core.journal.events import OutcomeResolved, ResumeRequested, SignalReceived, StepInterrupted
from durable._core.light_frozen import light_frozen
from durable._core.program.definition import check_run_id
from durable._core.statuses import ENDS, HELD, OPEN, Cause, changed_by
from durable._shell.claims import slots
from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.ready_rows import read_ready
from durable._shell.reads.run_rows import RunRow, current_run
from durable._shell.requests.request import Env, JournalRequest, values_of
from durable._shell.rows.new_runs import placed
from durable._shell.rows.rows import Effects, NewRun, Stopped
from durable._shell.storage.run_counts import count_ended
from durable._shell.writes.answers import ask
from durable._shell.writes.feeds import refill
from durable._shell.writes.run_writes import create_each
from durable._shell.writes.wakeups import claim, let_in, needs_slot, put_item, request_cancel, send_signal
from durable.errors import RunStateError, UsageError

_PAUSABLE: Final = changed_by(Cause.PAUSE)
_RESOLVABLE: Final = "Only a step whose outcome is unknown, and which blocks its run, can be resolved"


@light_frozen
class StartRuns(JournalRequest[list[str]]):
    """Create runs, or find them by key or id: all of them, or none. Their ids."""

    starts_runs: ClassVar[bool] = True

    runs: tuple[NewRun, ...]

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return values_of(self.runs)

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return len(self.runs) == 1

    def prepared(self, env: Env) -> StartRuns:
        """
        Itself, with places in line for runs that have none: those of clients.

        Raises:
            UsageError: The id of one is reserved.
        """
        JournalRequest.prepared(self, env)
        for run in self.runs:
            if run.chosen_id:
                check_run_id(run.run_id)
        places = env.places
        if places is None or all(run.place or run.due_at is not None for run in self.runs):
            return self
        return StartRuns(tuple(run if run.place else placed(run, places) for run in self.runs))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> list[str]:
        """Create them."""
        allocate, places = env.numbers(conn), PlacesFromFile(conn)
        # A client that records them by itself has neither numbers nor places to give.
        news = [new if new.run > 0 else places.placed(evolve(new, run=allocate())) for new in self.runs]
        return list(create_each(conn, news, effects))


@light_frozen
class SendSignal(JournalRequest[bool]):
    """Put a signal into a run's inbox; False if its *dedup* id was accepted before."""

    run_id: str
    name: str
    payload: Payload
    dedup: str | None = None

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return (self.payload,)

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return True

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Put it there, and wake the run if it waits for one of this name."""
        return send_signal(conn, self.run_id, SignalReceived(self.name, self.payload, env.now), self.dedup, effects)


@light_frozen
class AskRun(JournalRequest[str]):
    """
    Put a request into a run's inbox; its id: that of the first, if its *dedup* id was accepted before.

    *request* is the id that it gets, *digest* that of its question.
    """

    run_id: str
    name: str
    payload: Payload
    digest: str
    request: str
    dedup: str | None = None

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return (self.payload,)

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return True

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> str:
        """Put it there, and wake the run if it waits for one of this name."""
        asked = SignalReceived(self.name, self.payload, env.now, self.request)
        return ask(conn, self.run_id, asked, self.digest, self.dedup, effects)


@light_frozen
class CancelRun(JournalRequest[bool]):
    """Ask a run to end; False if it has ended already."""

    run_id: str
    reason: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """See `JournalRequest`."""
        return (self.reason,)

    def prepared(self, env: Env) -> CancelRun:
        """As ever; with its reason concealed, if it is not."""
        return evolve(self, reason=env.conceal(self.reason))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Ask it to."""
        return request_cancel(conn, current_run(conn, self.run_id).run, self.reason, env.now, effects)


@light_frozen
class PauseRun(JournalRequest[bool]):
    """Let a run begin nothing more until it is resumed; False if it is paused already."""

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Pause it."""
        run = current_run(conn, self.run_id)
        if run.status == "paused":
            return False
        if run.status not in _PAUSABLE:
            raise RunStateError(self.run_id, run.status, "pause")
        conn.execute(
            "UPDATE durable_runs SET status = 'paused', ready_at = NULL, reason = ? WHERE run = ?",
            (f"paused while {run.status}", run.run),
        )
        let_in(conn, slots.step_aside(conn, run.run, env.now, effects), env.now, effects)
        effects.paused.add(run.run)
        effects.stopped.append(Stopped("paused", run.run_id, run.workflow))
        return True


@light_frozen
class ResumeRun(JournalRequest[bool]):
    """Resume a paused or blocked run; False if it is neither."""

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Let it be driven again."""
        from durable._shell.importing.importing import give_up_absent  # noqa: PLC0415 - of runs that were imported

        run, now = current_run(conn, self.run_id), env.now
        if run.status in ENDS:
            remedy = "A failed run can be retried" if run.status == "failed" else ""
            raise RunStateError(self.run_id, run.status, "resume", remedy)
        if run.status not in HELD:
            return False
        if run.status == "blocked":
            conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'code'", (run.run,))
            put_item(conn, run.run, ResumeRequested(now), effects, wakes=False)
        make_ready(conn, run, now, effects)
        give_up_absent(conn, run.run, now, effects)
        refill(conn, run.run, now, effects)
        return True


@light_frozen
class RescheduleRun(JournalRequest[None]):
    """Let a run that waits for its delay begin at *at*, or *delay* seconds from now, instead."""

    run_id: str
    at: float | None
    delay: float | None

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Set its timer, which nobody else is about to take for due: until then it is a row and nothing more."""
        run = current_run(conn, self.run_id)
        due_at = self.at if self.delay is None else env.now + self.delay
        changed = conn.execute(
            "UPDATE durable_waits SET fire_at = ? WHERE run = ? AND kind = 'start' AND fire_at IS NOT NULL",
            (env.now if due_at is None else due_at, run.run),
        )
        if not changed.rowcount:
            remedy = "Its delay is over, or it had none" + ("; pause it instead" if run.status in OPEN else "")
            raise RunStateError(self.run_id, run.status, "reschedule", remedy)
        effects.fires(env.now if due_at is None else due_at)


@light_frozen
class ResolveStep(JournalRequest[None]):
    """Say how a step has ended that blocks its run because nobody knows. *value* is a failure if it *failed*."""

    run_id: str
    position: str
    value: Payload
    failed: bool
    by: str
    reason: str

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return (self.value, self.reason)

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Let its run continue with that."""
        run, position, now = current_run(conn, self.run_id), self.position, env.now
        if run.status != "blocked":
            raise RunStateError(self.run_id, run.status, f"resolve position {position} of", _RESOLVABLE)
        latest = conn.execute(
            "SELECT kind, body FROM durable_events WHERE run = ? AND position = ? ORDER BY seq DESC LIMIT 1",
            (run.run, position),
        ).fetchone()
        if latest is None:
            msg = f"run {self.run_id!r} has asked for nothing at position {position!r}: `durable show` lists its steps"
            raise UsageError(msg)
        if latest[0] != StepInterrupted.kind:
            raise RunStateError(
                self.run_id, "blocked for another reason", f"resolve position {position} of", _RESOLVABLE
            )
        attempt = loads(latest[1])[0]
        event = OutcomeResolved(position, attempt, self.failed, self.by, self.reason, self.value, now)
        put_item(conn, run.run, event, effects, wakes=False)
        conn.execute("DELETE FROM durable_waits WHERE run = ? AND kind = 'code'", (run.run,))
        make_ready(conn, run, now, effects)


REQUESTS = (StartRuns, SendSignal, AskRun, CancelRun, PauseRun, ResumeRun, RescheduleRun, ResolveStep)


# --- parts of these, and of others about runs -----------------------------------------------------------


def make_ready(conn: sqlite3.Connection, run: RunRow, now: float, effects: Effects) -> None:
    """Let a run that stood still be driven, once it has the slots that it needs."""
    delayed = conn.execute("SELECT 1 FROM durable_waits WHERE run = ? AND kind = 'start'", (run.run,)).fetchone()
    waits = needs_slot(conn, run.run)
    status = "pending" if run.started_at is None or waits else "running"
    if run.ended_at is not None:
        count_ended(conn, [(run.workflow, run.status)], -1)
    conn.execute(
        "UPDATE durable_runs SET status = ?, ready_at = ?, reason = NULL, ended_at = NULL, unread = NULL WHERE run = ?",
        (status, None if delayed or waits else now, run.run),
    )
    let_in(conn, slots.come_back(conn, run.run, now, effects), now, effects)
    if delayed:
        return
    if waits:
        claim(conn, run.run, now, effects, waits=True)
    else:
        effects.ready.append(read_ready(conn, run.run))
