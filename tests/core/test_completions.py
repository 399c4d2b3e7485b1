"""
as_completed, wait_first and poll_until: what the code is told, in the recorded order, and what becomes of the rest.
"""

import pytest
from attrs import frozen

from durable._core.authoring.decorators import job, step, workflow
from durable._core.authoring.op_constructors import (
    as_completed,
    gather,
    poll_until,
    race,
    settle,
    sleep,
    timeout,
    wait_first,
    wait_for,
)
from durable._core.journal.events import SignalReceived
from durable._core.journal.history import reopened
from durable._core.policies.settled import GroupFailedError, Settled
from durable._core.program.ops import Flow, Return
from durable.errors import RunCancelled
from tests.core.drive import World, execution, kinds


@step
def book(n: int = 0) -> int:
    return n


@step
def undo(n: int = 0) -> int:
    return n


@job
def child(n: int = 0) -> int:
    return n


@step
def ready() -> str:
    return ""


@frozen
class Unsure:
    def __bool__(self) -> bool:
        raise ValueError("ask again")


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


FREED = pytest.mark.parametrize("freed", [False, True])

# --- as_completed ------------------------------------------------------------------------------------------


@FREED
def test_results_come_in_the_order_in_which_they_were_recorded(freed):
    """
    In coroutines and generators; the group has one position, and what follows each result the next.
    """

    async def body() -> Flow[list[int]]:
        seen = []
        async for n in as_completed(book(n) for n in range(3)):
            seen.append(n)
            yield undo(n)
        yield Return(seen)

    world = begun(body, freed=freed)
    assert kinds(world.events)[1:] == ["GroupOpened 0", "StepStarted 0.0", "StepStarted 0.1", "StepStarted 0.2"]
    world.succeed("0.2", 2)
    world.succeed("0.0", 0)
    world.succeed("1", 0)
    assert [action.position for action in world.steps] == ["0.1", "2"]
    world.succeed("2", 0)
    world.succeed("0.1", 1)
    world.succeed("3", 0)
    assert world.value() == [2, 0, 1]
    execution(world.op, world.events)


def test_of_none_there_is_nothing():
    """
    Of a mapping without members, either.
    """

    async def body() -> list[int]:
        return [n for each in (as_completed([]), as_completed({})) async for n in each]

    assert begun(body).value() == []


def test_members_of_a_mapping_come_with_their_keys():
    """
    Also if a later release gives them in another order.
    """
    order = ["eu", "us"]

    async def body() -> list[tuple[str, int]]:
        members = {name: book(len(name) + order.index(name)) for name in order}
        return [pair async for pair in as_completed(members)]

    world = begun(body)
    world.succeed("0.1", 7)
    order.reverse()
    world.freed = True
    world.succeed("0.0", 8)
    assert world.value() == [["us", 7], ["eu", 8]]


@FREED
def test_a_failure_is_raised_in_its_turn_and_the_loop_can_be_continued(freed):
    """
    `anext` gives what came behind it.
    """

    async def body() -> list[object]:
        seen: list[object] = []
        results = as_completed(book(0), book(1), book(2))
        while True:
            try:
                async for n in results:
                    seen.append(n)  # noqa: PERF401 - what came before an error is kept
            except ValueError as error:
                seen.append(str(error))
            else:
                return seen

    world = begun(body, freed=freed)
    world.succeed("0.1", 1)
    world.fail("0.0", ValueError("full"))
    world.succeed("0.2", 2)
    assert world.value() == [1, "full", 2]


def test_with_a_rule_it_says_how_each_ended_and_fails_at_the_end():
    """
    `Settled` for each, in turn; and what all came to behind the last one that ended.
    """
    seen: list[Settled[int]] = []

    async def body() -> int:
        try:
            async for each in as_completed(book(0), book(1), book(2), tolerate=0):
                seen.append(each)  # noqa: PERF401 - what came before an error is kept
        except GroupFailedError as error:
            return len(error.settled.succeeded)
        return -1

    world = begun(body)
    world.succeed("0.2", 2)
    world.fail("0.0", ValueError())
    world.stop("0.1")
    assert [each.status for each in seen] == ["succeeded", "failed"]
    assert world.value() == 1


def test_enough_ends_the_loop():
    """
    The rest is cancelled, and has ended before the code continues.
    """

    async def body() -> list[int]:
        return [each.get() async for each in as_completed([book(0), book(1), book(2)], enough=1, concurrency=2)]

    world = begun(body)
    assert kinds(world.succeed("0.1", 1).events) == ["StepSucceeded 0.1", "CancelSent 0.0"]
    world.stop("0.0")
    assert world.value() == [1]


@FREED
def test_code_that_leaves_the_loop_leaves_the_rest_running(freed):
    """
    Until the run ends: steps are withdrawn then, and children continue.
    """

    async def body() -> None:
        async for _ in as_completed(book(0), book(1), book(2), child(3)):
            break
        await undo()

    world = begun(body, freed=freed)
    world.succeed("0.1", 1)
    world.succeed("0.2", 2)
    assert [action.position for action in world.steps] == ["0.0", "1"]
    decision = world.succeed("1", 0)
    assert (decision.ended, decision.cancelled_steps, world.cancelled_children) == ("succeeded", ["0.0"], [])
    execution(world.op, world.events)


