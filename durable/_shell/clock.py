"""The wall clock, as the `Clock` port of the core."""

from __future__ import annotations

import asyncio
import time

from durable._core.ports import Clock

#: Longest sleep between two looks at the wall clock, in seconds: a clock that was set forward
#: fires what is due within this time.
LONGEST_SLEEP = 30.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Epoch seconds, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait, though never longer than `LONGEST_SLEEP`."""
        await asyncio.sleep(min(seconds, LONGEST_SLEEP))


_fits: type[Clock] = SystemClock
