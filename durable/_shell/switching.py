"""
How soon threads take turns, while ours have work.

CPython lets a thread that computes keep the interpreter's lock for `sys.getswitchinterval()`, 5 ms, whenever another
one asks for it. A commit asks a dozen times, on the loop's thread and on the writer's, so that beside a thread that
computes, whoever's it is, all runs would take many times as long. While the journal's threads are at work, or one of
ours runs a plain function, it is 0.5 ms, then again what it was; a program in which nobody computes does not notice.

It is the whole process's: where the application has set another one than Python's, or sets one meanwhile, that stays.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

#: Seconds, while something runs; and what Python begins with, which nobody has chosen.
SHORT: Final = 0.0005
_GIVEN: Final = 0.005


class Switching:
    """Counts what runs. There is one, since there is one interpreter."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # since a finalizer may end what began, wherever its thread is
        self._running = 0
        #: What it reads while it is ours; None while it is not.
        self._set: float | None = None

    def begin(self) -> None:
        """A thread of ours begins to have work."""
        with self._lock:
            self._running += 1
            if self._running == 1 and sys.getswitchinterval() == _GIVEN:
                sys.setswitchinterval(SHORT)
                self._set = sys.getswitchinterval()

    def end(self) -> None:
        """It has none any more."""
        with self._lock:
            self._running -= 1
            if self._running or self._set is None:
                return
            if sys.getswitchinterval() == self._set:
                sys.setswitchinterval(_GIVEN)
            self._set = None


switching: Final = Switching()
