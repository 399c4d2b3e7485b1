"""
What `@workflow`, `@job`, `@step` and `@transaction` make of a function.

Calling one checks the arguments and returns an op. The plain function stays `.fn`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

from durable._core.codec.signatures import argument_types
from durable._core.light_frozen import late_frozen
from durable._core.policies.limits import Limit, check_reference, check_whole
from durable._core.program import current_driver
from durable._core.program.definition import (
    Definition,
    RunDefinition,
    RunOptions,
    StepDefinition,
    StepOptions,
    check_labels,
    check_name,
)
from durable._core.program.ops import NO_OPTIONS, Op, RunOp, StepOp, TransactionOp
from durable._core.program.streaming import streaming
from durable._core.scope_check import refuse_scopes
from durable._core.statuses import ENDS, EndStatus
from durable.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

#: The type of a function that Cython has compiled; each module of its own has one, of this name.
_CYTHON: Final = "cython_function_or_method"


@late_frozen
class Finished(Generic[R_co]):
    """
    A run that has ended, as hooks see it.

    Attributes:
        run_id: Its id.
        workflow: Name of the workflow or job.
        status: How it ended.
        arguments: What it was called with, by the name of the parameter; defaults are not among them.
        value: What it returned, if it succeeded.
        error: Why it failed, rebuilt from the journal; or how its clean-up failed, if it was cancelled.
        reason: The error in a line, or the reason of the cancellation.
        labels: Those of the run.
        ended_at: Epoch seconds, UTC.

    Example:
        >>> @job
        ... async def tell(text: str) -> str:
        ...     return text
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> @welcome.on_success
        ... def and_then(finished: Finished[str]) -> list[RunOp[str]]:
        ...     return [tell(f"said: {finished.value}")]
        >>> async with Engine(":memory:", [welcome, tell]) as engine:
        ...     await engine.run(welcome("ada"))
        ...     await engine.idle()
        ...     [info.result async for info in engine.runs(workflow="tell")]
        'welcome, ada'
        ['said: welcome, ada']
    """

    run_id: str
    workflow: str
    status: EndStatus
    arguments: Mapping[str, Any]
    value: R_co | None
    error: Exception | None
    reason: str
    labels: Mapping[str, str]
    ended_at: float


#: What hooks are: see `RunnableDefinition.on_success`.
Hook: TypeAlias = Callable[[Finished[R]], RunOp[Any] | Iterable[Op[Any]] | None]


class Step(StepDefinition[P, R]):
    """A function that runs inside a run, at least once."""

    kind = "step"
    may_stream = True

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name, options)
        self.keeps_last = _checked_stream(self, stream=options.stream)
        check_reference(repr(self), options.limit, options.limit_key)
        self.limit_key = options.limit_key
        if isinstance(options.limit, Limit) and options.limit.on_conflict != "wait":
            msg = f"{self!r}: a step waits for its slot, its limit has on_conflict={options.limit.on_conflict!r}"
            raise DefinitionError(msg)
        _check_execution(self, thread=options.thread, process=options.process)

    def _streaming(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return streaming(fn, self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StepOp[R]:
        """An op that runs the step; raises TypeError if the arguments do not fit its signature."""
        bound: tuple[Any, ...] = args
        named: dict[str, Any] = kwargs
        if kwargs or len(args) not in self.arguments.counts:  # else they are as `bind` would have them
            bound, named = self.arguments.bind(args, kwargs)
        driver, site = current_driver.asked_here()
        op: StepOp[R] = StepOp(self, bound, named, NO_OPTIONS, site)
        if driver is not None:
            driver.created(op)
        return op

    def for_item(self, args: tuple[Any, ...], site: current_driver.CallSite | None) -> StepOp[R]:
        """The op that `for_each` makes of one item, or of an item and its index."""
        return StepOp(self, args, {}, site=site)


class TransactionStep(StepDefinition[P, R]):
    """A function whose SQL commits together with its journal entry."""

    kind = "transaction"
    _skipped_parameters = 1

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: StepOptions) -> None:
        super().__init__(fn, name, options)
        if not inspect.signature(fn).parameters:
            msg = f"@transaction {self.name!r} must take the Transaction as its first parameter"
            raise DefinitionError(msg)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TransactionOp[R]:
        """An op that runs the transaction; the `Transaction` itself is passed by the engine."""
        bound, named = self.arguments.bind(args, kwargs)
        op: TransactionOp[R] = TransactionOp(self, bound, named, site=current_driver.call_site())
        current_driver.created(op)
        return op

    def for_item(self, args: tuple[Any, ...], site: current_driver.CallSite | None) -> TransactionOp[R]:
        """The op that `for_each` makes of one item, or of an item and its index."""
        return TransactionOp(self, args, {}, site=site)


class _JobStep(Step[P, R]):
    """The function of a job, as a step."""

    kind = "job"


class RunnableDefinition(RunDefinition[P, R]):
    """What workflows and jobs share: a run of their own."""

    def __init__(self, fn: Callable[..., Any], *, name: str | None, options: RunOptions) -> None:
        super().__init__(fn, name, options.aliases)
        self.options = options
        self.hooks = []
        check_reference(repr(self), options.limit, options.limit_key)
        self.limit_key = options.limit_key
        self.queue = check_name(f"the queue of {self.kind} {self.name!r}", options.queue)
        for option, value in (("version", options.version), ("priority", options.priority)):
            check_whole(f"{self!r}: {option}", value)
        check_labels(f"{self.kind} {self.name!r}", options.labels)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RunOp[R]:
        """An op that starts a run; raises TypeError if the arguments do not fit its signature."""
        bound, named = self.arguments.bind(args, kwargs)
        op: RunOp[R] = RunOp(self, bound, named, site=current_driver.call_site())
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
        """As `on_success`, for when a run has failed permanently."""
        return self._hooked(hook, "failed")

    def on_cancel(self, hook: Hook[R]) -> Hook[R]:
        """As `on_success`, for when a run was cancelled and its clean-up is done."""
        return self._hooked(hook, "cancelled")

    def on_finish(self, hook: Hook[R]) -> Hook[R]:
        """As `on_success`, for when a run has ended in whatever way."""
        return self._hooked(hook, *ENDS)

    def _hooked(self, hook: Hook[R], *statuses: str) -> Hook[R]:
        found: Any = hook
        if not callable(found) or isinstance(found, Definition) or inspect.iscoroutinefunction(found):
            msg = f"a hook of {self!r} is a plain function of the finished run that returns ops; found {hook!r:.80}"
            raise DefinitionError(msg)
        self.hooks.append((frozenset(statuses), hook))
        return hook

    def for_item(self, args: tuple[Any, ...], site: current_driver.CallSite | None) -> RunOp[R]:
        """The op that `for_each` makes of one item, or of an item and its index."""
        return RunOp(self, args, {}, site=site)


class Job(RunnableDefinition[P, R]):
    """A plain function that is a run of its own, on a queue."""

    kind = "job"
    may_stream = True

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: RunOptions) -> None:
        super().__init__(fn, name=name, options=options)
        self.keeps_last = _checked_stream(self, stream=options.stream)
        _check_execution(self, thread=options.thread, process=options.process)
        self._step: Step[P, R] = _JobStep(
            fn,
            name=self.name,
            options=StepOptions(
                retry=options.retry,
                timeout=options.timeout,
                on_crash=options.on_crash,
                on_poison=options.on_poison,
                thread=options.thread,
                process=options.process,
                aliases=options.aliases,
                stream=options.stream,
                keep_memos=options.keep_memos,
            ),
        )

    def _streaming(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return streaming(fn, self)

    @property
    def as_step(self) -> Step[P, R]:
        """The job's function as the one step of its run."""
        if self._step.fn is not self.fn:  # a test has replaced the function, and the step must follow
            self._step.fn = self.fn
        return self._step


