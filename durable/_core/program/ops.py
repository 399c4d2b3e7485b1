"""
What a workflow may yield: ops, the descriptions of commands.

Calling a decorated function, or one of the functions below, runs nothing: it returns an op.
Ops are frozen values that know nothing of SQLite or asyncio; what drives the workflow
decides what they mean. ``x: T = yield op`` and ``x = await op`` are the same command.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args, overload

from attrs import evolve, field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.policies.limits import check_whole
from durable._core.policies.retry import Retry, as_retry, is_number, recorded
from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.definition import OnConflict
from durable.errors import DefinitionError, RunCancelled, UsageError

if TYPE_CHECKING:
    from typing import Self

    from durable._core.program.definition import RunDefinition, StepDefinition

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")


def checked_conflict(found: Any) -> Any:
    """*found*, if it says what to do about a key that is taken."""
    known = get_args(OnConflict)
    if found not in known:
        msg = f"on_conflict must be one of {', '.join(known)}, found {found!r:.60}"
        raise ValueError(msg)
    return found


@light_frozen
class Options:
    """What `op.options(...)` and the keyword arguments of `start` may change; None changes nothing."""

    retry: Retry | None = None
    timeout: float | None = None
    queue: str | None = None
    delay: float | None = None
    at: float | None = None
    #: Seconds from its start, or an instant, by which it must have begun.
    expires: float | None = None
    expires_at: float | None = None
    priority: int | None = None
    key: str | None = None
    labels: Mapping[str, str] | None = None
    on_conflict: OnConflict | None = None
    id: str | None = None
    key_ttl: float | None = None
    #: Sent to the run in the transaction that starts it, or finds it by its key.
    signals: Sequence[tuple[str | Signal[Any], Any]] = ()
    #: Follow-ups: started when the run succeeds.
    then: tuple[RunOp[Any], ...] = ()

    def __attrs_post_init__(self) -> None:
        # What users pass, whatever the annotations say: refused here, not by SQLite, and not at 3 a.m.
        given: Any = self
        for name, least in (("timeout", 0.0), ("key_ttl", 0.0), ("expires", 0.0), ("delay", -math.inf)):
            value = getattr(given, name)
            if value is not None and not (is_number(value) and least < value <= sys.float_info.max):
                msg = f"{name} must be a {'' if least else 'positive '}number of seconds, found {value!r:.60}"
                raise DefinitionError(msg)
        if given.priority is not None:
            check_whole("priority", given.priority)
        if given.labels is not None and not isinstance(given.labels, Mapping):
            msg = f"labels must be a mapping of strings to strings, found {given.labels!r:.60}"
            raise DefinitionError(msg)


NO_OPTIONS = Options()


def as_run_retry(value: Retry | int) -> Retry:
    """As `as_retry`, for a run: refuses what cannot be recorded with it."""
    policy = as_retry(value)
    recorded(policy)
    return policy


def as_expiry(value: float | timedelta | datetime) -> dict[str, float | None]:
    """
    The time by which a run must have begun, as the two options that say so.

    Raises:
        ValueError: It is a naive datetime.
    """
    if not isinstance(value, datetime):
        return {"expires": in_seconds(value), "expires_at": None}
    if value.tzinfo is None:
        msg = f"expires= takes seconds, a timedelta or an aware datetime, found the naive {value!r}"
        raise ValueError(msg)
    return {"expires": None, "expires_at": value.timestamp()}


def in_seconds(value: float | timedelta | None) -> float | None:
    """A duration as a number."""
    return value.total_seconds() if isinstance(value, timedelta) else value


@late_frozen
class Return(Generic[T_co]):
    """
    ``yield Return(value)`` ends a generator workflow with *value*.

    Python forbids ``return value`` in async generators. Code after it runs only in
    ``finally`` blocks, which may still yield clean-up steps.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(item: str) -> Flow[str]:
        ...     cents: int = yield price(item)
        ...     yield Return(f"{item} costs {cents}")
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order("tea"))
        'tea costs 3'
    """

    value: T_co


class ReturnReached(BaseException):
    """
    Thrown at ``yield Return(value)`` so that ``finally`` blocks run and may yield clean-up.

    A BaseException, so that ``except Exception`` does not swallow the end of the workflow.
    """


#: The annotation of a generator workflow: ``async def f(...) -> Flow[Receipt]``.
Flow: TypeAlias = AsyncGenerator[Command | Return[R], Any]


def kind_of(value: object) -> str:
    """What users gave instead of what was asked for, in the words of an error message."""
    if isinstance(value, (StepOp, TransactionOp, RunOp)):
        return f"a call of {value.describe()}"
    if isinstance(value, Command):
        return value.describe()
    if inspect.isasyncgen(value):
        return "an async generator (call another workflow through @workflow, or make the helper a coroutine)"
    if inspect.iscoroutine(value):
        return f"a coroutine of {value.__name__!r}"
    if callable(value):
        return f"the function {getattr(value, '__name__', value)!r} itself (call it)"
    return "None" if value is None else f"{type(value).__name__} {value!r:.60}"


class Op(Command, Generic[T_co]):
    """A command whose outcome is a T."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, T_co]:
        if current_driver.is_dead():
            # A `finally` that awaits while its generator is closed: refuse, record nothing.
            self.discard()
            raise RunCancelled
        if current_driver.driver_in_charge() is None:
            return (yield from self._call_plain().__await__())
        value: T_co = yield self
        return value

    def _call_plain(self) -> Coroutine[Any, Any, T_co]:
        msg = f"{self.describe()} works in workflow code only: yield or await it in a @workflow function"
        raise UsageError(msg)


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = fn(*args, **kwargs)
    if inspect.isawaitable(value):
        return await value
    return value


