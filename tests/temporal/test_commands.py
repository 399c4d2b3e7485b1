"""
The command line, where runs are on a cluster: what reads them, and what moves them.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from durable import Engine
from durable.temporal import TemporalEngine
from tests.temporal import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def engine(client, queue):
    """
    A worker of the application that commands are given.
    """
    async with TemporalEngine(client, queue, app.ALL) as opened:
        yield opened


@pytest.fixture
def durable(address, queue):
    """
    Runs a command of the application on the cluster, in a process; its output.
    """

    async def run(*given, code=0, cluster=True):
        more = ["--temporal", address, "--task-queue", queue] if cluster else ["--task-queue", queue]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "durable", *map(str, given), *more, "--app", "tests.temporal.app",
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == code, (out.decode(), err.decode())
        return (out or err).decode()

    return run


async def waiting_at(engine, run, position):
    async with asyncio.timeout(20):
        while not any(wait.position == position for wait in await run.waits()):
            await asyncio.sleep(0.02)


async def test_a_run_of_a_cluster_is_replayed_checked_and_debugged(engine, durable):
    """
    From the journal that a worker tells; named, or as all that are open.
    """
    run = await engine.start(app.order(3))
    await waiting_at(engine, run, "1")
    assert "order  same" in await durable("replay", run.id)
    assert "reserve" in await durable("trace", run.id)
    assert "await reserve(n)" in await durable("debug", run.id, "-c", "where", "-c", "quit")
    async with asyncio.timeout(20):
        while "1 " not in (said := await durable("check")):
            await asyncio.sleep(0.2)
    assert "0 findings" in said or "1 run" in said
    await run.signal("paid", 5)
    assert await run.result() == 8
    assert "no run" in await durable("replay", "nobody", code=3)


async def test_runs_are_exported_from_a_cluster_and_imported_into_one(engine, durable, tmp_path):
    """
    As text that a file takes, too.
    """
    run = await engine.start(app.order(3))
    await waiting_at(engine, run, "1")
    text = tmp_path / "order.jsonl"
    await durable("export", run.id, "--output", text)
    assert [json.loads(line).get("run", {}).get("run_id") for line in text.read_text().splitlines()[1:2]] == [run.id]
    async with Engine(tmp_path / "file.db", app.ALL) as file:
        waits = await file.start(app.order(4), id=f"from-file-{run.id}")
        await file.idle()
        await waits.pause()
        await file.export(waits.id, tmp_path / "other.jsonl")
    assert "1 run imported" in await durable("import", tmp_path / "other.jsonl")
    there = engine.get(waits.id)
    await there.resume()
    await there.signal("paid", 1)
    assert await there.result() == 5


async def test_a_run_moves_to_a_cluster_and_back(engine, durable, address, tmp_path):
    """
    It waits here, there, and here again; what it has done is done once.
    """
    path = tmp_path / "orders.db"
    app.reserved.clear()
    async with Engine(path, app.ALL) as file:
        run = await file.start(app.order(3), id=f"moving-{tmp_path.name}")
        await file.idle()
    url = f"temporal://{address}"
    assert "continues in" in await durable("move", run.id, "--db", path, "--to", url, cluster=False)
    there = engine.get(run.id)
    await waiting_at(engine, there, "1")
    assert "continues in" in await durable("move", run.id, "--db", tmp_path / "back.db", "--from", url, cluster=False)
    async with Engine(tmp_path / "back.db", app.ALL) as file:
        back = file.get(run.id)
        await back.signal("paid", 5)
        assert await back.result() == 8
    assert app.reserved == [3]
    async with Engine(path, app.ALL) as file:
        assert await file.get(run.id).status() == "paused"
    assert "expected temporal://" in await durable("move", run.id, "--db", path, "--to", "x", cluster=False, code=2)


async def test_limits_of_a_cluster_are_listed(engine, durable):
    """
    Those of the application, with who is inside; one that it does not have is not found.
    """
    assert await engine.run(app.pack(1)) == 1
    listed = await durable("limits")
    assert "belt" in listed
    assert "2 at once" in listed
    assert json.loads(await durable("limits", "belt", "--json"))["name"] == "belt"
    assert "no engine" in await durable("limits", "wide", code=3)
