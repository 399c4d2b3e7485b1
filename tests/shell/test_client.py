"""
The journal from outside: everything but execution, with a live owner and with none.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from attrs import fields, frozen

from durable import (
    Caps,
    Client,
    Engine,
    Flow,
    JournalError,
    KeyConflictError,
    Return,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    job,
    step,
    wait_for,
    workflow,
)
from durable._core.journal.events import RunStarted
from durable._core.policies.retry import Retry, recorded
from durable._shell.client.owner_socket import OwnerSocket
from durable._shell.requests.once import Once
from durable._shell.requests.run_requests import PauseRun, SendSignal
from durable._shell.rows.rows import NewRun, SentSignal
from durable._shell.rows.templates import from_json, to_json
from durable.errors import (
    CapExceededError,
    EncodeError,
    EngineClosedError,
    JournalAccessError,
    RunStateError,
    UsageError,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
CALLS: list[str] = []
BROKEN: set[str] = set()


@frozen
class Receipt:
    number: int
    note: str = ""


@job
async def quick(number: int) -> Receipt:
    return Receipt(number)


@step
async def do(name: str) -> str:
    CALLS.append(name)
    if name in BROKEN:
        raise LookupError(name)
    return name


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


@workflow
async def three() -> Flow[list]:
    a: str = yield do("a")
    b: str = yield do("b")
    yield Return([a, b])


DEFINITIONS = (quick, waiting, three)


@pytest.fixture(autouse=True)
def fresh():
    """
    What ran, and what is to fail.
    """
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture(params=["owned", "unowned"])
async def owned(request, engines):
    """
    Whether an engine owns the file while the client asks. Calls it to see what an engine makes of it.
    """
    engine = await engines.file(*DEFINITIONS)
    if request.param == "unowned":
        await engine.aclose()

    class Journal:
        path = engines.path
        is_owned = request.param == "owned"

        async def engine(self):
            """The engine that owns the file now."""
            return engine if self.is_owned else await engines.file(*DEFINITIONS)

        async def on_disk(self, run_id):
            """What the file itself says of a run."""
            async with Client(self.path) as other:
                return await other.get(run_id).info()

    return Journal()


async def test_start_is_recorded_when_acknowledged(owned):
    """
    Owner or none: the run is in the file, and is executed once an engine owns it.
    """
    async with Client(owned.path) as client:
        run = await client.start(quick(7), key="k", labels={"from": "client"}, priority=2)
        info = await owned.on_disk(run.id)
        assert (info.workflow, info.key, info.priority, dict(info.labels)) == ("quick", "k", 2, {"from": "client"})
        assert await client.start(quick(7), key="k") == run
        with pytest.raises(KeyConflictError):
            await client.start(quick(8), key="k")
        assert await client.find("k") == run
        many = await client.start_many([quick(number) for number in range(5)])
        engine = await owned.engine()
        assert await engine.get(run.id).result(5) == Receipt(7)
        assert await run.result(5) == Receipt(7)
        assert [(await each.result(5)).number for each in many] == [0, 1, 2, 3, 4]


async def test_signals_are_recorded_when_acknowledged(owned):
    """
    In order, with their dedup ids.
    """
    async with Client(owned.path) as client:
        run = await client.start(waiting())
        assert await run.signal("other", 1, dedup="d") is True
        assert await run.signal("other", 1, dedup="d") is False
        assert await run.signal("go", "x") is True
        engine = await owned.engine()
        assert await engine.get(run.id).result(5) == "x"
        with pytest.raises(RunStateError, match="succeeded"):
            await run.signal("go", "late")
        with pytest.raises(RunNotFoundError):
            await client.get("nobody").signal("go")
        with pytest.raises(EncodeError):
            await run.signal("go", object())


async def test_cancel_pause_and_resume(owned):
    """
    As from the engine itself.
    """
    async with Client(owned.path) as client:
        gone, kept = await client.start_many([waiting(), waiting()])
        assert await gone.cancel("by the client") is True
        assert await kept.pause() is True
        assert await kept.pause() is False
        assert (await kept.info()).status == "paused"
        engine = await owned.engine()
        with pytest.raises(RunCancelledError, match="by the client"):
            await gone.result(5)
        assert await kept.resume() is True
        await kept.signal("go", "on")
        assert await kept.result(5) == "on"
        assert await engine.get(kept.id).status() == "succeeded"


async def test_cancel_on_a_paused_queue(owned):
    """
    What has not begun ends, although nothing of its queue may begin; without an owner, at the next opening.
    """
    async with Client(owned.path) as client:
        await client.queue("default").pause()
        run = await client.start(waiting())
        await run.cancel("not needed")
        await owned.engine()
        with pytest.raises(RunCancelledError, match="not needed"):
            await run.result(5)


async def test_retry_and_fork(engines):
    """
    Of a run that failed, with an owner and without one.
    """
    engine = await engines.file(*DEFINITIONS)
    BROKEN.add("b")
    run = await engine.start(three(), id="r")
    with pytest.raises(RunFailedError):
        await run.result(5)
    async with Client(engines.path) as client:
        mine = client.get("r")
        with pytest.raises(RunFailedError, match="LookupError: b") as caught:
            await mine.result(5)
        assert isinstance(caught.value.__cause__, LookupError)
        fork = await mine.fork(1, {"1": "B"}, id="fork")
        assert await fork.result(5) == ["a", "B"]
        with pytest.raises(UsageError, match="recorded are"):
            await mine.fork(9)
        await engine.aclose()
        BROKEN.clear()
        second = await mine.fork(1, {"1": "C"})
        assert await mine.retry() is True
        assert await mine.retry() is False
        await engines.file(*DEFINITIONS)
        assert await mine.result(5) == ["a", "b"]
        assert await second.result(5) == ["a", "C"]
    assert CALLS == ["a", "b", "b"]


async def test_looking_needs_no_owner(owned):
    """
    Lists, infos, histories, reasons and queues are read from the file.
    """
    async with Client(owned.path) as client:
        await client.queue("default").pause()
        runs = await client.start_many([quick(number) for number in range(3)])
        assert [info.run_id async for info in client.runs(workflow="quick")] == [run.id for run in runs][::-1]
        assert "queue 'default'" in await runs[0].why()
        assert [event.kind for event in await runs[0].history()] == ["RunStarted"]
        info = await client.queue("default").info()
        assert (info.depth, info.paused) == (3, True)
        assert await client.queue("default").clear() == 3
        await client.queue("default").resume()
        engine = await owned.engine()
        for run in runs:
            with pytest.raises(RunCancelledError):
                await engine.get(run.id).result(5)
        with pytest.raises(RunNotFoundError):
            await client.get("nobody").info()


async def test_a_result_is_waited_for_across_owners(engines):
    """
    A client that waits for a result gets it although the engine is replaced meanwhile.
    """
    engine = await engines.file(*DEFINITIONS)
    async with Client(engines.path) as client:
        run = await client.start(waiting())
        asking = asyncio.create_task(run.result(10))
        await asyncio.sleep(0.01)
        await engine.aclose()
        await asyncio.sleep(0.01)
        await engines.file(*DEFINITIONS)
        await run.signal("go", "x")
        assert await asking == "x"


async def test_a_clients_timeout_does_not_touch_the_run(engines):
    """
    As with the engine.
    """
    await engines.file(*DEFINITIONS)
    async with Client(engines.path) as client:
        run = await client.start(waiting())
        with pytest.raises(TimeoutError, match=f"run '{run.id}' has not ended after 0.02 s, and keeps running: run"):
            await run.result(0.02)
        await run.signal("go", "x")
        assert await run.result(5) == "x"


async def test_a_client_that_gave_up_waiting_leaves_nothing_with_the_owner(engines, eventually):
    """
    Neither a connection nor a waiter, however often it asks again.
    """
    engine = await engines.file(*DEFINITIONS)
    async with Client(engines.path) as client:
        run = await client.start(waiting())
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await run.result(0.01)

        async def forgotten():
            return not engine._backend.running.waiters and not engine._backend.running.server._clients

        await eventually(forgotten)
        await run.signal("go", "x")
        assert await run.result(5) == "x"


async def test_the_engine_acts_at_once_on_what_a_client_asks(engines):
    """
    Within 100 ms of the acknowledgement, whenever the machine has nothing else to do.
    """
    await engines.file(*DEFINITIONS)
    async with Client(engines.path) as client:
        for _ in range(30):
            run = await client.start(waiting())
            await run.signal("go", "x")
            begun_at = time.monotonic()
            await run.result(5)
            fastest = time.monotonic() - begun_at
            if fastest < 0.1:
                break
        assert fastest < 0.1


async def test_two_clients_at_once_without_an_owner(engines):
    """
    They take turns in owning the file; both are recorded.
    """
    engine = await engines.file(*DEFINITIONS)
    await engine.aclose()
    async with Client(engines.path) as one, Client(engines.path) as two:
        runs = await asyncio.gather(*(client.start(quick(n)) for n in range(4) for client in (one, two)))
    engine = await engines.file(*DEFINITIONS)
    for run in runs:
        assert (await engine.get(run.id).result(5)).number < 4


async def test_a_client_of_no_file(tmp_path):
    """
    JournalAccessError: a client makes none.
    """
    with pytest.raises(JournalAccessError, match="no such file"):
        await Client(tmp_path / "none.db").open()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EngineClosedError, match="not open"):
        await Client(tmp_path / "none.db").get("x").info()


@pytest.mark.parametrize("sql", ["", "CREATE TABLE orders (id INTEGER PRIMARY KEY)"])
async def test_a_client_of_a_file_whose_engine_is_about_to_make_the_journal(tmp_path, sql):
    """
    The same error as where there is no file yet, so that who tries again until it opens catches one. It is untouched.
    """
    path = tmp_path / "app.db"
    path.touch()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
    before = path.read_bytes()
    client = Client(path)
    with pytest.raises(JournalAccessError, match="no journal in it yet"):
        await client.open()
    assert path.read_bytes() == before
    async with Engine(path, [*DEFINITIONS]):
        await client.open()
        assert [info async for info in client.runs()] == []
        await client.aclose()


async def test_a_client_of_a_file_that_is_no_journal(tmp_path):
    """
    It is refused, untouched.
    """
    path = tmp_path / "text.db"
    path.write_text("hello " * 500)
    with pytest.raises(JournalError):
        await Client(path).open()
    assert path.read_text() == "hello " * 500


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"{}\n", b'{"request": "explode", "arguments": {}}\n', b'{"request": "signal", "arguments": {}}\n',
     b'{"request": "start", "arguments": {"runs": [{}]}}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n"],
)  # fmt: skip
async def test_nonsense_on_the_socket_is_answered(engines, line):
    """
    One answer a line, an error, and the engine goes on.
    """
    engine = await engines.file(*DEFINITIONS)
    reader, writer = await asyncio.open_unix_connection(f"{engines.path}.sock")
    writer.write(line)
    answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
    assert "error" in answer
    writer.close()
    assert await engine.run(quick(1)) == Receipt(1)


async def test_a_stale_socket_is_no_owner(engines):
    """
    One that a killed owner left behind: the client records by itself, the next engine listens anew.
    """
    engine = await engines.file(*DEFINITIONS)
    await engine.aclose()
    server = await asyncio.start_unix_server(lambda _r, _w: None, f"{engines.path}.sock")
    os.rename(f"{engines.path}.sock", f"{engines.path}.kept")
    server.close()
    os.rename(f"{engines.path}.kept", f"{engines.path}.sock")
    async with Client(engines.path) as client:
        run = await client.start(quick(3))
        await engines.file(*DEFINITIONS)
        assert await run.result(5) == Receipt(3)


SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from durable import Client, Flow, Return, RunFailedError, job, step, wait_for, workflow

    @job
    async def quick(number: int) -> dict: ...

    @workflow
    async def waiting() -> Flow[str]:
        yield wait_for("go")

    async def main():
        async with Client(sys.argv[1]) as client:
            run = await client.start(waiting(), id="theirs")
            await run.pause()
            await run.resume()
            await run.signal("go", "from afar")
            other = await client.start(waiting(), id="cancelled")
            await other.cancel("from afar")
            fork = await client.get("old").fork(0, {"0": "A"}, id="forked")
            print("acknowledged", flush=True)
            if sys.argv[2] == "wait":
                print(await run.result(10))
                print([info.status async for info in client.runs(workflow="waiting", limit=2)])

    asyncio.run(main())
    """
)


