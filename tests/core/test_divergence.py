"""
Changed code: it never gets another command's result; the report says what was recorded, what is asked, and where.
"""

import pytest
from attrs import evolve

from durable._core.authoring.decorators import job, step, workflow
from durable._core.authoring.flow import now, patched, random
from durable._core.authoring.op_constructors import for_each, gather, race, sleep, start, timeout, wait_for
from durable._core.codec.codec import Codec, digest
from durable._core.journal.events import PatchMarked, TimerSet
from durable._core.program.saying import set_attributes
from durable._core.run.divergence import lookahead
from durable._core.run.divergence.comparing import EVERYWHERE, Comparing
from durable._core.run.execution import Execution
from durable.errors import NondeterminismError
from tests.core.drive import World, execution, run


@step
def one(n: int = 0) -> int:
    return n


@step
def two(n: int = 0) -> int:
    return n


@step
def three(n: int = 0) -> int:
    return n


@job
def child(n: int = 0) -> int:
    return n


@step
def pack(n: int, size: int = 7) -> int:
    return n


@job
def send(n: int, size: int = 7) -> int:
    return n


def recorded(body, turns: int) -> World:
    """
    A run of *body* after so many outcomes, its execution dropped.
    """
    world = World(workflow(name="wf")(body)())
    world.begin()
    for _ in range(turns):
        world.happen()
    world.ex.close()
    return world


def replayed(body, world: World):
    return execution(workflow(name="wf")(body)(), world.events)


async def original() -> None:
    await one()
    await two()
    await three()


async def inserted() -> None:
    await one()
    await sleep(5)
    await two()
    await three()


async def removed() -> None:
    await two()
    await three()


async def renamed() -> None:
    await one()
    await three()


async def reordered() -> None:
    await two()
    await one()
    await three()


async def ends_early() -> None:
    await one()


async def fails_early() -> None:
    raise ValueError


async def other_kind() -> None:
    await one()
    await child()


async def grouped() -> None:
    await gather(one(), two())


@pytest.mark.parametrize(
    "changed, position, words",
    [
        (inserted, "1", "recorded step 'two' .*asks for sleep .*was inserted before"),
        (removed, "0", "recorded step 'one' .*asks for step 'two' .*step 'one' was removed before step 'two'"),
        (renamed, "1", "recorded step 'two' .*asks for step 'three' "),
        (reordered, "0", "recorded step 'one' .*asks for step 'two' .*step 'two' was moved before step 'one'"),
        (ends_early, "1", "recorded step 'two' .*asks for the end of the workflow"),
        (fails_early, "0", "recorded step 'one' .*asks for the end of the workflow, by an error"),
        (other_kind, "1", "recorded step 'two' .*asks for child 'child' "),
        (grouped, "0", "recorded step 'one' .*asks for gather of 2 "),
    ],
)
def test_changed_code_is_reported_and_nothing_is_emitted(changed, position, words):
    """
    The report has position, both commands and a guess; the restored code goes on to the old journal.
    """
    world = recorded(original, 1)
    before = list(world.events)
    with pytest.raises(NondeterminismError, match=words) as caught:
        replayed(changed, world)
    assert caught.value.position == position
    assert caught.value.run_id == "r"
    assert world.events == before
    ex = replayed(original, world)
    assert ex.in_flight() == [("1", 1)]
    assert ex.decision.events == []
    ex.close()


def test_the_report_names_both_places_in_the_source():
    """
    Where the recorded command was made, and where the requested one was.
    """
    with pytest.raises(NondeterminismError) as caught:
        replayed(renamed, recorded(original, 1))
    assert caught.value.recorded_site == f"core/test_divergence.py:{original.__code__.co_firstlineno + 2}"
    assert caught.value.requested_site == f"core/test_divergence.py:{renamed.__code__.co_firstlineno + 2}"
    assert caught.value.recorded_site in str(caught.value)
    assert "durable.patched" in str(caught.value)


def test_a_command_added_at_the_end_of_a_closed_history_diverges():
    """
    All that recorded arrivals caused was recorded with them, so a new command in replay is a change too.
    """

    async def before() -> None:
        await gather(one(), two())

    async def after() -> None:
        await gather(one(), helper())

    async def helper() -> None:
        await two()

    with pytest.raises(NondeterminismError, match=r"0\.1: recorded step 'two'.*asks for nothing|asks for step 'two'"):
        replayed(after, recorded(before, 0))


@pytest.mark.parametrize(
    "before, after",
    [
        (lambda: gather(one(), two()), lambda: gather(one(), two(), three())),
        (lambda: race(one(), two()), lambda: gather(one(), two())),
        (lambda: sleep(1), lambda: timeout(sleep(1), 1)),
        (lambda: wait_for("a"), lambda: wait_for("b")),
        (lambda: child(), lambda: start(child())),  # noqa: PLW0108 - the form is the point
        (lambda: for_each(one, [1]), lambda: for_each(two, [1])),
    ],
)
def test_another_shape_of_the_same_kind_diverges(before, after):
    """
    Sizes of groups, names of signals and timers, and whether a child is awaited are part of a command.
    """

    async def old() -> None:
        await before()

    async def new() -> None:
        await after()
        await sleep(1)

    with pytest.raises(NondeterminismError):
        replayed(new, recorded(old, 0))


