"""
Journals that rotted: the run blocks with its event named, nothing is decoded, others go on.

Fault: single values of events changed, texts that are none any more, pages zeroed, an index that names another run.
SQLite's pages have no checksums, so each event has one, chained to that of the event before.
"""

import asyncio
import contextlib
import sqlite3

import pytest

from durable import Engine, Flow, Return, sleep, step, wait_for, workflow
from durable.errors import JournalCorruptError, JournalDamagedError, RunNotFoundError

pytestmark = pytest.mark.anyio

calls: list[str] = []


@step
async def work(name: str) -> str:
    calls.append(name)
    return name


@step
async def much(name: str) -> str:
    return name * 5_000


@workflow
async def waiter(name: str) -> Flow[str]:
    first: str = yield work(name)
    text: str = yield much("large")
    yield wait_for("go")
    last: str = yield work(f"{first} again")
    yield Return(last + text[:0])


@workflow
async def naps(number: int) -> Flow[int]:
    yield sleep(0.01)
    yield Return(number)


async def waiting(path):
    """A journal with two runs that wait, closed."""
    calls.clear()
    async with Engine(path, [waiter]) as engine:
        runs = [await engine.start(waiter(name), id=name) for name in ("rotten", "sound")]
        async with asyncio.timeout(5):
            for run in runs:
                while (await run.info()).status != "waiting":
                    await asyncio.sleep(0.005)


