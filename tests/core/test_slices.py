"""
Large turns and replays pause, so that an event loop has time for others: what they decide is the same.
"""

import gc
import warnings
from copy import copy

import pytest

from durable import (
    EncodeError,
    Flow,
    GroupFailedError,
    Return,
    for_each,
    gather,
    job,
    race,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable._core.journal.events import SignalReceived, StepSucceeded, TurnUnfinished
from durable._core.run.decision import FIELDS, UNDECIDED, Decision
from durable._core.run.decision import in_parts as in_parts_by_and_by
from durable._core.run.execution import REPLAYED_AT_ONCE, SLICE
from durable.errors import NondeterminismError
from tests.core.drive import START, World, execution, in_slices, kinds, started


def in_parts(*given):
    """
    All parts, at once.
    """
    *_, parts = in_parts_by_and_by(*given)
    return parts


@job
async def one(number: int) -> int:
    return number


@job
async def anything(value: object) -> None:
    """Refuses what cannot be recorded."""


@step
async def ok() -> int:
    return 1


async def helper(number: int) -> int:
    await sleep(1)
    return number


@workflow
async def jobs_at_once(count: int) -> Flow[int]:
    found = yield for_each(one, range(count), concurrency=None)
    yield Return(len(found))


@workflow
async def jobs_in_a_window(count: int) -> Flow[int]:
    found = yield for_each(one, range(count), concurrency=3)
    yield Return(len(found))


@workflow
async def helpers_at_once(count: int) -> Flow[int]:
    found = yield gather(*(helper(number) for number in range(count)))
    yield Return(len(found))


@workflow
async def nested(count: int) -> Flow[object]:
    """The order in which members begin decides who takes which signal."""
    found = yield race(
        gather(*(timeout(wait_for("a", int), 9) for _ in range(count))),
        gather(*(gather(wait_for("a", int), helper(n)) for n in range(count))),
    )
    yield Return(found.value)


@workflow
async def steps(count: int) -> Flow[int]:
    for _ in range(count):
        yield ok()
    yield wait_for("end")
    yield Return(count)


def started_by(decision):
    """The runs that *decision* starts, or lets the file start."""
    return [
        [(each.position, each.run_id, each.arguments) for each in decision.children],
        [(each.position, each.window, each.op.args, each.children) for each in decision.feeds],
    ]


def named(op):
    return op.definition.name


@pytest.mark.parametrize("op", [jobs_at_once(40), jobs_in_a_window(40), helpers_at_once(40), nested(8)], ids=named)
@pytest.mark.parametrize("freed", [False, True])
def test_pauses_change_nothing(op, freed):
    """Events, waits and runs are those of one go, in their order; so are all turns behind it."""
    worlds = [World(op, freed=freed, sliced=sliced, signals=[("a", 1)] * 40) for sliced in (False, True)]
    for world in worlds:
        world.run()
    whole, sliced = worlds
    assert sliced.events == whole.events
    assert [each.waits for each in sliced.decisions] == [each.waits for each in whole.decisions]
    assert [started_by(each) for each in sliced.decisions] == [started_by(each) for each in whole.decisions]


@pytest.mark.parametrize("op", [jobs_at_once(40), jobs_in_a_window(40), helpers_at_once(40)], ids=named)
def test_a_turn_pauses_for_each_member_that_it_may(op):
    """So none of its slices grows with the group."""
    _, pauses = in_slices(execution(op, [started(op)]), [], START)
    assert pauses >= 40


def test_a_turn_of_a_few_members_does_not_pause():
    """Most turns are taken in one go."""
    op = jobs_at_once(SLICE - 1)
    assert execution(op, [started(op)]).begin_turn([], now=START) is not None
    assert execution(jobs_at_once(SLICE + 1), [started(jobs_at_once(SLICE + 1))]).begin_turn([], now=START) is None


def test_a_long_replay_pauses():
    """So often, whatever it replays."""
    op = steps(2 * REPLAYED_AT_ONCE + 1)
    world = World(op)
    world.begin()
    while world.steps:
        world.happen()
    world.ex.close()
    ex = execution(op, [started(op)])
    ex = type(ex)(op.definition, world.events, run_id="r", codec=ex.codec)
    assert len(list(ex.load_in_slices())) == 2
    assert not ex.replaying
    assert ex.advance([], now=START).events == []


def test_a_run_that_is_closed_while_its_turn_pauses_leaves_no_coroutine():
    """Helpers that never began are closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for body in (helpers_at_once(9), nested(9)):
            ex = execution(body, [started(body)])
            assert ex.begin_turn([], now=START, room=3) is None
            ex.close()
            assert not ex.unfinished
            del ex
            gc.collect()


def test_a_member_that_cannot_begin_fails_in_its_slice():
    """As without a pause: the others are awaited, and the group fails by it."""

    @workflow
    async def caught(count: int) -> Flow[str]:
        try:
            yield gather(*(anything(float("nan") if number == count - 1 else number) for number in range(count)))
        except GroupFailedError as error:
            yield Return(type(error.exceptions[0]).__name__)

    whole, sliced = (World(caught(9), sliced=each) for each in (False, True))
    assert whole.run() == sliced.run()
    assert sliced.value() == EncodeError.__name__


def test_an_item_that_the_file_cannot_be_told_of_fails_the_group():
    """Raised at the user's line, also where the turn had paused before it."""

    @workflow
    async def caught(count: int) -> Flow[str]:
        try:
            yield for_each(anything, [float(number) for number in range(count)], concurrency=2)
        except EncodeError as error:
            yield Return(type(error).__name__)

    op = caught(9)
    ex = execution(op, [started(op)])
    assert ex.begin_turn([], now=START, room=1) is None
    (group,) = ex.unfinished
    group.items[5] = float("nan")
    decision = None
    while decision is None:
        decision = ex.continue_turn(room=1)
    assert decision.ended == "succeeded"
    assert "EncodeError" in str(decision.outcome)
    assert kinds(decision.events)[-1] == "RunSucceeded"


@workflow(name="late")
async def late(count: int) -> Flow[int]:
    """Opens much behind an arrival."""
    yield ok()
    found = yield gather(*(ok() for _ in range(count)), sleep(5, name="nap"), wait_for("a", int))
    yield Return(len(found))


@workflow(name="late")
async def later(count: int) -> Flow[int]:
    """The same, changed where all is recorded."""
    yield sleep(1)
    yield from_there(count)
    yield Return(0)


@step(name="ok")
async def from_there(count: int) -> int:
    return count


def unmarked(parts):
    return [event for part in parts for event in part.events if not isinstance(event, TurnUnfinished)]


CUT = [jobs_at_once(6), jobs_in_a_window(6), helpers_at_once(6), nested(3), late(6)]


@pytest.mark.parametrize("op", CUT, ids=named)
def test_a_turn_that_was_recorded_in_part_is_completed_by_the_replay(op):
    """Wherever the process died between two commits: the rest is the same, and asked for by the first replay."""
    world = World(op, signals=[("a", 1)] * 40)
    world.run()
    recorded = [started(op)]
    for decision in world.decisions:
        at = decision.events[-1].at
        parts = in_parts(decision, 1, 1, at)
        assert unmarked(parts) == decision.events
        for cut in range(1, len(parts)):
            begun = [event for part in parts[:cut] for event in part.events]
            assert isinstance(begun[-1], TurnUnfinished)
            ex = execution(op, recorded + begun)
            rest = ex.advance([], now=at + 100)
            assert rest.events == unmarked(parts[cut:])
            assert started_by(rest)[0] == [each for part in parts[cut:] for each in started_by(part)[0]]
            assert list(rest.waits) == [wait for part in parts[cut:] for wait in part.waits]
            begins = [(step.position, step.attempt) for part in parts[cut:] for step in part.steps]
            assert [(step.position, step.attempt) for step in rest.steps] == begins
            ex.close()
        recorded += decision.events
    cut = [in_parts(decision, 1, 1, START) for decision in world.decisions]
    assert max(map(len, cut)) >= (1 if op.definition is jobs_in_a_window else 6)  # a window is opened by one commit


def test_a_large_turn_is_cut_by_and_by(monkeypatch):
    """The event loop has a break after so many events: with 100,000 jobs it had none for a quarter of a second."""
    world = World(jobs_at_once(1_000))
    world.run()
    decision = max(world.decisions, key=lambda each: len(each.events))
    monkeypatch.setattr("durable._core.run.decision.LOOKED_AT_ONCE", 100)
    *breaks, parts = in_parts_by_and_by(decision, 100, 10, START)
    assert set(breaks) == {None}
    looked_at = 2 * len(decision.events) + len(decision.children) + len(decision.waits)
    assert len(breaks) >= looked_at // 100
    assert len(parts) > 10


def test_a_turn_of_usual_size_is_one_commit():
    """And so is one that does what no replay would do again."""
    world = World(late(6), signals=[("a", 1)])
    world.run()
    for decision in world.decisions:
        assert in_parts(decision, 100, 10, START) == [decision]
        decision.attributes = {"a": 1}
        assert in_parts(decision, 1, 1, START) == [decision]


@pytest.mark.parametrize("field", FIELDS)
def test_what_a_replay_would_not_do_again_keeps_a_turn_whole(field):
    """Whatever else a decision says or comes to say: what may stand in parts is named, and nothing else does."""
    world = World(late(6), signals=[("a", 1)])
    world.run()
    opens = world.decisions[1]
    may_be_cut = {"events", "steps", "children", "waits", "waits_closed", "failed_attempts", "logs"}
    if field in may_be_cut:
        assert len(in_parts(opens, 1, 1, START)) > 1
    else:
        said = copy(opens)
        setattr(said, field, "something")
        assert in_parts(said, 1, 1, START) == [said]


def test_code_that_has_changed_is_found_out_in_a_turn_that_was_recorded_in_part():
    """Only behind all that is recorded may it ask for what is not."""
    world = World(late(6), signals=[("a", 1)])
    world.run()
    first, second = world.decisions[:2]
    begun = in_parts(second, 1, 1, START)[0].events
    with pytest.raises(NondeterminismError):
        execution(later(6), [started(late(6)), *first.events, *begun])


def test_all_that_arrived_is_recorded_by_the_first_commit():
    """With it, what arrived is taken out of the inbox: what stood in a later one would arrive again, or never."""
    world = World(late(6), signals=[("a", 1)])
    world.begin()
    ended = StepSucceeded("0", "1", START)
    decision = world.ex.advance([SignalReceived("a", "1", START), ended], now=START)
    first, second, *_ = in_parts(decision, 1, 1, START)
    assert {event.kind for event in first.events} > {StepSucceeded.kind, SignalReceived.kind}
    assert all(event.category == "command" for event in second.events[:-1])
    world.ex.close()


def test_a_decision_is_plain_only_without_anything_that_few_have():
    """A field that is added to decisions is one that few have, or is written with every turn."""
    with_every_turn = {"events", "steps", "ended", "outcome", "reason"}
    for name in FIELDS:
        some = False if name == "compensated" else {} if name == "attributes" else (1,)
        decision = Decision()
        assert decision.is_plain()
        setattr(decision, name, some)
        assert decision.is_plain() == (name in with_every_turn), name


def test_nothing_is_decided_between_two_turns():
    """What stands for it is everybody's: who adds to it is told; and so is who misspells what he decides."""
    with pytest.raises(AttributeError):
        UNDECIDED.events.append(StepSucceeded("0", "1", START))
    with pytest.raises(TypeError, match="between two turns"):
        UNDECIDED.waits = [1]
    assert UNDECIDED.is_plain()
    with pytest.raises(TypeError, match=r"a decision has no wait$"):
        Decision(wait=[1])
