"""
What callers hold of batches: `Batch`, and `current_batch` in members and callbacks.

A batch is drafted in memory within `async with` and created in one transaction at its end; from
then on the same object is a handle on it: an id, and a way to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Generic, Self, TypeVar, Unpack

import anyio
from attrs import evolve

from durable._core.authoring.op_constructors import with_options
from durable._core.journal.payloads import call_digest
from durable._core.program.current_driver import driver_in_charge
from durable._core.program.definition import MAX_KEY_LENGTH, check_labels, check_name
from durable._core.program.ops import RunOp
from durable._core.program.start_options import StartOptions
from durable._shell.attempts.context import BatchesElsewhere, Scope, scope_here
from durable._shell.backend import Backend
from durable._shell.handles.batch_drafts import Callbacks, Draft, callbacks_of
from durable._shell.handles.batch_info import BatchInfo, batch_info
from durable._shell.handles.handle import Run, overdue
from durable._shell.handles.run_info import RunInfo, all_infos
from durable._shell.reads import batch_rows, run_rows
from durable._shell.requests.batch_requests import AddToBatch, CancelBatch
from durable._shell.requests.history_requests import RetryBatch
from durable._shell.rows.new_runs import new_run_id
from durable._shell.rows.rows import NewRun
from durable.errors import BatchNotFoundError, UsageError

T = TypeVar("T")
R = TypeVar("R")


class Added(Generic[R]):
    """
    Members that were added. Await it for their handles.

    Within the block of a batch, there is nothing to wait for: they are created with it.
    Elsewhere, they are recorded once this was awaited.
    """

    def __init__(self, value: R, recording: asyncio.Future[None] | None = None, scope: Scope | None = None) -> None:
        self._value = value
        self._recording = recording
        self._scope = scope
        if recording is not None and scope is not None:
            scope.adding += (recording,)

    def __await__(self) -> Generator[Any, None, R]:
        recording, scope = self._recording, self._scope
        if recording is not None:
            if scope is not None and recording in scope.adding:
                # Whatever goes wrong is raised here.
                scope.adding = tuple(each for each in scope.adding if each is not recording)
            yield from asyncio.shield(recording).__await__()
        return self._value


class Batch:
    """
    Runs that are watched together, with callbacks for their end.

    Made by `engine.batch`, filled in its block, and recorded as a whole at the end of that; from
    then on, and from `engine.get_batch`, a handle.

    Example:
        >>> @job
        ... async def page(number: int) -> int:
        ...     return number
        >>> async with Engine(":memory:", [page]) as engine:
        ...     async with engine.batch(description="a book") as batch:
        ...         runs = [batch.add(page(number)) for number in range(3)]
        ...     (await batch.wait()).succeeded
        3
    """

    def __init__(
        self,
        backend: Backend,
        batch_id: str,
        *,
        ancestors: tuple[str, ...] | None = None,
        scope: Scope | None = None,
        draft: Draft | None = None,
    ) -> None:
        self._backend = backend
        self._ancestors = ancestors
        self._scope = scope
        self._draft = draft
        #: Its id.
        self.id = batch_id

    def __repr__(self) -> str:
        return f"<Batch {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def parent(self) -> Batch | None:
        """
        The batch that it is nested in, if it is.

        Raises:
            UsageError: On a handle of `engine.get_batch`, which knows no more than the id.
        """
        if self._ancestors is None:
            msg = f"{self!r} is known by its id alone: its parent is (await batch.info()).parent"
            raise UsageError(msg)
        if not self._ancestors:
            return None
        return Batch(self._backend, self._ancestors[0], ancestors=self._ancestors[1:], scope=self._scope)

    # --- drafting it -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        draft = self._draft
        if draft is None or draft.entered:
            msg = f"{self!r} was made before: its block is entered once"
            raise UsageError(msg)
        draft.entered = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        draft = self._draft
        assert draft is not None
        if kind is not None:
            draft.discarded = True
        elif draft.outer is not None and not draft.outer.created:
            draft.outer.check_entered()
            draft.outer.nested.append(draft)
        else:
            await draft.create(self._backend)

    # --- members -----------------------------------------------------------------------------------

    def add(self, op: RunOp[T], **options: Unpack[StartOptions]) -> Added[Run[T]]:
        """
        Add a member: a run of *op*, with options as for `Engine.start`.

        Await what this returns for the member's handle, and to know that it is recorded. In the
        block of the batch, members are recorded at its end. In a plain function that runs in a
        thread, it is recorded when this returns; in any step or job, before its outcome is. A
        step that runs again adds nothing twice: its nth `add` is the nth in each attempt.

        Raises:
            BatchClosedError: When awaited, as the next ones: it is complete, or was cancelled. Nothing is started.
            KeyConflictError: The key belongs to a run outside of the batch, whose end would not be awaited.
            RunExistsError: Likewise the id.
        """
        return self._add([with_options(op, **options)], lambda runs: runs[0])

    def add_many(self, ops: Iterable[RunOp[T]]) -> Added[list[Run[T]]]:
        """As `add`, for many in one transaction: all, or none. Options are given by ``op.options(...)``."""
        return self._add([with_options(op) for op in ops], lambda runs: runs)

    def _add(self, ops: list[RunOp[T]], value: Callable[[list[Run[T]]], R]) -> Added[R]:
        backend = self._backend
        draft = self._draft
        if draft is not None and not draft.created:
            draft.check_entered()
            added: list[Run[T]] = []
            for op in ops:
                new = backend.new_run(op, run_id=f"{self.id}:{len(draft.members)}")
                added.append(Run(backend, new.run_id, op.definition.result))
                draft.members.append((new, op, added[-1]))
            return Added(value(added))
        news = [self._new(op) for op in ops]
        runs: list[Run[T]] = [Run(backend, new.run_id, op.definition.result) for new, op in zip(news, ops, strict=True)]
        return self._recorded(value(runs), lambda: self._record(news, runs))

    def _new(self, op: RunOp[Any]) -> NewRun:
        scope = self._scope
        if scope is None or op.given.id is not None:
            return self._backend.new_run(op)
        new = self._backend.new_run(op, run_id=scope.next_id("member"))
        digest = call_digest(op, new.started.value or "", self._backend.codec)
        return evolve(new, chosen_id=True, arguments=f"{new.workflow}:{digest}")

    async def _record(self, news: list[NewRun], runs: list[Run[T]]) -> None:
        ids = await self._backend.request(AddToBatch(self.id, tuple(news)))
        for run, run_id in zip(runs, ids, strict=True):
            run.id = run_id

    def _recorded(self, value: R, record: Callable[[], Coroutine[Any, Any, None]]) -> Added[R]:
        """*value*, which *record* records: at once in a thread, as soon as possible on the loop."""
        if self._scope is not None:
            self._scope.check()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._scope is None:
                msg = f"{self!r} belongs to an event loop, and none runs in this thread"
                raise UsageError(msg) from None
            self._scope.on_loop(record())
            return Added(value)
        return Added(value, asyncio.ensure_future(record()), self._scope)

    def batch(
        self,
        *,
        on_success: Callbacks = None,
        on_failure: Callbacks = None,
        on_complete: Callbacks = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Batch:
        """
        A nested batch, to be filled in a block of its own.

        In the block of this one it is created with it, otherwise at its own end. This one is
        complete only after the nested one is finished, callbacks included. Arguments and errors
        are those of `Engine.batch`.

        Raises (at the end of its block):
            BatchClosedError: This one is complete, or was cancelled.
        """
        given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        ancestors = None if self._ancestors is None else (self.id, *self._ancestors)
        return draft_batch(
            self._backend, given, description, labels, id,
            parent=self.id, outer=self._draft, ancestors=ancestors, scope=self._scope,
        )  # fmt: skip

    # --- asking ------------------------------------------------------------------------------------

    async def info(self) -> BatchInfo:
        """The batch as it stands. Raises BatchNotFoundError if it was pruned."""
        row = await self._backend.read(batch_rows.batch_by_id, self._recorded_id())
        if row is None:
            raise BatchNotFoundError("id", self.id)
        return batch_info(row, self._backend.codec)

    async def members(self) -> list[RunInfo]:
        """Its members, oldest first, without those of nested batches. Raises as `info`."""
        await self.info()
        return await all_infos(self._backend, run_rows.Filter(batch=self.id))

    async def why(self) -> str:
        """One sentence: what it waits for, first of all a run that is blocked. Raises as `info`."""
        row = await self.info()
        if row.finished_at is not None:
            return f"batch {self.id!r} is finished"
        found = await overdue(self._backend, batch_rows.why_unfinished, self.id)
        return f"batch {self.id!r} is not finished: {found}"

    async def cancel(self, reason: str = "") -> bool:
        """
        Ask all members and nested batches to end; False if it is complete, or was asked before.

        Members that have not started never run. `on_complete` starts when all have ended, `on_success` never.
        """
        return await self._backend.request(CancelBatch(self._recorded_id(), self._backend.codec.conceal(reason)))

    async def retry(self, *, force: bool = False) -> int:
        """
        Retry all that failed in it, nested batches and callbacks included, or was cancelled before it began; how many.

        It is open again until all of that has ended: `on_success` starts if then all have succeeded. What has started
        once, `on_failure` and `on_complete`, does not start again.

        Raises:
            BatchNotFoundError: There is none.
            RetryRefusedError: Steps ran because of a failure: none is retried, unless by *force*. See `Run.retry`.
        """
        return await self._backend.request(RetryBatch(self._recorded_id(), force))

    async def wait(self, timeout: float | None = None) -> BatchInfo:
        """
        Wait until it is finished: all members, nested batches and callbacks have ended.

        Raises:
            BatchNotFoundError: There is none.
            TimeoutError: It did not finish within *timeout* seconds, and why. It keeps running.
        """
        with anyio.move_on_after(timeout):
            await self._backend.end_of_batch(self._recorded_id())
            return await self.info()
        found = await overdue(self._backend, batch_rows.why_unfinished, self.id)
        msg = f"batch {self.id!r} is not finished after {timeout:g} s, and keeps running: {found}"
        raise TimeoutError(msg)

    def _recorded_id(self) -> str:
        if self._draft is not None and not self._draft.created:
            msg = f"{self!r} is created at the end of its block; ask it afterwards"
            raise UsageError(msg)
        return self.id


def draft_batch(
    backend: Backend,
    callbacks: Mapping[str, Callbacks],
    description: str,
    labels: Mapping[str, str] | None,
    batch_id: str | None,
    *,
    parent: str | None = None,
    outer: Draft | None = None,
    ancestors: tuple[str, ...] | None = (),
    scope: Scope | None = None,
) -> Batch:
    """A batch to be filled in its block."""
    made = {event: callbacks_of(backend, ops) for event, ops in callbacks.items()}
    labels = dict(labels or {})
    check_labels("a batch", labels)
    chosen = batch_id is not None or scope is not None
    if batch_id is not None:
        check_name("a batch id", batch_id, MAX_KEY_LENGTH)
    else:
        batch_id = new_run_id(backend.clock.now()) if scope is None else scope.next_id("batch")
    draft = Draft(batch_id, description, labels, made, parent, outer, chosen)
    return Batch(backend, batch_id, ancestors=ancestors, scope=scope, draft=draft)


def current_batch() -> Batch:
    """
    The batch that the job or step which asks is a member of, or a callback of.

    Raises:
        UsageError: It is neither. The children of a member are not members.

    Example:
        >>> @job
        ... async def page(number: int, last: int) -> int:
        ...     if number < last:
        ...         await current_batch().add(page(number + 1, last))
        ...     return number
        >>> async with Engine(":memory:", [page]) as engine:
        ...     async with engine.batch() as batch:
        ...         _ = batch.add(page(1, 3))
        ...     (await batch.wait()).succeeded
        3
    """
    scope = scope_here()
    backend = None if scope is None else scope.around.backend
    if scope is None or backend is None or not scope.batches:
        msg = "current_batch() works in steps and jobs of runs that are members or callbacks of a batch; none runs here"
        if driver_in_charge() is not None:
            msg += " (this is workflow code: ask in a step of it)"
        raise UsageError(msg)
    if isinstance(backend, BatchesElsewhere):
        elsewhere: Batch = backend.batch_of(scope)
        return elsewhere
    return Batch(backend, scope.batches[0], ancestors=scope.batches[1:], scope=scope)
