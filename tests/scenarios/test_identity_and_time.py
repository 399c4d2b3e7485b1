"""
Scenarios 51 to 56: one run a key, one owner a file, timers and signals that outlive the process.
"""

import asyncio
import os
import signal
from datetime import timedelta

import pytest

from durable import (
    Client,
    Engine,
    Flow,
    JournalLockedError,
    KeyConflictError,
    Limit,
    Return,
    by_arguments,
    now,
    sleep,
    sleep_until,
    step,
    wait_for,
    workflow,
)
from tests.scenarios.differences import COUNTS, DEDUP, differs, needs_a_file

pytestmark = pytest.mark.anyio

RAN: list[str] = []
DAY = 86_400.0


@pytest.fixture(autouse=True)
def ran():
    """
    What bodies ran, in order.
    """
    RAN.clear()
    return RAN


@step
async def do(name: str) -> str:
    RAN.append(name)
    return name


async def all_runs(engine):
    return [info async for info in engine.runs()]


async def test_one_key_is_one_run_under_concurrency(engines, ran):
    """
    Scenario 51: fifty concurrent starts get one run, whose body runs once; a start with other arguments
    is an error that says so, and the first run does not notice.
    """

    @workflow
    async def order(number: int) -> Flow[int]:
        yield do(f"order {number}")
        yield wait_for("paid")
        yield Return(number)

    engine = await engines.file(order)
    runs = await asyncio.gather(*(engine.start(order(1), key="k") for _ in range(50)))
    assert len({run.id for run in runs}) == 1
    with pytest.raises(KeyConflictError, match="'k'") as caught:
        await engine.start(order(2), key="k")
    assert caught.value.run_id == runs[0].id
    await runs[0].signal("paid")
    assert [await run.result(20) for run in runs] == [1] * 50
    assert ran == ["order 1"]
    assert len(await all_runs(engine)) == 1


async def test_keys_made_of_arguments_do_not_run_together(engines):
    """Scenario 52: lists whose elements would read the same if they were joined are different runs."""

    @workflow(key=by_arguments)
    async def of_list(values: list) -> Flow[list]:
        yield Return(values)

    @workflow(key=by_arguments)
    async def of_two(first: str, second: str = "") -> Flow[list]:
        yield Return([first, second])

    engine = await engines.memory(of_list, of_two)
    ops = [
        of_list([1, 23]), of_list([12, 3]), of_list([123]), of_list(["1", 23]),
        of_list(["a,b"]), of_list(["a", "b"]), of_list([["a", "b"]]),
        of_two("ab", "c"), of_two("a", "bc"), of_two("abc"),
    ]  # fmt: skip
    runs = await engine.start_many(ops)
    assert len({run.id for run in runs}) == len(ops)
    assert await engine.start_many([of_list([12, 3]), of_two("a", second="bc")]) == [runs[1], runs[8]]


@needs_a_file("a server has many workers at once: a run is no process's, and no lock says whose it is")
async def test_a_stalled_owner_keeps_the_file_and_a_killed_one_frees_it(engines, hosts, eventually, reached):
    """
    Scenario 53: a run is executed by one process at a time.

    There is no lease that could expire under its holder, but a lock of the kernel's: a process that is
    stopped keeps the file however long that takes, so nobody else can begin, and it goes on as if
    nothing had been. A killed one frees the file at once, and can write no more for certain.
    """
    definitions = [*hosts.module.WORKFLOWS.values(), hosts.module.child]
    before = ["begin before", "before r:0 1"]

    async def has_begun():
        return hosts.lines() == before

    async def is_refused(process):
        with pytest.raises(JournalLockedError, match=f"pid {process.pid}"):
            await Engine(hosts.database, definitions).open()

    process = hosts.start("stalls")
    try:
        await eventually(has_begun)
        async with Client(hosts.database) as client:
            await reached(client.get("r"), "waiting")
        os.kill(process.pid, signal.SIGSTOP)
        await is_refused(process)
        await is_refused(process)
        os.kill(process.pid, signal.SIGCONT)
        await is_refused(process)
        assert hosts.lines() == before
    finally:
        process.kill()
        process.communicate()
    engine = await engines.file(*definitions)
    run = engine.get("r")
    await run.signal("go")
    assert await run.result(20) == "went"
    assert hosts.lines() == [*before, "begin after", "after r:2 1"]


