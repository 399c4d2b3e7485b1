"""
Cancelling, with functions that really run: clean-up may await, and what follows begins once it has ended.
"""

import asyncio
import contextlib
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from durable import (
    Engine,
    Flow,
    RunCancelled,
    RunCancelledError,
    RunFailedError,
    context,
    gather,
    job,
    race,
    settle,
    sleep,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)
from durable._core.journal.events import StepSucceeded
from durable.testing import Ledger, every_crash
from durable.testing._crash.invariants import CONSISTENT

#: Long enough that nothing of it is waited for.
LONG = 60.0


@pytest.fixture
def log() -> list[str]:
    """
    What happened, in its order.
    """
    return []


@pytest.fixture
def slow(log):
    """
    Calls that take long and clean up, by name; each writes "ended" once that is over.
    """

    @contextlib.asynccontextmanager
    async def connection():
        log.append("began")
        try:
            yield
        finally:
            await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            log.append("ended")

    @step
    async def coroutine() -> None:
        async with connection():
            await asyncio.sleep(LONG)

    @step
    def thread() -> None:
        log.append("began")
        time.sleep(0.15)
        log.append("ended")

    @job
    async def a_job() -> None:
        async with connection():
            await asyncio.sleep(LONG)

    @step
    async def begin() -> None:
        log.append("began")

    @step
    async def roll_back() -> None:
        await asyncio.sleep(0.02)
        log.append("ended")

    @workflow
    async def child() -> Flow[None]:
        yield begin()
        try:
            yield sleep(LONG)
        finally:
            yield roll_back()

    return {
        "coroutine": coroutine,
        "thread": thread,
        "job": a_job,
        "child": child,
        "group": lambda: gather(timeout(coroutine(), LONG), settle(sleep(LONG))),
        "helper": lambda: gather(helper(coroutine())),
    }


async def helper(op):
    await race(op, wait_for("never"))


@step
async def fails() -> None:
    await asyncio.sleep(0.03)
    raise ValueError


BY_A_GROUP = {
    "timeout": lambda op: timeout(op, 0.05),
    "race": lambda op: race(op, sleep(0.05)),
    "fail_fast": lambda op: gather(op, fails(), fail_fast=True),
    "outer race": lambda op: race(gather(op, sleep(LONG)), sleep(0.05)),
}


@pytest.mark.parametrize("by", BY_A_GROUP)
@pytest.mark.parametrize("what", ["coroutine", "thread", "job", "child", "group", "helper"])
async def test_what_follows_a_group_begins_once_its_losers_have_ended(engines, slow, log, what, by):
    """
    Steps, jobs, child workflows, groups and helpers; however they were cancelled.
    """

    @workflow
    async def body() -> Flow[None]:
        yield settle(BY_A_GROUP[by](slow[what]()))
        log.append("next")

    engine = await engines.memory(body, slow["job"], slow["child"])
    await (await engine.start(body())).result(5)
    assert log == ["began", "ended", "next"]


@pytest.mark.parametrize("in_a_gather", [False, True])
@pytest.mark.parametrize("what", ["coroutine", "thread", "job", "child", "group", "helper"])
async def test_the_clean_up_of_a_run_begins_once_what_it_had_open_has_ended(
    engines, slow, log, eventually, what, in_a_gather
):
    """
    `run.cancel()`: `RunCancelled` is raised in the code then, and the run has ended after its clean-up.
    """

    @workflow
    async def body() -> Flow[None]:
        op = slow[what]()
        try:
            yield gather(op, sleep(LONG)) if in_a_gather else op
            yield sleep(LONG)
        except RunCancelled:
            log.append("next")
            raise

    engine = await engines.memory(body, slow["job"], slow["child"])
    run = await engine.start(body())

    async def has_begun():
        return "began" in log

    await eventually(has_begun)
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    assert log == ["began", "ended", "next"]


