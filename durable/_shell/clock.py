"""The wall clock, as the `Clock` port of the core."""

from __future__ import annotations

import asyncio
import time

from durable._core.ports import Clock


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Epoch seconds, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


_fits: type[Clock] = SystemClock
