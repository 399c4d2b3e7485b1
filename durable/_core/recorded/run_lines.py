"""
One run as lines for people: each command with what came of it, each signal and note, and the end.

What a retry or restart has set aside is left out. Pure: events in, lines out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve, field, frozen

from durable._core.codec.json_text import dumps_sorted
from durable._core.journal.events import (
    AttributesSet,
    CancelRequested,
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildSucceeded,
    CleanupTimedOut,
    Event,
    GroupOpened,
    PatchMarked,
    Payload,
    ResumeRequested,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunForked,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    SignalReceived,
    StepCancelled,
    StepFailed,
    StepStarted,
    StepSucceeded,
    TimerFired,
)
from durable._core.journal.history import effective, is_command
from durable._core.recorded.export_format import RunHistory
from durable._core.run.divergence import describe


@frozen
class Line:
    """
    One line of a run: a command and what came of it; a signal or note; or how the run ended.

    Attributes:
        position: Of the command; empty for what is the whole run's.
        command: In words: "step 'charge'", "signal 'go'", "the end".
        outcome: ``succeeded``, ``failed``, ``cancelled``, ``fired``, ``continued``, ``received``,
            ``over``, or empty: none yet.
        value: What it came to: the value, or the failure.
        digest: Of its arguments.
        items: Of a `for_each`.
        attempts: Of a step.
        began_at, ended_at: Epoch seconds.
        began, ended: Indices of the events; *ended* is -1 without an outcome.
    """

    position: str
    command: str
    outcome: str = ""
    value: Payload | None = field(default=None, repr=False)
    digest: str = ""
    items: Payload | None = field(default=None, repr=False)
    attempts: int = 0
    began_at: float = 0.0
    ended_at: float | None = None
    began: int = 0
    ended: int = -1


def lines_of(run: RunHistory) -> list[Line]:
    """The lines of one run, in the order in which they began. What a retry has set aside is left out."""
    events, _ = effective(run.events)
    own = _own_ids(run)
    lines: list[Line] = []
    at: dict[str, int] = {}  # line by position
    for index, event in enumerate(events):
        if is_command(event):
            if event.position in at:  # a later attempt
                lines[at[event.position]] = _tried(lines[at[event.position]], event)
                continue
            at[event.position] = len(lines)
            lines.append(_begun(event, index, own))
        elif (end := _end_of(event)) is not None:
            lines.append(Line("", "the end", *end, began_at=event.at, ended_at=event.at, began=index, ended=index))
        elif (note := _note(event)) is not None:
            ended = -1 if isinstance(event, (AttributesSet, PatchMarked)) else index
            lines.append(Line("", *note, began_at=event.at, began=index, ended=ended))
        elif (number := at.get(getattr(event, "position", None) or "")) is not None:
            found = _outcome(event, lines[number].command)
            if found is not None:
                lines[number] = evolve(lines[number], outcome=found[0], value=found[1], ended_at=event.at, ended=index)
    return lines


def _own_ids(run: RunHistory) -> list[str]:
    """The run's id, and those that it had when what was copied into it was recorded; longest first."""
    found = {run.run.run_id}
    for event in run.events:
        if isinstance(event, RunStarted):
            found.add(event.seed)
        elif isinstance(event, RunForked):
            found.add(event.source)
    return sorted(found - {""}, key=len, reverse=True)


def _begun(event: Any, index: int, own: Sequence[str]) -> Line:
    if isinstance(event, ChildAwaited):
        event = evolve(event, run_id=_relative(event.run_id, own))
    return Line(
        event.position,
        describe(event),
        digest=getattr(event, "digest", ""),
        items=event.value if isinstance(event, GroupOpened) else None,
        attempts=1 if isinstance(event, StepStarted) else 0,
        began_at=event.at,
        began=index,
    )


def _relative(run_id: str, own: Sequence[str]) -> str:
    for each in own:
        if run_id.startswith(f"{each}/"):
            return f"…{run_id.removeprefix(each)}"
    return run_id


def _tried(line: Line, event: Any) -> Line:
    return evolve(line, attempts=max(line.attempts, event.attempt)) if isinstance(event, StepStarted) else line


def _outcome(event: Event, command: str) -> tuple[str, Payload | None] | None:
    match event:
        case StepSucceeded(value=value) | ChildSucceeded(value=value):
            return "succeeded", value
        case StepFailed(value=value) | ChildFailed(value=value):
            return "failed", value
        case ChildCancelled() | StepCancelled():
            return "cancelled", None
        case TimerFired() if not command.startswith(("step ", "transaction ")):  # else: the delay of a retry
            return "fired", None
        case _:
            return None


def _end_of(event: Event) -> tuple[str, Payload | None] | None:
    match event:
        case RunSucceeded(value=value):
            return "succeeded", value
        case RunFailed(value=value):
            return "failed", value
        case RunCancelled(reason=reason):
            return "cancelled", dumps_sorted(reason) if reason else None
        case RunContinued(name=name):
            return "continued", dumps_sorted(name)
        case _:
            return None


def _note(event: Event) -> tuple[str, str, Payload | None] | None:
    match event:
        case SignalReceived(name=name, value=value):
            return f"signal {name!r}", "received", value
        case AttributesSet(value=value):
            return "attributes", "", value
        case PatchMarked(name=name):
            return f"patched {name!r}", "", None
        case CancelRequested(reason=reason):
            return "request to cancel", "received", dumps_sorted(reason) if reason else None
        case RunTimedOut():
            return "the time of the run", "over", None
        case CleanupTimedOut():
            return "the time of the clean-up", "over", None
        case ResumeRequested():
            return "request to resume", "received", None
        case _:
            return None
