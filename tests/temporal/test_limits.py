"""
Limits that hold over all workers: each is a small workflow that grants slots in order.
"""

import asyncio

import pytest

from durable import DefinitionError, Flow, Limit, Return, RunCancelledError, context, gather, job, step, workflow


class Room:
    """
    How many are inside, and how many were at most.
    """

    inside = 0
    most = 0


two = Limit("two at once", concurrency=2)


@pytest.fixture(autouse=True)
def nobody_inside():
    Room.inside = Room.most = 0


async def stay() -> None:
    Room.inside += 1
    Room.most = max(Room.most, Room.inside)
    await asyncio.sleep(0.05)
    Room.inside -= 1


@step(limit=two)
async def limited(n: int) -> int:
    await stay()
    return n


@step(limit=Limit("by room", concurrency=1), limit_key=lambda room: room, retry=2)
async def in_room(room: str) -> int:
    await stay()
    if context().attempt == 1:
        raise ValueError("once more")
    return context().attempt


@job(limit="listed")
async def limited_job(n: int) -> int:
    await stay()
    return n


@workflow
async def five() -> list[int]:
    return await gather(*(limited(n) for n in range(5)))


@workflow
async def rooms() -> list[int]:
    return await gather(in_room("a"), in_room("a"), in_room("b"))


@workflow(limit=Limit("alone", concurrency=1))
async def alone(n: int) -> Flow[int]:
    yield unlimited(n)
    yield Return(n)


@step
async def unlimited(n: int) -> None:
    await stay()


@workflow(limit=Limit("rejecting", concurrency=1, on_conflict="reject"))
async def rejecting() -> None: ...


async def test_no_more_steps_are_inside_than_a_limit_allows(engines):
    """
    Of one run, with a key for each room, and across attempts, each of which stands in line anew.
    """
    engine = await engines(five, rooms)
    assert await engine.run(five()) == [0, 1, 2, 3, 4]
    assert Room.most == 2
    assert await engine.run(rooms()) == [2, 2, 2]


async def test_a_limit_holds_over_runs(engines):
    """
    Jobs of a limit that the engine lists by name, and workflows that hold a slot while they run.
    """
    engine = await engines(limited_job, alone, limits=[Limit("listed", concurrency=1)])
    runs = await engine.start_many([limited_job(n) for n in range(4)])
    assert [await run.result() for run in runs] == [0, 1, 2, 3]
    assert Room.most == 1
    runs = await engine.start_many([alone(n) for n in range(3)])
    assert [await run.result() for run in runs] == [0, 1, 2]
    assert Room.most == 1


async def test_a_run_that_is_cancelled_in_line_leaves_it(engines, client):
    """
    It ends without its slot; those behind it get theirs.
    """
    engine = await engines(alone)
    first = await engine.start(alone(1))
    second = await engine.start(alone(2))
    third = await engine.start(alone(3))
    await second.cancel()
    assert await first.result() == 1
    assert await third.result() == 3
    with pytest.raises(RunCancelledError):
        await second.result()


async def test_a_limit_that_needs_one_journal_is_refused(client, engines):
    """
    Rejecting and replacing have to know all runs: the message names what does here.
    """
    with pytest.raises(DefinitionError, match="use key= with on_conflict="):
        await engines(rejecting)
