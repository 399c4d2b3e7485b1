"""
Definitions: what `@workflow`, `@job`, `@step` and `@transaction` make of a function.

A definition holds the function, its name, its options and the types of its arguments and
result. Calling it checks the arguments and returns an op. The plain function stays `.fn`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Union, overload

from attrs import frozen

from durable._core import charge
from durable._core.codec import ArgumentTypes, argument_types, result_type
from durable._core.ops import (
    Command,
    OnCrash,
    Return,
    RunOp,
    StepOp,
    TransactionOp,
    by_arguments,
)
from durable._core.retry import NEVER, Retry, as_retry
from durable._core.scopes import refuse_scopes
from durable.errors import CapExceededError, DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta

    from durable._core.ports import AsyncTransaction, Transaction

P = ParamSpec("P")
R = TypeVar("R")

#: Longest name of a definition, queue, signal, key or label. Names are typed by people and
#: repeated in every event: Temporal allows 1,000 characters, SQS 80 for a queue.
MAX_NAME_LENGTH = 200
#: Longest id and key: these may be made of other systems' ids.
MAX_KEY_LENGTH = 500


def check_name(what: str, value: object, limit: int = MAX_NAME_LENGTH) -> str:
    """*value*, if it is a usable name; who uses it reads it in shells, logs and file listings."""
    if not isinstance(value, str) or not value:
        msg = f"{what} must be a non-empty string, found {value!r}"
        raise DefinitionError(msg)
    if len(value) > limit:
        raise CapExceededError(f"{what} {value[:40]!r}...", "length", len(value), limit)
    if not value.isprintable():
        msg = f"{what} must be printable, found {value!r}"
        raise DefinitionError(msg)
    return value


# --- options ---------------------------------------------------------------------------------


@frozen
class StepOptions:
    """Options of `@step` and `@transaction`."""

    retry: Retry = NEVER
    timeout: float | None = None
    on_crash: OnCrash = "rerun"
    thread: bool = True
    process: bool = False


@frozen
class RunOptions:
    """Options of `@workflow` and `@job`."""

    version: int = 1
    queue: str = "default"
    timeout: float | None = None
    key: Callable[..., str] | Any = None
    retry: Retry = NEVER
    priority: int = 0
    labels: Mapping[str, str] = types.MappingProxyType({})
    thread: bool = True
    process: bool = False
    on_crash: OnCrash = "rerun"


class _Definition(Generic[P, R]):
    """What all definitions share: a function, its name, and the types of its arguments."""

    sort: str = "definition"
    _skipped_parameters = 0

    def __init__(self, fn: Callable[..., Any], name: str | None) -> None:
        if not callable(fn) or not hasattr(fn, "__code__"):
            msg = f"@{self.sort} decorates a function, found {type(fn).__name__} {fn!r:.80}"
            raise DefinitionError(msg)
        #: The plain function.
        self.fn = fn
        #: Its name in the journal: `name=` if given, else the function's own.
        self.name = check_name(f"the name of a {self.sort}", name or fn.__name__)
        self.is_async = inspect.iscoroutinefunction(fn)
        update_wrapper(self, fn)

    @cached_property
    def arguments(self) -> ArgumentTypes:
        """The types of its parameters (made late: annotations may name things defined below)."""
        return argument_types(self.fn, skip=self._skipped_parameters)

    @cached_property
    def result(self) -> Any:
        """The type of its result."""
        return result_type(self.fn)

    def __repr__(self) -> str:
        return f"<{self.sort} {self.name!r}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        msg = f"@{self.sort} {self.name!r} is a method: definitions are plain functions, journals outlive instances"
        raise DefinitionError(msg)


class Step(_Definition[P, R]):
    """A function that runs inside a run, at least once."""

    sort = "step"

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name)
        self.options = options
        _check_execution(self, thread=options.thread, process=options.process)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]:
        """An op that runs the step; raises TypeError if the arguments do not fit its signature."""
        bound, named = self.arguments.bind(args, kwargs)
        op: StepOp[R] = StepOp(self, bound, named, site=charge.call_site())
        charge.created(op)
        return op


class TransactionStep(_Definition[P, R]):
    """A function whose SQL commits together with its journal entry."""

    sort = "transaction"
    _skipped_parameters = 1

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name)
        self.options = options
        if not inspect.signature(fn).parameters:
            msg = f"@transaction {self.name!r} must take the Transaction as its first parameter"
            raise DefinitionError(msg)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TransactionOp[R]:
        """An op that runs the transaction; the `Transaction` itself is passed by the engine."""
        bound, named = self.arguments.bind(args, kwargs)
        op: TransactionOp[R] = TransactionOp(self, bound, named, site=charge.call_site())
        charge.created(op)
        return op


class RunnableDefinition(_Definition[P, R]):
    """What workflows and jobs share: a run of their own."""

    def __init__(self, fn: Callable[..., Any], *, name: str | None, options: RunOptions) -> None:
        super().__init__(fn, name)
        self.options = options
        check_name(f"the queue of {self.sort} {self.name!r}", options.queue)
        check_labels(f"{self.sort} {self.name!r}", options.labels)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RunOp[R]:
        """An op that starts a run; raises TypeError if the arguments do not fit its signature."""
        bound, named = self.arguments.bind(args, kwargs)
        op: RunOp[R] = RunOp(self, bound, named, site=charge.call_site())  # type: ignore[arg-type]  # one of the two
        charge.created(op)
        return op

    def key_for(self, op: RunOp[Any], digest: Callable[[], str]) -> str | None:
        """The idempotency key of *op*: its own, or what the definition's `key` makes of its arguments."""
        key = op.given.key if op.given.key is not None else self.options.key
        if key is None:
            return None
        if key is by_arguments:
            return f"{self.name}:{digest()}"
        if callable(key):
            key = key(*op.args, **op.kwargs)
        return check_name(f"the key of {self.sort} {self.name!r}", key, MAX_KEY_LENGTH)


