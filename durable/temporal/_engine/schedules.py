"""
Schedules as callers see them: the server's, of the same names, told in the words of an embedded engine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from attrs import frozen
from temporalio.client import (
    ScheduleActionStartWorkflow,
    ScheduleBackfill,
    ScheduleDescription,
)
from temporalio.service import RPCError, RPCStatusCode

from durable._core.authoring.schedules import MOST_MISSED, Schedule, tick_id
from durable._core.program.ops import RunOp
from durable._shell.handles.schedule_handle import ScheduleInfo
from durable._shell.rows.new_runs import new_run_id
from durable.errors import DefinitionError, ScheduleNotFoundError, UsageError
from durable.temporal._engine.handle import TemporalRun
from durable.temporal._schedules.registering import OVERLAPS, spec_of
from durable.temporal._schedules.tick_workflow import TICK

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

#: How much before the first tick the server begins to look for ticks: its own beginning is not among them.
_BEFORE: Final = timedelta(milliseconds=1)


class StartAs(Protocol):
    """Starts a run under an id."""

    def __call__(self, op: RunOp[Any], /, *, run_id: str) -> Awaitable[TemporalRun[Any]]: ...


@frozen
class TemporalSchedule:
    """
    A handle on one schedule of a server. As `durable.ScheduleHandle`, but that its code alone changes it.

    Every call raises ScheduleNotFoundError if the server knows none of that name.
    """

    _asking: Asking
    _listed: Sequence[Schedule]
    _start: StartAs
    name: str

    async def info(self) -> ScheduleInfo:
        """Its next and latest ticks, and what became of them, as the server tells."""
        return await schedule_info(self._asking, await self._described())

    async def pause(self) -> bool:
        """Start nothing until `resume`; False if it is paused already."""
        if (await self._described()).schedule.state.paused:
            return False
        await self._asking.client.get_schedule_handle(self.name).pause()
        return True

    async def resume(self) -> bool:
        """Resume from now; False if it is not paused."""
        if not (await self._described()).schedule.state.paused:
            return False
        await self._asking.client.get_schedule_handle(self.name).unpause()
        return True

    async def trigger(self) -> TemporalRun[Any]:
        """
        Start a run now: beside those that are active, and even while the schedule is paused.

        Raises:
            UsageError: It is not among the engine's ``schedules=``, which say what it starts.
            DefinitionError: Its function failed, or gave no call of a known workflow or job.
        """
        await self._described()
        schedule, now = self._schedule("trigger"), time.time()
        if isinstance(schedule.op, RunOp):
            op = schedule.op
        else:
            try:
                op = schedule.op(schedule.local(now))
            except Exception as error:
                msg = f"schedule {self.name!r}: its function failed with {type(error).__name__}: {error}"
                raise DefinitionError(msg) from error
        return await self._start(op, run_id=f"schedule:{self.name}:trigger:{new_run_id(now)}")

    async def backfill(self, since: datetime, until: datetime) -> list[TemporalRun[Any]]:
        """
        Start the runs of the ticks from *since* to *until* (aware datetimes) that have none.

        As `ScheduleHandle.backfill`. The server starts them one after the other: asking one that has not begun raises
        RunNotFoundError.

        Raises:
            UsageError: They are more than 1,000; or the schedule is not among the engine's.
        """
        for name, at in (("since", since), ("until", until)):
            if at.utcoffset() is None:
                msg = f"backfill: {name} must be an aware datetime, found {at!r}"
                raise UsageError(msg)
        await self._described()
        schedule = self._schedule("backfill")
        # The server counts `every` from the epoch.
        ticks = schedule.between(since.timestamp(), until.timestamp(), anchor=0.0, limit=MOST_MISSED + 1)
        if len(ticks) > MOST_MISSED:
            msg = f"schedule {self.name!r} has more than {MOST_MISSED:,} ticks from {since} to {until}: ask for a part"
            raise UsageError(msg)
        overlap = OVERLAPS["allow" if schedule.overlap == "allow" else "queue"]
        await self._asking.client.get_schedule_handle(self.name).backfill(
            ScheduleBackfill(start_at=since - _BEFORE, end_at=until, overlap=overlap)
        )
        return [TemporalRun(self._asking, tick_id(self.name, tick)) for tick in ticks]

    async def change(self, *_: object, **__: object) -> NoReturn:
        """Not known on Temporal: raises UsageError."""
        msg = f"schedule {self.name!r}: on Temporal schedules are those of TemporalEngine(schedules=): change it there"
        raise UsageError(msg)

    async def delete(self) -> None:
        """Forget it; the runs that it has started stay. A worker whose code lists it makes it anew when it opens."""
        await self._described()
        await self._asking.client.get_schedule_handle(self.name).delete()

    def _schedule(self, request: str) -> Schedule:
        found = next((each for each in self._listed if each.name == self.name), None)
        if found is None:
            msg = f"{request}: schedule {self.name!r} is not among this engine's schedules=, which say what it starts"
            raise UsageError(msg)
        return found

    async def _described(self) -> ScheduleDescription:
        try:
            found = await self._asking.client.get_schedule_handle(self.name).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise ScheduleNotFoundError(self.name, f"namespace {self._asking.client.namespace!r}") from None
        if not is_ours(found, self._asking):
            raise ScheduleNotFoundError(self.name, f"task queue {self._asking.default_queue!r}")
        return found


@frozen
class TemporalSchedules:
    """The schedules of an engine's task queue: ``await engine.schedules()``."""

    _asking: Asking
    _handle: Callable[[str], TemporalSchedule]

    async def __call__(self) -> list[ScheduleInfo]:
        """All that the server has, by name: also those that no worker lists any more. Seconds behind."""
        found: list[ScheduleInfo] = []
        async for each in await self._asking.client.list_schedules():
            try:
                found.append(await self._handle(each.id).info())
            except ScheduleNotFoundError:  # of another program, or deleted meanwhile
                continue
        return sorted(found, key=lambda info: info.name)

    async def create(self, name: str, *_: object, **__: object) -> NoReturn:
        """Not known on Temporal: raises UsageError."""
        msg = f"schedule {name!r}: on Temporal list it in TemporalEngine(schedules=), whose workers say what it starts"
        raise UsageError(msg)


def is_ours(described: ScheduleDescription, asking: Asking) -> bool:
    """Whether a schedule of the server's is one of the engine's."""
    action = described.schedule.action
    return (
        isinstance(action, ScheduleActionStartWorkflow)
        and action.workflow == TICK
        and action.task_queue == asking.default_queue
    )


async def schedule_info(asking: Asking, described: ScheduleDescription) -> ScheduleInfo:
    """A schedule as the server tells of it."""
    schedule, info = described.schedule, described.info
    last = info.recent_actions[-1].scheduled_at.timestamp() if info.recent_actions else None
    upcoming = [] if schedule.state.paused else info.next_action_times
    return ScheduleInfo(
        name=described.id,
        spec=await spec_of(schedule, asking.client.data_converter),
        timezone=schedule.spec.time_zone_name or "UTC",
        next_at=upcoming[0].timestamp() if upcoming else None,
        last_at=last,
        last_run=None if last is None else tick_id(described.id, last),
        paused=schedule.state.paused,
        skipped=info.num_actions_skipped_overlap + info.num_actions_missed_catchup_window,
        last_skipped_at=None,
        last_error=None,
    )
