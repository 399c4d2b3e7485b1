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
    Queue,
    Retry,
    Return,
    Schedule,
    cursor,
    emit,
    for_each,
    job,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._shell.reads.damaged_rows import misplaced
from durable._shell.requests.once import Once
from durable._shell.requests.request import Env
from durable._shell.requests.run_requests import SendSignal
from durable._shell.rows.rows import Effects
from durable._shell.storage import schema, seals
from durable._shell.tasks import housekeeping
from durable.errors import JournalCorruptError, JournalDamagedError, KeyConflictError

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
async def emits(words: list[str]) -> None:
    for word in words:
        emit("words", word)


@job
async def ends_badly() -> None: ...


@ends_badly.on_success
def hook(_finished) -> None:
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
    definitions = (timed, signalled, retrying, feeding, member, holds, child, emits, ends_badly)
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
            await paused.signal("more", 1, dedup="told")
            with contextlib.suppress(TimeoutError):
                await paused.ask("how", 1, dedup="asked", timeout=0.01)
            await engine.run(child(1), key="kept")
            await engine.prune(older_than=-60)
            await engine.run(emits(["a", "b"]), id="emits")
            await engine.run(ends_badly(), id="ends-badly")
            await engine.queue("calm").change(concurrency=1)
            await engine.queue("calm").pause()
            await engine.limit("narrow").change(concurrency=1)
            async with Client(path) as client:
                await client.get("paused").signal("other", 1)

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
            columns = {row[1]: row[2] for row in conn.execute(f"PRAGMA table_info({name})")}
            sealed = (*table.key, *table.columns)
            if name != "durable_runs":
                assert sorted((*sealed, "checksum")) == sorted(columns)
            assert {column for column in sealed if columns[column] == "REAL"} == seals._REALS & set(sealed)
            assert {column for column in sealed if columns[column] == "ANY"} <= seals._ANY


def damaged(conn):
    """
    The table of each row that does not fit its seal.
    """
    return [name for name in seals.TABLES for _ in seals.damaged_rows(conn, name)[0]]


@pytest.mark.parametrize("name", seals.TABLES)
def test_another_value_in_any_column_is_seen(path, name):
    """
    In that row, and in no other; also where it is of the same type, and no text any more.
    """
    table = seals.TABLES[name]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        assert not damaged(conn)
        for column in table.columns or table.key[1:]:
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
                assert damaged(conn) == [name], (column, other)
            if declared in {"TEXT", "ANY"}:
                conn.execute(f"UPDATE {name} SET {column} = CAST(x'ff' AS TEXT) WHERE {where}", key)
                assert damaged(conn) == [name], column
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


MOVED = """
UPDATE durable_events SET run = (SELECT run FROM durable_runs WHERE run_id = ?)
WHERE seq = 4 AND run = (SELECT run FROM durable_runs WHERE run_id = 'feeding')
"""


async def test_an_event_that_stands_with_another_run_is_put_back(path):
    """
    What it stands with by a damaged number goes on, and so does its own run.
    """
    change(path, MOVED, "innocent")
    with capture_logs() as logs:
        async with engine_on(path) as engine, asyncio.timeout(20):
            await engine.get("innocent").signal("go", "on")
            assert await engine.get("innocent").result() == "on"
    assert [each["of"] for each in logs if each["event"] == "journal.damaged"] == ["feeding"]
    with contextlib.closing(sqlite3.connect(path)) as conn:
        back = "SELECT count(*) FROM durable_events JOIN durable_runs USING (run) WHERE run_id = 'feeding' AND seq = 4"
        assert conn.execute(back).fetchone() == (1,)


async def test_no_new_run_gets_an_event_that_names_a_number_not_given_yet(path):
    """
    Its number is passed over.
    """
    change(
        path,
        MOVED.replace("(SELECT run FROM durable_runs WHERE run_id = ?)", "(SELECT max(run) + ? FROM durable_runs)"),
        2,
    )
    async with engine_on(path) as engine, asyncio.timeout(20):
        assert [await engine.run(child(number)) for number in range(4)] == [0, 1, 2, 3]
        await engine.get("innocent").signal("go", "on")
        assert await engine.get("innocent").result() == "on"