def test_a_command_that_is_no_longer_asked_for_diverges():
    """
    Its outcome, or the command itself, is left over.
    """

    async def old() -> None:
        await gather(one(), two())

    async def new() -> None:
        async def nothing() -> None:
            await sleep_forever()

        await gather(one(), nothing())

    async def sleep_forever() -> None:
        await wait_for("never")

    for turns in (0, 1):
        with pytest.raises(NondeterminismError):
            replayed(new, recorded(old, turns))


def test_arguments_may_change():
    """
    Only kind, name and shape count: new code may pass more.
    """

    async def old() -> None:
        await one(1)
        await two()

    async def new() -> None:
        await one(2)
        await two()

    replayed(new, recorded(old, 1)).close()


def test_patched_keeps_old_runs_on_the_old_path():
    """
    False where a recorded history passed before the change, True (and recorded) where code comes first.
    """
    seen = []

    async def new() -> None:
        await one()
        if patched("later"):
            await three()
        seen.append(patched("later"))
        await two()

    async def old() -> None:
        await one()
        await two()

    ex = replayed(new, recorded(old, 1))
    assert seen == [False]
    ex.close()
    world = run(workflow(name="wf")(new)(), freed=True)
    assert sum(isinstance(event, PatchMarked) for event in world.events) == 1
    assert seen[1:] == [True] * len(seen[1:])


def test_patched_works_inside_groups():
    """
    Each member that comes by gets the one answer of its run.
    """

    async def member(n: int) -> str:
        await one(n)
        return "new" if patched("x") else "old"

    async def body() -> list[str]:
        return await gather(member(1), member(2))

    world = run(workflow(name="wf")(body)(), freed=True)
    assert world.value() == ["new", "new"]


def test_an_added_random_call_shifts_no_later_one():
    """
    Dice are seeded by position, so a call added at one command leaves those at others alone.
    """

    def body(extra: bool):
        async def drawn() -> list[float]:
            first = random().random()
            if extra:
                random()
            await one()
            second = random().random()
            await two()
            return [first, second]

        return drawn

    assert run(workflow(name="wf")(body(False))()).value() == run(workflow(name="wf")(body(True))()).value()


def test_an_added_now_answers_with_the_time_of_its_turn():
    """
    Code that asks for the time today gets the recorded turn's, and records nothing.
    """
    seen = []

    async def old() -> None:
        await one()
        await two()

    async def new() -> None:
        await one()
        seen.append(now().timestamp())
        set_attributes(a=1)
        await two()

    world = recorded(old, 1)
    ex = replayed(new, world)
    assert seen == [world.events[2].at]
    assert ex.decision.events == []
    ex.close()


def test_a_workflow_may_not_change_what_it_was_given():
    """
    A timer's due time is the recorded one, whatever today's code would compute.
    """

    async def old() -> None:
        await sleep(5)

    async def new() -> None:
        await sleep(500)

    world = recorded(old, 0)
    ex = replayed(new, world)
    assert isinstance(world.events[1], TimerSet)
    assert ex.leaves["0"].wait.fire_at == world.events[1].fire_at
    ex.close()


@pytest.mark.parametrize("given", ["[[1],{}]", "[[1,7],{}]"], ids=["left out", "written out"])
@pytest.mark.parametrize("call", [send, pack], ids=["child", "step"])
def test_a_default_that_an_older_release_recorded_as_given_is_no_other_argument(call, given):
    """
    A digest of arguments may be one with the default that the code writes out, or without.
    """

    @workflow(name="wf")
    async def body() -> None:
        await call(1, 7)

    world = World(body())
    world.begin()
    world.ex.close()
    events = [world.events[0], evolve(world.events[1], digest=digest(given))]
    ex = Execution(body, events, run_id="r", codec=Codec())
    ex.comparing = Comparing(EVERYWHERE, strict=True)
    ex.load()
    ex.close()


async def forth(n: int) -> None:
    if n % 2:
        await back(n - 1)
        await back(n - 2)
    await back(n - 3)
    await back(n - 4)


async def back(n: int) -> None:
    if n > 0:
        await forth(n - 1)
        await forth(n - 2)
        await forth(n - 3)
    await forth(n - 4)
    await three(n)


def test_helpers_that_await_each_other_are_looked_into_once(monkeypatch):
    """
    For what the report says: there are more ways to each of them than the event loop has time for.
    """

    async def calls(n: int) -> None:
        await forth(n)

    looked = []
    real = lookahead.dis.get_instructions
    monkeypatch.setattr(lookahead.dis, "get_instructions", lambda code: looked.append(code.co_name) or real(code))
    assert set(lookahead.names_in(calls)) == {"three"}
    assert looked == ["calls", "forth", "back", "forth", "back"]
