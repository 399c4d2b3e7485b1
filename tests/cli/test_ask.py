"""
`durable ask`: a run is asked by hand, and its answer written; beside a live engine and on a file that nobody owns.
"""

import asyncio
import sqlite3
import sys
from contextlib import closing

import anyio.to_thread
import pytest

from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

SOURCE = """
import datetime
from attrs import frozen
from durable import Flow, Request, wait_for, workflow

due = Request("due", datetime.date, bool)

@workflow
async def order(rounds: int) -> Flow[None]:
    for _ in range(rounds):
        asked = yield wait_for(due)
        if asked.value < datetime.date(2026, 1, 1):
            yield asked.refuse("that is over")
        else:
            yield asked.reply(True)
"""


@pytest.fixture
async def desk(engines, cli, tmp_path, tmp_db, monkeypatch, reached):
    """
    A run that answers, its engine, the file of its application, and the command line beside them.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "app_of_ask.py"
    path.write_text(SOURCE)
    module = load_application(str(path)).definitions[0]
    engine = await engines.file(module)
    run = await engine.start(module.order(2), id="order-1", key="o")
    await reached(run, "waiting")

    async def carry_out(*argv):
        return await anyio.to_thread.run_sync(lambda: cli(*argv, "--db", tmp_db))

    yield engine, run, str(path), carry_out
    del sys.modules["app_of_ask"]


async def test_the_answer_is_written(desk):
    """
    As JSON, alone on a line; a refusal is a finding, in words. The same under one --dedup is asked once.
    """
    _, run, _, cli = desk
    said = await cli("ask", "key:o", "due", '"2026-05-01"', "--dedup", "a", "--timeout", "10")
    assert (said.code, said.out, said.err) == (0, "true\n", "")
    said = await cli("ask", "order-1", "due", '"2026-05-01"', "--dedup", "a", "--json")
    assert said.values == [{"request": "ask", "run_id": "order-1", "name": "due", "answer": True}]
    said = await cli("ask", "order-1", "due", '"2025-05-01"')
    assert (said.code, said.out) == (1, "")
    assert said.err == "durable ask: run 'order-1' refused request 'due': that is over\n"
    await run.result(5)
    said = await cli("ask", "order-1", "due", '"2026-05-01"')
    assert (said.code, said.out) == (2, "")
    assert "cannot ask 'due' of run 'order-1': it is succeeded" in said.err


async def test_what_is_not_of_the_requests_type_is_refused(desk):
    """
    By the command, where an application says what that is; else by the run, and its code does not see it.
    """
    _, _, app, cli = desk
    said = await cli("ask", "order-1", "due", '"soon"', "--app", app)
    assert said.code == 2
    assert "question of request 'due'" in said.err
    said = await cli("ask", "order-1", "due", '"soon"')
    assert said.code == 1
    assert "refused request 'due': question: expected" in said.err
    said = await cli("ask", "order-1", "due", '"2026-05-01"', "--app", app)
    assert (said.code, said.out) == (0, "true\n")


async def test_who_gives_up_is_told_that_the_request_stays(desk):
    """
    A name that the workflow does not wait for is a request like any other.
    """
    _, _, _, cli = desk
    said = await cli("ask", "order-1", "other", "--timeout", "0.1")
    assert said.code == 1
    assert "run 'order-1' has not answered after 0.1 s. The request stays" in said.err
    said = await cli("ask", "none", "due")
    assert said.code == 3


async def test_without_an_engine_it_is_recorded_and_waits_for_one(desk, engines, eventually, tmp_db):
    """
    The next engine answers it.
    """
    engine, _, app, cli = desk
    await engine.aclose()
    asking = asyncio.create_task(cli("ask", "order-1", "due", '"2026-05-01"', "--app", app))

    async def recorded():
        with closing(sqlite3.connect(f"file:{tmp_db}?mode=ro", uri=True)) as conn:
            return conn.execute("SELECT count(*) FROM durable_asked").fetchone() == (1,)

    await eventually(recorded)
    await engines.file(sys.modules["app_of_ask"], standby=True)
    said = await asking
    assert (said.code, said.out) == (0, "true\n")
