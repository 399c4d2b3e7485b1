"""
Threads of our own: daemon threads, so that a call that hangs does not keep the process alive.

The event loop's default executor and anyio's worker threads are joined, or waited for, when a program ends, and they
are the user's: nothing of ours is to take them up. Our threads are started when they are needed, used again, and
never more than so many: one that hangs is one thread less.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from anyio._backends._asyncio import AsyncIOBackend
from anyio._core._eventloop import claim_worker_thread

from durable._core.light_frozen import light_define
from durable._core.supervision import pause_before
from durable._shell.log import log
from durable._shell.switching import switching

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that closing waits for an idle thread, which ends at once.
_LAST_WAIT: Final = 0.5


@light_define(eq=False)
class _Call:
    fn: Callable[[], Any]
    context: contextvars.Context
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        switching.begin()
        try:
            self.value = self.context.run(self.fn)
        except BaseException as error:  # noqa: BLE001 - of whoever awaits the call
            self.error = error
        finally:
            switching.end()

    def answer(self) -> None:
        if self.future.done():
            return  # nobody waits any more
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Worker(threading.Thread):
    """A thread that performs one call after the other, and ends after None."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, returned: Callable[[Worker, _Call], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        #: The loop that waits for it; None if none does.
        self.busy_for: asyncio.AbstractEventLoop | None = None
        self._loop = loop
        self._returned = returned

    def begin(self, call: _Call) -> None:
        """Perform *call* next."""
        self.busy_for = self._loop
        self.calls.put(call)

    def run(self) -> None:
        """Perform calls. They may use `anyio.from_thread`, as in a thread of anyio's."""
        with claim_worker_thread(AsyncIOBackend, self._loop):
            while (call := self.calls.get()) is not None:
                call.run()
                try:
                    self._loop.call_soon_threadsafe(self._returned, self, call)
                except RuntimeError:  # the loop was closed meanwhile: nobody waits, and no call will follow
                    return
                del call  # nor are its arguments kept until the next one comes


class Threads:
    """
    A pool of at most *most* threads, for calls from the running event loop.

    Calls beyond that wait for their turn, in order. Where the system has no thread to give, they wait, too.
    """

    def __init__(self, most: int, *, name: str) -> None:
        self.most = most
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._idle: list[Worker] = []
        self._waiting: deque[asyncio.Future[Worker]] = deque()
        #: Those that there are, busy and idle.
        self._count = 0
        self._started = 0
        self._closed = False
        #: What the system said when it last gave none.
        self._refused = ""

    @property
    def shortage(self) -> str | None:
        """Why there are fewer threads than are waited for; None unless the system gives none."""
        return self._refused if self._refused and self._waiting else None

    @property
    def busy(self) -> int:
        """How many threads are at work, for those who wait and for those who gave up waiting."""
        return self._count - len(self._idle)

    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        What *fn* returns or raises, in a thread, with a copy of the context.

        Cancelled, it returns at once. The thread cannot be: it is busy until *fn* has returned.
        """
        return await self.call_in(await self.take(), fn, *args, **kwargs)

    async def take(self) -> Worker:
        """A thread for `call_in`, which must follow."""
        return self._idle.pop() if self._idle else await self._another()

    def give_back(self, worker: Worker) -> None:
        """*worker* was taken, and is not needed."""
        self._release(worker)

    @property
    def at_hand(self) -> bool:
        """Whether there is one that `take` need not wait for."""
        return bool(self._idle)

    async def call_in(self, worker: Worker, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, in *worker*."""
        future: asyncio.Future[T] = self._loop.create_future()
        worker.begin(_Call(partial(fn, *args, **kwargs), contextvars.copy_context(), future))
        return await future

    def close(self) -> None:
        """End the threads that are idle, and each other once its call has returned."""
        self._closed = True
        idle, self._idle = self._idle, []
        self._count -= len(idle)
        for worker in idle:
            worker.calls.put(None)
        for worker in idle:
            worker.join(_LAST_WAIT)

    async def _another(self) -> Worker:
        """A thread that was just started, or the next that is free."""
        tries = 0
        while self._count < self.most:
            worker = Worker(f"{self._name}-{self._started}", self._loop, self._returned)
            self._count += 1
            try:
                worker.start()
            except RuntimeError as error:  # of threads or memory
                self._count -= 1
                self._told_short(error)
                tries += 1
                if (free := await self._free(pause_before(tries))) is not None:
                    return free
            else:
                self._started += 1
                self._refused = ""
                return worker
        found = await self._free(None)
        assert found is not None, "without a time limit one waits until there is one"
        return found

    def _told_short(self, error: RuntimeError) -> None:
        told, self._refused = bool(self._refused), str(error) or "no thread to be had"
        if not told:
            log.warning("threads.unavailable", pool=self._name, threads=self._count, most=self.most, error=str(error))

    async def _free(self, seconds: float | None) -> Worker | None:
        """The next thread that is free; None if none is within *seconds*."""
        if self._idle:
            return self._idle.pop()
        free: asyncio.Future[Worker] = self._loop.create_future()
        self._waiting.append(free)
        try:
            await asyncio.wait({free}, timeout=seconds)
            return free.result() if free.done() else None
        except BaseException:
            if free.done():
                self._release(free.result())
            raise
        finally:
            if not free.done():
                self._waiting.remove(free)

    def _returned(self, worker: Worker, call: _Call) -> None:
        self._release(worker)
        call.answer()

    def _release(self, worker: Worker) -> None:
        worker.busy_for = None
        if self._waiting:
            self._waiting.popleft().set_result(worker)
        elif self._closed:
            self._count -= 1
            worker.calls.put(None)
        else:
            self._idle.append(worker)


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What *fn* returns or raises, in a thread that is made for it: for what is done now and then."""
    threads = Threads(1, name="durable-call")
    try:
        return await threads.call(fn, *args, **kwargs)
    finally:
        threads.close()
