"""
Copies of recorded runs that are to continue elsewhere: in memory, or in another file.

What a copy waits for is made anew from its events, as a fork in the same file does it. Runs that it waits
for must come along: an import counts a child that is not there as cancelled, which nobody who asks
"what if" has in mind. Pure: recorded runs in, recorded runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.journal.events import AttributesSet, CommandEvent, Event, FeedOpened, ResumeRequested, SignalReceived
from durable._core.journal.history import effective, fork, only, open_waits, reopened
from durable._core.light_frozen import light_frozen
from durable._core.recorded.export_format import ExportedWait, RunFacts, RunHistory
from durable._core.statuses import ENDS
from durable.errors import UsageError

#: The recorded run called by an id; None if it is not at hand.
Find: TypeAlias = Callable[[str], RunHistory | None]


@light_frozen
class Absent:
    """A run that a copy waits for, and that is not at hand."""

    run_id: str
    #: Who waits for it, and where.
    parent: str
    position: str


def fork_of(recorded: RunHistory, *, run_id: str, at: str, replace: Mapping[str, Payload], now: float) -> RunHistory:
    """
    A new run, called *run_id*, that continues from position *at* of *recorded*; see `history.fork`.

    Raises:
        UsageError: If a position was never asked for, or is of a command whose outcome cannot be given.
    """
    facts = recorded.run
    events = fork(recorded.events, run_id=facts.run_id, at=at, replace=replace, now=now)
    published = [event.value for event in only(events, AttributesSet)]
    mine = RunFacts(
        run_id=run_id,
        workflow=facts.workflow,
        version=facts.version,
        sort=facts.kind,
        status="pending",
        created_at=now,
        queue=facts.queue,
        priority=facts.priority,
        arguments=facts.arguments,
        labels=facts.labels,
        attributes=published[-1] if published else None,
        retry=facts.retry,
        timeout=facts.timeout,
        limit=facts.limit,
        limit_key=facts.limit_key,
    )
    # What had arrived, and no turn has taken in: for what was copied it holds as well.
    awaited = {event.position for event in events if event.category == "command"}.difference(replace)
    arrived: list[Event] = [
        each for each in recorded.pending if isinstance(each, SignalReceived) or each.position in awaited
    ]
    over = {each.position for each in arrived}
    waits = [wait for wait in waits_of(events, now) if wait.kind in ("signal", "request") or wait.position not in over]
    return RunHistory(mine, events, arrived, waits=waits)


def standing(recorded: RunHistory, now: float) -> RunHistory:
    """
    *recorded* itself, so that it continues from where it stands once it is imported and resumed.

    Raises:
        UsageError: It has ended (a failed run can proceed, as a retry has it); or it stands in the middle
            of a `for_each` of which only events are at hand.
    """
    status = status_of(recorded)
    if status == "failed":
        return evolve(recorded, run=evolve(recorded.run, status=status))
    if status in ENDS:
        msg = f"run {recorded.run.run_id!r} has {status}: say at which position to continue, or what to replace"
        raise UsageError(msg)
    if recorded.run.status == "blocked":  # a person resumes it
        recorded = evolve(recorded, pending=[*recorded.pending, ResumeRequested(now)])
    if recorded.waits:
        return recorded
    if not recorded.feeds and any(only(effective(recorded.events)[0], FeedOpened)):
        msg = (
            f"run {recorded.run.run_id!r} stands in a for_each whose items to come are not among its events: "
            "give the RunHistory (durable.read_histories of its export)"
        )
        raise UsageError(msg)
    return evolve(recorded, waits=waits_of(recorded.events, now))


def status_of(recorded: RunHistory) -> str:
    """How it stands: what its last event says, if that is an end."""
    last = recorded.events[-1]
    if last.category != "end":
        return recorded.run.status if recorded.run.status not in ENDS else "running"
    return last.status


def first_of(recorded: RunHistory, positions: Iterable[str]) -> str | None:
    """Of *positions* the one that was asked for first; one that never was, if there is such."""
    order = {event.position: index for index, event in reversed([*enumerate(_commands(recorded))])}
    return min(positions, key=lambda position: order.get(position, -1), default=None)


def command_at(recorded: RunHistory, position: str) -> CommandEvent | None:
    """The command at *position* of a recorded run; None if there is none."""
    return next((event for event in _commands(recorded) if event.position == position), None)


def _commands(recorded: RunHistory) -> Iterator[CommandEvent]:
    return (event for event in effective(recorded.events)[0] if event.category == "command")


def waits_of(events: Sequence[Event], now: float) -> list[ExportedWait]:
    """The rows of what a history still waits for; those of slots are made where it continues."""
    waits = open_waits(events)
    timers = [
        ExportedWait(wait.group, wait.position, wait.kind, "any", wait.name, None, wait.fire_at, now)
        for wait in waits.timers.values()
    ]
    timers += [
        ExportedWait(position, position, "heartbeat", "any", None, None, now + seconds, now)
        for position, seconds in waits.heartbeats.items()
    ]
    return timers + [
        ExportedWait(position, position, "child", "any", None, run_id, None, now)
        for position, run_id in waits.children.items()
    ]


# --- the runs that a copy needs ------------------------------------------------------------------------


@light_frozen
class Copy:
    """A run that is to continue elsewhere, and what it needs for that."""

    run: RunHistory
    #: Runs that it waits for.
    needed: list[RunHistory]
    #: Those that are not at hand: without them it must not resume.
    absent: list[Absent]


def copy_of(
    recorded: RunHistory, find: Find, *, run_id: str, at: str | None, replace: Mapping[str, Payload], now: float
) -> Copy:
    """
    A copy that continues from *at*, by default from the first of *replace*; without both, from where it stands.

    Raises:
        UsageError: As `fork_of`, or, without a position, as `standing`.
    """
    position = first_of(recorded, replace) if at is None else at
    if position is None:
        made = standing(recorded, now)
    else:
        made = fork_of(recorded, run_id=run_id, at=position, replace=replace, now=now)
    return Copy(made, *referred(made, find))


def referred(copy: RunHistory, find: Find) -> tuple[list[RunHistory], list[Absent]]:
    """The runs that *copy* waits for, those that they wait for, and so on; and which of them are not at hand."""
    found: dict[str, RunHistory] = {}
    absent: list[Absent] = []
    pending = [copy]
    while pending:
        each = pending.pop()
        for position, run_id in _awaited(each):
            if run_id in found or run_id == copy.run.run_id:
                continue
            child = find(run_id)
            if child is None:
                absent.append(Absent(run_id, each.run.run_id, position))
            else:
                found[run_id] = child
                pending.append(child)
    return list(found.values()), absent


def _awaited(each: RunHistory) -> Iterator[tuple[str, str]]:
    """(position, run id) of what a run needs to continue: open children, failed ones if it failed, its successor."""
    if each.run.successor is not None:
        yield "", each.run.successor
    status = status_of(each)
    if status == "failed":
        yield from open_waits([*each.events, reopened(each.events, each.events[-1].at)]).children.items()
    elif status not in ENDS:
        arrived = {event.position for event in each.pending}
        yield from (child for child in open_waits(each.events).children.items() if child[0] not in arrived)
        yield from ((wait.position, wait.target) for wait in each.waits if wait.target is not None)


def roots(runs: Sequence[RunHistory]) -> list[RunHistory]:
    """Those that none of the others started, or continued as."""
    ids = {each.run.run_id for each in runs}
    successors = {each.run.successor for each in runs}
    return [
        each
        for each in runs
        if not ids.intersection((each.run.parent, each.run.follows)) and each.run.run_id not in successors
    ]
