"""
Rows that do not fit their seals: whose they are, since the column that says so may be what was damaged.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from durable._shell.reads.run_rows import damaged
from durable._shell.storage.seals import Key, column, fits, is_sound

#: Open runs that are tried, at most: more would take seconds.
_TRIED: Final = 100_000
_NOTES: Final = """
SELECT run, position, name FROM durable_notes WHERE run = ? AND name NOT GLOB 'kept:*' AND checksum IS NOT NULL
"""


def owner_of(conn: sqlite3.Connection, table: str, key: Key) -> int:
    """The run to which a damaged row of *table* belongs: the one with which it fits its seal, or the one it names."""
    for (run,) in conn.execute("SELECT run FROM durable_runs WHERE ended_at IS NULL LIMIT ?", (_TRIED,)).fetchall():
        if fits(conn, table, key, "run", run):
            return int(run)
    return int(column(conn, table, key, "run") or 0)


def require_sound(conn: sqlite3.Connection, run: int, table: str, *key: Any) -> bool:
    """
    Whether a row is one of *run*'s; False if it is another's, and only names it.

    Raises:
        JournalDamagedError: It is, and does not fit its seal.
    """
    if is_sound(conn, table, *key):
        return True
    if owner_of(conn, table, key) != run:
        return False
    raise damaged(conn, f"a row of {table} of run number {run} was changed by nobody that may")


def require_sound_notes(conn: sqlite3.Connection, run: int) -> None:
    """
    Nothing, if what the steps of a run have noted is as they did.

    Raises:
        JournalDamagedError: It is not.
    """
    for key in conn.execute(_NOTES, (run,)).fetchall():
        require_sound(conn, run, "durable_notes", *key)
