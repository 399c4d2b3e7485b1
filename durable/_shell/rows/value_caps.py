"""
What the last engine of a file takes as a value, and whether it encrypts: clients, which know no settings, refuse by it.

Runs on a thread of a connection; the write, inside an open transaction.
"""

from __future__ import annotations

import sqlite3

from durable._core.codec.json_text import dumps, read_list

_NAME = "value_caps"


def note_value_caps(conn: sqlite3.Connection, max_bytes: int, max_depth: int, *, encrypts: bool) -> None:
    """Record the caps of the engine that opens the file, and whether its codec encrypts."""
    value = dumps([max_bytes, max_depth, encrypts])
    conn.execute(
        "INSERT INTO durable_meta VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET value = excluded.value WHERE value != excluded.value",
        (_NAME, value),
    )


def value_caps(conn: sqlite3.Connection) -> tuple[int, int, bool] | None:
    """The largest text in bytes, the deepest nesting, and whether values are encrypted; None if no engine noted it."""
    # As bytes, since a damaged text is none: the caps are then not known, and all else is read.
    row = conn.execute("SELECT CAST(value AS BLOB) FROM durable_meta WHERE name = ?", (_NAME,)).fetchone()
    if row is None or row[0] is None:
        return None
    found = read_list(row[0].decode(errors="replace"), int, int, bool)
    return None if found is None else (found[0], found[1], found[2])
