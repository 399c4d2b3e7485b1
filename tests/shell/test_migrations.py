"""
Files of older releases are brought up to date when they are opened, in one transaction.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durable import Flow, Return, for_each, job, workflow
from durable._core.run.groups import ForEachNode
from durable._shell.storage import schema, seals
from durable._shell.storage.copies.marks import schema_of
from durable._shell.storage.run_counts import run_counts

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
    version = schema_of(conn)
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
        by_row = schema_of(old) == 4
        schema.prepare(old, 2.0)
        schema.prepare(fresh, 2.0)
        assert described(old) == described(fresh)
        # Releases that kept the number there know a newer file by it; today it is the application's.
        assert old.execute("PRAGMA user_version").fetchone() == (0 if by_row else schema.SCHEMA_VERSION,)


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_the_runs_of_an_older_file_are_counted_and_found_by_their_labels(script, tmp_db):
    """
    As it is migrated; from then on as they begin and end. What are no labels is left alone.
    """
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as old:
        old.executescript(script.read_text())
        row = (
            "INSERT INTO durable_runs (run_id, workflow, version, sort, status, queue, priority, created_at, ended_at)"
        )
        told = [("one", "a", "failed", 2.0), ("two", "a", "failed", 3.0), ("three", "b", "waiting", None)]
        old.executemany(f"{row} VALUES (?, ?, 1, 'workflow', ?, 'q', 0, 1.0, ?)", told)
        labels = [('{"a": "1", "b": "2"}', 1), ('{"a": "1"}', 2), ('["a', 3)]
        old.executemany("UPDATE durable_runs SET labels = ? WHERE run = ?", labels)
        schema.prepare(old, 2.0)
        assert run_counts(old) == [("a", "failed", 2), ("b", "waiting", 1)]
        assert old.execute("SELECT * FROM durable_labels").fetchall() == [("a", "1", 1), ("a", "1", 2), ("b", "2", 1)]


@pytest.mark.parametrize("script", [None, *OLD], ids=lambda path: path.stem if path else "today")
def test_runs_without_attributes_are_not_looked_at(script, tmp_db):
    """
    Every few seconds the rows are looked for that rest unsealed; of runs, a million may be open that have published
    nothing. Two indexes fit.
    """
    asked = []
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as conn:
        if script:
            conn.executescript(script.read_text())
        schema.prepare(conn, 2.0)
        conn.set_trace_callback(asked.append)
        assert not seals.has_unsealed(conn)
        assert not seals.damaged_rows(conn, "durable_runs")[0]
        conn.set_trace_callback(None)
        plans = [detail for sql in asked for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert [each for each in plans if "durable_runs" in each] == [
        "SCAN durable_runs USING INDEX durable_runs_published"
    ] * 2


def test_forks_of_an_older_file_name_their_source(tmp_db):
    """
    It stands in their events alone there; of a fork of a fork, the last of them counts.
    """
    with closing(sqlite3.connect(tmp_db)) as old:
        old.executescript(OLD[1].read_text())
        row = "INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, created_at)"
        old.executemany(f"{row} VALUES (?, ?, 'w', 1, 'workflow', 'paused', 'q', 0, 1.0)", [(7, "fork"), (8, "plain")])
        event = "INSERT INTO durable_events (run, seq, kind, at, body, checksum) VALUES (7, ?, 8, 1.0, ?, 0)"
        old.executemany(event, [(1, '["first","0"]'), (2, '["second","0"]')])
        old.commit()
        schema.prepare(old, 2.0)
        assert old.execute("SELECT run_id, forked_from FROM durable_runs WHERE run IN (7, 8)").fetchall() == [
            ("fork", "second"),
            ("plain", None),
        ]


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


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
async def test_a_window_that_an_older_release_opened_goes_on(script, engines, tmp_path, monkeypatch, eventually):
    """
    Its parent starts the later children, turn by turn, as it did before: the file has no items of them.
    """
    began, go = [], asyncio.Event()

    @job
    async def work(number: int) -> int:
        began.append(number)
        if number >= 3:
            await go.wait()
        return number

    @workflow
    async def mapper() -> Flow[list[int]]:
        yield Return((yield for_each(work, range(8), concurrency=2)))

    with monkeypatch.context() as patch:
        patch.setattr(ForEachNode, "_open_feed", lambda self: False)
        engine = await engines.file(work, mapper)
        run = await engine.start(mapper())

        async def two_are_held():
            return began == [0, 1, 2, 3, 4]

        await eventually(two_are_held)
        await engines.crash(engine)
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as conn:
        conn.executescript(script.read_text())
        version = schema_of(conn)
        conn.execute("ATTACH ? AS newer", (str(engines.path),))
        for (table,) in conn.execute(
            "SELECT name FROM main.sqlite_master WHERE name GLOB 'durable_*' AND type = 'table'"
        ).fetchall():
            columns = ", ".join(row[1] for row in conn.execute(f"PRAGMA main.table_info({table})"))
            conn.execute(f"INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
        if version == 4:
            conn.execute("UPDATE main.durable_meta SET value = 4 WHERE name = 'schema'")
        else:
            conn.execute("DELETE FROM main.durable_meta WHERE name = 'schema'")  # they have no such row
        conn.commit()
    engines.path = old
    engine = await engines.file(work, mapper)
    go.set()
    run = engine.get(run.id)
    assert await run.result(5) == list(range(8))
    assert len(await run.children()) == 8
    assert "FeedOpened" not in [event.kind for event in await run.history()]
