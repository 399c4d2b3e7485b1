"""
Whether an engine has anything under way, and what the clocks and event loops of tests are told of that.

An engine whose clock (or event loop) is a `Watcher` shows itself to it while it is open: such a clock lets
time pass only while nothing is under way, so that nothing ever loses a race against it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from durable._core.ports import Watched, Watcher
from durable._shell.engine.scheduler import Scheduler
from durable._shell.engine.ticker import Schedules
from durable._shell.handles.finding import Finding
from durable._shell.storage.port import AnyDatabase
from durable._shell.turns.activity import Activity
from durable._shell.turns.steps import Steps


class Idling(Finding):
    """What an engine tells of what it has under way."""

    _activity: Activity
    _database: AnyDatabase | None
    _scheduler: Scheduler | None
    _schedules: Schedules
    _steps: Steps | None
    _watchers: list[Watcher]

    async def idle(self) -> None:
        """
        Return once nothing is under way: at once, if nothing is.

        Under way are steps, turns of runs, requests and reads that are not answered yet, and timers and ticks
        that are due. What waits for something from outside, or for an instant to come, is not; nor is what a
        full queue or a pause holds back.

        Raises:
            EngineClosedError: The engine is not open, or was closed meanwhile.
        """
        while True:
            await self._activity.wait_idle()
            self._check_open()
            if not self._is_due:
                return
            await self._activity.wait_busy()  # what is due is about to be dealt with

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, see `idle`."""
        return self._activity.is_idle and not self._is_due

    @property
    def next_due_at(self) -> float | None:
        """When the next timer or tick of a schedule is due (epoch seconds, UTC), as far as is known; or None."""
        known = (None if self._scheduler is None else self._scheduler.next_due_at, self._schedules.next_due_at)
        return min((at for at in known if at is not None), default=None)

    @property
    def calls_in_flight(self) -> int:
        """How many threads and processes work for it: its database's, and those of steps."""
        if self._database is None or self._steps is None:
            return 1  # it is being opened
        return self._database.calls_in_flight + self._steps.calls_in_flight

    @property
    def _is_due(self) -> bool:
        due_at = self.next_due_at
        return due_at is not None and due_at <= self.clock.now()

    def _check_open(self) -> None:
        """
        Nothing, while it is open.

        Raises:
            EngineClosedError: It is not.
        """
        raise NotImplementedError  # pragma: no cover - Lifecycle has its own

    def _let_watch(self) -> None:
        """Show itself to the clock and to the event loop, if they watch engines."""
        told = []
        candidates: tuple[Any, ...] = (self.clock, asyncio.get_running_loop())
        for watcher in candidates:
            if isinstance(watcher, Watcher):
                on_end = watcher.attach_engine(self)
                self._watchers.append(watcher)
                if on_end is not None:
                    told.append(on_end)

        def tell() -> None:
            for each in told:
                each()

        if told:
            self._activity.on_end = tell

    def _stop_watching(self) -> None:
        for watcher in self._watchers:
            watcher.detach_engine(self)
        self._watchers.clear()


_fits: type[Watched] = Idling
