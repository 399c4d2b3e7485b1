"""
as_completed, wait_first and poll_until in an engine: through every crash, freed in between, and beyond the run's end.
"""

import asyncio

import pytest

from durable import (
    Flow,
    Return,
    as_completed,
    context,
    job,
    poll_until,
    sleep,
    step,
    wait_first,
    wait_for,
    workflow,
)
from durable.testing import Ledger, every_crash

LEDGER = Ledger()


@step
async def book(seconds: float) -> float:
    await asyncio.sleep(seconds)
    LEDGER.add(f"booked {seconds}", key=context().idempotency_key)
    return seconds


@job
async def notify(seconds: float) -> float:
    await asyncio.sleep(seconds)
    LEDGER.add(f"notified {seconds}", repeatable=True)
    return seconds


@step
async def is_open(name: str) -> int:
    LEDGER.add(f"asked for {name}", key=context().idempotency_key)
    asked = len({effect.key for effect in LEDGER.effects()})
    return asked if asked > 2 else 0


async def first_of_two(seconds: float) -> float:
    return (await wait_first([book(seconds), sleep(60)])).value or 0.0


@workflow
async def trip() -> Flow[list[float]]:
    seen: list[float] = []
    async for seconds in as_completed([book(3.0), notify(1.0), first_of_two(2.0)]):
        seen.append(seconds)
        yield book(seconds + 0.5)
    yield Return(seen)


@workflow
async def trip_of_awaits() -> list[float]:
    seen: list[float] = []
    async for name, seconds in as_completed({"a": book(3.0), "b": notify(1.0)}):
        seen.append(await book(seconds + len(name)))
    return seen


@workflow
async def polled() -> Flow[bool]:
    yield Return((yield poll_until(is_open("shop"), every=30, factor=2, timeout=3600)) > 0)


@workflow
async def left_running() -> Flow[float]:
    first = yield wait_first({"slow": book(5.0), "fast": notify(1.0)})
    yield book(first.value + 9.0)
    yield Return(first.value)


@pytest.mark.long
@pytest.mark.parametrize(
    "op, value",
    [(trip(), [1.0, 2.0, 3.0]), (trip_of_awaits(), [2.0, 4.0]), (polled(), True), (left_running(), 1.0)],
    ids=lambda value: value.definition.name if hasattr(value, "definition") else "",
)
def test_it_survives_every_crash(op, value):
    """
    The same outcomes in the same order, and nothing done twice.
    """
    survived = every_crash(op, [trip, trip_of_awaits, polled, left_running, notify], ledger=LEDGER)
    assert survived.undisturbed.result == value
    assert survived.commits > 5


async def test_the_run_is_freed_between_results_and_between_polls(engines, eventually):
    """
    It waits for children, or for the delay; nothing of it is in memory.
    """
    may_end = {n: asyncio.Event() for n in range(3)}

    @job
    async def held(n: int) -> int:
        await may_end[n].wait()
        return n

    @workflow
    async def body() -> list[int]:
        return [n async for n in as_completed(held(n) for n in range(3))]

    @step
    async def never() -> bool:
        return False

    @workflow
    async def polls() -> None:
        await poll_until(never, every=3600)

    engine = await engines.memory(body, polls, held)
    run, polling = await engine.start(body()), await engine.start(polls())
    for n in (2, 0, 1):
        await eventually(lambda: has_status(run, "waiting"))
        may_end[n].set()
        await engine.get(f"{run.run_id}~.0.{n}").result(5)
    assert await run.result(5) == [2, 0, 1]
    await eventually(lambda: has_status(polling, "waiting"))
    assert "timer" in await polling.why()


async def has_status(run, status: str) -> bool:
    return (await run.info()).status == status


async def test_children_that_lost_continue_beyond_the_end_of_their_parent(engines):
    """
    Unless that is cancelled.
    """
    may_end = asyncio.Event()

    @job
    async def slow() -> str:
        await may_end.wait()
        return "done"

    @job
    async def fast() -> str:
        return "first"

    @workflow
    async def body(name: str | None) -> Flow[str]:
        first = yield wait_first([slow(), fast()])
        if name:
            yield wait_for(name)
        yield Return(first.value)

    engine = await engines.memory(body, slow, fast)
    run = await engine.start(body(None))
    assert await run.result(5) == "first"
    other = await engine.start(body("never"))
    await other.cancel()
    children = {child.run_id: child.status for each in (run, other) for child in await each.children()}
    assert children[f"{other.run_id}~.0.0"] != "succeeded"
    may_end.set()
    assert await engine.get(f"{run.run_id}~.0.0").result(5) == "done"
    with pytest.raises(Exception, match="cancelled"):
        await other.result(5)
