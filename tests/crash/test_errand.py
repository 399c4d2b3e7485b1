"""
What is seen and reached from outside, through every death: one errand that uses it all, see `errand.py`.
"""

import asyncio
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from durable import Client, Engine
from durable.testing import every_crash

sys.path.insert(0, str(Path(__file__).parent))
import errand

#: Where owners die, and at the how-manieth time: before a commit is on disk, or before anybody hears of it.
DEATHS = [("before-commit", 3), ("after-commit", 3), ("before-commit", 6), ("after-commit", 6)]
STEPS = ["note", "fetch", "fetch", *["is_open"] * 3, "publish", "book", "book", "unbook", "unbook"]


@pytest.fixture(autouse=True)
def ada():
    """
    Who starts what the tests start.
    """
    before = errand.caller.set("Ada")
    yield
    errand.caller.reset(before)


@pytest.fixture
def bank(tmp_path):
    folder = tmp_path / "bank"
    folder.mkdir()
    return folder


@pytest.fixture
async def journal(tmp_path):
    """
    The path of one that nobody owns.
    """
    path = tmp_path / "app.db"
    async with Engine(path, errand.DEFINITIONS, durability="process", schema=errand.SCHEMA):
        pass
    return path


def owner(*arguments):
    """
    A process that owns a journal, and may kill itself.
    """
    program = [sys.executable, errand.__file__, *map(str, arguments)]
    return asyncio.create_subprocess_exec(*program, stderr=asyncio.subprocess.PIPE)


def test_what_steps_need_is_there_in_each_life(bank):
    """
    Resources, context variables, what a server said, runs that commit with rows: as if nothing had happened.
    """

    def empty():
        for path in bank.iterdir():
            path.unlink()

    survived = every_crash(
        errand.walk("x"),
        errand.DEFINITIONS,
        tables=errand.SCHEMA,
        before=empty,
        resources=[errand.Bank(bank)],
        carry=[errand.caller],
    )
    assert survived.undisturbed.result == "cash for Ada"
    assert [item.value for item in survived.undisturbed.streams["run", "said"]] == ['"noted"']
    assert survived.struck["crash"] >= 16


@pytest.mark.anyio
@pytest.mark.parametrize("point, recorded", [("before-commit", []), ("after-commit", ["from outside"])])
async def test_rows_from_outside_and_the_runs_that_follow_are_there_or_not(journal, bank, point, recorded):
    """
    The owner dies in the midst of `engine.transact`, which tells nobody how it ended.
    """
    died = await owner(journal, bank, point, 1, "transact")
    await died.communicate()
    assert died.returncode == -9
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as rows:
        assert [name for (name,) in rows.execute("SELECT name FROM errands")] == recorded
    async with Client(journal) as client:
        assert [info.key async for info in client.runs(workflow="receipt")] == recorded


@pytest.mark.anyio
@pytest.mark.timeout(120)  # processes that import the library, on a busy machine
async def test_a_client_sees_and_reaches_a_run_through_the_deaths_of_its_owners(journal, bank):
    """
    It starts, watches, reads a stream, asks, completes and hears the result of what runs elsewhere, and is freed often.
    """
    seen, completed, deaths = [], [], 0
    async with Client(journal, durability="process", carry=[errand.caller]) as client:
        run = await client.start(errand.errand("x"), key="errand")

        async def watch():
            async for info in run.watch():
                seen.append(info)
                if "token" in info.attributes and not completed:
                    completed.append(await client.complete(info.attributes["token"], 7))

        async def read():
            return [item async for item in run.stream("said")]

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            said = tasks.create_task(read())
            allowed = tasks.create_task(run.ask(errand.allowed, "x"))
            result = tasks.create_task(run.result())
            for death in [*DEATHS, ()]:
                process = await owner(journal, bank, *death)
                ended = asyncio.ensure_future(process.communicate())
                try:
                    await asyncio.wait([ended, result], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    with suppress(ProcessLookupError):
                        process.terminate()
                    _, errors = await ended
                assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 0), errors.decode()
                deaths += process.returncode == -signal.SIGKILL
                if result.done():
                    break
        steps = await run.steps()
        receipts = [info async for info in client.runs(workflow="receipt")]
    assert deaths > 1
    assert result.result() == ["cash for Ada", "receipt for x, a copy", "form for Ada", "7"]
    assert (allowed.result(), completed) == (True, [True])
    assert said.result() == ["noted", "allowed", "given back"]
    assert [info.status for info in seen].index("succeeded") == len(seen) - 1
    assert {info.key: info.status for info in receipts} == {"x": "succeeded", None: "succeeded"}
    assert [step.name for step in steps if step.status != "succeeded"] == ["book"]
    assert sorted(step.name for step in steps) == sorted(STEPS)
    for asked in bank.iterdir():
        attempts = asked.read_text().split()
        assert attempts == sorted(set(attempts)), f"{asked.name} was asked for twice by one attempt"
