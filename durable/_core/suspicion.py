"""
What kills the process: how it is found among all that was running when it died.

**Steps.** The first deaths say little, since most of what was running only stood beside. So a step that was running at
all but one of the deaths that are one too many is a suspect, and from then on suspects run one at a time. Only the one
whose turn it was when the process dies again is guilty; the others were waiting, and that death is not counted for
them. A step that fails, or ends, or records progress is no suspect any more. What is none runs as ever, beside them.

**Code of workflows, transactions and hooks.** It runs in turns, of which there is one at a time, so nobody has to wait:
an engine that opens a file whose last one died notes whose turn it takes, and the next death tells. A turn is guilty
that was noted at all but one of the deaths that are one too many (nothing was noted yet at the first), each time at the
same place: a run that got further in between is innocent so far. That death says nothing of the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from durable._core.journal.events import (
    Event,
    SignalReceived,
    SlotAwaited,
    SlotGranted,
    StepInterrupted,
    StepNotBegun,
    StepStarted,
)
from durable._core.light_tuples import NamedTuple


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


# --- turns -------------------------------------------------------------------------------------------

#: In place of a position: the code of the workflow itself, and the hooks of a run that has ended.
BODY: Final = ""
HOOKS: Final = "hooks"
#: What is recorded again and again of a run that gets no further, or whatever its code does.
_NO_PROGRESS: Final = (StepInterrupted, StepNotBegun, StepStarted, SlotAwaited, SlotGranted, SignalReceived)


class TurnMark(NamedTuple):
    """Whose code was running."""

    run: int
    #: Of the transaction; or `BODY`, or `HOOKS`.
    position: str
    #: How far the run had got, see `progress`.
    progress: int


class Accused(NamedTuple):
    """Code that was running when the process died."""

    mark: TurnMark
    #: At how many deaths it was noted.
    noted: int

    @property
    def deaths(self) -> int:
        """At how many it is taken to have been running: at the first, nothing was noted."""
        return self.noted + 1


def progress(events: Iterable[Event]) -> int:
    """How far a run has got: the same number as long as it only begins again what it had begun."""
    return sum(not isinstance(event, _NO_PROGRESS) for event in events)


def accused(before: Sequence[Accused], marks: Iterable[TurnMark]) -> list[Accused]:
    """Those accused *before*, and what another death says, at which *marks* were noted."""
    found = {each.mark[:2]: each for each in before}
    for mark in marks:
        known = found.get(mark[:2])
        again = known.noted if known is not None and known.mark == mark else 0
        found[mark[:2]] = Accused(mark, again + 1)
    return list(found.values())


def guilty(all_accused: Iterable[Accused], crash_limit: int) -> list[Accused]:
    """Those of *all_accused* that are not to run again."""
    return [each for each in all_accused if each.noted >= max(1, crash_limit - 1)]
