"""
The decorators: `@workflow`, `@job`, `@step` and `@transaction`, with or without options; and `call`.

Each checks its options and makes a definition. Most of this module is what type checkers read.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

from durable._core.codec.codec import ValueCodec
from durable._core.policies.limits import Limit
from durable._core.policies.retry import Retry, as_retry, is_number
from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.definition import Definition, OnConflict, OnCrash, OnPoison, RunOptions, StepOptions
from durable._core.program.functions import Job, Step, TransactionStep, Workflow
from durable._core.program.ops import Return, StepOp, in_seconds
from durable.errors import DefinitionError

if TYPE_CHECKING:
    from durable._core.program.transactions import AsyncTransaction, Transaction

P = ParamSpec("P")
R = TypeVar("R")

_CALL_OPTIONS = StepOptions()


class StepDecorator(Protocol):
    """What `@step(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[R]], /) -> Step[P, list[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class StreamDecorator(Protocol):
    """What `@step(stream=True)` returns."""

    def __call__(self, fn: Callable[P, AsyncIterator[R]], /) -> Step[P, R | None]: ...


class JobStreamDecorator(Protocol):
    """What `@job(stream=True)` returns."""

    def __call__(self, fn: Callable[P, AsyncIterator[R]], /) -> Job[P, R | None]: ...


class TransactionDecorator(Protocol):
    """What `@transaction(...)` with options returns."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[AsyncTransaction, P], Coroutine[Any, Any, R]], /
    ) -> TransactionStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Transaction, P], R], /) -> TransactionStep[P, R]: ...


class JobDecorator(Protocol):
    """What `@job(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[R]], /) -> Job[P, list[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Job[P, R]: ...


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, AsyncGenerator[Command | Return[R], Any]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, AsyncIterator[R]], /) -> Step[P, list[R]]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: float | timedelta | None = ...,
    on_crash: OnCrash = ...,
    on_poison: OnPoison = ...,
    thread: bool = ...,
    process: bool = ...,
    limit: Limit | str | None = ...,
    limit_key: Callable[..., str] | None = ...,
    aliases: Iterable[str] = ...,
    codec: ValueCodec | None = ...,
    keep_memos: bool = ...,
    stream: Literal[False] = ...,
) -> StepDecorator: ...
@overload
def step(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: float | timedelta | None = ...,
    on_crash: OnCrash = ...,
    on_poison: OnPoison = ...,
    thread: bool = ...,
    process: bool = ...,
    limit: Limit | str | None = ...,
    limit_key: Callable[..., str] | None = ...,
    aliases: Iterable[str] = ...,
    codec: ValueCodec | None = ...,
    keep_memos: bool = ...,
    stream: Literal[True],
) -> StreamDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: float | timedelta | None = None,
    on_crash: OnCrash = "rerun",
    on_poison: OnPoison = "fail",
    thread: bool = True,
    process: bool = False,
    limit: Limit | str | None = None,
    limit_key: Callable[..., str] | None = None,
    aliases: Iterable[str] = (),
    codec: ValueCodec | None = None,
    stream: bool = False,
    keep_memos: bool = True,
) -> Any:
    """
    Make a function a step: effectful work inside a run, run at least once.

    Args:
        fn: A sync or async function. Sync ones run in a worker thread. An async generator is a stream of the run,
            called as the step: it emits what it yields, waiting for room, and returns the list of it.
        name: Its name in the journal; by default the function's.
        retry: Attempts in all, or a policy. By default it is tried once.
        timeout: Seconds allowed for each attempt.
        on_crash: What to do about an attempt that was cut off, so that nobody knows whether it had its effect:
            by the death of the process, or by a closing engine whose grace was over. ``rerun`` it (the default);
            ``raise`` `StepInterruptedError`, which *retry* may take for a failed attempt; or ``block`` the run until
            a person resumes it, or says how the step ended (`Run.resolve`).
        on_poison: What to do about a step that kills the process, found by ``Engine(crash_limit=)`` deaths: it
            fails with `PoisonError` (the default), or ``block`` the run until a person decides.
        thread: False runs a sync function on the event loop.
        process: True runs a sync function in a process pool (for CPU-bound work).
        limit: A named limit (or the name of one in ``Engine(limits=)``) of which each attempt
            holds a slot. While it waits for one, nothing of the run is in memory.
        limit_key: A function of the arguments: each key is counted separately.
        aliases: Names that it had in older code: what was recorded under them is its own.
        codec: Hooks on the bytes of what it returns, in place of the engine's: encryption for a card number,
            compression for a page. Also of its cursor and memos; its errors are recorded as all others are, and so
            is what it emits.
        stream: True has an async generator return the last item alone (None if there was none), so that a long
            stream is neither held in memory nor recorded twice.
        keep_memos: False drops what it has recorded by `memo` once it has succeeded, instead of keeping it for
            `Run.steps` as long as the run is kept.

    Example:
        >>> @step(retry=Retry(attempts=3, on=ConnectionError), timeout=10)
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> await price("salt")  # outside of a workflow it is the function
        4
        >>> @workflow
        ... async def order(item: str) -> int:
        ...     return await price(item)
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order("tea"))
        3
    """
    options = StepOptions(
        retry=as_retry(retry),
        timeout=_check_seconds("@step", "timeout", timeout),
        on_crash=_one_of("on_crash", on_crash, ("rerun", "raise", "block")),
        on_poison=_one_of("on_poison", on_poison, ("fail", "block")),
        thread=thread,
        process=process,
        limit=limit,
        limit_key=limit_key,
        aliases=_listed(aliases),
        codec=check_hooks("@step", codec),
        stream=stream,
        keep_memos=keep_memos,
    )

    def decorate(fn: Callable[..., Any]) -> Step[..., Any]:
        return Step(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def transaction(fn: Callable[Concatenate[AsyncTransaction, P], Coroutine[Any, Any, R]], /) -> TransactionStep[P, R]: ...
@overload
def transaction(fn: Callable[Concatenate[Transaction, P], R], /) -> TransactionStep[P, R]: ...
@overload
def transaction(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    on_poison: OnPoison = ...,
    aliases: Iterable[str] = ...,
    codec: ValueCodec | None = ...,
) -> TransactionDecorator: ...
def transaction(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    on_poison: OnPoison = "fail",
    aliases: Iterable[str] = (),
    codec: ValueCodec | None = None,
) -> Any:
    """
    Make a function a transaction: its SQL and its journal entry commit together, exactly once.

    Its first parameter is the `Transaction`. A plain ``def`` runs on the writer thread inside
    the commit group, so it must be short; an ``async def`` gets the writer to itself. Options as for `step`.

    Example:
        >>> @transaction
        ... def note(tx: Transaction, item: str) -> int:
        ...     tx.execute("INSERT INTO items VALUES (?)", (item,))
        ...     return tx.execute("SELECT count(*) FROM items").fetchone()[0]
        >>> async with Engine(":memory:", [], schema="CREATE TABLE items (name TEXT)") as engine:
        ...     await engine.transact(note("tea"))
        1
    """
    options = StepOptions(
        retry=as_retry(retry),
        on_poison=_one_of("on_poison", on_poison, ("fail", "block")),
        aliases=_listed(aliases),
        codec=check_hooks("@transaction", codec),
    )

    def decorate(fn: Callable[..., Any]) -> TransactionStep[..., Any]:
        return TransactionStep(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def job(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, R]: ...
@overload
def job(fn: Callable[P, AsyncIterator[R]], /) -> Job[P, list[R]]: ...
@overload
def job(fn: Callable[P, R], /) -> Job[P, R]: ...
@overload
def job(
    *,
    name: str | None = ...,
    version: int = ...,
    queue: str = ...,
    timeout: float | timedelta | None = ...,
    key: Callable[..., str] | Any = ...,
    key_ttl: float | timedelta | None = ...,
    on_conflict: OnConflict = ...,
    retry: Retry | int | None = ...,
    priority: int = ...,
    labels: Mapping[str, str] | None = ...,
    thread: bool = ...,
    process: bool = ...,
    on_crash: OnCrash = ...,
    on_poison: OnPoison = ...,
    limit: Limit | str | None = ...,
    limit_key: Callable[..., str] | None = ...,
    aliases: Iterable[str] = ...,
    keep_memos: bool = ...,
    stream: Literal[False] = ...,
) -> JobDecorator: ...
@overload
def job(
    *,
    name: str | None = ...,
    version: int = ...,
    queue: str = ...,
    timeout: float | timedelta | None = ...,
    key: Callable[..., str] | Any = ...,
    key_ttl: float | timedelta | None = ...,
    on_conflict: OnConflict = ...,
    retry: Retry | int | None = ...,
    priority: int = ...,
    labels: Mapping[str, str] | None = ...,
    thread: bool = ...,
    process: bool = ...,
    on_crash: OnCrash = ...,
    on_poison: OnPoison = ...,
    limit: Limit | str | None = ...,
    limit_key: Callable[..., str] | None = ...,
    aliases: Iterable[str] = ...,
    keep_memos: bool = ...,
    stream: Literal[True],
) -> JobStreamDecorator: ...
def job(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str = "default",
    timeout: float | timedelta | None = None,
    key: Callable[..., str] | Any = None,
    key_ttl: float | timedelta | None = None,
    on_conflict: OnConflict = "join",
    retry: Retry | int | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    thread: bool = True,
    process: bool = False,
    on_crash: OnCrash = "rerun",
    on_poison: OnPoison = "fail",
    limit: Limit | str | None = None,
    limit_key: Callable[..., str] | None = None,
    aliases: Iterable[str] = (),
    stream: bool = False,
    keep_memos: bool = True,
) -> Any:
    """
    Make a function a job: one step with a run of its own, on a queue.

    Options as for `workflow`; `thread`, `process`, `on_crash`, `on_poison`, `stream` and `keep_memos` as for `step`.
    Its limit, too, is that of its attempts, unless its `on_conflict` rejects or replaces whole runs.

    Example:
        >>> @job(queue="mail", retry=3)
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome]) as engine:
        ...     await engine.run(welcome("ada"), key="welcome-ada")
        'welcome, ada'
    """
    options = RunOptions(
        version=version,
        queue=queue,
        timeout=_check_seconds("@job", "timeout", timeout),
        key=key,
        key_ttl=_check_seconds("@job", "key_ttl", key_ttl),
        on_conflict=_one_of("on_conflict", on_conflict, get_args(OnConflict)),
        retry=as_retry(retry),
        priority=priority,
        labels=dict(labels or {}),
        thread=thread,
        process=process,
        on_crash=_one_of("on_crash", on_crash, ("rerun", "raise", "block")),
        on_poison=_one_of("on_poison", on_poison, ("fail", "block")),
        limit=limit,
        limit_key=limit_key,
        aliases=_listed(aliases),
        stream=stream,
        keep_memos=keep_memos,
    )

    def decorate(fn: Callable[..., Any]) -> Job[..., Any]:
        return Job(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def workflow(fn: Callable[P, AsyncGenerator[Command | Return[R], Any]], /) -> Workflow[P, R]: ...
@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = ...,
    version: int = ...,
    queue: str = ...,
    timeout: float | timedelta | None = ...,
    key: Callable[..., str] | Any = ...,
    key_ttl: float | timedelta | None = ...,
    on_conflict: OnConflict = ...,
    retry: Retry | int | None = ...,
    priority: int = ...,
    labels: Mapping[str, str] | None = ...,
    on_poison: OnPoison = ...,
    limit: Limit | str | None = ...,
    limit_key: Callable[..., str] | None = ...,
    aliases: Iterable[str] = ...,
) -> WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str = "default",
    timeout: float | timedelta | None = None,
    key: Callable[..., str] | Any = None,
    key_ttl: float | timedelta | None = None,
    on_conflict: OnConflict = "join",
    retry: Retry | int | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    on_poison: OnPoison = "fail",
    limit: Limit | str | None = None,
    limit_key: Callable[..., str] | None = None,
    aliases: Iterable[str] = (),
) -> Any:
    """
    Make an ``async def`` a workflow: durable, replayed after a crash, freed while it waits.

    Args:
        fn: An async generator that yields ops, or a coroutine function that awaits them.
        name: Its name in the journal; by default the function's.
        version: Recorded with each run. Another function of the same name with an older version may be kept
            beside it: runs that were started with that one end with it.
        queue: The queue its runs wait on for a slot.
        timeout: Seconds allowed for the whole run from when it first begins, waiting included.
        key: A function of the arguments, or `by_arguments`: one run per key.
        key_ttl: Seconds for which a run holds its key, from when it begins; then another may take it.
        on_conflict: What a start does that finds the key taken, unless it says so itself: see `Engine.start`.
        retry: Attempts of the whole run, or a policy: each begins with an empty history.
        priority: Higher goes first within its queue.
        labels: Short strings to filter runs by.
        on_poison: What to do about a run whose own code kills the process (that of the workflow, between its steps),
            found by ``Engine(crash_limit=)`` deaths: it fails with `PoisonError` (the default), or ``block`` it until
            a person resumes it.
        limit: A named limit (or the name of one in ``Engine(limits=)``) of which each run holds a
            slot from before its first turn to its end.
        limit_key: A function of the arguments: each key is counted separately.
        aliases: Names that it had in older code: runs recorded under them are its own.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(item: str) -> str:
        ...     return f"{item} costs {await price(item)}"
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order("tea"))
        'tea costs 3'
    """
    options = RunOptions(
        version=version,
        queue=queue,
        timeout=_check_seconds("@workflow", "timeout", timeout),
        key=key,
        key_ttl=_check_seconds("@workflow", "key_ttl", key_ttl),
        on_conflict=_one_of("on_conflict", on_conflict, get_args(OnConflict)),
        retry=as_retry(retry),
        priority=priority,
        labels=dict(labels or {}),
        on_poison=_one_of("on_poison", on_poison, ("fail", "block")),
        limit=limit,
        limit_key=limit_key,
        aliases=_listed(aliases),
    )

    def decorate(fn: Callable[..., Any]) -> Workflow[..., Any]:
        return Workflow(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


def _listed(aliases: Iterable[str]) -> Any:
    """*aliases* as a tuple; a mistaken string stays one, and is refused where it can be named."""
    return aliases if isinstance(aliases, str) else tuple(aliases)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        msg = f"{what} must be one of {', '.join(map(repr, allowed))}, found {value!r}"
        raise DefinitionError(msg)
    return value


@overload
def call(fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]: ...
@overload
def call(fn: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs) -> StepOp[list[R]]: ...
@overload
def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]: ...
def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> StepOp[Any]:
    """
    A step of an undecorated function, named by its qualified name.

    Example:
        >>> @workflow
        ... async def order(item: str) -> str:
        ...     return await call(str.upper, item)
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order("tea"))
        'TEA'
    """
    found: Any = fn
    if isinstance(found, Definition):
        msg = f"call() is for undecorated functions; {found!r} is one already: yield {found.name}(...)"
        raise TypeError(msg)
    plain = fn if hasattr(fn, "__code__") or not callable(fn) else _plain(fn)
    definition: Step[..., Any] = Step(plain, name=getattr(plain, "__qualname__", None), options=_CALL_OPTIONS)
    op: StepOp[Any] = StepOp(definition, args, dict(kwargs), site=current_driver.call_site())
    current_driver.created(op)
    return op


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls *fn*, which is none: a builtin, a class, a partial, an object with ``__call__``."""
    named = fn if hasattr(fn, "__qualname__") else getattr(fn, "func", type(fn))
    name: str = getattr(named, "__qualname__", type(fn).__qualname__)

    def call_it(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    async def await_it(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    plain = await_it if is_async else call_it
    plain.__qualname__ = name
    return plain


def _check_seconds(what: str, option: str, seconds: float | timedelta | None) -> float | None:
    found = in_seconds(seconds)
    if found is None:
        return None
    if not is_number(found) or not found > 0:
        msg = f"{what}: {option} must be a positive number of seconds, found {seconds!r}"
        raise DefinitionError(msg)
    return float(found)


def check_hooks(where: str, codec: Any) -> ValueCodec | None:
    """
    *codec*, if it has the two functions of a `ValueCodec`.

    Raises:
        DefinitionError: It has not.
    """
    if codec is not None and not (
        callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))
    ):
        msg = f"{where}: codec= needs an object with encode(bytes) and decode(bytes), found {codec!r:.80}"
        raise DefinitionError(msg)
    found: ValueCodec | None = codec
    return found
