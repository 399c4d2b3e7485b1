"""
The functions that make ops: `gather`, `race`, `sleep`, `wait_for`, `start` and the like.

Each checks its arguments where the user wrote them, notes the place, and tells the driver in
charge that the op exists. Nothing runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from attrs import evolve

from durable._core.policies.retry import is_number
from durable._core.policies.settled import EndRule, NamedOutcomes, Outcomes, Settled
from durable._core.program import current_driver
from durable._core.program.definition import MAX_NAME_LENGTH, Definition, check_name
from durable._core.program.functions import Helper
from durable._core.program.group_ops import (
    PLAIN,
    AsCompleted,
    CompletionsOp,
    ForEachOp,
    GatherOp,
    GroupOptions,
    Member,
    PollOp,
    RaceOp,
    SettleOp,
    TimeoutOp,
    WaitFirstOp,
    discard,
)
from durable._core.program.ops import (
    CancelRunOp,
    ContinueAs,
    OnParentEnd,
    Op,
    RunOp,
    Signal,
    SignalRunOp,
    SleepOp,
    StartOp,
    StepOp,
    TransactionOp,
    WaitForOp,
    as_expiry,
    as_run_retry,
    checked_conflict,
    in_seconds,
    kind_of,
)
from durable._core.program.requests import Asked, Request, WaitForRequestOp
from durable.errors import CapExceededError, DefinitionError, UnknownOptionError

if TYPE_CHECKING:
    from typing import Unpack

    from durable._core.program.functions import Job, Step, TransactionStep, Workflow
    from durable._core.program.start_options import StartOptions

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
K = TypeVar("K")
Item = TypeVar("Item")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


@overload
def gather(*, fail_fast: bool = ..., return_exceptions: bool = ..., name: str = ...) -> GatherOp[list[Any]]: ...
@overload
def gather(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int,
    tolerate: float | None = ...,
    name: str = ...,
) -> GatherOp[NamedOutcomes[K, T]]: ...
@overload
def gather(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int | None = ...,
    tolerate: float,
    name: str = ...,
) -> GatherOp[NamedOutcomes[K, T]]: ...
@overload
def gather(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    return_exceptions: Literal[True],
    name: str = ...,
) -> GatherOp[dict[K, T | Exception]]: ...
@overload
def gather(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]], /, *, concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[dict[K, T]]: ...
@overload
def gather(  # type: ignore[overload-overlap]  # as above; for mypy, which sees but objects in a mapping of several types
    members: Mapping[K, Op[Any]], /, *, concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[dict[K, Any]]: ...
@overload
def gather(
    members: Iterable[Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int,
    tolerate: float | None = ...,
    name: str = ...,
) -> GatherOp[Outcomes[T]]: ...
@overload
def gather(
    members: Iterable[Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int | None = ...,
    tolerate: float,
    name: str = ...,
) -> GatherOp[Outcomes[T]]: ...
@overload
def gather(
    members: Iterable[Member[T]] | None, /, *, concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[list[T]]: ...
@overload
def gather(
    members: Iterable[Member[T]] | None,
    /,
    *,
    concurrency: int | None = ...,
    return_exceptions: Literal[True],
    name: str = ...,
) -> GatherOp[list[T | Exception]]: ...
@overload
def gather(members: Iterable[Member[T]], /, *, at_least: int, name: str = ...) -> GatherOp[list[T]]: ...
@overload
def gather(  # pyright: ignore[reportOverlappingOverload]  # a tuple is what one member gives, a list what *many do
    m1: Member[T1], /, *, concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[tuple[T1]]: ...
@overload
def gather(
    m1: Member[T1], m2: Member[T2], /, *, concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[tuple[T1, T2]]: ...
@overload
def gather(
    m1: Member[T1],
    m2: Member[T2],
    m3: Member[T3],
    /,
    *,
    concurrency: int | None = ...,
    fail_fast: bool = ...,
    name: str = ...,
) -> GatherOp[tuple[T1, T2, T3]]: ...
@overload
def gather(
    m1: Member[T1],
    m2: Member[T2],
    m3: Member[T3],
    m4: Member[T4],
    /,
    *,
    concurrency: int | None = ...,
    fail_fast: bool = ...,
    name: str = ...,
) -> GatherOp[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(
    m1: Member[T1],
    m2: Member[T2],
    m3: Member[T3],
    m4: Member[T4],
    m5: Member[T5],
    /,
    *,
    concurrency: int | None = ...,
    fail_fast: bool = ...,
    name: str = ...,
) -> GatherOp[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(
    *members: Member[T], concurrency: int | None = ..., fail_fast: bool = ..., name: str = ...
) -> GatherOp[list[T]]: ...
@overload
def gather(
    *members: Member[T], concurrency: int | None = ..., return_exceptions: Literal[True], name: str = ...
) -> GatherOp[list[T | Exception]]: ...
@overload
def gather(
    *members: Member[T], concurrency: int | None = ..., enough: int, tolerate: float | None = ..., name: str = ...
) -> GatherOp[Outcomes[T]]: ...
@overload
def gather(
    *members: Member[T], concurrency: int | None = ..., enough: int | None = ..., tolerate: float, name: str = ...
) -> GatherOp[Outcomes[T]]: ...
@overload
def gather(*members: Member[T], at_least: int, name: str = ...) -> GatherOp[list[T]]: ...
def gather(
    *members: Any,
    concurrency: int | None = None,
    enough: int | None = None,
    tolerate: float | None = None,
    fail_fast: bool = False,
    return_exceptions: bool = False,
    at_least: int | None = None,
    name: str = "",
) -> GatherOp[Any]:
    """
    All members; their results as a list, in the order of the arguments, or as a dict if they are a mapping.

    With *enough* or *tolerate* the result tells of each member how it ended, as a `Settled`: an `Outcomes`, which is a
    list, or a `NamedOutcomes`, which is a dict; each with the reason why the group ended.

    Args:
        members: Ops (groups included) or coroutines of helpers, each then a strand of its own; or
            one iterable of them, or one mapping, whose keys are then the names of the members. None is not a
            member: the result is ``[]`` at once.
        concurrency: How many members run at once; None is all.
        enough: Once this many have succeeded, cancel the rest. Unless *tolerate* says otherwise, raises as soon as too
            many have failed for that.
        tolerate: Failures that do not matter, as a count, or as a float from 0 to 1, a share of the members. Once more
            have failed, cancel the rest, then raise.
        fail_fast: At the first failure cancel the rest, then raise.
        return_exceptions: Failures stand in the list instead of raising.
        at_least: As *enough*, but the list holds the results of those that succeeded.
        name: Of the group, as history shows it; it may be changed.

    Raises (when yielded or awaited):
        GroupFailedError: Of all failures, once every member has ended; an `ExceptionGroup` whose `settled` tells of
            every member, also of those that succeeded.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order() -> list[int]:
        ...     return await gather(price("tea"), price("salt"))
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        [3, 4]
    """
    found, keys = _given(members, "gather")
    options = PLAIN
    if (concurrency, enough, tolerate, at_least, keys) != (None, None, None, None, None):
        try:
            if at_least is not None:
                alone = not (fail_fast or return_exceptions or enough is not None or tolerate is not None)
                enough = _quorum(len(found), at_least, alone=alone)
            elif (enough is not None or tolerate is not None) and (fail_fast or return_exceptions):
                msg = "gather: enough and tolerate go with neither fail_fast (tolerate=0) nor return_exceptions"
                raise ValueError(msg)
            options = _group_options("gather", len(found), concurrency, enough, tolerate, _names_of(keys, "gather"))
        except (TypeError, ValueError):
            discard(*found)
            raise
    settles = at_least is None and options.end.given
    site, label = current_driver.call_site(), _label("gather", name, *found)
    op: GatherOp[Any] = GatherOp(found, fail_fast, return_exceptions, site, options, settles, keys, name=label)
    current_driver.created(op)
    return op


@overload
def as_completed(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int,
    tolerate: float | None = ...,
    name: str = ...,
) -> AsCompleted[tuple[K, Settled[T]]]: ...
@overload
def as_completed(  # type: ignore[overload-overlap]  # what is both a mapping and an iterable of members is no user's
    members: Mapping[K, Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int | None = ...,
    tolerate: float,
    name: str = ...,
) -> AsCompleted[tuple[K, Settled[T]]]: ...
@overload
def as_completed(
    members: Mapping[K, Member[T]], /, *, concurrency: int | None = ..., name: str = ...
) -> AsCompleted[tuple[K, T]]: ...
@overload
def as_completed(
    members: Iterable[Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int,
    tolerate: float | None = ...,
    name: str = ...,
) -> AsCompleted[Settled[T]]: ...
@overload
def as_completed(
    members: Iterable[Member[T]],
    /,
    *,
    concurrency: int | None = ...,
    enough: int | None = ...,
    tolerate: float,
    name: str = ...,
) -> AsCompleted[Settled[T]]: ...
@overload
def as_completed(
    members: Iterable[Member[T]], /, *, concurrency: int | None = ..., name: str = ...
) -> AsCompleted[T]: ...
@overload
def as_completed(
    m1: Member[T1], m2: Member[T2], /, *, concurrency: int | None = ..., name: str = ...
) -> AsCompleted[T1 | T2]: ...
@overload
def as_completed(
    m1: Member[T1], m2: Member[T2], m3: Member[T3], /, *, concurrency: int | None = ..., name: str = ...
) -> AsCompleted[T1 | T2 | T3]: ...
@overload
def as_completed(*members: Member[T], concurrency: int | None = ..., name: str = ...) -> AsCompleted[T]: ...
@overload
def as_completed(
    *members: Member[T], concurrency: int | None = ..., enough: int, tolerate: float | None = ..., name: str = ...
) -> AsCompleted[Settled[T]]: ...
@overload
def as_completed(
    *members: Member[T], concurrency: int | None = ..., enough: int | None = ..., tolerate: float, name: str = ...
) -> AsCompleted[Settled[T]]: ...
def as_completed(
    *members: Any,
    concurrency: int | None = None,
    enough: int | None = None,
    tolerate: float | None = None,
    name: str = "",
) -> AsCompleted[Any]:
    """
    What ``async for`` gives the results of members by, each once it has ended.

    In the order in which the ends were recorded, as on every replay. Members that were given as a mapping come as
    pairs, each with its key. All begin with the first pass of the loop. Code that leaves the loop leaves the others
    running, until the run ends; children beyond that.

    Args:
        members: As of `gather`.
        concurrency: How many members run at once; None is all.
        enough: As of `gather`. With it, or *tolerate*, what comes is how each member ended, as a `Settled`.
        tolerate: As of `gather`.
        name: As of `gather`.

    Raises (in the loop):
        Exception: What a member failed with, in its turn.
        GroupFailedError: Behind the last member that ended: more failed than *enough* and *tolerate* allow.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order() -> int:
        ...     total = 0
        ...     async for cents in as_completed([price("tea"), price("salt")]):
        ...         total += cents
        ...     return total
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        7
    """
    found, keys = _given(members, "as_completed")
    try:
        names = _names_of(keys, "as_completed")
        options = _group_options("as_completed", len(found), concurrency, enough, tolerate, names)
    except (TypeError, ValueError):
        discard(*found)
        raise
    options = PLAIN if options == PLAIN else options
    site, label = current_driver.call_site(), _label("as_completed", name, *found)
    op = CompletionsOp(found, site=site, options=options, settles=options.end.given, keys=keys, name=label)
    current_driver.created(op)
    return AsCompleted(op)


@overload
def wait_first(members: Mapping[Any, Member[T]], /, *, name: str = ...) -> WaitFirstOp[T]: ...
@overload
def wait_first(members: Mapping[Any, Member[Any]], /, *, name: str = ...) -> WaitFirstOp[Any]: ...
@overload
def wait_first(members: Iterable[Member[T]], /, *, name: str = ...) -> WaitFirstOp[T]: ...
@overload
def wait_first(m1: Member[T1], m2: Member[T2], /, *, name: str = ...) -> WaitFirstOp[T1 | T2]: ...
@overload
def wait_first(m1: Member[T1], m2: Member[T2], m3: Member[T3], /, *, name: str = ...) -> WaitFirstOp[T1 | T2 | T3]: ...
@overload
def wait_first(*members: Member[T], name: str = ...) -> WaitFirstOp[T]: ...
def wait_first(*members: Any, name: str = "") -> WaitFirstOp[Any]:
    """
    The first member to end, as a `Winner`; unlike in a `race`, the others continue.

    They do until the run ends; children beyond that. Of what becomes of them the code hears nothing: `as_completed`
    tells of all. A `sleep` or `wait_for` that is not the first is given up, so its signal is left to who asks next.

    Args:
        members: Ops or coroutines of helpers; or one iterable of them, or one mapping, by whose keys `Winner.key`
            tells which it was. A first one that failed raises its error.
        name: As of `gather`.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order() -> int:
        ...     first = await wait_first([price("tea"), sleep(60)])
        ...     return first.index
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        0
    """
    found, keys = _given(members, "wait_first")
    if not found:
        msg = "wait_first needs at least one member"
        raise ValueError(msg)
    try:
        names = _names_of(keys, "wait_first")
    except (TypeError, ValueError):
        discard(*found)
        raise
    options = PLAIN if names is None else GroupOptions(names=names)
    site, label = current_driver.call_site(), _label("wait_first", name, *found)
    op: WaitFirstOp[Any] = WaitFirstOp(found, site=site, options=options, keys=keys, name=label)
    current_driver.created(op)
    return op


def poll_until(
    step: StepOp[T] | TransactionOp[T] | RunOp[T] | Step[[], T] | TransactionStep[[], T] | Job[[], T],
    *,
    every: float | timedelta,
    timeout: float | timedelta | None = None,
    factor: float = 1.0,
    name: str = "",
) -> PollOp[T]:
    """
    Call a step until it returns something true: that value.

    Between the calls the run is freed, and the delay is a durable timer. Each call is recorded as any step is, so it
    may have a retry policy of its own; an error that it raises in the end is that of `poll_until`.

    Args:
        step: A call of a step, transaction or job; or one itself, which is called without arguments.
        every: Seconds (or a timedelta) from the end of a call to the next.
        timeout: Seconds (or a timedelta) from the beginning. When they are over, it is called once more if it is not
            running; what bounds a call itself is the timeout of the step.
        factor: What *every* is multiplied by after each delay.
        name: As of `gather`.

    Raises (when yielded or awaited):
        TimeoutError: It returned nothing true within *timeout*.

    Example:
        >>> @step
        ... async def tracking(number: int) -> str | None:
        ...     return f"parcel-{number}"
        >>> @workflow
        ... async def order(number: int) -> str | None:
        ...     return await poll_until(tracking(number), every=60, timeout=86_400)
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order(7))
        'parcel-7'
    """
    op: Any = step() if isinstance(step, Definition) else step
    if not isinstance(op, StepOp | TransactionOp | RunOp):
        msg = f"poll_until takes a call of a step, transaction or job, found {kind_of(op)}"
        raise TypeError(msg)
    delay = _seconds(every, "poll_until(every=)")
    if delay <= 0:
        msg = f"poll_until(every=) must be a positive number of seconds, found {every!r}"
        raise ValueError(msg)
    if not is_number(factor) or not 1 <= factor < float("inf"):
        msg = f"poll_until(factor=) must be a number of at least 1, found {factor!r}"
        raise ValueError(msg)
    limit = None if timeout is None else _seconds(timeout, "poll_until(timeout=)")
    current_driver.superseded(op)
    label = _label("poll_until", name)
    made: PollOp[T] = PollOp(op, delay, float(factor), limit, current_driver.call_site(), name=label)
    current_driver.created(made)
    return made


@overload
def race(members: Mapping[Any, Member[T]], /, *, name: str = ...) -> RaceOp[T]: ...
@overload
def race(members: Mapping[Any, Member[Any]], /, *, name: str = ...) -> RaceOp[Any]: ...
@overload
def race(m1: Member[T1], m2: Member[T2], /, *, name: str = ...) -> RaceOp[T1 | T2]: ...
@overload
def race(m1: Member[T1], m2: Member[T2], m3: Member[T3], /, *, name: str = ...) -> RaceOp[T1 | T2 | T3]: ...
@overload
def race(*members: Member[T], name: str = ...) -> RaceOp[T]: ...
def race(*members: Any, name: str = "") -> RaceOp[Any]:
    """
    The first member to end wins; the others are cancelled.

    Given a mapping, `Winner.key` tells which. A winner that failed raises its error. *name* as of `gather`.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order() -> str:
        ...     first = await race({"price": price("tea"), "late": sleep(60)})
        ...     return first.key
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        'price'
    """
    keys: tuple[Any, ...] | None = None
    if len(members) == 1 and isinstance(members[0], Mapping):
        keys = tuple(members[0])
        members = tuple(members[0].values())
    if not members:
        msg = "race needs at least one member"
        raise ValueError(msg)
    found = _members(members, "race")
    try:
        names = _names_of(keys, "race")
    except (TypeError, ValueError):
        discard(*found)
        raise
    op: RaceOp[Any] = RaceOp(found, keys, current_driver.call_site(), names, name=_label("race", name, *found))
    current_driver.created(op)
    return op


def timeout(member: Member[T], seconds: float | timedelta, *, name: str = "") -> TimeoutOp[T]:
    """
    The member's value, or `TimeoutError` (and the member cancelled) after *seconds*. *name* as of `gather`.

    Example:
        >>> @workflow
        ... async def order() -> str:
        ...     try:
        ...         return await timeout(wait_for("paid", str), 0)
        ...     except TimeoutError:
        ...         return "not paid"
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        'not paid'
    """
    (only,) = _members([member], "timeout")
    limit, label = _seconds(seconds, "timeout"), _label("timeout", name, only)
    op: TimeoutOp[T] = TimeoutOp(only, limit, current_driver.call_site(), name=label)
    current_driver.created(op)
    return op


def settle(member: Member[T], *, name: str = "") -> SettleOp[T]:
    """
    How the member ended, as a `Settled`: never raises its failure. *name* as of `gather`.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     raise ValueError(item)
        >>> @workflow
        ... async def order() -> str:
        ...     found = await settle(price("tea"))
        ...     return f"none: {found.error!r}" if found.error else "found"
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        "none: ValueError('tea')"
    """
    (only,) = _members([member], "settle")
    op: SettleOp[T] = SettleOp(only, current_driver.call_site(), name=_label("settle", name, only))
    current_driver.created(op)
    return op


@overload
def for_each(
    fn: Step[..., T] | TransactionStep[..., T] | Job[..., T] | Workflow[..., T] | Callable[..., Coroutine[Any, Any, T]],
    items: Iterable[Item],
    *,
    concurrency: int | None = ...,
    enough: int,
    tolerate: float | None = ...,
    names: Callable[[Item], str] | Iterable[str] | None = ...,
    index: bool = ...,
    name: str = ...,
) -> ForEachOp[Outcomes[T]]: ...
@overload
def for_each(
    fn: Step[..., T] | TransactionStep[..., T] | Job[..., T] | Workflow[..., T] | Callable[..., Coroutine[Any, Any, T]],
    items: Iterable[Item],
    *,
    concurrency: int | None = ...,
    enough: int | None = ...,
    tolerate: float,
    names: Callable[[Item], str] | Iterable[str] | None = ...,
    index: bool = ...,
    name: str = ...,
) -> ForEachOp[Outcomes[T]]: ...
@overload
def for_each(
    fn: Step[..., T] | TransactionStep[..., T] | Job[..., T] | Workflow[..., T] | Callable[..., Coroutine[Any, Any, T]],
    items: Iterable[Item],
    *,
    concurrency: int | None = ...,
    names: Callable[[Item], str] | Iterable[str] | None = ...,
    index: bool = ...,
    name: str = ...,
) -> ForEachOp[list[T]]: ...
def for_each(
    fn: Any,
    items: Iterable[Any],
    *,
    concurrency: int | None = 1,
    enough: int | None = None,
    tolerate: float | None = None,
    names: Callable[[Any], str] | Iterable[str] | None = None,
    index: bool = False,
    name: str = "",
) -> ForEachOp[Any]:
    """
    Apply a step, transaction, job, workflow or helper to each item; results in the items' order.

    The items are recorded once and never evaluated again: duplicates, None and falsy items
    are items. The first failure starts no more items; it raises once the running ones have ended (the error
    itself where *concurrency* is 1, else a `GroupFailedError`; its `settled` tells of all items). With *enough* or
    *tolerate* the result is an `Outcomes`: a list that tells of each item how it ended, as a `Settled`, with the
    reason why the group did.

    Args:
        fn: Of a helper (an async function that awaits ops) each call is a strand of its own.
        items: What to apply it to.
        concurrency: How many run at once; None is all.
        enough: Once this many have succeeded, cancel the rest. Unless *tolerate* says otherwise, raises as soon as too
            many have failed for that.
        tolerate: Failures that do not matter, as a count, or as a float from 0 to 1, a share of the items. Once more
            have failed, cancel the rest, then raise.
        names: Of the items, as history shows them; or a function that names an item.
        index: Whether *fn* is called with the item and its index, counted from 0.
        name: As of `gather`.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(items: list[str]) -> list[int]:
        ...     return await for_each(price, items, concurrency=2)
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order(["tea", "salt", "oil"]))
        [3, 4, 3]
    """
    if not hasattr(fn, "kind"):
        if not inspect.iscoroutinefunction(fn):
            found = kind_of(fn) if isinstance(fn, Op) else f"{type(fn).__name__} {fn!r:.60}"
            msg = (
                "for_each takes a decorated step, transaction, job or workflow, or an async function that awaits ops: "
                f"itself, not a call of it; found {found}"
            )
            raise TypeError(msg)
        fn = Helper(fn)
    fn.arguments.bind((None, 0) if index else (None,), {})  # refused here rather than at each item
    listed = tuple(items)
    if names is not None:
        given = [names(item) for item in listed] if callable(names) else [*names]
        if len(given) != len(listed):
            msg = f"for_each over {len(listed)}: names must be as many, found {len(given)}"
            raise ValueError(msg)
        names = tuple(check_name("the name of an item of for_each", each) for each in given)
    options = _group_options("for_each", len(listed), concurrency, enough, tolerate, names)
    label = _label("for_each", name)
    op: ForEachOp[Any] = ForEachOp(fn, listed, options, index, current_driver.call_site(), name=label)
    current_driver.created(op)
    return op


def _quorum(size: int, at_least: int, *, alone: bool) -> int:
    if not alone or not _is_count(at_least, size):
        msg = f"gather of {size}: at_least must be 1 to {size}, and alone, found {at_least!r}"
        msg += "" if alone else " with another option"
        raise ValueError(msg)
    return at_least


def _group_options(
    what: str,
    size: int,
    concurrency: int | None,
    enough: int | None,
    tolerate: float | None,
    names: tuple[str, ...] | None,
) -> GroupOptions:
    if concurrency is not None and not _is_count(concurrency):
        msg = f"{what}: concurrency must be a whole number of at least 1, or None, found {concurrency!r}"
        raise ValueError(msg)
    if enough is not None and not _is_count(enough, size):
        msg = f"{what} of {size}: enough must be 1 to {size}, found {enough!r}"
        raise ValueError(msg)
    if tolerate is not None:
        share = isinstance(tolerate, float)
        if not is_number(tolerate) or not 0 <= tolerate <= (1 if share else float("inf")):
            msg = f"{what}: tolerate must be a count of failures, or a share as a float from 0 to 1, found {tolerate!r}"
            raise ValueError(msg)
    return GroupOptions(concurrency, EndRule(enough, tolerate), names)


def _label(what: str, name: str, *members: Any) -> str:
    """What the code calls a group, checked; its *members* will not run if that is no name."""
    try:
        return check_name(f"the name of a {what}", name) if name else ""
    except (DefinitionError, CapExceededError):
        discard(*members)
        raise


def _names_of(keys: Sequence[Any] | None, what: str) -> tuple[str, ...] | None:
    """Keys of members as history shows them: text that is the same in every process."""
    if keys is None:
        return None
    names: dict[str, Any] = {}
    for key in keys:
        cls, plain = type(key), vars(object)
        if cls.__str__ is plain["__str__"] and cls.__repr__ is plain["__repr__"]:
            msg = f"{what}: the keys of members name them, found a {cls.__name__} that has no text of its own"
            raise TypeError(msg)
        name = str(key)
        name = name if name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH else repr(key)[:MAX_NAME_LENGTH]
        if name in names:
            msg = f"{what}: two members are named {name!r}, by {names[name]!r} and {key!r}"
            raise ValueError(msg)
        names[name] = key
    return tuple(names)


def sleep(seconds: float | timedelta, *, name: str = "") -> SleepOp:
    """
    A durable timer; zero or less fires at once. *name* says in the history what it is for, and may be changed.

    Example:
        >>> @workflow
        ... async def remind() -> str:
        ...     await sleep(30 * 86_400, name="a month")
        ...     return "it is time"
        >>> (await Engine("reminders.db", [remind]).dry_run(remind())).value  # in a rehearsal time jumps
        'it is time'
    """
    label = name and check_name("the name of a sleep", name)
    op = SleepOp(_seconds(seconds, "sleep"), None, current_driver.call_site(), label)
    current_driver.created(op)
    return op


def sleep_until(when: datetime, *, name: str = "") -> SleepOp:
    """
    A durable timer for an aware datetime; one already past fires at once. *name* as of `sleep`.

    Example:
        >>> @workflow
        ... async def remind() -> str:
        ...     await sleep_until(now() + timedelta(days=30))
        ...     return "it is time"
        >>> (await Engine("reminders.db", [remind]).dry_run(remind())).value  # in a rehearsal time jumps
        'it is time'
    """
    label = name and check_name("the name of a sleep", name)
    given: Any = when
    if not isinstance(given, datetime):
        msg = f"sleep_until needs an aware datetime, found {given!r:.60} (for a number of seconds use sleep)"
        raise TypeError(msg)
    if when.tzinfo is None:
        msg = f"sleep_until needs an aware datetime, found the naive {when!r} (add tzinfo=datetime.UTC)"
        raise ValueError(msg)
    op = SleepOp(None, when.timestamp(), current_driver.call_site(), label)
    current_driver.created(op)
    return op


@overload
def wait_for(name: Request[Q, A], *, timeout: float | timedelta | None = ...) -> WaitForOp[Asked[Q, A]]: ...
@overload
def wait_for(name: Signal[T], *, timeout: float | timedelta | None = ...) -> WaitForOp[T]: ...
@overload
def wait_for(name: str, type: type[T], timeout: float | timedelta | None = ...) -> WaitForOp[T]: ...
@overload
def wait_for(name: str, type: Any = ..., timeout: float | timedelta | None = ...) -> WaitForOp[Any]: ...
def wait_for(
    name: str | Signal[Any] | Request[Any, Any], type: Any = Any, timeout: float | timedelta | None = None
) -> WaitForOp[Any]:
    """
    The payload of the next signal called *name*, decoded as *type*; of the next *name*, if that is a `Signal`.

    Of a `Request`, the next one as an `Asked`: its `value` is the question, its `reply` or `refuse` the answer. One
    whose question does not fit is refused without the workflow.

    What is sent early is kept, first in first out, and consumed once. What a `wait_for` consumed which then loses its
    race, or its time, goes back to the front of the queue.

    Raises (when yielded or awaited):
        TimeoutError: If none came within *timeout* seconds.
        SignalPayloadError: The payload does not fit *type*. It is consumed, and stays in `run.history()`.

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
    limit = None if timeout is None else _seconds(timeout, "wait_for(timeout=)")
    op: WaitForOp[Any]
    if isinstance(name, Request):
        op = WaitForRequestOp(name.name, name.question, limit, current_driver.call_site(), request=name)
        current_driver.created(op)
        return op
    if isinstance(name, Signal):
        type = name.type  # noqa: A001 - as the parameter
        name = name.name
    given: Any = name
    if not isinstance(given, str) or not given:
        msg = f"wait_for takes the name of a signal, found {kind_of(given)}"
        raise TypeError(msg)
    op = WaitForOp(name, type, limit, current_driver.call_site())
    current_driver.created(op)
    return op


