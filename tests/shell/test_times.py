"""
What a run's time is counted by: an attempt's by its execution, a workflow's from when it begins; and `expires`, which
is what gives up a run that has not begun.
"""

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durable import (
    Flow,
    Limit,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunExpiredError,
    RunFailedError,
    context,
    job,
    sleep,
    wait_for,
    workflow,
)
from durable._shell.storage import schema
from durable.errors import DefinitionError


@job(timeout=30)
async def quick(number: int = 1) -> int:
    return number


@job(timeout=30)
async def gated(number: int) -> int:
    await gated.gates[number].wait()
    return number


@pytest.fixture
def gates():
    """
    One for each run of `gated`.
    """
    gated.gates = {number: asyncio.Event() for number in range(1, 4)}
    return gated.gates


async def expired(run):
    """
    The error of a run that was given up.
    """
    with pytest.raises(RunFailedError, match="had not begun by") as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, RunExpiredError)
    return caught.value.__cause__


# --- the time of an attempt -------------------------------------------------------------------------


async def test_the_timeout_of_a_job_does_not_count_the_queue(engines, clock, gates, reached):
    """
    Nor that it is paused: who waits an hour for a slot has all its time still.
    """
    engine = await engines.memory(gated, clock=clock, queues=[Queue("default", 1)])
    first, second = await engine.start_many([gated(1), gated(2)])
    await reached(first, "running")
    clock.advance(3600)
    await engine.queue("default").pause()
    gates[1].set()
    gates[2].set()
    assert await first.result(5) == 1
    clock.advance(3600)
    assert await second.status() == "pending"
    await engine.queue("default").resume()
    assert await second.result(5) == 2


async def test_the_timeout_of_a_job_does_not_count_its_delay(engines, clock, eventually):
    """
    A follow-up's neither: `send_tips().options(delay=300)` is not over before it is due.
    """
    engine = await engines.memory(quick, clock=clock)
    delayed = await engine.start(quick(1).then(quick(2).options(delay=3600)), delay=3600)
    clock.advance(3601)
    assert await delayed.result(5) == 1
    clock.advance(3601)

    async def both():
        return [info.status async for info in engine.runs()] == ["succeeded"] * 2

    await eventually(both)


