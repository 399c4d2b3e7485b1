"""
Scenarios 13 to 22: loops over items and records go on where they were, and not somewhere near it.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from durable import Flow, Retry, Return, RunFailedError, context, cursor, for_each, step, wait_for, workflow
from durable.errors import EncodeError
from tests.scenarios.differences import ITEMS, differs

pytestmark = pytest.mark.anyio

RAN: list[object] = []


@pytest.fixture(autouse=True)
def ran():
    """
    The items that bodies got, in order.
    """
    RAN.clear()
    return RAN


@step
async def keep(item: object) -> object:
    RAN.append(item)
    return item


@workflow
async def over(items: list) -> Flow[list]:
    values: list = yield for_each(keep, items)
    yield Return(values)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_failed_item_is_tried_again_alone(engines, ran, clock, eventually, restarted):
    """Scenario 13: 1, 2, 3, 3, 4, 5; also with a crash between the failure and the retry."""

    @step(retry=Retry(attempts=2, delay=10.0, jitter=0.0))
    async def shaky(item: int) -> int:
        RAN.append(item)
        if item == 3 and RAN.count(3) == 1:
            raise ConnectionError
        return item * 10

    @workflow
    async def flow() -> Flow[list[int]]:
        values: list[int] = yield for_each(shaky, [1, 2, 3, 4, 5])
        yield Return(values)

    engine = await engines.file(flow, clock=clock)
    run = await engine.start(flow(), id="r")

    async def has_failed():
        return ran == [1, 2, 3] and await run.status() != "pending"

    await eventually(has_failed)
    if restarted:
        await engines.crash(engine)
        engine = await engines.file(flow, clock=clock)
    await clock.passes_until(lambda: 4 in ran, 11)
    assert await engine.get("r").result(20) == [10, 20, 30, 40, 50]
    assert ran == [1, 2, 3, 3, 4, 5]


async def test_equal_items_are_items_of_their_own(engines, ran):
    """Scenario 14: `[1, 1, 2]` is three executions and three results, in order."""

    @step
    async def numbered(item: int) -> list[int]:
        RAN.append(item)
        return [item, len(RAN)]

    @workflow
    async def flow() -> Flow[list]:
        values: list = yield for_each(numbered, [1, 1, 2])
        yield Return(values)

    engine = await engines.memory(flow)
    assert await engine.run(flow()) == [[1, 1], [1, 2], [2, 3]]
    assert ran == [1, 1, 2]


async def test_falsy_items_are_items(engines, ran):
    """Scenario 15: each is executed, in order, with its own type."""
    items = [1, None, False, "", 0, 2]
    engine = await engines.memory(over)
    found = await engine.run(over(items))
    for values in (found, ran):
        assert values == items
        assert [type(value) for value in values] == [type(item) for item in items]


async def test_no_items_are_no_executions(engines, ran):
    """Scenario 16: the loop succeeds with an empty list, and the next step runs."""

    @workflow
    async def flow() -> Flow[list]:
        nothing: list = yield for_each(keep, [])
        after: object = yield keep("after")
        yield Return([nothing, after])

    engine = await engines.memory(flow)
    assert await engine.run(flow()) == [[], "after"]
    assert ran == ["after"]


@differs(ITEMS)
async def test_the_items_are_those_of_the_first_time(engines, ran, door):
    """Scenario 17: a collection that changes between the crash and the recovery changes nothing."""
    source = ["a", "b", "c", "d"]

    @step
    async def slow(item: str) -> str:
        RAN.append(item)
        if RAN == ["a", "b"]:
            await door()
        return item.upper()

    @workflow
    async def flow() -> Flow[list[str]]:
        values: list[str] = yield for_each(slow, source)
        yield Return(values)

    engine = await engines.file(flow)
    await engine.start(flow(), id="r")
    await door.reached()
    if not engines.differs(ITEMS):
        source[:] = ["x", "c"]
    await engines.crash(engine)
    engine = await engines.file(flow)
    assert await engine.get("r").result(20) == ["A", "B", "C", "D"]
    assert ran == ["a", "b", "b", "c", "d"]


def test_a_kill_repeats_no_record_behind_the_cursor(hosts):
    """Scenario 18, strict: killed once record 2 of 5 was saved, the next life begins with record 3."""
    assert hosts.life("records", 1, deaths=[4]) == "killed"
    assert hosts.lines()[-1] == "after 2"
    assert hosts.life("records", 1, deaths=[4]) == 5
    done = [line for line in hosts.lines() if line.startswith("record")]
    assert done == ["record 1", "record 2", "record 3", "record 4", "record 5"]


def test_a_kill_repeats_at_most_the_records_not_saved_yet(hosts):
    """Scenario 18, batched: a cursor that saves each third move repeats two records here, and never three."""
    assert hosts.life("records", 3, deaths=[4]) == "killed"
    assert hosts.life("records", 3, deaths=[4]) == 5
    done = [line for line in hosts.lines() if line.startswith("record")]
    assert done == ["record 1", "record 2", "record 1", "record 2", "record 3", "record 4", "record 5"]


async def test_a_failing_record_is_tried_again_from_the_cursor_until_the_attempts_are_used_up(engines, ran):
    """
    Scenario 19: each attempt begins at record 3; the run fails in the end and keeps the cursor.

    Attempts are those of the step in all: progress between them gives none back.
    """

    @step(retry=Retry(attempts=3, delay=0.0))
    async def records() -> int:
        done = cursor(0)
        for number in range(done.value, 5):
            RAN.append(number + 1)
            if number + 1 == 3 and RAN.count(3) <= 3:
                raise ConnectionError
            await done.advance(number + 1)
        return done.value

    @workflow
    async def flow() -> Flow[int]:
        count: int = yield records()
        yield Return(count)

    engine = await engines.file(flow)
    run = await engine.start(flow(), id="r")
    with pytest.raises(RunFailedError):
        await run.result(20)
    assert ran == [1, 2, 3, 3, 3]
    await engines.crash(engine)
    engine = await engines.file(flow)
    run = engine.get("r")
    await run.retry()
    assert await run.result(20) == 5
    assert ran == [1, 2, 3, 3, 3, 3, 4, 5]


async def test_a_cursor_keeps_its_types_and_refuses_what_it_cannot_record(engines, ran, door):
    """Scenario 20: dates, tuples and nested values come back as they were; another class is refused when set."""
    rich = {
        "day": date(2026, 2, 28),
        "at": (datetime(2026, 2, 28, 12, tzinfo=UTC), timedelta(hours=1)),
        "nested": [{"price": Decimal("9.90")}, {1, 2}, b"\x00"],
    }

    class Page:
        """A class of the user's, without an annotation anywhere."""

    @step
    async def pages() -> str:
        place = cursor()
        RAN.append(place.value)
        if place.value is not None:
            return "resumed"
        await place.advance(rich)
        with pytest.raises(EncodeError, match="Page"):
            await place.advance(Page())
        await door()
        return "not killed"

    @workflow
    async def flow() -> Flow[str]:
        value: str = yield pages()
        yield Return(value)

    engine = await engines.file(flow)
    await engine.start(flow(), id="r")
    await door.reached()
    await engines.crash(engine)
    engine = await engines.file(flow)
    assert await engine.get("r").result(20) == "resumed"
    assert ran == [None, rich]
    kept = ran[1]
    assert [type(kept["day"]), type(kept["at"]), type(kept["at"][1])] == [date, tuple, timedelta]
    assert type(kept["nested"][0]["price"]) is Decimal
    assert isinstance(kept["nested"][1], set)  # one that iterates in the order of its record


