"""
Opening and closing: one owner, an honest refusal, a bounded stop, nothing left behind.
"""

import asyncio
import contextlib
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    JournalLockedError,
    Limit,
    Middleware,
    Queue,
    Return,
    Schedule,
    Service,
    context,
    job,
    step,
    wait_for,
    workflow,
)
from durable._shell.storage.copies.marks import APPLICATION_ID
from durable.errors import (
    DefinitionError,
    EngineClosedError,
    ForeignJournalError,
    JournalAccessError,
    JournalVersionError,
    MiddlewareError,
    RunFailedError,
    UsageError,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


def descriptors():
    return {(fd, _target(fd)) for fd in os.listdir("/proc/self/fd")}


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@pytest.mark.parametrize(
    "options, words",
    [
        ({"definitions": quick}, r"takes a list of workflows, jobs or modules of them, found <job 'quick'>"),
        ({"definitions": "app.jobs"}, r"takes a list of workflows, jobs or modules of them, found 'app.jobs'"),
        ({"queues": Queue("mail")}, r"takes a list of Queue objects, found .*: put it in a list, queues=\[...\]"),
        ({"queues": ["mail"]}, r"Engine\(queues=\) takes Queue objects, found 'mail'"),
        ({"queues": [Limit("mail", concurrency=1)]}, r"takes Queue objects, found Limit\(name='mail'"),
        ({"queues": 5}, r"takes a list of Queue objects, found 5"),
        ({"limits": Limit("mail", concurrency=1)}, r"takes a list of Limit objects, found .*put it in a list"),
        ({"limits": [Queue("mail")]}, r"Engine\(limits=\) takes Limit objects, found Queue"),
        ({"schedules": Schedule("tick", quick(1), every=5)}, r"takes a list of Schedule objects, found .*put it in"),
        ({"schedules": [quick(1)]}, r"Engine\(schedules=\) takes Schedule objects, found RunOp"),
        ({"queues": [Queue("a", 1), Queue("a", 2)]}, r"two different queues are called 'a': .*=1.* and .*=2"),
        ({"concurrency": "5"}, r"Engine\(concurrency=\) must be a whole number of at least 1, found '5'"),
    ],
)
def test_an_engine_refuses_what_is_no_list_of_the_right_things(options, words):
    """
    When it is made, and it says what to give instead.
    """
    given = {"definitions": [quick], **options}
    with pytest.raises(DefinitionError, match=words):
        Engine(":memory:", **given)


def test_a_middleware_that_is_in_no_list_is_refused():
    """
    With what to write.
    """
    with pytest.raises(MiddlewareError, match=r"put it in a list: middleware=\[Middleware\(\)\]"):
        Engine(":memory:", [quick], middleware=Middleware())


async def test_closing_lets_running_steps_finish(engines):
    """
    Within the grace a step under way ends, and its outcome is recorded: it is not run again.
    """
    began, go, attempts = asyncio.Event(), asyncio.Event(), []

    @step
    async def slow() -> str:
        attempts.append(1)
        began.set()
        await go.wait()
        return "done"

    @step
    async def after(text: str) -> str:
        return text + "!"

    @workflow
    async def one() -> Flow[str]:
        text: str = yield slow()
        text = yield after(text)
        yield Return(text)

    engine = await engines.file(one, grace=5.0)
    await engine.start(one(), id="r")
    await began.wait()
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await closing
    engine = await engines.file(one)
    assert await engine.get("r").result(5) == "done!"
    assert len(attempts) == 1


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_what_outlasts_the_grace_is_cut_off_and_runs_again(engines, kind):
    """
    It is cancelled, counted as no failure, and rerun at the next opening with the next attempt number.
    """
    began, attempts = asyncio.Event(), []

    async def slow() -> str:
        attempts.append(context().attempt)
        if len(attempts) == 1:
            began.set()
            await asyncio.Event().wait()
        return "done"

    slow_step = step(slow)

    @workflow
    async def one() -> Flow[str]:
        text: str = yield slow_step()
        yield Return(text)

    top = one if kind == "step" else job(slow)
    engine = await engines.file(top, grace=0.05)
    await engine.start(top(), id="r")
    await began.wait()
    async with asyncio.timeout(4.5):  # if nobody says otherwise, the grace is 5 s
        await engine.aclose()
    engine = await engines.file(top)
    assert await engine.get("r").result(5) == "done"
    assert attempts == [1, 2]
    kinds = [event.kind for event in await engine.get("r").history()]
    assert "StepFailed" not in kinds
    assert "StepRetrying" not in kinds


@pytest.mark.parametrize("kind", ["step", "job"])
@pytest.mark.parametrize("ends_by", ["value", "error"])
async def test_what_outlives_its_own_cutting_off_is_recorded(engines, kind, ends_by):
    """
    A step that swallows its cancellation has an outcome like any other: recorded, and not repeated.
    """
    began, attempts = asyncio.Event(), []

    async def stubborn() -> str:
        attempts.append(context().attempt)
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ends_by == "error":
                raise ValueError("cut") from None
        return "done"

    stubborn_step = step(stubborn)

    @workflow
    async def one() -> Flow[str]:
        text: str = yield stubborn_step()
        yield Return(text)

    top = one if kind == "step" else job(stubborn)
    engine = await engines.file(top, grace=0.05)
    await engine.start(top(), id="r")
    await began.wait()
    await engine.aclose()
    engine = await engines.file(top)
    run = engine.get("r")
    if ends_by == "value":
        assert await run.result(5) == "done"
    else:
        with pytest.raises(RunFailedError, match="cut"):
            await run.result(5)
    assert attempts == [1]


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_step_knows_that_its_engine_drains(engines, kind):
    """
    `context().draining` turns true when the closing begins, also for one that asked before and kept what it got.
    """
    began, seen = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    @job(name="polls")
    async def polls() -> bool:
        here = context()
        seen.append(here.draining)
        began.set()
        while not here.draining:
            await asyncio.sleep(0.001)
        return context().draining

    @job(name="polls")
    def polls_in_a_thread() -> bool:
        here = context()
        seen.append(here.draining)
        loop.call_soon_threadsafe(began.set)
        while not here.draining:
            time.sleep(0.001)
        return context().draining

    top = polls if kind == "coroutine" else polls_in_a_thread
    engine = await engines.file(top, grace=5.0)
    run = await engine.start(top(), id="r")
    await began.wait()
    await engine.aclose()
    engine = await engines.file(top)
    run = engine.get("r")
    assert await run.result(5) is True
    assert seen == [False]
    assert [event.kind for event in await run.history()] == ["RunStarted", "StepStarted", "RunSucceeded"]


async def draining(engine, eventually):
    """The task in which *engine* drains, once the file says so."""

    async def is_recorded():
        with contextlib.closing(sqlite3.connect(engine.path)) as conn:
            return conn.execute("SELECT 1 FROM durable_meta WHERE name = 'draining_since'").fetchone() is not None

    task = asyncio.create_task(engine.drain())
    await eventually(is_recorded)
    return task


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_death_while_the_engine_drains_is_no_crash(engines, eventually, kind):
    """
    Five deploys in a row kill it in its grace: the step is not a suspect, and ends in the sixth life.
    """
    began, attempts = [asyncio.Event()], []

    async def long() -> str:
        attempts.append(context().attempt)
        if len(attempts) <= 5:
            began[0].set()
            await asyncio.Event().wait()
        return "done"

    long_step = step(long)

    @workflow
    async def one() -> Flow[str]:
        text: str = yield long_step()
        yield Return(text)

    top = one if kind == "step" else job(long)
    engine = await engines.file(top, grace=60.0)
    await engine.start(top(), id="r")
    for _ in range(5):
        await began[0].wait()
        began[0] = asyncio.Event()
        closing = await draining(engine, eventually)
        await engines.crash(engine)
        await closing
        engine = await engines.file(top, grace=60.0)
    assert await engine.get("r").result(5) == "done"
    assert attempts == [1, 2, 3, 4, 5, 6]
    interrupted = [event.event for event in await engine.get("r").history() if event.kind == "StepInterrupted"]
    assert [event.crashed for event in interrupted] == [False] * 5


async def test_a_death_after_a_drain_of_an_earlier_engine_is_a_crash(engines, eventually, reached):
    """
    A drain excuses the death that follows it, and no later one.
    """
    began = [asyncio.Event()]

    @job(on_poison="block")
    async def long() -> None:
        began[0].set()
        await asyncio.Event().wait()

    engine = await engines.file(long, crash_limit=1, grace=60.0)
    await engine.start(long(), id="r")
    await began[0].wait()
    closing = await draining(engine, eventually)
    began[0] = asyncio.Event()
    await engines.crash(engine)
    await closing
    engine = await engines.file(long, crash_limit=1)
    await began[0].wait()
    await engines.crash(engine)
    engine = await engines.file(long, crash_limit=1)
    await reached(engine.get("r"), "blocked")


def test_the_grace_is_below_what_supervisors_give():
    """
    5 s, unless it is said: Docker kills after 10, systemd after 90.
    """
    assert Engine("app.db", [quick])._backend.settings.grace == 5.0
    assert Service("app.db", [quick])._engine._backend.settings.grace == 5.0


async def test_aclose_may_be_called_twice_and_from_any_task(engines):
    """
    Ten at once, opened in yet another task: all return, nothing raises.
    """
    engine = await asyncio.create_task(engines.file(quick))
    await engine.run(quick(1))
    await asyncio.gather(*(asyncio.create_task(engine.aclose()) for _ in range(10)))
    await engine.aclose()


async def test_a_cancelled_aclose_closes_all_the_same(engines):
    """
    The caller is cancelled; the closing goes on.
    """
    engine = await engines.file(quick)
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await engine.aclose()
    engine = await engines.file(quick)
    assert await engine.run(quick(1)) == 1


async def test_use_before_opening_and_after_closing(engines):
    """
    EngineClosedError says what to do.
    """
    engine = Engine(engines.path, [quick])
    with pytest.raises(EngineClosedError, match="not open"):
        await engine.start(quick(1))
    engine = await engines.file(quick, waiting)
    run = await engine.start(waiting())
    waiter = asyncio.create_task(run.result())
    await asyncio.sleep(0.01)
    await engine.aclose()
    with pytest.raises(EngineClosedError, match="resumes when it opens again"):
        await waiter
    for ask in (lambda: engine.start(quick(1)), run.info, run.signal, run.cancel, engine.stats):
        with pytest.raises(EngineClosedError):
            await (ask() if ask != run.signal else ask("go"))
    with pytest.raises(EngineClosedError):
        engine.events()
    with pytest.raises(EngineClosedError):
        _ = [info async for info in engine.runs()]


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_an_engine_that_was_closed_can_be_opened_again(engines, where):
    """
    What it has on file goes on, handles made before ask the new opening, and nothing of the last one is left.
    """
    engine = Engine(engines.path if where == "file" else ":memory:", [quick, waiting], grace=2.0)
    async with engine:
        run = await engine.start(waiting(), id="w")
        await engine.drain()
        with pytest.raises(EngineClosedError, match="draining"):
            await engine.start(quick(1))
    async with engine:
        assert await engine.run(quick(1)) == 1
        if where == "memory":
            assert [info.run_id async for info in engine.runs(workflow="waiting")] == []
        else:
            await run.signal("go", "x")
            assert await run.result(5) == "x"


async def test_an_engine_that_could_not_be_opened_can_be_tried_again(engines):
    """
    Once whatever was in its way is gone.
    """
    owner = await engines.file(quick)
    engine = Engine(engines.path, [quick])
    with pytest.raises(JournalLockedError):
        await engine.open()
    await owner.aclose()
    async with engine:
        assert await engine.run(quick(1)) == 1


async def test_an_open_engine_cannot_be_opened(engines):
    """
    Neither while it is open, nor while it is being opened or closed; that does not harm it.
    """
    engine = await engines.file(quick)
    with pytest.raises(UsageError, match="is open"):
        await engine.open()
    assert await engine.run(quick(1)) == 1
    second = Engine(engines.path, [quick], standby=True)
    opening = asyncio.create_task(second.open())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="about to be"):
        await second.open()
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="is open"):
        await engine.open()
    await closing
    await opening
    assert await second.run(quick(2)) == 2
    await second.aclose()


