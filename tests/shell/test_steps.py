"""
Steps: attempts, time limits, threads and processes, and what a step can learn about itself.
"""

import asyncio
import contextvars
import functools
import os
import subprocess
import sys
import threading
import time

import pytest

from durable import (
    Flow,
    Retry,
    RetryAfter,
    Return,
    RunFailedError,
    StepContext,
    call,
    context,
    cursor,
    gather,
    job,
    memo,
    step,
    wait_for,
    workflow,
)
from durable.errors import UsageError

pytestmark = pytest.mark.anyio

NOW = Retry(attempts=5, delay=0.0, jitter=0.0)


def one_step(definition):
    """A workflow that runs one step and returns its value."""

    @workflow(name="one")
    async def one() -> Flow[object]:
        value = yield definition()
        yield Return(value)

    return one


async def test_no_retry_unless_asked_for(engines):
    """
    A step that fails is tried once.
    """
    attempts = []

    @step
    async def fail() -> None:
        attempts.append(1)
        raise ConnectionError("down")

    one = one_step(fail)
    engine = await engines.memory(one)
    with pytest.raises(RunFailedError, match="down"):
        await engine.run(one())
    assert len(attempts) == 1


async def test_attempts_share_one_idempotency_key(engines):
    """
    `context()` counts attempts from 1; run, position and idempotency key stay.
    """
    seen: list[StepContext] = []

    @step(retry=NOW)
    async def flaky() -> str:
        seen.append(context())
        if len(seen) < 3:
            raise ConnectionError
        return "ok"

    one = one_step(flaky)
    engine = await engines.memory(one)
    run = await engine.start(one(), id="r", labels={"city": "Bern"})
    assert await run.result(5) == "ok"
    assert [each.attempt for each in seen] == [1, 2, 3]
    assert {each.idempotency_key for each in seen} == {"r:0"}
    assert {(each.run_id, each.workflow, each.position) for each in seen} == {("r", "one", "0")}
    assert seen[0].deadline is None
    assert dict(seen[0].labels) == {"city": "Bern"}


async def test_retry_gives_up_after_its_attempts(engines):
    """
    Five attempts in all, then the last error.
    """
    attempts = []

    @step(retry=NOW)
    async def fail() -> None:
        attempts.append(context().attempt)
        raise ConnectionError(f"try {len(attempts)}")

    one = one_step(fail)
    engine = await engines.memory(one)
    with pytest.raises(RunFailedError, match="try 5"):
        await engine.run(one())
    assert attempts == [1, 2, 3, 4, 5]


async def test_retry_on_looks_at_the_type(engines):
    """
    `on=` names what is worth another attempt.
    """
    attempts = []

    @step(retry=Retry(attempts=5, on=ConnectionError, delay=0.0))
    async def fail() -> None:
        attempts.append(1)
        raise ConnectionError if len(attempts) < 2 else ValueError("wrong")

    one = one_step(fail)
    engine = await engines.memory(one)
    with pytest.raises(RunFailedError, match="wrong"):
        await engine.run(one())
    assert len(attempts) == 2


async def test_a_retry_delay_is_a_durable_timer(engines, clock, reached):
    """
    It frees the run, survives a restart, and is not due a second early.
    """
    attempts = []

    @job(retry=Retry(attempts=3, delay=100.0, max_delay=100.0, jitter=0.0))
    async def flaky() -> int:
        attempts.append(context().attempt)
        if len(attempts) == 1:
            raise ConnectionError
        return len(attempts)

    engine = await engines.file(flaky, clock=clock)
    run = await engine.start(flaky(), id="r")
    await reached(run, "waiting")
    assert "next attempt" in await run.why()
    await engine.aclose()
    clock.advance(99)
    engine = await engines.file(flaky, clock=clock)
    run = engine.get("r")
    assert await run.status() == "waiting"
    clock.advance(2)
    assert await run.result(5) == 2
    assert attempts == [1, 2]


