"""
What one attempt emits: collected for a moment, and sent to its run as a signal of the server's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from durable._core.program.saying import ROOM
from durable._shell.loops import from_thread, running_loop
from durable.temporal._wire.items import Item

#: Seconds between two batches: each is events of the server's, so those of a long stream come less and less often.
_FIRST_PACE: Final = 0.05
_SLOWING: Final = 1.1
_SLOWEST_PACE: Final = 1.0
#: Items that may wait before who awaits is to wait with them.
_ROOM: Final = 2_000
#: Of one batch: items, and characters or bytes of their values.
_BATCH: Final = 1_000
_BATCH_SIZE: Final = 500_000


class Emitter:
    """The items of one attempt, in their order."""

    def __init__(self, send: Callable[[list[Item]], Awaitable[None]], most: int) -> None:
        """*send*: gives a batch to the run; *most*: items that may wait for that."""
        self._send = send
        self._most = most
        self._room = min(_ROOM, most)
        self._home = asyncio.get_running_loop()
        self._waiting: deque[Item] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._pace = _FIRST_PACE
        self._added = self._sent = 0
        self._news = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no more are taken from who does not wait."""
        return len(self._waiting) >= self._most

    def add(self, item: Item, *, sync: bool) -> Awaitable[None]:
        """Send *item* soon; what is given is awaited until there is room for more, or with *sync* until it is sent."""
        if running_loop() is None:  # a thread: it waits here
            from_thread(self._home, self._added_by_thread(item, sync=sync))
            return ROOM
        number = self._append(item)
        return (
            _Until(self, number)
            if sync
            else _Until(self, self._added - self._room)
            if len(self._waiting) >= self._room
            else ROOM
        )

    async def flush(self) -> None:
        """Return once everything is sent."""
        await self.until_sent(self._added)

    async def until_sent(self, number: int) -> None:
        """Return once so many are sent."""
        while self._sent < number:
            self._pace = _FIRST_PACE
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Send no more."""
        if self._pump is not None:
            self._pump.cancel()

    async def _added_by_thread(self, item: Item, *, sync: bool) -> None:
        await self.add(item, sync=sync)

    def _append(self, item: Item) -> int:
        self._waiting.append(item)
        self._added += 1
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._send_all())
        return self._added

    async def _send_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pace)
            self._pace = min(self._pace * _SLOWING, _SLOWEST_PACE)
            batch: list[Item] = []
            size = 0
            while self._waiting and len(batch) < _BATCH and size < _BATCH_SIZE:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].value)
            await self._send(batch)
            self._sent += len(batch)
            self._news.set()


class _Until:
    """Awaited until so many items of an attempt are sent; nothing, if nobody does."""

    def __init__(self, emitter: Emitter, number: int) -> None:
        self._emitter, self._number = emitter, number

    def __await__(self) -> Generator[Any, None, None]:
        return self._emitter.until_sent(self._number).__await__()
