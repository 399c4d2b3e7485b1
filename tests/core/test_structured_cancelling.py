"""
What follows a cancelled step or child starts after that has ended, and what it had done all the same is known.
"""

import contextlib
from random import Random

import pytest

from durable._core.authoring.decorators import job, step, workflow
from durable._core.authoring.op_constructors import gather, race, settle, sleep, timeout, wait_for
from durable._core.journal.events import (
    CancelSent,
    CleanupTimedOut,
    GroupOpened,
    RunCancelled,
    StepCancelled,
    StepStarted,
    StepStopped,
    TimerFired,
    TimerSet,
)
from durable._core.journal.history import reopened
from durable._core.program.ops import Flow
from durable.errors import RunCancelled as Cancelled
from tests.core.drive import START, World, again, closed_prefixes, execution, failure_of, kinds, started


@step
def book(n: int = 0) -> int:
    return n


@step
def undo(n: int = 0) -> int:
    return n


@job
def child(n: int = 0) -> int:
    return n


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


# --- groups ------------------------------------------------------------------------------------------


def by_timeout(op, world=None):
    return settle(timeout(op, 5)) if world is None else world.fire("0.0")


def by_race(op, world=None):
    return race(wait_for("x"), op) if world is None else world.signal("x")


def by_fail_fast(op, world=None):
    return settle(gather(undo(), op, fail_fast=True)) if world is None else world.fail("0.0.0", ValueError())


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("of", [book, child])
@pytest.mark.parametrize("by, where", [(by_timeout, "0.0.0"), (by_race, "0.1"), (by_fail_fast, "0.0.1")])
def test_what_follows_a_group_begins_once_its_losers_have_ended(by, where, of, freed):
    """
    Running steps and awaited children alike; and so over a replay in between.
    """

    async def body() -> None:
        await by(of())
        await undo()

    world = begun(body, freed=freed)
    decision = by(None, world)
    assert CancelSent(where, world.now) in decision.events
    assert "1" not in [action.position for action in world.steps]
    decision = world.stop(where) if of is book else world.end_child(where)
    assert [action.position for action in decision.steps] == ["1"]


@pytest.mark.parametrize("freed", [False, True])
def test_a_settled_race_keeps_its_winner_although_the_run_is_cancelled(freed):
    """
    The winner came before the cancel: it is delivered first, and the cancellation at the next command.
    """
    seen: list[object] = []

    async def body() -> None:
        seen.append((await race(book(1), book(2))).value)
        await undo()

    world = begun(body, freed=freed)
    world.succeed("0.0", 1)
    world.cancel()
    seen.clear()
    assert world.stop("0.1").ended == "cancelled"
    assert seen == [1]
    assert "StepStarted 1" not in kinds(world.events)


# --- the run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("freed", [False, True])
def test_the_clean_up_of_a_run_begins_once_its_step_has_ended(freed):
    """
    `RunCancelled` is raised then, and not before: an undo cannot overtake what it undoes.
    """

    async def body() -> Flow[None]:
        try:
            yield book()
        finally:
            yield undo()

    world = begun(body, freed=freed)
    assert kinds(world.cancel("enough").events) == ["CancelRequested", "CancelSent 0"]
    assert [action.position for action in world.stop("0").steps] == ["1"]
    world.succeed("1", 0)
    assert (world.end.ended, world.end.reason) == ("cancelled", "enough")


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_an_outcome_that_came_all_the_same_is_delivered_first(fails, freed):
    """
    A value or an error of the step that was told to end; the next command raises `RunCancelled`.
    """
    seen: list[object] = []

    async def body() -> Flow[None]:
        try:
            try:
                seen.append((yield book()))
            except ValueError as error:
                seen.append(str(error))
            yield book()
        except Cancelled:
            seen.append("cancelled")
            yield undo()
            raise

    world = begun(body, freed=freed)
    world.cancel()
    seen.clear()
    decision = world.fail("0", ValueError("full")) if fails else world.succeed("0", 7)
    assert seen == ["full" if fails else 7, "cancelled"]
    assert [action.op.definition.name for action in decision.steps] == [undo.name]
    world.succeed("1", 0)
    assert world.end.ended == "cancelled"


async def in_finally() -> Flow[None]:
    try:
        yield book()
    finally:
        yield undo(1)
        yield undo(2)
    yield book()


async def in_finally_by_helpers() -> None:
    async def undo_all() -> None:
        for n in (1, 2):
            await undo(n)

    try:
        await book()
    finally:
        await undo_all()
    await book()