class Job(RunnableDefinition[P, R]):
    """A plain function that is a run of its own, on a queue."""

    sort = "job"

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: RunOptions) -> None:
        super().__init__(fn, name=name, options=options)
        if inspect.isasyncgenfunction(fn):
            msg = f"@job {self.name!r} is an async generator: a job is a plain function; decorate it with @workflow"
            raise DefinitionError(msg)
        _check_execution(self, thread=options.thread, process=options.process)

    @cached_property
    def as_step(self) -> Step[P, R]:
        """The job's function as the one step of its run."""
        options = self.options
        return Step(
            self.fn,
            name=self.name,
            options=StepOptions(
                retry=options.retry, on_crash=options.on_crash, thread=options.thread, process=options.process
            ),
        )


class Workflow(RunnableDefinition[P, R]):
    """An async generator, or coroutine function, of ops."""

    sort = "workflow"

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: RunOptions) -> None:
        super().__init__(fn, name=name, options=options)
        if not (inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn)):
            msg = (
                f"@workflow {self.name!r} must be `async def`: an async generator that yields ops, or a coroutine "
                "function that awaits them (for a plain function use @job)"
            )
            raise DefinitionError(msg)
        refuse_scopes(fn, self.name)


def _check_execution(definition: Step[..., Any] | Job[..., Any], *, thread: bool, process: bool) -> None:
    if process and definition.is_async:
        msg = f"{definition.sort} {definition.name!r}: process=True is for plain `def` functions, this one is async"
        raise DefinitionError(msg)
    if process and not thread:
        msg = f"{definition.sort} {definition.name!r}: process=True and thread=False exclude each other"
        raise DefinitionError(msg)


def check_labels(where: str, labels: Mapping[str, str]) -> None:
    """Labels are short strings to short strings: they are for filters, not for payloads."""
    for name, value in labels.items():
        check_name(f"a label of {where}", name)
        if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
            msg = f"label {name!r} of {where} must be a string of at most {MAX_NAME_LENGTH} characters, found {value!r}"
            raise DefinitionError(msg)


