"""
`Engine(replay_always=True)`: every turn is followed by a replay from the journal.
"""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable import (
    Engine,
    Flow,
    Retry,
    Return,
    RunFailedError,
    gather,
    job,
    replay,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.testing import VirtualClock, strategies
from tests.histories import workflows

pytestmark = pytest.mark.anyio

done = []


@step
async def work(name: str) -> str:
    done.append(name)
    return name


@transaction
def book(tx, name: str) -> str:
    return name


@job
async def told(name: str) -> str:
    return name


@pytest.fixture(autouse=True)
def nothing_done():
    done.clear()


@pytest.fixture
async def always(engines):
    """
    An engine in memory that replays always, on a virtual clock.
    """

    async def make(*given, **options):
        return await engines.memory(*given, replay_always=True, clock=VirtualClock(), **options)

    return make


async def test_each_turn_runs_the_code_from_its_beginning(always):
    """
    Three commands: the code begins once live, and once for each command, since nothing is kept between turns.
    """
    begun = []

    @workflow
    async def three() -> Flow[str]:
        begun.append(1)
        a: str = yield work("a")
        b: str = yield work("b")
        yield sleep(3600)
        yield Return(a + b)

    engine = await always(three)
    assert await engine.run(three()) == "ab"
    assert done == ["a", "b"]  # steps are not executed again
    # Live; after "a" was asked for, after "b", after the sleep; when the run is taken over again, and for its end.
    assert len(begun) == 6


async def test_the_workflows_of_the_golden_journals_come_to_the_same_results(always):
    """
    Transactions, jobs, retries, groups, races, signals, timers, patches, continuations.
    """
    w = workflows
    engine = await always(
        w.ride, w.notify_drivers, w.write_audit, w.expense, w.changed, w.countdown, w.resize, w.gallery
    )
    assert await engine.run(w.ride(42, "Main St 1")) == w.Receipt(1, "charge-1", 3)
    run = await engine.start(w.expense("Ada", 120, 60.0))
    await run.signal("decision", w.Decision(approved=True, by="Mia"))
    assert await run.result() == "approved by Mia"
    assert await engine.run(w.expense("Cyd", 30, 60.0)) == "timed out"
    assert (await engine.run(w.changed(5)))["value"] == 20
    await engine.run(w.countdown(2))
    assert await engine.run(w.gallery(["a", "b", "c"])) == ["a@2x", "b@2x", "c@2x"]


async def ended(form, program, **options):
    """
    What a program's run came to, and the kinds of its events.
    """
    clock = VirtualClock(1e9)
    async with Engine(":memory:", strategies.definitions, clock=clock, cleanup_timeout=1.0, **options) as engine:
        run = await engine.start(form(program), id="p", delay=1.0)  # all signals are there when it begins
        for name, number in itertools.product(strategies.SIGNALS, range(20)):
            await run.signal(name, number)
        try:
            outcome = await run.result()
        except RunFailedError as error:
            outcome = str(error)
        history = await run.history()
        assert replay(history, form).verify().ended
        return outcome, [type(each.event).__name__ for each in history]


@given(st.sampled_from([strategies.coroutine_program, strategies.generator_program]), strategies.programs(max_leaves=5))
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
async def test_random_programs_come_to_the_same_results(form, program):
    """
    Whatever Hypothesis writes ends alike, with and without, on a journal of the same events.
    """
    assert await ended(form, program, replay_always=True) == await ended(form, program)


@pytest.mark.parametrize("options", [{}, {"keep_resident": 10}])
async def test_a_workflow_that_is_not_deterministic_is_blocked_at_once_with_a_report(always, options, reached):
    """
    The step that was asked for is not begun; without this the run succeeds, and nobody knows.
    """
    names = itertools.cycle(["odd", "even"])

    @workflow
    async def moody() -> Flow[str]:
        if next(names) == "odd":
            value: str = yield work("odd")
        else:
            value = yield book("even")
        yield Return(value)

    async with Engine(":memory:", [moody]) as plain:
        assert await plain.run(moody()) == "odd"
    names = itertools.cycle(["odd", "even"])
    done.clear()
    engine = await always(moody, **options)
    run = await engine.start(moody())
    await engine.idle()
    assert done == []
    assert await run.status() == "blocked"
    why = await run.why()
    assert "book" in why
    assert "work" in why


async def test_code_that_turns_at_its_very_end_is_blocked_before_that_is_recorded(always):
    """
    The last turn is replayed before it is written: a journal that no code would replay is not made.
    """
    times = itertools.count()

    @workflow
    async def ending() -> Flow[str]:
        value: str = yield work("a")
        if next(times):
            yield work("b")
        yield Return(value)

    engine = await always(ending)
    run = await engine.start(ending())
    await engine.idle()
    assert await run.status() == "blocked"
    assert done == ["a"]
    assert [type(each.event).__name__ for each in await run.history()][-1] != "RunSucceeded"


async def test_steps_beside_each_other_go_on_while_their_run_is_replayed(always):
    """
    What is under way is not begun again, and its outcome is taken in; a retry keeps its count.
    """
    attempts = []

    @step(retry=Retry(attempts=3, delay=60.0))
    async def shaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError(len(attempts))
        return len(attempts)

    @workflow
    async def side_by_side() -> Flow[list]:
        both: list = yield gather(work("a"), shaky(), work("b"), wait_for("go", int))
        yield Return(both)

    engine = await always(side_by_side)
    run = await engine.start(side_by_side())
    await run.signal("go", 7)
    assert await run.result() == ["a", 3, "b", 7]
    assert sorted(done) == ["a", "b"]
