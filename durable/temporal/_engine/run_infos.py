"""
What is told of a run, read from the server's description of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from attrs import evolve, frozen
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.history.v1 import WorkflowTaskFailedEventAttributes
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import (
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.codec.json_text import dumps
from durable._core.journal.payloads import failure_in
from durable._core.program.functions import RunnableDefinition
from durable._core.program.progress import Progress
from durable._core.statuses import ENDS, Status
from durable._shell.handles.run_info import Arguments, RunInfo
from durable._shell.rows.rows import NewRun
from durable.errors import UsageError
from durable.temporal._attempts.run_ends import run_end
from durable.temporal._batches.wire import BATCH
from durable.temporal._schedules.tick_workflow import TICKS
from durable.temporal._wire.journals import CARRIED, HELD, unpacked_journal
from durable.temporal._wire.payloads import joined_arguments
from durable.temporal._wire.starts import ATTRIBUTES, BATCHES, BLOCKED, COMPENSATED, PAUSED, PROGRESS, new_run_from

_ENDS: Final[Mapping[WorkflowExecutionStatus, Status]] = {
    WorkflowExecutionStatus.COMPLETED: "succeeded",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.TIMED_OUT: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "cancelled",
}
#: Events of the server before a worker has first looked at a run.
_UNBEGUN: Final = 2


def statuses_on_server(status: Status) -> list[str]:
    """What the server calls *status*: all that it knows of open runs is that they are open."""
    found = [each.name for each, ours in _ENDS.items() if ours == status] or ["RUNNING"]
    return [name.title().replace("_", "") for name in found]


@frozen
class _ValuesUnread:
    """Stands for the values of a run in a list, which the server does not tell there."""

    run_id: str

    def arguments(self) -> NoReturn:
        raise UsageError(self._where("arguments"))

    def result(self) -> NoReturn:
        raise UsageError(self._where("result"))

    def _where(self, what: str) -> str:
        return f"lists of the server do not have the {what} of run {self.run_id!r}: ask `await engine.get(id).info()`"


@frozen
class ValuesRead:
    """The values of a run that was asked for alone."""

    run_id: str
    codec: Codec
    #: Whose annotations they are read by; without one as plain JSON.
    definition: RunnableDefinition[..., Any] | None
    given: Payload
    #: What it returned, if it has succeeded.
    returned: Payload | None

    def arguments(self) -> Arguments:
        """What it was started with."""
        where = f"arguments of run {self.run_id!r}"
        if self.definition is not None:
            return Arguments(*self.codec.decode_arguments(self.given, self.definition.arguments, where=where))
        args, kwargs = self.codec.decode(self.given, where=where)
        return Arguments(tuple(args), kwargs)

    def result(self) -> Any:
        """What it returned."""
        if self.returned is None:
            return None
        kind = Any if self.definition is None else self.definition.result
        return self.codec.decode(self.returned, kind, where=f"result of run {self.run_id!r}")


async def detailed(
    info: RunInfo,
    handle: WorkflowHandle[Any, Any],
    converter: DataConverter,
    codec: Codec,
    definition: RunnableDefinition[..., Any] | None,
) -> RunInfo:
    """*info* with what only the server's history of the run tells: arguments, result, why it failed."""
    given: Payload = "[[],{}]"
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        given, marked = joined_arguments(await converter.decode(payloads, [RawValue] * len(payloads)))
        carried = marked.get(CARRIED) or marked.get(HELD)
        if carried is not None:
            given = unpacked_journal(carried).started.value or given
        break
    returned = error = None
    reason = info.reason
    if info.status in ENDS:
        end = await run_end(handle, codec)
        if end.status == "succeeded":
            returned = end.outcome
        elif end.outcome not in (None, "null"):
            error = describe(failure_in(end.outcome, codec))
        reason = codec.reveal(end.reason) or error
    return evolve(info, reason=reason, error=error, values=ValuesRead(info.id, codec, definition, given, returned))


