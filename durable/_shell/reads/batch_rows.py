"""
What is read of batches. Runs on the reader's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from durable._core.codec.json_text import read_object
from durable._core.light_frozen import light_frozen
from durable._core.statuses import ENDS
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.why import why_by_id

_COLUMNS = """
SELECT b.batch, b.batch_id, b.description, b.labels,
       (SELECT p.batch_id FROM durable_batches AS p WHERE p.batch = b.parent),
       b.created_at, b.cancelled_at, b.reason, b.completed_at, b.finished_at, b.outcome
FROM durable_batches AS b
"""
#: One that is blocked first: a person has to know.
_OLDEST_MEMBER = """
SELECT run_id FROM durable_runs WHERE batch = ? AND ended_at IS NULL ORDER BY status <> 'blocked', run LIMIT 1
"""
_OLDEST_CALLBACK = """
SELECT run_id FROM durable_runs WHERE callback = ? AND ended_at IS NULL ORDER BY status <> 'blocked', run LIMIT 1
"""
_OLDEST_NESTED = "SELECT batch_id FROM durable_batches WHERE parent = ? AND finished_at IS NULL ORDER BY batch LIMIT 1"


@light_frozen
class BatchRow:
    """A row of `durable_batches`, and how many of its members have which status."""

    batch: int
    batch_id: str
    description: str
    labels: Mapping[str, str]
    parent: str | None
    created_at: float
    cancelled_at: float | None
    reason: str | None
    completed_at: float | None
    finished_at: float | None
    outcome: str | None
    members: Mapping[str, int]

    @property
    def pending(self) -> int:
        """Members that have not ended."""
        return sum(count for status, count in self.members.items() if status not in ENDS)


def _batch_row(conn: sqlite3.Connection, row: Sequence[Any]) -> BatchRow:
    columns: list[Any] = list(row)
    columns[3] = read_object(row[3]) or {}
    members = fetch_all(conn, "SELECT status, count(*) FROM durable_runs WHERE batch = ? GROUP BY status", (row[0],))
    columns.append(dict(members))
    return BatchRow(*columns)


def batch_by_id(conn: sqlite3.Connection, batch_id: str) -> BatchRow | None:
    """The batch called *batch_id*."""
    row = conn.execute(_COLUMNS + "WHERE b.batch_id = ?", (batch_id,)).fetchone()
    return None if row is None else _batch_row(conn, row)


def finish_of(conn: sqlite3.Connection, batch_id: str) -> tuple[bool, bool]:
    """Whether there is such a batch, and whether it is finished."""
    row = conn.execute("SELECT finished_at FROM durable_batches WHERE batch_id = ?", (batch_id,)).fetchone()
    return row is not None, row is not None and row[0] is not None


def why_unfinished(conn: sqlite3.Connection, batch_id: str, now: float) -> str | None:
    """What a batch waits for at *now*: the oldest of it in words; None if there is no such batch."""
    row = batch_by_id(conn, batch_id)
    if row is None:
        return None
    if (member := conn.execute(_OLDEST_MEMBER, (row.batch,)).fetchone()) is not None:
        pending = f"{row.pending:,} of {sum(row.members.values()):,} members"
        return f"{pending} {'has' if row.pending == 1 else 'have'} not ended; {why_by_id(conn, member[0], now)}"
    if (callback := conn.execute(_OLDEST_CALLBACK, (row.batch,)).fetchone()) is not None:
        return f"its members have ended, a callback has not; {why_by_id(conn, callback[0], now)}"
    if (nested := conn.execute(_OLDEST_NESTED, (row.batch,)).fetchone()) is not None:
        return f"batch {nested[0]!r}, which is nested in it, is not finished; {why_unfinished(conn, nested[0], now)}"
    return "nothing that is recorded"


def list_batches(
    conn: sqlite3.Connection, labels: Mapping[str, str], description: str | None, before: int | None, limit: int
) -> list[BatchRow]:
    """Up to *limit* batches that fit, newest first, all older than batch number *before*."""
    where: list[str] = []
    values: list[Any] = []
    for name, value in labels.items():
        where.append("CASE WHEN json_valid(b.labels) THEN json_extract(b.labels, ?) END = ?")
        quoted = name.replace('"', "")
        values += [f'$."{quoted}"', value]
    if description is not None:
        where.append("instr(b.description, ?) > 0")
        values.append(description)
    if before is not None:
        where.append("b.batch < ?")
        values.append(before)
    sql = _COLUMNS + ("WHERE " + " AND ".join(where) if where else "") + " ORDER BY b.batch DESC LIMIT ?"
    return [_batch_row(conn, row) for row in fetch_all(conn, sql, (*values, limit))]


def lineage(conn: sqlite3.Connection, batch: int) -> tuple[str, ...]:
    """The ids of a batch, of the one that it is nested in, and so on."""
    rows = conn.execute(
        "WITH RECURSIVE line(batch, batch_id, parent, depth) AS ("
        "SELECT batch, batch_id, parent, 0 FROM durable_batches WHERE batch = ? UNION ALL "
        "SELECT b.batch, b.batch_id, b.parent, line.depth + 1 FROM durable_batches AS b "
        "JOIN line ON b.batch = line.parent WHERE line.depth < 1000) "  # a circle, which only damage makes, has an end
        "SELECT DISTINCT batch_id FROM line ORDER BY depth",
        (batch,),
    )
    return tuple(batch_id for (batch_id,) in rows)
