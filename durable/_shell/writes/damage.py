"""
What becomes of a row that does not fit its seal: whom it belongs to stops, and is named; all others continue.

Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

from durable._shell.claims import slots
from durable._shell.reads.damaged_rows import misplaced, owner_of
from durable._shell.reads.lenient import fetch_all
from durable._shell.rows.rows import Damaged, Effects
from durable._shell.storage.seals import Key, column, fits, is_sound, mark_damaged
from durable._shell.writes.wakeups import block_damaged, let_in, wake

#: In the reason of the run that is blocked.
_CALLED = {
    "durable_waits": "what it waits for",
    "durable_inbox": "what arrived for it",
    "durable_slots": "its place under a limit",
    "durable_notes": "what its steps have noted",
    "durable_feeds": "what it is to start",
    "durable_feed_items": "what it is to start",
    "durable_runs": "what it published",
    "durable_dedup": "which signals it has accepted",
    "durable_asked": "what it was asked",
}
_READY_AND_ENDED = """
UPDATE durable_runs SET ready_at = NULL WHERE ready_at IS NOT NULL AND ended_at IS NOT NULL RETURNING run_id
"""
#: What the row says that holds for many runs; and what holds instead.
_STAND_STILL: Mapping[str, tuple[Literal["limits", "queue", "key"], str]] = {
    "durable_limits": ("limits", "the numbers of the code hold. Change them again if others did"),
    "durable_queues": ("queue", "it is paused, and has the numbers of the code. Look at them, then resume it"),
    "durable_keys": ("key", "nobody can start a run with it"),
}
CHANGED = "it does not match its checksum. Restore from a backup, or fork the run"


def isolate(conn: sqlite3.Connection, table: str, key: Key, at: float, effects: Effects) -> None:
    """
    Block the run to which a damaged row of *table* belongs.

    A batch is reported, and stays open; of a schedule it is noted, for the engine that lets it tick. A queue is paused.
    Of a limit the code's numbers hold, which the engine that opens the file is about to write. A key is not given
    again.
    """
    if is_sound(conn, table, *key):  # it went, or was written since it was looked at
        return
    if table == "durable_schedules":
        mark_damaged(conn, table, *key)
        return
    if table == "durable_batches":
        name = column(conn, table, key, "batch_id")
        if mark_damaged(conn, table, *key):
            effects.damaged.append(Damaged("batch", str(name), "its row does not match its checksum: it stays open"))
        return
    if table in _STAND_STILL:
        _stand_still(conn, table, key, at, effects)
        return
    run, named = owner_of(conn, table, key), column(conn, table, key, "run")
    mark_damaged(conn, table, *key)
    block_damaged(conn, run, f"{_CALLED[table]} is damaged", ValueError(CHANGED), effects)
    if table == "durable_slots":
        # It may count for a limit that it never asked for; whoever resumes its run lets that ask anew.
        conn.execute("DELETE FROM durable_slots WHERE slot = ?", key)
        let_in(conn, slots.grant_all(conn, at, effects), at, effects)
    elif named != run and table in ("durable_waits", "durable_inbox"):
        # It names a run that has nothing to do with it, and might wait for it.
        conn.execute(_GONE[table], key)
        conn.execute("UPDATE durable_inbox SET wakes = 1 WHERE run = ?", (named,))
        wake(conn, named, at, effects)


#: One whose name was damaged is one of these, if it matters.
_QUEUES = "SELECT DISTINCT queue FROM durable_runs WHERE ended_at IS NULL"


def _stand_still(conn: sqlite3.Connection, table: str, key: Key, at: float, effects: Effects) -> None:
    """Let nobody go by a row that says what holds for many runs."""
    what, then = _STAND_STILL[table]
    name = str(column(conn, table, key, "key" if what == "key" else "name"))
    if what == "queue":
        name = next((each for (each,) in fetch_all(conn, _QUEUES) if fits(conn, table, key, "name", each)), name)
    if what == "key":
        mark_damaged(conn, table, *key)
    else:
        conn.execute(_GONE[table], key)
    if what == "queue":
        conn.execute("INSERT OR IGNORE INTO durable_queues (name, paused_at) VALUES (?, ?)", (name, at))
    effects.damaged.append(Damaged(what, name, f"its row does not match its checksum: {then}"))


def stop_ended(conn: sqlite3.Connection, effects: Effects) -> None:
    """Let no run that has ended be driven again, and its steps be called, because its row says that it is ready."""
    for (run_id,) in fetch_all(conn, _READY_AND_ENDED):
        effects.damaged.append(Damaged("run", run_id, "it has ended, and its row said that it is ready"))


def put_back(conn: sqlite3.Connection, effects: Effects, *, run: int) -> bool:
    """Give the `misplaced` events that stand with *run* to those whose they are; whether there were any."""
    found = misplaced(conn, run)
    for each in found:
        conn.execute("UPDATE durable_events SET run = ? WHERE id = ?", (each.owner, each.id))
        told = f"event {each.seq} stood with run number {run}, and was put back"
        effects.damaged.append(Damaged("run", each.owner_id, told))
    return bool(found)


_GONE = {
    "durable_waits": "DELETE FROM durable_waits WHERE wait = ?",
    "durable_inbox": "DELETE FROM durable_inbox WHERE item = ?",
    "durable_limits": "DELETE FROM durable_limits WHERE name = CAST(? AS TEXT)",
    "durable_queues": "DELETE FROM durable_queues WHERE name = CAST(? AS TEXT)",
}