class Workflow(RunnableDefinition[P, R]):
    """An async generator, or coroutine function, of ops."""

    kind = "workflow"

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, options: RunOptions) -> None:
        super().__init__(fn, name=name, options=options)
        if type(fn).__name__ == _CYTHON and not inspect.iscoroutinefunction(fn):
            msg = (
                f"@workflow {self.name!r} is compiled by Cython, whose async generators do not behave as Python's "
                "where they are driven by hand: leave its module out of cythonize() (modules of steps and jobs may be "
                "compiled), or write it as a coroutine function that awaits its ops"
            )
            raise DefinitionError(msg)
        if not (inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn)):
            msg = (
                f"@workflow {self.name!r} must be `async def`: an async generator that yields ops, or a coroutine "
                "function that awaits them (for a plain function use @job)"
            )
            raise DefinitionError(msg)
        refuse_scopes(fn, self.name)
        #: What `query` has registered, by name.
        self.queries: dict[str, Callable[..., Any]] = {}

    def query(self, fn: F) -> F:
        """
        Register a plain function that tells from outside how a run stands: ``await run.query(fn, ...)``.

        It gets a `RunView` (published attributes, outcomes of steps, all that `run.info()` tells), then the arguments
        of the call. It reads what is recorded, and wakes nobody: a run that is freed, paused, blocked or over answers
        as well.

        Raises:
            DefinitionError: It is no plain function, or another one has its name.
        """
        found: Any = fn
        if not inspect.isfunction(found) or inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
            msg = f"a query of {self!r} is a plain function of a RunView, found {found!r:.80}"
            raise DefinitionError(msg)
        if self.queries.setdefault(found.__name__, found) is not found:
            msg = f"two queries of {self!r} are called {found.__name__!r}"
            raise DefinitionError(msg)
        return fn


class Helper(Generic[R]):
    """An async function that awaits ops, as `for_each` applies it: each call is a strand of its own."""

    aliases: tuple[str, ...] = ()

    def __init__(self, fn: Callable[..., Coroutine[Any, Any, R]]) -> None:
        self.fn = fn
        self.arguments = argument_types(fn)
        self.name = self.arguments.name

    def for_item(self, args: tuple[Any, ...], _site: current_driver.CallSite | None) -> Coroutine[Any, Any, R]:
        """The coroutine that `for_each` makes of one item, or of an item and its index."""
        return self.fn(*args)


def _checked_stream(definition: Step[..., Any] | Job[..., Any], *, stream: bool) -> bool:
    if stream and not inspect.isasyncgenfunction(definition.fn):
        msg = f"{definition.kind} {definition.name!r}: stream=True is for async generators, this one yields nothing"
        raise DefinitionError(msg)
    options = definition.options
    if isinstance(options, StepOptions) and options.codec is not None and inspect.isasyncgenfunction(definition.fn):
        msg = (
            f"{definition.kind} {definition.name!r}: codec= is for what a step returns, and this one streams it: items "
            "are read by those who know the engine's codec alone. Give the engine the codec, or return a list"
        )
        raise DefinitionError(msg)
    return bool(stream)


def _check_execution(definition: Step[..., Any] | Job[..., Any], *, thread: bool, process: bool) -> None:
    if process and definition.is_async:
        msg = f"{definition.kind} {definition.name!r}: process=True is for plain `def` functions, this one is async"
        raise DefinitionError(msg)
    if process and not thread:
        msg = f"{definition.kind} {definition.name!r}: process=True and thread=False exclude each other"
        raise DefinitionError(msg)
