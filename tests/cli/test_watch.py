"""
`durable watch`: a run as it goes, beside a live engine and when it has ended.
"""

import anyio.to_thread
import pytest

from durable import Flow, Return, progress, step, wait_for, workflow

pytestmark = pytest.mark.anyio


@step
async def load(rows: int) -> int:
    progress(rows // 2, rows, "loading")
    return rows


@workflow
async def importing() -> Flow[int]:
    yield load(10)
    word: str = yield wait_for("go", str)
    if word == "fail":
        raise ValueError("no\x1b[31m")
    progress(10, 10)
    yield Return(10)


async def test_each_change_is_a_line_until_the_run_has_ended(engines, cli, tmp_db, reached):
    """
    What it waits for, then its end; a bar where it tells how far it is.
    """
    engine = await engines.file(importing)
    run = await engine.start(importing(), id="r")
    await reached(run, "waiting")
    found = []
    async with anyio.create_task_group() as group:

        async def follow():
            found.append(await anyio.to_thread.run_sync(cli, "watch", "r", "--db", tmp_db))

        group.start_soon(follow)
        await anyio.sleep(0.2)
        await run.signal("go", "on")
    (said,) = found
    assert said.code == 0
    assert "[############............] 5 of 10 (50%), loading" in said.lines[0]
    assert "waits for signal go" in said.lines[0]
    assert "succeeded  [########################] 10 of 10" in said.lines[-1]
    values = cli("watch", "r", "--db", tmp_db, "--json").values
    assert [(each["status"], each["progress"]["done"]) for each in values] == [("succeeded", 10)]


async def test_a_run_that_failed_is_a_finding(engines, cli, tmp_db):
    """
    The exit code says so, and the line why, without what could drive the terminal.
    """
    engine = await engines.file(importing)
    run = await engine.start(importing(), id="r", signals=[("go", "fail")])
    while not (await run.info()).ended_at:
        await anyio.sleep(0.01)
    said = cli("watch", "r", "--db", tmp_db)
    assert said.code == 1
    assert "ValueError: no\\x1b[31m" in said.lines[-1]
    assert cli("watch", "nobody", "--db", tmp_db).code == 3
