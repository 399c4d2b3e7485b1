"""
Owns a journal for a moment, where no engine does, to record requests in it. The next engine acts on them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal

from durable._core.ports import Clock
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.storage.opening import open_owned
from durable.errors import DurableError


class BriefOwner:
    """Becomes the owner of the journal at *path* for each call, and for no longer."""

    def __init__(self, path: str, clock: Clock, durability: Literal["full", "process"]) -> None:
        self._path = path
        self._clock = clock
        self._durability: Literal["full", "process"] = durability

    async def record_each(self, requests: Sequence[JournalRequest[Any]]) -> list[Any]:
        """
        Record requests in one transaction; of each, in order, its result or the `DurableError` that refused it.

        Raises:
            JournalLockedError: The file has an owner.
        """
        database, ownership = await open_owned(self._path, durability=self._durability, now=self._clock.now)
        env = Env(self._clock.now(), self._path)
        try:
            return await database.write(lambda conn: _record_each(conn, requests, env))
        finally:
            await database.aclose()
            ownership.release()


def _record_each(conn: sqlite3.Connection, requests: Sequence[JournalRequest[Any]], env: Env) -> list[Any]:
    """The results of requests, each recorded whole or not at all; the error of one that was refused."""
    results: list[Any] = []
    for request in requests:
        conn.execute("SAVEPOINT durable_request")
        try:
            results.append(request.record(conn, Effects(), env))
        except DurableError as error:
            conn.execute("ROLLBACK TO durable_request")
            results.append(error)
        conn.execute("RELEASE durable_request")
    return results
