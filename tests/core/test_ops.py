"""
Every op a workflow may yield: its result, its events, and what it asks of the world.
"""

import asyncio
import signal
import sys
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from attrs import frozen

from durable._core.authoring.decorators import call, job, step, transaction, workflow
from durable._core.authoring.flow import current, now, random, uuid4
from durable._core.authoring.op_constructors import (
    continue_as,
    for_each,
    gather,
    race,
    settle,
    sleep,
    sleep_until,
    start,
    timeout,
    wait_for,
)
from durable._core.journal.events import (
    GroupOpened,
    RunContinued,
    RunFailed,
    RunStarted,
    RunSucceeded,
    SignalAwaited,
    SignalReceived,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TimerSet,
)
from durable._core.journal.waits import Wait
from durable._core.policies.retry import Retry
from durable._core.program import callbacks, group_ops, ops, requests
from durable._core.program.command import Command
from durable._core.program.ops import ContinueAs, Flow, Op, Return
from durable._core.program.saying import set_attributes
from durable._core.run.execution import OPENERS
from durable.errors import DefinitionError, EncodeError, UsageError
from tests.core.drive import START, World, failure, kinds, run


@frozen
class Receipt:
    ride: int


@step
def add(a: int, b: int = 1) -> int:
    return a + b


@step
async def boom(text: str = "no") -> int:
    raise ValueError(text)


@step
def receipt(ride: int) -> Receipt:
    return Receipt(ride)


@transaction
def insert(tx, a: int) -> int:
    return a * 10


FRAGILE: set[int] = set()


@job
def fragile(a: int) -> int:
    if a in FRAGILE:
        raise ValueError(a)
    return a * 2


@job
def double(a: int) -> int:
    return a * 2


@job
def broken(a: int) -> int:
    raise LookupError(str(a))


def plain(a: int, b: str = "") -> str:
    return f"{a}{b}"


@workflow
async def both(a: int) -> Flow[int]:
    first: int = yield add(a)
    second = await add(first)
    yield Return(second)


def result(body):
    """
    The result of a coroutine workflow with this body.
    """
    return world(body).value()


def world(body, **options) -> World:
    return run(workflow(body)(), **options)


# --- steps and ends -----------------------------------------------------------------------------


def test_every_op_has_an_opener():
    """
    Whatever a workflow may yield, something opens it; `ContinueAs` ends the run instead.
    """
    found = {
        each
        for module in (ops, group_ops, callbacks, requests)
        for each in vars(module).values()
        if isinstance(each, type)
    }
    yielded = {each for each in found if issubclass(each, Command)} - {Command, Op, group_ops.GroupOp}
    assert OPENERS.keys() == yielded - {ContinueAs}


def test_yield_and_await_are_the_same_command():
    """
    Both forms record a step at the next position and receive its value.
    """
    w = run(both(1))
    assert w.value() == 3
    assert kinds(w.events) == [
        "RunStarted",
        "StepStarted 0",
        "StepSucceeded 0",
        "StepStarted 1",
        "StepSucceeded 1",
        "RunSucceeded",
    ]


def test_the_journal_of_one_step_as_a_whole():
    """
    A run of one step records its start, the command with its site and digest, the outcome, and the end.
    """

    async def body() -> int:
        return await add(2, b=3)

    w = world(body)
    first, command, outcome, end = w.events
    assert first == RunStarted("body", 1, "seed", "[[],{}]", START)
    assert isinstance(command, StepStarted)
    assert (command.name, command.attempt) == ("add", 1)
    assert command.site.startswith("core/test_ops.py:")
    assert len(command.digest) == 16
    assert outcome == StepSucceeded("0", "5", START + 1)
    assert end == RunSucceeded("5", START + 1)


def test_a_generator_that_falls_off_its_end_returns_none():
    """
    Without `Return` the result is None.
    """

    async def body() -> Flow[None]:
        yield add(1)

    assert result(body) is None


def test_return_runs_the_clean_up_and_keeps_its_value():
    """
    `yield Return` inside try/finally: the `finally` may still yield steps, then the value is the result.
    """

    async def body() -> Flow[str]:
        try:
            yield Return("kept")
        finally:
            yield add(1)

    w = world(body)
    assert w.value() == "kept"
    assert kinds(w.events)[1:3] == ["StepStarted 0", "StepSucceeded 0"]