async def test_retry_after_sets_the_delay(engines, clock, reached):
    """
    A step that knows when it makes sense to come back is asked then.
    """
    attempts = []

    @step(retry=Retry(attempts=2, delay=1.0))
    async def throttled() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise RetryAfter(3600, "too many requests")
        return "ok"

    one = one_step(throttled)
    engine = await engines.memory(one, clock=clock)
    run = await engine.start(one())
    await reached(run, "waiting")
    assert "due in 1 h" in await run.why()
    clock.advance(3601)
    assert await run.result(5) == "ok"


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_an_attempt_that_takes_too_long_is_cut_off(engines, kind):
    """
    `timeout=` is per attempt: the body is cancelled, and TimeoutError is retried like any other.
    """
    attempts, cancelled = [], []

    async def slow() -> str:
        attempts.append(1)
        assert context().deadline is None or context().deadline - time.time() < 1
        if len(attempts) == 2:
            return "quick"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    if kind == "step":
        definition = step(timeout=0.02, retry=NOW)(slow)
        engine = await engines.memory(one := one_step(definition))
        assert await engine.run(one()) == "quick"
        assert cancelled == [1]
    else:
        definition = job(timeout=0.02)(slow)
        engine = await engines.memory(definition)
        with pytest.raises(RunFailedError, match="TimeoutError"):
            await engine.run(definition())


async def test_a_steps_own_timeout_error_is_its_own(engines):
    """
    A TimeoutError raised by the body keeps its message.
    """

    @step(timeout=5.0)
    async def gives_up() -> None:
        raise TimeoutError("the bank is slow")

    one = one_step(gives_up)
    engine = await engines.memory(one)
    with pytest.raises(RunFailedError, match="the bank is slow"):
        await engine.run(one())


async def test_a_sync_step_runs_in_a_thread(engines):
    """
    With its context variables and its `context()`; several at once.
    """
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
    barrier = threading.Barrier(2, timeout=5)

    @step
    def blocking() -> tuple[bool, str, str]:
        barrier.wait()
        before = colour.get()
        colour.set("red")
        return threading.current_thread() is threading.main_thread(), context().position, before

    @workflow
    async def both() -> Flow[list]:
        values = yield gather(blocking(), blocking())
        yield Return(values)

    engine = await engines.memory(both)
    assert await engine.run(both()) == [(False, "0.0", "none"), (False, "0.1", "none")]


@pytest.mark.parametrize("kind", ["job", "step"])
async def test_context_variables_of_a_step_do_not_reach_the_next_run(engines, kind):
    """
    What a body sets is gone with its attempt: the run that gets its slot finds nothing, nor a `context()`.
    """
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")

    async def paint(name: str) -> str:
        before = colour.get()
        colour.set(name)
        return before

    @workflow
    async def looks(name: str) -> Flow[list]:
        try:
            found = context().run_id
        except UsageError:
            found = "no step"
        seen = colour.get()
        if kind == "step":
            yield step(paint)(name)
        yield Return([found, seen])

    painting = job(paint)
    engine = await engines.memory(painting, looks, concurrency=1)
    await engine.queue("default").pause()
    runs = [await engine.start(op) for op in (painting("red"), painting("blue"), looks("green"), looks("black"))]
    await engine.queue("default").resume()
    none = ["no step", "none"]
    assert [await run.result(5) for run in runs] == ["none", "none", none, none]


async def test_thread_False_stays_on_the_loop(engines):
    """
    For sync functions too short to be worth a thread.
    """

    @step(thread=False)
    def quick() -> bool:
        return threading.current_thread() is threading.main_thread()

    one = one_step(quick)
    engine = await engines.memory(one)
    assert await engine.run(one()) is True


@job(process=True)
def in_a_process(factor: int) -> tuple[int, int]:
    return os.getpid(), factor * 2


@job(process=True)
def fails_in_a_process() -> None:
    raise ValueError("far away")


async def test_process_True_runs_elsewhere(engines):
    """
    CPU-bound work runs in another process; so do its errors come back.
    """
    engine = await engines.memory(in_a_process, fails_in_a_process)
    pid, value = await engine.run(in_a_process(21))
    assert value == 42
    assert pid != os.getpid()
    with pytest.raises(RunFailedError, match="far away") as caught:
        await engine.run(fails_in_a_process())
    assert isinstance(caught.value.__cause__, ValueError)


CRUNCHING = """
import sys

from attrs import frozen
from durable import step, workflow

sys.modules["__main__"]  # as PyInstaller's `inspect` does, which we ask about workflows

@frozen
class Upto:
    n: int

@step(process=True)
def crunch(upto: Upto) -> int:
    return sum(range(upto.n))

@workflow
async def total(n: int) -> int:
    return await crunch(Upto(n))
"""
IN_NO_FILE = """
import asyncio, crunching
from durable import Engine, step, workflow

@step(process=True)
def here() -> None: ...

@workflow
async def locally() -> None:
    await here()

async def main():
    async with Engine(":memory:", [crunching, locally]) as engine:
        print(await engine.run(crunching.total(5)))
        try:
            await engine.run(locally())
        except Exception as error:
            print(error)

asyncio.run(main())
"""


