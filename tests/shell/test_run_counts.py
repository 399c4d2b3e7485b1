"""
Runs that have ended are counted as they end: whatever becomes of them, the counts are those of the rows.
"""

import re
import sqlite3
from contextlib import closing

import pytest

from durable import Flow, Return, step, workflow
from durable._shell.reads import run_rows
from durable._shell.reports.census import census
from durable._shell.storage import schema
from durable._shell.storage.run_counts import are_right, run_counts

pytestmark = pytest.mark.anyio

broken = [True]


@step(retry=None)
async def mended_later() -> int:
    if broken[0]:
        raise ValueError("not yet")
    return 1


@workflow
async def fragile() -> Flow[int]:
    yield Return((yield mended_later()))


@workflow
async def plain() -> Flow[int]:
    yield Return(1)


@pytest.fixture
def counted(tmp_db):
    """
    What is counted, of a file whose counts are right.
    """

    def look():
        with closing(sqlite3.connect(tmp_db)) as conn:
            assert are_right(conn), (
                run_counts(conn),
                conn.execute("SELECT run_id, status FROM durable_runs").fetchall(),
            )
            return {(workflow, status): runs for workflow, status, runs in run_counts(conn)}

    broken[0] = True
    return look


async def test_ends_retries_and_deletions_are_counted(engines, counted):
    """
    A run that is retried is open again, and ends once more.
    """
    engine = await engines.file(fragile, plain)
    run = await engine.start(fragile())
    with pytest.raises(Exception, match="not yet"):
        await run.result()
    for _ in range(3):
        await engine.run(plain())
    assert counted() == {("fragile", "failed"): 1, ("plain", "succeeded"): 3}
    broken[0] = False
    await run.retry()
    assert await run.result() == 1
    assert counted() == {("fragile", "succeeded"): 1, ("plain", "succeeded"): 3}
    cancelled = await engine.start(plain(), delay=3600)
    assert counted()["plain", "pending"] == 1
    await cancelled.cancel()
    with pytest.raises(Exception, match="cancelled"):
        await cancelled.result()
    assert counted()["plain", "cancelled"] == 1
    await engine.delete(run.id)
    assert counted() == {("plain", "succeeded"): 3, ("plain", "cancelled"): 1}
    await engine.prune(older_than=0.0)
    assert counted() == {}


async def test_runs_that_are_imported_are_counted(engines, counted, tmp_path):
    """
    Those that had ended elsewhere, too.
    """
    engine = await engines.file(fragile, plain)
    runs = [await engine.start(plain()) for _ in range(2)]
    for run in runs:
        await run.result()
    await engine.export([run.id for run in runs], tmp_path / "runs.jsonl")
    await engine.prune(older_than=0.0)
    assert counted() == {}
    await engine.import_runs(tmp_path / "runs.jsonl")
    assert counted() == {("plain", "succeeded"): 2}


def test_runs_that_have_ended_are_not_looked_at(tmp_db):
    """
    Of a million there may be ten that are open: SQLite finds them by their own index.
    """
    asked = []
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as conn:
        schema.prepare(conn, 1.0)
        conn.set_trace_callback(asked.append)
        assert census(conn).workflows == {}
        assert run_rows.counts(conn)["events"] == 0
        conn.set_trace_callback(None)
        plans = {
            detail for sql in asked if "durable_runs" in sql for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {sql}")
        }
    of_runs = {each for each in plans if re.match(r"(SCAN|SEARCH) (durable_)?runs?\b|SCAN r\b|SCAN durable_runs", each)}
    assert of_runs
    assert all("durable_runs_open" in each or "durable_runs_ready" in each for each in of_runs), of_runs
