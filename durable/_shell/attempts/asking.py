"""
Asks objects of the user's for their text, and waits only so long for it.

A ``__str__`` may loop for ever, or wait for a database. It is asked in a thread of its own, which is given up when the
time is over: whoever records an error cannot be held up by it.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from durable._core.codec.exceptions.safe_text import one_line

#: Seconds that all texts of one exception may take.
PATIENCE = 1.0

#: Threads that were given up, and may not have ended: what is raised in one that collects garbage, say, may get lost.
_given_up: list[threading.Thread] = []


class Asking:
    """The way in which one exception is asked for its texts: an `Ask` of the core's."""

    def __init__(self) -> None:
        self._left = PATIENCE

    def __call__(self, render: Callable[[Any], str], value: Any) -> str:
        """
        What *render* makes of *value*.

        Raises:
            TimeoutError: It takes too long, or others have taken too long before.
            RuntimeError: There is no thread to be had.
        """
        if self._left <= 0:
            raise TimeoutError
        if _given_up:
            _end_given_up()
        answers: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=_answer, args=(context, render, value, answers), name="durable-text", daemon=True
        )
        began = time.monotonic()
        thread.start()
        try:
            answer = answers.get(timeout=self._left)
        except queue.Empty:
            _give_up(thread)
            raise TimeoutError from None
        finally:
            self._left -= time.monotonic() - began
        if isinstance(answer, str):
            return answer
        raise RuntimeError from answer


def in_short(error: BaseException) -> str:
    """An error of the user's code in one line, for logs."""
    return one_line(error, Asking())


def _answer(
    context: contextvars.Context, render: Callable[[Any], str], value: Any, answers: queue.SimpleQueue[Any]
) -> None:
    with contextlib.suppress(SystemExit):  # given up just when it had an answer: nobody waits for that
        try:
            answers.put(context.run(render, value))
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            answers.put(error)


def _give_up(thread: threading.Thread) -> None:
    """Have *thread* end, lest a loop of it continues for ever; one that waits is left to itself."""
    _given_up.append(thread)
    _end_given_up()


def _end_given_up() -> None:
    """Have an exception raised in each thread that was given up and has not ended, whatever became of the last one."""
    _given_up[:] = filter(threading.Thread.is_alive, _given_up)
    with contextlib.suppress(Exception):
        import ctypes  # noqa: PLC0415 - not everywhere, and hardly ever needed

        for thread in filter(threading.Thread.is_alive, _given_up):  # asked once more: its number may soon be another's
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
