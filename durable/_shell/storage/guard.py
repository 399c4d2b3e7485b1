"""
What SQL of the application's may do inside a transaction of ours: neither end it, nor write our tables.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from durable.errors import (
    TransactionRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


class Guard:
    """
    Refuses SQL of the application that would break the transaction it runs in, or write our tables.

    SQLite asks an authorizer when it prepares a statement, and prepared statements are cached by
    their text: hence the mark in front of the application's, which keeps them apart from ours.
    """

    def __init__(self) -> None:
        self.active = False
        self._denied = ""

    def install(self, conn: sqlite3.Connection) -> None:
        """Watch *conn*: once for each connection, it costs nothing while `active` is False."""
        conn.set_authorizer(self._authorize)

    def run(self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], *, sql: str = "") -> T:
        """The result of *fn*, guarded. Text of the application's goes through `perform` instead."""
        before, self.active, self._denied = self.active, True, ""
        try:
            return fn(conn)
        except sqlite3.DatabaseError as error:
            if self._denied and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
                raise TransactionRefusedError(sql, self._denied) from error
            raise
        finally:
            self.active = before

    def perform(self, conn: sqlite3.Connection, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """The cursor of one statement of the application's."""
        refuse_control(sql)
        return self.run(conn, lambda conn: conn.execute(_MARK + sql, parameters), sql=sql)

    def perform_many(self, conn: sqlite3.Connection, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        """The cursor of one statement of the application's, run for each of *rows*."""
        refuse_control(sql)
        return self.run(conn, lambda conn: conn.executemany(_MARK + sql, rows), sql=sql)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if not self.active:
            return sqlite3.SQLITE_OK
        reason = ""
        if action in _CONTROL_ACTIONS or (action == sqlite3.SQLITE_PRAGMA and first not in _READING_PRAGMAS):
            reason = "the engine begins and ends the transaction, and owns the connection's settings"
        elif action in _WRITE_ACTIONS and (_ours(first) or (action != sqlite3.SQLITE_UPDATE and _ours(second))):
            # An update's second name is a column's, which may be what the application likes.
            reason = "tables, indexes and views of the engine are read-only"
        self._denied = reason or self._denied
        return sqlite3.SQLITE_DENY if reason else sqlite3.SQLITE_OK


ENDED_FROM_INSIDE: Final = (
    "ON CONFLICT ROLLBACK or RAISE(ROLLBACK) has ended the transaction, which others share: use ABORT, which undoes "
    "the statement alone, and raise to roll your transaction back"
)
_MARK: Final = "/* application */ "
_CONTROL_ACTIONS: Final = frozenset(
    (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
)
_READING_PRAGMAS: Final = frozenset(
    ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list")
)
# INSERT, UPDATE, DELETE, ALTER TABLE, and every CREATE and DROP: SQLite numbers them like this.
_WRITE_ACTIONS: Final = frozenset((*range(1, 19), 23, 26, 29, 30))
_SKIPPED: Final = re.compile(r"(?:[\s;\ufeff]+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*", re.DOTALL)
#: Comments, text and quoted names.
_QUOTED: Final = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]""", re.DOTALL
)
#: What rolls back the whole transaction, in a statement or in what it creates.
_ENDING: Final = re.compile(r"\b(?:OR|CONFLICT)\s+ROLLBACK\b|\bRAISE\s*\(\s*ROLLBACK\b", re.IGNORECASE)
_CONTROL_WORDS: Final = frozenset(
    ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM", "PRAGMA")
)


def refuse_control(sql: str) -> None:
    """
    Nothing, if *sql* may be run inside a transaction of ours.

    Raises:
        TransactionRefusedError: If it would end or nest the transaction, or change the connection.
    """
    start = _SKIPPED.match(sql)
    word = re.match(r"\w*", sql[start.end() if start else 0 :])
    if word and word.group().upper() in _CONTROL_WORDS:
        raise TransactionRefusedError(
            sql, f"{word.group().upper()} belongs to the engine: return, or raise to roll back"
        )
    if "rollback" in sql.lower() and _ENDING.search(_QUOTED.sub(" ", sql)):
        raise TransactionRefusedError(
            sql, "it would end the transaction, which others share: use ABORT in place of ROLLBACK"
        )


def _ours(name: str | None) -> bool:
    return name is not None and (name.lower().startswith("durable_") or name.lower() in ("runs", "history", "waits"))
