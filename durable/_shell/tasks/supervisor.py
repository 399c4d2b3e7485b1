"""
The tasks of an open engine: all are started here, and what any of them raises is dealt with here.

Most live in one task group, inside a task of the engine's own, so that it may be opened and closed from different
tasks. Background tasks begin again after what passes (`durable._core.supervision` decides), and their trouble is told.
What does not pass ends the others and is the failure of the engine: nothing it does afterwards could be relied upon.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio

from durable._core.codec.exceptions.safe_text import one_line
from durable._core.supervision import decide, remedy
from durable._shell.log import log
from durable._shell.tasks.troubles import Troubles
from durable._shell.turns.services import Spawn
from durable.errors import EngineClosedError

#: A background task that has lasted for so many seconds since its last error works again.
STEADY_SECONDS: Final = 1.0
#: Seconds that closing waits for what ignores its cancellation, before it continues without.
LAST_WAIT: Final = 5.0


class Supervisor:
    """
    Starts tasks, and hears of the first one that fails.

    Args:
        path: The journal, for the log.
        troubles: Where those of background tasks are told.
        on_failure: Called with an error, each time that one ends the engine: those who wait are to hear of it.
    """

    def __init__(self, path: str, troubles: Troubles, on_failure: Callable[[BaseException], None]) -> None:
        #: What ended the engine, if something did.
        self.failure: BaseException | None = None
        self._path = path
        self._troubles = troubles
        self._on_failure = on_failure
        # That of the opening: who happens to start a task has the context variables of a run in his.
        self._context = contextvars.copy_context()
        # asyncio's own group: anyio's costs three times as much a task, and every run is one.
        # Steps have anyio cancel scopes of their own inside.
        self._tasks = asyncio.TaskGroup()
        self._begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.create_task(self._hold_tasks(), name="durable-engine")
        #: Those that outlive the group, and what tells each to end.
        self._uncancelled: list[tuple[asyncio.Task[None], Callable[[], None]]] = []

    async def begin(self) -> None:
        """Return once it takes tasks."""
        await self._begun.wait()

    def spawn(
        self,
        fn: Callable[..., Coroutine[Any, Any, object]],
        argument: Any,
        context: contextvars.Context | None = None,
        /,
    ) -> None:
        """Run *fn* in a task, in a copy of *context*, or of that in which the engine was opened."""
        self._tasks.create_task(fn(argument), context=(context or self._context).copy())

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *work* in a task, until the engine ends; again, and again, where it raises what passes."""
        self._tasks.create_task(self._keep(name, work), name=f"durable-{name}", context=self._context.copy())

    async def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop, tries = asyncio.get_running_loop(), 0
        while True:
            # It never says that it goes well: that it lasts is all there is to see.
            steady = loop.call_later(STEADY_SECONDS, self._troubles.end, name) if tries else None
            began = loop.time()
            try:
                await work()
            except EngineClosedError:
                return  # others end it
            except Exception as error:
                tries = 1 if loop.time() - began >= STEADY_SECONDS else tries + 1
                pause = decide(error, tries)
                if pause is None:
                    raise
                self._troubles.begin(name, f"{name}: {one_line(error)}")
            else:
                self._troubles.end(name)
                return
            finally:
                if steady is not None:
                    steady.cancel()
            await asyncio.sleep(pause)

    def start_uncancelled(self, work: Coroutine[Any, Any, None], *, name: str, stop: Callable[[], None]) -> None:
        """Run *work* in a task that is not cancelled with the others: once these have ended, *stop* is to end it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._uncancelled_ended)
        self._uncancelled.append((task, stop))

    def is_ending(self) -> bool:
        """Whether all tasks are being cancelled."""
        return self._main.cancelling() > 0

    def fail(self, error: BaseException) -> None:
        """The engine cannot proceed: everybody who waits gets the error."""
        first = self.failure is None
        if first:
            self.failure = error
        self._on_failure(error)
        if first:  # told last, since processors and loggers are the user's code
            about = {"path": self._path, "error": one_line(error), "remedy": remedy(error)}
            for tell in (log.critical, log.error):
                with contextlib.suppress(Exception):
                    tell("engine.failed", **about)
                    return

    def cancel(self) -> None:
        """Have all tasks end, and wait for none."""
        self._main.cancel()
        for task, _ in self._uncancelled:
            task.cancel()

    async def aclose(self) -> None:
        """End all tasks, within a few seconds."""
        self._main.cancel()
        await asyncio.wait([self._main], timeout=LAST_WAIT)
        for task, stop in self._uncancelled:
            stop()
            await asyncio.wait([task], timeout=LAST_WAIT)

    async def _hold_tasks(self) -> None:
        try:
            async with self._tasks:
                self._begun.set()
                await anyio.sleep_forever()
        except asyncio.CancelledError:
            pass  # the engine was closed, which is not a failure and needs no report
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            if self._loop.is_closed():
                return  # nobody waits, and the task ends because it is garbage
            # The group's own words name no cause: the first of the tasks that failed does.
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.fail(error)

    def _uncancelled_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


_spawns: Callable[[Supervisor], Spawn] = lambda supervisor: supervisor.spawn  # noqa: E731 - mypy proves it where it stands
