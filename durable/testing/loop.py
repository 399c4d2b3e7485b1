"""
An event loop whose own sleeps jump: `asyncio.sleep`, `asyncio.timeout`, anyio's `fail_after`, and what is made of them.

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"loop_factory": AutojumpLoop}

When nothing is ready to run, the loop's time jumps to the next timer. It never does while a thread works for us,
since what that finds may come before the timer: calls of the database of an engine, steps in threads and
processes, ``asyncio.to_thread``, ``loop.run_in_executor`` and ``anyio.to_thread``. What else the loop cannot know
of (a thread of a library's, a server in another process) is said by `AutojumpLoop.hold`.

A `VirtualClock` on this loop has the loop's time: then steps, runs, timers and the test agree on what time it is.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from durable._core.ports import Watched, Watcher
from durable._shell.threads import Worker

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: Real seconds between two looks whether threads still work. What they find wakes the loop at once.
LOOK_SECONDS: Final = 0.001


class _Selector(selectors.DefaultSelector):
    """Asked for what is ready when the loop has nothing to run, which is when time may jump."""

    loop: AutojumpLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now, or after *timeout* seconds of the loop's time."""
        if timeout is None or timeout > 0:
            return self.loop.wait(timeout, super().select)
        self.loop.jump(0)
        return super().select(0)


class AutojumpLoop(asyncio.SelectorEventLoop):
    """
    asyncio's loop, with time that jumps. Give it to a runner, or to anyio's plugin, as ``loop_factory``.

    Args:
        autojump: Whether time jumps by itself. If not, it stands still, and `advance` and `jump` move it.
        order: A seed: tasks that are ready at the same time run in an order drawn by it, rather than in that in which
            they became so. The same seed, the same order. By default asyncio's.
    """

    #: Seen by the engine: that a while passes here says nothing about threads.
    jumps = True

    def __init__(self, *, autojump: bool = True, order: int | None = None) -> None:
        selector = _Selector()
        selector.loop = self
        #: Whether time jumps by itself.
        self.autojump = autojump
        self._at = 0.0
        self._dice = None if order is None else random.Random(order)  # noqa: S311 - to be drawn again
        self._held = 0
        self._advancing = 0
        self._engines: list[Watched] = []
        self._settling: list[asyncio.Future[None]] = []
        self._moving: list[asyncio.Future[bool]] = []
        super().__init__(selector)

    # --- the time ------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since it was made."""
        return self._at

    async def advance(self, seconds: float) -> None:
        """Let time pass, from one timer to the next; return when what came due has been dealt with."""
        await self.advance_to(self._at + seconds)

    async def advance_to(self, at: float) -> None:
        """As `advance`, to an instant of this loop's time."""
        reached = self.create_future()
        timer = self.call_at(at, _resolve, reached)
        self._advancing += 1
        try:
            await reached
        finally:
            self._advancing -= 1
            timer.cancel()
        await self.settled()

    def jump(self, seconds: float) -> None:
        """Let time pass at once."""
        # One step of a float more, always: what is due now then is due, however large the time is by now.
        self._at = math.nextafter(self._at + seconds, math.inf)

    async def settled(self) -> None:
        """Return once nothing is ready to run and no thread works for us: only time could change anything."""
        future = self.create_future()
        self._settling.append(future)
        await future

    async def moved(self) -> bool:
        """Return once time has passed to the next timer, or False if nothing is ready and there is none."""
        future: asyncio.Future[bool] = self.create_future()
        self._moving.append(future)
        return await future

    @contextmanager
    def hold(self) -> Generator[None]:
        """Let no time jump inside the ``with`` block: for what the loop does not know of."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @property
    def calls_in_flight(self) -> int:
        """How many threads (and processes) work for us, as far as is known."""
        engines = sum(engine.calls_in_flight for engine in self._engines)
        return self._held + engines + sum(_works_for(self, thread) for thread in threading.enumerate())

    def _run_once(self) -> None:
        if self._dice is not None:
            self._shuffle(self._dice)
        super()._run_once()  # type: ignore[misc]  # asyncio's own, of which there is no declaration

    def _shuffle(self, dice: random.Random) -> None:
        """Let tasks that are ready take each other's turns; other callbacks keep theirs, which libraries rely on."""
        ready: Any = self._ready  # type: ignore[attr-defined]  # asyncio's own, as above
        places = [place for place, handle in enumerate(ready) if _resumes_a_task(handle)]
        for place, handle in zip(places, dice.sample([ready[place] for place in places], len(places)), strict=True):
            ready[place] = handle

    # --- for engines (the Watcher protocol) --------------------------------------------------------------------

    def attach_engine(self, engine: Watched, /) -> None:
        """Let no time pass while *engine* has calls of its database in flight."""
        self._engines.append(engine)

    def detach_engine(self, engine: Watched, /) -> None:
        """It has closed."""
        with suppress(ValueError):
            self._engines.remove(engine)

    # --- for asyncio ---------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # generic there, in terms that differ between versions
        """As ever; time stands still meanwhile."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._held += 1
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: object) -> None:
        self._held -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As ever; it has a timeout, which must not jump."""
        with self.hold():
            await super().shutdown_default_executor(*args, **kwargs)

    def wait(self, timeout: float | None, select: Callable[[float | None], list[Any]]) -> list[Any]:
        """What is ready; if nothing is, and nobody is at work, *timeout* seconds of our time have passed."""
        if ready := select(0):
            return ready
        if self.calls_in_flight:
            return select(LOOK_SECONDS)
        if self._settling:
            settling, self._settling = self._settling, []
            for future in settling:
                _resolve(future)
        elif timeout is None and self._moving:
            self._tell_moving(moved=False)
        elif timeout is None or not (self.autojump or self._advancing):
            return select(None)
        else:
            self.jump(timeout)
            self._tell_moving(moved=True)
        return []

    def _tell_moving(self, *, moved: bool) -> None:
        moving, self._moving = self._moving, []
        for future in moving:
            if not future.done():
                future.set_result(moved)


def _resumes_a_task(handle: Any) -> bool:
    """Whether a callback of the loop is the next step of a task."""
    callback = handle._callback  # noqa: SLF001 - of asyncio, as the queue that it stands in
    return type(callback).__name__ == "TaskStepMethWrapper" or isinstance(
        getattr(callback, "__self__", None), asyncio.Task
    )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _works_for(loop: AutojumpLoop, thread: threading.Thread) -> bool:
    """Whether a thread of ours, or of anyio's, is busy for *loop*: these go past `run_in_executor`."""
    if isinstance(thread, Worker):
        return thread.busy_for is loop
    found: Any = thread
    return getattr(found, "loop", None) is loop and getattr(getattr(found, "queue", None), "unfinished_tasks", 0) > 0


_fits: type[Watcher] = AutojumpLoop
