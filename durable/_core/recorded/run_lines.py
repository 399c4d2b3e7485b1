"""
One run as lines for people: each command with what came of it, each signal and note, and the end.

What a retry or restart has set aside is left out. Pure: events in, lines out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from attrs import evolve, field

from durable._core import run_ids
from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps_sorted
from durable._core.journal.events import (
    CancelAsked,
    ChildAwaited,
    CommandEvent,
    Event,
    NowRead,
    RunForked,
    SignalSent,
    StepStarted,
)
from durable._core.journal.history import effective, only
from durable._core.light_frozen import light_frozen
from durable._core.recorded.export_format import RunHistory


@light_frozen
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


def command_lines(run: RunHistory) -> list[Line]:
    """The lines of one run, in the order in which they began. What a retry has set aside is left out."""
    events, _ = effective(run.events)
    own = _own_ids(run)
    lines: list[Line] = []
    at: dict[str, int] = {}
    for index, event in enumerate(events):
        match event.category:
            case "command":
                number = at.setdefault(event.position, len(lines))
                if number == len(lines):
                    lines.append(_begun(event, index, own))
                else:  # a later attempt
                    lines[number] = evolve(lines[number], attempts=max(lines[number].attempts, _attempts(event)))
            case "arrival" | "note":
                if event.position is None:
                    if not isinstance(event, NowRead):
                        lines.append(_of_the_run(event, event.describe(), index))
                elif (number := at.get(event.position, -1)) >= 0:
                    lines[number] = _happened(lines[number], event, index)
            case "end":
                lines.append(evolve(_of_the_run(event, "the end", index), ended_at=event.at))
            case "start" | "revision":
                pass
            case _:
                assert_never(event)
    return lines


def _own_ids(run: RunHistory) -> list[str]:
    """The run's id, and those that it had when what was copied into it was recorded; longest first."""
    found = {run.run.run_id, run.started.seed, *(event.source for event in only(run.events, RunForked))}
    return sorted(found - {""}, key=len, reverse=True)


def _begun(event: CommandEvent, index: int, own: Sequence[str]) -> Line:
    if isinstance(event, ChildAwaited | SignalSent | CancelAsked):
        event = evolve(event, run_id=_relative(event.run_id, own))
    return Line(
        event.position,
        event.describe(),
        digest=event.digest,
        items=event.value,
        attempts=_attempts(event),
        began_at=event.at,
        began=index,
    )


def _relative(run_id: str, own: Sequence[str]) -> str:
    for each in own:
        rest = run_ids.below(run_id, each)
        if rest is not None:
            return f"…/{rest}"
    return run_id


def _attempts(event: CommandEvent) -> int:
    return event.attempt if isinstance(event, StepStarted) else 0


def _happened(line: Line, event: Event, index: int) -> Line:
    """*line*, whose command *event* is about; attempts and what they wait for are no outcome of it."""
    match event.outcome:
        case "fired" if line.command.startswith(("step ", "transaction ")):  # the delay of a retry
            return line
        case "succeeded" | "failed" | "cancelled" | "fired":
            return evolve(line, outcome=event.outcome, value=event.value, ended_at=event.at, ended=index)
        case "retrying" | "snoozed" | "interrupted" | "cancelling" | "continued" | "received" | "over" | None:
            return line
        case _:
            assert_never(event.outcome)


def _of_the_run(event: Event, words: str, index: int) -> Line:
    ended = -1 if event.outcome is None else index
    return Line("", words, event.outcome or "", _said(event), began_at=event.at, began=index, ended=ended)


def _said(event: Event) -> Payload | None:
    """What is shown of an event of the whole run: its value, or a person's words."""
    if event.outcome == "continued":
        return dumps_sorted(event.name)
    return dumps_sorted(event.reason) if event.reason else event.value
