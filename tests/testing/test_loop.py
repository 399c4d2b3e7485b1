"""
The event loop that jumps: alone, with threads, with engines, with a virtual clock.
"""

import asyncio
import contextlib
import threading
import time
from datetime import timedelta

import anyio
import pytest

from durable import Engine, Flow, Return, RunFailedError, gather, settle, sleep, step, workflow
from durable.testing import AutojumpLoop, VirtualClock

pytestmark = pytest.mark.anyio

DAY = 86_400.0
YEAR = 365 * DAY


@pytest.fixture(scope="module")
def anyio_backend():
    """
    As users have it.
    """
    return "asyncio", {"loop_factory": AutojumpLoop}


@pytest.fixture
async def now():
    """
    The loop's time, from the test's beginning on.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    return lambda: loop.time() - began


@pytest.fixture
async def stopped():
    """
    The loop, whose time stands still until it is moved.
    """
    loop = asyncio.get_running_loop()
    loop.autojump = False
    yield loop
    loop.autojump = True


async def test_sleeps_take_no_time_and_end_in_their_order(now):
    """
    A hundred years; whoever sleeps less wakes first, at his time.
    """
    woke = []

    async def sleeps(seconds):
        await asyncio.sleep(seconds)
        woke.append((seconds, now()))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for years in (100, 1, 10):
            tasks.start_soon(sleeps, years * YEAR)
    assert time.perf_counter() - began < 30.0  # a hundred years, on however busy a machine
    assert [years for years, _ in woke] == [YEAR, 10 * YEAR, 100 * YEAR]
    assert all(at == pytest.approx(seconds) for seconds, at in woke)


async def test_timeouts_jump_too(now):
    """
    asyncio's and anyio's.
    """
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(DAY):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError), anyio.fail_after(DAY):
        await anyio.sleep_forever()
    with anyio.move_on_after(DAY) as scope:
        await anyio.sleep(2 * DAY)
    assert scope.cancelled_caught
    assert now() == pytest.approx(3 * DAY)


async def test_a_callback_for_now_is_called_however_late_it_is():
    """
    `call_later(0)` and `call_at(now)` after centuries, when a nanosecond is less than a step of the time.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(300 * YEAR)
    called = []
    loop.call_later(0, called.append, "later")
    loop.call_at(loop.time(), called.append, "at")
    loop.call_later(1e-9, called.append, "soon")
    await loop.settled()
    await asyncio.sleep(1)
    assert sorted(called) == ["at", "later", "soon"]


@pytest.mark.parametrize("thread", ["to_thread", "executor", "anyio"])
async def test_time_stands_still_while_a_thread_works_for_us(now, thread):
    """
    A timeout of a second is not over when a thread takes longer than a jump.
    """

    def work():
        time.sleep(0.05)
        return "done"

    starts = {
        "to_thread": lambda: asyncio.to_thread(work),
        "executor": lambda: asyncio.get_running_loop().run_in_executor(None, work),
        "anyio": lambda: anyio.to_thread.run_sync(work),
    }
    async with asyncio.timeout(1):
        assert await starts[thread]() == "done"
    assert now() < 0.001
    await asyncio.sleep(1)  # idle threads hold nothing
    assert now() == pytest.approx(1, abs=0.001)


