"""
Requests about schedules: make, change and delete them, pause, resume, trigger, make up for the past.
"""

from __future__ import annotations

import sqlite3
from typing import Any, ClassVar

from attrs import evolve

from durable._core.authoring.schedules import Timetable
from durable._core.codec.codec import Payload
from durable._core.light_frozen import light_frozen
from durable._shell.reads.schedule_rows import schedule_by_name, still_open
from durable._shell.requests.request import Env, JournalRequest, values_of
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.rows.templates import to_json
from durable._shell.writes.run_writes import get_or_create
from durable._shell.writes.schedule_writes import (
    Tick,
    backfill,
    find_schedule,
    past_ticks,
    put,
    run_exists,
    save,
    timetable_of,
    with_run,
)
from durable.errors import ScheduleNotFoundError, UsageError


@light_frozen
class PauseSchedule(JournalRequest[bool]):
    """Let a schedule start nothing until it is resumed; False if it is paused already."""

    name: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Pause it."""
        row = find_schedule(conn, self.name)
        if row.paused_at is not None:
            return False
        save(conn, row._replace(paused_at=env.now, next_at=None), effects)
        return True


@light_frozen
class ResumeSchedule(JournalRequest[bool]):
    """Resume a paused schedule, from now; False if it is not paused."""

    name: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Let it tick again. Only an engine knows when that is."""
        row = find_schedule(conn, self.name)
        if row.paused_at is None:
            return False
        next_at = None if env.schedules is None else env.schedules.next_tick(row, env.now)
        save(conn, row._replace(paused_at=None, upto=env.now, next_at=next_at), effects)
        return True


@light_frozen
class TriggerSchedule(JournalRequest[str]):
    """
    Start a run of a schedule; where a client records it by itself, the next engine is to. Its id.

    Raises:
        ScheduleNotFoundError, KeyConflictError: Nothing is started.
    """

    starts_runs: ClassVar[bool] = True

    name: str
    run_id: str
    #: The run, made by the engine: clients know no ops.
    run: NewRun | None = None

    def prepared(self, env: Env) -> TriggerSchedule:
        """Itself, with the run. Functions of schedules are code of the user's, hence called on the event loop."""
        JournalRequest.prepared(self, env)
        if env.schedules is None:
            return self
        return evolve(self, run=env.schedules.run_of(self.name, self.run_id, env.now))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> str:
        """Start it, or note that it is to be."""
        row = find_schedule(conn, self.name)
        if run_exists(conn, self.run_id):
            return self.run_id
        if self.run is None:
            noted = [each for each in row.triggers if each[0] != self.run_id]
            save(conn, row._replace(triggers=(*noted, (self.run_id, env.now))), effects)
            return self.run_id
        started = get_or_create(conn, self.run, effects)
        save(conn, with_run(row._replace(open_runs=tuple(still_open(conn, row.open_runs))), started), effects)
        return started


