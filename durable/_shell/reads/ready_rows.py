"""
Runs that could proceed, as the scheduler sees them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from durable._core.codec.json_text import read_object
from durable._shell.rows.rows import ReadyRun

#: What the scheduler needs of a run, see `ready_run`.
SELECT_READY = (
    "SELECT run, run_id, workflow, sort, queue, priority, ready_at, labels, place, batch, callback, follow_ups, retry, "
    "timeout, expires_at, started_at IS NOT NULL AS begun FROM durable_runs "
)


def read_ready(conn: sqlite3.Connection, run: int) -> ReadyRun:
    """A run as the scheduler sees it."""
    return ready_run(conn.execute(SELECT_READY + "WHERE run = ?", (run,)).fetchone())


def ready_run(row: Sequence[Any]) -> ReadyRun:
    """A row of `SELECT_READY`'s columns."""
    labels = read_object(row[7])
    damage = "" if labels is not None else "its labels are no JSON object"
    run, run_id, workflow, kind, queue, priority, ready_at, _, place, batch, callback, follow_ups, retry, *rest = row
    timeout, expires_at, begun = rest
    return ReadyRun(
        run, run_id, workflow, queue, labels=labels or {}, batch=batch, callback=callback, kind=kind, priority=priority,
        ready_at=ready_at or 0.0, place=place, follow_ups=follow_ups, retry=retry, timeout=timeout,
        expires_at=expires_at, begun=bool(begun), damage=damage,
    )  # fmt: skip
