"""
Rows that decide what runs do are sealed once they rest: one that was changed by nobody that may stops whom it belongs
to, by name, and nobody else. (`tests/crash/fuzz.py` sets every cell to hostile values; here the values look good.)
"""

import asyncio
import contextlib
import shutil
import sqlite3

import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    Limit,
    Retry,
    Return,
    Schedule,
    cursor,
    for_each,
    job,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._shell.storage import schema, seals
from durable._shell.tasks import housekeeping

pytestmark = pytest.mark.anyio

NARROW = Limit("narrow", concurrency=1)


@step(limit=NARROW)
async def limited() -> None:
    await asyncio.sleep(60)


@step(retry=Retry(attempts=9, delay=3600))
async def flaky() -> None:
    await cursor(0).advance(1)
    raise ConnectionError


@job
async def child(number: int) -> int:
    return number


@workflow
async def holds() -> Flow[None]:
    yield limited()


@workflow
async def timed() -> Flow[None]:
    set_attributes(number=1)
    yield sleep(3600)


@workflow
async def signalled() -> Flow[str]:
    text: str = yield wait_for("go", str)
    yield Return(text)


@workflow
async def member(number: int) -> Flow[None]:
    yield wait_for(f"go-{number}")


@workflow
async def retrying() -> Flow[None]:
    yield flaky()


@workflow
async def feeding() -> Flow[None]:
    yield for_each(member, [1, 2, 3], concurrency=1)


