"""
Cancelling: `RunCancelled` at the current command, clean-up within its time, and nothing left running.
"""

import pytest

from durable._core.authoring.decorators import job, step, workflow
from durable._core.authoring.op_constructors import for_each, gather, race, settle, sleep, timeout, wait_for
from durable._core.journal import history
from durable._core.journal.events import (
    CancelRequested,
    CleanupTimedOut,
    RunCancelled,
    RunExpired,
    RunFailed,
    RunTimedOut,
)
from durable._core.program.ops import Flow
from durable.errors import RunCancelled as Cancelled
from tests.core.drive import START, World, again, closed_prefixes, execution, failure, kinds, run, started


@step
def one(n: int = 0) -> int:
    return n


@job
def child(n: int) -> int:
    return n


@workflow
async def patient() -> None:
    await sleep(60)


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


def test_a_cancelled_run_ends_at_its_current_command():
    """
    The request and the end are recorded in one turn; the reason is kept.
    """

    async def body() -> None:
        await sleep(60)

    world = begun(body)
    decision = world.cancel("enough")
    assert decision.events == [CancelRequested("enough", START), RunCancelled("enough", at=START)]
    assert (decision.ended, decision.reason) == ("cancelled", "enough")


@pytest.mark.parametrize("freed", [False, True])
def test_clean_up_may_yield_steps(freed):
    """
    `finally` and `except RunCancelled` go on as code that is alive, then the run is cancelled.
    """

    async def body() -> Flow[None]:
        try:
            yield sleep(60)
        except Cancelled as cancelled:
            assert cancelled.reason == "enough"  # noqa: PT017 - the form is the point
            raise
        finally:
            yield one()
            yield one(2)

    world = begun(body, freed=freed)
    decision = world.cancel("enough")
    assert [action.position for action in decision.steps] == ["1"]
    assert ("cleanup", START + 60) in [(wait.kind, wait.fire_at) for wait in decision.waits]
    world.succeed("1", 0)
    world.succeed("2", 2)
    assert world.end.ended == "cancelled"


def test_a_cancelled_run_may_not_turn_into_a_success():
    """
    Swallowing `RunCancelled` and returning a value ends as cancelled all the same; so does an error in clean-up.
    """

    async def swallows() -> int:
        try:  # noqa: SIM105 - the form is the point
            await sleep(60)
        except BaseException:
            pass
        return 7

    async def breaks() -> int:
        try:
            await sleep(60)
        finally:
            raise ValueError

    for body in (swallows, breaks):
        world = begun(body)
        world.cancel()
        assert world.end.ended == "cancelled"


def test_except_exception_does_not_swallow_it():
    """
    RunCancelled is a BaseException.
    """

    async def body() -> None:
        while True:
            try:  # noqa: SIM105 - the form is the point
                await sleep(60)
            except Exception:
                pass

    world = begun(body)
    world.cancel()
    assert world.end.ended == "cancelled"


def test_cancelling_cancels_steps_children_and_rows():
    """
    A group's cancel cascades: steps, children, timers and signals of all members.
    """

    async def helper() -> None:
        await gather(one(), sleep(5))

    async def body() -> None:
        await gather(one(), child(1), helper(), race(wait_for("x"), sleep(1)), timeout(one(), 5), settle(one()))

    world = begun(body)
    decision = world.cancel()
    assert sorted(decision.cancelled_steps) == ["0.0", "0.2.0.0", "0.4.0", "0.5.0"]
    assert decision.cancelled_children == ["r~.0.1"]
    assert decision.cancel_all_children
    assert decision.ended is None  # not before they have ended
    closed = {wait.position for wait in decision.waits_closed}
    assert closed == {"0.2.0.1", "0.3.0", "0.3.1", "0.4"}
    for position in ("0.0", "0.2.0.0", "0.4.0", "0.5.0"):
        assert world.stop(position).ended is None
    assert world.end_child("0.1").ended == "cancelled"


def test_a_group_reports_once_the_clean_up_of_its_members_has_ended():
    """
    Clean-up of a helper ends before the code around its group goes on.
    """
    order = []

    async def helper() -> None:
        try:
            await sleep(60)
        finally:
            await one()
            order.append("member")

    async def body() -> None:
        try:
            await gather(helper(), sleep(60))
        finally:
            order.append("body")

    world = begun(body)
    world.cancel()
    assert order == []
    world.succeed("0.0.1", 0)
    assert order == ["member", "body"]
    assert world.end.ended == "cancelled"


