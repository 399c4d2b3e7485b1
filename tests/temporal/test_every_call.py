"""
Each call of an engine and of a run that means something on a server, tried on one.
"""

import asyncio
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from durable import (
    EngineClosedError,
    Fatal,
    Middleware,
    Request,
    RunCancelledError,
    RunFailedError,
    RunStateError,
    Schedule,
    UsageError,
    emit,
    job,
    read_histories,
    set_attributes,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.temporal import AppTransactions, TemporalEngine

approve = Request("approve", str, bool)


class Desk:
    """
    Whether the step fails.
    """

    is_broken = True


@step
async def price(item: str) -> int:
    emit("log", f"priced {item}")
    return len(item)


@job
async def tell(who: str) -> str:
    return f"told {who}"


@workflow
async def buy(item: str) -> str:
    cents = await price(item)
    set_attributes(cents=cents)
    told = await tell("ada")
    asked = await wait_for(approve)
    await asked.reply(asked.value == "please")
    return f"{told} {await wait_for('go', str)}"


@step
async def fragile() -> str:
    if Desk.is_broken:
        raise Fatal("broken")
    return "mended"


@workflow
async def mended() -> str:
    return await fragile()


@transaction
def note(tx, text: str) -> int:
    tx.execute("INSERT INTO notes VALUES (?)", (text,))
    return len(text)


@workflow
async def notes() -> int:
    return await note("abc")


ALL = [buy, tell, mended]


class Heard(Middleware):
    def __init__(self):
        self.names = []

    def happened(self, event):
        self.names.append(event.name)


@pytest.fixture
def transactions(tmp_path):
    path = tmp_path / "notes.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE notes (text TEXT)")
    made.close()
    return AppTransactions(lambda: sqlite3.connect(path))


async def until(look):
    async with asyncio.timeout(30):
        while not (found := await look()):
            await asyncio.sleep(0.02)
        return found


async def asking(run):
    return any(wait.name == "approve" for wait in await run.waits())


async def test_each_call_of_a_run(engines):
    """
    Looking at it, asking it, holding it up, ending it, and beginning it again.
    """
    engine = await engines(*ALL)
    run = await engine.start(buy("tea"), labels={"tenant": "ada"})
    assert [each.workflow for each in await until(run.children)] == ["tell"]
    await until(lambda: asking(run))
    (wait,) = await run.waits()
    assert (wait.name, wait.position) == ("approve", "2")
    assert "approve" in await run.why()
    assert dict(await run.attributes()) == {"cents": 3}
    assert [(each.name, each.result) for each in await run.steps()] == [("price", 3)]
    assert [event.kind for event in await run.history()][:3] == ["RunStarted", "StepStarted", "StepSucceeded"]
    info = await run.info()
    assert (info.status, info.arguments.args, dict(info.labels)) == ("waiting", ("tea",), {"tenant": "ada"})
    assert await run.ask(approve, "please", timeout=30) is True
    stream = run.stream("log", str)
    assert await anext(aiter(stream)) == "priced tea"
    assert await run.pause()

    async def is_paused():
        return await run.status() == "paused"

    await until(is_paused)
    await run.signal("go", "now")
    assert await run.resume()
    assert await run.result(timeout=30) == "told ada now"
    assert [each.status async for each in run.watch()] == ["succeeded"]
    forked = await run.fork("0", {"0": 7})
    assert await forked.result(timeout=30) == "told ada now"  # what was sent to the first is sent to it
    assert [each.result for each in await forked.steps()] == [7]
    other = await engine.start(buy("tea"))
    assert await other.cancel("enough")
    with pytest.raises(RunCancelledError, match="enough"):
        await other.result()
    with pytest.raises(RunStateError):  # of one that is blocked: test_workers
        await run.resolve("0", value=1)
    Desk.is_broken = True
    failed = await engine.start(mended())
    with pytest.raises(RunFailedError):
        await failed.result()
    Desk.is_broken = False
    assert await failed.retry()
    assert await failed.result() == "mended"


async def test_each_call_of_an_engine(engines, transactions, tmp_path):
    """
    Starting runs, finding them, and what is done with many.
    """
    name = f"s-{uuid.uuid4().hex[:6]}"
    schedule = Schedule(name, tell("ops"), every=timedelta(days=1))
    engine = await engines(*ALL, notes, transactions=transactions, schedules=[schedule])
    assert await engine.run(tell("ada"), id=f"tell-{name}") == "told ada"
    bob, cyd = await engine.start_many([tell("bob"), tell("cyd")])
    assert [await each.result() for each in (bob, cyd)] == ["told bob", "told cyd"]
    keyed = await engine.start(tell("dee"), key=f"key-{name}")
    assert await (await engine.find(f"key-{name}")).result() == "told dee"
    assert await engine.get(keyed.id).result() == "told dee"

    async def listed():
        found = {info.id async for info in engine.runs(workflow=tell, status="succeeded")}
        return {bob.id, cyd.id, keyed.id} <= found

    await until(listed)
    async with engine.batch() as batch:
        batch.add(tell("eve"))
    assert (await batch.wait(30)).outcome == "succeeded"
    assert (await engine.schedule(name).info()).next_at > datetime.now(UTC).timestamp()
    await engine.schedule(name).delete()
    assert await engine.transact(note("four")) == 4
    assert await engine.run(notes()) == 3
    assert (await engine.check(all=True)).ok
    await engine.export(bob.id, tmp_path / "bob.jsonl")
    assert [each.run.run_id for each in read_histories(tmp_path / "bob.jsonl")] == [bob.id]


async def test_events_of_this_process(engines, client, queue):
    """
    As of an embedded engine: what happens to runs that this process works on, filtered, and to middleware, too.
    """
    heard = Heard()
    engine = await engines(*ALL, middleware=[heard])
    events, steps = engine.events(), engine.events(workflow=buy, kinds="step")
    with pytest.raises(UsageError, match="no event called"):
        engine.events(kinds="stop")
    run = await engine.start(buy("tea"))
    await until(lambda: asking(run))
    assert await run.ask(approve, "please", timeout=30)
    await run.signal("go", "now")
    await run.result()
    found = []
    async with asyncio.timeout(30):
        while (event := await anext(events)).name != "run.succeeded" or event.run_id != run.id:
            found.append(event)
    mine = [event for event in found if event.run_id == run.id]
    assert [event.name for event in mine] == [
        "run.started", "step.started", "step.succeeded", "run.attributes", "signal.received", "signal.received",
    ]  # fmt: skip
    assert [(each.step, each.position, each.attempt) for each in mine if each.step] == [("price", "0", 1)] * 2
    assert [each.about for each in mine if each.about] == ["approve", "go"]
    assert [(await anext(steps)).name for _ in range(2)] == ["step.started", "step.succeeded"]
    assert heard.names[: len(found)] == [event.name for event in found]
    with pytest.raises(EngineClosedError):
        TemporalEngine(client, queue, ALL, poll=()).events()
    await engine.aclose()
    async with asyncio.timeout(30):
        assert [event async for event in events if event.name == "run.ready"] == []
