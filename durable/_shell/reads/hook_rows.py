"""
Hooks that went wrong and are to be called again, with what they are called with. Runs on the reader's thread.
"""

from __future__ import annotations

import sqlite3

from durable._core.journal.events import Event
from durable._core.light_frozen import light_frozen
from durable._core.light_tuples import NamedTuple
from durable._shell.reads.event_rows import checked_end, load_history
from durable._shell.reads.run_rows import RunRow, require_run
from durable._shell.rows.rows import RunResult


class OwedHook(NamedTuple):
    """A hook that somebody asked to be called again."""

    entry: int
    #: Its name.
    hook: str


@light_frozen
class OwedHooks:
    """Those of one run, and how that ended."""

    row: RunRow
    events: list[Event]
    end: RunResult
    hooks: list[OwedHook]


def runs_with_owed_hooks(conn: sqlite3.Connection) -> list[int]:
    """The runs of which hooks are to be called again."""
    rows = conn.execute("SELECT DISTINCT run FROM durable_hook_errors WHERE asked_at IS NOT NULL ORDER BY run")
    return [run for (run,) in rows.fetchall()]


def owed_hooks(conn: sqlite3.Connection, path: str, run: int) -> OwedHooks | None:
    """
    What is to be called again for run number *run*; None if nothing is.

    Raises:
        JournalCorruptError: What it is called with cannot be read.
    """
    rows = conn.execute(
        "SELECT h.entry, h.hook, r.run_id FROM durable_hook_errors AS h JOIN durable_runs AS r USING (run) "
        "WHERE h.run = ? AND h.asked_at IS NOT NULL ORDER BY h.entry",
        (run,),
    ).fetchall()
    if not rows:
        return None
    row = require_run(conn, rows[0][2])
    hooks = [OwedHook(entry, hook) for entry, hook, _ in rows]
    return OwedHooks(row, load_history(conn, path, row), checked_end(conn, path, row), hooks)
