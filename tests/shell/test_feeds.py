"""
`for_each` over jobs with a window: the file starts the later children, and the parent sleeps through it.
"""

import asyncio
import sqlite3
import threading
from contextlib import closing

import anyio
import pytest

from durable import (
    Flow,
    GroupFailedError,
    Middleware,
    Outcomes,
    Return,
    for_each,
    gather,
    job,
    race,
    read_histories,
    settle,
    sleep,
    step,
    timeout,
    workflow,
)
from durable.errors import RunCancelledError, RunFailedError


class Gate:
    """
    Lets jobs through one by one, and knows how many are inside.
    """

    def __init__(self):
        self.inside = 0
        self.most = 0
        self.began = []
        self.send, self.receive = anyio.create_memory_object_stream(10_000)

    def let(self, count):
        for _ in range(count):
            self.send.send_nowait(None)

    async def __call__(self, number):
        self.began.append(number)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.receive.receive()
        finally:
            self.inside -= 1
        return number * 10


@pytest.fixture
def gate():
    """
    A gate for jobs.
    """
    made = Gate()
    yield made
    made.send.close()
    made.receive.close()


def definitions(gate, concurrency):
    @job
    async def work(number: int) -> int:
        return await gate(number)

    @workflow
    async def mapper(count: int) -> Flow[list[int]]:
        values: list[int] = yield for_each(work, range(count), concurrency=concurrency)
        yield Return(values)

    return work, mapper


async def rows(engine, table):
    sql = {
        "feeds": "SELECT count(*) FROM durable_feeds",
        "items": "SELECT count(*) FROM durable_feed_items",
        "waits": "SELECT count(*) FROM durable_waits",
    }[table]
    return await engine._backend.read(lambda conn: conn.execute(sql).fetchone()[0])


async def test_the_parent_is_woken_once_for_a_hundred_items(engines, gate, eventually):
    """
    At most three children exist at once; the parent has two turns in all, and nothing is left behind.
    """
    work, mapper = definitions(gate, 3)
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper(100))
    gate.let(40)

    async def forty_done():
        return len(gate.began) == 43

    await eventually(forty_done)
    children = await run.children()
    assert len([info for info in children if info.ended_at is None]) <= 3
    assert [event.kind for event in await run.history()].count("ChildSucceeded") == 0
    gate.let(60)
    assert await run.result(10) == [number * 10 for number in range(100)]
    assert gate.most == 3
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]
    kinds = [event.kind for event in await run.history()]
    assert kinds.count("ChildStarted") == kinds.count("ChildSucceeded") == 100


@pytest.mark.parametrize("keep_resident", [0, 4])
async def test_a_crash_in_the_middle_loses_and_doubles_nothing(engines, gate, eventually, keep_resident):
    """
    Killed after some items: the rest is fed after the restart, each item is one child.
    """
    work, mapper = definitions(gate, 2)
    engine = await engines.file(work, mapper, keep_resident=keep_resident)
    run = await engine.start(mapper(9))
    gate.let(4)

    async def some_done():
        return len(gate.began) == 6

    await eventually(some_done)
    await engines.crash(engine)
    engine = await engines.file(work, mapper, keep_resident=keep_resident)
    run = engine.get(run.id)
    gate.let(9)
    assert await run.result(10) == [number * 10 for number in range(9)]
    assert len(await run.children()) == 9
    assert await rows(engine, "items") == 0
    # Runs started now do not take the numbers that the feed had kept for its children.
    other = await engine.start(mapper(0))
    assert await other.result(5) == []


async def test_a_failure_stops_the_feed(engines, eventually):
    """
    No item is started behind the one that failed; those under way end, and a retry goes on with the rest.
    """
    broken = [2]

    @job
    async def work(number: int) -> int:
        if number in broken:
            raise ValueError(number)
        return number

    @workflow
    async def mapper() -> Flow[list[int]]:
        yield Return((yield for_each(work, range(8), concurrency=1)))

    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper())
    with pytest.raises(RunFailedError):
        await run.result(5)
    assert len(await run.children()) == 3
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]
    broken.clear()
    await run.retry()
    assert await run.result(5) == list(range(8))
    assert len(await run.children()) == 8


