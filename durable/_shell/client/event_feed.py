"""
What happens in a journal that another process executes: `Client.events` and `Service.events`.

Pushed by the owner over its socket. While nobody owns the file nothing is executed, and nothing can happen but that
clients start runs: these are read from the file.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from attrs import evolve

from durable._shell.client.owner_socket import OwnerSocket
from durable._shell.client.waiting import Waiting
from durable._shell.reads.run_rows import last_run, runs_after
from durable._shell.requests.wire import FollowEvents
from durable._shell.rows.engine_events import BUFFERED, EngineEvent, WantedEvents, from_text
from durable.errors import EngineClosedError

#: Seconds between two looks whether somebody owns the file.
_PAUSE: Final = 0.2


class EventFeed:
    """Collects events for one reader, from when it is made; a slow reader loses the oldest, and is told."""

    def __init__(
        self, read: Callable[..., Awaitable[Any]], owner: OwnerSocket, wanted: WantedEvents, waiting: Waiting
    ) -> None:
        self._read, self._owner, self._wanted, self._waiting = read, owner, wanted, waiting
        self._buffer: deque[EngineEvent] = deque(maxlen=BUFFERED)
        self._lost = 0
        self._wake = asyncio.Event()
        #: Set once what happens from then on is told: requests of the same client wait for it.
        self.begun = asyncio.Event()
        self._collecting = asyncio.create_task(self._collect(), name="durable-events")
        self._collecting.add_done_callback(self._ended)

    def end(self) -> None:
        """Nothing more is collected: the reader is told once it has read what is there."""
        self._collecting.cancel()

    async def events(self) -> AsyncGenerator[EngineEvent]:
        """
        The events, as they come.

        Raises:
            EngineClosedError: The client was closed, or its process is about to end.
            JournalError: The owner cannot be asked.
        """
        try:
            while True:
                while self._buffer:
                    event, lost, self._lost = self._buffer.popleft(), self._lost, 0
                    yield evolve(event, lost=event.lost + lost) if lost else event
                if self._collecting.done():
                    if not self._collecting.cancelled() and (error := self._collecting.exception()) is not None:
                        raise error
                    msg = "the client was closed"
                    raise EngineClosedError(msg)
                self._wake.clear()
                with self._waiting.without_limit():
                    await self._wake.wait()
        finally:
            self._collecting.cancel()

    async def _collect(self) -> None:
        wanted, told = self._wanted, set[str]()
        kinds = None if wanted.kinds is None else tuple(sorted(wanted.kinds))
        request = FollowEvents(wanted.run_id, wanted.workflow, kinds)
        newest: int = await self._read(last_run)
        while True:
            connected = False
            try:
                async with aclosing(self._owner.follow(request)) as answers:
                    async for texts in answers:
                        if not connected:  # what was recorded until it told this
                            connected, newest = True, await self._started_since(newest, told)
                            self.begun.set()
                        for event in map(from_text, texts):
                            if event.name == "run.ready" and event.run_id in told:
                                told.discard(event.run_id)
                            else:
                                self._put(event)
            except EngineClosedError:
                pass  # it has failed, or closes: there will be another
            if connected:
                newest = await self._read(last_run)
                told.clear()
            else:
                newest = await self._started_since(newest, told)
                self.begun.set()
            await asyncio.sleep(_PAUSE)

    async def _started_since(self, newest: int, told: set[str]) -> int:
        """Tell of the runs that are newer than *newest*; the newest one now."""
        for run, run_id, workflow, at in await self._read(runs_after, newest):
            newest = run
            told.add(run_id)
            event = EngineEvent("run.ready", run_id, workflow, at)
            if self._wanted.fits(event):
                self._put(event)
        return newest

    def _ended(self, _: object) -> None:
        self._wake.set()
        self.begun.set()

    def _put(self, event: EngineEvent) -> None:
        if len(self._buffer) == BUFFERED:
            self._lost += 1
        self._buffer.append(event)
        self._wake.set()
