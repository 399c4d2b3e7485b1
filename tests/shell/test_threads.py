"""
Plain functions in threads: a pool of daemon threads of our own, and what a thread that cannot be cut off may not do.
"""

import asyncio
import contextlib
import contextvars
import os
import sqlite3
import subprocess
import sys
import threading

import anyio.from_thread
import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    Limit,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    context,
    current_batch,
    cursor,
    gather,
    job,
    memo,
    step,
    workflow,
)
from durable._shell import threads as threads_module
from durable._shell.ownership.outlived import Outlived, still_running
from durable._shell.switching import SHORT
from durable._shell.threads import Threads
from durable.errors import DefinitionError, UsageError


def one_step(definition):
    """
    A workflow that runs one step and returns its value.
    """

    @workflow(name="one")
    async def one() -> Flow[object]:
        yield Return((yield definition()))

    return one


async def test_calls_run_in_daemon_threads_which_are_used_again():
    """
    One after the other, they share one thread, which ends with the pool.
    """
    pool = Threads(3, name="test")
    found = [await pool.call(threading.current_thread) for _ in range(5)]
    assert len(set(found)) == 1
    assert found[0].daemon
    pool.close()
    assert not found[0].is_alive()


async def test_a_pool_has_no_more_threads_than_it_may_whatever_hangs():
    """
    Two calls hang, and nobody waits for them: the third waits for its turn, for as long as it takes.
    """
    pool, gate, began = Threads(2, name="test"), threading.Event(), []

    def hang():
        began.append(threading.current_thread())
        gate.wait(10)

    hanging = [asyncio.ensure_future(pool.call(hang)) for _ in range(2)]
    third = asyncio.ensure_future(pool.call(hang))
    while len(began) < 2:
        await asyncio.sleep(0.001)
    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
    await asyncio.wait({third}, timeout=0.05)
    assert len(began) == 2
    assert pool.busy == 2
    gate.set()
    await third
    assert began[2] in began[:2]
    pool.close()


async def test_a_call_that_is_cancelled_while_it_waits_loses_no_thread():
    """
    Also where the thread became free in the same moment.
    """
    pool, gate = Threads(1, name="test"), threading.Event()
    first = asyncio.ensure_future(pool.call(gate.wait, 10))
    second = asyncio.ensure_future(pool.call(int))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pool._waiting[0].add_done_callback(lambda _: second.cancel())
    gate.set()
    await asyncio.wait({first, second})
    assert second.cancelled()
    assert await asyncio.wait_for(pool.call(int), 5) == 0
    pool.close()


