"""
Steps and jobs with a limit: what is recorded, and that every prefix of it replays.
"""

from typing import Any

import pytest

from durable._core.authoring.decorators import call, job, step, workflow
from durable._core.authoring.op_constructors import gather, race, sleep, wait_for
from durable._core.journal.events import SlotAwaited, SlotGranted, StepCancelled, StepInterrupted, StepStarted
from durable._core.journal.history import fork, open_waits
from durable._core.policies.limits import Limit, collect_limits
from durable._core.policies.retry import Retry
from durable._core.program.ops import Flow, Return
from durable.errors import DefinitionError, NondeterminismError
from tests.core.drive import World, again, closed_prefixes, execution, kinds, run

ONE = Limit("one", concurrency=1)
failures: list[int] = []


@step(limit=ONE, on_poison="block")
def double(number: int) -> int:
    return 2 * number


@step(name="double")
def unlimited(number: int) -> int:
    return 2 * number


@step(limit=ONE, retry=Retry(3, delay=5.0, jitter=0.0))
def second_time(number: int) -> int:
    failures.append(number)
    if len(failures) < 2:
        raise ConnectionError
    return number


@workflow
async def doubling(number: int) -> Flow[int]:
    value: int = yield double(number)
    yield Return(value)


@workflow(name="doubling")
async def doubling_without(number: int) -> Flow[int]:
    value: int = yield unlimited(number)
    yield Return(value)


@workflow
async def insisting() -> Flow[int]:
    failures.clear()
    value: int = yield second_time(1)
    both: list[int] = yield gather(double(value), double(2))
    yield Return(value + sum(both))


@workflow
async def racing() -> Flow[int]:
    winner = yield race(double(1), wait_for("go"))
    yield sleep(1)
    yield Return(winner.index)


@job(limit=ONE, limit_key=lambda number: f"key-{number}", retry=2)
def limited_job(number: int) -> int:
    return number


@pytest.fixture(autouse=True)
def _no_failures() -> None:
    failures.clear()


def test_a_limited_step_stands_in_line_before_it_is_started():
    """
    The wait is the command; `StepStarted` comes with the grant, and only then is there anything to do.
    """
    world = World(doubling(4))
    first = world.begin()
    assert kinds(world.events)[1:] == ["SlotAwaited 0"]
    assert [(each.position, each.limit, each.key) for each in first.slots] == [("0", ONE, "")]
    assert world.steps == []
    assert world.ex.idle
    granted = world.grant("0")
    assert kinds(granted.events) == ["SlotGranted 0", "StepStarted 0"]
    assert [action.attempt for action in granted.steps] == [1]
    assert world.succeed("0", 8).slots_released == ("0",)
    assert world.value() == 8


@pytest.mark.parametrize("op", [doubling(4), insisting()], ids=["one", "many"])
@pytest.mark.parametrize("freed", [True, False])
def test_every_prefix_replays_to_the_same_journal(op, freed):
    """
    A crash at any arrival changes nothing: retries and groups alike.
    """
    world = run(op, freed=freed)
    for survived in closed_prefixes(world.events):
        assert again(op, world.events, survived, resident=not freed) == world.events


def test_each_attempt_asks_and_a_retry_delay_releases():
    """
    Three facts an attempt: asked, granted, started; the outcome lets go.
    """
    world = World(insisting())
    world.begin()
    world.grant("0")
    world.happen()
    assert world.decisions[-1].slots_released == ("0",)
    assert world.fire("0").slots[0].position == "0"
    assert [event.attempt for event in world.events if isinstance(event, SlotAwaited)] == [1, 2]
    assert kinds(world.grant("0").events) == ["SlotGranted 0", "StepStarted 0"]


def test_an_interrupted_attempt_asks_again():
    """
    Its row stands first in line, so it keeps its slot; a rate counts the next attempt.
    """
    world = World(doubling(4))
    world.begin()
    world.grant("0")
    decision = world.interrupt("0")
    assert kinds(decision.events) == ["StepInterrupted 0", "SlotAwaited 0"]
    assert decision.slots_released == ()
    assert [action.position for action in decision.slots] == ["0"]
    world.grant("0")
    assert world.steps[0].attempt == 2
    replayed = execution(doubling(4), world.events)
    assert replayed.in_flight() == [("0", 2)]
    replayed.close()


def test_a_step_that_is_stuck_lets_go():
    """
    A person has to decide: nobody else is to wait for that.
    """
    world = World(doubling(4), options={"crash_limit": 1})
    world.begin()
    world.grant("0")
    decision = world.interrupt("0")
    assert decision.blocked is not None
    assert decision.slots_released == ("0",)


def test_a_withdrawn_step_gives_its_place_up():
    """
    Also one that was granted in the turn that withdraws it; a grant that comes too late is of no use.
    """
    world = World(racing())
    world.begin()
    decision = world.signal("go", 1)
    assert decision.slots_released == ("0.0",)
    assert StepCancelled("0.0", world.now) in decision.events
    assert not decision.cancelled_steps
    assert world.turn(SlotGranted("0.0", world.now)).events == []
    assert open_waits(world.events).slots == {}