async def test_closing_gives_up_an_opening(engines):
    """
    A standby that is closed while it waits gets the file never: whoever opens it is told, and the next one gets it.
    """
    owner = await engines.file(quick)
    standby = Engine(engines.path, [quick], standby=True)
    opening = asyncio.create_task(standby.open())
    await asyncio.sleep(0.02)
    await standby.aclose()
    with pytest.raises(EngineClosedError, match="while it was being opened"):
        await opening
    await owner.aclose()
    engine = await engines.file(quick)
    assert await engine.run(quick(1)) == 1


async def test_closing_leaves_no_thread_task_or_descriptor(engines):
    """
    After sync steps, transactions, clients and a backup, everything is as it was before.
    """
    from durable import Client, transaction

    @step
    def threaded() -> int:
        return 1

    @transaction
    async def looks(tx) -> int:
        return (await tx.execute("SELECT 1")).fetchone()[0]

    @workflow
    async def busy() -> Flow[int]:
        value: int = yield threaded()
        value += yield looks()
        yield Return(value)

    async def use():
        engine = await engines.file(busy, waiting)
        assert await engine.run(busy()) == 2
        await engine.start(waiting())
        async with Client(engines.path) as client:
            assert (await client.get((await engine.start(waiting(), key="k")).id).info()).key == "k"
            await client.run(busy())
        await engine.aclose()

    others = threading.enumerate()  # functions of earlier tests that never end, among them
    await use()  # what asyncio and anyio keep for the loop's own life is there now
    gc.collect()
    before = descriptors(), {thread.name for thread in threading.enumerate()}, asyncio.all_tasks()
    await use()
    for _ in range(200):  # transports close in turns of the loop; what earlier tests left may still be closing too
        await asyncio.sleep(0.01)
        gc.collect()
        if not descriptors() - before[0] and asyncio.all_tasks() == before[2]:
            break
    assert not descriptors() - before[0]
    # Workers of anyio's pool and of the loop's own executor ("asyncio_1") come and go with the loop.
    ours = [thread.name for thread in threading.enumerate() if not thread.name.startswith(("AnyIO", "asyncio_"))]
    assert set(ours) <= before[1]
    assert not [each for each in threading.enumerate() if each.name.startswith("durable") and each not in others]
    assert asyncio.all_tasks() == before[2]


