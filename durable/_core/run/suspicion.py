"""
Which step kills the process: how it is found among all that were running when it died.

The first deaths say little, since most of what was running only stood beside. So a step that was running at all but
one of the deaths that are one too many is a suspect, and from then on suspects run one at a time. Only the one whose
turn it was when the process dies again is guilty; the others were waiting, and that death is not counted for them.
A step that fails, or ends, or records progress is no suspect any more. What is none runs as ever, beside them.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Suspect(NamedTuple):
    """An attempt of a step, in the whole journal."""

    run: int
    position: str
    attempt: int


def is_suspect(crashes: int, crash_limit: int) -> bool:
    """Whether a step that was running at *crashes* deaths has to wait for its turn."""
    return crashes >= max(1, crash_limit - 1)


def counts(crashes: int, crash_limit: int, *, was_alone: bool) -> bool:
    """Whether another death counts for a step that was running; *was_alone*: it had its turn among the suspects."""
    return was_alone or not is_suspect(crashes, crash_limit)


class Suspects:
    """Whose turn it is: one at a time, first come first served."""

    def __init__(self) -> None:
        self._line: deque[Suspect] = deque()

    def enter(self, suspect: Suspect) -> bool:
        """*suspect* is to run; whether it may at once."""
        self._line.append(suspect)
        return self._line[0] is suspect

    def leave(self, suspect: Suspect) -> Suspect | None:
        """*suspect* has ended, or waits no more; who may run now."""
        was_first = self._line[0] == suspect
        self._line.remove(suspect)
        return self._line[0] if was_first and self._line else None
