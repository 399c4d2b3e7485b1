"""
How batches complete and finish. Runs on the writer's thread, inside an open transaction.

A batch is complete when no member is open and no nested batch is unfinished; it is finished when
its callbacks have ended, too. Nothing is counted: each end asks an index whether an open row is
left, once for all members of a batch that end in one commit group. Callbacks start in the
transaction of the end that causes them, so each starts once or, with that end, not at all.

The order is total: a nested batch finishes, callbacks included, before anything of its parent
that depends on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from attrs import evolve

from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.run_rows import OPEN_SQL
from durable._shell.rows.new_runs import new_run_id
from durable._shell.rows.rows import BatchNews, Effects, LastTurn
from durable._shell.rows.templates import begun, from_json
from durable._shell.storage.seals import is_sound
from durable._shell.writes.damage import isolate
from durable._shell.writes.run_writes import insert_run

_OPEN_MEMBER = f"SELECT 1 FROM durable_runs WHERE batch = ? AND status IN {OPEN_SQL} LIMIT 1"  # noqa: S608 - a constant
_OPEN_CALLBACK = f"SELECT 1 FROM durable_runs WHERE callback = ? AND status IN {OPEN_SQL} LIMIT 1"  # noqa: S608 - a constant
_UNFINISHED = "SELECT 1 FROM durable_batches WHERE parent = ? AND finished_at IS NULL LIMIT 1"
#: Whether something in it failed, and whether something in it was cancelled.
_TROUBLE = """
SELECT EXISTS (SELECT 1 FROM durable_runs WHERE batch = :batch AND status = 'failed')
    OR EXISTS (SELECT 1 FROM durable_batches WHERE parent = :batch AND outcome = 'failed'),
       EXISTS (SELECT 1 FROM durable_runs WHERE batch = :batch AND status = 'cancelled')
    OR EXISTS (SELECT 1 FROM durable_batches WHERE parent = :batch AND outcome = 'cancelled')
"""
_BAD_CALLBACK = """
SELECT EXISTS (SELECT 1 FROM durable_runs WHERE callback = :batch AND status = 'failed'),
       EXISTS (SELECT 1 FROM durable_runs WHERE callback = :batch AND status = 'cancelled')
