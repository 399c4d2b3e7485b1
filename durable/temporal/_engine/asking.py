"""
How handles ask the server: one client, and what is known of the definitions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import frozen
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition, RawValue
from temporalio.service import RPCError, RPCStatusCode

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.recorded.export_format import RunHistory
from durable._shell.handles.run_info import RunInfo
from durable._shell.rows.carried import Carry
from durable.temporal._engine.run_infos import info_from

#: What the server says of a question that no worker answers.
NOBODY: Final = (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED)
#: An execution that ended so may be not the latest of its run.
_MAY_BE_RETRIED: Final = (
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT,
    WorkflowExecutionStatus.CANCELED,
    WorkflowExecutionStatus.TERMINATED,
)


class StartAgain(Protocol):
    """
    Starts a run that has a journal; it is a member of the innermost of *batches*.

    *again*: one of its id has ended, which tells of its streams in *chapters*.
    """

    async def __call__(
        self, history: RunHistory, /, *, again: bool = False, chapters: str = "", batches: Sequence[str] = ()
    ) -> None: ...


class Mending(Protocol):
    """Opens batches again: the module `reopening`, which knows handles on runs and batches, as these do not know it."""

    def retry_batch(self, asking: Asking, batch_id: str, *, force: bool) -> Awaitable[int]:
        """Begin again what failed in a batch; how many runs."""
        ...

    def tell_batches(self, asking: Asking, batches: Sequence[str], workflow_id: str) -> Awaitable[None]:
        """Have batches wait for a run of theirs that was begun again."""
        ...


@frozen
class Asking:
    """What handles share."""

    client: Client
    codec: Codec
    definitions: Definitions
    #: What of the context of who starts a run is recorded with it.
    carry: Carry
    #: The task queue of the queue `default`, where batches are.
    default_queue: str
    #: Names of queues by their task queues.
    queues: Mapping[str, str]
    #: Starts a run that has a journal.
    start_again: StartAgain
    mending: Mending
    #: The address of Temporal's own pages.
    web_ui: str | None = None

    def handle_on(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        """The server's handle on a run."""
        return self.client.get_workflow_handle(workflow_id, result_type=RawValue)

    async def query(self, workflow_id: str, name: str) -> Any:
        """
        What a workflow of ours answers; None if there is none, or if it has ended.

        Raises:
            TimeoutError: No worker answers.
        """
        try:
            return await self.client.get_workflow_handle(workflow_id).query(
                name, reject_condition=QueryRejectCondition.NOT_OPEN
            )
        except WorkflowQueryRejectedError:
            return None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            if error.status in NOBODY:
                msg = f"{workflow_id}: no worker that polls its queue answers: {error.message}"
                raise TimeoutError(msg) from None
            raise

    async def info_from(self, described: WorkflowExecution) -> RunInfo:
        """What the server tells of a run."""
        return await info_from(described, self.codec, self.queues)

    async def runs(self, query: str, limit: int | None = None, *, by_status: bool = False) -> AsyncIterator[RunInfo]:
        """
        The runs that a query of the server's finds, newest first: each once, as its latest execution tells of it.

        The server lists all executions of a run that was retried, or continues as new; where the query is also
        *by_status*, it may find one that is not the latest.
        """
        seen: set[str] = set()
        async for each in self.client.list_workflows(query or None, page_size=min(limit or 1_000, 1_000)):
            if len(seen) == limit:
                return
            if each.workflow_type.startswith("durable.") or each.id in seen:
                continue
            if by_status and each.status in _MAY_BE_RETRIED and not await self._is_latest(each):
                continue
            seen.add(each.id)
            yield await self.info_from(each)

    async def _is_latest(self, execution: WorkflowExecution) -> bool:
        return (await self.handle_on(execution.id).describe()).run_id == execution.run_id
