"""
A limit, as a workflow: it grants slots in the order of asking, and ends when nobody is inside or in line.

Who is inside is known by workflow id and position. One that has ended without saying so (it was terminated) is found
out by looking, once somebody waits. Its history stays short: it continues as new.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.exceptions import FailureError

from durable.temporal._limits.wire import (
    ASKED,
    GRANTED,
    LIMIT,
    OF_RUN,
    RELEASED,
    STATE,
    WHICH_ENDED,
    Numbers,
    Place,
    State,
)

#: Seconds between looks whether those who are inside have ended, while somebody waits.
LOOK_EVERY: Final = 30.0


@workflow.defn(name=LIMIT)
class LimitWorkflow:
    """One limit, or one key of it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, str]] = deque()
        self._inside: list[tuple[str, str]] = []
        #: When the latest were let in, as many as the rate counts.
        self._begun: deque[float] = deque()
        self._numbers: Numbers | None = None
        #: Since when each is inside, or in line.
        self._since: dict[tuple[str, str], float] = {}

    @workflow.signal(name=ASKED)
    def asked(
        self, workflow_id: str, position: str, concurrency: int | None, count: int | None, per: float | None
    ) -> None:
        """Somebody stands in line."""
        self._numbers = Numbers(concurrency, count, per)
        who = workflow_id, position
        if who in self._inside:  # its worker died: another attempt, and the slot is its own
            self._inside.remove(who)
            self._waiting.appendleft(who)
            self._since[who] = workflow.now().timestamp()
        elif who not in self._waiting:
            self._waiting.append(who)
            self._since[who] = workflow.now().timestamp()

    @workflow.signal(name=RELEASED)
    def released(self, workflow_id: str, position: str) -> None:
        """Somebody needs its slot no more, or its place in line."""
        who = workflow_id, position
        self._since.pop(who, None)
        if who in self._inside:
            self._inside.remove(who)
        elif who in self._waiting:
            self._waiting.remove(who)

    @workflow.query(name=STATE)
    def state(self) -> dict[str, list[list[Any]]]:
        """Who is inside, and who waits: workflow ids, positions, since when; of the first who waits, until when."""
        inside = [self._place(who) for who in self._inside]
        waiting = [self._place(who) for who in self._waiting]
        if waiting and not self._is_full and self._free_at():
            waiting[0] = waiting[0]._replace(due=self._free_at())
        return State(inside, waiting).plain()

    def _place(self, who: tuple[str, str]) -> Place:
        workflow_id, position = who
        return Place(workflow_id, None if position == OF_RUN else position, self._since.get(who, 0.0))

    @workflow.run
    async def run(self, carried: dict[str, Any] | None = None) -> None:
        """Grant slots until nobody is there."""
        if carried is not None:
            self._take_over(carried)
        while True:
            while self._may_begin():
                await self._let_in(self._waiting.popleft())
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(args=[self._carried()])
            if not self._waiting and not self._inside:
                return
            try:
                await workflow.wait_condition(self._has_news, timeout=self._patience())
            except TimeoutError:
                await self._look()

    def _take_over(self, carried: dict[str, Any]) -> None:
        self._inside = [(who, position) for who, position in carried["inside"]]
        self._waiting.extendleft((who, position) for who, position in reversed(carried["waiting"]))
        self._begun.extend(carried["begun"])
        for who, position, since in carried.get("since", ()):
            self._since.setdefault((who, position), since)
        self._numbers = self._numbers or Numbers(*carried["numbers"])

    def _carried(self) -> dict[str, Any]:
        numbers = self._numbers or Numbers(None, None, None)
        return {
            "inside": self._inside,
            "waiting": list(self._waiting),
            "begun": list(self._begun),
            "numbers": list(numbers),
            "since": [[*who, since] for who, since in self._since.items()],
        }

    async def _let_in(self, who: tuple[str, str]) -> None:
        self._inside.append(who)
        self._since[who] = workflow.now().timestamp()
        self._begun.append(self._since[who])
        workflow_id, position = who
        try:
            await workflow.get_external_workflow_handle(workflow_id).signal(GRANTED, position)
        except FailureError:  # it has ended
            if who in self._inside:
                self._inside.remove(who)
                self._since.pop(who, None)

    def _has_news(self) -> bool:
        return self._may_begin() or not (self._waiting or self._inside)

    def _may_begin(self) -> bool:
        if not self._waiting or self._is_full:
            return False
        return self._free_at() <= workflow.now().timestamp()

    @property
    def _is_full(self) -> bool:
        numbers = self._numbers
        return numbers is not None and numbers.concurrency is not None and len(self._inside) >= numbers.concurrency

    def _free_at(self) -> float:
        """When the rate lets the next one in."""
        numbers = self._numbers
        if numbers is None or numbers.begun is None or numbers.seconds is None:
            return 0.0
        while len(self._begun) > numbers.begun:
            self._begun.popleft()
        return self._begun[0] + numbers.seconds if len(self._begun) >= numbers.begun else 0.0

    def _patience(self) -> float:
        if self._waiting and not self._is_full:
            return max(0.001, self._free_at() - workflow.now().timestamp())
        return LOOK_EVERY

    async def _look(self) -> None:
        if not self._waiting or not self._is_full:
            return
        ended: list[str] = await workflow.execute_activity(
            WHICH_ENDED,
            args=[[workflow_id for workflow_id, _ in self._inside]],
            result_type=list[str],
            start_to_close_timeout=timedelta(seconds=30),
        )
        for who in [who for who in self._inside if who[0] in ended]:
            self._inside.remove(who)
            self._since.pop(who, None)
