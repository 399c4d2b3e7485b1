"""
Clocks that are set while an engine runs: what waits, waits as long as it was to, and schedules tick on.
"""

import asyncio

import pytest

from durable import Flow, Retry, Return, Schedule, job, sleep, step, timeout, wait_for, workflow
from durable._shell.clock import SLOWED, SteadyClock, SystemClock, steady
from durable.testing import VirtualClock
from tests.conftest import HandClock

pytestmark = pytest.mark.anyio
HOUR = 3600.0


class SetClock(HandClock):
    """Time, moved by hand, of a machine whose clock can be set."""

    def __init__(self):
        super().__init__()
        self.set_by = 0.0
        self.start = 1_800_000_000.0  # a full minute

    def now(self):
        return super().now() + self.set_by


@pytest.fixture
async def clock():
    """
    Time, moved by hand, of a clock that can be set.
    """
    return SetClock()


async def passing(clock, seconds, ended):
    """
    Let time pass in small parts, until *ended* holds; how much has passed.
    """
    passed = 0.0
    while not await ended() and passed < seconds:
        clock.advance(seconds / 20)
        passed += seconds / 20
        for _ in range(5):
            await asyncio.sleep(0.001)
    return passed


def test_a_steady_clock_never_goes_back_and_catches_up():
    """
    Set back, it continues, a little slower; set forward, it follows; both as often as need be.
    """
    clock = SetClock()
    tested = SteadyClock(clock)
    assert (tested.now(), tested.monotonic()) == (clock.now(), 0.0)
    clock.offset += 10
    assert tested.now() == clock.now()
    clock.set_by -= HOUR
    before = tested.now()
    for _ in range(10):
        clock.offset += 10
        assert tested.now() - before == pytest.approx(SLOWED * 10)
        before = tested.now()
    clock.offset += 2 * HOUR / (1 - SLOWED)
    assert tested.now() == clock.now()
    clock.set_by += 24 * HOUR
    assert tested.now() == clock.now()
    clock.set_by -= 24 * HOUR
    assert tested.now() == pytest.approx(clock.now() + 24 * HOUR)
    assert isinstance(steady(SystemClock()), SteadyClock)


async def test_a_clock_of_a_test_is_left_alone():
    """
    One that jumps says itself what time it is.
    """
    clock = VirtualClock()
    assert steady(clock) is clock


@job(retry=Retry(attempts=2, delay=1.0, jitter=0))
async def fails_once(failed: str) -> str:
    if failed not in TRIED:
        TRIED.add(failed)
        raise ValueError(failed)
    return "done"


TRIED: set[str] = set()


@workflow
async def sleeping() -> Flow[str]:
    yield sleep(1.0)
    yield Return("done")


@workflow
async def timing_out() -> Flow[str]:
    try:
        yield timeout(wait_for("never"), 1.0)
    except TimeoutError:
        yield Return("done")


@job
async def quick() -> str:
    return "done"


WAITING = {
    "a retry": (fails_once("a retry"), {}),
    "a timer": (sleeping(), {}),
    "a time limit": (timing_out(), {}),
    "a delay": (quick(), {"delay": 1.0}),
}


@pytest.mark.parametrize("what", WAITING)
@pytest.mark.parametrize("by", [-HOUR, -24 * HOUR, HOUR])
async def test_what_waits_a_second_waits_a_second_however_the_clock_is_set(engines, clock, what, by):
    """
    Be it set back or forward.
    """
    TRIED.clear()
    engine = await engines.memory(fails_once, sleeping, timing_out, quick, clock=clock)
    op, options = WAITING[what]
    run = await engine.start(op, **options)
    await engine.idle()

    async def ended():
        return (await run.info()).ended_at is not None

    assert not await ended()
    clock.set_by += by
    passed = await passing(clock, 2.0, ended)
    assert await ended()
    assert await run.result() == "done"
    assert passed <= 1.0 / SLOWED + 0.11


async def test_a_retry_on_the_machines_own_clock_waits_no_longer(engines, monkeypatch):
    """
    As above, with the clock of the machine.
    """
    TRIED.clear()
    offset = 0.0
    real = SystemClock.now
    monkeypatch.setattr(SystemClock, "now", lambda _: real() + offset)

    @job(retry=Retry(attempts=2, delay=0.05, jitter=0))
    async def fails() -> str:
        nonlocal offset
        if offset == 0.0:
            offset = -HOUR
            raise ValueError
        return "done"

    engine = await engines.memory(fails)
    assert await asyncio.wait_for(engine.run(fails()), 10) == "done"


@pytest.mark.parametrize("kind", [{"every": 60}, {"cron": "* * * * *"}], ids=["every", "cron"])
async def test_schedules_neither_stand_still_nor_tick_twice_when_the_clock_is_set_back(engines, clock, kind):
    """
    Each minute once, a little slower until the clock has caught up.
    """
    ticked = []

    @job
    async def tick() -> None:
        ticked.append(clock.offset)

    engine = await engines.memory(tick, schedules=[Schedule("often", tick(), **kind)], clock=clock)
    for minute in range(1, 26):
        if minute == 6:
            clock.set_by -= HOUR
        clock.advance(60.0)
        for _ in range(10):
            await asyncio.sleep(0)
        await engine.idle()
    assert len(ticked) == 5 + int(20 * SLOWED)
    infos = [info async for info in engine.runs(status="succeeded")]
    assert len({info.run_id for info in infos}) == len(ticked)


async def test_after_a_restart_the_wall_clock_counts_and_nothing_ticks_twice(engines, clock):
    """
    A timer waits for the instant that is recorded; ticks that were started are not started again.
    """
    ticked = []

    @job
    async def tick() -> None:
        ticked.append(clock.offset)

    @step
    async def done() -> str:
        return "done"

    @workflow
    async def slow() -> Flow[str]:
        yield sleep(600)
        yield Return((yield done()))

    schedules = [Schedule("often", tick(), every=60)]
    engine = await engines.file(tick, slow, schedules=schedules, clock=clock)
    for _ in range(5):
        clock.advance(60.0)
        await asyncio.sleep(0.005)
        await engine.idle()
    run = await engine.start(slow())
    await engine.idle()
    assert len(ticked) == 5
    await engine.aclose()
    clock.set_by -= HOUR
    engine = await engines.file(tick, slow, schedules=schedules, clock=clock)
    clock.advance(660.0)
    await asyncio.sleep(0.01)
    await engine.idle()
    assert (await engine.get(run.id).info()).status == "waiting"
    assert len(ticked) == 5
    clock.advance(HOUR)
    assert await asyncio.wait_for(engine.get(run.id).result(), 10) == "done"
