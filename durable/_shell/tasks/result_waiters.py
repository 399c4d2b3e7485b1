"""
Callers who wait for the end of a run or batch: notified with the commit that ends it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from durable._shell.rows.rows import Effects, RunResult
from durable._shell.tasks.keyed_futures import KeyedFutures

#: Before a batch's id, or a request's, among those of the runs that somebody waits for: no id begins like this.
_FINISHED = "\n"
_ANSWERED = "\n\n"


class ResultWaiters(KeyedFutures[str, RunResult | None]):
    """Those who wait, by the id of a run: until its outcome is known; None if the file has to be asked."""

    def until_finished(self, batch_id: str) -> AbstractContextManager[asyncio.Future[RunResult | None]]:
        """A future that is done when a batch is finished."""
        return self.until(_FINISHED + batch_id)

    def until_answered(self, request: str, run_id: str) -> AbstractContextManager[asyncio.Future[RunResult | None]]:
        """A future that is done when a request is answered, or the run that is to answer it has ended or is blocked."""
        return self.until(_ANSWERED + request, run_id)

    def take(self, effects: Effects) -> None:
        """Tell who waits what a commit group ended, or blocked."""
        for stopped in effects.stopped:
            if stopped.status == "blocked":
                self.resolve(stopped.run_id, None)
        for ended in effects.ended:
            self.resolve(ended.run_id, ended.outcome)
        for request in effects.answered:
            self.resolve(_ANSWERED + request, None)
        for batch in effects.batches:
            if batch.name == "finished":
                self.resolve(_FINISHED + batch.batch_id, None)
