"""
What callers hold of a schedule: `ScheduleHandle`, `ScheduleInfo`.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from durable._shell.backend import Backend
from durable._shell.handles.handle import Run
from durable._shell.reads.schedule_rows import schedule_by_name
from durable._shell.requests.schedule_requests import PauseSchedule, ResumeSchedule, TriggerSchedule
from durable._shell.rows.new_runs import new_run_id
from durable._shell.rows.schedule_row import ScheduleRow
from durable.errors import ScheduleNotFoundError


@frozen
class ScheduleInfo:
    """A schedule as it stood when it was read. Instants are epoch seconds, UTC."""

    name: str
    #: When it ticks: "cron 0 3 * * *", "every 60.0 s".
    spec: str
    timezone: str
    #: The next tick; None while it is paused, or if the last engine was not given it.
    next_at: float | None
    #: The latest tick that was dealt with, whether it started a run, was skipped, or failed.
    last_at: float | None
    #: Id of the run that was started last, by a tick or by hand.
    last_run: str | None
    paused: bool
    #: Ticks skipped because an earlier run was open, and the latest of them.
    skipped: int
    last_skipped_at: float | None
    #: Why the latest tick started no run; or which earlier run holds the schedule up, since it is blocked or paused.
    last_error: str | None
    #: Ticks whose run could not be started: its key was taken, its limit rejected it, the function failed.
    failed: int = 0


def info_of(row: ScheduleRow) -> ScheduleInfo:
    """A row as callers see it."""
    return ScheduleInfo(
        name=row.name,
        spec=row.spec,
        timezone=row.timezone,
        next_at=row.next_at,
        last_at=row.last_at,
        last_run=row.last_run,
        paused=row.paused_at is not None,
        skipped=row.skipped,
        last_skipped_at=row.last_skipped_at,
        last_error=row.last_error,
        failed=row.failed,
    )


class ScheduleHandle:
    """A handle on one schedule. Every call raises ScheduleNotFoundError if the journal knows none of that name."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self.name = name

    async def info(self) -> ScheduleInfo:
        """Its next and latest ticks, and what became of them."""
        row = await self._backend.read(schedule_by_name, self.name)
        if row is None:
            raise ScheduleNotFoundError(self.name, "this journal")
        return info_of(row)

    async def pause(self) -> bool:
        """Start nothing until `resume`; False if it is paused already. Recorded: it outlives a restart."""
        return await self._backend.request(PauseSchedule(self.name))

    async def resume(self) -> bool:
        """
        Resume from now, whatever passed meanwhile; False if it is not paused.

        Pausing and resuming also helps a schedule that stands still because the clock was years ahead once.
        """
        return await self._backend.request(ResumeSchedule(self.name))

    async def trigger(self) -> Run[Any]:
        """
        Start a run now: beside those that are active, and even while the schedule is paused.

        A client of a file that nobody owns has it recorded: the next engine starts it, and until
        then asking the run raises RunNotFoundError.

        Raises:
            DefinitionError: The schedule's function failed, or gave no call of a known workflow or job.
        """
        run_id = f"schedule:{self.name}:trigger:{new_run_id(self._backend.clock.now())}"
        return Run(self._backend, await self._backend.request(TriggerSchedule(self.name, run_id)))
