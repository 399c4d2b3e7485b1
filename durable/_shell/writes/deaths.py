"""
What the next engine of a file is to know if this one dies: that it drains, and which suspect had its turn.

Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen

from durable._core.codec.json_text import dumps, loads
from durable._core.run.suspicion import Suspect


@frozen
class LastLife:
    """What the last engine of a file left: of use if it died."""

    #: Whether it had begun to drain: then its death was an interruption, and no crash.
    drained: bool = False
    #: The suspect that had its turn, see `suspicion`.
    alone: Suspect | None = None


def note_drain(conn: sqlite3.Connection, at: float) -> None:
    """Record that the engine which owns the file drains since *at*."""
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('draining_since', ?)", (at,))


def note_alone(conn: sqlite3.Connection, suspect: Suspect) -> None:
    """Record whose turn it is among the suspects."""
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('alone', ?)", (dumps(list(suspect)),))


def take_last_life(conn: sqlite3.Connection) -> LastLife:
    """What the last engine left. It is forgotten: the next death is another one's."""
    rows = conn.execute("DELETE FROM durable_meta WHERE name IN ('draining_since', 'alone') RETURNING name, value")
    found = dict(rows.fetchall())
    alone = found.get("alone")
    return LastLife("draining_since" in found, None if alone is None else Suspect(*loads(alone)))
