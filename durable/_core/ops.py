"""
What a workflow may yield: ops, the descriptions of commands.

Calling a decorated function, or one of the functions below, runs nothing: it returns an op.
Ops are frozen values that know nothing of SQLite or asyncio; whoever drives the workflow
decides what they mean. ``x: T = yield op`` and ``x = await op`` are the same command.

`Command`, the class that may be yielded, is deliberately not generic: with ``Op[Any]`` in the
annotation of a generator, pyright infers Any for every op's result.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, Union, overload

from attrs import evolve, field, frozen

from durable._core import charge
from durable._core.retry import Retry, as_retry
from durable.errors import NotDurableError, RunCancelled, UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

    from durable._core.definition import Job, Step, TransactionStep, Workflow

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

#: What happens when a key belongs to a run already.
OnConflict: TypeAlias = Literal["join", "reject", "replace", "rerun"]
#: What a step does about an attempt that the death of the process cut off.
OnCrash: TypeAlias = Literal["rerun", "raise", "block"]

#: The reserved key that means "derive the key from the arguments".
by_arguments: Any = object()


@frozen
class Options:
    """What `op.options(...)` and the keyword arguments of `start` may change; None changes nothing."""

    retry: Retry | None = None
    timeout: float | None = None
    queue: str | None = None
    delay: float | None = None
    at: float | None = None
    priority: int | None = None
    key: str | None = None
    labels: Mapping[str, str] | None = None
    on_conflict: OnConflict = "join"
    id: str | None = None


NO_OPTIONS = Options()


class Command:
    """What a workflow may yield."""

    __slots__ = ()

    def describe(self) -> str:
        """The command in a few words, for reports."""
        return type(self).__name__


@frozen
class Return(Generic[T_co]):
    """
    ``yield Return(value)`` ends a generator workflow with *value*.

    Python forbids ``return value`` in async generators. Code after it runs only in
    ``finally`` blocks, which may still yield clean-up steps.
    """

    value: T_co


#: The annotation of a generator workflow: ``async def f(...) -> Flow[Receipt]``.
Flow: TypeAlias = AsyncGenerator[Union[Command, Return[R]], Any]


class Op(Command, Generic[T]):
    """A command whose outcome is a T."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, T]:
        if charge.is_dead():
            # A `finally` that awaits while its generator is closed: refuse, record nothing.
            raise RunCancelled
        if charge.driver_in_charge() is None:
            return (yield from self._call_plain().__await__())
        value: T = yield self
        return value

    def _call_plain(self) -> Coroutine[Any, Any, T]:
        msg = f"{self.describe()} works in workflow code only: yield or await it in a @workflow function"
        raise UsageError(msg)


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = fn(*args, **kwargs)
    if inspect.isawaitable(value):
        return await value
    return value


# --- steps -----------------------------------------------------------------------------------


@frozen(eq=False)
class StepOp(Op[T]):
    """A call of a step in this run."""

    definition: Step[..., T]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: charge.Site | None = None

    def options(self, *, retry: Retry | int | None = None, timeout: float | None = None) -> Self:
        """A copy with another retry policy, or another timeout per attempt in seconds."""
        given = self.given
        if retry is not None:
            given = evolve(given, retry=as_retry(retry))
        if timeout is not None:
            given = evolve(given, timeout=timeout)
        return _copy(self, given=given)

    def describe(self) -> str:
        return f"step {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T]:
        return _call(self.definition.fn, self.args, self.kwargs)


@frozen(eq=False)
class TransactionOp(Op[T]):
    """A call of a transaction in this run."""

    definition: TransactionStep[..., T]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: charge.Site | None = None

    def options(self, *, retry: Retry | int | None = None) -> Self:
        """A copy with another retry policy."""
        return _copy(self, given=evolve(self.given, retry=None if retry is None else as_retry(retry)))

    def describe(self) -> str:
        return f"transaction {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T]:
        msg = (
            f"{self.describe()} needs the journal's connection, so it works in workflow code only; "
            f"in tests call {self.definition.name}.fn(tx, ...) with a transaction of your own"
        )
        raise UsageError(msg)


