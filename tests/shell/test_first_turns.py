"""
A run's first turn is written in the commit that creates it, where nothing stands before the run.

Its code runs to its first command while nothing of the run is on disk yet. So nothing may come of that before the
commit, and nothing at all where the start is refused.
"""

import asyncio
import contextlib
import contextvars

import pytest

from durable import (
    Engine,
    Flow,
    KeyConflictError,
    Queue,
    Return,
    RunFailedError,
    Transaction,
    UsageError,
    gather,
    job,
    race,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.storage import connections, database
from durable.errors import JournalIOError

pytestmark = pytest.mark.anyio

called = []
bodies = []
caller = contextvars.ContextVar("caller", default="nobody")


@pytest.fixture(autouse=True)
def nothing_called():
    """
    Nothing was called yet.
    """
    called.clear()
    bodies.clear()


@step
async def note(name: str) -> str:
    called.append(name)
    return name


@workflow
async def noted(name: str) -> Flow[str]:
    bodies.append(name)
    yield Return((yield note(name)))


@job
async def errand(name: str) -> str:
    called.append(name)
    return name


@workflow
async def patient() -> Flow[str]:
    yield Return((yield wait_for("go", str)))


@workflow
async def done_at_once() -> Flow[str]:
    yield Return("done")


@workflow
async def sleeper() -> Flow[None]:
    yield sleep(3600)


@workflow
async def parent() -> Flow[list[str]]:
    yield Return((yield gather(noted("a"), errand("b"), note("c"))))


@workflow
async def asks() -> Flow[list[str]]:
    first: str = yield note("a")
    yield Return([first, (yield errand("b"))])


async def done():
    pass


@workflow
async def gives_up() -> Flow[None]:
    yield note("a")
    yield race(errand("never"), done())
    yield Return(None)


@workflow
async def who() -> Flow[str]:
    yield Return(caller.get())


@workflow
async def fails() -> Flow[str]:
    raise ValueError("at its first line")
    yield note("never")


@transaction
def insert(tx: Transaction) -> int:
    return tx.execute("SELECT 1").fetchone()[0]


@workflow
async def transacts() -> Flow[int]:
    yield Return((yield insert()))


ALL = (noted, errand, patient, done_at_once, sleeper, parent, who, fails, transacts)


async def history(engine, run):
    def kinds(conn):
        rows = conn.execute("SELECT seq, event, position FROM history WHERE run_id = ? ORDER BY seq", (run.id,))
        return rows.fetchall()

    return await engine._backend.read(kinds)


async def ended(run):
    with contextlib.suppress(RunFailedError):
        await run.result(10)


def groups(engine):
    return engine._backend.running.commits.groups


@pytest.mark.parametrize(
    "op, events",
    [
        (noted("a"), ["RunStarted", "StepStarted"]),
        (errand("a"), ["RunStarted", "StepStarted"]),
        (sleeper(), ["RunStarted", "TimerSet"]),
        (done_at_once(), ["RunStarted", "RunSucceeded"]),
        (fails(), ["RunStarted", "RunFailed"]),
    ],
    ids=["step", "job", "sleep", "end", "failure"],
)
async def test_a_start_is_acknowledged_with_its_first_turn_on_disk(engines, op, events):
    """
    One commit creates the run and takes it to what it waits for: nobody sees the one without the other.
    """
    engine = await engines.memory(*ALL)
    before = groups(engine)
    run = await engine.start(op)
    assert groups(engine) == before + 1
    assert [event for _, event, _ in await history(engine, run)][:2] == events


@pytest.mark.parametrize(
    "op", [noted("a"), errand("a"), parent(), done_at_once(), fails(), transacts()], ids=lambda op: op.definition.name
)
async def test_the_journal_is_the_same_as_where_the_run_begins_after_its_creation(engines, op):
    """
    As it does in a queue that was paused: the same events, numbers and positions.
    """
    engine = await engines.memory(*ALL)
    early = await engine.start(op)
    await ended(early)
    await engine.queue("default").pause()
    late = await engine.start(op)
    await engine.queue("default").resume()
    await ended(late)
    assert await history(engine, early) == await history(engine, late)


async def test_a_job_that_a_turn_opens_begins_with_that_turn(engines):
    """
    Of a step, then a job, each commit takes both runs as far as they get: four for all, the start among them.
    """
    engine = await engines.memory(*ALL, asks)
    before = groups(engine)
    assert await engine.run(asks()) == ["a", "b"]
    assert groups(engine) == before + 4
    assert called == ["a", "b"]


async def test_a_job_that_is_cancelled_by_the_turn_that_opens_it_never_begins(engines):
    """
    Its slot is free for others, too.
    """
    engine = await engines.memory(*ALL, gives_up, concurrency=2)
    run = await engine.start(gives_up(), id="gives-up")
    await run.result(10)
    assert called == ["a"]
    assert await asyncio.gather(*(engine.run(errand(name)) for name in "bcd")) == ["b", "c", "d"]


async def test_nothing_is_called_where_the_commit_fails(tmp_path, monkeypatch):
    """
    Record first, act second: the code has run to its first command, and its step never begins.
    """
    async with Engine(tmp_path / "app.db", ALL, queues=[Queue("one", 1)]) as engine:
        with monkeypatch.context() as patch:

            def commit(conn, path):
                conn.execute("ROLLBACK")
                raise JournalIOError(path, "injected")

            for module in (connections, database):
                patch.setattr(module, "commit", commit)
            with pytest.raises(JournalIOError, match="injected"):
                await engine.start(noted("lost"), queue="one")
        assert (bodies, called) == (["lost"], [])
        assert [info async for info in engine.runs()] == []
        assert await engine.run(noted("kept"), queue="one") == "kept"  # in the slot of the other
        assert called == ["kept"]


async def test_of_a_start_that_is_refused_or_joins_nothing_is_left(engines):
    """
    Neither an event nor a slot, and nothing is called: also where the run that it joins keeps a slot of its own.
    """
    free = asyncio.Event()

    @job
    async def held() -> str:
        called.append("held")
        await free.wait()
        return "done"

    engine = await engines.memory(*ALL, held, queues=[Queue("two", 2)])
    first = await engine.start(held(), key="k", queue="two")
    for _ in range(5):
        assert await engine.start(held(), key="k", queue="two") == first
        with pytest.raises(KeyConflictError):
            await engine.start(errand("refused"), key="k", queue="two")
    free.set()
    assert await first.result(5) == "done"
    assert called == ["held"]


async def test_of_starts_that_are_refused_together_no_slot_is_kept(engines):
    """
    All or none: those that could have begun had taken their first turns, and slots for these.
    """
    engine = await engines.memory(*ALL, queues=[Queue("one", 1)])
    await engine.run(errand("first"), key="k")
    called.clear()
    for _ in range(3):
        with pytest.raises(KeyConflictError):
            await engine.start_many([errand("a").options(queue="one"), errand("another").options(key="k")])
    assert await engine.run(errand("b").options(queue="one")) == await engine.run(errand("b"))
    assert set(called) == {"b"}


@workflow
async def spreads() -> Flow[int]:
    bodies.append("spreads")
    yield Return(len((yield gather(*(errand(str(number)) for number in range(30))))))


@workflow
async def inserts() -> Flow[int]:
    bodies.append("inserts")
    yield Return((yield insert()))


@workflow
async def hooked() -> Flow[str]:
    bodies.append("hooked")
    yield Return("hooked")


@hooked.on_success
def follows(_finished):
    return [errand("after")]


@pytest.mark.parametrize(
    "op, result", [(spreads(), 30), (inserts(), 1), (hooked(), "hooked")], ids=["far", "transaction", "hooks"]
)
async def test_code_whose_first_turn_is_not_written_with_the_creation_runs_once_all_the_same(engines, op, result):
    """
    What leads far, what writes in a transaction, and an end that hooks are asked about: taken once, recorded behind.
    """
    engine = await engines.file(*ALL, spreads, inserts, hooked, keep_resident=100)
    run = await engine.start(op)
    assert await run.result(20) == result
    assert bodies == [op.definition.name]
    await engine.idle()
    assert (await run.info()).status == "succeeded"
    assert next(event for _, event, _ in await history(engine, run)) == "RunStarted"


async def test_a_first_turn_that_follows_the_creation_comes_to_nothing_with_it(tmp_path, monkeypatch):
    """
    Where the commit fails that was to create its run: nothing is opened, and the slot is free.
    """
    async with Engine(tmp_path / "app.db", [*ALL, spreads], queues=[Queue("one", 1)]) as engine:
        with monkeypatch.context() as patch:

            def commit(conn, path):
                conn.execute("ROLLBACK")
                raise JournalIOError(path, "injected")

            for module in (connections, database):
                patch.setattr(module, "commit", commit)
            with pytest.raises(JournalIOError, match="injected"):
                await engine.start(spreads(), queue="one")
        assert called == []
        assert [info async for info in engine.runs()] == []
        assert await engine.run(noted("kept"), queue="one") == "kept"


@pytest.mark.parametrize("named", [{"key": "k"}, {"id": "mine"}], ids=["key", "id"])
async def test_the_code_of_a_workflow_runs_once_for_starts_that_join(engines, named):
    """
    A start that may find its run calls no code of the user's before it is known to be new.
    """
    engine = await engines.memory(*ALL)
    first = await engine.start(noted("once"), **named)
    for _ in range(3):
        assert await engine.start(noted("once"), **named) == first
    with pytest.raises((KeyConflictError, UsageError)):
        await engine.start(done_at_once(), **named)
    assert await first.result(5) == "once"
    assert (bodies, called) == (["once"], ["once"])


async def test_the_code_sees_the_context_of_the_engine_and_not_that_of_who_starts_it(engines):
    """
    It would see another one when it is replayed.
    """
    engine = await engines.memory(*ALL)
    caller.set("the caller")
    assert await engine.run(who()) == "nobody"


async def test_who_stands_in_line_is_not_overtaken(engines):
    """
    A run begins with its creation only where its queue has a free slot and nobody waits for one.
    """
    held = asyncio.Event()
    entered = asyncio.Event()

    @job(queue="one")
    async def holds() -> None:
        entered.set()
        await held.wait()

    engine = await engines.memory(*ALL, holds, queues=[Queue("one", 1)])
    async with asyncio.timeout(10):
        first = await engine.start(holds())
        await entered.wait()
        others = [await engine.start(errand(name), queue="one") for name in "abc"]
        assert [event for _, event, _ in await history(engine, others[0])] == ["RunStarted"]
        held.set()
        await asyncio.gather(first.result(), *(run.result() for run in others))
    assert called == ["a", "b", "c"]


async def test_a_queue_that_is_paused_begins_nothing(engines):
    """
    Nor do runs of it that are started meanwhile.
    """
    engine = await engines.memory(*ALL)
    await engine.queue("default").pause()
    run = await engine.start(noted("later"))
    assert [event for _, event, _ in await history(engine, run)] == ["RunStarted"]
    assert bodies == []
    await engine.queue("default").resume()
    assert await run.result(5) == "later"


async def test_many_that_are_started_at_once_begin_as_ever(engines):
    """
    Their code runs spread over iterations of the event loop, not before they are recorded.
    """
    engine = await engines.memory(*ALL)
    runs = await engine.start_many(errand(str(number)) for number in range(50))
    assert [event for _, event, _ in await history(engine, runs[0])] == ["RunStarted"]
    assert await asyncio.gather(*(run.result(10) for run in runs)) == [str(number) for number in range(50)]
