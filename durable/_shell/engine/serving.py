"""
`engine.serve()`: until SIGTERM or SIGINT. The only place that touches signal handlers, while somebody awaits it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from durable._shell.engine.backend import EngineBackend
from durable._shell.log import log
from durable.errors import UsageError

#: What process managers send first: Docker, systemd, Kubernetes; and the terminal.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Signals that have come, as far as somebody waits for them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[str] = asyncio.Queue()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal: called by the interpreter, between any two instructions."""
        self._loop.call_soon_threadsafe(self._came.put_nowait, signal.Signals(number).name)

    async def asked(self) -> str:
        """The name of the next signal."""
        return await self._came.get()


@contextmanager
def told_to_stop() -> Generator[Stop, None, None]:
    """
    Take the signals within the block; who had them before has them after it.

    Raises:
        UsageError: Outside of the main thread, which alone gets them.
    """
    stop, before = Stop(), {}
    try:
        for number in SIGNALS:
            try:
                before[number] = signal.signal(number, stop.handle)
            except ValueError as error:
                msg = "serve() waits for signals, which only the main thread gets: await wait_closed() in other threads"
                raise UsageError(msg) from error
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


async def serve(engine: EngineBackend) -> None:
    """
    Open *engine*, unless it is open, and wait for a signal; then let it drain, and close it if it was opened here.

    A second signal cuts off at once what runs still.
    """
    with told_to_stop() as stop:
        if engine.running is not None:
            await _until(engine, stop)
            return
        opening, asked = asyncio.create_task(engine.open()), asyncio.create_task(stop.asked())
        try:
            await asyncio.wait((opening, asked), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                await opening
                await _until(engine, stop, asked)
        finally:
            asked.cancel()
            await engine.aclose()
            await asyncio.wait((opening,))
            if asked.done() and not opening.cancelled():
                opening.exception()  # closed before it was open, as was asked for


async def _until(engine: EngineBackend, stop: Stop, first: asyncio.Task[str] | None = None) -> None:
    """Return once *engine* has drained because of a signal, or was closed; raise if it failed."""
    asked, ended = first or asyncio.create_task(stop.asked()), asyncio.create_task(engine.wait_closed())
    try:
        await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await ended
            return
        log.info("engine.draining", path=engine.path, signal=asked.result(), grace=engine.settings.grace)
        running = engine.parts
        again, drained = asyncio.create_task(stop.asked()), asyncio.create_task(running.drain())
        try:
            await asyncio.wait((again, drained), return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                running.scheduler.interrupt()
            await drained
        finally:
            again.cancel()
    finally:
        asked.cancel()
        ended.cancel()
