"""
The file changes hands: between clients, which have it for a request each, and engines that open and close.
"""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from durable import Client, Flow, JournalLockedError, KeyConflictError, Return, Schedule, job, wait_for, workflow
from durable._shell.client import owner_socket
from durable._shell.ownership import opening
from durable._shell.ownership.opening import owned_briefly
from durable._shell.ownership.ownership import Ownership
from durable.errors import EngineClosedError, JournalAccessError, UsageError

pytestmark = pytest.mark.anyio
HANDOVERS = Path(__file__).parents[1] / "crash" / "handovers.py"


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


DEFINITIONS = (quick, waiting)


@pytest.fixture
async def free(engines):
    """
    The path of a journal that nobody owns.
    """
    engine = await engines.file(*DEFINITIONS)
    await engine.aclose()
    return engines.path


def briefly(path):
    return owned_briefly(str(path), durability="process", now=lambda: 0.0)


# --- an engine that opens -------------------------------------------------------------------------


async def test_an_engine_waits_for_a_client_that_has_the_file_for_a_moment(free, engines):
    """
    Rather than fail: a client has the file for one request.
    """
    async with briefly(free):
        opening_engine = asyncio.create_task(engines.file(*DEFINITIONS))
        done, _ = await asyncio.wait([opening_engine], timeout=0.05)
        assert not done
    engine = await asyncio.wait_for(opening_engine, 5)
    assert await engine.run(quick(1)) == 1


async def test_a_client_that_does_not_let_go_is_named_as_one(free, engines, monkeypatch):
    """
    What it is, its pid, host, and since when; an engine is named as an engine, and not waited for.
    """
    monkeypatch.setattr(opening, "CLIENT_SECONDS", 0.02)
    async with briefly(free):
        with pytest.raises(JournalLockedError, match=rf"owned by a client, pid {os.getpid()} .*on host .* since ") as e:
            await engines.file(*DEFINITIONS)
        assert e.value.role == "client"
    await engines.file(*DEFINITIONS)
    with pytest.raises(JournalLockedError, match=rf"owned by an engine, pid {os.getpid()} ") as e:
        await engines.file(*DEFINITIONS)
    assert e.value.role == "engine"


async def test_an_engine_opens_beside_clients_that_ask_without_a_pause(free, engines):
    """
    Ten times out of ten, and nothing of what they asked for is lost or doubled.
    """
    asked, more, stop = [], asyncio.Event(), asyncio.Event()

    async def asking(client):
        while not stop.is_set():
            run = await client.start(quick(1))
            asked.append(run.id)
            more.set()

    async with Client(free, durability="process") as one, Client(free, durability="process") as two:
        busy = [asyncio.create_task(asking(client)) for client in (one, two) for _ in range(4)]
        for _ in range(10):
            engine = await engines.file(*DEFINITIONS)
            await engine.aclose()
            more.clear()
            await more.wait()  # a client has the file now, or another will in a moment
        stop.set()
        await asyncio.gather(*busy)
        found = [info.run_id async for info in one.runs()]
    assert sorted(found) == sorted(asked)


# --- an engine that closes ------------------------------------------------------------------------