async def behind_the_booking() -> Flow[None]:
    booked = yield book()
    try:
        yield book()
    finally:
        if booked is not None:
            yield undo(1)
            yield undo(2)


async def if_it_is_known() -> Flow[None]:
    booked = None
    try:
        booked = yield book()
        yield book()
    finally:
        if booked is not None:
            for n in (1, 2):
                yield undo(n)
    yield book()


async def in_an_except() -> Flow[None]:
    try:
        yield book()
        raise ValueError
    except ValueError:
        yield undo(1)
        yield undo(2)
    yield book()


async def at_the_end_of_a_with() -> Flow[None]:
    @contextlib.asynccontextmanager
    async def booking():
        await book()
        yield
        await undo(1)
        await undo(2)

    async with booking():
        pass
    yield book()


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        in_finally,
        in_finally_by_helpers,
        behind_the_booking,
        if_it_is_known,
        in_an_except,
        at_the_end_of_a_with,
    ],
)
def test_what_was_done_all_the_same_is_undone_whichever_way_the_code_does_so(body, freed):
    """
    A `finally`, `except` or end of an `async with` that the value leads to runs, and what is behind it does not.
    """
    world = begun(body, freed=freed)
    world.cancel()
    decision = world.succeed("0", 7)
    for n in (1, 2):
        (action,) = decision.steps
        assert (action.op.definition.name, action.op.args) == (undo.name, (n,))
        decision = world.succeed(action.position, n)
    assert decision.ended == "cancelled"
    assert [event.name for event in world.events if isinstance(event, StepStarted)] == [book.name, undo.name, undo.name]
    execution(world.op, world.events)


def test_an_attempt_that_fails_is_the_last_one_of_a_cancelled_step():
    """
    Its policy would try again; nobody waits for that.
    """
    seen = []

    @step(retry=3)
    def flaky() -> None: ...

    async def body() -> None:
        try:
            await flaky()
        except ValueError:
            seen.append("failed")

    world = begun(body)
    world.cancel()
    decision = world.retry("0", ValueError())
    assert kinds(decision.events) == ["StepFailed 0", "RunCancelled"]
    assert seen == ["failed"]


@pytest.mark.parametrize("freed", [False, True])
def test_a_gather_that_is_cancelled_gives_its_results_if_all_came_all_the_same(freed):
    """
    Else `RunCancelled`: a list with gaps is none.
    """
    seen: list[object] = []

    async def body() -> None:
        seen.append(await gather(book(1), book(2)))

    for second in (2, None):
        world = begun(body, freed=freed)
        world.cancel()
        world.succeed("0.0", 1)
        seen.clear()
        assert (world.stop("0.1") if second is None else world.succeed("0.1", 2)).ended == "cancelled"
        assert seen == ([] if second is None else [[1, 2]])


def test_a_child_that_succeeded_all_the_same_is_known():
    """
    As a step is.
    """
    seen = []

    async def body() -> Flow[None]:
        seen.append((yield child(7)))
        yield undo()

    world = begun(body)
    world.cancel()
    world.ending.clear()  # it had ended before it was asked to
    world.end_child("0")
    assert seen == [7]
    assert world.end.ended == "cancelled"


def test_what_has_not_begun_is_withdrawn_at_once():
    """
    In line, or waiting for its next attempt.
    """

    async def body() -> None:
        await book()

    world = begun(body)
    world.retry("0", ValueError())
    assert kinds(world.cancel().events) == ["CancelRequested", "RunCancelled"]


# --- bounds, crashes, older releases -----------------------------------------------------------------


def test_what_does_not_end_in_time_is_abandoned_and_the_code_has_its_own_time_then():
    """
    The run continues without it, its clean-up has the whole time, and the end says so.
    """

    async def body() -> Flow[None]:
        try:
            yield gather(book(), child())
        finally:
            yield undo()

    world = begun(body, options={"cleanup_seconds": 5.0})
    world.cancel()
    world.now += 5
    decision = world.turn(CleanupTimedOut(world.now))
    assert kinds(decision.events) == ["StepStopped 0.0", "ChildCancelled 0.1", "StepStarted 1"]
    assert [(each.step, each.abandoned) for each in decision.troubled] == [(book.name, True)]
    assert [(wait.kind, wait.fire_at) for wait in decision.waits] == [("cleanup", world.now + 5)]
    world.now += 4
    assert world.turn(CleanupTimedOut(world.now)).ended is None  # an early timer asks for one that is due later
    world.succeed("1", 0)
    assert world.end.ended == "cancelled"
    assert "book' at 0.0 was abandoned" in world.end.reason
    execution(world.op, world.events)


