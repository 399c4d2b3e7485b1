"""
One attempt of a step: runs it under its timeout, and says how it ended.

Async functions run on the loop, in a task of their own; sync ones in a worker thread, or in a
process. It knows nothing of workflows: it hands back an event, or None if it was cut off.

One that is cancelled is so once, and has ended when its clean-up has: see `running_attempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import anyio
import anyio.to_process
from attrs import frozen

from durable._core.codec.codec import Codec
from durable._core.codec.exception_origin import came_from_outside, is_the_users_own
from durable._core.codec.failures import describe, record_exception
from durable._core.journal.events import Event, StepFailed, StepInterrupted, StepRetrying, StepStopped, StepSucceeded
from durable._core.journal.payloads import payload_of
from durable._core.ports import Clock
from durable._core.program.functions import Step
from durable._core.program.retry import next_attempt
from durable._core.run.decision import StepAction, TransactionAction
from durable._shell.backend import Backend
from durable._shell.log import log
from durable._shell.rows.rows import RunState
from durable._shell.threads import Threads
from durable._shell.turns.context import Notes, Scope, StepContext, enter
from durable._shell.turns.hooks import Hooks
from durable._shell.turns.raised import as_failure, is_cancellation, is_for_the_program
from durable._shell.turns.running_attempt import RunningAttempt, is_of_cleanup
from durable._shell.turns.stand_ins import StandIns
from durable._shell.turns.worker import FailedElsewhere, InterruptedCall, call_in_worker
from durable.errors import Fatal


class Steps:
    """Runs attempts, within the limits of threads and processes of one engine."""

    def __init__(
        self,
        codec: Codec,
        clock: Clock,
        is_ending: Callable[[], bool],
        hooks: Hooks,
        inside: Backend,
        threads: int,
        stand_ins: StandIns | None = None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._codec = codec
        self._clock = clock
        #: The engine, as steps see it.
        self._inside = inside
        self._loop = asyncio.get_running_loop()
        #: Whether the engine cancels all of its tasks.
        self._is_ending = is_ending
        self._is_draining = is_draining
        self._hooks = hooks
        #: What is called in place of functions, in a dry run.
        self._stand_ins = stand_ins
        #: Attempts that run in threads and processes.
        self.calls_in_flight = 0
        self._threads = Threads(threads, name="durable-step")
        self._processes = anyio.CapacityLimiter(os.cpu_count() or 1)

    def close(self) -> None:
        """End the threads that are idle."""
        self._threads.close()

    async def attempt(
        self, running: RunningAttempt, state: RunState, notes: Notes, left: dict[str, Any]
    ) -> Event | None:
        """
        Run one attempt; how it ended, None if it was cut off.

        Raises only cancellation when the engine ends, and what no program survives.
        """
        action, task = running.action, current_task()
        definition = action.op.definition
        timeout = action.op.given.timeout or definition.options.timeout
        deadline = None if timeout is None else self._clock.now() + timeout
        about = partial(_context, action, state, deadline, self._is_draining)
        scope = Scope(about, self._codec, notes, left, batches=state.batches, backend=self._inside, loop=self._loop)
        enter(scope)
        try:
            running.enter(task)
            try:
                if timeout is None:
                    value = await self._value(running, state)
                else:
                    value = await self._within(timeout, running, state)
            finally:
                running.inside = False
                if task.cancelling() and not self._is_ending():
                    await _forget_cancel(task)
            if scope.adding:
                await scope.settle()
                scope.raise_refused()
            payload = self._codec.encode(value, definition.result, where=definition.result_place)
            return StepSucceeded(action.position, payload, self._clock.now())
        except BaseException as error:  # user code may raise anything: it is the step's outcome
            if running.was_told and is_cancellation(error):
                return self._stopped(running, state.run_id, None)
            if type(error) is InterruptedCall and not is_the_users_own(error):
                return StepInterrupted(action.position, action.attempt, False, self._clock.now())  # noqa: FBT003
            if self._is_ending() if is_cancellation(error) else is_for_the_program(error, task):
                raise
            await scope.settle()
            if running.is_cancelled and running.struck and is_of_cleanup(error):
                return self._stopped(running, state.run_id, error)
            return self.failed(action, error, state.run_id)

    def _stopped(self, running: RunningAttempt, run_id: str, error: BaseException | None) -> Event | None:
        """It has ended as it was told to; its clean-up failed by *error*."""
        action = running.action
        if not running.is_cancelled:
            return None
        payload = None
        if error is not None:
            failure = record_exception(as_failure(error, action.op.definition.kind), self._codec)
            payload = payload_of(failure, self._codec)
            values = {"run_id": run_id, "step": action.op.definition.name, "position": action.position}
            log.warning("step.cleanup_failed", error=describe(failure), attempt=action.attempt, **values)
        now = self._clock.now()
        return StepStopped(action.position, action.attempt, abandoned=False, value=payload, at=now)

    async def _within(self, seconds: float, running: RunningAttempt, state: RunState) -> Any:
        """The value of the function, which is cancelled once after *seconds*."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._value(running, state)
        except TimeoutError as error:
            if limit.expired() and type(error) is TimeoutError and not error.args:  # not the user's own
                msg = f"step {running.action.op.definition.name!r} took longer than {seconds:g} s"
                raise TimeoutError(msg) from None
            raise

    def _value(self, running: RunningAttempt, state: RunState) -> Coroutine[Any, Any, Any]:
        action = running.action
        op = action.op
        if self._stand_ins is not None:
            return self._stand_ins.call(op.definition, action.position, state.run_id, op.args, op.kwargs)
        if self._hooks.around_steps:
            return self._hooks.step(action, state, partial(self._call, running, op.definition, op.args, op.kwargs))
        return self._call(running, op.definition, op.args, op.kwargs)

    async def _call(
        self, running: RunningAttempt, definition: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """
        The value of the function, wherever it runs.

        A `SystemExit` of its own is raised as an error already here: middleware may await this in a task of its own,
        and asyncio lets a SystemExit in a task end the program.
        """
        options = definition.options
        try:
            if definition.is_async:
                return await definition.fn(*args, **kwargs)
            if options.process:
                return await self._call_in_process(definition, args, kwargs)
            if options.thread:
                return await self._call_in_thread(running, definition, args, kwargs)
            return definition.fn(*args, **kwargs)
        except (SystemExit, KeyboardInterrupt) as error:
            if came_from_outside(error):
                raise
            raise as_failure(error, definition.kind) from None

    async def _call_in_process(self, definition: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        code = definition.fn
        if code.__module__ == "__main__" and getattr(sys, "frozen", False):
            msg = (
                f"step {definition.name!r} has process=True and is part of the script that was frozen, "
                "which worker processes cannot import: move it into a module of its own"
            )
            raise Fatal(msg)
        # Workers import a script as __mp_main__: what they send back of its classes is found under
        # that name here too. `import multiprocessing` makes the same alias.
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        with self._in_flight():
            value = await anyio.to_process.run_sync(
                call_in_worker, code.__module__, code.__qualname__, args, kwargs, cancellable=True,
                limiter=self._processes,
            )  # fmt: skip
        if type(value) is FailedElsewhere:
            raise value.rebuilt()
        return value

    async def _call_in_thread(
        self, running: RunningAttempt, definition: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        running.in_thread = True
        try:
            with self._in_flight():
                value = await self._threads.call(_called, definition.fn, args, kwargs)
        finally:
            running.in_thread = False
        if type(value) is _Raised:
            raise as_failure(value.error, definition.kind)
        return value

    @contextlib.contextmanager
    def _in_flight(self) -> Generator[None]:
        self.calls_in_flight += 1
        try:
            yield
        finally:
            self.calls_in_flight -= 1

    def failed(self, action: StepAction | TransactionAction, error: BaseException, run_id: str) -> Event:
        """What *error* means: another attempt, or the failure of the step."""
        now = self._clock.now()
        error = as_failure(error, action.op.definition.kind)
        policy = action.op.given.retry or action.op.definition.options.retry
        seed = f"{run_id}:{action.position}:{action.attempt}"
        elapsed = now - action.first_started_at
        delay, note = next_attempt(policy, error, failures=action.failures + 1, elapsed=elapsed, seed=seed)
        failure = record_exception(error, self._codec, note=note)
        payload = payload_of(failure, self._codec)
        values = {
            "run_id": run_id, "step": action.op.definition.name, "position": action.position,
            "attempt": action.attempt, "error": describe(failure), "retry_in_seconds": delay,
        }  # fmt: skip
        if delay is None:
            log.warning("step.attempt_failed", **values)
            return StepFailed(action.position, action.attempt, payload, now)
        log.info("step.attempt_failed", **values)
        return StepRetrying(action.position, action.attempt, now + delay, payload, now)


def _context(
    action: StepAction, state: RunState, deadline: float | None, is_draining: Callable[[], bool]
) -> StepContext:
    return StepContext(
        state.run_id,
        state.workflow,
        action.position,
        action.attempt,
        f"{state.run_id}:{action.position}",
        deadline,
        state.labels,
        state.batches[0] if state.batches else None,
        is_draining,
    )


def current_task() -> asyncio.Task[Any]:
    """The task that asks."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def _forget_cancel(task: asyncio.Task[Any]) -> None:
    """Undo a cancellation of *task* that was for the user's code, or by it, lest it strike our next `await`."""
    while task.cancelling():
        task.uncancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


@frozen
class _Raised:
    """
    What a function raised in its thread.

    Handed over, rather than raised: it passes through code on the loop that would ask it what it is.
    """

    error: BaseException


def _called(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - no signal is handled in this thread: all of it is the function's
        return _Raised(error)
