"""
Many rows in few statements: what a commit asks of the interpreter's lock does not grow with every row.
"""

import sqlite3

import pytest

from durable import Flow, Return, step, workflow
from durable._shell.storage.bulk import NULL, about_many, join_many, write_many


@pytest.fixture
def table():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (place INTEGER PRIMARY KEY, number INTEGER, text TEXT)")
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 64, 65, 200])
def test_every_row_is_written_once_and_in_its_order(table, count):
    """
    Whatever their number, and whatever is in them.
    """
    rows = [(number, f"é'{{rows}}?{number}") for number in range(count)]
    write_many(table, "INSERT INTO t (number, text) VALUES {rows}", rows)
    assert table.execute("SELECT number, text FROM t ORDER BY place").fetchall() == rows


def test_what_is_none_is_null(table):
    """
    Whatever the type of its column; and what only looks empty is not.
    """
    write_many(table, "INSERT INTO t (number, text) VALUES {rows}", [(None, None), (0, ""), (1, None)])
    found = table.execute("SELECT typeof(number), typeof(text) FROM t ORDER BY place").fetchall()
    assert found == [("null", "null"), ("integer", "text"), ("integer", "null")]


def test_rows_that_are_bound_already_are_written_as_they_are(table):
    """
    With NULL where they are empty: as the writer's own rows of events, runs and waits are made.
    """
    write_many(table, "INSERT INTO t (number, text) VALUES {rows}", [(NULL, NULL), (0, ""), (1, NULL)], is_bound=True)
    found = table.execute("SELECT typeof(number), typeof(text) FROM t ORDER BY place").fetchall()
    assert found == [("null", "null"), ("integer", "text"), ("integer", "null")]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 64, 65, 200])
def test_every_item_is_asked_about(table, count):
    """
    And nothing else is.
    """
    write_many(table, "INSERT INTO t (number) VALUES {rows}", [(number,) for number in range(300)])
    found = about_many(table, "DELETE FROM t WHERE number IN ({items}) RETURNING number", range(10, 10 + count))
    assert sorted(found) == [(number,) for number in range(10, 10 + count)]
    assert table.execute("SELECT count(*) FROM t").fetchone() == (300 - count,)


@step
async def ok() -> int:
    return 1


@workflow
async def sequence(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield ok()
    yield Return(steps)


@pytest.mark.anyio
async def test_a_hundred_runs_take_few_statements(engines):
    """
    100 runs of 5 steps are 1,200 rows of events, 100 runs created, begun and ended: fewer statements than rows by far.
    """
    engine = await engines.file(sequence)
    await engine.run(sequence(1))
    statements = []
    engine._backend.running.database._writer.raw.set_trace_callback(statements.append)
    try:
        for run in await engine.start_many([sequence(5) for _ in range(100)]):
            assert await run.result(10) == 5
    finally:
        engine._backend.running.database._writer.raw.set_trace_callback(None)
    assert len(statements) < 300


@pytest.mark.anyio
async def test_a_step_of_a_run_alone_takes_one_statement(engines):
    """
    Between BEGIN and COMMIT: its outcome and the next step are one row each, and nothing need be asked.
    """
    engine = await engines.file(sequence)
    await engine.run(sequence(1))
    raw, statements = engine._backend.running.database._writer.raw, []
    raw.set_trace_callback(statements.append)
    try:
        assert await engine.run(sequence(40)) == 40
    finally:
        raw.set_trace_callback(None)
    assert len(statements) < 40 * 3 + 40


def test_the_text_of_a_statement_is_made_once(table):
    """SQLite's statement is found by it, which takes longer where it is another object."""
    texts = []

    class Listening:
        def execute(self, sql, values):
            texts.append(sql)
            return table.execute(sql, values)

    for _ in range(2):
        write_many(Listening(), "INSERT INTO t (number) VALUES {rows}", [(1,), (2,)])
        join_many(Listening(), "SELECT * FROM (VALUES {rows})", [(1,), (2,)])
        about_many(Listening(), "SELECT * FROM t WHERE number IN ({items})", [1, 2])
    assert [id(text) for text in texts[:3]] == [id(text) for text in texts[3:]]
    assert len(set(texts)) == 3
