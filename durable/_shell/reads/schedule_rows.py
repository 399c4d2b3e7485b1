"""
Schedules as they stand in the file, and what holds them up. Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from durable._shell.reads.run_rows import paused_queues
from durable._shell.rows.schedule_row import ScheduleRow

_SELECT = """
SELECT name, spec, timezone, anchor, upto, next_at, last_at, last_run, open_runs, paused_at, skipped, last_skipped_at,
       last_error, triggers, failed, overlap, missed, starts
FROM durable_schedules
"""


def _row(columns: Sequence[Any]) -> ScheduleRow:
    fields = list(columns)
    fields[8] = tuple(json.loads(fields[8]))
    fields[13] = tuple((run_id, at) for run_id, at in json.loads(fields[13]))
    return ScheduleRow(*fields)


def schedule_by_name(conn: sqlite3.Connection, name: str) -> ScheduleRow | None:
    """The schedule called *name*."""
    row = conn.execute(_SELECT + "WHERE name = ?", (name,)).fetchone()
    return None if row is None else _row(row)


def all_schedules(conn: sqlite3.Connection) -> list[ScheduleRow]:
    """Every schedule that the journal knows, by name."""
    return [_row(row) for row in conn.execute(_SELECT + "ORDER BY name").fetchall()]


def still_open(conn: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """Those of *run_ids* that have not ended, or what they continued as: their ids and numbers."""
    found: dict[str, int] = {}
    for run_id in run_ids:
        following: str | None = run_id
        while following is not None:
            row = conn.execute(
                "SELECT run, run_id, successor, ended_at FROM durable_runs WHERE run_id = ?", (following,)
            ).fetchone()
            following = None if row is None else row[2]
            if row is not None and row[3] is None:
                found[row[1]] = row[0]
    return found


def held_up_by(conn: sqlite3.Connection, runs: Collection[int]) -> str | None:
    """Which of *runs*, the open ones of a schedule, will not end by itself, and what it needs; None if all may."""
    for run in runs:
        run_id, status, reason, queue = conn.execute(
            "SELECT run_id, status, reason, queue FROM durable_runs WHERE run = ?", (run,)
        ).fetchone()
        if status == "blocked":
            return f"run {run_id!r} of an earlier tick is blocked and needs a person: {reason}"
        if status == "paused":
            return f"run {run_id!r} of an earlier tick is paused: resume it, or cancel it"
        if status == "pending" and queue in paused_queues(conn):
            return f"run {run_id!r} of an earlier tick waits for queue {queue!r}, which is paused: resume it"
    return None
