"""
Batches as callers hold them: drafted in a block, made at its end, then a handle. As `durable.Batch`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from attrs import evolve
from temporalio.client import WorkflowExecutionDescription, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durable._core.authoring.op_constructors import with_options
from durable._core.journal.payloads import call_digest
from durable._core.program.definition import MAX_KEY_LENGTH, check_labels, check_name
from durable._core.program.ops import RunOp
from durable._core.program.start_options import StartOptions
from durable._shell.attempts.context import BatchesElsewhere, Scope
from durable._shell.handles.batch import Added
from durable._shell.handles.batch_drafts import Callbacks, batch_contents, callback_ops, contents_digest
from durable._shell.handles.batch_info import BatchInfo
from durable._shell.handles.run_info import RunInfo
from durable._shell.rows.new_runs import new_run_id
from durable._shell.rows.rows import NewRun
from durable.errors import BatchClosedError, BatchNotFoundError, RunNotFoundError, UsageError
from durable.temporal._batches.batch_workflow import MOST, batch_workflow_id
from durable.temporal._batches.wire import (
    ADD,
    BATCH,
    CANCEL,
    CLOSED,
    INFO,
    BatchState,
    NewBatch,
    batch_text,
    state_in,
)
from durable.temporal._engine.handle import TemporalRun
from durable.temporal._wire.ends import RunEnd
from durable.temporal._wire.starts import make_start

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

T = TypeVar("T")
R = TypeVar("R")

#: The memo of a batch by which an equal one is known.
CONTENTS: Final = "durable_contents"
#: Seconds between looks whether a member has begun.
_BEGINS: Final = 0.1


class TemporalBatch:
    """A batch on a server. As `durable.Batch`."""

    def __init__(
        self,
        asking: Asking,
        batch_id: str,
        *,
        ancestors: tuple[str, ...] = (),
        draft: NewBatch | None = None,
        outer: TemporalBatch | None = None,
        chosen: bool = False,
        scope: Scope | None = None,
    ) -> None:
        self._asking = asking
        self._ancestors = ancestors
        self._draft = draft
        self._outer = outer
        self._chosen = chosen
        self._scope = scope
        self._entered = False
        self._members: list[NewRun] = []
        self._nested: list[NewBatch] = []
        #: Its id.
        self.id = batch_id

    def __repr__(self) -> str:
        return f"<TemporalBatch {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TemporalBatch) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def parent(self) -> TemporalBatch | None:
        """The batch that it is nested in, if it is, as far as this handle knows."""
        if not self._ancestors:
            return None
        return TemporalBatch(self._asking, self._ancestors[0], ancestors=self._ancestors[1:], scope=self._scope)

    # --- drafting it ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._draft is None or self._entered:
            msg = f"{self!r} was made before: its block is entered once"
            raise UsageError(msg)
        self._entered = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        draft, self._draft = self._draft, None
        assert draft is not None, "entered once"
        if kind is not None:
            self._entered = False
            return
        made = evolve(draft, members=tuple(self._members), nested=tuple(self._nested))
        outer = self._outer
        if outer is not None and outer._draft is not None:  # noqa: SLF001 - of its own class
            outer._nested.append(made)  # noqa: SLF001 - of its own class
        elif outer is not None or self._ancestors:
            await self._give(self._ancestors[0], NewBatch(self._ancestors[0], nested=[made]))
        else:
            await self._create(made)

    async def _create(self, made: NewBatch) -> None:
        contents = contents_digest(_contents(made))
        asking = self._asking
        try:
            await asking.client.start_workflow(
                BATCH,
                batch_text(made),
                id=batch_workflow_id(self.id),
                task_queue=asking.default_queue,
                memo={CONTENTS: contents},
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            described = await asking.client.get_workflow_handle(batch_workflow_id(self.id)).describe()
            if not self._chosen or (await described.memo()).get(CONTENTS) != contents:
                msg = f"batch {self.id!r} exists already, with other contents: choose another id"
                raise UsageError(msg) from None

    # --- members -------------------------------------------------------------------------------

    def add(self, op: RunOp[T], **options: Unpack[StartOptions]) -> Added[TemporalRun[T]]:
        """Add a member: a run of *op*, with options as for `TemporalEngine.start`. As `Batch.add`."""
        return self._add([with_options(op, **options)], lambda runs: runs[0])

    def add_many(self, ops: Iterable[RunOp[T]]) -> Added[list[TemporalRun[T]]]:
        """As `add`, for many."""
        return self._add([with_options(op) for op in ops], lambda runs: runs)

    def _add(self, ops: list[RunOp[T]], value: Callable[[list[TemporalRun[T]]], R]) -> Added[R]:
        if self._draft is not None and not self._entered:
            msg = f"{self!r} takes nothing before its block: use `async with engine.batch(...) as batch`"
            raise UsageError(msg)
        news = [self._new(op, number) for number, op in enumerate(ops)]
        asking = self._asking
        runs: list[TemporalRun[T]] = [
            _Member[T](asking, new.key or new.run_id, op.definition.result, batch=self)
            for new, op in zip(news, ops, strict=True)
        ]
        if self._draft is not None:
            self._members += news
            if len(self._members) > MOST:
                msg = f"{self!r} takes {MOST:,} members on Temporal, found more: nest batches"
                raise UsageError(msg)
            return Added(value(runs))
        return self._recorded(value(runs), self._give(self.id, NewBatch(self.id, members=news)))

    def _new(self, op: RunOp[Any], number: int) -> NewRun:
        asking, scope = self._asking, self._scope
        if self._draft is not None:
            run_id = f"{self.id}:{len(self._members) + number}"
        else:
            run_id = new_run_id(time.time()) if scope is None else scope.next_id("member")
        made = make_start(
            op, definitions=asking.definitions, codec=asking.codec, now=time.time(), run_id=run_id,
            carried=asking.carry.captured(asking.codec),
        )  # fmt: skip
        # By what an equal batch is known.
        return evolve(made.new, arguments=f"{made.new.workflow}:{_digest(asking, op, made.new)}")

    def _recorded(self, value: R, recording: Coroutine[Any, Any, None]) -> Added[R]:
        """*value*, which *recording* records: at once in a thread, as soon as possible on the loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._scope is None:
                recording.close()
                msg = f"{self!r} belongs to an event loop, and none runs in this thread"
                raise UsageError(msg) from None
            self._scope.on_loop(recording)
            return Added(value)
        return Added(value, asyncio.ensure_future(recording), self._scope)

    async def _give(self, batch_id: str, new: NewBatch) -> None:
        await self._update(batch_id, ADD, batch_text(new))

    def batch(
        self,
        *,
        on_success: Callbacks = None,
        on_failure: Callbacks = None,
        on_complete: Callbacks = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> TemporalBatch:
        """A nested batch, to be filled in a block of its own. As `Batch.batch`."""
        given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        return draft_batch(
            self._asking, given, description, labels, id, ancestors=(self.id, *self._ancestors), outer=self,
            scope=self._scope,
        )  # fmt: skip

    # --- asking --------------------------------------------------------------------------------

    async def info(self) -> BatchInfo:
        """The batch as it stands; a worker answers. Raises BatchNotFoundError if there is none, or no more."""
        return _info(await self.state())

    async def members(self) -> list[RunInfo]:
        """Its members, in the order in which they were added; those that have begun."""
        state = await self.state()
        found: list[RunInfo] = []
        for run_id in state.members:
            try:
                found.append(await TemporalRun[Any](self._asking, run_id).info())
            except UsageError:  # it has not begun, or has a key
                continue
        return found

    async def why(self) -> str:
        """What it waits for."""
        state = await self.state()
        if state.finished_at is not None:
            return f"batch {self.id!r} is finished"
        waiting = [run_id for run_id, status in state.members.items() if status == "pending"]
        named = f"{len(waiting):,} members, {waiting[0]!r} among them" if waiting else "nested batches or callbacks"
        return f"batch {self.id!r} is not finished: it waits for {named}"

    async def cancel(self, reason: str = "") -> bool:
        """Ask all members and nested batches to end; False if it is complete, or was asked before."""
        try:
            return bool(await self._update(self.id, CANCEL, reason))
        except BatchClosedError:
            return False

    async def retry(self, *, force: bool = False) -> int:
        """
        Retry all that failed in it, nested batches and callbacks included, or was cancelled before it began; how many.

        As `Batch.retry`, with the same errors, but that it is not done at once: a run that fails to be retried leaves
        others that are.
        """
        return await self._asking.mending.retry_batch(self._asking, self.id, force=force)

    async def wait(self, timeout: float | None = None) -> BatchInfo:
        """
        Wait until it is finished: all members, nested batches and callbacks have ended.

        Raises:
            BatchNotFoundError: There is none.
            TimeoutError: It did not finish within *timeout* seconds. It keeps running.
        """
        handle = self._asking.client.get_workflow_handle(batch_workflow_id(self.id), result_type=str)
        try:
            async with asyncio.timeout(timeout):
                await self.state()  # a nested one has begun then
                return _info(state_in(await handle.result()))
        except TimeoutError:
            msg = f"batch {self.id!r} is not finished after {timeout:g} s, and keeps running: {await self.why()}"
            raise TimeoutError(msg) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise BatchNotFoundError("id", self.id) from None
            raise

    async def state(self) -> BatchState:
        """What its workflow tells."""
        if self._draft is not None:
            msg = f"{self!r} is created at the end of its block; ask it afterwards"
            raise UsageError(msg)
        handle = self._asking.client.get_workflow_handle(batch_workflow_id(self.id))
        while True:
            try:
                return state_in(await handle.query(INFO, result_type=str))
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
            outer = self.parent
            if outer is None or (await outer.state()).completed_at is not None:
                raise BatchNotFoundError("id", self.id)
            await asyncio.sleep(_BEGINS)  # its outer batch has yet to begin it

    async def _update(self, batch_id: str, name: str, argument: str) -> Any:
        try:
            return await self._asking.client.get_workflow_handle(batch_workflow_id(batch_id)).execute_update(
                name, argument
            )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == CLOSED:
                raise BatchClosedError(batch_id, cause.message) from None
            raise UsageError(str(cause)) from None
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            await TemporalBatch(self._asking, batch_id).state()  # it says if there is none
            raise BatchClosedError(batch_id, "complete") from None


class _Member(TemporalRun[T]):
    """A member, which exists from when its batch has begun it."""

    def __init__(self, asking: Asking, run_id: str, result_type: Any, *, batch: TemporalBatch) -> None:
        super().__init__(asking, run_id, result_type)
        self._batch = batch

    async def _end(self) -> RunEnd:
        while True:
            try:
                return await super()._end()
            except RunNotFoundError:
                await self._wait_to_begin()

    async def _describe(self) -> WorkflowExecutionDescription:
        while True:
            try:
                return await super()._describe()
            except RunNotFoundError:
                await self._wait_to_begin()

    async def _wait_to_begin(self) -> None:
        """Wait a moment, where the batch is still to begin it; raises RunNotFoundError where it is not."""
        state = await self._batch.state()
        if state.members.get(self.id) != "pending":
            raise RunNotFoundError("id", self.id)
        await asyncio.sleep(_BEGINS)


def draft_batch(
    asking: Asking,
    callbacks: Mapping[str, Callbacks],
    description: str,
    labels: Mapping[str, str] | None,
    batch_id: str | None,
    *,
    ancestors: tuple[str, ...] = (),
    outer: TemporalBatch | None = None,
    scope: Scope | None = None,
) -> TemporalBatch:
    """A batch to be filled in its block."""
    made = {event: _callbacks_of(asking, ops) for event, ops in callbacks.items()}
    given = dict(labels or {})
    check_labels("a batch", given)
    chosen = batch_id is not None or scope is not None
    if batch_id is not None:
        check_name("a batch id", batch_id, MAX_KEY_LENGTH)
    else:
        batch_id = new_run_id(time.time()) if scope is None else scope.next_id("batch")
    draft = NewBatch(batch_id, description, given, ancestors, callbacks=made)
    return TemporalBatch(asking, batch_id, ancestors=ancestors, draft=draft, outer=outer, chosen=chosen, scope=scope)


def _callbacks_of(asking: Asking, ops: Callbacks) -> list[NewRun]:
    made: list[NewRun] = []
    for op in callback_ops(ops):
        start = make_start(
            op, definitions=asking.definitions, codec=asking.codec, now=time.time(),
            carried=asking.carry.captured(asking.codec),
        )  # fmt: skip
        arguments = f"{start.new.workflow}:{_digest(asking, op, start.new)}"
        made.append(evolve(start.new, key=None, key_ttl=None, chosen_id=False, arguments=arguments))
    return made


def _digest(asking: Asking, op: RunOp[Any], new: NewRun) -> str:
    return call_digest(op, new.started.value or "", asking.codec)


def _contents(new: NewBatch) -> list[Any]:
    def brief(runs: Sequence[NewRun]) -> list[Any]:
        return [[run.workflow, run.arguments, run.key] for run in runs]

    callbacks = {event: brief(made) for event, made in new.callbacks.items()}
    nested = [_contents(each) for each in new.nested]
    return batch_contents(new.description, new.labels, callbacks, brief(new.members), nested)


def _info(state: BatchState) -> BatchInfo:
    ended = [*state.members.values()]
    return BatchInfo(
        batch_id=state.batch_id,
        description=state.description,
        labels=state.labels,
        parent=state.parent,
        status="open" if state.completed_at is None else "complete",
        total=len(ended),
        pending=ended.count("pending"),
        succeeded=ended.count("succeeded"),
        failed=ended.count("failed"),
        cancelled=ended.count("cancelled"),
        created_at=state.created_at,
        cancelled_at=state.cancelled_at,
        reason=state.reason,
        completed_at=state.completed_at,
        finished_at=state.finished_at,
        outcome=state.outcome,
    )


async def list_batches(
    asking: Asking, labels: Mapping[str, str] | None, description: str | None, limit: int | None
) -> AsyncIterator[BatchInfo]:
    """Batches, newest first, as the server finds them; each is asked for by itself."""
    left = limit
    query = f"WorkflowType = '{BATCH}' AND TaskQueue = '{asking.default_queue}'"
    async for found in asking.client.list_workflows(query):
        if left == 0:
            return
        batch = TemporalBatch(asking, found.id.removeprefix(f"{BATCH}:"))
        info = await batch.info()
        if description is not None and description not in info.description:
            continue
        if any(info.labels.get(name) != value for name, value in (labels or {}).items()):
            continue
        yield info
        left = None if left is None else left - 1


class BatchesHere(BatchesElsewhere):
    """What `current_batch` asks in a step or job of a server's."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def batch_of(self, scope: Scope) -> TemporalBatch:
        """The batch that the run of *scope* is a member or callback of."""
        return TemporalBatch(self._asking, scope.batches[0], ancestors=scope.batches[1:], scope=scope)
