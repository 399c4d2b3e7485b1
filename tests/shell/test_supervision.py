"""
The engine never dies in silence: what passes is waited out and told, what does not fails it loudly.
"""

import asyncio
import contextlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from durable import Engine, EngineFailedError, Flow, Return, command_line, job, sleep, wait_for, workflow
from durable._cli.commands.look import doctor
from durable._shell.ownership.ownership import Ownership
from durable._shell.storage.connections import PRAGMAS
from durable._shell.storage.folder import Folder
from durable._shell.tasks import housekeeping
from durable.errors import EngineClosedError, JournalFullError, JournalLostError

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waiting() -> Flow[str]:
    word: str = yield wait_for("go", str)
    yield Return(word)


@workflow
async def naps() -> Flow[int]:
    yield sleep(0.01)
    yield Return(1)


@pytest.fixture(autouse=True)
def watchful(monkeypatch):
    """
    The file is looked at all the time.
    """
    monkeypatch.setattr(housekeeping, "IDENTITY_SECONDS", 0.01)


def delete(suffix):
    return lambda path: os.unlink(f"{path}{suffix}")


def replace(suffix):
    def hurt(path):
        shutil.copyfile(f"{path}{suffix}", f"{path}.other")
        os.replace(f"{path}.other", f"{path}{suffix}")

    return hurt


def rename_lock(path):
    os.rename(f"{path}.lock", f"{path}.lock.old")


