"""
Histories: rows and back, retries that go on where a run failed, forks, and old ends replayed.
"""

import json
from typing import Any, get_args

import pytest

from durable._core.authoring.decorators import job, step, transaction, workflow
from durable._core.authoring.flow import now, patched
from durable._core.authoring.op_constructors import for_each, gather, settle, sleep, timeout, wait_for
from durable._core.journal import events as event_module
from durable._core.journal import history
from durable._core.journal.columns import from_row, to_row
from durable._core.journal.events import (
    EVENT_CLASSES,
    KIND_NAMES,
    Arrival,
    CommandEvent,
    End,
    Event,
    Note,
    Revision,
    RunFailed,
    RunForked,
    RunRetried,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    StepInterrupted,
    StepSnoozed,
    StepStarted,
    TimerSet,
)
from durable._core.journal.waits import Wait
from durable._core.policies.caps import Caps
from durable._core.policies.retry import Retry
from durable.errors import CapExceededError, DecodeError, InternalError, NondeterminismError, UsageError
from tests.core.drive import CODEC, START, World, again, execution, kinds, run

broken: set[Any] = set()
ran: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh():
    broken.clear()
    ran.clear()


@step
def work(n: object = 0) -> object:
    ran.append(n)
    if n in broken:
        raise ValueError(n)
    return n


@step(retry=Retry(2, delay=1.0))
def tried(n: int) -> int:
    ran.append(n)
    if n in broken:
        raise ValueError(n)
    return n


@job
def child(n: int) -> int:
    if n in broken:
        raise ValueError(n)
    return n


def failed_run(body, *bad: Any) -> World:
    broken.update(bad)
    world = run(workflow(name="wf")(body)())
    assert world.end.ended == "failed"
    broken.clear()
    ran.clear()
    return world


def retried(body, world: World, *, at: float = 9_000.0) -> World:
    """
    The run of *world*, retried at *at* with the code of *body*.
    """
    events = [*world.events, history.reopened(world.events, at)]
    again = World(workflow(name="wf")(body)(), children=world.children, now=at)
    again.begin(events)
    return again


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(EVENT_CLASSES))
def test_every_event_survives_its_row(kind):
    """
    What `from_row` makes of `to_row` is the same event.
    """
    cls = EVENT_CLASSES[kind]
    values = {
        "positions": ["1", "2.0"],
        "value": '"x"',
        "fire_at": 2.5,
        "seconds": 1.5,
        "awaited": True,
        "crashed": False,
    }
    numbers = {"version": 1, "attempt": 2, "cut": 3, "size": 4, "arrivals": 5, "at": 6.5}
    names = [each.name for each in cls.__attrs_attrs__]
    event = cls(**{name: values.get(name, numbers.get(name, f"<{name}>")) for name in names})
    found_kind, position, body, value = to_row(event)
    assert from_row(found_kind, position, body, value, event.at) == event
    assert KIND_NAMES[kind] == cls.__name__


@pytest.mark.parametrize("digest", ["", "0f" * 8, "a,b", 'a"]', "a\\", '","', ",", "]", "é", " "])
@pytest.mark.parametrize("name", ["ok", 'say "hello", twice]', "é\\,[1]"])
def test_a_start_of_a_step_survives_its_row_whatever_its_texts_hold(name, digest):
    """
    They are read in two parts, the first of which is read once for all starts of a step.
    """
    event = StepStarted("0", name, 2, f"{name}.py:1", digest, 1.5)
    kind, position, body, value = to_row(event)
    assert json.loads(body) == [name, 2, f"{name}.py:1", digest]
    assert from_row(kind, position, body, value, 1.5) == event
    assert from_row(kind, position, json.dumps(json.loads(body)), value, 1.5) == event


