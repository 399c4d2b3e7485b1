"""
What went wrong in other engines, by public reports: each small program must come to its end here, on either engine.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from attrs import frozen

from durable import (
    Flow,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    RunStateError,
    gather,
    job,
    race,
    settle,
    step,
    timeout,
    wait_for,
    workflow,
)

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
async def note(text: str) -> str:
    RAN.append(text)
    return text


@workflow
async def innocent() -> Flow[str]:
    yield wait_for("go")
    value: str = yield note("fine")
    yield Return(value)


# --- what steps raise and return -----------------------------------------------------------------------


class AbortError(BaseException):
    """As libraries have them, which no `except Exception` is to catch."""


class SilentError(Exception):
    """Says nothing about itself."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


async def of_an_inner_task() -> None:
    task = asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def raises(error: BaseException) -> None:
    raise error


STRANGE: dict[str, Callable[[], Any]] = {
    "a cancellation that leaked": lambda: raises(asyncio.CancelledError("leaked")),
    "that of an inner task": of_an_inner_task,
    "an exit of a generator": lambda: raises(GeneratorExit("over")),
    "what is no Exception": lambda: raises(AbortError("library")),
    "what says nothing": lambda: raises(SilentError()),
}


async def fails_alone(engines, flow):
    """A run of *flow* fails, and one beside it that waits meanwhile succeeds."""
    engine = await engines.memory(flow, innocent)
    run, other = await engine.start_many([flow(), innocent()])
    with pytest.raises(RunFailedError):
        await run.result(20)
    await other.signal("go")
    assert await other.result(20) == "fine"


@pytest.mark.parametrize("kind", STRANGE)
async def test_whatever_a_step_raises_fails_its_run_and_no_other(engines, ran, kind):
    """
    It is called once, since no other attempt was asked for.
    """

    @step
    async def strange() -> None:
        RAN.append(kind)
        await STRANGE[kind]()

    @workflow
    async def flow() -> Flow[None]:
        yield strange()

    await fails_alone(engines, flow)
    assert ran == [kind, "fine"]


FROM_THREADS = [asyncio.CancelledError("leaked"), AbortError("library"), StopIteration("x")]


@pytest.mark.parametrize("error", FROM_THREADS, ids=lambda error: type(error).__name__)
async def test_whatever_a_plain_function_raises_fails_its_run_and_no_other(engines, ran, error):
    """
    The same, from its thread.
    """

    @step
    def strange() -> None:
        RAN.append("strange")
        raise error

    @workflow
    async def flow() -> Flow[None]:
        yield strange()

    await fails_alone(engines, flow)
    assert ran == ["strange", "fine"]


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    return value


UNRECORDABLE: dict[str, Callable[[], Any]] = {
    "an object": object,
    "2 MB": lambda: "x" * 2_000_000,
    "200 lists in one another": nested,
    "a lock": threading.Lock,
}


@pytest.mark.parametrize("kind", UNRECORDABLE)
async def test_a_result_that_cannot_be_recorded_is_told_and_its_step_not_repeated(engines, ran, kind):
    """
    The effect is done: another attempt would bring the same. The error names the step, and can be caught.
    """

    @step(retry=Retry(attempts=3, delay=0.0))
    async def effect() -> object:
        RAN.append(kind)
        return UNRECORDABLE[kind]()

    @workflow
    async def flow() -> Flow[str]:
        settled = yield settle(effect())
        yield Return(str(settled.error))

    engine = await engines.memory(flow)
    assert "effect" in await engine.run(flow())
    assert ran == [kind]


# --- values of signals ---------------------------------------------------------------------------------


class Color(Enum):
    RED = 1


class Point(NamedTuple):
    x: int


@frozen
class Order:
    number: int
    at: datetime | None = None


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
VALUES: list[tuple[Any, Any]] = [
    (NOON, datetime), (timedelta(3), timedelta), (Decimal("1.5"), Decimal), (UUID(int=3), UUID), (b"ab", bytes),
    ((1, 2), tuple[int, int]), ({1, 2}, set[int]), (Path("/a"), Path), (Color.RED, Color), (Point(3), Point),
    (Order(1, NOON), Order), ([Order(1)], list[Order]), (None, int | None), ({1: "a"}, dict[int, str]),
]  # fmt: skip


async def test_the_value_of_a_signal_is_of_the_type_that_is_waited_for(engines):
    """
    Not what JSON would make of it.
    """

    @workflow
    async def flow() -> Flow[list[str]]:
        found = []
        for number, (_, kind) in enumerate(VALUES):
            value = yield wait_for(f"signal {number}", kind)
            found.append(repr(value))
        yield Return(found)

    engine = await engines.memory(flow)
    run = await engine.start(flow())
    for number, (value, _) in enumerate(VALUES):
        await run.signal(f"signal {number}", value)
    assert await run.result(20) == [repr(value) for value, _ in VALUES]


async def test_no_signal_is_lost_that_was_acknowledged_before_a_workflow_ended(engines):
    """
    One that takes all that there are before it returns has taken all; whoever comes later is told.
    """

    @workflow
    async def drains() -> Flow[list[int]]:
        found: list[int] = []
        yield note("begun")
        while (each := (yield settle(wait_for("n", int, timeout=0)))).ok:
            found.append(each.value)
        yield Return(found)

    async def sends(run, first):
        sent = []
        with contextlib.suppress(RunStateError):
            for number in range(first, first + 10):
                await run.signal("n", number)
                sent.append(number)
        return sent

    engine = await engines.memory(drains)
    for _ in range(3):
        run = await engine.start(drains())
        acknowledged = await asyncio.gather(*(sends(run, 1000 * sender) for sender in range(3)))
        assert sorted(await run.result(20)) == sorted(number for sent in acknowledged for number in sent)


