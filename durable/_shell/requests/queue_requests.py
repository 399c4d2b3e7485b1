"""
Requests about queues and limits: pause, resume, clear, other numbers.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, TypeAlias

from durable._core.admission import Queue
from durable._core.codec.json_text import read_list
from durable._core.light_frozen import light_frozen
from durable._core.policies.limits import Limit, Rate
from durable._core.program.definition import check_name
from durable._shell.claims import slots
from durable._shell.reads.queue_rows import changed_queue
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.writes.wakeups import let_in, request_cancel
from durable.errors import DefinitionError, UsageError

_Numbers: TypeAlias = tuple[int | None, int | None, float | None]


@light_frozen
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


@light_frozen
class ClearQueue(JournalRequest[int]):
    """Cancel every run of a queue that has not begun; how many."""

    queue: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> int:
        """Ask each to end."""
        rows = conn.execute(
            "SELECT run FROM durable_runs WHERE queue = ? AND status = 'pending' AND started_at IS NULL", (self.queue,)
        ).fetchall()
        reason = f"queue {self.queue!r} was cleared"
        return sum(request_cancel(conn, run, reason, env.now, effects) for (run,) in rows)


@light_frozen
class ChangeQueue(JournalRequest[None]):
    """Let other numbers hold for a queue than those of the code; or, with *reset*, those of the code again."""

    queue: str
    concurrency: int | None
    count: int | None
    per: float | None
    reset: bool = False

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Note them."""
        check_name("a queue", self.queue)
        rate = None if self.count is None else Rate(self.count, per=self.per or 0.0)
        Queue(self.queue, self.concurrency, rate=rate)  # refuses what is no number
        numbers = None if self.reset else json.dumps([self.concurrency, self.count, self.per])
        conn.execute(
            "INSERT INTO durable_queues (name, changed) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET changed = excluded.changed",
            (self.queue, numbers),
        )
        effects.changed_queues[self.queue] = changed_queue(
            conn, self.queue, numbers, env.now, env.rates.get(self.queue)
        )


@light_frozen
class ChangeLimit(JournalRequest[None]):
    """
    Let other numbers hold for a limit than those of the code; or, with *reset*, those of the code again.

    Raises:
        UsageError: No engine has had a limit of this name.
        DefinitionError: These are no numbers.
    """

    limit: str
    concurrency: int | None
    count: int | None
    per: float | None
    reset: bool = False

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Note them, and let in whom they let in."""
        row = conn.execute(
            "SELECT coalesce(own, json_array(concurrency, count, per)), on_conflict FROM durable_limits WHERE name = ?",
            (self.limit,),
        ).fetchone()
        if row is None:
            msg = f"no limit is called {self.limit!r} in this journal: it is known once an engine has had it"
            raise UsageError(msg)
        own, on_conflict = row
        if self.reset:
            numbers, own = self._numbers_of_code(own, on_conflict), None
        else:
            numbers = (self.concurrency, self.count, self.per)
            self._check(*numbers, on_conflict)
        conn.execute(
            "UPDATE durable_limits SET concurrency = ?, count = ?, per = ?, own = ? WHERE name = ?",
            (*numbers, own, self.limit),
        )
        let_in(conn, slots.grant_all(conn, env.now, effects), env.now, effects)

    def _numbers_of_code(self, own: str, on_conflict: Any) -> _Numbers:
        try:
            concurrency, count, per = read_list(own, int | None, int | None, int | float | None) or (None, None, None)
            self._check(concurrency, count, per, on_conflict)
        except DefinitionError as error:
            msg = f"the code's numbers of limit {self.limit!r} are damaged: an engine notes them as it opens"
            raise UsageError(msg) from error
        return concurrency, count, per

    def _check(self, concurrency: int | None, count: int | None, per: float | None, on_conflict: Any) -> None:
        """Raises DefinitionError if these are no numbers of a limit."""
        rate = None if count is None else Rate(count, per=per or 0.0)
        Limit(self.limit, concurrency=concurrency, rate=rate, on_conflict=on_conflict)


REQUESTS = (PauseQueue, ClearQueue, ChangeQueue, ChangeLimit)
