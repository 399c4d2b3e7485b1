"""
Rows that are shown or judged although a text in them is none any more: damage to one must not hide all others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: Stands for bytes that are no text.
LOST: Final = "\N{REPLACEMENT CHARACTER}"


def fetch_all(conn: sqlite3.Connection, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """All rows of a query; `LOST` stands where a text cannot be read."""
    try:
        return conn.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    conn.text_factory = _with_marks
    try:
        return conn.execute(sql, values).fetchall()
    finally:
        conn.text_factory = str


def _with_marks(text: bytes) -> str:
    return text.decode(errors="replace")
