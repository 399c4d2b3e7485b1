"""
What becomes of a row that does not fit its seal: whom it belongs to stops, and is named; all others go on.

Runs on the writer's thread, inside an open transaction.
"""

from __future__ import annotations

import sqlite3

from durable._shell.claims import slots
from durable._shell.reads.damaged_rows import owner_of
from durable._shell.rows.rows import Damaged, Effects
from durable._shell.storage.seals import Key, column, is_sound, mark_damaged
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
}
CHANGED = "it does not match its checksum. Restore from a backup, or fork the run"


def isolate(conn: sqlite3.Connection, table: str, key: Key, at: float, effects: Effects) -> None:
    """
    Block the run to which a damaged row of *table* belongs.

    A batch is told, and stays open; of a schedule it is noted, for whoever lets it tick.
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


_GONE = {
    "durable_waits": "DELETE FROM durable_waits WHERE wait = ?",
    "durable_inbox": "DELETE FROM durable_inbox WHERE item = ?",
}
