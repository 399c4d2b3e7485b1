"""
One run's events, sorted into what replay needs.

`effective` applies what a person or a policy changed later (a retry of the failed run, a
restart of the whole run) and leaves the events that count. `History` then keeps commands by
position and arrivals in order. `reopened` and `fork` open an ended run again. Pure functions of
lists of events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, assert_never, get_args

from attrs import field

from durable._core.codec.codec import Payload
from durable._core.journal import aftermath
from durable._core.journal.events import (
    Arrival,
    AttributesSet,
    CallbackAwaited,
    CallbackCompleted,
    CallbackFailed,
    CallbackOpened,
    CancelAsked,
    CancelSent,
    ChildAwaited,
    ChildCancelled,
    ChildCommand,
    ChildFailed,
    ChildJoined,
    ChildStarted,
    ChildSucceeded,
    CommandEvent,
    Compensated,
    Completion,
    End,
    EndRequest,
    Event,
    FeedOpened,
    GroupArranged,
    GroupOpened,
    HeartbeatMissed,
    LaterAttempt,
    NowRead,
    OutcomeResolved,
    PatchMarked,
    Reopening,
    ReplySent,
    RequestAccepted,
    RequestAnswer,
    RequestCommand,
    RequestRefused,
    RequestTurnedAway,
    Revision,
    RunExpired,
    RunFailed,
    RunForked,
    RunRestarted,
    RunRetried,
    RunStarted,
    RunTimedOut,
    RunWide,
    SignalAwaited,
    SignalReceived,
    SignalSent,
    SlotAwaited,
    SlotGranted,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepNotBegun,
    StepRetrying,
    StepSnoozed,
    StepStarted,
    StepStopped,
    StepSucceeded,
    TimerFired,
    TimerSet,
    TransactionStarted,
    TurnUnfinished,
)
from durable._core.journal.waits import Wait
from durable._core.light_frozen import light_frozen
from durable._core.policies.retry import Retry
from durable._core.statuses import WaitKind
from durable.errors import InternalError, UsageError

_E = TypeVar("_E", bound=Event)

_REVISIONS = frozenset(get_args(Revision))
#: Of most runs: one object for all, since the garbage collector visits each.
_NO_NAMES: frozenset[str] = frozenset()
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@light_frozen
class History:
    """What replay needs of one run's events, but for the first, which says how the run began."""

    #: Commands by position; replay ticks them off.
    commands: Mapping[str, CommandEvent]
    #: Arrivals, and later attempts of steps, in the order in which they were recorded.
    arrivals: Sequence[Arrival | LaterAttempt]
    patches: frozenset[str]
    #: Windows of the `for_each`es whose children the file starts, by position.
    feeds: Mapping[str, int]
    #: How groups run their members, by position: of those of which that was recorded.
    arranged: Mapping[str, GroupArranged]
    #: Positions of what was told to end, and is waited for: in runs of older releases it closed at once.
    cancels_sent: frozenset[str]
    #: Answers of `now()`, by the count of arrivals before it was asked.
    now_reads: Mapping[int, float]
    #: Ids of the requests that were turned away.
    turned_away: frozenset[str]
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
    #: What a new fork took along of what its source's code published, in order.
    published: Sequence[Payload]
    #: When the last turn was taken, if the process died before all that it opens was recorded: the replay issues the
    #: rest, once it has delivered all else.
    unfinished_at: float | None
    #: The closing event of a run that has ended.
    end: End | None
    size: int
    #: The retry policy of the run itself, if it was started with one.
    retry: Retry | None = None

    @property
    def continues(self) -> bool:
        """Whether its replay may lead to new commands by itself, with nothing that arrives."""
        return self.reopened or self.unfinished_at is not None


@cache
def _fresh() -> History:
    """What is recorded of each run that has only begun: one for all, so that no active run holds one of its own."""
    return History(
        commands=_NOTHING, arrivals=(), patches=_NO_NAMES, feeds=_NOTHING, arranged=_NOTHING, cancels_sent=_NO_NAMES,
        now_reads=_NOTHING, turned_away=_NO_NAMES, published=(), run_attempt=1, generation=1, fresh=True,
        reopened=False, reopened_at=0.0, unfinished_at=None, end=None, size=1,
    )  # fmt: skip


