"""
A journal's file, taken over and opened: by an engine for as long as it runs, by a client for a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

from durable._shell.ownership.ownership import Ownership, Role, keepers_here
from durable._shell.storage import schema
from durable._shell.storage.connections import real_path
from durable._shell.storage.copies import marks, torn
from durable._shell.storage.copies.backups import check_wal
from durable._shell.storage.database import Database
from durable._shell.storage.location import check_folder, check_name
from durable._shell.storage.new_file import make_whole
from durable._shell.storage.wal import has_commits
from durable._shell.threads import in_thread
from durable.errors import JournalLockedError

Durability: TypeAlias = Literal["full", "process"]

#: Seconds that an engine waits for clients to let go of the file, each of which has it for one request, and seconds
#: between two tries: short ones, since clients that are busy leave the file free for some milliseconds only.
CLIENT_SECONDS: Final = 10.0
CLIENT_PAUSE: Final = 0.002


async def open_owned(
    path: str,
    *,
    durability: Durability,
    now: Callable[[], float],
    stand_by: Callable[[str], None] | None = None,
    allow_network_fs: bool = False,
    inline: bool = False,
) -> tuple[Database, Ownership]:
    """
    Own the file at *path* for an engine, and open it; made (or migrated) if need be. Close the one, then the other.

    With *stand_by* it waits for another owner, as long as it takes; *stand_by* is called with the name of that one.
    *inline*: see `Database.write_inline`.

    Raises:
        JournalLockedError: Another engine owns it (and not *stand_by*), or a client that does not let go.
        JournalError: A subclass that says what about the file or the machine is wrong.
    """
    path = _checked(path, allow_network_fs=allow_network_fs)
    for keeper in keepers_here(path):
        await keeper.make_way()
    ownership = await _acquire(path) if stand_by is None else await _wait(path, stand_by)
    try:
        database = await _open(path, durability, now, "engine", allow_network_fs=allow_network_fs, inline=inline)
    except BaseException:
        ownership.release()
        raise
    return database, ownership


@asynccontextmanager
async def owned_briefly(
    path: str, *, durability: Durability, now: Callable[[], float], allow_network_fs: bool = False
) -> AsyncGenerator[Database, None]:
    """
    The file at *path*, owned and open for the block of a client.

    Raises:
        JournalLockedError: Somebody else owns it.
        JournalError: As `open_owned`.
    """
    path = _checked(path, allow_network_fs=allow_network_fs)
    # Released whatever closing does: cancelled there, we would keep every engine out.
    with Ownership.acquire(path, "client"):
        database = await _open(path, durability, now, "client", allow_network_fs=allow_network_fs)
        try:
            yield database
        finally:
            await database.aclose()


async def _acquire(path: str) -> Ownership:
    """Own *path* for an engine now, or as soon as no client has it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CLIENT_SECONDS
    while True:
        try:
            return Ownership.acquire(path)
        except JournalLockedError as error:
            if error.role != "client" or loop.time() >= deadline:
                raise
        await asyncio.sleep(CLIENT_PAUSE)


async def _wait(path: str, stand_by: Callable[[str], None]) -> Ownership:
    """Own *path* for an engine as soon as nobody else does."""
    try:
        return Ownership.acquire(path)
    except JournalLockedError as error:
        if error.role != "client":
            stand_by(error.holder)
    return await Ownership.wait(path)


def _checked(path: str, *, allow_network_fs: bool = False) -> str:
    """The real path, of a place that is right: before the lock, whose errors would say less."""
    check_name(path)
    path = real_path(path)
    check_folder(path, allow_network_fs=allow_network_fs)
    return path


async def _open(
    path: str,
    durability: Durability,
    now: Callable[[], float],
    role: Role,
    *,
    allow_network_fs: bool,
    inline: bool = False,
) -> Database:
    copied = False

    def inspect(conn: sqlite3.Connection) -> None:
        nonlocal copied
        marks.inspect(conn, path)
        copied = torn.refuse_torn(conn, path)

    def prepare(conn: sqlite3.Connection) -> None:
        schema.prepare(conn, now())
        if role == "client" and copied:  # lest it is verified for each request
            torn.note_closed(conn)

    def make(path: str) -> None:
        make_whole(path, now())

    if has_commits(path):  # mostly, of a process that was killed
        await in_thread(check_wal, path)
    database = await Database.open(
        path,
        durability=durability,
        inspect=inspect,
        prepare=prepare,
        make=make,
        allow_network_fs=allow_network_fs,
        inline=inline,
    )
    database.is_copy = copied
    return database
