"""
What a turn decides: events to record, and what the shell must do once they are on disk.

Plain values. `Execution.advance` returns one `Decision`; everything in it is written in one
transaction, and only then do its actions begin ("record first, act second").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from durable._core.codec.codec import Payload
from durable._core.journal.events import Event, GroupArranged, LaterAttempt, NowRead, PatchMarked, TurnUnfinished
from durable._core.journal.waits import Wait, WakeOn
from durable._core.light_frozen import light_frozen
from durable._core.light_tuples import NamedTuple
from durable._core.policies.caps import Caps
from durable._core.policies.limits import LimitRef
from durable._core.program.ops import RunOp, StepOp, TransactionOp
from durable._core.program.progress import Progress
from durable._core.statuses import EndStatus
from durable.errors import CapExceededError

T = TypeVar("T")
K = TypeVar("K")

#: Events, or what stands with them, that are looked at in one stretch: a millisecond.
LOOKED_AT_ONCE: Final = 1_000


def added(items: Sequence[T], item: T) -> Sequence[T]:
    """
    *items* and *item*, in place where *items* is a list already: one turn may open 10,000 commands.

    What few turns have is an empty tuple until it is needed. A decision is made for every turn, and seven lists more
    would each be an object that the garbage collector counts and visits: measured, a job costs 3.5 % more with them.
    """
    if isinstance(items, list):
        items.append(item)
        return items
    return [*items, item]


class _Nothing(dict[Any, Any]):
    """A dictionary that stays empty."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("this is everybody's: see `entered`")


#: What few runs have: each of the dictionaries of an active run takes 64 bytes, also where there is nothing in it.
NOTHING: Final[dict[Any, Any]] = _Nothing()


def entered(mapping: dict[K, T], key: K, value: T) -> dict[K, T]:
    """*mapping* with *value* for *key*: in place, unless it is `NOTHING`."""
    if mapping is NOTHING:
        return {key: value}
    mapping[key] = value
    return mapping


def removed(items: Sequence[T], item: T) -> bool:
    """Whether *item* was among *items*: it no longer is."""
    if isinstance(items, list) and item in items:
        items.remove(item)
        return True
    return False


@light_frozen
class StepAction:
    """Run one attempt of a step."""

    position: str
    attempt: int
    failures: int
    first_started_at: float
    op: StepOp[Any]
    #: Deaths of the process that count for the step, see `suspicion`.
    crashes: int = 0


@light_frozen
class SlotAction:
    """Ask for a slot of *limit* under *key*; the grant comes as an arrival."""

    position: str
    limit: LimitRef
    key: str


@light_frozen
class TransactionAction:
    """Run a transaction: its outcome and the turn which that causes commit with this decision."""

    position: str
    attempt: int
    failures: int
    first_started_at: float
    op: TransactionOp[Any]


@light_frozen
class ChildAction:
    """Create a run; *position* is where its parent asked for it."""

    position: str
    run_id: str
    op: RunOp[Any]
    #: As `Codec.encode_arguments` made them.
    arguments: Payload
    awaited: bool
    #: Whether it is cancelled once its parent has ended; one that is awaited ends with the wait for it.
    ends_with_parent: bool = False
    #: Its idempotency key, and the key of its limit.
    keys: tuple[str | None, str] = (None, "")


@light_frozen
class SignalAction:
    """Send a signal to another run, once under *dedup*; the answer comes as an arrival."""

    position: str
    run_id: str
    name: str
    payload: Payload
    dedup: str


@light_frozen
class CancelAction:
    """Ask another run to end; the answer comes as an arrival."""

    position: str
    run_id: str
    reason: str


class ReplyAction(NamedTuple):
    """Answer a request; its asker may be gone."""

    #: Its id.
    request: str
    #: The answer; the reason, if it is *refused*.
    payload: Payload
    refused: bool


class FedChild(NamedTuple):
    """A child that a `for_each` starts once its window has room."""

    #: Which item of the `for_each` it is for.
    item: int
    run_id: str
    #: As `Codec.encode_arguments` made them.
    arguments: Payload


@light_frozen
class Feed:
    """
    The later items of a `for_each` with a window: each success of a child starts the next one.

    The file does that, in the transaction of the success, so that a parent of 10,000 children is replayed
    once and not at the end of each.
    """

    #: Of the `for_each`.
    position: str
    window: int
    group: str
    wake_on: WakeOn
    #: The call of some item; the others differ in their arguments.
    op: RunOp[Any]
    children: list[FedChild]
    #: Failures of children that do not stop it; None: the first does.
    tolerate: int | None = None


@light_frozen
class FailedAttempt:
    """An attempt of a step, transaction or job that failed in this turn, for observers."""

    position: str
    step: str
    attempt: int
    #: As in the event that records it.
    failure: Payload | None
    #: When the next attempt begins; None if this was the last one.
    retry_at: float | None


