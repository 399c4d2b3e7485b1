"""
Which run is driven, when what is known of it has changed since it was offered.
"""

import asyncio
import threading
import time

import pytest

from durable import Engine, Flow, Queue, Return, RunCancelledError, gather, job, step, workflow
from durable._shell.reads import event_rows
from durable._shell.tasks.scheduler import Scheduler

pytestmark = pytest.mark.anyio

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


@step
async def work(name: str) -> str:
    calls.append(name)
    return name


@step
async def hold(name: str) -> str:
    calls.append(name)
    await asyncio.sleep(0.05)
    return name


@workflow(queue="narrow")
async def one(name: str) -> Flow[str]:
    yield hold("holds")
    done: str = yield work(name)
    yield Return(done)


def narrow():
    return Engine(":memory:", [one], queues=[Queue("narrow", concurrency=1)])


async def test_a_run_created_and_cancelled_in_one_commit_never_begins():
    """What came into its inbox with its creation is looked at before its first turn."""
    async with Engine(":memory:", [one]) as engine:
        first, second = await asyncio.gather(
            engine.start(one("old"), key="k"), engine.start(one("new"), key="k", on_conflict="replace")
        )
        assert await second.result() == "new"
        with pytest.raises(RunCancelledError):
            await first.result()
    assert "old" not in calls


async def test_a_run_paused_while_it_waits_for_its_slot_does_not_begin_until_it_is_resumed():
    """It was offered as ready; the slot comes, and finds it paused."""
    async with narrow() as engine:
        busy = await engine.start(one("busy"))
        held = await engine.start(one("held"))
        await held.pause()
        assert await busy.result() == "busy"
        await asyncio.sleep(0.1)
        assert (await held.info()).status == "paused"
        assert calls == ["holds", "busy"]
        await held.resume()
        assert await held.result() == "held"


async def test_a_run_paused_and_resumed_while_its_step_runs_goes_on_and_repeats_nothing():
    """It becomes ready again while its driver winds down: the next driver begins where that one ends."""
    async with narrow() as engine:
        run = await engine.start(one("x"))
        while not calls:
            await asyncio.sleep(0.001)
        for _ in range(3):
            await run.pause()
            await run.resume()
        async with asyncio.timeout(5):
            assert await run.result() == "x"
    assert calls == ["holds", "x"]


async def test_a_step_that_ends_while_its_run_is_paused_is_recorded_and_not_repeated():
    """Its outcome waits in the inbox until the run is resumed, in this life or the next."""
    async with narrow() as engine:
        run = await engine.start(one("x"))
        while not calls:
            await asyncio.sleep(0.001)
        await run.pause()
        await asyncio.sleep(0.1)
        assert (await run.info()).status == "paused"
        assert (await engine.stats()).active == 0
        await run.resume()
        assert await run.result() == "x"
    assert calls == ["holds", "x"]


async def test_a_step_that_ends_within_the_grace_of_a_closing_is_not_repeated(tmp_db):
    """Its outcome is recorded although no turn begins any more; the next engine begins with it."""
    for _ in range(2):
        async with Engine(tmp_db, [one], grace=5.0) as engine:
            await engine.start(one("x"), key="k")
            while not calls:
                await asyncio.sleep(0.001)
    async with Engine(tmp_db, [one]) as engine:
        assert await (await engine.find("k")).result() == "x"
    assert calls == ["holds", "x"]


async def test_a_step_cut_off_by_a_closing_runs_again_and_is_no_crash(tmp_db):
    """With a crash limit of one, an attempt that the closing interrupted does not block the run."""
    async with Engine(tmp_db, [one], grace=0.0, crash_limit=1) as engine:
        await engine.start(one("x"), key="k")
        while not calls:
            await asyncio.sleep(0.001)
    async with Engine(tmp_db, [one], crash_limit=1) as engine:
        async with asyncio.timeout(5):
            assert await (await engine.find("k")).result() == "x"
    assert calls == ["holds", "holds", "x"]


async def test_runs_that_become_ready_while_the_file_is_asked_for_more_are_not_forgotten(monkeypatch):
    """More runs than are kept as candidates arrive during a look-up that did not see them."""
    from durable._core import admission
    from durable._shell.tasks import scheduler

    for module in (admission, scheduler):
        monkeypatch.setattr(module, "CANDIDATES", 3)
    async with Engine(":memory:", [one], queues=[Queue("narrow", concurrency=1)]) as engine:
        database, real, busy = engine._backend.running.database, engine._backend.running.database.read, asyncio.Event()

        async def read(fn):
            found = await real(fn)
            if "_refill" in getattr(fn, "__qualname__", ""):
                busy.set()
                await asyncio.sleep(0.02)  # what is read is old by the time that it arrives
            return found

        database.read = read
        first = await engine.start_many([one(str(number)) for number in range(5)])
        await busy.wait()
        later = await engine.start_many([one(str(number)) for number in range(5, 17)])
        async with asyncio.timeout(20):
            assert [await run.result() for run in (*first, *later)] == [str(number) for number in range(17)]