async def test_a_closing_engine_records_what_clients_ask_for(free, engines):
    """
    As long as steps are running that it waits for; what it does not begin any more, the next owner does.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @job
    async def slow() -> int:
        began.set()
        await go.wait()
        return 1

    hourly = Schedule("hourly", quick(3), every=3_600)
    engine = await engines.file(*DEFINITIONS, slow, schedules=[hourly], grace=60.0)
    async with Client(free) as client:
        waits = await client.start(waiting())
        await client.start(slow(), id="slow")
        await began.wait()
        closing = asyncio.create_task(engine.aclose())
        while not engine._backend.parts.draining:
            await asyncio.sleep(0)
        started = await client.start(quick(2), key="k")
        with pytest.raises(KeyConflictError):
            await client.start(quick(1), key="k")
        triggered = await client.schedule("hourly").trigger()
        assert await waits.signal("go", "x")
        assert [await run.status() for run in (started, triggered)] == ["pending", "pending"]
        assert not closing.done()
        go.set()
        await closing
        await engines.file(*DEFINITIONS, slow, schedules=[hourly])
        assert [await run.result(5) for run in (started, triggered, waits)] == [2, 3, "x"]
        assert await client.get("slow").result(5) == 1


async def test_an_engine_that_failed_is_given_time_to_be_replaced(free, engines):
    """
    Its clients ask on, and say what it said if nothing comes of that.
    """
    engine = await engines.file(*DEFINITIONS)
    async with Client(free, timeout=0.1) as hasty, Client(free) as patient:
        engine._backend.running.supervisor.failure = LookupError("broken")
        try:
            with pytest.raises(EngineClosedError, match="LookupError"):
                await hasty.start(quick(1))
            asking = asyncio.create_task(patient.start(quick(1)))
            done, _ = await asyncio.wait([asking], timeout=0.1)
            assert not done
        finally:
            engine._backend.running.supervisor.failure = None
        await engine.aclose()
        assert (await asking).id


# --- a client -------------------------------------------------------------------------------------


async def test_a_client_that_is_cancelled_lets_go_of_the_file(free):
    """
    At whatever moment: it would keep every engine out as long as its process lives.
    """
    async with Client(free, durability="process") as client:
        for moment in range(60):
            request = asyncio.create_task(client.start(quick(1)))
            await asyncio.wait([request], timeout=moment / 4_000)
            request.cancel()
            await asyncio.wait([request])
            Ownership.acquire(free).release()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_clients_do_not_notice_that_owners_are_killed_and_closed():
    """
    The short form of `tests/crash/handovers.py`: no error, nothing lost, nothing doubled, whatever they ask for.
    """
    done = subprocess.run(
        [sys.executable, HANDOVERS, "--stops", "12"], capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def mute_owner(path, *, owned=True, connected=None):
    """
    An owner that listens, and says nothing; or what is left of one.
    """

    async def listen(reader, writer):
        if connected is not None:
            connected.set()
        while await reader.readline():
            pass
        writer.close()

    with Ownership.acquire(path) if owned else nullcontext():
        server = await asyncio.start_unix_server(listen, f"{path}.sock")
        try:
            yield
        finally:
            server.close()
            with suppress(FileNotFoundError):
                os.unlink(f"{path}.sock")


async def test_a_client_says_who_does_not_answer(free):
    """
    After its timeout, whatever it asked for; and that what it asked for may be recorded.
    """
    async with Client(free, timeout=0.05) as client:
        run = await client.start(waiting())
        async with mute_owner(free):
            named = rf"an engine, pid {os.getpid()} .* has not answered {{}} for 0.05 s"
            with pytest.raises(JournalAccessError, match=named.format("StartRuns") + r"\. .* may still be recorded"):
                await client.start(quick(1))
            with pytest.raises(JournalAccessError, match=named.format("WaitForEnd")):
                await run.result()


async def test_a_socket_that_a_killed_owner_left_with_its_children_is_no_owner(free):
    """
    They keep it open and say nothing, but they have no lock: the client records by itself, and removes the socket.
    """
    async with Client(free) as client:
        run = await client.start(waiting())
        async with mute_owner(free, owned=False):
            assert await run.signal("go", "x")
            assert not os.path.exists(f"{free}.sock")
            assert await run.cancel()
        assert await run.status() == "pending"


FORKING = """
import asyncio, os, sys, time
from durable import Engine, job

@job
async def forks() -> int:
    if (child := os.fork()) == 0:
        time.sleep(60)
    return child

async def main():
    async with Engine(sys.argv[1], [forks]):
        print("open", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_forked_children_do_not_listen_for_an_owner_that_was_killed(tmp_path):
    """
    They have neither its ear nor its clients: who was connected hears at once that it is gone, and nobody connects.
    """
    path = tmp_path / "app.db"
    command = [sys.executable, "-c", FORKING, path]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert owner.stdout.readline() == b"open\n"
        reader, writer = await asyncio.open_unix_connection(f"{path}.sock")
        async with Client(path) as client:
            run = await client.start(forks())
            child = await run.result(5)
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it lives on
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(f"{path}.sock")
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.stdout.close()


@job
async def forks() -> int: ...


async def test_a_socket_that_a_killed_owner_left_is_not_waited_for_beside_the_next_owner(free, engines, monkeypatch):
    """
    Somebody who was connected to it asks the next one: the file has an owner, but another.
    """
    monkeypatch.setattr(owner_socket, "LOOK_SECONDS", 0.05)
    connected = asyncio.Event()
    async with Client(free) as client, mute_owner(free, owned=False, connected=connected):
        asking = asyncio.create_task(client.start(quick(1)))
        await connected.wait()
        engine = await engines.file(*DEFINITIONS)
        assert await (await asyncio.wait_for(asking, 5)).result(5) == 1
        await engine.aclose()


async def test_a_run_that_takes_longer_than_the_timeout_is_waited_for(free, engines):
    """
    Its owner answers, if not about the run: nothing is wrong.
    """
    await engines.file(*DEFINITIONS)
    async with Client(free, timeout=0.3) as client:
        run = await client.start(waiting())
        with pytest.raises(TimeoutError):
            await run.result(1.0)
        await run.signal("go", "x")
        assert await run.result(5) == "x"


async def test_a_client_says_who_does_not_listen(free):
    """
    An owner without a socket: one that is being opened or closed for longer than the timeout.
    """
    async with Client(free, timeout=0.05) as client:
        with Ownership.acquire(free), pytest.raises(JournalAccessError, match=r"an engine, pid .* not listened"):
            await client.start(quick(1))
        assert (await client.start(quick(1))).id


async def test_a_timeout_that_is_none_is_refused(free):
    """
    Nor one that is longer than requests are known again.
    """
    for timeout in (0, -1, 601):
        with pytest.raises(UsageError, match="timeout"):
            Client(free, timeout=timeout)


@pytest.mark.parametrize("name", ["j%41.db", "a?b.db", "a#b.db", "a?mode=memory&x=.db", "a%00b.db", "a?vfs=none.db"])
async def test_a_client_reads_the_file_of_that_name(tmp_path, engines, name):
    """
    Whatever stands in it: it is a name, and no part of an address.
    """
    engines.path = tmp_path / name
    engine = await engines.file(*DEFINITIONS)
    await engine.run(quick(1), id="here")
    async with Client(engines.path) as client:
        assert [info.run_id async for info in client.runs()] == ["here"]
