"""
Numbers of rows that SQLite gives in order, and never twice: behind one that damage made so large, it would give none.

Runs on the writer's thread, as a file is opened.
"""

from __future__ import annotations

import sqlite3
from typing import Final

#: No row of ours has come that far.
_MOST: Final = 2**62
_NUMBERED: Final = (("durable_inbox", "item"), ("durable_slots", "slot"), ("durable_batches", "batch"))


def mend_numbers(conn: sqlite3.Connection) -> None:
    """Give rows whose numbers are too large the next ones, so that others can be written behind them."""
    for table, column in _NUMBERED:
        last = f"(SELECT coalesce(max({column}), 0) FROM {table} WHERE {column} < {_MOST})"  # noqa: S608 - constants
        one = f"(SELECT {column} FROM {table} WHERE {column} >= {_MOST} LIMIT 1)"  # noqa: S608
        while conn.execute(f"UPDATE {table} SET {column} = {last} + 1 WHERE {column} = {one}").rowcount:  # noqa: S608
            pass
        conn.execute(f"UPDATE sqlite_sequence SET seq = {last} WHERE name = ? AND seq >= {_MOST}", (table,))  # noqa: S608
