"""
Batches after a crash at every commit: the same end, each callback once, no member added twice.
"""

import asyncio
import contextlib
import sqlite3

import pytest

from durable import Engine, Flow, Retry, Return, Transaction, context, current_batch, job, transaction, workflow
from durable._shell.storage import connections, database

pytestmark = pytest.mark.anyio

gates: dict[str, asyncio.Event] = {}
called: list[str] = []


@job
async def member(name: str) -> str:
    return name


@job
async def fails(name: str) -> None:
    raise ValueError(name)


@job(retry=Retry(attempts=3, delay=0.002))
async def adds(name: str) -> None:
    """Adds three members, and dies in between as far as the second half of its attempts is concerned."""
    await current_batch().add(member(f"{name}1"))
    await current_batch().add(fails(f"{name}2"))
    if context().attempt == 1:
        raise ConnectionError
    await current_batch().add(member(f"{name}3"))


@transaction
def keep(tx: Transaction, mark: str) -> None:
    tx.execute("INSERT INTO app VALUES (?)", (mark,))


@workflow
async def callback(mark: str) -> Flow[str]:
    yield keep(mark)
    yield Return(mark)


@job
async def goes_on(left: int) -> None:
    """Adds the next batch to the parent of its own."""
    async with current_batch().parent.batch(on_success=goes_on(left - 1) if left else callback("end")) as following:
        following.add(member(str(left)))


DEFINITIONS = [member, fails, adds, callback, goes_on]


def events(prefix):
    return {f"on_{event}": callback(f"{prefix} {event}") for event in ("success", "failure", "complete")}


async def failing(engine):
    """A batch with members that fail, retry and add, and nested ones of both kinds."""
    async with engine.batch(**events("outer"), id="the-batch") as batch:
        batch.add(member("a"))
        batch.add(adds("b"))
        async with batch.batch(**events("good")) as nested:
            nested.add(member("c"))
        async with batch.batch(**events("bad")) as nested:
            nested.add(fails("d"))
            nested.add(fails("e"))


async def chained(engine):
    """Callbacks that add batch after batch to their parent, and empty batches."""
    async with engine.batch(**events("outer"), id="the-batch") as batch:
        async with batch.batch(**events("empty")):
            pass
        async with batch.batch(on_success=goes_on(1)) as nested:
            nested.add(member("a"))


async def cancelled(engine):
    """A batch that is cancelled while its members wait; asked again in each life."""
    async with engine.batch(**events("outer"), id="the-batch") as batch:
        batch.add(member("late"), delay=3600)
        batch.add(member("later"), delay=3600)
        async with batch.batch(**events("nested")) as nested:
            nested.add(member("never"), delay=3600)
    await batch.cancel("enough")


CASES = {
    "failing": (
        failing,
        ["bad complete", "bad failure", "good complete", "good success", "outer complete", "outer failure"],
        (5, 4, 1, 0, "failed"),
    ),
    "chained": (
        chained,
        ["empty complete", "empty success", "end", "outer complete", "outer success"],
        (0, 0, 0, 0, "succeeded"),
    ),
    "cancelled": (cancelled, ["nested complete", "outer complete"], (2, 0, 0, 2, "cancelled")),
}


@pytest.fixture(autouse=True)
def _nothing_yet():
    gates.clear()
    called.clear()


def copies(monkeypatch, folder):
    """A copy of the file after each COMMIT that leaves the batch in it."""
    paths = []
    real = connections.commit

    def commit(conn, path):
        real(conn, path)
        if conn.execute("SELECT 1 FROM durable_batches").fetchone() is None:
            return
        paths.append(folder / f"{len(paths)}.db")
        conn.execute("VACUUM INTO ?", (str(paths[-1]),))

    for module in (connections, database):
        monkeypatch.setattr(module, "commit", commit)
    return paths


def asked(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return conn.execute(sql).fetchall()


async def end(engine):
    info = await engine.get_batch("the-batch").wait(20)
    return info.total, info.succeeded, info.failed, info.cancelled, info.outcome


@pytest.mark.parametrize("name", CASES)
async def test_every_prefix_of_a_batch_leads_to_the_same_end(tmp_path, monkeypatch, name):
    """Members, callbacks and nested batches: each exists once, whichever commit was the last of a life."""
    make, marks, expected = CASES[name]
    whole = tmp_path / "whole.db"
    with contextlib.closing(sqlite3.connect(whole)) as app:
        app.execute("CREATE TABLE app (mark TEXT)")
        app.commit()
    with monkeypatch.context() as patch:
        paths = copies(patch, tmp_path)
        async with Engine(whole, DEFINITIONS, durability="process") as engine:
            await make(engine)
            assert await end(engine) == expected
    batches = asked(whole, "SELECT count(*) FROM durable_batches")
    runs = asked(whole, "SELECT count(*) FROM durable_runs")
    assert len(paths) > 4
    for path in paths:
        async with Engine(path, DEFINITIONS, durability="process", crash_limit=1000) as engine:
            if name == "cancelled":
                await engine.get_batch("the-batch").cancel("enough")
            assert await end(engine) == expected, path
        assert sorted(mark for (mark,) in asked(path, "SELECT mark FROM app")) == marks, path
        assert asked(path, "SELECT count(*) FROM durable_batches") == batches, path
        assert asked(path, "SELECT count(*) FROM durable_runs") == runs, path


@job
async def waits(name: str) -> None:
    await gates[name].wait()


@job
async def succeeded(name: str) -> None:
    called.append(name)


@pytest.mark.parametrize("where, rounds", [("memory", 20), ("file", 20)])
async def test_success_starts_once_a_thousand_times_over_however_members_end_together(tmp_db, where, rounds):
    """The last two members of a batch end in one commit group or in neighbouring ones, 24 others beside them."""
    path = tmp_db if where == "file" else ":memory:"
    names = []
    async with Engine(path, [waits, succeeded], durability="process") as engine:
        for round_ in range(rounds):
            now = [f"{round_}.{number}" for number in range(25)]
            gates.update((name, asyncio.Event()) for name in now)
            batches = []
            for name in now:
                async with engine.batch(on_success=succeeded(name)) as batch:
                    batch.add(waits(name))
                    batch.add(waits(name))
                batches.append(batch)
            async with asyncio.timeout(20):
                while (await engine.stats()).active < 50:
                    await asyncio.sleep(0.001)
            for number, name in enumerate(now):
                gates[name].set()
                if number % 3 == 0:
                    await asyncio.sleep(0)
            assert {(await batch.wait(20)).outcome for batch in batches} == {"succeeded"}
            names += now
    assert sorted(called) == sorted(names)


@pytest.mark.timeout(240)
async def test_success_starts_once_if_the_engine_closes_just_then(tmp_db):
    """A hundred closings, some turns of the loop after the members were let go."""
    names = []
    for number in range(100):
        name = str(number)
        gates[name] = asyncio.Event()
        async with Engine(tmp_db, [waits, succeeded], durability="process") as engine:
            async with engine.batch(on_success=succeeded(name), id=name) as batch:
                batch.add(waits(name))
                batch.add(waits(name))
            async with asyncio.timeout(20):
                while (await engine.stats()).active < 2:
                    await asyncio.sleep(0.001)
            gates[name].set()
            for _ in range(number % 40):
                await asyncio.sleep(0)
        names.append(name)
        async with Engine(tmp_db, [waits, succeeded], durability="process") as engine:
            assert (await engine.get_batch(name).wait(10)).outcome == "succeeded"
    assert sorted(called) == sorted(names)
