"""
Notices workflow code that asks the world: the clock, dice, the environment. For tests, see `Engine(replay_always=)`.

Python's profiling hook tells of each call, so nothing is replaced, and C functions are seen as well. It is set while
workflow code is driven, and in this thread only: steps are not looked at.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
import types
from typing import Any

from durable._core.outside import READS, Outside, OutsideObjects
from durable._core.run import strand
from durable._core.source_places import FINE, is_generated, is_library
from durable.errors import NondeterminismError, UsageError


@functools.lru_cache(maxsize=1)
def _objects(_modules: int) -> OutsideObjects:
    return OutsideObjects(READS)


class OutsideReads:
    """
    A context in which workflow code of one run is driven.

    Raises:
        UsageError: At its end, if that code read what is outside.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._found: dict[tuple[str, int], Outside] = {}
        self._objects = _objects(len(sys.modules))
        self._is_set = False

    def __enter__(self) -> None:
        self._is_set = sys.getprofile() is None  # else somebody profiles: not here, then
        if self._is_set:
            sys.setprofile(self._called)

    def __exit__(self, _class: object, error: BaseException | None, _traceback: object) -> None:
        if self._is_set:
            sys.setprofile(None)
        if self._found and (error is None or isinstance(error, NondeterminismError)):
            found = "; ".join(
                f"{each.name} at {os.path.basename(file)}:{line}, use {each.instead}"
                for (file, line), each in self._found.items()
            )
            msg = (
                f"workflow code of run {self._run_id!r} reads what is another value in every replay: {found} "
                f"({FINE!r} in such a line says that nothing depends on it)"
            )
            raise UsageError(msg) from error

    def _called(self, frame: types.FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            found, caller = self._objects.named(arg), frame
        elif event == "call" and frame.f_back is not None:
            found, caller = self._objects.begun(frame), frame.f_back
        else:
            return
        if found is not None and (place := _place(caller)) is not None:
            self._found.setdefault(place, found)


def _place(caller: types.FrameType) -> tuple[str, int] | None:
    """Where workflow code called, if *caller* is such code: all between a strand and the call is the application's."""
    place: tuple[str, int] | None = None
    frame: types.FrameType | None = caller
    while frame is not None and (file := frame.f_code.co_filename) != strand.__file__:
        if not is_generated(file):
            if is_library(file):
                return None
            place = place or (file, frame.f_lineno)
        frame = frame.f_back
    if frame is None or place is None or FINE in linecache.getline(*place):
        return None
    return place
