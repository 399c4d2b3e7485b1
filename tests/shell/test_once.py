"""
What a client asks for is recorded once, and gets its first answer, whatever becomes of the owner before it arrives.
"""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from durable import Client, Flow, Return, Schedule, job, read_histories, step, wait_for, workflow
from durable._shell.client.owner_socket import OwnerSocket
from durable._shell.requests import once
from durable._shell.requests.once import ASKED_SECONDS, KEPT_SECONDS, NEEDED_SECONDS, Once
from durable._shell.requests.run_requests import PauseRun
from durable._shell.requests.schedule_requests import TriggerSchedule
from durable._shell.storage import schema
from durable.errors import DefinitionError, KeyConflictError, RunNotFoundError

pytestmark = pytest.mark.anyio
BROKEN = []


@job
async def quick(number: int = 0) -> int:
    return number


@step
async def fails() -> None:
    raise LookupError(1)


@workflow
async def failing() -> Flow[None]:
    yield fails()


@failing.on_failure
def afterwards(finished):
    raise RuntimeError("nobody to tell")


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


def tick(at):
    if BROKEN:
        raise ValueError("broken")
    return quick(1)


DEFINITIONS = (quick, waiting, failing)
HOURLY = Schedule("hourly", tick, every=3_600)


async def filled(client):
    """
    Create a batch with two members.
    """
    async with client.batch(id="two") as batch:
        batch.add(waiting())
        batch.add(waiting())
    return [info.run_id async for info in client.runs(batch="two")]


async def made_schedule(client):
    """
    Make a schedule, and give its name.
    """
    return (await client.schedules.create("daily", quick(1), every=86_400)).name


def ago(seconds):
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def named(making):
    """
    The name of the schedule that is made.
    """
    return (await making).name


#: What is asked for, what it gives, and how many runs it leaves beside those of `prepared`.
ASKED = {
    "start": (lambda client: client.start(quick(1)), None, 1),
    "start, by id": (lambda client: client.start(waiting(), id="mine", on_conflict="reject"), None, 1),
    "start, by key": (lambda client: client.start(waiting(), key="new", on_conflict="reject"), None, 1),
    "replace": (lambda client: client.start(waiting(), key="taken", on_conflict="replace"), None, 1),
    "start many": (lambda client: client.start_many(quick(number) for number in range(3)), None, 3),
    "batch": (filled, None, 2),
    "add": (lambda client: client.get_batch("open").add(waiting()), None, 1),
    "cancel batch": (lambda client: client.get_batch("open").cancel(), True, 0),
    "signal": (lambda client: client.get("waits").signal("other", 1), True, 0),
    "signal, by id": (lambda client: client.get("waits").signal("other", 1, dedup="d"), True, 0),
    "cancel": (lambda client: client.get("waits").cancel(), True, 0),
    "pause": (lambda client: client.get("waits").pause(), True, 0),
    "resume": (lambda client: client.get("paused").resume(), True, 0),
    "retry": (lambda client: client.get("failed").retry(), True, 0),
    "retry hooks": (lambda client: client.get("failed").retry_hooks(), 1, 0),
    "fork": (lambda client: client.get("failed").fork(0, id="forked"), None, 1),
    "trigger": (lambda client: client.schedule("hourly").trigger(), None, 1),
    "make a schedule": (made_schedule, "daily", 0),
    "make up for the past": (lambda client: client.schedule("hourly").backfill(ago(5_400), ago(0)), None, 2),
    "pause a schedule": (lambda client: client.schedule("hourly").pause(), True, 0),
    "clear a queue": (lambda client: client.queue("stopped").clear(), 1, 0),
    "prune": (lambda client: client.prune(older_than=-60), 2, -2),
    "delete": (lambda client: client.delete("failed"), 1, -1),
    "create a schedule": (lambda client: named(client.schedules.create("new", quick(2), every=3_600)), "new", 0),
    "delete a schedule": (lambda client: client.schedule("made").delete(), None, 0),
    "retry a batch": (lambda client: client.get_batch("broken").retry(), 1, 0),
}