def start(op: RunOp[T], *, on_parent_end: OnParentEnd = "abandon", **options: Unpack[StartOptions]) -> StartOp[T]:
    """
    Start a child without awaiting it: a `Child` with its id.

    Options as of `Engine.start`. The child is left alone
    when this run ends, in whatever way; with ``on_parent_end="cancel"`` it is cancelled then.

    Example:
        >>> @job
        ... async def bill(item: str) -> str:
        ...     return f"bill for {item}"
        >>> @workflow
        ... async def order(item: str) -> str:
        ...     child = await start(bill(item))  # nobody waits for it yet
        ...     return await child.result()
        >>> async with Engine(":memory:", [order, bill]) as engine:
        ...     await engine.run(order("tea"))
        'bill for tea'
    """
    if on_parent_end not in ("abandon", "cancel"):
        msg = f"start(on_parent_end=) must be abandon or cancel, found {on_parent_end!r:.60}"
        raise ValueError(msg)
    current_driver.superseded(op)
    made: StartOp[T] = StartOp(with_options(op, **options), current_driver.call_site(), on_parent_end)
    current_driver.created(made)
    return made


@overload
def signal_run(run_id: str, signal: Signal[T], payload: T) -> SignalRunOp: ...
@overload
def signal_run(run_id: str, signal: str, payload: Any = ...) -> SignalRunOp: ...
def signal_run(run_id: str, signal: str | Signal[Any], payload: Any = None) -> SignalRunOp:
    """
    Send a signal to another run, exactly once; *signal* and *payload* as `Run.signal`.

    It is sent in the transaction that records the command. Who stops waiting for that does not take it back.

    Raises (when yielded or awaited):
        RunNotFoundError, RunStateError: There is no such run, or it has ended.
        EncodeError: The payload cannot be recorded, or is not of the type of the `Signal`. Nothing was sent.

    Example:
        >>> @workflow
        ... async def waiting() -> str:
        ...     return await wait_for("word", str)
        >>> @workflow
        ... async def telling(run_id: str) -> None:
        ...     await signal_run(run_id, "word", "hello")
        >>> async with Engine(":memory:", [waiting, telling]) as engine:
        ...     run = await engine.start(waiting())
        ...     await engine.run(telling(run.id))
        ...     await run.result()
        'hello'
    """
    given: Any = signal
    if not isinstance(given, str | Signal) or not given:
        msg = f"signal_run takes the name of a signal, found {kind_of(given)}"
        raise TypeError(msg)
    op = SignalRunOp(_run_id(run_id, "signal_run"), signal, payload, current_driver.call_site())
    current_driver.created(op)
    return op


