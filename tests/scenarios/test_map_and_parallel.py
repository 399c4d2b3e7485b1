"""
Maps and parallel branches as a public conformance suite for durable functions asks for them, in our words.

Each case is one workflow. It must come to its result undisturbed, and with the process lost before and after every
commit. What that suite calls an iteration or a branch is a member of a group here: a step, a job, or a helper.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from durable import (
    GroupFailedError,
    NamedOutcomes,
    Outcomes,
    RunFailedError,
    for_each,
    gather,
    job,
    sleep,
    step,
    workflow,
)
from durable.testing import every_crash
from tests.scenarios.differences import needs_a_file


@step
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@step
async def keep(value: object) -> object:
    return value


@step
async def refuse(what: str) -> str:
    raise ValueError(what)


@job
async def upper(text: str) -> str:
    return text.upper()


async def outcome(of: str) -> str:
    """A branch that succeeds, or fails where its name says so."""
    return await (refuse(of) if of.startswith("bad") else greet(of))


def told(found: Outcomes[Any] | NamedOutcomes[Any, Any]) -> list[object]:
    """Why a group ended; and how many of its members succeeded, failed, and never began."""
    members = [*(found.values() if isinstance(found, Mapping) else found)]
    return [found.reason, len(found.succeeded), len(found.failed), sum(each.status == "not begun" for each in members)]


async def mapped(names: Iterable[str], **options: Any) -> list[object]:
    """What became of a map over *names*, whether it failed or not."""
    try:
        return told(await for_each(outcome, names, **{"concurrency": 1, **options}))
    except GroupFailedError as error:
        return ["raised", *told(error.settled)]


async def branched(names: Iterable[str], **options: Any) -> list[object]:
    """As `mapped`, of branches that stand side by side."""
    try:
        return told(await gather({name: outcome(name) for name in names}, **{"concurrency": 1, **options}))
    except GroupFailedError as error:
        return ["raised", *told(error.settled)]


# --- the cases --------------------------------------------------------------------------------------


async def each_item_runs_a_step() -> Any:
    return await for_each(greet, ["Ann", "Bob"])


async def each_item_runs_a_helper_without_any_step() -> Any:
    async def doubled(n: int) -> int:
        return 2 * n

    return await for_each(doubled, [1, 2])


async def the_index_comes_with_the_item() -> Any:
    async def added(item: int, index: int) -> int:
        return item + index

    return await for_each(added, [10, 20, 30], index=True)


async def nothing_to_do() -> Any:
    return [await for_each(greet, []), await gather([]), await gather({}), await mapped([], tolerate=0)]


async def one_failure_stops_a_map() -> Any:
    return await mapped(["ok", "bad", "never"], tolerate=0)


async def one_failure_stops_branches() -> Any:
    return await branched(["ok", "bad", "never"], tolerate=0)


async def enough_items() -> Any:
    return await mapped(["a", "b", "c", "d"], enough=2)


async def enough_branches() -> Any:
    return await branched(["a", "b", "c", "d"], enough=2)


async def a_tolerated_failure() -> Any:
    return [await mapped(["a", "bad", "c"], tolerate=1), await branched(["a", "bad", "c"], tolerate=1)]


async def more_failures_than_tolerated() -> Any:
    return [await mapped(["bad 1", "bad 2", "c"], tolerate=1), await branched(["bad 1", "bad 2", "c"], tolerate=1)]


async def a_larger_share_of_failures_than_tolerated() -> Any:
    names = ["bad 1", "bad 2", "c", "d"]
    return [await mapped(names, tolerate=0.25), await branched(names, tolerate=0.25)]


async def exactly_the_tolerated_share_of_failures() -> Any:
    return [await mapped(["bad", "b", "c", "d"], tolerate=0.25), await branched(["bad", "b", "c", "d"], tolerate=0.25)]


async def all_fail_and_that_is_tolerated() -> Any:
    return await branched(["bad 1", "bad 2", "bad 3"], tolerate=3)


async def never_enough_though_all_run() -> Any:
    return await branched(["a", "bad", "c"], enough=3, tolerate=1.0)


async def tolerance_ends_before_enough() -> Any:
    return await branched(["bad 1", "bad 2", "c", "d"], enough=3, tolerate=1)


async def results_stand_in_order_whatever_ends_first() -> Any:
    async def after(seconds: float) -> object:
        await sleep(seconds)
        return await keep(seconds)

    return [await for_each(after, [3, 1, 2], concurrency=2), await gather(after(3), after(1), after(2), concurrency=2)]


async def named_branches() -> Any:
    return await gather({"first": keep("one"), "second": upper("two")}, concurrency=1)


async def named_items() -> Any:
    async def tenfold(n: int) -> int:
        return n * 10

    found = await for_each(tenfold, [1, 2], names=lambda n: f"item-{n}", tolerate=0)
    return [[each.name, each.value] for each in found]


async def branches_of_several_types() -> Any:
    return await gather({"text": keep("hello"), "number": keep(42), "mapping": keep({"k": "v"})})


async def a_timer_in_an_item() -> Any:
    async def item(text: str, index: int) -> str:
        if index == 1:
            await sleep(3600)
        return await upper(text)

    return await for_each(item, ["a", "b"], index=True)


async def a_timer_behind_a_map_with_a_failure() -> Any:
    found = await mapped(["a", "bad"], tolerate=1)
    await sleep(3600)
    return found


async def what_the_result_tells() -> Any:
    found = await gather([outcome("a"), outcome("bad"), outcome("c")], tolerate=1)
    return [bool(found.failed), found.succeeded, [str(error) for error in found.failed], [each.ok for each in found]]


async def items_in_batches() -> Any:
    async def sent(batch: list[str]) -> list[str]:
        return await gather(upper(text) for text in batch)

    texts = ["a", "b", "c", "d", "e"]
    batches = [texts[n : n + 2] for n in range(0, len(texts), 2)]
    return await for_each(sent, batches, concurrency=2)


async def a_group_in_a_group() -> Any:
    async def inner(prefix: str) -> Any:
        return await gather({"x": greet(f"{prefix}x"), "y": upper(f"{prefix}y")}, concurrency=1)

    return [await gather([inner("1")], concurrency=1), await for_each(inner, ["2", "3"], concurrency=2)]


async def jobs_in_a_window() -> Any:
    found = await for_each(upper, ["a", "b", "c", "d"], concurrency=2, enough=3)
    return [found.reason, len(found.succeeded) >= 3]


CASES = {
    each_item_runs_a_step: ["Hello, Ann!", "Hello, Bob!"],
    each_item_runs_a_helper_without_any_step: [2, 4],
    the_index_comes_with_the_item: [10, 21, 32],
    nothing_to_do: [[], [], {}, ["all ended", 0, 0, 0]],
    one_failure_stops_a_map: ["raised", "too many failed", 1, 1, 1],
    one_failure_stops_branches: ["raised", "too many failed", 1, 1, 1],
    enough_items: ["enough succeeded", 2, 0, 2],
    enough_branches: ["enough succeeded", 2, 0, 2],
    a_tolerated_failure: [["all ended", 2, 1, 0]] * 2,
    more_failures_than_tolerated: [["raised", "too many failed", 0, 2, 1]] * 2,
    a_larger_share_of_failures_than_tolerated: [["raised", "too many failed", 0, 2, 2]] * 2,
    exactly_the_tolerated_share_of_failures: [["all ended", 3, 1, 0]] * 2,
    all_fail_and_that_is_tolerated: ["all ended", 0, 3, 0],
    never_enough_though_all_run: ["all ended", 2, 1, 0],
    tolerance_ends_before_enough: ["raised", "too many failed", 0, 2, 2],
    results_stand_in_order_whatever_ends_first: [[3, 1, 2]] * 2,
    named_branches: {"first": "one", "second": "TWO"},
    named_items: [["item-1", 10], ["item-2", 20]],
    branches_of_several_types: {"text": "hello", "number": 42, "mapping": {"k": "v"}},
    a_timer_in_an_item: ["A", "B"],
    a_timer_behind_a_map_with_a_failure: ["all ended", 1, 1, 0],
    what_the_result_tells: [True, ["Hello, a!", "Hello, c!"], ["bad"], [True, False, True]],
    items_in_batches: [["A", "B"], ["C", "D"], ["E"]],
    a_group_in_a_group: [[{"x": "Hello, 1x!", "y": "1Y"}], [{"x": f"Hello, {n}x!", "y": f"{n}Y"} for n in (2, 3)]],
    jobs_in_a_window: ["enough succeeded", True],
}


TAKE_TIME = {results_stand_in_order_whatever_ends_first, a_timer_in_an_item, a_timer_behind_a_map_with_a_failure}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_case_comes_to_its_result(engines, clock, case):
    """
    On either engine.
    """
    flow = workflow(case)
    engine = await engines.memory(flow, upper, **({"clock": clock} if case in TAKE_TIME else {}))
    result = asyncio.ensure_future(engine.run(flow()))
    if case in TAKE_TIME:
        await clock.passes_until(result.done, 4000)
    assert await result == CASES[case]


@pytest.mark.long
@needs_a_file("it is recovered from what its file holds at each commit; on a server each turn is a replay here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_case_comes_to_its_result_whatever_is_lost(case):
    """
    Undisturbed, and with a death of the process at each of its commits.
    """
    flow = workflow(case)
    survived = every_crash(flow(), [flow, upper])
    assert survived.undisturbed.error is None
    assert survived.undisturbed.result == CASES[case]


async def test_a_failure_that_nobody_catches_is_that_of_the_run(engines):
    """
    With the group as its cause.
    """

    @workflow
    async def flow() -> list[str]:
        return (await for_each(outcome, ["bad", "never"], tolerate=0)).succeeded

    engine = await engines.memory(flow)
    with pytest.raises(RunFailedError) as failed:
        await engine.run(flow())
    assert isinstance(failed.value.__cause__, GroupFailedError)


@needs_a_file("it is recovered from what its file holds at each commit")
def test_a_failure_that_nobody_catches_fails_the_run():
    """
    The items behind it are never begun; the run fails with the failures of its members.
    """

    @workflow
    async def flow() -> list[str]:
        return (await for_each(outcome, ["bad", "never"], tolerate=0)).succeeded

    survived = every_crash(flow(), [flow])
    assert "GroupFailedError" in (survived.undisturbed.error or "")


def test_a_window_without_room_is_refused():
    """
    At the line that asks for it, before any member began.
    """
    with pytest.raises(ValueError, match="gather: concurrency must be a whole number of at least 1, or None, found 0"):
        gather(greet("a"), greet("b"), concurrency=0)
