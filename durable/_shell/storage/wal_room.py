"""
Room behind what a write-ahead log (WAL) holds: a commit writes over zeros, and does not make the file longer.

A file system records the new length of a file with every sync, which takes about as long again as what is written. A
WAL that was checkpointed has its full length already; but it begins with none whenever the file is opened.

Promises: zeros are written behind the end of the file only, while its connection holds the lock for writing, so that
nobody else writes there. They are no frames: SQLite reads the WAL up to the last commit, and no page has the number 0.
Without room, commits cost a little more, so nothing here raises.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from durable._shell.storage.connections import free_bytes
from durable._shell.storage.wal import wal_of

T = TypeVar("T")

#: As long as a WAL becomes by itself: commits checkpoint it from 1,000 pages on, and the next ones write over it.
ENOUGH_BYTES: Final = 4 << 20
#: It is made twice as long, by at least and at most so much: what is written but once more is to stay little, and the
#: commit that makes the room is not to take long.
LEAST_BYTES: Final = 64 << 10
MOST_BYTES: Final = 512 << 10
#: What is to stay free on the disk: the room is not worth a full one.
FREE_BYTES: Final = 64 << 20


class WalRoom:
    """The room in the WAL of the database at *path*, which is the file that *known* is about."""

    def __init__(self, path: str, known: os.stat_result) -> None:
        self._database, self._path, self._known = path, wal_of(path), known
        #: How long the WAL was made: one that is longer has grown by a commit. Long enough, nobody looks any more.
        self._length = 0

    def before(self, fn: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        """*fn*, which is to be called within a transaction; before it, if the WAL has no room, some is made."""
        if self._length >= ENOUGH_BYTES or not self._has_grown():
            return fn

        def called(conn: sqlite3.Connection) -> T:
            self._make()
            return fn(conn)

        return called

    def _has_grown(self) -> bool:
        try:
            return os.stat(self._path).st_size > self._length
        except OSError:
            return False

    def _make(self) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(fd)
                more = min(max(found.st_size, LEAST_BYTES), MOST_BYTES)
                self._length = found.st_size + more
                # An empty one stays empty: others take what a WAL begins with for its header.
                if os.path.samestat(found, self._known) and found.st_size and free_bytes(self._database) > FREE_BYTES:
                    os.pwrite(fd, bytes(more), found.st_size)
            finally:
                os.close(fd)
