"""
What is told of a run, read from the server's description of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from attrs import frozen
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus

from durable._core.codec.codec import Codec
from durable._core.codec.json_text import dumps
from durable._core.program.progress import Progress
from durable._core.statuses import Status
from durable._shell.handles.run_info import RunInfo
from durable._shell.rows.rows import NewRun
from durable.errors import UsageError
from durable.temporal._wire.starts import ATTRIBUTES, BLOCKED, PAUSED, PROGRESS, new_run_from

_ENDS: Final[Mapping[WorkflowExecutionStatus, Status]] = {
    WorkflowExecutionStatus.COMPLETED: "succeeded",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "succeeded",
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
class _ValuesOnServer:
    """Stands for the values of a run, which its description does not have."""

    run_id: str

    def arguments(self) -> NoReturn:
        raise UsageError(self._where("arguments", "what the first event of `await run.history()` holds"))

    def result(self) -> NoReturn:
        raise UsageError(self._where("result", "`await run.result()`"))

    def _where(self, what: str, instead: str) -> str:
        return f"the server's description of run {self.run_id!r} has no {what}: use {instead}"


async def info_from(described: WorkflowExecution, codec: Codec, queue_of: Mapping[str, str]) -> RunInfo:
    """A run as the server tells of it; *queue_of* names the queue of a task queue."""
    memo = await described.memo()
    new = new_run_from(memo)
    attributes = memo.get(ATTRIBUTES)
    if attributes is not None:
        attributes = codec.decode(attributes if isinstance(attributes, bytes) else dumps(attributes), dict[str, Any])
    reason = _blocked(described, memo)
    run_id = described.id if new is None or new.key is not None else new.run_id
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
        parent=described.parent_id,
        position=None if new is None else new.position,
        created_at=described.start_time.timestamp(),
        started_at=described.execution_time.timestamp() if described.execution_time else None,
        ended_at=described.close_time.timestamp() if described.close_time else None,
        root=described.root_id or described.id,
        progress=_progress(memo),
        values=_ValuesOnServer(run_id),
    )


def _status(described: WorkflowExecution, memo: Mapping[str, Any], new: NewRun | None, blocked: str | None) -> Status:
    if described.status is not None and described.status in _ENDS:
        return _ENDS[described.status]
    if blocked is not None:
        return "blocked"
    if memo.get(PAUSED):
        return "paused"
    if described.history_length <= _UNBEGUN and new is not None:
        return "pending"
    if isinstance(described, WorkflowExecutionDescription) and not described.raw_description.pending_activities:
        return "waiting"
    return "running"


def _blocked(described: WorkflowExecution, memo: Mapping[str, Any]) -> str | None:
    if described.status != WorkflowExecutionStatus.RUNNING:
        return None
    reason: str | None = memo.get(BLOCKED)
    if reason is None and isinstance(described, WorkflowExecutionDescription):
        raw = described.raw_description
        if raw.HasField("pending_workflow_task") and raw.pending_workflow_task.attempt > 1:
            times = raw.pending_workflow_task.attempt - 1
            return f"its workflow task has failed {times} times: the code has changed, or no worker knows it"
    return reason


def _progress(memo: Mapping[str, Any]) -> Progress | None:
    told = memo.get(PROGRESS)
    return None if told is None else Progress(*told)
