"""
The database without a file, for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar

from durable._shell.storage.connections import (
    apply_pragmas,
    attempt,
    begin,
    commit,
    connected,
    look,
    real_path,
    roll_back,
    within,
)
from durable._shell.storage.copies.backups import back_up
from durable._shell.storage.database import Database
from durable._shell.storage.guard import Guard
from durable._shell.storage.port import AnyDatabase, Exclusive, OpenDatabase
from durable.errors import (
    EngineClosedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

T = TypeVar("T")

#: The path that keeps the journal in memory: for tests, it is gone with the engine.
MEMORY: Final = ":memory:"


class MemoryDatabase:
    """The same over one private in-memory database, for tests: no file, no thread, no hop."""

    def __init__(self) -> None:
        self.path = ":memory:"
        self.notices: list[str] = []
        self.calls_in_flight = 0
        self.guard = Guard()
        self._exclusive = asyncio.Lock()
        self._conn: sqlite3.Connection | None = connected("", "memory")
        apply_pragmas(self._conn, self.path, "shared")
        self.guard.install(self._conn)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str] = ":memory:",  # noqa: ARG003 - opens like a Database
        *,
        durability: Literal["full", "process"] = "full",  # noqa: ARG003 - nothing survives anyway
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        inspect: Callable[[sqlite3.Connection], None] | None = None,
    ) -> Self:
        """Open an empty database."""
        database = cls()
        try:
            for fn in (inspect, prepare):
                if fn is not None:
                    attempt(database._raw(), database.path, fn)
        except BaseException:
            await database.aclose()
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database.write`; runs at once, without giving other tasks a turn."""
        if self._exclusive.locked():
            async with self._exclusive:
                return self._transact(fn)
        return self._transact(fn)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[Exclusive, None]:
        """As `Database.exclusive`."""
        async with self._exclusive:

            def at_once(fn: Callable[[sqlite3.Connection], T]) -> T:
                return within(self._raw(), self.path, fn)

            async def hop(fn: Callable[[sqlite3.Connection], T]) -> T:
                return at_once(fn)

            transaction = Exclusive(hop, at_once)
            begin(self._raw(), self.path)
            try:
                yield transaction
            except BaseException:
                if self._conn is not None:
                    roll_back(self._conn, self.path)
                raise
            finally:
                transaction.over = True
            self._commit()

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database.read`; waits for an exclusive transaction, since there is one connection."""
        if self._exclusive.locked():
            async with self._exclusive:
                return self._look(fn)
        return self._look(fn)

    async def reopen(self) -> None:
        """Nothing: closing would lose everything."""
        self._raw()

    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """As `Database.backup`."""
        back_up(self._raw(), self.path, real_path(target), overwrite=overwrite)

    async def scrub(self) -> None:
        """Nothing: what was deleted is in no file."""
        self._raw()

    @property
    def wal_bytes(self) -> int:
        """None: there is no WAL."""
        return 0

    def check_identity(self) -> None:
        """Nothing: there is no file."""

    async def aclose(self) -> None:
        """Close, and forget everything."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _raw(self) -> sqlite3.Connection:
        if self._conn is None:
            raise EngineClosedError(f"journal {self.path} is closed")
        return self._conn

    def _transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        conn = self._raw()
        begin(conn, self.path)
        result = attempt(conn, self.path, fn)
        self._commit()
        return result

    def _commit(self) -> None:
        commit(self._raw(), self.path)

    def _look(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        conn = self._raw()
        conn.execute("PRAGMA query_only = ON")
        try:
            return look(conn, self.path, fn)
        finally:
            conn.execute("PRAGMA query_only = OFF")


_fits: tuple[type[AnyDatabase], ...] = (Database, MemoryDatabase)
_opens: OpenDatabase = MemoryDatabase.open
