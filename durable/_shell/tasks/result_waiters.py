"""
Callers who wait for the end of a run or batch: notified with the commit that ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from durable._shell.rows.rows import Effects, RunResult

#: Before a batch's id, or a request's, among those of the runs that somebody waits for: no id begins like this.
_FINISHED = "\n"
_ANSWERED = "\n\n"


class ResultWaiters:
    """Futures of what callers wait for, by the id of a run."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[RunResult | None]]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    @contextmanager
    def until(self, run_id: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        """A future of the run's outcome; None if the file has to be asked."""
        with self._until_one(run_id) as future:
            yield future

    @contextmanager
    def _until_one(self, *keys: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        future: asyncio.Future[RunResult | None] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._futures.setdefault(key, []).append(future)
        try:
            yield future
        finally:
            for key in keys:
                waiting = self._futures.get(key)
                if waiting is not None and future in waiting:
                    waiting.remove(future)
                    if not waiting:
                        del self._futures[key]
            if future.done() and not future.cancelled():
                # looked at, lest asyncio logs it: a failing engine gives it to everybody, wanted or not
                future.exception()

    @contextmanager
    def until_finished(self, batch_id: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        """A future that is done when a batch is finished."""
        with self.until(_FINISHED + batch_id) as future:
            yield future

    @contextmanager
    def until_answered(self, request: str, run_id: str) -> Generator[asyncio.Future[RunResult | None], None, None]:
        """A future that is done when a request is answered, or the run that is to answer it has ended or is blocked."""
        with self._until_one(_ANSWERED + request, run_id) as future:
            yield future

    def take(self, effects: Effects) -> None:
        """Tell who waits what a commit group ended, or blocked."""
        for stopped in effects.stopped:
            if stopped.status == "blocked":
                self._resolve(stopped.run_id)
        for ended in effects.ended:
            self._resolve(ended.run_id, ended.outcome)
        for request in effects.answered:
            self._resolve(_ANSWERED + request)
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
