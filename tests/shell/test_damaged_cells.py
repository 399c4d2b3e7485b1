"""
Cells of the file that hold what nobody wrote there: they are told, and in nobody's way.

What an engine reads as it opens, and what it reads of one run, request, queue or limit. (`tests/crash` sets every cell
of a whole file to hostile values.)
"""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from durable import Client, Flow, Limit, Queue, Return, job, step, wait_for, workflow
from durable._core.suspicion import Accused, TurnMark
from durable._shell.requests.once import Once
from durable._shell.requests.run_requests import PauseRun
from durable._shell.storage import schema
from durable._shell.tasks import scheduler
from durable._shell.writes.deaths import take_last_life
from durable.errors import InternalError, UsageError

pytestmark = pytest.mark.anyio

#: What no list of ours is.
DAMAGE = ["", "[", "{}", "null", "7", "[1, 2]", '["x", "y", "z"]', "[-1, -1, -1]", "[" * 3_000, "9" * 5_000]


@step(limit="narrow")
async def limited(number: int) -> int:
    return number


@workflow
async def whole(number: int) -> Flow[int]:
    got: int = yield limited(number)
    yield Return(got)


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waits() -> Flow[str]:
    got: str = yield wait_for("go", str)
    yield Return(got)


@whole.on_success
def breaks(finished):
    raise RuntimeError("nobody to tell")


def change(path, statement, *values):
    """
    Do to the file what no engine does.
    """
    with closing(sqlite3.connect(path)) as conn, conn:
        assert conn.execute(statement, values).rowcount


@pytest.mark.parametrize("damage", DAMAGE)
async def test_an_engine_opens_whatever_its_file_says_of_numbers_and_deaths(engines, tmp_db, damage):
    """
    The numbers of the code hold for a queue whose own cannot be read, which is told; the next change mends it.

    The rows have no seals here: with these they were found out before anybody reads them, see `test_seals`.
    """
    settings = {"queues": [Queue("mail", 1)], "limits": [Limit("narrow", concurrency=1)]}
    engine = await engines.file(whole, quick, **settings)
    await engine.queue("mail").change(concurrency=3)
    await engine.limit("narrow").change(concurrency=2)
    await engine.run(whole(1), id="first")
    await engine.aclose()
    change(tmp_db, "UPDATE durable_queues SET changed = ?, checksum = NULL WHERE name = 'mail'", damage)
    change(tmp_db, "UPDATE durable_limits SET own = ?, checksum = NULL", damage)
    change(tmp_db, "UPDATE durable_meta SET value = ? WHERE name = 'value_caps'", damage)
    for name in ("alone", "accused"):
        change(tmp_db, "INSERT INTO durable_meta VALUES (?, ?)", name, damage)
    async with Client(tmp_db) as client:
        assert (await client.get("first").info()).status == "succeeded"
        with pytest.raises(UsageError, match=r"limit 'narrow'.* damaged"):
            await client.limit("narrow").reset()
    with capture_logs() as logs:
        engine = await engines.file(whole, quick, **settings)
        assert await engine.run(whole(2)) == 2
    assert [(each["what"], each["of"]) for each in logs if each["event"] == "journal.damaged"] == [("queue", "mail")]
    assert (await engine.queue("mail").info()).changed is None
    await engine.queue("mail").change(concurrency=2)
    assert (await engine.queue("mail").info()).changed == Queue("mail", 2)
    await engine.limit("narrow").reset()
    assert (await engine.limit("narrow").info()).concurrency == 1


async def test_a_client_opens_a_file_whose_caps_are_no_text(engines, tmp_db):
    """
    Then it knows none; all else is read.
    """
    engine = await engines.file(quick)
    await engine.run(quick(1), id="first")
    await engine.aclose()
    change(tmp_db, "UPDATE durable_meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'value_caps'")
    async with Client(tmp_db) as client:
        assert (await client.get("first").info()).status == "succeeded"


@pytest.mark.parametrize("damage", DAMAGE)
def test_deaths_that_cannot_be_read_are_not_known(damage):
    """
    Nobody is accused for them, and what is noted beside them still counts.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        schema.prepare(conn, 2.0)
        conn.execute("INSERT INTO durable_meta VALUES ('alone', ?)", (damage,))
        conn.execute("INSERT INTO durable_meta VALUES ('accused', ?)", (f'[[[3, "", 1], 1], {damage or 0}]',))
        life = take_last_life(conn, [TurnMark(3, "", 1)])
        assert life.alone is None
        known = damage in {"", "{}", "null", "7", "[1, 2]", '["x", "y", "z"]', "[-1, -1, -1]", DAMAGE[-1]}
        assert life.accused == [Accused(TurnMark(3, "", 1), 2 if known and damage != DAMAGE[-1] else 1)]


async def test_a_hook_error_that_cannot_be_read_hides_no_run(engines, tmp_db):
    """
    Nor the hook errors of others.
    """
    engine = await engines.file(whole, limits=[Limit("narrow", concurrency=1)])
    for number in range(2):
        await engine.run(whole(number), id=f"whole-{number}")
    await engine.aclose()
    change(tmp_db, "UPDATE durable_hook_errors SET at = 9e999 WHERE run = 1")
    async with Client(tmp_db) as client:
        assert [len(info.hook_errors) async for info in client.runs()] == [1, 0]


@pytest.mark.parametrize("refused", [0, 1])
async def test_an_answer_that_cannot_be_read_is_told_and_nothing_is_done_twice(engines, refused):
    """
    A client that asks again gets an error of ours.
    """
    engine = await engines.file(waits, quick)
    await engine.start(waits(), id="run")
    asked = Once("asked", PauseRun("run"))
    assert await engine._backend.request(asked) is True
    for damage in DAMAGE:

        def spoil(conn, effects, damage=damage):
            conn.execute("UPDATE durable_requests SET answer = ?, refused = ?", (damage, refused))

        await engine._backend.running.commits.call(spoil)
        with pytest.raises(InternalError, match=r"recorded before|refused before"):
            await engine._backend.request(asked)
    assert await engine.run(quick(1)) == 1


async def test_a_run_of_which_nothing_can_be_written_is_left_alone_after_some_tries(engines, tmp_db, monkeypatch):
    """
    It stays ready in the file, where it goes first and fills what is read at once: still, others get their turn.
    """
    monkeypatch.setattr(scheduler, "CANDIDATES", 1)
    engine = await engines.file(waits, quick)
    await engine.start(waits(), id="first", priority=5)
    await engine.aclose()
    change(tmp_db, "UPDATE durable_events SET checksum = 1, body = '[' WHERE run = 1")
    change(tmp_db, "UPDATE durable_runs SET ready_at = 1.0, status = 'running' WHERE run = 1")
    with capture_logs() as logs:
        engine = await engines.file(waits, quick)
        await engine._backend.running.commits.call(
            lambda conn, _: conn.execute(
                "CREATE TEMP TRIGGER never BEFORE UPDATE ON durable_runs WHEN old.run = 1 "
                "BEGIN SELECT RAISE(ABORT, 'never'); END"
            )
        )
        async with asyncio.timeout(10):
            assert await asyncio.gather(*(engine.run(quick(number)) for number in range(5))) == [*range(5)]
            while not (tried := sum(each["event"] == "run.not_blocked" for each in logs)):
                await asyncio.sleep(0.01)
    assert tried <= scheduler.VAIN_DRIVES
