"""
Requests into runs: signals whose senders wait for an answer. Runs on the writer's thread, in an open transaction.

The inbox, and then the history, have the question, as of every signal; a row of `durable_asked` has who asked for what,
and the answer once there is one, for as long as the run is kept. A request of a run that has ended has none, and gets
none unless somebody retries the run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from durable._core.codec.digests import may_be_equal
from durable._core.journal.events import SignalReceived
from durable._core.run.decision import ReplyAction
from durable._shell.reads.event_rows import load_items
from durable._shell.reads.run_rows import current_run
from durable._shell.rows.rows import Effects
from durable._shell.writes.wakeups import put_signal
from durable.errors import RequestConflictError, UsageError

_ANSWER = """
UPDATE durable_asked SET answer = ?, refused = ?, answered_at = ?
WHERE request = ? AND run = ? AND answered_at IS NULL
"""


def ask(
    conn: sqlite3.Connection, run_id: str, asked: SignalReceived, digest: str, dedup: str | None, effects: Effects
) -> str:
    """
    Ask the run called *run_id*; the id of the request: of the first one, if *dedup* was accepted before.

    Raises:
        RunNotFoundError, RunStateError: There is no such run, or it has ended. Nothing was written.
        RequestConflictError: Something else was asked under *dedup*.
        UsageError: Another request has the id of this one.
    """
    run = current_run(conn, run_id)
    if dedup is not None:
        first = conn.execute(
            "SELECT request, name, digest FROM durable_asked WHERE run = ? AND dedup = ?", (run.run, dedup)
        ).fetchone()
        if first is not None:
            request, name, before = first
            if not may_be_equal(f"{name}:{before}", f"{asked.name}:{digest}"):
                raise RequestConflictError(run_id, asked.name, dedup)
            return str(request)
    row = (asked.request, run.run, asked.name, dedup, digest, asked.at)
    added = conn.execute(
        "INSERT OR IGNORE INTO durable_asked (request, run, name, dedup, digest, asked_at) VALUES (?, ?, ?, ?, ?, ?)",
        row,
    )
    if not added.rowcount:
        msg = f"a request with the id {asked.request!r} exists: ids are made by chance"
        raise UsageError(msg)
    put_signal(conn, run, asked, effects)
    return asked.request


def answer(conn: sqlite3.Connection, run: int, replies: Sequence[ReplyAction], at: float, effects: Effects) -> None:
    """
    Keep what *run* answers: once, also if it was retried since and comes to something else.

    A fork has the questions of its original in its history, and answers nobody.
    """
    for reply in replies:
        if conn.execute(_ANSWER, (reply.payload, reply.refused, at, reply.request, run)).rowcount:
            effects.answered.append(reply.request)


def carry_over(conn: sqlite3.Connection, run: int, successor: int) -> None:
    """
    Let what is answered be found with the run as which *run* continues, and what that one has still to hear.

    The rest ends with *run*: its code has taken it in, and said nothing.
    """
    conn.execute("UPDATE durable_asked SET run = ? WHERE run = ? AND answered_at IS NOT NULL", (successor, run))
    if conn.execute("SELECT 1 FROM durable_asked WHERE run = ? LIMIT 1", (run,)).fetchone() is None:
        return
    events = (item.event for item in load_items(conn, successor, 0))
    unheard = [(successor, event.request, run) for event in events if isinstance(event, SignalReceived)]
    conn.executemany("UPDATE durable_asked SET run = ? WHERE request = ? AND run = ?", unheard)
