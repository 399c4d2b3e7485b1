"""
What the tokens of a file's callbacks are made of: a key that is made with the file, and goes wherever it is copied.

Runs on a thread of a connection; the write, inside an open transaction.
"""

from __future__ import annotations

import sqlite3

_NAME = "token_key"


def make_token_key(conn: sqlite3.Connection) -> None:
    """Make the key, if the file has none yet."""
    conn.execute("INSERT OR IGNORE INTO durable_meta VALUES (?, lower(hex(randomblob(32))))", (_NAME,))


def token_key(conn: sqlite3.Connection) -> str:
    """The key."""
    row = conn.execute("SELECT value FROM durable_meta WHERE name = ?", (_NAME,)).fetchone()
    return "" if row is None else str(row[0])