class TroubledStep(NamedTuple):
    """A step that was told to end: it was abandoned, or its clean-up failed."""

    position: str
    step: str
    attempt: int
    abandoned: bool
    failure: Payload | None


class LogEntry(NamedTuple):
    """What `durable.logger` was given."""

    #: Of the logger's methods.
    level: str
    event: str
    values: dict[str, Any]


class Decision:
    """
    The outcome of one turn.

    One is made for every turn, and nearly all have nothing but events, steps that begin, and an end. Only these are set
    when it is made; what few turns have is of the class until somebody sets it.
    """

    __slots__ = ("__dict__", "ended", "events", "outcome", "reason", "steps")

    #: To append, in this order: accepted arrivals, each followed by what it caused.
    events: list[Event]
    steps: list[StepAction]
    ended: EndStatus | None
    #: The outcome, as in the closing event: the value, the failure, or None.
    outcome: Payload | None
    reason: str

    # What few turns have grows by `added`.
    transactions: Sequence[TransactionAction] = ()
    #: Slots to ask for, and positions whose slot (or place in line) is given up.
    slots: tuple[SlotAction, ...] = ()
    slots_released: tuple[str, ...] = ()
    children: Sequence[ChildAction] = ()
    #: What is asked of other runs.
    requests: Sequence[SignalAction | CancelAction] = ()
    #: Answers to what was asked of this run.
    replies: Sequence[ReplyAction] = ()
    #: Positions of running steps to cancel.
    cancelled_steps: Sequence[str] = ()
    #: Ids of child runs to cancel.
    cancelled_children: Sequence[str] = ()
    #: Cancel every child of earlier turns that has not ended, awaited or not.
    cancel_all_children: bool = False
    feeds: tuple[Feed, ...] = ()
    #: Positions of `for_each`es whose children are to be cancelled, those included that only the file knows of.
    feeds_closed: tuple[str, ...] = ()
    #: Ids of the children that these would start next. The file may have, because of ends that were not known when they
    #: were closed: then the turn is to be made again, behind those ends.
    feeds_next: tuple[str, ...] = ()
    waits: Sequence[Wait] = ()
    waits_closed: Sequence[Wait] = ()
    #: Waits for children that are cancelled with this turn, and are waited for until they have ended.
    waits_ending: Sequence[Wait] = ()
    attributes: dict[str, Any] | None = None
    #: What the code emitted: (stream, position, value); and its latest progress.
    emitted: Sequence[tuple[str, str, Payload]] = ()
    progress: Progress | None = None
    #: Whether what the run had done is being undone, by a saga; False if it begins anew; None: as before.
    compensated: bool | None = None
    #: Those that this turn took in; none of them is news in a replay.
    failed_attempts: tuple[FailedAttempt, ...] = ()
    #: Steps that were told to end, and did not in time, or whose clean-up failed.
    troubled: Sequence[TroubledStep] = ()
    #: To be logged once this is on disk.
    logs: Sequence[LogEntry] = ()
    continued: ChildAction | None = None
    #: Why the run cannot proceed without a person, if so.
    blocked: str | None = None

    def __init__(
        self,
        events: list[Event] | None = None,
        steps: list[StepAction] | None = None,
        *,
        ended: EndStatus | None = None,
        outcome: Payload | None = None,
        reason: str = "",
        **rest: Any,
    ) -> None:
        self.events = [] if events is None else events
        self.steps = [] if steps is None else steps
        self.ended = ended
        self.outcome = outcome
        self.reason = reason
        for name, value in rest.items():
            if name not in _SELDOM:
                msg = f"a decision has no {name}"
                raise TypeError(msg)
            setattr(self, name, value)

    def __repr__(self) -> str:
        slots = {name: getattr(self, name) for name in _ALWAYS}
        return f"Decision({', '.join(f'{name}={value!r}' for name, value in (slots | vars(self)).items())})"

    def is_plain(self) -> bool:
        """Whether nothing was set but events, steps that begin, and an end."""
        return not self.__dict__

    def starts(self, position: str) -> bool:
        """Whether an attempt at *position* is to begin with this turn."""
        return any(step.position == position for step in self.steps) or any(
            transaction.position == position for transaction in self.transactions
        )

    def release_slot(self, position: str) -> None:
        """Give up the slot of *position*, or its place in line: one that was asked for just now, too."""
        self.withdraw_slot(position)
        self.slots_released += (position,)

    def withdraw_slot(self, position: str) -> None:
        """Ask for no slot for *position*."""
        if self.slots:
            self.slots = tuple(action for action in self.slots if action.position != position)

    def drop_attempt(self, position: str) -> bool:
        """Start nothing at *position*; whether something was to start there."""
        begun = len(self.steps) + len(self.transactions)
        self.steps = [action for action in self.steps if action.position != position]
        if self.transactions:
            self.transactions = [action for action in self.transactions if action.position != position]
        return len(self.steps) + len(self.transactions) < begun


