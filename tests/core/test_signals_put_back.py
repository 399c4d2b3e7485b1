"""
Signals that a group took and did not deliver: back at the front of the queue, in the order in which they came.
"""

from typing import Any

import pytest

from durable import Flow, Return, gather, race, settle, sleep, step, timeout, wait_for, workflow
from tests.core.drive import World, again, closed_prefixes, execution, kinds


@step
async def work() -> int:
    return 1


def begun(body, signals, **options):
    """
    A world of a workflow that races for signals, which were sent one by one.
    """
    world = World(workflow(body)(), **options)
    world.begin()
    for name, value in signals:
        world.signal(name, value)
    return world


def both(*names):
    return gather(*(wait_for(name) for name in names))


def failing(*names):
    return gather(*(wait_for(name) for name in names), work(), fail_fast=True)


#: What loses, and the position of what makes it lose.
LOSERS = {
    "race": (lambda: race(both("a", "a", "b"), sleep(60)), "0.1"),
    "timeout": (lambda: settle(timeout(both("a", "a", "b"), 60)), "0.0"),
    "nested": (lambda: race(both("a", "z"), gather(race(both("a", "b"), sleep(90)), sleep(80)), sleep(60)), "0.2"),
    "late": (lambda: race(gather(both("a", "a"), sleep(90)), sleep(60)), "0.1"),
}


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("loser", LOSERS)
def test_what_a_losing_group_took_goes_back_to_the_front_in_its_order(loser, freed):
    """
    By race or timeout, members of members too; and a crash at any moment leads to the same journal.
    """
    made, decides = LOSERS[loser]

    async def body() -> Flow[list[Any]]:
        yield made()
        got: list[Any] = []
        for _ in range(3):
            got.append((yield wait_for("a")))  # noqa: PERF401 - no comprehension may yield
        yield Return(got)

    world = begun(body, [("a", 1), ("a", 2), ("a", 3)], freed=freed)
    world.fire(decides)
    assert world.value() == [1, 2, 3]
    for survived in closed_prefixes(world.events):
        assert kinds(again(world.op, world.events, survived)) == kinds(world.events)


def test_a_failing_group_gives_back_what_it_took():
    """
    fail_fast: nobody has seen the values of the other members.
    """

    async def body() -> Flow[list[Any]]:
        failed = yield settle(failing("a", "b"))
        yield Return([failed.error is not None, (yield wait_for("a"))])

    world = begun(body, [("a", 1)])
    world.fail("0.0.2", ValueError("no"))
    assert world.value() == [True, 1]


def test_what_code_has_seen_does_not_come_again():
    """
    The value of the winner, and those of a group that succeeded, are consumed.
    """

    async def body() -> Flow[list[Any]]:
        won = yield race(gather(both("a"), both("b")), wait_for("c"))
        yield Return([won.value, (yield wait_for("a"))])

    world = begun(body, [("a", 1), ("b", 2), ("a", 3)])
    assert world.value() == [[[1], [2]], 3]


def test_a_waiter_that_is_still_there_gets_what_comes_back():
    """
    Another member that waits for the same name has it at once.
    """

    async def body() -> Flow[Any]:
        lost, got = yield gather(settle(timeout(both("a", "b"), 60)), wait_for("a"))
        yield Return([type(lost.error).__name__, got])

    world = begun(body, [("a", 1)])
    world.fire("0.0.0")
    assert world.value() == ["TimeoutError", 1]


def test_a_cancelled_run_leaves_unread_what_no_code_has_seen():
    """
    It is counted with what the run left, in the order in which it came.
    """

    async def body() -> Flow[None]:
        yield race(both("a", "b"), sleep(60))

    world = begun(body, [("a", 1), ("c", 2)])
    world.cancel()
    assert [event.name for event in world.ex.unread()] == ["a", "c"]


def test_a_wait_whose_time_is_over_ends_at_once_where_all_signals_are_there():
    """
    In a turn that was redone with all signals, code that drains them comes to its end without another timer.
    """

    async def body() -> Flow[list[Any]]:
        yield sleep(60)
        got: list[Any] = []
        while (found := (yield settle(wait_for("a", timeout=0)))).error is None:
            got.append(found.value)
        yield Return(got)

    world = World(workflow(body)())
    world.begin()
    world.signal("a", 1)
    world.signal("a", 2)
    world.ex.hears_all = True
    world.fire("0")
    assert world.value() == [1, 2]
    assert (list(world.end.waits), world.waits) == ([], [])
    replayed = execution(world.op, world.events)  # raises if the code asks for something else
    assert replayed.ended
    replayed.close()