# --- steps -----------------------------------------------------------------------------------


@light_frozen(eq=False)
class StepOp(Op[T_co]):
    """A call of a step in this run."""

    definition: StepDefinition[..., T_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: current_driver.CallSite | None = None

    def options(self, *, retry: Retry | int | None = None, timeout: float | timedelta | None = None) -> Self:
        """A copy with another retry policy, or another timeout per attempt: seconds, or a timedelta."""
        given = self.given
        if retry is not None:
            given = evolve(given, retry=as_retry(retry))
        if timeout is not None:
            given = evolve(given, timeout=in_seconds(timeout))
        return _copy(self, given=given)

    def describe(self) -> str:
        return f"step {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T_co]:
        return _call(self.definition.body, self.args, self.kwargs)


@light_frozen(eq=False)
class TransactionOp(Op[T_co]):
    """A call of a transaction in this run."""

    definition: StepDefinition[..., T_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: current_driver.CallSite | None = None

    def options(self, *, retry: Retry | int | None = None) -> Self:
        """A copy with another retry policy."""
        return _copy(self, given=evolve(self.given, retry=None if retry is None else as_retry(retry)))

    def describe(self) -> str:
        return f"transaction {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T_co]:
        msg = (
            f"{self.describe()} needs the journal's connection, so it works in workflow code only; "
            f"in tests call {self.definition.name}.fn(tx, ...) with a transaction of your own"
        )
        raise UsageError(msg)


# --- runs of their own ------------------------------------------------------------------------


@light_frozen(eq=False)
class RunOp(Op[T_co]):
    """A call of a workflow or job: a run of its own. Given to `engine.start`, or awaited as a child."""

    definition: RunDefinition[..., T_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: current_driver.CallSite | None = None

    def options(
        self,
        *,
        retry: Retry | int | None = None,
        timeout: float | timedelta | None = None,
        queue: str | None = None,
        delay: float | timedelta | None = None,
        expires: float | timedelta | datetime | None = None,
        priority: int | None = None,
        key: str | None = None,
        key_ttl: float | timedelta | None = None,
        on_conflict: OnConflict | None = None,
        labels: Mapping[str, str] | None = None,
        signals: Sequence[tuple[str | Signal[Any], Any]] | None = None,
    ) -> Self:
        """
        A copy with other options; what is not given stays.

        Args:
            retry: Attempts of the whole run, or a policy.
            timeout: Seconds (or a timedelta) allowed for each attempt of a job, or for a whole workflow from when it
                first begins.
            queue: The queue it runs on.
            delay: Seconds (or a timedelta) before it may begin.
            expires: Seconds (or a timedelta) from its start, or an aware datetime: if it has not begun by then, it
                fails with `RunExpiredError`.
            priority: Higher goes first within its queue.
            key: One run per key.
            key_ttl: Seconds (or a timedelta) for which the run holds the key, from when it begins.
            on_conflict: What to do if the key is taken, as in `Engine.start`.
            labels: Merged over those of the definition.
            signals: Pairs of a signal and its payload, sent in the transaction that starts the run, or finds it by its
                key.
        """
        changes: dict[str, Any] = {
            "retry": None if retry is None else as_run_retry(retry),
            "timeout": in_seconds(timeout),
            "queue": queue,
            "delay": in_seconds(delay),
            "priority": priority,
            "key": key,
            "key_ttl": in_seconds(key_ttl),
            "on_conflict": None if on_conflict is None else checked_conflict(on_conflict),
            "labels": labels,
            "signals": signals,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        if expires is not None:
            changes |= as_expiry(expires)
        return _copy(self, given=evolve(self.given, **changes))

    def then(self, *ops: RunOp[Any]) -> Self:
        """
        A copy that starts *ops*, too, once its run has succeeded: in the transaction that records its success.

        Each is a run of its own, with its own delay and retry; what becomes of it does not touch this
        run. Follow-ups may have follow-ups. A run that is joined by its key keeps those it was started with.
        """
        for op in ops:
            found: Any = op
            if not isinstance(found, RunOp):
                hint = " (write then(a, b))" if isinstance(found, list | tuple) else ""
                msg = f"then() takes calls of workflows and jobs, which are runs of their own; found {kind_of(found)}"
                msg += hint
                raise TypeError(msg)
            current_driver.superseded(op)
        return _copy(self, given=evolve(self.given, then=(*self.given.then, *ops)))

    def describe(self) -> str:
        return f"{self.definition.kind} {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T_co]:
        if self.definition.kind == "workflow":
            msg = f"{self.describe()} needs an engine: await engine.run(...) or engine.start(...)"
            raise UsageError(msg)
        return _call(self.definition.body, self.args, self.kwargs)


@late_frozen
class Child(Generic[T_co]):
    """
    A run that a workflow started without awaiting it, or knows by id.

    ``await child.result()`` awaits its end. What becomes of the parent does not touch it, unless it was started with
    ``on_parent_end="cancel"``: then it is cancelled once the parent has ended, in whatever way.
    """

    run_id: str
    type: Any = field(default=Any, repr=False, eq=False)

    def result(self) -> AwaitRunOp[T_co]:
        """An op that waits for the run's end: its value, or its error."""
        op: AwaitRunOp[T_co] = AwaitRunOp(self.run_id, self.type, current_driver.call_site())
        current_driver.created(op)
        return op


@light_frozen(eq=False)
class AwaitRunOp(Op[T_co]):
    """Waits for the end of a run that exists already."""

    run_id: str
    type: Any
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"result of run {self.run_id!r}"


#: What becomes of a started child whose parent has ended, in whatever way.
OnParentEnd: TypeAlias = Literal["abandon", "cancel"]


@light_frozen(eq=False)
class StartOp(Op[Child[T_co]]):
    """Starts a child without awaiting it."""

    op: RunOp[T_co]
    site: current_driver.CallSite | None = None
    #: What becomes of the child once its parent has ended.
    on_parent_end: OnParentEnd = "abandon"

    def describe(self) -> str:
        return f"start of {self.op.describe()}"


@light_frozen(eq=False)
class ContinueAs(Op[Any]):
    """Ends this run and continues as a fresh one."""

    op: RunOp[Any]
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"continue as {self.op.describe()}"


# --- time and signals ----------------------------------------------------------------------------


@light_frozen(eq=False)
class SleepOp(Op[None]):
    """A durable timer: *seconds* from now, or until *until* (epoch seconds, UTC)."""

    seconds: float | None
    until: float | None
    site: current_driver.CallSite | None = None
    #: What it is for, told in the history.
    name: str = ""

    def describe(self) -> str:
        described = f"sleep {self.seconds:g} s" if self.seconds is not None else "sleep_until"
        return f"{described} ({self.name})" if self.name else described


class Signal(Generic[T]):
    """
    The name of a signal, and the type of what it carries: one object for both ends.

    ``await run.signal(payment, Payment(...))`` where it is sent, ``paid = await wait_for(payment)`` in the workflow.

    Example:
        >>> paid = Signal("paid", int)
        >>> @workflow
        ... async def order() -> int:
        ...     return await wait_for(paid, timeout=86_400)
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.signal(paid, 500)
        ...     await run.result()
        True
        500
    """

    __slots__ = ("name", "type")

    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...
    @overload
    def __init__(self: Signal[Any], name: str, type: Any = ...) -> None: ...
    def __init__(self, name: str, type: Any = Any) -> None:
        given: Any = name
        if not isinstance(given, str) or not given:
            msg = f"Signal takes the name of a signal, found {kind_of(given)}"
            raise TypeError(msg)
        self.name: Final = name
        self.type: Final = type

    def __repr__(self) -> str:
        return f"Signal({self.name!r}, {getattr(self.type, '__qualname__', self.type)})"


@light_frozen(eq=False)
class WaitForOp(Op[T_co]):
    """Waits for the next signal of a name."""

    name: str
    type: Any
    timeout: float | None
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"wait_for {self.name!r}"


# --- what one run asks of another -----------------------------------------------------------------


@light_frozen(eq=False)
class SignalRunOp(Op[None]):
    """Sends a signal to a run."""

    run_id: str
    signal: str | Signal[Any]
    payload: Any
    site: current_driver.CallSite | None = None

    @property
    def name(self) -> str:
        """That of the signal."""
        return self.signal.name if isinstance(self.signal, Signal) else self.signal

    def describe(self) -> str:
        return f"signal_run {self.name!r} of run {self.run_id!r}"


@light_frozen(eq=False)
class CancelRunOp(Op[bool]):
    """Asks a run to end."""

    run_id: str
    reason: str
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"cancel_run {self.run_id!r}"


_Op = TypeVar("_Op", bound=Command)


def _copy(op: _Op, **changes: Any) -> _Op:
    original: Any = op  # every op is an attrs class
    copy: _Op = evolve(original, **changes)
    current_driver.superseded(op)
    current_driver.created(copy)
    return copy