def test_rows_of_another_release_are_refused():
    """
    An unknown kind, or another number of fields.
    """
    with pytest.raises(DecodeError, match="newer"):
        from_row(99, None, None, None, 0.0)
    with pytest.raises(DecodeError, match="fields"):
        from_row(StepStarted.kind, "0", '["a"]', None, 0.0)
    for body in ('["a","d"]', '["a",1,"d"]', '["a",1,"s",2,"d"]'):
        with pytest.raises(DecodeError, match="4 fields"):
            from_row(StepStarted.kind, "0", body, None, 0.0)


def test_every_event_class_stands_in_the_union_of_its_category():
    """
    None is left out, or stands in two; type checkers see that its category is that of its union.
    """
    recorded = {cls for cls in vars(event_module).values() if isinstance(cls, type) and hasattr(cls, "kind")}
    assert recorded == set(EVENT_CLASSES.values()) == set(get_args(Event))
    unions = {"command": CommandEvent, "arrival": Arrival, "note": Note, "revision": Revision, "end": End}
    for category, union in {**unions, "start": RunStarted}.items():
        assert {cls for cls in recorded if cls.category == category} == set(get_args(union) or (union,))


def test_no_two_event_classes_have_one_number():
    """
    Journals tell them by it.
    """
    assert len(EVENT_CLASSES) == len(get_args(Event))


def test_a_history_begins_with_its_start():
    """
    Anything else is a bug of ours.
    """
    with pytest.raises(InternalError):
        history.read([])


# --- replaying what has ended -------------------------------------------------------------------


def test_an_ended_history_replays_to_its_end():
    """
    For debugging at a desk: the same end, and no new decision.
    """

    async def body() -> object:
        return [await work(1), now().timestamp()]

    world = run(workflow(name="wf")(body)())
    ex = execution(world.op, world.events)
    assert ex.ended
    assert ex.advance([], now=5_000.0).events == []
    ex.close()

    async def fails() -> object:
        await work(1)
        now()
        raise ValueError

    with pytest.raises(NondeterminismError):
        execution(workflow(name="wf")(fails)(), world.events)


def test_a_history_has_a_cap():
    """
    The run fails to go on with a typed error, and is warned about before.
    """

    async def body() -> None:
        for _ in range(10):
            await work()

    with pytest.raises(CapExceededError, match="continue_as"):
        run(workflow(name="wf")(body)(), options={"caps": Caps(events=5)})


# --- retries ------------------------------------------------------------------------------------


def test_a_retry_goes_on_at_the_step_that_failed():
    """
    Completed steps are not run again; the failed one begins with a fresh count of attempts.
    """

    async def body() -> list[object]:
        return [await work(1), await tried(2), await work(3)]

    world = failed_run(body, 2)
    world = retried(body, world)
    assert [(action.position, action.attempt, action.failures) for action in world.steps] == [("1", 1, 0)]
    while not world.ended:
        world.happen()
    assert world.value() == [1, 2, 3]
    assert ran == [2, 3]
    for survived in range(world.events.index(next(e for e in world.events if isinstance(e, RunRetried))) + 1, 20):
        if survived < len(world.events) and world.events[survived].category == "arrival":
            assert again(world.op, world.events, survived) == world.events


def test_a_second_failure_can_be_retried_too():
    """
    Each retry cuts what the ones before it left.
    """

    async def body() -> object:
        return [await work(1), await work(2)]

    world = failed_run(body, 1)
    broken.add(2)
    world = retried(body, world)
    while not world.ended:
        world.happen()
    broken.clear()
    world = retried(body, world)
    while not world.ended:
        world.happen()
    assert world.value() == [1, 2]
    assert sum(isinstance(event, RunRetried) for event in world.events) == 2


@pytest.mark.parametrize("concurrency", [1, 3, None])
def test_for_each_goes_on_at_the_item_that_failed(concurrency):
    """
    Items that are done are not touched; their results are in place.
    """

    async def body() -> object:
        return await for_each(work, [1, None, 2, 2, 0], concurrency=concurrency)

    world = retried(body, failed_run(body, None))
    while not world.ended:
        world.happen()
    assert world.value() == [1, None, 2, 2, 0]
    assert ran[0] is None
    assert 1 not in ran


