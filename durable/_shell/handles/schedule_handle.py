"""
What callers hold of schedules: `Schedules`, `ScheduleHandle`, `ScheduleInfo`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from durable._core.authoring.schedules import Missed, Overlap
from durable._core.codec.codec import Codec
from durable._core.light_frozen import late_frozen
from durable._core.program.ops import RunOp, in_seconds
from durable._shell.backend import Backend
from durable._shell.handles.handle import Run
from durable._shell.reads.schedule_rows import all_schedules, schedule_by_name
from durable._shell.requests.schedule_requests import (
    BackfillSchedule,
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from durable._shell.rows.new_runs import new_run_id
from durable._shell.rows.schedule_row import ScheduleRow
from durable.errors import ScheduleNotFoundError, UsageError


@late_frozen
class ScheduleInfo:
    """A schedule as it stood when it was read. Instants are epoch seconds, UTC."""

    name: str
    #: When it ticks: ``cron 0 3 * * *``, ``every 60.0 s``.
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
    #: Whether it was made at run time, by `schedules.create`; its `overlap` and `missed` are known then.
    stored: bool = False
    overlap: str | None = None
    missed: str | None = None
    #: Ticks whose run could not be started: its key was taken, its limit rejected it, the function failed.
    failed: int = 0


def info_of(row: ScheduleRow, codec: Codec) -> ScheduleInfo:
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
        last_error=None if row.last_error is None else codec.reveal(row.last_error),
        stored=row.starts is not None,
        overlap=row.overlap,
        missed=row.missed,
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
        return info_of(row, self._backend.codec)

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

    async def backfill(self, since: datetime, until: datetime) -> list[Run[Any]]:
        """
        Start the runs of the ticks from *since* to *until* (aware datetimes, no later than now) that have none.

        Also of ticks from before the schedule was made, and of those that were skipped or missed. In order and,
        unless its overlap is ``allow``, one behind the other. A client of a file that nobody owns has it recorded.

        Returns:
            The runs of all these ticks, also of those that had one.

        Raises:
            UsageError: They are more than 1,000: ask for a part of the time at once.
            DefinitionError: The schedule's function failed.
        """
        request = BackfillSchedule(self.name, _instant("since", since), _instant("until", until))
        return [Run(self._backend, run_id) for run_id in await self._backend.request(request)]

    async def change(
        self,
        op: RunOp[Any] | None = None,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        timezone: str | None = None,
        overlap: Overlap | None = None,
        missed: Missed | None = None,
    ) -> bool:
        """
        Let a schedule that was made at run time tick otherwise from now on, or start something else; the rest stays.

        False if it is so already.

        Raises:
            UsageError: The program lists it: change it there. Or it did, so that only the call says what it starts.
            DefinitionError: It would contradict itself.
        """
        return await self._backend.request(
            _put(self._backend, self.name, op, cron, every, timezone, overlap, missed, replace=True)
        )

    async def delete(self) -> None:
        """
        Forget a schedule that was made at run time; the runs that it has started stay.

        Raises:
            UsageError: The program lists it: take it out there.
        """
        await self._backend.request(DeleteSchedule(self.name))


class Schedules:
    """The schedules of a journal: ``await engine.schedules()`` lists them, ``engine.schedules.create`` makes one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __call__(self) -> list[ScheduleInfo]:
        """All schedules that the journal knows, by name; those that no engine lists no longer tick."""
        return [info_of(row, self._backend.codec) for row in await self._backend.read(all_schedules)]

    async def create(
        self,
        name: str,
        op: RunOp[Any],
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        timezone: str | None = None,
        overlap: Overlap | None = None,
        missed: Missed | None = None,
    ) -> ScheduleHandle:
        """
        Make a schedule that is kept in the journal, and ticks in whatever engine opens it.

        Args:
            name: What it is called. One that was made before and is the same is found.
            op: A call of a workflow or job, with its options.
            cron: As of `Schedule`, and so are
            every: seconds between ticks instead,
            timezone: an IANA name,
            overlap: what happens at a tick while an earlier run is open,
            missed: and to ticks that were missed.

        Raises:
            UsageError: Another one of this name exists: `change` or `delete` it.
            DefinitionError: It contradicts itself, or the workflow is not among the engine's definitions.
            EncodeError: An argument cannot be recorded.
        """
        await self._backend.request(
            _put(self._backend, name, op, cron, every, timezone, overlap, missed, replace=False)
        )
        return ScheduleHandle(self._backend, name)


def _put(
    backend: Backend,
    name: str,
    op: RunOp[Any] | None,
    cron: str | None,
    every: float | timedelta | None,
    timezone: str | None,
    overlap: Overlap | None,
    missed: Missed | None,
    *,
    replace: bool,
) -> PutSchedule:
    run = None if op is None else backend.template(op)
    return PutSchedule(name, cron, in_seconds(every), timezone, overlap, missed, run, replace)


def _instant(name: str, at: datetime) -> float:
    if at.utcoffset() is None:
        msg = f"backfill: {name} must be an aware datetime, found {at!r}"
        raise UsageError(msg)
    return at.timestamp()
