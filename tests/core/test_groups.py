"""
How groups end: windows, quorums, tolerance, names, and what is known of every member then.
"""

from itertools import permutations
from typing import Any

import pytest

from durable import (
    Flow,
    GroupFailedError,
    NamedOutcomes,
    Outcomes,
    Return,
    Settled,
    for_each,
    gather,
    job,
    race,
    settle,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._core.journal.events import GroupArranged
from durable._core.policies.settled import EndRule
from durable.errors import NondeterminismError
from tests.core.drive import START, World, again, closed_prefixes, execution, kinds


@step
async def take(n: object) -> object:
    return n


@step
async def odd(n: int) -> int:
    """Fails for what is even."""
    if n % 2 == 0:
        raise ValueError(n)
    return n * 10


@job
def odd_job(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(n)
    return n * 10


async def odd_helper(n: int) -> int:
    await sleep(1)
    return await odd(n)


def begun(body, **options) -> World:
    world = World(workflow(body)(), **options)
    world.begin()
    return world


def statuses(settled) -> str:
    """The first letters of how members ended: s, f, c or n."""
    found = settled.values() if isinstance(settled, dict) else settled
    return "".join(each.status[0] for each in found)


# --- the rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, size, succeeded, failed, reason",
    [
        (EndRule(), 2, 1, 1, "all ended"),
        (EndRule(), 2, 0, 1, None),
        (EndRule(enough=2), 4, 1, 2, None),
        (EndRule(enough=2), 4, 2, 0, "enough succeeded"),
        (EndRule(enough=2), 4, 0, 3, "too many failed"),
        (EndRule(tolerate=0), 3, 2, 0, None),
        (EndRule(tolerate=0), 3, 0, 1, "too many failed"),
        (EndRule(tolerate=1), 3, 1, 1, None),
        (EndRule(tolerate=1), 3, 2, 1, "all ended"),
        (EndRule(tolerate=1), 3, 0, 2, "too many failed"),
        (EndRule(tolerate=0.5), 4, 0, 2, None),
        (EndRule(tolerate=0.5), 4, 0, 3, "too many failed"),
        (EndRule(tolerate=1.0), 2, 0, 2, "all ended"),
        (EndRule(tolerate=0.5), 0, 0, 0, "all ended"),
        (EndRule(enough=2, tolerate=3), 5, 2, 3, "enough succeeded"),
        (EndRule(enough=4, tolerate=3), 5, 1, 2, None),
        (EndRule(enough=4, tolerate=3), 5, 2, 3, "all ended"),
        (EndRule(enough=4, tolerate=3), 5, 0, 4, "too many failed"),
    ],
)
def test_a_rule_says_why_a_group_has_ended(rule, size, succeeded, failed, reason):
    """
    Enough successes, more failures than are tolerated (or than leave enough members), or the end of all.
    """
    assert rule.reason(size, succeeded, failed) == reason


# --- what a group evaluates to ----------------------------------------------------------------------

#: Ways to run the same five members, of which the second and fourth fail.
FORMS = {
    "gather": lambda **rule: gather(*[odd(n) for n in range(1, 6)], **rule),
    "gather of jobs": lambda **rule: gather((odd_job(n) for n in range(1, 6)), **rule),
    "gather of helpers": lambda **rule: gather([odd_helper(n) for n in range(1, 6)], **rule),
    "for_each": lambda **rule: for_each(odd, range(1, 6), **rule),
    "for_each of jobs": lambda **rule: for_each(odd_job, range(1, 6), **rule),
    "for_each of helpers": lambda **rule: for_each(odd_helper, range(1, 6), **rule),
}


def played(make, **options) -> tuple[Any, World]:
    """
    What a workflow saw of a group: (its outcomes or those on its error, whether it failed); and the run.
    """
    seen: list[Any] = []

    async def body() -> None:
        try:
            found: Any = await make()
            seen.append((found, False))
        except GroupFailedError as error:
            seen.append((error.settled, (error.reason, [*error.exceptions])))

    world = begun(body, **options)
    world.run_on()
    first = seen.copy()
    for survived in closed_prefixes(world.events):
        assert again(world.op, world.events, survived, resident=False) == world.events
    assert {repr(each) for each in seen} == {repr(first[0])}, "a replay sees the same"
    ((settled, raised),) = first
    assert raised in (False, (settled.reason, settled.failed))
    return (settled, bool(raised)), world


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize(
    "rule, ended, reason, failed",
    [
        ({"concurrency": 1, "enough": 2}, "sfsnn", "enough succeeded", False),
        ({"concurrency": 1, "tolerate": 0}, "sfnnn", "too many failed", True),
        ({"concurrency": 1, "tolerate": 1}, "sfsfn", "too many failed", True),
        ({"concurrency": 1, "tolerate": 2}, "sfsfs", "all ended", False),
        ({"concurrency": 1, "tolerate": 0.4}, "sfsfs", "all ended", False),
        ({"concurrency": 1, "tolerate": 0.3}, "sfsfn", "too many failed", True),
        ({"concurrency": 1, "enough": 3, "tolerate": 1}, "sfsfn", "too many failed", True),
        ({"concurrency": 2, "enough": 4}, "sfsfc", "too many failed", True),
        ({"concurrency": None, "tolerate": 0}, "sfccc", "too many failed", True),
        ({"concurrency": None, "enough": 1}, "scccc", "enough succeeded", False),
    ],
)
def test_every_kind_of_group_ends_by_the_same_rule(form, freed, rule, ended, reason, failed):
    """
    Steps, jobs and helpers, in `gather` and `for_each` alike; and each member says how it ended.
    """
    (settled, raised), _ = played(lambda: FORMS[form](**rule), freed=freed)
    assert (statuses(settled), settled.reason, raised) == (ended, reason, failed)
    assert isinstance(settled, Outcomes)
    assert settled.succeeded == [each.value for each in settled if each.ok]
    assert {str(each) for each in settled.failed} <= {"2", "4"}


@pytest.mark.parametrize("form", FORMS)
def test_a_failing_group_without_a_rule_tells_of_its_successes(form):
    """
    `gather` waits for all; `for_each` begins no more, and with a window of one the error is the item's own.
    """
    seen: list[Any] = []

    async def body() -> None:
        for concurrency in (1, 2):
            try:
                await FORMS[form](concurrency=concurrency)
            except Exception as error:
                seen.append(error)

    world = World(workflow(body)())
    world.run()
    one, two = seen
    if form.startswith("gather"):
        assert [statuses(each.settled) for each in seen] == ["sfsfs"] * 2
        assert [each.reason for each in seen] == ["all ended"] * 2
    else:
        assert (type(one), statuses(one.settled)) == (ValueError, "sfnnn")
        assert (type(two), two.reason) == (GroupFailedError, "too many failed")
        assert statuses(two.settled)[:2] == "sf"
    assert two.settled.succeeded[0] == 10
    seen.clear()
    execution(world.op, world.events).close()
    assert [statuses(each.settled) for each in seen] == [statuses(one.settled), statuses(two.settled)]


def test_the_record_of_a_failed_run_has_the_failures_only():
    """
    What a group put on its error is for the code that catches it: a parent, or `result()`, sees the failures.
    """

    async def body() -> None:
        await gather(odd(1), odd(2), tolerate=0)

    world = begun(body)
    with pytest.raises(GroupFailedError) as caught:
        world.run_on()
    assert statuses(caught.value.settled) == "f"
    assert "Settled" not in repr(world.events[-1])


def test_part_of_a_group_s_error_knows_all_members():
    """
    `except*` sees the failures that it asks for, and what became of the others.
    """
    seen: list[Any] = []

    async def body() -> None:
        try:
            await gather(odd(1), odd(2))
        except* ValueError as part:
            seen.append(part)

    begun(body).run_on()
    (part,) = seen
    assert (type(part), statuses(part.settled)) == (GroupFailedError, "sf")


def test_an_error_keeps_an_attribute_of_its_own():
    """
    A window of one raises the item's own error, which may have a `settled` already.
    """

    class InvoiceError(Exception):
        def __init__(self) -> None:
            super().__init__()
            self.settled = "yesterday"

    seen: list[Any] = []

    async def pay(_: int) -> None:
        raise InvoiceError

    async def body() -> None:
        try:
            await for_each(pay, [1])
        except InvoiceError as error:
            seen.append(error.settled)

    begun(body).run_on()
    assert seen == ["yesterday"]


def test_settled_says_what_it_is():
    """
    As before with a value or an error; and what was cancelled or never begun has neither.
    """
    assert Settled(1) == Settled(1, None, "succeeded", "name")
    assert Settled(1).ok
    assert Settled(error=ValueError()).status == "failed"
    never: Settled[int] = Settled(status="not begun", name="eu")
    assert not never.ok
    with pytest.raises(ValueError, match="member 'eu' has no value: it was not begun"):
        never.get()
    with pytest.raises(ValueError, match="the member has no value: it was cancelled"):
        Settled(status="cancelled").get()
    with pytest.raises(LookupError):
        Settled(error=LookupError()).get()


# --- windows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("concurrency", [1, 2, 3, 7])
def test_no_more_than_the_window_run_at_once(form, concurrency):
    """
    Of any member, whatever it is; and the results stand in the order of the members.
    """

    async def body() -> Any:
        return [each.status for each in await FORMS[form](concurrency=concurrency, tolerate=1.0)]

    world = begun(body)
    most = 0
    while not world.ended:
        most = max(
            most, len({*[action.position[:3] for action in world.steps], *[w.position[:3] for w in world.waits]})
        )
        world.happen()
    assert most == min(concurrency, 5)
    assert world.value() == ["succeeded", "failed", "succeeded", "failed", "succeeded"]


def test_helpers_that_never_begin_are_closed(recwarn):
    """
    By the end of their group, by that of the run, and where a run is freed: Python has nothing to complain about.
    """

    async def ends() -> int:
        return len(await gather([odd_helper(1), odd_helper(3)], concurrency=1, enough=1))

    async def cancelled() -> None:
        await gather([odd_helper(1), odd_helper(3)], concurrency=1)

    assert begun(ends).run_on() == 2
    begun(cancelled).cancel()
    freed = begun(cancelled, freed=True)
    freed.happen()
    freed.ex.close()
    assert [str(each.message) for each in recwarn] == []


def test_an_undecided_group_is_cancelled_with_its_run():
    """
    What has not begun never does.
    """

    async def body() -> None:
        await gather(odd(1), odd(3), concurrency=1)

    world = begun(body)
    world.cancel("enough")
    world.stop("0.0")
    assert world.end.ended == "cancelled"
    assert not any(event.position == "0.1" for event in world.events)


# --- names ------------------------------------------------------------------------------------------


def test_a_mapping_of_members_gives_a_mapping_of_results():
    """
    Plain values, failures in place, or how each ended; in the order of the mapping.
    """

    async def body() -> Flow[Any]:
        plain: dict[str, int] = yield gather({"eu": odd(1), "us": odd_helper(3)})
        places: dict[str, Any] = yield gather({"eu": odd(1), "us": odd(2)}, return_exceptions=True)
        settled: NamedOutcomes[str, int] = yield gather({"eu": odd(1), "us": odd(2)}, tolerate=1)
        quorum: dict[str, int] = yield gather({"eu": odd(2), "us": odd(3)}, at_least=1)
        failed = [str(error) for error in settled.failed.values()]
        yield Return([plain, {key: str(each) for key, each in places.items()}, quorum, *failed,
                      settled.succeeded, [each.name for each in settled.values()]])  # fmt: skip

    assert begun(body).run_on() == [
        {"eu": 10, "us": 30}, {"eu": "10", "us": "2"}, {"us": 30}, "2", {"eu": 10}, ["eu", "us"]
    ]  # fmt: skip


def test_names_are_recorded_with_the_group():
    """
    Those of a mapping, and of items; by a function, or one by one.
    """

    async def body() -> None:
        await gather({"eu": take(1), 2: take(2)})
        await for_each(take, ["a", "b"], names=lambda item: f"item {item}")
        await for_each(take, ["a", "b"], names=["x", "y"])
        await race({"a": take(1), "b": take(2)})

    events = World(workflow(body)()).run()
    found = [each for each in events if isinstance(each, GroupArranged)]
    assert [(each.position, each.names) for each in found] == [
        ("0", ("eu", "2")), ("1", ("item a", "item b")), ("2", ("x", "y")), ("3", ("a", "b"))
    ]  # fmt: skip


@pytest.mark.parametrize("order", [*permutations(("a", "b", "c"))])
def test_a_mapping_in_another_order_is_the_same_group(order):
    """
    As of a set, which another process iterates otherwise: each member keeps the position recorded with its name.
    """
    found: list[str] = ["c", "a", "b"]

    async def body() -> Flow[Any]:
        yield Return((yield gather({name: take(name) for name in found})))

    world = begun(body, freed=True)
    world.succeed("0.1", "a")
    found[:] = order
    world.succeed("0.0", "c")
    world.succeed("0.2", "b")
    assert world.value() == {name: name for name in order}
    assert [event.site for event in world.events if event.position == "0.3"] == []


def test_a_mapping_with_other_names_diverges():
    """
    The report says which; changed code never receives another member's result.
    """
    found = ["a", "b"]

    async def body() -> None:
        await gather({name: take(name) for name in found})

    world = begun(body)
    found[:] = ["a", "c"]
    with pytest.raises(NondeterminismError, match="its members are a, c, and were a, b"):
        execution(world.op, world.events)


# --- for_each over helpers --------------------------------------------------------------------------


def test_each_item_of_a_helper_is_a_strand_of_its_own():
    """
    Commands of one item are numbered in its own strand; two items run at once.
    """

    async def place(n: int) -> list[object]:
        first = await take(n)
        return [first, *await gather(take(n + 1), take(n + 2))]

    async def body() -> Any:
        return await for_each(place, [10, 20, 30], concurrency=2)

    world = begun(body)
    assert [action.position for action in world.steps] == ["0.0.0", "0.1.0"]
    assert world.run_on() == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert next(event.name for event in world.events if event.position == "0") == "for_each place"


@pytest.mark.parametrize("over", [take, odd_job, odd_helper])
def test_the_index_comes_on_request(over):
    """
    Behind the item, for steps, jobs and helpers alike; a function that takes no two arguments is refused at once.
    """
    with pytest.raises(TypeError, match="too many positional arguments"):
        for_each(over, [1], index=True)

    @step
    async def of_step(item: str, index: int) -> str:
        return f"{index} {item}"

    @job
    async def of_job(item: str, index: int) -> str:
        return f"{index} {item}"

    async def of_helper(item: str, index: int) -> str:
        return await of_step(item, index)

    async def body() -> Any:
        return [await for_each(fn, ["a", "b", "c"], index=True, concurrency=2) for fn in (of_step, of_job, of_helper)]

    assert begun(body).run_on() == [["0 a", "1 b", "2 c"]] * 3


# --- what is recorded holds -------------------------------------------------------------------------


def test_the_recorded_arrangement_holds_for_a_group_that_has_begun():
    """
    New code with another window, rule or names continues a group as it was opened.
    """
    options: dict[str, Any] = {"concurrency": 2, "tolerate": 1, "names": ["a", "b", "c", "d"]}

    @workflow(name="flow")
    async def body() -> Flow[str]:
        found: Outcomes[int] = yield for_each(odd, [1, 2, 3, 5], **options)
        yield Return(statuses(found) + "".join(each.name or "" for each in found))

    world = World(body(), freed=True)
    world.begin()
    world.succeed("0.0", 10)
    options.update(concurrency=1, tolerate=0, names=None)
    assert world.run_on() == "sfssabcd"


@pytest.mark.parametrize("rule", [{"enough": 1}, {"tolerate": 1}])
def test_code_that_does_not_know_of_the_recorded_rule_diverges(rule):
    """
    It would take what was tolerated, or never began, for values.
    """
    options: dict[str, Any] = {**rule}

    @workflow(name="flow")
    async def body() -> None:
        await for_each(odd, [1, 2, 3], **options)

    world = World(body())
    world.begin()
    options.clear()
    with pytest.raises(NondeterminismError, match="it has neither enough= nor tolerate= any more"):
        execution(world.op, world.events)


def test_an_error_of_a_group_within_keeps_what_it_knows():
    """
    With a window of one it is raised as it is: its failures, and what is settled, are those of one group.
    """
    seen: list[Any] = []

    async def pair(n: int) -> Any:
        return await gather(odd(n), odd(n + 1))

    async def body() -> None:
        try:
            await for_each(pair, [1, 3])
        except GroupFailedError as error:
            seen.append((statuses(error.settled), len(error.exceptions)))

    begun(body).run_on()
    assert seen == [("sf", 1)]


def test_what_asks_for_nothing_new_is_recorded_as_before():
    """
    No event of the last release's groups changed: a quorum is in its name, a window of children in its feed.
    """

    async def body() -> None:
        await gather(take(1), take(2))
        await gather(take(1), take(2), at_least=1)
        await gather(take(1), take(2), enough=1)
        await for_each(take, [1], concurrency=3)

    events = World(workflow(body)()).run()
    assert not any(isinstance(each, GroupArranged) for each in events)
    assert [each.name for each in events if type(each).__name__ == "GroupOpened"] == [
        "gather", "gather at least 1", "gather at least 1", "for_each take"
    ]  # fmt: skip


def test_a_signal_that_a_failing_group_took_is_not_told_as_a_value():
    """
    It went back to the queue, where the next `wait_for` finds it: told in both places it would count twice.
    """

    async def body() -> Any:
        failed = await settle(gather(wait_for("paid"), gather(wait_for("paid"), take(1)), odd(2), fail_fast=True))
        assert isinstance(failed.error, GroupFailedError)
        return [statuses(failed.error.settled), await wait_for("paid"), await wait_for("paid")]

    world = begun(body)
    world.signal("paid", 1)
    world.signal("paid", 2)
    world.succeed("0.0.1.1", 1)
    world.fail("0.0.2", ValueError())
    assert world.value() == ["ccf", 1, 2]


def test_what_ends_late_is_told_as_it_ended():
    """
    A step that was cancelled by a quorum and returned all the same: its value is not lost.
    """

    async def body() -> Any:
        found = await gather(odd(1), odd(3), odd(5), enough=1)
        return [statuses(found), found.reason, found.succeeded]

    world = begun(body)
    world.succeed("0.0", 10)
    world.stop("0.1")
    world.succeed("0.2", 50)
    assert world.value() == ["scs", "enough succeeded", [10, 50]]


def test_a_retried_run_continues_in_a_group_with_a_rule():
    """
    What had succeeded stays; what failed, was cut off or never began is done anew, by the recorded rule.
    """
    from durable._core.journal.history import reopened

    async def body() -> Any:
        return (await for_each(odd, [1, 2, 4, 3, 5], concurrency=2, tolerate=1)).succeeded

    world = begun(body)
    world.succeed("0.0", 10)
    world.fail("0.1", ValueError())
    world.fail("0.2", ValueError())
    world.stop("0.3")
    assert world.end.ended == "failed"
    more = World(world.op)
    more.begin([*world.events, reopened(world.events, START)])
    assert sorted(action.position for action in more.steps)[:2] == ["0.1", "0.2"]
    for position, value in (("0.1", 2), ("0.2", 4)):
        more.succeed(position, value)
    assert more.run_on() == [10, 2, 4, 30, 50]


# --- what is refused --------------------------------------------------------------------------------


class Nameless:
    pass


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: gather(take(1), enough=0), "gather of 1: enough must be 1 to 1, found 0"),
        (lambda: gather(take(1), enough=2), "gather of 1: enough must be 1 to 1, found 2"),
        (lambda: for_each(take, [], enough=1), "for_each of 0: enough must be 1 to 0, found 1"),
        (lambda: gather(take(1), tolerate=-1), "tolerate must be a count of failures, or a share .*found -1"),
        (lambda: gather(take(1), tolerate=1.5), "a share as a float from 0 to 1, found 1.5"),
        (lambda: gather(take(1), tolerate=True), "found True"),
        (lambda: gather(take(1), concurrency=0), "gather: concurrency must be a whole number of at least 1"),
        (lambda: gather(take(1), enough=1, fail_fast=True), r"go with neither fail_fast \(tolerate=0\) nor"),
        (lambda: gather(take(1), enough=1, at_least=1), "at_least must be 1 to 1, and alone, found 1 with another"),
        (lambda: gather({1: take(1), "1": take(2)}), "two members are named '1', by 1 and '1'"),
        (lambda: gather({Nameless(): take(1)}), "the keys of members name them, found a Nameless that has no text"),
        (lambda: for_each(take, [1, 2], names=["a"]), "for_each over 2: names must be as many, found 1"),
    ],
)
def test_what_no_group_can_be_is_refused_where_it_is_written(make, words, recwarn):
    """
    Naming what was found; helpers among the members are closed.
    """
    with pytest.raises((ValueError, TypeError), match=words):
        make()
    with pytest.raises((ValueError, TypeError)):
        gather(odd_helper(1), tolerate=-1)
    assert not recwarn.list


def test_the_events_of_a_window_of_named_members():
    """
    The journal as a whole: the note stands behind the group it is about.
    """

    async def body() -> None:
        await gather({"eu": take(1), "us": take(2)}, concurrency=1)

    assert kinds(World(workflow(body)()).run()) == [
        "RunStarted", "GroupOpened 0", "GroupArranged 0", "StepStarted 0.0", "StepSucceeded 0.0", "StepStarted 0.1",
        "StepSucceeded 0.1", "RunSucceeded",
    ]  # fmt: skip
