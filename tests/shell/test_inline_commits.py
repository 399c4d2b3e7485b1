"""
Commits on the event loop's thread: only small ones, only while nobody else writes and the disk is quick.
"""

import asyncio
import threading

import pytest

from durable import Engine, Flow, Return, gather, job, step, transaction, wait_for, workflow
from durable._shell.requests.run_requests import StartRuns
from durable._shell.storage import pace
from durable._shell.storage.database import Database
from durable._shell.storage.pace import Pace
from durable.errors import UsageError

pytestmark = pytest.mark.anyio


@pytest.fixture
def quick(monkeypatch):
    """
    Every commit is quick, however busy the machine.
    """
    monkeypatch.setattr(pace, "SHORT", float("inf"))


@pytest.fixture
async def database(tmp_path, quick):
    opened = await Database.open(tmp_path / "app.db", durability="process", inline=True)
    yield opened
    await opened.aclose()


def thread_of(_conn):
    return threading.get_ident()


async def test_it_is_made_on_the_thread_that_asks(database):
    """And committed: the next to look sees it."""
    assert database.may_write_inline
    assert database.write_inline(thread_of) == threading.get_ident()
    assert await database.write(thread_of) != threading.get_ident()
    database.write_inline(lambda conn: conn.execute("CREATE TABLE seen (value)"))
    assert await database.read(lambda conn: conn.execute("SELECT * FROM seen").fetchall()) == []


async def test_what_raises_is_rolled_back(database):
    """As on the writer's thread."""

    def fails(conn):
        conn.execute("CREATE TABLE seen (value)")
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        database.write_inline(fails)
    assert database.write_inline(lambda conn: conn.in_transaction)
    assert not database.write_inline(lambda conn: conn.execute("SELECT name FROM sqlite_schema").fetchall())


async def test_never_while_the_writers_thread_is_at_work(database):
    """Also where nobody awaits any more what it is at: one connection, one thread at a time."""
    entered, go = threading.Event(), threading.Event()

    def wait(_conn):
        entered.set()
        assert go.wait(10)

    writing = asyncio.create_task(database.write(wait))
    assert await asyncio.to_thread(entered.wait, 10)
    assert not database.may_write_inline
    writing.cancel()
    await asyncio.wait([writing])
    assert not database.may_write_inline
    go.set()
    await database.write(thread_of)
    assert database.may_write_inline


async def test_never_inside_a_transaction_of_several_hops(database):
    """It is somebody else's."""
    async with database.exclusive() as transaction:
        await transaction.run(thread_of)
        assert not database.may_write_inline
    assert database.may_write_inline


async def test_never_unasked_nor_after_the_end(tmp_path):
    """The default is the writer's thread."""
    database = await Database.open(tmp_path / "app.db")
    assert not database.may_write_inline
    await database.aclose()
    database = await Database.open(tmp_path / "app.db", inline=True)
    await database.aclose()
    assert not database.may_write_inline


class Conn:
    """What a transaction needs of a connection."""

    in_transaction = True

    def execute(self, _sql):
        pass


def test_slow_commits_are_for_the_thread_until_they_are_quick_again():
    """By itself, in both directions: what counts is a mean of the latest, wherever they were made."""
    now = 0.0

    def takes(seconds):
        def fn(_conn):
            nonlocal now
            now += seconds

        return fn

    measured = Pace(lambda: now)
    assert measured.is_quick
    measured.transact(Conn(), "app.db", takes(0.0003))
    assert measured.is_quick
    measured.transact(Conn(), "app.db", takes(0.05))
    assert not measured.is_quick
    for _ in range(20):
        measured.transact(Conn(), "app.db", takes(0.0003))
    assert measured.is_quick
    with pytest.raises(ZeroDivisionError):
        measured.transact(Conn(), "app.db", lambda _: takes(0.05)(_) or 1 / 0)
    assert not measured.is_quick


async def test_the_pace_decides(database, monkeypatch):
    """Where the disk is slow, the loop does not wait for it."""
    monkeypatch.setattr(pace, "SHORT", 0.0)
    assert not database.may_write_inline
    assert await database.write(thread_of) != threading.get_ident()


@transaction
def where(tx) -> int:
    return threading.get_ident()


@step
async def double(n: int) -> int:
    return 2 * n


@job
async def half(n: int) -> int:
    return n // 2


@workflow
async def everything() -> Flow[list]:
    doubled: int = yield double(1)
    halved: list = yield gather(half(4), half(8))
    said: int = yield wait_for("go", int)
    thread: int = yield where()
    yield Return([doubled, *halved, said, thread])


@pytest.mark.usefixtures("quick")
async def test_an_engine_that_commits_inline_does_the_same(tmp_db, monkeypatch):
    """Steps, jobs, signals; and a transaction of the application's keeps to the writer's thread."""
    inline, real = [], Database.write_inline
    monkeypatch.setattr(Database, "write_inline", lambda self, fn: (inline.append(fn), real(self, fn))[1])
    async with asyncio.timeout(20), Engine(tmp_db, [everything, half], commits="inline") as engine:
        run = await engine.start(everything(), key="one")
        await run.signal("go", 7)
        *values, thread = await run.result()
        assert values == [2, 2, 4, 7]
        assert thread != threading.get_ident()
        assert len({event.seq for event in await run.history()}) > 8
    assert inline
    async with Engine(tmp_db, [everything, half]) as engine:
        assert (await engine.get(run.run_id).result())[:-1] == [2, 2, 4, 7]


@pytest.mark.parametrize("runs, is_short", [(1, True), (50, False)])
def test_many_at_once_are_for_the_thread(runs, is_short):
    """The start of many runs is not what a loop should wait for."""
    assert StartRuns(tuple(range(runs))).is_short is is_short


def test_another_word_is_refused(tmp_db):
    """By name, with what there is."""
    with pytest.raises(UsageError, match=r"commits.*'thread' or 'inline', found 'loop'"):
        Engine(tmp_db, [half], commits="loop")
