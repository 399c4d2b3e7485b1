"""
Whether a run could still proceed by itself: for programs that execute one run and want to come back.
"""

from __future__ import annotations

import sqlite3

from durable._core.statuses import ENDS, HELD
from durable._shell.engine.engine import Engine
from durable._shell.handles.journal import backend_of
from durable._shell.reads import run_rows
from durable._shell.reads.run_rows import RunRow, current_run, last_of_chain


async def settled(engine: Engine, run_id: str) -> str:
    """
    Return once the run has ended, or only a signal or a person could move it: its status.

    That is: it is blocked or paused, or waits for a signal without a timeout, or for children of which
    this holds. *engine* executes it.
    """
    happens = engine.events()  # before the first look, so that no event is missed in between
    while True:
        row, moves = await backend_of(engine).read(_look, run_id)
        if not moves:
            status: str = row.status
            return status
        await anext(happens)


def _look(conn: sqlite3.Connection, run_id: str) -> tuple[RunRow, bool]:
    row = current_run(conn, run_id)
    return row, row.status not in ENDS and _moves(conn, row)


def _moves(conn: sqlite3.Connection, row: RunRow) -> bool:
    """Whether something is in progress that leads to another event of the run at *row*, or may."""
    pending, seen = [row], {row.run_id}
    while pending:
        each = pending.pop()
        stands = each.status in HELD
        if stands or (each.status == "pending" and each.queue in run_rows.paused_queues(conn)):
            continue  # it needs a person
        if each.status != "waiting":
            return True  # also one that has ended, since its parent has yet to hear of it
        if run_rows.slots_awaited(conn, each.run):
            return True
        for wait in run_rows.waits_of(conn, each.run, run_rows.count_waits(conn, each.run)):
            if wait.fire_at is not None or wait.kind not in ("signal", "request", "child", "callback"):
                return True
            child = last_of_chain(conn, wait.target) if wait.target is not None else None
            if child is not None and child.run_id not in seen:
                seen.add(child.run_id)
                pending.append(child)
    return False
