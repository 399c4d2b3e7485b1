"""
How much of one run may be begun: the server refuses a run with 2,000 open commands, or a message of 4 MiB, for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from temporalio import workflow
from temporalio.common import RawValue

#: Activities and children of one run that are open.
IN_FLIGHT: Final = 1_000
#: Bytes of arguments that one turn sends.
TURN_BYTES: Final = 2_000_000


class Room:
    """Begins what there is room for, in order; the rest when something has ended."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._open = self._turn = self._sent = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for room."""
        return not self._waiting

    def begin(self, name: str, begin: Callable[[], None]) -> None:
        """Call *begin* when there is room; until then it is known as *name*."""
        self._waiting.append((name, begin))
        self._fill()

    def withdraw(self, name: str) -> bool:
        """Whether what is known as *name* was still waiting: it no longer is."""
        kept = deque(each for each in self._waiting if each[0] != name)
        found = len(kept) < len(self._waiting)
        self._waiting = kept
        return found

    def clear(self) -> None:
        """Begin no more."""
        self._waiting.clear()

    def ended(self) -> None:
        """Something that was begun has ended."""
        self._open -= 1
        self._fill()

    def counted(self, payloads: Sequence[RawValue]) -> list[RawValue]:
        """*payloads*, which are about to be sent."""
        self._sent += sum(len(each.payload.data) for each in payloads)
        return list(payloads)

    def _fill(self) -> None:
        if (turn := workflow.info().get_current_history_length()) != self._turn:
            self._turn, self._sent = turn, 0
        while self._waiting and self._open < IN_FLIGHT and (self._sent < TURN_BYTES or not self._open):
            _, begin = self._waiting.popleft()
            self._open += 1
            begin()
