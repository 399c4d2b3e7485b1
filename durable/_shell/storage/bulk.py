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
from math import nan
from typing import Any, Final

#: As what None is bound, of the many columns that are empty. SQLite keeps a NaN as NULL, while the sqlite3 module asks
#: of each None whether somebody has an adapter for it: that takes longer than all else about the value.
NULL: Final = nan
#: Rows of one statement. Few sizes, since each is a statement that SQLite prepares and keeps. Two are what one step
#: of one run records.
SIZES: Final = (64, 16, 4, 2, 1)
#: Statements by their text, columns and rows: a run alone notices what it takes to put one together for each commit,
#: and to have it found by another object of the same text. They are few, since the texts are constants of ours.
_MADE: Final[dict[tuple[str, int, int], str]] = {}


def write_many(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]], *, is_bound: bool = False) -> None:
    """
    Execute *sql*, with ``VALUES {rows}`` in it, for *rows* in their order.

    Where *is_bound*, what is empty in them is `NULL` already: so no line of Python looks at each of their values.
    """
    if not rows:
        return
    at, end = 0, len(rows)
    for size in (end,) if end in SIZES else SIZES:
        while end - at >= size:
            made = sql, len(rows[0]), size
            if made not in _MADE:
                _MADE[made] = sql.format(rows=", ".join([f"({', '.join('?' * len(rows[0]))})"] * size))
            values = chain.from_iterable(rows if size == end else rows[at : at + size])
            bound = tuple(values) if is_bound else [NULL if each is None else each for each in values]
            conn.execute(_MADE[made], bound)
            at += size


def join_many(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Execute *sql*, with ``VALUES {rows}`` in it, for *rows*; all that it returns."""
    found: list[Any] = []
    if not rows:
        return found
    at, end = 0, len(rows)
    for size in SIZES:
        while end - at >= size:
            made = sql, len(rows[0]), size
            if made not in _MADE:
                _MADE[made] = sql.format(rows=", ".join([f"({', '.join('?' * len(rows[0]))})"] * size))
            found += conn.execute(_MADE[made], tuple(chain.from_iterable(rows[at : at + size]))).fetchall()
            at += size
    return found


def about_many(conn: sqlite3.Connection, sql: str, items: Sequence[Any]) -> list[Any]:
    """Execute *sql*, with ``IN ({items})`` in it; all that it returns."""
    found: list[Any] = []
    at, end = 0, len(items)
    for size in SIZES:
        while end - at >= size:
            made = sql, 0, size
            if made not in _MADE:
                _MADE[made] = sql.format(items=", ".join(["?"] * size))
            found += conn.execute(_MADE[made], items[at : at + size]).fetchall()
            at += size
    return found
