"""Sleeping until the earliest of several instants, by a clock that may be moved."""

from __future__ import annotations

import asyncio

import anyio

from durable._core.ports import Clock


class Alarm:
    """Wakes one waiter when the earliest instant that it was set for has come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: float | None = None
        self._set = asyncio.Event()
        self._stopped = False

    @property
    def at(self) -> float | None:
        """The earliest instant that it is set for."""
        return self._at

    @property
    def stopped(self) -> bool:
        """Whether it wakes nobody any more."""
        return self._stopped

    def set(self, at: float) -> None:
        """Wake at the instant *at*, unless an earlier one is set."""
        if self._at is None or at < self._at:
            self._at = at
            self._set.set()

    def stop(self) -> None:
        """Wake the waiter now, and let it wait no more."""
        self._stopped = True
        self._set.set()

    async def wait(self) -> bool:
        """Return True at the earliest instant set, which is then forgotten; False once stopped."""
        while not self._stopped:
            due_in = None if self._at is None else self._at - self._clock.now()
            if due_in is not None and due_in <= 0:
                self._at = None
                return True
            self._set.clear()
            if due_in is None:
                await self._set.wait()
            else:
                await self._sleep(due_in)
        return False

    async def _sleep(self, seconds: float) -> None:
        """Wait by the clock, which a test may move, or until an earlier instant is set."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when_set, tasks.cancel_scope)
            await self._clock.sleep(seconds)
            tasks.cancel_scope.cancel()

    async def _cancel_when_set(self, scope: anyio.CancelScope) -> None:
        await self._set.wait()
        scope.cancel()