def read(events: Sequence[Event], retry: Retry | None = None) -> History:
    """
    Sort *events*, all of one run, the first being `RunStarted`.

    Raises:
        InternalError: If they do not begin with `RunStarted`.
    """
    start_of(events)
    if len(events) == 1 and retry is None:
        return _fresh()
    kept, attempt = effective(events)
    commands: dict[str, CommandEvent] = {}
    arrivals: list[Arrival | LaterAttempt] = []
    patches: set[str] = set()
    feeds: dict[str, int] = {}
    arranged: dict[str, GroupArranged] = {}
    cancels_sent: set[str] = set()
    now_reads: dict[int, float] = {}
    turned_away: set[str] = set()
    later_attempts = 0
    for event in kept:
        # Nearly all events are of these two, and are asked for little.
        if type(event) is StepSucceeded:
            arrivals.append(event)
            continue
        if type(event) is StepStarted and event.attempt == 1 and event.position not in commands:
            commands[event.position] = event
            continue
        match event.category:
            case "arrival":
                arrivals.append(event)
            case "command":
                # not `LaterAttempt` itself: to be asked for, a union takes three times as long
                if isinstance(event, (StepStarted, SlotAwaited)) and (event.attempt > 1 or event.position in commands):
                    arrivals.append(event)
                    later_attempts += 1
                else:
                    commands[event.position] = event
            case "note":
                match event:
                    case PatchMarked():
                        patches.add(event.name)
                    case FeedOpened():
                        feeds[event.position] = event.window
                    case GroupArranged():
                        arranged[event.position] = event
                    case CancelSent():
                        cancels_sent.add(event.position)
                    case NowRead():
                        now_reads[len(arrivals) - later_attempts] = event.at
                    case RequestTurnedAway():
                        turned_away.add(event.request)
                    case AttributesSet() | StepCancelled() | OutcomeResolved() | Compensated() | TurnUnfinished():
                        # nothing is to be kept of these, since replay says them again
                        pass
                    case _:
                        assert_never(event)
            case "start" | "revision" | "end":
                pass
            case _:
                assert_never(event)
    last = events[-1]
    reopened = isinstance(last, Reopening)
    end = last if last.category == "end" else None
    return History(
        commands=commands or _NOTHING,
        arrivals=arrivals or (),
        patches=frozenset(patches) if patches else _NO_NAMES,
        feeds=feeds or _NOTHING,
        arranged=arranged or _NOTHING,
        cancels_sent=frozenset(cancels_sent) if cancels_sent else _NO_NAMES,
        now_reads=now_reads or _NOTHING,
        turned_away=frozenset(turned_away) if turned_away else _NO_NAMES,
        run_attempt=attempt,
        generation=attempt + [*map(type, events)].count(RunRetried),
        fresh=not commands and not arrivals and end is None,
        reopened=reopened,
        reopened_at=last.at if reopened else 0.0,
        published=_published(kept) if isinstance(last, RunForked) else (),
        unfinished_at=last.at if isinstance(last, TurnUnfinished) else None,
        end=end,
        size=len(events),
        retry=retry,
    )


def start_of(events: Sequence[Event]) -> RunStarted:
    """
    The first of *events*, all of one run.

    Raises:
        InternalError: If they do not begin with `RunStarted`.
    """
    if not events or events[0].category != "start":
        msg = f"a history begins with RunStarted, found {events[:1]!r}"
        raise InternalError(msg)
    return events[0]


def only(events: Iterable[Event], cls: type[_E]) -> Iterator[_E]:
    """Those of *events* that are of one class, in order."""
    return (event for event in events if isinstance(event, cls))


def ends_unborn(arrived: Iterable[Event]) -> bool:
    """Whether a run that has not begun never will: it was cancelled, or its time is over."""
    return any(isinstance(event, EndRequest) for event in arrived)


def effective(events: Sequence[Event]) -> tuple[list[Event], int]:
    """
    The events that count, and the attempt of the whole run.

    `RunRestarted` sets everything between the start and itself aside; `RunRetried` sets aside
    the failure, and what has to be asked for again because of it.
    """
    if _REVISIONS.isdisjoint(map(type, events)):  # nearly every history, which does not need the loop below
        return list(events), 1
    kept: list[Event] = []
    attempt = 1
    for event in events:
        if event.category != "revision":
            kept.append(event)
            continue
        match event:
            case RunRestarted():
                attempt = event.attempt
                kept = kept[:1]
            case RunRetried():
                kept = _without_failure(kept, event)
            case RunForked():  # what was copied stands before it, and counts
                pass
            case _:
                assert_never(event)
    return kept, attempt


def is_compensated(events: Sequence[Event]) -> bool:
    """Whether what the run had done was undone, by a saga of the attempt that counts."""
    return any(only(effective(events)[0], Compensated))


