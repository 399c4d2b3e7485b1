"""
Event loops: an engine is asked on its own, from elsewhere by `from_thread`; it is closed when it has been left.
"""

import ast
import asyncio
import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    JournalLockedError,
    Return,
    RunFailedError,
    RunFromThread,
    Signal,
    Transaction,
    job,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.attempts.steps import forget_cancel
from durable._shell.loops import current_task
from durable.errors import EngineClosedError, UsageError, WrongLoopError

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
GO = Signal("go", str)


@job
async def echo(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for(GO)
    yield Return(value)


async def elsewhere(fn):
    """
    What the coroutine that *fn* makes returns or raises, on an event loop of its own, in a thread.
    """

    async def awaited():
        return await fn()

    return await asyncio.to_thread(asyncio.run, awaited())


ASKED = {
    "start": lambda engine, run: engine.start(echo(1), id="strange"),
    "start_many": lambda engine, run: engine.start_many([echo(1).options(labels={"a": "b"})]),
    "run": lambda engine, run: engine.run(echo(1), id="strange"),
    "result": lambda engine, run: run.result(timeout=2),
    "info": lambda engine, run: run.info(),
    "history": lambda engine, run: run.history(),
    "signal": lambda engine, run: run.signal(GO, "strange"),
    "cancel": lambda engine, run: run.cancel(),
    "find": lambda engine, run: engine.find("key"),
    "schedules": lambda engine, run: engine.schedules(),
    "pause a queue": lambda engine, run: engine.queue("default").pause(),
    "stats": lambda engine, run: engine.stats(),
    "idle": lambda engine, run: engine.idle(),
    "drain": lambda engine, run: engine.drain(),
    "backup": lambda engine, run: engine.backup(f"{engine.path}.copy"),
    "prune": lambda engine, run: engine.prune(0),
}


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_what_is_asked_on_another_loop_is_refused_before_anything_is_recorded(engines, where):
    """
    Whatever it is: the error says so and names the way out, and on its own loop the engine works as before.
    """
    engine = await getattr(engines, where)(echo, waiting)
    run = await engine.start(waiting(), id="w", key="key")
    await engine.idle()
    for what, ask in ASKED.items():
        with pytest.raises(WrongLoopError, match=r"engine\.from_thread\.start\(\.\.\.\)"):
            await elsewhere(lambda ask=ask: ask(engine, run))
        assert [info.run_id async for info in engine.runs()] == ["w"], what
        assert (await run.info()).status == "waiting", what
    assert await engine.run(echo(1)) == 1
    await run.signal(GO, "on")
    assert await run.result() == "on"


async def test_events_are_not_read_in_a_thread(engines):
    """
    What is no coroutine is refused as well: a reader there would be told by a loop that does not know of it.
    """
    engine = await engines.memory(echo)
    with pytest.raises(WrongLoopError, match="in thread"):
        await asyncio.to_thread(engine.events)


async def test_a_client_is_asked_on_its_own_loop(engines, tmp_db):
    """
    Another loop opens a client of its own.
    """
    await engines.file(echo, waiting)
    async with Client(tmp_db) as client:
        for ask in (lambda: client.start(echo(1), id="strange"), lambda: client.get("x").info()):
            with pytest.raises(WrongLoopError, match="open a Client of its own"):
                await elsewhere(ask)
        assert [info async for info in client.runs()] == []
        assert await client.run(echo(3)) == 3


# --- from_thread ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a thread", "another loop"])
async def test_a_thread_starts_runs_and_waits_for_them(engines, how):
    """
    The calls of an engine as plain functions: with options, typed results, the errors of its own methods.
    """
    engine = await engines.file(echo, waiting)

    def use():
        face = engine.from_thread
        run = face.start(waiting(), id="w", key="key")
        assert isinstance(run, RunFromThread)
        assert (run.id, run.run_id, repr(run)) == ("w", "w", "<RunFromThread 'w'>")
        assert face.start(waiting(), key="key") == run
        assert len({face.get("w"), face.find("key"), run}) == 1
        with pytest.raises(TimeoutError, match="has not ended after"):
            run.result(timeout=0.01)
        assert face.call(run.handle.attributes) == {}
        assert "go" in run.why()
        assert run.pause()
        assert run.resume()
        assert run.signal(GO, "on", dedup="once")
        assert run.result(timeout=20) == "on"
        assert run.status() == run.info().status == "succeeded"
        assert not run.cancel()
        assert [each.result() for each in face.start_many([echo(1), echo(2)])] == [1, 2]
        assert face.run(echo(3), labels={"of": "thread"}) == 3
        assert face.call(engine.stats).runs["succeeded"] == 4
        with pytest.raises(RunFailedError, match="negative"):
            face.run(echo(-1))
        return face

    async def use_on_a_loop():
        return use()

    await (asyncio.to_thread(use) if how == "a thread" else elsewhere(use_on_a_loop))


async def test_from_thread_does_not_wait_for_itself(engines):
    """
    Neither on the engine's own loop, nor on the writer's thread, nor where the engine is not open: nothing hangs.
    """

    @transaction
    def asks(tx: Transaction) -> str:
        return engine.from_thread.get("waits").result(timeout=1)  # which cannot end: its turn needs this thread

    @step
    def asks_in_thread() -> int:
        return engine.from_thread.run(echo(2))

    @workflow
    async def asking() -> Flow[object]:
        value = yield asks_in_thread()
        try:
            yield asks()
        except (UsageError, TimeoutError) as error:
            yield Return([value, str(error)])

    engine = await engines.file(echo, waiting, asking)
    await engine.start(waiting(), id="waits")
    with pytest.raises(UsageError, match="await the engine's own method"):
        engine.from_thread.start(echo(1))
    value, error = await engine.run(asking())
    assert value == 2
    assert "from_thread in a @transaction" in error
    await engine.aclose()
    with pytest.raises(EngineClosedError):
        await asyncio.to_thread(engine.from_thread.start, echo(1))


@pytest.mark.parametrize("how", ["is closed", "is cancelled"])
def test_a_thread_does_not_wait_for_a_loop_that_has_ended(tmp_path, how):
    """
    The engine's loop ends while a thread waits for a run, and before it asks for another: an error, no hang.
    """
    found = []
    began = threading.Event()

    def use(engine):
        for asked in (lambda: engine.from_thread.run(waiting()), lambda: engine.from_thread.get("x").info()):
            began.set()
            try:
                asked()
            except EngineClosedError as error:
                found.append(str(error))

    async def main():
        engine = Engine(tmp_path / "a.db", [waiting])
        await engine.open()
        thread = threading.Thread(target=use, args=(engine,), daemon=True)
        thread.start()
        while not (began.is_set() and [1 async for _ in engine.runs(status="waiting")]):
            await asyncio.sleep(0.001)
        return engine, thread

    if how == "is cancelled":
        engine, thread = asyncio.run(main())
    else:
        loop = asyncio.new_event_loop()
        engine, thread = loop.run_until_complete(main())
        loop.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(found) == 2
    assert all("open" in each for each in found)
    asyncio.run(engine.aclose())


# --- closing -------------------------------------------------------------------------------------------------------


def closing_workflow(ended):
    """A workflow whose step is running when the engine closes."""
    began = asyncio.Event()

    @step
    async def unhurried() -> None:
        began.set()
        await asyncio.sleep(0.1)
        ended.append(1)

    @workflow
    async def closing() -> Flow[None]:
        yield unhurried()

    return closing, began


async def test_closing_from_another_loop_closes(engines):
    """
    It drains first, on its own loop; then it is closed for everybody, and the file is free.
    """
    ended = []
    definition, began = closing_workflow(ended)
    engine = await engines.file(definition)
    await engine.start(definition())
    await began.wait()
    await asyncio.gather(elsewhere(engine.aclose), elsewhere(engine.aclose))
    assert ended == [1]
    with pytest.raises(EngineClosedError):
        await engine.start(definition())
    await engine.aclose()
    await elsewhere(engine.aclose)
    await engines.file(definition)


async def by_cancelling_twice(use, began):
    task = asyncio.create_task(use())
    await began.wait()
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def by_moving_on(use, began):
    async def stop():
        await began.wait()
        scope.cancel()

    stopping = asyncio.create_task(stop())
    with anyio.move_on_after(20) as scope:
        await use()
    await stopping
    assert scope.cancelled_caught


async def by_a_cancelled_group(use, began):
    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await began.wait()
        group.cancel_scope.cancel()


async def by_a_timeout_inside_a_cancelled_scope(use, began):
    async def stop():
        await began.wait()
        limit.reschedule(0)
        scope.cancel()

    stopping = asyncio.create_task(stop())
    with anyio.move_on_after(20) as scope:
        async with asyncio.timeout(20) as limit:
            await use()
    await stopping
    assert scope.cancelled_caught


LEFT = [by_cancelling_twice, by_moving_on, by_a_cancelled_group, by_a_timeout_inside_a_cancelled_scope]


@pytest.mark.parametrize("leave", LEFT)
async def test_an_engine_that_is_left_because_something_was_cancelled_has_closed(engines, leave):
    """
    A level-triggered cancellation, or a second one, does not cut the closing off: running steps get their grace, and
    the file is free at once.
    """
    ended = []
    definition, began = closing_workflow(ended)

    async def use():
        async with Engine(engines.path, [definition], grace=5.0) as engine:
            await engine.start(definition())
            await anyio.sleep_forever()

    await leave(use, began)
    assert ended == [1]
    await engines.file(definition)


async def test_closing_under_a_cancelled_scope_is_bounded_by_the_grace(engines):
    """
    A step that does not end is cut off after it.
    """
    began = asyncio.Event()

    @job
    async def hangs() -> None:
        began.set()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with Engine(engines.path, [hangs], grace=0.05) as engine:
            await engine.start(hangs())
            await began.wait()
            scope.cancel()
            left_at = time.monotonic()
    assert time.monotonic() - left_at < 3
    conn = sqlite3.connect(engines.path)
    assert conn.execute("SELECT status FROM runs").fetchall() == [("running",)]
    conn.close()


# --- loops that have ended -----------------------------------------------------------------------------------------


def on_a_loop_that_ends(how, engine, *, use=None):
    """
    Open *engine* on a loop that is closed without it.
    """

    async def main():
        await engine.open()
        if use is not None:
            await use(engine)

    if how == "run":  # which cancels all tasks
        asyncio.run(main())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()


ENDED = pytest.mark.parametrize("how", ["run", "closed"])


@ENDED
def test_an_engine_whose_loop_is_gone_gives_the_file_up_to_whoever_opens_it_next(tmp_path, how):
    """
    Another engine of this process, which continues what that one had begun.
    """
    engine = Engine(tmp_path / "a.db", [echo, waiting])

    async def start(engine):
        await engine.start(waiting(), id="w")

    on_a_loop_that_ends(how, engine, use=start)

    async def main():
        with pytest.raises(EngineClosedError, match="event loop of the engine has ended"):
            await engine.start(echo(1))
        async with Engine(tmp_path / "a.db", [echo, waiting]) as second:
            assert await second.run(echo(1)) == 1
            await second.get("w").signal(GO, "on")
            assert await second.get("w").result() == "on"
            with pytest.raises(EngineClosedError):
                await engine.start(echo(1))
            await engine.aclose()
            assert await second.run(echo(2)) == 2

    asyncio.run(main())


@ENDED
def test_an_engine_whose_loop_is_gone_can_be_opened_again(tmp_path, how):
    """
    The same object, on another loop, as often as need be.
    """
    engine = Engine(tmp_path / "a.db", [echo])

    async def use(engine):
        assert await engine.run(echo(1)) == 1

    for _ in range(3):
        on_a_loop_that_ends(how, engine, use=use)

    async def close():
        await engine.aclose()
        async with engine:
            await use(engine)

    asyncio.run(close())


def test_a_step_in_a_thread_outlives_its_loop_and_is_awaited_before_it_runs_again(tmp_path):
    """
    The engine that opens next waits until the function has returned; what is garbage blocks no run on its way.
    """
    doors = [threading.Event(), threading.Event()]
    running = []

    @job
    def slow() -> int:
        running.append(1)
        doors[0].set()
        doors[1].wait(10)
        running.append(-1)
        return sum(running)

    async def start(engine):
        await engine.start(slow(), id="s")
        await asyncio.to_thread(doors[0].wait, 10)

    engine = Engine(tmp_path / "a.db", [slow, echo])
    with capture_logs() as logs:
        on_a_loop_that_ends("closed", engine, use=start)

        async def main():
            async with engine:
                assert await engine.run(echo(1)) == 1
                assert running == [1]
                doors[1].set()
                assert await engine.get("s").result() == 0

        asyncio.run(main())
        gc.collect()
    assert running == [1, -1, 1, -1]
    assert "run.blocked" not in [entry["event"] for entry in logs]


@ENDED
def test_a_client_finds_the_file_free_whose_engine_lost_its_loop(tmp_path, how):
    """
    It does not wait for the answer of a loop that is gone.
    """
    engine = Engine(tmp_path / "a.db", [echo])
    on_a_loop_that_ends(how, engine)

    async def main():
        async with asyncio.timeout(10), Client(tmp_path / "a.db") as client:
            await client.start(echo(1), id="e")
            assert (await client.get("e").info()).status == "pending"

    asyncio.run(main())
    asyncio.run(engine.aclose())


@ENDED
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_engine_that_nobody_holds_any_more_gives_the_file_up(tmp_path, how):
    """
    At garbage collection, to any process.
    """
    script = f"""if 1:
        import asyncio
        from durable import Engine, job
        @job
        async def echo(number: int) -> int: return number
        async def main():
            async with Engine({str(tmp_path / "a.db")!r}, [echo]) as engine: print("got", await engine.run(echo(7)))
        asyncio.run(main())
    """
    engine = Engine(tmp_path / "a.db", [echo])
    on_a_loop_that_ends(how, engine)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert "JournalLockedError" in refused.stderr
    del engine
    gc.collect()
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert "got 7" in done.stdout, done.stderr


async def test_a_cell_of_a_notebook_may_be_run_again(engines):
    """
    The name is bound to a new engine of the file: nobody can close the last one any more, so it makes way, and what it
    had started continues under the new definitions.
    """
    names = {"Engine": Engine, "path": engines.path, "echo": echo, "waiting": waiting}
    cell = compile(
        "engine = Engine(path, [echo, waiting])\nawait engine.open()\nrun = await engine.start(waiting(), id='w')",
        "<cell>",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    for _ in range(3):
        await types.FunctionType(cell, names)()
    assert await names["engine"].run(echo(1)) == 1
    await names["run"].signal(GO, "on")
    assert await names["run"].result() == "on"
    second = Engine(engines.path, [echo])
    with pytest.raises(JournalLockedError):  # the one that somebody holds does not make way
        await second.open()
    await names["engine"].aclose()


def test_an_engine_of_a_module_serves_two_test_clients(tmp_path):
    """
    Each block of `TestClient` has a thread and a loop of its own.
    """
    responses = pytest.importorskip("starlette.responses")
    applications, routing = pytest.importorskip("starlette.applications"), pytest.importorskip("starlette.routing")
    testclient = pytest.importorskip("starlette.testclient")
    engine = Engine(tmp_path / "a.db", [echo])

    async def answer(request):
        return responses.JSONResponse(await engine.run(echo(int(request.query_params["number"]))))

    @contextlib.asynccontextmanager
    async def lifespan(_):
        async with engine:
            yield

    app = applications.Starlette(routes=[routing.Route("/", answer)], lifespan=lifespan)
    for number in (1, 2):
        with testclient.TestClient(app) as client:
            assert client.get("/", params={"number": number}).json() == number
            assert engine.from_thread.run(echo(number)) == number


def test_an_attempt_that_is_closed_with_its_loop_awaits_nothing_more():
    """
    A task group that is garbage cancels what runs in it and then closes it: no loop is there to wait on.
    """
    loop = asyncio.new_event_loop()

    async def attempt():
        task = current_task()
        try:
            await loop.create_future()
        finally:
            task.cancel()
            await forget_cancel(task)

    closed = attempt()
    task = loop.create_task(closed)
    loop.run_until_complete(asyncio.sleep(0))
    closed.close()  # fails if it awaits
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        loop.run_until_complete(task)
    loop.close()
