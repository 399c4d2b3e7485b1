"""
What ran after the failure that ended a run: what a retry keeps, and what it would forget.
"""

from typing import Any

import pytest

from durable._core.authoring.decorators import step, transaction, workflow
from durable._core.authoring.flow import now, patched
from durable._core.authoring.op_constructors import gather, race, sleep, timeout, wait_for
from durable._core.journal import history
from durable._core.journal.columns import from_row, to_row
from durable._core.journal.events import RunRetried
from durable._core.program.transactions import Transaction
from durable.errors import DecodeError, RunCancelled
from tests.core.drive import World, again


@step
async def act(name: str) -> Any:
    return name


@transaction
def book(tx: Transaction, name: str) -> Any:
    return name


def begun(body) -> World:
    """
    A run of *body*, its first turn taken.
    """
    world = World(workflow(name="wf")(body)())
    world.begin()
    return world


def ran_since(world: World) -> list[str]:
    """
    Positions of what the failure of *world* led to.
    """
    assert world.end.ended == "failed"
    return [event.position for event in history.ran_since(world.events)]


def retried(body, world: World) -> World:
    """
    The run of *world*, retried, in its first turn.
    """
    following = World(workflow(name="wf")(body)(), children=world.children, now=9_000.0)
    following.begin([*world.events, history.reopened(world.events, 9_000.0)])
    return following


def test_a_failure_that_led_to_nothing_leaves_nothing_to_forget():
    """
    A run that ends at its failure; and one whose own code raises.
    """

    async def plain() -> None:
        await act("a")
        await act("b")

    world = begun(plain)
    world.succeed("0", "a")
    world.fail("1", ValueError("b"))
    assert ran_since(world) == []

    async def raises() -> None:
        await act("a")
        raise ValueError

    world = begun(raises)
    world.succeed("0", "a")
    assert ran_since(world) == []


@pytest.mark.parametrize("undo", [act, book])
def test_a_compensation_ran_because_of_the_failure(undo):
    """
    A step or a transaction in `except`; a timer or a group alone does nothing.
    """

    async def body() -> None:
        await act("pay")
        try:
            await act("ship")
        except ValueError:
            await sleep(1)
            await gather(undo("refund"), act("tell"))
            raise

    world = begun(body)
    world.succeed("0", "pay")
    world.fail("1", ValueError("ship"))
    world.fire("2")
    world.succeed("3.0")
    world.succeed("3.1")
    assert ran_since(world) == ["3.0", "3.1"]
    assert [action.position for action in retried(body, world).steps] == ["1"]


def test_a_run_out_of_time_that_cleaned_up():
    """
    All that ran when its time was over is its clean-up.
    """

    async def body() -> None:
        try:
            await act("work")
        finally:
            await act("release")

    world = begun(body)
    world.turn(history.RunTimedOut(5.0, world.now))
    world.stop("0")
    world.succeed("1")
    assert ran_since(world) == ["1"]


async def both(first: str, second: str) -> list[str]:
    return [await act(first), await act(second)]


def test_a_member_that_went_on_by_itself_keeps_what_it_did():
    """
    Another member of the gather failed first: none of its steps is repeated, and nothing stands in the way of a retry.
    """

    async def body() -> object:
        return await gather(act("bad"), both("a", "b"), both("c", "d"))

    world = begun(body)
    world.fail("0.0", ValueError("bad"))
    world.succeed("0.1.0", "a")
    world.succeed("0.1.1", "b")
    world.succeed("0.2.0", "c")
    world.succeed("0.2.1", "d")
    assert ran_since(world) == []
    following = retried(body, world)
    assert [action.position for action in following.steps] == ["0.0"]
    following.succeed("0.0", "good")
    assert following.value() == ["good", ["a", "b"], ["c", "d"]]
    for survived, event in enumerate(following.events):
        if event.category == "arrival" and survived > len(world.events):
            assert again(following.op, following.events, survived) == following.events


def beside_a_failure(group) -> Any:
    """
    A workflow's body whose *group* is opened by a member that went on when its neighbour had failed.
    """

    async def member() -> object:
        await act("a")
        return await group()

    async def body() -> object:
        return await gather(act("bad"), member())

    return body


def failed_first(body) -> World:
    """
    A run of *body*, whose other member has just opened its group.
    """
    world = begun(body)
    world.fail("0.0", ValueError("bad"))
    world.succeed("0.1.0", "a")
    return world


