"""
Timers of one run, which are the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from durable._core.journal.events import CleanupTimedOut, Event, HeartbeatMissed, TimerFired
from durable._core.journal.waits import Wait
from durable.temporal._driving.here import RunHere, now


class Timers:
    """What of a run's waits has a time."""

    def __init__(self, here: RunHere) -> None:
        self._here = here
        self._armed: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def arm(self, wait: Wait, at: float, event: Callable[[float], Event] | None = None) -> None:
        """Let *event* (of the time) arrive when *wait* is due, *at*: by default what says so."""
        if event is None:
            event = _event_of(wait)
        key = wait.position, wait.kind
        seconds = max(0.0, at - now())
        self._armed[key] = asyncio.get_running_loop().call_later(seconds, self._fire, key, event)

    def _fire(self, key: tuple[str, str], event: Callable[[float], Event]) -> None:
        self._armed.pop(key, None)
        self._here.inbox.append(event(now()))

    def disarm(self, wait: Wait) -> None:
        """The wait is over."""
        armed = self._armed.pop((wait.position, wait.kind), None)
        if armed is not None:
            armed.cancel()

    def clear(self, *, keep: Collection[str] = ()) -> None:
        """Disarm all, but those of kinds to *keep*."""
        for key, armed in list(self._armed.items()):
            if key[1] not in keep:
                armed.cancel()
                del self._armed[key]


def _event_of(wait: Wait) -> Callable[[float], Event]:
    match wait.kind:
        case "cleanup":
            return CleanupTimedOut
        case "heartbeat":
            return partial(HeartbeatMissed, wait.position)
        case _:
            return partial(TimerFired, wait.position)
