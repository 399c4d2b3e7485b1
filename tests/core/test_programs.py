"""
Programs that Hypothesis writes: cut anywhere and replayed, or freed at every turn, they end the same.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable._core.decorators import job, step, transaction, workflow
from durable._core.events import CancelRequested
from durable._core.flow import now, patched, random, uuid4
from durable._core.making import for_each, gather, race, settle, sleep, start, timeout, wait_for
from durable._core.ops import Flow, Return
from durable._core.retry import Retry
from tests.core.drive import World, again, closed_prefixes

Program = list[Any]


@step
def echo(value: object) -> object:
    return value


@step
def fails(value: object) -> object:
    raise ValueError(value)


@step(retry=Retry(3, delay=2.0))
def retried(value: object) -> object:
    raise LookupError(value)


@transaction
def insert(tx, value: object) -> object:
    return value


@job
def child(value: object) -> object:
    return value


@job
def broken_child(value: object) -> object:
    raise KeyError(value)


LEAVES = {
    "step": echo,
    "fails": fails,
    "retried": retried,
    "transaction": insert,
    "child": child,
    "broken child": broken_child,
    "sleep": sleep,
    "signal": lambda n: wait_for("ab"[n % 2]),
    "signal or not": lambda n: wait_for("ab"[n % 2], timeout=n),
    "for each": lambda n: for_each(echo, [n, None, n], concurrency=n % 3 or None),
    "for each child": lambda n: for_each(child, [n, 0], concurrency=n % 2 + 1),
}


def member(program: Program) -> Any:
    """
    A group's member: an op where the program is one leaf or group, else a helper's coroutine.
    """
    if len(program) == 1 and program[0][0] not in ("try", "finally", "plain", "started"):
        return op(program[0])
    return interpret(program)


def op(statement: Any) -> Any:
    match statement:
        case ["gather", mode, members]:
            made = [member(each) for each in members]
            if mode == "return":
                return gather(*made, return_exceptions=True)
            return gather(*made, fail_fast=mode == "fast")
        case ["race", members]:
            return race(*[member(each) for each in members])
        case ["timeout", seconds, program]:
            return timeout(member(program), seconds)
        case ["settle", program]:
            return settle(member(program))
        case [leaf, n]:
            return LEAVES[leaf](n)
    raise AssertionError(statement)


def plain(what: str) -> object:
    match what:
        case "now":
            return now().timestamp()
        case "random":
            return random().random()
        case "uuid":
            return str(uuid4())
    return patched(what)


async def interpret(program: Program) -> list[Any]:
    seen: list[Any] = []
    for statement in program:
        match statement:
            case ["plain", what]:
                seen.append(plain(what))
            case ["try", body]:
                try:
                    seen.append(await interpret(body))
                except Exception as error:
                    seen.append(repr(error))
            case ["finally", body, last]:
                try:
                    seen.append(await interpret(body))
                finally:
                    await interpret(last)
            case ["started", n]:
                handle = await start(child(n))
                seen.append([handle.run_id, await handle.result()])
            case _:
                seen.append(shown(await op(statement)))
    return seen


def shown(value: object) -> object:
    return value if isinstance(value, (int, str, list, type(None))) and "object at" not in repr(value) else repr(value)


@workflow
async def coroutine_program(program: list[Any]) -> str:
    return repr(await interpret(program))


@workflow
async def generator_program(program: list[Any]) -> Flow[str]:
    seen: list[Any] = []
    for statement in program:
        if statement[0] in ("try", "finally", "plain", "started"):
            seen.append(await interpret([statement]))
        else:
            value: object = yield op(statement)
            seen.append(shown(value))
    yield Return(repr(seen))


small = st.integers(0, 5)
leaves = st.tuples(st.sampled_from(sorted(LEAVES)), small).map(list)
plains = st.tuples(st.just("plain"), st.sampled_from(["now", "random", "uuid", "patch"])).map(list)
started_children = st.tuples(st.just("started"), small).map(list)


def groups(statements: Any) -> Any:
    programs = st.lists(statements, max_size=3)
    members = st.lists(programs, max_size=3)
    return st.one_of(
        st.tuples(st.just("gather"), st.sampled_from(["all", "fast", "return"]), members).map(list),
        st.tuples(st.just("race"), st.lists(programs, min_size=1, max_size=3)).map(list),
        st.tuples(st.just("timeout"), small, programs).map(list),
        st.tuples(st.just("settle"), programs).map(list),
        st.tuples(st.just("try"), programs).map(list),
        st.tuples(st.just("finally"), programs, programs).map(list),
    )


programs = st.lists(
    st.recursive(st.one_of(leaves, leaves, plains, started_children), groups, max_leaves=8), min_size=1, max_size=5
)
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


def play(op: Any, order: list[int], cancel_at: int | None, *, freed: bool) -> World:
    """
    One run: things happen in *order*; cancelled before turn *cancel_at*; signals come when nothing else can.
    """
    world = World(op, choose=Order(order), freed=freed, signals=[("a", 1), ("b", 2), ("a", 3)])
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
            [(action.position, action.attempt, action.failures) for action in decision.steps + decision.transactions],
            [(action.position, action.run_id, action.arguments, action.awaited) for action in decision.children],
            decision.cancelled_steps,
            decision.cancelled_children,
            decision.waits,
            decision.waits_closed,
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