async def info_from(described: WorkflowExecution, codec: Codec, queue_of: Mapping[str, str]) -> RunInfo:
    """A run as the server tells of it; *queue_of* names the queue of a task queue."""
    memo = await described.memo()
    new = new_run_from(memo)
    attributes = memo.get(ATTRIBUTES)
    if attributes is not None:
        attributes = codec.decode(attributes if isinstance(attributes, bytes) else dumps(attributes), dict[str, Any])
    reason = _blocked(described, memo)
    run_id = described.id if new is None or new.key is not None else new.run_id
    parent, follows = _origin(described.parent_id, new)
    return RunInfo(
        id=run_id,
        workflow=described.workflow_type,
        version=1 if new is None else new.version,
        kind="workflow" if new is None else new.kind,
        status=_status(described, memo, new, reason),
        queue=queue_of.get(described.task_queue, described.task_queue),
        priority=0 if new is None else new.priority,
        key=None if new is None else new.key,
        labels={} if new is None else new.labels,
        attributes=attributes or {},
        reason=reason,
        parent=parent,
        follows=follows,
        position=None if new is None else new.position,
        created_at=described.start_time.timestamp(),
        started_at=described.execution_time.timestamp() if described.execution_time else None,
        ended_at=described.close_time.timestamp() if described.close_time else None,
        root=described.root_id or described.id,
        progress=_progress(memo),
        batch=(memo.get(BATCHES) or [None])[0],
        compensated=bool(memo.get(COMPENSATED)),
        values=_ValuesUnread(run_id),
    )


def _origin(parent: str | None, new: NewRun | None) -> tuple[str | None, str | None]:
    """The run that has started it, and the one that it follows: to the server each is a parent, as a tick is."""
    if parent is None or parent.startswith((TICKS, BATCH)):
        return None, None
    return (parent, None) if new is None or new.position is not None else (None, parent)


def _status(described: WorkflowExecution, memo: Mapping[str, Any], new: NewRun | None, blocked: str | None) -> Status:
    if described.status is not None and described.status in _ENDS:
        return _ENDS[described.status]
    if blocked is not None:
        return "blocked"
    if memo.get(PAUSED):
        return "paused"
    if not isinstance(described, WorkflowExecutionDescription):  # of a list, which tells no more than that it is open
        return "running"
    if described.history_length <= _UNBEGUN and new is not None:
        return "pending"
    return "running" if _is_busy(described.raw_description) else "waiting"


def _is_busy(described: DescribeWorkflowExecutionResponse) -> bool:
    """Whether it has a turn to take, or a step that runs: not one that waits for its next attempt."""
    return described.HasField("pending_workflow_task") or any(
        not each.activity_type.name.startswith("durable.")  # ours wait for limits, and for the ends of runs
        and (each.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED or each.attempt == 1)
        for each in described.pending_activities
    )


def _blocked(described: WorkflowExecution, memo: Mapping[str, Any]) -> str | None:
    if described.status != WorkflowExecutionStatus.RUNNING:
        return None
    reason: str | None = memo.get(BLOCKED)
    if reason is None and (times := failed_turns(described)):
        return f"its workflow task has failed {times} times: the code has changed, or no worker knows it"
    return reason


def failed_turns(described: WorkflowExecution) -> int:
    """How often the turn has failed that a run is to take: a worker that tries answers no query, either."""
    if not isinstance(described, WorkflowExecutionDescription):
        return 0
    raw = described.raw_description
    return raw.pending_workflow_task.attempt - 1 if raw.HasField("pending_workflow_task") else 0


async def why_turns_fail(handle: WorkflowHandle[Any, Any], converter: DataConverter) -> str:
    """What the worker has said that could not take the turn of a run."""
    told: WorkflowTaskFailedEventAttributes | None = None
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_task_failed_event_attributes"):
            told = event.workflow_task_failed_event_attributes
    if told is None:
        return "its workers do not say why"
    error = await converter.decode_failure(told.failure)
    return str(error)


def _progress(memo: Mapping[str, Any]) -> Progress | None:
    told = memo.get(PROGRESS)
    return None if told is None else Progress(*told)