@FREED
@pytest.mark.parametrize("where", ["in the loop", "at the loop", "behind the loop"])
def test_what_was_left_open_has_ended_before_the_code_hears_of_the_cancellation(where, freed):
    """
    An undo cannot overtake what is beside the current command.
    """

    async def body() -> Flow[None]:
        try:
            async for _ in as_completed(book(0), book(1)):
                if where == "behind the loop":
                    break
                if where == "in the loop":
                    yield sleep(60)
            yield sleep(60)
        finally:
            yield undo()

    world = begun(body, freed=freed)
    world.succeed("0.0", 0)
    assert kinds(world.cancel().events)[:2] == ["CancelRequested", "CancelSent 0.1"]
    assert not world.steps
    assert [action.op.definition.name for action in world.stop("0.1").steps] == [undo.name]


@FREED
def test_all_that_came_all_the_same_is_told(freed):
    """
    Of several steps that were told to end, and have values, the code gets each.
    """

    async def body() -> Flow[None]:
        booked = []
        try:
            async for n in as_completed(book(n) for n in range(3)):
                booked.append(n)  # noqa: PERF401 - what came before a cancellation is kept
        finally:
            for n in booked:
                yield undo(n)

    world = begun(body, freed=freed)
    world.cancel()
    world.succeed("0.1", 1)
    world.stop("0.0")
    world.succeed("0.2", 2)
    (action,) = world.steps
    assert action.op.args == (1,)
    world.succeed(action.position, 1)
    assert [each.op.args for each in world.steps] == [(2,)]
    world.succeed(world.steps[0].position, 2)
    assert world.end.ended == "cancelled"


def test_a_loser_of_a_race_ends_what_it_left_open():
    """
    A helper that iterates, by its own cancellation.
    """

    async def helper() -> None:
        async for _ in as_completed(book(0), book(1)):
            await sleep(60)

    async def body() -> None:
        await race(helper(), wait_for("x"))
        await undo()

    world = begun(body)
    world.succeed("0.0.0.1", 1)
    world.signal("x")
    assert [action.position for action in world.stopping] == ["0.0.0.0"]
    assert [action.position for action in world.stop("0.0.0.0").steps] == ["1"]


def test_signals_of_members_are_read_when_the_code_gets_them():
    """
    Those that it never got were not, and go to who asks once the group was cancelled.
    """

    async def taking() -> None:
        async for _ in as_completed(wait_for("a"), wait_for("a")):
            await sleep(60)

    async def body() -> str:
        await race(taking(), sleep(5))
        return str(await wait_for("a"))

    world = begun(body)
    world.signal("a", 1)
    world.signal("a", 2)
    assert [event.value for event in world.ex.unread() if isinstance(event, SignalReceived)] == ["2"]
    world.fire("0.1")
    assert world.run_on() in {"2", "None"}


# --- wait_first --------------------------------------------------------------------------------------------


@FREED
def test_the_first_wins_and_the_others_go_on(freed):
    """
    Their outcomes are recorded, and told to nobody; a timer or signal that lost is given up.
    """

    async def body() -> list[object]:
        first = await wait_first({"a": book(0), "b": book(1), "c": wait_for("x"), "d": sleep(60)})
        return [first.index, first.value, first.key, await wait_for("x"), await undo()]

    world = begun(body, freed=freed)
    decision = world.succeed("0.1", 1)
    assert [wait.position for wait in decision.waits_closed] == ["0.2", "0.3"]
    world.succeed("0.0", 0)
    world.signal("x", "heard")
    world.succeed("2", 2)
    assert world.value() == [1, 1, "b", "heard", 2]
    execution(world.op, world.events)


def test_a_first_that_failed_raises_its_error():
    """
    As of a race.
    """

    async def body() -> str:
        try:
            await wait_first([book(0), book(1)])
        except ValueError as error:
            return str(error)
        return ""

    world = begun(body)
    world.fail("0.0", ValueError("full"))
    assert world.value() == "full"


@FREED
def test_before_there_is_a_first_its_timeout_cancels_all_of_them(freed):
    """
    And what follows begins once they have ended.
    """

    async def body() -> None:
        await settle(timeout(wait_first(book(0), child(1)), 5))
        await undo()

    world = begun(body, freed=freed)
    world.fire("0.0")
    assert world.cancelled_children == ["r~.0.0.0.1"]
    world.stop("0.0.0.0")
    assert not world.steps
    assert [action.position for action in world.end_child("0.0.0.1").steps] == ["1"]


def test_a_cancel_ends_what_a_wait_first_left_running():
    """
    Also what a helper left which has ended itself.
    """

    async def helper() -> int:
        return (await wait_first([book(0), book(1)])).value

    async def body() -> Flow[None]:
        yield gather(helper())
        try:
            yield sleep(60)
        except RunCancelled:
            yield undo()
            raise

    world = begun(body)
    world.succeed("0.0.0.0", 0)
    world.cancel()
    assert [action.position for action in world.stopping] == ["0.0.0.1"]
    assert [action.op.definition.name for action in world.stop("0.0.0.1").steps] == [undo.name]


