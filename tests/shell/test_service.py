"""
A service: several processes ask one journal, and one of them executes it. Here as several services of one loop; with
real servers in `tests/examples/test_service.py`.
"""

import asyncio
import contextvars
import os
import signal
import sqlite3
from functools import partial

import pytest
import structlog
from attrs import frozen

from durable import (
    AsyncTransaction,
    Client,
    DefinitionError,
    Engine,
    EngineClosedError,
    Flow,
    ForeignJournalError,
    JournalAccessError,
    JournalLockedError,
    Return,
    Service,
    UsageError,
    job,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.engine import standby
from durable._shell.engine.service import engine_of
from durable._shell.ownership.ownership import Ownership

pytestmark = pytest.mark.anyio


@frozen
class Ticket:
    number: int


@job
async def sell(number: int) -> Ticket:
    return Ticket(number)


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


DEFINITIONS = (sell, waiting)


@pytest.fixture
async def services(tmp_db):
    """
    Opens services of the test's file, and closes those that are left.
    """
    opened = []

    async def start(*definitions, **options):
        service = Service(tmp_db, definitions or DEFINITIONS, **{"durability": "process", "grace": 1.0, **options})
        opened.append(service)
        await service.open()
        return service

    yield start
    for service in opened:
        await service.aclose()


def executing(*every):
    return [service.is_executing for service in every]


# --- one file, several services -------------------------------------------------------------------


async def test_each_is_asked_and_one_executes(services):
    """
    What one starts another finds, signals and waits for, with the types of the definitions.
    """
    one, two = await services(), await services()
    assert executing(one, two) == [True, False]
    run = await two.start(sell(1), key="first")
    assert await one.get(run.id).result(5) == await run.result(5) == Ticket(1)
    assert (await (await one.find("first")).info()).status == "succeeded"
    asked = await two.start(waiting())
    assert await one.get(asked.id).signal("go", "x")
    assert await asked.result(5) == "x"
    async with one.batch() as batch:
        batch.add_many([sell(2), sell(3)])
    await two.get_batch(batch.id).wait(5)
    assert [await two.run(sell(number)) for number in range(3)] == [Ticket(0), Ticket(1), Ticket(2)]


async def test_opening_does_not_wait_for_the_turn_to_execute(services, engines):
    """
    Whoever has the file: its requests are that one's to answer.
    """
    await engines.file(*DEFINITIONS)
    with structlog.testing.capture_logs() as logged:
        service = await asyncio.wait_for(services(), 5)
    assert not service.is_executing
    assert await service.run(sell(1)) == Ticket(1)
    (told,) = [line for line in logged if line["event"] == "engine.standing_by"]
    assert told["holder"].startswith(f"an engine, pid {os.getpid()} ")


async def test_another_takes_over_from_the_one_that_closes(services, eventually):
    """
    At once; what was asked for meanwhile is there, once, and who waited for a result gets it.
    """
    one, two, three = [await services() for _ in range(3)]
    held = await two.start(waiting())
    result = asyncio.create_task(held.result())

    async def ask(number):
        return await (two, three)[number % 2].run(sell(number), key=f"n{number}")

    closing = asyncio.create_task(one.aclose())
    sold = await asyncio.gather(*map(ask, range(40)))
    await closing
    assert sold == [Ticket(number) for number in range(40)]
    assert sorted(executing(one, two, three)) == [False, False, True]
    assert not one.is_executing
    assert len([run async for run in two.runs(workflow=sell)]) == 40
    await three.get(held.id).signal("go", "x")
    assert await asyncio.wait_for(result, 5) == "x"


async def test_an_engine_that_fails_gives_the_file_to_another_and_stands_by_again(services, eventually, monkeypatch):
    """
    Nobody who asks notices. With nobody else there it opens again by itself.
    """
    monkeypatch.setattr(standby, "FIRST_PAUSE", 30.0)  # so that the other is first
    one = await services()
    monkeypatch.setattr(standby, "FIRST_PAUSE", 0.01)
    two = await services()

    async def fail(service):
        engine = engine_of(service)._backend
        engine.running.supervisor.fail(LookupError("broken"))

    await fail(one)
    assert await one.run(sell(1)) == Ticket(1)
    assert executing(one, two) == [False, True]
    await one.aclose()
    await fail(two)
    assert await two.run(sell(2)) == Ticket(2)
    assert two.is_executing


async def test_health_is_that_of_the_process_and_not_of_its_turn(services, eventually, monkeypatch):
    """
    Healthy for who executes and who stands by; degraded while it can do neither; closed before and after.
    """
    one, two = await services(), await services()
    assert [each.health().status for each in (one, two)] == ["healthy", "healthy"]
    await two.aclose()
    assert two.health().status == "closed"
    assert not two.health().ok

    async def refused(_):
        raise JournalAccessError("x.db", "no")

    monkeypatch.setattr(engine_of(one)._backend, "open", partial(refused, one))
    engine_of(one)._backend.running.supervisor.fail(LookupError("broken"))

    async def is_told():
        return one.health().status == "degraded"

    await eventually(is_told, 5)
    assert one.health().ok
    assert "cannot execute the journal" in str(one.health())


async def test_a_request_inside_an_async_transaction_is_refused(services):
    """
    As by an engine: it would wait for the transaction that it is made in, until its time is over.
    """

    @transaction
    async def book(tx: AsyncTransaction) -> str:
        with pytest.raises(UsageError, match="inside an async @transaction would wait"):
            await service.start(sell(1))
        return "refused"

    @workflow
    async def booking() -> Flow[str]:
        value: str = yield book()
        yield Return(value)

    service = await services(sell, booking)
    assert await asyncio.wait_for(service.run(booking()), 5) == "refused"
    assert [run async for run in service.runs(workflow=sell)] == []


async def test_only_the_definitions_given_are_started(services):
    """
    In each process alike, though another might execute it.
    """

    @job
    async def stranger() -> None: ...

    one, two = await services(), await services()
    for service in (one, two):
        with pytest.raises(DefinitionError, match="stranger"):
            await service.start(stranger())


async def test_options_reach_the_engine(services):
    """
    It is an engine like any other, that waits for its file.
    """
    service = await services(threads=3, concurrency=7)
    settings = engine_of(service)._backend.settings
    assert (settings.threads, settings.concurrency, settings.standby) == (3, 7, True)


# --- opening --------------------------------------------------------------------------------------


async def test_a_file_that_another_process_is_making_is_waited_for(services, tmp_db, eventually):
    """
    Its owner has the lock before there is a file; and where it never makes one, we do.
    """
    with Ownership.acquire(tmp_db):
        opening = asyncio.create_task(services())
        done, _ = await asyncio.wait([opening], timeout=0.1)
        assert not done
    service = await asyncio.wait_for(opening, 5)
    assert await service.run(sell(1)) == Ticket(1)
    assert service.is_executing


async def test_what_cannot_be_opened_is_told_at_once(services, tmp_db, tmp_path):
    """
    As an engine tells it; and no task or lock is left behind.
    """
    with pytest.raises(JournalAccessError, match="nowhere"):
        await Service(tmp_path / "nowhere" / "app.db", DEFINITIONS).open()
    with sqlite3.connect(tmp_db) as conn:
        conn.execute("CREATE TABLE durable_runs (id)")
    conn.close()
    with pytest.raises(ForeignJournalError, match="durable_"):
        await services()
    Ownership.acquire(tmp_db).release()
    assert [task for task in asyncio.all_tasks() if "standby" in task.get_name()] == []


async def test_an_owner_that_makes_no_journal_is_given_up(services, tmp_db):
    """
    After the timeout, with what the file lacks.
    """
    with Ownership.acquire(tmp_db), pytest.raises(JournalAccessError, match="no such file"):
        await services(timeout=0.1)


async def test_a_journal_in_memory_has_no_other_processes():
    """
    A service of one is refused when it is made.
    """
    with pytest.raises(UsageError, match="Engine"):
        Service(":memory:", DEFINITIONS)


async def test_a_service_is_opened_once_and_again_after_it_was_closed(services):
    """
    As an engine; closing it twice does nothing.
    """
    service = await services()
    with pytest.raises(UsageError, match="open"):
        await service.open()
    await service.aclose()
    await service.aclose()
    with pytest.raises(EngineClosedError):
        await service.get("x").info()
    await service.open()
    assert await service.run(sell(1)) == Ticket(1)


def test_a_service_of_a_module_is_opened_by_one_loop_after_the_other(tmp_db):
    """
    As each `TestClient` of a web application does.
    """
    service = Service(tmp_db, DEFINITIONS, durability="process")

    async def serve(first):
        async with service:
            return await asyncio.gather(*(service.run(sell(first + number)) for number in range(40)))

    for first in (0, 100):
        assert asyncio.run(serve(first))[7] == Ticket(first + 7)


async def test_an_engine_that_finds_the_file_taken_names_what_several_processes_use(services, tmp_db):
    """
    `Service` and `Client`.
    """
    await services()
    with pytest.raises(JournalLockedError, match=r"durable\.Service .* durable\.Client"):
        await Engine(tmp_db, DEFINITIONS).open()


# --- the end --------------------------------------------------------------------------------------


async def test_who_waits_for_an_end_is_told_when_the_service_closes(services):
    """
    Of a run or of a batch; what they waited for goes on.
    """
    one, two = await services(), await services()
    run = await two.start(waiting(), id="w")
    async with two.batch(id="b") as batch:
        batch.add(waiting())
    waits = [asyncio.create_task(wait) for wait in (run.result(), two.get("w").result(60), batch.wait())]
    await asyncio.wait(waits, timeout=0.1)
    await two.aclose()
    for wait in waits:
        with pytest.raises(EngineClosedError, match="about to end"):
            await wait
    await one.get("w").signal("go", "x")
    assert await one.get("w").result(5) == "x"


async def test_a_client_that_is_closed_ends_its_waits(engines):
    """
    They do not wait for an owner that may never answer.
    """
    await engines.file(*DEFINITIONS)
    async with Client(engines.path) as client:
        run = await client.start(waiting())
        wait = asyncio.create_task(run.result())
        await asyncio.wait([wait], timeout=0.05)
    with pytest.raises(EngineClosedError, match="about to end"):
        await wait


@pytest.fixture
def server_handlers():
    """
    Handlers as a server sets them, which wait for its requests; with what they heard.
    """
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_told_to_end_is_not_held_up_by_results(services, server_handlers, number):
    """
    It waits for its requests before it closes anything: those get half of the grace, and what ends by then is answered.
    """
    service = await services(grace=0.5)
    waits = asyncio.create_task((await service.start(waiting())).result())
    other = await service.start(waiting())
    answered = asyncio.create_task(other.result())
    await asyncio.sleep(0)
    # In a context of its own, as where no test runner has told anyio which event loop it is.
    contextvars.Context().run(lambda: os.kill(os.getpid(), number))
    await other.signal("go", "x")
    assert await answered == "x"
    assert server_handlers == [number]
    with pytest.raises(EngineClosedError):
        await asyncio.wait_for(waits, 5)
    with pytest.raises(EngineClosedError):  # nor does who asks now, with the grace over, wait at all
        await asyncio.wait_for((await service.start(waiting())).result(), 0.1)
    assert await service.start(sell(1))
    assert service.is_executing


async def test_a_server_that_is_told_to_end_is_not_held_up_by_streams(services, server_handlers):
    """
    Of events, of one run, of what it emits: those end at once, with the grace still ahead, and so does a new one.
    """
    service = await services(grace=60)
    run = await service.start(waiting())

    async def read(stream):
        async for _ in stream:
            pass

    def streams():
        return [read(service.events()), read(run.watch()), read(run.stream("items"))]

    reading = [asyncio.create_task(each) for each in streams()]
    await asyncio.wait(reading, timeout=0.05)
    assert not any(task.done() for task in reading)
    contextvars.Context().run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    for each in (*reading, *streams()):
        with pytest.raises(EngineClosedError, match="about to end"):
            await asyncio.wait_for(each, 5)
    await run.signal("go", "x")
    assert await run.result() == "x"


async def test_handlers_of_signals_are_left_as_they_were(services, server_handlers):
    """
    After the service is closed; those that were set since stay.
    """
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    service = await services()
    since = signal.getsignal(signal.SIGTERM)
    assert since is not before[0]
    signal.signal(signal.SIGTERM, newer := partial(since))
    await service.aclose()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == [newer, before[1]]
    os.kill(os.getpid(), signal.SIGTERM)  # passed on through ours, which nobody listens to any more
    await asyncio.sleep(0)
    assert server_handlers == [signal.SIGTERM]


async def test_a_signal_without_a_handler_stays_without(services):
    """
    The process ends by it, or ignores it, as before.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        await services()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_for_the_main_thread(tmp_db):
    """
    In another, where Python would refuse, a service opens without.
    """

    async def serve():
        async with Service(tmp_db, DEFINITIONS, durability="process") as service:
            return await service.run(sell(1))

    async def in_thread():
        return await asyncio.to_thread(asyncio.run, serve())

    assert asyncio.run(in_thread()) == Ticket(1)