LOSSES = {
    "the file is deleted": delete(""),
    "the file is replaced": replace(""),
    "the WAL is deleted": delete("-wal"),
    "the WAL is replaced": replace("-wal"),
    "the shared memory is deleted": delete("-shm"),
    "the lock is deleted": delete(".lock"),
    "the lock is replaced": replace(".lock"),
    "the lock is renamed": rename_lock,
    "the folder is deleted": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("hurt", LOSSES.values(), ids=LOSSES)
async def test_what_is_lost_fails_the_engine_loudly(tmp_path, hurt):
    """
    The body of `async with` is interrupted, waiters and watchers hear of it, one critical line names cause and remedy.
    """
    path = tmp_path / "folder" / "app.db"
    path.parent.mkdir()
    engines = []

    async def body():
        async with Engine(path, [waiting], grace=0.2) as engine:
            engines.append(engine)
            await asyncio.Event().wait()

    program = asyncio.create_task(body())
    while not engines:
        await asyncio.sleep(0.001)
    (engine,) = engines
    run = await engine.start(waiting())

    async def watch():
        async for _ in engine.events():
            pass

    waits = [asyncio.create_task(each) for each in (run.result(), watch(), engine.wait_closed())]
    await asyncio.wait(waits, timeout=0.02)
    with capture_logs() as logs:
        hurt(path)
        await asyncio.wait([program, *waits], timeout=5)
    for task in (program, *waits):
        error = task.exception()
        assert isinstance(error, EngineFailedError)
        assert isinstance(error.__cause__, JournalLostError)
        assert str(path) in str(error)
    assert program.cancelling() == 0
    (line,) = [each for each in logs if each["log_level"] == "critical"]
    assert line["event"] == "engine.failed"
    assert "app.db" in line["error"]
    assert "Start the program again" in line["remedy"]
    assert isinstance(engine.failure, EngineFailedError)
    with pytest.raises(EngineFailedError):
        await engine.start(waiting())
    with pytest.raises(EngineFailedError):
        await engine.wait_closed()
    await engine.aclose()


async def test_a_failed_engine_gives_its_file_to_a_standby(engines, tmp_db):
    """
    At once, while its process lives on; what was waiting resumes there.
    """
    engine = await engines.file(waiting)
    run = await engine.start(waiting(), id="w")
    heir = Engine(tmp_db, [waiting], standby=True, grace=0.2)
    opening = asyncio.create_task(heir.open())
    engine._backend.running.supervisor.fail(RuntimeError("planted"))
    await asyncio.wait_for(opening, 5)
    try:
        await heir.get("w").signal("go", "on")
        assert await heir.get("w").result(5) == "on"
    finally:
        await heir.aclose()
    with pytest.raises(EngineFailedError, match="planted"):
        await run.info()


async def test_an_engine_that_failed_may_be_opened_again(engines):
    """
    And has no failure then.
    """
    engine = await engines.file(quick)
    engine._backend.running.supervisor.fail(RuntimeError("planted"))
    with pytest.raises(EngineFailedError, match="planted"):
        await engine.wait_closed()
    await engine.open()
    assert engine.failure is None
    assert await engine.run(quick(1)) == 1
    closed = asyncio.create_task(engine.wait_closed())
    await asyncio.sleep(0)
    await engine.aclose()
    await closed


@pytest.mark.parametrize(
    "own, cancelled, failing",
    [(LookupError("mine"), False, True), (LookupError("mine"), True, False), (None, True, False), (None, True, True)],
)
async def test_the_body_keeps_its_own_end(tmp_db, own, cancelled, failing):
    """
    An error of its own comes through, also where it is interrupted; and so does a cancellation from outside.
    """
    engine, began = Engine(tmp_db, [quick]), asyncio.Event()

    async def body():
        async with engine:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                if own is not None:
                    raise own

    task = asyncio.create_task(body())
    await began.wait()
    if failing:
        engine._backend.running.supervisor.fail(RuntimeError("planted"))
    if cancelled:
        task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled() if own is None else task.exception() is own


async def test_a_body_that_goes_on_after_it_was_interrupted_still_hears_of_it(tmp_db):
    """
    It is asked for once, and the end of `async with` raises what ended the engine.
    """
    with pytest.raises(EngineFailedError, match="planted"):
        async with Engine(tmp_db, [quick]) as engine:
            engine._backend.running.supervisor.fail(RuntimeError("planted"))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                with pytest.raises(EngineClosedError):
                    await engine.run(quick(1))
    assert asyncio.current_task().cancelling() == 0


async def test_a_second_name_of_the_file_is_told_and_passes(engines, tmp_db, eventually):
    """
    As backup tools make them (`cp -al`): the engine works on, and says when it is over.
    """
    engine = await engines.file(quick)
    other = tmp_db.with_name("snapshot.db")
    with capture_logs() as logs:

        async def told(event):
            return event in [each["event"] for each in logs]

        os.link(tmp_db, other)
        await eventually(lambda: told("engine.degraded"))
        assert await engine.run(quick(1)) == 1
        await engine._backend.running.commits.reopen()
        assert await engine.run(quick(2)) == 2
        other.unlink()
        await eventually(lambda: told("engine.relieved"))
    # engines of other tests that this process has left behind log here as well
    told_of = [each for each in logs if each["event"] == "engine.degraded" and each["path"] == str(tmp_db)]
    assert [each["what"] for each in told_of] == ["file"], logs
    assert "hard link" in told_of[0]["reason"]
    assert engine.failure is None


async def test_a_folder_that_is_away_for_a_while_is_waited_for(tmp_path, eventually):
    """
    What is recorded meanwhile is in the file when it is back.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    async with Engine(folder / "app.db", [naps], grace=0.2) as engine:
        with capture_logs() as logs:

            async def told(event):
                return event in [each["event"] for each in logs]

            folder.rename(tmp_path / "away")
            await eventually(lambda: told("engine.degraded"), 5)
            assert await engine.run(naps(), id="n") == 1
            (tmp_path / "away").rename(folder)
            await eventually(lambda: told("engine.relieved"), 5)
    async with Engine(folder / "app.db", [naps]) as engine:
        assert await engine.get("n").result() == 1


@pytest.mark.parametrize("seen", ["the lock file", "the file"])
async def test_a_folder_that_comes_back_while_it_is_looked_for_is_not_lost(tmp_path, eventually, monkeypatch, seen):
    """
    Its files were out of sight, and a moment later it is where it was: nobody has deleted anything.
    """
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    is_away, same_file = Folder.is_away, Ownership._same_file

    def back_in_time(self):
        if away.exists():
            away.rename(folder)
        return is_away(self)

    monkeypatch.setattr(Folder, "is_away", back_in_time)
    if seen == "the file":
        monkeypatch.setattr(Ownership, "_same_file", lambda self: away.exists() or same_file(self))
    async with Engine(folder / "app.db", [naps], grace=0.2) as engine:
        folder.rename(away)

        async def is_back():
            return folder.exists()

        await eventually(is_back, 5)
        assert await engine.run(naps()) == 1
        assert engine.health().status == "healthy"


async def test_a_background_task_begins_again_after_what_passes(engines, monkeypatch):
    """
    Timers, here: the due one fires all the same, and what was in its way is told once.
    """
    engine = await engines.file(naps)
    commits = engine._backend.running.commits
    real, refused = commits.call, []

    async def call(fn, *, answers=True, **how):
        if not answers and len(refused) < 3:
            refused.append(fn)
            raise OSError(24, "Too many open files")
        return await real(fn, answers=answers, **how)

    monkeypatch.setattr(commits, "call", call)
    with capture_logs() as logs:
        assert await asyncio.wait_for(engine.run(naps()), 5) == 1
    assert len(refused) == 3
    told = [each for each in logs if each["event"] == "engine.degraded"]
    assert [(each["what"], "Too many open files" in each["reason"]) for each in told] == [("timers", True)]


async def test_health_says_what_a_probe_needs(engines, tmp_db, eventually):
    """
    Closed before it is opened; healthy; degraded while it waits something out, and why; failed; closed.
    """
    assert Engine(tmp_db, [quick]).health().status == "closed"
    engine = await engines.file(quick)
    assert str(engine.health()) == "healthy"
    assert engine.health().ok
    waits = Engine(tmp_db, [quick], standby=True)
    opening = asyncio.create_task(waits.open())
    await asyncio.sleep(0)
    assert str(waits.health()) == "closed: it is being opened, or waits for the file"
    await waits.aclose()
    with pytest.raises(EngineClosedError):
        await opening

    async def is_now(status):
        return engine.health().status == status

    os.link(tmp_db, tmp_db.with_name("snapshot.db"))
    await eventually(lambda: is_now("degraded"), 5)
    assert engine.health().ok
    assert "hard link" in engine.health().reasons[0]
    tmp_db.with_name("snapshot.db").unlink()
    await eventually(lambda: is_now("healthy"), 5)
    tmp_db.unlink()
    await eventually(lambda: is_now("failed"), 5)
    assert not engine.health().ok
    assert "deleted" in str(engine.health())


async def test_a_reopening_waits_for_threads(engines, eventually):
    """
    Of the connections to the file: none to be had is no end of the engine.
    """
    engine = await engines.file(quick)
    threading.stack_size(1 << 40)
    try:
        reopening = asyncio.create_task(engine._backend.running.commits.reopen())

        async def is_told():
            return "no thread for its connection" in str(engine.health())

        await eventually(is_told, 5)
        assert not reopening.done()
    finally:
        threading.stack_size(0)
    await reopening
    assert await engine.run(quick(1)) == 1


async def test_an_idle_engine_learns_that_it_can_record_again(engines, eventually):
    """
    What was in the way is over, and nobody records anything: health says so all the same.
    """
    engine = await engines.file(quick)
    engine._backend.running.commits.trouble = JournalFullError("app.db", "full")
    assert "nothing can be recorded" in str(engine.health())

    async def is_over():
        return str(engine.health()) == "healthy"

    await eventually(is_over, 5)


READER = """
import sqlite3, sys, time
reader = sqlite3.connect(sys.argv[1], isolation_level=None)
reader.execute("BEGIN")
reader.execute("SELECT count(*) FROM durable_runs").fetchall()
print("reads", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def reader(path):
    """
    Another program with the sqlite3 module, in one transaction that stays.
    """
    with subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True) as reading:
        try:
            assert reading.stdout.readline() == "reads\n"
            yield
        finally:
            reading.kill()


@pytest.fixture
def small_wal(monkeypatch):
    """
    The size from which a WAL is told, and to which SQLite cuts it.
    """
    monkeypatch.setattr(housekeeping, "WAL_BYTES", 300_000)
    limit = [(sql.replace("67108864", "300000"), asked, 300_000) for sql, asked, _ in PRAGMAS["writer"][1:2]]
    monkeypatch.setitem(PRAGMAS, "writer", (PRAGMAS["writer"][0], *limit, *PRAGMAS["writer"][2:]))
    return 300_000


async def write_much(engine):
    """More than fits into a small WAL."""
    runs = await engine.start_many([quick(number) for number in range(200)])
    for run in runs:
        await run.result(20)


async def test_a_wal_that_another_program_holds_is_told_and_recovers(
    engines, tmp_db, eventually, monkeypatch, small_wal
):
    """
    In health, log, stats and by doctor; nothing waits meanwhile. Once the reader is gone, the next commit begins anew.
    """
    monkeypatch.setattr(doctor, "_WAL_BYTES", small_wal)
    engine = await engines.file(quick)

    async def is_now(status):
        return engine.health().status == status

    with reader(tmp_db), capture_logs() as logs:
        await write_much(engine)
        held = (await engine.stats()).wal_bytes
        assert held > small_wal
        await eventually(lambda: is_now("degraded"))
        assert "a reader does not end its transaction" in engine.health().reasons[0]
        assert [each["what"] for each in logs if each["event"] == "engine.degraded"] == ["wal"]
        command = ["doctor", "--db", str(tmp_db)]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            await asyncio.to_thread(command_line, command)
        assert re.search(r"^warning +the WAL has .* a reader that never ends", said.getvalue(), re.MULTILINE)
        await write_much(engine)
        assert (await engine.stats()).wal_bytes > held
    await eventually(lambda: is_now("healthy"))
    assert await engine.run(quick(1)) == 1
    assert await engine.run(quick(2)) == 2
    assert (await engine.stats()).wal_bytes <= small_wal


async def test_readers_that_take_turns_do_not_let_the_wal_grow(engines, tmp_db, clock, eventually, small_wal):
    """
    Each ends its transaction soon, but never is there a moment without one: the writer waits for that moment.
    """
    engine = await engines.file(quick, clock=clock)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(contextlib.closing(sqlite3.connect(tmp_db))) for _ in range(2)]

        def next_reader():
            readers.reverse()
            readers[0].execute("BEGIN")
            readers[0].execute("SELECT count(*) FROM durable_runs").fetchall()
            readers[1].rollback()

        async def is_large():
            next_reader()
            await engine.run(quick(1))
            return (await engine.stats()).wal_bytes > 2 * small_wal

        async def is_cut():
            next_reader()
            await engine.run(quick(1))
            clock.advance(housekeeping.IDENTITY_SECONDS)
            # Who waits for nobody has looked by then, and met a reader who began before the last commit.
            await asyncio.sleep(0.1)
            for _ in range(50):
                next_reader()
                await asyncio.sleep(0.005)
            await engine.run(quick(1))
            return (await engine.stats()).wal_bytes <= small_wal

        await eventually(is_large)
        tries = [await is_cut() for _ in range(4)]
        assert any(tries)


