"""
Limits, schedules, exports and checks of what runs on a server: the calls of `Engine` about many runs.
"""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from durable import (
    Limit,
    Rate,
    Schedule,
    ScheduleNotFoundError,
    UsageError,
    gather,
    job,
    read_histories,
    step,
    wait_for,
    workflow,
)
from durable.temporal import TemporalEngine


class Gate:
    """
    What steps wait for: of each test's own loop.
    """

    opened: asyncio.Event


narrow = Limit("narrow", concurrency=1, rate=Rate(100, per=1))
by_room = Limit("by room", concurrency=1)


@step(limit=narrow)
async def inside(n: int) -> int:
    await Gate.opened.wait()
    return n


@step(limit=by_room, limit_key=lambda room: room)
async def in_room(room: str) -> str:
    await Gate.opened.wait()
    return room


@workflow
async def crowd() -> list[int]:
    return await gather(*(inside(n) for n in range(3)))


@workflow
async def rooms() -> list[str]:
    return await gather(*(in_room(each) for each in ("red", "blue", "red")))


@job
async def report(at: str) -> str:
    return at


@step
async def first() -> int:
    return 1


@workflow
async def asks() -> int:
    return await first() + await child() + await wait_for("more", int)


@workflow
async def child() -> int:
    return 1


ALL = [crowd, rooms, report, asks, child]


@pytest.fixture(autouse=True)
async def closed():
    Gate.opened = asyncio.Event()


async def until(look):
    """
    What *look* finds, once that is true.
    """
    async with asyncio.timeout(30):
        while not (found := await look()):
            await asyncio.sleep(0.05)
        return found


async def test_a_limit_tells_who_is_inside_and_who_waits(engines):
    """
    Over all workers, with the numbers of the code; nobody once all have gone; and none that the engine does not know.
    """
    engine = await engines(*ALL)
    run = await engine.start(crowd())

    async def full():
        info = await engine.limit("narrow").info()
        return info if (info.inside, info.waiting) == (1, 2) else None

    info = await until(full)
    assert (info.name, info.concurrency, info.rate, info.changed) == ("narrow", 1, Rate(100, per=1), False)
    (holder,) = info.holders
    assert (holder.run, holder.key) == (run.id, None)
    assert {slot.position for slot in (*info.holders, *info.waiters)} == {each.position for each in await run.steps()}
    assert all(holder.since <= slot.since + 1 for slot in info.waiters)
    assert [each.name for each in await engine.limits()] == ["by room", "narrow"]
    Gate.opened.set()
    assert await run.result() == [0, 1, 2]
    info = await engine.limit("narrow").info()
    assert (info.inside, info.waiting, info.holders) == (0, 0, [])
    with pytest.raises(UsageError, match=r"no limit is called 'wide'.*narrow"):
        await engine.limit("wide").info()
    with pytest.raises(UsageError, match="those of the workers' code"):
        await engine.limit("narrow").change(concurrency=2)


async def test_a_limit_with_keys_tells_each(engines):
    """
    Two at once in two rooms, and the third waits for its own.
    """
    engine = await engines(*ALL)
    run = await engine.start(rooms())

    async def full():
        info = await engine.limit("by room").info()
        return info if (info.inside, info.waiting) == (2, 1) else None

    info = await until(full)
    assert sorted(slot.key for slot in info.holders) == ["blue", "red"]
    assert [slot.key for slot in info.waiters] == ["red"]
    Gate.opened.set()
    assert await run.result() == ["red", "blue", "red"]


async def test_a_schedule_is_told_paused_triggered_and_filled(engines, client, queue):
    """
    With the words of an embedded engine, the server's next tick, and runs whose ids tell their tick.
    """
    name = f"s-{uuid.uuid4().hex[:6]}"
    nightly = Schedule(name, lambda at: report(at.isoformat()), every=timedelta(hours=1).total_seconds())
    engine = await engines(*ALL, schedules=[nightly])
    schedule = engine.schedule(name)
    info = await schedule.info()
    assert (info.name, info.spec, info.timezone, info.paused) == (name, nightly.spec, "UTC", False)
    assert info.next_at is not None
    assert await schedule.pause() is True
    assert await schedule.pause() is False
    assert (await schedule.info()).paused
    run = await schedule.trigger()
    assert run.id.startswith(f"schedule:{name}:trigger:")
    assert datetime.fromisoformat(await run.result()) < datetime.now(UTC)
    assert await schedule.resume() is True
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    filled = await schedule.backfill(midnight, midnight + timedelta(hours=2))
    assert [each.id for each in filled] == [
        f"schedule:{name}:{(midnight + timedelta(hours=hour)).isoformat()}" for hour in range(3)
    ]

    async def all_there():
        found = {info.id async for info in engine.runs(workflow=report)}
        return found >= {each.id for each in filled}

    await until(all_there)
    assert [await each.result() for each in filled] == [
        (midnight + timedelta(hours=hour)).isoformat() for hour in range(3)
    ]

    async def last_told():
        return (await schedule.info()).last_run == filled[-1].id

    await until(last_told)

    async def listed():
        return [each.name for each in await engine.schedules()] == [name]

    await until(listed)
    other = TemporalEngine(client, queue, ALL, poll=())
    assert (await other.schedule(name).info()).spec == nightly.spec
    with pytest.raises(UsageError, match="not among this engine's schedules"):
        await other.schedule(name).trigger()
    with pytest.raises(UsageError, match="aware datetime"):
        await schedule.backfill(datetime(2026, 1, 1), midnight)  # noqa: DTZ001 - refused
    with pytest.raises(UsageError, match="list it in"):
        await engine.schedules.create("x", report("now"), every=60)
    await schedule.delete()
    with pytest.raises(ScheduleNotFoundError):
        await schedule.info()


async def test_open_runs_are_checked_against_the_code_at_hand(engines, client, queue):
    """
    By a program that works on nothing: the workers tell their journals.
    """
    engine = await engines(*ALL)
    run = await engine.start(asks())
    await until(run.waits)
    there = TemporalEngine(client, queue, ALL, poll=())

    async def checked():
        report = await there.check()
        return report if report.counts else None

    report = await until(checked)
    assert (report.ok, {*report.counts}) == (True, {"same"})
    await run.signal("more", 5)
    assert await run.result() == 7


async def test_runs_are_exported_with_what_they_started_and_redacted(engines, tmp_path):
    """
    Into a file as an embedded engine writes it.
    """
    engine = await engines(*ALL)
    run = await engine.start(asks())
    await run.signal("more", 5)
    assert await run.result() == 7
    await until(run.children)
    await engine.export(run.id, tmp_path / "one.jsonl")
    assert [each.run.run_id for each in read_histories(tmp_path / "one.jsonl")] == [run.id]
    await engine.export([run.id], tmp_path / "tree.jsonl", tree=True, redact=lambda _: "hidden")
    whole = read_histories(tmp_path / "tree.jsonl")
    assert [each.run.workflow for each in whole] == ["asks", "child"]
    assert whole[0].events[-1].value == '"hidden"'