#: What every decision has, and what few have, with what the others have instead.
_ALWAYS: Final = ("events", "steps", "ended", "outcome", "reason")
_SELDOM: Final = {name: vars(Decision)[name] for name in Decision.__annotations__ if name not in _ALWAYS}
#: The names of all that a decision may have.
FIELDS: Final = (*_ALWAYS, *_SELDOM)


class _Undecided(Decision):
    def __setattr__(self, name: str, value: object) -> None:
        if name in _SELDOM:
            msg = f"{name} of a run that is between two turns: nothing is decided there"
            raise TypeError(msg)
        super().__setattr__(name, value)


#: Between the turns of a run, which may be long: it says nothing, and nothing can be added to it.
UNDECIDED: Final[Decision] = _Undecided(events=(), steps=())  # type: ignore[arg-type]  # so that whoever tries is told


def grown(caps: Caps, run_id: str, size: int, decision: Decision, *, remedy: str = "End it with continue_as") -> int:
    """
    The size of a history of *size* events once *decision* is recorded, which then warns where it is long.

    Raises:
        CapExceededError: If it may not grow that long; *remedy* says what its author can do.
    """
    size_then = size + len(decision.events)
    if size_then > caps.events:
        raise CapExceededError(
            f"run {run_id!r}", "number of events", size_then, caps.events, f"{remedy}, or raise the cap"
        )
    if size_then >= caps.events_warning > size:
        entry = LogEntry("warning", "run.history_is_long", {"events": size_then, "run_id": run_id})
        decision.logs = added(decision.logs, entry)
    return size_then


def in_parts(decision: Decision, size: int, rows_of_child: int, at: float) -> Iterator[list[Decision] | None]:
    """
    *decision*, as decisions that are recorded one after another if it opens very much at once; else itself.

    They come last, after a None for each thousand events that were looked at: the event loop is the user's, too.

    A process that dies in between leaves the beginning of what was opened, and the replay opens the rest. So nothing
    but openings is set apart, behind all that arrived, each with its wait; and all stays in one if there is anything
    that a replay would not do again.

    Args:
        decision: Of one turn.
        size: Rows in a part, about.
        rows_of_child: How many rows the start of a child counts for, which is a run of its own.
        at: When the turn was taken.
    """
    events = decision.events
    if len(events) + rows_of_child * len(decision.children) <= size or not _only_opens(decision):
        yield [decision]
        return
    behind = len(events)
    while behind and _is_opening(events[behind - 1]):
        behind -= 1
        if not behind % LOOKED_AT_ONCE:
            yield None
    runs: dict[str, ChildAction] = {}
    for child in decision.children:
        runs[child.position] = child
        if not len(runs) % LOOKED_AT_ONCE:
            yield None
    steps: dict[str, StepAction] = {}
    for step in decision.steps:
        steps[step.position] = step
        if not len(steps) % LOOKED_AT_ONCE:
            yield None
    waits: dict[str, list[Wait]] = {}
    for number, wait in enumerate(decision.waits):
        waits.setdefault(wait.position, []).append(wait)
        if not number % LOOKED_AT_ONCE:
            yield None
    closed = {wait.position for wait in decision.waits_closed}
    apart: dict[str, Any] = {"children": (), "waits": (), "logs": ()}
    part = Decision(ended=decision.ended, outcome=decision.outcome, reason=decision.reason, **vars(decision) | apart)
    parts = [part]
    room = size
    for number, event in enumerate(events):
        if not number % LOOKED_AT_ONCE:
            yield None
        position = event.position or ""
        if number >= behind:
            if position in closed:
                yield [decision]
                return
            if room <= 0:
                part.events.append(TurnUnfinished(at))
                part = Decision()
                parts.append(part)
                room = size
        part.events.append(event)
        room -= 1
        if position in runs:
            part.children = added(part.children, runs.pop(position))
            room -= rows_of_child
        if position in steps:
            part.steps.append(steps.pop(position))
        for wait in waits.pop(position, ()) if position else ():
            part.waits = added(part.waits, wait)
    if runs or steps or waits:  # of what was opened before, or of the whole run
        yield [decision]
        return
    part.logs = decision.logs
    yield parts


def _is_opening(event: Event) -> bool:
    """Whether replay opens it again, or notes it of what it opens."""
    if event.category == "command":
        return not (isinstance(event, LaterAttempt) and event.attempt > 1)
    return isinstance(event, (NowRead, PatchMarked, GroupArranged))


#: What may be set in a decision that is recorded in parts; with anything else, a new field too, it stays whole.
_IN_PARTS: Final = {"events", "steps", "children", "waits", "waits_closed", "failed_attempts", "logs"}


def _only_opens(decision: Decision) -> bool:
    """Whether *decision* does nothing else of which it matters when it is recorded."""
    if decision.ended is not None or decision.outcome is not None or decision.reason:
        return False
    for name, value in vars(decision).items():
        default = _SELDOM[name]
        # of what is None by default, False says something
        if name not in _IN_PARTS and (value if default is not None else value is not None):
            return False
    return True
