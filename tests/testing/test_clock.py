"""
The virtual clock, on an ordinary event loop: time jumps while engines are idle, and only then.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest

from durable import (
    Engine,
    Flow,
    Queue,
    Rate,
    Retry,
    Return,
    Schedule,
    context,
    job,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable.errors import EngineClosedError, RunFailedError, UsageError
from durable.testing import VirtualClock
from durable.testing import clock as module

pytestmark = pytest.mark.anyio

YEAR = 365 * 86_400.0
START = datetime(2030, 1, 1, tzinfo=UTC)


@workflow
async def sleeper(seconds: float) -> Flow[float]:
    yield sleep(seconds)
    yield Return(seconds)


@workflow
async def patient(days: float) -> Flow[str]:
    try:
        answer: str = yield wait_for("answer", str, timeout=timedelta(days=days))
        yield Return(answer)
    except TimeoutError:
        yield Return("nobody answered")


@pytest.fixture(params=["memory", "file"])
def opened(request, engines):
    """
    Opens engines, in memory and on a file: with and without threads.
    """
    return getattr(engines, request.param)


@pytest.fixture
async def virtual():
    """
    A clock that jumps.
    """
    return VirtualClock(START)


@pytest.fixture
async def still():
    """
    A clock that is moved.
    """
    return VirtualClock(START, autojump=False)


async def test_a_year_of_sleeping_takes_milliseconds(opened, virtual):
    """
    Two hundred sleeps, a year in all; the journal's time is that of the clock.
    """

    @workflow
    async def year() -> Flow[int]:
        for _ in range(200):
            yield sleep(YEAR / 200)
        yield Return(200)

    engine = await opened(year, clock=virtual)
    began = time.perf_counter()
    run = await engine.start(year())
    assert await run.result() == 200
    assert time.perf_counter() - began < 30.0  # a year, on however busy a machine
    history = await run.history()
    assert history[-1].event.at - history[0].event.at == pytest.approx(YEAR)
    assert virtual.monotonic() == pytest.approx(YEAR)
    assert virtual.now() == pytest.approx(START.timestamp() + YEAR)


async def test_a_test_that_acts_at_once_is_never_too_late(opened, virtual):
    """
    The answer comes before the patience of three days is over, however fast those pass; left alone, it is over.
    """
    engine = await opened(patient, clock=virtual)
    for number in range(20):
        run = await engine.start(patient(3))
        info = await run.info()  # a call of the database in flight holds the time, too
        assert info.status != "succeeded"
        await asyncio.create_task(run.signal("answer", f"yes {number}"))
        assert await run.result() == f"yes {number}"
    assert await engine.run(patient(3)) == "nobody answered"


async def test_time_waits_for_steps_under_way(engines, virtual):
    """
    A step that takes real time, in a thread or on the loop, is never overtaken by a timer.
    """

    @step(thread=True)
    def slow() -> str:
        time.sleep(0.05)
        return "done"

    @step
    async def slow_too() -> str:
        await asyncio.sleep(0.05)
        return "done"

    @workflow
    async def guarded() -> Flow[list]:
        first: str = yield timeout(slow(), 1.0)
        second: str = yield timeout(slow_too(), 1.0)
        yield Return([first, second])

    engine = await engines.file(guarded, clock=virtual)
    assert await engine.run(guarded()) == ["done", "done"]
    assert virtual.monotonic() < 1.0


async def test_retries_delays_deadlines_rates_and_schedules_jump(engines, virtual):
    """
    All that an engine waits for goes by its clock.
    """
    at = []

    @job(retry=Retry(attempts=4, delay=3600, factor=1.0, max_delay=3600, jitter=0))
    async def flaky(number: int) -> int:
        at.append(round(virtual.monotonic()))
        if context().attempt < 4:
            raise ConnectionError
        return number

    @job(queue="rated")
    async def rated(number: int) -> float:
        return virtual.monotonic()

    @workflow(timeout=timedelta(days=1))
    async def hopeless() -> Flow[None]:
        yield wait_for("never")

    engine = await engines.file(flaky, rated, hopeless, clock=virtual, queues=[Queue("rated", rate=Rate(1, per=60))])
    assert await engine.run(flaky(7), delay=100.0) == 7
    assert at == [100, 3700, 7300, 10900]
    runs = await engine.start_many([rated(number) for number in range(4)])
    times = [await run.result() for run in runs]
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [60, 60, 60]
    with pytest.raises(RunFailedError, match="not done within 86400 s"):
        await engine.run(hopeless())


async def test_each_tick_of_a_schedule_comes_at_its_time(opened, still):
    """
    A day of a schedule that ticks each hour, when the day is let pass; no tick before.
    """
    ticks = []

    @job
    async def report(at: datetime) -> None:
        ticks.append(at)

    schedule = Schedule("hourly", lambda at: report(at), every=timedelta(hours=1))  # noqa: PLW0108 - a job is not a function of schedules
    engine = await opened(report, clock=still, schedules=[schedule])
    await still.advance(3599)
    assert ticks == []
    await still.advance(timedelta(days=1))
    assert ticks == [START + timedelta(hours=number) for number in range(1, 25)]
    await engine.schedule("hourly").pause()
    await still.advance(timedelta(days=1))
    assert len(ticks) == 24


async def test_a_queue_that_is_let_go_again_lets_time_jump(opened, virtual):
    """
    What was held back by a pause, and then by a rate, begins when they let it.
    """

    @job(queue="rated")
    async def rated(number: int) -> int:
        return number

    engine = await opened(rated, clock=virtual, queues=[Queue("rated", rate=Rate(1, per=3600))])
    await engine.queue("rated").pause()
    runs = await engine.start_many([rated(number) for number in range(3)])
    await engine.idle()
    assert virtual.monotonic() == 0.0
    await engine.queue("rated").resume()
    assert [await run.result() for run in runs] == [0, 1, 2]
    assert virtual.monotonic() == pytest.approx(7200)


async def test_advance_returns_when_all_that_came_due_has_been_dealt_with(opened, still):
    """
    No polling in tests: one look after `advance` sees the steps done that follow from timers, and no later ones.
    """
    at = []

    @step
    async def note() -> None:
        await asyncio.sleep(0)
        at.append(round(still.monotonic()))

    @workflow
    async def every_minute() -> Flow[None]:
        for _ in range(100):
            yield sleep(60)
            yield note()

    engine = await opened(every_minute, clock=still)
    run = await engine.start(every_minute())
    await still.advance(59)
    assert at == []
    await still.advance(1)
    assert at == [60]
    await still.advance(180.5)
    assert at == [60, 120, 180, 240]
    assert still.monotonic() == 240.5
    still.autojump = True
    await run.result()
    assert at[-1] == 6000


async def test_without_autojump_time_stands_still(engines, still):
    """
    Neither idleness nor what ends moves it.
    """
    engine = await engines.memory(sleeper, clock=still)
    run = await engine.start(sleeper(0.001))
    for _ in range(100):
        await asyncio.sleep(0)
    await engine.idle()
    assert await run.status() == "waiting"
    assert still.now() == START.timestamp()


async def test_a_step_that_never_ends_is_passed_by_a_jump_and_named_by_advance(engines, still, monkeypatch):
    """
    `advance` says why it does not return; `jump` waits for nothing, and the run's deadline strikes.
    """
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    begun = asyncio.Event()

    @step
    async def hangs() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow(timeout=60)
    async def stuck() -> Flow[None]:
        yield hangs()

    engine = await engines.memory(stuck, clock=still)
    run = await engine.start(stuck())
    await begun.wait()
    with pytest.raises(UsageError, match=r"clock.advance\(90\).*clock.jump"):
        await still.advance(90)
    still.jump(90)
    with pytest.raises(RunFailedError):
        await run.result()


async def test_engines_share_a_clock_and_it_waits_for_all(engines, virtual):
    """
    While one of two is at work no time passes for the other; a second one goes on where the first left off.
    """
    gate = asyncio.Event()

    @step
    async def waits() -> float:
        await gate.wait()
        return virtual.monotonic()

    @workflow
    async def busy() -> Flow[float]:
        value: float = yield waits()
        yield Return(value)

    first = await engines.memory(sleeper, clock=virtual)
    second = await engines.memory(busy, clock=virtual)
    working = await second.start(busy())
    sleeping = await first.start(sleeper(YEAR))
    await first.idle()
    for _ in range(100):
        await asyncio.sleep(0)
    assert virtual.monotonic() == 0.0
    gate.set()
    assert await working.result() == 0.0
    assert await sleeping.result() == YEAR
    await second.aclose()
    assert await first.run(sleeper(5.0)) == 5.0


async def test_a_run_goes_on_after_a_restart_on_the_same_clock(engines, still):
    """
    Down time is time: what came due meanwhile fires at once.
    """
    engine = await engines.file(sleeper, clock=still)
    run = await engine.start(sleeper(3600))
    await engine.idle()
    await engine.aclose()
    await still.advance(7200)
    engine = await engines.file(sleeper, clock=still)
    await engine.idle()
    assert await engine.get(run.id).status() == "succeeded"


async def test_who_sleeps_by_the_clock_wakes_when_time_has_passed(still):
    """
    `clock.sleep` for fakes and tests; it wakes at its instant, not before.
    """
    woke = []

    async def sleeps(seconds):
        await still.sleep(seconds)
        woke.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(sleeps, seconds)
        await still.advance(10)
        assert woke == [10]
        still.jump(timedelta(seconds=20))
        await anyio.lowlevel.checkpoint()
    assert sorted(woke) == [10, 20, 30]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), timedelta(days=-1)])
async def test_time_does_not_go_back(still, seconds):
    """
    Nor to where it never ends.
    """
    with pytest.raises(UsageError, match="0 or more"):
        await still.advance(seconds)
    with pytest.raises(UsageError, match="0 or more"):
        still.jump(seconds)


def test_the_start_is_an_instant():
    """
    Aware, or epoch seconds; that of now if nothing is said.
    """
    assert VirtualClock(START).now() == START.timestamp()
    assert VirtualClock(5).now() == 5.0
    assert abs(VirtualClock().now() - time.time()) < 60
    assert repr(VirtualClock(5)) == "<VirtualClock: 0 s after its start>"
    with pytest.raises(UsageError, match="aware"):
        VirtualClock(datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused


def test_a_clock_belongs_to_one_loop_while_it_is_in_use():
    """
    Elsewhere it is refused, rather than waited for in vain; once its engines are closed it may go on on another.
    """
    shared = VirtualClock(START)

    async def leaves_open():
        engine = Engine(":memory:", [sleeper], clock=shared)
        await engine.open()
        return engine

    async def uses():
        async with Engine(":memory:", [sleeper], clock=shared) as engine:
            return await engine.run(sleeper(60.0))

    with asyncio.Runner() as first:
        engine = first.run(leaves_open())
        with asyncio.Runner() as second:
            with pytest.raises(UsageError, match="another event loop"):
                second.run(uses())
        first.run(engine.aclose())
        with asyncio.Runner() as second:
            assert second.run(uses()) == 60.0
    assert asyncio.run(uses()) == 60.0
    assert shared.monotonic() == 120.0


async def test_idle_returns_at_once_when_nothing_is_under_way_and_not_before(engines):
    """
    On any clock: a step under way, what follows from it, and what the runs of a parent do; no waiting run.
    """
    gate = asyncio.Event()

    @step
    async def waits() -> None:
        await gate.wait()

    @job
    async def after() -> None:
        await asyncio.sleep(0.01)

    @workflow
    async def works() -> Flow[None]:
        yield waits()
        yield after()
        yield wait_for("never")

    engine = await engines.file(works, after, sleeper)
    await engine.idle()
    assert engine._backend.running.workload.is_idle
    run = await engine.start(works())
    await engine.start(sleeper(3600))
    assert engine._backend.running.workload.next_due_at is not None or not engine._backend.running.workload.is_idle
    waiting = asyncio.create_task(engine.idle())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    await waiting
    assert await run.status() == "waiting"
    assert engine._backend.running.workload.next_due_at is not None


async def test_idle_waits_for_timers_that_are_due(engines):
    """
    On the machine's clock, too: a timer that came due is under way although nobody has touched it yet.
    """
    clock = VirtualClock(START, autojump=False)
    engine = await engines.memory(sleeper, clock=clock)
    run = await engine.start(sleeper(60))
    await engine.idle()
    clock.jump(61)
    assert not engine._backend.running.workload.is_idle
    await engine.idle()
    assert await run.status() == "succeeded"


async def test_idle_of_an_engine_that_is_closed_or_fails_is_an_error(engines):
    """
    Nobody waits for ever.
    """
    gate = asyncio.Event()

    @step
    async def waits() -> None:
        await gate.wait()

    @workflow
    async def works() -> Flow[None]:
        yield waits()

    with pytest.raises(EngineClosedError):
        await Engine(":memory:", [works]).idle()
    engine = await engines.memory(works, grace=0.0)
    await engine.start(works())
    waiting = asyncio.create_task(engine.idle())
    await asyncio.sleep(0)
    await engine.aclose()
    with pytest.raises(EngineClosedError):
        await waiting
    engine = await engines.memory(works, grace=0.0)
    await engine.start(works())
    waiting = asyncio.create_task(engine.idle())
    await asyncio.sleep(0)
    engine._backend.running.supervisor.fail(RuntimeError("planted"))
    with pytest.raises(EngineClosedError, match="planted"):
        await waiting


async def test_runs_that_ended_long_ago_are_pruned_by_this_clock(opened, still):
    """
    Housekeeping goes by the engine's clock: `keep_finished` is tested without waiting.
    """
    engine = await opened(sleeper, clock=still, keep_finished=3600)
    run = await engine.start(sleeper(1))
    await still.advance(1)
    assert await run.result() == 1
    await still.advance(7200)
    async with asyncio.timeout(5):
        while [each async for each in engine.runs()]:
            await asyncio.sleep(0)
