"""
One run's events, sorted into what replay needs.

`effective` applies what a person or a policy changed later (a retry of the failed run, a
restart of the whole run) and leaves the events that count. `History` then keeps commands by
position and arrivals in order. Pure functions of lists of events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from attrs import evolve, frozen

from durable._core.events import (
    Arrival,
    Command,
    Event,
    GroupOpened,
    NowRead,
    PatchMarked,
    Payload,
    RunFailed,
    RunForked,
    RunRestarted,
    RunRetried,
    RunStarted,
    SignalReceived,
    StepFailed,
    StepStarted,
    StepSucceeded,
    TimerFired,
)
from durable.errors import InternalError, UsageError

COMMANDS: tuple[type, ...] = get_args(Command)
ARRIVALS: tuple[type, ...] = get_args(Arrival)
#: Arrivals of the run as a whole rather than of one command.
_RUN_WIDE: tuple[type, ...] = (SignalReceived,)


@frozen
class History:
    """What replay needs of one run's events."""

    started: RunStarted
    #: Commands by position; replay ticks them off.
    commands: Mapping[str, Event]
    #: Arrivals, and later attempts of steps, in the order in which they were recorded.
    arrivals: Sequence[Event]
    patches: frozenset[str]
    #: Answers of `now()`, by the count of arrivals before it was asked.
    now_reads: Mapping[int, float]
    run_attempt: int
    #: Set when the whole run failed and its next attempt has not begun.
    restarting: bool
    #: Set when nothing but its start is recorded.
    fresh: bool
    #: Set when the last event is a retry or fork: its cut took commands away, so this one replay
    #: issues what it finds missing afresh instead of calling it a divergence.
    reopened: bool
    size: int


def read(events: Sequence[Event]) -> History:
    """
    Sort *events*, all of one run, the first being `RunStarted`.

    Raises:
        InternalError: If they do not begin with `RunStarted`.
    """
    if not events or not isinstance(events[0], RunStarted):
        msg = f"a history begins with RunStarted, found {events[:1]!r}"
        raise InternalError(msg)
    kept, attempt = effective(events)
    commands: dict[str, Event] = {}
    arrivals: list[Event] = []
    patches: set[str] = set()
    now_reads: dict[int, float] = {}
    for event in kept[1:]:
        kind = type(event)
        if kind is StepStarted and event.attempt > 1:  # type: ignore[union-attr]  # narrowed by `kind`
            arrivals.append(event)
        elif kind in _COMMAND_SET:
            commands[event.position] = event  # type: ignore[union-attr]  # every command has one
        elif kind in _ARRIVAL_SET:
            arrivals.append(event)
        elif kind is PatchMarked:
            patches.add(event.name)  # type: ignore[union-attr]  # narrowed by `kind`
        elif kind is NowRead:
            now_reads[event.arrivals] = event.at  # type: ignore[union-attr]  # narrowed by `kind`
    restarting = attempt > 1 and not any(isinstance(event, TimerFired) and event.position == "" for event in arrivals)
    return History(
        started=events[0],
        commands=commands,
        arrivals=arrivals,
        patches=frozenset(patches),
        now_reads=now_reads,
        run_attempt=attempt,
        restarting=restarting,
        fresh=not commands and not arrivals,
        reopened=isinstance(events[-1], (RunRetried, RunForked)),
        size=len(events),
    )


_COMMAND_SET = frozenset(COMMANDS)
_ARRIVAL_SET = frozenset(ARRIVALS)


def effective(events: Sequence[Event]) -> tuple[list[Event], int]:
    """
    The events that count, and the attempt of the whole run.

    `RunRestarted` sets everything between the start and itself aside. `RunRetried(cut)` sets
    aside the outcome at *cut* (0-based index of the events before it) and every command issued
    after it, with its outcomes; arrivals of commands that were open by then, and signals, stay.
    """
    kept: list[Event] = []
    attempt = 1
    for event in events:
        if isinstance(event, RunRestarted):
            attempt = event.attempt
            kept = kept[:1]
        elif isinstance(event, RunRetried):
            kept = cut_at(kept, event.cut)
        elif not isinstance(event, RunForked):
            kept.append(event)
    return kept, attempt


