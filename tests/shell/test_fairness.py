"""
Who goes first among the runs of one queue; and the rate at which its runs begin.
"""

import asyncio

import pytest

from durable import Client, Flow, Queue, Rate, Return, gather, job, workflow

pytestmark = pytest.mark.anyio

order: list[str] = []


@pytest.fixture(autouse=True)
def _no_order():
    order.clear()


@job(queue="work")
async def a(number: int) -> None:
    order.append(f"a{number}")


@job(queue="work")
async def b(number: int) -> None:
    order.append(f"b{number}")


@workflow(queue="parents")
async def parent(children: int) -> Flow[int]:
    yield gather(*(a(number) for number in range(children)))
    yield Return(children)


def last_of(letter):
    return max(index for index, name in enumerate(order) if name[0] == letter)


def of(letter):
    return [int(name[1:]) for name in order if name[0] == letter]


async def test_ten_runs_do_not_wait_for_three_thousand(engines):
    """
    More than are kept in memory stand in line; those of B alternate with them, each in its own order.
    """
    engine = await engines.memory(a, b, queues=[Queue("work", concurrency=1)])
    await engine.queue("work").pause()
    first = await engine.start_many([a(number) for number in range(3000)])
    second = await engine.start_many([b(number) for number in range(10)])
    await engine.queue("work").resume()
    for run in (*second, *first):
        await run.result(60)
    assert last_of("b") <= 25
    assert of("b") == list(range(10))
    assert of("a") == list(range(3000))


async def test_the_children_of_a_wide_parent_do_not_delay_others(engines, eventually):
    """
    A thousand children of one parent are one group, beside the runs that come later.
    """
    engine = await engines.memory(parent, a, b, queues=[Queue("work", concurrency=1)])
    await engine.queue("work").pause()
    wide = await engine.start(parent(1000))

    async def queued():
        return (await engine.queue("work").info()).depth == 1000

    await eventually(queued)
    small = await engine.start(parent(5))
    await engine.start_many([b(number) for number in range(5)])

    async def all_queued():
        return (await engine.queue("work").info()).depth == 1010

    await eventually(all_queued)
    await engine.queue("work").resume()
    assert await small.result(5) == 5
    assert await wide.result(30) == 1000
    assert last_of("b") <= 20


async def test_fairness_and_order_hold_across_a_restart(engines):
    """
    Places are rows: what is started after the restart stands behind its own group, and beside the other.
    """
    engine = await engines.file(a, b)
    await engine.queue("work").pause()
    runs = await engine.start_many([a(number) for number in range(200)])
    await engine.aclose()
    engine = await engines.file(a, b, queues=[Queue("work", concurrency=1)])
    runs += await engine.start_many([a(number) for number in range(200, 205)])
    runs += await engine.start_many([b(number) for number in range(5)])
    await engine.queue("work").resume()
    for run in runs:
        await engine.get(run.id).result(20)
    assert last_of("b") <= 12
    assert of("a") == list(range(205))


async def test_runs_recorded_by_a_client_stand_in_line_fairly(engines, tmp_db):
    """
    Through the owner, and where nobody owns the file.
    """
    engine = await engines.file(a, b)
    await engine.queue("work").pause()
    runs = await engine.start_many([a(number) for number in range(50)])
    async with Client(tmp_db) as client:
        runs += await client.start_many([b(number) for number in range(3)])
        await engine.aclose()
        runs += await client.start_many([b(number) for number in range(3, 6)])
        runs += await client.start_many([a(number) for number in range(50, 53)])
    engine = await engines.file(a, b, queues=[Queue("work", concurrency=1)])
    await engine.queue("work").resume()
    for run in runs:
        await engine.get(run.id).result(20)
    assert of("a") == list(range(53))
    assert of("b") == list(range(6))
    assert last_of("b") <= 14


async def test_a_queue_with_a_rate_begins_so_many_in_a_window(engines, clock):
    """
    The next begin when the window has moved on, by a timer; nobody polls.
    """
    engine = await engines.memory(a, clock=clock, queues=[Queue("work", rate=Rate(3, per=10))])
    runs = await engine.start_many([a(number) for number in range(7)])
    for run in runs[:3]:
        await run.result(5)
    clock.advance(9.9)
    await asyncio.sleep(0.02)
    assert of("a") == [0, 1, 2]
    clock.advance(0.2)
    for run in runs[3:6]:
        await run.result(5)
    assert of("a") == [0, 1, 2, 3, 4, 5]
    clock.advance(10.1)
    await runs[6].result(5)


async def test_a_run_that_goes_on_is_not_held_up_by_its_queues_rate(engines, clock):
    """
    Only begins count: a parent is woken by its children although the rate of its queue is used up.
    """
    engine = await engines.memory(parent, a, clock=clock, queues=[Queue("parents", rate=Rate(1, per=1000))])
    assert await engine.run(parent(3)) == 3
    late = await engine.start(parent(1))
    await asyncio.sleep(0.02)
    assert await late.status() == "pending"
    clock.advance(1001)
    assert await late.result(5) == 1


async def test_a_restart_does_not_double_a_window(engines, clock):
    """
    What began lately is counted from the file.
    """
    queue = Queue("work", rate=Rate(2, per=100))
    engine = await engines.file(a, clock=clock, queues=[queue])
    runs = await engine.start_many([a(number) for number in range(4)])
    for run in runs[:2]:
        await run.result(5)
    await engines.crash(engine)
    engine = await engines.file(a, clock=clock, queues=[queue])
    await asyncio.sleep(0.02)
    assert of("a") == [0, 1]
    clock.advance(101)
    for run in runs[2:]:
        await engine.get(run.id).result(5)
    assert of("a") == [0, 1, 2, 3]
