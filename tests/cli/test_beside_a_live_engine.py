"""
Commands beside an engine under load, in a process of its own: no error on either side, and nobody waits for the other.
"""

import subprocess
import sys
import textwrap

import pytest

APP = """
from durable import Flow, Return, gather, job, step, wait_for, workflow

@step
async def add(n: int) -> int:
    return n + 1

@job
async def tell(n: int) -> str:
    return f"told {n}"

async def twice(n: int) -> int:
    first = await add(n)
    return await add(first)

@workflow
async def load(n: int) -> Flow[int]:
    total = 0
    for i in range(10):
        total = yield add(total)
        both: list = yield gather(twice(i), tell(i))
    yield Return(total)

@workflow
async def watched(n: int) -> Flow[str]:
    total: int = yield add(n)
    word: str = yield wait_for("go", str)
    yield Return(f"{word} {total}")
"""

ENGINE = """
import asyncio, logging, sys
logging.disable()
sys.path.insert(0, {folder!r})
from durable import Engine
import loaded

async def main():
    ended = 0
    async with Engine({db!r}, [loaded], durability="process") as engine:
        run = await engine.start(loaded.watched(1), id="watched")
        stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        first = True
        while not stop.done():
            runs = await engine.start_many([loaded.load(n) for n in range(20)])
            for each in runs:
                assert await each.result(30) == 10
            ended += len(runs)
            if first:
                first = False
                print("loaded", flush=True)
        await run.signal("go", "ready")
        assert await run.result(30) == "ready 2"
        assert (await engine.stats()).trouble is None
    print("ended", ended, flush=True)

asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.timeout(120)
def test_commands_beside_an_engine_under_load(tmp_path, cli):
    """
    list, show, history --follow, graph, stats, doctor, replay, check and debug while hundreds of runs go on.
    """
    db, app = tmp_path / "app.db", tmp_path / "loaded.py"
    app.write_text(APP)
    script = textwrap.dedent(ENGINE).format(folder=str(tmp_path), db=str(db))
    engine = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    follower = None
    try:
        assert engine.stdout.readline() == "loaded\n"
        follow = [sys.executable, "-m", "durable", "history", "watched", "--db", db, "--follow"]
        follower = subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5):
            listed = cli("list", "--db", db, "--workflow", "load", "--limit", "2", "--json")
            assert listed.code == 0, listed
            runs = [run["run_id"] for run in listed.values]
            assert runs
            for run in runs:
                for command in ("show", "history", "graph"):
                    said = cli(command, run, "--db", db)
                    assert (said.code, said.err) == (0, ""), said
                for command in ("replay", "trace"):
                    said = cli(command, run, "--db", db, "--app", app)
                    assert (said.code, said.err) == (0, ""), said
                said = cli("debug", run, "--db", db, "--app", app, "-c", "last", "-c", "first", "-c", "locals")
                assert (said.code, said.err) == (0, ""), said
            for command in (["stats"], ["doctor"], ["check", "--app", app], ["list", "--status", "open"]):
                said = cli(*command, "--db", db)
                assert said.code == 0, said
        out, err = engine.communicate("\n", timeout=60)
        followed, follow_err = follower.communicate(timeout=30)
    finally:
        for child in (engine, follower):
            if child is not None:
                child.kill()
                child.wait()
    assert engine.returncode == 0, err
    assert int(out.split()[-1]) >= 20
    assert "error" not in err.lower()
    assert (follower.returncode, follow_err) == (0, "")
    assert "RunSucceeded" in followed.splitlines()[-1]