async def test_a_run_that_has_ended_has_its_result_although_the_event_of_another_stands_behind_it(path):
    """
    As long as that is all that is wrong with it.
    """
    change(path, MOVED, "emits")
    async with Client(path) as client:
        assert await client.get("emits").result() is None
    of_emits = "(SELECT run FROM durable_runs WHERE run_id = 'emits')"
    change(path, f"UPDATE durable_events SET at = 5.0 WHERE seq = 2 AND run = {of_emits}")
    async with Client(path) as client:
        with pytest.raises(JournalCorruptError):
            await client.get("emits").result()


async def test_a_run_that_has_ended_is_not_driven_again_because_its_row_says_that_it_is_ready(path):
    """
    Its step would be called once more.
    """
    change(path, "UPDATE durable_runs SET ready_at = 5.0 WHERE run_id = 'emits'")
    with capture_logs() as logs:
        async with engine_on(path) as engine:
            assert await engine.run(child(7)) == 7
            assert [each async for each in engine.get("emits").stream("words")] == ["a", "b"]
            assert len(await engine.get("emits").history()) == 3
    assert [each["of"] for each in logs if each["event"] == "journal.damaged"] == ["emits"]


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


async def test_a_damaged_queue_is_paused_and_named(path):
    """
    Else what a person has stopped would begin. Who has looked at it resumes it.
    """
    change(path, "UPDATE durable_queues SET paused_at = NULL WHERE name = 'calm'")
    with capture_logs() as logs:
        async with engine_on(path, queues=[Queue("calm", 3)]) as engine, asyncio.timeout(20):
            run = await engine.start(child(7), queue="calm")
            info = await engine.queue("calm").info()
            assert (info.paused, info.changed) == (True, None)
            assert (await run.info()).status == "pending"
            await engine.queue("calm").resume()
            assert await run.result() == 7
    assert [each["of"] for each in logs if each["event"] == "journal.damaged"] == ["calm"]
    async with engine_on(path, queues=[Queue("calm", 3)]) as engine:
        assert not (await engine.queue("calm").info()).paused


async def test_of_a_damaged_limit_the_numbers_of_the_code_hold(path):
    """
    And it is named: what others were set at run time is not known any more.
    """
    change(path, "UPDATE durable_limits SET concurrency = 50 WHERE name = 'narrow'")
    with capture_logs() as logs:
        async with engine_on(path) as engine:
            assert (await engine.limit("narrow").info()).concurrency == NARROW.concurrency
            assert await engine.run(child(7)) == 7
    assert [each["of"] for each in logs if each["event"] == "journal.damaged"] == ["narrow"]


async def test_a_damaged_key_of_a_run_that_was_pruned_is_given_to_nobody(path):
    """
    It is not known for how long it was taken, and by what; all other keys work.
    """
    change(path, "UPDATE durable_keys SET until = 5.0 WHERE key = 'kept'")
    with capture_logs() as logs:
        async with engine_on(path) as engine:
            with pytest.raises(KeyConflictError, match="does not match its checksum"):
                await engine.start(child(1), key="kept")
            assert await engine.run(child(7), key="other") == 7
    assert [each["of"] for each in logs if each["event"] == "journal.damaged"] == ["kept"]


@pytest.mark.parametrize("name", ["ept", ""])
async def test_a_key_whose_own_text_was_damaged_is_still_taken(path, name):
    """
    Its checksum says which it was: also when it was found damaged by an engine before this one.
    """
    change(path, "UPDATE durable_keys SET key = ? WHERE key = 'kept'", name)
    for _ in range(2):
        async with engine_on(path) as engine:
            with pytest.raises(KeyConflictError, match="does not match its checksum"):
                await engine.start(child(1), key="kept")
            assert await engine.run(child(7), key="other") == 7


async def test_a_queue_whose_own_name_was_damaged_is_paused_under_its_name(path):
    """
    As far as there are runs in it that have not ended: else nothing waits.
    """
    async with engine_on(path) as engine:
        await engine.start(child(7), id="calm", queue="calm")
    change(path, "UPDATE durable_queues SET name = 'clam' WHERE name = 'calm'")
    async with engine_on(path) as engine:
        assert (await engine.queue("calm").info()).paused
        assert (await engine.get("calm").info()).status == "pending"


@pytest.mark.parametrize("seq", [-(2**63), 0, 2**63 - 1])
def test_whose_an_event_is_is_looked_for_within_what_numbers_there_are(path, seq):
    """
    Of one that says what cannot be, nobody knows.
    """
    change(path, "UPDATE durable_events SET seq = ? WHERE kind = 44", seq)
    with contextlib.closing(sqlite3.connect(path)) as conn:
        (run,) = conn.execute("SELECT run FROM durable_runs WHERE run_id = 'timed'").fetchone()
        assert misplaced(conn, run) == []


