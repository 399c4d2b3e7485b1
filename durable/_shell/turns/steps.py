"""
One attempt of a step: runs it under its timeout, and says how it ended.

Async functions run on the loop, in a task of their own; sync ones in a worker thread, or in a
process. It knows nothing of workflows: it hands back an event, or None if it was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import anyio
import anyio.to_process
import anyio.to_thread

from durable._core.codec.codec import Codec
from durable._core.journal.events import Event, StepFailed, StepRetrying, StepSucceeded
from durable._core.journal.payloads import failure_payload
from durable._core.ports import Clock
from durable._core.program.functions import Step
from durable._core.program.retry import plan
from durable._core.run.decision import StepAction, TransactionAction
from durable._shell.backend import Backend
from durable._shell.log import log
from durable._shell.rows.rows import RunState
from durable._shell.turns.context import Notes, Scope, StepContext, enter
from durable._shell.turns.hooks import Hooks
from durable._shell.turns.stand_ins import StandIns
from durable.errors import Fatal

#: Worker threads of one engine: as many as anyio's own default.
THREADS = 40


class Steps:
    """Runs attempts, within the limits of threads and processes of one engine."""

    def __init__(
        self,
        codec: Codec,
        clock: Clock,
        is_ending: Callable[[], bool],
        hooks: Hooks,
        inside: Backend,
        stand_ins: StandIns | None = None,
    ) -> None:
        self._codec = codec
        self._clock = clock
        #: The engine, as steps see it.
        self._inside = inside
        #: Whether the engine cancels all of its tasks.
        self._is_ending = is_ending
        self._hooks = hooks
        #: What is called in place of functions, in a dry run.
        self._stand_ins = stand_ins
        #: Attempts under way in threads and processes.
        self.calls_in_flight = 0
        self._threads = anyio.CapacityLimiter(THREADS)
        self._processes = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def attempt(self, action: StepAction, state: RunState, notes: Notes, left: dict[str, Any]) -> Event:
        """Run one attempt; how it ended. Raises only cancellation, and what no program survives."""
        definition = action.op.definition
        timeout = action.op.given.timeout or definition.options.timeout
        deadline = None if timeout is None else self._clock.now() + timeout
        about = partial(_context, action, state, deadline)
        scope = Scope(about, self._codec, notes, left, batches=state.batches, backend=self._inside)
        enter(scope)
        try:
            if timeout is None:
                value = await self._value(action, state)
            else:
                try:
                    with anyio.fail_after(timeout):
                        value = await self._value(action, state)
                except TimeoutError as error:
                    if not str(error):  # anyio's, not the user's own
                        msg = f"step {definition.name!r} took longer than {timeout:g} s"
                        raise TimeoutError(msg) from None
                    raise
            if scope.adding:
                await scope.settle()
                scope.raise_refused()
            payload = self._codec.encode(value, definition.result, where=definition.result_place)
            return StepSucceeded(action.position, payload, self._clock.now())
        except Exception as error:  # noqa: BLE001 - user code may raise anything: it is the step's outcome
            await scope.settle()
            return self.failed(action, error, state.run_id)
        except asyncio.CancelledError:
            if self._is_cut_off():
                raise
            # The step cancelled itself (a library of its did): no failure of the step, so it is tried again.
            return self._again(action, state.run_id)
        finally:
            task = current_task()
            if task.cancelling() and not self._is_cut_off():
                await _forget_own_cancel(task)

    def _is_cut_off(self) -> bool:
        """Whether the engine wants this attempt to end: the run's scope is cancelled, or everything is."""
        return anyio.current_effective_deadline() == -math.inf or self._is_ending()

    def _value(self, action: StepAction, state: RunState) -> Coroutine[Any, Any, Any]:
        op = action.op
        if self._stand_ins is not None:
            return self._stand_ins.call(op.definition, action.position, state.run_id, op.args, op.kwargs)
        if self._hooks.around_steps:
            return self._hooks.step(action, state, partial(self._call, op.definition, op.args, op.kwargs))
        return self._call(op.definition, op.args, op.kwargs)

    async def _call(self, definition: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if definition.is_async:
            return await definition.fn(*args, **kwargs)
        options = definition.options
        if options.process:
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
                return await anyio.to_process.run_sync(
                    _in_process, code.__module__, code.__qualname__, args, kwargs, cancellable=True,
                    limiter=self._processes,
                )  # fmt: skip
        if options.thread:
            with self._in_flight():
                return await anyio.to_thread.run_sync(
                    _call_plain, definition.fn, args, kwargs, abandon_on_cancel=True, limiter=self._threads
                )
        return definition.fn(*args, **kwargs)

    @contextlib.contextmanager
    def _in_flight(self) -> Generator[None]:
        self.calls_in_flight += 1
        try:
            yield
        finally:
            self.calls_in_flight -= 1

    def failed(self, action: StepAction | TransactionAction, error: Exception, run_id: str) -> Event:
        """What *error* means: another attempt, or the failure of the step."""
        now = self._clock.now()
        policy = action.op.given.retry or action.op.definition.options.retry
        failures = action.failures + 1
        seed = f"{run_id}:{action.position}:{action.attempt}"
        payload = failure_payload(error, self._codec)
        name = action.op.definition.name
        values = {"run_id": run_id, "step": name, "position": action.position, "attempt": action.attempt}
        try:
            delay = plan(policy, error, failures=failures, elapsed=now - action.first_started_at, seed=seed)
        except Exception as broken:  # noqa: BLE001 - `Retry.on` is user code
            error.add_note(f"the retry policy itself raised {broken!r}, so this was not retried")
            payload, delay = failure_payload(error, self._codec), None
        if delay is None:
            log.warning("step.attempt_failed", error=repr(error), retry_in_seconds=None, **values)
            return StepFailed(action.position, action.attempt, payload, now)
        log.info("step.attempt_failed", error=repr(error), retry_in_seconds=delay, **values)
        return StepRetrying(action.position, action.attempt, now + delay, payload, now)

    def _again(self, action: StepAction, run_id: str) -> Event:
        now = self._clock.now()
        error = RuntimeError("the step raised CancelledError although nobody cancelled it")
        log.warning("step.interrupted", run_id=run_id, position=action.position, error=str(error))
        return StepRetrying(
            action.position, action.attempt, now + 1.0, failure_payload(error, self._codec, with_traceback=False), now
        )


def _context(action: StepAction, state: RunState, deadline: float | None) -> StepContext:
    return StepContext(
        state.run_id,
        state.workflow,
        action.position,
        action.attempt,
        f"{state.run_id}:{action.position}",
        deadline,
        state.labels,
        state.batches[0] if state.batches else None,
    )


def current_task() -> asyncio.Task[Any]:
    """The task that asks."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def _forget_own_cancel(task: asyncio.Task[Any]) -> None:
    """Undo a cancellation that user code requested of its own *task*, lest it strike our next `await`."""
    while task.cancelling():
        task.uncancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def _call_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _in_process(module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs in the worker process: finds the definition where its module put it, and calls its function."""
    import importlib  # noqa: PLC0415 - only workers need it

    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return getattr(found, "fn", found)(*args, **kwargs)
