"""
Runs and turns as the rows they become, and a run's events back from theirs.

Everything here is made on the event loop, before the one hop to the writer's thread: encoding
is spread over turns, and the transaction itself only inserts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast
from zlib import crc32

from attrs import evolve, field

from durable._core.admission import Queue
from durable._core.codec.codec import Payload
from durable._core.codec.records import Instant, Seconds
from durable._core.codec.rules.classes import KEY
from durable._core.journal.columns import from_row, to_row
from durable._core.journal.events import Event, RunArrival, RunStarted
from durable._core.light_frozen import light_define, light_frozen
from durable._core.light_tuples import NamedTuple
from durable._core.policies.retry import RecordedRetry
from durable._core.program.definition import OnConflict
from durable._core.run.decision import Decision, FailedAttempt, Feed
from durable._core.statuses import EndStatus, HeldStatus
from durable._shell.rows.checksums import BELOW_OLDER, checksum, older_checksum, pack_numbers
from durable._shell.rows.engine_events import EventName
from durable._shell.rows.said import Said
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.storage.bulk import NULL
from durable.errors import JournalCorruptError

#: Payloads from this size on are kept once, by content, in a table of their own. Below it the
#: digest and the second row cost more than they save; a page holds 4,096 bytes.
LARGE_BYTES = 2_048

C = TypeVar("C")
#: All that a group causes that writes turns of which nothing more comes.
_OF_TURNS: Final = frozenset({"turns"})


@light_frozen
class Large:
    """A payload that goes to the table of large ones."""

    value: Payload
    digest: bytes


def stored(value: Payload | None) -> Payload | Large | None:
    """*value*, or `Large` if it is to be kept by content."""
    if value is None or len(value) < LARGE_BYTES:
        return value
    return Large(value, payload_digest(value))


def payload_digest(value: Payload) -> bytes:
    """By which a large payload is found."""
    return hashlib.blake2b(value.encode() if isinstance(value, str) else value, digest_size=32).digest()


#: run, seq, kind, position, at, body, value (or `Large`), checksum; where there is none of them, `NULL`.
EventTuple: TypeAlias = tuple[int, int, int, str | float, float, str | float, Any, int]
#: The number of the event behind the one with which a run starts.
BEHIND_FIRST: Final = 2


@light_define
class RunState:
    """What the shell keeps of a run while it is active."""

    run: int
    run_id: str
    workflow: str
    queue: str
    #: Sequence number of its newest event, and that event's checksum.
    seq: int = 0
    chain: int = 0
    labels: Mapping[str, str] = field(factory=dict)
    #: The batch that it is a member of, and the one that it is a callback of.
    batch: int | None = None
    callback: int | None = None
    #: Their ids, and those of the batches around them, once a step needs them.
    batches: tuple[str, ...] = ()
    #: The context variables that its steps see, as recorded.
    carried: str = ""

    def append(self, events: Sequence[Event]) -> list[EventTuple]:
        """The rows of *events*, numbered and chained after what is recorded."""
        rows: list[EventTuple] = []
        run, seq, chain = self.run, self.seq, self.chain
        for event in events:
            kind, position, body, value = to_row(event)
            at = event.at
            kept: Any = NULL
            # As `checksum` does, but not by a call: each step and each job comes here.
            if value is None:
                chain = crc32(f"{position}|{body}".encode(), crc32(pack_numbers(kind, at), chain)) - BELOW_OLDER
            elif type(value) is str and len(value) < LARGE_BYTES:
                kept = value
                chain = crc32(f"{position}|{body}|{value}".encode(), crc32(pack_numbers(kind, at), chain)) - BELOW_OLDER
            else:
                kept = stored(value)
                chain = checksum(chain, kind, position, at, body, value)
            seq += 1
            placed = NULL if position is None else position
            rows.append((run, seq, kind, placed, at, NULL if body is None else body, kept, chain))
        self.seq, self.chain = seq, chain
        return rows


def read_events(path: str, state: RunState, rows: Sequence[Sequence[Any]]) -> list[Event]:
    """
    The events in *rows* (seq, kind, position, at, body, value, checksum), checked against their chain.

    Leaves the sequence and chain of *state* at the last of them.

    Raises:
        JournalCorruptError: At the first event that is missing or does not match.
    """
    events: list[Event] = []
    state.seq, state.chain = read_more_events(path, state.run_id, rows, 0, 0, events)
    return events


def read_more_events(
    path: str, run_id: str, rows: Sequence[Sequence[Any]], expected: int, chain: int, events: list[Event]
) -> tuple[int, int]:
    """As `read_events`, of rows behind event number *expected*, into *events*; the sequence and chain of the last."""
    for seq, kind, position, at, body, value, recorded in rows:
        expected += 1
        if seq != expected:
            raise JournalCorruptError(path, run_id, expected, f"event {expected} is missing")
        if recorded != checksum(chain, kind, position, at, body, value) and (
            recorded != older_checksum(chain, kind, position, at, body, value)
        ):
            raise JournalCorruptError(path, run_id, expected, "it does not match its checksum")
        chain = recorded
        events.append(from_row(kind, position, body, value, at))
    return expected, chain


def labels_json(labels: Mapping[str, str]) -> str | None:
    """Labels of a run or batch as they are stored."""
    return json.dumps(dict(labels), ensure_ascii=False, sort_keys=True) if labels else None


@light_frozen
class SentSignal:
    """A signal as it is sent."""

    name: str
    payload: Payload | None = None


@light_frozen
class NewRun:
    """A run to be created."""

    run: int
    run_id: str
    workflow: str
    version: int
    #: Its key is that of the releases before it was called so: journals hold such runs.
    kind: str = field(metadata={KEY: "sort"})
    queue: str
    priority: int
    key: str | None
    #: Digest of the workflow's name and arguments.
    arguments: str
    labels: Mapping[str, str]
    started: RunStarted
    #: When it may begin, if later than now.
    due_at: Instant | None = None
    #: What releases before schema 4 wrote of its *timeout*, which then counted from the start; of no use.
    deadline: Instant | None = None
    #: Of a workflow: from when it first begins. Of a job: of each attempt, where it differs from its definition's.
    timeout: Seconds | None = None
    parent: int | None = None
    position: str | None = None
    on_conflict: OnConflict = "join"
    #: Whether its id was chosen by the caller.
    chosen_id: bool = False
    #: Seconds for which the key is its own, from when it begins; None is for ever.
    key_ttl: Seconds | None = None
    #: Seconds from its start (whenever that comes, for one kept as a template) before it may begin.
    delay: Seconds | None = None
    #: Its place in line, see `admission`.
    place: float = 0.0
    #: Its own retry policy, as `retry.recorded` writes it.
    retry: RecordedRetry | None = None
    #: Templates of the runs that its success starts.
    follow_ups: tuple[NewRun, ...] = ()
    #: Run whose end started it.
    follows: int | None = None
    #: Batch that it is a member of, and batch that it is a callback of.
    batch: int | None = None
    callback: int | None = None
    #: Runs that must have ended before it begins.
    behind: tuple[int, ...] = ()
    #: Limit and key of which the run itself may have to hold a slot, see `creating.insert_run`.
    limit: str | None = None
    limit_key: str = ""
    #: Seconds from its start, and the instant, by which it must have begun.
    expires: Seconds | None = None
    expires_at: Instant | None = None
    #: What is sent to it with its start; or to the run that it turns out to be.
    signals: tuple[SentSignal, ...] = ()

    @property
    def may_exist(self) -> bool:
        """Whether it may turn out to be a run that exists: by its key, or its chosen id."""
        return self.key is not None or self.chosen_id

    @property
    def may_be_refused(self) -> bool:
        """Whether another run, or a limit, may stand in its way: then it is created by itself, and may be joined."""
        return self.key is not None or self.chosen_id or self.limit is not None or bool(self.signals)

    @property
    def waits_to_begin(self) -> bool:
        """Whether it may be long after its creation that it begins, or what it begins with may come with that."""
        return (
            self.run <= 0 or self.due_at is not None or bool(self.behind) or self.limit is not None
            or bool(self.signals) or self.on_conflict == "coalesce"
        )  # fmt: skip

    def following(self, run: int) -> NewRun:
        """A copy that the end of *run* starts."""
        return evolve(self, follows=run)


@light_define(kw_only=True)
class ReadyRun(RunState):
    """A run that could proceed: what the scheduler needs to choose among them, and then what its driver keeps of it."""

    kind: str
    priority: int
    ready_at: float
    #: Its place in line, see `admission`.
    place: float = 0.0
    #: The runs that its success starts, as `templates` writes them.
    follow_ups: str | None = None
    #: Its own retry policy, as `retry.recorded` writes it.
    retry: str | None = None
    #: As in `NewRun`.
    timeout: float | None = None
    expires_at: float | None = None
    #: Whether it was active before: a queue's rate does not count it again.
    begun: bool = False
    #: What is wrong with its row, so that it is blocked rather than driven.
    damage: str = ""
    #: Its first event and checksum, where it was only just created and needs no loading; until they are taken.
    fresh: tuple[RunStarted, int] | None = None


def ready_run(new: NewRun, follow_ups: str | None, rows: list[EventTuple]) -> ReadyRun:
    """
    *new*, as it may be driven once it is created; the row of its first event is added to *rows*.

    *follow_ups* are its own, as `templates` writes them.
    """
    ready = ReadyRun(
        new.run,
        new.run_id,
        new.workflow,
        new.queue,
        labels=new.labels,
        batch=new.batch,
        callback=new.callback,
        kind=new.kind,
        priority=new.priority,
        ready_at=new.started.at,
        place=new.place,
        follow_ups=follow_ups,
        retry=new.retry,
        timeout=new.timeout,
        expires_at=new.expires_at,
    )
    rows += ready.append((new.started,))
    ready.fresh = new.started, ready.chain
    return ready


@light_frozen
class Notice:
    """What a turn did that only those hear of who look on: middleware, and readers of `engine.events()`."""

    name: EventName
    run: int
    run_id: str
    workflow: str
    failed: FailedAttempt | None = None
    #: Of a step, and of a signal.
    step: str | None = None
    position: str | None = None
    attempt: int | None = None
    about: str | None = None
    transaction: bool = False


@light_frozen
class NewFeed:
    """A feed to be opened."""

    feed: Feed
    template: NewRun
    #: Run numbers of the children to come.
    numbers: Sequence[int]


@light_frozen
class DroppedNotes:
    """Notes (cursors, memos) that no attempt can ask for any more."""

    #: Of the steps at these positions; or of all.
    positions: Sequence[str]
    #: Positions of steps that have succeeded: their memos are kept for people.
    succeeded: Sequence[str] = field(kw_only=True)
    #: Whether the run has ended, and nobody will retry it: only what was kept stays.
    ended: bool = field(kw_only=True)
    everything: bool = field(kw_only=True)


class TurnWrite:
    """
    One turn, ready to be written: what was decided, and what was made of that on the event loop.

    As a `Decision`, it is made with what every turn has; what few have is of the class until somebody sets it.
    """

    __slots__ = (
        "__dict__", "at", "begins", "decision", "events", "inbox_upto", "is_plain", "is_usual", "notices_of", "state",
        "status",
    )  # fmt: skip

    state: RunState
    at: float
    decision: Decision
    #: Those of the decision, as rows.
    events: Sequence[EventTuple]
    #: The newest inbox item that this turn took in; it and those before it are done with.
    inbox_upto: int
    #: What the run is from now on; None if that stays as it is.
    status: Literal["running", "waiting", "blocked"] | EndStatus | None
    #: Whether the run has begun with it.
    begins: bool
    #: What to tell of it to those who look on when it is on disk: some may have begun to after it was decided.
    notices_of: Callable[[TurnWrite], Iterable[Notice]] | None
    #: Whether its decision is known to be plain.
    is_plain: bool
    #: Whether it is known to be but rows of events, behind others of its run: as most turns that begin or end a step.
    is_usual: bool

    #: Of a workflow that begins with this turn: when the time of the whole run is over.
    deadline: float | None = None
    notes: DroppedNotes | None = None
    #: Those of the decision, as runs and with the numbers of runs.
    children: Sequence[NewRun] = ()
    feeds: Sequence[NewFeed] = ()
    #: Makes the payload of a failure, for a child whose key is refused.
    refusal: Callable[[Exception], Payload] | None = None
    #: Numbers of those limits that the opening did not know.
    limits: Sequence[Sequence[Any]] = ()
    #: For a block: positions of the attempts that continue all the same; None: of all that have begun.
    under_way: Collection[str] | None = None
    #: Merges what the workflow published into what is stored.
    attributes: Callable[[Payload | None], Payload] | None = None
    #: What the code itself has said.
    said: Sequence[Said] = ()
    #: Positions of steps that are given up while their function runs on in a thread, and whether each is a job's.
    outlasting: Sequence[tuple[str, bool]] = ()
    #: What the run, or this attempt of it, takes in no more: for the next attempt, its successor, or to be kept.
    unconsumed: Sequence[RunArrival] = ()
    #: It is written only if there are no such runs, see `Decision.feeds_next`.
    feeds_next: Sequence[str] = ()

    def __init__(
        self,
        state: RunState,
        at: float,
        decision: Decision,
        events: Sequence[EventTuple] = (),
        inbox_upto: int = 0,
        status: Literal["running", "waiting", "blocked"] | EndStatus | None = None,
    ) -> None:
        self.state = state
        self.at = at
        self.decision = decision
        self.events = events
        self.inbox_upto = inbox_upto
        self.status = status
        self.notices_of = None
        self.begins = self.is_plain = self.is_usual = False


class LastTurn(TurnWrite):
    """The turn with which a run ends, and what that end starts."""

    __slots__ = ("allocate",)

    #: Gives numbers to the callbacks of its batch.
    allocate: Callable[[], int]
    follow_ups: Sequence[NewRun] = ()
    broken_hooks: Sequence[BrokenHook] = ()
    #: The run as which it continues.
    successor: NewRun | None = None
    #: Signals of its history that nobody consumed: how many of each name.
    unread: Mapping[str, int] = MappingProxyType({})
    #: Whether it is written only if no signal of another name waits in the inbox, for which the code may still ask.
    listens: bool = False


class InboxItem(NamedTuple):
    """Something that arrived for a run, and that no turn has taken in yet."""

    #: Its number: items arrive in this order.
    item: int
    event: Event


class RunResult(NamedTuple):
    """How a run ended."""

    status: str
    #: The value, or the failure.
    payload: Payload | None
    reason: str


class Ended(NamedTuple):
    """A run that ended with a commit group."""

    run: int
    run_id: str
    workflow: str
    status: str
    #: None where it continues as another run; else those who wait need not read it.
    outcome: RunResult | None
    #: Signals that nobody had asked for: how many of each name.
    unread: Mapping[str, int]


class Stopped(NamedTuple):
    """A run that was paused or blocked."""

    status: HeldStatus
    run_id: str
    workflow: str


class BrokenHook(NamedTuple):
    """A hook that went wrong when its run ended."""

    hook: str
    error: str


class ChangedQueue(NamedTuple):
    """A queue whose numbers were changed."""

    #: None where those of the code hold again.
    numbers: Queue | None
    #: When its latest runs began, for a rate.
    starts: list[float]


class Refused(NamedTuple):
    """A follow-up that could not be started."""

    #: Of the run that ended.
    run_id: str
    error: str


class Damaged(NamedTuple):
    """Something whose rows say what cannot be: it is left alone, told, and in nobody's way."""

    what: Literal["run", "schedule", "batch", "limits", "queue", "key"]
    #: Its name or id.
    of: str
    error: str


