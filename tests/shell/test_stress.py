"""
Everything at once: random requests on random runs, restarts and crashes in between; all come to an end.
"""

import asyncio
import random

import pytest

from durable import (
    Flow,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    context,
    for_each,
    gather,
    job,
    race,
    settle,
    sleep,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)
from durable._core.journal.events import SignalReceived
from durable.errors import RunStateError

pytestmark = pytest.mark.anyio


@step(retry=Retry(attempts=3, delay=0.001))
async def flaky(number: int) -> int:
    await asyncio.sleep(0.001)
    if (number + context().attempt) % 3 == 0:
        raise ConnectionError
    return number


@step
async def tidy() -> None:
    await asyncio.sleep(0)


@transaction
def insert(tx, number: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS done (run TEXT, number INTEGER)")
    return tx.execute("INSERT INTO done (number) VALUES (?)", (number,)).lastrowid


@transaction
async def insert_async(tx, number: int) -> int:
    await tx.execute("CREATE TABLE IF NOT EXISTS done (run TEXT, number INTEGER)")
    return (await tx.execute("INSERT INTO done (number) VALUES (?)", (number,))).lastrowid


@job(queue="jobs", retry=Retry(attempts=2, delay=0.001))
async def work(number: int) -> int:
    await asyncio.sleep(0.001 * (number % 3))
    if number % 7 == context().attempt:
        raise ConnectionError
    return number


@workflow
async def child(number: int) -> Flow[int]:
    yield sleep(0.001 * (number % 4))
    value: int = yield work(number)
    yield Return(value)


async def helper(number: int) -> int:
    first = await flaky(number)
    return first + await insert(number)


@workflow
async def top(number: int) -> Flow[int]:
    total = 0
    try:
        total += yield flaky(number)
        yield settle(gather(helper(number), child(number), work(number + 1)))
        won = yield race(wait_for("go"), sleep(0.02), work(3))
        total += won.index
        yield insert_async(number)
        values = yield settle(for_each(work, range(number % 5), concurrency=2))
        total += len(values.value or ())
        yield settle(timeout(wait_for("never"), 0.005))
        yield wait_for("end", timeout=0.03)
    except TimeoutError:
        pass
    finally:
        yield tidy()
    yield Return(total)


DEFINITIONS = (work, child, top)
OPTIONS = {"queues": [Queue("jobs", 3)], "concurrency": 8, "cleanup_timeout": 0.5}


async def pester(run, dice):
    ask = dice.choice(["signal", "signal", "cancel", "pause", "resume", "retry", "end", "nothing"])
    try:
        match ask:
            case "signal":
                await run.signal("go", dice.random())
            case "end":
                await run.signal("end")
            case "cancel":
                await run.cancel("pestered")
            case "pause":
                await run.pause()
            case "resume":
                await run.resume()
            case "retry":
                await run.retry()
            case _:
                await run.why()
    except RunStateError:
        pass


@pytest.mark.long
@pytest.mark.parametrize("keep_resident", [0, 5])
@pytest.mark.parametrize("seed", range(3))
async def test_every_run_ends_whatever_happens_to_it(engines, seed, keep_resident):
    """
    No run is lost or stuck, no wait or arrival is left behind, and every history replays.
    """
    dice = random.Random(seed)
    options = {**OPTIONS, "keep_resident": keep_resident}
    engine = await engines.file(*DEFINITIONS, **options, grace=0.02)
    ids = [run.id for run in await engine.start_many([top(number) for number in range(25)])]
    for round_ in range(4):
        for _ in range(40):
            await pester(engine.get(dice.choice(ids)), dice)
            if dice.random() < 0.2:
                everything = [info.run_id async for info in engine.runs(limit=60)]
                await pester(engine.get(dice.choice(everything)), dice)
            await asyncio.sleep(dice.choice([0, 0, 0.001, 0.003]))
        if round_ % 2:
            await engines.crash(engine)
        else:
            await engine.aclose()
        engine = await engines.file(*DEFINITIONS, **options, grace=0.02)
    for _ in range(4):  # children may be paused as well, and retries may fail again
        async for info in engine.runs(status=["paused", "blocked"]):
            assert info.status == "paused", info
            await engine.get(info.run_id).resume()
        await asyncio.sleep(0.02)
    for run_id in ids:
        try:
            await engine.get(run_id).result(10)
        except (RunFailedError, RunCancelledError):
            pass
        except TimeoutError:
            run = engine.get(run_id)
            raise AssertionError(f"{await run.why()}\n{await run.history()}") from None
    await _all_ended(engine)
    # Signals that nobody asked for are kept with their runs; nothing else is left.
    for table in ("durable_waits", f"durable_inbox WHERE kind <> {SignalReceived.kind}"):
        left = await engine._backend.read(lambda conn, table=table: conn.execute(f"SELECT * FROM {table}").fetchall())
        assert left == [], table
    async for info in engine.runs():
        await engine.get(info.run_id).history()


async def _all_ended(engine):
    async with asyncio.timeout(10):
        while found := [info async for info in engine.runs(status=["pending", "running", "waiting", "blocked"])]:
            assert not [info for info in found if info.status == "blocked"], found
            await asyncio.sleep(0.005)
            async for info in engine.runs(status="paused"):
                await engine.get(info.run_id).resume()
