"""
`events()`: what happens, from an engine, a client and a service; of one run, of one workflow, of some kinds.

That a slow reader loses the oldest, and that readers harm no run, is tried in test_inspection and test_middleware.
"""

import asyncio
import contextlib
import threading

import pytest

from durable import (
    Client,
    EngineClosedError,
    Flow,
    Retry,
    Return,
    Service,
    Transaction,
    UsageError,
    call,
    emit,
    gather,
    job,
    progress,
    set_attributes,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio


@step(retry=Retry(attempts=2, delay=0.0, jitter=0.0))
async def shaky() -> None:
    raise ConnectionError("down")


@step
async def telling() -> None:
    emit("words", "one")
    progress(1, 2)
    set_attributes(told=True)


@transaction
def note(tx: Transaction) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS notes (note)")


@workflow
async def busy() -> Flow[str]:
    set_attributes(begun=True)
    yield note()
    yield telling()
    yield wait_for("go")
    emit("notes", "going")
    with contextlib.suppress(ConnectionError):
        yield shaky()
    yield Return("done")


@job
async def errand() -> str:
    return "done"


async def test_who_begins_to_listen_hears_of_what_is_on_its_way_to_the_disk(engines):
    """
    The turn was decided before, and nobody can see it in the file yet: whoever looks next and then waits needs it.
    """
    begun, blocked, may_go = asyncio.Event(), threading.Event(), threading.Event()

    @step
    async def begin() -> None:
        begun.set()

    @workflow
    async def asks() -> Flow[None]:
        yield begin()
        yield wait_for("go")

    @transaction
    def blocks(_: Transaction) -> None:
        blocked.set()
        assert may_go.wait(10)

    engine = await engines.file(asks)
    blocking = asyncio.create_task(engine.transact(blocks()))
    await asyncio.to_thread(blocked.wait, 10)
    starting = asyncio.create_task(engine.start(asks()))
    await asyncio.sleep(0.05)  # it waits behind that, with its first turn
    events = engine.events()
    may_go.set()
    await blocking
    await begun.wait()
    async with asyncio.timeout(10):
        told = [await anext(events) for _ in range(5)]
    assert [event.name for event in told] == [
        "run.ready", "run.started", "step.started", "step.succeeded", "run.waiting",
    ]  # fmt: skip
    await starting


async def upto_end(events, run_id):
    """What is told until a run has succeeded."""
    found = []
    async with asyncio.timeout(10):
        async for event in events:
            found.append(event)
            if (event.name, event.run_id) == ("run.succeeded", run_id):
                return found
    raise AssertionError("it ended too early")


async def listening(client):
    """Return once its readers are told what happens: what others ask for does not wait for that."""
    for feed in list(client._backend._feeds):
        await feed.begun.wait()


def in_short(events):
    """Names, with what tells events of one name apart."""
    return [(event.name, event.step or event.about, event.attempt) for event in events]


EXPECTED = [
    ("run.started", None, None),
    ("run.attributes", None, None),
    ("step.started", "note", 1),
    ("step.succeeded", "note", 1),
    ("step.started", "telling", 1),
    ("stream.item", "words", 1),
    ("run.attributes", None, None),
    ("run.progress", None, None),  # the latest counts, so it is written last
    ("step.succeeded", "telling", 1),
    ("signal.received", "go", None),
    ("stream.item", "notes", None),
    ("step.started", "shaky", 1),
    ("step.attempt_failed", "shaky", 1),
    ("step.retrying", "shaky", 1),
    ("step.started", "shaky", 2),
    ("step.attempt_failed", "shaky", 2),
    ("step.failed", "shaky", 2),
    ("run.succeeded", None, None),
]


async def test_steps_attributes_signals_streams_and_progress_are_told(engines, reached):
    """
    Each once, in the order in which it was recorded; with the step's name, position and attempt.
    """
    engine = await engines.memory(busy)
    events = engine.events()
    run = await engine.start(busy(), id="r")
    await reached(run, "waiting")
    await run.signal("go")
    found = await upto_end(events, "r")
    assert [each for each in in_short(found) if each[0] not in ("run.ready", "run.waiting")] == EXPECTED
    assert {event.position for event in found if event.step == "shaky"} == {"3"}
    assert {event.workflow for event in found} == {busy.name}
    assert found[0].kind == found[0].name == "run.ready"


async def test_clients_and_services_are_told_the_same(tmp_db, reached):
    """
    Whichever process executes; here it is that of the service.
    """
    async with Service(tmp_db, [busy], durability="process") as service, Client(tmp_db) as client:
        readers = [service.events(), client.events(run="r"), client.events(workflow=busy, kinds=["step.failed", "run"])]
        tasks = [asyncio.create_task(upto_end(each, "r")) for each in readers]
        await listening(client)
        run = await service.start(busy(), id="r")
        await service.start(busy(), id="another")
        await reached(run, "waiting")
        await run.signal("go")
        own, of_run, of_kinds = await asyncio.gather(*tasks)
    for found in (own, of_run):
        told = in_short(event for event in found if event.run_id == "r")
        assert [each for each in told if each[0] not in ("run.ready", "run.waiting")] == EXPECTED
    assert {event.run_id for event in own} == {"r", "another"}
    assert {event.run_id for event in of_run} == {"r"}
    kinds = {event.name for event in of_kinds if event.run_id == "r"}
    assert "step.failed" in kinds
    assert {name.partition(".")[0] for name in kinds - {"step.failed"}} == {"run"}


async def test_a_client_follows_through_a_change_of_owners(engines, tmp_db):
    """
    It hears of runs that clients start while nobody owns the file, and of what the next owner does.
    """
    engine = await engines.file(errand)
    async with Client(tmp_db) as client:
        events = client.events()
        await listening(client)
        first = await engine.start(errand(), id="first")
        assert await first.result() == "done"
        assert [event.name for event in await upto_end(events, "first")][-1] == "run.succeeded"
        await engine.aclose()
        await asyncio.sleep(1.0)  # it has seen that nobody is there
        await client.start(errand(), id="second")
        event = await anext(events)
        assert (event.name, event.run_id) == ("run.ready", "second")
        await asyncio.sleep(1.0)
        await engines.file(errand)
        await client.get("second").result(5)
        await asyncio.sleep(1.0)
        await client.start(errand(), id="third")
        found = await upto_end(events, "third")
        assert [event.name for event in found if event.run_id == "third"].count("run.ready") == 1
    with pytest.raises(EngineClosedError):
        await upto_end(events, "fourth")


async def test_the_one_step_of_a_job_is_its_run(engines):
    """
    So it is told as that, and twice by nobody.
    """
    engine = await engines.memory(errand)
    events = engine.events()
    run = await engine.start(errand())
    assert [event.name for event in await upto_end(events, run.id)] == ["run.ready", "run.started", "run.succeeded"]


async def test_a_cancelled_step_is_told(engines, eventually):
    """
    As that: it has neither succeeded nor failed.
    """
    engine = await engines.memory(cancelled)
    events = engine.events(kinds="step")
    run = await engine.start(cancelled())
    begun = await anext(events)
    assert (begun.name, begun.step) == ("step.started", "stuck")
    await run.cancel()
    ended = await anext(events)
    assert (ended.name, ended.step, ended.attempt) == ("step.cancelled", "stuck", 1)


async def stuck() -> None:
    await asyncio.sleep(60)


@workflow
async def cancelled() -> Flow[None]:
    yield gather(call(stuck), sleep(60))


async def test_what_there_is_no_event_of_is_refused(engines, tmp_db):
    """
    With those that there are: a typing error would be a reader that waits for ever.
    """
    engine = await engines.file(errand)
    async with Client(tmp_db) as client:
        for asked in (engine, client):
            with pytest.raises(UsageError, match=r"no event called 'step.fialed'.*step.failed"):
                asked.events(kinds=["step.fialed"])
            with pytest.raises(UsageError, match="takes a run or its id"):
                asked.events(run=7)
    with pytest.raises(EngineClosedError):
        client.events()


async def test_a_client_that_leaves_is_not_told_on(engines, tmp_db, eventually):
    """
    The owner hears that it has hung up.
    """
    engine = await engines.file(errand)
    async with Client(tmp_db) as client:
        events = client.events()
        task = asyncio.create_task(anext(events))
        broadcast = engine._backend.parts.broadcast

        async def is_read():
            return broadcast.has_readers

        async def is_not_read():
            return not broadcast.has_readers

        await eventually(is_read)
        await engine.run(errand())
        assert (await task).name == "run.ready"
        await events.aclose()
        await eventually(is_not_read)