async def test_a_client_in_another_process(owned, engines):
    """
    What it was told is recorded is in the file, whoever owned it, and is acted upon.
    """
    engine = await owned.engine()
    await (await engine.start(three(), id="old")).result(5)
    if not owned.is_owned:
        await engine.aclose()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SCRIPT, str(owned.path), "wait" if owned.is_owned else "leave"],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert "acknowledged" in lines
    if owned.is_owned:
        assert "from afar" in lines
    else:
        engine = await engines.file(*DEFINITIONS)
    assert await engine.get("theirs").result(5) == "from afar"
    with pytest.raises(RunCancelledError, match="from afar"):
        await engine.get("cancelled").result(5)
    assert await engine.get("forked").result(5) == ["A", "b"]


async def test_a_client_that_uses_codec_hooks(engines):
    """
    Encrypted values travel over the socket as bytes, and are read with the same hooks.
    """

    class Scrambled:
        """Bytes, backwards."""

        def encode(self, value: bytes) -> bytes:
            return value[::-1]

        def decode(self, value: bytes) -> bytes:
            return value[::-1]

    await engines.file(*DEFINITIONS, codec=Scrambled())
    async with Client(engines.path, codec=Scrambled()) as client:
        assert await client.run(quick(3)) == Receipt(3)
        run = await client.start(waiting())
        await run.signal("go", "secret")
        assert await run.result(5) == "secret"
    conn = sqlite3.connect(engines.path)
    assert b"secret" not in b"".join(bytes(v) for (v,) in conn.execute("SELECT value FROM durable_events") if v)
    conn.close()


