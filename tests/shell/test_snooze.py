"""
Steps and jobs that are called again later: `Snooze`, which costs no attempt, and `RetryAfter` without a policy.
"""

import asyncio
from datetime import timedelta

import pytest

from durable import (
    Flow,
    Limit,
    Middleware,
    Retry,
    RetryAfter,
    Return,
    RunFailedError,
    Snooze,
    context,
    cursor,
    job,
    snooze,
    step,
    transaction,
    workflow,
)
from durable.errors import UsageError

pytestmark = pytest.mark.anyio


def as_run(kind, function, **options):
    """
    *function* as the one step of a workflow, or as a job.
    """
    if kind == "job":
        made = job(**options)(function)
        return made, made
    stepped = step(**options)(function)

    @workflow(name="around")
    async def around() -> Flow[object]:
        yield Return((yield stepped()))

    return around, around


async def sleeps(engine, calls=(1,), count=1):
    """
    Whether nothing is in memory, and a timer is set, after *count* calls.
    """
    if len(calls) != count:
        return False
    (timers,) = await engine._backend.read(
        lambda conn: conn.execute("SELECT count(*) FROM durable_waits WHERE kind = 'retry'").fetchone()
    )
    return timers == 1 and engine._backend.running.scheduler.active == 0


@pytest.mark.parametrize("how", ["raised", "awaited", "in a thread"])
@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_snooze_frees_the_run_and_costs_no_attempt(engines, clock, eventually, kind, how):
    """
    Five of them with a policy of a single attempt; the sixth call gives the value.
    """
    calls = []

    async def polls() -> int:
        calls.append(context().attempt)
        if len(calls) <= 5:
            if how == "awaited":
                await snooze(timedelta(seconds=60), "not yet")
            raise Snooze(60, "not yet")
        return len(calls)

    def polls_in_a_thread() -> int:
        calls.append(context().attempt)
        if len(calls) <= 5:
            raise Snooze(60, "not yet")
        return len(calls)

    function = polls_in_a_thread if how == "in a thread" else polls
    definition, call = as_run(kind, function, retry=1)
    engine = await engines.memory(definition, clock=clock)
    run = await engine.start(call())
    for count in range(1, 6):
        await eventually(lambda count=count: sleeps(engine, calls, count))
        assert "(due in 1 min)" in await run.why()
        assert await run.status() == "waiting"
        clock.advance(59)
        await asyncio.sleep(0)
        clock.advance(1.1)
    assert await run.result(5) == 6
    history = await run.history()
    assert "StepRetrying" not in [event.kind for event in history]
    assert [event.event.reason for event in history if event.kind == "StepSnoozed"] == ["not yet"] * 5


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_the_timer_of_a_snooze_survives_a_restart(engines, clock, eventually, kind):
    """
    And so does its cursor: it continues where it was.
    """

    calls = []

    async def imports() -> int:
        calls.append(1)
        done = cursor(0)
        if done.value < 3:
            await done.advance(done.value + 1)
            raise Snooze(60)
        return done.value

    definition, call = as_run(kind, imports)
    engine = await engines.file(definition, clock=clock)
    run = await engine.start(call())
    for count in range(1, 4):
        await eventually(lambda engine=engine, count=count: sleeps(engine, calls, count))
        await engine.aclose()
        clock.advance(61)
        engine = await engines.file(definition, clock=clock)
    assert await engine.get(run.id).result(5) == 3


async def test_a_snooze_gives_its_slot_to_others(engines, clock, eventually):
    """
    Of a limit, as during the delay of a retry.
    """
    began = []

    @job(limit=Limit("one", concurrency=1))
    async def narrow(number: int) -> int:
        began.append(number)
        if began.count(1) == 1 and number == 1:
            await snooze(60)
        return number

    engine = await engines.memory(narrow, clock=clock)
    first = await engine.start(narrow(1))
    await eventually(lambda: sleeps(engine))
    assert await engine.run(narrow(2)) == 2
    clock.advance(61)
    assert await first.result(5) == 1
    assert began == [1, 2, 1]


async def test_a_run_that_snoozes_can_be_cancelled(engines, clock, eventually, reached):
    """
    At once: there is nothing to wait for.
    """

    @job
    async def polls() -> None:
        await snooze(60)

    engine = await engines.memory(polls, clock=clock)
    run = await engine.start(polls())
    await eventually(lambda: sleeps(engine))
    await run.cancel()
    await reached(run, "cancelled")


async def test_nobody_is_told_of_a_failure_by_a_snooze(engines, clock, eventually):
    """
    It is none: not to middleware, nor in the events of the engine.
    """
    told, seen = [], []

    class Watching(Middleware):
        def attempt_failed(self, failure):
            told.append(failure)

    @job
    async def polls() -> int:
        seen.append(1)
        if len(seen) == 1:
            await snooze(60)
        return 1

    engine = await engines.memory(polls, clock=clock, middleware=[Watching()])
    run = await engine.start(polls())
    await eventually(lambda: sleeps(engine))
    clock.advance(61)
    assert await run.result(5) == 1
    assert told == []


