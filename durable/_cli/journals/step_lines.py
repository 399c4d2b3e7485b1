"""
The steps of a run, one line each, from its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from durable._cli.terminal.values import failure_in_short
from durable._core.codec.codec import Payload
from durable._core.journal.events import Event, RunRestarted
from durable._core.journal.history import only
from durable._core.recorded.steps import RecordedStep, recorded_steps


class StepLine(NamedTuple):
    """A step or transaction as it stands."""

    position: str
    name: str
    #: Of the latest attempt, from 1.
    attempt: int
    #: As `StepStatus` has it.
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
    #: What it came to, once it has succeeded.
    value: Payload | None = None


def steps_in(events: Iterable[Event]) -> list[StepLine]:
    """The steps of a run that count, in the order in which they were asked for."""
    return [_line(step) for step in recorded_steps(events)]


def attempts_of_run(events: Iterable[Event]) -> int:
    """Which attempt of the whole run this is."""
    return max((event.attempt for event in only(events, RunRestarted)), default=1)


def _line(step: RecordedStep) -> StepLine:
    error = "" if step.failure is None else failure_in_short(step.failure)
    begun, ended = step.asked_at, step.ended_at
    return StepLine(
        step.position, step.name, step.attempt, step.status, begun, ended, step.site, error, step.fire_at, step.value
    )
