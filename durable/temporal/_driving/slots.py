"""
Slots of limits that one run has, or stands in line for: asked of the limit's own workflow, which grants them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError

from durable._core.journal.events import SlotGranted
from durable._core.policies.limits import Limit, limit_name
from durable._core.run.decision import SlotAction
from durable.temporal._driving.here import RunHere, now
from durable.temporal._limits.wire import ASK, ASKED, RELEASED, Numbers, limiter_id

_PATIENTLY: Final = RetryPolicy(maximum_interval=timedelta(seconds=10))


class Slots:
    """What one run has of limits."""

    def __init__(self, here: RunHere) -> None:
        self._here = here
        #: The limiter's id, of each position that has a slot, or stands in line.
        self._limiters: dict[str, str] = {}
        self._sending: set[asyncio.Task[None]] = set()
        #: What asks for the slot of each of these.
        self._asking: dict[str, asyncio.Task[None]] = {}
        #: Positions whose slot was granted.
        self.granted: set[str] = set()

    @property
    def is_idle(self) -> bool:
        """Whether it has none, nor stands in line."""
        return not self._limiters and not self._sending

    @property
    def positions(self) -> set[str]:
        """Those that have a slot, or stand in line."""
        return {*self._limiters}

    @property
    def are_sent(self) -> bool:
        """Whether the server has taken all that was asked or given back."""
        return not self._sending

    def ask(self, action: SlotAction) -> None:
        """Stand in line; that the slot is granted arrives."""
        limit = self._limit(action)
        limiter = self._limiters[action.position] = limiter_id(limit.name, action.key)
        self.granted.discard(action.position)  # one that was cut off inside asks again, and is told again
        self._asking[action.position] = self._send(self._ask(limiter, action.position, Numbers.of(limit)))

    def _limit(self, action: SlotAction) -> Limit:
        found = self._here.setup.limits.get(limit_name(action.limit), action.limit)
        assert isinstance(found, Limit), "a name that stands for none is refused when the engine is made"
        return found

    def grant(self, position: str) -> None:
        """The limiter says so."""
        if position in self._limiters and position not in self.granted:
            self.granted.add(position)
            self._here.inbox.append(SlotGranted(position, now()))

    def give_back(self, position: str) -> None:
        """Give up the slot of *position*, or its place in line."""
        self.granted.discard(position)
        limiter, asking = self._limiters.pop(position, None), self._asking.pop(position, None)
        if limiter is not None:
            self._send(self._release(limiter, position, asking))

    def _send(self, sending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _ask(self, limiter: str, position: str, numbers: Numbers) -> None:
        asked = [workflow.info().workflow_id, position, *numbers]
        try:
            await workflow.get_external_workflow_handle(limiter).signal(ASKED, args=asked)
        except FailureError:  # nobody is inside, so it is not there: only a client starts it
            await workflow.execute_activity(
                ASK,
                args=[limiter, *asked],
                activity_id=f"{position}:slot:{workflow.info().get_current_history_length()}",
                start_to_close_timeout=timedelta(seconds=10),
                retry_policy=_PATIENTLY,
            )

    async def _release(self, limiter: str, position: str, asking: asyncio.Task[None] | None) -> None:
        if asking is not None and not asking.done():  # the limit would hear of it behind the release, and keep the slot
            await workflow.wait([asking])
        try:
            released = [workflow.info().workflow_id, position]
            await workflow.get_external_workflow_handle(limiter).signal(RELEASED, args=released)
        except FailureError:  # it is over: nobody was in line
            return
