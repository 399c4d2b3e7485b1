"""
What spoils a commit spoils it for itself: all others who shared it are written, and the engine goes on.
"""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from durable import Flow, Return, gather, job, sleep, step, transaction, workflow
from durable._shell.rows.rows import Effects
from durable._shell.writes.apart import apart
from durable.errors import JournalError, RunBlockedError, RunFailedError, TransactionRefusedError

pytestmark = pytest.mark.anyio


def add(conn, numbers, effects):
    """
    Write *numbers*, none of which may be there yet.
    """
    conn.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in numbers])
    effects.arrived.update(numbers)


@pytest.fixture
def numbers():
    """
    A table of numbers that holds 3 and 6, in an open transaction.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        conn.executemany("INSERT INTO numbers VALUES (?)", [(3,), (6,)])
        conn.execute("BEGIN")
        yield conn


@pytest.mark.parametrize("members", [[], [1], [3], [1, 2], [3, 6], [1, 2, 3, 4, 5, 6, 7], list(range(10, 30))])
def test_only_what_fails_alone_is_left_out(numbers, members):
    """
    The others are written, and only what they caused is told.
    """
    effects = Effects()
    refused = apart(numbers, members, add, effects)
    guilty = {3, 6} & set(members)
    assert {member for member, _ in refused} == guilty
    assert all(isinstance(error, sqlite3.IntegrityError) for _, error in refused)
    assert effects.arrived == set(members) - guilty
    assert {number for (number,) in numbers.execute("SELECT number FROM numbers")} == {3, 6} | set(members)
    assert numbers.in_transaction


def test_what_is_nobodys_fault_is_not_laid_on_a_member(numbers):
    """
    The machine's errors, and a transaction that is gone, are for all.
    """

    def full(*_):
        raise MemoryError

    def undo(conn, *_):
        conn.execute("INSERT OR ROLLBACK INTO numbers VALUES (3)")

    with pytest.raises(MemoryError):
        apart(numbers, [1, 2], full, Effects())
    with pytest.raises(sqlite3.IntegrityError):
        apart(numbers, [1, 2], undo, Effects())


@step
async def ok(number: int) -> int:
    return number


@transaction
def note(tx, number: int) -> int:
    tx.execute("INSERT INTO good VALUES (?)", (number,))
    return number


@workflow
async def innocent(number: int) -> Flow[int]:
    yield sleep(0.01)
    await note(number)
    yield sleep(0.01)
    yield Return(number)


@job
async def child(number: int) -> int:
    return number


@workflow
async def parent(number: int) -> Flow[int]:
    got: int = yield child(number)
    yield Return(got)


TABLES = """
CREATE TABLE good (number INTEGER PRIMARY KEY);
CREATE TABLE before (number);
CREATE TABLE unique_ones (number INTEGER PRIMARY KEY ON CONFLICT ROLLBACK);
INSERT INTO unique_ones VALUES (1);
CREATE TABLE guarded (number);
CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'never'); END;
CREATE TABLE owners (owner INTEGER PRIMARY KEY);
CREATE TABLE owned (owner REFERENCES owners DEFERRABLE INITIALLY DEFERRED);
"""


@pytest.fixture
def tables(tmp_db):
    """
    The file, with tables of an application's in it.
    """
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.executescript(TABLES)
    return tmp_db


def rows_of(path, table):
    """
    What is in *table*.
    """
    with closing(sqlite3.connect(path)) as conn:
        return [number for (number,) in conn.execute(f"SELECT * FROM {table} ORDER BY 1")]


async def crowd(engine, start, *, rounds=3):
    """
    Innocent runs, with one of another kind in between; how that one ended.
    """
    tasks, ends = [], []
    for number in range(rounds):
        tasks += [asyncio.create_task(engine.run(innocent(10 * number + each))) for each in range(5)]
        ends.append(await start(number))
        await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        assert sorted(await asyncio.gather(*tasks)) == [10 * n + each for n in range(rounds) for each in range(5)]
    return ends


UNDOING = {
    "conflict": "INSERT INTO unique_ones VALUES (1)",
    "trigger": "INSERT INTO guarded VALUES (1)",
    "deferred": "INSERT INTO owned VALUES (7)",
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("swallows", [False, True], ids=["raises", "swallows"])
@pytest.mark.parametrize("how", UNDOING)
async def test_a_transaction_that_ends_the_commit_from_inside_fails_alone(engines, tables, how, swallows, is_async):
    """
    Its rows are gone, before and after; those of its neighbours are there once; its run has an end.
    """

    def swallowed(error):
        if not swallows:
            raise error

    @transaction(name="undoes")
    def undoes(tx, number: int) -> int:
        tx.execute("INSERT INTO before VALUES (?)", (number,))
        try:
            tx.execute(UNDOING[how])
        except sqlite3.IntegrityError as error:
            swallowed(error)
        tx.execute("INSERT INTO before VALUES (?)", (number,))
        return number

    @transaction(name="undoes")
    async def undoes_async(tx, number: int) -> int:
        await tx.execute("INSERT INTO before VALUES (?)", (number,))
        try:
            await tx.execute(UNDOING[how])
        except sqlite3.IntegrityError as error:
            swallowed(error)
        await tx.execute("INSERT INTO before VALUES (?)", (number,))
        return number

    @workflow
    async def guilty(number: int) -> Flow[int]:
        yield gather(undoes_async(number) if is_async else undoes(number), ok(number))

    engine = await engines.file(innocent, guilty)
    runs = await crowd(engine, lambda number: engine.start(guilty(number), id=f"guilty-{number}"))
    for run in runs:
        with pytest.raises(RunFailedError) as failed:
            await run.result(20)
        (cause,) = failed.value.__cause__.exceptions
        assert isinstance(cause, sqlite3.IntegrityError if how == "deferred" else TransactionRefusedError)
    assert len(rows_of(tables, "good")) == 15
    assert not rows_of(tables, "before")
    assert not rows_of(tables, "owned")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR ROLLBACK INTO unique_ones VALUES (1)",
        "update /* or */ or\n rollback good SET number = 1",
        "CREATE TABLE another (a UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TRIGGER g BEFORE INSERT ON good BEGIN SELECT RAISE (ROLLBACK, 'x'); END",
    ],
)
async def test_sql_that_says_so_is_refused(engines, tables, sql):
    """
    With what to write instead, before it is executed. The words in a text are harmless.
    """

    @transaction
    def undoes(tx, text: str) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS texts (a); -- or rollback")
        tx.execute("INSERT INTO texts VALUES ('do this OR ROLLBACK it')")
        tx.execute(text)
        return 1

    @workflow
    async def guilty(text: str) -> Flow[int]:
        yield undoes(text)

    engine = await engines.file(guilty)
    with pytest.raises(RunFailedError) as failed:
        await engine.run(guilty(sql))
    assert isinstance(failed.value.__cause__, TransactionRefusedError)
    assert "use ABORT" in str(failed.value.__cause__)


async def test_a_turn_that_cannot_be_written_blocks_its_run_alone(engines, tables):
    """
    A child's id is taken, by a run that an older release let somebody call so: that is said, and what to do.
    """
    engine = await engines.file(innocent, parent, child)
    await engine.run(child(1), id="taken")

    def rename(conn, effects):
        conn.execute("UPDATE durable_runs SET run_id = 'parent-1~.0' WHERE run_id = 'taken'")

    await engine._backend.running.commits.call(rename)
    runs = await crowd(engine, lambda number: engine.start(parent(number), id=f"parent-{number}"))
    for number, run in enumerate(runs):
        if number == 1:
            with pytest.raises(RunBlockedError, match=r"parent-1.*would be called 'parent-1~.0', as another run is"):
                await run.result(5)
        else:
            assert await run.result(5) == number
    assert len(rows_of(tables, "good")) == 15


async def test_a_request_that_cannot_be_written_fails_alone(engines, tables):
    """
    It gets the error that SQLite gave; all others of its group are written.
    """
    engine = await engines.file(innocent)

    async def refused(number):
        with pytest.raises((sqlite3.Error, OverflowError, JournalError)):
            await engine._backend.running.commits.call(
                lambda conn, _: conn.execute("UPDATE durable_runs SET priority = ?", (2**70,))
            )

    await crowd(engine, refused)
    assert len(rows_of(tables, "good")) == 15
