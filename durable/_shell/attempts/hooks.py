"""
Calls the middleware of one engine: in its order, exactly once, and harming nothing.

Which methods are overridden is found out when the engine is made, so that what nobody overrides
costs nothing later.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import anyio

from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.journal.payloads import rebuilt
from durable._core.run.decision import FailedAttempt
from durable._shell.attempts.asking import in_short
from durable._shell.attempts.middleware import (
    Activation,
    AttemptFailed,
    Middleware,
    RunCancellation,
    RunFailure,
    RunSuccess,
    StepCall,
)
from durable._shell.attempts.raised import is_cancellation, is_for_the_program
from durable._shell.attempts.running_attempt import AnyAttempt
from durable._shell.log import log
from durable._shell.loops import current_task
from durable._shell.rows.engine_events import EngineEvent
from durable._shell.rows.rows import Effects, Ended, Notice, ReadyRun, RunResult, RunState
from durable.errors import DurableError, MiddlewareError


class Driven(Protocol):
    """The driver of one run."""

    ready: ReadyRun

    @property
    def surroundings(self) -> anyio.CancelScope:
        """Cancelled when the grace of closing is over: no middleware holds up the end of the engine."""
        ...

    async def drive(self) -> None: ...
    async def refuse(self, error: DurableError) -> None: ...


class Hooks:
    """The middleware of one engine."""

    def __init__(self, middleware: Iterable[Middleware], codec: Codec) -> None:
        if isinstance(middleware, Middleware):
            name = type(middleware).__name__
            raise MiddlewareError(name, "Engine(middleware=...)", f"put it in a list: middleware=[{name}()]")
        found = tuple(middleware)
        for each in found:
            _check(each)
        self._codec = codec
        # Innermost first: that is the order in which they are wrapped.
        self._steps = tuple(each for each in reversed(found) if _overrides(each, "step"))
        self._runs = tuple(each for each in reversed(found) if _overrides(each, "run"))
        self._attempts = tuple(each for each in found if _overrides(each, "attempt_failed"))
        self._failures = tuple(each for each in found if _overrides(each, "run_failed"))
        self._successes = tuple(each for each in found if _overrides(each, "run_succeeded"))
        self._cancellations = tuple(each for each in found if _overrides(each, "run_cancelled"))
        self._happenings = tuple(each for each in found if _overrides(each, "happened"))
        self._commits = tuple(each for each in found if _overrides(each, "committed"))
        self.around_steps = bool(self._steps)
        self.around_runs = bool(self._runs)
        #: Whether anybody wants to hear of what happens, and of failed attempts, which turns note only then.
        self.watches_events = bool(self._happenings)
        self.watches_attempts = bool(self._attempts) or self.watches_events
        self.watches_commits = bool(self._commits)

    # --- around steps ---------------------------------------------------------------------------

    async def step(self, action: AnyAttempt, state: RunState, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """The value of an attempt whose function *proceed* calls."""
        op = action.op
        call = StepCall(
            run_id=state.run_id,
            workflow=state.workflow,
            kind=op.definition.kind,
            step=op.definition.name,
            position=action.position,
            attempt=action.attempt,
            args=op.args,
            kwargs=MappingProxyType(op.kwargs),
            labels=state.labels,
        )
        for each in self._steps:
            proceed = partial(_through_step, each, call, proceed)
        return await proceed()

    # --- around activations ---------------------------------------------------------------------

    async def run(self, driver: Driven, spawn: Callable[[Any, Any, contextvars.Context], None]) -> None:
        """
        Let *driver* drive its run; or refuse it, if a middleware does not let it through.

        It is driven in a task of its own: what a middleware cancels is its own waiting, not the run.
        """
        ready = driver.ready
        activation = Activation(
            ready.run_id,
            ready.workflow,
            ready.kind,  # type: ignore[arg-type]  # the file holds nothing else
            ready.queue,
            ready.priority,
            ready.labels,
            first=not ready.begun,
        )
        driven: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = False

        async def begin() -> None:
            nonlocal begun
            spawn(partial(_drive, driver.drive), driven, contextvars.copy_context())
            begun = True
            await asyncio.shield(driven)

        refusals: list[MiddlewareError] = []
        proceed: Callable[[], Awaitable[Any]] = begin
        for each in self._runs:
            proceed = partial(_through_run, each, activation, proceed, refusals)
        with driver.surroundings, contextlib.suppress(MiddlewareError):
            await proceed()
        if begun:
            await driven
        elif refusals:
            await driver.refuse(refusals[0])

    # --- telling --------------------------------------------------------------------------------

    def tell(self, effects: Effects) -> None:
        """Tell the middleware what a commit group recorded."""
        if self._attempts:
            for notice in effects.notices:
                if notice.failed is not None:
                    self._tell_attempt(notice, notice.failed)
        if self._failures:
            for run in effects.ended:
                if run.outcome is not None and run.status == "failed":
                    self._tell_failure(run, run.outcome)
        if self._successes:
            for run in effects.ended:
                if run.outcome is not None and run.status == "succeeded":
                    self._tell_success(run, run.outcome)
        if self._cancellations:
            for run in effects.ended:
                if run.outcome is not None and run.status == "cancelled":
                    self._tell_cancellation(run, run.outcome)

    def happened(self, events: Iterable[EngineEvent]) -> None:
        """Tell the middleware of what readers of `engine.events()` hear."""
        for event in events:
            for each in self._happenings:
                try:
                    each.happened(event)
                except BaseException as broken:  # user code may raise anything, and must not harm the engine
                    if came_from_outside(broken):
                        raise
                    _log(_name(each), "happened", broken, event.run_id)

    def committed(self, members: int, seconds: float) -> None:
        """Tell the middleware of a commit."""
        for each in self._commits:
            try:
                each.committed(members, seconds)
            except BaseException as broken:  # as above
                if came_from_outside(broken):
                    raise
                _log(_name(each), "committed", broken, None)

    def _tell_attempt(self, notice: Notice, failed: FailedAttempt) -> None:
        for each in self._attempts:
            try:
                error = rebuilt(failed.failure, self._codec)
                each.attempt_failed(
                    AttemptFailed(
                        notice.run_id,
                        notice.workflow,
                        failed.step,
                        failed.position,
                        failed.attempt,
                        error,
                        failed.retry_at,
                    )
                )
            except BaseException as broken:  # user code may raise anything, and must not harm the engine
                if came_from_outside(broken):
                    raise
                _log(_name(each), "attempt_failed", broken, notice.run_id)

    def _tell_failure(self, run: Ended, outcome: RunResult) -> None:
        for each in self._failures:
            try:
                error = rebuilt(outcome.payload, self._codec)
                each.run_failed(RunFailure(run.run_id, run.workflow, error, self._codec.reveal(outcome.reason)))
            except BaseException as broken:  # as above
                if came_from_outside(broken):
                    raise
                _log(_name(each), "run_failed", broken, run.run_id)

    def _tell_success(self, run: Ended, outcome: RunResult) -> None:
        for each in self._successes:
            try:
                value = None if outcome.payload is None else self._codec.decode(outcome.payload, where="a result")
                each.run_succeeded(RunSuccess(run.run_id, run.workflow, value))
            except BaseException as broken:  # as above
                if came_from_outside(broken):
                    raise
                _log(_name(each), "run_succeeded", broken, run.run_id)

    def _tell_cancellation(self, run: Ended, outcome: RunResult) -> None:
        for each in self._cancellations:
            try:
                each.run_cancelled(RunCancellation(run.run_id, run.workflow, self._codec.reveal(outcome.reason)))
            except BaseException as broken:  # as above
                if came_from_outside(broken):
                    raise
                _log(_name(each), "run_cancelled", broken, run.run_id)


class _Once:
    """The *proceed* of one middleware and one call: works once."""

    def __init__(self, inner: Callable[[], Awaitable[Any]], middleware: str, where: str) -> None:
        self._inner = inner
        self._middleware = middleware
        self._where = where
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._ended: asyncio.Event | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    def __call__(self) -> Awaitable[Any]:
        if self._coroutine is not None:
            raise self.refusal("it called proceed twice: call it exactly once")
        self._coroutine = self._run()
        return self._coroutine

    async def _run(self) -> Any:
        self._ended = asyncio.Event()
        try:
            self.value = await self._inner()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._ended.set()
        return self.value

    @property
    def used(self) -> bool:
        """Whether it was called, and awaited."""
        return self._ended is not None

    async def end(self) -> bool:
        """Whether it has ended already; returns once it has, or was found not to have been awaited."""
        if self._ended is None:
            if self._coroutine is not None:
                self._coroutine.close()
            return False
        ended = self._ended.is_set()
        await self._ended.wait()  # a step must not continue beside its next attempt
        return ended

    def refusal(self, reason: str) -> MiddlewareError:
        """The error of this middleware."""
        return MiddlewareError(self._middleware, self._where, reason)


async def _through_step(middleware: Middleware, call: StepCall, inner: Callable[[], Awaitable[Any]]) -> Any:
    where = f"attempt {call.attempt} of {call.kind} {call.step!r} at {call.position} of run {call.run_id!r}"
    once = _Once(inner, f"{_name(middleware)}.step", where)
    try:
        value = await middleware.step(call, once)
    except BaseException as error:
        if not (is_cancellation(error) or came_from_outside(error)):
            await once.end()
        raise
    ended = await once.end()
    if not once.used:
        raise once.refusal("it returned without having awaited proceed(), so the function was not called")
    if not ended:
        raise once.refusal("it returned before proceed() had ended: await it")
    if value is None and once.value is not None:
        raise once.refusal("it returned None although proceed() gave a value: return what proceed gave")
    return value


async def _through_run(
    middleware: Middleware,
    activation: Activation,
    inner: Callable[[], Awaitable[None]],
    refusals: list[MiddlewareError],
) -> None:
    """One layer around a run: raises what *inner* raises, or a `MiddlewareError` if that was not awaited."""
    where = f"run {activation.run_id!r} of {activation.kind} {activation.workflow!r}"
    once = _Once(inner, f"{_name(middleware)}.run", where)
    error: BaseException | None = None
    task = current_task()
    try:
        await middleware.run(activation, once)
    except BaseException as raised:
        if task.cancelling() > 0 if is_cancellation(raised) else is_for_the_program(raised, task):
            raise  # the engine ends; any other one is of the middleware's own making
        error = raised
    await once.end()
    if once.used:
        if error is not None and error is not once.error:
            _log(_name(middleware), "run", error, activation.run_id)
        if isinstance(once.error, MiddlewareError):
            raise once.error
        return
    if error is not None:
        refusal = once.refusal(f"it raised {in_short(error)}, before proceed() was awaited")
    else:
        refusal = once.refusal("it returned without having awaited proceed(), so nothing was executed")
    refusals.append(refusal)
    raise refusal from error


async def _drive(drive: Callable[[], Awaitable[None]], driven: asyncio.Future[None]) -> None:
    try:
        await drive()
    finally:
        if not driven.done():
            driven.set_result(None)


def _overrides(middleware: Middleware, method: str) -> bool:
    found = getattr(middleware, method)
    return getattr(found, "__func__", found) is not getattr(Middleware, method)


def _check(middleware: object) -> None:
    """Refuse what could only fail, or do nothing, later."""
    if not isinstance(middleware, Middleware):
        is_class = isinstance(middleware, type) and issubclass(middleware, Middleware)
        hint = f"give an object: {middleware.__name__}()" if is_class else "derive its class from durable.Middleware"  # type: ignore[attr-defined]  # a class
        raise MiddlewareError(f"{middleware!r:.80}", "Engine(middleware=...)", f"it is not a Middleware: {hint}")
    for method in ("attempt_failed", "run_failed", "run_succeeded", "run_cancelled", "happened", "committed"):
        if inspect.iscoroutinefunction(getattr(middleware, method)):
            reason = "it is called and not awaited, so it must be a plain `def`"
            raise MiddlewareError(f"{_name(middleware)}.{method}", "Engine(middleware=...)", reason)


def _name(middleware: Middleware) -> str:
    return type(middleware).__name__


def _log(middleware: str, method: str, error: BaseException, run_id: str | None) -> None:
    log.error("middleware.failed", middleware=middleware, method=method, error=in_short(error), run_id=run_id)