def test_every_field_of_a_new_run_travels_and_is_kept():
    """
    As a template, and over the wire: none has its default here, so that a forgotten one would be missed.
    """
    started, policy = RunStarted("w", 2, "id", b"\x00\xff", 9.5), recorded(Retry(7))
    inner = NewRun(
        0, "i", "w", 1, "job", "q", 3, None, "", {}, started, timeout=3.0, delay=2.0, limit="l", retry=policy
    )
    new = NewRun(
        5, "id", "w", 2, "workflow", "q", -3, "key", "arguments", {"a": "b"}, started,
        due_at=1.0, deadline=2.0, timeout=3.0, parent=7, position="0.1", on_conflict="rerun", chosen_id=True,
        key_ttl=0.0, delay=0.0, place=0.5, retry=policy, follow_ups=(inner,), follows=8, batch=9, callback=10,
        behind=(1, 2), limit="l", limit_key="k", signals=(SentSignal("go", "1"), SentSignal("stop")),
        expires=7.0, expires_at=8.0,
    )  # fmt: skip
    assert [each.name for each in fields(NewRun) if getattr(new, each.name) == each.default] == []
    assert from_json(to_json([new])) == [new]


#: As the first release kept a run to be started later, with one that follows it.
KEPT = """[{"run": 0, "run_id": "t", "workflow": "app.ride", "version": 2, "sort": "workflow", "queue": "fast",
"priority": 3, "key": "k", "arguments": "app.ride:1", "labels": {"a": "b"}, "started": {"workflow": "app.ride",
"version": 2, "seed": "t", "value": "[[],{}]", "at": 0.0}, "delay": 2.5, "follow_ups": [{"run": 0, "run_id": "f",
"workflow": "app.tell", "version": 1, "sort": "job", "queue": "default", "priority": 0, "key": null, "arguments": "",
"labels": {}, "started": {"workflow": "app.tell", "version": 1, "seed": "f", "value": {"$bytes": "YWJj"},
"at": 0.0}}]}]"""


