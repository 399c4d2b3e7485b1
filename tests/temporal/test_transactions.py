"""
`@transaction` in the application's database: rows, outcome and staged runs in one commit; the SQL happens once.
"""

import sqlite3

import pytest

from durable import DefinitionError, Flow, Return, RunFailedError, TransactionRefusedError, job, transaction, workflow
from durable.temporal import AppTransactions

told: list[str] = []


@pytest.fixture(autouse=True)
def nothing_told():
    told.clear()


@transaction
def create_ride(tx, rider: str) -> int:
    number = tx.execute("INSERT INTO rides (rider) VALUES (?)", (rider,)).lastrowid
    tx.enqueue(notify(number))
    return number


@transaction
def create_none(tx) -> None:
    tx.execute("INSERT INTO rides (rider) VALUES ('nobody')")
    tx.enqueue(notify(0))
    raise ValueError("no ride")


@transaction
async def count(tx) -> int:
    return (await tx.execute("SELECT count(*) FROM rides")).fetchone()[0]


@transaction
def commits(tx) -> None:
    tx.execute("COMMIT")


@job
async def notify(ride: int) -> None:
    told.append(f"ride {ride}")


@workflow
async def ride(rider: str) -> Flow[list[int]]:
    number: int = yield create_ride(rider)
    total: int = yield count()
    yield Return([number, total])


@workflow
async def no_ride() -> Flow[int]:
    try:
        yield create_none()
    except ValueError:
        total: int = yield count()
        yield Return(total)


@workflow
async def meddles() -> None:
    await commits()


ALL = [ride, no_ride, meddles, notify]


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "rides.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, rider TEXT)")
    conn.close()
    return lambda: sqlite3.connect(path, timeout=10)


async def test_rows_outcome_and_staged_runs_commit_together(engines, database):
    """
    The run that was staged is started after the commit, under an id that derives from the transaction's.
    """
    engine = await engines(*ALL, transactions=AppTransactions(database))
    run = await engine.start(ride("Ann"))
    assert await run.result() == [1, 1]
    assert await engine.get(f"{run.id}:0.tx0").result() is None
    assert told == ["ride 1"]
    kinds = [event.kind for event in await run.history()]
    assert kinds[1:3] == ["TransactionStarted", "StepSucceeded"]


async def test_nothing_is_left_of_a_transaction_that_raises(engines, database):
    """
    Neither its rows nor the runs that it has staged.
    """
    transactions = AppTransactions(database)
    engine = await engines(*ALL, transactions=transactions)
    assert await engine.run(no_ride()) == 0
    assert told == []


async def test_an_attempt_that_comes_again_finds_the_outcome(engines, database):
    """
    The SQL does not happen twice, and what a worker left in the outbox is started by whoever finds it.
    """
    transactions = AppTransactions(database)
    engine = await engines(*ALL, transactions=transactions)
    commits_, codec = engine._commits, engine._codec
    first = await transactions.transact(create_ride("Ann"), "r:0", codec, commits_.staging)
    again = await transactions.transact(create_ride("Ann"), "r:0", codec, commits_.staging)
    assert first == again == "1"
    assert database().execute("SELECT count(*) FROM rides").fetchone() == (1,)
    assert await engine.get("r:0.tx0").result() is None
    assert await transactions.relay(commits_.staging) == 0
    assert await transactions.forget(older_than=0.0) == 1


async def test_a_transaction_must_not_end_itself(engines, database):
    """
    COMMIT belongs to the engine.
    """
    engine = await engines(*ALL, transactions=AppTransactions(database))
    with pytest.raises(RunFailedError) as failed:
        await engine.run(meddles())
    assert isinstance(failed.value.__cause__, TransactionRefusedError)


async def test_without_a_database_a_transaction_is_refused_when_the_engine_is_made(engines):
    """
    The message names the remedy.
    """
    with pytest.raises(DefinitionError, match="AppTransactions"):
        await engines(*ALL)
