"""
What a run leaves behind when it has ended or was freed: nothing that the garbage collector has to find.

Cycles are not wrong; but every collection is a pause of the user's event loop, and each object in a cycle brings
the next one nearer. What fails is another matter: an error knows its frames, and they know it.
"""

import asyncio
import gc

import pytest

from durable import Flow, Return, gather, job, sleep, step, transaction, workflow

pytestmark = pytest.mark.anyio


@step
async def ok(number: int) -> int:
    return number


@transaction
def recorded(_, number: int) -> int:
    return number


@job
async def one(number: int) -> int:
    return number


@workflow
async def plain(number: int) -> Flow[int]:
    found: int = yield ok(number)
    found = yield recorded(found)
    yield Return(found)


@workflow
async def awaiting(number: int) -> int:
    return await ok(number)


@workflow
async def parallel(number: int) -> Flow[int]:
    async def helper() -> int:
        return await ok(number)

    yield gather(ok(number), helper(), helper())
    yield Return(number)


@workflow
async def parent(number: int) -> Flow[int]:
    yield gather(one(number), one(number))
    yield Return(number)


@workflow
async def sleeping(number: int) -> Flow[int]:
    yield sleep(0.001)
    yield Return(number)


@pytest.mark.parametrize("top", [plain, awaiting, one, parallel, parent, sleeping], ids=lambda top: top.name)
async def test_a_run_leaves_no_cycles(engines, top):
    """
    No object of ours is in a cycle once twenty runs have ended, and their handles are gone.
    """
    engine = await engines.file(plain, awaiting, one, parallel, parent, sleeping)

    async def use() -> None:
        started = await engine.start_many([top(number) for number in range(20)])
        await asyncio.gather(*(run.result(10) for run in started))

    await use()  # what is made once and kept
    gc.collect()
    gc.disable()
    try:
        await use()
        await engine.idle()
        await asyncio.sleep(0.01)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = [each for each in gc.garbage if type(each).__module__.startswith("durable")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found