async def test_cancelling_the_parent_cancels_children_that_it_has_not_heard_of(engines, gate, eventually):
    """
    The file has started children since the parent's last turn: they end too, and none follows.
    """
    work, mapper = definitions(gate, 3)
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper(50))
    gate.let(10)

    async def ten_done():
        return len(gate.began) == 13

    await eventually(ten_done)
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)

    async def all_ended():
        return all(info.ended_at is not None for info in await run.children())

    await eventually(all_ended)
    assert len(await run.children()) == 13
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


async def test_a_lost_race_closes_the_feed(engines, gate, clock, eventually):
    """
    A deadline passes: children under way are cancelled, known to the parent or not, and the run goes on.
    """
    work, _ = definitions(gate, 2)

    @workflow
    async def hurried() -> Flow[int]:
        winner = yield race(for_each(work, range(20), concurrency=2), sleep(60))
        yield Return(winner.index)

    engine = await engines.memory(work, hurried, clock=clock)
    run = await engine.start(hurried())
    gate.let(5)

    async def five_done():
        return len(gate.began) == 7

    await eventually(five_done)
    clock.advance(61)
    assert await run.result(5) == 1

    async def all_ended():
        return all(info.ended_at is not None for info in await run.children())

    await eventually(all_ended)
    assert len(gate.began) == 7
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


async def test_a_paused_parent_starts_no_more_children(engines, gate, eventually, reached):
    """
    Those under way end; resumed, the window is filled again.
    """
    work, mapper = definitions(gate, 2)
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper(6))

    async def two_began():
        return len(gate.began) == 2

    await eventually(two_began)
    await reached(run, "waiting")
    await run.pause()
    gate.let(6)

    async def none_inside():
        return gate.inside == 0 and all(info.ended_at is not None for info in await run.children())

    await eventually(none_inside)
    assert len(gate.began) == 2
    await run.resume()
    assert await run.result(5) == [number * 10 for number in range(6)]
    assert gate.most == 2


# --- failures that are tolerated ----------------------------------------------------------------------


def tolerant(gate, concurrency, tolerate, bad):
    @job
    async def work(number: int) -> int:
        await gate(number)
        if number in bad:
            raise ValueError(number)
        return number

    @workflow
    async def mapper(count: int) -> Flow[list[str]]:
        try:
            found: Outcomes[int] = yield for_each(work, range(count), concurrency=concurrency, tolerate=tolerate)
        except GroupFailedError as error:
            found = error.settled
        yield Return([found.reason, "".join(each.status[0] for each in found)])

    return work, mapper


@pytest.mark.parametrize(
    "tolerate, ended",
    [(2, ["all ended", "ssfsssfsss"]), (0.2, ["all ended", "ssfsssfsss"]), (1, ["too many failed", "ssfsssfnnn"])],
)
async def test_the_file_tolerates_what_the_group_does(engines, gate, tolerate, ended):
    """
    It starts the next item after a failure, too, as long as that many may fail; then no more.
    """
    work, mapper = tolerant(gate, 1, tolerate, {2, 6})
    engine = await engines.memory(work, mapper)
    gate.let(10)
    run = await engine.start(mapper(10))
    assert await run.result(5) == ended
    assert len(gate.began) == 10 - ended[1].count("n")
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


async def test_a_tolerant_parent_is_woken_by_failures_only(engines, gate):
    """
    A hundred items of which two fail: begun, woken by each failure, and at the end; never by a success.
    """
    work, mapper = tolerant(gate, 3, 2, {20, 70})
    turns = []

    class Counting(Middleware):
        async def run(self, activation, proceed):
            turns.append(activation.workflow)
            await proceed()

    engine = await engines.memory(work, mapper, middleware=[Counting()])
    gate.let(100)
    reason, ended = await engine.run(mapper(100))
    assert (reason, ended.count("f"), ended.count("s")) == ("all ended", 2, 98)
    assert 2 <= turns.count("mapper") <= 4