def test_members_that_succeeded_after_the_failure_stay():
    """
    A gather waited for them: their outcomes count.
    """

    async def body() -> object:
        return await gather(work(1), work(2), work(3))

    world = retried(body, failed_run(body, 1, 2))
    while not world.ended:
        world.happen()
    assert world.value() == [1, 2, 3]
    assert ran == [1, 2]


def test_what_a_failure_cancelled_is_asked_for_again():
    """
    The other members of a fail_fast gather, timers with a new due time and children with a new id.
    """

    async def body() -> object:
        return await gather(work(1), work(2), sleep(60), child(3), fail_fast=True)

    world = failed_run(body, 1)
    world = retried(body, world, at=9_000.0)
    assert [action.position for action in world.steps] == ["0.0", "0.1"]
    assert [wait.fire_at for wait in world.waits if wait.kind == "timer"] == [9_060.0]
    assert [action.run_id for action in world.decisions[0].children] == ["r~.0.3-2"]
    while not world.ended:
        world.happen()
    assert world.value() == [1, 2, None, 3]


def test_a_timeout_that_failed_the_run_gets_its_time_anew():
    """
    Both the deadline and what it cancelled are asked for again.
    """

    async def body() -> object:
        return await timeout(gather(work(1), sleep(50)), 10)

    world = World(workflow(name="wf")(body)())
    world.begin()
    world.succeed("0.0.0", 1)
    world.fire("0")
    assert world.end.ended == "failed"
    world = retried(body, world, at=9_000.0)
    assert sorted(wait.fire_at for wait in world.waits) == [9_010.0, 9_050.0]
    assert world.steps == []
    world.fire("0.0.1")
    assert world.value() == [1, None]


def test_a_failed_child_is_kept_for_its_own_retry():
    """
    Its parent waits for it again: the same run, so nothing that it completed is repeated.
    """

    async def body() -> object:
        return await child(7)

    world = failed_run(body, 7)
    assert kinds(history.failed_outcomes(world.events)) == ["ChildFailed 0"]
    world = retried(body, world)
    assert list(world.children) == ["r~.0"]
    assert not world.decisions[0].children
    world.children["r~.0"] = World(child(7), "r~.0")
    world.waits.append(Wait("0", "child", "0", run_id="r~.0"))
    world.end_child("0")
    assert world.value() == 7


def test_a_mended_workflow_goes_on_after_its_own_error():
    """
    Nothing is asked again; time goes on from the retry, and `patched` is true at the end of the old history.
    """

    async def old() -> object:
        await work(1)
        raise ValueError

    async def new() -> object:
        await work(1)
        mended, at = patched("mended"), now().timestamp()
        await sleep(5)
        return [mended, at]

    world = retried(new, failed_run(old), at=9_000.0)
    assert [wait.fire_at for wait in world.waits] == [9_005.0]
    world.fire("1")
    assert world.value() == [True, 9_000.0]
    assert ran == []
    ex = execution(world.op, world.events)
    assert ex.ended
    ex.close()


def test_unmended_code_fails_again():
    """
    A retry of a run whose own code raises the same error ends at once.
    """

    async def body() -> None:
        await work(1)
        raise ValueError

    world = retried(body, failed_run(body))
    assert world.end.ended == "failed"
    assert isinstance(world.events[-1], RunFailed)


def test_a_run_that_was_out_of_time_can_be_retried():
    """
    What it waited for then is asked for again.
    """

    async def body() -> object:
        await work(1)
        return await gather(sleep(60), wait_for("x"))

    world = World(workflow(name="wf")(body)())
    world.begin()
    world.succeed("0", 1)
    world.turn(RunTimedOut(30.0, START))
    world = retried(body, world, at=9_000.0)
    assert [wait.fire_at for wait in world.waits] == [9_060.0, None]
    world.signal("x", 2)
    world.fire("1.0")
    assert world.value() == [None, 2]