def cut_at(events: Sequence[Event], cut: int) -> list[Event]:
    """The first *cut* events, and of those after the event at *cut* the arrivals that stay valid."""
    kept = list(events[:cut])
    open_commands = {event.position for event in kept if isinstance(event, COMMANDS)}
    for event in events[cut + 1 :]:
        kind = type(event)
        if kind in _RUN_WIDE or (kind in _ARRIVAL_SET and getattr(event, "position", None) in open_commands):
            kept.append(event)
    return kept


def retry_cut(events: Sequence[Event]) -> int | None:
    """
    Where a retry of a failed run cuts its effective events: at the first outcome that made it fail.

    If the failure came from the workflow's own code, only the closing event goes, and replay runs
    the (mended) code. None if the run did not fail.
    """
    failed = next((event for event in reversed(events) if isinstance(event, RunFailed)), None)
    if failed is None:
        return None
    positions = set(failed.positions)
    for index, event in enumerate(events):
        if getattr(event, "position", None) in positions and type(event) in _ARRIVAL_SET and _is_failure(event):
            return index
    return events.index(failed)


def _is_failure(event: Event) -> bool:
    return type(event).__name__ in ("StepFailed", "ChildFailed", "ChildCancelled", "TimerFired")


def fork(
    events: Sequence[Event], *, run_id: str, at: str, replace: Mapping[str, Payload], now: float
) -> list[Event]:
    """
    The history of a new run that goes on from position *at* of *events*.

    What was recorded before the command at *at* is copied, with the outcomes in *replace*
    (position to encoded value) in place of the recorded ones.

    Raises:
        UsageError: If a position was never asked for.
    """
    kept, _ = effective(events)
    index = next(
        (i for i, event in enumerate(kept) if isinstance(event, COMMANDS) and event.position == at),
        None,
    )
    if index is None:
        raise UsageError(_no_such_position(kept, at))
    copied: list[Event] = []
    replaced = dict(replace)
    for event in cut_at(kept, index):
        position = getattr(event, "position", None)
        if position in replace and type(event) in _ARRIVAL_SET:
            if position in replaced:
                copied.append(StepSucceeded(position, replaced.pop(position), event.at))
            continue
        copied.append(event)
    for position, value in list(replaced.items()):
        if any(isinstance(event, COMMANDS) and event.position == position for event in copied):
            copied.append(StepSucceeded(position, value, now))
            del replaced[position]
    if replaced:
        raise UsageError(_no_such_position(kept, ", ".join(replaced)))
    return [*copied, RunForked(run_id, at, now)]


def _no_such_position(events: Sequence[Event], at: str) -> str:
    known = [event.position for event in events if isinstance(event, COMMANDS)]
    return f"position {at} is not before a recorded command of this run; recorded are {', '.join(known[:20]) or 'none'}"


def describe(event: Event) -> str:
    """A command in a few words, for reports: "step 'charge'"."""
    name = getattr(event, "name", "")
    match event:
        case StepStarted():
            return f"step {name!r}"
        case GroupOpened():
            return f"{name} of {event.size}"
        case StepFailed():
            return "a failure"
        case _:
            words = {
                "TransactionStarted": f"transaction {name!r}",
                "TimerSet": str(name),
                "SignalAwaited": f"wait_for {name!r}",
                "ChildStarted": f"child {name!r}",
                "ChildAwaited": f"result of run {getattr(event, 'run_id', '')!r}",
                "RunSucceeded": "the end of the workflow",
            }
            return words.get(type(event).__name__, type(event).__name__)


def reopened(events: Sequence[Event], at: float) -> RunRetried:
    """The event that retries the failed run of *events* (effective ones)."""
    cut = retry_cut(events)
    if cut is None:
        msg = "the run has no failure to retry"
        raise UsageError(msg)
    return evolve(RunRetried(cut), at=at)