def test_the_last_return_wins_where_clean_up_returns_too():
    """
    A `Return` in `finally` replaces the first, as in a plain function.
    """

    async def body() -> Flow[int]:
        try:
            yield Return(1)
        finally:
            yield Return(2)

    assert result(body) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's word on such a generator
def test_a_return_cannot_be_swallowed():
    """
    `except BaseException` around `yield Return` does not lose the value, even in an endless loop.
    """

    async def body() -> Flow[int]:
        while True:
            try:  # noqa: SIM105 - the form is the point
                yield Return(7)
            except BaseException:
                pass

    assert result(body) == 7


def test_values_arrive_decoded_by_annotation():
    """
    The workflow gets what was decoded from the journal, as the function's annotation says.
    """

    async def body() -> bool:
        return isinstance(await receipt(4), Receipt)

    assert result(body) is True


def test_a_failed_step_raises_its_own_type():
    """
    `except ValueError` catches what the step raised.
    """

    async def body() -> str:
        try:
            await boom("bad")
        except ValueError as error:
            return str(error)
        return "?"

    assert result(body) == "bad"


def test_an_uncaught_failure_ends_the_run_and_names_the_command():
    """
    RunFailed holds the error, and the positions of the commands that caused it.
    """

    async def body() -> None:
        await add(1)
        await boom()

    w = world(body)
    end = w.events[-1]
    assert isinstance(end, RunFailed)
    assert end.positions == ["1"]
    assert failure(end) == "ValueError: no"
    assert w.end.reason == "ValueError: no"


def test_call_makes_a_step_of_a_plain_function():
    """
    `call(fn, ...)` needs no decorator; the step has the function's qualified name.
    """

    async def body() -> str:
        return await call(plain, 1, b="x")

    w = world(body)
    assert w.value() == "1x"
    assert w.events[1].name == "plain"


def test_transactions_are_commands_of_their_own():
    """
    A transaction is recorded as such, and asked for as such.
    """

    async def body() -> int:
        return await insert(2)

    w = world(body)
    assert w.value() == 20
    assert [action.position for action in w.decisions[0].transactions] == ["0"]
    assert kinds(w.events)[1] == "TransactionStarted 0"


def test_a_result_that_cannot_be_recorded_fails_the_run():
    """
    What the workflow returns must make the round trip.
    """

    async def body() -> object:
        await add(1)
        return object()

    with pytest.raises(EncodeError):
        result(body)


# --- children -----------------------------------------------------------------------------------


def test_an_awaited_child_has_a_derived_id():
    """
    A job or workflow called in a workflow is a child run, named after parent and position.
    """

    async def body() -> list[int]:
        await add(1)
        return [await double(4), await both(1)]

    w = world(body)
    assert w.value() == [8, 3]
    assert list(w.children) == ["r~.1", "r~.2"]
    assert w.decisions[1].children[0].arguments == "[[4],{}]"


def test_a_failed_child_raises_its_error_with_a_note():
    """
    The error has the child's type, and says which run failed.
    """

    async def body() -> list[str]:
        try:
            await broken(3)
        except LookupError as error:
            return [str(error), *error.__notes__]
        return []

    assert result(body) == ["3", "in run 'r~.0', started at 0 of 'r'"]


def test_arguments_that_cannot_be_recorded_raise_where_the_child_is_awaited():
    """
    A refusal of the codec is an error at the user's line, on replay too; nothing is recorded for it.
    """

    async def body() -> str:
        try:
            await double(object())  # type: ignore[arg-type]
        except EncodeError:
            return f"refused {await add(1)}"
        return "?"

    w = world(body, freed=True)
    assert w.value() == "refused 2"
    assert kinds(w.events)[1] == "StepStarted 1"


def test_start_gives_a_handle_and_result_awaits_it():
    """
    `start` goes on at once; `result()` is a command of its own.
    """

    async def body() -> list[object]:
        child = await start(double(5))
        await add(1)
        return [child.run_id, await child.result()]

    w = world(body, freed=True)
    assert w.value() == ["r~.0", 10]
    assert kinds(w.events)[1:3] == ["ChildStarted 0", "StepStarted 1"]
    assert "ChildAwaited 2" in kinds(w.events)


