"""
What an engine needs of a database: SQLite's file, a private one in memory, or one of a user's tests. No SQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from durable.errors import EngineClosedError

if TYPE_CHECKING:
    from durable._shell.storage.guard import Guard

T = TypeVar("T")


class Exclusive:
    """One transaction of several hops; everybody else's writes wait until it has ended."""

    def __init__(self, hop: Callable[..., Awaitable[Any]], at_once: Callable[..., Any]) -> None:
        self._hop, self._at_once = hop, at_once
        self.over = False

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of *fn*, run inside the transaction. Its errors do not end the transaction."""
        self._check()
        result: T = await self._hop(fn)
        return result

    def run_at_once(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `run`, while the event loop waits: for what is short, and is asked for without `await`."""
        self._check()
        result: T = self._at_once(fn)
        return result

    def _check(self) -> None:
        if self.over:
            raise EngineClosedError("this transaction is over")

    async def execute(self, sql: str, parameters: Any = ()) -> list[Any]:
        """All rows of one statement (none, for one that returns no rows)."""
        return await self.run(lambda conn: conn.execute(sql, parameters).fetchall())


class AnyDatabase(Protocol):
    """What the journal needs of a database."""

    path: str
    notices: list[str]
    calls_in_flight: int
    guard: Guard

    @property
    def wal_bytes(self) -> int: ...

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...
    def exclusive(self) -> AbstractAsyncContextManager[Exclusive]: ...
    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...
    async def reopen(self) -> None: ...
    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None: ...
    async def scrub(self) -> None: ...
    def check_identity(self) -> None: ...
    async def aclose(self) -> None: ...


class OpenDatabase(Protocol):
    """
    Opens the database of a journal: what ``Engine(storage=...)`` takes, so that tests can put their own in its place.

    The database that it returns keeps what its transactions committed, and nothing else. It has no owner's
    lock, and no clients in other processes: the caller who passes one sees to it that one engine at a time uses it.
    """

    async def __call__(self, path: str, *, prepare: Callable[[sqlite3.Connection], None]) -> AnyDatabase:
        """Open what *path* stands for, and let *prepare* make or migrate the tables before anything else."""
        ...