# --- poll_until --------------------------------------------------------------------------------------------


@FREED
def test_a_step_is_polled_until_it_returns_something_true(freed):
    """
    With delays that grow, each a timer.
    """

    async def body() -> Flow[str]:
        found: str = yield poll_until(ready, every=10, factor=2)
        yield Return(found)

    world = begun(body, freed=freed)
    for index, seconds in ((1, 10), (3, 20)):
        decision = world.succeed(f"0.{index}", "")
        assert [wait.fire_at for wait in decision.waits] == [world.now + seconds]
        world.fire(f"0.{index + 1}")
    world.succeed("0.5", "yes")
    assert world.value() == "yes"
    execution(world.op, world.events)


@FREED
@pytest.mark.parametrize("last", ["", "yes"])
@pytest.mark.parametrize("where", ["in a call", "in a delay"])
def test_a_deadline_has_one_last_call(where, last, freed):
    """
    What became true just in time, or while nobody was there to see it, is no timeout.
    """

    async def body() -> str:
        try:
            return await poll_until(ready(), every=10, timeout=15)
        except TimeoutError as error:
            return str(error)

    world = begun(body, freed=freed)
    if where == "in a delay":
        world.succeed("0.1", "")
    decision = world.fire("0.0")
    assert bool(decision.waits_closed) is (where == "in a delay")
    world.succeed("0.3" if where == "in a delay" else "0.1", last)
    assert world.value() == (last or "step 'ready' returned nothing true within 15 s")
    execution(world.op, world.events)


@FREED
def test_a_poll_that_is_cancelled_ends_with_its_call(freed):
    """
    Or at once, in a delay.
    """

    async def body() -> None:
        await race(poll_until(ready(), every=10, timeout=60), wait_for("x"))
        await undo()

    world = begun(body, freed=freed)
    world.signal("x")
    assert [action.position for action in world.stop("0.0.1").steps] == ["1"]
    world = begun(body, freed=freed)
    world.succeed("0.0.1", "")
    assert [action.position for action in world.signal("x").steps] == ["1"]


def test_a_poll_that_fails_or_cannot_be_judged_raises():
    """
    The error of the call; or of the truth of what it returned.
    """

    @step
    def asked() -> Unsure:
        return Unsure()

    async def body() -> str:
        try:
            await poll_until(asked, every=10)
        except ValueError as error:
            return str(error)
        return ""

    world = begun(body)
    world.fail("0.1", ValueError("full"))
    assert world.value() == "full"
    world = begun(body)
    world.succeed("0.1", {})
    assert world.value() == "ask again"


def test_a_retry_polls_on_after_a_timeout():
    """
    With a deadline of its own.
    """

    async def body() -> str:
        return await poll_until(ready(), every=10, timeout=15)

    world = begun(body)
    world.succeed("0.1", "")
    world.fire("0.0")
    world.succeed("0.3", "")
    assert world.end.ended == "failed"
    again = [*world.events, reopened(world.events, world.now)]
    world = World(world.op, now=world.now)
    decision = world.begin(again)
    assert [(wait.position, wait.fire_at) for wait in decision.waits] == [
        ("0.0", world.now + 15),
        ("0.2", world.now + 10),
    ]
    world.fire("0.2")
    world.succeed("0.3", "yes")
    assert world.value() == "yes"


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made, error, told",
    [
        (lambda: as_completed(book), TypeError, "member 0 of as_completed must be an op"),
        (lambda: as_completed(book(), enough=2), ValueError, "as_completed of 1: enough must be 1 to 1"),
        (lambda: as_completed(book(), concurrency=0), ValueError, "as_completed: concurrency must be"),
        (lambda: wait_first([]), ValueError, "wait_first needs at least one member"),
        (lambda: wait_first(7), TypeError, "member 0 of wait_first must be an op"),
        (lambda: poll_until(7, every=1), TypeError, "poll_until takes a call of a step"),
        (lambda: poll_until(sleep(1), every=1), TypeError, "poll_until takes a call of a step"),
        (lambda: poll_until(ready, every=0), ValueError, "every=. must be a positive"),
        (lambda: poll_until(ready, every=1, factor=0.5), ValueError, "factor=. must be a number of at least 1"),
        (lambda: poll_until(ready, every=1, timeout=float("nan")), ValueError, "finite number"),
        (lambda: poll_until(book.fn, every=1), TypeError, "the function 'book' itself"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_made(made, error, told):
    """
    With what was found, and what is expected.
    """
    with pytest.raises(error, match=told):
        made()


def test_an_as_completed_that_is_yielded_says_what_to_do():
    """
    It is no op, since it has many outcomes.
    """

    async def body() -> Flow[str]:
        try:
            yield as_completed(book())  # type: ignore[misc]
        except TypeError as error:
            yield Return(str(error))

    with pytest.warns(RuntimeWarning, match="as_completed of 1 was created"):
        assert "write async for result in as_completed(...)" in begun(body).value()
