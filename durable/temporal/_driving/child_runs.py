"""
Children of one run, and other runs whose end it awaits.

A child is a child workflow of the server. One that is only started continues when its parent ends; one that is awaited
is cancelled then. Runs that are nobody's child here (one found by its key, or of a run that came from elsewhere) are
waited for by an activity that asks the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from attrs import define, evolve
from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
)

from durable._core.codec.json_text import loads
from durable._core.journal.events import ChildCancelled, ChildFailed, ChildJoined, ChildSucceeded
from durable._core.journal.payloads import failure_payload
from durable._core.journal.waits import Wait
from durable._core.run.decision import ChildAction, FedChild, Feed
from durable._shell.log import log
from durable.errors import DurableError, PoisonError
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.light_jobs import begin_light, is_light
from durable.temporal._limits.room import Room
from durable.temporal._wire import ends
from durable.temporal._wire.ends import RunEnd
from durable.temporal._wire.payloads import failure_of, from_plain, unpacked, unpacked_text
from durable.temporal._wire.starts import Start, labels_of, make_start, workflow_id_of

ChildEnd: TypeAlias = ChildSucceeded | ChildFailed | ChildCancelled

#: The activity that waits for the end of a run; and how often it is asked again while that is open.
END_OF: Final = "durable.end_of"
_AGAIN: Final = RetryPolicy(
    initial_interval=timedelta(seconds=0.5), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=30)
)


@define
class _Window:
    """The later items of a `for_each`: each end of a child lets the next one begin."""

    feed: Feed
    waiting: deque[FedChild]
    tolerate: int


class ChildRuns:
    """The runs that one run awaits, or has started."""

    def __init__(self, here: RunHere, room: Room) -> None:
        self._here = here
        self._room = room
        #: Those that were begun, by id: their ends.
        self._ends: dict[str, asyncio.Task[ChildEnd]] = {}
        #: Children whose start the server has not confirmed: a run that ended now might never start them.
        self._starting: set[str] = set()
        #: Where the end of those is awaited that wait for room.
        self._awaited_at: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        #: Where the end of a run is awaited that others have started, by its id: it was joined by its key.
        self._others: dict[str, str] = {}
        #: Positions where no end is awaited any more.
        self._left: set[str] = set()
        #: Cancels on their way.
        self._sending: set[asyncio.Task[None]] = set()
        self._windows: dict[str, _Window] = {}
        #: Those of them that are activities, while they run.
        self._lights: dict[str, workflow.ActivityHandle[RawValue]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether the end of none is awaited."""
        return all(task.done() for task in self._ends.values()) and not self._windows

    @property
    def are_started(self) -> bool:
        """Whether the server has confirmed the start of all."""
        return not self._starting

    # --- beginning -----------------------------------------------------------------------------

    def begin(self, action: ChildAction) -> None:
        """Start a child, as soon as there is room."""
        self._starting.add(action.run_id)
        self._room.begin(action.run_id, partial(self._begin, action))

    def _begin(self, action: ChildAction) -> None:
        light = self._here.setup.light_jobs and is_light(action)
        task = asyncio.ensure_future(self._light(action) if light else self._child(action))
        self._ends[action.run_id] = task
        # By a callback, and no `finally`: that would run when a worker which has closed drops the coroutine.
        task.add_done_callback(self._make_room)
        if (position := self._awaited_at.pop(action.run_id, None)) is not None:
            task.add_done_callback(partial(self._arrive, position, None))

    def _make_room(self, _: asyncio.Task[ChildEnd]) -> None:
        self._room.ended()

    async def _child(self, action: ChildAction) -> ChildEnd:
        """Start a child, and wait for its end."""
        try:
            start = self._start_of(action)
        except DurableError as error:
            self._starting.discard(action.run_id)
            return ChildFailed(action.position, "", failure_payload(error, self._here.setup.codec), now())
        try:
            running = await self._started(action, start)
        except WorkflowAlreadyStartedError:
            self._joined(action, start)
            self._others[start.workflow_id] = action.position
            return await self._end_of(start.workflow_id, action.position, start.new.arguments)
        finally:
            self._starting.discard(action.run_id)
        self._joined(action, start)
        return await self._end(running, action.position, action.run_id)

    async def _light(self, action: ChildAction) -> ChildEnd:
        """Run a job without a run, and wait for its end."""
        self._starting.discard(action.run_id)
        position, run_id, codec = action.position, action.run_id, self._here.setup.codec
        running = self._lights[run_id] = begin_light(self._here, action)
        try:
            return ChildSucceeded(position, unpacked(await running), now())
        except ActivityError as error:
            cause = error.cause
            if isinstance(cause, CancelledError):
                return ChildCancelled(position, run_id, self._reasons.get(run_id, ""), now())
            payload, told = failure_of(cause)
            if isinstance(cause, ApplicationError) and cause.type == ends.POISON:
                cut_off = PoisonError("0", action.op.definition.name, told["crashes"])
                payload = failure_payload(cut_off, codec, with_traceback=False)
            return ChildFailed(position, run_id, payload or ends.foreign_failure(cause, codec), now())
        finally:
            del self._lights[run_id]

    def _start_of(self, action: ChildAction) -> Start:
        setup = self._here.setup
        return make_start(
            action.op, definitions=setup.registry.definitions, codec=setup.codec, now=now(), run_id=action.run_id,
            position=action.position, arguments=action.arguments, keys=action.keys,
            carried=self._here.new.started.carried,
        )  # fmt: skip

    async def _started(self, action: ChildAction, start: Start) -> workflow.ChildWorkflowHandle[Any, RawValue]:
        ends_with_parent = action.awaited or action.ends_with_parent
        policy = workflow.ParentClosePolicy
        new = start.new
        return await workflow.start_child_workflow(
            new.workflow,
            args=self._room.counted(start.arguments),
            id=start.workflow_id,
            task_queue=self._here.setup.task_queue(new.queue),
            result_type=RawValue,
            memo=start.memo,
            priority=start.priority,
            cancellation_type=workflow.ChildWorkflowCancellationType.TRY_CANCEL,
            parent_close_policy=policy.REQUEST_CANCEL if ends_with_parent else policy.ABANDON,
            search_attributes=labels_of(new) if self._here.setup.searchable else None,
            id_reuse_policy=start.reuse,
        )

    def _joined(self, action: ChildAction, start: Start) -> None:
        """Say which run it is, where that was for the server to find out."""
        if start.new.may_exist:
            self._ends[start.workflow_id] = self._ends.pop(action.run_id)
            self._here.inbox.append(ChildJoined(action.position, start.workflow_id, now()))

    # --- awaiting ------------------------------------------------------------------------------

    def await_end(self, wait: Wait, run_id: str) -> None:
        """Let the end of a run arrive."""
        task = self._ends.get(run_id)
        if task is None and run_id in self._starting:
            self._awaited_at[run_id] = wait.position
            return
        if task is None:
            task = asyncio.ensure_future(self._end_of(run_id, wait.position, ""))
            self._ends[run_id] = task
        task.add_done_callback(partial(self._arrive, wait.position, wait.name))

    def _arrive(self, position: str, feed: str | None, task: asyncio.Task[ChildEnd]) -> None:
        if task.cancelled() or position in self._left:
            return
        end = evolve(task.result(), position=position)
        self._here.inbox.append(end)
        if feed is not None:
            self._advance_window(feed, succeeded=isinstance(end, ChildSucceeded))

    async def _end(self, running: workflow.ChildWorkflowHandle[Any, RawValue], position: str, run_id: str) -> ChildEnd:
        try:
            return ChildSucceeded(position, unpacked(await running), now())
        except ChildWorkflowError as error:
            return self._event(ends.end_in(error.cause, self._here.setup.codec), position, run_id)

    def _event(self, end: RunEnd, position: str, run_id: str) -> ChildEnd:
        match end.status:
            case "succeeded":
                return ChildSucceeded(position, end.outcome, now())
            case "cancelled":
                return ChildCancelled(position, run_id, end.reason or self._reasons.get(run_id, ""), now())
            case "failed":
                return ChildFailed(position, run_id, end.outcome, now())

    async def _end_of(self, run_id: str, position: str, digest: str) -> ChildEnd:
        """The end of a run that is no child here; a failure, if it was started with other arguments than *digest*."""
        asked = workflow.start_activity(
            END_OF,
            args=[run_id, digest],
            activity_id=f"{position}:end",
            result_type=RawValue,
            start_to_close_timeout=timedelta(minutes=2),
            retry_policy=_AGAIN,
        )
        try:
            told = loads(unpacked_text(await asked))
        except ActivityError as error:
            payload, _ = failure_of(error.cause)
            return ChildFailed(position, "", payload or failure_payload(error, self._here.setup.codec), now())
        outcome = None if told["outcome"] is None else from_plain(told["outcome"])
        return self._event(RunEnd(told["status"], outcome, told["reason"]), position, run_id)

    # --- windows -------------------------------------------------------------------------------

    def open_window(self, feed: Feed) -> None:
        """Start the later items of a `for_each` as its children end."""
        self._windows[feed.position] = _Window(feed, deque(feed.children), feed.tolerate or 0)

    def close_window(self, position: str, reason: str) -> None:
        """Start no more of them: those that were to come end as cancelled."""
        window = self._windows.pop(position, None)
        for each in () if window is None else window.waiting:
            self._here.inbox.append(ChildCancelled(f"{position}.{each.item}", each.run_id, reason, now()))

    def _advance_window(self, position: str, *, succeeded: bool) -> None:
        window = self._windows.get(position)
        if window is None:
            return
        if not succeeded and window.tolerate <= 0:
            del self._windows[position]
            return
        window.tolerate -= not succeeded
        if not window.waiting:
            del self._windows[position]
            return
        fed, feed = window.waiting.popleft(), window.feed
        codec = self._here.setup.codec
        args, kwargs = codec.decode_arguments(fed.arguments, feed.op.definition.arguments)
        op = evolve(feed.op, args=tuple(args), kwargs=dict(kwargs))
        at = f"{position}.{fed.item}"
        self.begin(ChildAction(at, fed.run_id, op, fed.arguments, awaited=True))
        self.await_end(Wait(at, "child", feed.group, feed.wake_on, position, fed.run_id), fed.run_id)

    # --- cancelling ----------------------------------------------------------------------------

    def cancel(self, run_id: str, reason: str) -> None:
        """Ask a child to end. One that others have started continues, and is waited for no longer."""
        self._reasons[run_id] = reason
        if (position := self._others.pop(run_id, None)) is not None:
            self._left.add(position)
            self._ends.pop(run_id).cancel()
            self._here.inbox.append(ChildCancelled(position, run_id, reason, now()))
            return
        if self._room.withdraw(run_id):
            self._starting.discard(run_id)
            if (position := self._awaited_at.pop(run_id, None)) is not None:
                self._here.inbox.append(ChildCancelled(position, run_id, reason, now()))
        elif (light := self._lights.get(run_id)) is not None:
            light.cancel()
        elif (task := self._ends.get(run_id)) is not None and not task.done():
            sending = asyncio.ensure_future(self._send_cancel(run_id))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    def cancel_all(self, reason: str) -> None:
        """Ask every child to end."""
        for run_id in [*self._ends, *self._starting.difference(self._ends)]:
            if run_id not in self._others:
                self.cancel(run_id, reason)

    async def _send_cancel(self, run_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(workflow_id_of(run_id)).cancel()
        except (ApplicationError, FailureError) as error:  # it has ended
            log.info("child.not_cancelled", run_id=run_id, error=repr(error))
