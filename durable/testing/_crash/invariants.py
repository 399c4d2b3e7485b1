"""
What must hold whatever fault struck a run: named rules, each with a message that shows what differs.

An invariant is a function of what a run came to (`Outcome`), of what it comes to undisturbed, and of how often it
was disturbed; it yields a sentence for each violation. Those in `STRICT` compare the two: the fault was one that
nobody may notice. Those in `CONSISTENT` hold for any ending, also where the fault was an error that a workflow may
legally fail of. Your own may stand beside them: ``every_crash(..., invariants=(*STRICT, mine))``.

Code outside of the journal's file is judged by a `Ledger`: what steps do to the world, as they say themselves.
"""

from __future__ import annotations

import difflib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from attrs import evolve, field, frozen

from durable._core.journal.events import (
    Event,
    NowRead,
    RunRestarted,
    SlotAwaited,
    SlotGranted,
    StepInterrupted,
    StepNotBegun,
    StepRetrying,
    StepSnoozed,
    StepStarted,
    StepSucceeded,
    TransactionStarted,
)
from durable._core.program.current_driver import driver_in_charge
from durable._core.statuses import ENDS
from durable._shell.attempts.context import scope_here
from durable.testing.journals import journal_lines

#: Facts about attempts, which differ from one life of a process to the next and which no workflow sees.
_UNSEEN: Final = (StepInterrupted, StepNotBegun, NowRead, SlotAwaited, SlotGranted)


@frozen
class Effect:
    """What a step said that it does to the world."""

    what: str
    #: Under which a receiver takes it once, however often it is sent.
    key: str | None
    #: Whether doing it again is harmless.
    repeatable: bool
    #: Run id and position of the step; None in workflow code.
    where: str | None


class Ledger:
    """
    Where code under test writes down what it does to the world, so that doing it twice, or never, is found.

        ledger.add("charge 7", key=context().idempotency_key)  # the receiver honours the key: counts once
        ledger.add("told the driver", repeatable=True)         # again after a crash is harmless
        ledger.add("cash handed out")                          # must happen exactly once: no plain step can promise

    Emptied before each disturbed run. May be used by any thread.
    """

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._lock = threading.Lock()
        #: Whether the process is lost whose code still runs for a moment.
        self.silent = False

    def add(self, what: str, *, key: str | None = None, repeatable: bool = False) -> None:
        """Something was done."""
        scope = scope_here()
        where = None
        if driver_in_charge() is None:
            where = "elsewhere" if scope is None else scope.context.idempotency_key
        with self._lock:
            if not self.silent:
                self._effects.append(Effect(what, key, repeatable, where))

    def effects(self) -> tuple[Effect, ...]:
        """All that was done so far, in order."""
        with self._lock:
            return tuple(self._effects)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._effects.clear()


class Item(NamedTuple):
    """An item of a stream."""

    #: Of the step that emitted it, and its attempt; 0 if the workflow itself did.
    position: str
    attempt: int
    #: As recorded.
    value: str


@frozen
class RunOutcome:
    """One run of an `Outcome`."""

    run_id: str
    workflow: str
    parent: str | None
    position: str | None
    status: str
    #: Its result or error as recorded, without the traceback.
    value: str
    events: tuple[Event, ...] = field(repr=False)


@frozen
class Outcome:
    """
    What an operation came to: its runs, the application's tables, what is left, what steps did.

    Ids that are made by chance are replaced by where a run comes from, so that two outcomes can be compared.

    Attributes:
        result: What the workflow returned, decoded; None if it did not succeed.
        error: What it failed with, as text; None if it succeeded.
        runs: All runs, by a name that says where they come from.
        rows: Rows of the application's tables, as SQL, and how many of each.
        begun: How often each step and job was begun, by ``run:position``.
        effects: What the ledger holds.
        left: What was left behind that should not be.
        diverged: What replaying the workflows found.
        lost: How often the process was lost.
        disturbed: How often a step may have begun once more than undisturbed.
        excused: Whether an error struck workflow code. No replay repeats it, so that a run may be blocked because of
            that: the engine has noticed.
        streams: What was emitted, in order, by run and stream.
    """

    result: Any
    error: str | None
    runs: Mapping[str, RunOutcome] = field(repr=False)
    rows: Mapping[str, int] = field(repr=False)
    begun: Mapping[str, int] = field(repr=False)
    effects: tuple[Effect, ...] = field(repr=False)
    left: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    lost: int = 0
    disturbed: int = 0
    excused: bool = False
    streams: Mapping[tuple[str, str], Sequence[Item]] = field(factory=dict, repr=False)

    @property
    def root(self) -> RunOutcome:
        """The run that was started."""
        return self.runs["run"]


