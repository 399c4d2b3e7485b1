"""
Owners that are killed between their commit and their answer, one after the other: what a client asks for is
recorded once, and gets its first answer.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from durable import Client, Engine

sys.path.insert(0, str(Path(__file__).parent))
import answering

from tests import children

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
#: Requests below, each of which costs an owner its life; the one into a run costs two.
ASKED = 8
#: Those that a run has taken in, and those that it has not.
SIGNALS = """
SELECT (SELECT count(*) FROM history WHERE event = 'SignalReceived' AND run_id <> 'asked')
    + (SELECT count(*) FROM durable_inbox)
"""
ANSWERS = "SELECT count(*) FROM history WHERE event = 'ReplySent'"


@pytest.mark.timeout(60)  # eight processes that import the library
async def test_an_owner_that_is_killed_before_it_answers_has_done_it_once(tmp_path):
    """
    Each request kills the owner that records it, once it is on disk: the client hears of it from the next one, or
    from the file.
    """
    path = tmp_path / "app.db"
    async with Engine(path, answering.DEFINITIONS, durability="process") as engine:
        for name in ("waits", "forked"):
            await engine.start(answering.waiting(), id=name)
        await engine.start(answering.asked(), id="asked")
        async with engine.batch(id="open") as batch:
            batch.add(answering.waiting())
        await engine.run(answering.quick(7), id="theirs")
        await engine.export("theirs", tmp_path / "theirs.jsonl")
        assert await engine.prune(older_than=-60) == 1
    owners = [
        children.Popen(
            [sys.executable, answering.__file__, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(ASKED)
    ]
    try:
        for owner in owners:
            assert owner.stdout.readline() == "waiting\n", owner.stderr.read()
        async with Client(path, durability="process") as client:
            await client.start(answering.waiting(), key="new", on_conflict="reject")
            await client.get_batch("open").add(answering.waiting())
            assert await client.get("waits").signal("go", "a")
            assert await client.get("asked").ask(answering.approve, 3) == "3 is fine"
            await client.get("forked").fork(0, id="fork")
            triggered = await client.schedule("hourly").trigger()
            assert (await client.import_runs(tmp_path / "theirs.jsonl")).runs == ["theirs"]
            found = [info async for info in client.runs(workflow="waiting")]
            jobs = {info.run_id async for info in client.runs(workflow="quick")}
            asked = await client.get("asked").result(10)
            answer = await client._backend.read(lambda conn: conn.execute(ANSWERS).fetchone())
            signals = await client._backend.read(lambda conn: conn.execute(SIGNALS).fetchone())
    finally:
        killed = []
        for owner in owners:
            killed.append(owner.poll() == -9)
            owner.kill()
            owner.wait()
            owner.stdout.close()
            owner.stderr.close()
    assert (answer, asked) == ((1,), 3)
    assert len(found) == 3 + 3
    assert jobs == {"theirs", triggered.run_id}
    assert signals == (1,)
    assert any(killed)


CLIENT = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import answering, killing
from durable import Client

async def main():
    async with Client(sys.argv[2], durability="process") as client:
        killing.at(sys.argv[3], 1)
        await client.start(answering.waiting(), key="k")

asyncio.run(main())
"""


@pytest.mark.parametrize("point, recorded", [("before-commit", 0), ("after-commit", 1)])
async def test_a_client_that_dies_while_it_owns_the_file_leaves_it_as_it_should_be(tmp_path, point, recorded):
    """
    What it asked for is there or not, as its commit was; the file is free at once, and the caller repeats by key.
    """
    path = tmp_path / "app.db"
    async with Engine(path, answering.DEFINITIONS, durability="process"):
        pass
    died = children.run([sys.executable, "-c", CLIENT, HERE, path, point], check=False)
    assert died.returncode == -9
    async with Client(path, durability="process") as client:
        assert len([info async for info in client.runs()]) == recorded
        run = await client.start(answering.waiting(), key="k")
        async with Engine(path, answering.DEFINITIONS, durability="process") as engine:
            assert await run.signal("go", "x")
            assert await engine.get(run.id).result(5) == "x"
        assert len([info async for info in client.runs()]) == 1