# --- runs with keys that others wait for, too ----------------------------------------------------------


@workflow
async def shared() -> Flow[str]:
    value: str = yield wait_for("go", str)
    yield Return(value)


@workflow
async def joins(key: str) -> Flow[str]:
    value: str = yield shared().options(key=key)
    yield Return(value)


@workflow
async def is_impatient(key: str) -> Flow[str]:
    settled = yield settle(timeout(shared().options(key=key), 0.1))
    yield Return(type(settled.error).__name__)


async def test_who_joins_a_run_by_its_key_does_not_end_it(engines, reached):
    """
    Neither by being cancelled nor by a timeout: it belongs to who has started it.
    """
    engine = await engines.memory(shared, joins, is_impatient)
    run = await engine.start(shared(), key="k")
    joined = await engine.start(joins("k"))
    await reached(joined, "waiting")
    await joined.cancel("enough")
    with pytest.raises(RunCancelledError):
        await joined.result(20)
    assert await engine.run(is_impatient("k")) == "TimeoutError"
    await run.signal("go", "done")
    assert await run.result(20) == "done"


async def test_who_started_a_run_by_its_key_ends_it(engines, reached):
    """
    As any other child, when it is waited for no longer.
    """
    engine = await engines.memory(shared, is_impatient)
    assert await engine.run(is_impatient("k")) == "TimeoutError"
    await reached(await engine.find("k"), "cancelled")


# --- clean-up ------------------------------------------------------------------------------------------


class Connection:
    """What a step has open; to close it takes a moment."""

    async def __aenter__(self):
        RAN.append("begin")

    async def __aexit__(self, kind, *_):
        await asyncio.sleep(0.02)
        RAN.append("committed" if kind is None else "rolled back")


@step
async def connected() -> None:
    async with Connection():
        await asyncio.sleep(60)


@step(timeout=0.1)
async def connected_for_a_moment() -> None:
    async with Connection():
        await asyncio.sleep(60)


@job
async def connected_job() -> None:
    async with Connection():
        await asyncio.sleep(60)


@step
async def fails_when_they_have_begun() -> None:
    while "begin" not in RAN:
        await asyncio.sleep(0.001)
    raise ValueError("x")


CUT_OFF: dict[str, Callable[[], Any]] = {
    "by its own timeout": connected_for_a_moment,
    "by a timeout around it": lambda: timeout(connected(), 0.5),
    "by a failure beside it": lambda: gather(connected(), fails_when_they_have_begun(), fail_fast=True),
    "by a race that is lost": lambda: race(connected(), fails_when_they_have_begun()),
    "as a job": lambda: timeout(connected_job(), 0.5),
}


@pytest.mark.parametrize("how", CUT_OFF)
async def test_a_step_that_is_cut_off_cleans_up_before_the_next_begins(engines, ran, eventually, how):
    """
    Its clean-up may await; what the workflow asks for next does not begin beside it.
    """

    @workflow
    async def flow() -> Flow[None]:
        yield settle(CUT_OFF[how]())
        yield note("next")

    engine = await engines.memory(flow, connected_job)
    await engine.run(flow())

    async def has_cleaned_up():
        return len(ran) == 3

    await eventually(has_cleaned_up)
    if how != "as a job":  # a child is told to end, and is not waited for
        assert ran == ["begin", "rolled back", "next"]
    assert sorted(ran) == ["begin", "next", "rolled back"]


async def test_a_clean_up_that_fails_is_told(engines, reached):
    """
    The run was cancelled, and says what went wrong then.
    """

    @step
    async def refund() -> None:
        raise ConnectionError("the bank is down")

    @workflow
    async def booking() -> Flow[None]:
        try:
            yield wait_for("never")
        finally:
            yield refund()

    engine = await engines.memory(booking)
    run = await engine.start(booking())
    await reached(run, "waiting")
    await run.cancel("no longer wanted")
    with pytest.raises((RunCancelledError, RunFailedError)) as ended:
        await run.result(20)
    info = await run.info()
    assert "the bank is down" in f"{ended.value.__cause__} {info.reason} {info.error}"


# --- jobs that have failed -----------------------------------------------------------------------------


async def test_what_has_failed_for_whatever_reason_can_be_retried(engines, ran):
    """
    A job whose attempts are used up, one that ran out of time, and a map of which some have failed.
    """
    mended = asyncio.Event()

    @job(retry=Retry(attempts=2, delay=0.0))
    async def may_fail(number: int) -> int:
        RAN.append(f"job {number}")
        if number % 3 == 0 and not mended.is_set():
            raise ValueError(number)
        return number

    @job(timeout=0.2)
    async def takes_long() -> str:
        await asyncio.sleep(0 if mended.is_set() else 60)
        return "in time"

    @workflow
    async def mapped() -> Flow[list[int]]:
        values: list[int] = yield gather(*(may_fail(number) for number in range(1, 5)))
        yield Return(values)

    engine = await engines.memory(may_fail, takes_long, mapped)
    runs = await engine.start_many([may_fail(0), takes_long(), mapped()])
    for run in runs:
        with pytest.raises(RunFailedError):
            await run.result(20)
    mended.set()
    for run in runs:
        assert await run.retry() is True
    assert [await run.result(20) for run in runs] == [0, "in time", [1, 2, 3, 4]]
    assert [ran.count(f"job {number}") for number in range(5)] == [3, 1, 1, 3, 1]
