"""
Runs that may not begin yet, or not any more: delayed, in line, expired; and paused ones that are to end.
"""

import asyncio

import pytest

from durable import (
    Flow,
    Limit,
    Return,
    RunCancelledError,
    RunExpiredError,
    RunFailedError,
    now,
    start,
    step,
    wait_for,
    workflow,
)

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


@step
async def note(what: str) -> None:
    calls.append(what)


@workflow
async def child() -> str:
    await note("child")
    return "done"


@workflow
async def parent() -> Flow[list[object]]:
    before = now()
    later = yield start(child(), delay=0.4)
    found: str = yield later.result()
    yield Return([found, (now() - before).total_seconds() >= 0.4])


@workflow(limit=Limit("one at a time", concurrency=1))
async def one_at_a_time(name: str) -> None:
    await note(f"{name} in")
    await wait_for("go")
    await note(f"{name} out")


@workflow
async def cleans_up() -> None:
    try:
        await wait_for("never")
    finally:
        await note("cleaned up")


@workflow(timeout=0.3)
async def overdue() -> None:
    try:
        await wait_for("never")
    finally:
        await note("cleaned up")


ALL = [parent, child, one_at_a_time, cleans_up, overdue]


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_child_is_delayed(engines):
    """
    Which the server does for clients alone, so the child itself waits.
    """
    engine = await engines(*ALL)
    assert await engine.run(parent()) == ["done", True]
    run = await engine.start(child(), delay=0.3)
    assert await run.result() == "done"


async def test_a_run_that_has_not_begun_in_time_expires(engines):
    """
    While it stands in line; signals that came with its start do not let it in.
    """
    engine = await engines(*ALL)
    first = await engine.start(one_at_a_time("first"))

    async def first_is_in():
        return calls == ["first in"]

    await until(first_is_in)
    late = await engine.start(one_at_a_time("late"), expires=0.3, signals=[("go", None)])
    with pytest.raises(RunFailedError) as failed:
        await late.result()
    assert isinstance(failed.value.__cause__, RunExpiredError)
    third = await engine.start(one_at_a_time("third"), signals=[("go", None)])
    await first.signal("go")
    await first.result()
    await third.result()
    assert calls == ["first in", "first out", "third in", "third out"]


async def test_a_paused_run_is_cancelled_with_its_clean_up(engines):
    """
    It takes turns again for that, as in an embedded engine.
    """
    engine = await engines(*ALL)
    run = await engine.start(cleans_up())

    async def is_waiting():
        return "never" in await run.why()

    await until(is_waiting)
    await run.pause()

    async def is_paused():
        return await run.status() == "paused"

    await until(is_paused)
    await run.cancel("enough")
    with pytest.raises(RunCancelledError, match="enough"):
        await run.result(timeout=20)
    assert calls == ["cleaned up"]


async def test_a_run_that_takes_too_long_is_ended_with_its_clean_up(engines):
    """
    By the time from when it has begun.
    """
    engine = await engines(*ALL)
    with pytest.raises(RunFailedError) as failed:
        await engine.run(overdue())
    assert isinstance(failed.value.__cause__, TimeoutError)
    assert calls == ["cleaned up"]
