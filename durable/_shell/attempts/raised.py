"""
What the user's code raised, as the failure of what it was called for: one rule for all functions, wherever they run.

Whatever a function raises is its own affair: it fails the attempt, and neither the engine nor another run. What it did
not raise at all is not: the engine cuts it off, somebody presses Ctrl-C, the handler of a signal ends the program, or
the coroutine is closed with its event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.parts import is_exception, traceback_of
from durable._core.codec.exceptions.safe_text import LINE_CAP, shown
from durable.errors import StepError


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is asyncio's, whoever asked for it."""
    return issubclass(type(error), asyncio.CancelledError)


def is_for_the_program(error: BaseException, task: asyncio.Task[Any]) -> bool:
    """Whether *error*, which is no cancellation, was not raised by the code that runs in *task*."""
    if issubclass(type(error), GeneratorExit):
        return not is_running(task)
    return came_from_outside(error)


def is_running(task: asyncio.Task[Any]) -> bool:
    """Whether *task* is the current one."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # its loop is gone, and what was left of it is closed
        return False


def as_failure(error: BaseException, what: str) -> Exception:
    """*error*, which *what* raised, as an error that can be told to a workflow: of the same type, if that can be."""
    if is_exception(error):
        return error
    if is_cancellation(error):
        made: Exception = RuntimeError(f"the {what} raised CancelledError although nobody cancelled it")
    else:
        made = StepError(shown(error, LINE_CAP))
    return made.with_traceback(traceback_of(error))