async def test_the_timeout_of_a_job_does_not_count_down_time(engines, clock):
    """
    While nothing has the file open, nothing of it passes.
    """
    engine = await engines.file(quick, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(quick())
    await engine.aclose()
    clock.advance(3600)
    engine = await engines.file(quick, clock=clock)
    await engine.queue("default").resume()
    assert await engine.get(run.id).result(5) == 1


@pytest.mark.parametrize("how", ["definition", "options"])
async def test_an_attempt_of_a_job_that_hangs_is_cut_off_and_tried_again(engines, how):
    """
    `timeout=` is that of each attempt, as with a step; `options(timeout=)` is kept with the run.
    """

    async def hangs_once() -> int:
        if context().attempt == 1:
            await asyncio.Event().wait()
        return context().attempt

    options = {"retry": Retry(attempts=2, delay=0.0), "timeout": 0.05 if how == "definition" else None}
    hanging = job(**options)(hangs_once)
    engine = await engines.memory(hanging)
    assert await engine.run(hanging() if how == "definition" else hanging().options(timeout=0.05)) == 2


async def test_a_job_without_another_attempt_fails_with_the_timeout_of_its_last_one(engines):
    """
    The reason names the job and its time.
    """

    @job(timeout=0.05)
    async def hangs() -> None:
        await asyncio.Event().wait()

    engine = await engines.memory(hangs)
    with pytest.raises(RunFailedError, match=r"'hangs' took longer than 0.05 s") as caught:
        await engine.run(hangs())
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_the_timeout_that_a_job_was_started_with_outlives_the_engine(engines):
    """
    A delayed run that hangs is cut off by the engine that opens the file next.
    """

    @job
    async def hangs() -> None:
        await asyncio.Event().wait()

    engine = await engines.file(hangs)
    run = await engine.start(hangs().options(timeout=0.05), delay=0.2)
    await engine.aclose()
    engine = await engines.file(hangs)
    with pytest.raises(RunFailedError, match=r"took longer than 0.05 s"):
        await engine.get(run.id).result(5)


# --- the time of a workflow -------------------------------------------------------------------------


@workflow(timeout=60)
async def bounded() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


async def test_the_timeout_of_a_workflow_counts_from_when_it_first_begins(engines, clock, reached, eventually):
    """
    Its delay and the queue count for nothing; what it waits for, once it has begun, does.
    """
    engine = await engines.memory(bounded, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(bounded(), delay=3600)
    clock.advance(3601)

    async def due():
        return "which is paused" in await run.why()

    await eventually(due)
    clock.advance(3600)
    assert await run.status() == "pending"
    await engine.queue("default").resume()
    await reached(run, "waiting")
    begun = (await run.info()).started_at
    clock.advance(59)
    assert await run.status() == "waiting"
    clock.advance(2)
    with pytest.raises(RunFailedError, match="not done within 60 s"):
        await run.result(5)
    ended = (await run.info()).ended_at
    assert 60 <= ended - begun <= 62


async def test_the_timeout_of_a_workflow_counts_on_while_the_engine_is_closed(engines, clock, reached):
    """
    It is time of the run, not of the program: it began.
    """
    engine = await engines.file(bounded, clock=clock)
    run = await engine.start(bounded())
    await reached(run, "waiting")
    await engine.aclose()
    clock.advance(61)
    engine = await engines.file(bounded, clock=clock)
    with pytest.raises(RunFailedError, match="not done within 60 s"):
        await engine.get(run.id).result(5)


async def test_a_child_has_its_time_from_when_it_begins(engines, clock, eventually):
    """
    A parent may start it long before its turn comes.
    """

    @workflow(timeout=30)
    async def child() -> Flow[int]:
        yield sleep(20)
        yield Return(1)

    @workflow
    async def parent() -> Flow[int]:
        yield Return((yield child().options(delay=3600)))

    engine = await engines.memory(parent, child, clock=clock)
    run = await engine.start(parent())

    async def sleeping(kind):
        waits = await engine._backend.read(lambda conn: conn.execute("SELECT kind FROM durable_waits").fetchall())
        return (kind,) in waits

    await eventually(lambda: sleeping("start"))
    clock.advance(3601)
    await eventually(lambda: sleeping("timer"))
    clock.advance(21)
    assert await run.result(5) == 1


async def test_a_copy_has_a_time_of_its_own(engines, clock, reached):
    """
    A fork is a run: its time counts from when it begins, however long the other one took.
    """
    engine = await engines.memory(bounded, clock=clock)
    run = await engine.start(bounded())
    await reached(run, "waiting")
    clock.advance(50)
    copy = await run.fork(at="0")
    await reached(copy, "waiting")
    clock.advance(20)
    with pytest.raises(RunFailedError, match="not done within 60 s"):
        await run.result(5)
    assert await copy.status() == "waiting"
    clock.advance(41)
    with pytest.raises(RunFailedError, match="not done within 60 s"):
        await copy.result(5)


# --- expires ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["seconds", "timedelta", "datetime"])
@pytest.mark.parametrize("call", [quick, bounded], ids=["job", "workflow"])
async def test_a_run_that_has_not_begun_in_time_is_given_up(engines, clock, given, call):
    """
    Status failed, with `RunExpiredError`, and nothing of it was executed.
    """
    ways = {
        "seconds": 60,
        "timedelta": timedelta(minutes=1),
        "datetime": datetime.fromtimestamp(clock.now() + 60, UTC),
    }
    engine = await engines.memory(quick, bounded, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(call().options(expires=ways[given]))
    other = await engine.start(call(), expires=ways[given])
    clock.advance(59)
    assert await run.status() == "pending"
    clock.advance(2)
    for each in (run, other):
        error = await expired(each)
        assert (error.run_id, round(error.expires_at - clock.start)) == (each.id, 60)
        info = await each.info()
        assert (info.status, info.reason[:15]) == ("failed", "RunExpiredError")
        assert [event.kind for event in await each.history()] == ["RunStarted", "RunExpired", "RunFailed"]


async def test_a_run_that_has_begun_does_not_expire(engines, clock, gates, reached):
    """
    However long it takes, also when it resumes much later.
    """
    engine = await engines.memory(gated, bounded, clock=clock)
    at_work, waiting = await engine.start(gated(1), expires=5), await engine.start(bounded(), expires=5)
    await reached(at_work, "running")
    await reached(waiting, "waiting")
    clock.advance(6)
    gates[1].set()
    assert await at_work.result(5) == 1
    await waiting.signal("go", "gone")
    assert await waiting.result(5) == "gone"


async def test_a_run_that_expired_while_nothing_ran_never_begins(engines, clock, tmp_db):
    """
    It is given up at the opening, though a slot is free: by its own turn, should the timer come later.
    """
    called = []

    @job
    async def late() -> None:
        called.append(1)

    engine = await engines.file(late, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(late(), expires=60)
    await engine.aclose()
    clock.advance(61)
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.execute("DELETE FROM durable_queues")
        conn.execute("DELETE FROM durable_waits WHERE kind = 'expiry'")  # the timer: it may come too late
        conn.commit()
    engine = await engines.file(late, clock=clock)
    await expired(engine.get(run.id))
    assert called == []


async def test_a_delayed_or_paused_run_expires(engines, clock, reached):
    """
    A pause does not keep what nobody needs any more.
    """
    engine = await engines.memory(quick, clock=clock)
    delayed = await engine.start(quick(), delay=3600, expires=datetime.fromtimestamp(clock.now() + 7200, UTC))
    await delayed.pause()
    clock.advance(7201)
    await expired(delayed)


async def test_a_job_in_line_for_its_first_slot_has_not_begun(engines, clock, gates, eventually):
    """
    What waits for the slot of a limit is given up, and who stands behind it comes in.
    """
    one = Limit("one", concurrency=1)

    @job(limit=one)
    async def narrow(number: int) -> int:
        await gates[number].wait()
        return number

    engine = await engines.memory(narrow, clock=clock)
    first = await engine.start(narrow(1))

    async def granted():
        rows = await engine._backend.read(lambda conn: conn.execute("SELECT granted_at FROM durable_slots").fetchall())
        return any(at is not None for (at,) in rows)

    await eventually(granted)
    second = await engine.start(narrow(2), expires=60)
    third = await engine.start(narrow(3))

    async def in_line():
        return "limit 'one'" in await second.why()

    await eventually(in_line)
    clock.advance(61)
    await expired(second)
    for number in gates:
        gates[number].set()
    assert (await first.result(5), await third.result(5)) == (1, 3)


async def test_hooks_and_batches_hear_of_what_has_expired(engines, clock):
    """
    As of any other failure.
    """
    heard = []

    @job
    async def report(run_id: str, error: str) -> None:
        heard.append((run_id, error))

    @job(queue="slow")
    async def stale() -> None:
        raise AssertionError

    @stale.on_failure
    def told(finished):
        return report(finished.run_id, type(finished.error).__name__)

    engine = await engines.memory(stale, report, clock=clock)
    await engine.queue("slow").pause()
    async with engine.batch(on_failure=report("batch", "failed")) as batch:
        batch.add(stale().options(expires=60))
    (member,) = [each async for each in engine.runs(queue="slow")]
    clock.advance(61)
    await expired(engine.get(member.run_id))
    await engine.idle()
    assert sorted(heard) == sorted([(member.run_id, "RunExpiredError"), ("batch", "failed")])


async def test_a_parent_gets_the_expiry_of_its_child_as_its_error(engines, clock, reached):
    """
    It can handle it as any other failure.
    """

    @job(queue="slow")
    async def stale() -> None:
        raise AssertionError

    @workflow
    async def parent() -> Flow[str]:
        try:
            yield stale().options(expires=60)
        except RunExpiredError:
            yield Return("gave up")

    engine = await engines.memory(parent, stale, clock=clock)
    await engine.queue("slow").pause()
    run = await engine.start(parent())
    await reached(run, "waiting")
    clock.advance(61)
    assert await run.result(5) == "gave up"


async def test_a_run_that_has_expired_can_be_retried(engines, clock):
    """
    Who asks for that wants it: it does not expire again.
    """
    engine = await engines.memory(quick, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(quick(), expires=60)
    clock.advance(61)
    await expired(run)
    await run.retry()
    assert await run.status() == "pending"
    await engine.queue("default").resume()
    assert await run.result(5) == 1


@pytest.mark.parametrize("of", ["job", "workflow", "child"])
async def test_a_failed_run_that_is_retried_does_not_expire(engines, clock, of):
    """
    It had begun in time: that it is asked for once more later, by itself or by its parent, is no reason to give it up.
    """
    broken = [True]

    @job
    async def work() -> int:
        if broken[0]:
            raise ValueError
        return 1

    @workflow
    async def code() -> int:
        if broken[0]:
            raise ValueError
        return 1

    @workflow
    async def parent() -> int:
        return await work().options(expires=60)

    engine = await engines.memory(work, code, parent, clock=clock)
    run = await engine.start({"job": work, "workflow": code, "child": parent}[of](), expires=60)
    with pytest.raises(RunFailedError, match="ValueError"):
        await run.result(5)
    clock.advance(61)
    broken[0] = False
    assert await run.retry() is True
    assert await run.result(5) == 1


async def test_a_workflow_that_expired_and_is_retried_has_its_time(engines, clock, reached):
    """
    It begins only then.
    """
    engine = await engines.memory(bounded, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(bounded(), expires=60)
    clock.advance(61)
    await expired(run)
    clock.advance(3600)
    await run.retry()
    await engine.queue("default").resume()
    await reached(run, "waiting")
    clock.advance(59)
    assert await run.status() == "waiting"
    clock.advance(2)
    with pytest.raises(RunFailedError, match="not done within 60 s"):
        await run.result(5)


@pytest.mark.parametrize("how", ["expire", "cancel"])
async def test_what_begins_and_ends_at_once_does_one_of_the_two(engines, clock, how):
    """
    Jobs whose time ends while they begin: each succeeds, having run once, or was given up, having never run; and who
    waits for it hears of that. So does who waits for one that is cancelled then.
    """
    ran = []

    @job
    async def racing(number: int) -> int:
        ran.append(number)
        await asyncio.sleep(0)
        return number

    engine = await engines.memory(racing, clock=clock, queues=[Queue("default", 3)])
    for pause in (0, 0.0005, 0.001, 0.002, 0.004, 0.01):
        ran.clear()
        runs = await engine.start_many([racing(number).options(expires=1 + number % 7) for number in range(100)])
        for turn in range(8):
            await asyncio.sleep(pause)
            if how == "expire":
                clock.advance(1)
            else:
                await asyncio.gather(*(run.cancel() for run in runs[turn::8]))
        statuses = {}
        for number, run in enumerate(runs):
            with contextlib.suppress(RunFailedError, RunCancelledError):
                await run.result(5)
            statuses[number] = await run.status()
        assert len(ran) == len(set(ran))
        if how == "expire":
            assert {number for number, status in statuses.items() if status == "succeeded"} == set(ran)
        assert set(statuses.values()) <= {"succeeded", "failed" if how == "expire" else "cancelled"}


@pytest.mark.parametrize("given", [0, -1, float("nan"), "soon"])
async def test_an_expiry_that_is_no_time_is_refused(given):
    """
    When the op is made, with what was expected.
    """
    with pytest.raises(DefinitionError, match="expires must be a positive number"):
        quick().options(expires=given)


async def test_a_naive_datetime_is_no_expiry():
    """
    It would mean another time on another machine.
    """
    with pytest.raises(ValueError, match="aware datetime"):
        quick().options(expires=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


# --- older files ------------------------------------------------------------------------------------


def test_timeouts_of_older_files_count_as_those_of_today():
    """
    A job that waits in the queue of an older file does not fail because of its deadline there, but has its timeout; a
    workflow that has begun has its time from then on.
    """
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript((Path(__file__).parent / "schema_2.sql").read_text())
        for run, name, kind, began in (
            (1, "quick", "job", None),
            (2, "late", "workflow", None),
            (3, "w", "workflow", 200),
        ):
            conn.execute(
                "INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, created_at, "
                "started_at) VALUES (?, ?, ?, 1, ?, 'pending', 'default', 0, 100, ?)",
                (run, name, name, kind, began),
            )
            conn.execute(
                "INSERT INTO durable_waits (run, grp, position, kind, wake_on, fire_at, since) "
                "VALUES (?, '', '', 'deadline', 'any', 160, 100)",
                (run,),
            )
        conn.commit()
        schema.prepare(conn, 300.0)
        timeouts = conn.execute("SELECT run_id, timeout FROM durable_runs ORDER BY run").fetchall()
        assert timeouts == [("quick", 60.0), ("late", 60.0), ("w", 60.0)]
        assert conn.execute("SELECT run, fire_at, since FROM durable_waits").fetchall() == [(3, 260.0, 200.0)]
