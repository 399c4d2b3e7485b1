"""
Two runs side by side: what corresponds, where they part, and in what they differ.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from durable._core.authoring.decorators import job, step, workflow
from durable._core.authoring.flow import patched
from durable._core.authoring.op_constructors import for_each, gather, race, sleep, wait_for
from durable._core.journal.events import (
    CancelRequested,
    ChildAwaited,
    ChildCancelled,
    ChildStarted,
    CleanupTimedOut,
    GroupOpened,
    ResumeRequested,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunForked,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    StepFailed,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TimerSet,
)
from durable._core.policies.retry import Retry
from durable._core.program.saying import set_attributes
from durable._core.recorded import diff
from durable._core.recorded.diff import compare
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._core.recorded.run_lines import command_lines
from tests.core.drive import World, run

broken: set[Any] = set()


@pytest.fixture(autouse=True)
def _fresh():
    broken.clear()


@step
def work(n: object = 0) -> object:
    if n in broken:
        raise ValueError(n)
    return n


@step
def other(n: object = 0) -> object:
    return n


@step(retry=Retry(3, delay=1.0))
def flaky(fails: list[int]) -> int:
    if fails:
        fails.pop()
        raise ValueError
    return 1


@job
def child(n: int) -> int:
    return n * 10


def history(events, run_id="r", status="succeeded", **facts):
    named = {"workflow": "wf", "version": 1, "sort": "workflow", "created_at": 0.0, **facts}
    return RunHistory(RunFacts(run_id=run_id, status=status, **named), list(events))


def recorded(body, *args):
    async def wf() -> object:
        return await body(*args)

    world = run(workflow(wf)())
    return history(world.events, status="failed" if isinstance(world.events[-1], RunFailed) else "succeeded")


def told(comparison):
    """The rows that differ, in short: position, what differs."""
    return [(row.position, *row.differs) for row in comparison.rows if row.differs]


def in_words(comparison):
    """All rows: commands of the first, of the second."""
    return [(row.first and row.first.command, row.second and row.second.command) for row in comparison.rows]


async def three() -> object:
    first = await work(1)
    parts = await gather(work(2), child(3), sleep(5))
    return [first, parts, await work(4)]


def test_a_run_is_like_itself_at_another_time_in_another_place():
    """
    Times, sites, ids of runs and of their children are no differences.
    """
    one = recorded(three)
    moved = []
    for event in one.events:
        shifted = evolve(event, at=event.at + 500)
        if shifted.category == "command":
            shifted = evolve(shifted, site="elsewhere.py:1")
        if isinstance(shifted, ChildStarted):
            shifted = evolve(shifted, run_id=f"other{shifted.run_id.removeprefix('r')}")
        if isinstance(shifted, RunStarted):
            shifted = evolve(shifted, seed="other")
        moved.append(shifted)
    found = compare(one, history(moved, "other"))
    assert found.alike
    assert found.parting == len(found.rows) == 7
    assert [row.position for row in found.rows] == ["0", "1", "1.0", "1.1", "1.2", "2", ""]


def test_another_outcome_is_where_they_part():
    """
    Also a failure of another message; not one with another traceback.
    """
    one = recorded(three)
    broken.add(2)
    two = recorded(three)
    assert told(compare(one, two)) == [("1.0", "outcome"), ("2", "only first"), ("", "outcome")]
    assert compare(one, two).parting == 2
    assert [fact.name for fact in compare(one, two).facts] == ["status"]
    assert compare(two, edited(two, traceback="elsewhere")).alike
    assert told(compare(two, edited(two, message="3"))) == [("1.0", "outcome")]


def edited(run, **failure):
    """The run with another failure of its step."""
    return history(
        [
            evolve(event, value=json.dumps({**json.loads(event.value), **failure}))
            if isinstance(event, StepFailed)
            else event
            for event in run.events
        ],
        status=run.run.status,
    )


def test_true_is_not_one():
    """
    Outcomes are compared as they are recorded; the order of an object's keys does not count.
    """

    def ended(value):
        return history([RunStarted("wf", 1, "r"), RunSucceeded(value)])

    assert told(compare(ended("1"), ended("true"))) == [("", "outcome")]
    assert compare(ended('{"a":1,"b":2}'), ended('{"b":2,"a":1}')).alike
    assert told(compare(ended(b"\x01"), ended(b"\x02"))) == [("", "outcome")]
    assert compare(ended(b"\x01"), ended(b"\x02"), plain=lambda _: "the same").alike
    assert compare(ended("[1e999]"), ended("[1e999]")).alike
    assert told(compare(ended("no JSON"), ended(None))) == [("", "outcome")]


def test_other_arguments_are_told_by_their_digest():
    """
    And the items of a for_each, and the arguments of the runs themselves.
    """
    one = recorded(_calls, 1, [1, 2])
    assert told(compare(one, recorded(_calls, 2, [1, 2]))) == [("0", "arguments", "outcome")]
    found = compare(one, recorded(_calls, 1, [1, 3]))
    assert ("1", "arguments") in told(found)
    started = evolve(one.events[0], value='[["x"],{}]')
    assert [fact.name for fact in compare(one, history([started, *one.events[1:]])).facts] == ["arguments"]


async def _calls(n: int, items: list[int]) -> object:
    await work(n)
    await for_each(work, items)
    return None


def test_facts_are_compared():
    """
    Workflow, version and status.
    """
    one = recorded(three)
    two = evolve(one, run=evolve(one.run, workflow="wg", version=2, status="failed"))
    found = compare(one, two)
    assert [(fact.name, fact.first, fact.second) for fact in found.facts] == [
        ("workflow", "wf", "wg"),
        ("version", 1, 2),
        ("status", "succeeded", "failed"),
    ]
    assert not found.alike


def test_an_inserted_command_stands_alone():
    """
    What follows it finds its counterparts, members of groups too, under their new positions.
    """

    async def longer() -> object:
        await other(0)
        first = await work(1)
        await other(9)
        parts = await gather(work(2), child(3), sleep(5))
        return [first, parts, await work(4)]

    found = compare(recorded(three), recorded(longer))
    assert told(found) == [("0", "only second"), ("2", "only second")]
    assert [row.second.position for row in found.rows if row.second and row.second.position] == [
        "0",
        "1",
        "2",
        "3",
        "3.0",
        "3.1",
        "3.2",
        "4",
    ]
    back = compare(recorded(longer), recorded(three))
    assert told(back) == [("0", "only first"), ("2", "only first")]


def test_another_command_in_its_place():
    """
    One line with both; members are aligned by their place, of groups of other sizes, too.
    """

    async def replaced() -> object:
        first = await other(1)
        parts = await gather(work(2), child(3), sleep(5), work(6))
        return [first, parts, await work(4)]

    found = compare(recorded(three), recorded(replaced))
    assert ("0", "command") in told(found)
    assert ("1", "command") in told(found)
    assert ("1.3", "only second") in told(found)
    assert in_words(found)[:2] == [("step 'work'", "step 'other'"), ("gather of 3", "gather of 4")]


def test_helpers_are_strands_of_their_own():
    """
    A command that was inserted into one shifts nothing in another.
    """

    async def helper(*names: int) -> int:
        for name in names:
            await (other(name) if name > 5 else work(name))
        return 1

    def outer(*names: int):
        async def body() -> object:
            return await gather(helper(*names), helper(3, 4), work(2))

        return recorded(body)

    found = compare(outer(1, 2), outer(1, 9, 2))
    assert [row for row in told(found) if row[1] != "order"] == [("0.0.1", "only second")]
    mixed = compare(outer(1, 2), recorded(_plain_group))
    assert ("0.0", "only second") in told(mixed)
    assert ("0.0.0", "only first") in told(mixed)


async def _plain_group() -> object:
    return await gather(work(1), work(3), work(2))


def test_the_order_of_arrivals_is_a_difference():
    """
    The fewest that would have to move are told; the order in which a race was won is one of them.
    """

    async def body() -> object:
        return await gather(work(1), work(2), work(3), work(4))

    one = recorded(body)
    arrivals = [event for event in one.events if isinstance(event, StepSucceeded)]
    rest = [event for event in one.events if not isinstance(event, StepSucceeded)]
    moved = [arrivals[1], arrivals[2], arrivals[0], arrivals[3]]
    two = history([*rest[:-1], *moved, rest[-1]])
    assert told(compare(one, two)) == [("0.0", "order")]
    three_ = history([*rest[:-1], *reversed(arrivals), rest[-1]])
    assert len(told(compare(one, three_))) == 3


@given(st.permutations(range(7)))
def test_the_outcomes_that_did_not_move_are_in_order(order):
    """
    Whatever the order: what is not told of arrived in the same order in both, and no larger part of it did.
    """
    started = [RunStarted("wf", 1, "r"), *(StepStarted(str(n), "s", 1, "", "") for n in range(7))]
    one = history([*started, *(StepSucceeded(str(n), "1") for n in range(7))])
    two = history([*started, *(StepSucceeded(str(n), "1") for n in order)])
    found = compare(one, two)
    stay = [int(row.position) for row in found.rows if not row.differs]
    at = {n: index for index, n in enumerate(order)}
    assert all(at[a] < at[b] for a, b in pairwise(stay))
    assert len(stay) == _longest(list(order))


def _longest(order):
    best = []
    for index, n in enumerate(order):
        best.append(1 + max((best[i] for i in range(index) if order[i] < n), default=0))
    return max(best)


def test_signals_notes_and_requests_are_lines_of_the_run():
    """
    The first of a name beside the first, with what it carried.
    """

    async def body() -> object:
        set_attributes(stage="begun")
        if patched("new"):
            await work(0)
        first = await race(wait_for("go"), sleep(60))
        return [first.index, await wait_for("go")]

    def answered(*payloads):
        world = World(workflow(name="wf")(body)())
        world.begin()
        world.succeed("0", 0)
        for payload in payloads:
            world.signal("go", payload)
        return history(world.events, status="succeeded" if world.ended else "waiting")

    one, two = answered("a", "b"), answered("a", "c")
    assert ("", "outcome") in told(compare(one, two))
    assert ("signal 'go'", "signal 'go'") in in_words(compare(one, two))
    assert {"attributes", "patched 'new'"} <= {line.command for line in command_lines(one)}
    less = compare(one, answered("a"))
    assert [row.first.command for row in less.rows if row.differs == ("only first",)] == ["signal 'go'", "the end"]


def test_ends_and_requests_in_words():
    """
    However a run ended, and whatever was asked of it.
    """
    start = RunStarted("wf", 1, "r")
    lines = [
        (line.command, line.outcome, line.value)
        for event in (
            CancelRequested("enough"),
            CancelRequested(""),
            RunTimedOut(5.0),
            CleanupTimedOut(),
            ResumeRequested(),
            RunCancelled("enough"),
            RunCancelled(""),
            RunContinued("r~2", "wf"),
        )
        for line in command_lines(history([start, event]))
    ]
    assert lines == [
        ("request to cancel", "received", '"enough"'),
        ("request to cancel", "received", None),
        ("the time of the run", "over", None),
        ("the time of the clean-up", "over", None),
        ("request to resume", "received", None),
        ("the end", "cancelled", '"enough"'),
        ("the end", "cancelled", None),
        ("the end", "continued", '"wf"'),
    ]


def test_attempts_are_no_difference():
    """
    They are counted; the delays between them are no outcome.
    """
    one, two = recorded(_tries, []), recorded(_tries, [1, 2])
    found = compare(one, two)
    assert [row.first.attempts for row in found.rows if row.first] == [1, 0]
    assert [row.second.attempts for row in found.rows if row.second] == [3, 0]
    assert told(found) == [("0", "arguments")]


async def _tries(fails: list[int]) -> object:
    return await flaky(fails)


def test_the_ids_of_a_fork_are_relative():
    """
    Runs that it awaits by their ids, its own or those of the run that was copied, are the same ones.
    """

    def awaits(run_id, *extra, seed="r"):
        events = [RunStarted("wf", 1, seed), ChildAwaited("0", run_id, ""), *extra]
        return history(events, run_id.partition("~")[0], "waiting")

    assert compare(awaits("r~.0"), awaits("f~.0", RunForked("r", "0"))).alike
    assert not compare(awaits("r~.0"), awaits("f~.1", RunForked("r", "0"))).alike
    (line,) = command_lines(awaits("someone~.0", seed="x"))[:1]
    assert "…/0" in line.command


def test_long_runs_are_compared_at_once(monkeypatch):
    """
    What is alike at the beginning is not searched; beyond a bound commands are paired one by one.
    """

    def long(names):
        events = [RunStarted("wf", 1, "r")]
        for n, name in enumerate(names):
            events += [StepStarted(str(n), name, 1, "", ""), StepSucceeded(str(n), "1")]
        return history(events)

    names = ["s"] * 20_000
    found = compare(long([*names, "x", "y"]), long([*names, "y"]))
    assert found.parting == 20_000
    assert told(found) == [("20000", "only first")]
    monkeypatch.setattr(diff, "MAX_SEARCH", 1)
    found = compare(long([*names, "x", "y", "z"]), long([*names, "y", "q"]))
    assert told(found) == [("20000", "command"), ("20001", "command"), ("20002", "only first")]


def test_timers_and_groups():
    """
    A timer that fired against one that did not; what belongs to no command is left out.
    """
    start = [RunStarted("wf", 1, "r"), GroupOpened("0", "race", 2, ""), TimerSet("0.0", "sleep", 5.0, "")]
    one, two = history([*start, TimerFired("0.0")]), history([*start, TimerFired("")])
    assert told(compare(one, two)) == [("0.0", "outcome")]
    awaits = [RunStarted("wf", 1, "r"), ChildAwaited("0", "elsewhere", "")]
    cancelled = history([*awaits, ChildCancelled("0", "elsewhere", "enough")])
    assert told(compare(history(awaits), cancelled)) == [("0", "outcome")]
    assert command_lines(cancelled)[0].command == "result of run 'elsewhere'"


def test_failures_that_no_codec_of_ours_wrote():
    """
    They are compared as they stand.
    """

    def failed(value):
        return history([RunStarted("wf", 1, "r"), RunFailed([], value)], status="failed")

    assert compare(failed('"x"'), failed('"x"')).alike
    assert told(compare(failed('"x"'), failed('"y"'))) == [("", "outcome")]
