"""
Counts of a whole journal, for people. Light, as `run_rows` is.

Runs that ended were counted then, and events are numbered: a large file takes no longer than a small one. What is open
is counted, and what waits, so it takes longer with much of these.
"""

from __future__ import annotations

import sqlite3

from durable._core.light_tuples import NamedTuple
from durable._shell.reads.run_rows import LimitRow, RunRow, limit_rows, run_by_id
from durable._shell.storage.copies.marks import schema_of
from durable._shell.storage.run_counts import run_counts


class QueueLine(NamedTuple):
    """A queue that has something to do, or is paused."""

    name: str
    #: Runs that have not begun and wait for a slot; active runs, or woken and about to be.
    depth: int
    running: int
    #: Since when the one that waits longest waits.
    oldest_ready_at: float | None
    paused: bool


class Census(NamedTuple):
    """A journal in numbers."""

    #: Workflow or job -> status -> how many runs.
    workflows: dict[str, dict[str, int]]
    oldest_open: RunRow | None
    #: Events ever recorded, those included that were pruned.
    events: int
    #: Kind of wait -> how many.
    waits: dict[str, int]
    queues: list[QueueLine]
    #: Limits at which somebody is.
    limits: list[LimitRow]
    #: Signals and other arrivals that no turn has taken in yet.
    inbox: int
    batches_open: int
    schedules: int
    #: What the file holds, and what of it is free to be used again.
    bytes: int
    bytes_free: int
    schema: int

    @property
    def statuses(self) -> dict[str, int]:
        """Status -> how many runs."""
        found: dict[str, int] = {}
        for counts in self.workflows.values():
            for status, count in counts.items():
                found[status] = found.get(status, 0) + count
        return found


def census(conn: sqlite3.Connection) -> Census:
    """Count what is there."""
    workflows: dict[str, dict[str, int]] = {}
    for workflow, status, count in run_counts(conn):
        workflows.setdefault(workflow, {})[status] = count
    oldest = conn.execute("SELECT min(run) FROM durable_runs WHERE ended_at IS NULL").fetchone()[0]
    page_size = _number(conn, "PRAGMA page_size")
    return Census(
        workflows=workflows,
        oldest_open=None if oldest is None else _run(conn, oldest),
        events=_number(conn, "SELECT coalesce(max(id), 0) FROM durable_events"),
        waits=dict(conn.execute("SELECT kind, count(*) FROM durable_waits GROUP BY kind ORDER BY kind").fetchall()),
        queues=queue_lines(conn),
        limits=limit_rows(conn),
        inbox=_number(conn, "SELECT count(*) FROM durable_inbox JOIN durable_runs USING (run) WHERE ended_at IS NULL"),
        batches_open=_number(conn, "SELECT count(*) FROM durable_batches WHERE finished_at IS NULL"),
        schedules=_number(conn, "SELECT count(*) FROM durable_schedules"),
        bytes=_number(conn, "PRAGMA page_count") * page_size,
        bytes_free=_number(conn, "PRAGMA freelist_count") * page_size,
        schema=schema_of(conn) or 0,
    )


def ended_since(conn: sqlite3.Connection, since: float) -> dict[str, int]:
    """Status -> how many runs have ended so since that moment. Looks at all rows of runs."""
    sql = "SELECT status, count(*) FROM durable_runs WHERE ended_at >= ? GROUP BY status"
    return dict(conn.execute(sql, (since,)).fetchall())


def queue_lines(conn: sqlite3.Connection) -> list[QueueLine]:
    """Queues that have something to do, or are paused, by name."""
    rows = conn.execute(
        "SELECT q.name, coalesce(r.depth, 0), coalesce(r.running, 0), r.oldest, p.paused_at IS NOT NULL FROM ("
        "SELECT queue AS name FROM durable_runs WHERE ready_at IS NOT NULL "
        "UNION SELECT name FROM durable_queues WHERE paused_at IS NOT NULL) AS q "
        "LEFT JOIN (SELECT queue, sum(status = 'pending') AS depth, sum(status = 'running') AS running, "
        "min(CASE WHEN status = 'pending' THEN ready_at END) AS oldest "
        "FROM durable_runs WHERE ready_at IS NOT NULL GROUP BY queue) AS r ON r.queue = q.name "
        "LEFT JOIN durable_queues AS p ON p.name = q.name AND p.paused_at IS NOT NULL ORDER BY q.name"
    )
    return [QueueLine(name, depth, running, oldest, bool(paused)) for name, depth, running, oldest, paused in rows]


def _run(conn: sqlite3.Connection, run: int) -> RunRow | None:
    (run_id,) = conn.execute("SELECT run_id FROM durable_runs WHERE run = ?", (run,)).fetchone()
    return run_by_id(conn, run_id)


def _number(conn: sqlite3.Connection, sql: str) -> int:
    return int(conn.execute(sql).fetchone()[0])
