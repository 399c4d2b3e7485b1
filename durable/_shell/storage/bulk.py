"""
One statement about many rows. Runs on the writer's thread.

CPython's sqlite3 module gives the interpreter's lock (GIL) away for every step of a statement, and needs it
back afterwards. While another thread computes, that takes `sys.getswitchinterval()` (5 ms) each time, so that
`executemany`, which steps once a row, makes a commit of 200 rows take a second. Here a step is up to 64 rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

#: Rows of one statement. Few sizes, since each is a statement that SQLite prepares and keeps. Two are what one step
#: of one run records.
SIZES: Final = (64, 16, 4, 2, 1)


def write_many(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute *sql*, with ``VALUES {rows}`` in it, for *rows* in their order."""
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    at, end = 0, len(rows)
    for size in SIZES:
        while end - at >= size:
            several = sql.format(rows=", ".join([row] * size))
            conn.execute(several, tuple(chain.from_iterable(rows[at : at + size])))
            at += size


def join_many(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Execute *sql*, with ``VALUES {rows}`` in it, for *rows*; all that it returns."""
    found: list[Any] = []
    row = f"({', '.join('?' * len(rows[0]))})" if rows else ""
    at, end = 0, len(rows)
    for size in SIZES:
        while end - at >= size:
            several = sql.format(rows=", ".join([row] * size))
            found += conn.execute(several, tuple(chain.from_iterable(rows[at : at + size]))).fetchall()
            at += size
    return found


def about_many(conn: sqlite3.Connection, sql: str, items: Sequence[Any]) -> list[Any]:
    """Execute *sql*, with ``IN ({items})`` in it; all that it returns."""
    found: list[Any] = []
    at, end = 0, len(items)
    for size in SIZES:
        while end - at >= size:
            several = sql.format(items=", ".join(["?"] * size))
            found += conn.execute(several, items[at : at + size]).fetchall()
            at += size
    return found
