"""
Event loops: what was opened on one is asked on that one, be it from elsewhere; what has begun there ends there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import anyio

from durable.errors import EngineClosedError, WrongLoopError

T = TypeVar("T")

#: Seconds between two looks whether the loop that is to answer still runs.
LOOK_SECONDS: Final = 0.25
LOOP_ENDED: Final = "the event loop of the engine has ended, so nobody answers: open the engine again"


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def current_task() -> asyncio.Task[Any]:
    """The task that asks."""
    task = asyncio.current_task()
    assert task is not None, "asked in a task"
    return task


def check_loop(home: asyncio.AbstractEventLoop, subject: str, remedy: str) -> None:
    """
    Nothing, on the event loop *home*.

    Args:
        home: That of *subject*.
        subject: What is asked, as "engine of app.db".
        remedy: What to do instead.

    Raises:
        WrongLoopError: This is another loop, or none.
    """
    if running_loop() is not home:
        raise WrongLoopError(subject, threading.current_thread().name, remedy)


async def to_its_end(work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """The result of *work*, which is not cancelled with its caller; the caller is, afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it at its end
        raise cancelled
    return task.result()


async def on_its_loop(home: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> bool:
    """Carry *work* out on another event loop, to its end; False if that loop does not run (any more)."""
    asked = work()
    try:
        if not home.is_running():
            raise RuntimeError("a loop that stands still carries nothing out")
        done = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, home))
    except RuntimeError:  # as if it was closed this moment
        asked.close()
        return False
    while not done.done() and home.is_running():
        await asyncio.wait({done}, timeout=LOOK_SECONDS)
    if not done.done() or done.cancelled():  # it stopped meanwhile, and cancelled what was left
        return False
    done.result()
    return True


def from_thread(home: asyncio.AbstractEventLoop, asked: Coroutine[Any, Any, T]) -> T:
    """
    What *asked* returns or raises, for a thread that waits while *home* carries it out.

    It is cancelled when the thread is interrupted.

    Raises:
        EngineClosedError: The loop has ended, before or meanwhile.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(asked, home)
    except RuntimeError:
        asked.close()
        raise EngineClosedError(LOOP_ENDED) from None
    try:
        while not concurrent.futures.wait([future], LOOK_SECONDS).done:
            if home.is_closed():
                asked.close()
                raise EngineClosedError(LOOP_ENDED)
        return future.result()
    except concurrent.futures.CancelledError:
        raise EngineClosedError(LOOP_ENDED) from None
    except BaseException:
        if not home.is_closed():
            future.cancel()
        raise
