"""
Schedules on an engine: each tick starts one run, whatever is closed, killed, paused or late.
"""

import asyncio
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    Limit,
    Middleware,
    PoisonError,
    Return,
    RunFailedError,
    Schedule,
    ScheduleNotFoundError,
    continue_as,
    job,
    wait_for,
    workflow,
)
from durable._core.authoring.registry import Definitions
from durable._core.authoring.schedules import Timetable
from durable._core.codec.codec import Codec
from durable._shell.clock import SystemClock
from durable._shell.requests.request import Env
from durable._shell.requests.schedule_requests import PauseSchedule, ResumeSchedule, TriggerSchedule
from durable._shell.rows.new_runs import make_run
from durable._shell.rows.rows import Effects
from durable._shell.storage import schema
from durable._shell.tasks import ticker as schedules_module
from durable._shell.tasks.ticker import Ticker
from durable._shell.writes import schedule_writes
from durable.errors import DefinitionError, EngineClosedError, StepInterruptedError

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@job
def report(day: str) -> str:
    return day


@job(key="the-report")
def keyed_report(day: str) -> str:
    return day


class Commits(Middleware):
    """Notes how many share each commit."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def committed(self, members: int, seconds: float) -> None:
        self.sizes.append(members)


@workflow
async def held(day: str) -> Flow[str]:
    yield wait_for("go", timeout=None)
    yield Return(day)


@workflow
async def relayed(rounds: int) -> Flow[None]:
    yield wait_for("go")
    if rounds:
        yield continue_as(relayed(rounds - 1))


def hourly(op=None, **options):
    return Schedule("hourly", op or report("x"), every=HOUR, **options)


@pytest.fixture
def clock(clock):
    """
    The hand clock, at the beginning of an hour: anchors are whole seconds.
    """
    clock.start = float(int(clock.start) // 3600 * 3600)
    return clock


async def started(engine):
    """
    The runs of an engine, oldest first.
    """
    return [info async for info in engine.runs()][::-1]


async def count(engine, number, eventually):
    async def there():
        return len(await started(engine)) == number

    try:
        await eventually(there)
    except TimeoutError:
        raise AssertionError(f"not {number} runs: {await started(engine)}") from None
    return await started(engine)


async def handled(engine, at, eventually, name="hourly"):
    """
    Waits until the tick *at* was dealt with.
    """

    async def there():
        return (await engine.schedule(name).info()).last_at == at

    await eventually(there)


def tick_id(at, name="hourly"):
    return f"schedule:{name}:{datetime.fromtimestamp(at, UTC).isoformat()}"


# --- ticks --------------------------------------------------------------------------------------


async def test_each_tick_starts_one_run(engines, clock, eventually):
    """
    Named after schedule and time, labelled with the schedule; nothing starts before the first tick.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly(report("x").options(labels={"team": "a"}))])
    schedule = engine.schedule("hourly")
    info = await schedule.info()
    assert (info.spec, info.timezone, info.next_at) == ("every 3600.0 s", "UTC", clock.start + HOUR)
    assert (info.last_at, info.last_run, info.paused, info.skipped, info.last_error) == (None, None, False, 0, None)
    for number in range(1, 4):
        clock.advance(HOUR)
        runs = await count(engine, number, eventually)
        assert await engine.get(runs[-1].run_id).result(5) == "x"
    ids = [tick_id(clock.start + number * HOUR) for number in range(1, 4)]
    assert [run.run_id for run in runs] == ids
    assert [run.labels for run in runs] == [{"team": "a", "schedule": "hourly"}] * 3
    info = await schedule.info()
    assert (info.last_at, info.next_at, info.last_run) == (clock.now(), clock.now() + HOUR, ids[-1])


async def test_a_function_gets_the_tick_in_the_schedules_zone(engines, clock, eventually):
    """
    So that a report of 04:00 in Kolkata is of that day there.
    """
    nightly = Schedule("nightly", lambda at: report(at.isoformat()), cron="0 4 * * *", timezone="Asia/Kolkata")
    engine = await engines.memory(report, clock=clock, schedules=[nightly])
    clock.advance((await engine.schedule("nightly").info()).next_at - clock.now() + 7)
    (run,) = await count(engine, 1, eventually)
    day = await engine.get(run.run_id).result(5)
    assert day.endswith("T04:00:00+05:30")
    assert run.run_id == tick_id(datetime.fromisoformat(day).timestamp(), "nightly")


async def test_ticks_of_a_blocked_loop_start_their_runs_in_order(engines, clock, eventually):
    """
    A minute's ticks at once: one run each, the oldest first.
    """
    often = Schedule("often", report("x"), every=timedelta(seconds=20), overlap="allow")
    engine = await engines.memory(report, clock=clock, schedules=[often])
    clock.advance(60)
    runs = await count(engine, 3, eventually)
    assert [run.run_id for run in runs] == [tick_id(clock.start + after, "often") for after in (20, 40, 60)]


async def test_a_tick_on_the_machines_clock_comes_by_itself(engines, eventually):
    """
    Nobody moves this clock.
    """
    engine = await engines.memory(report, schedules=[Schedule("often", report("x"), every=1)])
    before = time.time()
    (run, *_) = await count(engine, 1, eventually)
    assert run.created_at >= before


