"""
Going on after a failure, a crash, a change of code: what is repeated, and what never is.
"""

import asyncio

import pytest

from durable import (
    Client,
    Flow,
    Limit,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    context,
    cursor,
    gather,
    job,
    memo,
    now,
    patched,
    set_attributes,
    step,
    wait_for,
    workflow,
)
from durable.errors import (
    PoisonError,
    RetryRefusedError,
    RunExistsError,
    RunStateError,
    StepInterruptedError,
    UsageError,
)

pytestmark = pytest.mark.anyio

CALLS: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def calls():
    """
    What ran, and what is to fail.
    """
    CALLS.clear()
    BROKEN.clear()
    return CALLS


@step
async def do(name: str) -> str:
    CALLS.append(name)
    if name in BROKEN:
        raise ConnectionError(name)
    return name


@job
async def work(name: str) -> str:
    CALLS.append(name)
    if name in BROKEN:
        raise ConnectionError(name)
    return name


@workflow
async def three() -> Flow[list]:
    a: str = yield do("a")
    b: str = yield do("b")
    c: str = yield do("c")
    yield Return([a, b, c])


@workflow
async def family() -> Flow[list]:
    values: list[str] = yield gather(work("x"), work("y"), do("z"))
    last: str = yield do("last")
    yield Return([*values, last])


async def fails(run):
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    return caught.value


@pytest.mark.parametrize("reopened", [False, True])
async def test_retrying_a_failed_run_repeats_no_completed_step(engines, reopened):
    """
    It goes on at the step that failed, as often as it takes.
    """
    engine = await engines.file(three)
    BROKEN.add("b")
    run = await engine.start(three(), id="r")
    await fails(run)
    assert await run.retry() is True
    await fails(run)
    if reopened:
        await engine.aclose()
        engine = await engines.file(three)
        run = engine.get("r")
    BROKEN.clear()
    assert await run.retry() is True
    assert await run.result(5) == ["a", "b", "c"]
    assert CALLS == ["a", "b", "b", "b", "c"]
    with pytest.raises(RunStateError):
        await run.retry()


async def test_retrying_a_failed_job(engines):
    """
    A job's body runs again, with all attempts of its policy and the same idempotency key.
    """
    attempts = []

    @job
    async def flaky() -> int:
        attempts.append(context().idempotency_key)
        if len(attempts) == 1:
            raise ConnectionError
        return len(attempts)

    engine = await engines.memory(flaky)
    run = await engine.start(flaky())
    await fails(run)
    assert await run.retry() is True
    assert await run.result(5) == 2
    assert attempts == [f"{run.id}:0"] * 2


async def test_retrying_a_parent_retries_its_failed_children_only(engines):
    """
    Children and steps that succeeded are not repeated.
    """
    engine = await engines.memory(family, work)
    BROKEN.add("y")
    run = await engine.start(family())
    await fails(run)
    BROKEN.clear()
    await run.retry()
    assert await run.result(5) == ["x", "y", "z", "last"]
    assert sorted(CALLS) == ["last", "x", "y", "y", "z"]


async def test_retry_under_way_is_no_second_retry(engines):
    """
    Twenty retries at once are one.
    """
    engine = await engines.memory(three)
    BROKEN.add("b")
    run = await engine.start(three())
    await fails(run)
    BROKEN.clear()
    assert sum(await asyncio.gather(*(run.retry() for _ in range(20)))) == 1
    assert await run.result(5) == ["a", "b", "c"]


@workflow
async def order() -> Flow[str]:
    yield do("pay")
    try:
        yield do("ship")
    except ConnectionError:
        yield do("refund")
        raise
    yield Return("shipped")


@workflow
async def delivery() -> Flow[list]:
    values: list = yield gather(order(), do("bill"))
    yield Return(values)


