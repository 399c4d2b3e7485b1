"""
Schedules as they stand in the file, and what holds them up. Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.run_rows import chain, damaged, paused_queues
from durable._shell.rows.schedule_row import ScheduleRow

_SELECT = """
SELECT name, spec, timezone, anchor, upto, next_at, last_at, last_run, open_runs, paused_at, skipped, last_skipped_at,
       last_error, triggers, failed, overlap, missed, starts
FROM durable_schedules
"""


def _row(columns: Sequence[Any]) -> ScheduleRow:
    """Raises ValueError if the row is damaged."""
    fields = list(columns)
    fields[8] = tuple(_listed(fields[8], str))
    fields[13] = tuple((_kind(run_id, str), _kind(at, int | float)) for run_id, at in _listed(fields[13], list))
    return ScheduleRow(*fields)


def _listed(text: str, kind: Any) -> list[Any]:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("a list nested too deeply") from error
    return [_kind(each, kind) for each in _kind(found, list)]


def _kind(found: Any, kind: Any) -> Any:
    if not isinstance(found, kind):
        msg = f"expected {getattr(kind, '__name__', kind)}, found {found!r:.40}"
        raise ValueError(msg)  # noqa: TRY004 - of a text that is no such JSON, as `json.loads` says
    return found


def schedule_by_name(conn: sqlite3.Connection, name: str) -> ScheduleRow | None:
    """
    The schedule called *name*.

    Raises:
        JournalDamagedError: Its row cannot be read.
    """
    row = conn.execute(_SELECT + "WHERE name = ?", (name,)).fetchone()
    try:
        return None if row is None else _row(row)
    except ValueError as error:
        raise damaged(conn, f"schedule {name!r}: {error}") from error


def all_schedules(conn: sqlite3.Connection) -> list[ScheduleRow]:
    """Every schedule that the journal knows, by name; one whose row is damaged without what cannot be read."""
    return [_readable(row) for row in fetch_all(conn, _SELECT + "ORDER BY name")]


def _readable(columns: Sequence[Any]) -> ScheduleRow:
    try:
        return _row(columns)
    except ValueError:
        return _row([*columns[:8], "[]", *columns[9:13], "[]", *columns[14:]])


def still_open(conn: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """Those of *run_ids* that have not ended, or what they continued as: their ids and numbers."""
    found: dict[str, int] = {}
    for run_id in run_ids:
        for link in chain(conn, run_id):
            row = conn.execute("SELECT run FROM durable_runs WHERE run_id = ? AND ended_at IS NULL", (link,)).fetchone()
            if row is not None:
                found[link] = row[0]
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