def cancel_run(run_id: str, reason: str = "") -> CancelRunOp:
    """
    Ask another run to end, as `Run.cancel`: whether it has not ended already. It ends once its clean-up is done.

    It is asked in the transaction that records the command. Who stops waiting for that does not take it back.

    Raises (when yielded or awaited):
        RunNotFoundError: There is no such run.

    Example:
        >>> @workflow
        ... async def waiting() -> None:
        ...     await wait_for("word")
        >>> @workflow
        ... async def ending(run_id: str) -> bool:
        ...     return await cancel_run(run_id, "not wanted")
        >>> async with Engine(":memory:", [waiting, ending]) as engine:
        ...     run = await engine.start(waiting())
        ...     await engine.run(ending(run.id))
        True
    """
    given: Any = reason
    if not isinstance(given, str):
        msg = f"cancel_run(reason=) takes a string, found {kind_of(given)}"
        raise TypeError(msg)
    op = CancelRunOp(_run_id(run_id, "cancel_run"), reason, current_driver.call_site())
    current_driver.created(op)
    return op


def _run_id(given: Any, what: str) -> str:
    if not isinstance(given, str) or not given:
        msg = f"{what} takes the id of a run (of a child that was started: child.run_id), found {kind_of(given)}"
        raise TypeError(msg)
    return given