def engine_on(path, **settings):
    definitions = (timed, signalled, retrying, feeding, member, holds, child)
    ticks = Schedule("ticks", child(0), every=3600)
    return Engine(path, definitions, schedules=[ticks], limits=[NARROW], grace=0.05, **settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """
    A journal that was closed, with a sealed row in each table that has seals.
    """
    path = tmp_path_factory.mktemp("sealed") / "base.db"

    async def build():
        async with engine_on(path) as engine, asyncio.timeout(30):
            await engine.start(signalled(), id="innocent")
            began = {"timed": timed(), "retrying": retrying(), "feeding": feeding(), "held": holds()}
            began["in-line"] = holds()
            for name, op in began.items():
                run = await engine.start(op, id=name)
                while (await run.info()).status != ("running" if name == "held" else "waiting"):
                    await asyncio.sleep(0.002)
            paused = await engine.start(signalled(), id="paused")
            await paused.pause()
            await paused.signal("go", "early")
            async with engine.batch(id="batch", on_complete=child(5)) as batch:
                batch.add(signalled())

    asyncio.run(build())
    return path


@pytest.fixture(name="path")
def copied(base, tmp_path):
    """
    A file of one test.
    """
    return shutil.copy(base, tmp_path / "copy.db")


def change(path, statement, *values):
    """
    Do to the file what nobody may.
    """
    with contextlib.closing(sqlite3.connect(path)) as conn, conn:
        assert conn.execute(statement, values).rowcount == 1


def test_all_columns_are_sealed():
    """
    But for those of runs, whose history says what they are. A column that is added is not forgotten.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        schema.prepare(conn, 1.0)
        for name, table in seals.TABLES.items():
            columns = [row[1] for row in conn.execute(f"PRAGMA table_info({name})")]
            if name != "durable_runs":
                assert sorted((*table.key, *table.columns, "checksum")) == sorted(columns)


@pytest.mark.parametrize("name", seals.TABLES)
def test_another_value_in_any_column_is_seen(path, name):
    """
    In that row, and in no other; also where it is of the same type, and no text any more.
    """
    table = seals.TABLES[name]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        assert not seals.all_damaged(conn)
        for column in table.columns:
            conn.execute("BEGIN")
            *key, value, kind = conn.execute(
                f"SELECT {', '.join(table.key)}, {column}, typeof({column}) FROM {name} "
                f"WHERE checksum IS NOT NULL ORDER BY {column} IS NULL LIMIT 1"
            ).fetchone()
            declared = dict(row[1:3] for row in conn.execute(f"PRAGMA table_info({name})"))[column]
            if kind in {"integer", "real"}:
                others = [value + 64, -value - 1]
            elif kind == "text":
                others = [f"{value}\x00", chr(ord(value[0]) ^ 1) + value[1:] if value else "x"]
            else:
                others = [{"INTEGER": 1, "REAL": 1.0}.get(declared, "x")]
            where = " AND ".join(f"{part} = ?" for part in table.key)
            for other in others:
                conn.execute(f"UPDATE {name} SET {column} = ? WHERE {where}", (other, *key))
                assert [each for each, _ in seals.all_damaged(conn)] == [name], (column, other)
            if declared in {"TEXT", "ANY"}:
                conn.execute(f"UPDATE {name} SET {column} = CAST(x'ff' AS TEXT) WHERE {where}", key)
                assert [each for each, _ in seals.all_damaged(conn)] == [name], column
            conn.execute("ROLLBACK")


TIMER = "(SELECT wait FROM durable_waits WHERE kind = 'timer')"
INNOCENT = "(SELECT run FROM durable_runs WHERE run_id = 'innocent')"
BLOCKED = [
    ("timed", f"UPDATE durable_waits SET fire_at = 5.0 WHERE wait = {TIMER}"),
    ("timed", f"UPDATE durable_waits SET run = {INNOCENT} WHERE wait = {TIMER}"),
    ("timed", "UPDATE durable_runs SET attributes = '{\"number\":2}' WHERE attributes IS NOT NULL"),
    ("paused", "UPDATE durable_inbox SET value = '\"eerly\"' WHERE name = 'go'"),
    ("paused", f"UPDATE durable_inbox SET run = {INNOCENT} WHERE name = 'go'"),
    ("retrying", "UPDATE durable_notes SET value = '2'"),
    ("feeding", "UPDATE durable_feeds SET size = 2"),
    ("feeding", "UPDATE durable_feed_items SET value = '[[9],{}]' WHERE item = 1"),
    ("in-line", "UPDATE durable_slots SET name = 'other' WHERE granted_at IS NULL"),
]
NAMES = [f"{sql.split()[1]}-{sql.split()[3]}" for _, sql in BLOCKED]


@pytest.mark.parametrize("owner, statement", BLOCKED, ids=NAMES)
async def test_its_run_is_blocked_and_named_and_all_others_go_on(path, owner, statement):
    """
    Whatever it says, even if it names another run than its own: that one gets nothing of it.
    """
    change(path, statement)
    with capture_logs() as logs:
        async with engine_on(path) as engine, asyncio.timeout(20):
            async for info in engine.get(owner).watch():
                if info.status == "blocked":
                    break
            assert "does not match its checksum" in info.reason
            await engine.get("innocent").signal("go", "on")
            assert await engine.get("innocent").result() == "on"
            assert await engine.run(child(7)) == 7
            assert [info.run_id async for info in engine.runs(status="blocked")] == [owner]
    assert {each["of"] for each in logs if each["event"] == "journal.damaged"} == {owner}


async def test_a_damaged_schedule_stands_still_and_stays_damaged(path):
    """
    Also when it was written to meanwhile; deleted, it begins anew.
    """
    change(path, "UPDATE durable_schedules SET upto = upto - 7200")
    for _ in range(2):
        async with engine_on(path) as engine:
            assert await engine.run(child(7)) == 7
            (info,) = await engine.schedules()
            assert "does not match its checksum" in info.last_error
        async with Client(path) as client:
            assert not [each.run_id async for each in client.runs() if each.run_id.startswith("schedule:")]


async def test_a_damaged_batch_is_named_and_starts_nothing(path):
    """
    Its members go on.
    """
    change(path, "UPDATE durable_batches SET on_complete = replace(on_complete, '[[5]', '[[6]')")
    with capture_logs() as logs:
        async with engine_on(path) as engine, asyncio.timeout(20):
            (member,) = [info.run_id async for info in engine.runs(workflow="signalled", batch="batch")]
            await engine.get(member).signal("go", "on")
            assert await engine.get(member).result() == "on"
            assert [info.run_id async for info in engine.runs(workflow="child", status="succeeded")] == []
    assert {each["of"] for each in logs if each["event"] == "journal.damaged"} == {"batch"}


async def test_an_engine_seals_what_rests_and_breaks_seals_as_it_writes(path, clock, eventually):
    """
    Every few seconds, so that a file is protected that is never closed; and what it writes itself is no damage.
    """
    async with engine_on(path, clock=clock) as engine:

        async def unsealed():
            return await engine._backend.running.database.read(seals.has_unsealed)

        await engine.get("paused").signal("other", 1)
        await engine.get("timed").cancel()
        assert await unsealed()
        clock.advance(2 * housekeeping.IDENTITY_SECONDS)

        async def is_sealed():
            return not await unsealed()

        await eventually(is_sealed)
        assert not await engine._backend.running.database.read(seals.all_damaged)
        assert [info.run_id async for info in engine.runs(status="blocked")] == []


async def test_what_is_damaged_while_the_engine_has_the_file_is_seen_when_it_is_read(path, clock, eventually):
    """
    A timer that is due: nothing fires, and its run is blocked.
    """
    async with engine_on(path, clock=clock) as engine, asyncio.timeout(20):
        change(path, "UPDATE durable_waits SET position = '7' WHERE kind = 'timer'")
        clock.advance(3700)

        async def is_blocked():
            return (await engine.get("timed").info()).status == "blocked"

        await eventually(is_blocked)
        assert not [each async for each in engine.runs(workflow="timed", status="failed")]
