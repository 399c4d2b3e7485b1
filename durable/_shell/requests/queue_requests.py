"""
Requests about queues: pause, resume, clear.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen

from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.writes import slots
from durable._shell.writes.wakeups import let_in, request_cancel


@frozen
class PauseQueue(JournalRequest[bool]):
    """Begin nothing more from a queue, or (*paused* False) again; False if that is so already."""

    queue: str
    paused: bool

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Note it."""
        noted = conn.execute("SELECT paused_at FROM durable_queues WHERE name = ?", (self.queue,)).fetchone()
        if (noted is not None and noted[0] is not None) == self.paused:
            return False
        conn.execute(
            "INSERT INTO durable_queues (name, paused_at) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at",
            (self.queue, env.now if self.paused else None),
        )
        effects.queues[self.queue] = self.paused
        if not self.paused:
            let_in(conn, slots.come_back_to_queue(conn, self.queue, env.now, effects), env.now, effects)
        return True


@frozen
class ClearQueue(JournalRequest[int]):
    """Cancel every run of a queue that has not begun; how many."""

    queue: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> int:
        """Ask each to end."""
        rows = conn.execute(
            "SELECT run FROM durable_runs WHERE queue = ? AND status = 'pending'", (self.queue,)
        ).fetchall()
        reason = f"queue {self.queue!r} was cleared"
        return sum(request_cancel(conn, run, reason, env.now, effects) for (run,) in rows)


REQUESTS = (PauseQueue, ClearQueue)