async def test_two_loops_over_the_same_items_keep_separate_progress(engines, ran, door):
    """Scenario 21: a crash in the second loop repeats nothing of the first, nor what the second has done."""
    items = ["a", "b", "c"]

    @step
    async def first(item: str) -> str:
        RAN.append(f"first {item}")
        return item

    @step
    async def second(item: str) -> str:
        RAN.append(f"second {item}")
        if item == "b" and RAN.count("second b") == 1:
            await door()
        return item

    @workflow
    async def flow() -> Flow[list]:
        one: list[str] = yield for_each(first, items)
        two: list[str] = yield for_each(second, items)
        yield Return([one, two])

    engine = await engines.file(flow)
    await engine.start(flow(), id="r")
    await door.reached()
    await engines.crash(engine)
    engine = await engines.file(flow)
    assert await engine.get("r").result(20) == [items, items]
    assert ran == [
        "first a", "first b", "first c", "second a", "second b",
        "second b", "second c",
    ]  # fmt: skip


async def test_a_shutdown_during_a_loop_is_no_failed_attempt(engines, ran, door):
    """
    Scenario 22: the body is cut off where it awaits, at the latest when the grace is over; the next life
    begins with the record behind the cursor. The step has one attempt in all, so a failed one would end it.
    """
    attempts = []

    @step(retry=1)
    async def records() -> int:
        attempts.append(context().attempt)
        done = cursor(0)
        for number in range(done.value, 5):
            if number == 2 and context().attempt == 1:
                await door()
            RAN.append(number + 1)
            await done.advance(number + 1)
        return done.value

    @workflow
    async def flow() -> Flow[int]:
        count: int = yield records()
        yield Return(count)

    engine = await engines.file(flow, grace=0.01)
    await engine.start(flow(), id="r")
    await door.reached()
    async with asyncio.timeout(2):
        await engine.aclose()
    assert door.cut_off == 1
    assert ran == [1, 2]
    engine = await engines.file(flow)
    run = engine.get("r")
    assert await run.result(20) == 5
    assert ran == [1, 2, 3, 4, 5]
    assert attempts == [1, 2]
    assert "StepFailed" not in [event.kind for event in await run.history()]


async def test_a_loop_between_records_stops_when_the_engine_closes(engines, ran, reached):
    """Scenario 22, for items: no further item begins once closing was asked for, and each runs once."""
    engines_closing = asyncio.Event()

    @step
    async def item(number: int) -> int:
        RAN.append(number)
        if number == 2:
            engines_closing.set()
            await asyncio.sleep(0.005)  # ends within the grace
        return number

    @workflow
    async def flow() -> Flow[list[int]]:
        values: list[int] = yield for_each(item, [1, 2, 3, 4])
        yield wait_for("go")
        yield Return(values)

    engine = await engines.file(flow)
    await engine.start(flow(), id="r")
    await engines_closing.wait()
    await engine.aclose()
    assert ran == [1, 2]
    engine = await engines.file(flow)
    run = engine.get("r")
    await run.signal("go")
    assert await run.result(20) == [1, 2, 3, 4]
    assert ran == [1, 2, 3, 4]