def test_clean_up_has_limited_time():
    """
    When its time is over, running clean-up steps are cancelled and the run ends.
    """

    async def body() -> None:
        try:
            await sleep(60)
        finally:
            await one()

    world = begun(body, options={"cleanup_seconds": 5.0})
    world.cancel()
    world.now += 5
    decision = world.turn(CleanupTimedOut(world.now))
    assert kinds(decision.events) == ["CleanupTimedOut", "StepCancelled 1", "RunCancelled"]
    assert decision.cancelled_steps == ["1"]


def test_a_clean_up_timer_of_a_run_that_goes_on_means_nothing():
    """
    Only a cancelled run has one.
    """
    world = World(patient())
    world.begin()
    assert world.turn(CleanupTimedOut(START)).events == []


def test_a_run_cancelled_before_its_first_turn_runs_no_code():
    """
    Its function is never called, then or on replay.
    """
    called = []

    @workflow
    async def body() -> None:
        called.append(1)

    events = [started(body())]
    ex = execution(body(), events)
    decision = ex.advance([CancelRequested("no", START)], now=START)
    assert kinds(decision.events) == ["CancelRequested", "RunCancelled"]
    execution(body(), [*events, *decision.events])
    assert called == []


def test_cancelling_twice_changes_nothing():
    """
    The second request is not even recorded.
    """

    async def body() -> None:
        try:
            await sleep(60)
        finally:
            await one()

    world = begun(body)
    world.cancel("first")
    assert world.cancel("second").events == []
    world.succeed("1", 0)
    assert world.end.reason == "first"


def test_a_workflow_may_cancel_itself():
    """
    `raise RunCancelled(reason)` ends the run as cancelled.
    """

    async def body() -> None:
        raise Cancelled("changed my mind")

    world = begun(body)
    assert (world.end.ended, world.end.reason) == ("cancelled", "changed my mind")


def test_a_helper_that_raises_run_cancelled_itself_is_a_failure_of_its_group():
    """
    Nobody cancelled it, so its group does not count it as cancelled.
    """

    async def helper() -> None:
        await one()
        raise Cancelled("odd")

    async def body() -> None:
        await gather(helper(), one())

    world = run(workflow(body)())
    assert world.end.ended == "failed"


def test_the_time_of_the_whole_run():
    """
    `RunTimedOut` cancels as a request does, and the run fails with TimeoutError.
    """

    async def body() -> None:
        try:
            await sleep(60)
        finally:
            await one()

    world = begun(body)
    world.turn(RunTimedOut(30.0, START))
    world.succeed("1", 0)
    end = world.events[-1]
    assert isinstance(end, RunFailed)
    assert failure(end) == "TimeoutError: run not done within 30 s"


def test_a_workflow_that_expires_before_it_began_never_runs():
    """
    It fails, its replay says the same, and so does that of a copy that is opened again: then it begins.
    """
    ran = []

    async def body() -> None:
        ran.append(1)
        await one()

    op = workflow(body)()
    ex = execution(op, [started(op)])
    events = [started(op), *ex.advance([RunExpired(START - 5, START)], now=START).events]
    assert failure(events[-1]).startswith("RunExpiredError: run 'r' had not begun by ")
    assert execution(op, events).ended
    assert ran == []
    execution(op, [*events, history.reopened(events, START)]).advance([], now=START)
    assert ran == [1]


def test_a_workflow_that_has_begun_does_not_expire():
    """
    The arrival came too late: nothing of it is recorded.
    """

    async def body() -> None:
        await one()

    world = begun(body)
    decision = world.turn(RunExpired(START - 5, START))
    assert (decision.events, decision.ended) == ([], None)


def test_members_not_started_never_run():
    """
    Items of a for_each that were not begun are not begun by a cancel.
    """

    async def body() -> None:
        await for_each(child, [1, 2, 3])

    world = begun(body)
    decision = world.cancel()
    assert not decision.children
    assert list(world.children) == ["r~.0.0"]


def test_a_cancelled_run_replays_at_every_point():
    """
    Requests, clean-up and end are arrivals and commands as any other.
    """

    async def body() -> None:
        try:
            await gather(sleep(60), one(), return_exceptions=True)
        finally:
            await gather(one(1), sleep(1))

    op = workflow(body)()
    world = World(op)
    world.begin()
    world.cancel()
    while not world.ended:
        world.happen()
    for survived in closed_prefixes(world.events):
        assert again(op, world.events, survived) == world.events
