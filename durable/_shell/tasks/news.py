"""
Callers who wait for news of a run: told with the commit that makes some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from durable._shell.rows.rows import Effects


class News:
    """Futures of those who wait, by the number of a run."""

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[None]]] = {}

    @contextmanager
    def of(self, run: int) -> Generator[asyncio.Future[None], None, None]:
        """A future that is done with the next commit that changes something about *run*."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run, []).append(future)
        try:
            yield future
        finally:
            waiting = self._futures.get(run)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[run]
            if future.done() and not future.cancelled():
                future.exception()  # looked at, wanted or not

    def take(self, effects: Effects) -> None:
        """Tell who waits what a commit group changed."""
        if not self._futures:
            return
        for run in self._futures.keys() & effects.touched():
            for future in self._futures.pop(run):
                if not future.done():
                    future.set_result(None)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell everybody that nothing more comes: each gets an *error* of its own."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error())
        self._futures.clear()
