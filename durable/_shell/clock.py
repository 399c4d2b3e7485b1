"""
The wall clock, as the `Clock` port of the core; and a clock that is not set back under an engine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from durable._core.ports import Clock, Watcher

#: Longest sleep between two looks at the wall clock, in seconds: a clock that was set forward
#: fires what is due within this time.
LONGEST_SLEEP = 30.0
#: How fast a clock goes that waits for another one to catch up.
SLOWED: Final = 0.95


class SystemClock:
    """The machine's clock."""

    # The functions themselves: a turn asks three times what time it is.
    #: Epoch seconds, UTC.
    now = staticmethod(time.time)
    #: Seconds that never go back.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait, though never longer than `LONGEST_SLEEP`."""
        await asyncio.sleep(min(seconds, LONGEST_SLEEP))


class SteadyClock:
    """
    Another clock, but that it never goes back: what waits 1 s waits about that, however *clock* is set meanwhile.

    Set back, it continues from where it was, by the monotonic clock, a little slower until *clock* has caught up: an
    hour takes twenty. Set forward, it follows at once. It remembers nothing: who makes a new one begins with *clock*.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall, self._ticks = clock.now, clock.monotonic
        self._now, self._looked_at = clock.now(), clock.monotonic()

    def now(self) -> float:
        """Epoch seconds, UTC."""
        wall, looked_at = self._wall(), self._ticks()
        least = self._now + SLOWED * (looked_at - self._looked_at)
        self._looked_at = looked_at
        self._now = now = wall if wall > least else least  # noqa: FURB136 - `max` takes as long as all else here
        return now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait, or return early."""
        await self._clock.sleep(seconds)


def steady(clock: Clock) -> Clock:
    """*clock*, never going back. One that watches engines, which tests have, says itself what time it is."""
    return clock if isinstance(clock, Watcher) else SteadyClock(clock)


_fits: tuple[type[Clock], type[Clock]] = (SystemClock, SteadyClock)