def with_options(op: RunOp[T], **options: Any) -> RunOp[T]:
    """*op* with the keyword arguments of `start` applied; refuses what is unknown."""
    found: Any = op
    if not isinstance(found, RunOp):
        hint = " (a step is not a run of its own: decorate it with @job, or call it in a workflow)"
        msg = f"expected a call of a @workflow or @job, found {kind_of(found)}"
        msg += hint if isinstance(found, StepOp) else ""
        raise TypeError(msg)
    given = {name: value for name, value in options.items() if value is not None}
    known = {
        "id",
        "key",
        "key_ttl",
        "on_conflict",
        "queue",
        "delay",
        "at",
        "expires",
        "priority",
        "labels",
        "timeout",
        "retry",
        "signals",
    }
    if unknown := set(given) - known:
        raise UnknownOptionError(sorted(unknown), sorted(known))
    if "expires" in given:
        given |= as_expiry(given["expires"])
    given |= {name: in_seconds(given[name]) for name in ("delay", "timeout", "key_ttl") if name in given}
    if (at := given.get("at")) is not None:
        if not isinstance(at, datetime) or at.tzinfo is None:
            msg = f"start(at=) needs an aware datetime, found {at!r:.60}"
            raise ValueError(msg)
        given["at"] = at.timestamp()
    if "retry" in given:
        given["retry"] = as_run_retry(given["retry"])
    if "on_conflict" in given:
        checked_conflict(given["on_conflict"])
    return evolve(op, given=evolve(op.given, **given)) if given else op


