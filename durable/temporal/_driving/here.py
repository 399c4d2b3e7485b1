"""
One run as all that drives it sees it: what it is, what has arrived for it, and how one waits in a workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import define, field
from temporalio import workflow

from durable._core.authoring.registry import Runnable
from durable._core.journal.events import CancelRequested, Event
from durable._shell.rows.rows import NewRun
from durable.temporal._setup.setup import Setup

T = TypeVar("T")


def now() -> float:
    """The time of the server's workflow, the same in every replay."""
    return workflow.now().timestamp()


@define
class RunHere:
    """A run on this worker."""

    setup: Setup
    definition: Runnable
    new: NewRun
    run_id: str
    #: The ids of the batch that it is a member or callback of, and of those around that.
    batches: Sequence[str] = ()
    #: Arrivals that no turn has taken in yet.
    inbox: list[Event] = field(factory=list)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds. That the server cancels the run arrives; that it is evicted is raised."""
        while True:
            try:
                await workflow.wait_condition(condition)
                return
            except asyncio.CancelledError:
                if not self._take_cancellation():
                    raise

    async def surely(self, awaitable: Awaitable[T]) -> T:
        """What *awaitable* gives, which a cancellation of the run does not tear apart."""
        task = asyncio.ensure_future(awaitable)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled() or not self._take_cancellation():
                    raise

    def _take_cancellation(self) -> bool:
        """Take in that the server cancels the run; False if it is evicted from the worker's cache instead."""
        reason = workflow.cancellation_reason()
        if reason is not None:
            self.inbox.append(CancelRequested(reason, now()))
        return reason is not None
