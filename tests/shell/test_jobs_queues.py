"""
Jobs on queues: slots, order, delays; and parents, which hold no slot while they wait.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock, Mock

import pytest

from durable import (
    Engine,
    Flow,
    Queue,
    Return,
    RunCancelledError,
    RunFailedError,
    for_each,
    gather,
    job,
    step,
    workflow,
)
from durable.errors import DefinitionError, EngineClosedError

pytestmark = pytest.mark.anyio


class Meter:
    """Counts bodies under way, and their order."""

    def __init__(self):
        self.now = self.peak = 0
        self.order = []

    async def work(self, name):
        self.now += 1
        self.peak = max(self.peak, self.now)
        self.order.append(name)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1


METER = Meter()


@pytest.fixture
def meter():
    """
    A fresh count.
    """
    METER.__init__()
    return METER


@job(queue="work")
async def work(name: int) -> int:
    await METER.work(name)
    return name


@workflow
async def deep(level: int) -> Flow[int]:
    if level == 0:
        value: int = yield work(0)
    else:
        value = yield deep(level - 1)
        yield count(level)
    yield Return(value + 1)


@step
async def count(level: int) -> None:
    await METER.work(level)


@workflow
async def wide(children: int) -> Flow[int]:
    values: list[int] = yield gather(*(work(number) for number in range(children)))
    yield Return(sum(values))


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_queue_runs_as_many_as_it_has_slots(engines, meter, concurrency):
    """
    Never more bodies than `Queue(concurrency=)`, and as many as that.
    """
    engine = await engines.memory(work, queues=[Queue("work", concurrency=concurrency)])
    runs = await engine.start_many([work(number) for number in range(20)])
    assert [await run.result(5) for run in runs] == list(range(20))
    assert meter.peak == concurrency


async def test_the_engines_slots_bound_all_queues(engines, meter):
    """
    `Engine(concurrency=)` counts active runs of all queues.
    """
    engine = await engines.memory(work, concurrency=2)
    runs = await engine.start_many([work(n).options(queue=f"q{n}") for n in range(10)])
    for run in runs:
        await run.result(5)
    assert meter.peak == 2


async def test_depth_50_works_on_one_slot(engines, meter):
    """
    A parent that awaits its child holds no slot: no depth of nesting starves.
    """
    engine = await engines.memory(work, deep, concurrency=1, queues=[Queue("work", 1), Queue("default", 1)])
    assert await engine.run(deep(50)) == 51
    assert meter.peak == 1
    assert len(meter.order) == 51


async def test_ten_parents_of_ten_children_share_ten_slots(engines, meter):
    """
    All of them end; the children fill the slots.
    """
    engine = await engines.memory(work, wide, concurrency=10)
    runs = await engine.start_many([wide(10) for _ in range(10)])
    assert [await run.result(10) for run in runs] == [45] * 10
    assert meter.peak <= 10
    assert meter.peak > 1


async def test_priority_goes_before_age(engines, meter):
    """
    Higher priority first, and within one priority first in, first out.
    """
    engine = await engines.memory(work, queues=[Queue("work", 1)])
    queue = engine.queue("work")
    await queue.pause()
    runs = await engine.start_many(
        [work(number).options(priority=priority) for number, priority in enumerate([0, 5, 0, 9, 5])]
    )
    await queue.resume()
    for run in runs:
        await run.result(5)
    assert meter.order == [3, 1, 4, 0, 2]


async def test_priority_holds_across_a_restart(engines, meter):
    """
    The order is the file's, not that of memory.
    """
    engine = await engines.file(work)
    await engine.queue("work").pause()
    await engine.start_many([work(n).options(priority=p) for n, p in enumerate([0, 5, 0, 9, 5])])
    await engine.aclose()
    engine = await engines.file(work, queues=[Queue("work", 1)])
    await engine.queue("work").resume()
    for info in [info async for info in engine.runs()]:
        await engine.get(info.run_id).result(5)
    assert meter.order == [3, 1, 4, 0, 2]


async def test_a_queue_longer_than_memory_keeps_its_order(engines, meter):
    """
    Beyond the candidates kept in memory, runs are rows, fetched in order and none forgotten.
    """
    engine = await engines.memory(work, queues=[Queue("work", 5)])
    await engine.queue("work").pause()
    runs = await engine.start_many([work(number) for number in range(1500)])
    urgent = await engine.start(work(-1), priority=1)
    await engine.queue("work").resume()
    for run in (*runs, urgent):
        await run.result(20)
    assert meter.order[0] == -1
    assert sorted(meter.order) == list(range(-1, 1500))
    assert meter.order[1:6] == [0, 1, 2, 3, 4]


async def test_a_delayed_run_begins_when_due(engines, clock, meter):
    """
    `delay=` and `at=` are durable timers by the wall clock.
    """
    engine = await engines.memory(work, clock=clock)
    soon = await engine.start(work(1), delay=10)
    late = await engine.start(work(2), at=datetime.fromtimestamp(clock.now(), UTC) + timedelta(seconds=20))
    given = await engine.start(work(3).options(delay=timedelta(seconds=10)))
    assert await soon.status() == "pending"
    assert "its start (due in 10.0 s)" in await soon.why()
    clock.advance(11)
    await soon.result(5)
    await given.result(5)
    assert await late.status() == "pending"
    clock.advance(10)
    await late.result(5)
    assert meter.order[-1] == 2


async def test_a_delayed_run_due_while_nothing_ran_begins_at_once(engines, clock, meter):
    """
    After down time what is overdue starts at the opening.
    """
    engine = await engines.file(work, clock=clock)
    run = await engine.start(work(1), delay=10)
    await engine.aclose()
    clock.advance(100)
    engine = await engines.file(work, clock=clock)
    assert await engine.get(run.id).result(5) == 1


async def test_an_at_already_past_begins_at_once(engines, meter):
    """
    And a naive datetime is refused.
    """
    engine = await engines.memory(work)
    run = await engine.start(work(1), at=datetime.now(UTC) - timedelta(days=1))
    assert await run.result(5) == 1
    with pytest.raises(ValueError, match="aware"):
        await engine.start(work(1), at=datetime(2020, 1, 1))  # noqa: DTZ001 - that is the point


async def test_a_paused_queue_begins_nothing(engines, meter):
    """
    Pausing is recorded: it holds across a restart, and other queues go on.
    """
    engine = await engines.file(work, deep)
    queue = engine.queue("work")
    await queue.pause()
    run = await engine.start(work(1))
    other = await engine.start(work(2), queue="other")
    assert await other.result(5) == 2
    info = await queue.info()
    assert (info.name, info.depth, info.running, info.paused) == ("work", 1, 0, True)
    assert info.oldest_wait >= 0
    await engine.aclose()
    engine = await engines.file(work, deep)
    assert (await engine.queue("work").info()).paused
    assert meter.order == [2]
    await engine.queue("work").resume()
    assert await engine.get(run.id).result(5) == 1
    info = await engine.queue("work").info()
    assert (info.depth, info.running, info.oldest_wait, info.paused) == (0, 0, None, False)


async def test_clearing_a_queue_cancels_what_has_not_begun(engines, meter):
    """
    The runs end as cancelled, say why, and are counted; those under way go on.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @job(queue="work")
    async def held() -> str:
        began.set()
        await go.wait()
        return "kept"

    engine = await engines.memory(work, held, queues=[Queue("work", 1)])
    first = await engine.start(held())
    await began.wait()
    runs = await engine.start_many([work(number) for number in range(30)])
    assert await engine.queue("work").clear() == 30
    for run in runs:
        with pytest.raises(RunCancelledError, match="cleared"):
            await run.result(5)
    go.set()
    assert await first.result(5) == "kept"
    assert meter.order == []
    assert await engine.queue("work").clear() == 0


