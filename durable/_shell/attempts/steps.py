"""
One attempt of a step: runs it under its timeout, and says how it ended.

Async functions run on the loop, in a task of their own; sync ones in a worker thread, or in a
process. It knows nothing of workflows: it hands back an event, or None if it was cut off.

One that is cancelled is so once, and has ended when its clean-up has: see `running_attempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import describe, record_exception
from durable._core.codec.exceptions.origin import came_from_outside, is_the_users_own
from durable._core.codec.exceptions.safe_text import LINE_CAP, message_of
from durable._core.journal.events import (
    Event,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepSnoozed,
    StepStopped,
    StepSucceeded,
)
from durable._core.journal.payloads import payload_of
from durable._core.light_frozen import light_frozen
from durable._core.policies.retry import next_attempt, snooze_of
from durable._core.ports import Clock
from durable._core.program.functions import Step
from durable._core.run.decision import TransactionAction
from durable._shell.attempts.context import BatchesElsewhere, Notes, Surroundings, enter
from durable._shell.attempts.functions import Function, all_of, function_at, running_functions
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.raised import as_failure, is_cancellation, is_for_the_program, is_running
from durable._shell.attempts.resources import NO_RESOURCES, Resources
from durable._shell.attempts.running_attempt import AnyAttempt, Keeper, RunningAttempt, is_of_cleanup
from durable._shell.attempts.stand_ins import StandIns
from durable._shell.attempts.worker import FailedElsewhere, InterruptedCall, call_in_worker, check_importable
from durable._shell.backend import Backend
from durable._shell.log import bind, log, unbind
from durable._shell.loops import current_task
from durable._shell.ownership.outlived import Outlived
from durable._shell.ownership.outliving import OutlivedElsewhere, leave_word
from durable._shell.rows.carried import NO_CARRY, Carry
from durable._shell.rows.rows import RunState
from durable._shell.threads import Threads, Worker
from durable.errors import JournalAccessError


class Steps:
    """Runs attempts, within the limits of threads and processes of one engine."""

    def __init__(
        self,
        codec: Codec,
        clock: Clock,
        is_ending: Callable[[], bool],
        hooks: Hooks,
        inside: Backend | BatchesElsewhere | None,
        journal: str,
        threads: int,
        stand_ins: StandIns | None = None,
        is_draining: Callable[[], bool] = lambda: False,
        resources: Resources = NO_RESOURCES,
        carry: Carry = NO_CARRY,
    ) -> None:
        self._codec = codec
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        #: With the engine, as steps see it; None where there is no journal that they could ask.
        self._around = Surroundings(inside, self._loop, resources, is_draining)
        #: Whether the engine cancels all of its tasks.
        self._is_ending = is_ending
        self._carry = carry
        self._hooks = hooks
        #: What is called in place of functions, in a dry run.
        self._stand_ins = stand_ins
        #: Whether nothing of that kind, and no middleware, is between an attempt and its function.
        self._is_direct = stand_ins is None and not hooks.around_steps
        #: Attempts that run in processes.
        self._in_processes = 0
        #: As the functions in threads are told apart by.
        self._journal = journal
        #: The functions that an engine of another process has left running; None where there can be none.
        self.elsewhere: OutlivedElsewhere | None = None
        self._threads = Threads(threads, name="durable-step")
        #: Made with the first attempt that runs in a process.
        self._processes: anyio.CapacityLimiter | None = None

    @property
    def calls_in_flight(self) -> int:
        """Attempts that run in threads and processes, and functions that outlived theirs."""
        return self._in_processes + self._threads.busy

    @property
    def threads(self) -> int:
        """How many threads are at work."""
        return self._threads.busy

    @property
    def shortage(self) -> str | None:
        """Why plain functions wait for threads that the system does not give; None if none does."""
        return self._threads.shortage

    @property
    def threads_outlived(self) -> int:
        """How many of them have outlived their attempt, or were told to end."""
        return sum(function.cancelled.is_set() for function in all_of(self))

    def close(self) -> None:
        """End the threads that are idle, and name the functions that hold the others: they cannot be cut off."""
        self._threads.close()
        for function in all_of(self):
            _, run_id, position = function.key
            values = {"run_id": run_id, "step": function.name, "position": position}
            log.warning("step.still_running", seconds=round(function.seconds, 1), **values)

    def leave_word(self, function: Function) -> None:
        """Let others know of a function that outlives its attempt, or its engine."""
        journal, run_id, position = function.key
        if self.elsewhere is None or function.is_told:  # there is no file, or it says so already
            return
        function.is_told = True
        try:
            function.on_return(leave_word(journal, Outlived(run_id, position, function.name)))
        except JournalAccessError as error:
            log.warning("step.still_running", path=journal, error=str(error))

    def outlived(self) -> list[Function]:
        """The functions that still run."""
        return all_of(self)

    async def attempt(
        self,
        running: RunningAttempt,
        state: RunState,
        notes: Notes,
        left: dict[str, Any],
        task: asyncio.Task[Any] | None = None,
        keeper: Keeper | None = None,
    ) -> Event | None:
        """
        Run one attempt, in *task*, which is the current one; how it ended, None if it was cut off.

        *keeper* is told that as well, also where this raises.

        Raises only cancellation when the engine ends, and what no program survives.
        """
        outcome: Event | None = None
        try:
            op = running.op
            definition = op.definition
            options = definition.options
            task = task or current_task()
            timeout = op.given.timeout or options.timeout
            if timeout is not None:
                running.deadline = self._clock.now() + timeout
            codec = running.codec = self._codec if options.codec is None else definition.codec_of(self._codec)
            running.notes = notes
            running.left = left
            running.state = state
            running.batches = state.batches
            running.around = self._around
            enter(running)
            bound = bind(state.run_id, state.workflow, definition.name, running.attempt)
            try:
                if running.is_cancelled or running.is_cut_off:  # too late to begin
                    raise asyncio.CancelledError
                running.task = task
                running.inside = True  # from here on the function is awaited, and told
                try:
                    if running_functions:
                        last = function_at((self._journal, state.run_id, running.position))
                        if last is not None:
                            with running.not_begun():
                                await last.wait_returned()
                    elsewhere = self.elsewhere
                    if elsewhere is not None and (state.run_id, running.position) in elsewhere.steps:
                        with running.not_begun():
                            await elsewhere.wait_returned()
                    if timeout is not None:
                        value = await self._within(timeout, running, state)
                    elif self._is_direct and definition.is_async:  # as `_value` would have it, with a call less
                        value = await definition.body(*op.args, **op.kwargs)
                    else:
                        value = await self._value(running, state)
                finally:
                    running.inside = False
                    if task.cancelling() and not self._is_ending():
                        await forget_cancel(task)
                if running.adding:
                    await running.settle()
                    running.raise_refused()
                payload = codec.encode(value, definition.result, where=definition.result_place)
                outcome = StepSucceeded(running.position, payload, self._clock.now())
            except BaseException as error:  # user code may raise anything: it is the step's outcome
                if is_cancellation(error):
                    is_ours = running.was_told or not self._is_ending()
                else:
                    is_ours = not is_for_the_program(error, task)
                if not is_ours:
                    raise
                outcome = await self._outcome(error, running, state)
            finally:
                running.is_over = True  # what still runs of it leaves no effect
                unbind(bound)
        finally:
            if keeper is not None:
                keeper.ended(running, outcome)
        return outcome

    async def _outcome(self, error: BaseException, running: RunningAttempt, state: RunState) -> Event | None:
        """How it ended that raised *error*."""
        if running.was_told and is_cancellation(error):
            return self._stopped(running, state.run_id, None)
        if type(error) is InterruptedCall and not is_the_users_own(error):
            return StepInterrupted(running.position, running.attempt, False, self._clock.now())  # noqa: FBT003
        await running.settle()
        if running.is_cancelled and running.struck and is_of_cleanup(error):
            return self._stopped(running, state.run_id, error)
        return self.failed(running, error, state.run_id)

    def _stopped(self, running: RunningAttempt, run_id: str, error: BaseException | None) -> Event | None:
        """It has ended as it was told to; its clean-up failed by *error*."""
        if not running.is_cancelled:
            return None
        payload = None
        if error is not None:
            failure = record_exception(as_failure(error, running.op.definition.kind), self._codec)
            payload = payload_of(failure, self._codec)
            values = {"run_id": run_id, "step": running.op.definition.name, "position": running.position}
            error_told = self._codec.conceal_message(describe(failure))
            log.warning("step.cleanup_failed", error=error_told, attempt=running.attempt, **values)
        now = self._clock.now()
        return StepStopped(running.position, running.attempt, abandoned=False, value=payload, at=now)

    async def _within(self, seconds: float, running: RunningAttempt, state: RunState) -> Any:
        """The value of the function, which is cancelled once after *seconds*."""
        limit = running.limit = asyncio.timeout(seconds)
        overdue: asyncio.TimerHandle | None = None
        if running.keeper is not None and running.op.definition.is_async:
            overdue = self._loop.call_later(seconds, running.keeper.overdue, running)
        try:
            async with limit:
                return await self._value(running, state)
        except TimeoutError as error:
            if limit.expired() and type(error) is TimeoutError and not error.args:  # not the user's own
                raise _too_long(running, seconds) from None
            raise
        finally:
            if overdue is not None:
                overdue.cancel()

    def timed_out(self, action: AnyAttempt, run_id: str) -> Event:
        """The outcome of an attempt whose time is over, and whose function takes no notice."""
        return self.failed(action, _too_long(action, _timeout_of(action) or 0.0), run_id)

    def _value(self, running: RunningAttempt, state: RunState) -> Coroutine[Any, Any, Any]:
        op = running.op
        if self._is_direct and op.definition.is_async:  # as `_call` would await it, with a coroutine less
            called: Coroutine[Any, Any, Any] = op.definition.body(*op.args, **op.kwargs)
            return called
        if self._stand_ins is not None:
            return self._stand_ins.call(op.definition, running.position, state.run_id, op.args, op.kwargs)
        if self._hooks.around_steps:
            return self._hooks.step(running, state, partial(self._call, running, state, op.args, op.kwargs))
        return self._call(running, state, op.args, op.kwargs)

    async def _call(
        self, running: RunningAttempt, state: RunState, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """
        The value of the function, wherever it runs.

        A `SystemExit` of its own is raised as an error already here: middleware may await this in a task of its own,
        and asyncio lets a SystemExit in a task end the program.
        """
        definition = running.op.definition
        options = definition.options
        try:
            if definition.is_async:
                return await definition.body(*args, **kwargs)
            if options.process:
                return await self._call_in_process(definition, args, kwargs)
            if options.thread:
                value = await self._call_in_thread(running, state.run_id, args, kwargs)
            else:
                value = definition.body(*args, **kwargs)
            # what looks plain may be a mock, or wrap a coroutine function
            return await value if inspect.isawaitable(value) else value
        except (SystemExit, KeyboardInterrupt) as error:
            if came_from_outside(error):
                raise
            raise as_failure(error, definition.kind) from None

    async def _call_in_process(self, definition: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import anyio.to_process  # noqa: PLC0415 - with all of `subprocess`: for those who have such steps

        check_importable(definition)
        code = definition.fn
        # Workers import a script as __mp_main__: what they send back of its classes is found under
        # that name here too. `import multiprocessing` makes the same alias.
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        self._processes = self._processes or anyio.CapacityLimiter(os.cpu_count() or 1)
        self._in_processes += 1
        try:
            value = await anyio.to_process.run_sync(
                call_in_worker, code.__module__, code.__qualname__, args, kwargs, self._carry.for_a_process(),
                cancellable=True, limiter=self._processes,
            )  # fmt: skip
        finally:
            self._in_processes -= 1
        if type(value) is FailedElsewhere:
            raise value.rebuilt()
        return value

    async def _call_in_thread(
        self, running: RunningAttempt, run_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        definition, key = running.op.definition, (self._journal, run_id, running.position)
        worker = await self._thread(running)
        while (other := function_at(key)) is not None:  # middleware has called it, and given up waiting
            self._threads.give_back(worker)
            await other.wait_returned()
            worker = await self._thread(running)
        function = running.function = Function(key, definition.name, running.cancelled, self)
        function.begin()
        running.in_call = True
        try:
            value = await self._threads.call_in(worker, _called, function, definition.body, args, kwargs)
        finally:
            running.in_call = False
        if type(value) is _Raised:
            raise as_failure(value.error, definition.kind)
        return value

    async def _thread(self, running: RunningAttempt) -> Worker:
        """A thread; to wait for one is no part of the time that the function has."""
        limit = running.limit
        if self._threads.at_hand:
            return await self._threads.take()
        if limit is None:
            with running.not_begun():
                return await self._threads.take()
        ends_at = limit.when()
        left = None if ends_at is None else ends_at - self._loop.time()
        limit.reschedule(None)
        with running.not_begun():
            worker = await self._threads.take()
        limit.reschedule(None if left is None else self._loop.time() + left)
        return worker

    def failed(self, action: AnyAttempt | TransactionAction, error: BaseException, run_id: str) -> Event:
        """What *error* means: another attempt, or the failure of the step."""
        now = self._clock.now()
        error = as_failure(error, action.op.definition.kind)
        if (seconds := snooze_of(error)) is not None:
            return self._snoozed(action, seconds, self._codec.conceal(message_of(error, LINE_CAP)), run_id)
        policy = action.op.given.retry or action.op.definition.options.retry
        seed = f"{run_id}:{action.position}:{action.attempt}"
        elapsed = now - action.first_started_at
        delay, note = next_attempt(policy, error, failures=action.failures + 1, elapsed=elapsed, seed=seed)
        failure = record_exception(error, self._codec, note=note)
        payload = payload_of(failure, self._codec)
        values = {
            "run_id": run_id, "step": action.op.definition.name, "position": action.position,
            "attempt": action.attempt, "error": self._codec.conceal_message(describe(failure)),
            "retry_in_seconds": delay,
        }  # fmt: skip
        log.info("step.attempt_failed", **values)  # its workflow may handle it: a run that fails of it is an error
        if delay is None:
            return StepFailed(action.position, action.attempt, payload, now)
        return StepRetrying(action.position, action.attempt, now + delay, payload, now)

    def _snoozed(self, action: AnyAttempt | TransactionAction, seconds: float, reason: str, run_id: str) -> Event:
        values = {"run_id": run_id, "step": action.op.definition.name, "position": action.position}
        log.info("step.snoozed", attempt=action.attempt, seconds=seconds, **values)
        now = self._clock.now()
        return StepSnoozed(action.position, action.attempt, now + seconds, reason, now)


def _timeout_of(action: AnyAttempt) -> float | None:
    return action.op.given.timeout or action.op.definition.options.timeout


def _too_long(action: AnyAttempt, seconds: float) -> TimeoutError:
    return TimeoutError(f"step {action.op.definition.name!r} took longer than {seconds:g} s")


async def forget_cancel(task: asyncio.Task[Any]) -> None:
    """Undo a cancellation of *task* that was for the user's code, or by it, lest it strike our next `await`."""
    while task.cancelling():
        task.uncancel()
    if not is_running(task):  # closed with its loop: nothing can be awaited, and nothing strikes
        return
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


@light_frozen
class _Raised:
    """
    What a function raised in its thread.

    Handed over, rather than raised: it passes through code on the loop that would ask it what it is.
    """

    error: BaseException


def _called(function: Function, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - no signal is handled in this thread: all of it is the function's
        return _Raised(error)
    finally:
        function.end()
