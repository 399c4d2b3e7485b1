"""
Makes the server's schedules of ours, or changes them to what the code says today.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.client import (
    Schedule as ServerSchedule,
)
from temporalio.converter import DataConverter

from durable._core.authoring.schedules import LATE, Missed, Overlap, Schedule
from durable.errors import DefinitionError
from durable.temporal._schedules.tick_workflow import TICK, TICKS

#: What the server calls what happens at a tick while an earlier run is open.
OVERLAPS: Final[Mapping[Overlap, ScheduleOverlapPolicy]] = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "queue": ScheduleOverlapPolicy.BUFFER_ALL,
    "cancel": ScheduleOverlapPolicy.CANCEL_OTHER,
    "allow": ScheduleOverlapPolicy.ALLOW_ALL,
}
#: The memo of ticks that says in words when they are: the server keeps cron expressions in a form of its own.
_SPEC: Final = "durable_spec"
_A_YEAR: Final = timedelta(days=365)
#: How long after its time a tick that was missed still starts a run.
_CATCH_UP: Final[Mapping[Missed, timedelta]] = {
    "none": timedelta(seconds=LATE), "one": _A_YEAR, "all": _A_YEAR
}  # fmt: skip


def check_schedule(schedule: Schedule) -> None:
    """
    Nothing, if the server can do what *schedule* says.

    Raises:
        DefinitionError: It cannot.
    """
    if schedule.missed == "one" and schedule.overlap not in ("skip", "queue"):
        msg = (
            f"schedule {schedule.name!r}: on Temporal missed='one' keeps the latest tick while a run is open, so "
            f"overlap must be 'skip' or 'queue', found {schedule.overlap!r}"
        )
        raise DefinitionError(msg)


async def register_schedule(client: Client, schedule: Schedule, task_queue: str) -> None:
    """Have the server tick as *schedule* says."""
    every = schedule.every
    overlap = ScheduleOverlapPolicy.BUFFER_ONE if schedule.missed == "one" else OVERLAPS[schedule.overlap]
    made = ServerSchedule(
        action=ScheduleActionStartWorkflow(
            TICK,
            args=[schedule.name],
            id=f"{TICKS}{schedule.name}",
            task_queue=task_queue,
            memo={_SPEC: schedule.spec},
        ),
        spec=ScheduleSpec(
            cron_expressions=[schedule.cron] if schedule.cron else [],
            intervals=[] if every is None else [ScheduleIntervalSpec(every=timedelta(seconds=every))],
            time_zone_name=schedule.timezone,
        ),
        policy=SchedulePolicy(overlap=overlap, catchup_window=_CATCH_UP[schedule.missed]),
    )

    def change(found: ScheduleUpdateInput) -> ScheduleUpdate:
        made.state = found.description.schedule.state  # that somebody has paused it stays
        return ScheduleUpdate(made)

    try:
        await client.create_schedule(schedule.name, made)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(schedule.name).update(change)


async def spec_of(schedule: ServerSchedule, converter: DataConverter) -> str:
    """When a schedule of the server's ticks, in the words of `Schedule.spec`."""
    action = schedule.action
    memo = action.memo if isinstance(action, ScheduleActionStartWorkflow) else None
    told = None if memo is None else memo.get(_SPEC)
    if isinstance(told, Payload):
        (told,) = await converter.decode([told], [str])
    return "" if told is None else str(told)
