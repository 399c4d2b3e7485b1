"""
Driving user code: foreign awaits, wrong yields, dropped ops, dead mode, context variables.
"""

import asyncio
import contextlib
import contextvars
import gc
import re
import sys
import traceback
import weakref
from dataclasses import dataclass

import anyio
import pytest

from durable._core.authoring.decorators import step, workflow
from durable._core.authoring.flow import logger, now, random
from durable._core.authoring.op_constructors import gather, sleep
from durable._core.program import current_driver
from durable._core.program.ops import Flow, Return
from durable._core.run.strand import Strand
from durable.errors import NotDurableError, UsageError
from tests.core.drive import World, kinds, run


@step
def one(n: int = 0) -> int:
    return n


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


async def future() -> None:
    await asyncio.get_running_loop().create_future()


class Listener:
    """
    In charge, to no purpose.
    """

    def created(self, command):
        pass


@dataclass(eq=False)
class Large:
    size: int


@step
def large() -> Large:
    return Large(1)


@pytest.mark.parametrize("awaits", [False, True])
def test_a_value_that_the_code_let_go_is_not_kept_while_it_waits(awaits):
    """
    A run that waits holds what its code holds, and not the last outcome besides.
    """
    kept = []

    async def body() -> Flow[int]:
        found: Large = (await large()) if awaits else (yield large())
        kept.append(weakref.ref(found))
        del found
        yield sleep(10)
        yield Return(1)

    world = begun(body)
    world.succeed("0", {"size": 1})
    gc.collect()
    assert [ref() for ref in kept] == [None]
    world.ex.close()


class RefusedError(Exception):
    """
    Of a class of its own, since a weak reference to a `ValueError` cannot be had.
    """


@pytest.fixture
def uncollected():
    """
    Without the garbage collector: what is gone was in no cycle.
    """
    gc.disable()
    yield
    gc.enable()


async def yielding() -> Flow[None]:
    yield sleep(1)


async def awaiting() -> Flow[None]:
    await sleep(1)
    yield Return(None)


async def helper() -> None:
    await sleep(1)


async def catching() -> Flow[None]:
    with contextlib.suppress(RefusedError):
        yield sleep(1)
    yield sleep(2)


@pytest.mark.parametrize("code", [yielding, awaiting, helper, catching])
def test_an_error_raised_in_the_code_is_kept_by_nobody_who_raised_it(code, uncollected):
    """
    Neither by their frames, which its traceback holds, nor by what brings it to the code.
    """
    strand, error = Strand(code(), ""), RefusedError()
    reference = weakref.ref(error)
    before = current_driver.put_in_charge(Listener())
    try:
        strand.resume(None, None)
        strand.resume(None, error)
    finally:
        current_driver.put_in_charge(before)
    del error
    strand.raised = None
    assert reference() is None
    strand.close()


FOREIGN = [
    lambda: asyncio.sleep(0.1),
    lambda: asyncio.sleep(0),
    lambda: anyio.sleep(0),
    future,
    lambda: asyncio.Event().wait(),
]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("form", ["coroutine", "generator"])
async def test_a_foreign_await_raises_at_the_users_own_line(foreign, form):
    """
    The traceback passes the user's line; caught, the code goes on and can use ops.
    """
    lines = []

    def where(error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == __file__]
        lines.append(own[-1].line)

    async def coroutine() -> int:
        try:
            await foreign()
        except NotDurableError as error:
            where(error)
        return await one(3)

    async def generator() -> Flow[int]:
        try:
            await foreign()
        except NotDurableError as error:
            where(error)
        value: int = yield one(3)
        yield Return(value)

    world = begun(coroutine if form == "coroutine" else generator)
    world.succeed("0", 3)
    assert world.value() == 3
    assert lines in (["await foreign()"], ["await asyncio.get_running_loop().create_future()"])


