"""
What an engine looks after now and then: that the file is still its own, and that what is old goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from durable._core.codec.exceptions.safe_text import one_line
from durable._core.light_frozen import light_define
from durable._core.supervision import decide
from durable._shell.backend import Backend
from durable._shell.handles.journal import JournalHandle
from durable._shell.log import log
from durable._shell.ownership.ownership import Ownership
from durable._shell.requests.once import ForgetAnswers, has_old_answers
from durable._shell.storage.database import Database
from durable._shell.storage.port import AnyDatabase
from durable._shell.storage.seals import has_unsealed, seal
from durable._shell.tasks.troubles import Troubles
from durable._shell.threads import in_thread
from durable.errors import EngineClosedError, JournalError, JournalLostError

#: Seconds between two looks whether the file is still the one that was opened.
IDENTITY_SECONDS: Final = 5.0
#: From this size on, a WAL that cannot be emptied is told: SQLite cuts it back to that.
WAL_BYTES: Final = 64 << 20
#: Seconds between two looks whether there are answers to forget.
FORGET_SECONDS: Final = 60.0


class House(Backend, Protocol):
    """What is kept: an engine."""

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        ...


async def keep_house(
    house: House,
    database: AnyDatabase,
    ownership: Ownership | None,
    keep_finished: float | None,
    troubles: Troubles,
    write_again: Callable[[], Awaitable[None]],
) -> None:
    """
    Look at the file every few seconds, prune what ended more than *keep_finished* seconds ago, and forget answers.

    By the engine's clock, so that a test need not wait for it. A journal in memory that keeps everything needs nothing.

    Raises:
        JournalLostError: The file is another one, or gone: nothing more may be written.
    """
    pruned_at = forgot_at = house.clock.monotonic()
    wal = _Wal(database, troubles) if isinstance(database, Database) else None
    while wal is not None or keep_finished is not None:
        await house.clock.sleep(IDENTITY_SECONDS)
        if wal is not None:
            await _look(house, wal.database, ownership, troubles)
            await _tried(house, wal.look())
            with contextlib.suppress(JournalError):  # known already
                await write_again()
            await _tried(house, _seal(wal.database))
        now = house.clock.monotonic()
        if keep_finished is not None and now - pruned_at >= min(3600.0, max(60.0, keep_finished / 10)):
            pruned_at = now
            await _tried(house, JournalHandle(house).prune(older_than=keep_finished))
        if now - forgot_at >= FORGET_SECONDS:
            forgot_at = now
            await _tried(house, _forget(house))


async def _look(house: House, database: Database, ownership: Ownership | None, troubles: Troubles) -> None:
    """Whether the file is still our own; what passes is told."""

    def look() -> None:
        if ownership is not None:
            ownership.check()
        database.check_identity()

    def look_again() -> None:
        try:
            look()
        except JournalLostError:  # or its folder came back just between two things that were looked at
            look()

    try:
        await in_thread(look_again)
    except (JournalError, OSError) as error:
        if house.is_closing:
            return
        if decide(error, 1) is None:
            raise
        troubles.begin("file", one_line(error))
    else:
        troubles.end("file")


@light_define
class _Wal:
    """A WAL that cannot be emptied is told, and emptied as soon as it can."""

    database: Database
    troubles: Troubles
    #: Pages that had been moved into the file when it was last looked at.
    moved: int = 0

    async def look(self) -> None:
        """
        Tell whether it is too large to be left alone, and why.

        Commits checkpoint by themselves, so it is large only after a large transaction, which one look mends; as long
        as somebody reads on and on what was there when he began; or when readers take turns, and never stop for a
        moment. The latter are waited for. The next commit then begins the WAL anew, and cuts it to size.
        """
        size = self.database.wal_bytes
        if size <= WAL_BYTES:
            self.troubles.end("wal")
            return
        pages, moved = await self.database.checkpoint()
        grows, self.moved = moved != self.moved, moved
        if await self.database.restart_wal() if grows else pages == moved:
            self.troubles.end("wal")
        else:
            told = (
                f"the WAL has {size >> 20} MiB and cannot be emptied, because a reader does not end its transaction: "
                "end that process, or let it read in short ones; until then the file's WAL grows with all that is "
                "recorded"
            )
            self.troubles.begin("wal", told)


async def _seal(database: Database) -> None:
    """Seal the rows that rest. Where nothing was written since, nothing is."""
    more = await database.read(has_unsealed)
    while more:
        more = await database.write(seal)


async def _forget(house: House) -> None:
    """Delete the answers that no client asks for any more. An engine that nobody asks writes nothing."""
    more = await house.read(has_old_answers, house.clock.now())
    while more:
        more = await house.request(ForgetAnswers())


async def _tried(house: House, pruning: Awaitable[object]) -> None:
    """Await *pruning*; where it fails there will be another time, so the engine must not end for it."""
    try:
        await pruning
    except JournalError as error:  # a full disk, say
        log.warning("prune.failed", path=house.path, error=str(error))
    except EngineClosedError:
        if not house.is_closing:
            raise