def forked_from(events: Sequence[Event]) -> str | None:
    """The run that it is a fork of; of a fork of a fork, the latter."""
    return next((event.source for event in reversed(events) if isinstance(event, RunForked)), None)


def cut_at(events: Sequence[Event], cut: int, kept: Collection[str] = ()) -> list[Event]:
    """
    The first *cut* events, and of the later ones what stays valid.

    That is: signals, the commands that are *kept* (groups as they were arranged), and the arrivals (and later attempts)
    of these, and of commands that were open by then. Not that one was cancelled and has ended, if what cancelled it is
    cut away.
    """
    known = {event.position for event in events[:cut] if event.category == "command"}
    cancelled = {event.position for event in only(events[:cut], CancelSent)}
    valid = [event for event in events[cut:] if _stays(event, known, kept)]
    while valid and isinstance(valid[-1], (NowRead, PatchMarked)):  # read by what is cut away, or as good as
        valid.pop()
    return [
        *events[:cut],
        *(event for event in valid if not isinstance(event, StepStopped) or event.position in cancelled),
    ]


def _published(events: Sequence[Event]) -> list[Payload]:
    return [event.value for event in only(events, AttributesSet) if event.value is not None]


def _stays(event: Event, known: Collection[str], kept: Collection[str]) -> bool:
    """Whether an event behind a cut is valid all the same."""
    if event.position in kept:
        return event.category in ("command", "arrival") or isinstance(event, GroupArranged)
    if event.position in known:
        return event.category == "arrival" or isinstance(event, LaterAttempt)
    return isinstance(event, (SignalReceived, RequestTurnedAway)) or (
        bool(kept) and isinstance(event, (NowRead, PatchMarked))
    )


def _without_failure(events: Sequence[Event], retried: RunRetried) -> list[Event]:
    """
    The events of a failed run without its failure, so that a replay resumes where it failed.

    What had succeeded stays. A step that failed is forgotten, attempts included, and asked for
    again; so is what was cancelled because of the failure (open then, in the same group), and
    whatever a deadline was part of. A child that failed stays, since it is retried itself; one that was
    refused or cancelled is asked for anew.
    """
    failed, cut = set(retried.positions), retried.cut
    children = {event.position for event in events if isinstance(event, ChildCommand)}
    # Refused, or cancelled by somebody else: there is nothing in it to retry.
    over = {event.position for event in only(events, ChildFailed) if not event.run_id}
    over |= {event.position for event in only(events, ChildCancelled)}
    again = {position for position in failed if position not in children or position in over}
    if events[cut].category != "end":
        before = [event for event in events[:cut] if event.category == "command"]
        groups = {position.partition(".")[0] for position in failed}
        if not failed and before:  # the time of the whole run was over
            groups = {before[-1].position.partition(".")[0]}
        done = {event.position for event in events if isinstance(event, Completion)}
        fired = {event.position for event in only(events, TimerFired)}
        again |= {
            event.position
            for event in before
            if event.position.partition(".")[0] in groups and _is_open(event, done, fired)
        }
    again |= _cancelled_by(events[cut:]) | _unanswered(events)
    return [
        event
        for event in cut_at(events, cut, frozenset(retried.kept))
        if event.position not in again
        and not isinstance(event, (RunFailed, FeedOpened))  # a feed ends with the run, or a failure in it
        and not (event.position in failed and _can_fail(event))
    ]


def _can_fail(event: Event) -> bool:
    """Whether it can make a run fail that *event* arrived."""
    return event.category == "arrival" and event.outcome in ("failed", "cancelled", "fired")


def _cancelled_by(events: Sequence[Event]) -> set[str]:
    """Where something was told to end in *events*, and has no value all the same."""
    succeeded = {event.position for event in events if isinstance(event, (StepSucceeded, ChildSucceeded))}
    sent = {event.position for event in only(events, CancelSent)}
    ended = {
        event.position for event in events if isinstance(event, (StepStopped, StepFailed, ChildFailed, ChildCancelled))
    }
    return (sent & ended) - succeeded


def _unanswered(events: Sequence[Event]) -> set[str]:
    """
    Where another run was asked for something, and the answer is not in *events*: nor will it come to who continues.

    So that asks again. Of one run a signal counts once all the same: see `RequestNode`.
    """
    asked = {event.position for event in events if isinstance(event, RequestCommand)}
    return asked - {event.position for event in events if isinstance(event, RequestAnswer)}