#: (found, expected) -> violations.
Invariant: TypeAlias = Callable[[Outcome, Outcome], Iterable[str]]


#: In the place of a position.
_ITSELF: Final = "the workflow itself"


# --- the end -----------------------------------------------------------------------------------------------


def same_end(found: Outcome, expected: Outcome) -> Iterator[str]:
    """Every run ends as undisturbed: the same status, and the same result or error."""
    for name, was in expected.runs.items():
        now = found.runs.get(name)
        if now is None:
            yield f"{_called(name, was)} was never started; undisturbed it {was.status}"
        elif (now.status, now.value) != (was.status, was.value):
            yield (
                f"{_called(name, now)} ended otherwise: expected {was.status} {was.value:.200}, "
                f"found {now.status} {now.value:.200}\n{_diff(was.events, now.events)}"
            )


def ended(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """No run is stuck: each comes to an end."""
    if found.excused and any(run.status == "blocked" and "diverged" in run.value for run in found.runs.values()):
        return
    for name, run in found.runs.items():
        if run.status not in ENDS:
            yield f"{_called(name, run)} is {run.status} for ever: {run.value:.300}\n{_tail(run.events)}"


# --- the journal -------------------------------------------------------------------------------------------


def same_journal(found: Outcome, expected: Outcome) -> Iterator[str]:
    """Each journal says the same to a replay: the same commands, each with the same outcome."""
    for name, was in expected.runs.items():
        now = found.runs.get(name)
        if now is not None and seen(was.events) != seen(now.events):
            yield f"{_called(name, was)} has another journal:\n{_diff(was.events, now.events)}"


def one_success_per_step(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """A step whose success is recorded neither begins again nor succeeds again."""
    for name, run in found.runs.items():
        done: set[str] = set()
        for event in run.events:
            if event.category == "revision":
                done.clear()
            elif isinstance(event, (StepStarted, TransactionStarted, StepSucceeded)):
                if event.position in done:
                    what = f"{type(event).__name__} at {event.position} after its recorded success"
                    yield f"{_called(name, run)}: {what}\n{_tail(run.events)}"
                elif event.outcome == "succeeded":
                    done.add(event.position)


def parent_resumed_once(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """Each command has one outcome: no timer fires twice, no child's end is reported twice."""
    for name, run in found.runs.items():
        told: set[str] = set()
        delayed: set[str | None] = set()  # steps whose next attempt a timer begins: that one is no outcome
        for event in run.events:
            if event.category == "revision":
                told.clear()
            elif event.outcome in ("retrying", "snoozed"):
                delayed.add(event.position)
            elif event.outcome == "fired" and event.position in delayed:
                delayed.remove(event.position)
            elif event.position is not None and event.outcome in ("succeeded", "failed", "cancelled", "fired"):
                if event.position in told:
                    what = f"a second outcome at {event.position}, {type(event).__name__}"
                    yield f"{_called(name, run)}: {what}\n{_tail(run.events)}"
                told.add(event.position)


def replays(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """Every workflow replays from its journal without asking for anything else."""
    yield from found.diverged


# --- streams -----------------------------------------------------------------------------------------------


def streams_whole(found: Outcome, expected: Outcome) -> Iterator[str]:
    """A workflow emits each item once; the attempts of a step have together emitted all that it emits, in order."""
    for run, stream in sorted({*found.streams, *expected.streams}):
        now, was = (_said(outcome.streams.get((run, stream), ())) for outcome in (found, expected))
        for position in sorted({*now, *was}):
            said, wanted = now.get(position, []), was.get(position, [])
            rest = iter(said)
            if said != wanted if position == _ITSELF else not all(item in rest for item in wanted):
                yield f"stream {stream!r} of run {run!r}, at {position}: expected {wanted!r:.300}, found {said!r:.300}"


def attempts_in_order(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """In a stream, nothing of an attempt comes behind what a later one of its step has emitted."""
    for (run, stream), items in found.streams.items():
        latest: dict[str, int] = {}
        for item in items:
            if item.attempt and item.attempt < latest.get(item.position, 0):
                yield f"stream {stream!r} of run {run!r}: attempt {item.attempt} at {item.position} emits after a later"
            latest[item.position] = max(item.attempt, latest.get(item.position, 0))


def _said(items: Iterable[Item]) -> dict[str, list[str]]:
    """What was emitted by the step at each position, and by the workflow itself."""
    said: dict[str, list[str]] = {}
    for item in items:
        said.setdefault(item.position if item.attempt else _ITSELF, []).append(item.value)
    return said


# --- effects -----------------------------------------------------------------------------------------------


def transactions_exactly_once(found: Outcome, expected: Outcome) -> Iterator[str]:
    """The application's own tables hold what they hold undisturbed."""
    for row in sorted({*found.rows, *expected.rows}):
        now, was = found.rows.get(row, 0), expected.rows.get(row, 0)
        if now != was:
            yield f"the application's tables: expected {was} times, found {now} times: {row:.200}"


def transactions_at_most_once(found: Outcome, expected: Outcome) -> Iterator[str]:
    """No row of the application's is there more often than undisturbed."""
    for row, was in expected.rows.items():
        if found.rows.get(row, 0) > was:
            yield f"the application's tables: at most {was} times, found {found.rows[row]} times: {row:.200}"


def children_once_per_position(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """A command starts one run, however often the process was lost around it."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for run in found.runs.values():
        if run.parent is not None and run.position is not None:
            by_place.setdefault((run.parent, run.position), []).append(run.run_id)
    for (parent, position), children in by_place.items():
        if len(children) > 1:
            yield f"run {parent!r} started {len(children)} runs at {position}: {', '.join(children)}"


def no_other_runs(found: Outcome, expected: Outcome) -> Iterator[str]:
    """No run is there that is not there undisturbed."""
    for name in sorted(found.runs.keys() - expected.runs.keys()):
        yield f"{_called(name, found.runs[name])} was started; undisturbed there is no such run"


def effects_bounded(found: Outcome, expected: Outcome) -> Iterator[str]:
    """A plain step begins once, and once more for each recorded retry or snooze, and at most for each disturbance."""
    retried = Counter(
        f"{name}:{event.position}"
        for name, run in found.runs.items()
        for event in run.events
        if isinstance(event, (StepRetrying, StepSnoozed))
    )
    for place, count in found.begun.items():
        most = max(expected.begun.get(place, 0), 1 + retried[place]) + found.disturbed
        if count > most:
            yield f"the step at {place} began {count} times; at most {most} after {found.disturbed} disturbances"


def effects_once(found: Outcome, expected: Outcome) -> Iterator[str]:
    """In the ledger: one effect a key, and what is neither keyed nor repeatable as often as undisturbed."""
    now, was = _counted(found.effects), _counted(expected.effects)
    for what, count in now.items():
        if count > was.get(what, 0) and found.root.status == expected.root.status:
            yield (
                f"effect {what!r} took place {count} times, undisturbed {was.get(what, 0)} times: give it a key that "
                "is the same in every attempt (context().idempotency_key), or mark it repeatable=True if doing it "
                "again is harmless"
            )


def effects_not_lost(found: Outcome, expected: Outcome) -> Iterator[str]:
    """In the ledger: whatever takes place undisturbed took place."""
    was, now = {effect.what for effect in expected.effects}, {effect.what for effect in found.effects}
    for what in sorted(was - now):
        yield f"effect {what!r} never took place"


def no_effects_in_workflow_code(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """Nothing is written into the ledger by workflow code: each replay does it again."""
    for effect in dict.fromkeys(effect for effect in found.effects if effect.where is None):
        yield f"effect {effect.what!r} takes place in workflow code, which every replay runs again: move it into a step"


# --- what is left ------------------------------------------------------------------------------------------


def nothing_left(found: Outcome, expected: Outcome) -> Iterator[str]:  # noqa: ARG001 - an Invariant
    """No task, timer, wait, arrival or slot is left of runs that have ended."""
    yield from found.left


#: For faults that nobody may notice.
STRICT: Final[tuple[Invariant, ...]] = (
    same_end, ended, same_journal, one_success_per_step, parent_resumed_once, replays, transactions_exactly_once,
    children_once_per_position, no_other_runs, effects_bounded, effects_once, effects_not_lost,
    no_effects_in_workflow_code, nothing_left, streams_whole, attempts_in_order,
)  # fmt: skip
#: For faults that may change how a run ends, but not whether its journal and the world agree.
CONSISTENT: Final[tuple[Invariant, ...]] = (
    ended, one_success_per_step, parent_resumed_once, replays, transactions_at_most_once, children_once_per_position,
    effects_bounded, effects_once, no_effects_in_workflow_code, nothing_left, attempts_in_order,
)  # fmt: skip


# --- journals as replay sees them ------------------------------------------------------------------------------


def seen(events: Iterable[Event]) -> list[str]:
    """
    The lines of a journal as far as a replay sees them: commands and outcomes, in the order of positions.

    Attempts, interruptions and instants are left out, and so is the order in which members of a group ended.
    """
    kept: list[Event] = []
    commands: set[str] = set()
    delayed: set[str | None] = set()
    for event in events:
        if isinstance(event, RunRestarted):
            kept, commands = kept[:1], set()
        elif event.outcome in ("retrying", "snoozed"):
            delayed.add(event.position)
        elif event.outcome == "fired" and event.position in delayed:
            delayed.remove(event.position)  # the next attempt, too, is a matter of attempts
        elif isinstance(event, _UNSEEN) or (event.category == "command" and event.position in commands):
            continue  # a later attempt is the same command
        else:
            kept.append(event)
            if event.category == "command":
                commands.add(event.position)
    placed = [event for event in kept if event.position]
    others = [event for event in kept if not event.position]
    placed.sort(key=lambda event: (_parts(event.position or ""), event.category != "command"))
    return journal_lines([*placed, *others], ignoring=("attempt", "crashed"))


def _parts(position: str) -> list[int]:
    return [int(part) for part in position.split(".")] if position.replace(".", "").isdigit() else [0]


def _counted(effects: Iterable[Effect]) -> Counter[str]:
    once = {(effect.what, effect.key) for effect in effects if effect.key is not None}
    counted = Counter(what for what, _ in once)
    counted.update(effect.what for effect in effects if effect.key is None and not effect.repeatable)
    return counted


def _called(name: str, run: RunOutcome) -> str:
    return f"{run.workflow} ({name})"


def _diff(was: Iterable[Event], now: Iterable[Event]) -> str:
    lines = difflib.unified_diff(seen(was), seen(now), "undisturbed", "found", lineterm="", n=2)
    return "\n".join(f"    {line:.240}" for line in lines) or _tail(now)


def _tail(events: Iterable[Event]) -> str:
    return "\n".join(f"    {line:.240}" for line in journal_lines(events)[-12:])


def renamed(effects: Iterable[Effect], rename: Callable[[str], str]) -> tuple[Effect, ...]:
    """*effects*, with ids of runs replaced in their keys."""
    return tuple(
        evolve(effect, key=None if effect.key is None else rename(effect.key), what=rename(effect.what))
        for effect in effects
    )
