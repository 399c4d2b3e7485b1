"""
Attempts: retries, crashes, poison, resuming; and when a wait wakes its run.
"""

import pytest

from durable._core.authoring.decorators import job, step, transaction, workflow
from durable._core.authoring.flow import now, random
from durable._core.authoring.op_constructors import for_each, gather, race, settle, sleep, timeout, wait_for
from durable._core.journal.events import (
    ResumeRequested,
    RunFailed,
    RunRestarted,
    StepInterrupted,
    StepStarted,
    TimerFired,
)
from durable._core.policies.retry import Retry
from durable.errors import Fatal, StepInterruptedError
from tests.core.drive import START, World, again, closed_prefixes, execution, failure, kinds, run

tries = []


@step(retry=Retry(3, delay=2.0, jitter=0))
def flaky(n: int = 0) -> int:
    tries.append(n)
    if len(tries) < 3:
        raise ValueError(len(tries))
    return len(tries)


@step(on_poison="block")
def one(n: int = 0) -> int:
    return n


@step(on_crash="raise")
def once() -> int:
    return 1


@step(on_crash="block")
def careful() -> int:
    return 1


@transaction(retry=Retry(3, delay=1.0, jitter=0))
def insert(tx) -> int:
    raise ValueError


@job
def child(n: int) -> int:
    return n


@job
def broken(n: int) -> int:
    raise KeyError(n)


@pytest.fixture(autouse=True)
def _no_tries():
    tries.clear()


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


@pytest.mark.parametrize("freed", [False, True])
def test_a_retry_is_a_timer_between_two_attempts(freed):
    """
    StepRetrying, TimerFired, StepStarted: recorded, so that a restart waits no longer than needed.
    """

    async def body() -> list[object]:
        value = await flaky()
        return [value, now().timestamp()]

    world = run(workflow(body)(), freed=freed)
    assert kinds(world.events) == [
        "RunStarted",
        "StepStarted 0",
        "StepRetrying 0",
        "TimerFired 0",
        "StepStarted 0",
        "StepRetrying 0",
        "TimerFired 0",
        "StepStarted 0",
        "StepSucceeded 0",
        "NowRead",
        "RunSucceeded",
    ]
    assert [event.attempt for event in world.events if isinstance(event, StepStarted)] == [1, 2, 3]
    assert world.value() == [3, world.now]
    for survived in closed_prefixes(world.events):
        assert again(world.op, world.events, survived) == world.events


def test_a_run_is_idle_while_a_step_waits_for_its_retry():
    """
    Nothing but its timer can move it, so it can be freed.
    """

    async def body() -> None:
        await flaky()

    world = begun(body)
    assert not world.ex.idle
    world.happen()
    assert world.ex.idle
    assert world.ex.in_flight() == []


def test_transactions_count_their_attempts_on_replay():
    """
    Later attempts of a transaction are not events of their own; the count is the same after a recovery.
    """

    async def body() -> None:
        await insert()

    world = begun(body)
    world.happen()
    world.happen()
    assert world.ex.in_flight() == [("0", 2)]
    ex = execution(world.op, world.events)
    assert ex.in_flight() == [("0", 2)]
    ex.close()
    world.ex.close()


def test_an_interrupted_step_runs_again():
    """
    In flight at the crash: recorded as interrupted, then the next attempt.
    """

    async def body() -> int:
        return await one(3)

    first = begun(body)
    assert first.ex.in_flight() == [("0", 1)]
    first.ex.close()
    world = World(workflow(body)())
    world.ex = execution(world.op, first.events)
    world.events = list(first.events)
    decision = world.turn(StepInterrupted("0", 1, True, START))
    assert kinds(decision.events) == ["StepInterrupted 0", "StepStarted 0"]
    assert [(action.attempt, action.failures) for action in decision.steps] == [(2, 1)]
    world.succeed("0", 3)
    assert world.value() == 3


def test_a_stale_interruption_is_ignored():
    """
    Of an attempt that is over already.
    """

    async def body() -> None:
        await one()

    world = begun(body)
    world.interrupt("0")
    assert world.turn(StepInterrupted("0", 1, True, START)).events == []
    world.ex.close()


def test_on_crash_raise_fails_the_step_in_the_workflow():
    """
    The interruption is recorded as a failure that the workflow can catch.
    """

    async def body() -> str:
        try:
            await once()
        except StepInterruptedError as error:
            return error.name
        return "?"

    world = begun(body, freed=True)
    world.interrupt("0")
    assert kinds(world.events)[2] == "StepFailed 0"
    assert world.value() == "once"


