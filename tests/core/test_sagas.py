"""
Sagas: what was done is undone in reverse, by recorded steps, whatever else goes wrong.
"""

import pytest

from durable._core.authoring.decorators import step, workflow
from durable._core.authoring.op_constructors import continue_as, gather, sleep
from durable._core.authoring.sagas import CompensationError, saga
from durable._core.journal.events import Compensated
from durable._core.journal.history import is_compensated, only
from durable._core.program.ops import Flow, Return
from durable.errors import DefinitionError, RunCancelled, UsageError
from tests.core.drive import World, again, closed_prefixes, run


@step
def book(what: str) -> str:
    if what == "nothing left":
        raise LookupError(what)
    return f"{what}-1"


@step(retry=2)
def unbook(booking: str) -> None:
    pass


@workflow
async def trip(last: str) -> Flow[list]:
    async with saga() as undo:
        flight: str = yield book("flight")
        undo(unbook(flight))
        hotel = await book("hotel")
        undo(unbook(hotel))
        car: str = yield book(last)
        undo(unbook(car))
        yield Return([flight, hotel, car])


def undone(world: World) -> list:
    """
    Arguments of the compensations that began, in order.
    """
    begun = [action.op for decision in world.decisions for action in decision.steps]
    return [op.args[0] for op in begun if op.definition is unbook]


def until(world: World, position: str) -> World:
    """
    *world* as soon as the step at *position* runs.
    """
    world.begin()
    while not any(action.position == position for action in world.steps):
        assert world.happen()
    return world


def test_a_saga_that_is_undone_is_called_by_its_name():
    """
    In the history, and in the error where compensations fail.
    """

    @step
    def unable(booking: str) -> None:
        raise LookupError(booking)

    @workflow
    async def named() -> Flow[None]:
        async with saga(name="trip") as undo:
            flight: str = yield book("flight")
            undo(unable(flight))
            yield book("nothing left")

    world = run(named())
    (note,) = only(world.events, Compensated)
    assert note.describe() == "saga 'trip', which is undone"
    with pytest.raises(CompensationError, match="1 of 1 compensations of saga 'trip' failed"):
        world.value()
    with pytest.raises(DefinitionError, match="the name of a saga must be printable"):
        saga(name="\n")


def test_a_success_undoes_nothing():
    """
    A Return inside the block is one.
    """
    world = World(trip("car"))
    world.run()
    assert world.value() == ["flight-1", "hotel-1", "car-1"]
    assert undone(world) == []
    assert not is_compensated(world.events)


@pytest.mark.parametrize("freed", [False, True])
def test_a_failure_is_undone_in_reverse_and_raised(freed):
    """
    The run fails by what failed, and is marked in the turn that takes the failure in.
    """
    world = World(trip("nothing left"), freed=freed)
    world.run()
    with pytest.raises(LookupError, match="nothing left"):
        world.value()
    assert undone(world) == ["hotel-1", "flight-1"]
    assert is_compensated(world.events)
    assert [decision.compensated for decision in world.decisions].count(True) == 1


def test_a_crash_anywhere_undoes_each_once():
    """
    Journals that were cut at any event come to the same, whether freed in between or not.
    """
    journal = World(trip("nothing left")).run()
    for survived in closed_prefixes(journal):
        for resident in (True, False):
            assert again(trip("nothing left"), journal, survived, resident=resident) == journal


def test_a_cancellation_is_undone_too():
    """
    The step that was under way ends first; what it did belongs to whoever registers its undoing before.
    """
    world = until(World(trip("car")), "2")
    world.cancel("the customer left")
    world.stop("2")
    while not world.ended:
        assert world.happen()
    assert (world.end.ended, world.end.reason) == ("cancelled", "the customer left")
    assert undone(world) == ["hotel-1", "flight-1"]
    assert is_compensated(world.events)


def test_a_compensation_that_fails_does_not_stop_the_others():
    """
    All failures are raised together with the cause, from it.
    """
    world = until(World(trip("nothing left")), "3")
    world.fail("3", ConnectionError("the hotel does not answer"))
    world.happen()
    with pytest.raises(CompensationError, match="1 of 2 compensations failed") as raised:
        world.value()
    assert [type(each) for each in raised.value.exceptions] == [LookupError, ConnectionError]
    assert undone(world) == ["hotel-1", "flight-1"]


def test_a_cancelled_run_tells_of_compensations_that_failed():
    """
    It is cancelled all the same: their failures are those of its clean-up.
    """
    world = until(World(trip("car")), "2")
    world.cancel("no")
    world.stop("2")
    world.fail("3", ConnectionError("the hotel does not answer"))
    world.happen()
    assert world.end.ended == "cancelled"
    assert "1 of 2 compensations failed" in world.end.reason


