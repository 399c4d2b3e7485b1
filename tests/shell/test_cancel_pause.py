"""
Cancel, pause and resume: in every state a run can be in, recorded first, idempotent.
"""

import asyncio
import contextlib

import pytest

from durable import (
    Engine,
    Flow,
    Queue,
    Return,
    RunCancelled,
    RunCancelledError,
    RunFailedError,
    gather,
    job,
    sleep,
    start,
    step,
    wait_for,
    workflow,
)
from durable.errors import RunStateError

pytestmark = pytest.mark.anyio


class Gate:
    """A step's body that says when it began, and ends when told."""

    def __init__(self):
        self.began, self.go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.calls = 0
        self.cancelled = 0

    async def __call__(self):
        self.calls += 1
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended.set()


@pytest.fixture
async def gate():
    """
    One gate a test.
    """
    return Gate()


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


@workflow
async def sleeping() -> Flow[None]:
    yield sleep(1e6)


@job(queue="slow")
async def never() -> None:
    await asyncio.Event().wait()


@workflow
async def parent() -> Flow[None]:
    yield gather(never(), never(), sleeping())


@workflow
async def aloof() -> Flow[None]:
    yield start(sleeping(), on_parent_end="cancel")
    yield wait_for("go")


async def ends_cancelled(run, reason=None):
    with pytest.raises(RunCancelledError, match=reason):
        await run.result(5)
    assert await run.status() == "cancelled"


async def test_cancel_while_waiting_for_a_signal_or_timer(engines, reached):
    """
    A freed run is woken to be cancelled, and leaves no row of a wait behind.
    """
    engine = await engines.memory(waiting, sleeping)
    for op in (waiting(), sleeping()):
        run = await engine.start(op)
        await reached(run, "waiting")
        assert await run.cancel("enough") is True
        await ends_cancelled(run, "enough")
    assert (await engine.stats()).waits == 0


async def test_cancel_while_a_step_runs(engines, gate):
    """
    The step is cut off through its cancel scope; that is not a failed attempt.
    """

    @step
    async def work() -> None:
        await gate()

    @workflow
    async def working() -> Flow[None]:
        yield work()

    engine = await engines.memory(working)
    run = await engine.start(working())
    await gate.began.wait()
    await run.cancel()
    await ends_cancelled(run)
    await gate.ended.wait()
    assert gate.cancelled == 1


async def test_cancel_while_a_job_runs(engines, gate):
    """
    A job is cancelled like a step.
    """

    @job
    async def work() -> None:
        await gate()

    engine = await engines.memory(work)
    run = await engine.start(work())
    await gate.began.wait()
    assert await run.cancel("stop") is True
    await ends_cancelled(run, "stop")
    await gate.ended.wait()
    assert gate.cancelled == 1


async def test_cancel_cancels_all_open_children(engines, reached):
    """
    Awaited children, and started ones that are tied to it, are cancelled with their parent, at any depth.
    """
    engine = await engines.memory(parent, aloof, never, sleeping)
    for op in (parent(), aloof()):
        run = await engine.start(op)
        await reached(run, "waiting")
        children = await run.children()
        await run.cancel()
        await ends_cancelled(run)
        for child in children:
            await ends_cancelled(engine.get(child.run_id), "its parent")
    assert (await engine.stats()).waits == 0


async def test_who_waits_for_a_run_that_was_cancelled_twice_hears_of_it(engines, gate, reached):
    """
    The second request comes while it is ending already, on a paused queue: it does not count as a run that will begin.
    """

    @job
    async def never() -> None:
        await gate()

    engine = await engines.memory(never)
    await engine.queue("default").pause()
    run = await engine.start(never())
    await asyncio.gather(run.cancel(), run.cancel())
    await reached(run, "cancelled")
    with pytest.raises(RunCancelledError):
        await run.result(5)


async def test_cancel_before_the_first_turn(engines, gate):
    """
    A run that waits for a slot never runs once it is cancelled, and need not wait for the slot to end.
    """

    @job(queue="one")
    async def work() -> None:
        await gate()

    engine = await engines.memory(work, queues=[Queue("one", concurrency=1)])
    first = await engine.start(work())
    await gate.began.wait()
    second = await engine.start(work())
    await second.cancel("not needed")
    await ends_cancelled(second, "not needed")
    assert await first.status() == "running"
    gate.go.set()
    await first.result(5)
    assert gate.calls == 1


