"""
`engine.transact` and `engine.transaction`: the application's rows, and the runs that follow, commit together.
"""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime

import pytest
import sqlalchemy as sa

from durable import (
    AsyncTransaction,
    Client,
    Engine,
    EngineClosedError,
    KeyConflictError,
    Transaction,
    TransactionRefusedError,
    UsageError,
    job,
    step,
    transaction,
    workflow,
)

pytestmark = pytest.mark.anyio

SCHEMA = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE, at TEXT)"
DONE: list[int] = []


@pytest.fixture(autouse=True)
def nothing_is_done():
    DONE.clear()


@job
async def ship(order: int) -> int:
    DONE.append(order)
    return order


@transaction
def create_order(tx: Transaction, item: str) -> int:
    order = tx.execute("INSERT INTO orders (item) VALUES (?)", (item,)).lastrowid or 0
    tx.enqueue(ship(order), key=f"ship-{order}")
    if item == "nothing left":
        raise LookupError(item)
    return order


@transaction
async def create_slowly(tx: AsyncTransaction, item: str) -> int:
    order = (await tx.execute("INSERT INTO orders (item) VALUES (?)", (item,))).lastrowid or 0
    tx.enqueue(ship(order), key=f"ship-{order}")
    await asyncio.sleep(60 if item == "slow" else 0)
    if item == "nothing left":
        raise LookupError(item)
    return order


def items(path):
    with closing(sqlite3.connect(path)) as conn:
        return [item for (item,) in conn.execute("SELECT item FROM orders ORDER BY id")]


@pytest.fixture(params=[create_order, create_slowly])
def create(request):
    return request.param


async def test_rows_and_runs_commit_together(tmp_db, create):
    """
    The value is the function's; the run is there when it returns, with its key, and runs.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        order = await engine.transact(create("tea"))
        run = await engine.find(f"ship-{order}")
        assert await run.result(5) == order
    assert (items(tmp_db), DONE) == (["tea"], [order])


async def test_what_fails_leaves_nothing(tmp_db, create):
    """
    Its own error is raised, as it was; others of its commit group are not touched.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        wanted = [create("tea"), create("nothing left"), create("tea"), create("milk")]
        found = await asyncio.gather(*map(engine.transact, wanted), return_exceptions=True)
        assert [type(each) for each in found] == [int, LookupError, sqlite3.IntegrityError, int]
        assert len([run async for run in engine.runs()]) == 2
    assert items(tmp_db) == ["tea", "milk"]


async def test_a_block_of_statements_is_one_transaction(tmp_db):
    """
    Committed at its end; an error undoes all of it, and the runs that it enqueued.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        async with engine.transaction() as tx:
            await tx.executemany("INSERT INTO orders (item) VALUES (?)", [("tea",), ("milk",)])
            ((count,),) = (await tx.execute("SELECT count(*) FROM orders")).fetchall()
            run_id = tx.enqueue(ship(count))
        assert await engine.get(run_id).result(5) == 2
        with pytest.raises(LookupError):
            async with engine.transaction() as tx:
                await tx.execute("DELETE FROM orders")
                tx.enqueue(ship(0))
                raise LookupError
        with pytest.raises(UsageError, match="has ended"):
            await tx.execute("SELECT 1")
    assert (items(tmp_db), DONE) == (["tea", "milk"], [2])


@pytest.mark.parametrize("form", ["block", "function"])
async def test_who_takes_too_long_is_rolled_back_and_holds_nobody_up(tmp_db, form):
    """
    The writer is everybody's.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s with the writer"):
            if form == "function":
                await engine.transact(create_slowly("slow"), timeout=0.05)
            else:
                async with engine.transaction(timeout=0.05) as tx:
                    await tx.execute("INSERT INTO orders (item) VALUES ('slow')")
                    await asyncio.sleep(60)
        assert await engine.run(ship(7)) == 7
    assert items(tmp_db) == []


