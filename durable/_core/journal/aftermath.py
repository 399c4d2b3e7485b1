"""
What a run did after the failure that ended it. Pure functions of lists of events.

Two kinds of commands stand behind a failure. Other members of its group went on by themselves, and would have without
it: a retry keeps what they did. All else the failure led to: a refund, a release, a message. A retry goes back to
before the failure, so it forgets these; but what they did outside is done, hence nobody retries without being told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence

from durable._core.journal.events import (
    CancelAsked,
    CancelSent,
    ChildStarted,
    CommandEvent,
    Event,
    GroupOpened,
    RunTimedOut,
    SignalSent,
    StepCancelled,
    StepStarted,
    TransactionStarted,
)

#: Commands that act on the world; the others only wait, or hold others together.
_ACTS = (StepStarted, TransactionStarted, ChildStarted, SignalSent, CancelAsked)


def went_on(events: Sequence[Event], cut: int, failures: Sequence[Event]) -> list[str]:
    """
    Positions of the commands behind *cut* that none of *failures* led to.

    They are in other members of a group around the failure, and came with something that arrived in their member
    behind it. A member whose next command came with nothing else was told to end: that is its clean-up. So is
    whatever follows the cancel of something in it.
    """
    if not failures or all(event.category != "command" for event in events[cut:]):
        return []
    if any(isinstance(event, RunTimedOut) for event in events):
        return []  # all of it was told to end
    groups = {event.position for event in events if isinstance(event, GroupOpened) and not event.in_turn}
    failed_at = _Failures(events, failures)
    begun: set[str] = set()
    arrived: dict[str, int] = {}
    ending: set[str] = set()
    found: list[str] = []
    for index, event in enumerate(events):
        if not event.position:
            continue
        levels = _levels(event.position)
        if event.category == "arrival":
            arrived.update((inner, index) for _, inner in levels)
        if isinstance(event, (CancelSent, StepCancelled)) and index >= cut:
            ending.update(inner for outer, inner in levels if outer in groups)
        if event.category != "command":
            continue
        if index >= cut and _is_independent(index, levels, groups, failed_at, begun, arrived, ending):
            found.append(event.position)
        begun.update(inner for _, inner in levels)
    return found


def led_to(events: Sequence[Event], cut: int, kept: Collection[str], failed: Collection[str]) -> list[CommandEvent]:
    """The commands behind *cut* that did something, and of which a retry knows nothing any more."""
    known = {event.position for event in events[:cut] if event.category == "command"}.union(kept, failed)
    found: dict[str, CommandEvent] = {}
    for event in events[cut:]:
        if isinstance(event, _ACTS) and event.position not in known:
            found.setdefault(event.position, event)
    return list(found.values())


class _Failures:
    """Where something failed, by what it is in."""

    def __init__(self, events: Sequence[Event], failures: Sequence[Event]) -> None:
        wanted = {id(event) for event in failures}
        #: Position that failed -> index of the event.
        self._at: dict[str, int] = {}
        #: Position of what is around it -> indices, in order; and the first of each part of it.
        self._within: dict[str, list[int]] = {}
        self._parts: dict[str, dict[str, int]] = {}
        for index, event in enumerate(events):
            if id(event) not in wanted or event.position is None:
                continue
            self._at[event.position] = index
            for outer, inner in _levels(event.position):
                self._within.setdefault(outer, []).append(index)
                self._parts.setdefault(outer, {}).setdefault(inner, index)

    def of(self, position: str, before: int) -> bool:
        """Whether *position* itself had failed: a timeout."""
        return self._at.get(position, before) < before

    def between(self, outer: str, first: int, last: int) -> bool:
        """Whether something within *outer* failed behind *first*, and before *last*."""
        indices = self._within.get(outer, ())
        following = bisect_right(indices, first)
        return following < len(indices) and indices[following] < last

    def before(self, outer: str, inner: str, index: int) -> bool:
        """Whether another part of *outer* than *inner* failed before *index*."""
        return any(at < index for part, at in self._parts.get(outer, {}).items() if part != inner)


def _is_independent(
    index: int,
    levels: Sequence[tuple[str, str]],
    groups: Collection[str],
    failures: _Failures,
    begun: Collection[str],
    arrived: dict[str, int],
    ending: set[str],
) -> bool:
    """Whether no failure has led to the command at *index*; notes members that are *ending*."""
    for outer, inner in levels:
        if outer and failures.of(outer, index):
            return False
        if outer not in groups:
            if failures.before(outer, inner, index):  # earlier in its own strand
                return False
        elif inner in ending:
            return False
        elif inner in begun and failures.between(outer, arrived.get(inner, -1), index):
            ending.add(inner)
            return False
    return True


def _levels(position: str) -> list[tuple[str, str]]:
    """Each thing that a position is in, with the part of it that leads there: ("", "3"), ("3", "3.0"), ..."""
    parts = position.split(".")
    inner = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return list(zip(["", *inner], inner, strict=False))
