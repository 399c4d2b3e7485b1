"""
Time for tests: it stands still while anything is in progress, and then jumps to what is due next.

    clock = VirtualClock()
    async with Engine(":memory:", [reminder], clock=clock) as engine:
        run = await engine.start(reminder())  # sleeps for a year
        await run.result()                    # takes milliseconds

Whatever an engine itself waits for goes by its clock: `sleep`, timeouts and deadlines of runs, retry delays,
delayed starts, rates, schedules. What a *step* waits for by itself (``asyncio.sleep``), the timeout of a step,
and ``run.result(timeout=...)`` go by the event loop: those jump too on an `AutojumpLoop`, whose time this clock
then shares. On any other loop, a running step holds the time.

Time jumps whenever the engines of the clock are idle, and the event loop has had a few rounds in which they
stayed so: a test that does something with its runs at once is never too late. One that goes away between (to a
server, to a thread) should say `autojump=False` and move the time by `advance`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from durable._core.ports import Clock, Watched, Watcher
from durable.errors import UsageError
from durable.testing.loop import AutojumpLoop

#: Rounds of the event loop in which nothing may begin before the time jumps: enough for a test that is told of an
#: outcome through a few tasks and futures to react to it.
ROUNDS: Final = 10
#: Real seconds that `advance` waits for running steps, which hold the time.
PATIENCE: Final = 5.0


class VirtualClock:
    """
    A clock that jumps. For any number of engines, one after the other or at once, of one event loop.

    Args:
        start: The instant at which it begins, an aware datetime or epoch seconds; by default that of now.
        autojump: Whether time jumps by itself while nothing is in progress. If not, only `advance` and `jump` move it.
    """

    def __init__(self, start: datetime | float | None = None, *, autojump: bool = True) -> None:
        if isinstance(start, datetime):
            if start.tzinfo is None:
                msg = f"VirtualClock takes an aware datetime, found {start!r}: give it a tzinfo (such as UTC)"
                raise UsageError(msg)
            start = start.timestamp()
        self._now = self._start = time.time() if start is None else float(start)
        self._autojump = autojump
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engines: list[Watched] = []
        self._sleepers: set[asyncio.Future[None]] = set()
        self._advancing = 0
        self._rounds = 0
        #: The look at the engines that is scheduled ...
        self._look: asyncio.Handle | None = None
        #: ... and, on a loop that jumps, what that loop is to jump to.
        self._alarm: asyncio.TimerHandle | None = None
        #: The difference between its time and that of a loop that jumps.
        self._ahead = 0.0

    def __repr__(self) -> str:
        return f"<VirtualClock: {self.now() - self._start:g} s after its start>"

    # --- the time ------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Epoch seconds, UTC."""
        if isinstance(self._loop, AutojumpLoop):
            self._now = self._loop.time() + self._ahead
        return self._now

    def monotonic(self) -> float:
        """Seconds since its start."""
        return self.now() - self._start

    async def sleep(self, seconds: float) -> None:
        """
        Wait until so much time has passed. This alone lets no time jump: what engines wait for does, and `advance`.
        """
        loop = self._bind()
        until = self.now() + seconds
        while self.now() < until:
            moved: asyncio.Future[None] = loop.create_future()
            self._sleepers.add(moved)
            try:
                await moved
            finally:
                self._sleepers.discard(moved)

    @property
    def autojump(self) -> bool:
        """Whether time jumps by itself. On an `AutojumpLoop`, that of the loop."""
        return self._loop.autojump if isinstance(self._loop, AutojumpLoop) else self._autojump

    @autojump.setter
    def autojump(self, on: bool) -> None:
        self._autojump = on
        if isinstance(self._loop, AutojumpLoop):
            self._loop.autojump = on
        elif on:
            self._poke()

    async def advance(self, seconds: float | timedelta) -> None:
        """
        Let time pass, and return when everything that came due by then has been dealt with.

        It jumps from one deadline to the next, so that each timer fires at its own time, and what it causes has
        happened before the next one does.

        Raises:
            UsageError: *seconds* is negative; or a step that is running has held the time for 5 real seconds.
        """
        amount = _seconds(seconds, "advance")
        self._bind()
        if isinstance(self._loop, AutojumpLoop):
            await self._loop.advance_to(self.now() + amount - self._ahead)
            return
        until = self._now + amount
        self._advancing += 1
        try:
            await self._settled(amount)
            while (due_at := self._next_due_at()) is not None and due_at <= until:
                self._move_to(due_at)
                await self._settled(amount)
            self._move_to(until)
            await self._settled(amount)
        finally:
            self._advancing -= 1
            self._poke()

    def jump(self, seconds: float | timedelta) -> None:
        """
        Let time pass at once, waiting for nothing: also while a step is running that would never end.

        Timers that came due fire then, all of them late but the last.
        """
        amount = _seconds(seconds, "jump")
        self._bind()
        if isinstance(self._loop, AutojumpLoop):
            self._loop.jump(amount)
            self._wake()
        else:
            self._move_to(self._now + amount)

    # --- for engines (the Watcher protocol) --------------------------------------------------------------------

    def attach_engine(self, engine: Watched, /) -> Callable[[], None]:
        """Let no time pass while *engine* is at work."""
        self._bind()
        self._engines.append(engine)
        return self._poke

    def detach_engine(self, engine: Watched, /) -> None:
        """It has closed."""
        with suppress(ValueError):  # it may never have opened, and then needs no removal
            self._engines.remove(engine)
        self._poke()

    # --- one loop ----------------------------------------------------------------------------------------------

    def _bind(self) -> asyncio.AbstractEventLoop:
        """
        Belong to the running loop from now on: that loop.

        Raises:
            UsageError: It is in use on another one: waiting there and being moved here, nobody would ever wake.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return loop
        if self._loop is not None and not self._loop.is_closed() and (self._engines or self._sleepers):
            msg = (
                "this VirtualClock is in use on another event loop: give each loop a clock of its own "
                "(as the fixture durable_clock does for each test), or close the engines there first"
            )
            raise UsageError(msg)
        now = self.now()
        self._engines.clear()  # those of a loop that was closed under them would hold the time for ever
        self._sleepers.clear()
        self._look = self._alarm = None
        self._loop = loop
        if isinstance(loop, AutojumpLoop):
            self._ahead = now - loop.time()
            if not self._autojump:
                loop.autojump = False
        return loop

    # --- jumping -------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        """Something has ended: look whether that was the last of what was in progress."""
        if self._loop is None or self._loop.is_closed():
            return
        if isinstance(self._loop, AutojumpLoop):
            self._set_alarm(self._loop)
        elif self._autojump and not self._advancing:
            self._rounds = ROUNDS
            if self._look is None:
                self._look = self._loop.call_soon(self._look_again, self._loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """One round of the loop has passed: jump, if nothing has begun in all of them."""
        self._look = None
        if self._is_idle() and self._autojump and not self._advancing:
            self._rounds -= 1
            if self._rounds >= 0:
                self._look = loop.call_soon(self._look_again, loop)
            elif (due_at := self._next_due_at()) is not None:
                self._move_to(due_at)
        # Else whatever is in progress pokes when it ends.

    def _set_alarm(self, loop: AutojumpLoop) -> None:
        """Have a loop that jumps stop where the engines have something to do."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if (due_at := self._next_due_at()) is not None:
            self._alarm = loop.call_at(due_at - self._ahead, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake()
        self._poke()

    def _move_to(self, at: float) -> None:
        self._now = max(self._now, at)
        self._wake()

    def _wake(self) -> None:
        """Let everybody who sleeps look at the time."""
        for moved in list(self._sleepers):
            if not moved.done():
                moved.set_result(None)

    def _next_due_at(self) -> float | None:
        return min((at for engine in self._engines if (at := engine.next_due_at) is not None), default=None)

    def _is_idle(self) -> bool:
        return all(engine.is_idle for engine in self._engines)

    async def _settled(self, amount: float) -> None:
        """Return once the engines have been idle for a few rounds."""
        rounds = 0
        while rounds < ROUNDS:
            if self._is_idle():
                rounds += 1
                await asyncio.sleep(0)
            else:
                rounds = 0
                await self._idle(amount)

    async def _idle(self, amount: float) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                for engine in list(self._engines):
                    await engine.idle()
        except TimeoutError:
            msg = (
                f"clock.advance({amount:g}) waited {PATIENCE:g} s for steps that are running, and hold the time: let "
                "them end first, use clock.jump(), or run the test on an AutojumpLoop if it is sleep they wait for"
            )
            raise UsageError(msg) from None


def _seconds(given: Any, method: str) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else float(given)
    if not 0 <= seconds < math.inf:
        msg = f"clock.{method}() takes seconds, 0 or more, found {given!r}: time does not go back"
        raise UsageError(msg)
    return seconds


_fits: tuple[type[Clock], type[Watcher]] = (VirtualClock, VirtualClock)
