"""
Replayed code that asks for something else than was recorded: found here, described for people.

Positions, kinds and names must match; arguments may differ (new code may pass more). The report
names both places in the source and guesses what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable._core.events import ChildAwaited, ChildStarted, Event, GroupOpened, SlotAwaited, StepStarted, TimerSet
from durable.errors import NondeterminismError

#: How many commands around a divergence are searched for the one asked for.
_NEAR = 10


def alike(recorded: Any, requested: Any) -> bool:
    """Whether two commands of one kind are the same command."""
    if getattr(requested, "name", None) != getattr(recorded, "name", None):
        return False
    match requested:
        case GroupOpened():
            # The items of a for_each are the recorded ones, however many the code has now.
            return requested.name.startswith("for_each ") or recorded.size == requested.size
        case ChildStarted():
            return bool(recorded.awaited == requested.awaited)
        case ChildAwaited():
            return bool(recorded.run_id == requested.run_id)
        case _:
            return True


def diverged(
    run_id: str, position: str, recorded: Event | None, requested: Any, commands: Mapping[str, Event]
) -> NondeterminismError:
    """The report of a replay that asks for *requested* (None: nothing) where *recorded* stands."""
    return NondeterminismError(
        run_id,
        position,
        "nothing" if recorded is None else describe(recorded),
        "nothing there" if requested is None else describe(requested),
        getattr(recorded, "site", ""),
        getattr(requested, "site", ""),
        "" if requested is None else _nearest(position, recorded, requested, commands),
    )


def _nearest(position: str, recorded: Event | None, requested: Any, commands: Mapping[str, Event]) -> str:
    """A guess at what changed, by looking for what was asked a little further on in the same strand."""
    prefix, _, last = position.rpartition(".")
    wanted = describe(requested)
    found = "a command" if recorded is None else describe(recorded)
    for offset in range(1, _NEAR):
        number = int(last) + offset if last.isdigit() else offset
        later = commands.get(f"{prefix}.{number}" if prefix else str(number))
        if later is not None and describe(later) == wanted:
            return f"It looks as if {found} was removed before it, or moved behind it"
    if recorded is None:
        return f"It looks as if {wanted} was added here"
    return f"It looks as if {wanted} was inserted before, or {found} was renamed or changed"


def describe(event: Event) -> str:
    """A command in a few words, for reports: "step 'charge'"."""
    name = getattr(event, "name", "")
    match event:
        case StepStarted() | SlotAwaited():
            return f"step {name!r}"
        case GroupOpened():
            return f"{name} of {event.size}"
        case TimerSet():
            return event.name
        case _:
            words = {
                "TransactionStarted": f"transaction {name!r}",
                "SignalAwaited": f"wait_for {name!r}",
                "ChildStarted": f"child {name!r}" if getattr(event, "awaited", True) else f"start of {name!r}",
                "ChildAwaited": f"result of run {getattr(event, 'run_id', '')!r}",
                "RunSucceeded": "the end of the workflow",
                "RunFailed": "the end of the workflow, by an error",
                "RunCancelled": "the end of the workflow, cancelled",
                "RunContinued": f"continue as {name!r}",
            }
            return words.get(type(event).__name__, type(event).__name__)
