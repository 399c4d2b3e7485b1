"""
The steps of one run that are running: each in a task of its own, or in that of the run's driver.

A step begins once the turn that asked for it is on disk; how it ended goes into the run's inbox. A step that nothing
else runs beside is run by the driver's own task: a task less for each job, and for each step of a plain sequence. If
something arrives meanwhile, another task takes the turns over (a *relief*), and the driver's task ends with its step.

A step that is cancelled is waited for, and its end is an outcome, too. What takes too long over that is given up: its
run continues without it, but its driver does not end before the function has.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
from collections.abc import Awaitable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import evolve, field

from durable._core.journal.events import Event, StepInterrupted, StepNotBegun, StepRetrying, StepSnoozed, StepStopped
from durable._core.light_frozen import light_define
from durable._core.run.decision import NOTHING, StepAction, entered
from durable._core.suspicion import is_suspect
from durable._shell.attempts.context import tell
from durable._shell.attempts.functions import Function
from durable._shell.attempts.running_attempt import AnyAttempt, RunningAttempt
from durable._shell.attempts.steps import forget_cancel
from durable._shell.claims import slots
from durable._shell.log import log
from durable._shell.loops import current_task
from durable._shell.reads.batch_rows import lineage
from durable._shell.rows.rows import Effects, RunState
from durable._shell.turns.inbox import Inbox
from durable._shell.turns.notes import StepNotes
from durable._shell.turns.services import Services
from durable._shell.writes.wakeups import let_in
from durable.errors import EngineClosedError, JournalDamagedError

#: Batches whose ids are kept in memory.
BATCHES_KNOWN = 1000


class TakesTurns(Protocol):
    """The driver."""

    def take_turns(self) -> Coroutine[Any, Any, None]:
        """Take the turns of the run, until nothing is left to drive."""
        ...


@light_define(eq=False)
class AttemptRunner:
    """Runs attempts of one run's steps."""

    _state: RunState
    _inbox: Inbox
    _notes: StepNotes
    _services: Services
    #: What steps see of context variables, where middleware may have set some.
    context: contextvars.Context | None = field(default=None, init=False)
    #: The task of the driver, while that drives.
    task: asyncio.Task[Any] | None = field(default=None, init=False)
    #: The end of the task that has taken over the turns, if one has.
    relief: asyncio.Future[None] | None = field(default=None, init=False)
    #: Those that run in tasks of their own, by position.
    _beside: dict[str, RunningAttempt] = field(default=NOTHING, init=False)
    #: Those that were given up, and have not ended.
    _abandoned: frozenset[RunningAttempt] = field(default=frozenset(), init=False)
    #: Those that a turn gives up, whose function runs on in a thread; by position, until that turn is on disk.
    _outlasting: dict[str, RunningAttempt] = field(default=NOTHING, init=False)
    #: The one that is left to the driver's task.
    _inline: RunningAttempt | None = field(default=None, init=False)
    #: Whether it waits for that, see `inline`.
    is_left_inline: bool = field(default=False, init=False)
    #: While that task is busy with the step: whose turns another one takes over.
    _busy: TakesTurns | None = field(default=None, init=False)

    @property
    def running(self) -> Collection[str]:
        """The positions of the steps that are running."""
        return self._beside.keys() if self._inline is None else (*self._beside, self._inline.position)

    def _all(self) -> Collection[RunningAttempt]:
        """Those that are running."""
        return self._beside.values() if self._inline is None else (*self._beside.values(), self._inline)

    def _at(self, position: str) -> RunningAttempt | None:
        """The one that is running at *position*, if one is."""
        inline = self._inline
        return inline if inline is not None and inline.position == position else self._beside.get(position)

    def _drop(self, attempt: RunningAttempt) -> None:
        """It is not waited for any longer."""
        if attempt is self._inline:
            self._inline = None
        else:
            del self._beside[attempt.position]

    def begin(self, actions: Sequence[StepAction], *, alone: bool) -> None:
        """
        Run *actions*, each in a task of its own.

        *alone*: nothing else of the run is open. Then a single step is left to the driver's task, which is to call
        `inline` next.

        Raises:
            JournalDamagedError: One of them is running: an event says that it did not begin, and nobody wrote that.
        """
        if alone and len(actions) == 1 and self._inline is None and not self._beside and self.relief is None:
            self._inline, self.is_left_inline = RunningAttempt(actions[0], self), True
            return
        for action in actions:
            if self._at(action.position) is not None:
                what = f"the step at {action.position} of run {self._state.run_id!r} is to begin while it is running"
                raise JournalDamagedError(self._services.path, f"{what}. Restore from a backup, or fork the run")
            attempt = RunningAttempt(action, self)
            self._beside = entered(self._beside, action.position, attempt)
            self._services.spawn(self._attempt, attempt, self.context)

    def skip(self, actions: Iterable[StepAction]) -> None:
        """Do not begin *actions*: the run has to stop. They begin when it continues."""
        for action in actions:
            self._not_begun(action)

    def skip_waiting(self) -> None:
        """Do not begin what waits for its turn among the suspects."""
        for attempt in self._all():
            if attempt.turn is not None:
                attempt.cut_off()

    def cancel(self, positions: Iterable[str]) -> None:
        """Have the steps at *positions* end, as far as they are running, within the time that their clean-up has."""
        for position in positions:
            attempt = self._at(position)
            if attempt is not None and not attempt.is_cancelled:
                now = self._services.clock.now()
                self._give_up_later(attempt, StepStopped(position, attempt.attempt, abandoned=True, at=now))
                attempt.cancel()
                if attempt.has_outlived and attempt.function is not None:
                    self._services.steps.leave_word(attempt.function)

    def _give_up_later(self, attempt: RunningAttempt, outcome: Event) -> None:
        """Once the time of its clean-up is over, its run waits no longer, and takes *outcome* for its end."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        seconds = self._services.cleanup_seconds
        attempt.timer = asyncio.get_running_loop().call_later(seconds, self._give_up, attempt, outcome)

    def _give_up(self, attempt: RunningAttempt, outcome: Event) -> None:
        if self._at(attempt.position) is not attempt:
            return
        if attempt.has_outlived:
            self._services.spawn(partial(self._keep_slot, attempt), outcome)
        else:
            self._abandon(attempt, outcome)

    async def _keep_slot(self, attempt: RunningAttempt, outcome: Event) -> None:
        """A function in a thread keeps its slot of a limit until it has returned; only then it is given up."""
        run, is_job = self._state.run, _is_job(attempt)
        with contextlib.suppress(EngineClosedError):  # the next one frees it
            await self._services.commits.call(
                lambda conn, _: slots.outlive(conn, run, attempt.position, is_job=is_job), answers=False
            )
        if self._at(attempt.position) is attempt:
            self._abandon(attempt, outcome)

    def _abandon(self, attempt: RunningAttempt, outcome: Event) -> None:
        self._drop(attempt)
        self._abandoned |= {attempt}
        attempt.end()
        self._inbox.add(evolve(outcome, at=self._services.clock.now()))
        self.relieve()

    def outlasting(self, positions: Iterable[str]) -> list[tuple[str, bool]]:
        """Of *positions* that a turn gives up, those that keep their slots of limits; and whether each is of a job."""
        running = ((position, self._at(position)) for position in positions)
        self._outlasting = {position: each for position, each in running if each is not None and each.has_outlived}
        return [(position, _is_job(each)) for position, each in self._outlasting.items()]

    def let_outlast(self) -> None:
        """The turn is on disk that gave them up: nobody waits for them any more, and they give back their slots."""
        for position, attempt in self._outlasting.items():
            if attempt in self._abandoned:  # its own time was over meanwhile
                continue
            self._abandoned |= {attempt}
            if self._at(position) is None:  # returned meanwhile
                self._services.spawn(self._give_slot_back, attempt)
            else:
                self._drop(attempt)
                attempt.end()
        self._outlasting = NOTHING

    async def _give_slot_back(self, attempt: RunningAttempt) -> None:
        """The function of an attempt that was given up has returned."""
        run, now = self._state.run, self._services.clock.now()
        is_job = _is_job(attempt)

        def free(conn: sqlite3.Connection, effects: Effects) -> None:
            let_in(conn, slots.returned(conn, run, attempt.position, now, effects, is_job=is_job), now, effects)

        try:
            with contextlib.suppress(EngineClosedError):
                await self._services.commits.call(free, answers=False)
        finally:
            self._abandoned -= {attempt}
            self._inbox.wake()

    def overdue(self, attempt: RunningAttempt) -> None:
        """Its time is over, and its function was cancelled; that has as long to end as after any other cancel."""
        if not attempt.is_cancelled:
            seconds = self._services.cleanup_seconds
            attempt.timer = asyncio.get_running_loop().call_later(seconds, self._give_up_overdue, attempt)

    def _give_up_overdue(self, attempt: RunningAttempt) -> None:
        outcome = self._services.steps.timed_out(attempt, self._state.run_id)
        told = {"run_id": self._state.run_id, "step": attempt.op.definition.name, "position": attempt.position}
        if isinstance(outcome, StepRetrying):  # to try again is to wait, as for a thread
            log.warning("step.outlived", attempt=attempt.attempt, **told)
        else:
            log.warning("step.abandoned", attempt=attempt.attempt, workflow=self._state.workflow, **told)
            self._give_up(attempt, outcome)

    def tell(self) -> None:
        """Let the functions that are running know that the engine closes."""
        for attempt in self._all():
            tell(attempt.cancelled)

    def cut_off(self) -> None:
        """Cancel all that is running, and record that it was interrupted: the grace is over."""
        for attempt in (*self._all(), *self._abandoned):
            attempt.cut_off()

    async def wait_ended(self) -> None:
        """Return once no function is at work any more: the next driver of the run may begin one of them again."""
        while self.running or self._abandoned:
            await self._inbox.wait()

    # --- in the driver's task --------------------------------------------------------------------------

    def inline(self, driver: TakesTurns) -> Awaitable[object]:
        """
        The step that was left to this task, to be awaited at once.

        If something arrives before it has ended, another task takes the turns of *driver*: then there is a `relief`.
        """
        assert self._inline is not None, "asked by the caller"
        self._busy, self.is_left_inline = driver, False
        return self._attempt(self._inline, self.task)

    def relieve(self) -> None:
        """Let another task take the turns, if the driver's is busy with a step."""
        if self._busy is not None:
            self.relief = asyncio.get_running_loop().create_future()
            self._services.spawn(partial(_relieve, self._busy), self.relief, self.context)
            self._busy = None

    # --- one attempt -----------------------------------------------------------------------------------

    def _attempt(self, attempt: RunningAttempt, inline: asyncio.Task[Any] | None = None) -> Coroutine[Any, Any, object]:
        """*attempt*, to be awaited; *inline*: in the task of the driver."""
        state, notes = self._state, self._notes
        definition = attempt.op.definition
        if (
            attempt.attempt == 1
            and not attempt.crashes
            and not notes.asked_before
            and definition.is_async
            and definition.options.keep_memos
            and state.batch is None
            and state.callback is None
        ):  # as nearly always: with a coroutine less
            return self._services.steps.attempt(attempt, state, notes, NOTHING, inline, self)
        return self._attempt_with_care(attempt, inline)

    async def _attempt_with_care(self, attempt: RunningAttempt, inline: asyncio.Task[Any] | None) -> None:
        state, notes = self._state, self._notes
        task = inline or current_task()
        outcome: Event | None = None
        if not attempt.op.definition.options.keep_memos:
            notes.keep_no_memos(attempt)
        try:
            left = await notes.left(attempt, state.run_id) if notes.may_be_left(attempt) else NOTHING
            if state.batch is not None or state.callback is not None:
                await self._name_batches()
            if is_suspect(attempt.crashes, self._services.crash_limit):
                async with self._services.quarantine.turn(state.run, attempt):
                    outcome = await self._services.steps.attempt(attempt, state, notes, left, task)
            else:
                outcome = await self._services.steps.attempt(attempt, state, notes, left, task)
            function = attempt.function
            if function is not None and outcome is not None and attempt.has_outlived and not attempt.is_cut_off:
                await self._outlived(attempt, function, outcome, task)
                outcome = evolve(outcome, at=self._services.clock.now())
        finally:
            self.ended(attempt, outcome)

    async def _outlived(
        self, attempt: RunningAttempt, function: Function, outcome: Event, task: asyncio.Task[Any]
    ) -> None:
        """
        Return once the function of an attempt that is over has returned: nothing that follows may run beside it.

        As with other clean-up, the run does not wait for ever; but to try again is to wait.
        """
        told = {"run_id": self._state.run_id, "step": attempt.op.definition.name, "position": attempt.position}
        log.warning("step.outlived", attempt=attempt.attempt, **told)
        self._services.steps.leave_word(function)
        if not attempt.is_cancelled and not isinstance(outcome, (StepRetrying, StepSnoozed)):
            self._give_up_later(attempt, outcome)
        tell(attempt.cancelled)
        attempt.await_thread(task)
        try:
            await function.wait_returned()
        except asyncio.CancelledError:
            if not attempt.struck:
                raise
            await forget_cancel(task)
        finally:
            attempt.inside = False

    def ended(self, attempt: RunningAttempt, outcome: Event | None) -> None:
        """It is over, by *outcome*; None if it was cut off."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        if self._abandoned and attempt in self._abandoned:  # what came of it is of no use any more
            attempt.task = None
            if attempt.function is not None and attempt.function.returned and not attempt.is_cut_off:
                self._services.spawn(self._give_slot_back, attempt)
            else:
                self._abandoned -= {attempt}
                self._inbox.wake()
            return
        if attempt is self._inline:
            self._inline = self._busy = None
        else:
            del self._beside[attempt.position]
        if outcome is not None:
            self._inbox.add(outcome)
        elif attempt.is_cut_off and attempt.task is None:
            self._not_begun(attempt)
        elif attempt.is_cut_off:
            now = self._services.clock.now()
            self._inbox.add(StepInterrupted(attempt.position, attempt.attempt, crashed=False, at=now))
        else:
            self._inbox.wake()  # nothing came of it, but the driver must see that it is running no more
        attempt.task = None  # whose context knows the attempt: a cycle

    def _not_begun(self, action: AnyAttempt) -> None:
        self._inbox.add(StepNotBegun(action.position, action.attempt, self._services.clock.now()))

    async def _name_batches(self) -> None:
        """Learn the ids of the run's batch, and of those around it: they never change."""
        state, known = self._state, self._services.batches
        number = state.callback if state.batch is None else state.batch
        if state.batches or number is None:
            return
        if number not in known:
            if len(known) >= BATCHES_KNOWN:
                known.clear()
            known[number] = await self._services.read(state.run_id, partial(lineage, batch=number))
        state.batches = known[number]


def _is_job(attempt: RunningAttempt) -> bool:
    kind: str = attempt.op.definition.kind
    return kind == "job"


async def _relieve(driver: TakesTurns, done: asyncio.Future[None]) -> None:
    try:
        await driver.take_turns()
    finally:
        if not done.done():
            done.set_result(None)
