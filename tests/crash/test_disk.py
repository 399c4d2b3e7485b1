"""
Full and failing disks: nothing is acknowledged, nothing is lost, no step runs twice, it goes on by itself.

Real failures where the machine can make them (a page limit, a file size limit), and a database
whose COMMIT raises at every place in turn, having committed or not, where it cannot.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from durable import (
    AsyncTransaction,
    Engine,
    Flow,
    Return,
    Transaction,
    gather,
    job,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.storage import connections, database
from durable._shell.storage.connections import CommitUnknownError
from durable._shell.turns import driver, services
from durable.errors import JournalFullError, JournalIOError

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


@pytest.fixture
def app_db(tmp_db):
    with contextlib.closing(sqlite3.connect(tmp_db)) as app:
        app.execute("CREATE TABLE app (mark TEXT)")
        app.commit()
    return tmp_db


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as app:
        return sorted(mark for (mark,) in app.execute("SELECT mark FROM app"))


@step
async def big(name: str) -> str:
    calls.append(name)
    return name * 10_000


@step
async def slow(name: str) -> str:
    calls.append(name)
    await asyncio.sleep(0.02)
    return name


@job
async def child(name: str) -> str:
    calls.append(name)
    return name


@transaction
def keep(tx: Transaction, mark: str) -> None:
    tx.execute("INSERT INTO app VALUES (?)", (mark,))


@transaction
def keep_much(tx: Transaction, mark: str) -> None:
    tx.execute("INSERT INTO app VALUES (?)", (mark * 10_000,))


@transaction
async def keep_slowly(tx: AsyncTransaction, mark: str) -> None:
    await tx.execute("INSERT INTO app VALUES (?)", (mark,))


@workflow
async def grower(name: str, pad: str) -> Flow[int]:
    """Takes more room with each step, once it is told to."""
    yield wait_for("go")
    size = 0
    for number in range(5):
        text: str = yield big(f"{name}{number}")
        size += len(text)
    yield keep_much(name)
    yield Return(size)


@workflow
async def mixed() -> Flow[list[str]]:
    """Every kind of commit there is."""
    first: str = yield big("a")
    yield keep("row 1")
    children: list[str] = yield gather(child("b"), child("c"))
    yield keep_slowly("row 2")
    yield sleep(0.001)
    both: list[str] = yield gather(big("d"), slow("e"), keep("row 3"), keep_slowly("row 4"))
    yield keep("row 5")
    yield Return([first[0], *children, *(text[0] for text in both[:2])])


async def test_a_full_file_refuses_starts_and_makes_running_runs_wait_until_there_is_room(app_db):
    """P11: no acknowledgement, no busy loop, no step again; when there is room it all goes on by itself."""
    async with Engine(app_db, [grower]) as engine:
        runs = [await engine.start(grower(name, "")) for name in "vwxyz"]
        writer = engine._backend.running.database

        def limit(pages):
            def set_it(conn):
                (count,) = conn.execute("PRAGMA page_count").fetchone()
                conn.execute(f"PRAGMA max_page_count = {pages or count}").fetchone()

            return writer.write(set_it)

        for run in runs:
            await run.signal("go")
        await limit(None)
        async with asyncio.timeout(10):
            while (await engine.stats()).trouble is None:
                await asyncio.sleep(0.01)
        with pytest.raises(JournalFullError):
            await engine.start(grower("n", "n" * 30_000), key="refused")
        attempts, real = [], writer.write

        async def counted(fn, *then):
            attempts.append(fn)
            return await real(fn, *then)

        writer.write = counted
        await asyncio.sleep(1.0)
        del writer.write
        assert 1 <= len(attempts) <= 20
        assert {(await run.info()).status for run in runs} <= {"running", "pending", "waiting"}
        await limit(1_000_000)
        async with asyncio.timeout(15):
            assert [await run.result() for run in runs] == [100_000] * 5
            await (await engine.start(grower("n", ""), key="refused")).signal("go")
        assert (await engine.stats()).trouble is None
    assert len([name for name in calls if name[0] in "vwxyz"]) == 25
    assert len({*calls}) == len(calls)
    assert len([mark for mark in rows(app_db) if mark[0] in "vwxyz"]) == 5


class FailingCommits:
    """COMMITs of which the *nth* raises: with its work done, or undone."""

    def __init__(self, monkeypatch, nth, done):
        self.left, self.done, self.hit = nth, done, False
        real = connections.commit

        def commit(conn, path):
            self.left -= 1
            if self.left:
                return real(conn, path)
            self.hit = True
            if self.done:
                real(conn, path)
            conn.close()
            raise CommitUnknownError(path, JournalIOError(path, "injected"))

        for module in (connections, database):
            monkeypatch.setattr(module, "commit", commit)
        for module in (driver, services):
            monkeypatch.setattr(module, "RELOAD_PAUSE", 0.01)


@pytest.mark.parametrize("commits", ["thread", "inline"])
@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
async def test_a_commit_of_unknown_outcome_repeats_no_step_and_stops_no_run(tmp_path, monkeypatch, done, commits):
    """P10: at every commit of a run, one by one: the file is asked, and neither guess is ever taken."""
    nth, hit = 0, True
    while hit:
        nth += 1
        calls.clear()
        path = tmp_path / f"{nth}.db"
        with contextlib.closing(sqlite3.connect(path)) as app:
            app.execute("CREATE TABLE app (mark TEXT)")
            app.commit()
        with monkeypatch.context() as patch:
            async with Engine(path, [mixed, child], durability="process", commits=commits) as engine:
                failing = FailingCommits(patch, nth, done)
                async with asyncio.timeout(10):
                    try:
                        run = await engine.start(mixed(), key="one")
                    except JournalIOError:
                        assert not done
                        run = await engine.start(mixed(), key="one")
                    assert await run.result() == ["a", "b", "c", "d", "e"], nth
                    assert len([each async for each in engine.runs(workflow=mixed)]) == 1
                    hit = failing.hit
        assert sorted(calls) == ["a", "b", "c", "d", "e"], nth
        assert rows(path) == [f"row {number}" for number in range(1, 6)], nth
    assert nth > 8


async def test_who_asks_while_the_file_cannot_be_opened_again_is_refused_and_not_kept_waiting(app_db, monkeypatch):
    """P11: a full disk is not opened (SQLite would die of it), so no group fails of which callers could hear."""
    async with Engine(app_db, [mixed, child]) as engine:
        with monkeypatch.context() as patch:
            FailingCommits(patch, 1, done=True)

            def is_full(path, **_):
                raise JournalFullError(path, "injected")

            patch.setattr(database, "check_place", is_full)
            first = asyncio.create_task(engine.start(mixed(), key="one"))
            with pytest.raises(CommitUnknownError):
                await asyncio.wait_for(first, 5)
            with pytest.raises(JournalFullError, match="injected"):
                await asyncio.wait_for(engine.start(mixed(), key="two"), 5)
        async with asyncio.timeout(10):
            run = await engine.start(mixed(), key="two")
            assert await run.result() == ["a", "b", "c", "d", "e"]


def in_child(script, *arguments, timeout=30):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False,
    )  # fmt: skip


WRITES_FAIL = """
import asyncio, logging, resource, sys
import structlog
from durable import Engine, Flow, Return, step, workflow
from durable.errors import JournalError

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
calls = []

