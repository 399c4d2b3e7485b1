"""
Callbacks as the file has them. Runs on the reader's thread.
"""

from __future__ import annotations

import sqlite3

from durable._core.journal.columns import from_row
from durable._core.journal.events import CallbackOpened
from durable._core.program.tokens import make_token

_OPEN = """
SELECT r.run_id, e.kind, e.position, e.body, NULL, e.at FROM durable_waits AS w
JOIN durable_runs AS r ON r.run = w.run
JOIN durable_events AS e ON e.run = w.run AND e.position = w.position AND e.kind = ?
WHERE w.kind = 'callback' AND w.name = ? AND r.status = 'waiting' ORDER BY w.wait, e.seq DESC LIMIT 1
"""


def open_token(conn: sqlite3.Connection, name: str) -> str | None:
    """The token of the callback called *name* that a freed run has had open for longest, if any."""
    row = conn.execute(_OPEN, (CallbackOpened.kind, name)).fetchone()
    if row is None:
        return None
    opened = from_row(*row[1:])
    return make_token(row[0], opened.position, opened.nonce) if isinstance(opened, CallbackOpened) else None
