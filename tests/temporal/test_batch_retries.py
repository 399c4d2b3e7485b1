"""
Batches that are retried: what failed begins again, and the batch tells how it ended then. As an embedded engine's.
"""

import asyncio

import pytest

from durable import BatchNotFoundError, RetryRefusedError, current_batch, job, step, workflow

broken: set[str] = set()
ran: list[str] = []


@job
async def flaky(name: str) -> str:
    ran.append(name)
    if name in broken:
        raise ValueError(name)
    return name


@step
async def ship() -> None:
    ran.append("ship")
    if broken:
        raise ValueError("ship")


@step
async def refund() -> None:
    ran.append("refund")


@workflow
async def order() -> None:
    try:
        await ship()
    except ValueError:
        await refund()
        raise


@job
async def where() -> str:
    if broken:
        raise ValueError("nowhere")
    return current_batch().id


ALL = [flaky, order, where]
CALLS = {"on_success": "success", "on_failure": "failure", "on_complete": "complete"}


@pytest.fixture(autouse=True)
def nothing_ran():
    ran.clear()
    broken.clear()


@pytest.fixture
async def engine(either_engine):
    return await either_engine(ALL)


def calls():
    return {event: flaky(name) for event, name in CALLS.items()}


def told():
    return sorted(name for name in ran if name in CALLS.values())


async def test_a_batch_is_retried_as_a_whole(engine):
    """
    Its failed members, those of nested batches, and what was cancelled before it began; nothing that has succeeded.
    """
    broken.update("ad")
    async with engine.batch(**calls()) as outer:
        outer.add(flaky("a"))
        outer.add(flaky("b"), key=f"key-{outer.id}")
        late = await outer.add(flaky("c"), delay=3600)
        async with outer.batch(on_success=flaky("inner")) as inner:
            inner.add(flaky("d"))
    async with asyncio.timeout(30):
        while "failure" not in ran:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(30):
        while not await late.cancel():
            await asyncio.sleep(0.02)
    info = await outer.wait(30)
    assert (info.outcome, info.failed, info.cancelled) == ("failed", 1, 1)
    broken.clear()
    again = engine.get_batch(outer.id)
    assert await again.retry() == 3
    assert await again.retry() == 0
    info = await again.wait(30)
    assert (info.outcome, info.succeeded, info.failed, info.cancelled) == ("succeeded", 3, 0, 0)
    assert (await engine.get_batch(inner.id).wait(30)).outcome == "succeeded"
    assert sorted(name for name in ran if name in set("abcd")) == ["a", "a", "b", "c", "d", "d"]
    assert told() == ["complete", "failure", "success"]
    assert "inner" in ran


async def test_a_member_that_is_retried_opens_its_batch_again(engine):
    """
    Success is told once all is mended; what was told before is not told again; and its steps still know the batch.
    """
    broken.add("everything")
    async with engine.batch(**calls()) as batch:
        run = await batch.add(where())
    assert (await batch.wait(30)).outcome == "failed"
    assert await run.retry()
    info = await batch.wait(30)
    assert (info.outcome, info.succeeded, info.failed) == ("failed", 0, 1)
    broken.clear()
    assert await engine.get(run.id).retry()
    assert await engine.get(run.id).result(30) == batch.id
    info = await batch.wait(30)
    assert (info.outcome, info.succeeded, info.failed) == ("succeeded", 1, 0)
    assert told() == ["complete", "failure", "success"]
    assert (await run.info()).batch == batch.id


async def test_a_cancelled_batch_may_be_retried(engine):
    """
    What had not begun begins: it is no cancelled batch any more.
    """
    async with engine.batch(**calls()) as batch:
        batch.add(flaky("a"), delay=3600)
    await batch.cancel("oops")
    assert (await batch.wait(30)).outcome == "cancelled"
    assert await batch.retry() == 1
    info = await batch.wait(30)
    assert (info.outcome, info.cancelled_at, info.succeeded) == ("succeeded", None, 1)
    assert told() == ["complete", "success"]


async def test_a_failed_callback_is_retried_with_its_batch(engine):
    """
    It made the batch fail; the members are left alone.
    """
    broken.add("told")
    async with engine.batch(on_success=flaky("told")) as batch:
        batch.add(flaky("a"))
    assert (await batch.wait(30)).outcome == "failed"
    broken.clear()
    assert await batch.retry() == 1
    assert (await batch.wait(30)).outcome == "succeeded"
    assert sorted(ran) == ["a", "told", "told"]


async def test_a_batch_with_a_member_that_made_up_for_its_failure(engine):
    """
    None of its members is retried, unless by force.
    """
    broken.update(("a", "ship"))
    async with engine.batch() as batch:
        batch.add(flaky("a"))
        batch.add(order())
    assert (await batch.wait(30)).failed == 2
    broken.clear()
    with pytest.raises(RetryRefusedError, match="refund"):
        await batch.retry()
    assert (await batch.info()).outcome == "failed"
    assert await batch.retry(force=True) == 2
    assert (await batch.wait(30)).outcome == "succeeded"
    with pytest.raises(BatchNotFoundError):
        await engine.get_batch("none").retry()