@pytest.mark.parametrize("crashed", [False, True])
def test_a_step_that_was_told_to_end_has_ended_with_its_process(crashed):
    """
    After a recovery the cancel is complete: no new attempt begins.
    """

    async def body() -> None:
        await book()

    world = begun(body)
    world.cancel()
    taken = execution(world.op, world.events)
    assert taken.in_flight() == [("0", 1)]
    world.steps, world.stopping = world.stopping, []
    decision = world.interrupt("0", crashed=crashed)
    assert kinds(decision.events) == ["StepStopped 0", "RunCancelled"]


def test_a_failure_of_clean_up_is_the_error_of_the_cancelled_run():
    """
    That of a step that was told to end, or that of the code; what the code raised is told first.
    """

    async def body(breaks: bool) -> Flow[None]:
        try:
            yield book()
        finally:
            if breaks:
                raise KeyError("typo")

    for breaks, said in [(False, "OSError: gone"), (True, "KeyError: 'typo'")]:
        world = World(workflow(body)(breaks))
        world.begin()
        world.cancel("enough")
        decision = world.stop("0", OSError("gone"))
        assert decision.ended == "cancelled"
        assert decision.reason == f"enough; its clean-up failed: {said}"
        end = decision.events[-1]
        assert isinstance(end, RunCancelled)
        assert (end.reason, failure_of(end.value)) == ("enough", said)


def test_a_run_of_an_older_release_replays_as_it_was():
    """
    Without `CancelSent` a cancelled step closed at once: what followed stands, and so does what came too late.
    """

    async def body() -> None:
        await settle(timeout(book(), 5))
        await undo()

    op = workflow(body)()
    events = [
        started(op),
        GroupOpened("0", "settle", 1, "", None, START),
        TimerSet("0.0", "timeout", START + 5, "", at=START),
        StepStarted("0.0.0", book.name, 1, "", "", START),
        TimerFired("0.0", START + 5),
        StepCancelled("0.0.0", START + 5),
        StepStarted("1", undo.name, 1, "", "", START + 5),
    ]
    ex = execution(op, events)
    assert ex.in_flight() == [("1", 1)]
    assert ex.advance([StepStopped("0.0.0", 1, abandoned=False)], now=START + 6).events == []


def test_a_retry_asks_again_for_what_a_failure_cancelled():
    """
    Nothing of the cancelled step is left in the retried run, its late failure neither.
    """

    async def body() -> None:
        await gather(book(1), book(2), child(), fail_fast=True)

    world = begun(body)
    world.fail("0.0", ValueError())
    world.retry("0.1", ValueError())
    world.end_child("0.2")
    assert world.end.ended == "failed"
    retried = World(world.op, now=9_000.0)
    retried.begin([*world.events, reopened(world.events, 9_000.0)])
    assert [action.position for action in retried.steps] == ["0.0", "0.1"]
    assert list(retried.children) == ["r~.0.2-2"]


# --- any program, cancelled at any moment ------------------------------------------------------------


@workflow
async def trip() -> Flow[None]:
    """A saga over steps, a child, helpers and groups."""
    booked: list[int] = []

    async def leg(n: int) -> None:
        booked.append(await book(n))
        await race(sleep(2), book(n))

    try:
        booked.append((yield book(1)))
        yield settle(timeout(book(2), 3))
        yield settle(gather(leg(3), leg(4), child(5), fail_fast=True))
        booked.append((yield race(book(6), child(7), sleep(1))).index)
        yield book(8)
    finally:
        for n in booked:
            yield undo(n)


@pytest.mark.parametrize("seed", range(60))
def test_a_saga_that_is_cancelled_at_any_moment_replays_from_every_point(seed):
    """
    Whatever happens in whatever order, a crash before any arrival leads to the same journal.
    """
    random = Random(seed)
    op = trip()
    world = World(op, choose=random.randrange, freed=bool(seed % 2))
    world.begin()
    moment = random.randrange(14)
    for happened in range(1_000):
        if world.ended:
            break
        if happened == moment:
            world.cancel("enough")
        else:
            assert world.happen(), (world.waits, kinds(world.events))
    assert world.ended
    for survived in closed_prefixes(world.events):
        assert again(op, world.events, survived) == world.events
    open_steps: set[str] = set()
    for event in world.events:  # no undo begins beside a booking
        if isinstance(event, StepStarted):
            assert event.name != undo.name or not open_steps, kinds(world.events)
            open_steps.add(event.position)
        elif event.position in open_steps and event.outcome in ("succeeded", "failed", "cancelled"):
            open_steps.remove(event.position)