def continue_as(op: RunOp[Any]) -> ContinueAs:
    """
    End this run and continue as a fresh run of *op* under the same chain of ids.

    For endless loops: history starts anew, and those who await the run await its successor.

    Example:
        >>> @workflow
        ... async def countdown(n: int) -> str:
        ...     if n:
        ...         await continue_as(countdown(n - 1))  # a fresh run, without this one's history
        ...     return "lift-off"
        >>> async with Engine(":memory:", [countdown]) as engine:
        ...     await engine.run(countdown(3))
        'lift-off'
    """
    current_driver.superseded(op)
    made = ContinueAs(with_options(op), current_driver.call_site())
    current_driver.created(made)
    return made


def _seconds(value: float | timedelta, what: str) -> float:
    seconds: Any = in_seconds(value)
    if not is_number(seconds) or seconds != seconds or seconds in (float("inf"), float("-inf")):  # noqa: PLR0124 - the NaN test
        msg = f"{what} takes a finite number of seconds, found {value!r}"
        raise ValueError(msg)
    return float(seconds)


def _is_count(value: Any, most: float = float("inf")) -> bool:
    return isinstance(value, int) and 1 <= value <= most


def _given(members: tuple[Any, ...], what: str) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """Members that were given one by one, or as one iterable or mapping; with the keys of that."""
    keys: tuple[Any, ...] | None = None
    if len(members) == 1 and isinstance(members[0], Mapping):
        keys, members = tuple(members[0]), tuple(members[0].values())
    elif len(members) == 1 and not isinstance(members[0], Op):
        if members[0] is None:
            members = ()
        elif isinstance(members[0], Iterable):
            members = tuple(members[0])
    return _members(members, what), keys


def _members(members: Iterable[Any], what: str) -> tuple[Any, ...]:
    found = tuple(members)
    for index, member in enumerate(found):
        if isinstance(member, Op):
            current_driver.superseded(member)
        elif not inspect.iscoroutine(member):
            msg = f"member {index} of {what} must be an op or a coroutine of a helper, found {kind_of(member)}"
            raise TypeError(msg)
    return found
