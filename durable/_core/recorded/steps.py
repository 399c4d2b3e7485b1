"""
The steps of a run, and the attempts of each, as its events tell of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, assert_never

from attrs import field

from durable._core.codec.codec import Payload
from durable._core.journal.events import (
    End,
    Event,
    SlotAwaited,
    StepCommand,
    StepRetrying,
    StepSnoozed,
    StepStopped,
    TransactionStarted,
)
from durable._core.journal.history import effective
from durable._core.light_frozen import light_define

#: How a step stands. "waiting": for a slot of its limit; "cancelling": it was told to end, and cleans up; "abandoned":
#: that took it too long. An attempt is "running" or has one of the others, too.
StepStatus: TypeAlias = Literal[
    "waiting",
    "running",
    "retrying",
    "snoozed",
    "interrupted",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "abandoned",
]


@light_define
class RecordedAttempt:
    """One attempt of a step, by *number* from 1."""

    number: int
    status: StepStatus
    started_at: float
    ended_at: float | None = None
    #: What it failed with.
    failure: Payload | None = None


@light_define
class RecordedStep:
    """A step or transaction as it stands."""

    position: str
    name: str
    kind: Literal["step", "transaction"]
    #: "file:line" of the workflow that asked for it.
    site: str
    status: StepStatus
    #: When it was asked for, and when its outcome was recorded.
    asked_at: float
    ended_at: float | None = None
    attempts: list[RecordedAttempt] = field(factory=list)
    #: Of the latest attempt, also while that waits for its slot.
    attempt: int = 1
    #: Of a retry: when the next attempt may begin.
    fire_at: float | None = None
    #: What it failed with last, unless it has succeeded since.
    failure: Payload | None = None
    value: Payload | None = None

    def begin(self, event: StepCommand) -> None:
        """Take in that an attempt begins, or waits for a slot."""
        self.attempt, self.fire_at = event.attempt, None
        if isinstance(event, SlotAwaited):
            self.status = "waiting"
            return
        self.status = "running"
        self.attempts.append(RecordedAttempt(event.attempt, "running", event.at))

    def take(self, event: Event) -> None:
        """Take in what happened to it."""
        match event.outcome:
            case "succeeded":
                self._end("succeeded", event, final=True)
                self.failure, self.value = None, event.value
            case "failed":
                self._end("failed", event, final=True)
            case "cancelling":
                self.status = "cancelling"
            case "cancelled":
                abandoned = isinstance(event, StepStopped) and event.abandoned
                self._end("abandoned" if abandoned else "cancelled", event, final=True)
            case "interrupted":
                self._end("interrupted", event)
            case "retrying":
                assert isinstance(event, StepRetrying)
                self._end("retrying", event)
                self.fire_at = event.fire_at
            case "snoozed":
                assert isinstance(event, StepSnoozed)
                self._end("snoozed", event)
                self.fire_at = event.fire_at
            case "fired" | "continued" | "received" | "over" | None:
                pass
            case _:
                assert_never(event.outcome)

    def _end(self, status: StepStatus, event: Event, *, final: bool = False) -> None:
        self.status = status
        failure = None if status == "succeeded" else event.value
        if failure is not None:
            self.failure = failure
        if final:
            self.ended_at = event.at
        if not self.attempts or self.attempts[-1].ended_at is not None:
            if self.kind == "step" or status in ("cancelled", "abandoned"):
                return  # between two attempts, or before the first
            # later attempts of a transaction begin without an event, since they commit with their outcome
            began = event.at if self.fire_at is None else min(self.fire_at, event.at)
            self.attempts.append(RecordedAttempt(len(self.attempts) + 1, "running", began))
            self.attempt = len(self.attempts)
        last = self.attempts[-1]
        last.status, last.ended_at, last.failure = status, event.at, failure


def recorded_steps(events: Iterable[Event]) -> list[RecordedStep]:
    """
    The steps of a run in the order in which they were asked for.

    Those that count: what a retry by hand, or another attempt of the whole run, has set aside is left out.
    """
    found: dict[str, RecordedStep] = {}
    kept, _ = effective([*events])
    for event in kept:
        if isinstance(event, StepCommand):
            step = found.get(event.position)
            if step is None:
                kind: Literal["step", "transaction"] = (
                    "transaction" if isinstance(event, TransactionStarted) else "step"
                )
                step = RecordedStep(event.position, event.name, kind, event.site, "running", event.at)
                found[event.position] = step
            step.begin(event)
        elif event.position in found:
            found[event.position].take(event)
        elif isinstance(event, End):
            for step in found.values():
                if not step.site and step.ended_at is None:  # a job's function: its end is that of the run
                    step.take(event)
    return list(found.values())