def _is_open(command: CommandEvent, done: Collection[str], fired: Collection[str]) -> bool:
    """Whether *command* itself waits for something; *done* and *fired* are where something has come."""
    match command:
        case StepStarted() | SlotAwaited() | TransactionStarted() | SignalAwaited() | ChildAwaited():
            return command.position not in done
        case ChildStarted():
            return command.awaited and command.position not in done
        case TimerSet():
            return command.position not in fired
        case GroupOpened():  # not by itself, since its members do
            return False
        case SignalSent() | CancelAsked() | ReplySent():  # see `_unanswered`
            return False
        case CallbackOpened() | CallbackAwaited():  # open beside what follows it, so a failure of that ends it not
            return False
        case _:
            assert_never(command)


# --- opening an ended run again ---------------------------------------------------------------


def reopened(events: Sequence[Event], at: float) -> RunRetried:
    """
    The event that retries the run of *events*: one that failed, or was cancelled before it began.

    It cuts at the first outcome that made the run fail, and keeps what went on without regard to it. If the failure
    came from the workflow's own code, only the closing event goes, and replay runs the (mended) code.

    Raises:
        UsageError: If the run has not failed, nor been cancelled before it began.
    """
    kept, _ = effective(events)
    failure = _failure(kept)
    if failure is None and never_began(kept):
        return RunRetried(1, [], [], at)
    if failure is None:
        msg = "the run has no failure to retry"
        raise UsageError(msg)
    failures = failed_outcomes(kept)
    overdue = next((event for event in kept if isinstance(event, (RunTimedOut, RunExpired))), None)
    cut = kept.index(next(iter(failures), None) or overdue or failure)
    return RunRetried(cut, failure.positions, aftermath.went_on(kept, cut, failures), at)


def never_began(events: Sequence[Event]) -> bool:
    """Whether the run of *events* has ended, and its code has never run."""
    kept, _ = effective(events)
    return kept[-1].category == "end" and not any(event.category == "command" for event in kept) and ends_unborn(kept)


def ran_since(events: Sequence[Event], retried: RunRetried | None = None) -> list[CommandEvent]:
    """
    What the failure of the run of *events* led to, and a retry would forget: refunds, messages. See `aftermath`.

    *retried*: what `reopened` made of the same events, if that is known.
    """
    retried = retried or reopened(events, 0.0)
    return aftermath.led_to(effective(events)[0], retried.cut, retried.kept, retried.positions)


def failed_outcomes(events: Sequence[Event]) -> list[Event]:
    """The outcomes that made the run of *events* fail; none if its own code raised."""
    failure = _failure(events)
    positions = () if failure is None else failure.positions
    return [event for event in events if event.position in positions and _can_fail(event)]


def _failure(events: Sequence[Event]) -> RunFailed | None:
    return next(only(reversed(events), RunFailed), None)


@light_frozen
class OpenWaits:
    """What a run waits for, as its events imply it: each by the position of its command."""

    #: Timers, retry delays, signals and callbacks, each a row of its own group.
    timers: dict[str, Wait] = field(factory=dict)
    #: Seconds for which callbacks may be silent.
    heartbeats: dict[str, float] = field(factory=dict)
    #: Ids of the children whose end is awaited.
    children: dict[str, str] = field(factory=dict)
    #: (limit, key) of the slots that steps wait for.
    slots: dict[str, tuple[str, str]] = field(factory=dict)


def open_waits(events: Sequence[Event]) -> OpenWaits:
    """What the run of *events* waits for behind the last of them."""
    found = OpenWaits()
    timers, children, slots = found.timers, found.children, found.slots
    names: dict[str, str] = {}
    for event in effective(events)[0]:
        match event:
            case TimerSet():
                # That of a timeout only ends what lasts too long, whatever the code calls it.
                name = event.name if event.name == "timeout" else event.called
                timers[event.position] = Wait(event.position, "timer", event.position, name=name, fire_at=event.fire_at)
            case SignalAwaited():
                asked_for: WaitKind = "request" if event.answers else "signal"
                timers[event.position] = Wait(
                    event.position, asked_for, event.position, name=event.name, fire_at=event.fire_at
                )
            case CallbackOpened():
                timers[event.position] = Wait(
                    event.position, "callback", event.position, name=event.name, fire_at=event.fire_at
                )
                if event.heartbeat is not None:
                    found.heartbeats[event.position] = event.heartbeat
            case CallbackCompleted() | CallbackFailed() | HeartbeatMissed():
                timers.pop(event.position, None)
                found.heartbeats.pop(event.position, None)
            case StepRetrying() | StepSnoozed():
                timers[event.position] = Wait(
                    event.position, "retry", event.position, name=names.get(event.position), fire_at=event.fire_at
                )
            case TimerFired() | StepFailed():
                timers.pop(event.position, None)
                found.heartbeats.pop(event.position, None)
            case StepSucceeded():
                timers.pop(event.position, None)
                slots.pop(event.position, None)
            case ChildStarted():
                if event.awaited:
                    children[event.position] = event.run_id
            case ChildAwaited():
                children[event.position] = event.run_id
            case ChildJoined():
                if event.position in children:
                    children[event.position] = event.run_id
            case ChildSucceeded() | ChildFailed() | ChildCancelled():
                children.pop(event.position, None)
            case SlotAwaited():
                slots[event.position] = event.limit, event.key
                names[event.position] = event.name
            case StepStarted() | TransactionStarted():
                names[event.position] = event.name
            case SlotGranted() | StepCancelled() | StepStopped():
                slots.pop(event.position, None)
            case (
                StepInterrupted()
                | StepNotBegun()
                | OutcomeResolved()
                | GroupOpened()
                | FeedOpened()
                | GroupArranged()
                | RunWide()
            ):
                pass
            case SignalSent() | CancelAsked() | RequestAccepted() | RequestRefused():  # answered where it is recorded
                pass
            case CallbackAwaited():  # its callback is what arrives
                pass
            case ReplySent():  # done with that
                pass
            case CancelSent():  # what it waits for then is its end
                pass
            case _:
                assert_never(event)
    return found