def test_a_keyed_start_waits_to_be_told_which_run_it_is():
    """
    Two starts of one key give the same child: `ChildJoined` says which.
    """

    async def body() -> list[object]:
        one = await start(double(5), key="k")
        two = await start(double(5), key="k")
        return [one.run_id, two.run_id, await two.result()]

    w = world(body, freed=True)
    assert w.value() == ["r~.0", "r~.0", 10]
    assert kinds(w.events).count("ChildJoined 0") == 1


def test_a_start_with_a_chosen_id_waits_to_be_told_too():
    """
    Its run may exist already, so `start(id=...)` is answered by `ChildJoined`.
    """

    async def body() -> str:
        return (await start(double(5), id="mine")).run_id

    w = World(workflow(body)())
    decision = w.begin()
    assert decision.children[0].run_id == "mine"
    assert not decision.waits
    assert not w.ended


def test_continue_as_ends_this_run_and_names_its_successor():
    """
    Ids of a chain are r, r~2, r~3; the successor's arguments go with the decision.
    """

    @workflow
    async def endless(n: int) -> None:
        await add(n)
        await continue_as(endless(n + 1))

    first = run(endless(1))
    assert isinstance(first.events[-1], RunContinued)
    assert (first.end.continued.run_id, first.end.continued.arguments) == ("r~2", "[[2],{}]")
    assert run(endless(1), run_id="r~2").end.continued.run_id == "r~3"
    assert run(endless(1), run_id="~x").end.continued.run_id == "~x~2"


def test_continue_as_in_a_member_withdraws_what_is_open():
    """
    Steps and children of other members are cancelled with the end.
    """

    @workflow
    async def looping() -> None:
        async def over() -> None:
            await sleep(1)
            await continue_as(looping())

        await gather(add(1), double(1), over())

    w = World(looping())
    w.begin()
    decision = w.fire("0.2.0")
    assert decision.cancelled_steps == ["0.0"]
    assert decision.cancelled_children == ["r~.0.1"]
    assert decision.ended == "succeeded"


# --- time and signals ---------------------------------------------------------------------------


def test_sleep_is_a_timer_with_a_fixed_due_time():
    """
    The due time is recorded when the timer is set, so a replay cannot move it.
    """

    async def body() -> None:
        await sleep(timedelta(minutes=1))

    w = world(body, freed=True)
    assert isinstance(w.events[1], TimerSet)
    assert w.events[1].fire_at == START + 60
    assert w.events[2] == TimerFired("0", START + 60)


def test_sleep_until_takes_an_aware_datetime():
    """
    Its due time is the datetime's; naive ones are refused where they are made.
    """

    async def body() -> str:
        await sleep_until(datetime.fromtimestamp(5, UTC))
        try:
            sleep_until(datetime(2020, 1, 1))  # noqa: DTZ001
        except ValueError as error:
            return str(error)
        return "?"

    w = world(body)
    assert w.events[1].fire_at == 5
    assert "aware" in w.value()


def test_a_wait_for_takes_signals_in_order_early_ones_included():
    """
    Signals are kept until consumed, first in first out, each once.
    """

    async def body() -> list[int]:
        await sleep(10)
        return [await wait_for("n", int), await wait_for("n", int), await wait_for("n", int)]

    w = World(workflow(body)())
    w.begin()
    w.signal("n", 1)
    w.signal("n", 2)
    w.fire("0")
    w.signal("n", 3)
    assert w.value() == [1, 2, 3]


def test_a_wait_for_times_out():
    """
    `timeout=` raises TimeoutError; a later signal is kept for the next one.
    """

    async def body() -> list[object]:
        try:
            await wait_for("go", int, timeout=5)
        except TimeoutError as error:
            return [str(error), await wait_for("go", int)]
        return []

    w = World(workflow(body)())
    (wait,) = w.begin().waits
    assert (wait.kind, wait.name, wait.fire_at) == ("signal", "go", START + 5)
    w.fire("0")
    w.signal("go", 4)
    assert w.value() == ["no signal 'go' came in time", 4]


def test_a_payload_of_the_wrong_type_raises_in_the_workflow():
    """
    The sender's mistake can be answered by the workflow.
    """

    async def body() -> str:
        try:
            await wait_for("go", Receipt)
        except Exception as error:
            return type(error).__name__
        return "?"

    w = World(workflow(body)())
    w.begin()
    w.signal("go", "no receipt")
    assert w.value() == "SignalPayloadError"