def test_what_the_first_release_kept_is_read_and_kept_as_it_was():
    """
    Journals hold follow-ups, callbacks and windows of runs that are still open: their form is for ever.
    """
    started = RunStarted("app.tell", 1, "f", b"abc", 0.0)
    inner = NewRun(0, "f", "app.tell", 1, "job", "default", 0, None, "", {}, started)
    (found,) = from_json(KEPT)
    assert found == NewRun(
        0, "t", "app.ride", 2, "workflow", "fast", 3, "k", "app.ride:1", {"a": "b"},
        RunStarted("app.ride", 2, "t", "[[],{}]", 0.0), delay=2.5, follow_ups=(inner,),
    )  # fmt: skip
    assert [each["sort"] for each in json.loads(to_json([found, inner]))] == ["workflow", "job"]


# --- many requests at once ------------------------------------------------------------------------


async def test_each_of_many_requests_has_its_own_outcome_from_the_owner(engines):
    """
    What one is refused with does not touch the others; outcomes come in the order of the requests.
    """
    engine = await engines.file(*DEFINITIONS)
    ended = await engine.start(quick(1), id="ended")
    await ended.result()
    for number in range(100):
        await engine.start(waiting(), id=f"w-{number}")
    asked = [f"w-{number}" for number in range(100)]
    asked[40:40] = ["ended", "nobody"]
    async with Client(engines.path) as client:
        found = await client._backend.request_each(PauseRun(each) for each in asked)
    assert found[:40] + found[42:] == [True] * 100
    assert [type(each) for each in found[40:42]] == [RunStateError, RunNotFoundError]
    assert {info.status async for info in engine.runs(workflow="waiting")} == {"paused"}


