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


# --- what comes due ----------------------------------------------------------------------------------


async def test_reminders_that_fall_due_do_not_go_wholly_before_new_runs(engines, clock, eventually):
    """
    However long ago they were scheduled: from when they are due the two alternate.
    """
    engine = await engines.memory(a, b, clock=clock, queues=[Queue("work", concurrency=1)])
    await engine.start_many([a(number).options(delay=3600) for number in range(1200)])
    for number in range(100):  # the queue has long been busy since
        await engine.run(b(number))
    order.clear()
    await engine.queue("work").pause()
    clock.advance(3601)
    await eventually(lambda: has_depth(engine, 1200))
    new = await engine.start_many([b(number) for number in range(10)])
    await engine.queue("work").resume()
    for run in new:
        await run.result(10)
    assert last_of("b") <= 25
    assert of("b") == list(range(10))


async def has_depth(engine, depth):
    return (await engine.queue("work").info()).depth == depth


async def test_what_comes_due_does_not_go_before_what_waits_longer(engines, clock, eventually):
    """
    A run that was scheduled before a hundred others were started stands behind them, of its own workflow.
    """
    engine = await engines.memory(a, clock=clock, queues=[Queue("work", concurrency=1)])
    await engine.queue("work").pause()
    scheduled = await engine.start(a(100), delay=60)
    runs = await engine.start_many([a(number) for number in range(100)])
    clock.advance(61)
    await eventually(lambda: has_depth(engine, 101))
    await engine.queue("work").resume()
    for run in (*runs, scheduled):
        await run.result(10)
    assert of("a") == list(range(101))


async def test_what_is_scheduled_stands_in_nobodys_way(engines, clock):
    """
    A thousand runs that are due tomorrow do not push back one of their workflow that is started now.
    """
    engine = await engines.memory(a, b, clock=clock, queues=[Queue("work", concurrency=1)])
    await engine.queue("work").pause()
    await engine.start_many([a(number).options(delay=86_400) for number in range(1000)])
    runs = await engine.start_many([b(number) for number in range(50)])
    runs += await engine.start_many([a(1000)])
    await engine.queue("work").resume()
    for run in runs:
        await run.result(10)
    assert last_of("a") <= 2


async def test_due_runs_go_in_the_order_in_which_they_are_due(engines, clock):
    """
    Whatever the order of their starts; also those that came due while nothing had the file open.
    """
    engine = await engines.file(a, clock=clock)
    delays = [7, 3, 9, 1, 8, 2, 6, 4, 5]
    runs = await engine.start_many([a(delay).options(delay=delay * 10) for delay in delays])
    await engine.aclose()
    clock.advance(3600)
    engine = await engines.file(a, clock=clock, queues=[Queue("work", concurrency=1)])
    for run in runs:
        await engine.get(run.id).result(10)
    assert of("a") == sorted(delays)


# --- by the values of a label ------------------------------------------------------------------------


FAIR = Queue("work", concurrency=1, fair_by="tenant")


async def test_the_values_of_a_label_take_turns(engines):
    """
    Ten of Bob's do not wait for Ada's three hundred, though all are runs of the same job.
    """
    tenants = []

    @job(queue="work")
    async def mail(tenant: str) -> None:
        tenants.append(tenant)

    engine = await engines.memory(mail, queues=[FAIR])
    await engine.queue("work").pause()
    await engine.start_many([mail("ada").options(labels={"tenant": "ada"}) for _ in range(300)])
    few = await engine.start_many([mail("bob").options(labels={"tenant": "bob"}) for _ in range(10)])
    few += [await engine.start(mail("nobody"))]
    await engine.queue("work").resume()
    for run in few:
        await run.result(10)
    assert max(index for index, tenant in enumerate(tenants) if tenant != "ada") <= 25


