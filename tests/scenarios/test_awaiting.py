"""
Scenarios 23 to 40: parents wait for children without holding anything, and go on exactly once.
"""

import asyncio
import contextlib
import sqlite3

import pytest

from durable import (
    Flow,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    for_each,
    gather,
    job,
    settle,
    sleep,
    start,
    step,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError
from tests.scenarios.differences import CACHE, COUNTS, ITEMS, LISTS, QUEUES, UNLISTED, differs, needs_a_file

pytestmark = pytest.mark.anyio

RAN: list[str] = []


@pytest.fixture(autouse=True)
def ran():
    """
    What bodies ran, in order.
    """
    RAN.clear()
    return RAN


@step
async def goes_on(name: str = "parent") -> None:
    RAN.append(f"{name} goes on")


@job
async def quick(name: str) -> str:
    RAN.append(name)
    return name.upper()


@job
async def may_fail(name: str) -> str:
    RAN.append(name)
    if name.startswith("bad"):
        raise ConnectionError(name)
    return name.upper()


@workflow
async def waits_for_ever() -> Flow[None]:
    yield wait_for("never")


async def statuses(run):
    return [child.status for child in await run.children()]


def kinds(history):
    return [event.kind for event in history]


@differs(CACHE)
async def test_a_parent_awaits_children_of_all_kinds_on_all_queues_and_goes_on_once(
    engines, ran, doors, eventually, reached
):
    """
    Scenario 23: the next step begins when all three have ended; results are in the order of the
    arguments, though the children end in the opposite order.

    Steps do not await children here, workflows do. The parent's code runs twice: once until it waits,
    and once, from its journal, when all of them have ended.
    """
    first, second = doors(), doors()
    replays = []

    @job(queue="a")
    async def on_a() -> str:
        await first()
        return "job"

    @step
    async def inside() -> str:
        await second()
        return "workflow"

    @workflow(queue="b")
    async def on_b() -> Flow[str]:
        value: str = yield inside()
        yield Return(value)

    @job(queue="c")
    def on_c() -> str:
        return "function in a thread"

    @workflow
    async def parent() -> Flow[list]:
        replays.append(len(ran))
        values: list = yield gather(on_a(), on_b(), on_c())
        yield goes_on()
        yield Return(values)

    engine = await engines.file(parent, on_a, on_b, on_c)
    run = await engine.start(parent())

    async def ended(count):
        return (await statuses(run)).count("succeeded") == count

    await first.reached()
    await second.reached()
    await eventually(lambda: ended(1))
    second.open()
    await eventually(lambda: ended(2))
    await reached(run, "waiting")
    assert ran == []
    first.open()
    assert await run.result(20) == ["job", "workflow", "function in a thread"]
    assert ran == ["parent goes on"]
    assert replays == ([0] if engines.differs(CACHE) else [0, 0])
    assert [child.queue for child in await run.children()] == ["a", "b", "c"]


@pytest.mark.long
@needs_a_file("it holds a queue still, between what is on disk and the wake-up: there is no such moment on a server")
async def test_a_parent_goes_on_once_when_its_last_children_end_at_the_same_instant(engines, ran, reached):
    """
    Scenario 24: a thousand parents of two children, which one event lets go; then a thousand more that
    are killed when the last outcome is on disk and the parent has not been woken.
    """
    gates = {}

    @job
    async def member(name: str, number: int) -> int:
        await gates[name].wait()
        return number

    @workflow(queue="parents")
    async def parent(name: str) -> Flow[list]:
        values: list[int] = yield gather(member(name, 1), member(name, 2))
        yield goes_on(name)
        yield Return(values)

    names = [str(number) for number in range(1000)]
    engine = await engines.memory(parent, member)
    for batch in (names[at : at + 50] for at in range(0, 1000, 50)):
        gates.update((name, asyncio.Event()) for name in batch)
        runs = await engine.start_many([parent(name) for name in batch])
        await all_active(engine, 100)
        for name in batch:
            gates[name].set()
        for run in runs:
            assert await run.result(10) == [1, 2]
    assert sorted(ran) == sorted(f"{name} goes on" for name in names)

    ran.clear()
    engine = await engines.file(parent, member, concurrency=3000)
    runs = await engine.start_many([parent(name).options(labels={"round": "two"}) for name in names])
    gates.update((name, asyncio.Event()) for name in names)
    await all_active(engine, 2000)
    await engine.queue("parents").pause()  # nobody is woken: the moment between outcome and wake-up, held still
    for name in names:
        gates[name].set()
    async with asyncio.timeout(20):
        while (await engine.stats()).runs.get("succeeded", 0) < 2000:
            await asyncio.sleep(0.01)
    assert ran == []
    await engines.crash(engine)
    engine = await engines.file(parent, member)
    await engine.queue("parents").resume()
    for run in runs:
        assert await engine.get(run.id).result(20) == [1, 2]
    assert sorted(ran) == sorted(f"{name} goes on" for name in names)


async def all_active(engine, count):
    async with asyncio.timeout(20):
        while (await engine.stats()).active < count:
            await asyncio.sleep(0.001)


async def test_a_child_that_ends_before_its_parent_waits_wakes_it_all_the_same(engines, ran, doors, eventually):
    """
    Scenario 25: one child has ended while a step of the parent still ran, so that the parent was not
    suspended; and two hundred parents whose children end as soon as they can.
    """
    hold = doors()

    @step
    async def holds() -> str:
        await hold()
        return "held"

    @job(thread=False)
    def instant(number: int) -> int:
        return number

    @workflow
    async def busy() -> Flow[list]:
        values: list = yield gather(instant(1), holds(), instant(2))
        yield goes_on()
        yield Return(values)

    @workflow
    async def racing(number: int) -> Flow[list]:
        values: list = yield gather(instant(number), sleep(0))
        yield Return(values)

    engine = await engines.memory(busy, racing, instant)
    run = await engine.start(busy())

    async def both_ended():
        return await statuses(run) == ["succeeded", "succeeded"]

    await eventually(both_ended)
    assert await run.status() == "running"
    hold.open()
    assert await run.result(20) == [1, "held", 2]
    assert ran == ["parent goes on"]
    many = engines.scaled(200, 10)
    runs = await engine.start_many([racing(number) for number in range(many)])
    assert [await run.result(20) for run in runs] == [[number, None] for number in range(many)]


async def test_awaiting_a_child_that_has_ended_continues_at_once(engines, ran, eventually):
    """Scenario 26: with its result, its error, and no run besides."""

    @workflow
    async def parent() -> Flow[list]:
        good = yield start(may_fail("good"))
        bad = yield start(may_fail("bad"))
        yield wait_for("go")
        value: str = yield good.result()
        error = yield settle(bad.result())
        yield Return([value, str(error.error)])

    engine = await engines.memory(parent, may_fail)
    run = await engine.start(parent())

    async def ended():
        return await statuses(run) == ["succeeded", "failed"]

    await eventually(ended)
    await run.signal("go")
    assert await run.result(20) == ["GOOD", "bad"]
    assert sorted(ran) == ["bad", "good"]
    assert len([info async for info in engine.runs()]) == 3


async def test_awaiting_nothing_continues_at_once(engines, ran):
    """
    Scenario 27: no members, None, an empty list, or one emptied by a filter: an empty result and no run
    besides. A list of members may be given as one argument, like several.
    """

    @workflow
    async def parent() -> Flow[list]:
        none_given: list = yield gather()
        none: list = yield gather(None)
        empty: list = yield gather([])
        filtered: list = yield gather(quick(name) for name in ["a", "b"] if name > "b")
        no_items: list = yield for_each(quick, [])
        yield goes_on()
        as_list: list = yield gather([quick("x"), quick("y")])
        yield Return([none_given, none, empty, filtered, no_items, as_list])

    engine = await engines.memory(parent, quick)
    run = await engine.start(parent())
    assert await run.result(20) == [[], [], [], [], [], ["X", "Y"]]
    assert ran[0] == "parent goes on"
    assert await statuses(run) == ["succeeded", "succeeded"]


async def test_one_failing_child_does_not_stop_its_siblings(engines, ran):
    """
    Scenario 28: the others end; the parent then gets a group of the failures; not caught, the run fails.

    The group holds the failures only; scenario 31 is how to get all outcomes.
    """
    seen = []

    @workflow
    async def parent() -> Flow[None]:
        try:
            yield gather(may_fail("one"), may_fail("bad"), may_fail("three"))
        except ExceptionGroup as group:
            seen.append([str(error) for error in group.exceptions])
            raise

    engine = await engines.memory(parent, may_fail)
    run = await engine.start(parent())
    with pytest.raises(RunFailedError) as caught:
        await run.result(20)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [type(error) for error in caught.value.__cause__.exceptions] == [ConnectionError]
    assert await statuses(run) == ["succeeded", "failed", "succeeded"]
    assert seen == [["bad"]]
    assert sorted(ran) == ["bad", "one", "three"]


async def test_a_parent_that_catches_a_failure_can_compensate_across_a_crash(engines, ran, door):
    """Scenario 29: after a crash in the compensation it is not awaited, or run, again."""

    @step
    async def compensate(names: list[str]) -> str:
        RAN.append("compensate")
        if RAN.count("compensate") == 1:
            await door()
        return f"undone after {names}"

    @workflow
    async def parent() -> Flow[str]:
        try:
            yield gather(may_fail("one"), may_fail("bad"), may_fail("three"))
        except* ConnectionError as group:
            names = [str(error) for error in group.exceptions]
        value: str = yield compensate(names)
        yield Return(value)

    engine = await engines.file(parent, may_fail)
    await engine.start(parent(), id="r")
    await door.reached()
    await engines.crash(engine)
    engine = await engines.file(parent, may_fail)
    run = engine.get("r")
    assert await run.result(20) == "undone after ['bad']"
    assert sorted(ran) == ["bad", "compensate", "compensate", "one", "three"]
    assert len(await run.children()) == 3


@differs(QUEUES)
async def test_fail_fast_cancels_what_runs_and_never_begins_the_rest(engines, ran, door, doors):
    """Scenario 30: at the first failure for good; the parent goes on once."""
    together = doors()

    @job(queue="two")
    async def fails() -> None:
        await together()
        raise ConnectionError("first")

    @job(queue="two")
    async def runs() -> None:
        await door()

    @job(queue="two")
    async def never_begins() -> None:
        RAN.append("began")

    @workflow
    async def parent() -> Flow[str]:
        try:
            yield gather(fails(), runs(), never_begins(), never_begins(), fail_fast=True)
        except ExceptionGroup as group:
            yield goes_on()
            yield Return(str(group.exceptions[0]))

    engine = await engines.memory(parent, fails, runs, never_begins, queues=[Queue("two", concurrency=2)])
    run = await engine.start(parent())
    await door.reached()
    await together.reached()
    together.open()
    assert await run.result(20) == "first"
    await door.left()
    if engines.differs(QUEUES):
        assert ran.count("parent goes on") == 1
        return
    for child in (await run.children())[1:]:
        with pytest.raises(RunCancelledError):
            await engine.get(child.run_id).result(20)
    assert await statuses(run) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert door.cut_off == 1
    assert ran == ["parent goes on"]


async def test_outcomes_can_be_collected_in_order(engines, ran):
    """Scenario 31: values and errors, aligned with the arguments; also one by one with `settle`."""

    @workflow
    async def parent() -> Flow[list]:
        names = ["one", "bad", "three"]
        mixed: list = yield gather(*(may_fail(name) for name in names), return_exceptions=True)
        settled: list = yield gather(*(settle(may_fail(name)) for name in names))
        yield Return([
            [repr(each) for each in mixed],
            [each.value if each.ok else repr(each.error) for each in settled],
        ])  # fmt: skip

    engine = await engines.memory(parent, may_fail)
    assert await engine.run(parent()) == [
        ["'ONE'", "ConnectionError('bad')", "'THREE'"],
        ["ONE", "ConnectionError('bad')", "THREE"],
    ]


async def test_a_child_that_succeeds_in_the_end_has_succeeded(engines, ran, clock):
    """Scenario 32: failed attempts of a child are its own affair; its parent's wait does not end early."""

    @job(retry=Retry(attempts=3, delay=10.0, factor=1.0, jitter=0.0))
    async def shaky() -> str:
        RAN.append("shaky")
        if len(RAN) < 3:
            raise ConnectionError
        return "at last"

    @workflow
    async def parent() -> Flow[str]:
        (value,) = yield gather(shaky())
        yield Return(value)

    engine = await engines.memory(parent, shaky, clock=clock)
    run = await engine.start(parent())
    await clock.passes_until(lambda: len(ran) == 3, 11)
    assert await run.result(20) == "at last"
    history = kinds(await run.history())
    assert history.count("ChildSucceeded") == 1
    assert "ChildFailed" not in history


async def test_fifty_levels_of_waiting_need_one_slot(engines, meter):
    """Scenario 33: a parent that waits holds none; never more than one body runs."""

    @step
    async def body(level: int) -> int:
        async with meter(level):
            return level

    @workflow
    async def deep(level: int) -> Flow[int]:
        below = 0
        if level:
            below = yield deep(level - 1)
        yield body(level)
        yield Return(below + 1)

    levels = engines.scaled(50, 15)
    engine = await engines.memory(deep, concurrency=1)
    assert await engine.run(deep(levels)) == levels + 1
    assert meter.peak == 1
    assert meter.order == list(range(levels + 1))


@differs(COUNTS)
async def test_ten_parents_of_ten_children_leave_all_ten_slots_to_the_children(engines, door, eventually):
    """Scenario 34: with ten slots ten children are under way at once, and no parent."""

    @job
    async def child(number: int) -> int:
        await door()
        return number

    @workflow
    async def parent() -> Flow[int]:
        values: list[int] = yield gather(*(child(number) for number in range(10)))
        yield Return(sum(values))

    engine = await engines.memory(parent, child, concurrency=10)
    parents = engines.scaled(10, 3)
    runs = await engine.start_many([parent() for _ in range(parents)])
    await door.reached(10)
    if not engines.differs(COUNTS):
        stats = await engine.stats()
        assert (stats.active, stats.resident) == (10, 0)

    async def all_wait():
        return [await run.status() for run in runs] == ["waiting"] * parents

    await eventually(all_wait)
    assert door.came == 10
    door.open()
    assert [await run.result(20) for run in runs] == [45] * parents


@needs_a_file("it is recovered from copies of its file, made at each commit")
async def test_every_crash_around_a_spawn_leaves_each_child_once(engines, ran, monkeypatch, copies):
    """Scenario 35: copies of the file before and after every COMMIT of the whole run, each recovered."""

    @workflow
    async def parent() -> Flow[list]:
        values: list[str] = yield gather(quick("a"), quick("b"), quick("c"))
        more: list[str] = yield for_each(quick, ["d", "e"], concurrency=2)
        yield Return([*values, *more])

    with monkeypatch.context() as patch:
        recorded = copies(patch)
        engine = await engines.file(parent, quick)
        assert await engine.run(parent(), id="r") == list("ABCDE")
        await engine.aclose()
    stages = set()
    for path in recorded.paths:
        with contextlib.closing(sqlite3.connect(path)) as file:
            stages.update(file.execute("SELECT count(*), count(ended) FROM runs WHERE parent IS NOT NULL"))
        engines.path = path
        engine = await engines.file(parent, quick)
        run = await engine.start(parent(), id="r")
        assert await run.result(20) == list("ABCDE"), path
        children = await run.children()
        assert [child.status for child in children] == ["succeeded"] * 5, path
        assert len({child.position for child in children}) == 5, path
        assert len([info async for info in engine.runs()]) == 6, path
        await engine.aclose()
    # There were crashes before the children were decided upon, after that, and between their ends.
    assert {(0, 0), (3, 0), (5, 3), (5, 5)} <= stages


async def test_a_list_of_children_is_built_from_recorded_results(engines, ran, reached):
    """
    Scenario 36: what a step returned is not computed again, so neither is the list that it decides.

    Code between steps runs again on each replay, so a list that is expensive or changes is a step's
    result (built once), or the items of a `for_each` (recorded: what they would be now does not count).
    """
    built = []
    changing = ["x", "y"]

    @step
    async def choose() -> int:
        RAN.append("choose")
        return 2

    @step
    async def build(count: int) -> list[str]:
        built.append(count)
        return [f"item {number}" for number in range(count)]

    @job
    async def gated(name: str) -> str:
        RAN.append(name)
        await gate.wait()
        return name

    @workflow
    async def parent() -> Flow[list]:
        count: int = yield choose()
        names: list[str] = yield build(count)
        values: list[str] = yield gather(*(gated(name) for name in names))
        more: list[str] = yield for_each(gated, changing)
        yield Return([*values, *more])

    gate = asyncio.Event()
    engine = await engines.file(parent, gated)
    run = await engine.start(parent(), id="r")
    await reached(run, "waiting")
    await engines.crash(engine)
    gate.set()
    engine = await engines.file(parent, gated)
    run = engine.get("r")
    assert await run.result(20) == ["item 0", "item 1", "x", "y"]
    assert built == [2]
    assert ran.count("choose") == 1
    assert len(await run.children()) == 4


@differs(ITEMS)
async def test_the_items_of_children_are_recorded(engines, ran, door):
    """Scenario 36, again: children of a list that has changed since are those of the list as it was."""
    source = ["x", "y"]

    @job
    async def gated(name: str) -> str:
        RAN.append(name)
        if len(RAN) == 1:
            await door()
        return name

    @workflow
    async def parent() -> Flow[list]:
        values: list[str] = yield for_each(gated, source)
        yield Return(values)

    engine = await engines.file(parent, gated)
    await engine.start(parent(), id="r")
    await door.reached()
    if not engines.differs(ITEMS):
        source[:] = ["other"]
    await engines.crash(engine)
    engine = await engines.file(parent, gated)
    assert await engine.get("r").result(20) == ["x", "y"]
    assert ran == ["x", "x", "y"]


async def test_a_child_whose_host_is_killed_runs_again_until_it_is_poison(engines, hosts):
    """
    Scenario 37: killed once, it is run again and its parent goes on. Killed three times, it fails:
    it kills no fourth host, its parent has a failure, and other runs go on.

    A lock that dies with its process takes the place of a lease.
    """
    host = hosts.module
    assert [hosts.life("parent", deaths=[1]) for _ in range(2)] == ["killed", "child"]
    assert hosts.lines() == ["child 1", "child 2", "parent goes on"]

    hosts.ledger.write_text("")
    assert [hosts.life("parent", deaths=[1, 2, 3], run="poison") for _ in range(3)] == ["killed"] * 3
    engine = await engines.file(*host.WORKFLOWS.values(), host.child, quick)
    run = engine.get("poison")
    assert await run.result(20) == "PoisonError"
    (child,) = await run.children()
    assert "died 3 times" in (await engine.get(child.id).info()).reason
    assert await engine.run(quick("other")) == "OTHER"
    assert hosts.lines() == ["child 1", "child 2", "child 3", "parent goes on"]


@differs(COUNTS)
async def test_a_map_over_a_thousand_items_keeps_ten_under_way(engines, meter):
    """Scenario 38: never more than ten bodies, nor more than ten children that have not ended; results in order."""
    engine = None
    open_children = []

    @job
    async def work(number: int) -> int:
        async with meter(number):
            if number % 50 == 0 and not engines.differs(COUNTS):
                runs = (await engine.stats()).runs
                open_children.append(sum(runs.get(status, 0) for status in ("pending", "running", "waiting")) - 1)
            return number * 2

    @workflow
    async def parent() -> Flow[list]:
        values: list[int] = yield for_each(work, range(many), concurrency=10)
        yield Return(values)

    many = engines.scaled(1000, 30)
    engine = await engines.memory(parent, work)
    assert await engine.run(parent()) == [number * 2 for number in range(many)]
    assert meter.peak <= 10
    assert sorted(meter.order) == list(range(many))
    if not engines.differs(COUNTS):
        assert meter.peak == 10
        assert len(open_children) == 20
        assert max(open_children) <= 10


@differs(UNLISTED)
async def test_a_diamond_joins_once_and_its_branches_overlap(engines, ran, doors, reached):
    """
    Scenario 39: graphs are plain code: `gather` of coroutines. Each branch begins before the other ends.

    There is no builder of graphs, so there is nothing to check at build time: in plain code a missing
    node is a NameError and a cycle cannot be written. A child that the engine does not know blocks
    its parent, which names it, and goes on once it is there.
    """
    left, right = doors(), doors()

    @step
    async def node(name: str, *before: str) -> str:
        RAN.append(name)
        if name == "left":
            right.open()
            await left()
        if name == "right":
            left.open()
            await right()
        return f"{name}({','.join(before)})"

    async def branch(name: str, top: str) -> str:
        first = await node(name, top)
        return await node(f"{name} end", first)

    @workflow
    async def diamond() -> Flow[str]:
        top: str = yield node("top")
        both: list[str] = yield gather(branch("left", top), branch("right", top))
        bottom: str = yield node("bottom", *both)
        yield Return(bottom)

    @workflow
    async def missing() -> Flow[str]:
        value: str = yield quick("late")
        yield Return(value)

    engine = await engines.file(diamond)
    assert await engine.run(diamond()) == "bottom(left end(left(top())),right end(right(top())))"
    assert sorted(ran) == ["bottom", "left", "left end", "right", "right end", "top"]
    assert ran[-1] == "bottom"
    await engine.aclose()
    if engines.differs(UNLISTED):
        with pytest.raises(DefinitionError, match="quick"):
            await engines.file(diamond, missing)
        return
    engine = await engines.file(diamond, missing)
    run = await engine.start(missing(), id="m")
    await reached(run, "blocked")
    assert "quick" in await run.why()
    await engine.aclose()
    engine = await engines.file(diamond, missing, quick)
    assert await engine.get("m").result(20) == "LATE"


@differs(QUEUES, LISTS)
async def test_cancelling_a_waiting_parent_cancels_all_below_it(engines, ran, door, eventually):
    """
    Scenario 40: those that run are cut off, those that have not begun never do, at every depth; all end
    "cancelled", and cancelling again changes nothing.
    """

    @job(queue="one")
    async def runs() -> None:
        await door()

    @job(queue="one")
    async def never_begins() -> None:
        RAN.append("began")
        await asyncio.sleep(60)

    @workflow
    async def middle() -> Flow[None]:
        yield gather(waits_for_ever(), never_begins())

    async def behind(op) -> None:
        await wait_for("it runs")
        await op

    @workflow
    async def parent() -> Flow[None]:
        yield gather(runs(), behind(never_begins()), behind(middle()))

    engine = await engines.file(
        parent, middle, runs, never_begins, waits_for_ever, queues=[Queue("one", concurrency=1)]
    )
    run = await engine.start(parent())
    await door.reached()
    for _ in range(2):
        await run.signal("it runs")

    async def all_below():
        return [info async for info in engine.runs() if info.run_id != run.id]

    async def all_have_begun():
        found = sorted([await engine.get(info.run_id).status() for info in await all_below()])
        if engines.differs(QUEUES):
            return len(found) == 5 and found.count("waiting") == 2
        return found == ["pending", "pending", "running", "waiting", "waiting"]

    await eventually(all_have_begun)
    assert await run.cancel("enough") is True
    with pytest.raises(RunCancelledError, match="enough"):
        await run.result(20)
    for info in await all_below():
        with pytest.raises(RunCancelledError):
            await engine.get(info.run_id).result(20)
    await door.left()
    assert (door.came, door.cut_off) == (1, 1)

    async def all_have_ended():
        return [info.status async for info in engine.runs()] == ["cancelled"] * 6

    assert engines.differs(LISTS) or await all_have_ended()
    await eventually(all_have_ended)
    before = [(info.run_id, info.status, info.ended_at) async for info in engine.runs()]
    assert await run.cancel("again") is False
    assert [(info.run_id, info.status, info.ended_at) async for info in engine.runs()] == before
    assert (await run.info()).reason == "enough"
    assert ran == [] or engines.differs(QUEUES)
