"""
What a run leaves behind when it has ended or was freed: nothing that the garbage collector has to find.

Cycles are not wrong; but every collection is a pause of the user's event loop, and each object in a cycle brings
the next one nearer. What fails is another matter: an error knows its frames, and they know it.
"""

import asyncio
import gc
import tracemalloc
from typing import ClassVar

import pytest

from durable import Flow, Return, gather, job, sleep, step, transaction, workflow

pytestmark = pytest.mark.anyio


@step
async def ok(number: int) -> int:
    return number


@transaction
def recorded(_, number: int) -> int:
    return number


class Gate:
    """What `hold` waits for."""

    event: ClassVar[asyncio.Event]


@step
async def hold() -> int:
    await Gate.event.wait()
    return 1


@workflow
async def holding() -> Flow[int]:
    yield hold()
    yield Return(1)


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


#: Of an active run whose step waits for an event: objects that the collector visits (36 to 38), and bytes (6,600).
MOST_OBJECTS = 41
MOST_BYTES = 7_500


async def test_an_active_run_holds_few_objects(engines):
    """
    With thousands of active runs, a full collection is as long as they hold objects: not more than they do today.
    """
    runs = 200
    engine = await engines.file(holding, concurrency=2 * runs + 10, grace=0.0)
    Gate.event = asyncio.Event()

    async def begin(number: int) -> None:
        active = (await engine.stats()).active + number
        await engine.start_many([holding() for _ in range(number)])
        while (await engine.stats()).active < active:
            await asyncio.sleep(0.01)
        # Their first commits are dealt with. The thread that writes holds what it wrote last, be it of all runs or few.
        await asyncio.sleep(0.05)
        await engine.start(holding(), delay=3600)
        gc.collect()

    await begin(runs)  # what is made once and kept
    tracemalloc.start()
    try:
        objects, held = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        await begin(runs)
        objects, held = len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    assert objects / runs < MOST_OBJECTS
    assert held / runs < MOST_BYTES
    Gate.event.set()
