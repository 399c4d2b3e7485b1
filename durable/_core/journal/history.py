"""
One run's events, sorted into what replay needs.

`effective` applies what a person or a policy changed later (a retry of the failed run, a
restart of the whole run) and leaves the events that count. `History` then keeps commands by
position and arrivals in order. `reopened` and `fork` open an ended run again. Pure functions of
lists of events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, get_args

from attrs import frozen

from durable._core.journal.events import (
    Arrival,
    CancelRequested,
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildStarted,
    ChildSucceeded,
    Command,
    End,
    Event,
    FeedOpened,
    GroupOpened,
    NowRead,
    PatchMarked,
    Payload,
    RunFailed,
    RunForked,
    RunRestarted,
    RunRetried,
    RunStarted,
    RunTimedOut,
    SignalAwaited,
    SignalReceived,
    SlotAwaited,
    SlotGranted,
    StepCancelled,
    StepFailed,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TimerSet,
    TransactionStarted,
)
from durable._core.journal.waits import Wait
from durable._core.program.retry import Retry
from durable.errors import InternalError, UsageError

COMMANDS: tuple[type, ...] = get_args(Command)
ARRIVALS: tuple[type, ...] = get_args(Arrival)
ENDS: tuple[type, ...] = get_args(End)
#: What records an attempt, and the wait for it: those after the first stand among the arrivals.
LATER_ATTEMPTS = (StepStarted, SlotAwaited)
#: What sets earlier events aside, or is no event of its own.
_SETS_ASIDE = frozenset((RunRestarted, RunRetried, RunForked))
_COMMAND_SET = frozenset(COMMANDS)
_ARRIVAL_SET = frozenset(ARRIVALS)
#: Arrivals that end a command.
_OUTCOMES = (StepSucceeded, StepFailed, ChildSucceeded, ChildFailed, ChildCancelled)
#: Arrivals that can make a run fail.
_FAILURES = (StepFailed, ChildFailed, ChildCancelled, TimerFired)


@frozen
class History:
    """What replay needs of one run's events."""

    started: RunStarted
    #: Commands by position; replay ticks them off.
    commands: Mapping[str, Event]
    #: Arrivals, and later attempts of steps, in the order in which they were recorded.
    arrivals: Sequence[Event]
    patches: frozenset[str]
    #: Windows of the `for_each`es whose children the file starts, by position.
    feeds: Mapping[str, int]
    #: Answers of `now()`, by the count of arrivals before it was asked.
    now_reads: Mapping[int, float]
    #: The attempt of the whole run, counted from 1 (its `retry` option).
    run_attempt: int
    #: As `run_attempt`, but retries by a person count too: it tells children of one position apart.
    generation: int
    #: Set when there is nothing to replay: its first turn, or that of its next attempt, is still to come.
    fresh: bool
    #: Set when the last event is a retry or fork: its cut took commands away, so this one replay
    #: issues what it finds missing afresh instead of calling it a divergence.
    reopened: bool
    reopened_at: float
    #: The closing event of a run that has ended.
    end: Event | None
    size: int
    #: The retry policy of the run itself, if it was started with one.
    retry: Retry | None = None


def read(events: Sequence[Event], retry: Retry | None = None) -> History:
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
    feeds: dict[str, int] = {}
    now_reads: dict[int, float] = {}
    later_attempts = 0
    recorded: list[Any] = kept[1:]  # Any: `kind` narrows faster than isinstance, but not for type checkers
    for event in recorded:
        kind = type(event)
        if (kind is StepStarted or kind is SlotAwaited) and (event.attempt > 1 or event.position in commands):
            arrivals.append(event)
            later_attempts += 1
        elif kind in _COMMAND_SET:
            commands[event.position] = event
        elif kind in _ARRIVAL_SET:
            arrivals.append(event)
        elif kind is PatchMarked:
            patches.add(event.name)
        elif kind is FeedOpened:
            feeds[event.position] = event.window
        elif kind is NowRead:
            now_reads[len(arrivals) - later_attempts] = event.at
    last = events[-1]
    reopened = isinstance(last, (RunRetried, RunForked))
    return History(
        started=events[0],
        commands=commands,
        arrivals=arrivals,
        patches=frozenset(patches),
        feeds=feeds,
        now_reads=now_reads,
        run_attempt=attempt,
        generation=attempt + [*map(type, events)].count(RunRetried),
        fresh=not commands and not arrivals and not isinstance(last, ENDS),
        reopened=reopened,
        reopened_at=last.at if reopened else 0.0,
        end=last if isinstance(last, ENDS) else None,
        size=len(events),
        retry=retry,
    )


