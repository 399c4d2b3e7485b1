"""
What is told of the steps of a run: `StepInfo`, and `AttemptInfo` of each attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.payloads import failure_in
from durable._core.light_frozen import late_frozen
from durable._core.recorded.memos import memo_name
from durable._core.recorded.steps import RecordedStep, StepStatus
from durable._shell.handles.run_info import Arguments
from durable.errors import DecodeError


@late_frozen
class AttemptInfo:
    """One attempt of a step. Instants are epoch seconds, UTC."""

    #: From 1.
    number: int
    #: As that of the step.
    status: StepStatus
    started_at: float
    #: None while it is running, and where its process died before anybody said how it ended.
    ended_at: float | None
    #: What it failed with, as "ValueError: no such card".
    error: str | None


@late_frozen
class StepInfo:
    """A step, transaction or the function of a job, as it stood when it was read. Instants are epoch seconds, UTC."""

    #: Where the workflow asked for it; "0" in a job.
    position: str
    name: str
    kind: Literal["step", "transaction"]
    #: "running", "succeeded", "failed", "retrying" or "snoozed" (the next attempt has yet to begin), "interrupted",
    #: "waiting" (for a slot of its limit), "cancelling" (it was told to end), "cancelled", "abandoned".
    status: StepStatus
    #: Oldest first.
    attempts: Sequence[AttemptInfo]
    #: When it was asked for, and when its outcome was recorded.
    asked_at: float
    ended_at: float | None
    #: When the next attempt may begin, if one is to.
    due: float | None
    #: What it failed with last, unless it has succeeded since.
    error: str | None
    #: "file:line" of the code that asked for it.
    site: str
    #: What it was called with. The journal does not tell, only the code of its workflow: None where that is not at hand
    #: (as with a `Client`), or has changed.
    arguments: Arguments | None = field(repr=False, eq=False)
    _codec: Codec = field(alias="codec", repr=False, eq=False)
    _value: Payload | None = field(alias="value", repr=False)
    _notes: Mapping[str, Payload] = field(alias="notes", repr=False)

    @property
    def result(self) -> Any:
        """
        What it returned, None unless it succeeded: as plain JSON has it, and types of the standard library.

        Raises:
            DecodeError: It was written by a `codec=` of the step's own.
        """
        return None if self._value is None else self._codec.decode(self._value, where=f"result of {self._called}")

    @property
    def memos(self) -> Mapping[str, Any]:
        """
        What it has recorded by `memo`, read as `result` is: by name, and of the nth use of a name by "NAME:n".

        Raises:
            DecodeError: As `result`.
        """
        found: dict[str, Any] = {}
        for note, payload in self._notes.items():
            if (name := memo_name(note)) is not None:
                found[name] = self._codec.decode(payload, where=f"memo {name!r} of {self._called}")
        return found

    @property
    def _called(self) -> str:
        return f"{self.kind} {self.name!r} at {self.position}"


def step_info(step: RecordedStep, arguments: Arguments | None, notes: Mapping[str, Payload], codec: Codec) -> StepInfo:
    """What is recorded of a step, as callers see it."""
    return StepInfo(
        position=step.position,
        name=step.name,
        kind=step.kind,
        status=step.status,
        attempts=[
            AttemptInfo(each.number, each.status, each.started_at, each.ended_at, _error(each.failure, codec))
            for each in step.attempts
        ],
        asked_at=step.asked_at,
        ended_at=step.ended_at,
        due=step.fire_at,
        error=_error(step.failure, codec),
        site=step.site,
        arguments=arguments,
        codec=codec,
        value=step.value if step.status == "succeeded" else None,
        notes=notes,
    )


def _error(failure: Payload | None, codec: Codec) -> str | None:
    if failure is None:
        return None
    try:
        return describe(failure_in(failure, codec))
    except DecodeError as error:  # it hides no other step
        return str(error)