async def prepared(engine):
    """
    Runs in every state, a batch that is open, and a queue that stands still.
    """
    await engine.start(waiting(), id="waits")
    await (await engine.start(waiting(), id="paused")).pause()
    await engine.start(waiting(), key="taken")
    with pytest.raises(Exception, match="LookupError"):
        await (await engine.start(failing(), id="failed")).result()
    await engine.queue("stopped").pause()
    await engine.start(quick(), queue="stopped")
    async with engine.batch(id="open") as batch:
        batch.add(waiting())
    async with engine.batch(id="broken") as batch:
        batch.add(failing())
    await batch.wait()
    await engine.schedules.create("made", quick(2), every=3_600)
    return await count(engine)


async def count(engine):
    return len([info async for info in engine.runs()])


@pytest.fixture(params=["the same", "the next", "nobody"])
async def losing(request, engines, monkeypatch):
    """
    A client that loses the first answer to what changes something; who has the file when it asks again.
    """
    engine = await engines.file(*DEFINITIONS, schedules=[HOURLY])
    before = await prepared(engine)
    real, lost = OwnerSocket._ask, []

    async def ask(self, asked):
        answer = await real(self, asked)
        if isinstance(asked, Once) and not lost:
            lost.append(answer)
            if request.param != "the same":
                await engine.aclose()
            if request.param == "the next":
                await engines.file(*DEFINITIONS, schedules=[HOURLY])
            return None
        return answer

    monkeypatch.setattr(OwnerSocket, "_ask", ask)
    async with Client(engines.path, durability="process") as client:
        yield client, before
    assert lost[0] is not None


@pytest.mark.parametrize("asked", ASKED)
async def test_what_is_asked_for_again_gets_the_first_answer(losing, asked):
    """
    No conflict with itself, no second run, no "it is so already".
    """
    client, before = losing
    asking, answer, added = ASKED[asked]
    found = await asking(client)
    assert await count(client) == before + added
    if answer is not None:
        assert found == answer
    for run in found if isinstance(found, list) else [found]:
        if hasattr(run, "info"):
            assert (await run.info()).run_id == run.run_id


async def test_an_import_that_is_asked_for_again_says_what_it_wrote(losing, tmp_path, engines):
    """
    The second time, all of it is there.
    """
    client, _ = losing
    other = await engines.memory(*DEFINITIONS)
    await other.run(quick(1), id="theirs")
    await other.export("theirs", tmp_path / "theirs.jsonl")
    found = await client.import_runs(read_histories(tmp_path / "theirs.jsonl"))
    assert (found.runs, found.present) == (["theirs"], [])


async def test_a_signal_that_is_sent_again_arrives_once(losing):
    """
    Without an id of the caller's, too; and signals that are equal are two.
    """
    client, _ = losing
    run = client.get("paused")
    assert await run.signal("go", "a") is True
    assert await run.signal("go", "a") is True
    rows = await client._backend.read(lambda conn: conn.execute("SELECT value FROM durable_inbox").fetchall())
    assert rows == [('"a"',)] * 2


# --- what is kept ---------------------------------------------------------------------------------


async def asked(engine, request):
    """
    What a client gets for *request*.
    """
    return await engine._backend.request_of_client(request)


async def ids(engine):
    """
    Of the requests whose answers are kept.
    """
    return await engine._backend.read(lambda conn: [row[0] for row in conn.execute("SELECT id FROM durable_requests")])


async def test_a_refusal_is_an_answer_too(engines):
    """
    Who asks again hears what was said the first time, with its fields, whatever came since; another request does not.
    """
    engine = await engines.memory(*DEFINITIONS)
    asking = Once("1", PauseRun("later"))
    for _ in range(2):
        with pytest.raises(RunNotFoundError) as caught:
            await asked(engine, asking)
        assert caught.value.args == ("id", "later")
        assert await ids(engine) == ["1"]
        await engine.start(waiting(), id="later")
    assert await asked(engine, Once("2", PauseRun("later"))) is True