async def test_cancel_on_a_paused_queue(engines):
    """
    What has not begun can be cancelled although nothing of its queue may begin.
    """
    engine = await engines.memory(waiting)
    await engine.queue("default").pause()
    run = await engine.start(waiting())
    await run.cancel()
    await ends_cancelled(run)


async def test_cancel_of_a_delayed_run(engines):
    """
    A run that is not due yet ends at once, and is never begun.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting(), delay=3600)
    await run.cancel()
    await ends_cancelled(run)
    assert (await engine.stats()).waits == 0


async def test_cancel_of_a_paused_run(engines, reached):
    """
    A paused run need not be resumed to be cancelled.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting())
    await reached(run, "waiting")
    await run.pause()
    await run.cancel()
    await ends_cancelled(run)


async def test_cancel_of_a_run_paused_during_a_step(engines, gate):
    """
    The step that a pause lets end is cut off by a cancel.
    """

    @step
    async def work() -> None:
        await gate()

    @workflow
    async def working() -> Flow[None]:
        yield work()

    engine = await engines.memory(working)
    run = await engine.start(working())
    await gate.began.wait()
    await run.pause()
    await run.cancel()
    await ends_cancelled(run)
    assert gate.cancelled == 1


async def test_cancel_of_a_blocked_run(engines, reached):
    """
    A blocked run can be given up, even if its definition is gone.
    """

    @workflow
    async def broken() -> Flow[None]:
        yield never()  # not among the engine's definitions

    engine = await engines.memory(broken)
    run = await engine.start(broken())
    await reached(run, "blocked")
    await run.cancel()
    await ends_cancelled(run)


async def test_cancel_of_a_run_whose_definition_is_gone(engines, reached):
    """
    What nobody can execute any more can still be cancelled.
    """
    engine = await engines.file(waiting)
    run = await engine.start(waiting(), id="r")
    await reached(run, "waiting")
    await engine.aclose()
    engine = await engines.file(sleeping)
    run = engine.get("r")
    await run.signal("go")
    await reached(run, "blocked")
    await run.cancel()
    await ends_cancelled(run)


