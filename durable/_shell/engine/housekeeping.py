"""
What an engine looks after now and then: that the file is still its own, and that what ended long ago goes.
"""

from __future__ import annotations

from typing import Protocol

from durable._shell.backend import Backend
from durable._shell.handles.journal import JournalHandle
from durable._shell.log import log
from durable._shell.storage.database import Database
from durable._shell.storage.ownership import Ownership
from durable._shell.storage.port import AnyDatabase
from durable._shell.threads import in_thread
from durable.errors import JournalError

#: Seconds between two looks whether the file is still the one that was opened.
IDENTITY_SECONDS = 5.0


class House(Backend, Protocol):
    """What is kept: an engine."""

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        ...


async def keep_house(
    house: House, database: AnyDatabase, ownership: Ownership | None, keep_finished: float | None
) -> None:
    """
    Look at the file every few seconds, and prune what ended more than *keep_finished* seconds ago.

    By the engine's clock, so that a test need not wait for it. A journal in memory that keeps everything needs nothing.

    Raises:
        JournalError: The file is another one, or gone: nothing more may be written.
    """
    pruned_at = house.clock.monotonic()
    while isinstance(database, Database) or keep_finished is not None:
        await house.clock.sleep(IDENTITY_SECONDS)
        try:
            if isinstance(database, Database):
                await in_thread(database.check_identity)
            if ownership is not None:
                ownership.check()
        except JournalError:
            if house.is_closing:
                return
            raise
        if keep_finished is not None:
            every = min(3600.0, max(60.0, keep_finished / 10))
            if house.clock.monotonic() - pruned_at >= every:
                pruned_at = house.clock.monotonic()
                try:
                    await JournalHandle(house).prune(older_than=keep_finished)
                except JournalError as error:
                    # a full disk, say: there will be another time, so the engine must not end for it
                    log.warning("prune.failed", path=house.path, error=str(error))