def test_a_signal_without_payload_is_none():
    """
    An event without a value reads as None.
    """

    async def body() -> object:
        return await wait_for("go")

    w = World(workflow(body)())
    w.begin()
    w.turn(SignalReceived("go", None, START))
    assert w.value() is None
    assert isinstance(w.events[1], SignalAwaited)


# --- groups -------------------------------------------------------------------------------------


async def twice(a: int) -> int:
    return await add(await add(a))


def test_gather_gives_results_in_argument_order_and_numbers_members():
    """
    Members are at 0.0, 0.1; commands of a helper at 0.1.0, 0.1.1; results in the order of the arguments.
    """

    async def body() -> list[object]:
        return await gather(add(1), twice(10), double(3))

    w = world(body, choose=lambda n: n - 1)
    assert w.value() == [2, 12, 6]
    assert kinds(w.events)[1:5] == ["GroupOpened 0", "StepStarted 0.0", "ChildStarted 0.2", "StepStarted 0.1.0"]
    assert "StepStarted 0.1.1" in kinds(w.events)


def test_an_empty_gather_is_done_at_once():
    """
    No members: an empty list, in the same turn.
    """

    async def body() -> list[int]:
        return await gather()

    w = world(body)
    assert w.value() == []
    assert len(w.decisions) == 1


def test_gather_waits_for_all_then_raises_the_group_of_failures():
    """
    Without options every member ends before the ExceptionGroup of all failures is raised.
    """

    async def body() -> list[str]:
        try:
            await gather(boom("a"), add(1), boom("c"), twice(1))
        except ExceptionGroup as group:
            return [group.message, *(str(error) for error in group.exceptions)]
        return []

    w = world(body)
    assert w.value() == [["2 of 4 failed", "2 sub-exceptions)"][0], "a", "c"]
    assert kinds(w.events).count("StepSucceeded 0.3.1") == 1


def test_fail_fast_cancels_the_rest():
    """
    The first failure cancels running steps and children, and raises alone.
    """

    async def body() -> int:
        try:
            await gather(add(1), boom(), double(1), sleep(5), fail_fast=True)
        except ExceptionGroup as group:
            return len(group.exceptions)
        return 0

    w = World(workflow(body)())
    w.begin()
    decision = w.fail("0.1", ValueError())
    assert decision.cancelled_steps == ["0.0"]
    assert decision.cancelled_children == ["r~.0.2"]
    assert {wait.kind for wait in decision.waits_closed} == {"timer"}
    w.stop("0.0")
    w.end_child("0.2")
    assert w.value() == 1


def test_return_exceptions_puts_failures_in_place():
    """
    Failures stand where their results would.
    """

    async def body() -> list[str]:
        return [repr(each) for each in await gather(add(1), boom("x"), return_exceptions=True)]

    assert result(body) == ["2", "ValueError('x')"]


def test_a_group_of_helpers_may_hold_base_exceptions():
    """
    A helper that raises what is not an Exception makes a BaseExceptionGroup, which fails the run.
    """

    class Odd(BaseException):
        pass

    async def odd() -> None:
        await add(1)
        raise Odd

    async def body() -> None:
        await gather(odd(), add(2))

    with pytest.raises(RuntimeError, match="workflow code raised BaseExceptionGroup"):
        result(body)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(2), GeneratorExit, asyncio.CancelledError])
def test_whatever_workflow_code_raises_is_the_failure_of_its_run(error):
    """
    Also what ends programs elsewhere: raised by the code, it is the run's own affair.
    """

    async def helper() -> None:
        await add(1)
        raise error

    async def body() -> None:
        raise error

    async def group() -> None:
        await gather(helper(), add(2))

    name = error.__name__ if isinstance(error, type) else type(error).__name__
    with pytest.raises(RuntimeError, match=f"workflow code raised {name}"):
        result(body)
    with pytest.raises(RuntimeError, match="workflow code raised BaseExceptionGroup: 1 of 2 failed"):
        result(group)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_what_a_signal_raises_in_workflow_code_is_for_the_program(sign):
    """
    Ctrl-C, or a handler that exits, may strike between any two lines: it leaves `advance`, and fails no run.
    """

    async def body() -> None:
        signal.raise_signal(sign)

    # Set in any case: a shell lets what it starts in the background ignore SIGINT.
    before = signal.signal(sign, signal.default_int_handler if sign == signal.SIGINT else lambda *_: sys.exit(3))
    try:
        with pytest.raises(KeyboardInterrupt if sign == signal.SIGINT else SystemExit):
            World(workflow(body)()).begin()
    finally:
        signal.signal(sign, before)


