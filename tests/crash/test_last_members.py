"""
The last two members of a group end at the same instant: their parent goes on exactly once.
"""

import asyncio
import contextlib
import sqlite3

import pytest

from durable import Engine, Flow, Return, Transaction, gather, job, step, transaction, workflow

pytestmark = pytest.mark.anyio

gates: dict[str, asyncio.Event] = {}
went_on: list[str] = []


@job
async def member(name: str, number: int) -> int:
    await gates[name].wait()
    return number


@step
async def goes_on(name: str) -> None:
    went_on.append(name)


@transaction
def note(tx: Transaction, name: str) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS app (name TEXT)")
    tx.execute("INSERT INTO app VALUES (?)", (name,))


@workflow
async def parent(name: str) -> Flow[list[int]]:
    numbers: list[int] = yield gather(member(name, 1), member(name, 2))
    yield note(name)
    yield goes_on(name)
    yield Return(numbers)


@pytest.fixture(autouse=True)
def _nothing_yet():
    gates.clear()
    went_on.clear()


async def noted(engine):
    return sorted(
        name
        for (name,) in await engine._backend.running.database.read(
            lambda conn: conn.execute("SELECT name FROM app").fetchall()
        )
    )


async def both_run(engine, runs):
    """Until both members of each run are under way."""
    async with asyncio.timeout(20):
        while (await engine.stats()).active < 2 * len(runs):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_the_parent_goes_on_exactly_once_a_thousand_times_over(tmp_db, where):
    """In one commit group or in two neighbouring ones, beside 24 other groups that do the same."""
    path = tmp_db if where == "file" else ":memory:"
    names = []
    async with Engine(path, [parent, member], durability="process") as engine:
        for batch in range(40):
            now = [f"{batch}.{number}" for number in range(25)]
            gates.update((name, asyncio.Event()) for name in now)
            runs = await engine.start_many([parent(name) for name in now])
            await both_run(engine, runs)
            for number, name in enumerate(now):
                gates[name].set()
                if number % 3 == 0:
                    await asyncio.sleep(0)
            async with asyncio.timeout(20):
                assert [await run.result() for run in runs] == [[1, 2]] * 25
            names += now
        assert await noted(engine) == sorted(names)
    assert sorted(went_on) == sorted(names)


async def test_the_parent_goes_on_exactly_once_if_the_engine_closes_just_then(tmp_db):
    """A hundred closings, some turns of the loop after the members were let go; the next engine goes on."""
    names = []
    for number in range(100):
        name = str(number)
        gates[name] = asyncio.Event()
        async with Engine(tmp_db, [parent, member], durability="process") as engine:
            run = await engine.start(parent(name), id=name)
            await both_run(engine, [run])
            gates[name].set()
            for _ in range(number % 40):
                await asyncio.sleep(0)
            if number % 4 == 3:
                await asyncio.sleep(0.0005 * (number % 16))
        names.append(name)
        async with Engine(tmp_db, [parent, member], durability="process") as engine:
            async with asyncio.timeout(10):
                assert await engine.get(name).result() == [1, 2]
                assert len(await engine.get(name).children()) == 2
    with contextlib.closing(sqlite3.connect(tmp_db)) as app:
        assert sorted(name for (name,) in app.execute("SELECT name FROM app")) == sorted(names)
    assert sorted(went_on) == sorted(names)


async def test_the_parent_goes_on_exactly_once_if_all_is_killed_before_it_wakes(engines, tmp_db):
    """
    A thousand times: the outcomes of its last members are on disk, and nothing of the parent's next turn.

    That moment is held still by a paused queue: the parents are woken by those outcomes, and may not begin.
    """
    names = [str(number) for number in range(1000)]
    gates.update((name, asyncio.Event()) for name in names)
    engine = await engines.file(parent, member, concurrency=3000)
    runs = await engine.start_many([parent(name).options(queue="parents") for name in names])
    await both_run(engine, runs)
    await engine.queue("parents").pause()
    for name in names:
        gates[name].set()
    async with asyncio.timeout(20):
        while (await engine.stats()).runs.get("succeeded", 0) < 2 * len(names):
            await asyncio.sleep(0.01)
    assert went_on == []
    assert (await engine.stats()).waits == 0
    await engines.crash(engine)
    engine = await engines.file(parent, member)
    await engine.queue("parents").resume()
    async with asyncio.timeout(30):
        assert [await engine.get(run.id).result() for run in runs] == [[1, 2]] * len(names)
    assert await noted(engine) == sorted(names)
    assert sorted(went_on) == sorted(names)