async def test_for_each_job_keeps_its_window(engines, meter):
    """
    At most `concurrency` children exist at once, and the results are in the items' order.
    """

    @workflow
    async def each(items: list[int]) -> Flow[list]:
        values: list[int] = yield for_each(work, items, concurrency=3)
        yield Return(values)

    engine = await engines.memory(each, work)
    items = [3, 0, 3, 1, 2, 2, 9, 8]
    assert await engine.run(each(items)) == items
    assert meter.peak <= 3


async def test_a_run_may_choose_its_queue(engines, meter):
    """
    The queue of the start comes before the definition's.
    """
    engine = await engines.memory(work)
    run = await engine.start(work(1), queue="special")
    assert (await run.info()).queue == "special"
    with pytest.raises(DefinitionError, match="queue"):
        await engine.start(work(1), queue="with\nnewline")


async def test_wrong_numbers_of_slots_are_refused_at_once():
    """
    Where they are written, not when the first job comes.
    """
    with pytest.raises(DefinitionError, match="at least 1"):
        Queue("work", concurrency=0)
    with pytest.raises(DefinitionError, match="at least 1"):
        Engine(":memory:", [work], concurrency=0)


async def test_draining_begins_no_more_jobs(engines, meter):
    """
    After `drain()` what was under way has ended, what waits is kept, and new starts are refused.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @job(queue="work")
    async def held() -> str:
        began.set()
        await go.wait()
        return "ended"

    engine = await engines.file(work, held, queues=[Queue("work", 1)])
    first = await engine.start(held())
    await began.wait()
    second = await engine.start(work(1))
    draining = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(EngineClosedError, match="draining"):
        await engine.start(work(2))
    go.set()
    await draining
    assert await second.status() == "pending"
    await engine.aclose()
    engine = await engines.file(work, held)
    assert await engine.get(first.id).result(5) == "ended"
    assert await engine.get(second.id).result(5) == 1


async def test_a_test_may_replace_a_jobs_function(engines, monkeypatch):
    """
    `some_job.fn` can be replaced at any time, after its first run too, by a plain function or a mock; types stay.
    """

    @job
    async def fetch(address: str) -> int:
        return len(address)

    engine = await engines.memory(fetch)
    assert await engine.run(fetch("abc")) == 3
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "fn", lambda address: 7)
        assert await engine.run(fetch("abc")) == 7
        mock = AsyncMock(return_value=8)
        patch.setattr(fetch, "fn", mock)
        assert await engine.run(fetch("abc")) == 8
        mock.assert_awaited_once_with("abc")
        mock.return_value = "no number"
        with pytest.raises(RunFailedError, match="found str: the annotation asks for int"):
            await engine.run(fetch("abc"))
    assert await engine.run(fetch("abc")) == 3


@pytest.mark.parametrize("charge", [Mock(), AsyncMock()], ids=["Mock", "AsyncMock"])
async def test_a_mock_in_the_place_of_a_step_says_where_it_belongs(engines, charge):
    """
    What it returns is no op: the error names `replaced` and `patch.object`, and the engine opens all the same.
    """

    @workflow
    async def pays() -> Flow[int]:
        paid: int = yield charge(1)
        yield Return(paid)

    engine = await engines.memory(pays)
    with pytest.raises(RunFailedError, match=r"a mock returned: .*durable\.testing\.replaced"):
        await engine.run(pays())