def test_gather_takes_one_iterable_or_none():
    """
    `gather([a, b])`, `gather(None)` and a list emptied by a filter mean what one expects.
    """

    async def body() -> list[object]:
        listed = await gather(add(each) for each in (1, 2))
        return [listed, await gather(None), await gather([add(each) for each in (1, 2) if each > 2])]

    assert result(body) == [[2, 3], [], []]


def test_a_quorum_cancels_the_rest():
    """
    `at_least=2`: the second success ends it; the list holds the results of those that succeeded, in order.
    """

    async def body() -> list[int]:
        return await gather(add(1), double(1), add(3), sleep(5), at_least=2)

    w = World(workflow(body)())
    w.begin()
    w.fail("0.0", ValueError())
    assert not w.ended
    w.succeed("0.2", 4)
    assert not w.ended
    decision = w.end_child("0.1")
    assert w.value() == [2, 4]
    assert [wait.kind for wait in decision.waits_closed] == ["timer"]


def test_a_quorum_that_cannot_be_reached_raises_at_once():
    """
    Two of three have failed, two were wanted: the third is cancelled, the group of failures raised.
    """

    async def body() -> int:
        try:
            await gather(boom("a"), boom("b"), add(1), at_least=2)
        except ExceptionGroup as group:
            return len(group.exceptions)
        return 0

    w = World(workflow(body)())
    w.begin()
    w.fail("0.0", ValueError())
    decision = w.fail("0.1", ValueError())
    assert decision.cancelled_steps == ["0.2"]
    w.stop("0.2")
    assert w.value() == 2


@pytest.mark.parametrize("options", [{"at_least": 0}, {"at_least": 3}, {"at_least": 1, "fail_fast": True}])
def test_a_quorum_of_the_wrong_size_is_refused(options):
    """
    At least one, at most all, and no other policy beside it.
    """
    with pytest.raises(ValueError, match="at_least must be 1 to 2"):
        gather(add(1), add(2), **options)


def test_race_gives_the_first_and_cancels_the_others():
    """
    The winner's index and value; losing steps, children and timers are cancelled.
    """

    async def body() -> list[object]:
        winner = await race(add(1), double(2), sleep(9), wait_for("x"))
        return [winner.index, winner.value, winner.key]

    w = World(workflow(body)())
    w.begin()
    decision = w.end_child("0.1")
    assert decision.cancelled_steps == ["0.0"]
    assert not w.ended
    w.stop("0.0")
    assert w.value() == [1, 4, None]
    assert {wait.position for wait in decision.waits_closed} == {"0.2", "0.3"}


def test_a_race_of_a_mapping_names_the_winner():
    """
    `Winner.key` is the winner's key.
    """

    async def body() -> str:
        return (await race({"yes": wait_for("yes"), "no": wait_for("no")})).key

    w = World(workflow(body)())
    w.begin()
    w.signal("no")
    assert w.value() == "no"


def test_a_winner_that_failed_raises():
    """
    First to end wins, failures too.
    """

    async def body() -> None:
        await race(boom("first"), sleep(5))

    with pytest.raises(ValueError, match="first"):
        result(body)


def test_a_losing_wait_for_consumes_nothing():
    """
    The signal that comes after the race is there for the next `wait_for`.
    """

    async def body() -> int:
        await race(add(1), wait_for("n", int))
        return await wait_for("n", int)

    w = World(workflow(body)())
    w.begin()
    w.succeed("0.0", 2)
    w.signal("n", 5)
    assert w.value() == 5


def test_members_of_a_race_that_is_over_never_start():
    """
    With a signal kept from before, the race is decided while it opens: later members are not even asked for.
    """
    ran = []

    async def late() -> None:
        ran.append(1)
        await add(1)

    async def body() -> list[object]:
        await sleep(1)
        winner = await race(add(5), double(1), late(), wait_for("n", int), add(9), late())
        return [winner.index, winner.value]

    w = World(workflow(body)())
    w.begin()
    w.signal("n", 3)
    decision = w.fire("0")
    assert w.value() == [3, 3]
    assert ran == []
    assert not any((decision.steps, decision.children, decision.cancelled_steps, decision.cancelled_children))
    assert not decision.waits
    assert kinds(decision.events)[2:] == [
        "StepStarted 1.0",
        "ChildStarted 1.1",
        "SignalAwaited 1.3",
        "StepCancelled 1.0",
        "RunSucceeded",
    ]


