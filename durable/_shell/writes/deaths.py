"""
What the next engine of a file is to know if this one dies: that it drains, whose turn it is among suspects, who killed.

Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from durable._core.codec.json_text import dumps, read_list
from durable._core.light_frozen import light_frozen
from durable._core.suspicion import Accused, Suspect, TurnMark, accused


@light_frozen
class LastLife:
    """What the last engine of a file left: of use if it died."""

    #: Whether it had begun to drain: then its death was an interruption, and no crash.
    drained: bool = False
    #: The suspect that had its turn, see `suspicion`.
    alone: Suspect | None = None
    #: Whether it died in a turn: then its death says nothing of the steps.
    in_turn: bool = False
    #: Turns in which the process died, this time or at deaths before.
    accused: Sequence[Accused] = ()


def note_drain(conn: sqlite3.Connection, at: float) -> None:
    """Record that the engine which owns the file drains since *at*."""
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('draining_since', ?)", (at,))


def note_alone(conn: sqlite3.Connection, suspect: Suspect) -> None:
    """Record whose turn it is among the suspects."""
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('alone', ?)", (dumps(list(suspect)),))


def take_last_life(conn: sqlite3.Connection, noted: Iterable[TurnMark] | None) -> LastLife:
    """
    What the last engine left, whose turns in progress *noted* are; None if it gave the file up.

    It is forgotten: the next death is another one's. But deaths in turns are kept until an engine gives the file up.
    What is damaged of it is not known: then another death tells.
    """
    rows = conn.execute("DELETE FROM durable_meta WHERE name IN ('draining_since', 'alone') RETURNING name, value")
    found = dict(rows.fetchall())
    alone, drained = read_list(found.get("alone"), int, str, int), "draining_since" in found
    marks = [] if drained or noted is None else list(noted)
    charged = [] if noted is None else accused(_all_accused(conn), marks)
    _keep_accused(conn, charged)
    return LastLife(drained, None if alone is None else Suspect(*alone), bool(marks), charged)


def acquit(conn: sqlite3.Connection, run: int) -> None:
    """Forget the deaths in turns of *run*: they had their consequence."""
    _keep_accused(conn, [each for each in _all_accused(conn) if each.mark.run != run])


def _all_accused(conn: sqlite3.Connection) -> list[Accused]:
    row = conn.execute("SELECT value FROM durable_meta WHERE name = 'accused'").fetchone()
    entries = None if row is None else read_list(row[0])
    return [each for each in map(_accused, entries or ()) if each is not None]


def _accused(entry: object) -> Accused | None:
    match entry:
        case [[int(run), str(position), int(reached)], int(noted)]:
            return Accused(TurnMark(run, position, reached), noted)
        case _:
            return None


def _keep_accused(conn: sqlite3.Connection, charged: Sequence[Accused]) -> None:
    if charged:
        value = dumps([[list(each.mark), each.noted] for each in charged])
        conn.execute("INSERT OR REPLACE INTO durable_meta VALUES ('accused', ?)", (value,))
    else:
        conn.execute("DELETE FROM durable_meta WHERE name = 'accused'")
