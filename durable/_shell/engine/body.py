"""
The body of ``async with Engine(...)``: interrupted when the engine fails, as a task group interrupts its own.

It may wait for anything, and mostly waits for something else than the engine: without that it would wait for ever.
"""

from __future__ import annotations

import asyncio


class Body:
    """The task that is in the body, if one is."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._interrupted = False
        #: How often that task had been cancelled before.
        self._cancelled_before = 0

    def enter(self) -> None:
        """The current task is in it."""
        self._task, self._interrupted = asyncio.current_task(), False
        self._cancelled_before = 0 if self._task is None else self._task.cancelling()

    def interrupt(self) -> None:
        """Cancel it."""
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def leave(self) -> bool:
        """The current task leaves it. Whether it was interrupted, and nobody else has cancelled it."""
        task, self._task = self._task, None
        if task is None or not self._interrupted:
            return False
        return task.uncancel() <= self._cancelled_before
