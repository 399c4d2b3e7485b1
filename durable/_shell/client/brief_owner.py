"""
Owns a journal for a moment, where no engine does, to record requests in it. The next engine acts on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from durable._core.ports import Clock
from durable._shell.ownership.opening import Durability, owned_briefly
from durable._shell.requests.once import forget_answers
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.requests.sockets import socket_path
from durable._shell.rows.rows import Effects
from durable._shell.storage.database import Database
from durable._shell.storage.seals import seal
from durable.errors import DurableError

#: Seconds for which a client leaves the file free after it had it again and again for so many: engines that open get
#: their turn, however much is asked of it.
FREE_SECONDS: Final = 0.01
BUSY_SECONDS: Final = 0.05


class BriefOwner:
    """Becomes the owner of the journal at *path* for each call, and for no longer."""

    def __init__(self, path: str, clock: Clock, durability: Durability, *, allow_network_fs: bool) -> None:
        self._path = path
        self._clock = clock
        self._durability: Durability = durability
        self._allow_network_fs = allow_network_fs
        # calls of one client take turns here: at the file they would be in each other's way
        self._turn = asyncio.Lock()
        self._busy_since = self._left_at = 0.0

    async def scrub(self) -> None:
        """
        Write the file anew, without what was deleted.

        Raises:
            JournalLockedError: The file has an owner.
        """
        async with self._turn, self._owned() as database:
            await database.scrub()

    async def record_each(self, requests: Sequence[JournalRequest[Any]]) -> list[Any]:
        """
        Record requests in one transaction; of each, in order, its result or the `DurableError` that refused it.

        Raises:
            JournalLockedError: The file has an owner.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            if loop.time() - self._left_at < FREE_SECONDS and loop.time() - self._busy_since > BUSY_SECONDS:
                await asyncio.sleep(FREE_SECONDS)
            if loop.time() - self._left_at >= FREE_SECONDS:
                self._busy_since = loop.time()
            try:
                async with self._owned() as database:
                    with contextlib.suppress(OSError):  # left by an owner that was killed, see `OwnerSocket`
                        os.unlink(socket_path(self._path))
                    env = Env(self._clock.now(), self._path)
                    return await database.write(lambda conn: _record_each(conn, requests, env))
            finally:
                self._left_at = loop.time()

    def _owned(self) -> AbstractAsyncContextManager[Database]:
        return owned_briefly(
            self._path,
            durability=self._durability,
            now=self._clock.now,
            allow_network_fs=self._allow_network_fs,
        )


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
    forget_answers(conn, env.now)  # no engine may come to do it
    seal(conn)
    return results
