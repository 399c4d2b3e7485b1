"""
Schedules that are made, changed, deleted and made up for while an engine runs, by it or by a client.
"""

from datetime import UTC, datetime, timedelta

import pytest

from durable import (
    Client,
    Flow,
    Return,
    Schedule,
    ScheduleNotFoundError,
    job,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError, UsageError

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@job
def report(day: str) -> str:
    return day


@workflow
async def held(day: str) -> Flow[str]:
    yield wait_for("go")
    yield Return(day)


@workflow
async def told_twice(day: str) -> Flow[list[int]]:
    first: int = yield wait_for("note", int)
    second: int = yield wait_for("note", int)
    yield Return([first, second])


@pytest.fixture
def clock(clock):
    """
    The hand clock, at the beginning of an hour: anchors are whole seconds.
    """
    clock.start = float(int(clock.start) // 3600 * 3600)
    return clock


def tick_id(at, name="hourly"):
    return f"schedule:{name}:{datetime.fromtimestamp(at, UTC).isoformat()}"


def moment(at):
    return datetime.fromtimestamp(at, UTC)


async def started(engine):
    return [info async for info in engine.runs()][::-1]


async def ids(engine, number, eventually):
    """
    The runs, once they are so many and the reports among them have ended, so that no tick is skipped for them.
    """

    async def there():
        runs = await started(engine)
        return len(runs) == number and all(run.status == "succeeded" for run in runs if run.workflow == "report")

    await eventually(there)
    return [info.run_id for info in await started(engine)]


# --- made -----------------------------------------------------------------------------------------


async def test_a_schedule_made_at_run_time_ticks_at_once_and_after_a_restart(engines, clock, eventually):
    """
    In an engine that lists none itself; what it starts is in the file, with its arguments and options.
    """
    engine = await engines.file(report, clock=clock)
    op = report("x").options(labels={"team": "a"}, priority=3)
    schedule = await engine.schedules.create("hourly", op, every=HOUR)
    clock.advance(HOUR)
    assert await ids(engine, 1, eventually) == [tick_id(clock.start + HOUR)]
    await engine.aclose()
    engine = await engines.file(report, clock=clock)
    clock.advance(HOUR)
    first, second = await ids(engine, 2, eventually)
    info = await engine.get(second).info()
    assert (second, info.labels, info.priority) == (tick_id(clock.now()), {"team": "a", "schedule": "hourly"}, 3)
    assert await engine.get(second).result(5) == "x"
    (told,) = await engine.schedules()
    assert (told.name, told.stored, told.overlap, told.missed) == ("hourly", True, "skip", "one")
    assert (told.next_at, told.last_run, schedule.name) == (clock.now() + HOUR, second, "hourly")
    assert first != second


async def test_a_client_makes_a_schedule_beside_its_engine(engines, clock, eventually, tmp_db):
    """
    It ticks as one that the engine made.
    """
    engine = await engines.file(report, clock=clock)
    async with Client(tmp_db, clock=clock) as client:
        await client.schedules.create("hourly", report("x"), every=timedelta(hours=1))
        clock.advance(HOUR)
        (run_id,) = await ids(engine, 1, eventually)
        assert await client.get(run_id).result(5) == "x"
        await client.schedule("hourly").delete()
        assert await client.schedules() == []


async def test_a_client_makes_a_schedule_in_a_file_that_nobody_owns(engines, clock, eventually, tmp_db):
    """
    The next engine lets it tick.
    """
    await (await engines.file(report, clock=clock)).aclose()
    async with Client(tmp_db, clock=clock) as client:
        await client.schedules.create("hourly", report("x"), cron="0 * * * *")
    engine = await engines.file(report, clock=clock)
    clock.advance(HOUR)
    assert await ids(engine, 1, eventually) == [tick_id(clock.now())]


async def test_making_the_same_schedule_twice_makes_one(engines, clock):
    """
    As an application does that makes it at each start: the ticks go on where they were.
    """
    engine = await engines.file(report, clock=clock)
    await engine.schedules.create("hourly", report("x"), every=HOUR)
    clock.advance(HOUR / 2)
    await engine.schedules.create("hourly", report("x"), every=HOUR)
    assert (await engine.schedule("hourly").info()).next_at == clock.start + HOUR
    with pytest.raises(UsageError, match="was made before, and is another: change or delete it"):
        await engine.schedules.create("hourly", report("y"), every=HOUR)
    with pytest.raises(UsageError, match="was made before"):
        await engine.schedules.create("hourly", report("x"), every=HOUR, overlap="allow")


async def test_a_schedule_that_contradicts_itself_is_not_made(engines):
    """
    As of `Schedule`: refused where it is asked for, and nothing is kept.
    """
    engine = await engines.memory(report)
    for options, match in (
        ({}, "exactly one of cron= and every="),
        ({"cron": "61 * * * *"}, "cannot be read"),
        ({"every": 60, "overlap": "never"}, "overlap must be"),
        ({"every": 60, "timezone": "Mars"}, "no time zone"),
    ):
        with pytest.raises(DefinitionError, match=match):
            await engine.schedules.create("hourly", report("x"), **options)
    with pytest.raises(DefinitionError, match="among the definitions given to Engine"):
        await engine.schedules.create("hourly", held("x"), every=60)
    assert await engine.schedules() == []


# --- changed and deleted --------------------------------------------------------------------------


async def test_a_schedule_is_changed_while_it_ticks(engines, clock, eventually):
    """
    What is not named stays; another time begins from now, another call at the next tick.
    """
    engine = await engines.memory(report, held, clock=clock)
    schedule = await engine.schedules.create("hourly", report("x"), every=HOUR, missed="none")
    clock.advance(HOUR / 2)
    assert await schedule.change(report("y"))
    assert (await schedule.info()).next_at == clock.start + HOUR
    clock.advance(HOUR / 2)
    (first,) = await ids(engine, 1, eventually)
    assert await engine.get(first).result(5) == "y"
    assert await schedule.change(every=2 * HOUR)
    assert not await schedule.change(every=2 * HOUR)
    info = await schedule.info()
    assert (info.next_at, info.missed) == (clock.now() + 2 * HOUR, "none")
    clock.advance(2 * HOUR)
    _, second = await ids(engine, 2, eventually)
    assert await engine.get(second).result(5) == "y"


async def test_a_paused_schedule_stays_paused_when_it_is_changed(engines, clock):
    """
    It ticks again when it is resumed.
    """
    engine = await engines.memory(report, clock=clock)
    schedule = await engine.schedules.create("hourly", report("x"), every=HOUR)
    await schedule.pause()
    await schedule.change(every=2 * HOUR)
    assert (await schedule.info()).next_at is None
    await schedule.resume()
    assert (await schedule.info()).next_at == clock.now() + 2 * HOUR


async def test_a_deleted_schedule_starts_nothing_more(engines, clock, eventually):
    """
    Its runs stay; one of the same name that is made later begins anew.
    """
    engine = await engines.memory(report, clock=clock)
    schedule = await engine.schedules.create("hourly", report("x"), every=HOUR)
    other = await engine.schedules.create("other", report("y"), every=HOUR)
    clock.advance(HOUR)
    await ids(engine, 2, eventually)
    await schedule.delete()
    with pytest.raises(ScheduleNotFoundError):
        await schedule.info()
    with pytest.raises(ScheduleNotFoundError):
        await schedule.trigger()
    clock.advance(HOUR)
    assert (await ids(engine, 3, eventually))[-1] == tick_id(clock.now(), other.name)
    await engine.schedules.create("hourly", report("z"), every=HOUR)
    clock.advance(HOUR)
    assert tick_id(clock.now()) in await ids(engine, 5, eventually)


async def test_what_the_program_lists_is_changed_in_the_program(engines, clock, tmp_db):
    """
    Neither an engine nor a client changes or deletes it; and the program takes over the name of one that was made.
    """
    listed = Schedule("hourly", report("x"), every=HOUR)
    engine = await engines.file(report, clock=clock, schedules=[listed])
    calls = (
        lambda handle: handle.schedules.create("hourly", report("x"), every=HOUR),
        lambda handle: handle.schedule("hourly").change(every=60),
        lambda handle: handle.schedule("hourly").delete(),
    )
    for call in calls:
        with pytest.raises(UsageError, match="is one of the program's"):
            await call(engine)
    await engine.schedules.create("daily", report("x"), every=24 * HOUR)
    await engine.aclose()
    async with Client(tmp_db, clock=clock) as client:
        for call in calls:
            with pytest.raises(UsageError, match="is one of the program's"):
                await call(client)
    engine = await engines.file(report, clock=clock, schedules=[listed, Schedule("daily", report("y"), every=HOUR)])
    assert [info.stored for info in await engine.schedules()] == [False, False]


async def test_what_the_program_no_longer_lists_is_changed_by_making_it_anew(engines, clock, eventually):
    """
    What it started was never in the journal, so a change of anything else has nothing to keep.
    """
    engine = await engines.file(report, clock=clock, schedules=[Schedule("hourly", report("x"), every=HOUR)])
    await engine.aclose()
    engine = await engines.file(report, clock=clock)
    for changed in ({"every": 60}, {"overlap": "allow"}):
        with pytest.raises(UsageError, match=r"'hourly' was one of the program's, .*: make it anew by "):
            await engine.schedule("hourly").change(**changed)
    await engine.schedules.create("hourly", report("y"), every=HOUR)
    clock.advance(HOUR)
    (run_id,) = await ids(engine, 1, eventually)
    assert await engine.get(run_id).result(5) == "y"


async def test_a_schedule_of_a_job_that_is_gone_says_so(engines, clock, eventually):
    """
    Its ticks fail and are counted, and nothing blocked is left behind.
    """
    engine = await engines.file(report, clock=clock)
    await engine.schedules.create("hourly", report("x"), every=HOUR)
    await engine.aclose()
    engine = await engines.file(held, clock=clock)
    clock.advance(HOUR)

    async def told():
        return (await engine.schedule("hourly").info()).failed == 1

    await eventually(told)
    assert "'report' is not among the definitions" in (await engine.schedule("hourly").info()).last_error
    assert await started(engine) == []


async def test_a_schedule_made_at_run_time_is_paused_resumed_and_triggered(engines, clock, eventually):
    """
    As those of the program.
    """
    engine = await engines.memory(report, clock=clock)
    schedule = await engine.schedules.create("hourly", report("x"), every=HOUR)
    assert await (await schedule.trigger()).result(5) == "x"
    await schedule.pause()
    clock.advance(HOUR)
    assert len(await started(engine)) == 1
    await schedule.resume()
    clock.advance(HOUR)
    await ids(engine, 2, eventually)


# --- made up for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
async def test_the_past_is_made_up_for(engines, clock, eventually, stored):
    """
    A run each for the ticks of that time that have none: also from before the schedule was known. Again, nothing.
    """
    listed = () if stored else [Schedule("hourly", lambda at: report("x"), every=HOUR)]
    engine = await engines.file(report, clock=clock, schedules=listed)
    if stored:
        await engine.schedules.create("hourly", report("x"), every=HOUR)
    clock.advance(HOUR)
    await ids(engine, 1, eventually)
    schedule, start = engine.schedule("hourly"), clock.start
    runs = await schedule.backfill(moment(start - 2 * HOUR), moment(start + 30 * HOUR))
    assert [run.id for run in runs] == [tick_id(start + number * HOUR) for number in (-2, -1, 0, 1)]
    assert len(await started(engine)) == 4
    for run in runs:
        assert await run.result(5) == "x"
    again = await schedule.backfill(moment(start - 2 * HOUR), moment(start))
    assert [run.id for run in again] == [run.id for run in runs[:3]]
    assert len(await started(engine)) == 4
    clock.advance(HOUR)
    assert (await ids(engine, 5, eventually))[-1] == tick_id(clock.now())


async def test_a_tick_that_has_its_run_gives_it_nothing_more(engines, clock, reached):
    """
    No second signal of those that it starts with. And if it would start something else by now, that is no failure.
    """
    day = ["x"]
    listed = Schedule("hourly", lambda at: told_twice(day[0]).options(signals=[("note", 1)]), every=HOUR)
    engine = await engines.memory(told_twice, clock=clock, schedules=[listed])
    hourly, at = engine.schedule("hourly"), moment(clock.start - HOUR)
    (run,) = await hourly.backfill(at, at)
    await reached(run, "waiting")
    for day[0] in ("x", "y"):
        assert [again.id for again in await hourly.backfill(at, at)] == [run.id]
    await run.signal("note", 2)
    assert await run.result(5) == [1, 2]
    info = await hourly.info()
    assert (info.failed, info.last_error) == (0, None)


async def test_what_is_made_up_for_runs_in_order(engines, clock, reached):
    """
    One behind the other, unless runs of the schedule may overlap.
    """
    engine = await engines.memory(held, clock=clock)
    hourly = await engine.schedules.create("hourly", held("x"), every=HOUR)
    first, second = await hourly.backfill(moment(clock.start - HOUR), moment(clock.start))
    await reached(first, "waiting")
    assert await second.status() == "pending"
    await first.signal("go")
    await reached(second, "waiting")
    beside = await engine.schedules.create("beside", held("x"), every=HOUR, overlap="allow")
    for run in await beside.backfill(moment(clock.start - HOUR), moment(clock.start)):
        await reached(run, "waiting")


async def test_the_past_is_made_up_for_by_the_next_engine(engines, clock, eventually, tmp_db):
    """
    Asked for by a client while nobody had the file; twice, which changes nothing.
    """
    engine = await engines.file(report, clock=clock)
    await engine.schedules.create("hourly", report("x"), cron="0 * * * *")
    await engine.aclose()
    start = clock.start
    async with Client(tmp_db, clock=clock) as client:
        for _ in range(2):
            runs = await client.schedule("hourly").backfill(moment(start - 3 * HOUR), moment(start - HOUR))
            assert [run.id for run in runs] == [tick_id(start - number * HOUR) for number in (3, 2, 1)]
    engine = await engines.file(report, clock=clock)
    assert await ids(engine, 3, eventually) == [run.id for run in runs]
    assert (await engine.schedule("hourly").info()).failed == 0


async def test_too_much_of_the_past_is_refused(engines, clock):
    """
    Nobody wants a year of minutes at once; nor instants of a zone that is anybody's guess.
    """
    engine = await engines.memory(report, clock=clock)
    schedule = await engine.schedules.create("often", report("x"), every=60)
    with pytest.raises(UsageError, match=r"more than 1,000 times in that time: ask for a part of it"):
        await schedule.backfill(moment(clock.start - 365 * 24 * HOUR), moment(clock.start))
    with pytest.raises(UsageError, match="since must be an aware datetime"):
        await schedule.backfill(datetime(2026, 1, 1), moment(clock.start))  # noqa: DTZ001 - what is refused
    assert await started(engine) == []