async def test_schedules_of_one_instant_share_it(engines, clock, eventually):
    """
    A hundred at three o'clock: each starts its run.
    """
    schedules = [Schedule(f"s{number:03}", report(str(number)), every=HOUR) for number in range(100)]
    engine = await engines.memory(report, clock=clock, schedules=schedules)
    clock.advance(HOUR)
    runs = await count(engine, 100, eventually)
    assert {run.labels["schedule"] for run in runs} == {schedule.name for schedule in schedules}
    assert [info.name for info in await engine.schedules()] == [schedule.name for schedule in schedules]


async def test_thousands_of_one_instant_hold_nobody_up(engines, clock, eventually, monkeypatch):
    """
    What ticks at one instant is recorded so many at a time: neither the writer nor the event loop is held for all.
    """
    monkeypatch.setattr(schedules_module, "TICKS_AT_ONCE", 3)
    commits = Commits()
    schedules = [Schedule(f"s{number}", report(str(number)), every=HOUR) for number in range(8)]
    engine = await engines.memory(report, clock=clock, schedules=schedules, middleware=[commits])
    await engine.queue("default").pause()
    clock.advance(HOUR)
    await count(engine, 8, eventually)
    assert commits.sizes[-3:] == [3, 3, 2]


# --- exactly once -------------------------------------------------------------------------------