def test_a_process_of_a_program_in_no_file_has_a_main_module(tmp_path):
    """
    A shell, `python -c`, a frozen program: there is none to be loaded, but modules that ask for one are imported all
    the same, also for the sake of an argument.

    What is part of such a program itself is refused, with what to do.
    """
    (tmp_path / "crunching.py").write_text(CRUNCHING)
    done = subprocess.run(
        [sys.executable, "-c", IN_NO_FILE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("20")]
    assert said[0] == "10"
    assert "step 'here' has process=True" in said[1]
    assert "move it into a module of its own" in said[1]


async def test_call_makes_a_step_of_any_function(engines):
    """
    Undecorated functions, sync and async, named by their qualified name.
    """

    async def fetch(url: str) -> str:
        return f"page of {url}"

    class Fetcher:
        async def __call__(self, url: str) -> str:
            return await fetch(url)

    @workflow
    async def one() -> Flow[list]:
        page: str = yield call(fetch, "x")
        length: int = yield call(len, page)
        other: str = yield call(functools.partial(fetch, url="y"))
        third: str = yield call(Fetcher(), "z")
        yield Return([page, length, other, third])

    engine = await engines.memory(one)
    run = await engine.start(one())
    assert await run.result(5) == ["page of x", 9, "page of y", "page of z"]
    assert "len" in [event.event.name for event in await run.history()]


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_cancelled_error_that_nobody_asked_for_fails_the_attempt(engines, attempts):
    """
    A library's leaked cancellation is the function's own affair: its retry policy applies, and no other rule.
    """
    calls = []

    @step(retry=Retry(attempts, delay=0.0))
    async def leaky() -> None:
        calls.append(1)
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    one = one_step(leaky)
    engine = await engines.memory(one)
    with pytest.raises(RunFailedError, match="the step raised CancelledError although nobody cancelled it"):
        await engine.run(one())
    assert len(calls) == attempts


async def test_a_step_whose_library_cancels_it_fails(engines):
    """
    `task.cancel()` on the step's own task likewise, and other runs do not notice.
    """
    calls = []

    @job(retry=Retry(2, delay=0.0))
    async def self_cancelling() -> str:
        calls.append(1)
        if len(calls) == 1:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        return "ok"

    @job
    async def bystander() -> str:
        await asyncio.sleep(0.005)
        return "unharmed"

    engine = await engines.memory(self_cancelling, bystander)
    other = await engine.start(bystander())
    assert await engine.run(self_cancelling()) == "ok"
    assert len(calls) == 2
    assert await other.result(5) == "unharmed"
    assert await engine.run(bystander()) == "unharmed"


async def test_a_cancellation_left_behind_by_a_step_strikes_nobody(engines):
    """
    A body that cancels its task and returns has succeeded; what comes after it goes on.
    """

    @job
    async def careless() -> str:
        asyncio.current_task().cancel()
        return "ok"

    @step
    async def careless_step() -> str:
        asyncio.current_task().cancel()
        return "ok"

    one = one_step(careless_step)
    engine = await engines.memory(careless, one)
    assert await (await engine.start(careless())).result(5) == "ok"
    assert await (await engine.start(one())).result(5) == "ok"


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_cursor_is_kept_across_attempts(engines, kind):
    """
    A loop goes on where the failed attempt stopped; dropped when the step succeeds.
    """
    seen = []

    async def loop() -> int:
        position = cursor(0)
        for item in range(position.value, 10):
            seen.append(item)
            await position.advance(item + 1)
            if item == 4 and context().attempt == 1:
                raise ConnectionError
        return position.value

    definition = job(retry=NOW)(loop) if kind == "job" else step(retry=NOW)(loop)
    top = definition if kind == "job" else one_step(definition)
    engine = await engines.memory(top)
    assert await engine.run(top()) == 10
    assert seen == list(range(10))
    assert (
        await engine._backend.read(lambda conn: conn.execute("SELECT count(*) FROM durable_notes").fetchone()[0]) == 0
    )


async def test_a_cursor_may_save_each_nth_move_only(engines):
    """
    `every=N`: what was held back repeats after a failure; `save()` records it.
    """
    seen = []

    @job(retry=NOW)
    async def loop() -> list:
        position = cursor(0)
        if context().attempt == 2:
            return [position.value, seen]
        for item in range(1, 8):
            seen.append(item)
            await position.advance(item, every=3)
        raise ConnectionError

    engine = await engines.memory(loop)
    assert (await engine.run(loop()))[0] == 6

    @job(retry=NOW)
    async def saving() -> int:
        position = cursor(0)
        if context().attempt == 1:
            await position.advance(5, every=100)
            await position.save()
            raise ConnectionError
        return position.value

    engine = await engines.memory(saving)
    assert await engine.run(saving()) == 5


async def test_memo_runs_once_by_name_and_turn(engines):
    """
    Finished memos answer from the journal at the next attempt: the nth use of a name is the nth use.
    """
    ran = []

    async def ask(question: str) -> str:
        ran.append(question)
        return question.upper()

    @step(retry=NOW)
    async def agent() -> list[str]:
        answers = [await memo("ask", ask, "one"), await memo("ask", ask, "two")]
        if context().attempt < 3:
            raise ConnectionError
        answers.append(await memo("ask", ask, "three"))
        answers.append(await memo("other", ask, "four"))
        return answers

    one = one_step(agent)
    engine = await engines.memory(one)
    assert await engine.run(one()) == ["ONE", "TWO", "THREE", "FOUR"]
    assert ran == ["one", "two", "three", "four"]


async def test_a_memo_of_None_is_remembered(engines):
    """
    A value that is falsy is a value.
    """
    ran = []

    async def nothing() -> None:
        ran.append(1)

    @job(retry=NOW)
    async def asks() -> str:
        assert await memo("n", nothing) is None
        if context().attempt == 1:
            raise ConnectionError
        return "ok"

    engine = await engines.memory(asks)
    assert await engine.run(asks()) == "ok"
    assert ran == [1]


async def test_context_belongs_to_steps(engines):
    """
    Outside a step it is a UsageError that says where it works.
    """
    with pytest.raises(UsageError, match="step or job"):
        context()
    with pytest.raises(UsageError):
        cursor()

    @workflow
    async def body() -> Flow[str]:
        try:
            context()
        except UsageError:
            yield Return("refused")

    engine = await engines.memory(body)
    assert await engine.run(body()) == "refused"


async def test_a_result_that_cannot_be_recorded_fails_the_step(engines):
    """
    Naming the step and the path in the value; the workflow can catch it.
    """

    @step
    async def odd() -> dict:
        return {"a": [1, object()]}

    @workflow
    async def one() -> Flow[str]:
        try:
            yield odd()
        except Exception as error:
            yield Return(str(error))

    engine = await engines.memory(one)
    text = await engine.run(one())
    assert "odd" in text
    assert "a" in text
    assert "object" in text


async def test_ops_are_plain_calls_outside_workflows():
    """
    Steps and jobs stay ordinary testable code.
    """

    @step
    async def double(number: int) -> int:
        return number * 2

    @job
    def triple(number: int) -> int:
        return number * 3

    @step
    async def both(number: int) -> int:
        return await double(number) + await triple(number)

    assert await double(4) == 8
    assert await triple(4) == 12
    assert await both(2) == 10
    assert await double.fn(1) == 2


async def test_a_step_awaited_inside_a_step_is_a_plain_call(engines):
    """
    While an engine runs too: no journal entry, no run of its own.
    """

    @step
    async def inner() -> str:
        return "inner"

    @step
    async def outer() -> str:
        return await inner() + "/outer"

    one = one_step(outer)
    engine = await engines.memory(one)
    run = await engine.start(one())
    assert await run.result(5) == "inner/outer"
    assert [event.kind for event in await run.history()].count("StepStarted") == 1


async def test_a_step_may_use_the_engine(engines):
    """
    Starting runs and sending signals from inside a step does not deadlock.
    """
    held = {}

    @job
    async def leaf(number: int) -> int:
        return number + 1

    @step
    async def outer() -> int:
        return await held["engine"].run(leaf(1))

    @workflow
    async def waiter() -> Flow[str]:
        value = yield wait_for("go")
        yield Return(value)

    @step
    async def poke(run_id: str) -> None:
        await held["engine"].get(run_id).signal("go", "poked")

    @workflow
    async def top(run_id: str) -> Flow[int]:
        value = yield outer()
        yield poke(run_id)
        yield Return(value)

    engine = held["engine"] = await engines.memory(leaf, waiter, top)
    waiting = await engine.start(waiter())
    assert await engine.run(top(waiting.id)) == 2
    assert await waiting.result(5) == "poked"
