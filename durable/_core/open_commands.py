"""
What a copied history still waits for: the rows that a fork needs beside its events.
"""

from __future__ import annotations

from collections.abc import Sequence

from durable._core.decision import Wait
from durable._core.events import (
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildStarted,
    ChildSucceeded,
    Event,
    SignalAwaited,
    StepFailed,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TimerSet,
)


def open_children(events: Sequence[Event]) -> list[tuple[str, str]]:
    """(position, run id) of the runs that are awaited and have no outcome."""
    done = {event.position for event in events if isinstance(event, (ChildSucceeded, ChildFailed, ChildCancelled))}
    return [
        (event.position, event.run_id)
        for event in events
        if (isinstance(event, ChildAwaited) or (isinstance(event, ChildStarted) and event.awaited))
        and event.position not in done
    ]


def open_waits(events: Sequence[Event]) -> list[Wait]:
    """
    Timers, retries and signals that were set or awaited and have not come.

    Some may belong to commands that were cancelled, which no event says: their arrival finds
    its command closed, and is dropped.
    """
    waits: dict[str, Wait] = {}
    for event in events:
        match event:
            case TimerSet(position=position, fire_at=fire_at):
                waits[position] = Wait(position, "timer", position, fire_at=fire_at)
            case SignalAwaited(position=position, name=name, fire_at=until):
                waits[position] = Wait(position, "signal", position, name=name, fire_at=until)
            case StepRetrying(position=position, fire_at=fire_at):
                waits[position] = Wait(position, "retry", position, fire_at=fire_at)
            case TimerFired() | StepSucceeded() | StepFailed() | StepStarted():
                waits.pop(event.position, None)
            case _:
                pass
    return list(waits.values())
