"""
The plain functions that run in threads of this process, of whatever engine: a thread cannot be cut off.

A function may outlive its attempt (a timeout, a cancel, an engine that closes). It is known here until it has really
returned, so that no other attempt of its step begins meanwhile: not in this engine, nor in one that is opened on the
same journal afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from durable._core.codec.codec import Codec
from durable._shell.attempts.context import Cancelled
from durable._shell.storage.memory import MEMORY

#: Journal, run and position.
StepKey: TypeAlias = tuple[str, str, str]

_lock = threading.Lock()
#: All that run. Nearly always empty, which is worth to be looked at first: a step of the loop has none.
running_functions: dict[StepKey, Function] = {}


class Function:
    """One that runs. *engine* is whatever stands for the opening that called it."""

    __slots__ = ("_waiting", "began_at", "cancelled", "engine", "is_told", "key", "name", "returned")

    def __init__(self, key: StepKey, name: str, cancelled: Cancelled, engine: object) -> None:
        self.key = key
        self.name = name
        self.cancelled = cancelled
        self.engine = engine
        self.began_at = time.monotonic()
        self.returned = False
        #: Whether other processes were told that it outlives its attempt.
        self.is_told = False
        self._waiting: list[Callable[[], object]] = []

    def begin(self) -> None:
        """It is about to run."""
        with _lock:
            running_functions[self.key] = self

    def end(self) -> None:
        """It has returned. Called in its thread."""
        with _lock:
            self.returned = True
            del running_functions[self.key]
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            with contextlib.suppress(RuntimeError):  # a loop was closed, and who waited is gone
                tell()

    def on_return(self, tell: Callable[[], object]) -> None:
        """Call *tell*, in its thread, once it has returned; at once if it has."""
        with _lock:
            if not self.returned:
                self._waiting.append(tell)
                return
        tell()

    async def wait_returned(self) -> None:
        """Return once it has returned."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.on_return(lambda: loop.call_soon_threadsafe(_resolve, future))
        await future

    @property
    def seconds(self) -> float:
        """For how long it has been running."""
        return time.monotonic() - self.began_at


def journal_key(path: str, codec: Codec) -> str:
    """What tells journals apart: their file; where there is none, the engine, of which each has a codec of its own."""
    return f"{MEMORY}{id(codec)}" if path == MEMORY else os.path.realpath(path)


def function_at(key: StepKey) -> Function | None:
    """The function that runs for a step."""
    return running_functions.get(key)


def all_of(engine: object) -> list[Function]:
    """Those that *engine* has called."""
    with _lock:
        return [function for function in running_functions.values() if function.engine is engine]


def outlived(journal: str, run_id: str) -> list[Function]:
    """Those of a run that were told to end, and still run."""
    with _lock:
        found = list(running_functions.values())
    return [each for each in found if each.key[:2] == (journal, run_id) and each.cancelled.is_set()]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