def effective(events: Sequence[Event]) -> tuple[list[Event], int]:
    """
    The events that count, and the attempt of the whole run.

    `RunRestarted` sets everything between the start and itself aside; `RunRetried` sets aside
    the failure, and what has to be asked for again because of it.
    """
    if _SETS_ASIDE.isdisjoint(map(type, events)):  # as in nearly every history
        return list(events), 1
    kept: list[Event] = []
    attempt = 1
    for event in events:
        if isinstance(event, RunRestarted):
            attempt = event.attempt
            kept = kept[:1]
        elif isinstance(event, RunRetried):
            kept = _without_failure(kept, event)
        elif not isinstance(event, RunForked):
            kept.append(event)
    return kept, attempt


def cut_at(events: Sequence[Event], cut: int) -> list[Event]:
    """
    The first *cut* events, and of the later ones what stays valid.

    That is: signals, and the arrivals (and later attempts) of commands that were open by then.
    """
    known = {position_of(event) for event in events[:cut] if is_command(event)}
    later = (*LATER_ATTEMPTS, *ARRIVALS)
    valid = [
        event
        for event in events[cut:]
        if isinstance(event, SignalReceived) or (position_of(event) in known and isinstance(event, later))
    ]
    return [*events[:cut], *valid]


def is_command(event: Event) -> TypeGuard[Command]:
    """Whether the workflow asked for it."""
    return type(event) in _COMMAND_SET


def position_of(event: Event) -> str | None:
    """The position of the command that *event* is about; None for events of the whole run."""
    return getattr(event, "position", None)


def _without_failure(events: Sequence[Event], retried: RunRetried) -> list[Event]:
    """
    The events of a failed run without its failure, so that a replay goes on where it failed.

    What had succeeded stays. A step that failed is forgotten, attempts included, and asked for
    again; so is what was cancelled because of the failure (open then, in the same group), and
    whatever a deadline was part of. A child that failed stays, since it is retried itself; one that was
    refused or cancelled is asked for anew.
    """
    failed, cut = set(retried.positions), retried.cut
    children = {position_of(event) for event in events if isinstance(event, (ChildStarted, ChildAwaited))}
    over = {  # refused, or cancelled by somebody else: there is nothing in it to retry
        event.position
        for event in events
        if isinstance(event, ChildCancelled) or (isinstance(event, ChildFailed) and not event.run_id)
    }
    again = {position for position in failed if position not in children or position in over}
    if not isinstance(events[cut], RunFailed):
        before = [event for event in events[:cut] if is_command(event)]
        groups = {position.partition(".")[0] for position in failed}
        if not failed and before:  # the time of the whole run was over
            groups = {before[-1].position.partition(".")[0]}
        done = {position_of(event) for event in events if isinstance(event, _OUTCOMES)}
        fired = {position_of(event) for event in events if isinstance(event, TimerFired)}
        again |= {
            event.position
            for event in before
            if event.position.partition(".")[0] in groups
            and not isinstance(event, GroupOpened)
            and not (isinstance(event, ChildStarted) and not event.awaited)
            and event.position not in (fired if isinstance(event, TimerSet) else done)
        }
    return [
        event
        for event in cut_at(events, cut)
        if position_of(event) not in again
        and not isinstance(event, (RunFailed, FeedOpened))  # a feed ends with the run, or a failure in it
        and not (position_of(event) in failed and isinstance(event, _FAILURES))
    ]


# --- opening an ended run again ---------------------------------------------------------------


def reopened(events: Sequence[Event], at: float) -> RunRetried:
    """
    The event that retries the failed run of *events*.

    It cuts at the first outcome that made the run fail. If the failure came from the workflow's
    own code, only the closing event goes, and replay runs the (mended) code.

    Raises:
        UsageError: If the run has not failed.
    """
    kept, _ = effective(events)
    failure = _failure(kept)
    if failure is None:
        msg = "the run has no failure to retry"
        raise UsageError(msg)
    first = next(iter(failed_outcomes(kept)), None)
    overdue = next((event for event in kept if isinstance(event, RunTimedOut)), None)
    return RunRetried(kept.index(first or overdue or failure), failure.positions, at)


def failed_outcomes(events: Sequence[Event]) -> list[Event]:
    """The outcomes that made the run of *events* fail; none if its own code raised."""
    failure = _failure(events)
    positions = () if failure is None else failure.positions
    return [event for event in events if isinstance(event, _FAILURES) and position_of(event) in positions]


def _failure(events: Sequence[Event]) -> RunFailed | None:
    return next((event for event in reversed(events) if isinstance(event, RunFailed)), None)


