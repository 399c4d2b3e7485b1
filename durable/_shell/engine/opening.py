"""How a file is opened and recovered; who is ready in it is the scheduler's to read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from durable._core.admission import Admission, Places, Queue
from durable._core.program.limits import Limit, numbers
from durable._shell.reads import event_rows
from durable._shell.rows.rows import Effects, ReadyRun
from durable._shell.storage import marks, schema
from durable._shell.storage.database import Database
from durable._shell.storage.memory import MemoryDatabase
from durable._shell.storage.ownership import Ownership
from durable._shell.storage.port import AnyDatabase, OpenDatabase
from durable._shell.writes import slots
from durable._shell.writes.wakeups import let_in, retry_blocked

#: The path that keeps the journal in memory: for tests, it is gone with the engine.
MEMORY = ":memory:"


async def open_file(
    path: str,
    *,
    standby: bool,
    durability: Literal["full", "process"],
    now: Callable[[], float],
    storage: OpenDatabase | None = None,
) -> tuple[AnyDatabase, Ownership | None]:
    """Own and open the file at *path* (or what *storage* opens); what it raises is said at `Engine.open`."""
    if storage is None and path == MEMORY:
        storage = MemoryDatabase.open
    if storage is not None:
        return await storage(path, prepare=lambda conn: schema.prepare(conn, now())), None
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


def recover(conn: sqlite3.Connection, limits: Mapping[str, Limit], now: float) -> None:
    """Let runs try again that other code had blocked, and let in whom today's numbers of limits let in."""
    effects = Effects()  # what these cause is read from the file afterwards
    retry_blocked(conn, now)
    slots.register(conn, [numbers(limit) for limit in limits.values()])
    let_in(conn, slots.grant_all(conn, now, effects), now, effects)


async def recover_lines(
    database: AnyDatabase, queues: Iterable[Queue], places: Places, admission: Admission[ReadyRun], now: float
) -> None:
    """Where the lines of the queues stand, and what the windows of their rates hold already."""
    for queue, workflow, first, last in await database.read(event_rows.places):
        places.recover(queue, workflow, first, last)
    for limited in queues:
        if (rate := limited.rate) is not None:
            name, since = limited.name, now - rate.per
            found = await database.read(partial(event_rows.recent_starts, queue=name, since=since, count=rate.count))
            admission.started(name, found)