async def test_a_timeout_of_the_callers_own_is_his(tmp_db):
    """
    Only the bound of the block has its words.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        with pytest.raises(TimeoutError) as caught:
            async with engine.transaction() as tx:
                await tx.execute("INSERT INTO orders (item) VALUES ('tea')")
                raise TimeoutError("my own")
        assert str(caught.value) == "my own"
    assert items(tmp_db) == []


async def test_a_cancelled_block_leaves_nothing(tmp_db):
    """
    A request whose client hung up.
    """
    begun = asyncio.Event()
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:

        async def handler():
            async with engine.transaction() as tx:
                await tx.execute("INSERT INTO orders (item) VALUES ('tea')")
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(handler())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await engine.run(ship(1)) == 1
    assert items(tmp_db) == []


async def test_what_belongs_to_the_engine_is_refused(tmp_db):
    """
    Ending the transaction, our tables, and asking the engine for what would wait for the very transaction.
    """

    @transaction
    def wrong(tx: Transaction, sql: str) -> None:
        tx.execute("INSERT INTO orders (item) VALUES ('tea')")
        tx.execute(sql)

    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        for sql in (
            "COMMIT",
            "ROLLBACK",
            "DELETE FROM durable_runs",
            "INSERT OR ROLLBACK INTO orders VALUES (1, '', '')",
        ):
            with pytest.raises(TransactionRefusedError):
                await engine.transact(wrong(sql))
        async with engine.transaction() as tx:
            for asked in (engine.start(ship(1)), engine.transact(create_order("tea")), engine.find("k")):
                if "find" in asked.__qualname__:
                    with pytest.raises(Exception, match="k"):
                        await asked
                    continue
                with pytest.raises(UsageError, match="that transaction itself"):
                    await asked
            await tx.execute("INSERT INTO orders (item) VALUES ('milk')")
        with pytest.raises(TypeError, match="transact takes a call of a @transaction, found a call of job 'ship'"):
            await engine.transact(ship(1))
    with pytest.raises(EngineClosedError):
        await engine.transact(create_order("tea"))
    assert items(tmp_db) == ["milk"]


async def test_a_trigger_that_ends_the_transaction_harms_its_caller_alone(tmp_db):
    """
    RAISE(ROLLBACK) undoes the whole commit group: it is written again without the guilty one.
    """
    trigger = "CREATE TRIGGER no BEFORE INSERT ON orders WHEN new.item = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        conn.execute(SCHEMA)
        conn.execute(trigger)
    async with Engine(tmp_db, [ship]) as engine:
        wanted = [create_order(item) for item in ("tea", "bad", "milk")]
        found = await asyncio.gather(*map(engine.transact, wanted), return_exceptions=True)
        assert [type(each) for each in found] == [int, TransactionRefusedError, int]
        with pytest.raises(sqlite3.IntegrityError, match="no"):  # it has the writer to itself, and its error with it
            await engine.transact(create_slowly("bad"))
    assert sorted(items(tmp_db)) == ["milk", "tea"]


async def test_a_deferred_constraint_is_the_callers_error(tmp_db):
    """
    It shows at the commit only.
    """

    @transaction
    def orphan(tx: Transaction) -> None:
        tx.execute("INSERT INTO lines VALUES (99)")

    schema = [SCHEMA, "CREATE TABLE lines (of_order INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"]
    async with Engine(tmp_db, [ship], schema=schema) as engine:
        wanted = [create_order("tea"), orphan(), create_order("milk")]
        found = await asyncio.gather(*map(engine.transact, wanted), return_exceptions=True)
        assert [type(each) for each in found] == [int, sqlite3.IntegrityError, int]
        with pytest.raises(sqlite3.IntegrityError):
            async with engine.transaction() as tx:
                await tx.execute("INSERT INTO lines VALUES (99)")
    assert items(tmp_db) == ["tea", "milk"]


async def test_a_key_that_is_taken_is_refused_inside_and_may_be_caught(tmp_db, create):
    """
    With other arguments; then nothing of it is left.
    """
    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        await engine.start(ship(99), key="ship-1")
        with pytest.raises(KeyConflictError):
            await engine.transact(create("tea"))
        assert items(tmp_db) == []


async def test_steps_may_ask_for_transactions_and_workflows_yield_them(tmp_db):
    """
    A step's is at least once, like the step.
    """

    @step
    async def in_a_step() -> int:
        return await engine.transact(create_order("tea"))

    @workflow
    async def asking() -> int:
        return await in_a_step()

    @workflow
    async def wrong() -> int:
        return await engine.transact(create_order("milk"))

    async with Engine(tmp_db, [ship, asking, wrong], schema=SCHEMA) as engine:
        assert await engine.run(asking()) == 1
        with pytest.raises(Exception, match=r"yield \(or await\) create_order"):
            await engine.run(wrong())
    assert items(tmp_db) == ["tea"]


async def test_statements_of_sqlalchemy_are_taken(tmp_db, create):
    """
    Values are bound by their types; what comes back is as SQLite has it.
    """
    orders = sa.Table(
        "orders",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("item", sa.String),
        sa.Column("at", sa.DateTime),
    )
    at = datetime(2026, 11, 30, 12, 0)  # noqa: DTZ001 - as a column of SQLite has it

    @transaction
    def mixed(tx: Transaction) -> list[tuple[int, str]]:
        tx.execute(sa.insert(orders).values(item="tea", at=at))
        tx.execute(sa.insert(orders), {"item": "milk"})
        tx.executemany(sa.insert(orders), [{"item": "jam", "at": at}, {"item": "rice", "at": at}])
        tx.execute(sa.update(orders).where(orders.c.item == "jam").values(item="honey"))
        wanted = sa.select(orders.c.id, orders.c.item, orders.c.at).where(orders.c.item.in_(["tea", "milk", "honey"]))
        return tx.execute(wanted.order_by(orders.c.id)).fetchall()

    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        stored = "2026-11-30 12:00:00.000000"
        assert await engine.transact(mixed()) == [(1, "tea", stored), (2, "milk", None), (3, "honey", stored)]
        async with engine.transaction() as tx:
            found = await tx.execute(sa.select(sa.func.count()).select_from(orders))
            assert found.fetchone() == (4,)
            with pytest.raises(UsageError, match="takes SQL text or an expression"):
                await tx.execute(5)
            computed = sa.Table("orders", sa.MetaData(), sa.Column("item", sa.String, default=lambda: "x"))
            with pytest.raises(UsageError, match=r"defaults that Python computes \(item\)"):
                await tx.execute(sa.insert(computed))


async def test_a_client_has_no_transactions(tmp_db):
    """
    It executes nothing: its functions are here, the file is there.
    """
    async with Engine(tmp_db, [ship]), Client(tmp_db) as client:
        assert not hasattr(client, "transact")


async def test_the_applications_tables_are_read_beside_the_writer(tmp_db):
    """
    On a connection that only reads; an error of the function leaves it as it was.
    """
    kept = []

    def half_read(conn):
        for _ in conn.execute("SELECT item FROM orders"):
            raise LookupError("a row that says nothing")

    def count(conn):
        return conn.execute("SELECT count(*) FROM orders").fetchone()[0]

    async with Engine(tmp_db, [ship], schema=SCHEMA) as engine:
        await engine.transact(create_order("tea"))
        try:
            await engine.read(half_read)
        except LookupError as error:
            kept.append(error)  # and with it the statement that it has not read to its end
        await engine.transact(create_order("milk"))
        assert await engine.read(count) == 2
        with pytest.raises(Exception, match=r"readonly|read-only"):
            await engine.read(lambda conn: conn.execute("DELETE FROM orders"))
    with pytest.raises(EngineClosedError):
        await engine.read(count)
