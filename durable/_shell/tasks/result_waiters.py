"""
Callers who wait for the end of a run or batch: notified with the commit that ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from durable._shell.rows.rows import Effects, RunResult

#: Before a batch's id, among those of the runs that somebody waits for: no id begins like this.
_FINISHED = "\n"


class ResultWaiters:
    """Futures of what callers wait for, by the id of a run."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[RunResult | None]]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    @contextmanager
    def until(self, run_id: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        """A future of the run's outcome; None if the file has to be asked."""
        future: asyncio.Future[RunResult | None] = asyncio.get_running_loop().create_future()
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
                # looked at, lest asyncio logs it: a failing engine gives it to everybody, wanted or not
                future.exception()

    @contextmanager
    def until_finished(self, batch_id: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        """A future that is done when a batch is finished."""
        with self.until(_FINISHED + batch_id) as future:
            yield future

    def take(self, effects: Effects) -> None:
        """Tell who waits what a commit group ended, or blocked."""
        for stopped in effects.stopped:
            if stopped.status == "blocked":
                self._resolve(stopped.run_id)
        for ended in effects.ended:
            self._resolve(ended.run_id, ended.outcome)
        for batch in effects.batches:
            if batch.name == "finished":
                self._resolve(_FINISHED + batch.batch_id)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell everybody that nothing will come of it: each gets an *error* of its own."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error())
        self._futures.clear()

    def _resolve(self, run_id: str, outcome: RunResult | None = None) -> None:
        for future in self._futures.pop(run_id, ()):
            if not future.done():
                future.set_result(outcome)