async def test_a_damaged_item_of_a_stream_is_not_read(path):
    """
    Nobody goes by it; other streams are read.
    """
    change(path, "UPDATE durable_stream_items SET value = '\"c\"' WHERE value = '\"b\"'")
    async with Client(path) as client:
        with pytest.raises(JournalDamagedError, match=r"item \d+ of stream 'words' of run 'emits'"):
            _ = [each async for each in client.get("emits").stream("words")]
    async with engine_on(path) as engine:
        await engine.run(emits(["c"]), id="again")
        assert [each async for each in engine.get("again").stream("words")] == ["c"]


async def test_a_damaged_answer_to_a_client_is_no_answer(path):
    """
    Asked again under its id, the request says so, and is not done twice.
    """
    change(path, "UPDATE durable_requests SET answer = '[5]'")
    with contextlib.closing(sqlite3.connect(path)) as conn:
        ((asked,),) = conn.execute("SELECT id FROM durable_requests").fetchall()
        again = Once(asked, SendSignal("paused", "go", "x"))
        assert "cannot be read" in str(again.record(conn, Effects(), Env(1.0, str(path))))


async def test_what_a_run_accepted_and_was_asked_is_sealed(path):
    """
    At once: also what was written last, before the process died.
    """
    for table in ("dedup", "asked"):
        damaged_copy = shutil.copy(path, path.with_name(f"{table}.db"))
        column = "dedup" if table == "dedup" else "digest"
        change(damaged_copy, f"UPDATE durable_{table} SET {column} = 'x'")
        async with engine_on(damaged_copy) as engine:
            info = await engine.get("paused").info()
            assert info.status == "blocked"
            assert "does not match its checksum" in info.reason
            assert await engine.run(child(7)) == 7


async def test_what_is_written_seldom_is_sealed_as_it_is_written(tmp_db):
    """
    There is no moment in which a changed row would look sound, whatever becomes of the process.
    """
    with contextlib.closing(sqlite3.connect(tmp_db, isolation_level=None)) as conn:
        schema.prepare(conn, 1.0)
        conn.execute("INSERT INTO durable_queues (name, paused_at) VALUES ('q', 1.0)")
        assert conn.execute("SELECT checksum FROM durable_queues").fetchone() != (None,)
        conn.execute("INSERT INTO durable_queues (name) VALUES ('q') ON CONFLICT (name) DO UPDATE SET changed = '[1]'")
        assert conn.execute("SELECT checksum FROM durable_queues").fetchone() != (None,)
        assert not damaged(conn)
        change(tmp_db, "UPDATE durable_queues SET paused_at = NULL")
        conn.execute("UPDATE durable_queues SET fair_by = 'a'")
        assert damaged(conn) == ["durable_queues"]


@pytest.mark.parametrize("name", [name for name, table in seals.TABLES.items() if table.at_once])
def test_a_row_of_which_nothing_is_what_it_should_be_can_be_written_and_does_not_become_sound(name):
    """
    A trigger that fails would keep the engine from opening the file.
    """
    table, no_text = seals.TABLES[name], "CAST(x'ff' AS TEXT)"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.execute("CREATE TABLE durable_meta (name, value)")  # of tables that hold whatever they are given
        for each, its in seals.TABLES.items():
            conn.execute(f"CREATE TABLE {each} ({its.selected}, checksum, ended_at)")
        seals.keep_seals(conn)
        for value in (no_text, "x'fe'", "-7", "1e300", "0.1", "NULL", "'text'"):
            key = ", ".join(["1"] * len(table.key))
            values = "".join(f", {value}" for _ in table.columns)
            conn.execute(f"INSERT INTO {name} ({table.selected}) VALUES ({key}{values})")
            conn.execute(f"UPDATE {name} SET {table.key[0]} = 2")
            assert value != "NULL" or not damaged(conn)
            conn.execute(f"UPDATE {name} SET checksum = 7")
            for column in table.columns:
                conn.execute(f"UPDATE {name} SET {column} = {no_text}")
                conn.execute(f"UPDATE {name} SET {column} = NULL")
                assert damaged(conn) == [name]
            conn.execute(f"DELETE FROM {name}")


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