async def test_a_step_in_a_thread_that_never_ends_does_not_hold_the_closing(engines):
    """
    It is abandoned: `aclose` returns by its deadline.
    """
    began, go, returned = threading.Event(), threading.Event(), []

    @job
    def stuck() -> None:
        began.set()
        go.wait(4.5)  # if nobody says otherwise, the grace is 5 s
        returned.append(True)

    engine = await engines.file(stuck, grace=0.05)
    await engine.start(stuck())
    await asyncio.to_thread(began.wait, 5)
    await engine.aclose()
    assert returned == []
    go.set()


async def test_a_second_engine_is_refused_at_once(engines):
    """
    JournalLockedError, naming the process that owns the file; it does not wait for its end.
    """
    await engines.file(quick)
    with pytest.raises(JournalLockedError, match=f"pid {os.getpid()}"):
        await engines.file(quick)


async def test_a_standby_takes_over(engines, eventually):
    """
    `standby=True` waits for the file, says for whom, and goes on with its runs.
    """
    engine = await engines.file(waiting)
    run = await engine.start(waiting(), id="r")
    with capture_logs() as logs:
        taking_over = asyncio.create_task(engines.file(waiting, standby=True))

        async def is_told():
            return [each["holder"] for each in logs if each["event"] == "engine.standing_by"]

        await eventually(is_told)
    assert (await is_told())[0].startswith(f"an engine, pid {os.getpid()} ")
    assert not taking_over.done()
    await run.signal("go", "x")
    await run.result(5)
    await engine.aclose()
    second = await asyncio.wait_for(taking_over, 5)
    assert await second.get("r").result(5) == "x"