def change(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        for statement in statements:
            assert conn.execute(statement).rowcount > 0, statement
        conn.commit()


OF_ROTTEN = "run = (SELECT run FROM durable_runs WHERE run_id = 'rotten')"
# seq: 1 started, 2 and 3 the first step, 4 and 5 the second (its value is large), 6 the wait
ROT = {
    "a value": (f"UPDATE durable_events SET value = '\"rottem\"' WHERE seq = 3 AND {OF_ROTTEN}", 3),
    "a value that is not text any more": (
        f"UPDATE durable_events SET value = CAST(x'22ff22' AS TEXT) WHERE seq = 3 AND {OF_ROTTEN}",
        3,
    ),
    "a value that is gone": (f"UPDATE durable_events SET value = NULL WHERE seq = 3 AND {OF_ROTTEN}", 3),
    "a large value": ("UPDATE durable_payloads SET value = 'l' || substr(value, 2)", 5),
    "a large value that is gone": ("DELETE FROM durable_payloads", 5),
    "the arguments": (f"UPDATE durable_events SET value = '[[\"x\"],{{}}]' WHERE seq = 1 AND {OF_ROTTEN}", 1),
    "a body": (f"UPDATE durable_events SET body = replace(body, 'work', 'wort') WHERE seq = 2 AND {OF_ROTTEN}", 2),
    "a body that is not text any more": (
        f"UPDATE durable_events SET body = CAST(x'5bff' AS TEXT) WHERE seq = 2 AND {OF_ROTTEN}",
        2,
    ),
    "a position": (f"UPDATE durable_events SET position = '1' WHERE seq = 3 AND {OF_ROTTEN}", 3),
    "a time": (f"UPDATE durable_events SET at = at + 0.000001 WHERE seq = 4 AND {OF_ROTTEN}", 4),
    "a kind": (f"UPDATE durable_events SET kind = 12 WHERE seq = 3 AND {OF_ROTTEN}", 3),
    "a checksum": (f"UPDATE durable_events SET checksum = checksum + 1 WHERE seq = 4 AND {OF_ROTTEN}", 4),
    "an event that is gone": (f"DELETE FROM durable_events WHERE seq = 2 AND {OF_ROTTEN}", 2),
}
SWAPPED = (
    f"UPDATE durable_events SET seq = 1000 WHERE seq = 3 AND {OF_ROTTEN}",
    f"UPDATE durable_events SET seq = 3 WHERE seq = 5 AND {OF_ROTTEN}",
    f"UPDATE durable_events SET seq = 5 WHERE seq = 1000 AND {OF_ROTTEN}",
)


@pytest.mark.parametrize(
    "statements, seq",
    [pytest.param((sql,), seq, id=name) for name, (sql, seq) in ROT.items()]
    + [pytest.param(SWAPPED, 3, id="two events swapped")],
)
async def test_a_changed_event_blocks_its_run_and_no_other(tmp_db, statements, seq):
    """P12: run and sequence are named, no step runs, and the sound run goes on and ends."""
    await waiting(tmp_db)
    change(tmp_db, *statements)
    async with Engine(tmp_db, [waiter]) as engine:
        rotten, sound = engine.get("rotten"), engine.get("sound")
        for run in (rotten, sound):
            await run.signal("go")
        async with asyncio.timeout(5):
            if "payloads" not in statements[0]:  # the large value is the same one in both
                assert await sound.result() == "sound again"
            while (await rotten.info()).status != "blocked":
                await asyncio.sleep(0.005)
        reason = (await rotten.info()).reason
        assert "rotten" in reason
        assert f"event {seq}" in reason.lower() or f" {seq} " in reason, reason
        assert "rotten again" not in calls
        with pytest.raises(JournalCorruptError):
            await rotten.history()


@pytest.mark.parametrize("wrong", ["'\"rotten agaim\"'", "CAST(x'22ff22' AS TEXT)"])
async def test_a_changed_result_is_reported_and_not_returned(tmp_db, wrong):
    """P12 holds for runs that have ended, too."""
    await waiting(tmp_db)
    async with Engine(tmp_db, [waiter]) as engine:
        await engine.get("rotten").signal("go")
        assert await engine.get("rotten").result() == "rotten again"
    change(
        tmp_db,
        f"UPDATE durable_events SET value = {wrong} WHERE {OF_ROTTEN} "
        f"AND seq = (SELECT max(seq) FROM durable_events WHERE {OF_ROTTEN})",
    )
    async with Engine(tmp_db, [waiter]) as engine:
        with pytest.raises(JournalCorruptError, match="rotten"):
            await engine.get("rotten").result()
        await engine.get("sound").signal("go")
        assert await engine.get("sound").result() == "sound again"


# --- what no checksum of an event covers -----------------------------------------------------------------------------


def zero_page_of(path, table):
    """Overwrite the first page of a table with zeros."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


async def test_a_journal_that_cannot_be_recovered_is_refused_with_the_remedy(tmp_db):
    """Opening writes to this table: SQLite's own error said nothing of what to do, and was none of ours."""
    await waiting(tmp_db)
    zero_page_of(tmp_db, "durable_schedules")
    with pytest.raises(JournalDamagedError, match=r"malformed.*Restore from a backup"):
        await Engine(tmp_db, [waiter]).open()


async def test_runs_whose_page_is_gone_are_blocked_without_a_plea_to_report_a_bug(tmp_db):
    """The file is damaged, and we are not."""
    await waiting(tmp_db)
    zero_page_of(tmp_db, "durable_events")
    async with Engine(tmp_db, [waiter], grace=0.1) as engine:
        for name in ("rotten", "sound"):
            await engine.get(name).signal("go")
        async with asyncio.timeout(5):
            while (await engine.get("rotten").info()).status != "blocked":
                await asyncio.sleep(0.005)
        reason = (await engine.get("rotten").info()).reason
        assert "Restore from a backup" in reason
        assert "report this" not in reason
        with pytest.raises(JournalDamagedError):
            await engine.get("rotten").history()


async def test_a_row_that_is_no_text_any_more_is_told_to_whoever_asks_for_it_alone(tmp_db):
    """Requests are committed in groups: the damaged run's fails, the sound one's does not."""
    await waiting(tmp_db)
    change(tmp_db, "UPDATE durable_runs SET queue = CAST(x'ff' AS TEXT) WHERE run_id = 'rotten'")
    async with Engine(tmp_db, [waiter]) as engine:
        asked = [engine.get(name).signal("go") for name in ("rotten", "sound")]
        rotten, sound = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(rotten, JournalDamagedError)
        assert sound is True
        assert await engine.get("sound").result() == "sound again"


async def test_a_damaged_index_does_not_give_another_run_for_the_one_that_was_asked_for(tmp_db):
    """Two entries of the index over ids exchanged: who asks for one would be told the other's result."""
    calls.clear()
    async with Engine(tmp_db, [waiter]) as engine:
        for name in ("aaaaa", "bbbbb", "ccccc"):
            await (await engine.start(waiter(name), id=name)).signal("go")
            assert await engine.get(name).result() == f"{name} again"
    data = bytearray(tmp_db.read_bytes())
    for entry, other in ((b"bbbbb\x02", b"bbbbb\x03"), (b"ccccc\x03", b"ccccc\x02")):
        assert data.count(entry) == 1
        data[:] = data.replace(entry, other)
    tmp_db.write_bytes(data)
    async with Engine(tmp_db, [waiter]) as engine:
        assert await engine.get("aaaaa").result() == "aaaaa again"
        for name in ("bbbbb", "ccccc"):
            with pytest.raises(RunNotFoundError):
                await engine.get(name).result()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE durable_runs SET labels = '[1' WHERE run_id = 'rotten'",
        "UPDATE durable_runs SET labels = '" + "9" * 5000 + "' WHERE run_id = 'rotten'",
        "UPDATE durable_runs SET successor = 'rotten' WHERE run_id = 'rotten'",
        "UPDATE durable_runs SET parent = run WHERE run_id = 'rotten'",
        (
            "INSERT INTO durable_waits (run, grp, position, kind, wake_on, fire_at, since) "
            "VALUES (99, '', '', 'start', 'any', 1.0, 1.0)"
        ),
        "UPDATE durable_runs SET run = 9223372036854775807 WHERE run_id = 'rotten'",
        (
            "INSERT INTO durable_schedules (name, spec, timezone, anchor, upto, triggers, starts) "
            "VALUES ('bad', 'every 1 s', 'UTC', 9e999, 0, '{\"a\": 1}', '[')"
        ),
    ],
    ids=["labels", "number", "successor", "parent", "timer", "run", "schedule"],
)
async def test_a_damaged_row_harms_nobody_else(tmp_db, statement):
    """
    Whatever stands in it: the file opens, the other run resumes, new ones start and are listed, and timers fire.
    """
    await waiting(tmp_db)
    change(tmp_db, statement)
    async with Engine(tmp_db, [waiter, naps]) as engine, asyncio.timeout(20):
        with contextlib.suppress(RunNotFoundError, JournalDamagedError):
            await engine.get("rotten").signal("go")
        await engine.get("sound").signal("go")
        assert await engine.get("sound").result() == "sound again"
        assert await engine.run(naps(1)) == 1
        assert {info.run_id async for info in engine.runs()} >= {"sound", "rotten"}