@pytest.mark.parametrize("old, new", [(doubling, doubling_without), (doubling_without, doubling)])
def test_a_limit_is_added_or_taken_away_without_divergence(old, new):
    """
    Whether a recorded attempt had one is a fact of the journal; the next attempt follows the code of today.
    """
    world = World(old(4))
    world.begin()
    if old is doubling:
        world.grant("0")
    ex = execution(new(4), world.events)
    decision = ex.advance([StepInterrupted("0", 1, crashed=False, at=world.now)], now=world.now)
    ex.close()
    assert bool(decision.slots) == (new is doubling)
    assert decision.slots_released == (("0",) if old is doubling else ())
    events = world.events + decision.events
    replayed = execution(new(4), events)
    assert replayed.in_flight() == ([] if new is doubling else [("0", 2)])
    replayed.close()


def test_what_stands_in_line_goes_on_without_its_limit():
    """
    Its grant comes all the same: the row in the file knows.
    """
    world = World(doubling(4))
    world.begin()
    ex = execution(doubling_without(4), world.events)
    decision = ex.advance([SlotGranted("0", world.now)], now=world.now)
    ex.close()
    assert [action.attempt for action in decision.steps] == [1]


def test_another_command_there_is_a_divergence_that_names_the_step():
    """
    In the words of a step, whichever event stands for it.
    """

    @workflow(name="doubling")
    async def other(number: int) -> Flow[int]:
        yield sleep(1)
        yield Return(number)

    world = World(doubling(4))
    world.begin()
    with pytest.raises(NondeterminismError, match=r"recorded step 'double' \(.*workflow now asks for sleep"):
        execution(other(4), world.events)
    assert world.events[1].describe() == "step 'double'"


def test_a_job_asks_with_the_key_of_its_arguments():
    """
    And not at all where the limit is its run's own.
    """
    world = World(limited_job(3))
    decision = world.begin()
    assert [(action.limit, action.key) for action in decision.slots] == [(ONE, "key-3")]
    world.grant("0")
    assert world.cancel().slots_released == ()  # its attempt is in it until it has ended
    assert world.stop("0").slots_released == ("0",)
    free = World(limited_job(3), options={"limited": False})
    assert [type(event) for event in free.begin().events] == [StepStarted]


def test_a_job_is_taken_over_where_it_stands():
    """
    In line: nothing to do. Granted: its attempt is in flight, and asks again once it is interrupted.
    """
    world = World(limited_job(3))
    world.begin()
    waiting = execution(limited_job(3), world.events)
    assert waiting.idle
    assert waiting.advance([], now=world.now).events == []
    world.grant("0")
    taken = execution(limited_job(3), world.events)
    assert taken.in_flight() == [("0", 1)]
    decision = taken.advance([StepInterrupted("0", 1, crashed=True, at=world.now)], now=world.now)
    assert kinds(decision.events) == ["StepInterrupted 0", "SlotAwaited 0"]
    assert [action.key for action in decision.slots] == ["key-3"]


def test_a_job_in_line_is_let_go_when_it_is_cancelled():
    """
    It has never begun; nothing is asked for any more.
    """
    world = World(limited_job(3))
    world.begin()
    decision = world.cancel("no")
    assert decision.slots_released == ("0",)
    assert decision.ended == "cancelled"


def test_a_fork_of_a_step_in_line_asks_again():
    """
    What stood in line is copied, so it is found to be open.
    """
    world = World(insisting())
    world.begin()
    world.grant("0")
    world.happen()
    world.fire("0")
    world.grant("0")
    world.happen()
    copied = fork(world.events, run_id="r", at="1.1", replace={}, now=world.now)
    assert open_waits(copied).slots == {"1.0": ("one", "")}
    given = fork(world.events, run_id="r", at="0", replace={"0": "7"}, now=world.now)
    assert open_waits(given).slots == {}
    assert not any(isinstance(event, (StepStarted, SlotGranted)) for event in given)


# --- finding limits -----------------------------------------------------------------------------------


async def helper(number: int) -> int:
    return await double(number)


@workflow
async def through_a_helper(number: int) -> int:
    return await helper(number)


def test_limits_of_steps_are_found_through_helpers_and_closures():
    """
    Steps need not be listed: the code of workflows names them.
    """
    inner = Limit("inner", concurrency=3)

    @step(limit=inner)
    def hidden() -> None: ...

    @workflow
    async def closing() -> Flow[None]:
        yield hidden()

    assert collect_limits([through_a_helper, closing], []) == {"one": ONE, "inner": inner}
    other = Limit("one", concurrency=9)
    assert collect_limits([through_a_helper], [other]) == {"one": other}


def test_what_is_wrong_with_limits_is_said_when_they_are_written():
    """
    At the decorator, with what was found.
    """
    wrong: list[dict[str, Any]] = [
        {"limit": 5},
        {"limit_key": str},
        {"limit": ONE, "limit_key": "x"},
        {"limit": Limit("r", concurrency=1, on_conflict="reject")},
    ]
    for options in wrong:
        with pytest.raises(DefinitionError, match="limit"):
            step(**options)(lambda: None)
    with pytest.raises(DefinitionError, match="takes Limit objects"):
        collect_limits([], ["one"])


def test_a_plain_call_has_no_limit():
    """
    `call` takes no options.
    """

    @workflow
    async def calling() -> Flow[int]:
        value: int = yield call(abs, -3)
        yield Return(value)

    assert run(calling()).value() == 3