@pytest.mark.parametrize("by", ["engine", "client"])
@pytest.mark.parametrize("started", [order, delivery])
async def test_a_run_that_made_up_for_its_failure_is_not_retried(engines, tmp_db, by, started):
    """
    Neither it, nor its parent: the refund stands, so that the customer would get the goods for nothing. By force it is.
    """
    engine = await engines.file(order, delivery)
    BROKEN.add("ship")
    run = await engine.start(started(), id="r")
    await fails(run)
    BROKEN.clear()
    called = list(CALLS)
    async with Client(tmp_db) as client:
        asked = run if by == "engine" else client.get("r")
        with pytest.raises(RetryRefusedError, match=r"step 'do' at 2\..*fork.*force=True") as caught:
            await asked.retry()
        assert caught.value.ran == ["step 'do' at 2"]
        assert caught.value.run_id == ("r" if started is order else "r~.0.0")
        assert (CALLS, await run.status()) == (called, "failed")
        assert await asked.retry(force=True) is True
    await run.result(5)
    assert [*called, "ship"] == CALLS


async def pair(first: str, second: str) -> list[str]:
    return [await do(first), await do(second)]


async def test_a_retry_repeats_nothing_that_other_members_did_since(engines, eventually):
    """
    The helper went on by itself when its neighbour had failed: its steps have succeeded, before and after that.
    """
    release = asyncio.Event()

    @step
    async def slow() -> str:
        await release.wait()
        return "slow"

    async def helper() -> list[str]:
        return [await slow(), *await pair("a", "b")]

    @workflow
    async def both() -> list[object]:
        return await gather(do("bad"), helper())

    engine = await engines.memory(both)
    BROKEN.add("bad")
    run = await engine.start(both())

    async def has_failed():
        return any(event.kind == "StepFailed" for event in await run.history())

    await eventually(has_failed)
    release.set()
    await fails(run)
    BROKEN.clear()
    assert await run.retry() is True
    assert await run.result(5) == ["bad", ["slow", "a", "b"]]
    assert CALLS == ["bad", "a", "b", "bad"]


@pytest.mark.parametrize("journal", ["memory", "file"])
async def test_retry_of_the_whole_run_begins_afresh(engines, journal):
    """
    `@workflow(retry=)`: each attempt has an empty history, and children of its own.
    """

    @workflow(retry=Retry(attempts=3, delay=0.0))
    async def whole() -> Flow[str]:
        yield do("step")
        value: str = yield work("child")
        if len(CALLS) < 6:
            raise ConnectionError
        yield Return(value)

    engine = await getattr(engines, journal)(whole, work)
    run = await engine.start(whole())
    assert await run.result(5) == "child"
    assert CALLS == ["step", "child"] * 3


async def test_the_delay_of_a_whole_runs_retry_is_durable(engines, clock, reached):
    """
    It survives a restart.
    """

    @workflow(retry=Retry(attempts=2, delay=50.0, jitter=0.0))
    async def whole() -> Flow[str]:
        yield do("a")
        if len(CALLS) == 1:
            raise ConnectionError
        yield Return("ok")

    engine = await engines.file(whole, clock=clock)
    run = await engine.start(whole(), id="r")
    await reached(run, "waiting")
    assert "next attempt" in await run.why()
    await engine.aclose()
    engine = await engines.file(whole, clock=clock)
    clock.advance(51)
    assert await engine.get("r").result(5) == "ok"


async def test_fork_goes_on_from_a_position(engines):
    """
    What came before is copied, what follows runs again; the old run stays as it is.
    """
    engine = await engines.file(three)
    run = await engine.start(three(), id="r")
    await run.result(5)
    CALLS.clear()
    fork = await run.fork(at=1)
    assert await fork.result(5) == ["a", "b", "c"]
    assert CALLS == ["b", "c"]
    assert fork.id != "r"
    named = await run.fork("2", {"0": "A", "1": "B"}, id="fork")
    assert await named.result(5) == ["A", "B", "c"]
    assert await run.result(5) == ["a", "b", "c"]
    await engine.aclose()
    engine = await engines.file(three)
    assert await engine.get("fork").result(5) == ["A", "B", "c"]


async def test_fork_of_a_failed_run_with_the_outcome_replaced(engines):
    """
    A person supplies what the step could not.
    """
    engine = await engines.memory(three)
    BROKEN.add("b")
    run = await engine.start(three())
    await fails(run)
    fork = await run.fork(1, {"1": "by hand"})
    assert await fork.result(5) == ["a", "by hand", "c"]
    assert await run.status() == "failed"


