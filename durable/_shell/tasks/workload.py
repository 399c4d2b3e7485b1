"""
What an engine has to do: whether anything is running, and what is due next.

An engine whose clock (or event loop) is a `Watcher` shows its workload to it while it is open: such a clock lets
time pass only while nothing is running, so that nothing ever loses a race against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from durable._core.ports import Clock, Watched, Watcher
from durable._shell.commits.activity import Activity


class Timed(Protocol):
    """What acts by itself when an instant comes."""

    @property
    def next_due_at(self) -> float | None: ...


class Calling(Protocol):
    """What has threads and processes work for it."""

    @property
    def calls_in_flight(self) -> int: ...


class Workload:
    """
    What one opening of an engine has to do.

    Args:
        activity: Counts what is running.
        clock: Says what is due.
        check: Raises once the engine is closed, or has failed.
    """

    def __init__(self, activity: Activity, clock: Clock, check: Callable[[], object]) -> None:
        self._activity = activity
        self._clock = clock
        self._check = check
        self._timed: Sequence[Timed] = ()
        self._calling: Sequence[Calling] = ()

    def consists_of(self, timed: Sequence[Timed], calling: Sequence[Calling]) -> None:
        """From now on, it has these parts. Until then it is being opened, which calls threads."""
        self._timed, self._calling = timed, calling

    async def idle(self) -> None:
        """
        Return once nothing is running: at once, if nothing is.

        Raises:
            EngineClosedError: The engine is not open, or was closed meanwhile.
        """
        while True:
            await self._activity.wait_idle()
            self._check()
            if not self._is_due:
                return
            await self._activity.wait_busy()  # what is due is about to be dealt with

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running, see `idle`."""
        return self._activity.is_idle and not self._is_due

    @property
    def next_due_at(self) -> float | None:
        """When the next timer or tick of a schedule is due (epoch seconds, UTC), as far as is known; or None."""
        return min((at for each in self._timed if (at := each.next_due_at) is not None), default=None)

    @property
    def calls_in_flight(self) -> int:
        """How many threads and processes work for it: its database's, and those of steps."""
        if not self._calling:
            return 1
        return sum(each.calls_in_flight for each in self._calling)

    @property
    def _is_due(self) -> bool:
        due_at = self.next_due_at
        return due_at is not None and due_at <= self._clock.now()

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        """Show itself to the clock and to the event loop, if they watch engines."""
        candidates: tuple[object, ...] = (self._clock, asyncio.get_running_loop())
        watchers = [each for each in candidates if isinstance(each, Watcher)]
        attached: list[Watcher] = []
        told: list[Callable[[], None]] = []

        def tell() -> None:
            for each in told:
                each()

        try:
            for watcher in watchers:
                on_end = watcher.attach_engine(self)
                attached.append(watcher)
                if on_end is not None:
                    told.append(on_end)
            if told:
                self._activity.on_end = tell
            yield
        finally:
            for watcher in attached:
                watcher.detach_engine(self)


_fits: type[Watched] = Workload
