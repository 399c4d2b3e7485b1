"""
Requests about schedules: pause, resume, trigger.
"""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from attrs import evolve, frozen

from durable._shell.reads.schedule_rows import still_open
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.writes.run_writes import get_or_create
from durable._shell.writes.schedule_writes import find_schedule, run_exists, save, with_run


@frozen
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


@frozen
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


@frozen
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
        super().prepared(env)
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


REQUESTS = (PauseSchedule, ResumeSchedule, TriggerSchedule)
