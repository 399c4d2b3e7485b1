"""
Programs that Hypothesis writes: cut anywhere and replayed, or freed at every turn, they end the same.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from durable._core.journal.events import CancelRequested
from durable.testing.strategies import coroutine_program, generator_program
from durable.testing.strategies import programs as some_programs
from tests.core.drive import World, again, closed_prefixes

programs = some_programs()
orders = st.lists(st.integers(0, 7), min_size=1, max_size=60)


class Order:
    """
    Choices from a list, over and over.
    """

    def __init__(self, choices: list[int]) -> None:
        self.choices, self.index = choices, 0

    def __call__(self, count: int) -> int:
        self.index += 1
        return self.choices[self.index % len(self.choices)] % count


def play(op: Any, order: list[int], cancel_at: int | None, *, freed: bool, sliced: bool = False) -> World:
    """
    One run: things happen in *order*; cancelled before turn *cancel_at*; signals come when nothing else can.
    """
    world = World(op, choose=Order(order), freed=freed, sliced=sliced, signals=[("a", 1), ("b", 2), ("a", 3)])
    world.begin()
    for turn in range(1, 400):
        if world.ended:
            return world
        if turn == cancel_at:
            world.cancel("enough")
        elif not world.happen():
            world.signal("a", turn)
            if not world.ended:
                world.signal("b", turn)
    raise AssertionError("the run does not end")


def projected(world: World) -> list[Any]:
    """
    What decisions ask of the world, without identities of ops.
    """
    return [
        (
            [
                (action.position, action.attempt, action.failures)
                for action in (*decision.steps, *decision.transactions)
            ],
            [(action.position, action.run_id, action.arguments, action.awaited) for action in decision.children],
            list(decision.cancelled_steps),
            list(decision.cancelled_children),
            list(decision.waits),
            list(decision.waits_closed),
            decision.ended,
            decision.outcome,
        )
        for decision in world.decisions
    ]


@pytest.mark.parametrize("form", [coroutine_program, generator_program])
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)))
def test_a_crash_at_any_point_changes_nothing(form, program, order, cancel_at):
    """
    Whatever closed prefix of the journal survives, the same arrivals lead to the same journal.
    """
    whole = play(form(program), order, cancel_at, freed=False)
    for survived in closed_prefixes(whole.events):
        assert again(form(program), whole.events, survived) == whole.events


@pytest.mark.parametrize("form", [coroutine_program, generator_program])
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)))
def test_freeing_at_every_turn_changes_nothing(form, program, order, cancel_at):
    """
    A run that is closed and replayed for every turn decides the same as one that stays in memory.
    """
    resident = play(form(program), order, cancel_at, freed=False)
    freed = play(form(program), order, cancel_at, freed=True)
    assert freed.events == resident.events
    assert projected(freed) == projected(resident)


@pytest.mark.parametrize("form", [coroutine_program, generator_program])
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@example([["as completed", 0, [[], [["started", 0]]]]], [0], None, False)
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)), st.booleans())
# What follows the members of an as_completed or wait_first began before those that had no room in the slice.
@example([["as completed", 0, [[], [["started", 0]]]]], [0], None, False)
@example([["as completed", 0, [[], [["gather", "all", []], ["broken child", 0]]]]], [0], None, False)
@example([["as completed", 0, [[], [["plain", "now"], ["for each helper", 0]]]]], [0], None, False)
@example([["child", 0], ["wait first", [[["signal", 0]], [["plain", "now"]]]]], [1], None, False)
def test_pauses_in_turns_change_nothing(form, program, order, cancel_at, freed):
    """
    Turns and replays that pause wherever they may decide what they do in one go, in the same order.
    """
    whole = play(form(program), order, cancel_at, freed=freed)
    sliced = play(form(program), order, cancel_at, freed=freed, sliced=True)
    assert sliced.events == whole.events
    assert projected(sliced) == projected(whole)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)))
def test_nothing_is_left_open_when_a_run_has_ended(program, order, cancel_at):
    """
    Every action is answered or withdrawn: no step runs on, no awaited child is forgotten.
    """
    world = play(coroutine_program(program), order, cancel_at, freed=False)
    assert world.steps == []
    if not any(isinstance(event, CancelRequested) for event in world.events):
        assert world.waits == []
    assert world.ex.strands == []