@pytest.mark.parametrize("lives", ["one", "restarted before", "restarted after"])
async def test_a_sleep_of_two_weeks_outlives_the_process(engines, ran, clock, reached, lives):
    """Scenario 54: it wakes once, when it is due and not before; due while nothing ran, it wakes at once."""

    @workflow
    async def flow() -> Flow[list]:
        began = now()
        yield sleep(timedelta(days=14))
        yield do("first")
        yield sleep_until(began + timedelta(days=15))
        yield do("second")
        yield Return([(now() - began).total_seconds()])

    async def nothing_ran():
        for _ in range(20):
            await asyncio.sleep(0)
        return ran == []

    engine = await engines.file(flow, clock=clock)
    run = await engine.start(flow(), id="r")
    await reached(run, "waiting")
    await clock.passes(14 * DAY - 1)
    assert await nothing_ran()
    if lives != "one":
        await engines.crash(engine)
        if lives == "restarted after":
            await clock.passes(2)
        engine = await engines.file(flow, clock=clock)
        run = engine.get("r")
        if lives == "restarted before":
            assert await nothing_ran()
            assert await run.status() == "waiting"
    if lives != "restarted after":
        await clock.passes(1.5)
    async with asyncio.timeout(20):
        while not ran:
            await asyncio.sleep(0.001)
    await reached(run, "waiting")
    assert ran == ["first"]
    await clock.passes(2 * DAY)
    (took,) = await run.result(20)
    assert 15 * DAY < took < 17 * DAY
    assert ran == ["first", "second"]
    history = [event.kind for event in await run.history()]
    assert (history.count("TimerSet"), history.count("TimerFired")) == (2, 2)


@differs(DEDUP)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_signal_is_delivered_once_whenever_it_comes(engines, ran, clock, reached, restarted):
    """
    Scenario 55: sent before the run waits, it is kept; it is consumed once; where none comes, the timeout
    does; a restart during each of the waits changes nothing.
    """
    gate = asyncio.Event()

    @step
    async def before_waiting() -> None:
        RAN.append("before")
        await gate.wait()

    @workflow
    async def flow() -> Flow[list]:
        yield before_waiting()
        got = []
        for _ in range(3):
            try:
                value: str = yield wait_for("go", str, timeout=60)
            except TimeoutError:
                value = yield do("timed out")
            got.append(value)
        yield Return(got)

    async def next_life(engine):
        if not restarted:
            return engine, engine.get("r")
        await engines.crash(engine)
        engine = await engines.file(flow, clock=clock)
        return engine, engine.get("r")

    engine = await engines.file(flow, clock=clock)
    run = await engine.start(flow(), id="r")
    async with asyncio.timeout(20):
        while not ran:
            await asyncio.sleep(0.001)
    assert await run.signal("go", "early") is True
    engine, run = await next_life(engine)
    gate.set()
    await reached(run, "waiting")
    await clock.passes(59)
    engine, run = await next_life(engine)
    assert await run.signal("go", "late", dedup="late") is True
    assert await run.signal("go", "late", dedup="late") is engines.differs(DEDUP)
    await reached(run, "waiting")
    engine, run = await next_life(engine)
    await reached(run, "waiting")
    await clock.passes(61)
    assert await run.result(20) == ["early", "late", "timed out"]
    assert ran.count("timed out") == 1
    assert ran.count("before") == (2 if restarted else 1)


@differs(COUNTS)
async def test_a_limit_is_shared_and_a_killed_holder_frees_it(engines, doors, meter, eventually):
    """
    Scenario 56: never more than two inside, of whichever workflow; those that wait hold no coroutine.

    There is no lease: what a killed process held is free as soon as the next one opens the file.
    """
    api = Limit("api", concurrency=2)
    door = doors()

    @step(limit=api)
    async def inside(name: str) -> str:
        async with meter(name):
            await door()
            return name

    @workflow
    async def one(name: str) -> Flow[str]:
        value: str = yield inside(name)
        yield Return(value)

    @workflow
    async def other(name: str) -> Flow[str]:
        value: str = yield inside(name)
        yield Return(value)

    engine = await engines.file(one, other)
    ids = [run.id for run in await engine.start_many([each(f"{n}") for n in range(5) for each in (one, other)])]
    await door.reached(2)
    if not engines.differs(COUNTS):
        async with asyncio.timeout(20):
            while (await engine.stats()).active > 2:
                await asyncio.sleep(0.002)

    async def others_wait():
        return [await engine.get(run_id).status() for run_id in ids].count("waiting") == 8

    await eventually(others_wait)
    assert meter.peak == 2
    await engines.crash(engine)
    meter.peak = meter.now = 0
    engine = await engines.file(one, other)
    await door.reached(4)  # two have taken the places of those that were killed
    door.open()
    assert [await engine.get(run_id).result(20) for run_id in ids] == [f"{n}" for n in range(5) for _ in (one, other)]
    assert meter.peak == 2