async def test_a_standby_can_be_given_up(engines):
    """
    Cancelling the wait leaves the file to its owner, and later to others.
    """
    engine = await engines.file(quick)
    standing_by = asyncio.create_task(engines.file(quick, standby=True))
    await asyncio.sleep(0.02)
    standing_by.cancel()
    with pytest.raises(asyncio.CancelledError):
        await standing_by
    assert await engine.run(quick(1)) == 1
    await engine.aclose()
    engine = await engines.file(quick, standby=True)
    assert await engine.run(quick(2)) == 2


async def test_an_engine_opens_in_a_process_of_its_own_only_when_free(engines, tmp_path):
    """
    Another process is refused too, and gets the file the moment this one lets go.
    """
    engine = await engines.file(quick)
    script = textwrap.dedent(
        """
        import asyncio, sys
        from durable import Engine, JournalLockedError, job

        @job
        async def quick(number: int) -> int:
            return number

        async def main():
            try:
                async with Engine(sys.argv[1], [quick]) as engine:
                    print(await engine.run(quick(5)))
            except JournalLockedError as error:
                print("locked by", error.holder)

        asyncio.run(main())
        """
    )

    async def other():
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script, engines.path], capture_output=True, text=True, env=env
        )
        return done.stdout

    assert f"locked by an engine, pid {os.getpid()}" in await other()
    await engine.aclose()
    assert "5" in (await other()).splitlines()


