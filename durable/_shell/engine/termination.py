"""
Hears that the process is told to end, which servers such as uvicorn tell nobody until the last request is answered.

Their handlers of SIGTERM and SIGINT stay in charge: they are called as before, after who listens was told. Where a
signal has no handler, it ends the process at once, or is ignored; it is left at that.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class Termination:
    """Calls *heard* in the running event loop, when the process is told to end; until `close`."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        #: By signal: our handler, and the one that it calls.
        self._handlers: dict[signal.Signals, tuple[Any, Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # Python calls handlers in the main thread, and lets nobody else set them
        for number in _NUMBERS:
            theirs = signal.getsignal(number)
            if callable(theirs) and theirs is not signal.default_int_handler:
                ours = partial(self._handle, theirs)
                signal.signal(number, ours)
                self._handlers[number] = ours, theirs

    def close(self) -> None:
        """Hear nothing more, and leave the handlers as they were, unless somebody has set others since."""
        self._heard = _nothing
        for number, (ours, theirs) in self._handlers.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)
        self._handlers.clear()

    def _handle(self, theirs: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell)
        theirs(number, frame)

    def _tell(self) -> None:
        self._heard()


def _nothing() -> None: ...
