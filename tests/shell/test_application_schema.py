"""
The application's own tables: made once, changed by what is new, and never half-way.
"""

import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from durable import DefinitionError, Engine, MigrationError, Transaction, transaction

pytestmark = pytest.mark.anyio

SCHEMA = """
-- the orders; of tea, mostly
CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT DEFAULT 'a;b');
CREATE TRIGGER seen AFTER INSERT ON orders BEGIN
    UPDATE orders SET item = item || ';' WHERE id = new.id;
END;
"""


def columns(path):
    with closing(sqlite3.connect(path)) as conn:
        return [name for (name,) in conn.execute("SELECT name FROM pragma_table_info('orders')")]


def add_a_price(tx):
    tx.execute("ALTER TABLE orders ADD COLUMN price INTEGER")
    tx.execute("UPDATE orders SET price = 5")


async def opened(path, *migrations, schema=SCHEMA):
    async with Engine(path, [], schema=schema, migrations=migrations):
        pass


async def test_a_file_gets_the_steps_that_it_has_not_had(tmp_db):
    """
    Whatever it has had: in the end a new file and an old one are alike.
    """
    await opened(tmp_db)
    await opened(tmp_db)
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        conn.execute("INSERT INTO orders DEFAULT VALUES")
    await opened(tmp_db, add_a_price)
    assert columns(tmp_db) == ["id", "item", "price"]
    await opened(tmp_db, add_a_price, ["ALTER TABLE orders ADD COLUMN note TEXT", "CREATE INDEX i ON orders (note);"])
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        assert conn.execute("SELECT * FROM orders").fetchall() == [(1, "a;b;", 5, None)]
    other = tmp_db.with_name("new.db")
    await opened(other, add_a_price, ["ALTER TABLE orders ADD COLUMN note TEXT"])
    assert columns(other) == columns(tmp_db) == ["id", "item", "price", "note"]


@pytest.mark.parametrize("broken", ["ALTER TABLE nothing ADD COLUMN x", lambda tx: 1 / 0, "DELETE FROM durable_runs"])
async def test_a_migration_that_fails_half_way_leaves_the_file_as_it_was(tmp_db, broken):
    """
    Those before it, of the same opening, are undone, too; the error says which it was, and the file is free.
    """
    await opened(tmp_db)
    with pytest.raises(
        MigrationError, match=r"Engine\(migrations=\[\.\.\.\]\[1\]\) failed, and the file is as it was"
    ) as failed:
        await opened(tmp_db, add_a_price, broken)
    assert (failed.value.path, failed.value.step) == (str(tmp_db), "migrations=[...][1]")
    assert failed.value.__cause__ is not None
    assert columns(tmp_db) == ["id", "item"]
    await opened(tmp_db, add_a_price)
    assert columns(tmp_db) == ["id", "item", "price"]


async def coroutine(tx):
    tx.execute("ALTER TABLE orders ADD COLUMN price INTEGER")


def generator(tx):
    yield tx.execute("ALTER TABLE orders ADD COLUMN price INTEGER")


@pytest.mark.parametrize("function", [coroutine, generator])
async def test_a_function_that_only_promises_to_run_is_no_migration(tmp_db, function):
    """
    It would count as done, and nothing of it would be.
    """
    await opened(tmp_db)
    with pytest.raises(MigrationError, match=r"gave .*, and ran nothing: give a plain function of the transaction"):
        await opened(tmp_db, function)
    await opened(tmp_db, add_a_price)
    assert columns(tmp_db) == ["id", "item", "price"]


async def test_an_older_program_is_let_in_and_told(tmp_db):
    """
    A release is rolled back at night: its tables are the newer ones.
    """
    await opened(tmp_db, add_a_price)
    with capture_logs() as logs:
        await opened(tmp_db)
    notices = [
        entry["notice"] for entry in logs if entry["event"] == "journal.notice" and "migrations" in entry["notice"]
    ]
    assert notices == ["its tables had 2 steps of schema= and migrations=, and this program knows 1"]


@transaction
def add_a_note(tx: Transaction) -> None:
    tx.execute("ALTER TABLE orders ADD COLUMN note TEXT")


async def test_a_transaction_names_the_function_that_is_meant(tmp_db):
    """
    Calling it makes an op, and runs nothing.
    """
    with pytest.raises(DefinitionError, match=r"Engine\(migrations=\[\.\.\.\]\[0\]\) .* give add_a_note\.fn"):
        Engine(tmp_db, [], schema=SCHEMA, migrations=[add_a_note])
    await opened(tmp_db, add_a_note.fn)
    assert columns(tmp_db) == ["id", "item", "note"]


@pytest.mark.parametrize(
    "options",
    [{"migrations": ["SELECT 1"]}, {"schema": 5}, {"schema": [5]}, {"schema": "", "migrations": "SELECT 1"}],
)
def test_what_is_no_schema_is_refused(options):
    """
    When the engine is made.
    """
    with pytest.raises(DefinitionError):
        Engine(":memory:", [], **options)
