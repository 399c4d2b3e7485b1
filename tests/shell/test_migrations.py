"""
Files of older releases are brought up to date when they are opened, in one transaction.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durable import Flow, Return, job, workflow
from durable._shell import schema

OLD = sorted(Path(__file__).parent.glob("schema_*.sql"))


@job
def double(number: int) -> int:
    return number * 2


@workflow
async def doubled(number: int) -> Flow[int]:
    yield Return((yield double(number)))


def described(conn):
    """
    What a database consists of, whatever the order in which it came about.
    """
    tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    columns = {name: sorted(row[1:6] for row in conn.execute(f"PRAGMA table_info({name})")) for name in tables}
    indexes = {
        name: [(row[2], row[3]) for row in conn.execute(f"PRAGMA index_xinfo({name})") if row[5]]
        for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
    }
    kinds = conn.execute("SELECT * FROM durable_kinds ORDER BY kind").fetchall()
    views = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view' ORDER BY name").fetchall()
    version = conn.execute("PRAGMA user_version").fetchone()
    return {"columns": columns, "indexes": indexes, "kinds": kinds, "views": views, "version": version}


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_a_migrated_file_equals_a_fresh_one(script, tmp_db):
    """
    Tables, columns, indexes, views and names of events are those of a file that was created today.
    """
    with closing(sqlite3.connect(tmp_db)) as old, closing(sqlite3.connect(":memory:")) as fresh:
        old.executescript(script.read_text())
        old.execute("INSERT INTO durable_meta VALUES ('created_at', 1.0)")
        old.commit()
        schema.prepare(old, 2.0)
        schema.prepare(fresh, 2.0)
        assert described(old) == described(fresh)


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
async def test_an_engine_opens_an_older_file_and_works_on_it(script, engines, tmp_db):
    """
    What is open in it goes on; new runs are started.
    """
    with closing(sqlite3.connect(tmp_db)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(script.read_text())
        old.execute("INSERT INTO durable_meta VALUES ('commits', 0)")
        old.commit()
    engine = await engines.file(double, doubled)
    assert await engine.run(doubled(4)) == 8


def test_a_failed_migration_leaves_the_file_as_it_was(tmp_db):
    """
    One transaction: here the last statement fails, and the version is still the old one.
    """
    with closing(sqlite3.connect(tmp_db)) as old:
        old.executescript(OLD[0].read_text())
        old.execute("DROP TABLE durable_kinds")
        before = old.execute("SELECT sql FROM sqlite_master").fetchall()
        with pytest.raises(sqlite3.OperationalError):
            schema.prepare(old, 2.0)
        assert old.execute("SELECT sql FROM sqlite_master").fetchall() == before
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