async def test_cancel_of_an_ended_run_does_nothing(engines):
    """
    It says so, and the result stays.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting())
    await run.signal("go", "x")
    await run.result(5)
    assert await run.cancel() is False
    assert await run.result(5) == "x"


async def test_cancelling_twice_is_cancelling_once(engines, gate, reached):
    """
    A second cancel during the clean-up changes nothing.
    """

    @step
    async def tidy() -> None:
        await gate()

    @workflow
    async def working() -> Flow[None]:
        try:
            yield wait_for("go")
        finally:
            yield tidy()

    engine = await engines.memory(working)
    run = await engine.start(working())
    await reached(run, "waiting")
    await asyncio.gather(run.cancel("first"), run.cancel("second"))
    await gate.began.wait()
    await run.cancel("third")
    gate.go.set()
    await ends_cancelled(run, "first")
    assert gate.calls == 1


@pytest.mark.parametrize("whom", ["itself", "its parent"])
async def test_a_second_cancel_leaves_the_clean_up_alone(engines, gate, reached, whom):
    """
    A job that a clean-up waits for has not begun, and is no less part of the clean-up for that.
    """
    tidied = []

    @job(queue="one")
    async def holds() -> None:
        await gate()

    @job(queue="one")
    async def tidy() -> None:
        tidied.append(1)

    @workflow
    async def careful() -> Flow[None]:
        try:
            yield wait_for("go")
        finally:
            yield tidy()

    @workflow
    async def above() -> Flow[None]:
        yield careful()

    engine = await engines.memory(above, careful, holds, tidy, queues=[Queue("one", concurrency=1)])
    holding = await engine.start(holds())
    await gate.began.wait()
    run = await engine.start(above())
    await reached(run, "waiting")
    below = engine.get((await run.children())[0].run_id)
    await reached(below, "waiting")
    await below.cancel("first")

    async def cleans_up():
        return len(await below.children()) == 1

    async with asyncio.timeout(5):
        while not await cleans_up():
            await asyncio.sleep(0.001)
    await (below if whom == "itself" else run).cancel("second")
    gate.go.set()
    await holding.result(5)
    await ends_cancelled(below, "first")
    assert tidied == [1]


@pytest.mark.parametrize("journal", ["memory", "file"])
async def test_clean_up_steps_run_in_finally_and_except(engines, journal, reached):
    """
    A cancelled run may yield steps to clean up; `except Exception` does not see the cancellation.
    """
    done = []

    @step
    async def tidy(what: str) -> str:
        done.append(what)
        return what

    @workflow
    async def working() -> Flow[None]:
        try:
            try:
                yield wait_for("go")
            except Exception:  # must not be entered
                yield tidy("wrong")
            except RunCancelled as error:
                yield tidy(error.reason)
                raise
        finally:
            yield tidy("b")
            yield tidy("c")

    engine = await getattr(engines, journal)(working)
    run = await engine.start(working())
    await reached(run, "waiting")
    await run.cancel("why")
    await ends_cancelled(run)
    assert done == ["why", "b", "c"]


async def test_swallowing_a_cancellation_does_not_prevent_it(engines, reached):
    """
    A workflow that catches RunCancelled and goes on ends as cancelled all the same.
    """
    done = []

    @step
    async def more() -> None:
        done.append(1)

    @workflow
    async def stubborn() -> Flow[str]:
        with contextlib.suppress(RunCancelled):
            yield wait_for("go")
        yield more()
        yield Return("survived")

    engine = await engines.memory(stubborn, waiting)
    run, other = await engine.start_many([stubborn(), waiting()])
    await reached(run, "waiting")
    await run.cancel()
    await ends_cancelled(run)
    assert done == [1]
    await other.signal("go", "unharmed")
    assert await other.result(5) == "unharmed"


async def test_clean_up_is_bounded(engines, clock, reached, eventually):
    """
    After `cleanup_timeout` the run is cancelled whatever its clean-up still waits for.
    """

    @workflow
    async def clinging() -> Flow[None]:
        try:
            yield wait_for("go")
        finally:
            yield wait_for("never")

    engine = await engines.memory(clinging, clock=clock, cleanup_timeout=60.0)
    run = await engine.start(clinging())
    await reached(run, "waiting")
    await run.cancel()

    async def cancelling():
        return "CancelRequested" in [event.kind for event in await run.history()]

    await eventually(cancelling)
    assert await run.status() != "cancelled"
    clock.advance(61)
    await ends_cancelled(run)


async def test_members_not_started_never_run(engines, gate):
    """
    Cancelling a for_each starts none of the items that were to follow.
    """
    from durable import for_each

    @step
    async def work(item: int) -> None:
        await gate()

    @workflow
    async def many() -> Flow[None]:
        yield for_each(work, range(100), concurrency=2)

    engine = await engines.memory(many)
    run = await engine.start(many())
    await gate.began.wait()
    await run.cancel()
    await ends_cancelled(run)
    assert gate.calls <= 2


async def test_cancellation_of_a_child_is_its_parents_error(engines, reached):
    """
    A parent sees RunCancelledError at the child's command.
    """

    @workflow
    async def caring() -> Flow[str]:
        try:
            yield waiting()
        except RunCancelledError as error:
            yield Return(f"lost: {error.reason}")

    engine = await engines.memory(caring, waiting)
    run = await engine.start(caring())
    await reached(run, "waiting")
    (child,) = await run.children()
    await engine.get(child.run_id).cancel("by hand")
    assert await run.result(5) == "lost: by hand"


async def test_a_step_that_ignores_its_cancellation_does_not_hold_the_run(engines):
    """
    Swallowing CancelledError changes nothing for anybody: the run ends when the body lets go.
    """
    began, let_go = asyncio.Event(), asyncio.Event()

    @step
    async def deaf() -> str:
        began.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                let_go.set()
        return "done"

    @workflow
    async def working() -> Flow[str]:
        value: str = yield deaf()
        yield Return(value)

    engine = await engines.memory(working, waiting)
    run = await engine.start(working())
    await began.wait()
    await run.cancel()
    await ends_cancelled(run)


# --- pause and resume ------------------------------------------------------------------------------


async def test_the_outcome_of_a_paused_runs_step_is_kept(engines, gate):
    """
    Pausing lets the step under way end and records it: it is not run again.
    """

    @step
    async def work() -> int:
        await gate()
        return 7

    @step
    async def after(value: int) -> int:
        return value + 1

    @workflow
    async def working() -> Flow[int]:
        value: int = yield work()
        value = yield after(value)
        yield Return(value)

    engine = await engines.file(working)
    run = await engine.start(working(), id="r")
    await gate.began.wait()
    assert await run.pause() is True
    assert await run.pause() is False
    gate.go.set()
    await engine.aclose()
    engine = await engines.file(working)
    run = engine.get("r")
    assert await run.status() == "paused"
    assert "resume" in await run.why()
    assert await run.resume() is True
    assert await run.result(5) == 8
    assert gate.calls == 1


async def test_resuming_while_the_step_still_runs(engines, gate):
    """
    Pause and resume during one step: it runs once, and the run goes on.
    """

    @step
    async def work() -> int:
        await gate()
        return 7

    @workflow
    async def working() -> Flow[int]:
        value: int = yield work()
        yield Return(value)

    engine = await engines.memory(working)
    run = await engine.start(working())
    await gate.began.wait()
    await run.pause()
    await run.resume()
    gate.go.set()
    assert await run.result(5) == 7
    assert gate.calls == 1


async def test_a_job_paused_while_it_runs(engines, gate):
    """
    A job's body ends, its value is kept, and the run ends once it is resumed.
    """

    @job
    async def work() -> int:
        await gate()
        return 7

    engine = await engines.memory(work)
    run = await engine.start(work())
    await gate.began.wait()
    await run.pause()
    gate.go.set()
    await asyncio.sleep(0.01)
    assert await run.status() == "paused"
    await run.resume()
    assert await run.result(5) == 7
    assert gate.calls == 1


async def test_pausing_before_the_first_turn(engines):
    """
    A pending run does not begin while it is paused, delayed or not.
    """
    engine = await engines.memory(waiting)
    await engine.queue("default").pause()
    run = await engine.start(waiting())
    late = await engine.start(waiting(), delay=3600)
    for each in (run, late):
        await each.pause()
    await engine.queue("default").resume()
    assert [await each.status() for each in (run, late)] == ["paused", "paused"]
    for each in (run, late):
        await each.resume()
    assert await late.status() == "pending"
    await run.signal("go", "x")
    assert await run.result(5) == "x"


async def test_timers_that_fire_while_paused_count(engines, clock, reached, eventually):
    """
    A timer due while the run is paused has fired when it is resumed.
    """

    @workflow
    async def napping() -> Flow[str]:
        yield sleep(10)
        yield Return("woke")

    engine = await engines.memory(napping, clock=clock)
    run = await engine.start(napping())
    await reached(run, "waiting")
    await run.pause()
    clock.advance(20)

    async def fired():
        return (await engine.stats()).waits == 0

    await eventually(fired)
    assert await run.status() == "paused"
    await run.resume()
    assert await run.result(5) == "woke"


async def test_children_that_end_while_their_parent_is_paused_count(engines, gate, reached):
    """
    The parent goes on when it is resumed, with their results.
    """

    @job
    async def work() -> int:
        await gate()
        return 7

    @workflow
    async def adding() -> Flow[int]:
        values: list[int] = yield gather(work(), work())
        yield Return(sum(values))

    engine = await engines.memory(adding, work)
    run = await engine.start(adding())
    await reached(run, "waiting")
    await run.pause()
    gate.go.set()
    for child in await run.children():
        await engine.get(child.run_id).result(5)
    assert await run.status() == "paused"
    await run.resume()
    assert await run.result(5) == 14


async def test_requests_that_a_status_does_not_allow(engines):
    """
    RunStateError names run and status; resuming what is not paused does nothing.
    """

    @job
    async def failing() -> None:
        raise ValueError

    engine = await engines.memory(waiting, failing)
    run = await engine.start(waiting())
    assert await run.resume() is False
    assert await run.retry() is False
    await run.signal("go", "x")
    await run.result(5)
    for ask in (run.pause, run.resume, run.retry):
        with pytest.raises(RunStateError, match="succeeded"):
            await ask()
    bad = await engine.start(failing())
    with pytest.raises(RunFailedError):
        await bad.result(5)
    with pytest.raises(RunStateError, match="retried"):
        await bad.resume()


async def test_a_paused_run_stays_paused_across_a_restart(engines, reached):
    """
    Pausing is recorded.
    """
    engine = await engines.file(waiting)
    run = await engine.start(waiting(), id="r")
    await reached(run, "waiting")
    await run.pause()
    await engine.aclose()
    async with Engine(engines.path, [waiting]) as engine:
        run = engine.get("r")
        assert await run.status() == "paused"
        await run.resume()
        await run.signal("go", "x")
        assert await run.result(5) == "x"