class BatchNews(NamedTuple):
    """What became of a batch: its first member failed, all have ended, or their callbacks, too."""

    name: Literal["failed", "complete", "finished"]
    batch_id: str


class _Made(Generic[C]):
    """Makes a container when it is asked for first, and leaves it in the instance, where it is found from then on."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, effects: Effects, owner: type) -> C:
        found = vars(effects)[self._name] = self._make()
        return found


def _made(make: Callable[[], C]) -> C:
    """A field that is made when it is asked for first."""
    return cast("C", _Made(make))


class Effects:
    """
    What a commit group caused, for the loop to act on once it is on disk.

    Each step of a run alone makes one, and of nearly all that it may hold there is nothing.
    """

    ready: list[ReadyRun] = _made(list)
    #: Runs that this created with their first turns: their drivers were waiting for it.
    begun: set[int] = _made(set)
    #: Active runs that have something new in their inbox.
    arrived: set[int] = _made(set)
    #: Runs of which there is other news than a turn: what they said.
    changed: set[int] = _made(set)
    #: Runs that were paused.
    paused: set[int] = _made(set)
    #: Runs that were paused or blocked, for observers.
    stopped: list[Stopped] = _made(list)
    #: Runs that are to end before they began: they need no slot for that.
    unborn: list[ReadyRun] = _made(list)
    #: Runs cancelled while they were paused: nobody waits for the steps that a pause let run to their end.
    given_up: set[int] = _made(set)
    ended: list[Ended] = _made(list)
    #: Runs whose turn wanted to free them, but something had arrived.
    kept: set[int] = _made(set)
    #: Runs whose turn is to be made again: it would have ended them with unread signals in the inbox, it is their
    #: first and was made from arguments that were replaced, or it closes a feed that has started more children than
    #: it knows. Nothing of it was written.
    listening: set[int] = _made(set)
    refused: list[Refused] = _made(list)
    #: Runs that published attributes which cannot be kept, and why.
    unpublished: list[tuple[str, str]] = _made(list)
    #: Runs of which hooks are to be called again.
    hooks: list[int] = _made(list)
    #: Turns that were written.
    turns: list[TurnWrite] = _made(list)
    #: What there is to tell of them, once that was asked for.
    notices: list[Notice] = _made(list)
    #: What code has said of itself.
    said: list[Said] = _made(list)
    #: Ids of the requests into runs that were answered.
    answered: list[str] = _made(list)
    batches: list[BatchNews] = _made(list)
    damaged: list[Damaged] = _made(list)
    #: Queues whose numbers were changed.
    changed_queues: dict[str, ChangedQueue] = _made(dict)
    #: Queues that were paused (True) or resumed.
    queues: dict[str, bool] = _made(dict)
    #: Schedules that were written, by name, as they then stand; None where one was deleted.
    schedules: list[tuple[str, ScheduleRow | None]] = _made(list)
    next_fire_at: float | None = None

    def add(self, other: Effects) -> None:
        """Take in what a part of the group caused."""
        for name, caused in vars(other).items():
            if name == "next_fire_at":
                self.fires(caused)
            elif isinstance(caused, list):
                getattr(self, name).extend(caused)
            else:
                getattr(self, name).update(caused)

    @property
    def is_plain(self) -> bool:
        """Whether turns were written, and nothing more came of it: so that it concerns only those who look on."""
        return vars(self).keys() <= _OF_TURNS

    def notice_turns(self) -> None:
        """For those who look on: fill `notices`."""
        for turn in self.turns:
            if turn.notices_of is not None:
                self.notices += turn.notices_of(turn)

    def touched(self) -> set[int]:
        """The runs of which something is not as it was."""
        return {
            *(turn.state.run for turn in self.turns), *self.changed, *self.arrived, *self.paused, *self.given_up,
            *(each.run for each in self.ready), *(each.run for each in self.unborn), *(each.run for each in self.ended),
        }  # fmt: skip

    def fires(self, at: float) -> None:
        """A timer was set for *at*."""
        if self.next_fire_at is None or at < self.next_fire_at:
            self.next_fire_at = at
