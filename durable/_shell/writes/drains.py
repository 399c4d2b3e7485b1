"""
That an engine has begun to drain, as a row: a death after that is an interruption, and no crash.

Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3


def note_drain(conn: sqlite3.Connection, at: float) -> None:
    """Record that the engine which owns the file drains since *at*."""
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('draining_since', ?)", (at,))


def take_drain(conn: sqlite3.Connection) -> bool:
    """Whether the last engine of the file had begun to drain. It is forgotten: the next death is another one's."""
    return conn.execute("DELETE FROM durable_meta WHERE name = 'draining_since'").rowcount > 0
