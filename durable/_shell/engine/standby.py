"""
Executes a journal in the background, whenever no other process does.

The engine waits for the file, executes until it is told to stop, and is opened again where something ended it: others
may take over meanwhile, and what one process cannot do, another may.
"""

from __future__ import annotations

import asyncio
from typing import Final

from durable._core.codec.exceptions.safe_text import one_line
from durable._shell.engine.backend import EngineBackend
from durable._shell.log import log
from durable._shell.loops import to_its_end
from durable._shell.tasks.health import Health

#: Seconds before an engine that failed, or could not be opened, is opened again; doubled each time, until it has run
#: for longer than the longest.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0


class Standby:
    """Keeps *engine*, which is to wait for its file, open or waiting."""

    def __init__(self, engine: EngineBackend) -> None:
        #: Why it neither executes nor waits for who does.
        self.trouble: BaseException | None = None
        #: Whether another process executes, and is waited for.
        self.is_waiting = False
        self._engine = engine
        self._engine.on_stand_by = self._wait
        self._tried = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="durable-standby")

    @property
    def is_executing(self) -> bool:
        """Whether it is this process that executes the journal."""
        return not self._engine.is_closing

    def health(self) -> Health:
        """As the engine while it executes; degraded while it neither does nor waits for who does."""
        if self.is_executing:
            return self._engine.health()
        if self.trouble is not None:
            return Health("degraded", (f"it cannot execute the journal: {one_line(self.trouble)}",))
        return Health("healthy") if self.is_waiting else Health("closed", ("its engine is being opened or closed",))

    async def tried(self) -> None:
        """
        Return once it executes, or waits for who does.

        Raises:
            Exception: It can do neither: what opening the engine, or running it, raised.
        """
        await self._tried.wait()
        if self.trouble is not None:
            raise self.trouble

    async def aclose(self) -> None:
        """Close the engine, or stop waiting."""
        self._task.cancel()
        await to_its_end(asyncio.ensure_future(asyncio.wait([self._task])))

    def _wait(self) -> None:
        self.trouble, self.is_waiting = None, True
        self._tried.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            opened = loop.time()
            try:
                await self._until_closed()
            except Exception as error:  # noqa: BLE001 - told by who asks, and tried again
                self.trouble = error
            else:
                return  # by another engine, which found that nobody holds this one any more
            finally:
                await self._engine.aclose()
            self._tried.set()
            if loop.time() - opened > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.error("service.interrupted", path=self._engine.path, error=one_line(self.trouble), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _until_closed(self) -> None:
        """Execute from when it is our turn; raises what keeps us from it, or ends it."""
        await self._engine.open()
        self.trouble, self.is_waiting = None, False
        self._tried.set()
        await self._engine.wait_closed()