async def test_a_restart_starts_no_tick_again(engines, clock, eventually):
    """
    Closed after the tick, opened in the same second.
    """
    schedules = [hourly(missed="all")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(HOUR)
    (first,) = await count(engine, 1, eventually)
    await engine.get(first.run_id).result(5)
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(HOUR)
    runs = await count(engine, 2, eventually)
    assert [run.run_id for run in runs] == [first.run_id, tick_id(clock.now())]


async def test_a_tick_is_one_run_however_often_the_process_is_killed(engines, clock, eventually):
    """
    Killed before the tick was recorded, and twice after: one run.
    """
    schedules = [hourly(missed="one")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    await engines.crash(engine)
    clock.advance(HOUR)
    for _ in range(3):
        engine = await engines.file(report, clock=clock, schedules=schedules)
        (run,) = await count(engine, 1, eventually)
        assert await engine.get(run.run_id).result(5) == "x"
        await engines.crash(engine)
    assert run.run_id == tick_id(clock.now())


async def test_a_clock_set_back_starts_no_tick_again(engines, clock, eventually):
    """
    Neither while the engine runs nor when it is opened again; ticks go on where they had been.
    """
    schedules = [hourly(missed="all", overlap="allow")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    for number in (1, 2):
        clock.advance(HOUR)
        await count(engine, number, eventually)
    clock.offset -= 1.5 * HOUR
    clock.advance(0)
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(1.5 * HOUR)
    clock.advance(HOUR)
    runs = await count(engine, 3, eventually)
    assert [run.run_id for run in runs] == [tick_id(clock.start + number * HOUR) for number in (1, 2, 3)]


async def test_pruned_runs_are_not_started_again(engines, clock, eventually):
    """
    How far ticks are dealt with does not hang on their runs.
    """
    schedules = [hourly(missed="all")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(HOUR)
    (run,) = await count(engine, 1, eventually)
    await engine.get(run.run_id).result(5)
    clock.advance(60)
    assert await engine.prune(older_than=1) == 1
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(HOUR - 60)
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.start + 2 * HOUR)


async def test_a_new_run_that_got_the_number_of_a_pruned_one_is_none_of_the_schedule(
    engines, clock, eventually, reached
):
    """
    Numbers are given again once the newest runs were pruned and the file opened anew.
    """
    schedules = [hourly()]
    engine = await engines.file(report, held, clock=clock, schedules=schedules)
    clock.advance(HOUR)
    (run,) = await count(engine, 1, eventually)
    await engine.get(run.run_id).result(5)
    clock.advance(60)
    await engine.prune(older_than=1)
    await engine.aclose()
    engine = await engines.file(report, held, clock=clock, schedules=schedules)
    other = await engine.start(held("x"))
    assert (await other.info()).cursor == run.cursor
    clock.advance(HOUR - 60)
    runs = await count(engine, 2, eventually)
    assert runs[1].run_id == tick_id(clock.now())


# --- missed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("missed, numbers", [("none", [4]), ("one", [3, 4]), ("all", [1, 2, 3, 4])])
async def test_ticks_that_passed_without_an_engine(engines, clock, eventually, missed, numbers):
    """
    Three passed: none, the latest, or each of them starts a run; then it goes on.
    """
    schedules = [hourly(lambda at: report(at.isoformat()), missed=missed)]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    await engine.aclose()
    clock.advance(3.5 * HOUR)
    engine = await engines.file(report, clock=clock, schedules=schedules)
    runs = await count(engine, len(numbers) - 1, eventually)
    for run in runs:
        await engine.get(run.run_id).result(5)
    clock.advance(0.5 * HOUR)
    runs = await count(engine, len(numbers), eventually)
    assert [run.run_id for run in runs] == [tick_id(clock.start + number * HOUR) for number in numbers]


async def test_a_tick_that_fell_into_a_restart_is_on_time(engines, clock, eventually):
    """
    The grace of a minute holds across a restart: nothing was missed, whatever the policy.
    """
    schedules = [hourly(missed="none")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(HOUR - 20)
    await engine.aclose()
    clock.advance(50)
    engine = await engines.file(report, clock=clock, schedules=schedules)
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.start + HOUR)


async def test_a_missed_tick_is_made_up_for_by_default(engines, clock, eventually):
    """
    A nightly report of a machine that was down at night comes in the morning.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    await engine.aclose()
    clock.advance(2.5 * HOUR)
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.start + 2 * HOUR)


async def test_a_clock_that_was_years_ahead_stops_no_schedule(engines, clock, eventually):
    """
    Its ticks were dealt with up to that year: the next opening begins at the clock as it is.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    clock.advance(365 * 24 * HOUR)
    (future,) = await count(engine, 1, eventually)
    await engine.get(future.run_id).result(5)
    await engine.aclose()
    clock.offset -= 365 * 24 * HOUR
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    clock.advance(HOUR)
    runs = await count(engine, 2, eventually)
    assert {run.run_id for run in runs} == {future.run_id, tick_id(clock.start + HOUR)}


async def test_a_suspended_machine_misses_ticks_too(engines, clock, eventually):
    """
    What is more than a minute late falls under the policy, although the engine was never closed.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly(missed="none")])
    with capture_logs() as logs:
        clock.advance(2 * HOUR + 61)
        clock.advance(HOUR - 61)
        runs = await count(engine, 1, eventually)
    assert [run.run_id for run in runs] == [tick_id(clock.now())]
    assert [entry["schedule"] for entry in logs if entry["event"] == "schedule.dropped"] == ["hourly"]


async def test_all_missed_ticks_run_one_behind_the_other(engines, clock, eventually, reached):
    """
    Under `skip` as well, which is for ticks as they come: a missed one waits for its turn.
    """
    schedules = [hourly(lambda at: held(at.isoformat()), missed="all")]
    engine = await engines.file(held, clock=clock, schedules=schedules)
    await engine.aclose()
    clock.advance(3 * HOUR)
    engine = await engines.file(held, clock=clock, schedules=schedules)
    runs = [engine.get(info.run_id) for info in await count(engine, 3, eventually)]
    for number, run in enumerate(runs):
        await reached(run, "waiting")
        assert [await later.status() for later in runs[number + 1 :]] == ["pending"] * (2 - number)
        await run.signal("go")
        await run.result(5)


# --- overlap ------------------------------------------------------------------------------------


async def test_skip_leaves_out_a_tick_while_a_run_is_open(engines, clock, eventually):
    """
    Counted, with its time; the next tick after its end starts a run again.
    """
    engine = await engines.memory(held, clock=clock, schedules=[hourly(held("x"))])
    clock.advance(HOUR)
    (first,) = await count(engine, 1, eventually)
    for number in (2, 3):
        clock.advance(HOUR)
        await handled(engine, clock.start + number * HOUR, eventually)
    info = await engine.schedule("hourly").info()
    assert (info.skipped, info.last_skipped_at, info.last_run) == (2, clock.now(), first.run_id)
    await engine.get(first.run_id).signal("go")
    await engine.get(first.run_id).result(5)
    clock.advance(HOUR)
    runs = await count(engine, 2, eventually)
    assert runs[1].run_id == tick_id(clock.now())


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_a_run_that_holds_its_schedule_up_is_named(engines, clock, eventually, reached, overlap):
    """
    A paused run never ends by itself: whoever asks why nothing comes is told which, and what it needs.
    """
    engine = await engines.memory(held, clock=clock, schedules=[hourly(held("x"), overlap=overlap)])
    clock.advance(HOUR)
    (info,) = await count(engine, 1, eventually)
    run = engine.get(info.run_id)
    await reached(run, "waiting")
    await run.pause()
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    schedule = await engine.schedule("hourly").info()
    assert (schedule.last_error, schedule.failed) == (
        f"run {run.id!r} of an earlier tick is paused: resume it, or cancel it",
        0,
    )
    await run.resume()
    await run.signal("go")
    await run.result(5)
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    assert (await engine.schedule("hourly").info()).last_error is None


async def test_a_run_in_a_paused_queue_that_holds_its_schedule_up_is_named(engines, clock, eventually):
    """
    The queue is paused, so that the run never begins, and the schedule skips for ever.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly()])
    await engine.queue("default").pause()
    for _ in range(2):
        clock.advance(HOUR)
        await handled(engine, clock.now(), eventually)
    info = await engine.schedule("hourly").info()
    assert info.skipped == 1
    assert "waits for queue 'default', which is paused: resume it" in info.last_error


async def test_skip_follows_a_run_that_goes_on_as_another(engines, clock, eventually, reached):
    """
    A chain of `continue_as` is one run, open until its last link ends.
    """
    engine = await engines.memory(relayed, clock=clock, schedules=[hourly(relayed(1))])
    clock.advance(HOUR)
    (first,) = await count(engine, 1, eventually)
    await engine.get(first.run_id).signal("go")
    await count(engine, 2, eventually)
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    assert (await engine.schedule("hourly").info()).skipped == 1


async def test_allow_lets_runs_overlap(engines, clock, eventually, reached):
    """
    Both are under way.
    """
    engine = await engines.memory(held, clock=clock, schedules=[hourly(held("x"), overlap="allow")])
    for number in (1, 2):
        clock.advance(HOUR)
        await count(engine, number, eventually)
    for info in await started(engine):
        await reached(engine.get(info.run_id), "waiting")


async def test_cancel_ends_the_run_before(engines, clock, eventually, reached):
    """
    The old one is cancelled and says why; the new one goes on.
    """
    engine = await engines.memory(held, clock=clock, schedules=[hourly(held("x"), overlap="cancel")])
    clock.advance(HOUR)
    (info,) = await count(engine, 1, eventually)
    old = engine.get(info.run_id)
    await reached(old, "waiting")
    clock.advance(HOUR)
    new = engine.get((await count(engine, 2, eventually))[1].run_id)
    await reached(old, "cancelled")
    assert (await old.info()).reason == "schedule 'hourly' started its next run"
    await reached(new, "waiting")


async def queued(engines, clock, eventually, reached):
    """
    An engine of which one run is under way and two stand in line, on a file.
    """
    schedules = [hourly(lambda at: held(at.isoformat()), overlap="queue")]
    engine = await engines.file(held, clock=clock, schedules=schedules)
    for number in (1, 2, 3):
        clock.advance(HOUR)
        infos = await count(engine, number, eventually)
    runs = [engine.get(info.run_id) for info in infos]
    await reached(runs[0], "waiting")
    assert [await run.status() for run in runs[1:]] == ["pending", "pending"]
    return engine, runs, schedules


async def test_queue_runs_ticks_one_behind_the_other(engines, clock, eventually, reached):
    """
    Each begins with the end of the one before, in the order of their ticks, and says what it waits for.
    """
    _, (first, second, third), _ = await queued(engines, clock, eventually, reached)
    assert repr(first.id) in await second.why()
    assert repr(second.id) in await third.why()
    await first.signal("go")
    await reached(second, "waiting")
    assert await third.status() == "pending"
    await second.signal("go")
    await reached(third, "waiting")


async def test_a_queue_of_ticks_survives_a_kill(engines, clock, eventually, reached):
    """
    What stands in line is in the file, with what it waits for.
    """
    engine, runs, schedules = await queued(engines, clock, eventually, reached)
    await engines.crash(engine)
    engine = await engines.file(held, clock=clock, schedules=schedules)
    first, second, third = (engine.get(run.id) for run in runs)
    await reached(first, "waiting")
    assert [await second.status(), await third.status()] == ["pending", "pending"]
    await first.signal("go")
    await reached(second, "waiting")
    await engines.crash(engine)
    engine = await engines.file(held, clock=clock, schedules=schedules)
    second, third = engine.get(second.id), engine.get(third.id)
    await reached(second, "waiting")
    assert await third.status() == "pending"
    await second.cancel()
    await reached(third, "waiting")


async def test_who_leaves_the_line_lets_nobody_pass(engines, clock, eventually, reached):
    """
    The second is cancelled before it began: the third then waits for the first.
    """
    _, (first, second, third), _ = await queued(engines, clock, eventually, reached)
    await second.cancel()
    await reached(second, "cancelled")
    assert await third.status() == "pending"
    assert repr(first.id) in await third.why()
    await first.signal("go")
    await reached(third, "waiting")


async def test_a_paused_run_in_line_keeps_its_place(engines, clock, eventually, reached):
    """
    Resumed too early it waits on; resumed later it begins.
    """
    _, (first, second, third), _ = await queued(engines, clock, eventually, reached)
    await second.pause()
    await second.resume()
    assert await second.status() == "pending"
    await second.pause()
    await first.signal("go")
    await first.result(5)
    assert [await second.status(), await third.status()] == ["paused", "pending"]
    await second.resume()
    await reached(second, "waiting")


# --- pause, resume, trigger ---------------------------------------------------------------------


async def test_a_paused_schedule_starts_nothing_and_goes_on_from_its_resumption(engines, clock, eventually):
    """
    What passed meanwhile is not made up for, whatever `missed` says; the pause outlives a restart.
    """
    schedules = [hourly(missed="all")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    assert await engine.schedule("hourly").pause()
    assert not await engine.schedule("hourly").pause()
    info = await engine.schedule("hourly").info()
    assert (info.paused, info.next_at) == (True, None)
    clock.advance(2 * HOUR)
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(1.5 * HOUR)
    schedule = engine.schedule("hourly")
    assert await schedule.resume()
    assert not await schedule.resume()
    info = await schedule.info()
    assert (info.paused, info.next_at) == (False, clock.start + 4 * HOUR)
    clock.advance(0.5 * HOUR)
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.now())


async def test_a_trigger_starts_a_run_whatever_the_pause(engines, clock, eventually):
    """
    Its id says that it was asked for by hand; the function gets the moment. No tick is moved.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly(lambda at: report(at.isoformat()))])
    schedule = engine.schedule("hourly")
    await schedule.pause()
    clock.advance(60)
    run = await schedule.trigger()
    assert run.id.startswith("schedule:hourly:trigger:")
    assert await run.result(5) == datetime.fromtimestamp(clock.now(), UTC).isoformat()
    assert (await run.info()).labels == {"schedule": "hourly"}
    info = await schedule.info()
    assert (info.last_run, info.last_at, info.paused) == (run.id, None, True)
    again = await schedule.trigger()
    assert again.id != run.id


async def test_a_tick_minds_a_run_that_was_started_by_hand(engines, clock, eventually, reached):
    """
    And a run that ended hides no other that is open.
    """
    engine = await engines.memory(held, clock=clock, schedules=[hourly(held("x"))])
    schedule = engine.schedule("hourly")
    first, second = await schedule.trigger(), await schedule.trigger()
    await second.signal("go")
    await second.result(5)
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    assert (await schedule.info()).skipped == 1
    await first.signal("go")
    await first.result(5)
    clock.advance(HOUR)
    await count(engine, 3, eventually)


async def test_a_trigger_of_a_keyed_workflow_gives_the_run_of_its_key(engines, clock):
    """
    As a start does.
    """
    engine = await engines.memory(keyed_report, clock=clock, schedules=[hourly(keyed_report("x"))])
    started_run = await engine.start(keyed_report("x"))
    assert (await engine.schedule("hourly").trigger()).id == started_run.id


async def test_a_draining_engine_starts_nothing(engines, clock):
    """
    Neither by hand nor by a tick.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly()])
    await engine.drain()
    with pytest.raises(EngineClosedError, match="draining"):
        await engine.schedule("hourly").trigger()
    clock.advance(HOUR)
    for _ in range(20):
        await asyncio.sleep(0)
    assert await started(engine) == []


