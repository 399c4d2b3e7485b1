"""
The tasks of an open engine: all are started here, and what any of them raises is dealt with here.

Most end with one task of the engine's own, so that it may be opened and closed from different tasks. Background tasks
begin again after what passes (`durable._core.supervision` decides), and their trouble is told. What does not pass ends
the others and is the failure of the engine: nothing it does afterwards could be relied upon.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Final

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
        #: What the first task raised that failed.
        self._error: BaseException | None = None
        self._path = path
        self._troubles = troubles
        self._on_failure = on_failure
        # That of the opening: who happens to start a task has the context variables of a run in his.
        self._context = contextvars.copy_context()
        # Rather than a task group, since every run is a task: asyncio's makes a method and a context for each, anyio's
        # still more. Steps have anyio cancel scopes of their own inside.
        self._tasks: set[asyncio.Task[object]] = set()
        #: Made once, for all of them.
        self._on_end = self._ended
        #: Done once all have ended, when that is waited for.
        self._all_ended: asyncio.Future[None] | None = None
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
        self._begin(fn(argument), context or self._context, None)

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *work* in a task, until the engine ends; again, and again, where it raises what passes."""
        self._begin(self._keep(name, work), self._context, f"durable-{name}")

    def _begin(self, work: Coroutine[Any, Any, object], context: contextvars.Context, name: str | None) -> None:
        task = self._loop.create_task(work, name=name, context=context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._on_end, context=self._context)
        if self.is_ending():
            task.cancel()

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
        self._begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._loop.create_future()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            self._all_ended = self._loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):  # they are cancelled already
                await self._all_ended
        if self._error is not None:
            self.fail(self._error)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._error is None:
            # A group's own words name no cause: the first of those within does.
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._error = error
            self._main.cancel()
        if not self._tasks and self._all_ended is not None and not self._all_ended.done():
            self._all_ended.set_result(None)

    def _uncancelled_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


_spawns: Callable[[Supervisor], Spawn] = lambda supervisor: supervisor.spawn  # noqa: E731 - mypy proves it where it stands
