"""
Waiting is rows, not objects: what is freed is gone, and comes back by itself.
"""

import asyncio
import gc
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from durable import (
    Flow,
    Return,
    continue_as,
    for_each,
    gather,
    job,
    race,
    settle,
    sleep,
    sleep_until,
    start,
    step,
    timeout,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio


class Big:
    """Something that a workflow holds in a local."""


ALIVE: list[weakref.ref] = []
GATE: list[asyncio.Event] = []


@job
async def gated(number: int) -> int:
    await GATE[0].wait()
    return number


@workflow
async def holding(count: int) -> Flow[int]:
    big = Big()
    ALIVE.append(weakref.ref(big))
    values: list[int] = yield gather(*(gated(number) for number in range(count)))
    yield Return(sum(values) + (big is not None))


@pytest.fixture
async def gate():
    """
    Lets the gated jobs go.
    """
    ALIVE.clear()
    GATE[:] = [asyncio.Event()]
    return GATE[0]


@pytest.mark.parametrize("kind", ["jobs", "signal", "timer", "retry"])
async def test_a_waiting_runs_locals_are_garbage(engines, gate, reached, kind, clock):
    """
    While a workflow awaits jobs, a signal, a timer or a retry delay, nothing of it stays in memory.
    """
    from durable import Retry

    attempts = []

    @step(retry=Retry(attempts=2, delay=10.0, jitter=0.0))
    async def flaky() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError

    @workflow
    async def other(kind: str) -> Flow[int]:
        big = Big()
        ALIVE.append(weakref.ref(big))
        if kind == "signal":
            yield wait_for("go")
        elif kind == "timer":
            yield sleep(10)
        else:
            yield flaky()
        yield Return(1 if big else 0)

    engine = await engines.memory(holding, gated, other, clock=clock)
    run = await engine.start(holding(3) if kind == "jobs" else other(kind))
    await reached(run, "waiting")
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert ALIVE
    assert all(ref() is None for ref in ALIVE)
    gate.set()
    if kind == "signal":
        await run.signal("go")
    clock.advance(11)
    assert await run.result(5) in (1, 4)


async def test_keep_resident_keeps_the_latest(engines, gate, reached):
    """
    `keep_resident=N` keeps N freed executions, which then go on without a replay.
    """
    engine = await engines.memory(holding, gated, keep_resident=2)
    runs = [await engine.start(holding(2)) for _ in range(4)]
    for run in runs:
        await reached(run, "waiting")
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert (await engine.stats()).resident == 2
    assert [ref() is not None for ref in ALIVE] == [False, False, True, True]
    gate.set()
    assert [await run.result(5) for run in runs] == [2] * 4
    assert len(ALIVE) == 6  # the first two were replayed
    assert (await engine.stats()).resident == 0


async def test_freeing_does_not_run_finally_as_if_live(engines, reached):
    """
    A `finally` that yields is entered once for real, and not when its generator is closed to be freed.
    """
    tidied = []

    @step
    async def tidy() -> None:
        tidied.append(1)

    @workflow
    async def careful() -> Flow[str]:
        try:
            value: str = yield wait_for("go")
        finally:
            yield tidy()
        yield Return(value)

    engine = await engines.memory(careful)
    run = await engine.start(careful())
    await reached(run, "waiting")
    assert tidied == []
    await run.signal("go", "x")
    assert await run.result(5) == "x"
    assert tidied == [1]


async def test_a_thousand_waiting_runs_all_come_back(engines, clock, eventually):
    """
    Timers of one moment fire together, none is lost.
    """

    @workflow
    async def napping(number: int) -> Flow[int]:
        yield sleep(60)
        yield Return(number)

    engine = await engines.memory(napping, clock=clock)
    runs = await engine.start_many([napping(number) for number in range(1200)])

    async def all_freed():
        stats = await engine.stats()
        return (stats.waits, stats.active) == (1200, 0)

    await eventually(all_freed)
    clock.advance(61)
    assert [await run.result(10) for run in runs] == list(range(1200))
    assert (await engine.stats()).waits == 0


async def test_timers_fire_by_the_wall_clock_and_never_early(engines, clock, reached, eventually):
    """
    `sleep`, `sleep_until`: one already past fires at once; one set while down fires at the opening.
    """

    @workflow
    async def napping(until: datetime) -> Flow[str]:
        yield sleep(0)
        yield sleep(-5)
        yield sleep_until(datetime(2000, 1, 1, tzinfo=UTC))
        yield sleep_until(until)
        yield sleep(timedelta(hours=1))
        yield Return("woke")

    due = datetime.fromtimestamp(clock.now(), UTC) + timedelta(days=1)
    engine = await engines.file(napping, clock=clock)
    run = await engine.start(napping(due), id="r")
    while [event.kind for event in await run.history()].count("TimerSet") < 4:  # those that fire at once are behind it
        await asyncio.sleep(0.002)
    await reached(run, "waiting")
    clock.advance(86_399)
    await asyncio.sleep(0.01)
    assert await run.status() == "waiting"
    await engine.aclose()
    clock.advance(2)
    engine = await engines.file(napping, clock=clock)
    run = engine.get("r")

    async def sleeping_again():
        return [event.kind for event in await run.history()].count("TimerSet") == 5

    await eventually(sleeping_again)
    clock.advance(3601)
    assert await run.result(5) == "woke"


async def test_timeout_cancels_what_takes_too_long(engines, clock, reached, gate):
    """
    `timeout(op, seconds)` raises TimeoutError and cancels the child.
    """

    @workflow
    async def impatient() -> Flow[str]:
        try:
            yield timeout(gated(1), 30)
        except TimeoutError:
            yield Return("too slow")

    engine = await engines.memory(impatient, gated, clock=clock)
    run = await engine.start(impatient())
    await reached(run, "waiting")
    (child,) = await run.children()
    clock.advance(31)
    assert await run.result(5) == "too slow"
    await reached(engine.get(child.run_id), "cancelled")


async def test_the_time_of_the_whole_run_is_bounded(engines, clock, reached):
    """
    `@workflow(timeout=)` counts from when it begins, waiting included, and lets clean-up run.
    """
    tidied = []

    @step
    async def tidy() -> None:
        tidied.append(1)

    @workflow(timeout=60)
    async def bounded() -> Flow[None]:
        try:
            yield wait_for("go")
        finally:
            yield tidy()

    engine = await engines.memory(bounded, clock=clock)
    run = await engine.start(bounded())
    await reached(run, "waiting")
    clock.advance(61)
    with pytest.raises(Exception, match="not done within 60 s") as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert tidied == [1]


async def test_a_race_of_children_cancels_the_losers(engines, gate, reached):
    """
    The winner's value; the losing children end as cancelled.
    """

    @job
    async def quick() -> str:
        return "quick"

    @workflow
    async def racing() -> Flow[list]:
        won = yield race({"slow": gated(1), "fast": quick(), "signal": wait_for("go")})
        yield Return([won.index, won.key, won.value])

    engine = await engines.memory(racing, gated, quick)
    run = await engine.start(racing())
    assert await run.result(5) == [1, "fast", "quick"]
    (loser,) = [child for child in await run.children() if child.workflow == "gated"]
    await reached(engine.get(loser.run_id), "cancelled")


async def test_groups_of_children_fail_as_a_group(engines):
    """
    A gather waits for all, then raises an ExceptionGroup of the original types; `settle` never raises.
    """

    @job
    async def picky(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    @workflow
    async def all_of_them() -> Flow[list]:
        seen: list = []
        try:
            yield gather(*(picky(number) for number in range(4)))
        except* ValueError as group:
            seen += [error.args[0] for error in group.exceptions]
        settled = yield settle(picky(1))
        seen.append(settled.ok)
        seen.append((yield gather()))
        yield Return(seen)

    engine = await engines.memory(all_of_them, picky)
    assert await engine.run(all_of_them()) == [1, 3, False, []]


async def test_a_started_child_is_awaited_later_or_never(engines, gate):
    """
    `start` gives a handle; its parent may end before it.
    """

    @workflow
    async def parent(wait: bool) -> Flow[int]:
        child = yield start(gated(7))
        value = (yield child.result()) if wait else 0
        yield Return(value)

    engine = await engines.memory(parent, gated)
    early = await engine.start(parent(False))
    assert await early.result(5) == 0
    (child,) = await early.children()
    assert child.status not in ("succeeded", "cancelled")
    late = await engine.start(parent(True))
    gate.set()
    assert await late.result(5) == 7
    assert await engine.get(child.run_id).result(5) == 7


async def test_an_endless_loop_goes_on_under_one_chain_of_ids(engines):
    """
    `continue_as`: callers get the last run's result, the key and the parent go over.
    """

    @workflow
    async def loop(number: int) -> Flow[int]:
        if number < 5:
            yield continue_as(loop(number + 1))
        yield Return(number)

    @workflow
    async def parent() -> Flow[int]:
        value: int = yield loop(0)
        yield Return(value)

    engine = await engines.memory(loop, parent)
    run = await engine.start(loop(0), id="loop", key="k")
    assert await run.result(5) == 5
    assert (await engine.find("k")).id == "loop~6"
    assert (await run.info()).successor == "loop~2"
    assert await engine.run(parent()) == 5


async def test_for_each_goes_on_at_the_failed_item(engines):
    """
    After `retry()` items done are not repeated.
    """
    ran = []

    @step
    async def each(item: object) -> object:
        ran.append(item)
        if item == "c" and ran.count("c") == 1:
            raise ConnectionError
        return item

    @workflow
    async def all_items() -> Flow[list]:
        values = yield for_each(each, ["a", None, 0, "c", "a", ""])
        yield Return(values)

    engine = await engines.memory(all_items)
    run = await engine.start(all_items())
    with pytest.raises(Exception, match="ConnectionError"):
        await run.result(5)
    await run.retry()
    assert await run.result(5) == ["a", None, 0, "c", "a", ""]
    assert ran == ["a", None, 0, "c", "c", "a", ""]