def test_a_bare_future_is_refused_in_the_users_frame():
    """
    With nothing in between, the last frame of the traceback is the user's.
    """

    class Bare:
        def __await__(self):
            yield "something"

    async def body() -> None:
        await Bare()

    world = begun(body)
    with pytest.raises(NotDurableError, match="foreign awaitable"):
        world.value()


def test_foreign_coroutines_are_named():
    """
    The report says what was awaited, and what to do.
    """
    assert "Do this in a step" in str(NotDurableError("x"))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: 5, "found int 5"),
        (lambda: None, "found NoneType None"),
        (lambda: one, r"Step|step.*\(call it\)"),
        (lambda: helper(), "coroutine 'helper': await a helper"),  # noqa: PLW0108 - the form is the point
        (lambda: generator(), "async generator: call a @workflow"),  # noqa: PLW0108 - the form is the point
    ],
)
def test_yielding_what_is_no_op_raises_type_error_there(wrong, words):
    """
    The TypeError can be caught where the yield stands, and the code goes on.
    """

    async def body() -> Flow[str]:
        try:
            yield wrong()
        except TypeError as error:
            yield one()
            yield Return(str(error))

    world = begun(body)
    world.succeed("0", 0)
    assert re.search(words, world.value())


async def helper() -> None:
    await one()


async def generator():
    yield 1


# --- ops that nobody yields ---------------------------------------------------------------------


def test_a_dropped_op_is_reported_with_its_line():
    """
    An op that nobody can yield any more is a warning at the line that made it.
    """

    async def body() -> None:
        one()
        await sleep(1)

    with pytest.warns(RuntimeWarning, match="step 'one' was created in workflow 'body' and never yielded") as caught:
        begun(body).ex.close()
    assert caught[0].filename == __file__
    assert caught[0].lineno == body.__code__.co_firstlineno + 1


def test_an_op_kept_for_later_is_not_reported():
    """
    Neither in the turns before it is yielded, nor afterwards.
    """

    async def body() -> int:
        later = one(4)
        members = [one(5), one(6)]
        await sleep(1)
        await gather(*members)
        return await later

    assert run(workflow(body)()).value() == 4


def test_an_op_still_held_at_the_end_is_reported():
    """
    The run succeeded and never yielded it: that is a mistake too.
    """
    kept = []

    async def body() -> None:
        kept.append(one())

    with pytest.warns(RuntimeWarning, match="never yielded"):
        begun(body)


def test_ops_that_an_error_came_before_are_not_reported():
    """
    A run that failed had no chance to yield them.
    """

    async def body() -> None:
        later = one()
        if random().random() >= 0:
            raise ValueError
        await later

    assert begun(body).end.ended == "failed"


def test_a_replay_reports_nothing_again():
    """
    What was reported in its turn is not reported at each recovery.
    """

    async def body() -> None:
        one()
        await sleep(1)
        await sleep(1)

    with pytest.warns(RuntimeWarning) as caught:
        run(workflow(body)(), freed=True)
    assert len(caught) == 1


def test_a_copy_with_options_takes_the_place_of_its_op():
    """
    `op.options(...)` is one op, not two.
    """

    async def body() -> int:
        return await one(1).options(retry=2)

    assert run(workflow(body)()).value() == 1


# --- dead mode ----------------------------------------------------------------------------------


ENDINGS = {
    "yields": "yield one()",
    "yields many": "for _ in range(5): yield one()",
    "awaits": "await one()",
    "awaits a group of helpers": "await gather(helper(), gather(helper()))",
    "yields a group of helpers": "yield gather(helper(), gather(helper()))",
    "raises": "raise ValueError",
    "asks for the time": "now()",
    "awaits something foreign": "await foreign()",
    "swallows": "\n                try:\n                    await one()\n                except BaseException: pass",
}


class Foreign:
    def __await__(self):
        yield "something"


CLOSINGS = [
    (form, at, ending)
    for form in ("generator", "coroutine")
    for at in ("yield sleep(1)", "await sleep(1)")
    for ending in sorted(ENDINGS)
    if form == "generator" or "yield" not in at + ENDINGS[ending]  # a coroutine yields nothing
]