@workflow
async def publishes() -> Flow[list]:
    a: str = yield do("a")
    set_attributes(first=a, stage=1)
    b: str = yield do("b")
    set_attributes(second=b, stage=2)
    c: str = yield do("c")
    set_attributes(third=c, stage=3)
    yield wait_for("go")
    yield Return([a, b, c])


@pytest.mark.parametrize(
    "at, replace, expected",
    [
        (0, {}, {"first": "a", "second": "b", "third": "c", "stage": 3}),
        (1, {}, {"first": "a", "second": "b", "third": "c", "stage": 3}),
        (3, {}, {"first": "a", "second": "b", "third": "c", "stage": 3}),
        (2, {"2": "C"}, {"first": "a", "second": "b", "third": "C", "stage": 3}),
        (3, {"0": "A"}, {"first": "A", "second": "b", "third": "c", "stage": 3}),
    ],
    ids=str,
)
async def test_a_fork_publishes_what_its_code_does(engines, reached, at, replace, expected):
    """
    What was published before its position, what follows from an outcome that was replaced, and what comes next.
    """
    engine = await engines.file(publishes)
    run = await engine.start(publishes())
    await reached(run, "waiting")
    fork = await run.fork(at, replace)
    await reached(fork, "waiting")
    assert await fork.attributes() == expected
    published = [event for event in await fork.history() if event.kind == "AttributesSet"]
    await engines.crash(engine)
    engine = await engines.file(publishes)
    await engine.get(fork.id).signal("go")
    await engine.get(fork.id).result(5)
    assert [event for event in await engine.get(fork.id).history() if event.kind == "AttributesSet"] == published
    assert await engine.get(fork.id).attributes() == expected


async def test_fork_of_a_waiting_run(engines, reached):
    """
    The copy waits for signals of its own.
    """

    @workflow
    async def waits() -> Flow[list]:
        a: str = yield do("a")
        value: str = yield wait_for("go")
        yield Return([a, value])

    engine = await engines.memory(waits)
    run = await engine.start(waits())
    await reached(run, "waiting")
    fork = await run.fork(1)
    await reached(fork, "waiting")
    await fork.signal("go", "fork")
    await run.signal("go", "run")
    assert await fork.result(5) == ["a", "fork"]
    assert await run.result(5) == ["a", "run"]
    assert CALLS == ["a"]


async def test_fork_of_a_run_with_a_signal_in_its_inbox(engines, reached):
    """
    Whether a turn has taken it in or not: the copy has it, too.
    """

    @workflow
    async def waits() -> Flow[str]:
        value: str = yield wait_for("go")
        yield Return(value)

    engine = await engines.memory(waits)
    run = await engine.start(waits())
    await reached(run, "waiting")
    await run.pause()
    await run.signal("go", "early")
    assert await (await run.fork(0)).result(5) == "early"
    with pytest.raises(RunExistsError, match="a fork is a new run"):
        await run.fork(0, id=run.id)
    await run.resume()
    assert await run.result(5) == "early"


async def test_fork_of_a_run_in_its_second_attempt(engines, eventually):
    """
    The fork has one attempt behind it less: it begins where the copied attempt stood.
    """
    called = []

    @step
    async def first() -> int:
        called.append("first")
        return len(called)

    @workflow(retry=Retry(attempts=2, delay=0.001))
    async def restarting() -> Flow[int]:
        began = now()
        number: int = yield first()
        if number == 1:
            raise ValueError
        yield wait_for("go")
        assert now() >= began
        yield Return(number)

    engine = await engines.memory(restarting)
    run = await engine.start(restarting())

    async def waits_for_go():
        return "'go'" in await run.why()

    await eventually(waits_for_go)
    fork = await run.fork(at="1")
    for each in (run, fork):
        await each.signal("go")
        assert await each.result(5) == 2
    assert called == ["first", "first"]