def test_signals_survive_a_retry():
    """
    One that came after the failure's cut, and was not consumed, is still there.
    """

    async def body() -> object:
        await gather(work(1), work(2))
        return await wait_for("x")

    world = World(workflow(name="wf")(body)())
    world.begin()
    world.fail("0.0", ValueError())
    world.signal("x", 5)
    world.succeed("0.1", 2)
    world = retried(body, world)
    world.succeed("0.0", 1)
    assert world.value() == 5


def test_only_failed_runs_are_retried():
    """
    Others have nothing to cut.
    """

    async def body() -> None:
        await work(1)

    with pytest.raises(UsageError, match="no failure"):
        history.reopened(run(workflow(name="wf")(body)()).events, START)


def test_a_caught_failure_stays():
    """
    A failure that the code dealt with is not what failed the run.
    """

    async def body() -> object:
        settled = await settle(work(1))
        return [settled.ok, await work(2)]

    world = retried(body, failed_run(body, 1, 2))
    while not world.ended:
        world.happen()
    assert world.value() == [False, 2]
    assert ran == [2]


# --- forks --------------------------------------------------------------------------------------


@transaction
def insert(tx, n: int) -> int:
    return n


async def three() -> list[object]:
    first = await tried(1)
    second = await insert(2)
    third = await child(3)
    at = now().timestamp()
    return [first, second, third, await work(4), at]


def forked(at: str, replace: dict[str, object]) -> World:
    world = run(workflow(name="wf")(three)())
    ran.clear()
    encoded = {position: CODEC.encode(value) for position, value in replace.items()}
    events = history.fork(world.events, run_id="r", at=at, replace=encoded, now=9_000.0)
    assert isinstance(events[-1], RunForked)
    copy = World(workflow(name="wf")(three)(), "f", children=world.children, now=9_000.0)
    copy.begin(events)
    while not copy.ended:
        assert copy.happen()
    return copy


def test_a_fork_goes_on_from_its_position():
    """
    What stands before is copied, the rest happens again, at the time of the fork.
    """
    world = forked("2", {})
    assert world.value()[:4] == [1, 2, 3, 4]
    assert ran == [4]
    assert list(world.children)[-1] == "f~.2"


@pytest.mark.parametrize(
    "at, replace, expected",
    [
        ("3", {"0": 10, "1": 20, "2": 30}, [10, 20, 30, 4]),
        ("0", {"0": 10}, [10, 2, 3, 4]),
        ("0", {}, [1, 2, 3, 4]),
    ],
)
def test_a_fork_may_replace_outcomes(at, replace, expected):
    """
    Of steps, transactions and children, also that of the position itself.
    """
    assert forked(at, replace).value()[:4] == expected


def test_a_fork_replaces_all_attempts_of_a_step():
    """
    Failed attempts of the copied step go with its outcome.
    """
    failures = iter([True, False])

    @step(retry=Retry(2, delay=1.0))
    def flaky() -> int:
        if next(failures, False):
            raise ValueError
        return 1

    async def body() -> object:
        return [await flaky(), await work(2)]

    world = run(workflow(name="wf")(body)())
    events = history.fork(world.events, run_id="r", at="1", replace={"0": "7"}, now=9_000.0)
    assert kinds(events) == ["RunStarted", "StepStarted 0", "StepSucceeded 0", "RunForked"]


def test_replacing_an_outcome_keeps_what_its_group_had_come_to():
    """
    Members that were asked for with it are copied, with what they came to; those that were not open stay gone.
    """

    async def body() -> object:
        before = await work(1)
        parts = await gather(work(2), work(3), work(4), return_exceptions=True)
        return [before, parts, await work(5)]

    broken.add(3)
    world = run(workflow(name="wf")(body)())
    ran.clear()
    events = history.fork(world.events, run_id="r", at="1.1", replace={"1.1": CODEC.encode(30)}, now=9_000.0)
    assert not {"StepFailed 1.1", "RunSucceeded"}.intersection(kinds(events))
    copy = World(workflow(name="wf")(body)(), "f", now=9_000.0)
    copy.begin(events)
    while not copy.ended:
        assert copy.happen()
    assert copy.value() == [1, [2, 30, 4], 5]
    assert ran == [5]


