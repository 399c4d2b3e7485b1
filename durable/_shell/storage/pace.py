"""
How long commits have taken of late: whether an event loop may wait for one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from durable._shell.storage.connections import transact

T = TypeVar("T")

#: Commits that take longer than this (seconds, in the mean) are for the writer's thread.
SHORT: Final = 0.001
#: What one commit weighs in that mean: one that the disk held up for 50 ms is forgotten after a dozen quick ones.
WEIGHT: Final = 0.25


class Pace:
    """A mean of what commits took, in which each weighs a quarter. They are made one after the other."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._mean = 0.0

    @property
    def is_quick(self) -> bool:
        """Whether the next one will probably be short."""
        return self._mean < SHORT

    def transact(self, conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `connections.transact`, on the clock."""
        began = self._clock()
        try:
            return transact(conn, path, fn)
        finally:
            self._mean += WEIGHT * (self._clock() - began - self._mean)