@step
async def big(number: int) -> str:
    calls.append(number)
    return str(number) * 9_000

@workflow
async def grow() -> Flow[int]:
    size = 0
    for number in range(10, 40):
        text: str = yield big(number)
        size += len(text)
    yield Return(size)

async def main():
    async with Engine(sys.argv[1], [grow]) as engine:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        run = await engine.start(grow())
        async with asyncio.timeout(10):
            while (await engine.stats()).trouble is None:
                await asyncio.sleep(0.01)
        stuck = len(calls)
        try:
            await asyncio.wait_for(engine.start(grow()), 8)
            print("acknowledged")
        except JournalError as error:
            print("refused")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        async with asyncio.timeout(15):
            print(await run.result(), stuck < 30, calls == list(range(10, 40)))

asyncio.run(main())
"""


def test_writes_that_fail_are_waited_out_and_no_step_runs_again(tmp_db):
    """EFBIG from a real limit, an I/O error to SQLite: the file is opened anew, read back, and it goes on."""
    done = in_child(WRITES_FAIL, tmp_db)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["refused", "540000 True True"]


@pytest.mark.parametrize(
    "body, code",
    [
        ("raise KeyError('user')", 1),
        ("sys.exit(7)", 7),
        ("await engine.run(boom())", 1),
        ("asyncio.get_running_loop().call_soon(lambda: 1 / 0); await asyncio.sleep(0.05)", 0),
    ],
)
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "never closed"])
def test_a_process_can_always_end_after_a_crash_in_user_code(tmp_db, body, code, closes):
    """P13, within a second on a machine that is not busy: no thread of ours keeps it alive, closed or not."""
    script = f"""
        import asyncio, sys, time
        from durable import Engine, Flow, job, workflow

        @job
        def boom() -> None:
            raise ValueError("user")

        async def main():
            engine = Engine(sys.argv[1], [boom])
            await engine.open()
            global began
            began = time.monotonic()
            try:
                {body}
            finally:
                if {closes}:
                    await engine.aclose()

        import atexit
        atexit.register(lambda: print(time.monotonic() - began < 4.5))  # nothing is waited for: the grace is 5 s
        asyncio.run(main())
    """
    done = in_child(script, tmp_db)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1:] == ["True"], done.stdout