# --- clients ------------------------------------------------------------------------------------


async def test_a_client_asks_the_owner(engines, clock, eventually):
    """
    Pause, resume and trigger through its socket: the engine minds them at once.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    async with Client(engine.path, clock=clock) as client:
        schedule = client.schedule("hourly")
        assert [info.name for info in await client.schedules()] == ["hourly"]
        run = await schedule.trigger()
        assert await run.result(5) == "x"
        assert await schedule.pause()
        clock.advance(HOUR)
        assert await schedule.resume()
        assert (await schedule.info()).next_at == clock.now() + HOUR
        clock.advance(HOUR)
        runs = await count(engine, 2, eventually)
        assert runs[1].run_id == tick_id(clock.now())


async def test_a_client_is_told_what_went_wrong_at_the_owner(engines, clock):
    """
    An unknown name, and a function that fails, are errors of its own call.
    """

    def failing(at):
        raise ValueError("no report on Sundays")

    engine = await engines.file(report, clock=clock, schedules=[hourly(failing)])
    async with Client(engine.path, clock=clock) as client:
        with pytest.raises(DefinitionError, match="no report on Sundays"):
            await client.schedule("hourly").trigger()
        with pytest.raises(ScheduleNotFoundError, match="'daily'"):
            await client.schedule("daily").trigger()


async def test_a_client_records_what_it_asks_while_nobody_owns_the_file(engines, clock, eventually, tmp_db):
    """
    The next engine starts what was triggered, once, with the moment it was asked for; and heeds the pause.
    """
    schedules = [hourly(lambda at: report(at.isoformat()), missed="all")]
    engine = await engines.file(report, clock=clock, schedules=schedules)
    await engine.aclose()
    async with Client(tmp_db, clock=clock) as client:
        schedule = client.schedule("hourly")
        asked = datetime.fromtimestamp(clock.now(), UTC).isoformat()
        run = await schedule.trigger()
        assert await schedule.pause()
        clock.advance(2 * HOUR)
    for _ in range(2):
        engine = await engines.file(report, clock=clock, schedules=schedules)
        (info,) = await count(engine, 1, eventually)
        assert info.run_id == run.id
        assert await engine.get(run.id).result(5) == asked
        await engine.aclose()
    async with Client(tmp_db, clock=clock) as client:
        assert await client.schedule("hourly").resume()
    clock.advance(0.5 * HOUR)
    engine = await engines.file(report, clock=clock, schedules=schedules)
    clock.advance(0.5 * HOUR)
    runs = await count(engine, 2, eventually)
    assert runs[1].run_id == tick_id(clock.start + 3 * HOUR)


# --- changed, unknown, failing ------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        Schedule("hourly", report("x"), every=2 * HOUR, missed="all"),
        Schedule("hourly", report("x"), cron="0 */2 * * *", missed="all"),
        Schedule("hourly", report("x"), every=HOUR, timezone="Asia/Kolkata", missed="all"),
    ],
    ids=["every", "cron", "zone"],
)
async def test_a_changed_schedule_begins_anew(engines, clock, changed):
    """
    Its next tick is the first of the new kind from now on; what the old one missed is gone.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly(missed="all")])
    await engine.aclose()
    clock.advance(5.5 * HOUR)
    engine = await engines.file(report, clock=clock, schedules=[changed])
    info = await engine.schedule("hourly").info()
    assert info.spec == changed.spec
    assert info.next_at == changed.next_after(clock.now(), anchor=clock.now())
    await engine.schedule("hourly").trigger()  # behind what the opening would have started
    assert len(await started(engine)) == 1


