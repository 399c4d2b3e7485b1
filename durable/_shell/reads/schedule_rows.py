"""
What is shown of schedules. Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from durable._shell.rows.schedule_row import ScheduleRow

_SELECT = """
SELECT name, spec, timezone, anchor, upto, next_at, last_at, last_run, open_runs, paused_at, skipped, last_skipped_at,
       last_error, triggers
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