def fork(events: Sequence[Event], *, run_id: str, at: str, replace: Mapping[str, Payload], now: float) -> list[Event]:
    """
    The history of a new run that continues from position *at* of *events*, those of *run_id*.

    What was recorded before the command at *at* is copied, with the outcomes in *replace*
    (position to encoded value) in place of the recorded ones. If *replace* has *at* itself, what was
    recorded before its outcome is copied: its command, and what other strands did meanwhile.

    Raises:
        UsageError: If a position was never asked for, or is of a command whose outcome cannot be given.
    """
    kept, _ = effective(events)
    commands = {event.position: event for event in reversed(kept) if event.category == "command"}
    if at not in commands and not (at == "0" and not commands):  # one that has not begun has no position 0 yet
        raise UsageError(_no_such_position(kept, at))
    index = kept.index(commands[at]) if commands else 1
    if at in replace:
        index = next((i for i in range(index + 1, len(kept)) if _is_over(kept[i], at)), len(kept))
    # A feed is the other run's; so is the timer that its next attempt waited for.
    copied: list[Event] = [
        event for event in cut_at(kept, index) if event.position != "" and not isinstance(event, FeedOpened)
    ]
    unanswered = _unanswered(copied)
    copied = [event for event in copied if event.position not in unanswered]
    for position, value in replace.items():
        command = commands.get(position)
        if command is None or command not in copied:
            raise UsageError(_no_such_position(copied, position))
        copied = _with_outcome(copied, command, value, now)
    return [*copied, RunForked(run_id, at, now)]


def _is_over(event: Event, position: str) -> bool:
    """Whether from *event* on the command at *position* is not open any more, or the run is to end."""
    if event.position == position:
        return event.outcome in ("succeeded", "failed", "cancelled")
    return event.category == "end" or ends_unborn([event])


def _with_outcome(events: list[Event], command: CommandEvent, value: Payload, now: float) -> list[Event]:
    """*events* with one outcome for *command*, where its recorded one stands (else at the end)."""
    match command:
        case StepStarted() | SlotAwaited() | TransactionStarted():
            outcome: StepSucceeded | ChildSucceeded | CallbackCompleted = StepSucceeded(command.position, value, now)
        case ChildStarted(awaited=True) | ChildAwaited():
            outcome = ChildSucceeded(command.position, value, now)
        case CallbackOpened():
            outcome = CallbackCompleted(command.position, value, now)
        case (
            ChildStarted() | GroupOpened() | TimerSet() | SignalAwaited() | SignalSent() | CancelAsked()
            | CallbackAwaited() | ReplySent()
        ):  # fmt: skip
            msg = f"only outcomes of steps, transactions, children and callbacks can be replaced, found {command!r:.80}"
            raise UsageError(msg)
        case _:
            assert_never(command)
    changed: list[Event] = []
    place = len(events)
    for event in events:
        if event is command or event.position != outcome.position:
            changed.append(event)
        elif event.category == "arrival":
            place = len(changed)
    changed.insert(place, outcome)
    return changed


def _no_such_position(events: Sequence[Event], at: str) -> str:
    known = [event.position for event in events if event.category == "command"]
    return f"position {at} is not before a recorded command of this run; recorded are {', '.join(known[:20]) or 'none'}"
