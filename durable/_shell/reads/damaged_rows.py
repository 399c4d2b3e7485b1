"""
Rows that do not fit their seals, or their run: whose they are, since the column that says so may be what was damaged.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from durable._core.light_tuples import NamedTuple
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.run_rows import damaged
from durable._shell.rows.checksums import is_chained
from durable._shell.storage.seals import Key, column, fits, is_sound

#: Runs that are tried, at most: more would take seconds.
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


class Misplaced(NamedTuple):
    """An event that stands with a run, and continues the history of another one."""

    id: int
    seq: int
    owner: int
    owner_id: str


def misplaced(conn: sqlite3.Connection, run: int) -> list[Misplaced]:
    """
    The events that stand with *run*, do not follow its own, and are missing elsewhere.

    A checksum says which event it follows: so it can be told whose an event is whose number of its run was damaged.
    """
    found: list[Misplaced] = []
    seq = chain = 0
    for number, at, recorded, *columns in fetch_all(conn, _EVENTS_OF, (run,)):
        if at == seq + 1 and is_chained(recorded, chain, *columns):
            seq, chain = at, recorded
            continue
        if at <= 1:  # nor is there an event before the first
            continue
        for owner, owner_id, before in fetch_all(conn, _MISSING, {"seq": at, "before": at - 1, "tried": _TRIED}):
            if owner != run and is_chained(recorded, before, *columns):
                found.append(Misplaced(number, at, owner, owner_id))
                break
    return found


_EVENTS_OF = """
SELECT e.id, e.seq, e.checksum, e.kind, e.position, e.at, e.body, coalesce(e.value, p.value)
FROM durable_events AS e LEFT JOIN durable_payloads AS p ON p.payload = e.payload WHERE e.run = ? ORDER BY e.seq
"""
#: The newest runs that have no event of a number, and the checksum of the one before it.
_MISSING = """
SELECT r.run, r.run_id, e.checksum FROM (SELECT run, run_id FROM durable_runs ORDER BY run DESC LIMIT :tried) AS r
JOIN durable_events AS e ON e.run = r.run AND e.seq = :before
WHERE NOT EXISTS (SELECT 1 FROM durable_events AS n WHERE n.run = r.run AND n.seq = :seq)
"""