@pytest.mark.parametrize("by", ["step timeout", "shutdown"])
async def test_clean_up_may_await_where_an_attempt_is_cut_off(tmp_db, log, eventually, by):
    """
    A step's own `timeout=`, and a closing engine: the function is cancelled once, and awaited.
    """

    @step(timeout=0.05 if by == "step timeout" else None)
    async def holds() -> None:
        log.append("began")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            log.append("ended")
            raise

    @workflow
    async def body() -> Flow[None]:
        try:
            yield holds()
        except TimeoutError as error:
            log.append(str(error))

    async with Engine(tmp_db, [body], grace=0.05) as engine:
        run = await engine.start(body())
        if by == "step timeout":
            await run.result(5)

        async def has_begun():
            return "began" in log

        await eventually(has_begun)
    told = ["step 'holds' took longer than 0.05 s"] if by == "step timeout" else []
    assert [each.replace(holds.name, "holds") for each in log] == ["began", "ended", *told]


@step(process=True)
def in_a_process(path: str) -> None:
    """
    Writes the id of its process, and stays.
    """
    Path(path).write_text(str(os.getpid()))
    time.sleep(LONG)


async def test_a_process_has_ended_before_what_follows(engines, tmp_path, eventually):
    """
    It is killed, and gone.
    """
    path = tmp_path / "pid"
    gone = []

    @workflow
    async def body() -> Flow[None]:
        yield race(in_a_process(str(path)), wait_for("go"))
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
        gone.append(True)

    engine = await engines.memory(body)
    run = await engine.start(body())

    async def has_begun():
        return path.exists() and path.read_text()

    await eventually(has_begun, 20)
    await run.signal("go")
    await run.result(10)
    assert gone == [True]


async def test_a_transaction_whose_group_has_failed_does_not_run(engines):
    """
    Its rows would be there, and nobody would know of them.
    """
    ran = []

    @transaction
    def insert(_tx, n: int) -> None:
        ran.append(n)
        if n == 1:
            raise ValueError

    @workflow
    async def body() -> Flow[None]:
        yield settle(gather(insert(0), insert(1), insert(2), fail_fast=True))

    engine = await engines.memory(body)
    await (await engine.start(body())).result(5)
    assert ran == [0, 1]


async def test_a_step_that_does_not_end_is_abandoned_and_told(engines, eventually, caplog):
    """
    Within `cleanup_timeout`; the run says meanwhile what it waits for, and its clean-up runs all the same.
    """
    may_end = asyncio.Event()
    undone = []

    @step
    async def stubborn() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    @step
    async def undo() -> None:
        undone.append(True)

    @workflow
    async def body() -> Flow[None]:
        try:
            yield stubborn()
        finally:
            yield undo()

    engine = await engines.memory(body, cleanup_timeout=0.3)
    run = await engine.start(body())

    async def runs():
        return "running" in await run.why()

    await eventually(runs)
    await run.cancel("enough")

    async def says():
        return "waits for the clean-up of step" in await run.why()

    await eventually(says)
    with pytest.raises(RunCancelledError, match="abandoned") as cancelled:
        await run.result(5)
    assert isinstance(cancelled.value.__cause__, TimeoutError)
    assert undone == [True]
    assert "step.abandoned" in caplog.text
    assert (await run.info()).abandoned == {"0": "stubborn"}
    may_end.set()


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_step_that_ignores_its_own_timeout_is_abandoned_and_told(engines, caplog, kind):
    """
    Its run waits for it within `cleanup_timeout`, and fails by the timeout; where it is to be tried again, that waits.
    """
    may_end, calls = asyncio.Event(), []

    async def stubborn(attempts: int) -> None:
        calls.append("began")
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        calls.append("ended")

    once = step(timeout=0.05)(stubborn) if kind == "step" else job(timeout=0.05)(stubborn)
    twice = step(timeout=0.05, retry=2, name="twice")(stubborn)

    @workflow
    async def body(attempts: int) -> Flow[None]:
        yield (twice if attempts > 1 else once)(attempts)

    engine = await engines.memory(body, *([once] if kind == "job" else []), cleanup_timeout=0.1)
    with pytest.raises(RunFailedError, match="'stubborn' took longer than"):
        await engine.run(body(1))
    assert calls == ["began"]
    assert "step.abandoned" in caplog.text
    run = await engine.start(body(2))
    while "step.outlived" not in caplog.text:
        await asyncio.sleep(0.01)
    assert calls == ["began", "began"]
    may_end.set()
    await run.result(5)


