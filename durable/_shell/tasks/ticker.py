"""
Starts the runs of an engine's schedules as their ticks come due.

The truth is the row (`schedule_writes`); what is held here is a copy of it, renewed by every
write, from which the next wake-up and the ticks to record are made. Ops are made on the loop,
because functions of schedules are user code; the transaction then decides what they start.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeAlias

from durable._core.authoring.op_constructors import with_options
from durable._core.authoring.registry import Definitions
from durable._core.authoring.schedules import MOST_MISSED, Overlap, Schedule, Timetable, decide
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import LINE_CAP, message_of, one_line
from durable._core.light_frozen import light_frozen
from durable._core.program.ops import RunOp, kind_of
from durable._shell.attempts.asking import in_short
from durable._shell.log import log
from durable._shell.rows.new_runs import make_run, placed
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.rows.templates import begun, from_json
from durable._shell.tasks.alarm import Alarm
from durable._shell.turns.services import Services
from durable._shell.writes.schedule_writes import Tick, past_ticks, record_ticks, start_triggered, timetable_of
from durable.errors import DefinitionError, DurableError, EngineClosedError, ScheduleNotFoundError

#: Starts a background task, by its name.
Start: TypeAlias = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]

#: Schedules that tick in one commit, and in one iteration of the event loop: a few milliseconds of either.
TICKS_AT_ONCE = 125


def collect_schedules(schedules: Iterable[Schedule], definitions: Definitions) -> dict[str, Schedule]:
    """
    The schedules that an engine was given.

    Raises:
        DefinitionError: Two have one name, or one starts what is not among *definitions*.
    """
    found: dict[str, Schedule] = {}
    for schedule in schedules:
        if schedule.name in found:
            msg = f"two schedules are called {schedule.name!r}: each needs a name of its own"
            raise DefinitionError(msg)
        op = schedule.op
        if isinstance(op, RunOp) and not definitions.knows(op.definition):
            msg = (
                f"schedule {schedule.name!r} starts {op.definition!r}, which is not among the definitions "
                "given to Engine: add it there"
            )
            raise DefinitionError(msg)
        found[schedule.name] = schedule
    return found


@light_frozen
class StoredSchedule(Timetable):
    """A schedule that was made at run time, with what it starts."""

    starts: NewRun

    @classmethod
    def of(cls, row: ScheduleRow) -> StoredSchedule | None:
        """The one in *row*; None if the program lists it."""
        if row.starts is None:
            return None
        table = timetable_of(row)
        (starts,) = from_json(row.starts)
        return cls(
            table.name, starts, cron=table.cron, every=table.every, timezone=table.timezone, overlap=table.overlap,
            missed=table.missed,
        )  # fmt: skip


class Ticker:
    """
    The schedules of one engine, while it is open.

    Args:
        schedules: Those of the program, by name.
        rows: Their places in the journal; and those that were made at run time.
        services: What runs are started with.
        start: Starts what is to run as long as the engine does.
    """

    def __init__(
        self, schedules: Mapping[str, Schedule], rows: dict[str, ScheduleRow], services: Services, start: Start
    ) -> None:
        self._listed = schedules
        self._schedules: dict[str, Schedule | StoredSchedule] = {}
        self._rows: dict[str, ScheduleRow] = {}
        for name, row in rows.items():
            self._know(name, row)
        self._schedules |= schedules
        self._begun = False
        #: Whether it still deals with what came due before it began.
        self._catching_up = False
        self._services = services
        self._start = start
        self._alarm = Alarm(services.clock)

    # --- beginning and stopping ----------------------------------------------------------------------

    def begin(self) -> None:
        """Start what was asked for or missed while no engine ran; then each tick as it comes."""
        if self._rows and not self._begun:
            self._begun = self._catching_up = True
            self._services.activity.begin()
            self._start("schedules", self._run)

    def stop(self) -> None:
        """Start nothing more."""
        self._alarm.stop()

    @property
    def next_due_at(self) -> float | None:
        """When the next tick is due, as far as is known."""
        return self._alarm.at

    # --- ticks -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        activity = self._services.activity
        try:
            await asyncio.gather(*(self._alone(name, self._start_triggered(name)) for name in self._rows))
            if not self._alarm.stopped:
                await self._tick_all()
        finally:
            if self._catching_up:
                self._catching_up = False
                activity.end()
        while await self._alarm.wait():
            with activity:
                await self._tick_all()

    async def _tick_all(self) -> None:
        """Many together, so that ticks of one instant share a commit."""
        now = self._services.clock.now()
        due = [name for name, row in self._rows.items() if row.next_at is not None and row.next_at <= now]
        for at in range(0, len(due), TICKS_AT_ONCE):
            await asyncio.gather(*(self._alone(name, self._tick(name, now)) for name in due[at : at + TICKS_AT_ONCE]))
        for row in self._rows.values():
            self._wake_for(row)

    async def _alone(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Await *work* on a schedule. One that cannot tick ticks no more, and holds up no other."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug, or damage: see above
            self._rows.pop(name, None)
            log.error("schedule.failed", schedule=name, error=one_line(error))

    def _wake_for(self, row: ScheduleRow) -> None:
        if row.next_at is not None:
            self._alarm.set(row.next_at)

    async def _tick(self, name: str, now: float) -> None:
        """Record the ticks of a schedule that came due."""
        row = self._rows.get(name)
        if row is None:  # deleted meanwhile
            return
        schedule = self._schedules[name]
        due = decide(schedule, anchor=row.anchor, after=row.upto, now=now)
        if due.dropped:
            kept = f"the latest {MOST_MISSED}" if schedule.missed == "all" else schedule.missed
            log.warning("schedule.dropped", schedule=name, since=row.upto, started=kept)
        # A tick that is on time goes behind those that are made up for, lest they are why it is left out.
        in_line = schedule.missed == "all" and schedule.overlap != "allow" and bool(due.late)
        ticks = [self._made(schedule, at, now, in_line=in_line) for at in (*due.late, *due.on_time)]
        next_at = schedule.next_after(now, anchor=row.anchor)
        # Should nothing be recorded, what is due now is looked at again with the next tick.
        self._rows[name] = row._replace(next_at=next_at)
        await self._record(
            name,
            lambda conn, effects: record_ticks(conn, effects, before=row, ticks=ticks, upto=now, next_at=next_at),
        )

    async def _record(self, name: str, fn: Callable[[sqlite3.Connection, Effects], ScheduleRow | None]) -> None:
        """Write; `take` gets the row as it then is. A schedule that cannot be written must not stop the others."""
        try:
            await self._services.commits.call(fn, answers=False)
        except EngineClosedError:
            self.stop()
        except Exception as error:  # noqa: BLE001 - a bug, ours or SQLite's
            log.error("schedule.failed", schedule=name, error=one_line(error))

    def _made(self, schedule: Schedule | StoredSchedule, at: float, now: float, *, in_line: bool) -> Tick:
        run, error = self._try_make(schedule, at, schedule.run_id(at), now)
        return Tick(at, "queue" if in_line else schedule.overlap, run, error)

    def _try_make(
        self, schedule: Schedule | StoredSchedule, at: float, run_id: str, now: float
    ) -> tuple[NewRun | None, str]:
        """The run, or why there is none."""
        try:
            return self._make(schedule, at, run_id, now), ""
        except BaseException as error:  # what it is made with is the user's
            if came_from_outside(error):
                raise
            ours = issubclass(type(error), DurableError)
            text = message_of(error, LINE_CAP) if ours else in_short(error)
            return None, self._services.codec.conceal(text, type(error).__name__)

    def _make(self, schedule: Schedule | StoredSchedule, at: float, run_id: str, now: float) -> NewRun:
        if isinstance(schedule, StoredSchedule):
            return self._begin_stored(schedule.starts, run_id, now)
        op: Any = schedule.op
        if not isinstance(op, RunOp):
            local = schedule.local(at)
            try:
                # In a context of its own, so that what it sets there does not leak.
                op = contextvars.copy_context().run(schedule.op, local)  # type: ignore[arg-type]  # no RunOp
            except BaseException as error:
                if came_from_outside(error):
                    raise
                msg = f"the function of schedule {schedule.name!r} failed: {in_short(error)}"
                raise DefinitionError(msg) from error
        if not isinstance(op, RunOp):
            if inspect.iscoroutine(op):
                op.close()
            found = kind_of(op)
            msg = f"the function of schedule {schedule.name!r} gave {found}: it must return a call of a workflow or job"
            raise DefinitionError(msg)
        labels = {**(op.given.labels or {}), "schedule": schedule.name}
        return make_run(
            with_options(op, labels=labels),
            definitions=self._services.definitions,
            codec=self._services.codec,
            allocate=self._services.allocate,
            now=now,
            places=self._services.places,
            run_id=run_id,
            is_tick=True,
        )

    def _begin_stored(self, starts: NewRun, run_id: str, now: float) -> NewRun:
        services = self._services
        if services.definitions.find(starts.workflow, starts.version) is None:
            msg = f"{starts.workflow!r} is not among the definitions given to Engine: add it, or delete the schedule"
            raise DefinitionError(msg)
        return placed(begun(starts, run=services.allocate(), run_id=run_id, now=now), services.places)

    # --- requests --------------------------------------------------------------------------------------

    def lists(self, name: str) -> bool:
        """Whether the program itself has a schedule of this name."""
        return name in self._listed

    def run_of(self, name: str, run_id: str, now: float) -> NewRun:
        """
        The run that a schedule starts when it is triggered.

        Raises:
            ScheduleNotFoundError: The engine was not given one of that name.
            DefinitionError: The schedule's function fails.
        """
        schedule = self._schedules.get(name)
        if schedule is None:
            raise ScheduleNotFoundError(name, "this engine")
        return self._make(schedule, now, run_id, now)

    def next_tick(self, row: ScheduleRow, now: float) -> float | None:
        """When a schedule ticks next; None if the engine was not given it. Called on the writer's thread."""
        schedule = self._schedules.get(row.name) if row.starts is None else timetable_of(row)
        return None if schedule is None else schedule.next_after(now, anchor=row.anchor)

    def ticks_of(self, name: str, since: float, until: float, now: float) -> list[Tick]:
        """
        The ticks of the past that a schedule is to make up for, with their runs.

        Raises:
            ScheduleNotFoundError: The engine was not given one of that name.
            UsageError: They are too many.
            DefinitionError: The schedule's function fails.
        """
        schedule = self._schedules.get(name)
        if schedule is None:
            raise ScheduleNotFoundError(name, "this engine")
        overlap: Overlap = "allow" if schedule.overlap == "allow" else "queue"
        ticks = past_ticks(schedule, self._rows[name], since, until)
        return [Tick(at, overlap, self._make(schedule, at, schedule.run_id(at), now)) for at in ticks]

    def take(self, effects: Effects) -> None:
        """Act on what a commit group caused."""
        for name, row in effects.schedules:
            before = self._rows.get(name)
            if row is not None and before is not None and row.failed > before.failed:
                log.error("schedule.failed", schedule=name, at=row.last_at, error=row.last_error)
            if row is not None and before is not None and _was_stopped(before, row):
                log.error("schedule.paused", schedule=name, error=row.last_error)
            self._know(name, row)
            if name in self._rows:
                self._wake_for(self._rows[name])
                self.begin()

    def _know(self, name: str, row: ScheduleRow | None) -> None:
        """Take over a schedule as it stands in the file; nothing is left of one that was deleted, or is nobody's."""
        before = self._rows.pop(name, None)
        schedule = self._schedules.pop(name, None)
        if row is None:
            return
        if name in self._listed:
            schedule = self._listed[name]
        elif before is None or (before[:3], before[-3:]) != (row[:3], row[-3:]):
            schedule = StoredSchedule.of(row)
        if schedule is not None:
            self._schedules[name], self._rows[name] = schedule, row

    async def _start_triggered(self, name: str) -> None:
        """Start what clients asked for while nobody owned the file, in order."""
        if name not in self._rows:  # deleted meanwhile
            return
        schedule = self._schedules[name]
        for run_id, at in self._rows[name].triggers:
            run, error = self._try_make(schedule, at, run_id, self._services.clock.now())

            def record(
                conn: sqlite3.Connection, effects: Effects, run_id: str = run_id, run: NewRun | None = run,
                error: str = error,
            ) -> ScheduleRow:  # fmt: skip
                return start_triggered(conn, effects, name=name, run_id=run_id, run=run, error=error)

            await self._record(name, record)


def _was_stopped(before: ScheduleRow, row: ScheduleRow) -> bool:
    """Whether a schedule was paused because of what its runs do, and by nobody."""
    return before.paused_at is None and row.paused_at is not None and before.last_error != row.last_error