def test_timeout_gives_the_value_in_time():
    """
    The member's value, and the timer's row is closed.
    """

    async def body() -> int:
        return await timeout(twice(1), 5)

    w = World(workflow(body)())
    w.begin()
    w.succeed("0.0.0", 2)
    decision = w.succeed("0.0.1", 3)
    assert w.value() == 3
    assert [wait.position for wait in decision.waits_closed] == ["0"]


def test_timeout_raises_and_cancels_too_late():
    """
    TimeoutError, and the member is cancelled: clean-up of a helper runs first.
    """
    seen = []

    async def slow() -> None:
        try:
            await add(1)
        finally:
            seen.append(await add(2))

    async def body() -> str:
        try:
            await timeout(slow(), 5)
        except TimeoutError as error:
            return str(error)
        return "?"

    w = World(workflow(body)())
    w.begin()
    decision = w.fire("0")
    assert decision.cancelled_steps == ["0.0.0"]
    assert w.steps == []
    w.stop("0.0.0")
    assert not w.ended
    w.succeed("0.0.1", 3)
    assert w.value() == "not done within 5 s"
    assert seen == [3]


def test_settle_never_raises():
    """
    A `Settled` with the value or the error.
    """

    async def body() -> list[object]:
        good, bad = await settle(add(1)), await settle(boom("x"))
        return [good.ok, good.get(), bad.ok, str(bad.error), bad.value]

    assert result(body) == [True, 2, False, "x", None]


def test_groups_nest_in_each_other():
    """
    Gathers, races, timeouts, settles and helpers may hold each other; positions follow the nesting.
    """

    async def helper() -> int:
        winner = await race(timeout(gather(add(1), add(2)), 60), sleep(100))
        return sum(winner.value)

    async def body() -> list[object]:
        inner, settled = await gather(gather(helper(), add(5)), settle(timeout(boom(), 9)))
        return [inner, settled.ok]

    w = world(body)
    assert w.value() == [[5, 6], False]
    opened = [event.position for event in w.events if isinstance(event, (GroupOpened, TimerSet))]
    assert opened == ["0", "0.0", "0.1", "0.1.0", "0.0.0.0", "0.0.0.0.0", "0.0.0.0.0.0", "0.0.0.0.1"]


@pytest.mark.parametrize("items", [[], [None], [0, 0, 0], ["", None, False, 1]])
def test_for_each_takes_any_items(items):
    """
    Duplicates, None and falsy items are items; none is no work.
    """
    seen = []

    @step
    def note(item: object) -> object:
        seen.append(item)
        return [item]

    async def body() -> list[object]:
        return await for_each(note, items)

    assert result(body) == [[item] for item in items]
    assert seen == items


def test_for_each_keeps_a_window():
    """
    At most `concurrency` children exist at once; None starts all.
    """

    def started(concurrency):
        async def body() -> list[int]:
            return await for_each(double, [1, 2, 3, 4], concurrency=concurrency)

        w = World(workflow(body)())
        assert len(w.begin().children) == (concurrency or 4)
        counts = []
        while not w.ended:
            counts.append(len(w.waits))
            w.end_child(w.waits[-1].position)
        assert w.value() == [2, 4, 6, 8]
        return counts

    assert started(1) == [1, 1, 1, 1]
    assert started(2) == [2, 2, 2, 1]
    assert started(None) == [4, 3, 2, 1]


def test_the_window_of_a_for_each_over_children_is_the_recorded_one():
    """
    The file starts the later children, so code with another window replays as if nothing had changed.
    """

    def mapper(concurrency):
        @workflow(name="mapper")
        async def body() -> list[int]:
            return await for_each(double, range(6), concurrency=concurrency)

        return body

    w = World(mapper(2)())
    w.begin()
    w.end_child("0.0")
    w.op = mapper(5)()
    w.freed = True
    assert w.run_on() == [0, 2, 4, 6, 8, 10]


