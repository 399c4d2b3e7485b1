"""
Steps by themselves, and steps replaced: what a test needs of a workflow's surroundings.

`run_step` calls one step, transaction or job with a context, as an engine would, and without one. `replaced`
puts a fake in a step's place for the length of a block: type checkers, and a check of the signatures, see to it
that the fake fits.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Generic, ParamSpec, TypeVar, overload

from attrs import define, field, frozen

from durable._core.codec.codec import Codec, Payload
from durable._core.program.definition import Definition
from durable._core.program.functions import Job, Step, TransactionStep, Workflow
from durable._core.program.ops import RunOp, StepOp, TransactionOp
from durable._core.program.saying import ROOM
from durable._shell.attempts.context import EmittedSoFar, Scope, StepContext, Surroundings, enter
from durable._shell.attempts.resources import Resources
from durable._shell.attempts.stand_ins import check_fits
from durable.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@frozen
class Call:
    """One call of a fake."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@overload
def replaced(
    definition: Step[P, R] | Job[P, R] | TransactionStep[P, R], fake: Callable[P, Coroutine[Any, Any, R]], /
) -> AbstractContextManager[list[Call]]: ...
@overload
def replaced(
    definition: Step[P, R] | Job[P, R] | TransactionStep[P, R], fake: Callable[P, R], /
) -> AbstractContextManager[list[Call]]: ...
def replaced(definition: Any, fake: Any, /) -> Any:
    """
    Put *fake* in the place of a step's, job's or transaction's function, for the length of a ``with`` block.

        with replaced(charge, lambda ride_id: "charge-1") as calls:
            ...
        assert [call.args for call in calls] == [(7,)]

    The fake takes the same arguments (a transaction's without the `Transaction`), may be async where the
    function is not and the other way round, and is called wherever the definition is used: in engines of this
    process, and outside of them. What it returns is recorded and decoded as ever.

    Raises:
        DryRunError: The fake cannot be called with the function's arguments.
        TypeError: *definition* is a workflow (replace its steps), or no definition.
    """
    found: Any = definition
    if isinstance(found, Workflow) or not isinstance(found, (Step, Job, TransactionStep)):
        msg = f"replaced() takes a step, transaction or job, found {found!r:.80} (of a workflow, replace the steps)"
        raise TypeError(msg)
    check_fits(f"the fake of {found!r}", found, fake)
    return _replacing(found, fake)


@contextmanager
def _replacing(definition: Definition[..., Any], fake: Callable[..., Any]) -> Generator[list[Call]]:
    calls: list[Call] = []
    before = definition.fn
    skip = 1 if isinstance(definition, TransactionStep) else 0

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call(args[skip:], kwargs))
        return await fake(*args[skip:], **kwargs)

    def call_plain(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call(args[skip:], kwargs))
        return fake(*args[skip:], **kwargs)

    replacement = call_async if inspect.iscoroutinefunction(fake) else call_plain
    replacement.__name__, replacement.__qualname__ = before.__name__, before.__qualname__
    definition.fn = replacement
    try:
        yield calls
    finally:
        definition.fn = before


# --- one step alone ------------------------------------------------------------------------------------


@define
class StepRun(Generic[T]):
    """
    What one attempt of a step came to.

    Attributes:
        value: What it returned, as the workflow would get it.
        cursor: Where its cursor stands; None if it has none.
        memos: Results of its memos, by name and use: ``{"plan:1": ...}``.
        left: The same as it is recorded: give it to the next attempt as ``left=``.
        emitted: What it emitted: (stream, item), in order.
        attributes: What it published.
    """

    value: T
    cursor: Any = None
    memos: dict[str, Any] = field(factory=dict)
    left: dict[str, Payload] = field(factory=dict, repr=False)
    emitted: list[tuple[str, Any]] = field(factory=list)
    attributes: dict[str, Any] = field(factory=dict)