FAMINE = """
import asyncio, contextlib, os, resource, sys, threading
from durable import Engine, Flow, Return, gather, sleep, step, workflow

called = []

@step
def threaded(number: int) -> int:
    called.append(number)
    return number

@workflow
async def one(number: int) -> Flow[int]:
    values: list[int] = yield gather(threaded(number), threaded(number + 1))
    yield sleep(0.01)
    yield Return(values[0])

def without_threads():
    # a stack larger than all memory that the process may still map: the system has no thread to give
    threading.stack_size(1 << 40)
    return lambda: threading.stack_size(0)

def without_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []

    async def eat():
        while True:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            await asyncio.sleep(0)

    eating = asyncio.create_task(eat())

    def relieve():
        eating.cancel()
        for each in held:
            os.close(each)

    return relieve

async def main():
    path, kind = sys.argv[1:]
    engine = Engine(path, [one], durability="process", grace=0.5)
    async with engine:
        relieve = dict(threads=without_threads, descriptors=without_descriptors)[kind]()
        if kind == "descriptors":
            reopening = asyncio.create_task(engine._backend.running.commits.reopen())
        runs = [await engine.start(one(number)) for number in range(5)] if kind == "threads" else []
        await asyncio.sleep(1.0)
        print(engine.health(), flush=True)
        relieve()
        began = asyncio.get_running_loop().time()
        if kind == "descriptors":
            await reopening
        runs = runs or [await engine.start(one(number)) for number in range(5)]
        print([await run.result() for run in runs], len(called), flush=True)
        print("late" if asyncio.get_running_loop().time() - began > 1.5 else "in time", engine.health(), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "kind, reason",
    [("threads", "degraded: plain functions wait"), ("descriptors", "degraded: nothing can be recorded")],
)
def test_a_moment_without_threads_or_descriptors_passes(tmp_db, kind, reason):
    """
    In a process that really has none: no run fails, each step is called once, and within a second all goes on.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", FAMINE, str(tmp_db), kind]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if not line.startswith("20")]
    assert told[0].startswith(reason), told
    assert told[1:] == ["[0, 1, 2, 3, 4] 10", "in time healthy"]