@pytest.mark.parametrize("form, at, ending", CLOSINGS)
def test_closing_records_nothing_and_returns(ending, at, form):
    """
    Whatever a `finally` does while its run is freed is refused; nothing of it is recorded, no function is called.
    """
    called = []

    @step
    def one() -> None:
        called.append(1)

    async def helper() -> None:
        called.append(2)

    source = f"""
async def body():
    try:
        {at}
    finally:
        {ENDINGS[ending]}
"""
    if form == "generator":
        source += "    yield sleep(0)\n"
    names = {"one": one, "sleep": sleep, "gather": gather, "helper": helper, "now": now, "foreign": Foreign}
    exec(source, names)
    world = begun(names["body"])
    before = list(world.events)
    world.ex.close()
    del world.ex
    gc.collect()
    assert world.events == before
    assert called == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's word on such a generator
def test_a_generator_that_never_stops_yielding_is_given_up():
    """
    An endless loop of yields in `finally` does not hang the close.
    """

    async def body() -> Flow[None]:
        while True:
            try:  # noqa: SIM105 - the form is the point
                yield sleep(1)
            except BaseException:
                pass

    begun(body).ex.close()


async def test_generators_are_not_registered_with_the_event_loop():
    """
    asyncio's hooks would close a workflow's generator behind our back.
    """
    seen = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(seen.append, seen.append)
    try:

        async def body() -> Flow[None]:
            yield one()

        world = begun(body)
        assert sys.get_asyncgen_hooks() == (seen.append, seen.append)
        world.ex.close()
        begun(body).ex.close()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert seen == []


# --- isolation ----------------------------------------------------------------------------------


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def test_context_variables_do_not_leak():
    """
    Each execution has a copy of the context: kept between its turns, seen by nobody else.
    """

    async def body() -> str:
        before = variable.get()
        variable.set("inside")
        await one()
        return f"{before} {variable.get()}"

    first, second = begun(body), begun(body)
    assert variable.get() == "outside"
    first.succeed("0", 0)
    second.succeed("0", 0)
    assert first.value() == second.value() == "outside inside"


def test_the_logger_is_silent_in_replay():
    """
    Each entry is part of the decision of the turn that made it, and of no other.
    """

    async def body() -> None:
        logger.info("begun", n=1)
        await one()
        logger.warning("done")

    world = run(workflow(body)(), freed=True)
    assert [decision.logs for decision in world.decisions] == [[("info", "begun", {"n": 1})], [("warning", "done", {})]]


@pytest.mark.parametrize("ask", [now, random, lambda: logger.info("x")])
def test_workflow_functions_are_refused_elsewhere(ask):
    """
    Outside of workflow code nothing is being driven.
    """
    with pytest.raises(UsageError, match="workflow code only"):
        ask()


async def test_ops_of_steps_call_the_plain_function_outside_workflows():
    """
    `await step(...)` in ordinary code is a plain call; a group needs a workflow.
    """
    assert await one(3) == 3
    with pytest.raises(UsageError, match="workflow code only"):
        await sleep(1)


def test_a_dropped_generator_never_runs_live():
    """
    Even without `close`, collecting an execution starts no step.
    """
    called = []

    @step
    def effect() -> None:
        called.append(1)

    async def body() -> None:
        try:
            await sleep(1)
        finally:
            await effect()

    world = begun(body)
    world.ex.close()
    del world
    gc.collect()
    assert called == []


def test_positions_follow_the_strand():
    """
    Each strand numbers its own commands.
    """

    async def member() -> None:
        await one()
        await one()

    async def body() -> None:
        await one()
        await gather(member(), one())
        await one()

    events = run(workflow(body)()).events
    assert [each for each in kinds(events) if each.startswith("StepStarted")] == [
        "StepStarted 0",
        "StepStarted 1.1",
        "StepStarted 1.0.0",
        "StepStarted 1.0.1",
        "StepStarted 2",
    ]