async def test_turns_by_a_label_hold_across_a_restart_for_clients_and_batches(engines, tmp_db):
    """
    A client without the code of the queue, and one beside its owner, give places by the same label.
    """
    tenants = []

    @job(queue="work")
    async def mail(tenant: str, number: int) -> None:
        tenants.append((tenant, number))

    def mails(tenant, numbers):
        return [mail(tenant, number).options(labels={"tenant": tenant}) for number in numbers]

    engine = await engines.file(mail, queues=[FAIR])
    await engine.queue("work").pause()
    runs = await engine.start_many(mails("ada", range(150)))
    async with Client(tmp_db) as client:
        runs += await client.start_many(mails("bob", range(4)))
        async with engine.batch() as batch:
            for op in mails("ada", range(150, 160)):
                batch.add(op)
            for op in mails("cleo", range(4)):
                batch.add(op)
        await engine.aclose()
        runs += await client.start_many(mails("bob", range(4, 8)))
        runs += await client.start_many(mails("ada", range(160, 165)))
    engine = await engines.file(mail, queues=[FAIR])
    runs += await engine.start_many(mails("cleo", range(4, 8)))
    await engine.queue("work").resume()
    for run in runs:
        await engine.get(run.id).result(20)
    await engine.idle()
    for tenant, count in (("ada", 165), ("bob", 8), ("cleo", 8)):
        assert [number for each, number in tenants if each == tenant] == list(range(count))
    assert max(index for index, (tenant, _) in enumerate(tenants) if tenant != "ada") <= 30


@pytest.mark.timeout(180)  # 4,500 jobs, each way
async def test_fairness_in_one_table(engines, clock, eventually):
    """
    Three tenants of 1,500, 1,500 and 1,500 jobs, one after the other, half of them delayed, in two queues, on two
    slots: of a queue that is fair by them the last ones come close to each other, of the other one by one.

    Printed with `-s`.
    """
    began = {"fair": [], "plain": []}

    @job(queue="fair")
    async def fairly(tenant: str, kind: str) -> None:
        began["fair"].append((tenant, kind))

    @job(queue="plain")
    async def plainly(tenant: str, kind: str) -> None:
        began["plain"].append((tenant, kind))

    queues = [Queue("fair", fair_by="tenant"), Queue("plain")]
    engine = await engines.memory(fairly, plainly, clock=clock, queues=queues, concurrency=2)
    for queue in began:
        await engine.queue(queue).pause()
    for tenant in ("ada", "bob", "cleo"):
        labels = {"tenant": tenant}
        for call in (fairly, plainly):
            now = [call(tenant, "now").options(labels=labels) for _ in range(375)]
            await engine.start_many(now + [call(tenant, "due").options(labels=labels, delay=60) for _ in range(375)])
    clock.advance(61)

    async def all_are_due():
        return [(await engine.queue(queue).info()).depth for queue in began] == [2250, 2250]

    await eventually(all_are_due, 30)
    for queue in began:
        await engine.queue(queue).resume()
    await engine.idle()
    rows = {}
    for queue, order_of in began.items():
        for each in sorted(set(order_of)):
            rows[queue, *each] = max(index for index, found in enumerate(order_of) if found == each) + 1
    print("\nqueue  tenant  kind   last of 375 began as")
    for (queue, tenant, kind), last in rows.items():
        print(f"{queue:6} {tenant:7} {kind:5} {last:6} of {len(began[queue])}")
    assert {len(order_of) for order_of in began.values()} == {2250}
    # Tenants that take turns end together, immediate ones halfway; without, the workflow's runs go one by one.
    assert all(1120 <= last <= 1130 for (queue, _, kind), last in rows.items() if (queue, kind) == ("fair", "now"))
    assert all(last >= 2245 for (queue, _, kind), last in rows.items() if (queue, kind) == ("fair", "due"))
    assert [rows["plain", tenant, "now"] for tenant in ("ada", "bob", "cleo")] == [375, 750, 1125]
    assert [rows["plain", tenant, "due"] for tenant in ("ada", "bob", "cleo")] == [1500, 1875, 2250]


async def test_why_tells_the_place(engines):
    """
    Among those that wait to begin in its queue: counted, in the order in which they will.
    """
    gate = asyncio.Event()

    @job
    async def holds() -> None:
        await gate.wait()

    engine = await engines.memory(a, b, holds, concurrency=1)
    await engine.start(holds())
    runs = await engine.start_many([a(number) for number in range(30)])
    first_b = await engine.start(b(0))
    urgent = await engine.start(a(30), priority=1)
    assert "2nd of 32 in queue 'work'" in await runs[0].why()
    assert "3rd of 32 in queue 'work'" in await first_b.why()
    assert "12th of 32 in queue 'work'" in await runs[9].why()
    assert "23rd of 32 in queue 'work'" in await runs[20].why()
    assert "1st of 32 in queue 'work'" in await urgent.why()
    gate.set()
    await runs[-1].result(10)


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
