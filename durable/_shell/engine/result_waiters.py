"""
Callers who wait for the end of a run or batch: told with the commit that ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from durable._shell.rows.rows import Outcome
from durable.errors import EngineClosedError


class Watching:
    """Futures of what callers wait for, by run id."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[Outcome | None]]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    @contextmanager
    def until(self, run_id: str) -> Generator[asyncio.Future[Outcome | None], None, None]:
        """A future of the run's outcome; None if the file has to be asked."""
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run_id, []).append(future)
        try:
            yield future
        finally:
            waiting = self._futures.get(run_id)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[run_id]
            if future.done() and not future.cancelled():
                future.exception()  # seen: a failing engine tells everybody, wanted or not

    def resolve(self, run_id: str, outcome: Outcome | None = None) -> None:
        """Tell who waits for a run how it ended."""
        for future in self._futures.pop(run_id, ()):
            if not future.done():
                future.set_result(outcome)

    def fail(self, reason: str) -> None:
        """Tell everybody that nothing will come of it."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(EngineClosedError(reason))
        self._futures.clear()