def test_a_retried_for_each_goes_on_without_its_feed():
    """
    A failure ends the feed; retried, the turns of the run itself move the window over what is left.
    """
    from durable._core.journal.history import reopened

    async def body() -> list[int]:
        return await for_each(fragile, [1, 2, 3, 4, 5], concurrency=2)

    fragile.fn.__globals__["FRAGILE"] = {2}
    w = World(workflow(body)())
    w.run()
    assert w.end.ended == "failed"
    fragile.fn.__globals__["FRAGILE"] = set()
    again = World(w.op)
    events = [*w.events, reopened(w.events, w.now)]
    again.children = w.children
    again.children["r~.0.1"] = World(fragile(2), "r~.0.1")
    again.waits = [Wait("0.1", "child", "0.1", run_id="r~.0.1")]
    again.begin(events)
    assert again.run_on() == [2, 4, 6, 8, 10]


def test_for_each_starts_no_more_items_after_a_failure():
    """
    With concurrency 1 the error itself is raised; otherwise a group, once those under way have ended.
    """
    tried = []

    @step
    def pick(n: int) -> int:
        tried.append(n)
        if n == 2:
            raise ValueError("two")
        return n

    async def one() -> None:
        await for_each(pick, [1, 2, 3, 4])

    async def more() -> None:
        await for_each(pick, [2, 1, 3, 4], concurrency=2)

    with pytest.raises(ValueError, match="two"):
        result(one)
    assert tried == [1, 2]
    tried.clear()
    with pytest.raises(ExceptionGroup):
        result(more)
    assert tried == [2, 1]


def test_the_items_are_recorded_once():
    """
    A replay uses the recorded items, whatever the code would evaluate to now.
    """
    source = [1, 2, 3]

    async def body() -> list[int]:
        return await for_each(add, list(source))

    w = World(workflow(body)(), freed=True)
    w.begin()
    source.append(99)
    while not w.ended:
        w.happen()
    assert w.value() == [2, 3, 4]


# --- what is refused where it is made -----------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: gather(add), TypeError, "member 0 of gather must be an op.*the function 'add' itself"),
        (lambda: gather(3), TypeError, "int 3"),
        (lambda: race(), ValueError, "at least one"),  # noqa: PLW0108 - the form is the point
        (lambda: timeout(add(1), float("nan")), ValueError, "finite"),
        (lambda: sleep(float("inf")), ValueError, "finite"),
        (lambda: for_each(plain, []), TypeError, "decorated step.*async function that awaits ops.*found function"),
        (lambda: for_each(add, [], concurrency=0), ValueError, "at least 1"),
        (lambda: for_each(both.fn, []), TypeError, "decorated"),
        (lambda: for_each(add(1), []), TypeError, "itself, not a call of it; found a call of step 'add'"),
        (lambda: for_each(add, [], concurrency="2"), ValueError, "a whole number of at least 1, or None, found '2'"),
        (lambda: gather(add(1), at_least="1"), ValueError, "at_least must be 1 to 1, and alone, found '1'"),
        (lambda: sleep_until(5), TypeError, "needs an aware datetime, found 5 .for a number of seconds use sleep"),
        (lambda: double(1).then(add(1)), TypeError, "calls of workflows and jobs.*; found a call of step 'add'"),
        (lambda: double(1).then(double), TypeError, r"found the function 'double' itself \(call it\)"),
        (lambda: double(1).then([double(1)]), TypeError, r"found list .*write then\(a, b\)"),
        (lambda: start(None), TypeError, "expected a call of a @workflow or @job, found None"),
        (lambda: start(add(1)), TypeError, "found a call of step 'add' .*decorate it with @job"),
        (lambda: start(double(1), delay="5"), DefinitionError, "delay must be a number of seconds, found '5'"),
        (
            lambda: start(double(1), key_ttl=-5),
            DefinitionError,
            "key_ttl must be a positive number of.*found -5",
        ),
        (lambda: start(double(1), priority="high"), DefinitionError, "priority must be a whole number, found 'high'"),
        (
            lambda: double(1).options(priority=2**70),
            DefinitionError,
            "priority must be a whole number from -9223372036854775808 to 9223372036854775807, found 71 bits",
        ),
        (lambda: double(1).options(delay=10**400), DefinitionError, "delay must be a number of seconds, found 1"),
        (lambda: start(double(1), labels="a"), DefinitionError, "labels must be a mapping of strings.*found 'a'"),
        (lambda: start(double(1), at="tomorrow"), ValueError, "aware datetime, found 'tomorrow'"),
        (lambda: add(1).options(timeout="5"), DefinitionError, "timeout must be a positive number of seconds"),
        (lambda: add(1).options(retry="5"), ValueError, "a whole number of at least 1, found '5'"),
        (lambda: sleep("5"), ValueError, "sleep takes a finite number of seconds, found '5'"),
        (lambda: wait_for(5), TypeError, "wait_for takes the name of a signal, found int 5"),
        (lambda: start(double(1), nonsense=1), UsageError, "unknown option nonsense; known are at, delay"),
        (lambda: start(double(1), on_conflict="maybe"), ValueError, "on_conflict"),
        (lambda: start(double(1), at=datetime(2020, 1, 1)), ValueError, "aware"),  # noqa: DTZ001
        (lambda: continue_as(3), TypeError, "expected a call of a @workflow or @job"),
        (lambda: add(), TypeError, "missing a required argument"),  # noqa: PLW0108 - the form is the point
        (lambda: call(add, 1), TypeError, "undecorated"),
    ],
)
def test_wrong_ops_are_refused_where_they_are_made(make, error, words):
    """
    A mistake raises at the user's line, not in the engine.
    """
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Retry("5"), "a whole number of at least 1, found '5'"),
        (lambda: Retry(delay="1"), "delay must be a number and not negative, found '1'"),
        (lambda: Retry(on="ConnectionError"), "an exception type, a tuple of them, or a predicate, found 'Conn"),
        (lambda: Retry(on=(ValueError, "KeyError")), "a tuple of them, or a predicate"),
        (lambda: Retry(on=int), "a tuple of them, or a predicate"),
        (lambda: Retry(on=twice), "a tuple of them, or a predicate, found <function twice"),
        (lambda: step(timeout="5")(plain), "@step: timeout must be a positive number of seconds, found '5'"),
        (lambda: job(priority="high")(plain), "<job 'plain'>: priority must be a whole number, found 'high'"),
        (lambda: job(version="2")(plain), "<job 'plain'>: version must be a whole number, found '2'"),
        (lambda: job(version=2**63)(plain), "<job 'plain'>: version must be a whole number from -922"),
    ],
)
def test_wrong_options_are_refused_where_they_are_written(make, words):
    """
    Not when a step fails for the first time.
    """
    with pytest.raises((ValueError, DefinitionError), match=words):
        make()