async def test_another_policy_or_op_is_no_other_schedule(engines, clock, eventually):
    """
    Its ticks go on as they were.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    await engine.aclose()
    clock.advance(1.5 * HOUR)
    engine = await engines.file(report, clock=clock, schedules=[hourly(report("y"), missed="one", overlap="queue")])
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.start + HOUR)
    assert await engine.get(run.run_id).result(5) == "y"


async def test_a_schedule_that_no_engine_was_given_does_nothing(engines, clock, eventually):
    """
    It stays in the journal, has no next tick, and goes on when an engine is given it again.
    """
    engine = await engines.file(report, clock=clock, schedules=[hourly(missed="one")])
    await engine.aclose()
    other = Schedule("other", report("y"), every=HOUR)
    engine = await engines.file(report, clock=clock, schedules=[other])
    assert [(info.name, info.next_at is None) for info in await engine.schedules()] == [
        ("hourly", True),
        ("other", False),
    ]
    with pytest.raises(ScheduleNotFoundError, match="'hourly' in this engine"):
        await engine.schedule("hourly").trigger()
    clock.advance(HOUR)
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.now(), "other")
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=[hourly(missed="one")])
    assert {run.run_id for run in await count(engine, 2, eventually)} == {
        tick_id(clock.now()),
        tick_id(clock.now(), "other"),
    }


@pytest.mark.parametrize("call", ["info", "pause", "resume", "trigger"])
async def test_an_unknown_name_is_refused(engines, call):
    """
    Every call on its handle says so.
    """
    engine = await engines.memory(report, schedules=[hourly()])
    with pytest.raises(ScheduleNotFoundError, match="no schedule is called 'daily'"):
        await getattr(engine.schedule("daily"), call)()


@pytest.mark.parametrize("broken", ["raises", "no op", "coroutine", "unknown job", "bad argument"])
async def test_a_failing_function_harms_no_other_schedule(engines, clock, eventually, broken):
    """
    Logged, kept in `last_error`, and called again with the next tick; the others tick on.
    """

    @job
    def stranger() -> None: ...

    def raises():
        raise ValueError("no report")

    async def nothing():
        return None

    failures = {
        "raises": raises,
        "no op": lambda: 5,
        "coroutine": nothing,
        "unknown job": stranger,
        "bad argument": lambda: report(object()),
    }
    well = []

    def sometimes(at):
        if well:
            return report("well")
        return failures[broken]()

    schedules = [hourly(sometimes), Schedule("other", report("y"), every=HOUR)]
    engine = await engines.memory(report, clock=clock, schedules=schedules)
    with capture_logs() as logs:
        clock.advance(HOUR)
        await handled(engine, clock.now(), eventually)
        (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.now(), "other")
    assert [entry["schedule"] for entry in logs if entry["event"] == "schedule.failed"] == ["hourly"]
    info = await engine.schedule("hourly").info()
    assert info.last_error
    assert info.next_at == clock.now() + HOUR
    await engine.get(run.run_id).result(5)
    well.append(True)
    clock.advance(HOUR)
    await count(engine, 3, eventually)
    assert (await engine.schedule("hourly").info()).last_error is None


async def test_a_failing_function_drops_what_a_client_triggered(engines, clock, eventually, tmp_db):
    """
    Nobody is there to be told: it is kept in `last_error`, and not tried again.
    """

    def failing(at):
        raise ValueError("no report")

    engine = await engines.file(report, clock=clock, schedules=[hourly(failing)])
    await engine.aclose()
    async with Client(tmp_db, clock=clock) as client:
        await client.schedule("hourly").trigger()
    engine = await engines.file(report, clock=clock, schedules=[hourly(failing)])

    async def told():
        return "no report" in ((await engine.schedule("hourly").info()).last_error or "")

    await eventually(told)
    await engine.aclose()
    engine = await engines.file(report, clock=clock, schedules=[hourly()])
    clock.advance(HOUR)
    (run,) = await count(engine, 1, eventually)
    assert run.run_id == tick_id(clock.now())


async def test_a_trigger_that_is_asked_for_twice_starts_one_run(engines, clock):
    """
    As by a client whose first answer was lost: its id tells.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly()])
    for _ in range(2):
        found = await engine._backend.request(TriggerSchedule("hourly", "schedule:hourly:trigger:1"))
        assert found == "schedule:hourly:trigger:1"
    assert len(await started(engine)) == 1