@define
class _Kept:
    """Where the notes of an attempt go."""

    left: dict[str, Payload]
    #: The engine's, in the place of one.
    codec: Codec
    emitted: list[tuple[str, Any]] = field(factory=list)
    attributes: dict[str, Any] = field(factory=dict)

    async def keep(self, position: str, name: str, value: Payload) -> None:  # noqa: ARG002 - there is one step
        """Record a cursor or memo."""
        self.left[name] = value

    def emit(  # there is room, and no cap
        self,
        about: StepContext,  # noqa: ARG002
        emitted: EmittedSoFar,  # noqa: ARG002
        stream: str,
        value: Any,
        *,
        sync: bool,  # noqa: ARG002
    ) -> Awaitable[None]:
        """Keep an item of a stream, as it is read."""
        where = f"item of stream {stream!r}"
        self.emitted.append((stream, self.codec.decode(self.codec.encode(value, where=where), where=where)))
        return ROOM

    def progress(self, about: StepContext, done: float, total: float | None, note: str) -> None:
        """Nobody looks on."""

    def publish(self, about: StepContext, values: dict[str, Any]) -> None:  # noqa: ARG002 - of the one run
        """Keep attributes."""
        self.codec.encode_by_value(values, where="attributes")
        self.attributes |= values


async def run_step(
    op: StepOp[T] | TransactionOp[T] | RunOp[T],
    *,
    attempt: int = 1,
    run_id: str = "test-run",
    workflow: str = "test",
    position: str = "0",
    deadline: float | None = None,
    labels: Mapping[str, str] | None = None,
    left: Mapping[str, Payload] | None = None,
    tx: Any = None,
    codec: Codec | None = None,
    resources: Iterable[Any] | Mapping[type[Any], Any] = (),
) -> StepRun[T]:
    """
    Run one attempt of a step, transaction or job by itself: `context()`, `cursor()` and `memo()` work in it.

    Args:
        op: A call of it.
        attempt: Which attempt `context` tells of, from 1.
        run_id: What else `context` tells; the idempotency key is made of it and *position*.
        workflow: As `run_id`.
        position: As `run_id`.
        deadline: As `run_id`: epoch seconds, UTC.
        labels: As `run_id`.
        left: What an earlier attempt left: the `left` of its `StepRun`, or of the one that raised (see below).
        tx: The `Transaction` of a transaction; by default a database in memory.
        codec: Encodes and decodes what is recorded.
        resources: As of `Engine`.

    Whatever the step raises is raised; what it had noted by then is in the exception's ``__durable_left__``.

    Raises:
        UsageError: *op* is a call of a workflow.
        EncodeError: The result, a cursor or a memo cannot be recorded.
    """
    definition: Any = op.definition
    if isinstance(definition, Workflow):
        msg = f"run_step() runs steps, transactions and jobs; for {op.describe()} use an engine, or a dry run"
        raise UsageError(msg)
    plain = codec or Codec()
    used: Codec = definition.codec_of(plain)
    notes = _Kept(dict(left or {}), plain)
    told = StepContext(run_id, workflow, position, attempt, f"{run_id}:{position}", deadline, labels or {})
    held = Resources(resources)
    scope = Scope(used, notes, notes.left, around=Surroundings(resources=held), context=told)
    await held.open()
    # In a task, and so in a context, of its own: nothing of the scope is left in the test's.
    task = asyncio.get_running_loop().create_task(_attempt(op, scope, tx))
    try:
        value = await task
    except Exception as error:
        error.__durable_left__ = notes.left  # type: ignore[attr-defined]  # ours alone
        raise
    finally:
        await held.aclose(1.0)
    where = f"result of {op.describe()}"
    found: T = used.decode(used.encode(value, definition.result, where=where), definition.result, where=where)
    memos = {
        name.removeprefix("memo:"): used.decode(kept, where="a memo")
        for name, kept in notes.left.items()
        if name.startswith("memo:")
    }
    cursor = used.decode(notes.left["cursor"], where="a cursor") if "cursor" in notes.left else None
    return StepRun(found, cursor, memos, notes.left, notes.emitted, notes.attributes)


async def _attempt(op: Any, scope: Scope, tx: Any) -> Any:
    enter(scope)
    fn = op.definition.body
    if isinstance(op, TransactionOp) and tx is None:
        with closing(sqlite3.connect(":memory:")) as connection:
            return await _called(fn(connection, *op.args, **op.kwargs))
    before = (tx,) if isinstance(op, TransactionOp) else ()
    return await _called(fn(*before, *op.args, **op.kwargs))


async def _called(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
