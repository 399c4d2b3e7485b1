"""
Definitions: what `@workflow`, `@job`, `@step` and `@transaction` make of a function.

A definition holds the function, its name, its options and the types of its arguments and
result. Calling it checks the arguments and returns an op. The plain function stays `.fn`.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, update_wrapper
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from attrs import frozen

from durable._core.codec.signatures import ArgumentTypes, argument_types, result_type
from durable._core.program import current_driver
from durable._core.program.limits import Limit, LimitRef, check_reference
from durable._core.program.ops import OnCrash, Op, RunOp, StepOp, TransactionOp, by_arguments
from durable._core.program.retry import NEVER, Retry
from durable._core.program.scope_check import refuse_scopes
from durable.errors import CapExceededError, DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

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
    limit: LimitRef | None = None
    limit_key: Callable[..., str] | None = None
    aliases: tuple[str, ...] = ()


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
    key_ttl: float | None = None
    limit: LimitRef | None = None
    limit_key: Callable[..., str] | None = None
    aliases: tuple[str, ...] = ()


@frozen
class Finished(Generic[R_co]):
    """
    A run that has ended, as hooks see it.

    Attributes:
        run_id: Its id.
        workflow: Name of the workflow or job.
        status: How it ended.
        arguments: What it was called with, by the name of the parameter; defaults are not among them.
        value: What it returned, if it succeeded.
        error: Why it failed, rebuilt from the journal.
        reason: The error in a line, or the reason of the cancellation.
        labels: Those of the run.
        ended_at: Epoch seconds, UTC.
    """

    run_id: str
    workflow: str
    status: Literal["succeeded", "failed", "cancelled"]
    arguments: Mapping[str, Any]
    value: R_co | None
    error: Exception | None
    reason: str
    labels: Mapping[str, str]
    ended_at: float


#: What hooks are: see `RunnableDefinition.on_success`.
Hook: TypeAlias = Callable[[Finished[R]], RunOp[Any] | Iterable[Op[Any]] | None]


class Definition(Generic[P, R]):
    """What all definitions share: a function, its name, and the types of its arguments."""

    sort: str = "definition"
    _skipped_parameters = 0

    def __init__(self, fn: Callable[..., Any], name: str | None, aliases: Iterable[str] = ()) -> None:
        if not hasattr(fn, "__code__"):
            msg = f"@{self.sort} decorates a function, found {type(fn).__name__} {fn!r:.80}"
            raise DefinitionError(msg)
        self.fn = self._decorated = fn
        #: Its name in the journal: `name=` if given, else the function's own.
        self.name = check_name(f"the name of a {self.sort}", name or fn.__name__)
        #: Names that it had in older code: what was recorded under them is its own.
        self.aliases = _checked_aliases(self.sort, self.name, aliases)
        #: What tells the keys of its limit apart, see `limit_key_for`.
        self.limit_key: Callable[..., str] | None = None
        wrapper: Any = self
        update_wrapper(wrapper, fn)

    @property
    def fn(self) -> Callable[..., Any]:
        """The plain function. A test may put another one in its place; types stay those of the decorated one."""
        return self._fn

    @fn.setter
    def fn(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.is_async = inspect.iscoroutinefunction(fn)

    @cached_property
    def arguments(self) -> ArgumentTypes:
        """The types of its parameters (made late: annotations may name things defined below)."""
        return argument_types(self._decorated, skip=self._skipped_parameters)

    @cached_property
    def signature(self) -> inspect.Signature:
        """Its parameters, without what the engine passes."""
        return inspect.signature(self._decorated)

    @cached_property
    def result_place(self) -> str:
        """What errors call its result."""
        return f"result of {self.sort} {self.name!r}"

    @cached_property
    def result(self) -> Any:
        """The type of its result."""
        return result_type(self._decorated)

    def limit_key_for(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
        """
        What `limit_key` makes of a call's arguments, given by position, or by name where it takes them so.

        Raises:
            DefinitionError: It failed, or made no usable key.
        """
        fn = self.limit_key
        if fn is None:
            return ""
        args = tuple(args)
        try:
            with contextlib.suppress(ValueError):  # a builtin without a signature
                signature = inspect.signature(fn)
                try:
                    signature.bind(*args, **kwargs)
                except TypeError:
                    args, kwargs = (), self.signature.bind(*args, **kwargs).arguments
            key = fn(*args, **kwargs)
        except Exception as error:
            msg = f"limit_key of {self.sort} {self.name!r} raised {error!r}"
            raise DefinitionError(msg) from error
        return check_name(f"the limit_key of {self.sort} {self.name!r}", key, MAX_KEY_LENGTH)

    def __repr__(self) -> str:
        return f"<{self.sort} {self.name!r}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        msg = f"@{self.sort} {self.name!r} is a method: definitions are plain functions, journals outlive instances"
        raise DefinitionError(msg)


class Step(Definition[P, R]):
    """A function that runs inside a run, at least once."""

    sort = "step"

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name, options.aliases)
        self.options = options
        check_reference(repr(self), options.limit, options.limit_key)
        self.limit_key = options.limit_key
        if isinstance(options.limit, Limit) and options.limit.on_conflict != "wait":
            msg = f"{self!r}: a step waits for its slot, its limit has on_conflict={options.limit.on_conflict!r}"
            raise DefinitionError(msg)
        _check_execution(self, thread=options.thread, process=options.process)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]:
        """An op that runs the step; raises TypeError if the arguments do not fit its signature."""
        bound, named = self.arguments.bind(args, kwargs)
        op: StepOp[R] = StepOp(self, bound, named, site=current_driver.call_site())
        current_driver.created(op)
        return op

    def for_item(self, item: Any, site: current_driver.Site | None) -> StepOp[R]:
        """The op that `for_each` makes of one item."""
        return StepOp(self, (item,), {}, site=site)


class TransactionStep(Definition[P, R]):
    """A function whose SQL commits together with its journal entry."""

    sort = "transaction"
    _skipped_parameters = 1

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name, options.aliases)
        self.options = options
        if not inspect.signature(fn).parameters:
            msg = f"@transaction {self.name!r} must take the Transaction as its first parameter"
            raise DefinitionError(msg)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TransactionOp[R]:
        """An op that runs the transaction; the `Transaction` itself is passed by the engine."""
        bound, named = self.arguments.bind(args, kwargs)
        op: TransactionOp[R] = TransactionOp(self, bound, named, site=current_driver.call_site())
        current_driver.created(op)
        return op

    def for_item(self, item: Any, site: current_driver.Site | None) -> TransactionOp[R]:
        """The op that `for_each` makes of one item."""
        return TransactionOp(self, (item,), {}, site=site)


class _JobStep(Step[P, R]):
    """The function of a job, as a step."""

    sort = "job"


class RunnableDefinition(Definition[P, R]):
    """What workflows and jobs share: a run of their own."""

    def __init__(self, fn: Callable[..., Any], *, name: str | None, options: RunOptions) -> None:
        super().__init__(fn, name, options.aliases)
        self.options = options
        #: (statuses that it is for, hook), in the order of their decoration.
        self.hooks: list[tuple[frozenset[str], Hook[Any]]] = []
        check_reference(repr(self), options.limit, options.limit_key)
        self.limit_key = options.limit_key
        check_name(f"the queue of {self.sort} {self.name!r}", options.queue)
        for option, value in (("version", options.version), ("priority", options.priority)):
            if type(value) is not int:
                msg = f"{self!r}: {option} must be a whole number, found {value!r:.60}"
                raise DefinitionError(msg)
        check_labels(f"{self.sort} {self.name!r}", options.labels)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RunOp[R]:
        """An op that starts a run; raises TypeError if the arguments do not fit its signature."""
        bound, named = self.arguments.bind(args, kwargs)
        op: RunOp[R] = RunOp(self, bound, named, site=current_driver.call_site())  # type: ignore[arg-type]  # one of the two
        current_driver.created(op)
        return op

    def on_success(self, hook: Hook[R]) -> Hook[R]:
        """
        Register *hook*, a plain function, for when a run has succeeded.

        It gets the `Finished` run and returns calls of workflows and jobs (one, a list or None), which start in the
        transaction that records the end: exactly once, each with its own delay and retry. It may be called
        again if the process dies before that commit, so it only decides. What it raises is logged.
        """
        return self._hooked(hook, "succeeded")

    def on_failure(self, hook: Hook[R]) -> Hook[R]:
        """As `on_success`, for when a run has failed for good."""
        return self._hooked(hook, "failed")

    def on_cancel(self, hook: Hook[R]) -> Hook[R]:
        """As `on_success`, for when a run was cancelled and its clean-up is done."""
        return self._hooked(hook, "cancelled")

    def on_finish(self, hook: Hook[R]) -> Hook[R]:
        """As `on_success`, for when a run has ended in whatever way."""
        return self._hooked(hook, "succeeded", "failed", "cancelled")

    def _hooked(self, hook: Hook[R], *statuses: str) -> Hook[R]:
        found: Any = hook
        if not callable(found) or isinstance(found, Definition) or inspect.iscoroutinefunction(found):
            msg = f"a hook of {self!r} is a plain function of the finished run that returns ops; found {hook!r:.80}"
            raise DefinitionError(msg)
        self.hooks.append((frozenset(statuses), hook))
        return hook

    def for_item(self, item: Any, site: current_driver.Site | None) -> RunOp[R]:
        """The op that `for_each` makes of one item."""
        return RunOp(self, (item,), {}, site=site)  # type: ignore[arg-type]  # one of the two

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
        self._step: Step[P, R] = _JobStep(
            fn,
            name=self.name,
            options=StepOptions(
                retry=options.retry,
                on_crash=options.on_crash,
                thread=options.thread,
                process=options.process,
                aliases=options.aliases,
            ),
        )

    @property
    def as_step(self) -> Step[P, R]:
        """The job's function as the one step of its run."""
        if self._step.fn is not self.fn:  # a test has replaced it
            self._step.fn = self.fn
        return self._step


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


def _checked_aliases(sort: str, name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    if isinstance(aliases, str):
        msg = f"aliases of {sort} {name!r} are a tuple of names, found the string {aliases!r}: write ({aliases!r},)"
        raise DefinitionError(msg)
    return tuple(check_name(f"an alias of {sort} {name!r}", alias) for alias in aliases)


def check_labels(where: str, labels: Mapping[str, str]) -> None:
    """Labels are short strings to short strings: they are for filters, not for payloads."""
    found: Mapping[str, Any] = labels  # what users pass, whatever the annotation says
    for name, value in found.items():
        check_name(f"a label of {where}", name)
        if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
            msg = f"label {name!r} of {where} must be a string of at most {MAX_NAME_LENGTH} characters, found {value!r}"
            raise DefinitionError(msg)
