"""
How many runs there are, by workflow and status: kept as they are written, so that nobody counts a million rows.

By triggers of each writing connection (temporary ones, so that the file has none), in the transaction that changes the
run. Where somebody else has written to `durable_runs` they are wrong, which decides nothing: `doctor` compares, and the
next engine that opens the file counts anew once `durable_run_counts` is empty. Light: the command line reads with it.
"""

from __future__ import annotations

import sqlite3
from typing import Final

_NEW: Final = """
CREATE TEMP TRIGGER IF NOT EXISTS durable_runs_count_new AFTER INSERT ON main.durable_runs BEGIN
    INSERT INTO durable_run_counts VALUES (new.workflow, new.status, 1)
    ON CONFLICT (workflow, status) DO UPDATE SET runs = runs + excluded.runs;
END
"""
_CHANGED: Final = """
CREATE TEMP TRIGGER IF NOT EXISTS durable_runs_count_changed AFTER UPDATE OF status ON main.durable_runs
WHEN old.status IS NOT new.status BEGIN
    INSERT INTO durable_run_counts VALUES (old.workflow, old.status, -1), (new.workflow, new.status, 1)
    ON CONFLICT (workflow, status) DO UPDATE SET runs = runs + excluded.runs;
END
"""
_GONE: Final = """
CREATE TEMP TRIGGER IF NOT EXISTS durable_runs_count_gone AFTER DELETE ON main.durable_runs BEGIN
    UPDATE durable_run_counts SET runs = runs - 1 WHERE workflow = old.workflow AND status = old.status;
END
"""
_COUNTED: Final = "SELECT workflow, status, count(*) FROM durable_runs GROUP BY workflow, status"


def keep_counts(conn: sqlite3.Connection) -> None:
    """Let every run that is written through *conn* be counted."""
    for trigger in (_NEW, _CHANGED, _GONE):
        conn.execute(trigger)
    if not run_counts(conn) and conn.execute("SELECT EXISTS (SELECT 1 FROM durable_runs)").fetchone()[0]:
        count_anew(conn)


def count_anew(conn: sqlite3.Connection) -> None:
    """Count all rows of runs, whatever was counted before."""
    conn.execute("DELETE FROM durable_run_counts")
    conn.execute("INSERT INTO durable_run_counts " + _COUNTED)


def run_counts(conn: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """Workflow or job, status, how many runs; of those that there are."""
    return conn.execute("SELECT workflow, status, runs FROM durable_run_counts WHERE runs > 0").fetchall()


def are_right(conn: sqlite3.Connection) -> bool:
    """Whether a count of all rows of runs comes to the same."""
    return sorted(run_counts(conn)) == sorted(conn.execute(_COUNTED).fetchall())
