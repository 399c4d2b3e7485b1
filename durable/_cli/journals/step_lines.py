"""
The steps of a run, one line each, from its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, assert_never

from durable._cli.terminal.values import failure_in_short
from durable._core.journal.events import (
    Event,
    RunRestarted,
    SlotAwaited,
    StepCommand,
    StepRetrying,
    StepSnoozed,
    StepStopped,
)
from durable._core.journal.history import effective, only


class StepLine(NamedTuple):
    """A step or transaction as it stands."""

    position: str
    name: str
    #: Of the latest attempt, from 1.
    attempt: int
    #: running, succeeded, failed, retrying, interrupted, cancelling (it was told to end, and cleans up), cancelled,
    #: abandoned (that took it too long), or waiting (for a slot).
    status: str
    #: When it was asked for, and when its outcome was recorded.
    started_at: float
    ended_at: float | None
    #: "file:line" of the workflow that asked for it, as recorded.
    site: str
    #: Of a failure: what went wrong, in one line.
    error: str = ""
    #: Of a retry: when the next attempt may begin.
    fire_at: float | None = None


def steps_in(events: Iterable[Event]) -> list[StepLine]:
    """
    The steps of a run in the order in which they were asked for.

    Those that count: what a retry by hand, or another attempt of the whole run, has set aside is left out.
    """
    found: dict[str, StepLine] = {}
    kept, _ = effective([*events])
    for event in kept:
        if isinstance(event, StepCommand):
            found[event.position] = _begun(event, found.get(event.position))
        elif event.position in found:
            found[event.position] = _later(found[event.position], event)
    return list(found.values())


def attempts_of_run(events: Iterable[Event]) -> int:
    """Which attempt of the whole run this is."""
    return max((event.attempt for event in only(events, RunRestarted)), default=1)


def _begun(event: StepCommand, before: StepLine | None) -> StepLine:
    status = "waiting" if isinstance(event, SlotAwaited) else "running"
    if before is None:
        return StepLine(event.position, event.name, event.attempt, status, event.at, None, event.site)
    return before._replace(attempt=event.attempt, status=status, fire_at=None)


def _later(step: StepLine, event: Event) -> StepLine:
    match event.outcome:
        case "succeeded":
            return step._replace(status="succeeded", ended_at=event.at, error="")
        case "failed":
            return step._replace(status="failed", ended_at=event.at, error=failure_in_short(event.value))
        case "cancelling":
            return step._replace(status="cancelling")
        case "cancelled":
            abandoned = isinstance(event, StepStopped) and event.abandoned
            error = failure_in_short(event.value) if event.value is not None else step.error
            return step._replace(status="abandoned" if abandoned else "cancelled", ended_at=event.at, error=error)
        case "interrupted":
            return step._replace(status="interrupted")
        case "retrying":
            assert isinstance(event, StepRetrying)
            return step._replace(status="retrying", error=failure_in_short(event.value), fire_at=event.fire_at)
        case "snoozed":
            assert isinstance(event, StepSnoozed)
            return step._replace(status="snoozed", fire_at=event.fire_at)
        case "fired" | "continued" | "received" | "over" | None:
            return step
        case _:
            assert_never(event.outcome)