async def test_a_turn_that_cannot_be_written_blocks_its_own_run_only(monkeypatch, reached):
    """
    An unexpected error in a commit group is the fault of one turn: the others are written without it.
    """
    from durable._shell.commits import commits as module

    write = module.write_turns

    def writing(conn, turns, effects):
        for turn in turns:
            if turn.state.workflow == "spoiling" and turn.events:
                msg = "planted"
                raise ValueError(msg)
        write(conn, turns, effects)

    monkeypatch.setattr(module, "write_turns", writing)

    @workflow
    async def spoiling() -> int:
        return await number(1)

    @workflow
    async def fine() -> int:
        return await number(2)

    @step
    async def number(n: int) -> int:
        return n

    async with Engine(":memory:", [spoiling, fine]) as engine:
        runs = await engine.start_many([spoiling(), fine(), fine(), fine()])
        assert [await run.result(timeout=5) for run in runs[1:]] == [2, 2, 2]
        await reached(runs[0], "blocked")
        assert "planted" in ((await runs[0].info()).reason or "")


async def test_what_was_read_of_a_run_before_it_ended_does_not_run_it_again(engines, monkeypatch, eventually):
    """
    Candidates come with their first event, so that nobody reads it again; one that moved meanwhile does not.
    """
    began, go, read = asyncio.Event(), asyncio.Event(), threading.Event()
    calls = []

    @job
    async def work() -> None:
        calls.append(1)
        began.set()
        await go.wait()

    engine = await engines.file(work)  # its reader has a thread of its own
    await engine.queue("default").pause()
    run = await engine.start(work())
    stale = await engine._backend.read(event_rows.ready_runs, "default", 10)
    assert stale[0].fresh is not None
    await engine.queue("default").resume()
    await began.wait()
    ended = asyncio.create_task(run.result())
    await run.info()  # the task has looked before us, and waits now
    monkeypatch.setattr(event_rows, "ready_runs", lambda conn, queue, limit: (read.wait(5), stale)[1])
    scheduler = engine._backend.running.scheduler
    scheduler._admission.found_more("default", more=True)
    scheduler._pump()
    go.set()
    await ended
    read.set()

    async def refilled():
        return not scheduler._refilling and not scheduler.active

    await eventually(refilled)
    assert (calls, await run.status()) == ([1], "succeeded")
    assert [event.kind for event in await run.history()].count("StepStarted") == 1


async def test_a_run_that_a_refill_found_before_its_creator_was_told_is_not_begun_again(engines, monkeypatch):
    """
    The reader may see a commit before the loop hears of it. Its driver has begun by then, and recorded more.
    """

    @job
    async def child(number: int) -> int:
        return number

    @workflow
    async def parent() -> Flow[list]:
        numbers = yield gather(child(1), child(2))
        yield Return(numbers)

    begin = Scheduler._begin

    def told_late(scheduler, ready):
        begin(scheduler, ready)
        if ready.fresh is not None:
            scheduler._offer(ready)  # as the effects of its creation do

    monkeypatch.setattr(Scheduler, "_begin", told_late)
    engine = await engines.file(parent, child)
    run = await engine.start(parent())
    assert await run.result(10) == [1, 2]
    kinds = [event.kind for event in await run.history()]
    assert (kinds.count("RunStarted"), kinds.count("ChildStarted"), kinds.count("RunSucceeded")) == (1, 2, 1)
    assert len(await run.children()) == 2


async def test_a_loop_that_is_never_idle_does_not_keep_the_writer_from_its_work(engines):
    """
    In iterations shorter than the interpreter's switch interval, as of a busy web application: commits go on.

    Without giving way, one commit takes tens of seconds: no other thread ever gets the interpreter's lock.
    """

    @job
    async def quick(number: int) -> int:
        return number

    engine = await engines.file(quick)
    over = False

    async def hog() -> None:
        while not over:
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    hogging = asyncio.create_task(hog())
    try:
        async with asyncio.timeout(20):
            runs = await engine.start_many([quick(number) for number in range(50)])
            assert [await run.result() for run in runs] == list(range(50))
    finally:
        over = True
        await hogging
