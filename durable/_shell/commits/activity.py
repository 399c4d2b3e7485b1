"""
What an engine has in progress, as one number: so that one can wait for nothing without asking again and again.

Whatever the engine does (drives a run, looks for the next ones, writes, reads, fires timers) is counted
while it lasts. A run that waits is not in progress, and neither is a timer that is not due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Activity:
    """Counts what is in progress. A ``with`` block is; or `begin` and `end`, where they are apart."""

    def __init__(self) -> None:
        self._count = 0
        self._idle, self._busy = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._over = False
        #: Called each time that something has ended.
        self.on_end: Callable[[], None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress."""
        return self._count == 0

    def begin(self) -> None:
        """Something more is in progress."""
        self._count += 1
        if self._count == 1 and not self._over:
            self._idle.clear()
            self._busy.set()

    def end(self) -> None:
        """And has ended."""
        self._count -= 1
        if self._over:
            return
        if self._count == 0:
            self._busy.clear()
            self._idle.set()
        if self.on_end is not None:
            self.on_end()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()

    async def wait_idle(self) -> None:
        """Return once nothing is in progress."""
        await self._idle.wait()

    async def wait_busy(self) -> None:
        """Return once something is."""
        await self._busy.wait()

    def close(self) -> None:
        """Let everybody go who waits: nothing will change any more."""
        self._over = True
        self._idle.set()
        self._busy.set()