@pytest.mark.parametrize("kind", ["foreign", "newer", "text"])
async def test_a_file_that_is_not_ours_is_refused_untouched(engines, kind):
    """
    Another one's tables of our names, a newer release's journal, no database at all: not a byte changes.
    """
    path = engines.path
    if kind == "text":
        path.write_bytes(b"not a database, but long enough to be looked at as one " * 40)
    elif kind == "newer":
        engine = await engines.file(quick)
        await engine.aclose()
        sql(path, "UPDATE durable_meta SET value = 99 WHERE name = 'schema'")
    else:
        sql(path, "CREATE TABLE durable_runs (x)")
    before = path.read_bytes()
    with pytest.raises(JournalVersionError if kind == "newer" else ForeignJournalError) as refused:
        await engines.file(quick)
    if kind == "newer":
        assert "written by a newer release (schema 99, this one knows 5): upgrade durable" in str(refused.value)
    assert path.read_bytes() == before
    assert not path.with_name(path.name + "-wal").exists()


@pytest.mark.parametrize(
    "before, after",
    [
        ("CREATE TABLE theirs (x); PRAGMA user_version = 12; PRAGMA application_id = 77", ""),
        ("CREATE TABLE runs (a); CREATE TABLE history (a)", "PRAGMA user_version = 1"),
        ("", "CREATE TABLE theirs (x); PRAGMA user_version = 12"),
        ("", "PRAGMA user_version = 2; PRAGMA application_id = 77"),
        ("", "PRAGMA user_version = 0"),
    ],
)
async def test_the_header_of_a_file_is_the_applications(engines, before, after):
    """
    Its `user_version` and `application_id` may be what they like, before the journal is made or later; they stay.
    """
    sql(engines.path, before)
    (version,), (application,) = header(engines.path)
    engine = await engines.file(quick)
    assert await engine.run(quick(1)) == 1
    await engine.aclose()
    assert header(engines.path) == [(version,), (application or APPLICATION_ID,)]  # one of ours, where there is none
    sql(engines.path, after)
    marks = header(engines.path)
    engine = await engines.file(quick)
    assert await engine.run(quick(2)) == 2
    async with Client(engines.path) as client:
        assert await client.run(quick(3)) == 3
    await engine.aclose()
    assert header(engines.path) == marks
    doctor = [sys.executable, "-m", "durable", "doctor", "--db", str(engines.path)]
    assert subprocess.run(doctor, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode == 0


def sql(path, script):
    """
    What the application does to the file by itself.
    """
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.executescript(script)


def header(path):
    """
    The two numbers in a file's header that SQLite leaves to the application.
    """
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return [conn.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")]


async def test_an_applications_own_database_becomes_a_journal_beside_its_tables(engines):
    """
    A plain database without marks of its own is taken in; its tables stay.
    """
    conn = sqlite3.connect(engines.path)
    conn.execute("CREATE TABLE mine (x)")
    conn.execute("INSERT INTO mine VALUES (42)")
    conn.commit()
    conn.close()
    engine = await engines.file(quick)
    assert await engine.run(quick(1)) == 1
    assert await engine._backend.read(lambda c: c.execute("SELECT x FROM mine").fetchone()[0]) == 42


async def test_files_are_private(engines):
    """
    Database, WAL, lock and socket have mode 0600.
    """
    engine = await engines.file(quick)
    await engine.run(quick(1))
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in engines.path.parent.iterdir()}
    assert {"app.db", "app.db-wal", "app.db.lock", "app.db.sock"} <= set(found)
    assert set(found.values()) == {0o600}
    await engine.aclose()
    left = sorted(path.name for path in engines.path.parent.iterdir())
    assert left == ["app.db", "app.db.lock"]


async def test_a_directory_that_is_not_there(engines, tmp_path):
    """
    JournalAccessError names the path; nothing is left open.
    """
    before = descriptors()
    with pytest.raises(JournalAccessError, match="nowhere"):
        await Engine(tmp_path / "nowhere" / "app.db", [quick]).open()
    assert descriptors() == before


async def test_a_failed_opening_leaves_the_file_free(engines, monkeypatch):
    """
    Whatever goes wrong while opening, the lock is given back, and the next engine opens.
    """
    from durable._shell.engine import running as module

    async def broken(self):
        raise RuntimeError("no socket today")

    with monkeypatch.context() as patch:
        patch.setattr(module.Server, "start", broken)
        with pytest.raises(RuntimeError, match="no socket"):
            await engines.file(quick)
    engine = await engines.file(quick)
    assert await engine.run(quick(1)) == 1


async def test_a_forked_child_may_not_use_the_engine(engines):
    """
    It is told to open its own; the parent keeps the lock.
    """
    engine = await engines.file(quick)
    heard, tells = os.pipe()
    if not (child := os.fork()):
        try:
            told = [str(engine.health())]
            try:
                engine.start(quick(1)).send(None)
            except BaseException as error:
                told.append(f"{type(error).__name__}: {error}")
            os.write(tells, "\n".join(told).encode())
        finally:
            os._exit(0)
    os.close(tells)
    os.waitpid(child, 0)
    with open(heard, encoding="utf-8") as said:
        belongs = f"belongs to process {os.getpid()}, from which this one was forked: open it after forking"
        assert said.read().splitlines() == [f"closed: it {belongs}", f"EngineClosedError: this engine {belongs}"]
    assert await engine.run(quick(1)) == 1


async def test_an_engine_whose_file_was_deleted_stops_loudly(engines, monkeypatch):
    """
    Commits must not go where nobody will find them: callers are told, and closing still works.
    """
    from durable._shell.tasks import housekeeping as module

    monkeypatch.setattr(module, "IDENTITY_SECONDS", 0.01)
    engine = await engines.file(waiting)
    run = await engine.start(waiting())
    asking = asyncio.create_task(run.result())
    await asyncio.sleep(0)
    engines.path.unlink()
    with pytest.raises(EngineClosedError, match="failed"):
        await asyncio.wait_for(asking, 5)
    with pytest.raises(EngineClosedError):
        await engine.start(waiting())
    await engine.aclose()


async def test_an_error_in_the_body_of_async_with_closes_the_engine(engines):
    """
    The error comes through, and the file is free.
    """
    with pytest.raises(LookupError):
        async with Engine(engines.path, [quick]) as engine:
            await engine.run(quick(1))
            raise LookupError
    engine = await engines.file(quick)
    assert await engine.run(quick(2)) == 2


def test_the_process_ends_although_nobody_closed(tmp_path):
    """
    A crash in user code leaves no thread that keeps the process alive.
    """
    script = textwrap.dedent(
        """
        import asyncio, sys
        from durable import Engine, Flow, job, sleep, step, workflow

        @job
        def threaded(number: int) -> int:
            return number

        @workflow
        async def long() -> Flow[None]:
            yield sleep(1000)

        @job
        async def hangs() -> None:
            await asyncio.Event().wait()

        @step
        async def hangs_too() -> None:
            await asyncio.Event().wait()

        @workflow
        async def stepping() -> Flow[None]:
            yield hangs_too()

        async def main():
            engine = Engine(sys.argv[1], [threaded, long, hangs, stepping])
            await engine.open()
            await engine.run(threaded(5))
            await engine.start_many([long(), hangs(), stepping()])
            await asyncio.sleep(0.05)
            raise LookupError("crash in user code")

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "app.db")],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    assert "crash in user code" in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1  # of ours none, as "Event loop is closed"


async def test_an_engine_that_fails_while_steps_run_still_closes_in_time(engines, monkeypatch):
    """
    A bug that ends the scheduler: callers are told, steps are cut off, and the file is free.
    """
    began = asyncio.Event()

    @job
    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    engine = await engines.file(hangs, waiting)
    run = await engine.start(hangs(), id="h")
    await began.wait()
    asking = asyncio.create_task(run.result())
    await asyncio.sleep(0)

    async def broken(_):
        raise RuntimeError("a bug")

    engine._backend.running.supervisor.spawn(broken, None)
    with pytest.raises(EngineClosedError, match="a bug"):
        await asyncio.wait_for(asking, 5)
    async with asyncio.timeout(4.5):  # less than its grace: what runs is cut off at once
        await engine.aclose()
    began.clear()
    engine = await engines.file(hangs, waiting)
    await asyncio.wait_for(began.wait(), 5)
    assert "StepRetrying" not in [event.kind for event in await engine.get("h").history()]