def test_a_group_that_a_member_opened_since_tolerates_what_it_did():
    """
    Its rule stays, so that it has not failed now.
    """

    async def tolerant() -> list[str]:
        return [outcome.status for outcome in await gather(act("x"), act("y"), tolerate=1)]

    body = beside_a_failure(tolerant)
    world = failed_first(body)
    world.fail("0.1.1.0", ValueError("x"))
    world.succeed("0.1.1.1", "y")
    following = retried(body, world)
    assert [action.position for action in following.steps] == ["0.0"]
    following.succeed("0.0", "good")
    assert following.value() == ["good", ["failed", "succeeded"]]


def test_a_group_that_a_member_opened_since_keeps_its_concurrency():
    """
    Nothing that waits for its turn begins with the retry.
    """
    body = beside_a_failure(lambda: gather(act("x"), act("y"), concurrency=1, fail_fast=True))
    world = failed_first(body)
    world.fail("0.1.1.0", ValueError("x"))
    following = retried(body, world)
    assert [action.position for action in following.steps] == ["0.0", "0.1.1.0"]


def test_a_group_that_a_member_opened_since_keeps_its_names():
    """
    What each has come to is found by its name, whatever order they have in the mended code.
    """
    names = ["x", "y"]
    body = beside_a_failure(lambda: gather({name: act(name) for name in names}))
    world = failed_first(body)
    world.succeed("0.1.1.0", "x")
    world.succeed("0.1.1.1", "y")
    names.reverse()
    following = retried(body, world)
    following.succeed("0.0", "good")
    assert following.value() == ["good", {"x": "x", "y": "y"}]


def test_a_member_that_failed_later_continues_at_its_own_failure():
    """
    What it had done since the first failure stays; its own clean-up would be forgotten.
    """

    async def careful() -> str:
        await act("a")
        try:
            return await act("b")
        except ValueError:
            await act("undo")
            raise

    async def body() -> object:
        return await gather(act("bad"), careful())

    world = begun(body)
    world.fail("0.0", ValueError("bad"))
    world.succeed("0.1.0", "a")
    world.fail("0.1.1", ValueError("b"))
    world.succeed("0.1.2")
    assert ran_since(world) == ["0.1.2"]
    following = retried(body, world)
    assert [action.position for action in following.steps] == ["0.0", "0.1.1"]


async def cleans_up(op: Any) -> None:
    try:
        await op
    except RunCancelled:
        await act("clean")
        raise


@pytest.mark.parametrize("how", ["fail_fast", "race"])
@pytest.mark.parametrize("waits_for", ["step", "timer", "signal"])
def test_the_clean_up_of_a_member_that_was_told_to_end(how, waits_for):
    """
    Whatever it waited for when the failure settled its group, it did not go on by itself.
    """
    op = {"step": lambda: act("slow"), "timer": lambda: sleep(9), "signal": lambda: wait_for("go")}[waits_for]

    async def body() -> object:
        if how == "race":
            return await race(act("bad"), cleans_up(op()))
        return await gather(act("bad"), cleans_up(op()), fail_fast=True)

    world = begun(body)
    world.fail("0.0", ValueError("bad"))
    if waits_for == "step":
        world.stop("0.1.0")
    world.succeed("0.1.1")
    assert ran_since(world) == ["0.1.1"]
    assert "0.0" in [action.position for action in retried(body, world).steps]


def test_a_timeout_that_failed_the_run_led_to_the_clean_up_within():
    """
    It is asked for again as a whole, with what stands in it.
    """

    async def body() -> object:
        return await timeout(cleans_up(sleep(60)), 10)

    world = begun(body)
    world.fire("0")
    world.succeed("0.0.1")
    assert ran_since(world) == ["0.0.1"]


def test_what_a_kept_member_asked_for_is_answered_as_then():
    """
    Its `now()` and `patched()`: their answers are recorded behind the failure, and stay.
    """
    seen: list[object] = []

    async def asks() -> object:
        await act("a")
        seen.append((now(), patched("change")))
        return await act("b")

    async def body() -> object:
        return await gather(act("bad"), asks())

    world = begun(body)
    world.fail("0.0", ValueError("bad"))
    world.now += 10
    world.succeed("0.1.0", "a")
    world.now += 10
    world.succeed("0.1.1", "b")
    following = retried(body, world)
    following.now += 500
    following.succeed("0.0", "good")
    assert following.value() == ["good", "b"]
    assert seen[0] == seen[1]


def test_retries_of_older_releases_keep_nothing():
    """
    Their rows have a field less; one with fewer yet is none.
    """
    kind, position, body, value = to_row(RunRetried(4, ["1"], ["2.0"], 1.0))
    assert body == '[4,["1"],["2.0"]]'
    assert from_row(kind, position, '[4,["1"]]', value, 1.0) == RunRetried(4, ["1"], [], 1.0)
    with pytest.raises(DecodeError):
        from_row(kind, position, "[4]", value, 1.0)
