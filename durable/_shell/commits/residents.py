"""
Freed executions kept in memory: their runs continue without a replay.
"""

from __future__ import annotations

from durable._core.light_frozen import light_frozen
from durable._core.run.execution import Execution


@light_frozen
class Resident:
    """A freed run: its execution, and how far its journal and its inbox are known to it."""

    execution: Execution
    seq: int
    chain: int
    inbox_upto: int


class Residents:
    """A cache of at most so many executions; those that were used longest ago go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[int, Resident] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, run: int, resident: Resident) -> bool:
        """Keep *resident*, unless there is no room for any; whether it is kept."""
        if not self._most:
            return False
        self._kept[run] = resident
        while len(self._kept) > self._most:
            self.drop(next(iter(self._kept)))
        return True

    def take(self, run: int) -> Resident | None:
        """Hand out the execution of *run*, if it is here."""
        return self._kept.pop(run, None)

    def drop(self, run: int) -> None:
        """Forget *run*: it is to look at the file before it continues."""
        if resident := self.take(run):
            resident.execution.close()

    def close(self) -> None:
        """Close all that is kept."""
        for run in list(self._kept):
            self.drop(run)