async def test_what_the_loop_cannot_know_of_holds_the_time_if_it_is_told(now):
    """
    A thread of somebody else's, with `hold`.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    with loop.hold():
        assert loop.calls_in_flight == 1
        threading.Timer(0.05, lambda: loop.call_soon_threadsafe(future.set_result, "told")).start()
        async with asyncio.timeout(1):
            assert await future == "told"
    assert loop.calls_in_flight == 0
    assert now() < 0.001


async def test_what_arrives_comes_before_what_is_due(now):
    """
    A pipe that has something to read is read before a timer fires.
    """

    async def answer(_, writer):
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.readline() == b"hello\n"
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    assert now() < 0.001


async def test_time_that_stands_still_is_moved_by_advance_and_jump(stopped, now):
    """
    Timers fire in their order; `advance` returns when what they caused has happened.
    """
    woke = []

    async def sleeps(seconds):
        await asyncio.sleep(seconds)
        await asyncio.to_thread(time.sleep, 0.01)
        woke.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(sleeps, seconds)
        await stopped.settled()
        assert woke == []
        await stopped.advance(20)
        assert woke == [10, 20]
        assert now() == pytest.approx(20, abs=0.001)
        stopped.jump(10)
        await stopped.settled()
        assert woke == [10, 20, 30]


async def test_an_advance_that_is_cancelled_moves_no_more(stopped, now):
    """
    Time stands still again.
    """
    with anyio.move_on_after(5):
        await stopped.advance(10)
    assert now() == pytest.approx(5, abs=0.001)
    assert stopped._advancing == 0


# --- with engines ----------------------------------------------------------------------------------------


@step
async def naps(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@step(timeout=3600)
async def limited(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@step(thread=True)
def threaded(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.fixture(params=["memory", "file"])
def opened(request, engines):
    """
    Opens engines, in memory and on a file.
    """
    return getattr(engines, request.param)


async def test_steps_runs_and_the_test_agree_on_the_time(opened, now):
    """
    Steps that sleep, timeouts of steps, durable timers beside them, and a clock: one time.
    """
    clock = VirtualClock()

    @workflow
    async def day() -> Flow[list]:
        yield sleep(3600)
        first: float = yield naps(3600)
        second: list = yield gather(naps(7200), sleep(1800), threaded(0.02))
        third: object = yield settle(limited(7200))
        yield Return([first, second[0], type(third.error).__name__])

    engine = await opened(day, clock=clock)
    assert await engine.run(day()) == [3600, 7200, "TimeoutError"]
    assert clock.monotonic() == pytest.approx(3600 * 5, abs=1)
    assert now() == pytest.approx(clock.monotonic(), abs=1)


async def test_a_year_of_sleeping_takes_milliseconds_here_too(opened):
    """
    Housekeeping every few seconds would make millions of stops.
    """

    @workflow
    async def year() -> Flow[int]:
        for _ in range(100):
            yield sleep(YEAR / 100)
        yield Return(100)

    engine = await opened(year, clock=VirtualClock())
    began = time.perf_counter()
    assert await engine.run(year()) == 100
    assert time.perf_counter() - began < 30.0  # a year, on however busy a machine


async def test_a_timer_fires_at_its_time_while_a_step_sleeps_longer(opened):
    """
    A deadline that is set while something else is under way is stopped at.
    """
    clock = VirtualClock()

    @workflow
    async def long() -> Flow[float]:
        value: float = yield naps(DAY)
        yield Return(value)

    @workflow(timeout=600)
    async def short() -> Flow[float]:
        value: float = yield naps(DAY)
        yield Return(value)

    @workflow
    async def sleeper() -> Flow[None]:
        yield sleep(60)

    engine = await opened(long, short, sleeper, clock=clock)
    began = clock.now()
    running = await engine.start(long())
    await engine.run(sleeper())
    assert clock.now() - began == pytest.approx(60, abs=0.1)
    with pytest.raises(RunFailedError, match="600"):
        await engine.run(short())
    assert clock.now() - began == pytest.approx(660, abs=0.1)
    assert await running.result() == DAY


async def test_time_is_moved_by_the_clock_where_it_stands_still(opened, stopped):
    """
    `clock.advance` and `clock.jump` are the loop's; a step that hangs holds nothing up.
    """
    clock = VirtualClock(autojump=False)

    @workflow
    async def hours() -> Flow[int]:
        for _ in range(24):
            yield sleep(3600)
        yield Return(24)

    @workflow
    async def hanging() -> Flow[None]:
        yield naps(YEAR)

    engine = await opened(hours, hanging, clock=clock, grace=0.0)
    await engine.start(hanging())
    run = await engine.start(hours())
    await clock.advance(0)
    assert not clock.autojump
    commands = len(await run.history())
    await clock.advance(3600)
    assert len(await run.history()) > commands
    await clock.advance(timedelta(hours=22))
    assert await run.status() == "waiting"
    clock.jump(3600)
    assert await run.result(1.0) == 24
    stopped.autojump = False
    clock.autojump = True
    assert stopped.autojump


def test_a_loop_ends_in_order_whatever_it_was_told_of():
    """
    The default executor is waited for (that has a timeout, which does not jump); an engine nobody closed is forgotten.
    """
    ended = []

    def work():
        time.sleep(0.05)
        ended.append("thread")

    async def main():
        asyncio.get_running_loop().run_in_executor(None, work)
        engine = Engine(":memory:", [], grace=0.0)
        assert asyncio.get_running_loop().calls_in_flight == 1
        await engine.open()
        asyncio.get_running_loop().detach_engine(engine)
        asyncio.get_running_loop().detach_engine(engine)
        await engine.aclose()

    with asyncio.Runner(loop_factory=AutojumpLoop) as runner:
        runner.run(main())
    assert ended == ["thread"]
