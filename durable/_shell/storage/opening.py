"""
A journal's file, taken over and opened: by an engine for as long as it runs, by a client for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from durable._shell.storage import marks, schema
from durable._shell.storage.database import Database
from durable._shell.storage.ownership import Ownership


async def open_owned(
    path: str, *, durability: Literal["full", "process"], now: Callable[[], float], standby: bool = False
) -> tuple[Database, Ownership]:
    """
    Own the file at *path*, and open it; made (or migrated) if need be. Close the one, then release the other.

    Raises:
        JournalLockedError: Somebody else owns it (and not *standby*, which waits).
        JournalError: A subclass that says what about the file or the machine is wrong.
    """
    ownership = await Ownership.wait(path) if standby else Ownership.acquire(path)
    try:
        database = await Database.open(
            path,
            durability=durability,
            inspect=lambda conn: marks.inspect(conn, path),
            prepare=lambda conn: schema.prepare(conn, now()),
        )
    except BaseException:
        ownership.release()
        raise
    return database, ownership