async def test_fork_of_a_job(engines):
    """
    Its body runs again, or does not where its outcome is given.
    """
    engine = await engines.memory(work)
    run = await engine.start(work("w"))
    await run.result(5)
    assert await (await run.fork(0)).result(5) == "w"
    assert CALLS == ["w", "w"]
    assert await (await run.fork(0, {"0": "by hand"})).result(5) == "by hand"
    assert await (await run.fork(0, {0: "by number"})).result(5) == "by number"
    assert CALLS == ["w", "w"]


async def test_fork_at_what_was_never_asked_for(engines):
    """
    A UsageError that lists the positions.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    await run.result(5)
    with pytest.raises(UsageError, match="0, 1, 2"):
        await run.fork(7)
    with pytest.raises(UsageError):
        await run.fork(1, {"2": "later"})
    assert len([info async for info in engine.runs()]) == 1


# --- crashes ------------------------------------------------------------------------------------


class Held:
    """A body that hangs, the first *times*."""

    def __init__(self, times):
        self.times = times
        self.attempts = []
        self.began = asyncio.Event()

    async def __call__(self):
        self.attempts.append((context().attempt, context().idempotency_key))
        if len(self.attempts) <= self.times:
            self.began.set()
            await asyncio.Event().wait()
        return "done"

    async def wait(self):
        await self.began.wait()
        self.began = asyncio.Event()


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_step_cut_off_by_a_crash_runs_again(engines, kind):
    """
    With the same idempotency key and the next attempt number; what had completed does not.
    """
    held = Held(1)

    @step
    async def hangs() -> str:
        return await held()

    @job(name="hanging")
    async def hanging() -> str:
        return await held()

    @workflow
    async def one() -> Flow[str]:
        yield do("before")
        value: str = yield hangs()
        yield do("after")
        yield Return(value)

    top = one if kind == "step" else hanging
    engine = await engines.file(top)
    await engine.start(top(), id="r")
    await held.wait()
    await engines.crash(engine)
    engine = await engines.file(top)
    assert await engine.get("r").result(5) == "done"
    position = "1" if kind == "step" else "0"
    assert held.attempts == [(1, f"r:{position}"), (2, f"r:{position}")]
    assert (["before", "after"] if kind == "step" else []) == CALLS


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_on_crash_raise_never_runs_it_again(engines, kind):
    """
    The workflow sees StepInterruptedError, and may look for itself what happened.
    """
    held = Held(9)

    @step(on_crash="raise")
    async def hangs() -> str:
        return await held()

    @job(on_crash="raise", name="hanging")
    async def hanging() -> str:
        return await held()

    @workflow
    async def one() -> Flow[str]:
        try:
            yield hangs()
        except StepInterruptedError as error:
            yield Return(f"unknown: attempt {error.attempt}")

    top = one if kind == "step" else hanging
    engine = await engines.file(top)
    await engine.start(top(), id="r")
    await held.wait()
    await engines.crash(engine)
    engine = await engines.file(top)
    if kind == "step":
        assert await engine.get("r").result(5) == "unknown: attempt 1"
    else:
        assert isinstance((await fails(engine.get("r"))).__cause__, StepInterruptedError)
    assert len(held.attempts) == 1


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_on_crash_block_waits_for_a_person(engines, reached, kind):
    """
    The run is blocked, says why, stays so across a restart, and runs the step again once resumed.
    """
    held = Held(1)

    @step(on_crash="block")
    async def hangs() -> str:
        return await held()

    @job(on_crash="block", name="hanging")
    async def hanging() -> str:
        return await held()

    @workflow
    async def one() -> Flow[str]:
        value: str = yield hangs()
        yield Return(value)

    top = one if kind == "step" else hanging
    engine = await engines.file(top)
    await engine.start(top(), id="r")
    await held.wait()
    await engines.crash(engine)
    for _ in range(2):
        engine = await engines.file(top)
        run = engine.get("r")
        await reached(run, "blocked")
        assert "outcome is unknown" in await run.why()
        await engine.aclose()
    assert len(held.attempts) == 1
    engine = await engines.file(top)
    run = engine.get("r")
    assert await run.resume() is True
    assert await run.result(5) == "done"


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_step_that_kills_the_process_three_times_is_poison(engines, kind):
    """
    It fails instead of killing a fourth process, so that its run ends; retried once it is mended, it runs again.
    """
    held = Held(3)

    @step
    async def hangs() -> str:
        return await held()

    @job(name="hanging")
    async def hanging() -> str:
        return await held()

    @workflow
    async def one() -> Flow[str]:
        value: str = yield hangs()
        yield Return(value)

    top = one if kind == "step" else hanging
    engine = await engines.file(top, three)
    await engine.start(top(), id="r")
    for _ in range(3):
        await held.wait()
        await engines.crash(engine)
        engine = await engines.file(top, three)
    run = engine.get("r")
    error = (await fails(run)).__cause__
    assert isinstance(error, PoisonError)
    assert "died 3 times" in str(error)
    assert len(held.attempts) == 3
    assert await engine.run(three()) == ["a", "b", "c"]
    await run.retry()
    assert await run.result(5) == "done"


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_poison_may_block_its_run_instead(engines, reached, kind):
    """
    With ``on_poison="block"`` its run is blocked instead of killing a fourth process; resumed, it is tried again.
    """
    held = Held(3)

    @step(on_poison="block")
    async def hangs() -> str:
        return await held()

    @job(name="hanging", on_poison="block")
    async def hanging() -> str:
        return await held()

    @workflow
    async def one() -> Flow[str]:
        value: str = yield hangs()
        yield Return(value)

    top = one if kind == "step" else hanging
    engine = await engines.file(top, three)
    await engine.start(top(), id="r")
    for _ in range(3):
        await held.wait()
        await engines.crash(engine)
        engine = await engines.file(top, three)
    run = engine.get("r")
    await reached(run, "blocked")
    assert "died 3 times" in await run.why()
    assert len(held.attempts) == 3
    assert await engine.run(three()) == ["a", "b", "c"]
    await run.resume()
    assert await run.result(5) == "done"


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_cursors_and_memos_survive_a_crash(engines, kind):
    """
    The next attempt goes on where the last one was killed; finished memos do not run again.
    """
    seen, asked, began = [], [], asyncio.Event()

    async def ask(question: str) -> str:
        asked.append(question)
        return question.upper()

    async def loop() -> list:
        answer = await memo("ask", ask, "why")
        position = cursor(0)
        for item in range(position.value, 6):
            if item == 3 and context().attempt == 1:
                began.set()
                await asyncio.Event().wait()
            seen.append(item)
            await position.advance(item + 1)
        return [answer, position.value]

    loop_step = step(loop)

    @workflow
    async def one() -> Flow[list]:
        value: list = yield loop_step()
        yield Return(value)

    top = one if kind == "step" else job(loop)
    engine = await engines.file(top)
    await engine.start(top(), id="r")
    await began.wait()
    await engines.crash(engine)
    engine = await engines.file(top)
    assert await engine.get("r").result(5) == ["WHY", 6]
    assert seen == [0, 1, 2, 3, 4, 5]
    assert asked == ["why"]


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_step_that_makes_progress_is_no_poison(engines, kind):
    """
    Crashes count from the last recorded cursor or memo.
    """
    began, attempts = [asyncio.Event()], []

    async def slow() -> int:
        position = cursor(0)
        attempts.append(position.value)
        await position.advance(position.value + 1)
        if len(attempts) < 6:
            began[0].set()
            await asyncio.Event().wait()
        return position.value

    slow_step = step(slow)

    @workflow
    async def one() -> Flow[int]:
        value: int = yield slow_step()
        yield Return(value)

    top = one if kind == "step" else job(slow)
    engine = await engines.file(top)
    await engine.start(top(), id="r")
    for _ in range(5):
        await asyncio.wait_for(began[0].wait(), 5)
        began[0] = asyncio.Event()
        await engines.crash(engine)
        engine = await engines.file(top)
    assert await engine.get("r").result(5) == 6
    assert attempts == [0, 1, 2, 3, 4, 5]


async def test_a_clean_stop_is_no_crash(engines):
    """
    Interruptions at shutdown never make a step poison.
    """
    held = Held(5)

    @job
    async def hanging() -> str:
        return await held()

    engine = await engines.file(hanging, grace=0.01)
    await engine.start(hanging(), id="r")
    for _ in range(5):
        await held.wait()
        await engine.aclose()
        engine = await engines.file(hanging, grace=0.01)
    assert await engine.get("r").result(5) == "done"
    assert [attempt for attempt, _ in held.attempts] == [1, 2, 3, 4, 5, 6]


# --- changed code -------------------------------------------------------------------------------


async def test_a_definition_missing_at_recovery_blocks_and_comes_back(engines, reached):
    """
    Its runs are blocked, say which definition is missing, and go on by themselves once it is back.
    """

    @workflow
    async def waits() -> Flow[str]:
        a: str = yield do("a")
        value: str = yield wait_for("go")
        yield Return(a + value)

    engine = await engines.file(waits, work)
    waiting = await engine.start(waits(), id="waiting")
    await reached(waiting, "waiting")
    await engine.queue("default").pause()
    pending = await engine.start(work("p"), id="pending")
    await engine.aclose()
    engine = await engines.file(three)
    await engine.queue("default").resume()
    waiting, pending = engine.get("waiting"), engine.get("pending")
    await waiting.signal("go", "!")
    await reached(waiting, "blocked")
    await reached(pending, "blocked")
    assert "waits" in await waiting.why()
    assert "definitions given to Engine" in await pending.why()
    await engine.aclose()
    engine = await engines.file(waits, work)
    assert await engine.get("waiting").result(5) == "a!"
    assert await engine.get("pending").result(5) == "p"
    assert CALLS == ["a", "p"]


@pytest.mark.parametrize("journal_restored", ["reopened", "resumed"])
async def test_changed_code_blocks_and_goes_on_when_restored(engines, reached, journal_restored):
    """
    Nothing is executed, the report names both commands; with the old code back the run goes on.
    """

    @workflow(name="flow")
    async def old() -> Flow[str]:
        yield do("a")
        value: str = yield wait_for("go")
        yield Return(value)

    @workflow(name="flow")
    async def new() -> Flow[str]:
        yield do("other")
        yield work("b")
        value: str = yield wait_for("go")
        yield Return(value)

    def inserted():
        @workflow(name="flow")
        async def changed() -> Flow[str]:
            yield work("first")
            yield do("a")
            value: str = yield wait_for("go")
            yield Return(value)

        return changed

    engine = await engines.file(old)
    run = await engine.start(old(), id="r")
    await reached(run, "waiting")
    before = [event.kind for event in await run.history()]
    await engine.aclose()
    engine = await engines.file(inserted(), work)
    run = engine.get("r")
    await run.signal("go", "on")
    await reached(run, "blocked")
    why = await run.why()
    assert "diverged" in why
    assert "step 'do'" in why
    assert "'work'" in why
    assert [event.kind for event in await run.history()] == before
    assert CALLS == ["a"]
    assert [info.workflow async for info in engine.runs()] == ["flow"]
    if journal_restored == "resumed":
        await run.resume()  # still the wrong code
        await asyncio.sleep(0.01)
        await reached(run, "blocked")
    await engine.aclose()
    engine = await engines.file(old)
    assert await engine.get("r").result(5) == "on"
    assert CALLS == ["a"]


async def test_patched_keeps_old_runs_on_the_old_path(engines, reached):
    """
    Runs from before the change go on as recorded, new ones take the new path.
    """

    @workflow(name="flow")
    async def old() -> Flow[str]:
        yield do("a")
        value: str = yield wait_for("go")
        yield Return(value)

    @workflow(name="flow")
    async def new() -> Flow[str]:
        yield do("a")
        if patched("notify"):
            yield do("notify")
        value: str = yield wait_for("go")
        yield Return(value)

    engine = await engines.file(old)
    run = await engine.start(old(), id="old")
    await reached(run, "waiting")
    await engine.aclose()
    engine = await engines.file(new)
    await engine.get("old").signal("go", "1")
    assert await engine.get("old").result(5) == "1"
    fresh = await engine.start(new())
    await fresh.signal("go", "2")
    assert await fresh.result(5) == "2"
    assert CALLS == ["a", "a", "notify"]


async def test_recovery_goes_on_where_it_stopped(engines, reached):
    """
    A crash in the middle of many runs: each ends, and no completed step is repeated.
    """
    gate = asyncio.Event()

    @job
    async def child(name: str) -> str:
        await gate.wait()
        CALLS.append(f"child {name}")
        return name

    @workflow
    async def parent(name: str) -> Flow[list]:
        first: str = yield do(name)
        values: list[str] = yield gather(child(name), do(f"{name}+"))
        yield Return([first, *values])

    engine = await engines.file(parent, child)
    runs = [await engine.start(parent(str(n)), id=str(n)) for n in range(10)]
    for run in runs:
        await reached(run, "waiting")
    await engines.crash(engine)
    gate.set()
    engine = await engines.file(parent, child)
    for n in range(10):
        assert await engine.get(str(n)).result(5) == [str(n), str(n), f"{n}+"]
    assert sorted(CALLS) == sorted(f for n in range(10) for f in (f"{n}", f"{n}+", f"child {n}"))


@pytest.mark.parametrize("mended, begins_at", [("same", 1), ("other", None)])
async def test_a_retried_run_goes_on_from_the_cursor_of_the_step_that_failed(engines, mended, begins_at):
    """
    In another life, too; but another step that the mended code asks for there finds none, in no attempt.
    """
    seen = []

    async def walk() -> str:
        place = cursor()
        seen.append(place.value)
        if BROKEN:
            await place.advance(1)
            raise ConnectionError
        if len(seen) == 2:
            raise ConnectionError
        return "walked"

    def flow(name, attempts):
        stepped = step(name=name, retry=Retry(attempts=attempts, delay=0.0))(walk)

        @workflow(name="flow")
        async def walking() -> Flow[str]:
            value: str = yield stepped()
            yield Return(value)

        return walking

    BROKEN.add("walk")
    old = flow("same", 1)
    engine = await engines.file(old)
    await fails(await engine.start(old(), id="r"))
    await engine.aclose()
    BROKEN.clear()
    engine = await engines.file(flow(mended, 2))
    run = engine.get("r")
    await run.retry()
    assert await run.result(5) == "walked"
    assert seen == [None, begins_at, begins_at]
    assert await engine._backend.read(lambda conn: conn.execute("SELECT * FROM durable_notes").fetchall()) == []


async def test_a_whole_runs_next_attempt_finds_no_cursor_of_the_last_one(engines):
    """
    `@workflow(retry=)` begins afresh, in every attempt of its steps.
    """
    seen = []

    @step(retry=Retry(attempts=2, delay=0.0))
    async def walk() -> str:
        place = cursor()
        seen.append(place.value)
        if len(seen) <= 2:
            await place.advance(len(seen))
        if len(seen) <= 3:
            raise ConnectionError
        return "walked"

    @workflow(retry=Retry(attempts=2, delay=0.0))
    async def whole() -> Flow[str]:
        value: str = yield walk()
        yield Return(value)

    engine = await engines.memory(whole)
    assert await engine.run(whole()) == "walked"
    assert seen == [None, 1, None, None]


# --- what has not begun -------------------------------------------------------------------------------------


@workflow(key=lambda name: name, queue="lane")
async def simple(name: str) -> Flow[str]:
    value: str = yield do(name)
    yield Return(value)


@job(queue="lane")
async def plain(name: str) -> str:
    CALLS.append(name)
    return name


async def cancelled(run):
    with pytest.raises(RunCancelledError):
        await run.result(5)


@pytest.mark.parametrize("started", [simple, plain])
async def test_a_run_that_was_cancelled_before_it_began_can_be_retried(engines, started):
    """
    Nothing of it has happened: it begins now, whatever it was to wait for. One that had begun is refused.
    """
    engine = await engines.file(simple, plain)
    run = await engine.start(started("a"), id="r", delay=3600, expires=7200, labels={"a": "b"})
    await run.cancel("oops")
    await cancelled(run)
    await engine.aclose()
    engine = await engines.file(simple, plain)
    run = engine.get("r")
    assert await run.retry() is True
    assert await run.result(5) == "a"
    info = await run.info()
    assert (CALLS, info.labels, info.reason) == (["a"], {"a": "b"}, None)
    with pytest.raises(RunStateError):
        await run.retry()
    if started is simple:
        assert await engine.find("a") == run
        assert await engine.start(simple("a")) == run


@pytest.mark.parametrize("started", [simple, plain])
async def test_a_run_that_was_cancelled_before_it_began_can_be_forked(engines, started):
    """
    At position 0, which is where it would have begun.
    """
    engine = await engines.file(simple, plain)
    run = await engine.start(started("a"), delay=3600)
    await run.cancel()
    await cancelled(run)
    assert await (await run.fork(0)).result(5) == "a"
    with pytest.raises(UsageError, match="recorded are none"):
        await run.fork(1)


async def test_a_run_cancelled_after_it_began_is_not_retried(engines, reached):
    """
    Its clean-up has run.
    """

    @workflow
    async def waits() -> Flow[None]:
        yield wait_for("go")

    engine = await engines.memory(waits)
    run = await engine.start(waits())
    await reached(run, "waiting")
    await run.cancel()
    await cancelled(run)
    with pytest.raises(RunStateError, match="fork it instead"):
        await run.retry()


async def test_clearing_a_queue_can_be_undone(engines):
    """
    What it cancelled had not begun: all of it is retried, and runs as if nothing had been.
    """
    engine = await engines.file(simple, plain)
    queue = engine.queue("lane")
    await queue.pause()
    runs = await engine.start_many([simple("a"), plain("b"), simple("c")])
    assert await queue.clear() == 3
    for run in runs:
        await cancelled(run)
    await queue.resume()
    assert [await run.retry() for run in runs] == [True] * 3
    assert [await run.result(5) for run in runs] == ["a", "b", "c"]
    assert sorted(CALLS) == ["a", "b", "c"]


@pytest.mark.parametrize("started", [simple, plain])
async def test_an_expired_run_that_is_retried_may_begin(engines, clock, started):
    """
    Somebody wants it all the same.
    """
    engine = await engines.memory(simple, plain, clock=clock)
    await engine.queue("lane").pause()
    run = await engine.start(started("a"), expires=10)
    clock.advance(11)
    await fails(run)
    await engine.queue("lane").resume()
    clock.advance(100)
    assert await run.retry() is True
    assert await run.result(5) == "a"


async def test_a_run_that_once_expired_has_begun_when_it_is_retried_again(engines, clock):
    """
    The first retry was of one that had not begun. The second is not, and clearing its queue leaves it alone.
    """
    engine = await engines.memory(simple, clock=clock)
    lane = engine.queue("lane")
    await lane.pause()
    run = await engine.start(simple("a"), expires=10)
    clock.advance(11)
    await fails(run)
    await lane.resume()
    BROKEN.add("a")
    await run.retry()
    await fails(run)
    begun = (await run.info()).started_at
    assert begun is not None
    await lane.pause()
    clock.advance(10)
    await run.retry()
    info = await run.info()
    assert (info.status, info.started_at) == ("running", begun)
    assert await lane.clear() == 0
    BROKEN.clear()
    await lane.resume()
    assert await run.result(5) == "a"


async def test_clearing_a_queue_leaves_a_retried_run_that_waits_for_its_slot(engines, reached):
    """
    It is in line again, but it had begun.
    """

    @workflow(limit=Limit("one", concurrency=1))
    async def narrow(name: str) -> Flow[str]:
        yield do(name)
        if name == "b":
            yield wait_for("go")
        yield Return(name)

    engine = await engines.memory(narrow)
    BROKEN.add("a")
    first = await engine.start(narrow("a"))
    await fails(first)
    second = await engine.start(narrow("b"))
    await reached(second, "waiting")
    BROKEN.clear()
    await first.retry()
    assert await first.status() == "pending"
    assert await engine.queue("default").clear() == 0
    await second.signal("go")
    assert await first.result(5) == "a"
