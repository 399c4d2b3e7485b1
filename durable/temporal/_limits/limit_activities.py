"""
What runs and limits cannot ask the server themselves: to start a limit that is not there, and who has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from durable.temporal._limits.wire import ASK, ASKED, LIMIT, WHICH_ENDED


def limit_activities(client: Client, task_queue: str) -> list[Callable[..., Any]]:
    """The activities; limits are on *task_queue*, wherever those are who ask."""

    @activity.defn(name=ASK)
    async def ask(
        limiter: str, workflow_id: str, position: str, concurrency: int | None, count: int | None, per: float | None
    ) -> None:
        await client.start_workflow(
            LIMIT,
            id=limiter,
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=ASKED,
            start_signal_args=[workflow_id, position, concurrency, count, per],
        )

    @activity.defn(name=WHICH_ENDED)
    async def which_ended(workflow_ids: list[str]) -> list[str]:
        return [each for each in workflow_ids if await _has_ended(client, each)]

    return [ask, which_ended]


async def _has_ended(client: Client, workflow_id: str) -> bool:
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status != WorkflowExecutionStatus.RUNNING
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return True
        raise
