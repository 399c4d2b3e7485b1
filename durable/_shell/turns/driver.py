"""
Drives one active run: the turn loop.

A turn is: take what arrived, `advance` the execution, record the decision, perform it. The
driver is the only one who appends to its run's history, so nothing races with it: whatever
comes from elsewhere (signals, timers, ends of children, cancels) is put into the run's inbox
and becomes part of the history with the turn that takes it in.

A driver ends when its run ends, is freed, is blocked, or has to stop (pause, shutdown). Then
nothing of the run is left in memory. If it has to stop, the outcomes of steps still running
go into the inbox too, so that the history stays closed.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import anyio

from durable._core.codec.exceptions.safe_text import one_line
from durable._core.codec.exceptions.traceback_text import frames_of
from durable._core.journal import history
from durable._core.journal.events import (
    Event,
    Reopening,
    RunExpired,
    RunStarted,
    SignalReceived,
    StepInterrupted,
    StepNotBegun,
)
from durable._core.light_tuples import NamedTuple
from durable._core.run.decision import Decision, StepAction, in_parts
from durable._core.run.execution import REPLAYED_AT_ONCE, Execution
from durable._core.suspicion import BODY, Suspect, counts, progress
from durable._shell.commits.commits import NotBegunError, SpoiledError, Turn
from durable._shell.commits.residents import Resident
from durable._shell.commits.witness import UNWATCHED
from durable._shell.log import emit, log
from durable._shell.loops import current_task
from durable._shell.reads.event_rows import Loaded, latest_note_at, load_run
from durable._shell.rows.rows import ReadyRun
from durable._shell.turns.attempt_runner import AttemptRunner
from durable._shell.turns.executions import AnyExecution, make_execution, read_in_slices, replayed
from durable._shell.turns.inbox import Inbox
from durable._shell.turns.notes import StepNotes
from durable._shell.turns.services import RELOAD_PAUSE, Services
from durable._shell.turns.transaction_turn import Recorded, Spoiling, TransactionTurn
from durable._shell.turns.turn_writer import ROWS_A_COMMIT, ROWS_AT_ONCE, ROWS_OF_CHILD, Made, TurnWriter
from durable._shell.writes.turn_writes import TurnOutdatedError
from durable.errors import (
    DurableError,
    EngineClosedError,
    InternalError,
    JournalCorruptError,
    JournalDamagedError,
    JournalError,
    PoisonError,
)

T = TypeVar("T")
#: What arrived for a run, awaited; None if nothing is left to drive.
Arriving: TypeAlias = Callable[[], Coroutine[Any, Any, Sequence[Event] | None]]

#: Steps that begin in one iteration of the event loop.
STEPS_AT_ONCE = 64
_LOADED = object()
#: How far a first turn leads that is written with the creation of its run, see `SLICE`: what leads further follows.
ROOM_AT_FIRST: Final = 8
#: Of the traceback of a bug of ours, in the reason why its run is blocked.
REPORTED_CHARACTERS = 2_000


class FirstTurn(NamedTuple):
    """A turn that was taken before its run was created."""

    #: None while it is not at its end.
    decision: Decision | None
    #: Done, as that of other turns, when the run is created and begun.
    future: asyncio.Future[bool]
    #: Whether it is written with that; else as any other, behind it.
    is_written: bool


class Scheduling(Protocol):
    """Who has runs driven."""

    def driven(self, driver: Driver) -> None:
        """*driver* has ended."""
        ...


class Driver:
    """One active run."""

    def __init__(self, ready: ReadyRun, services: Services) -> None:
        self.ready = ready
        #: Set once the end of the run is on disk, and was reported.
        self.over = False
        #: Set where not even a report could be written, so that the run is as it was before.
        self.in_vain = False
        self._services = services
        self._notes = StepNotes(ready.run, services, is_job=ready.kind == "job")
        self._inbox = Inbox(ready.run)
        self._attempts = AttemptRunner(ready, self._inbox, self._notes, services)
        self._writer = TurnWriter(ready, self._notes, services, self._attempts)
        #: There once the run was taken over.
        self._execution: AnyExecution | None = None
        #: What notes whose code runs, if the last engine died.
        self._watch = UNWATCHED
        #: Set with the first take-over: what is interrupted after that did not see the process die.
        self._lived = False
        #: The first turn, where it was taken before the run was created.
        self._first: FirstTurn | None = None
        #: Made with its first transaction.
        self._spoiling: Spoiling | None = None
        self._surroundings: anyio.CancelScope | None = None
        self._stopping = False

    # --- what others call -----------------------------------------------------------------------

    @property
    def surroundings(self) -> anyio.CancelScope:
        """The scope of the middleware around this activation; made only if there is any."""
        if self._surroundings is None:
            self._surroundings = self._services.new_scope()
        return self._surroundings

    def notify(self) -> None:
        """Something is in the inbox."""
        self._inbox.notify()
        self._attempts.relieve()

    def stop(self) -> None:
        """Begin no new turn or step; end once the steps that are running have."""
        self._stopping = True
        self._attempts.skip_waiting()
        self._inbox.wake()

    def drain(self) -> None:
        """As `stop`, since the engine closes: functions that ask are to know."""
        self._attempts.tell()
        self.stop()

    def interrupt(self) -> None:
        """Cut off the steps that are running: the grace is over."""
        self._stopping = True
        self.surroundings.cancel()
        self._attempts.cut_off()
        self._inbox.wake()

    async def drive(self, scheduler: Scheduling | None = None) -> None:
        """Drive the run until it ends, is freed or blocked, or has to stop; then *scheduler* is told, if given."""
        if self._services.hooks.around_runs:
            self._attempts.context = contextvars.copy_context()
        self._attempts.task = current_task()
        try:
            try:
                await self.take_turns(self._take_over)
                if self._attempts.relief is not None:
                    await self._attempts.relief
            finally:
                self._attempts.task = None  # which knows us: a cycle
                self._close_execution()
            await self._attempts.wait_ended()
        except Exception as error:
            if scheduler is None:
                raise
            self.failed(error)
        finally:
            if scheduler is not None:
                scheduler.driven(self)

    def failed(self, error: Exception) -> None:
        """Nothing can be made of *error*; but whatever it is, it is this run's alone."""
        self.in_vain = True
        log.error("run.not_driven", run_id=self.ready.run_id, error=one_line(error))

    def take_first_turn(self) -> Turn | None:
        """
        Take the first turn of a run that is about to be created; what is to be written with it: `drive` waits for that.

        None where that failed: then this driver is of no more use, and the next one tells what is wrong.
        """
        turn: Turn | None = None
        try:
            execution, now = self._begin_fresh(), self._services.clock.now()
            arrived = self._expired([])
            if isinstance(execution, Execution):
                decision = execution.begin_turn(arrived, now=now, room=ROOM_AT_FIRST)
            else:
                decision = execution.advance(arrived, now=now)
            is_written = decision is not None and _may_come_first(decision, execution)
            turn = self._writer.first(decision if is_written else None, execution, now)
            self._first = FirstTurn(decision, turn.future, is_written)
        except Exception:  # noqa: BLE001, S110 - told by the driver that takes it as ever
            pass
        finally:
            if turn is None:
                self._close_execution()
        return turn

    async def refuse(self, error: DurableError) -> None:
        """Block the run because of *error*, without driving it."""

        async def begin() -> None:
            if (await self._load()).ready:
                raise error

        await self.take_turns(begin)

    # --- the loop -----------------------------------------------------------------------------------

    async def take_turns(self, then: Arriving | None = None) -> None:
        """
        Turn after turn, until nothing is left to drive in this task.

        What has arrived at first is what *then* says; None: what comes next.
        """
        arrived: Sequence[Event] | None
        try:
            while True:
                # Waited for here, since a coroutine for it would be one more that each active run holds; and with
                # nothing at hand that is done with.
                if then is None:
                    if self._attempts.is_left_inline:
                        await self._attempts.inline(self)
                        if self._attempts.relief is not None:
                            return
                    while self._inbox.is_empty and not self._stopping:
                        await self._inbox.wait()
                try:
                    if then is not None:
                        arrived = await then()
                    elif self._stopping or self._inbox.notified:
                        arrived = await self._next()
                    else:  # as nearly always: it is at hand
                        arrived = self._inbox.take()
                except JournalCorruptError:
                    if not await self._writer.put_back():
                        raise
                    then = self._reload
                    continue
                if arrived is None:
                    return
                then = await self._turn(arrived)
                del arrived
        except EngineClosedError:
            pass  # what was not recorded is found again when the file is opened
        except DurableError as error:
            await self._block(error)
        except (Exception, asyncio.CancelledError) as error:  # a bug of ours must block one run, not kill the engine
            if isinstance(error, asyncio.CancelledError) and current_task().cancelling():
                raise
            task = self._attempts.task
            if task is not None and task.get_loop().is_closed():
                return  # it ends because it is garbage
            frames = frames_of(error, REPORTED_CHARACTERS, with_ours=True)
            await self._block(InternalError(f"{one_line(error)}. Please report this:\n{frames}"))

    async def _turn(self, arrived: Sequence[Event]) -> Arriving | None:
        """
        One turn; what tells of the next arrivals, `_nothing` if there are none; None where they are waited for.

        Not awaited here: a run that waits would keep all that its last turn has decided.
        """
        execution = self._execution
        assert execution is not None, "turns begin with a take-over"
        now = self._services.clock.now()
        first, self._first = self._first, None
        decision: Decision | None
        if first is not None:
            decision = first.decision
            if not first.is_written and not await _has_begun(first.future):
                return _nothing
        elif self._watch is UNWATCHED:  # as nearly always: a context that does nothing takes two calls, too
            decision = execution.begin_turn(arrived, now=now)
        else:
            with self._watch.turn:
                decision = execution.begin_turn(arrived, now=now)
        if decision is None:
            decision = await self._rest_of_turn(execution)
        if self._services.replay_always and decision.ended is not None:
            await self._rehearse(decision.events)  # now, since once the end is recorded the run cannot be blocked
        decisions: list[Decision] = []
        freed = False
        go_back: Arriving = self._reload
        try:
            if first is not None and first.is_written:
                freed = await first.future
                decisions = [decision]
            elif decision.transactions:
                decisions, freed = await self._transact(execution, decision)
            elif len(decision.events) <= ROWS_AT_ONCE:
                freed = await self._writer.record(decision, execution, self._inbox.upto, now)
                decisions = [decision]
            else:
                decisions, freed = await self._record_large(execution, decision, now)
        except NotBegunError:
            return _nothing
        except TurnOutdatedError:
            go_back = partial(self._redo, execution, decision)
        except JournalDamagedError:
            raise  # nor would it be taken the next time
        except SpoiledError:
            go_back = partial(self._reload, pause=0.0)
        except JournalError as error:
            # The execution ran ahead of a file that did not take it: back to what is recorded.
            log.warning("commit.failed", run_id=self.ready.run_id, error=str(error))
        if not decisions:  # not within `except`: our error would be the context of what the user's code raises
            return go_back
        self._inbox.recorded()
        self._writer.heard_before, self._writer.outrun = -1, ()
        if self._watch is not UNWATCHED and any(progress(done.events) for done in decisions):
            self._watch = self._writer.watch = UNWATCHED  # it has got past where the last engine may have died of it
        last = decisions[-1]
        if self._services.replay_always and last.blocked is None and not execution.ended:
            execution = await self._replay()
        for done in decisions:
            self._perform(done, execution)
            if len(done.steps) > STEPS_AT_ONCE and not self._stopping:
                await self._begin_others(done.steps)
        if last.ended is not None:
            if last.ended == "cancelled" and last.outcome is not None:
                log.warning("run.cleanup_failed", run_id=self.ready.run_id, reason=last.reason)
            return _nothing
        if last.blocked is not None:
            self._stopping = True
        elif execution.idle:
            if freed:
                self._set_aside(execution)
                return _nothing
            if execution.ended:  # it restarts, and something arrived meanwhile: take over afresh
                return self._take_over
            self._inbox.notify()
        return None

    async def _rest_of_turn(self, execution: AnyExecution) -> Decision:
        """The rest of a large turn, which is taken in slices: the event loop is the user's, too."""
        decision: Decision | None = None
        with anyio.CancelScope(shield=True):  # so that no outcome is lost which it has taken in
            while decision is None:
                await asyncio.sleep(0)
                decision = self._continue_turn(execution)
        assert decision is not None, "a shielded scope swallows nothing"
        return decision

    def _continue_turn(self, execution: AnyExecution) -> Decision | None:
        assert isinstance(execution, Execution), "others do not pause"
        with self._watch.turn:
            return execution.continue_turn()

    async def _record_large(self, execution: AnyExecution, decision: Decision, now: float) -> Recorded:
        """
        Have *decision* written: in several commits if it opens very much, since the writer is everybody's.

        What is written of a part is made when its turn comes, and what it was made of is let go: a garbage collection
        of what 100,000 jobs need at once would hold the loop.
        """
        parts: list[Decision] | None = None
        made: Made | None = None
        freed = False
        with anyio.CancelScope(shield=True):  # as in `_rest_of_turn`
            for parts in in_parts(decision, ROWS_A_COMMIT, ROWS_OF_CHILD, now):
                if parts is None:
                    await asyncio.sleep(0)
        assert parts is not None, "a shielded scope swallows nothing, and they come last"
        if len(parts) > 1:
            self._writer.check(decision)
            decision.children = decision.waits = ()
        for number, part in enumerate(parts):
            with anyio.CancelScope(shield=True):
                made = await self._writer.make(part, now)
            upto, last = (0 if number else self._inbox.upto), part is parts[-1]
            freed = await self._writer.record(part, execution, upto, now, made=made, last=last)
            self._inbox.recorded()
            if not last:
                part.children = part.waits = ()
        return Recorded(parts, freed)

    async def _transact(self, execution: AnyExecution, decision: Decision) -> Recorded:
        spoiling = self._spoiling = self._spoiling or Spoiling()
        turn = TransactionTurn(
            execution, self._inbox.upto, self.ready, self._writer, self._services, self._watch, spoiling
        )
        return await turn.record(decision)

    def _perform(self, decision: Decision, execution: AnyExecution) -> None:
        """What is on disk now may begin."""
        if not decision.is_plain():
            self._perform_rest(decision)
        steps = decision.steps
        if self._stopping:
            self._attempts.skip(steps)
        elif steps:
            alone = execution.alone and not self._inbox.notified
            self._attempts.begin(steps if len(steps) <= STEPS_AT_ONCE else steps[:STEPS_AT_ONCE], alone=alone)

    def _perform_rest(self, decision: Decision) -> None:
        """What few turns have."""
        if decision.logs:
            emit(decision.logs, self.ready.run_id, self.ready.workflow)
        if decision.troubled:
            for step in decision.troubled:
                if step.abandoned:  # what failed was told where it did
                    told = {"step": step.step, "position": step.position, "attempt": step.attempt}
                    log.warning("step.abandoned", run_id=self.ready.run_id, workflow=self.ready.workflow, **told)
            self._attempts.let_outlast()
        if decision.cancelled_steps:
            self._attempts.cancel(decision.cancelled_steps)

    async def _begin_others(self, steps: Sequence[StepAction]) -> None:
        """The steps behind the first `STEPS_AT_ONCE`, as many in one iteration of the loop."""
        with anyio.CancelScope(shield=True):
            for at in range(STEPS_AT_ONCE, len(steps), STEPS_AT_ONCE):
                await asyncio.sleep(0)
                if self._stopping:
                    self._attempts.skip(steps[at:])
                    return
                self._attempts.begin(steps[at : at + STEPS_AT_ONCE], alone=False)

    async def _next(self) -> Sequence[Event] | None:
        """What arrived next; None if nothing is left to drive in this task."""
        while not self._stopping:
            if self._inbox.notified:
                await self._inbox.look(self._read)
            if arrived := self._inbox.take():
                return arrived
            await self._inbox.wait()
        await self._wind_down()
        return None

    async def _wind_down(self) -> None:
        """Keep how the steps end that are still running, for when the run continues."""
        while self._attempts.running or self._inbox.outcomes:
            if self._inbox.outcomes:
                await self._inbox.put_back(self._services.commits)
            else:
                await self._inbox.wait()

    # --- taking over ----------------------------------------------------------------------------------

    async def _take_over(self) -> Sequence[Event] | None:
        """Make the execution, replay what is recorded; the arrivals that no turn has taken in."""
        if self.ready.damage:
            raise JournalDamagedError(self._services.path, f"run {self.ready.run_id!r}: {self.ready.damage}")
        if self._first is not None:
            return []
        kept = self._services.residents.take(self.ready.run)
        if kept is not None:
            return await self._resume(kept)
        if self.ready.fresh is not None:
            execution = self._begin_fresh()
            return None if await self._is_condemned(execution, [execution.started]) else self._expired([])
        loaded = await self._load()
        if not loaded.ready:
            return None  # it continued, or ended, since the scheduler read that it was ready
        events = await read_in_slices(self._services.path, self.ready, loaded.rows)
        self._writer.announced = loaded.begun
        self._notes.recorded(events)
        self._inbox.begin(loaded.items)
        self._carry(events[0])
        execution = self._execution = make_execution(self.ready, events, self._services)
        if await self._is_condemned(execution, events):
            return None
        try:
            if len(events) <= REPLAYED_AT_ONCE or not isinstance(execution, Execution):
                with self._watch.turn:
                    execution.load()
            else:
                await self._load_in_slices(execution)
        finally:
            self._tell_changes(execution)
        interrupted = await self._interrupted(execution, events)
        self._lived = True
        return self._expired(self._inbox.take_items() + interrupted)

    def _begin_fresh(self) -> AnyExecution:
        """Make the execution of a run that is only just created, or about to be."""
        assert self.ready.fresh is not None, "asked by the caller"
        # once only: should it be taken over again, the file must be read
        (started, self.ready.chain), self.ready.fresh = self.ready.fresh, None
        self.ready.seq = 1
        self._carry(started)
        self._execution = make_execution(self.ready, [started], self._services)
        self._lived = True
        return self._execution

    async def _load_in_slices(self, execution: Execution) -> None:
        slices = execution.load_in_slices()
        while True:
            with self._watch.turn:
                if next(slices, _LOADED) is _LOADED:
                    return
            await asyncio.sleep(0)

    def _expired(self, arrived: list[Event]) -> list[Event]:
        """*arrived*, before which it is told that it should have begun by now: whether it has, it knows itself."""
        expires_at = self.ready.expires_at
        if expires_at is None or history.ends_unborn(arrived):
            return arrived
        now = self._services.clock.now()
        return arrived if now < expires_at else [RunExpired(expires_at, now), *arrived]

    async def _is_condemned(self, execution: AnyExecution, events: Sequence[Event]) -> bool:
        """Whether the process dies whenever the code of the run runs: then it has run for the last time."""
        witness, run = self._services.witness, self.ready.run
        if witness.is_idle:
            return False
        self._watch = self._writer.watch = witness.watch(run, progress(events))
        if not (deaths := witness.deaths(run, BODY)):
            return False
        definition = execution.definition
        error = PoisonError("", definition.name, deaths)
        log.error("run.poisoned", run_id=self.ready.run_id, workflow=self.ready.workflow, error=str(error))
        await self._writer.condemn(error, blocks=definition.options.on_poison == "block")
        witness.acquit(run)
        return True

    def _tell_changes(self, execution: AnyExecution) -> None:
        """Warn of commands that got other arguments than recorded: the code has changed, or is not deterministic."""
        for each in execution.comparing.changed if isinstance(execution, Execution) else ():
            told = {"step": each.name, "position": each.position, "site": each.site}
            log.warning("replay.arguments_changed", run_id=self.ready.run_id, workflow=self.ready.workflow, **told)

    def _carry(self, started: Event) -> None:
        """Set the context variables that came with the start: steps run in copies of this context."""
        if isinstance(started, RunStarted) and started.carried:
            self.ready.carried = started.carried
            if self._services.carry.set_again(started.carried, self._services.codec):
                self._attempts.context = contextvars.copy_context()

    async def _resume(self, kept: Resident) -> Sequence[Event]:
        """Continue with an execution that was freed and kept."""
        self._execution = kept.execution
        self._carry(kept.execution.started)
        self.ready.seq, self.ready.chain, self._inbox.upto = kept.seq, kept.chain, kept.inbox_upto
        self._writer.announced = True
        await self._inbox.look(self._read)
        return self._inbox.take()

    def _set_aside(self, execution: AnyExecution) -> None:
        """Keep a freed execution for a while, if asked to."""
        if not isinstance(execution, Execution) or execution.ended:
            return  # not worth the memory, since a job is quickly loaded
        kept = Resident(execution, self.ready.seq, self.ready.chain, self._inbox.upto)
        if self._services.residents.keep(self.ready.run, kept):
            self._execution = None

    async def _reload(self, pause: float = RELOAD_PAUSE) -> Sequence[Event] | None:
        """Go back to what is recorded; the outcomes of steps that ended in this process are kept."""
        self._close_execution()
        self._inbox.take_back()
        await asyncio.sleep(pause)
        return await self._next() if self._stopping else await self._take_over()

    async def _redo(self, execution: AnyExecution, decision: Decision) -> Sequence[Event] | None:
        """
        The arrivals of a turn that is outdated, behind what is to come before them: nothing of it is on disk.

        Of one that would have ended the run those are the signals that came meanwhile: so a workflow that takes in all
        signals before it returns misses none. Of one that closes feeds, the ends of their children: so it knows, and
        cancels and awaits, the children that were started because of these.
        """
        first: Callable[[Event], bool] = _is_signal
        if decision.ended is not None:
            self._writer.heard_before = execution.heard
        elif decision.feeds_closed:
            self._writer.outrun = (*self._writer.outrun, decision.feeds_next)
            first = partial(_is_inside, decision.feeds_closed)
        self._close_execution()
        self._inbox.take_back()
        arrived = await (self._next() if self._stopping else self._take_over())
        if arrived is None:
            return None
        arrived = [*arrived, *self._inbox.take_all()]
        if self._execution is not None:
            self._execution.hears_all = True
        return sorted(arrived, key=lambda event: not first(event))

    def _close_execution(self) -> None:
        if self._execution is not None:
            self._execution.close()
            self._execution = None

    async def _interrupted(self, execution: AnyExecution, events: Sequence[Event]) -> list[Event]:
        """
        An interruption for each step that was running when its last driver ended.

        Of a run that was only just opened again, or whose driver is alive, none of them was: a commit failed whose
        turn is on disk all the same, and the function is called after the commit.
        """
        settled = self._inbox.positions()
        found: list[Event] = []
        now = self._services.clock.now()
        not_begun = self._lived or isinstance(events[-1], Reopening)
        for position, attempt in execution.in_flight():
            if position not in settled and position not in self._attempts.running:
                if not_begun:
                    found.append(StepNotBegun(position, attempt, now))
                    continue
                counted = self._counts(execution.crashes_of(position), Suspect(self.ready.run, position, attempt))
                crashed = counted and not await self._progressed(position, events)
                found.append(StepInterrupted(position, attempt, crashed, now))
        return found

    def _counts(self, crashes: int, attempt: Suspect) -> bool:
        """Whether the end of the last engine counts as a crash of *attempt*, whose step had *crashes* before."""
        last = self._services.last_life
        if last.drained or last.in_turn:
            return False
        return counts(crashes, self._services.crash_limit, was_alone=last.alone == attempt)

    async def _progressed(self, position: str, events: Sequence[Event]) -> bool:
        """Whether the step recorded a cursor or memo since its last attempt began: then it is not poison."""
        began = max((event.at for event in events if event.position == position), default=0.0)
        latest = await self._read(partial(latest_note_at, run=self.ready.run, position=position))
        return latest is not None and latest > began

    # --- replaying always -----------------------------------------------------------------------------

    async def _rehearse(self, unrecorded: Sequence[Event]) -> None:
        """Replay the run with *unrecorded* events, as the next driver will."""
        (await replayed(self.ready, self._services, self._read, unrecorded)).close()

    async def _replay(self) -> AnyExecution:
        """Continue with another execution, made of the journal alone."""
        execution = await replayed(self.ready, self._services, self._read)
        self._close_execution()
        self._execution = execution
        return execution

    # --- reading, blocking ----------------------------------------------------------------------------

    async def _load(self) -> Loaded:
        return await self._read(partial(load_run, run=self.ready.run))

    async def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._services.read(self.ready.run_id, fn, self._is_over)

    def _is_over(self) -> bool:
        """Whether nobody needs what is read: it is to stop, and nothing is running whose outcome is to be kept."""
        return self._stopping and not self._attempts.running

    async def _block(self, error: DurableError) -> None:
        """The run cannot proceed without a person: nothing is executed, nothing but the report written."""
        reason = self._services.codec.conceal(str(error), type(error).__name__)
        log.error("run.blocked", run_id=self.ready.run_id, workflow=self.ready.workflow, reason=reason)
        self._stopping = True
        self._inbox.take_back()
        try:
            await self._writer.block(reason, self._attempts.running)
            await self._wind_down()
        except EngineClosedError:
            pass
        except Exception as damage:  # noqa: BLE001 - not even that can be written: found again when the file is opened
            self.in_vain = True
            log.error("run.not_blocked", run_id=self.ready.run_id, error=one_line(damage))


async def _nothing() -> None:
    """What arrives where nothing is left to drive."""


async def _has_begun(future: asyncio.Future[bool]) -> bool:
    """Whether the run is created and begun, of which *future* tells."""
    try:
        await future
    except NotBegunError:
        return False
    return True


def _may_come_first(decision: Decision, execution: AnyExecution) -> bool:
    """Whether *decision* may be written with the creation of its run: all of it, and no hook was to be asked for it."""
    return (
        decision.blocked is None
        and not decision.transactions
        and not decision.feeds_next
        and (decision.ended is None or not execution.definition.hooks)
    )


def _is_signal(event: Event) -> bool:
    return isinstance(event, SignalReceived)


def _is_inside(groups: Sequence[str], event: Event) -> bool:
    """Whether *event* is about a member of one of the *groups*, which are named by their positions."""
    return event.position is not None and any(event.position.startswith(f"{group}.") for group in groups)