@light_frozen
class PutSchedule(JournalRequest[bool]):
    """
    Make a schedule, or (with *replace*) let one that was made at run time be another; False if it is so already.

    Of one that is there, what is None stays.

    Raises:
        UsageError: The program lists one of this name, or did, and nobody says what it starts; or one was made, is
            another, and is not to be replaced.
        ScheduleNotFoundError: There is none, and this is not enough to make one.
        DefinitionError: It contradicts itself.
    """

    name: str
    cron: str | None
    every: float | None
    timezone: str | None
    overlap: str | None
    missed: str | None
    run: NewRun | None
    replace: bool

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return values_of([] if self.run is None else [self.run])

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Make it."""
        before = schedule_by_name(conn, self.name)
        if before is not None:
            _check_is_stored(before, env, "change it there")
        starts, table = self._starts(before), self._timetable(before)
        if before is not None and before.starts is not None:
            same = (timetable_of(before), before.starts) == (table, starts)
            if same or not self.replace:
                if same:
                    return False
                msg = f"a schedule called {self.name!r} was made before, and is another: change or delete it"
                raise UsageError(msg)
        put(conn, table, starts, env.now)
        row = find_schedule(conn, self.name)
        next_at = None if row.paused_at is not None else table.next_after(max(row.upto, env.now), anchor=row.anchor)
        save(conn, row._replace(next_at=next_at), effects)
        return True

    def _timetable(self, before: ScheduleRow | None) -> Timetable:
        known = None if before is None or before.starts is None else timetable_of(before)
        given: dict[str, Any] = {"cron": self.cron, "every": self.every}
        if self.cron is None and self.every is None and known is not None:
            given = {"cron": known.cron, "every": known.every}
        for option in ("timezone", "overlap", "missed"):
            value = getattr(self, option)
            if value is None and known is not None:
                value = getattr(known, option)
            if value is not None:
                given[option] = value
        return Timetable(self.name, **given)

    def _starts(self, before: ScheduleRow | None) -> str:
        if self.run is None:
            if before is None:
                raise ScheduleNotFoundError(self.name, "this journal")
            if before.starts is None:
                msg = (
                    f"schedule {self.name!r} was one of the program's, which lists it no longer, and what it started "
                    "is not in the journal: make it anew by schedules.create(), or list it in Engine(schedules=[...])"
                )
                raise UsageError(msg)
            return before.starts
        name = f"schedule:{self.name}"
        labels = {**self.run.labels, "schedule": self.name}
        started = evolve(self.run.started, seed=name, at=0.0)
        return to_json([evolve(self.run, run=0, run_id=name, chosen_id=False, labels=labels, started=started)])


@light_frozen
class DeleteSchedule(JournalRequest[None]):
    """
    Forget a schedule, but not the runs that it has started.

    Raises:
        UsageError: The program lists it.
        ScheduleNotFoundError: There is none.
    """

    name: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Forget it."""
        _check_is_stored(find_schedule(conn, self.name), env, "take it out there, or pause it")
        conn.execute("DELETE FROM durable_schedules WHERE name = ?", (self.name,))
        effects.schedules.append((self.name, None))


@light_frozen
class BackfillSchedule(JournalRequest[list[str]]):
    """
    Start the runs of a schedule's ticks from *since* to *until* that have none; the ids of all of them.

    Where a client records it by itself, the next engine starts them.

    Raises:
        ScheduleNotFoundError: There is none.
        UsageError: They are too many.
    """

    starts_runs: ClassVar[bool] = True

    name: str
    since: float
    until: float
    #: The ticks with their runs, made by the engine: functions of schedules are code of the user's.
    ticks: tuple[Tick, ...] | None = None

    def prepared(self, env: Env) -> BackfillSchedule:
        """Itself, with the runs."""
        JournalRequest.prepared(self, env)
        if env.schedules is None:
            return self
        ticks = env.schedules.ticks_of(self.name, self.since, min(self.until, env.now), env.now)
        return evolve(self, ticks=tuple(ticks))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> list[str]:
        """Start them, or note that they are to be."""
        row = find_schedule(conn, self.name)
        if self.ticks is not None:
            row = backfill(conn, row, self.ticks, effects)
            ids = [tick.run.run_id for tick in self.ticks if tick.run is not None]
            save(conn, row, effects)
            return [run_id for run_id in ids if run_exists(conn, run_id)]
        table = timetable_of(row)
        wanted = {table.run_id(at): at for at in past_ticks(table, row, self.since, min(self.until, env.now))}
        noted = dict(row.triggers)
        new = {run_id: at for run_id, at in wanted.items() if run_id not in noted and not run_exists(conn, run_id)}
        save(conn, row._replace(triggers=(*row.triggers, *new.items())), effects)
        return list(wanted)


REQUESTS = (PauseSchedule, ResumeSchedule, TriggerSchedule, PutSchedule, DeleteSchedule, BackfillSchedule)


def _check_is_stored(row: ScheduleRow, env: Env, remedy: str) -> None:
    """Refuse to touch what the program lists; without an engine nobody knows whether it still does."""
    listed = env.schedules.lists(row.name) if env.schedules is not None else row.starts is None
    if listed:
        msg = f"schedule {row.name!r} is one of the program's, Engine(schedules=[...]): {remedy}"
        raise UsageError(msg)