async def test_a_loser_that_does_not_end_is_abandoned(engines):
    """
    The run goes on without it; `durable show` and the journal say so.
    """
    may_end = asyncio.Event()

    @step
    async def stubborn() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    @workflow
    async def body() -> Flow[None]:
        yield race(stubborn(), sleep(0.01))

    engine = await engines.memory(body, cleanup_timeout=0.1)
    run = await engine.start(body())
    await run.result(5)
    stopped = [event.event for event in await run.history() if event.kind == "StepStopped"]
    assert [event.abandoned for event in stopped] == [True]
    may_end.set()


async def test_a_failure_in_clean_up_is_told_everywhere(engines, eventually, caplog):
    """
    In the result, the facts of the run, its hook and the log; the run is cancelled all the same.
    """
    seen = []
    begun = asyncio.Event()

    @step
    async def holds() -> None:
        try:
            begun.set()
            await asyncio.sleep(LONG)
        finally:
            raise OSError("no connection")

    @workflow
    async def body() -> Flow[None]:
        yield holds()

    @body.on_cancel
    def cancelled(finished) -> None:
        seen.append((finished.status, repr(finished.error)))

    engine = await engines.memory(body)
    run = await engine.start(body())
    await begun.wait()
    await run.cancel("enough")
    with pytest.raises(RunCancelledError) as raised:
        await run.result(5)
    assert repr(raised.value.__cause__) == "OSError('no connection')"
    info = await run.info()
    assert (info.status, info.reason) == ("cancelled", "enough; its clean-up failed: OSError: no connection")
    assert info.error == "OSError: no connection"
    assert "no connection" in await run.why()
    assert seen == [("cancelled", "OSError('no connection')")]
    logged: list[str] = []

    async def is_logged():
        logged.append(caplog.text)
        return "run.cleanup_failed" in "".join(logged)

    await eventually(is_logged)
    assert "step.cleanup_failed" in "".join(logged)


async def test_a_job_that_completes_all_the_same_has_succeeded(engines):
    """
    A thread cannot be cut off: its value counts, for the parent, too.
    """
    begun, may_end = threading.Event(), threading.Event()

    @job
    def stays() -> int:
        begun.set()
        assert may_end.wait(5)
        return 7

    engine = await engines.memory(stays)
    run = await engine.start(stays())
    assert await asyncio.to_thread(begun.wait, 5)
    await run.cancel()
    may_end.set()
    assert await run.result(5) == 7


async def test_a_joined_child_is_left_alone_and_not_waited_for(engines, eventually):
    """
    Somebody else's run: the parent that joined it by its key continues at once.
    """
    may_end = asyncio.Event()

    @job
    async def shared() -> int:
        await may_end.wait()
        return 7

    @workflow
    async def body() -> Flow[None]:
        yield settle(timeout(shared().options(key="one"), 0.05))

    engine = await engines.memory(shared, body)
    first = await engine.start(shared(), key="one")
    await (await engine.start(body())).result(5)
    may_end.set()
    assert await first.result(5) == 7


LEDGER = Ledger()


@step
async def book(what: str) -> str:
    """
    Completes although it is cancelled.
    """
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(LONG)
    LEDGER.add(f"booked {what}", key=context().idempotency_key)
    return what


@step
async def unbook(what: str) -> None:
    LEDGER.add(f"unbooked {what}", key=context().idempotency_key)


async def around_it() -> None:
    try:
        await book("flight")
    finally:
        await unbook("flight")
    await book("hotel")


async def behind_it() -> None:
    booked = await book("flight")
    try:
        await book("hotel")
    finally:
        await unbook(booked)


async def in_an_except() -> None:
    try:
        await book("flight")
        raise ValueError
    except ValueError:
        await unbook("flight")
        raise


TRIPS = {trip.__name__: trip for trip in (around_it, behind_it, in_an_except)}


@workflow
async def trip(form: str) -> Flow[None]:
    yield race(TRIPS[form](), sleep(1))


def nothing_stays_booked(found, _expected):
    """
    What was booked was unbooked after that, and the hotel never was.

    Code that undoes what it has heard of cannot undo what died with its process before it was recorded.
    """
    done = list(dict.fromkeys(effect.what for effect in found.effects))
    (trip,) = found.runs.values()
    heard_of = any(isinstance(event, StepSucceeded) and event.position == "0.0.0" for event in trip.events)
    if done not in (["booked flight", "unbooked flight"], ["unbooked flight"], []) and (heard_of or not found.lost):
        yield f"done was {done}"


