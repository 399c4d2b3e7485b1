"""
Batches: the same calls on both engines.
"""

import asyncio

import pytest

from durable import (
    BatchClosedError,
    BatchNotFoundError,
    Fatal,
    UsageError,
    current_batch,
    job,
    resource,
    step,
    wait_for,
    workflow,
)
from durable.temporal import TemporalEngine

said: list[str] = []


@job
async def square(n: int) -> int:
    if n < 0:
        raise Fatal("negative")
    return n * n


@job
async def page(number: int, last: int) -> int:
    if number < last:
        await current_batch().add(page(number + 1, last))
    return number


@job
def page_in_thread(number: int, last: int) -> int:
    if number < last:
        current_batch().add(page_in_thread(number + 1, last))
    return number


@workflow
async def waits() -> None:
    await wait_for("go")


@job
async def say(what: str) -> None:
    said.append(what)


@step
async def add_one() -> str:
    await current_batch().add(square(7))
    return current_batch().id


@workflow
async def adds() -> str:
    return await add_one()


ALL = [square, page, page_in_thread, waits, say, adds]


@pytest.fixture(autouse=True)
def nothing_said():
    said.clear()


@pytest.fixture
async def engine(either_engine):
    """
    Of either kind, with all that the tests start.
    """
    return await either_engine(ALL)


async def test_a_batch_that_succeeds(engine):
    """
    Members, what follows, how it stands then.
    """
    async with engine.batch(
        on_success=say("good"), on_failure=say("bad"), on_complete=say("over"), description="three", labels={"a": "b"}
    ) as batch:
        runs = [await batch.add(square(n)) for n in range(3)]
    info = await batch.wait(timeout=30)
    assert (info.total, info.succeeded, info.pending, info.outcome) == (3, 3, 0, "succeeded")
    assert (info.description, dict(info.labels), info.status) == ("three", {"a": "b"}, "complete")
    assert [await run.result() for run in runs] == [0, 1, 4]
    assert sorted(said) == ["good", "over"]
    assert {member.batch for member in await batch.members()} == {batch.id}
    assert (await engine.get_batch(batch.id).info()).finished_at is not None
    assert "finished" in await batch.why()
    with pytest.raises(BatchClosedError):
        await batch.add(square(4))


async def test_a_batch_that_fails(engine):
    """
    What follows a failure starts once; what follows success never.
    """
    async with engine.batch(on_success=say("good"), on_failure=say("bad"), on_complete=say("over")) as batch:
        batch.add_many([square(-1), square(-2), square(2)])
    info = await batch.wait(timeout=30)
    assert (info.succeeded, info.failed, info.outcome) == (1, 2, "failed")
    assert sorted(said) == ["bad", "over"]


async def test_an_empty_batch_and_one_whose_block_raised(engine):
    """
    The one completes at once, the other was never made.
    """
    async with engine.batch(on_success=say("good")) as batch:
        pass
    assert (await batch.wait(timeout=30)).outcome == "succeeded"
    assert said == ["good"]
    with pytest.raises(ZeroDivisionError):
        async with engine.batch(id="never") as other:
            other.add(square(1))
            raise ZeroDivisionError
    with pytest.raises(BatchNotFoundError):
        await engine.get_batch("never").info()


@pytest.mark.parametrize("first", [page(1, 4), page_in_thread(1, 4)], ids=["loop", "thread"])
async def test_members_add_members(engine, first):
    """
    In coroutines and in threads; the batch waits for all of them.
    """
    async with engine.batch() as batch:
        batch.add(first)
    assert (await batch.wait(timeout=30)).succeeded == 4


async def test_a_step_of_a_member_knows_its_batch(engine):
    """
    And adds to it.
    """
    async with engine.batch() as batch:
        run = await batch.add(adds())
    assert await run.result() == batch.id
    assert (await batch.wait(timeout=30)).succeeded == 2


async def test_batches_nest(engine):
    """
    In its block and later; the outer one waits for the inner ones, and fails with them.
    """
    async with engine.batch(on_failure=say("outer failed")) as outer:
        waiting = await outer.add(waits())
        async with outer.batch(on_success=say("inner good")) as inner:
            inner.add(square(2))
    async with outer.batch(on_failure=say("late inner failed")) as late:
        late.add(square(-1))
    assert (await inner.wait(timeout=30)).parent == outer.id
    assert (await late.wait(timeout=30)).outcome == "failed"
    await waiting.signal("go")
    info = await outer.wait(timeout=30)
    assert (info.total, info.outcome) == (1, "failed")
    assert sorted(said) == ["inner good", "late inner failed", "outer failed"]


async def test_a_batch_is_cancelled(engine):
    """
    Its members end, what follows completion starts.
    """
    async with engine.batch(on_success=say("good"), on_complete=say("over")) as batch:
        batch.add_many([waits(), waits()])
    async with asyncio.timeout(30):
        while (await batch.info()).pending < 2:
            await asyncio.sleep(0.02)
    assert await batch.cancel("enough")
    info = await batch.wait(timeout=30)
    assert (info.cancelled, info.outcome, info.reason) == (2, "cancelled", "enough")
    assert not await batch.cancel()
    assert said == ["over"]


async def test_a_batch_of_an_id_is_made_once(engine, queue):
    """
    The same contents are the same batch; others are refused, as are callbacks that have ids.
    """
    for _ in range(2):
        async with engine.batch(id=f"{queue}-monday") as batch:
            batch.add(square(3))
    assert (await batch.wait(timeout=30)).total == 1
    with pytest.raises(UsageError):
        async with engine.batch(id=f"{queue}-monday") as other:
            other.add(square(4))
    with pytest.raises(UsageError, match="neither id nor key"):
        engine.batch(on_success=say("x").options(key="k"))


class Prices:
    tea = 3


@job
async def price() -> int:
    return resource(Prices).tea


async def test_steps_share_what_the_engine_was_given(client, queue):
    """
    As with a file: by its type.
    """
    async with TemporalEngine(client, queue, [price], resources=[Prices()]) as engine:
        assert await engine.run(price()) == 3
