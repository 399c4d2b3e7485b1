"""
A journal for Prometheus: what a scrape gives, of a live engine, of a file alone, and of one that is not there.
"""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from durable import Engine, Limit, UsageError, job, step, wait_for, workflow
from durable.metrics import MEASURES, collector


@job(queue="mail")
async def tell(who: str) -> None:
    pass


@step(limit=Limit("gateway", concurrency=1))
async def charge() -> None:
    pass


@workflow
async def waiting():
    await wait_for("never")


def scraped(shown):
    registry = CollectorRegistry()
    registry.register(collector(shown))
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.fixture
def busy(tmp_db):
    async def happen():
        async with Engine(tmp_db, [tell, waiting]) as engine:
            await engine.run(tell("ada"))
            run = await engine.start(waiting())
            while await run.status() != "waiting":
                await asyncio.sleep(0.01)
            await engine.queue("mail").pause()
            await engine.start(tell("bob"))

    asyncio.run(happen())
    return tmp_db


def test_a_file_alone_is_scraped(busy):
    """
    Runs by workflow and status, the paused queue with what waits in it, waits, events, bytes.
    """
    found = scraped(busy)
    assert found["durable_up"] == 1
    assert found['durable_runs{status="succeeded",workflow="tell"}'] == 1
    assert found['durable_runs{status="waiting",workflow="waiting"}'] == 1
    assert found['durable_queue_waiting{queue="mail"}'] == 1
    assert found['durable_queue_paused{queue="mail"}'] == 1
    assert found['durable_waits{kind="signal"}'] == 1
    assert found["durable_events_total"] >= 5
    assert found["durable_file_bytes"] > 0
    assert found["durable_oldest_open_run_seconds"] > 0


def test_every_sample_is_one_that_is_listed_and_none_names_a_run(busy):
    """
    `MEASURES` has each name with its labels; ids are no labels.
    """
    for sample in scraped(busy):
        name, _, labels = sample.partition("{")
        if name in ("durable_up", "durable_engine_healthy"):
            continue
        assert [each.partition("=")[0] for each in labels.rstrip("}").split(",") if each] == sorted(MEASURES[name][0])


async def test_an_engine_is_scraped_from_any_thread(tmp_db):
    """
    And tells how it is.
    """
    async with Engine(tmp_db, [tell]) as engine:
        await engine.run(tell("ada"))
        found = await asyncio.to_thread(scraped, engine)
    assert found["durable_engine_healthy"] == 1
    assert 1 <= found["durable_engine_commits_total"] <= found["durable_engine_writes_total"]
    assert found["durable_engine_commit_seconds_total"] > 0
    assert scraped(engine)["durable_engine_healthy"] == 0


def test_what_cannot_be_read_is_down(tmp_path):
    """
    A scrape never fails: `durable_up` is 0, and nothing else is told.
    """
    assert scraped(tmp_path / "none.db") == {"durable_up": 0}
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    assert scraped(tmp_path / "other.db") == {"durable_up": 0}


def test_a_journal_in_memory_has_nothing_to_read():
    """
    Said when it is asked for.
    """
    with pytest.raises(UsageError, match="stats"):
        collector(":memory:")
