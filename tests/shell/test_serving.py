"""
`await engine.serve()`: until a signal, then it drains. In processes of their own, which get real signals.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from durable import Client, Engine, EngineFailedError, UsageError, job
from tests import children

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, signal, sys
from durable import Engine, context, job

@job
async def patient() -> str:
    print("begun", context().attempt, flush=True)
    while not context().draining:
        await asyncio.sleep(0.01)
    print("drained", flush=True)
    return "kept"

@job
async def endless() -> str:
    print("begun", context().attempt, flush=True)
    await asyncio.Event().wait()

def theirs(*_):
    pass

async def main():
    signal.signal(signal.SIGTERM, theirs)
    path, how, name, grace = sys.argv[1:]
    engine = Engine(path, [patient, endless], durability="process", grace=float(grace))
    if how == "opened here":
        async with engine:
            await engine.start(dict(patient=patient, endless=endless)[name](), id="r")
            await engine.serve()
            print("open", engine.health().status, flush=True)
    else:
        await engine.serve()
    print("ended", engine.health().status, signal.getsignal(signal.SIGTERM) is theirs, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def serving(tmp_db):
    """
    Starts the program; it is killed at the end of the test if it is still there.
    """
    started = []

    def start(how, name, grace="5"):
        arguments = [sys.executable, "-c", PROGRAM, str(tmp_db), how, name, grace]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = children.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def said(process, word):
    """
    The next line of the process that begins with *word*.
    """
    return next(line for line in process.stdout if line.startswith(word))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_engine(serving, tmp_db, number):
    """
    What runs learns of it and ends; the engine is closed by whoever opened it; their handlers are theirs again.
    """
    process = serving("opened here", "patient")
    said(process, "begun 1")
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0, out
    assert [line for line in out.splitlines() if not line.startswith("2")] == [
        "drained",
        "open healthy",
        "ended closed True",
    ]
    assert await _result(tmp_db) == "kept"


async def test_serve_opens_what_is_not_open_and_closes_it(serving, tmp_db):
    """
    The whole of a program that only executes: what it finds in the file runs.
    """
    await _run_to_begin(tmp_db, "patient")
    process = serving("by itself", "patient")
    said(process, "begun 1")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0, out
    assert out.splitlines()[-1] == "ended closed True"
    assert await _result(tmp_db) == "kept"


async def test_deploys_during_a_long_step_are_no_crashes_of_it(serving, tmp_db):
    """
    Five times: cut off after the grace, killed after it, cut off by a second signal; the step runs again each time.
    """
    await _run_to_begin(tmp_db, "endless")
    for attempt, (grace, then) in enumerate(
        [
            ("0.1", None),
            ("100", signal.SIGKILL),
            ("100", signal.SIGKILL),
            ("100", signal.SIGKILL),
            ("100", signal.SIGINT),
        ],
        start=1,
    ):
        process = serving("by itself", "endless", grace)
        assert said(process, "begun") == f"begun {attempt}\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if then is not None:
            await _is_noted(tmp_db)
            process.send_signal(then)
        out, _ = process.communicate(timeout=10)
        assert process.returncode == (0 if then is not signal.SIGKILL else -signal.SIGKILL), out
        assert time.monotonic() - began < 8
    async with Client(tmp_db) as client:
        assert await client.get("r").status() in ("running", "pending")


async def _run_to_begin(path, name):
    """
    A file in which one run is to begin.
    """

    @job(name=name)
    async def later() -> str:
        return ""

    async with Engine(path, [later], durability="process") as engine:
        await engine.start(later(), id="r", delay=0.3)


async def _result(path):
    """
    How the run has ended: its step is not called again.
    """

    @job
    async def patient() -> str:
        return "again"

    async with Engine(path, [patient], durability="process") as engine:
        return await engine.get("r").result(5)


async def _is_noted(path):
    """
    Return once the file says that its engine drains.
    """
    async with Client(path) as client, asyncio.timeout(5):
        sql = "SELECT count(*) FROM durable_meta WHERE name = 'draining_since'"
        while not await client._backend.read(lambda conn: conn.execute(sql).fetchone()[0]):
            await asyncio.sleep(0.005)


async def test_serve_ends_with_the_engine(engines):
    """
    Raises what ended it, or returns if somebody closed it; no handler is left behind.
    """

    @job
    async def quick() -> None: ...

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    engine = await engines.file(quick)
    serves = asyncio.create_task(engine.serve())
    await asyncio.sleep(0)
    engine._backend.running.supervisor.fail(RuntimeError("planted"))
    with pytest.raises(EngineFailedError, match="planted"):
        await serves
    serves = asyncio.create_task(engine.serve())
    while engine.health().status != "healthy":
        await asyncio.sleep(0.001)
    await engine.aclose()
    await serves
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_serve_outside_of_the_main_thread_is_refused(tmp_db):
    """
    No signal would ever come: the error says what to await there.
    """
    errors = []

    def elsewhere():
        try:
            asyncio.run(Engine(tmp_db, []).serve())
        except UsageError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "wait_closed()" in str(errors[0])