def made_tick(at, overlap):
    """
    A tick of the schedule "often" with its run, whose number is its time.
    """
    run = make_run(
        report("x"), definitions=Definitions([report]), codec=Codec(None), allocate=lambda: int(at), now=at,
        run_id=tick_id(at, "often"), is_tick=True,
    )  # fmt: skip
    return schedule_writes.Tick(at, overlap, run)


def rows_of(*ticks, between):
    """
    A schedule's row, and the runs that *ticks* (made before) started, where *between* was recorded first.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        schema.prepare(conn, 0.0)
        schedule_writes.adopt(conn, [Schedule("often", report("x"), every=10)], 0.0, Effects())
        made = [made_tick(at, "allow") for at in ticks]
        before = schedule_writes.find_schedule(conn, "often")
        between(conn)
        row = schedule_writes.record_ticks(conn, Effects(), before=before, ticks=made, upto=ticks[-1], next_at=70.0)
        return row, [run_id for (run_id,) in conn.execute("SELECT run_id FROM durable_runs ORDER BY run")]


def test_a_tick_that_falls_into_a_pause_starts_nothing():
    """
    Its run was made, but the pause is recorded first.
    """
    row, runs = rows_of(10.0, 20.0, between=lambda conn: PauseSchedule("often").record(conn, Effects(), Env(5.0, "")))
    assert (row.next_at, row.upto, runs) == (None, 0.0, [])


def test_ticks_from_before_a_resumption_start_nothing():
    """
    Paused and resumed while their runs were made: only what is behind the resumption starts one.
    """

    def pause_and_resume(conn):
        known = Ticker(
            {"often": Schedule("often", report("x"), every=10)}, {}, SimpleNamespace(clock=SystemClock()), None
        )
        PauseSchedule("often").record(conn, Effects(), Env(5.0, ""))
        ResumeSchedule("often").record(conn, Effects(), Env(45.0, "", schedules=known))

    row, runs = rows_of(40.0, 60.0, between=pause_and_resume)
    assert (row.next_at, row.upto, runs) == (70.0, 60.0, [tick_id(60.0, "often")])
    row, runs = rows_of(30.0, 40.0, between=pause_and_resume)
    assert (row.next_at, row.upto, runs) == (50.0, 45.0, [])


def test_ticks_of_a_timetable_that_was_changed_meanwhile_start_nothing():
    """
    The change is recorded first: the schedule goes by what it was changed to, and keeps its next tick.
    """

    def change(conn):
        schedule_writes.put(conn, Timetable("often", every=3), None, 5.0)
        row = schedule_writes.find_schedule(conn, "often")
        schedule_writes.save(conn, row._replace(next_at=8.0), Effects())

    row, runs = rows_of(10.0, 20.0, between=change)
    assert (row.spec, row.next_at, row.upto, runs) == ("every 3 s", 8.0, 5.0, [])


def test_ticks_of_a_schedule_that_was_deleted_meanwhile_start_nothing():
    """
    Nor is that a failure of the schedule.
    """
    row, runs = rows_of(10.0, 20.0, between=lambda conn: conn.execute("DELETE FROM durable_schedules"))
    assert (row, runs) == (None, [])


def test_ticks_that_queue_cost_the_same_however_many_are_recorded_at_once():
    """
    Each of their runs stands behind the one before, and the others are not looked at again for each.
    """

    def statements(number):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
            schema.prepare(conn, 0.0)
            schedule_writes.adopt(conn, [Schedule("often", report("x"), every=10)], 0.0, Effects())
            seen = []
            conn.set_trace_callback(seen.append)
            ticks = [made_tick(10.0 * each, "queue") for each in range(1, number + 1)]
            row = schedule_writes.backfill(conn, schedule_writes.find_schedule(conn, "often"), ticks, Effects())
            conn.set_trace_callback(None)
            waits = conn.execute("SELECT run, target FROM durable_waits WHERE kind = 'start' ORDER BY run").fetchall()
        assert row.open_runs == tuple(tick.run.run_id for tick in ticks)
        assert waits == [(each * 10, each * 10 - 10) for each in range(2, number + 1)]
        return len(seen)

    assert statements(60) - statements(40) == statements(40) - statements(20)


async def test_a_tick_that_cannot_be_written_stops_nothing(engines, clock, eventually, monkeypatch):
    """
    A bug of ours or of SQLite's stops neither the other schedules nor the next tick.
    """
    engine = await engines.memory(report, clock=clock, schedules=[hourly(), Schedule("other", report("y"), every=HOUR)])
    record_ticks = schedules_module.record_ticks

    def broken(conn, effects, *, before, **options):
        if before.name == "hourly":
            raise RuntimeError("a bug")
        return record_ticks(conn, effects, before=before, **options)

    monkeypatch.setattr(schedules_module, "record_ticks", broken)
    with capture_logs() as logs:
        clock.advance(HOUR)
        (other,) = await count(engine, 1, eventually)

        async def logged():
            return any(entry["event"] == "schedule.failed" for entry in logs)

        await eventually(logged)
    await engine.get(other.run_id).result(5)
    monkeypatch.setattr(schedules_module, "record_ticks", record_ticks)
    clock.advance(HOUR)
    runs = await count(engine, 3, eventually)
    assert {run.run_id for run in runs} == {
        other.run_id,
        tick_id(clock.now()),
        tick_id(clock.now(), "other"),
    }


async def test_a_refused_key_fails_its_tick_only(engines, clock, eventually):
    """
    The key belongs to a run with other arguments: that is the tick's error.
    """
    engine = await engines.memory(keyed_report, clock=clock, schedules=[hourly(keyed_report("x"))])
    await engine.start(keyed_report("other"))
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    info = await engine.schedule("hourly").info()
    assert "the-report" in info.last_error
    assert info.failed == 1


async def test_a_tick_whose_key_is_held_by_a_run_that_has_ended_is_told(engines, clock, eventually):
    """
    A keyed job runs once and never again: each later tick counts as failed, and says what to do.
    """
    engine = await engines.memory(keyed_report, clock=clock, schedules=[hourly(keyed_report("x"))])
    clock.advance(HOUR)
    (first,) = await count(engine, 1, eventually)
    await engine.get(first.run_id).result(5)
    with capture_logs() as logs:
        for _ in range(2):
            clock.advance(HOUR)
            await handled(engine, clock.now(), eventually)
    info = await engine.schedule("hourly").info()
    assert (info.failed, info.skipped, info.last_run) == (2, 0, first.run_id)
    assert f"its key 'the-report' is held by run {first.run_id!r} (succeeded)" in info.last_error
    assert "key_ttl=" in info.last_error
    assert [entry["error"] for entry in logs if entry["event"] == "schedule.failed"] == [info.last_error] * 2


async def test_a_tick_that_joins_an_open_run_by_its_key_is_told(engines, clock, eventually, reached):
    """
    It has started no run of its own; and that run counts as one of the schedule's, so the next tick is skipped.
    """

    @workflow(key="the-one")
    async def one_of_a_kind() -> Flow[None]:
        yield wait_for("go")

    engine = await engines.memory(one_of_a_kind, clock=clock, schedules=[hourly(one_of_a_kind())])
    run = await engine.start(one_of_a_kind())
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    info = await engine.schedule("hourly").info()
    assert (info.failed, info.skipped, info.last_run) == (1, 0, None)
    assert f"held by run {run.id!r}" in info.last_error
    assert "joined that run" in info.last_error
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    assert (await engine.schedule("hourly").info()).skipped == 1


async def test_an_engine_refuses_schedules_that_it_could_not_run():
    """
    Two of one name, or a call of a workflow that it was not given, are errors where the engine is made.
    """
    with pytest.raises(DefinitionError, match="two schedules are called 'hourly'"):
        Engine(":memory:", [report], schedules=[hourly(), hourly()])
    with pytest.raises(DefinitionError, match="not among the definitions"):
        Engine(":memory:", [held], schedules=[hourly()])


async def test_cancel_ends_nothing_for_a_run_that_its_limit_rejects(engines, clock, eventually, reached):
    """
    The tick fails by the limit that the run before holds; that one goes on.
    """
    one = Limit("one", concurrency=1, on_conflict="reject")

    @workflow(limit=one)
    async def exclusive() -> Flow[None]:
        yield wait_for("go")

    engine = await engines.memory(exclusive, clock=clock, schedules=[hourly(exclusive(), overlap="cancel")])
    clock.advance(HOUR)
    (info,) = await count(engine, 1, eventually)
    await reached(engine.get(info.run_id), "waiting")
    clock.advance(HOUR)
    await handled(engine, clock.now(), eventually)
    assert "one" in (await engine.schedule("hourly").info()).last_error
    await engine.get(info.run_id).signal("go")
    assert await engine.get(info.run_id).result(5) is None


# --- what kills the process ---------------------------------------------------------------------


async def test_a_schedule_whose_runs_kill_the_process_pauses_after_two(engines, clock, eventually):
    """
    Each tick would take the process down again; other failures, and other schedules, go on.
    """

    @job
    def nightly(name: str, n: int) -> None:
        if n not in forgiven:
            raise PoisonError("", name, 3)

    forgiven = {2}
    ticks: list[float] = []

    def killing(at: datetime):
        ticks.append(at.timestamp())
        return nightly("killer", len(ticks))

    schedules = [
        Schedule("nightly", killing, every=HOUR),
        Schedule("nightly:other", lambda at: nightly(f"other {at}", 2), every=HOUR),
    ]
    engine = await engines.memory(nightly, clock=clock, schedules=schedules)
    schedule = engine.schedule("nightly")

    async def ended(number: int) -> None:
        clock.advance(HOUR)
        for run in await count(engine, number, eventually):
            with suppress(RunFailedError):
                await engine.get(run.run_id).result(5)

    for number in (2, 4, 6):  # the second one succeeds
        await ended(number)
        assert not (await schedule.info()).paused
    with capture_logs() as logs:
        await ended(8)
        await eventually(lambda: is_paused(schedule))
    info = await schedule.info()
    assert info.last_error is not None
    assert info.last_error.startswith(
        "paused, since its last 2 runs killed the process: PoisonError: the code of 'killer'"
    )
    assert [(entry["schedule"], entry["error"]) for entry in logs if entry["event"] == "schedule.paused"] == [
        ("nightly", info.last_error)
    ]
    await ended(9)  # the other one
    assert not (await engine.schedule("nightly:other").info()).paused
    forgiven.update(range(10))
    assert await schedule.resume()
    await ended(11)
    assert (await schedule.info()).last_error is None


async def is_paused(schedule) -> bool:
    return (await schedule.info()).paused


async def test_a_schedule_whose_runs_were_only_cut_off_goes_on(engines, clock, eventually):
    """
    By a deploy, or by a death of the process with no attempt left: unless they died before, that says nothing of them.
    """

    @job
    def nightly() -> None:
        raise StepInterruptedError("0", "nightly", 1)

    engine = await engines.memory(nightly, clock=clock, schedules=[hourly(nightly())])
    for number in (1, 2, 3):
        clock.advance(HOUR)
        run = (await count(engine, number, eventually))[-1]
        with suppress(RunFailedError):
            await engine.get(run.run_id).result(5)
    assert not (await engine.schedule("hourly").info()).paused
