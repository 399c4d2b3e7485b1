"""
Jobs that need no run of their own, as activities of their parent's: fewer events of the server.

Such a job has no handle, and is not found as a run; its attempts are the server's.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue

from durable._core.policies.retry import recorded
from durable._core.program.functions import Job
from durable._core.run.decision import ChildAction
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.step_calls import FOR_EVER, SOON
from durable.temporal._wire.payloads import facts, split_arguments


def is_light(action: ChildAction) -> bool:
    """Whether a child is a job that is awaited, and has nothing that only a run has."""
    definition, given = action.op.definition, action.op.given
    if not isinstance(definition, Job) or not action.awaited or definition.hooks or definition.options.labels:
        return False
    options = definition.options
    of_runs = (
        options.key, options.limit, given.key, given.id, given.delay, given.at, given.expires, given.expires_at,
        given.labels, *given.signals, *given.then,
    )  # fmt: skip
    return options.on_crash == "rerun" and options.on_poison == "fail" and all(each is None for each in of_runs)


def begin_light(here: RunHere, action: ChildAction) -> workflow.ActivityHandle[RawValue]:
    """The activity of such a job."""
    op = action.op
    told = facts(
        {
            "position": "0",
            "run_id": action.run_id,
            "first_started_at": now(),
            "by_server": True,
            "carried": here.new.started.carried or None,
            "retry": None if op.given.retry is None else recorded(op.given.retry),
            "timeout": op.given.timeout or op.definition.options.timeout,
        }
    )
    return workflow.start_activity(
        op.definition.name,
        args=[*split_arguments(action.arguments), told],
        result_type=RawValue,
        activity_id=action.position,
        task_queue=here.setup.task_queue(op.given.queue or op.definition.options.queue),
        start_to_close_timeout=FOR_EVER,
        heartbeat_timeout=timedelta(seconds=here.setup.worker_timeout),
        retry_policy=SOON,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=f"job {action.position}",
    )
