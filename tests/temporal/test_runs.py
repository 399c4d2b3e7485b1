"""
Workflows on a server: steps, groups, children, timers, signals; the calls of the engine and of handles.
"""

import asyncio

import pytest

from durable import (
    Fatal,
    Flow,
    KeyConflictError,
    Return,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunStateError,
    context,
    cursor,
    gather,
    job,
    now,
    race,
    set_attributes,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


@step
async def double(n: int) -> int:
    calls.append(f"double {n}")
    return 2 * n


@step
def add_all(numbers: list[int]) -> int:
    return sum(numbers)


@step(retry=3)
async def third_time() -> int:
    attempt = context().attempt
    calls.append(f"attempt {attempt}")
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return attempt


@step(retry=5)
async def fatal() -> None:
    calls.append("fatal")
    raise Fatal("never again")


@step
async def hang() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        calls.append("cleaned up")


@step(retry=2)
async def counted() -> list[int]:
    here = cursor(0)
    found = []
    for n in range(here.value, 4):
        found.append(n)
        await here.advance(n + 1)
        if n == 1 and context().attempt == 1:
            raise ValueError("half way")
    return found


@job(queue="mail")
async def send(to: str) -> str:
    return f"sent to {to}"


@workflow
async def sums(n: int) -> Flow[int]:
    twice: int = yield double(n)
    both: list[int] = yield gather(double(1), double(2))
    total: int = yield add_all([twice, *both])
    yield Return(total)


@workflow
async def retried() -> int:
    return await third_time()


@workflow
async def fails() -> None:
    await fatal()


@workflow
async def mails(names: list[str]) -> list[str]:
    return await gather(*(send(name) for name in names))


@workflow
async def waits() -> str:
    set_attributes(state="waiting")
    answer: str = await wait_for("answer", str)
    set_attributes(state="answered")
    return answer


@workflow
async def loses() -> int:
    winner = await race(hang(), sleep(0.2))
    return winner.index


@workflow
async def cleans_up() -> None:
    try:
        await wait_for("never")
    finally:
        await double(21)


@workflow
async def gives_up() -> str:
    before = now()
    try:
        await timeout(wait_for("never"), 0.2)
    except TimeoutError:
        return "late" if (now() - before).total_seconds() >= 0.2 else "early"
    return "never"


@workflow
async def counts() -> list[int]:
    return await counted()


@workflow
async def local() -> str:
    @step
    async def unknown() -> None: ...

    try:
        await unknown()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ran"


ALL = [sums, retried, fails, mails, send, waits, loses, cleans_up, gives_up, counts, local]


async def test_steps_and_groups_run_and_their_values_come_back(engines):
    """
    Async and plain functions, in sequence and in a gather.
    """
    engine = await engines(*ALL)
    assert await engine.run(sums(5)) == 16
    assert sorted(calls) == ["double 1", "double 2", "double 5"]


async def test_jobs_are_children_on_their_own_queues(engines):
    """
    Each child has an id of its parent's, and is found as its child.
    """
    engine = await engines(*ALL)
    run = await engine.start(mails(["a", "b"]))
    assert await run.result() == ["sent to a", "sent to b"]
    child = engine.get(f"{run.id}~.0.1")
    assert await child.result() == "sent to b"
    assert (await child.info()).queue == "mail"


async def test_a_step_is_tried_as_its_policy_says(engines):
    """
    Attempts are counted, a `Fatal` is not tried again, and the error comes back as itself.
    """
    engine = await engines(*ALL)
    assert await engine.run(retried()) == 3
    assert calls == ["attempt 1", "attempt 2", "attempt 3"]
    run = await engine.start(fails())
    with pytest.raises(RunFailedError) as failed:
        await run.result()
    assert isinstance(failed.value.__cause__, Fatal)
    assert calls.count("fatal") == 1
    assert (await run.info()).status == "failed"


async def test_a_cursor_outlives_its_attempt(engines):
    """
    What an attempt has recorded is there for the next one.
    """
    engine = await engines(*ALL)
    assert await engine.run(counts()) == [2, 3]


async def test_a_signal_reaches_the_run_that_waits_for_it(engines):
    """
    Also one that is sent with the start, and with `dedup` only once; attributes tell where it is.
    """
    engine = await engines(*ALL)
    run = await engine.start(waits(), id="approval-1")
    assert await run.signal("other", 1, dedup="x")
    assert await run.signal("answer", "yes", dedup="y")
    assert await run.result() == "yes"
    assert await run.attributes() == {"state": "answered"}
    with pytest.raises(RunStateError):
        await run.signal("answer", "late")
    assert await engine.run(waits(), signals=[("answer", "at once")]) == "at once"


async def test_the_loser_of_a_race_is_told_to_end(engines):
    """
    A step that is running when its race is lost is cancelled, and waited for.
    """
    engine = await engines(*ALL)
    assert await engine.run(loses()) == 1
    assert calls == ["cleaned up"]


async def test_a_timeout_is_a_timer_of_the_server(engines):
    """
    `timeout` and `now` go by the server's time.
    """
    engine = await engines(*ALL)
    assert await engine.run(gives_up()) == "late"


async def test_a_cancelled_run_does_its_clean_up_first(engines, reached):
    """
    The steps of a `finally` run; the reason is told to who waits.
    """
    engine = await engines(*ALL)
    run = await engine.start(cleans_up())
    await reached(run, "waiting")  # one that has not begun has nothing to clean up
    assert await run.cancel("no longer wanted")
    with pytest.raises(RunCancelledError, match="no longer wanted"):
        await run.result()
    assert calls == ["double 21"]
    assert not await run.cancel()


async def test_a_key_stands_for_one_run(engines):
    """
    The same key and arguments are the same run, other arguments a conflict; it is found by its key.
    """
    engine = await engines(*ALL)
    first = await engine.start(sums(1), key="sum-1")
    again = await engine.start(sums(1), key="sum-1")
    assert await first.result() == await again.result() == 8
    with pytest.raises(KeyConflictError):
        await engine.start(sums(2), key="sum-1")
    assert await (await engine.find("sum-1")).result() == 8
    rerun = await engine.start(sums(1), key="sum-1", on_conflict="rerun")
    assert await rerun.result() == 8
    assert calls.count("double 1") == 4


async def test_unknown_runs_are_not_found(engines):
    """
    A handle is made of any id; asking it tells that there is no such run.
    """
    engine = await engines(*ALL)
    with pytest.raises(RunNotFoundError):
        await engine.get("nobody").info()
    with pytest.raises(RunNotFoundError):
        await engine.get("nobody").result()
    with pytest.raises(RunNotFoundError):
        await engine.find("nobody")


async def test_a_step_that_no_worker_would_find_is_refused_at_its_line(engines):
    """
    Closures and local functions cannot be named to another machine.
    """
    engine = await engines(*ALL)
    assert (await engine.run(local())).startswith("DefinitionError: step 'unknown'")


async def test_the_journal_is_that_of_an_embedded_engine(engines):
    """
    What the server's run has decided is kept as the events that a file would hold.
    """
    engine = await engines(*ALL)
    run = await engine.start(sums(5))
    await run.result()
    assert [event.kind for event in await run.history()] == [
        "RunStarted", "StepStarted", "StepSucceeded", "GroupOpened", "StepStarted", "StepStarted",
        "StepSucceeded", "StepSucceeded", "StepStarted", "StepSucceeded", "RunSucceeded",
    ]  # fmt: skip
