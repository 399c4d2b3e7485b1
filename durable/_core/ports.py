"""
Protocols that the core names and the shell fills. No logic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class Clock(Protocol):
    """Wall time. Only the shell asks it; the core is given the time."""

    def now(self) -> float:
        """Epoch seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; returning early is allowed, the caller looks at the time again."""
        ...


class Watched(Protocol):
    """An engine, as clocks and event loops of tests see it."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress: no step, no turn, no call of the database, no timer that is due."""
        ...

    @property
    def calls_in_flight(self) -> int:
        """How many threads and processes work for it at this moment."""
        ...

    @property
    def next_due_at(self) -> float | None:
        """When the next timer or tick is due, as far as is known; None if there is none."""
        ...

    async def idle(self) -> None:
        """Return once nothing is in progress."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """A clock or event loop that lets no time pass while an engine works: each engine tells it when it opens."""

    def attach_engine(self, engine: Watched, /) -> Callable[[], None] | None:
        """Watch *engine*; what it is to call each time that something of what it had in progress has ended."""
        ...

    def detach_engine(self, engine: Watched, /) -> None:
        """Watch it no more: it has closed."""
        ...