@pytest.mark.parametrize("tolerate", [3, 1])
async def test_a_crash_of_a_tolerant_feed_loses_and_doubles_nothing(engines, gate, eventually, tolerate):
    """
    What the file has tolerated so far is in the file.
    """
    work, mapper = tolerant(gate, 2, tolerate, {1, 4, 7})
    engine = await engines.file(work, mapper)
    run = await engine.start(mapper(9))
    gate.let(3)

    async def some_done():
        return len(gate.began) == 5

    await eventually(some_done)
    await engines.crash(engine)
    engine = await engines.file(work, mapper)
    gate.let(9)
    reason, ended = await engine.get(run.id).result(10)
    assert ended.startswith("sfss")
    assert (reason, ended[4:]) == ("all ended", "fssfs") if tolerate == 3 else reason == "too many failed"
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


@pytest.mark.parametrize("tolerate, ended", [(2, ["all ended", "sffsss"]), (1, ["too many failed", "sffccn"])])
async def test_failures_that_find_the_parent_paused_are_tolerated_when_it_resumes(
    engines, gate, eventually, reached, tolerate, ended
):
    """
    What was owed to the ends before the one too many is started, and cancelled with the rest.
    """
    work, mapper = tolerant(gate, 3, tolerate, {1, 2})
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper(6))

    async def three_began():
        return len(gate.began) == 3

    await eventually(three_began)
    await reached(run, "waiting")
    await run.pause()
    for count in range(1, 4):
        gate.let(1)

        async def one_more_ended(count=count):
            return [info.ended_at is not None for info in await run.children()].count(True) == count

        await eventually(one_more_ended)
    assert len(gate.began) == 3
    await run.resume()
    if tolerate == 2:
        gate.let(3)
    assert await run.result(5) == ended
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


async def test_an_open_feed_survives_a_transfer_with_what_it_tolerates(engines, gate, eventually, tmp_path):
    """
    Exported in the middle: what is left of it is told.
    """
    work, mapper = tolerant(gate, 1, 1, {0, 3})
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper(5))
    gate.let(1)

    async def second_began():
        return len(gate.began) == 2

    await eventually(second_began)
    await engine.export(run.id, tmp_path / "runs.jsonl")
    (history,) = read_histories(tmp_path / "runs.jsonl")
    assert [(feed.tolerate, [item.item for item in feed.items]) for feed in history.feeds] == [(0, [2, 3, 4])]
    other = await engines.memory(work, mapper)
    await other.import_runs([history])
    assert await rows(other, "items") == 3
    gate.let(4)
    assert await run.result(5) == ["too many failed", "fssfn"]


async def test_feeds_in_a_gather_and_feeds_of_workflows(engines):
    """
    Two windows at once, one over workflows that feed children of their own.
    """

    @job
    async def work(number: int) -> int:
        return number

    @workflow
    async def inner(number: int) -> Flow[int]:
        values: list[int] = yield for_each(work, range(number), concurrency=2)
        yield Return(sum(values))

    @workflow
    async def outer() -> Flow[list[object]]:
        both: tuple[list[int], list[int]] = yield gather(
            for_each(inner, [5, 0, 7, 3], concurrency=2), for_each(work, [1, None or 0, 1, 1], concurrency=1)
        )
        yield Return([*both])

    engine = await engines.memory(work, inner, outer)
    assert await engine.run(outer()) == [[10, 0, 21, 3], [1, 0, 1, 1]]
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]