def test_a_shutdown_is_no_crash():
    """
    An attempt that a shutdown cut off runs again, and does not count as poison.
    """

    async def body() -> int:
        return await gather(one(), one())

    world = begun(body)
    for _ in range(5):
        assert world.interrupt("0.0", crashed=False).blocked is None
        assert world.interrupt("0.1", crashed=False).blocked is None
    world.ex.close()


@pytest.mark.parametrize("freed", [False, True])
def test_on_crash_block_waits_for_a_person(freed):
    """
    The run blocks; once resumed, the step runs again.
    """

    async def body() -> int:
        return await careful()

    world = begun(body, freed=freed)
    decision = world.interrupt("0")
    assert "its outcome is unknown" in decision.blocked
    assert world.ex.idle
    decision = world.turn(ResumeRequested(START))
    assert [action.attempt for action in decision.steps] == [2]
    world.succeed("0", 1)
    assert world.value() == 1


@pytest.mark.parametrize("freed", [False, True])
def test_poison_blocks_after_three_crashes(freed):
    """
    A step that was running at three deaths in a row is not run a fourth time; a person may let it.
    """

    async def body() -> int:
        return await one()

    world = begun(body, freed=freed)
    assert world.interrupt("0").blocked is None
    assert world.interrupt("0").blocked is None
    assert world.interrupt("0").blocked == "step 'one' at 0 was running when the process died 3 times"
    world.turn(ResumeRequested(START))
    world.succeed("0", 9)
    assert world.value() == 9


def test_a_failed_attempt_ends_the_count_of_crashes():
    """
    Poison is crashes in a row: an attempt that ended by itself shows that the step can.
    """

    async def body() -> None:
        await flaky().options(retry=Retry(9, jitter=0))

    world = begun(body)
    world.interrupt("0")
    world.interrupt("0")
    world.happen()
    world.happen()
    assert world.interrupt("0").blocked is None
    world.ex.close()


def test_a_late_outcome_of_a_closed_command_is_dropped():
    """
    After its race was lost, or twice.
    """

    async def body() -> None:
        await race(one(), wait_for("x"))
        await wait_for("y")

    world = begun(body)
    action = world.steps[0]
    world.signal("x")
    world.stop("0.0")
    world.steps.append(action)
    assert world.succeed("0.0", 1).events == []
    world.ex.close()


def test_now_is_the_same_after_retries_and_recovery():
    """
    Later attempts are not counted as arrivals, so `now()` finds its recorded answer.
    """

    async def body() -> list[float]:
        await flaky()
        first = now().timestamp()
        await sleep(5)
        return [first, now().timestamp()]

    world = run(workflow(body)())
    tries.clear()
    assert run(workflow(body)(), freed=True).value() == world.value()


# --- the whole run again ------------------------------------------------------------------------


@pytest.mark.parametrize("freed", [False, True])
def test_restarts_replay_from_their_beginning(freed):
    """
    Signals that come before the next attempt begins are there when it does, in live code and replay alike.
    """

    @workflow(retry=Retry(3, delay=7.0, jitter=0))
    async def body() -> list[object]:
        if await wait_for("fail"):
            raise ValueError("no")
        winner = await race(wait_for("b"), wait_for("a"))
        at = now().timestamp()
        await sleep(3)
        return [winner.index, at, now().timestamp() - at, random().random() < 1]

    world = World(body(), freed=freed)
    world.begin()
    decision = world.signal("fail", True)
    assert isinstance(decision.events[-1], RunRestarted)
    assert (decision.events[-1].attempt, decision.events[-1].fire_at) == (2, START + 7)
    assert [(wait.kind, wait.fire_at) for wait in decision.waits] == [("restart", START + 7)]
    assert decision.reason == "attempt 1 failed: ValueError: no"
    assert decision.ended is None
    world.signal("a")
    world.signal("b")
    world.signal("fail", False)
    world.fire("")
    world.fire("2")
    assert world.value() == [0, START + 7, 3.0, True]


def test_the_last_attempt_of_a_run_fails_it():
    """
    Attempts are counted over the restarts; a `Fatal` error ends at once.
    """

    @workflow(retry=Retry(2, delay=7.0, jitter=0))
    async def body() -> None:
        await child(1)
        await broken(1)

    world = run(body())
    assert [type(event) for event in world.events if isinstance(event, (RunRestarted, RunFailed))] == [
        RunRestarted,
        RunFailed,
    ]
    assert list(world.children) == ["r~.0", "r~.1", "r~.0-2", "r~.1-2"]
    assert sum(isinstance(event, TimerFired) and event.position == "" for event in world.events) == 1

    @workflow(retry=5)
    async def fatal() -> None:
        raise Fatal("no")

    world = run(fatal())
    assert failure(world.events[-1]) == "Fatal: no"