async def test_context_and_errors_cross_to_a_thread_and_back():
    """
    The caller's variables are seen, those set there stay there; what is raised there is raised here.
    """
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
    pool = Threads(1, name="test")
    colour.set("red")

    def look():
        seen = colour.get()
        colour.set("blue")
        return seen

    assert await pool.call(look) == "red"
    assert colour.get() == "red"
    with pytest.raises(ZeroDivisionError):
        await pool.call(lambda: 1 // 0)
    pool.close()


async def test_a_system_without_threads_makes_calls_wait_and_tells_once(monkeypatch):
    """
    "can't start new thread" is no failure of what was to be called.
    """
    refused = []

    def start(thread):
        if len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        threading.Thread.start(thread)

    monkeypatch.setattr(threads_module, "pause_before", lambda _: 0.001)
    monkeypatch.setattr(threads_module.Worker, "start", start)
    pool = Threads(1, name="test")
    with capture_logs() as logs:
        assert await pool.call(int) == 0
    assert len(refused) == 3
    told = [entry for entry in logs if entry["event"] == "threads.unavailable"]
    assert len(told) == 1
    assert told[0]["error"] == "can't start new thread"
    pool.close()


async def test_plain_steps_use_as_many_threads_as_the_engine_may_have(engines):
    """
    `Engine(threads=2)`: of six steps, two at once; none in the loop's executor, or in a thread of anyio's.
    """
    lock, inside, most, names = threading.Lock(), [], [], set()

    @step
    def busy(number: int) -> int:
        with lock:
            inside.append(number)
            most.append(len(inside))
            names.add(threading.current_thread().name)
        threading.Event().wait(0.01)
        with lock:
            inside.remove(number)
        return number

    @workflow
    async def all_of_them() -> Flow[list]:
        yield Return((yield gather([busy(number) for number in range(6)])))

    engine = await engines.memory(all_of_them, threads=2)
    assert await engine.run(all_of_them()) == list(range(6))
    assert max(most) == 2
    assert len(names) == 2
    assert all(name.startswith("durable-step") for name in names)


async def test_no_thread_is_taken_from_the_loop_or_anyio(engines, tmp_path):
    """
    By nothing that an engine or a client does: the loop's executor and anyio's threads are the application's.
    """

    @step
    def plain() -> str:
        return threading.current_thread().name

    one = one_step(plain)
    began = set(threading.enumerate())
    engine = await engines.file(one)
    names = [await engine.run(one())]
    await engine.backup(tmp_path / "copy.db")
    async with Client(engines.path) as client:
        await client.start(one())
        names += [thread.name for thread in set(threading.enumerate()) - began]
    assert engine._backend.running.loop._default_executor is None
    assert all(name.startswith("durable-") for name in names), names


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    """
    When the engine is made, with the name of the option.
    """
    with pytest.raises(DefinitionError, match=r"Engine\(threads=\)"):
        Engine(":memory:", [], threads=threads)


STUCK = """
import asyncio, logging, sys, threading
from durable import Engine, job
logging.disable()
began = threading.Event()
@job
def stuck() -> None:
    began.set()
    threading.Event().wait(60)
async def main():
    async with Engine(sys.argv[1], [stuck], grace=0.05) as engine:
        await engine.start(stuck())
        while not began.is_set():
            await asyncio.sleep(0.01)
asyncio.run(main())
print("over", file=sys.stderr)
"""


def test_a_thread_that_hangs_does_not_keep_the_process_alive(tmp_path):
    """
    The engine is closed after its grace, the loop ends, and so does the process.
    """
    done = subprocess.run(
        [sys.executable, "-c", STUCK, tmp_path / "j.db"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "over\n")


# --- what a thread that cannot be cut off may not do -------------------------------------------------


class Doors:
    """
    A function that counts who is inside, and leaves when it is let out.
    """

    def __init__(self) -> None:
        self.out = threading.Event()
        self.began = 0
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def pass_through(self) -> int:
        with self._lock:
            self.began += 1
            number = self.began
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.out.wait(10)
        with self._lock:
            self.inside -= 1
        return number

    async def entered(self, times: int) -> None:
        while self.began < times:
            await asyncio.sleep(0.001)


@pytest.fixture
def doors():
    """
    Opened at the end of the test, whatever becomes of it.
    """
    made = Doors()
    yield made
    made.out.set()


async def told(logs, event):
    """
    The first entry of the log called *event*.
    """
    while True:
        if found := [entry for entry in logs if entry["event"] == event]:
            return found[0]
        await asyncio.sleep(0.001)


async def test_the_next_attempt_begins_when_the_function_has_really_returned(engines, doors):
    """
    After a timeout, too: until then the limit's slot is taken, nobody else gets it, and `why()` says what it waits for.
    """
    one = Limit("one", concurrency=1)

    @step(timeout=0.05, retry=Retry(2, delay=0.0), limit=one)
    def slow() -> int:
        return doors.pass_through()

    @job(limit=one)
    async def other() -> int:
        return doors.inside

    flow = one_step(slow)
    engine = await engines.memory(flow, other)
    with capture_logs() as logs:
        run = await engine.start(flow(), id="r")
        await told(logs, "step.outlived")
        after = await engine.start(other())
        with pytest.raises(TimeoutError):
            await after.result(0.2)
    assert doors.began == 1
    assert "its last attempt is still running in a thread ('slow' at 0)" in await run.why()
    stats = await engine.stats()
    assert (stats.threads, stats.threads_outlived) == (1, 1)
    doors.out.set()
    assert await run.result(5) == 2
    assert doors.most == 1
    assert await after.result(5) == 0


async def test_what_follows_a_timeout_does_not_run_beside_the_function(engines, doors):
    """
    The workflow hears of it once the function has returned, so that an undo cannot overtake what it undoes.
    """

    @step(timeout=0.05)
    def book() -> int:
        return doors.pass_through()

    @step
    async def undo() -> int:
        return doors.inside

    @workflow
    async def saga() -> Flow[int]:
        try:
            yield book()
        except TimeoutError:
            yield Return((yield undo()))

    engine = await engines.memory(saga)
    with capture_logs() as logs:
        run = await engine.start(saga())
        await told(logs, "step.outlived")
        doors.out.set()
        assert await run.result(5) == 0


async def test_a_function_that_hangs_holds_up_the_failure_only_for_its_clean_up(engines, doors):
    """
    After `cleanup_timeout` its step has failed, and the run; the queue's slot stays taken until it returns.
    """

    @step(timeout=0.05)
    def hangs() -> int:
        return doors.pass_through()

    @job
    async def next_one() -> int:
        return doors.inside

    flow = one_step(hangs)
    engine = await engines.memory(flow, next_one, cleanup_timeout=0.05, queues=[Queue("default", concurrency=1)])
    run = await engine.start(flow())
    with pytest.raises(RunFailedError, match="took longer"):
        await run.result(5)
    assert doors.inside == 1
    after = await engine.start(next_one())
    with pytest.raises(TimeoutError):
        await after.result(0.1)
    doors.out.set()
    assert await after.result(5) == 0


@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
async def test_a_long_function_notices_that_it_is_to_end(engines, how):
    """
    `context().cancelled` is set by a timeout, a cancel, and as soon as the engine closes.
    """
    seen, began = [], threading.Event()

    def patient() -> None:
        cancelled = context().cancelled
        seen.append(cancelled.is_set())
        began.set()
        seen.append(cancelled.wait(10))
        seen.append(cancelled.is_set())

    long = job(patient, timeout=0.05 if how == "timeout" else None)
    engine = await engines.memory(long, grace=30)  # longer than the function waits: at its end it is told, too
    run = await engine.start(long())
    while not began.is_set():
        await asyncio.sleep(0.001)
    if how == "cancel":
        await run.cancel()
    if how == "close":
        await engine.aclose()
    elif how == "timeout":
        with pytest.raises(RunFailedError):
            await run.result(5)
    else:
        await run.result(5)
    assert seen == [False, True, True]


async def test_a_plain_job_that_is_cancelled_ends_once_its_function_has_returned(engines, doors):
    """
    Until then `why()` says what is waited for. A value that it returns all the same counts.
    """
    plain = job(doors.pass_through, name="plain")
    engine = await engines.memory(plain)
    run = await engine.start(plain())
    await doors.entered(1)
    await run.cancel()
    assert await run.status() != "cancelled"
    while "still running in a thread" not in await run.why():
        await asyncio.sleep(0.001)
    doors.out.set()
    assert await run.result(5) == 1
    assert doors.inside == 0


async def test_a_function_that_outlives_its_attempt_leaves_no_effect(engines, doors):
    """
    Its cursor, memos and members are refused, also by the engine that was opened again meanwhile.
    """
    errors, ended = [], threading.Event()

    async def never() -> int:
        raise AssertionError

    @job
    def late() -> str:
        attempt, mark, batch = context().attempt, cursor(0), current_batch()
        doors.pass_through()
        if attempt > 1:
            return f"attempt {attempt}, from {mark.value}"
        for effect in (
            lambda: anyio.from_thread.run(mark.advance, 1),
            lambda: anyio.from_thread.run(memo, "m", never),
            lambda: batch.add(extra()),
        ):
            try:
                effect()
            except UsageError as error:
                errors.append(str(error))
        ended.set()
        return "the first"

    @job
    async def extra() -> None:
        pass

    engine = await engines.file(late, extra, grace=0.05)
    async with engine.batch(id="b") as batch:
        batch.add(late())
    await doors.entered(1)
    with capture_logs() as logs:
        await engine.aclose()
    named = [entry for entry in logs if entry["event"] == "step.still_running"]
    assert [(entry["step"], entry["run_id"]) for entry in named] == [("late", "b:0")]
    await engine.open()
    run = engine.get("b:0")
    while "still running in a thread" not in await run.why():
        await asyncio.sleep(0.001)
    assert doors.began == 1
    doors.out.set()
    assert await run.result(5) == "attempt 2, from 0"
    assert doors.most == 1
    assert ended.wait(5)
    assert len(errors) == 3
    assert all("attempt 1 of the step at 0 of run 'b:0' is over" in error for error in errors)
    assert (await engine.get_batch("b").info()).total == 1
    assert not os.path.exists(f"{engine.path}.threads")


async def test_a_process_knows_its_own_functions_although_no_word_of_them_could_be_left(engines, doors):
    """
    The disk was full, say, when their engine closed; what takes their place is no plain function any more.
    """
    plain = job(doors.pass_through, name="late")

    @job(name="late")
    async def mended() -> int:
        return doors.inside

    engine = await engines.file(plain, grace=0.05)
    await engine.start(plain(), id="r")
    await doors.entered(1)
    os.mkdir(f"{engine.path}.threads")  # in the way of the side file
    with capture_logs() as logs:
        await engine.aclose()
    assert "cannot write" in [entry for entry in logs if entry["event"] == "step.still_running"][-1]["error"]
    os.rmdir(f"{engine.path}.threads")
    engine = await engines.file(mended)
    run = engine.get("r")
    with pytest.raises(TimeoutError):
        await run.result(0.1)
    doors.out.set()
    assert await run.result(5) == 0


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_step_that_waits_for_a_thread_when_the_engine_closes_has_not_begun(engines, doors, timeout):
    """
    So `on_crash="block"` has nothing to ask about it: it is called when the engine opens again.
    """

    @job
    def busy() -> int:
        return doors.pass_through()

    @step(on_crash="block", timeout=timeout)
    def careful() -> str:
        return "called"

    flow = one_step(careful)
    engine = await engines.file(busy, flow, threads=1, grace=0.05)
    await engine.start(busy())
    await doors.entered(1)
    await engine.start(flow(), id="r")
    while not engine._backend.running.steps._threads._waiting:
        await asyncio.sleep(0.001)
    await engine.aclose()
    doors.out.set()
    await engine.open()
    assert await engine.get("r").result(5) == "called"


LEAVING = """
import asyncio, logging, sys, threading
from durable import Engine, job
logging.disable()
began = threading.Event()
@job
def stuck() -> None:
    began.set()
    threading.Event().wait(60)
async def main():
    async with Engine(sys.argv[1], [stuck], grace=0.05) as engine:
        await engine.start(stuck(), id="r")
        while not began.is_set():
            await asyncio.sleep(0.01)
asyncio.run(main())
print("closed", file=sys.stderr, flush=True)
sys.stdin.readline()
"""


async def test_a_function_in_another_process_is_waited_for_until_that_is_gone(engines, tmp_path):
    """
    A rolling restart: the engine there is closed, its thread is not; only that step waits, and nothing is left behind.
    """
    began = []

    @job
    def stuck() -> str:
        began.append(context().attempt)
        return "here"

    path = tmp_path / "app.db"
    old = subprocess.Popen(
        [sys.executable, "-c", LEAVING, path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert await asyncio.to_thread(old.stderr.readline) == b"closed\n"
        async with Engine(path, [stuck]) as engine:
            run = engine.get("r")
            with pytest.raises(TimeoutError):
                await run.result(0.5)
            assert not began
            assert await engine.run(stuck()) == "here"
            old.kill()
            assert await run.result(5) == "here"
        assert began == [1, 2]
        assert not path.with_name("app.db.threads").exists()
    finally:
        old.kill()
        old.communicate()


async def test_the_wait_for_a_thread_is_no_part_of_the_timeout(engines, doors):
    """
    A step that has not begun has not taken long.
    """

    @job
    def busy() -> int:
        return doors.pass_through()

    @step(timeout=0.1)
    def quick() -> str:
        return "quick"

    flow = one_step(quick)
    engine = await engines.memory(busy, flow, threads=1)
    first = await engine.start(busy())
    await doors.entered(1)
    run = await engine.start(flow())
    with pytest.raises(TimeoutError):
        await run.result(0.3)
    doors.out.set()
    assert await run.result(5) == "quick"
    assert await first.result(5) == 1


@pytest.mark.parametrize("thread", [True, False])
async def test_what_a_plain_function_returns_is_awaited_if_it_can_be(engines, thread):
    """
    Mocks and wrappers look like plain functions, and return coroutines.
    """

    async def value() -> int:
        return 7

    def wrapper() -> int:
        return value()

    flow = one_step(step(wrapper, thread=thread))
    engine = await engines.memory(flow)
    assert await engine.run(flow()) == 7


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_other_processes_are_told_of_a_function_that_outlives_its_attempt(engines, doors, how):
    """
    By a side file, which holds as long as the function runs; when the engine closes it is gone.
    """

    @job(timeout=0.05 if how == "timeout" else None)
    def plain() -> int:
        return doors.pass_through()

    engine = await engines.file(plain)
    run = await engine.start(plain(), id="r")
    await doors.entered(1)
    assert still_running(engine.path) == []
    if how == "cancel":
        await run.cancel()
    while not (functions := still_running(engine.path)):
        await asyncio.sleep(0.001)
    assert functions == [Outlived("r", "0", "plain")]
    async with Client(engine.path) as client:
        assert "its last attempt is still running in a thread ('plain' at 0)" in await client.get("r").why()
        doors.out.set()
        with contextlib.suppress(RunFailedError):
            await run.result(5)
        assert still_running(engine.path) == []
        assert "thread" not in await client.get("r").why()
    await engine.aclose()
    assert not os.path.exists(f"{engine.path}.threads")


@pytest.mark.parametrize("reopened", [False, True], ids=["", "reopened"])
@pytest.mark.parametrize("how", ["timeout", "cancel", "cancel-job", "replace"])
async def test_a_function_that_hangs_keeps_its_slot_of_a_limit_until_it_has_returned(engines, doors, how, reopened):
    """
    Also when `cleanup_timeout` is over and its run has ended, and when another engine opens the file meanwhile.
    """
    one = Limit("one", concurrency=1, on_conflict="replace" if how == "replace" else "wait")

    @step(timeout=0.05 if how == "timeout" else None, limit=None if how == "replace" else one)
    def hangs() -> int:
        return doors.pass_through()

    @job(limit=one)
    def hanging() -> int:
        return doors.pass_through()

    @job(limit=one)
    async def next_one() -> int:
        return doors.inside

    flow = one_step(hangs)
    engine = await engines.file(flow, hanging, next_one, cleanup_timeout=0.05, grace=0.05)
    run = await engine.start(flow() if how in ("timeout", "cancel") else hanging())
    await doors.entered(1)
    if how.startswith("cancel"):
        await run.cancel()
    after = await engine.start(next_one())
    with pytest.raises((RunFailedError, RunCancelledError)):
        await run.result(5)
    assert doors.inside == 1
    if reopened:
        await engine.aclose()
        await engine.open()
    with pytest.raises(TimeoutError, match="a slot of limit 'one'"):
        await engine.get(after.id).result(0.2)
    doors.out.set()
    assert await engine.get(after.id).result(5) == 0
    with contextlib.closing(sqlite3.connect(engine.path)) as conn:
        assert conn.execute("SELECT count(*) FROM durable_slots").fetchone() == (0,)


@pytest.fixture
def interval():
    """
    How soon threads take turns, as every program begins.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield 0.005
    sys.setswitchinterval(before)


async def test_threads_take_turns_sooner_while_a_plain_function_runs(interval):
    """
    Until the last of them has returned, whatever it raises.
    """
    pool = Threads(2, name="test")
    entered, leave = threading.Event(), threading.Event()

    def wait():
        entered.set()
        leave.wait()

    def fail():
        raise LookupError(round(sys.getswitchinterval(), 6))

    long = asyncio.create_task(pool.call(wait))
    while not entered.is_set():
        await asyncio.sleep(0)
    assert await pool.call(sys.getswitchinterval) == pytest.approx(SHORT)
    with pytest.raises(LookupError, match=r"0\.0005"):
        await pool.call(fail)
    assert sys.getswitchinterval() == pytest.approx(SHORT)
    leave.set()
    await long
    assert sys.getswitchinterval() == pytest.approx(interval)
    pool.close()


@pytest.mark.parametrize("own", [0.0001, 0.02])
async def test_how_soon_the_application_has_threads_take_turns_is_its_own(interval, own):
    """
    A shorter interval than Python's, or a longer one, is left as it is; and so is what a function sets while it runs.
    """
    pool = Threads(1, name="test")
    await pool.call(sys.setswitchinterval, own)
    assert sys.getswitchinterval() == pytest.approx(own)
    assert await pool.call(sys.getswitchinterval) == pytest.approx(own)
    assert sys.getswitchinterval() == pytest.approx(own)
    pool.close()