@pytest.mark.long
@pytest.mark.parametrize("form", TRIPS)
def test_what_was_booked_all_the_same_is_unbooked_whatever_crashes(form):
    """
    Wherever the code undoes it, and at whichever commit the process dies.
    """
    survived = every_crash(trip(form), [trip], ledger=LEDGER, invariants=(*CONSISTENT, nothing_stays_booked))
    assert len(survived.undisturbed.effects) == 2


# --- any moment --------------------------------------------------------------------------------------

CANCELS = 1_000


@pytest.mark.long
async def test_of_a_thousand_sagas_cancelled_at_random_moments_nothing_is_left(engines):
    """
    No undo overtakes what it undoes, nothing that was booked is left, nothing is doubled.

    The code undoes what it has heard of, and no more: so it hears of every booking.
    """
    dice = random.Random(13)
    inside: set[tuple[int, str]] = set()
    held: Counter[tuple[int, str]] = Counter()
    times: Counter[tuple[int, str]] = Counter()
    wrong: list[str] = []
    loop = asyncio.get_running_loop()
    #: For each run: after how many things that its steps do it is cancelled.
    moments = [dice.randrange(1, 10) for _ in range(CANCELS)]
    reached = [asyncio.Event() for _ in range(CANCELS)]

    def happened(n: int) -> None:
        moments[n] -= 1
        if moments[n] == 0:
            loop.call_soon_threadsafe(reached[n].set)

    async def reserve(n: int, what: str) -> str:
        inside.add((n, what))
        try:
            happened(n)
            await asyncio.sleep(0.001)
            happened(n)
            await asyncio.sleep(0.001)
            held[n, what] += 1
            times[n, what] += 1
            happened(n)
            return what
        finally:
            if not held[n, what]:  # nothing is awaited behind what cannot be taken back
                await asyncio.sleep(0.002)
            inside.discard((n, what))

    def reserve_in_a_thread(n: int, what: str) -> str:
        inside.add((n, what))
        happened(n)
        time.sleep(0.002)
        happened(n)
        held[n, what] += 1
        times[n, what] += 1
        inside.discard((n, what))
        happened(n)
        return what

    async def release(n: int, what: str) -> None:
        if (n, what) in inside:
            wrong.append(f"{what} of {n} was undone while it was being done")
        await asyncio.sleep(0)
        held[n, what] -= 1

    booking, paying, shipping = step(reserve, name="book"), step(reserve, name="pay"), step(reserve, name="ship")
    threaded, undoing = step(reserve_in_a_thread, name="pay-thread"), step(release, name="undo")

    @workflow
    async def saga(n: int) -> Flow[None]:
        done: list[str] = []
        try:
            done.append((yield booking(n, "book")))
            done.append((yield (threaded if n % 4 == 0 else paying)(n, "pay")))
            done.append((yield shipping(n, "ship")))
            yield sleep(LONG)
        finally:
            for what in reversed(done):
                yield undoing(n, what)

    engine = await engines.memory(saga, concurrency=CANCELS)
    at_once = asyncio.Semaphore(40)

    async def one(n: int) -> None:
        async with at_once:
            run = await engine.start(saga(n))
            await reached[n].wait()
            await asyncio.sleep(dice.choice([0, 0, 0.0005, 0.001, 0.002, 0.005]))
            await run.cancel()
            with pytest.raises(RunCancelledError):
                await run.result(60)

    await asyncio.gather(*(one(n) for n in range(CANCELS)))
    undone = sum(times.values()) - sum(held.values())
    print(f"{CANCELS:,} cancels, {len(times):,} bookings, {undone:,} undone, {len(wrong)} overtaken")
    assert not wrong
    assert [key for key, count in held.items() if count] == []
    assert [key for key, count in times.items() if count > 1] == []
    assert len(times) > CANCELS  # they were struck in the midst of it


async def test_a_run_out_of_time_waits_for_its_step_too(engines, log, slow):
    """
    The deadline of the whole run is a cancel.
    """

    @workflow
    async def body() -> Flow[None]:
        try:
            yield slow["coroutine"]()
        finally:
            log.append("next")

    engine = await engines.memory(body)
    with pytest.raises(RunFailedError):
        await (await engine.start(body().options(timeout=0.1))).result(5)
    assert log == ["began", "ended", "next"]