def test_a_restarting_run_can_be_cancelled():
    """
    Before its next attempt begins, no code runs.
    """

    @workflow(retry=2)
    async def body() -> None:
        raise ValueError

    world = World(body())
    world.begin()
    world.cancel("enough")
    assert world.end.ended == "cancelled"


# --- rows that wake -----------------------------------------------------------------------------


def waits(make) -> dict[str, tuple[str, str]]:
    async def body() -> None:
        await make()

    world = begun(body)
    found = {wait.position: (wait.group, wait.wake_on) for wait in world.waits}
    world.ex.close()
    return found


async def helper() -> None:
    await sleep(1)


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: sleep(1), {"0": ("0", "any")}),
        (lambda: gather(child(1), sleep(1)), {"0.0": ("0", "all"), "0.1": ("0", "all")}),
        (lambda: gather(gather(child(1)), sleep(1)), {"0.0.0": ("0", "all"), "0.1": ("0", "all")}),
        (lambda: gather(child(1), sleep(1), fail_fast=True), {"0.0": ("0", "fail_fast"), "0.1": ("0", "fail_fast")}),
        (lambda: gather(gather(child(1), fail_fast=True)), {"0.0.0": ("0", "fail_fast")}),
        (lambda: gather(gather(child(1)), fail_fast=True), {"0.0.0": ("0.0", "all")}),
        (lambda: gather(settle(child(1)), fail_fast=True), {"0.0.0": ("0", "all")}),
        (lambda: gather(gather(child(1), return_exceptions=True), fail_fast=True), {"0.0.0": ("0", "all")}),
        (lambda: gather(for_each(child, [1, 2, 3], concurrency=1), fail_fast=True), {"0.0.0": ("0.0", "failure")}),
        (lambda: race(child(1), sleep(1)), {"0.0": ("0.0", "any"), "0.1": ("0.1", "any")}),
        (lambda: gather(race(child(1)), sleep(1)), {"0.0.0": ("0.0.0", "any"), "0.1": ("0", "all")}),
        (lambda: race(gather(child(1)), sleep(1)), {"0.0.0": ("0.0", "all"), "0.1": ("0.1", "any")}),
        (lambda: timeout(gather(child(1)), 5), {"0": ("0", "any"), "0.0.0": ("0.0", "all")}),
        (lambda: gather(helper(), sleep(1)), {"0.0.0": ("0.0.0", "any"), "0.1": ("0", "all")}),
        (lambda: gather(settle(child(1)), sleep(1)), {"0.0.0": ("0", "all"), "0.1": ("0", "all")}),
        (lambda: for_each(child, [1, 2], concurrency=None), {"0.0": ("0", "all"), "0.1": ("0", "all")}),
        (lambda: for_each(child, [1, 2], concurrency=2), {"0.0": ("0", "all"), "0.1": ("0", "all")}),
        (lambda: gather(child(1), child(2), concurrency=1), {"0.0": ("0.0", "any")}),
        (lambda: gather(child(1), child(2), enough=1), {"0.0": ("0.0", "any"), "0.1": ("0.1", "any")}),
        (lambda: gather(child(1), child(2), tolerate=1), {"0.0": ("0", "failure"), "0.1": ("0", "failure")}),
        (lambda: gather(gather(child(1)), tolerate=1), {"0.0.0": ("0.0", "all")}),
        (lambda: gather(gather(child(1), tolerate=1)), {"0.0.0": ("0", "failure")}),
        (lambda: gather(settle(child(1)), tolerate=1), {"0.0.0": ("0", "all")}),
    ],
)
def test_a_wait_wakes_its_run_when_its_group_needs_it(make, expected):
    """
    Members of plain gathers wake when the outermost has no row left; others at once, or at a failure.
    """
    assert waits(make) == expected


def test_a_retry_in_a_group_wakes_its_run_when_it_is_due():
    """
    The next attempt begins at its time, even while the other members take long.
    """

    async def body() -> None:
        await gather(flaky(), sleep(1000))

    world = begun(body)
    world.happen()
    assert [(wait.kind, wait.group, wait.wake_on) for wait in world.waits] == [
        ("timer", "0", "all"),
        ("retry", "0.0", "any"),
    ]
    world.ex.close()
