"""
The workflow of a batch: it starts the members, hears how each ends, starts what follows, and ends when that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final

from attrs import evolve
from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from durable._core.codec.json_text import loads
from durable._core.statuses import EndStatus
from durable._shell.log import log
from durable._shell.rows import templates
from durable._shell.rows.rows import NewRun
from durable.temporal._batches.wire import (
    ADD,
    BATCH,
    CANCEL,
    CLOSED,
    INFO,
    REOPEN,
    WHOLE,
    BatchState,
    Event,
    NewBatch,
    Reopening,
    batch_in,
    batch_text,
    reopening_in,
    state_in,
    state_text,
)
from durable.temporal._driving.child_runs import END_OF
from durable.temporal._driving.here import now
from durable.temporal._setup.setup import Setup, setup_here
from durable.temporal._wire import ends
from durable.temporal._wire.ends import RunEnd
from durable.temporal._wire.payloads import from_plain, unpacked_text
from durable.temporal._wire.starts import Start, labels_of, memo_of_batches

#: Members that are open at once: the server refuses a run with 2,000 children.
_OPEN: Final = 1_000
#: How often it is asked again how what was begun again has ended, while that is open.
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(seconds=0.2), maximum_interval=timedelta(seconds=2))
#: Members that one batch takes: the server's history of it has five events for each, and ends at 51,200.
MOST: Final = 8_000


@workflow.defn(name=BATCH)
class BatchWorkflow:
    """A batch, and how it stands."""

    @workflow.init
    def __init__(self, text: str, before: str | None = None, _again: str | None = None) -> None:
        self._new: NewBatch = batch_in(text)
        self._setup: Setup = setup_here()
        self._created_at = now()
        #: How each member has ended, or "pending"; and nested batches and callbacks likewise.
        self._members: dict[str, str] = {}
        self._nested: dict[str, str] = {}
        self._callbacks: dict[str, str] = {}
        self._begun: set[str] = set()
        self._open: dict[str, workflow.ChildWorkflowHandle[Any, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_OPEN)
        self._cancelled_at: float | None = None
        self._completed_at: float | None = None
        self._finished_at: float | None = None
        self._outcome: EndStatus | None = None
        self._reason = ""
        if before is not None:
            self._take_over(state_in(before))

    @workflow.run
    async def run(self, _text: str, _before: str | None = None, again: str | None = None) -> str:
        """
        Last until all of it has ended; how.

        One that is opened again, once it had ended, is given how it stood, and what of it was begun again.
        """
        self._add(self._new.members, self._new.nested)
        if again is not None:
            self._reopen(reopening_in(again))
        while self._finished_at is None:
            await self._until_over()
            self._completed_at = now()
            if self._has_failed:
                self._start("on_failure")
            elif self._ended_as() == "succeeded":
                self._start("on_success")
            self._start("on_complete")
            await workflow.wait_condition(lambda: "pending" not in self._callbacks.values() or not self._is_over)
            if self._is_over:
                self._finished_at = now()
        self._outcome = self._ended_as()
        return state_text(self._state())

    async def _until_over(self) -> None:
        try:
            await workflow.wait_condition(lambda: self._has_failed or self._is_over)
            if self._has_failed:
                self._start("on_failure")
            await workflow.wait_condition(lambda: self._is_over)
        except asyncio.CancelledError:  # by the server's own tools
            self._cancel("")
            await workflow.wait_condition(lambda: self._is_over)

    def _take_over(self, state: BatchState) -> None:
        self._created_at = state.created_at
        self._members, self._nested = dict(state.members), dict(state.nested)
        self._callbacks, self._begun = dict(state.callbacks), set(state.begun)

    @workflow.query(name=INFO)
    def info(self) -> str:
        """How it stands."""
        return state_text(self._state())

    @workflow.query(name=WHOLE)
    def whole(self) -> str:
        """All that is in it, as it was given; also what was added."""
        return batch_text(self._new)

    @workflow.update(name=REOPEN)
    def reopen(self, text: str) -> None:
        """Wait for what has been begun again, and begin what never was."""
        self._reopen(reopening_in(text))

    @workflow.update(name=ADD)
    def add(self, text: str) -> None:
        """Take more members, and nested batches. Those that it has are passed over."""
        new, whole = batch_in(text), self._new
        members = [each for each in new.members if each.run_id not in self._members]
        nested = [each for each in new.nested if each.batch_id not in self._nested]
        self._new = evolve(whole, members=[*whole.members, *members], nested=[*whole.nested, *nested])
        self._add(members, nested)

    @add.validator
    def check_add(self, text: str) -> None:
        """Refuse them, if it is over."""
        given = batch_in(text)
        if all(each.run_id in self._members for each in given.members) and not given.nested:
            return  # asked a second time
        if self._completed_at is not None or self._cancelled_at is not None:
            raise ApplicationError("cancelled" if self._cancelled_at is not None else "complete", type=CLOSED)
        if len(self._members) + len(given.members) > MOST:
            msg = f"batch {self._new.batch_id!r} has {len(self._members):,} members, and takes {MOST:,} on Temporal"
            raise ApplicationError(f"{msg}: nest batches", type="durable.batch_full")

    @workflow.update(name=CANCEL)
    def cancel(self, reason: str) -> bool:
        """Ask all members to end; False if there is nothing to ask."""
        if self._completed_at is not None or self._cancelled_at is not None:
            return False
        self._cancel(reason)
        return True

    # --- what it starts ------------------------------------------------------------------------

    def _add(self, members: Sequence[NewRun], nested: Sequence[NewBatch]) -> None:
        for new in members:
            if new.run_id not in self._members:
                self._members[new.run_id] = "pending"
                self._do(self._member(new, new.run_id, self._members))
        for batch in nested:
            if batch.batch_id not in self._nested:
                self._nested[batch.batch_id] = "pending"
                self._do(self._nested_batch(batch))

    def _start(self, event: Event) -> None:
        if event in self._begun:
            return
        self._begun.add(event)
        for number, template in enumerate(self._new.callbacks.get(event, ())):
            run_id = f"{self._new.batch_id}:{event}.{number}"
            self._callbacks[run_id] = "pending"
            self._do(self._member(template, run_id, self._callbacks))

    def _reopen(self, reopening: Reopening) -> None:
        self._cancelled_at, self._completed_at, self._reason = None, None, ""
        for run_id, workflow_id in reopening.runs.items():
            kept = self._callbacks if run_id in self._callbacks else self._members
            kept[run_id] = "pending"
            self._do(self._run_again(run_id, workflow_id, kept))
        for new in self._new.members:
            if new.run_id in reopening.unknown:
                self._members[new.run_id] = "pending"
                begun = evolve(
                    new, due_at=None, delay=None, expires_at=None, expires=None
                )  # it is wanted, however late
                self._do(self._member(begun, new.run_id, self._members))
        for batch_id in reopening.nested:
            self._nested[batch_id] = "pending"
            self._do(self._nested_again(batch_id))

    async def _run_again(self, run_id: str, workflow_id: str, kept: dict[str, str]) -> None:
        kept[run_id] = (await _end_of(workflow_id)).status

    async def _nested_again(self, batch_id: str) -> None:
        end = await _end_of(batch_workflow_id(batch_id))
        told = None if end.outcome is None else state_in(loads(str(end.outcome)))
        self._nested[batch_id] = "failed" if told is None or told.outcome is None else told.outcome

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _member(self, template: NewRun, run_id: str, kept: dict[str, str]) -> None:
        async with self._room:
            if kept is self._members and self._cancelled_at is not None:
                kept[run_id] = "cancelled"
                return
            start = Start(templates.begun(template, run=0, run_id=run_id, now=now()))
            new, setup = start.new, self._setup
            memo = {**start.memo, **memo_of_batches([self._new.batch_id, *self._new.ancestors])}
            try:
                handle = self._open[run_id] = await workflow.start_child_workflow(
                    new.workflow,
                    args=start.arguments,
                    id=start.workflow_id,
                    task_queue=setup.task_queue(new.queue),
                    result_type=RawValue,
                    memo=memo,
                    priority=start.priority,
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                    search_attributes=labels_of(new) if setup.searchable else None,
                    id_reuse_policy=start.reuse,
                )
                if kept is self._members and self._cancelled_at is not None:  # it was asked while the child began
                    handle.cancel()
                await handle
                kept[run_id] = "succeeded"
            except ChildWorkflowError as error:
                kept[run_id] = ends.end_in(error.cause, setup.codec).status
            except WorkflowAlreadyStartedError:
                log.error("batch.member_exists", batch=self._new.batch_id, run_id=start.workflow_id)
                kept[run_id] = "failed"
            finally:
                self._open.pop(run_id, None)

    async def _nested_batch(self, batch: NewBatch) -> None:
        kept, batch_id = self._nested, batch.batch_id
        new = evolve(batch, ancestors=(self._new.batch_id, *self._new.ancestors))
        try:
            handle = self._open[batch_id] = await workflow.start_child_workflow(
                BATCH,
                batch_text(new),
                id=batch_workflow_id(batch_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                result_type=str,
            )
            if self._cancelled_at is not None:
                self._cancel_one(batch_id)
            kept[batch_id] = state_in(await handle).outcome or "failed"
        except (ChildWorkflowError, WorkflowAlreadyStartedError):
            kept[batch_id] = "failed"
        finally:
            self._open.pop(batch_id, None)

    # --- how it ends ---------------------------------------------------------------------------

    def _cancel(self, reason: str) -> None:
        self._cancelled_at, self._reason = now(), reason
        for run_id in [*self._open]:
            self._cancel_one(run_id)

    def _cancel_one(self, run_id: str) -> None:
        if run_id in self._callbacks:
            return
        self._open[run_id].cancel()

    @property
    def _has_failed(self) -> bool:
        return "failed" in self._members.values() or "failed" in self._nested.values()

    @property
    def _is_over(self) -> bool:
        return "pending" not in self._members.values() and "pending" not in self._nested.values()

    def _ended_as(self) -> EndStatus:
        found = {*self._members.values(), *self._nested.values(), *self._callbacks.values()}
        if "failed" in found:
            return "failed"
        return "cancelled" if self._cancelled_at is not None or "cancelled" in found else "succeeded"

    def _state(self) -> BatchState:
        new = self._new
        return BatchState(
            new.batch_id,
            new.description,
            new.labels,
            new.ancestors[0] if new.ancestors else None,
            self._members,
            self._created_at,
            self._cancelled_at,
            None if self._cancelled_at is None else self._reason,
            self._completed_at,
            self._finished_at,
            self._outcome,
            self._nested,
            self._callbacks,
            sorted(self._begun),
        )


async def _end_of(workflow_id: str) -> RunEnd:
    """The end of what is no child of the batch, since it was begun again from outside."""
    raw: RawValue = await workflow.execute_activity(
        END_OF,
        args=[workflow_id, ""],
        result_type=RawValue,
        start_to_close_timeout=timedelta(minutes=2),
        retry_policy=_AGAIN,
    )
    told = loads(unpacked_text(raw))
    return RunEnd(told["status"], None if told["outcome"] is None else from_plain(told["outcome"]), told["reason"])


def batch_workflow_id(batch_id: str) -> str:
    """The id on the server of the batch called *batch_id*."""
    return f"{BATCH}:{batch_id}"