def open_children(events: Sequence[Event]) -> list[tuple[str, str]]:
    """(position, run id) of the children whose end is awaited."""
    found: dict[str, str] = {}
    for event in effective(events)[0]:
        match event:
            case ChildStarted(awaited=True) | ChildAwaited():
                found[event.position] = event.run_id
            case ChildJoined() if event.position in found:
                found[event.position] = event.run_id
            case ChildSucceeded() | ChildFailed() | ChildCancelled():
                found.pop(event.position, None)
            case _:
                pass
    return list(found.items())


def open_timers(events: Sequence[Event]) -> list[Wait]:
    """Timers, retry delays and signals that are waited for, each a row of its own group."""
    found: dict[str, Wait] = {}
    for event in effective(events)[0]:
        match event:
            case TimerSet():
                found[event.position] = Wait(event.position, "timer", event.position, fire_at=event.fire_at)
            case StepRetrying():
                found[event.position] = Wait(event.position, "retry", event.position, fire_at=event.fire_at)
            case SignalAwaited():
                found[event.position] = Wait(
                    event.position, "signal", event.position, name=event.name, fire_at=event.fire_at
                )
            case TimerFired() | StepSucceeded() | StepFailed():
                found.pop(event.position, None)
            case _:
                pass
    return list(found.values())


def open_slots(events: Sequence[Event]) -> list[tuple[str, str, str]]:
    """(position, limit, key) of the slots that steps wait for."""
    found: dict[str, tuple[str, str, str]] = {}
    for event in effective(events)[0]:
        match event:
            case SlotAwaited():
                found[event.position] = (event.position, event.limit, event.key)
            case SlotGranted() | StepCancelled() | StepSucceeded():
                found.pop(event.position, None)
            case _:
                pass
    return list(found.values())


def fork(events: Sequence[Event], *, run_id: str, at: str, replace: Mapping[str, Payload], now: float) -> list[Event]:
    """
    The history of a new run that goes on from position *at* of *events*, those of *run_id*.

    What was recorded before the command at *at* is copied, with the outcomes in *replace*
    (position to encoded value) in place of the recorded ones. If *replace* has *at* itself, what was
    recorded before its outcome is copied: its command, and what other strands did meanwhile.

    Raises:
        UsageError: If a position was never asked for, or is of a command whose outcome cannot be given.
    """
    kept, _ = effective(events)
    commands = {event.position: event for event in reversed(kept) if is_command(event)}
    if at not in commands:
        raise UsageError(_no_such_position(kept, at))
    index = kept.index(commands[at])
    if at in replace:
        index = next((i for i in range(index + 1, len(kept)) if _is_over(kept[i], at)), len(kept))
    # A feed is the other run's; so is the timer that its next attempt waited for.
    copied: list[Event] = [
        event
        for event in cut_at(kept, index)
        if not isinstance(event, FeedOpened) and not (isinstance(event, TimerFired) and not event.position)
    ]
    for position, value in replace.items():
        command = commands.get(position)
        if command is None or command not in copied:
            raise UsageError(_no_such_position(copied, position))
        copied = _with_outcome(copied, command, value, now)
    return [*copied, RunForked(run_id, at, now)]


def _is_over(event: Event, position: str) -> bool:
    """Whether from *event* on the command at *position* is not open any more, or the run is to end."""
    if isinstance(event, (*_OUTCOMES, StepCancelled)):
        return event.position == position
    return isinstance(event, (*ENDS, CancelRequested, RunTimedOut))


def _with_outcome(events: list[Event], command: Event, value: Payload, now: float) -> list[Event]:
    """*events* with one outcome for *command*, where its recorded one stands (else at the end)."""
    match command:
        case StepStarted() | SlotAwaited() | TransactionStarted():
            outcome: StepSucceeded | ChildSucceeded = StepSucceeded(command.position, value, now)
        case ChildStarted(awaited=True) | ChildAwaited():
            outcome = ChildSucceeded(command.position, value, now)
        case _:
            msg = f"only outcomes of steps, transactions and children can be replaced, found {command!r:.80}"
            raise UsageError(msg)
    changed: list[Event] = []
    place = len(events)
    for event in events:
        if event is command or position_of(event) != outcome.position:
            changed.append(event)
        elif isinstance(event, ARRIVALS):
            place = len(changed)
    changed.insert(place, outcome)
    return changed


def _no_such_position(events: Sequence[Event], at: str) -> str:
    known = [event.position for event in events if is_command(event)]
    return f"position {at} is not before a recorded command of this run; recorded are {', '.join(known[:20]) or 'none'}"
