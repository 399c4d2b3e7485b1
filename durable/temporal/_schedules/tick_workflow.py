"""
One tick of a schedule: it starts the run of that tick as a child, and lasts as long as that does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from attrs import frozen
from temporalio import activity, workflow
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError

from durable._core.authoring.registry import Definitions
from durable._core.authoring.schedules import Schedule
from durable._core.codec.codec import Codec
from durable._core.program.ops import RunOp
from durable._shell.rows import templates
from durable.temporal._wire.starts import Start, labels_of, make_start

#: The type of its workflow, and the activity that asks the schedule what to start.
TICK: Final = "durable.tick"
#: What the ids of ticks begin with.
TICKS: Final = "durable-schedule:"
ASK_SCHEDULE: Final = "durable.ask_schedule"
_SCHEDULED_AT: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@workflow.defn(name=TICK)
class TickWorkflow:
    """A tick of the schedule called *name*."""

    @workflow.run
    async def run(self, name: str) -> None:
        """Start its run, and wait for its end; how that is does not matter here."""
        at = workflow.info().typed_search_attributes.get(_SCHEDULED_AT) or workflow.now()
        kept, task_queue, searchable = await workflow.execute_activity(
            ASK_SCHEDULE,
            args=[name, at.timestamp()],
            result_type=list[Any],
            start_to_close_timeout=timedelta(seconds=60),
        )
        (template,) = templates.from_json(kept)
        start = Start(templates.begun(template, run=0, run_id=template.run_id, now=workflow.now().timestamp()))
        new = start.new
        try:
            await workflow.execute_child_workflow(
                new.workflow,
                args=start.arguments,
                id=start.workflow_id,
                task_queue=task_queue,
                result_type=RawValue,
                memo=start.memo,
                priority=start.priority,
                cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                search_attributes=labels_of(new) if searchable else None,
                id_reuse_policy=start.reuse,
            )
        except (ChildWorkflowError, WorkflowAlreadyStartedError):
            return


@frozen
class Ticks:
    """What ticks ask: the schedules of a worker, and what starts runs."""

    schedules: tuple[Schedule, ...]
    definitions: Definitions
    codec: Codec
    task_queue: Callable[[str], str]
    searchable: bool

    def activity(self) -> Callable[..., Any]:
        """The activity that asks a schedule for its run."""

        @activity.defn(name=ASK_SCHEDULE)
        async def ask_schedule(name: str, at: float) -> list[Any]:
            schedule = next(each for each in self.schedules if each.name == name)
            op = schedule.op if isinstance(schedule.op, RunOp) else schedule.op(schedule.local(at))
            run_id = schedule.run_id(at)
            start = make_start(op, definitions=self.definitions, codec=self.codec, now=at, run_id=run_id)
            return [templates.to_json([start.new]), self.task_queue(start.new.queue), self.searchable]

        return ask_schedule
