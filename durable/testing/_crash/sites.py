"""
Where a fault may strike: every line, yield, resume and return of some source files, and named points of the engine.

A *hit* is the nth time that a site is reached in a run. Code is watched by `sys.monitoring` where there is one
(Python 3.12 and later), and by trace functions before that; either way an exception raised by the callback of
a hit is raised at that very place. Only the threads of the run under test are watched.
"""

from __future__ import annotations

import dis
import inspect
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import frozen

#: Names of the points of the engine.
BEGIN: Final = "transaction:begin"
COMMIT_BEFORE: Final = "commit:before"
COMMIT_AFTER: Final = "commit:after"
STEP_BEFORE: Final = "step:before"
STEP_AFTER: Final = "step:after"
DELIVERY: Final = "delivery"


@frozen(order=True)
class Site:
    """A place that is reached: in source code (*line* counts from 1), or a point of the engine (*line* is 0)."""

    file: str
    line: int
    #: "line", "yield", "resume", "return", or "point".
    event: str
    #: The function, or the point.
    name: str

    def __str__(self) -> str:
        if self.event == "point":
            return self.name
        what = "" if self.event == "line" else f" ({self.event})"
        return f"{Path(self.file).name}:{self.line} {self.name}{what}"


def point(name: str) -> Site:
    """The site of a point of the engine."""
    return Site("", 0, "point", name)


#: Called for each hit; what it raises is raised there.
OnHit: TypeAlias = Callable[[Site], None]


def files_of(definitions: Iterable[Any]) -> frozenset[str]:
    """The source files of definitions, and of modules of them."""
    found: set[str] = set()
    for each in definitions:
        if isinstance(each, types.ModuleType):
            found.add(str(each.__file__))
        else:
            code = getattr(inspect.unwrap(each.fn), "__code__", None)
            if code is not None:
                found.add(code.co_filename)
    return frozenset(found)


@contextmanager
def watching(files: frozenset[str], on_hit: OnHit) -> Generator[Callable[[], None]]:
    """
    Tell *on_hit* of each hit in *files*, in this thread and in those that are begun inside the ``with`` block.

    Gives what is to be called now and then: a trace function that raised is no longer one, and is set anew by it.
    """
    if hasattr(sys, "monitoring"):
        with _monitored(files, on_hit):
            yield _nothing
    else:
        with _traced(files, on_hit) as again:
            yield again


def _nothing() -> None:
    """Callbacks of `sys.monitoring` stay."""


# --- Python 3.12 and later ---------------------------------------------------------------------------------


@contextmanager
def _monitored(files: frozenset[str], on_hit: OnHit) -> Generator[None]:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # not in Python 3.11
    tool = next(number for number in (4, 3, 2, 0) if monitoring.get_tool(number) is None)
    events = monitoring.events
    elsewhere = monitoring.DISABLE

    def at_line(code: types.CodeType, line: int) -> Any:
        if code.co_filename not in files:
            return elsewhere
        return on_hit(Site(code.co_filename, line, "line", code.co_qualname))

    def at(event: str) -> Callable[..., Any]:
        def told(code: types.CodeType, offset: int, *_: Any) -> Any:
            if code.co_filename not in files:
                return elsewhere
            return on_hit(Site(code.co_filename, _lines(code)[offset // 2], event, code.co_qualname))

        return told

    callbacks = {
        events.LINE: at_line,
        events.PY_YIELD: at("yield"),
        events.PY_RESUME: at("resume"),
        events.PY_RETURN: at("return"),
    }
    monitoring.use_tool_id(tool, "durable.testing")
    try:
        for event, callback in callbacks.items():
            monitoring.register_callback(tool, event, callback)
        monitoring.set_events(tool, sum(callbacks))
        monitoring.restart_events()  # since a former use of the tool's number may have disabled places
        yield
    finally:
        monitoring.set_events(tool, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


@lru_cache(maxsize=1_000)
def _lines(code: types.CodeType) -> list[int]:
    """The line of each instruction."""
    return [position[0] or code.co_firstlineno for position in code.co_positions()]


# --- Python 3.11 -------------------------------------------------------------------------------------------

_YIELD: Final = dis.opmap.get("YIELD_VALUE", -1)
_RETURN: Final = dis.opmap.get("RETURN_VALUE", -1)


@contextmanager
def _traced(files: frozenset[str], on_hit: OnHit) -> Generator[Callable[[], None]]:
    def at_call(frame: types.FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in files:
            return None
        # A resumed generator stands behind the YIELD_VALUE that it was left by.
        if event == "call" and frame.f_lasti > 0 and code.co_code[frame.f_lasti] == _YIELD:
            on_hit(Site(code.co_filename, frame.f_lineno, "resume", code.co_qualname))
        return at_event

    def at_event(frame: types.FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if event == "line":
            on_hit(Site(code.co_filename, frame.f_lineno, "line", code.co_qualname))
        elif event == "return":  # also where an exception leaves the frame, and then at any instruction
            left_by = code.co_code[frame.f_lasti]
            if left_by in (_YIELD, _RETURN):
                what = "yield" if left_by == _YIELD else "return"
                on_hit(Site(code.co_filename, frame.f_lineno, what, code.co_qualname))
        return at_event

    def again() -> None:
        if sys.gettrace() is not at_call:
            sys.settrace(at_call)

    before, before_in_threads = sys.gettrace(), threading.gettrace()
    threading.settrace(at_call)
    sys.settrace(at_call)
    try:
        yield again
    finally:
        sys.settrace(before)
        threading.settrace(before_in_threads)