async def test_jobs_with_keys_are_windowed_by_the_parent(engines):
    """
    Whether a keyed child exists already is for the parent's turn to find out: no feed, the same results.
    """

    @job(key=lambda number: f"work-{number}")
    async def work(number: int) -> int:
        return number

    @workflow
    async def mapper() -> Flow[list[int]]:
        yield Return((yield for_each(work, [1, 2, 2, 1, 3], concurrency=2)))

    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper())
    assert await run.result(5) == [1, 2, 2, 1, 3]
    assert "FeedOpened" not in [event.kind for event in await run.history()]


async def test_a_settled_for_each_fails_and_the_run_goes_on(engines):
    """
    What follows a failed window finds no rest of it.
    """

    @job
    async def work(number: int) -> int:
        return 1 // number

    @workflow
    async def twice() -> Flow[list[object]]:
        first = yield settle(for_each(work, [1, 0, 1, 1], concurrency=1))
        second: list[int] = yield for_each(work, [1, 1, 1], concurrency=2)
        yield Return([type(first.error).__name__, second])

    engine = await engines.memory(work, twice)
    assert await engine.run(twice()) == ["ZeroDivisionError", [1, 1, 1]]


async def test_an_open_feed_survives_a_backup(engines, gate, eventually, tmp_path):
    """
    Items still to come are in the file, and the numbers kept for them are not given away.
    """
    work, mapper = definitions(gate, 1)
    engine = await engines.file(work, mapper)
    run = await engine.start(mapper(5))

    async def one_began():
        return len(gate.began) == 1

    await eventually(one_began)
    copy = tmp_path / "copy.db"
    await engine.backup(copy)
    with closing(sqlite3.connect(copy)) as conn:
        kept = [child for (child,) in conn.execute("SELECT child FROM durable_feed_items ORDER BY item")]
        (last,) = conn.execute("SELECT max(run) FROM durable_runs").fetchone()
    assert len(kept) == 4
    assert last not in kept
    gate.let(5)
    await run.result(5)


async def test_a_run_knows_every_child_of_a_feed_that_it_closes(engines, clock, eventually):
    """
    Also one that the file starts when the time of the group is over, before the run has heard of either: that child is
    cancelled like the others, and what follows begins when it has ended.
    """
    may_end, may_clean, began, inside = asyncio.Event(), asyncio.Event(), [], set()
    is_held, may_read = threading.Event(), threading.Event()

    @job
    async def work(number: int) -> None:
        began.append(number)
        inside.add(number)
        try:
            await (may_end.wait() if number == 0 else asyncio.sleep(60))
        finally:
            if number == 2:
                await may_clean.wait()
            inside.discard(number)

    @step
    async def follows() -> list[int]:
        return [*inside]

    @workflow
    async def hurried() -> Flow[list[int]]:
        yield settle(timeout(for_each(work, range(9), concurrency=2), 60))
        yield Return((yield follows()))

    def hold(_conn):
        is_held.set()
        assert may_read.wait(10)

    engine = await engines.file(work, hurried, clock=clock)
    run = await engine.start(hurried())

    async def has(sql, count):
        async def found():
            with closing(sqlite3.connect(engines.path)) as conn:
                return conn.execute(f"SELECT count(*) FROM {sql}").fetchone() == (count,)

        await eventually(found)

    async def has_begun(count):
        async def found():
            return len(began) == count

        await eventually(found)

    await has_begun(2)
    holding = asyncio.create_task(engine.read(hold))  # so that the run cannot read its inbox meanwhile
    assert await asyncio.to_thread(is_held.wait, 10)
    clock.advance(61)
    await has("durable_inbox", 1)
    may_end.set()
    await has_begun(3)
    may_read.set()
    await holding

    async def is_cancelled():
        return inside == {2}

    await eventually(is_cancelled)
    may_clean.set()
    assert await run.result(10) == []
    known = [each.event.run_id for each in await run.history() if each.kind == "ChildStarted"]
    assert sorted(known) == sorted(child.id for child in await run.children())
    assert [await rows(engine, table) for table in ("feeds", "items", "waits")] == [0, 0, 0]