async def test_a_transaction_that_snoozes_is_rolled_back_and_called_again(engines, clock, eventually):
    """
    What it wrote before is gone.
    """
    calls = []

    @transaction
    def books(tx) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS seats (seat INTEGER)")
        tx.execute("INSERT INTO seats VALUES (1)")
        calls.append(1)
        if len(calls) == 1:
            raise Snooze(60)
        return tx.execute("SELECT count(*) FROM seats").fetchone()[0]

    @workflow
    async def booking() -> Flow[int]:
        yield Return((yield books()))

    engine = await engines.memory(booking, clock=clock)
    run = await engine.start(booking())
    await eventually(lambda: sleeps(engine))
    clock.advance(61)
    assert await run.result(5) == 1


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
async def test_a_snooze_for_no_time_is_a_failure(engines, seconds):
    """
    It would never be called again.
    """

    @job
    async def never() -> None:
        raise Snooze(seconds)

    engine = await engines.memory(never)
    with pytest.raises(RunFailedError, match="snooze for"):
        await engine.run(never())


async def test_only_a_step_or_job_can_snooze(engines):
    """
    In a workflow there is `sleep`.
    """

    @workflow
    async def wrong() -> None:
        await snooze(60)

    engine = await engines.memory(wrong)
    with pytest.raises(RunFailedError, match=r"snooze\(\) works while a step or job"):
        await engine.run(wrong())
    with pytest.raises(UsageError):
        await snooze(1)


# --- RetryAfter without a policy ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_retry_after_without_a_policy_tries_any_number_of_times(engines, clock, eventually, kind):
    """
    Each is a failed attempt, and the next comes when it says.
    """
    calls = []

    async def asks() -> int:
        calls.append(context().attempt)
        if len(calls) <= 7:
            raise RetryAfter(60)
        return len(calls)

    definition, call = as_run(kind, asks)
    engine = await engines.memory(definition, clock=clock)
    run = await engine.start(call())
    for count in range(1, 8):
        await eventually(lambda count=count: sleeps(engine, calls, count))
        clock.advance(61)
    assert await run.result(5) == 8
    assert calls == list(range(1, 9))
    assert [event.kind for event in await run.history()].count("StepRetrying") == 7


@pytest.mark.parametrize("retry", [1, Retry(2, delay=0.0)])
async def test_a_policy_limits_retry_after(engines, retry):
    """
    Also that of a single attempt, if somebody asked for it.
    """
    calls = []

    @job(retry=retry)
    async def asks() -> None:
        calls.append(1)
        raise RetryAfter(0)

    engine = await engines.memory(asks)
    with pytest.raises(RunFailedError, match="RetryAfter"):
        await engine.run(asks())
    assert len(calls) == (1 if retry == 1 else 2)


async def test_a_retry_after_that_reaches_the_end_of_a_workflow_fails_it(engines):
    """
    Without a policy of its own, a workflow is not begun anew because of a step.
    """
    calls = []

    @step(retry=1)
    async def asks() -> None:
        calls.append(1)
        raise RetryAfter(0)

    @workflow
    async def around() -> Flow[None]:
        yield asks()

    engine = await engines.memory(around)
    with pytest.raises(RunFailedError, match="RetryAfter"):
        await engine.run(around())
    assert calls == [1]


# --- what counts as an attempt -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_an_attempt_that_the_death_of_the_process_cut_off_counts(engines, clock, kind):
    """
    `Retry(2)` allows two calls, and not a third one because the process died during the first.
    """
    calls, began = [], asyncio.Event()

    async def works() -> None:
        calls.append(context().attempt)
        if len(calls) == 1:
            began.set()
            await asyncio.Event().wait()
        raise ConnectionError("again")

    definition, call = as_run(kind, works, retry=Retry(2, delay=0.0))
    engine = await engines.file(definition)
    run = await engine.start(call())
    await began.wait()
    await engines.crash(engine)
    engine = await engines.file(definition)
    with pytest.raises(RunFailedError, match="again"):
        await engine.get(run.id).result(5)
    assert calls == [1, 2]


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_an_attempt_that_a_closing_engine_cut_off_costs_nothing(engines, kind):
    """
    However often a deploy comes in between.
    """
    calls, began = [], asyncio.Event()

    async def works() -> int:
        calls.append(context().attempt)
        if len(calls) <= 3:
            began.set()
            await asyncio.Event().wait()
        if len(calls) == 4:
            raise ConnectionError("again")
        return len(calls)

    definition, call = as_run(kind, works, retry=Retry(2, delay=0.0))
    engine = await engines.file(definition, grace=0.01)
    run = await engine.start(call())
    for _ in range(3):
        await began.wait()
        began.clear()
        await engine.aclose()
        engine = await engines.file(definition, grace=0.01)
    assert await engine.get(run.id).result(5) == 5
