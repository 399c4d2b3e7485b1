"""
Numbers of queues and limits that are changed while an engine runs.
"""

import asyncio

import pytest

from durable import Client, Flow, Limit, Queue, Rate, job, step, workflow
from durable.errors import DefinitionError, UsageError

pytestmark = pytest.mark.anyio

SHARED = Limit("shared", concurrency=1)


@pytest.fixture
def world():
    """
    Work that holds its slot until it is let go, and how many did at once.
    """

    class World:
        inside, most = 0, 0

        def __init__(self):
            self.open = asyncio.Event()

        async def hold(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.open.wait()
            self.inside -= 1

    made = World()

    @job(queue="mail")
    async def mail(number: int) -> int:
        await made.hold()
        return number

    @step(limit=SHARED)
    async def limited() -> None:
        await made.hold()

    @workflow
    async def uses() -> Flow[None]:
        yield limited()

    made.mail, made.uses = mail, uses
    return made


async def reached_inside(world, number, eventually):
    async def there():
        return world.inside == number

    await eventually(there)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.inside == number


async def test_a_queue_gets_other_numbers_while_it_runs(engines, world, eventually, tmp_db):
    """
    More slots are used at once; fewer, as those who have one end; after a restart too, until the program's hold again.
    """
    queues = [Queue("mail", 1)]
    engine = await engines.file(world.mail, queues=queues)
    runs = await engine.start_many([world.mail(number) for number in range(6)])
    await reached_inside(world, 1, eventually)
    async with Client(tmp_db) as client:
        await client.queue("mail").change(concurrency=3)
        assert (await client.queue("mail").info()).changed == Queue("mail", 3)
    await reached_inside(world, 3, eventually)
    await engine.aclose()
    world.inside = 0
    engine = await engines.file(world.mail, queues=queues)
    await reached_inside(world, 3, eventually)
    await engine.queue("mail").reset()
    assert (await engine.queue("mail").info()).changed is None
    world.most = 0
    world.open.set()
    for run in runs:
        await engine.get(run.id).result(5)
    assert world.most <= 3


async def test_a_queue_gets_a_rate_while_it_runs(engines, world, clock, eventually):
    """
    Runs that began before count.
    """
    world.open.set()
    engine = await engines.memory(world.mail, clock=clock)
    for number in range(2):
        await engine.run(world.mail(number))
    await engine.queue("mail").change(concurrency=None, rate=Rate(3, per=60))
    runs = await engine.start_many([world.mail(number) for number in range(3)])
    await runs[0].result(5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert [await run.status() for run in runs[1:]] == ["pending", "pending"]
    clock.advance(61)
    for run in runs[1:]:
        await run.result(5)


@pytest.mark.parametrize("reset", [True, False])
async def test_a_rate_of_any_window_counts_what_began_in_it(engines, world, clock, eventually, reset):
    """
    Also when a queue gets the numbers of the program again, whose window is longer than a day.
    """
    world.open.set()
    rate = Rate(1, per=172_800)
    engine = await engines.memory(world.mail, clock=clock, queues=[Queue("mail", rate=rate)] if reset else [])
    await engine.run(world.mail(0))
    clock.advance(100_000)
    await engine.queue("mail").change(concurrency=1, rate=None if reset else rate)
    if reset:
        await engine.queue("mail").reset()
    run = await engine.start(world.mail(1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert await run.status() == "pending"
    clock.advance(80_000)
    assert await run.result(5) == 1


async def test_a_limit_gets_other_numbers_while_it_runs(engines, world, eventually, tmp_db):
    """
    Who waits is let in at once; a restart with the same program changes nothing, and `reset` gives its numbers back.
    """
    engine = await engines.file(world.uses)
    runs = await engine.start_many([world.uses() for _ in range(4)])
    await reached_inside(world, 1, eventually)
    limit = engine.limit("shared")
    info = await limit.info()
    assert (info.concurrency, info.inside, info.waiting, info.changed) == (1, 1, 3, False)
    async with Client(tmp_db) as client:
        await client.limit("shared").change(concurrency=3)
    await reached_inside(world, 3, eventually)
    await engine.aclose()
    world.inside = 0
    engine = await engines.file(world.uses)
    await reached_inside(world, 3, eventually)
    info = await engine.limit("shared").info()
    assert (info.concurrency, info.rate, info.changed) == (3, None, True)
    await engine.limit("shared").reset()
    info = await engine.limit("shared").info()
    assert (info.concurrency, info.changed) == (1, False)
    world.open.set()
    for run in runs:
        await engine.get(run.id).result(5)


async def test_what_are_no_numbers_is_refused(engines, world):
    """
    And so is a limit that nobody has.
    """
    engine = await engines.memory(world.uses, world.mail)
    with pytest.raises(DefinitionError, match="concurrency"):
        await engine.queue("mail").change(concurrency=0)
    with pytest.raises(DefinitionError, match="limits nothing"):
        await engine.limit("shared").change()
    for call in (engine.limit("other").info(), engine.limit("other").change(concurrency=1)):
        with pytest.raises(UsageError, match="no limit is called 'other'"):
            await call
