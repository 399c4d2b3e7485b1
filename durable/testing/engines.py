"""
Engines for one test: opened on demand, closed at its end, and asked what they leave behind.

Public for the sake of its name: typed tests write ``durable_engine: Engines``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import durable
from durable._core.authoring.registry import Given
from durable._shell.engine.engine import Engine
from durable._shell.ownership.ownership import Ownership
from durable._shell.storage.memory import MEMORY
from durable.errors import EngineClosedError, JournalError, UsageError
from durable.testing._crash.lives import Store, make_tables

#: Seconds that running steps get when a test ends: they are of no use to anybody any more.
GRACE: Final = 1.0
_PACKAGE: Final = os.path.join(os.path.dirname(durable.__file__), "")
_HERE: Final = os.path.join(os.path.dirname(__file__), "")
_THREADS: Final = ("durable-writer", "durable-reader", "durable-standby")


class Engines:
    """
    What ``durable_engine`` is. Called, it opens an engine; left, as an async context manager, it closes them all.

    Args:
        path: The file of its engines; by default each is in memory.
        tables: SQL that makes the application's tables: in the file, before the first engine opens it, or in the
            memory of each.
        blocked: Whether runs may be blocked at the end.
        options: Of `Engine`, for each of them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        tables: str = "",
        blocked: bool = False,
        **options: Any,
    ) -> None:
        self.path = MEMORY if path is None else os.fspath(path)
        #: Those that were opened, in order.
        self.opened: list[Engine] = []
        self._tables = tables
        self._blocked = blocked
        self._options: dict[str, Any] = {"grace": GRACE, **options}
        if path is not None:  # no power cut is to come: a test need not wait for the disk
            self._options.setdefault("durability", "process")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: tuple[set[Any], set[threading.Thread]] = set(), set()

    async def __call__(self, *definitions: Given, **options: Any) -> Engine:
        """
        An open engine.

        Args:
            definitions: Workflows and jobs, or modules of them.
            options: Of `Engine`; they go before those of the marker.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._before = set(asyncio.all_tasks()), set(threading.enumerate())
        elif self._loop is not loop:
            msg = "durable_engine opened engines on another event loop before: all that one test opens are for one loop"
            raise UsageError(msg)
        if self._tables:
            if self.path == MEMORY:
                options.setdefault("storage", Store(self._tables).open)
            elif not self.opened:
                make_tables(self.path, self._tables)
        engine = Engine(self.path, definitions, **{**self._options, **options})
        self.opened.append(engine)  # before it opens: what fails to is to leave nothing behind either
        await engine.open()
        return engine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        found = await self.aclose()
        if not found:
            return
        if error is None:
            raise AssertionError(found)
        error.add_note(found)

    async def aclose(self) -> str:
        """Close all of them; what they leave behind, in sentences, or nothing."""
        opened, self.opened = self.opened, []
        found: list[str] = []
        for engine in opened:
            if not self._blocked:
                found += await _blocked_runs(engine)
        for engine in opened:
            await engine.aclose()
        if opened:
            tasks, threads = self._before
            # A task that was told to end this moment may: it has one round of the loop for that.
            await asyncio.sleep(0)
            found += [f"a task is left: {task!r}" for task in set(asyncio.all_tasks()) - tasks if _is_ours(task)]
            left = set(threading.enumerate()) - threads
            found += [f"a thread is left: {thread.name}" for thread in left if thread.name in _THREADS]
            found += _locks(opened)
        return "" if not found else "durable_engine found, at the end of the test:\n  " + "\n  ".join(found)

    def close_late(self, *, blame: bool = True) -> None:
        """
        Close what is still open, from outside of the loop: where the test did not get as far as its body.

        Args:
            blame: Whether to raise if their loop is gone, and with it the way to close them. A plugin ends it where a
                fixture fails, which is trouble enough.

        Raises:
            AssertionError: They left something behind.
        """
        if not self.opened:
            return
        loop = self._loop
        if loop is None or loop.is_closed() or loop.is_running():
            self.opened.clear()
            if not blame:
                return
            msg = "durable_engine opened engines on an event loop that has ended without them: close them there"
            raise AssertionError(msg)
        if found := loop.run_until_complete(self.aclose()):
            raise AssertionError(found)


async def _blocked_runs(engine: Engine) -> list[str]:
    """Runs that are blocked: by a bug, of the workflow or of ours."""
    try:
        with contextlib.suppress(TimeoutError):  # so that what began just before the end shows what it is, too
            async with asyncio.timeout(GRACE):
                await engine.idle()
        blocked = [info async for info in engine.runs(status="blocked")]
        return [
            f"run {info.run_id!r} of {info.workflow} is blocked: {await engine.get(info.run_id).why()} "
            "(a test that means it says @pytest.mark.durable(blocked=True))"
            for info in blocked
        ]
    except EngineClosedError:
        return []  # the test closed it itself, so there is nothing left to judge


def _is_ours(task: asyncio.Task[Any]) -> bool:
    """Whether a task runs code of this package's."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_PACKAGE) and not code.co_filename.startswith(_HERE)


def _locks(engines: list[Engine]) -> list[str]:
    """Files that are still owned by somebody."""
    found: list[str] = []
    for path in sorted({engine.path for engine in engines if engine.path != MEMORY}):
        if Path(path).exists():
            try:
                Ownership.acquire(path).release()
            except JournalError as error:
                found.append(f"a lock is left: {error}")
    return found
