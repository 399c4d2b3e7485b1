"""
Runs that could proceed, as the scheduler sees them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

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
    labels = json.loads(row[7]) if row[7] else {}
    run, run_id, workflow, kind, queue, priority, ready_at, _, place, batch, callback, follow_ups, retry, *rest = row
    timeout, expires_at, begun = rest
    return ReadyRun(
        run, run_id, workflow, kind, queue, priority, ready_at or 0.0, labels, place, batch, callback, follow_ups,
        retry, timeout, expires_at, bool(begun),
    )  # fmt: skip