def test_replacing_what_was_open_when_the_run_failed():
    """
    The end of the run is not copied, and the command is over by its new outcome.
    """

    async def body() -> object:
        return await gather(work(1), sleep(60), tried(2), fail_fast=True, return_exceptions=False)

    broken.add(1)
    world = run(workflow(name="wf")(body)())
    assert isinstance(world.events[-1], RunFailed)
    events = history.fork(world.events, run_id="r", at="0.2", replace={"0.2": "7"}, now=9_000.0)
    assert isinstance(events[-1], RunForked)
    assert not any(isinstance(event, RunFailed) for event in events)


@pytest.mark.parametrize("at, replace", [("9", {}), ("1", {"2": "1"}), ("x", {})])
def test_a_fork_names_the_positions_there_are(at, replace):
    """
    An unknown position, or one that the fork does not reach, is refused.
    """
    world = run(workflow(name="wf")(three)())
    with pytest.raises(UsageError, match="not before a recorded command"):
        history.fork(world.events, run_id="r", at=at, replace=replace, now=1.0)


def test_outcomes_of_timers_cannot_be_given():
    """
    A sleep has no value to replace.
    """

    async def body() -> None:
        await sleep(1)
        await work()

    world = run(workflow(name="wf")(body)())
    with pytest.raises(UsageError, match="only outcomes of steps"):
        history.fork(world.events, run_id="r", at="1", replace={"0": "1"}, now=1.0)


def test_a_fork_knows_what_it_waits_for():
    """
    Children, timers and signals that were open: rows of the new run.
    """

    async def body() -> object:
        return await gather(child(1), sleep(60), wait_for("x", timeout=9), work(1))

    world = World(workflow(name="wf")(body)())
    world.begin()
    world.succeed("0.3", 1)
    events = history.fork(world.events, run_id="r", at="0.3", replace={"0.3": "5"}, now=9_000.0)
    waits = history.open_waits(events)
    assert waits.children == {"0.0": "r~.0.0"}
    assert [(wait.position, wait.kind, wait.fire_at) for wait in waits.timers.values()] == [
        ("0.1", "timer", START + 60),
        ("0.2", "signal", START + 9),
    ]
    world.ex.close()


def test_a_step_that_snoozes_waits_for_its_timer_also_in_a_copy():
    """
    As one does that is retried.
    """

    async def body() -> object:
        return await gather(work(1), work(2))

    world = World(workflow(name="wf")(body)())
    world.begin()
    world.turn(StepSnoozed("0.0", 1, START + 60, "not yet", START))
    events = history.fork(world.events, run_id="r", at="0.1", replace={"0.1": "5"}, now=START)
    (wait,) = history.open_waits(events).timers.values()
    assert (wait.position, wait.kind, wait.fire_at) == ("0.0", "retry", START + 60)
    world.ex.close()


def test_steps_in_flight_of_a_fork_are_interrupted_and_run_again():
    """
    They belong to the other run; here they begin anew.
    """

    async def body() -> object:
        return await gather(work(1), work(2), child(3))

    world = World(workflow(name="wf")(body)())
    world.begin()
    events = history.fork(world.events, run_id="r", at="0.2", replace={}, now=9_000.0)
    world.ex.close()
    ex = execution(workflow(name="wf")(body)(), events, run_id="f")
    assert ex.in_flight() == [("0.0", 1), ("0.1", 1)]
    decision = ex.advance([StepInterrupted(p, a, False, 1.0) for p, a in ex.in_flight()], now=9_001.0)
    assert [action.attempt for action in decision.steps] == [2, 2]
    assert [action.run_id for action in decision.children] == ["f~.0.2"]
    assert not any(isinstance(event, (RunSucceeded, TimerSet)) for event in decision.events)
    ex.close()