def test_a_cancel_while_it_compensates_cuts_no_compensation_off():
    """
    The one that was told to end is asked for again, the rest follow; then the run is cancelled.
    """
    world = until(World(trip("nothing left")), "3")
    world.cancel("now")
    world.stop("3")
    while not world.ended:
        assert world.happen()
    assert undone(world) == ["hotel-1", "hotel-1", "flight-1"]
    assert (world.end.ended, world.end.reason) == ("cancelled", "now")


def test_an_error_that_is_caught_outside_of_the_block_lets_the_run_succeed():
    """
    Sagas nest: the inner one undoes its own.
    """

    async def body() -> list:
        async with saga() as undo:
            undo(unbook(await book("flight")))
            try:
                async with saga() as inner:
                    inner(unbook(await book("hotel")))
                    await book("nothing left")
            except LookupError:
                pass
            return ["flight only"]

    world = World(workflow(body)())
    world.run()
    assert world.value() == ["flight only"]
    assert undone(world) == ["hotel-1"]


def test_helpers_of_a_group_may_undo_at_the_same_time():
    """
    Each in its own strand.
    """

    async def one(what: str) -> None:
        async with saga() as undo:
            undo(unbook(await book(what)))
            await book("nothing left")

    async def body() -> None:
        await gather(one("flight"), one("hotel"))

    world = World(workflow(body)())
    world.run()
    assert sorted(undone(world)) == ["flight-1", "hotel-1"]


def test_code_that_is_set_aside_undoes_nothing():
    """
    Freeing closes the generator; that is no failure.
    """

    @workflow
    async def patient() -> None:
        async with saga() as undo:
            undo(unbook(await book("flight")))
            await sleep(60)

    world = World(patient(), freed=True)
    world.run()
    assert undone(world) == []


def test_continuing_as_another_run_undoes_nothing():
    """
    It is a success, as a Return is.
    """

    @workflow
    async def endless() -> Flow[None]:
        async with saga() as undo:
            flight: str = yield book("flight")
            undo(unbook(flight))
            yield continue_as(endless())

    world = World(endless())
    world.run()
    assert undone(world) == []


def test_an_attempt_of_the_whole_run_begins_without_the_mark():
    """
    What an earlier attempt undid is not there any more.
    """
    failures = iter(["nothing left", "car"])

    @workflow(retry=2)
    async def stubborn() -> None:
        async with saga() as undo:
            undo(unbook(await book("flight")))
            await book(next(failures))

    world = World(stubborn())
    world.run()
    assert world.end.ended == "succeeded"
    assert not is_compensated(world.events)
    assert [decision.compensated for decision in world.decisions if decision.compensated is not None] == [True, False]


def test_wrong_use_is_told_where_it_is():
    """
    Something else than an op, an undo outside of the block, a saga outside of workflows or used twice.
    """

    async def body() -> list[str]:
        told: list[str] = []
        once = saga()
        async with once as undo:
            try:
                undo(unbook)  # type: ignore[arg-type]  # the point
            except TypeError as error:
                told.append(str(error))
        for wrong in (lambda: undo(unbook("flight-1")), lambda: once.__aenter__().send(None)):
            try:
                wrong()
            except UsageError as error:
                told.append(str(error))
        return told

    world = World(workflow(body)())
    world.run()
    first, second, third = world.value()
    assert "undo takes the op that undoes what was done" in first
    assert "outside of its block" in second
    assert "entered once" in third
    with pytest.raises(UsageError, match="workflow code only"):
        saga().__aenter__().send(None)


def test_a_cancellation_that_the_code_raises_itself_is_undone():
    """
    Its own RunCancelled is one, as where a signal says so.
    """

    @workflow
    async def own() -> None:
        async with saga() as undo:
            undo(unbook(await book("flight")))
            raise RunCancelled("changed its mind")

    world = World(own())
    world.run()
    assert undone(world) == ["flight-1"]
    assert world.end.ended == "cancelled"


@pytest.mark.parametrize("returns", [False, True])
def test_what_came_all_the_same_is_undone_although_the_block_ends_with_it(returns):
    """
    The step was cancelled and has its value: no command is left in the block that could raise the cancellation.
    """

    async def body() -> Flow[str]:
        async with saga() as undo:
            booked: str = yield book("car")
            undo(unbook(booked))
            if returns:
                yield Return(booked)
        yield book("hotel")

    world = World(workflow(body)())
    world.begin()
    world.cancel("enough")
    world.succeed("0", "car-1")
    assert undone(world) == ["car-1"]
    world.succeed("1", None)
    assert (world.end.ended, world.end.reason) == ("cancelled", "enough")
    assert is_compensated(world.events)