def _check_timeout(what: str, seconds: float | timedelta | None) -> float | None:
    if seconds is None:
        return None
    found = seconds if isinstance(seconds, (int, float)) else seconds.total_seconds()
    if not found > 0:
        msg = f"{what}: timeout must be a positive number of seconds, found {seconds!r}"
        raise DefinitionError(msg)
    return float(found)


# --- decorators --------------------------------------------------------------------------------


class StepDecorator(Protocol):
    """What `@step(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


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
    def __call__(self, fn: Callable[P, R], /) -> Job[P, R]: ...


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, AsyncGenerator[Union[Command, Return[R]], Any]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: float | timedelta | None = ...,
    on_crash: OnCrash = ...,
    thread: bool = ...,
    process: bool = ...,
) -> StepDecorator: ...
def step(  # noqa: PLR0913 - the documented options
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: float | timedelta | None = None,
    on_crash: OnCrash = "rerun",
    thread: bool = True,
    process: bool = False,
) -> Any:
    """
    Make a function a step: effectful work inside a run, run at least once.

    Args:
        fn: A sync or async function. Sync ones run in a worker thread.
        name: Its name in the journal; by default the function's.
        retry: Attempts in all, or a policy. By default it is tried once.
        timeout: Seconds allowed for each attempt.
        on_crash: What to do about an attempt which the death of the process cut off:
            ``rerun`` it (the default), ``raise`` `StepInterruptedError` in the workflow,
            or ``block`` the run until a person decides.
        thread: False runs a sync function on the event loop.
        process: True runs a sync function in a process pool (for CPU-bound work).
    """
    options = StepOptions(
        retry=as_retry(retry),
        timeout=_check_timeout("@step", timeout),
        on_crash=_one_of("on_crash", on_crash, ("rerun", "raise", "block")),
        thread=thread,
        process=process,
    )

    def decorate(fn: Callable[..., Any]) -> Step[..., Any]:
        if inspect.isasyncgenfunction(fn):
            msg = f"@step {fn.__name__!r} is an async generator: only a @workflow may yield"
            raise DefinitionError(msg)
        return Step(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def transaction(
    fn: Callable[Concatenate[AsyncTransaction, P], Coroutine[Any, Any, R]], /
) -> TransactionStep[P, R]: ...
@overload
def transaction(fn: Callable[Concatenate[Transaction, P], R], /) -> TransactionStep[P, R]: ...
@overload
def transaction(*, name: str | None = ..., retry: Retry | int | None = ...) -> TransactionDecorator: ...
def transaction(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
) -> Any:
    """
    Make a function a transaction: its SQL and its journal entry commit together, exactly once.

    Its first parameter is the `Transaction`. A plain ``def`` runs on the writer thread inside
    the commit group, so it must be short; an ``async def`` gets the writer to itself.
    """
    options = StepOptions(retry=as_retry(retry))

    def decorate(fn: Callable[..., Any]) -> TransactionStep[..., Any]:
        return TransactionStep(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def job(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, R]: ...
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
    retry: Retry | int | None = ...,
    priority: int = ...,
    labels: Mapping[str, str] | None = ...,
    thread: bool = ...,
    process: bool = ...,
    on_crash: OnCrash = ...,
) -> JobDecorator: ...
def job(  # noqa: PLR0913 - the documented options
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str = "default",
    timeout: float | timedelta | None = None,
    key: Callable[..., str] | Any = None,
    retry: Retry | int | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    thread: bool = True,
    process: bool = False,
    on_crash: OnCrash = "rerun",
) -> Any:
    """
    Make a function a job: one step with a run of its own, on a queue.

    Options as for `workflow`; `thread`, `process` and `on_crash` as for `step`.
    """
    options = RunOptions(
        version=version,
        queue=queue,
        timeout=_check_timeout("@job", timeout),
        key=key,
        retry=as_retry(retry),
        priority=priority,
        labels=dict(labels or {}),
        thread=thread,
        process=process,
        on_crash=_one_of("on_crash", on_crash, ("rerun", "raise", "block")),
    )

    def decorate(fn: Callable[..., Any]) -> Job[..., Any]:
        return Job(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


@overload
def workflow(fn: Callable[P, AsyncGenerator[Union[Command, Return[R]], Any]], /) -> Workflow[P, R]: ...
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
    retry: Retry | int | None = ...,
    priority: int = ...,
    labels: Mapping[str, str] | None = ...,
) -> WorkflowDecorator: ...
def workflow(  # noqa: PLR0913 - the documented options
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str = "default",
    timeout: float | timedelta | None = None,
    key: Callable[..., str] | Any = None,
    retry: Retry | int | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """
    Make an ``async def`` a workflow: durable, replayed after a crash, freed while it waits.

    Args:
        fn: An async generator that yields ops, or a coroutine function that awaits them.
        name: Its name in the journal; by default the function's.
        version: Recorded with each run, for reports and for changes of code.
        queue: The queue its runs wait on for a slot.
        timeout: Seconds allowed for the whole run, from its start, waiting included.
        key: A function of the arguments, or `by_arguments`: one run a key.
        retry: Attempts of the whole run, or a policy: each begins with an empty history.
        priority: Higher goes first within its queue.
        labels: Short strings to filter runs by.
    """
    options = RunOptions(
        version=version,
        queue=queue,
        timeout=_check_timeout("@workflow", timeout),
        key=key,
        retry=as_retry(retry),
        priority=priority,
        labels=dict(labels or {}),
    )

    def decorate(fn: Callable[..., Any]) -> Workflow[..., Any]:
        return Workflow(fn, name=name, options=options)

    return decorate if fn is None else decorate(fn)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        msg = f"{what} must be one of {', '.join(map(repr, allowed))}, found {value!r}"
        raise DefinitionError(msg)
    return value


@overload
def call(fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]: ...
@overload
def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]: ...
def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> StepOp[Any]:
    """A step of an undecorated function, named by its qualified name."""
    if isinstance(fn, _Definition):
        msg = f"call() is for undecorated functions; {fn!r} is one already: yield {fn.name}(...)"
        raise TypeError(msg)
    definition: Step[..., Any] = Step(fn, name=getattr(fn, "__qualname__", None), options=_CALL_OPTIONS)
    op: StepOp[Any] = StepOp(definition, args, dict(kwargs), site=charge.call_site())
    charge.created(op)
    return op


_CALL_OPTIONS = StepOptions()


# --- collecting them -------------------------------------------------------------------------------

Runnable = Workflow[..., Any] | Job[..., Any]


def collect(definitions: Iterable[Runnable | types.ModuleType]) -> dict[str, Runnable]:
    """
    The workflows and jobs among *definitions* (or in the modules among them), by name.

    Raises:
        DefinitionError: If two have one name, or something is neither.
    """
    found: dict[str, Runnable] = {}

    def add(definition: Runnable) -> None:
        other = found.setdefault(definition.name, definition)
        if other is not definition:
            msg = (
                f"two definitions are called {definition.name!r}: {_place(other)} and {_place(definition)}. "
                "Give one another name=, since the journal knows them by name"
            )
            raise DefinitionError(msg)

    for item in definitions:
        if isinstance(item, types.ModuleType):
            for value in vars(item).values():
                if isinstance(value, (Workflow, Job)):
                    add(value)
        elif isinstance(item, (Workflow, Job)):
            add(item)
        else:
            hint = " (steps and transactions need not be listed)" if isinstance(item, _Definition) else ""
            msg = f"definitions are workflows, jobs or modules of them; found {item!r:.80}{hint}"
            raise DefinitionError(msg)
    return found


def _place(definition: _Definition[..., Any]) -> str:
    code = definition.fn.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"