# --- runs of their own ------------------------------------------------------------------------


@frozen(eq=False)
class RunOp(Op[T]):
    """A call of a workflow or job: a run of its own. Given to `engine.start`, or awaited as a child."""

    definition: Workflow[..., T] | Job[..., T]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Options = NO_OPTIONS
    site: charge.Site | None = None

    def options(  # noqa: PLR0913 - the documented list
        self,
        *,
        retry: Retry | int | None = None,
        timeout: float | None = None,
        queue: str | None = None,
        delay: float | timedelta | None = None,
        priority: int | None = None,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Self:
        """
        A copy with other options; what is not given stays.

        Args:
            retry: Attempts of the whole run, or a policy.
            timeout: Seconds (or a timedelta) allowed for the whole run.
            queue: The queue it runs on.
            delay: Seconds (or a timedelta) before it may begin.
            priority: Higher goes first within its queue.
            key: One run a key.
            labels: Merged over those of the definition.
        """
        changes: dict[str, Any] = {
            "retry": None if retry is None else as_retry(retry),
            "timeout": timeout,
            "queue": queue,
            "delay": delay.total_seconds() if isinstance(delay, timedelta) else delay,
            "priority": priority,
            "key": key,
            "labels": labels,
        }
        given = evolve(self.given, **{name: value for name, value in changes.items() if value is not None})
        return _copy(self, given=given)

    def describe(self) -> str:
        return f"{self.definition.sort} {self.definition.name!r}"

    def _call_plain(self) -> Coroutine[Any, Any, T]:
        if self.definition.sort == "workflow":
            msg = f"{self.describe()} needs an engine: await engine.run(...) or engine.start(...)"
            raise UsageError(msg)
        return _call(self.definition.fn, self.args, self.kwargs)


@frozen
class Child(Generic[T]):
    """
    A run that a workflow started without awaiting it, or knows by id.

    ``await child.result()`` awaits its end; what happens to the parent does not touch it,
    except that cancelling the parent cancels it too.
    """

    run_id: str
    type: Any = field(default=Any, repr=False, eq=False)

    def result(self) -> AwaitRunOp[T]:
        """An op that waits for the run's end: its value, or its error."""
        op: AwaitRunOp[T] = AwaitRunOp(self.run_id, self.type, charge.call_site())
        charge.created(op)
        return op


@frozen(eq=False)
class AwaitRunOp(Op[T]):
    """Waits for the end of a run that exists already."""

    run_id: str
    type: Any
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"result of run {self.run_id!r}"


@frozen(eq=False)
class StartOp(Op[Child[T]]):
    """Starts a child without awaiting it."""

    op: RunOp[T]
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"start of {self.op.describe()}"


@frozen(eq=False)
class ContinueAs(Op[Any]):
    """Ends this run and goes on as a fresh one."""

    op: RunOp[Any]
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"continue as {self.op.describe()}"


# --- time and signals ----------------------------------------------------------------------------


@frozen(eq=False)
class SleepOp(Op[None]):
    """A durable timer: *seconds* from now, or until *until* (epoch seconds, UTC)."""

    seconds: float | None
    until: float | None
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"sleep {self.seconds:g} s" if self.seconds is not None else "sleep_until"


@frozen(eq=False)
class WaitForOp(Op[T]):
    """Waits for the next signal of a name."""

    name: str
    type: Any
    timeout: float | None
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"wait_for {self.name!r}"


# --- groups ------------------------------------------------------------------------------------------

#: A member of a group: an op, or a coroutine of a helper that awaits ops.
Member: TypeAlias = Op[T] | Coroutine[Any, Any, T]


@frozen(eq=False)
class GatherOp(Op[T]):
    """All of its members."""

    members: tuple[Member[Any], ...]
    fail_fast: bool
    return_exceptions: bool
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"gather of {len(self.members)}"


@frozen
class Winner(Generic[T]):
    """Which member of a `race` ended first, and with what."""

    index: int
    value: T
    #: The winner's key, where the race was given a mapping.
    key: Any = None


@frozen(eq=False)
class RaceOp(Op[Winner[T]]):
    """The first of its members."""

    members: tuple[Member[Any], ...]
    keys: tuple[Any, ...] | None
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"race of {len(self.members)}"


@frozen(eq=False)
class TimeoutOp(Op[T]):
    """A member with a durable deadline."""

    member: Member[T]
    seconds: float
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"timeout {self.seconds:g} s"


@frozen
class Settled(Generic[T]):
    """How an op ended: exactly one of *value* and *error* counts."""

    value: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None

    def get(self) -> T:
        """The value; raises the error if it failed."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # with no error, value is the T


@frozen(eq=False)
class SettleOp(Op[Settled[T]]):
    """A member whose failure does not raise."""

    member: Member[T]
    site: charge.Site | None = None

    def describe(self) -> str:
        return "settle"


@frozen(eq=False)
class ForEachOp(Op[list[T]]):
    """A step, transaction or job applied to each item of a recorded list."""

    definition: Step[..., T] | TransactionStep[..., T] | Job[..., T] | Workflow[..., T]
    items: tuple[Any, ...]
    concurrency: int | None
    site: charge.Site | None = None

    def describe(self) -> str:
        return f"for_each {self.definition.name!r} over {len(self.items)}"


# --- making them ----------------------------------------------------------------------------------------

_Op = TypeVar("_Op", bound=Command)


def _copy(op: _Op, **changes: Any) -> _Op:
    copy: _Op = evolve(op, **changes)  # type: ignore[type-var]  # every op is an attrs class
    charge.superseded(op)
    charge.created(copy)
    return copy


def _seconds(value: float | timedelta, what: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds != seconds or seconds in (float("inf"), float("-inf")):  # noqa: PLR0124 - the NaN test
        msg = f"{what} takes a finite number of seconds, found {value!r}"
        raise ValueError(msg)
    return seconds


def _members(members: Iterable[Any], what: str) -> tuple[Any, ...]:
    found = tuple(members)
    for index, member in enumerate(found):
        if isinstance(member, Op):
            charge.superseded(member)
        elif not inspect.iscoroutine(member):
            msg = f"member {index} of {what} must be an op or a coroutine of a helper, found {_kind_of(member)}"
            raise TypeError(msg)
    return found


def _kind_of(value: object) -> str:
    if inspect.isasyncgen(value):
        return "an async generator (call another workflow through @workflow, or make the helper a coroutine)"
    if callable(value):
        return f"the function {getattr(value, '__name__', value)!r} itself (call it)"
    return f"{type(value).__name__} {value!r:.60}"


@overload
def gather(*, fail_fast: bool = ..., return_exceptions: bool = ...) -> GatherOp[list[Any]]: ...
@overload
def gather(m1: Member[T1], /, *, fail_fast: bool = ...) -> GatherOp[tuple[T1]]: ...
@overload
def gather(m1: Member[T1], m2: Member[T2], /, *, fail_fast: bool = ...) -> GatherOp[tuple[T1, T2]]: ...
@overload
def gather(
    m1: Member[T1], m2: Member[T2], m3: Member[T3], /, *, fail_fast: bool = ...
) -> GatherOp[tuple[T1, T2, T3]]: ...
@overload
def gather(
    m1: Member[T1], m2: Member[T2], m3: Member[T3], m4: Member[T4], /, *, fail_fast: bool = ...
) -> GatherOp[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(
    m1: Member[T1], m2: Member[T2], m3: Member[T3], m4: Member[T4], m5: Member[T5], /, *, fail_fast: bool = ...
) -> GatherOp[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(*members: Member[T], fail_fast: bool = ...) -> GatherOp[list[T]]: ...
@overload
def gather(
    *members: Member[T], fail_fast: bool = ..., return_exceptions: Literal[True]
) -> GatherOp[list[T | Exception]]: ...
def gather(
    *members: Member[Any], fail_fast: bool = False, return_exceptions: bool = False
) -> GatherOp[Any]:
    """
    All members at once; their results as a list, in the order of the arguments.

    Args:
        members: Ops (groups included) or coroutines of helpers, each then a strand of its own.
        fail_fast: At the first failure cancel the rest, then raise.
        return_exceptions: Failures stand in the list instead of raising.

    Raises (when yielded or awaited):
        ExceptionGroup: Of all failures, once every member has ended.
    """
    op: GatherOp[Any] = GatherOp(_members(members, "gather"), fail_fast, return_exceptions, charge.call_site())
    charge.created(op)
    return op


@overload
def race(members: Mapping[Any, Member[T]], /) -> RaceOp[T]: ...
@overload
def race(*members: Member[T]) -> RaceOp[T]: ...
def race(*members: Any) -> RaceOp[Any]:
    """
    The first member to end wins; the others are cancelled.

    Given a mapping, `Winner.key` tells which. A winner that failed raises its error.
    """
    keys: tuple[Any, ...] | None = None
    if len(members) == 1 and isinstance(members[0], Mapping):
        keys = tuple(members[0])
        members = tuple(members[0].values())
    if not members:
        msg = "race needs at least one member"
        raise ValueError(msg)
    op: RaceOp[Any] = RaceOp(_members(members, "race"), keys, charge.call_site())
    charge.created(op)
    return op


def timeout(member: Member[T], seconds: float | timedelta) -> TimeoutOp[T]:
    """The member's value, or `TimeoutError` (and the member cancelled) after *seconds*."""
    (only,) = _members([member], "timeout")
    op: TimeoutOp[T] = TimeoutOp(only, _seconds(seconds, "timeout"), charge.call_site())
    charge.created(op)
    return op


def settle(member: Member[T]) -> SettleOp[T]:
    """How the member ended, as a `Settled`: never raises its failure."""
    (only,) = _members([member], "settle")
    op: SettleOp[T] = SettleOp(only, charge.call_site())
    charge.created(op)
    return op


def for_each(
    fn: Step[..., T] | TransactionStep[..., T] | Job[..., T] | Workflow[..., T],
    items: Iterable[Any],
    *,
    concurrency: int | None = 1,
) -> ForEachOp[T]:
    """
    Apply a step, transaction, job or workflow to each item; results in the items' order.

    The items are recorded once and never evaluated again: duplicates, None and falsy items
    are items. At most *concurrency* are under way at once; None starts all. The first failure
    starts no more items; it raises once those under way have ended (the error itself where
    *concurrency* is 1, else an `ExceptionGroup`).
    """
    if concurrency is not None and concurrency < 1:
        msg = f"concurrency must be at least 1 or None, found {concurrency!r}"
        raise ValueError(msg)
    if not hasattr(fn, "sort"):
        msg = f"for_each takes a decorated step, transaction, job or workflow, found {_kind_of(fn)}"
        raise TypeError(msg)
    op: ForEachOp[T] = ForEachOp(fn, tuple(items), concurrency, charge.call_site())
    charge.created(op)
    return op


def sleep(seconds: float | timedelta) -> SleepOp:
    """A durable timer; zero or less fires at once."""
    op = SleepOp(_seconds(seconds, "sleep"), None, charge.call_site())
    charge.created(op)
    return op


def sleep_until(when: datetime) -> SleepOp:
    """A durable timer for an aware datetime; one already past fires at once."""
    if when.tzinfo is None:
        msg = f"sleep_until needs an aware datetime, found the naive {when!r} (add tzinfo=datetime.UTC)"
        raise ValueError(msg)
    op = SleepOp(None, when.timestamp(), charge.call_site())
    charge.created(op)
    return op


@overload
def wait_for(name: str, type: type[T], timeout: float | timedelta | None = ...) -> WaitForOp[T]: ...  # noqa: A002
@overload
def wait_for(name: str, type: Any = ..., timeout: float | timedelta | None = ...) -> WaitForOp[Any]: ...  # noqa: A002
def wait_for(name: str, type: Any = Any, timeout: float | timedelta | None = None) -> WaitForOp[Any]:  # noqa: A002
    """
    The payload of the next signal called *name*, decoded as *type*.

    Signals sent early are kept, first in first out; each is consumed once.

    Raises (when yielded or awaited):
        TimeoutError: If none came within *timeout* seconds.
    """
    limit = None if timeout is None else _seconds(timeout, "wait_for(timeout=)")
    op: WaitForOp[Any] = WaitForOp(name, type, limit, charge.call_site())
    charge.created(op)
    return op


def start(op: RunOp[T], *, id: str | None = None, **options: Any) -> StartOp[T]:  # noqa: A002 - as Engine.start
    """
    Start a child without awaiting it: a `Child` with its id.

    Options as `Engine.start`: key, on_conflict, queue, delay, at, priority, labels.
    """
    charge.superseded(op)
    made: StartOp[T] = StartOp(_with_options(op, id=id, **options), charge.call_site())
    charge.created(made)
    return made


def _with_options(op: RunOp[T], **options: Any) -> RunOp[T]:
    """*op* with the keyword arguments of `start` applied; refuses what is unknown."""
    if not isinstance(op, RunOp):
        hint = " (a step is no run of its own: decorate it with @job, or call it in a workflow)"
        msg = f"expected a call of a @workflow or @job, found {_kind_of(op)}{hint if isinstance(op, StepOp) else ''}"
        raise TypeError(msg)
    given = {name: value for name, value in options.items() if value is not None}
    known = {"id", "key", "on_conflict", "queue", "delay", "at", "priority", "labels", "timeout", "retry"}
    if unknown := set(given) - known:
        msg = f"start got unknown options {sorted(unknown)}; known are {sorted(known)}"
        raise TypeError(msg)
    if isinstance(given.get("delay"), timedelta):
        given["delay"] = given["delay"].total_seconds()
    if isinstance(given.get("at"), datetime):
        if given["at"].tzinfo is None:
            msg = f"start(at=) needs an aware datetime, found {given['at']!r}"
            raise ValueError(msg)
        given["at"] = given["at"].timestamp()
    if "retry" in given:
        given["retry"] = as_retry(given["retry"])
    conflict = given.get("on_conflict", "join")
    if conflict not in ("join", "reject", "replace", "rerun"):
        msg = f"on_conflict must be join, reject, replace or rerun, found {conflict!r}"
        raise ValueError(msg)
    return evolve(op, given=evolve(op.given, **given)) if given else op


def continue_as(op: RunOp[Any]) -> ContinueAs:
    """
    End this run and go on as a fresh run of *op* under the same chain of ids.

    For endless loops: history starts anew, whoever awaits the run awaits its successor.
    """
    charge.superseded(op)
    made = ContinueAs(_with_options(op), charge.call_site())
    charge.created(made)
    return made


def describe_foreign(value: object) -> NotDurableError:
    """The error for something awaited that is no op, described so that the reader finds it."""
    kind = type(value)
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        found = f"the coroutine {getattr(value, '__qualname__', kind.__name__)!r}"
    elif kind.__module__.startswith(("asyncio", "_asyncio")) or value is None:
        found = "something of the event loop (asyncio.sleep, a socket, a lock, an anyio or asyncio call)"
    else:
        found = f"a foreign awaitable ({kind.__module__}.{kind.__qualname__})"
    return NotDurableError(found)