async def test_of_what_was_refused_nothing_is_kept_but_the_answer(engines):
    """
    One of many starts that conflicts undoes the others.
    """
    engine = await engines.file(*DEFINITIONS)
    await engine.start(waiting(), key="taken")
    async with Client(engines.path) as client:
        with pytest.raises(KeyConflictError):
            await client.start_many([quick(1), quick(2).options(key="taken")])
    assert await count(engine) == 1
    assert len(await ids(engine)) == 1


@pytest.mark.parametrize("losing", ["the same", "the next", "nobody"], indirect=True)
async def test_who_is_refused_by_an_owner_that_dies_hears_why(losing):
    """
    The next one says what the first one said.
    """
    client, before = losing
    with pytest.raises(KeyConflictError):
        await client.start(quick(1), key="taken")
    assert await count(client) == before


async def test_what_an_engine_could_not_prepare_any_more_still_has_its_answer(engines):
    """
    A function of a schedule that fails the second time. Others are refused as ever.
    """
    engine = await engines.memory(*DEFINITIONS, schedules=[HOURLY])
    asking = Once("1", TriggerSchedule("hourly", "schedule:hourly:trigger:1"))
    assert await asked(engine, asking) == "schedule:hourly:trigger:1"
    BROKEN.append(True)
    try:
        assert await asked(engine, asking) == "schedule:hourly:trigger:1"
        with pytest.raises(DefinitionError, match="broken"):
            await asked(engine, Once("2", TriggerSchedule("hourly", "schedule:hourly:trigger:2")))
    finally:
        BROKEN.clear()
    assert await count(engine) == 1


async def test_answers_are_kept_for_an_hour(engines, clock, eventually):
    """
    Then an engine deletes them when it looks after the file, whether anybody asks for something or not.
    """
    engine = await engines.file(*DEFINITIONS, clock=clock)
    await engine.start(waiting(), id="r")
    await asked(engine, Once("1", PauseRun("r")))
    clock.advance(KEPT_SECONDS - 100)
    await asked(engine, Once("2", PauseRun("r")))
    assert await ids(engine) == ["1", "2"]
    clock.advance(200)

    async def first_is_gone():
        clock.advance(6)  # until it looks
        return await ids(engine) == ["2"]

    await eventually(first_is_gone)


def kept(now, *ages):
    """
    Ages of the answers that are kept of these.
    """
    conn = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(conn, now)
    rows = [(str(number), now - age) for number, age in enumerate(ages)]
    conn.executemany("INSERT INTO durable_requests (id, answer, at) VALUES (?, 'true', ?)", rows)
    while once.forget_answers(conn, now):
        pass
    assert not once.has_old_answers(conn, now)
    return [now - at for (at,) in conn.execute("SELECT at FROM durable_requests ORDER BY at DESC")]


def test_so_many_answers_are_kept_and_all_that_may_be_asked_for_again(monkeypatch):
    """
    The newest ones; but what a client may still ask for is kept however much was asked since.
    """
    monkeypatch.setattr(once, "KEPT_ROWS", 3)
    old = NEEDED_SECONDS + 1
    assert kept(1e9, 1, 2, old) == [1, 2, old]
    assert kept(1e9, 1, 2, 3, old) == [1, 2, 3]
    assert kept(1e9, 1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]
    assert kept(1e9, KEPT_SECONDS - 1, KEPT_SECONDS + 1) == [KEPT_SECONDS - 1]
    assert 2 * ASKED_SECONDS < NEEDED_SECONDS < KEPT_SECONDS


async def test_clients_forget_old_answers_where_there_is_no_engine(engines, clock):
    """
    A file that no engine opens does not grow for ever.
    """
    engine = await engines.file(*DEFINITIONS, clock=clock)
    await engine.start(waiting(), id="r")
    await engine.aclose()
    async with Client(engines.path, clock=clock, durability="process") as client:
        await client.get("r").pause()
        clock.advance(KEPT_SECONDS + 1)
        await client.get("r").resume()
        await client.get("r").pause()
    assert len(await ids(await engines.file(*DEFINITIONS))) == 2