"""


def tell_batches(conn: sqlite3.Connection, turns: Iterable[LastTurn], effects: Effects) -> None:
    """Let batches know of the ends in *turns*, those of a commit group together."""
    failed: dict[int, float] = {}
    touched: dict[int, float] = {}
    allocate: Callable[[], int] | None = None
    for turn in turns:
        batch, callback = turn.state.batch, turn.state.callback
        if (batch is None and callback is None) or turn.successor is not None:
            continue  # what it continues as is the member now
        allocate = turn.allocate
        if batch is not None:
            touched[batch] = turn.at
            if turn.status == "failed":
                failed.setdefault(batch, turn.at)
        if callback is not None:
            touched[callback] = turn.at
    if allocate is None:
        return
    for batch, at in failed.items():
        _fail(conn, batch, at, allocate, effects)
    for batch, at in touched.items():
        finish_batches(conn, batch, at, allocate, effects)


def finish_batches(
    conn: sqlite3.Connection, first: int, at: float, allocate: Callable[[], int], effects: Effects
) -> None:
    """Complete and finish a batch, and those around it, as far as all in them has ended."""
    batch: int | None = first
    while batch is not None:
        if conn.execute(_OPEN_MEMBER, (batch,)).fetchone() or conn.execute(_UNFINISHED, (batch,)).fetchone():
            return
        batch_id, parent, cancelled_at, completed_at, finished_at, outcome, seal = conn.execute(
            "SELECT batch_id, parent, cancelled_at, completed_at, finished_at, outcome, checksum "
            "FROM durable_batches WHERE batch = ?",
            (batch,),
        ).fetchone()
        if finished_at is not None or (seal is not None and _is_damaged(conn, batch, at, effects)):
            return
        if completed_at is None:
            outcome = _complete(conn, batch, batch_id, cancelled_at, at, allocate, effects)
        if conn.execute(_OPEN_CALLBACK, (batch,)).fetchone():
            return
        failed, cancelled = conn.execute(_BAD_CALLBACK, {"batch": batch}).fetchone()
        outcome = "failed" if failed else "cancelled" if cancelled and outcome == "succeeded" else outcome
        conn.execute("UPDATE durable_batches SET finished_at = ?, outcome = ? WHERE batch = ?", (at, outcome, batch))
        effects.batches.append(BatchNews("finished", batch_id))
        if parent is not None and outcome == "failed":
            _fail(conn, parent, at, allocate, effects)
        batch = parent


def _is_damaged(conn: sqlite3.Connection, batch: int, at: float, effects: Effects) -> bool:
    """Whether the row of a batch does not fit its seal, which is told; it stays open then."""
    if is_sound(conn, "durable_batches", batch):
        return False
    isolate(conn, "durable_batches", (batch,), at, effects)
    return True


def reopen_batches(conn: sqlite3.Connection, first: int) -> None:
    """A member or callback of a batch is retried: that, and those around it, are open until all has ended again."""
    batch: int | None = first
    seen: set[int] = set()
    while batch is not None and batch not in seen:
        seen.add(batch)
        (batch,) = conn.execute(
            "UPDATE durable_batches SET completed_at = NULL, finished_at = NULL, outcome = NULL WHERE batch = ? "
            "RETURNING parent",
            (batch,),
        ).fetchone()


def _complete(
    conn: sqlite3.Connection,
    batch: int,
    batch_id: str,
    cancelled_at: float | None,
    at: float,
    allocate: Callable[[], int],
    effects: Effects,
) -> str:
    """All in it has ended: start what that starts. How it ended."""
    failed, cancelled = conn.execute(_TROUBLE, {"batch": batch}).fetchone()
    outcome = "failed" if failed else "cancelled" if cancelled or cancelled_at is not None else "succeeded"
    conn.execute("UPDATE durable_batches SET completed_at = ?, outcome = ? WHERE batch = ?", (at, outcome, batch))
    effects.batches.append(BatchNews("complete", batch_id))
    on_complete, on_success = conn.execute(
        "SELECT on_complete, on_success FROM durable_batches WHERE batch = ?", (batch,)
    ).fetchone()
    _launch(conn, batch, f"{batch_id}:on_complete", on_complete, at, allocate, effects)
    # Each once, also if a member is retried, and the batch completes again.
    conn.execute("UPDATE durable_batches SET on_complete = NULL WHERE batch = ?", (batch,))
    # One that was asked to end is not a success, even if all of its members had ended well before they heard of it.
    if outcome == "succeeded":
        _launch(conn, batch, f"{batch_id}:on_success", on_success, at, allocate, effects)
        conn.execute("UPDATE durable_batches SET on_success = NULL WHERE batch = ?", (batch,))
    return outcome


def _fail(conn: sqlite3.Connection, batch: int, at: float, allocate: Callable[[], int], effects: Effects) -> None:
    """Something in an open batch failed permanently: the first time, start what that starts."""
    if _is_damaged(conn, batch, at, effects):
        return
    first = conn.execute(
        "UPDATE durable_batches SET failed_at = ? WHERE batch = ? AND failed_at IS NULL AND completed_at IS NULL "
        "RETURNING batch_id, on_failure",
        (at, batch),
    ).fetchall()
    for batch_id, on_failure in first:
        effects.batches.append(BatchNews("failed", batch_id))
        _launch(conn, batch, f"{batch_id}:on_failure", on_failure, at, allocate, effects)


def _launch(
    conn: sqlite3.Connection,
    batch: int,
    name: str,
    templates: str | None,
    at: float,
    allocate: Callable[[], int],
    effects: Effects,
) -> None:
    for number, template in enumerate(from_json(templates) if templates else ()):
        run_id = f"{name}.{number}"
        if conn.execute("SELECT 1 FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone():
            # somebody chose that id for a run of their own: the callback must start all the same
            run_id = new_run_id(at)
        new = begun(template, run=allocate(), run_id=run_id, now=at)
        insert_run(conn, PlacesFromFile(conn).placed(evolve(new, callback=batch)), effects, waits_since=at)