def test_options_of_start_are_kept():
    """
    `start(op, delay=timedelta, at=datetime, retry=int)` are normalised to seconds and policies.
    """
    op = start(double(1), delay=timedelta(minutes=1), retry=3, key="k").op
    assert (op.given.delay, op.given.retry.attempts, op.given.key) == (60.0, 3, "k")
    assert start(double(1), at=datetime.fromtimestamp(9, UTC)).op.given.at == 9


# --- plain functions of workflow code -----------------------------------------------------------


def test_workflow_functions_answer_deterministically():
    """
    now, uuid4 and random give the same in every replay; current() tells where the code stands.
    """

    async def body() -> list[object]:
        first = [now().isoformat(), str(uuid4()), random().random()]
        await add(1)
        here = current()
        return [*first, now().isoformat(), random().random(), here.run_id, here.workflow, here.position]

    live, replayed = world(body), world(body, freed=True)
    assert live.value() == replayed.value()
    assert live.events == replayed.events
    values = live.value()
    assert values[0] != values[3]
    assert uuid.UUID(values[1]).version == 4
    assert values[2] != values[4]
    assert values[5:] == ["r", "body", "1"]


def test_attributes_are_published_once():
    """
    `set_attributes` merges within a turn, and a replay publishes nothing again.
    """

    async def body() -> None:
        set_attributes(a=1)
        set_attributes(b=2)
        await add(1)
        set_attributes(a=3)

    w = world(body, freed=True)
    assert [decision.attributes for decision in w.decisions] == [{"a": 1, "b": 2}, {"a": 3}]
    assert kinds(w.events).count("AttributesSet") == 3


def test_attributes_that_cannot_be_recorded_raise_in_live_code_and_replay():
    """
    Code that catches the refusal takes the same path in both.
    """

    async def body() -> str:
        try:
            set_attributes(a=object())
        except EncodeError:
            return f"refused {await add(1)}"
        return "?"

    assert world(body, freed=True).value() == "refused 2"