async def test_many_requests_on_an_unowned_file_are_one_transaction(engines):
    """
    Recorded when they return, refused ones left out; the next engine acts on them.
    """
    engine = await engines.file(*DEFINITIONS)
    runs = [await engine.start(waiting(), id=f"w-{number}") for number in range(3)]
    await (await engine.start(quick(1), id="ended")).result()
    await engine.aclose()
    async with Client(engines.path) as client:
        found = await client._backend.request_each(
            SendSignal(each, "go", '"now"', "d") for each in ("w-0", "ended", "w-1", "w-1", "w-2")
        )
        assert await client._backend.request_each([]) == []
    assert [each for each in found if not isinstance(each, RunStateError)] == [True, True, False, True]
    assert isinstance(found[1], RunStateError)
    engine = await engines.file(*DEFINITIONS)
    assert [await engine.get(run.id).result(5) for run in runs] == ["now"] * 3


async def test_a_line_too_long_for_the_owner_is_one_refusal_among_many(engines):
    """
    The others are recorded.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(waiting())
    await engine.start(waiting(), id="other")
    async with Client(engines.path) as client:
        found = await client._backend.request_each(
            [SendSignal("other", "go", f'"{"x" * (33 << 20)}"'), SendSignal(run.id, "go", '"now"')]
        )
    assert isinstance(found[0], UsageError)
    assert found[1] is True
    assert await run.result(5) == "now"


async def test_a_signal_whose_answer_was_lost_is_asked_for_again_and_counts_once(engines, monkeypatch):
    """
    An owner may die between its commit and its answer: the client cannot know, and asks the next one.
    """
    engine = await engines.file(*DEFINITIONS)
    real, lost = OwnerSocket._ask, []

    async def ask(self, request):
        answer = await real(self, request)
        if isinstance(request, Once) and isinstance(request.request, SendSignal) and len(lost) < 2:
            return lost.append(answer)
        return answer

    monkeypatch.setattr(OwnerSocket, "_ask", ask)
    async with Client(engines.path) as client:
        run = await client.start(waiting())
        await run.pause()
        assert await run.signal("go", "x") is True
        assert await run.signal("go", "y", dedup="1") is True
        assert await run.signal("go", "y", dedup="1") is False
        await run.resume()
        assert await run.result(5) == "x"
    assert len(lost) == 2
    async with Client(engines.path) as client:
        recorded = await engine._backend.read(
            lambda conn: conn.execute("SELECT count(*) FROM durable_dedup").fetchone()
        )
    assert recorded == (1,)  # of the signal that was given one


async def test_a_client_takes_values_as_large_as_its_engine_does(engines):
    """
    The caps of the engine that had the file last count, larger or smaller, whether it is open or not.
    """

    @job
    async def length(text: str) -> int:
        return len(text)

    engine = await engines.file(length, caps=Caps(value_bytes=2 << 20))
    large = "x" * (3 << 19)
    async with Client(engines.path) as client:
        assert await client.run(length(large)) == len(large)
        with pytest.raises(CapExceededError, match="allowed are 2097152"):
            await client.start(length(large * 2))
    await engine.aclose()
    async with Client(engines.path) as client:
        run = await client.start(length(large))
    await engines.file(length, caps=Caps(value_bytes=1 << 10))
    async with Client(engines.path) as client:
        assert await client.get(run.id).result(5) == len(large)
        with pytest.raises(CapExceededError, match="allowed are 1024"):
            await client.start(length(large))
