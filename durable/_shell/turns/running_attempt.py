"""
How one running attempt of a step is told to end: once, as `asyncio.timeout` does, so that its clean-up may await.

An anyio scope that is cancelled raises at each `await` anew, and a ``finally: await conn.rollback()`` would
never get to its end. Here the task is cancelled once, while it awaits the user's function and at no other time:
what of ours stands around that function is not struck.
"""

from __future__ import annotations

import asyncio
from typing import Any

from durable._core.codec.exception_parts import context_of
from durable._core.run.decision import StepAction
from durable._shell.turns.raised import is_cancellation

#: Errors within errors that are looked at.
_DEEPEST = 100


class RunningAttempt:
    """One attempt, and what was asked of it."""

    __slots__ = ("action", "in_thread", "inside", "is_cancelled", "is_cut_off", "struck", "task", "timer")

    def __init__(self, action: StepAction) -> None:
        self.action = action
        #: The task that awaits the function: one of its own, or that of its driver.
        self.task: asyncio.Task[Any] | None = None
        #: Set once its run waits for its end. A value that it has all the same counts.
        self.is_cancelled = False
        #: Set once the engine closes, and its grace is over.
        self.is_cut_off = False
        #: Whether its task awaits the function.
        self.inside = False
        #: Set while the function runs in a thread: that cannot be cancelled, so it is waited for.
        self.in_thread = False
        #: Whether the function was cancelled.
        self.struck = False
        #: What gives it up when its time for clean-up is over.
        self.timer: asyncio.TimerHandle | None = None

    @property
    def was_told(self) -> bool:
        """Whether it is to end, before it began or while it runs."""
        return self.is_cancelled or self.is_cut_off

    def enter(self, task: asyncio.Task[Any]) -> None:
        """The function is awaited in *task* from here on, and told from now on; unless it is too late to begin."""
        if self.was_told:
            raise asyncio.CancelledError
        self.task, self.inside = task, True

    def cancel(self) -> None:
        """Have it end, its clean-up included."""
        self.is_cancelled = True
        if not self.in_thread:
            self._strike()

    def cut_off(self) -> None:
        """Have it end, and do not wait for a thread."""
        self.is_cut_off = True
        self._strike()

    def _strike(self) -> None:
        if self.inside and not self.struck:
            assert self.task is not None
            self.struck = True
            self.task.cancel()


def is_of_cleanup(error: BaseException) -> bool:
    """Whether *error* was raised while a cancellation was being handled."""
    within: BaseException | None = error
    for _ in range(_DEEPEST):  # contexts can be made a circle
        if within is None:
            break
        if is_cancellation(within):
            return True
        within = context_of(within)
    return False
