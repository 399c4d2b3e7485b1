"""
Signals: recorded before acknowledged, delivered once, in order, whatever the run is doing.
"""

import asyncio
import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import pydantic
import pytest
from attrs import frozen

from durable import (
    Flow,
    Return,
    RunNotFoundError,
    Signal,
    SignalPayloadError,
    current,
    gather,
    race,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable.errors import EncodeError, RunStateError

pytestmark = pytest.mark.anyio


@frozen
class Approval:
    by: str
    amount: int = 0


@workflow
async def three() -> Flow[list]:
    first = yield wait_for("go")
    second = yield wait_for("go")
    third = yield wait_for("go")
    yield Return([first, second, third])


@workflow
async def typed() -> Flow[str]:
    approval: Approval = yield wait_for("approve", Approval)
    assert isinstance(approval, Approval)
    yield Return(approval.by)


@workflow
async def patient(seconds: float) -> Flow[str]:
    try:
        value: str = yield wait_for("go", str, timeout=seconds)
    except TimeoutError:
        yield Return("nobody came")
    else:
        yield Return(value)


async def test_signals_are_delivered_first_in_first_out(engines):
    """
    Whether sent early or late, each is consumed once, in the order of recording.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    for number in (1, 2, 3):
        assert await run.signal("go", number) is True
    assert await run.result(5) == [1, 2, 3]


async def test_early_signals_are_kept(engines):
    """
    A signal sent before its run has begun waits for it, across a restart too.
    """
    engine = await engines.file(three)
    await engine.queue("default").pause()
    run = await engine.start(three(), id="r")
    await run.signal("go", "a")
    await run.signal("other", "x")
    await engine.aclose()
    engine = await engines.file(three)
    run = engine.get("r")
    await run.signal("go", "b")
    await engine.queue("default").resume()
    await run.signal("go", "c")
    assert await run.result(5) == ["a", "b", "c"]


async def test_a_signal_during_a_step_is_kept(engines):
    """
    A run that executes a step does not miss what arrives meanwhile.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @step
    async def work() -> None:
        began.set()
        await go.wait()

    @workflow
    async def busy() -> Flow[str]:
        yield work()
        value: str = yield wait_for("go")
        yield Return(value)

    engine = await engines.memory(busy)
    run = await engine.start(busy())
    await began.wait()
    await run.signal("go", "early")
    go.set()
    assert await run.result(5) == "early"


async def test_dedup_accepts_an_id_once(engines):
    """
    A second signal of one dedup id is not accepted, across a restart too; another run's ids are its own.
    """
    engine = await engines.file(three)
    run, other = await engine.start_many([three(), three()])
    assert await run.signal("go", 1, dedup="d-1") is True
    assert await run.signal("go", 1, dedup="d-1") is False
    assert await other.signal("go", 1, dedup="d-1") is True
    await engine.aclose()
    engine = await engines.file(three)
    run = engine.get(run.id)
    assert await run.signal("go", 1, dedup="d-1") is False
    assert await run.signal("go", 2, dedup="d-2") is True
    assert await run.signal("go", 3) is True
    assert await run.result(5) == [1, 2, 3]


async def test_a_repeated_signal_is_no_error_after_the_end(engines):
    """
    A sender that repeats itself is told so whether or not the run has ended; a new signal is refused.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    for number in range(3):
        assert await run.signal("go", number, dedup=f"d-{number}") is True
    assert await run.result(5) == [0, 1, 2]
    assert await run.signal("go", 2, dedup="d-2") is False
    for _ in range(2):  # what was refused is not accepted the second time either
        with pytest.raises(RunStateError, match=r"cannot signal 'go' to run .*: it is succeeded. Start a new run"):
            await run.signal("go", 3, dedup="d-3")


async def test_concurrent_signals_of_one_dedup_id_are_one(engines):
    """
    However many senders retry at once, one is accepted.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    accepted = await asyncio.gather(*(run.signal("go", 1, dedup="d") for _ in range(20)))
    assert sum(accepted) == 1


async def test_signals_to_a_paused_run_wait_for_it(engines, reached):
    """
    A paused run receives nothing until it is resumed, and then everything.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    await reached(run, "waiting")
    await run.pause()
    for number in (1, 2, 3):
        await run.signal("go", number)
    assert await run.status() == "paused"
    await run.resume()
    assert await run.result(5) == [1, 2, 3]


async def test_a_signal_to_an_ended_run_is_refused(engines):
    """
    RunStateError, for nobody will read it; RunNotFoundError where there is no run.
    """
    engine = await engines.memory(patient)
    run = await engine.start(patient(0))
    await run.result(5)
    with pytest.raises(RunStateError, match="succeeded"):
        await run.signal("go", "late")
    with pytest.raises(RunNotFoundError):
        await engine.get("nobody").signal("go")


async def test_a_payload_of_a_class_is_typed_by_its_receiver(engines):
    """
    attrs classes travel as fields; the waiting workflow names the type.
    """
    engine = await engines.memory(typed)
    run = await engine.start(typed())
    await run.signal("approve", Approval("ann", 3))
    assert await run.result(5) == "ann"


async def test_a_payload_that_does_not_fit_raises_in_the_workflow(engines):
    """
    The sender's mistake does not block the run: the workflow can answer it.
    """

    @workflow
    async def careful() -> Flow[str]:
        try:
            yield wait_for("approve", Approval)
        except Exception as error:
            yield Return(type(error).__name__)

    engine = await engines.memory(careful)
    run = await engine.start(careful())
    await run.signal("approve", {"amount": "many"})
    assert await run.result(5) == "SignalPayloadError"
    received = [event.value for event in await run.history() if event.kind == "SignalReceived"]
    assert received == ['{"amount":"many"}']  # and stays readable


async def test_a_payload_that_cannot_be_recorded_is_refused(engines):
    """
    Nothing is sent.
    """
    engine = await engines.memory(three)
    run = await engine.start(three())
    with pytest.raises(EncodeError, match="signal 'go'"):
        await run.signal("go", object())


async def test_wait_for_times_out_by_the_clock(engines, clock, reached):
    """
    `wait_for(timeout=)` is a durable timer: it fires when due and not before.
    """
    engine = await engines.memory(patient, clock=clock)
    run = await engine.start(patient(3600))
    await reached(run, "waiting")
    clock.advance(3599)
    assert await run.status() == "waiting"
    clock.advance(2)
    assert await run.result(5) == "nobody came"


async def test_a_signal_beats_the_timeout(engines, clock, reached):
    """
    Once a signal is consumed its timer is gone.
    """
    engine = await engines.memory(patient, clock=clock)
    run = await engine.start(patient(3600))
    await reached(run, "waiting")
    await run.signal("go", "in time")
    assert await run.result(5) == "in time"
    assert (await engine.stats()).waits == 0


async def test_a_losing_wait_consumes_nothing(engines, reached):
    """
    A race's losing `wait_for` leaves the signal for the next one.
    """

    @workflow
    async def racing() -> Flow[list]:
        won = yield race(wait_for("a"), wait_for("b"))
        later = yield wait_for("b")
        yield Return([won.index, won.value, later])

    engine = await engines.memory(racing)
    run = await engine.start(racing())
    await reached(run, "waiting")
    await run.signal("a", 1)
    await run.signal("b", 2)
    assert await run.result(5) == [0, 1, 2]


async def test_two_strands_waiting_for_one_name_get_one_each(engines):
    """
    In the order in which they began to wait.
    """

    @workflow
    async def both() -> Flow[list]:
        got = yield gather(wait_for("go"), wait_for("go"))
        yield Return(got)

    engine = await engines.memory(both)
    run = await engine.start(both())
    await run.signal("go", 1)
    await run.signal("go", 2)
    assert await run.result(5) == [1, 2]


async def test_signals_reach_the_successor_of_a_run(engines, reached, eventually):
    """
    A signal to a run that continued as another goes to that one.
    """
    from durable import continue_as

    @workflow
    async def loop(round_: int) -> Flow[str]:
        value = yield wait_for("go")
        if round_ < 2:
            yield continue_as(loop(round_ + 1))
        yield Return(f"{value} in {current().run_id}")

    engine = await engines.memory(loop)
    run = await engine.start(loop(0), id="loop")
    for number in range(3):
        await run.signal("go", number)
        if number < 2:
            successor = engine.get(f"loop~{number + 2}")

            async def exists(successor=successor):
                return [info async for info in engine.runs() if info.run_id == successor.id] != []

            await eventually(exists)
    assert await run.result(5) == "2 in loop~3"


async def test_a_thousand_signals_keep_their_order(engines):
    """
    No signal is lost or doubled, however fast they come.
    """

    @workflow
    async def counting(count: int) -> Flow[list]:
        got = []
        for _ in range(count):
            got.append((yield wait_for("n")))  # noqa: PERF401 - no comprehension may yield
        yield Return(got)

    engine = await engines.file(counting)
    run = await engine.start(counting(300))
    for number in range(300):
        await run.signal("n", number)
    assert await run.result(10) == list(range(300))


async def test_a_timer_and_a_signal_in_one_race(engines):
    """
    The first recorded wins, and the run does not hang on the other.
    """

    @workflow
    async def racing() -> Flow[int]:
        won = yield race(wait_for("go"), sleep(0.01))
        yield Return(won.index)

    engine = await engines.memory(racing)
    assert await engine.run(racing()) == 1


async def test_a_thousand_arrivals_are_taken_in_by_and_by_and_in_order(engines, clock):
    """
    However many signals came before the run began, each is delivered once, in the order of the commits.
    """

    @workflow
    async def listener() -> Flow[list[int]]:
        got: list[int] = []
        while len(got) < 1_000:
            got.append((yield wait_for("go", int)))
        yield Return(got)

    engine = await engines.memory(listener, clock=clock)
    run = await engine.start(listener(), delay=60)
    for number in range(1_000):
        await run.signal("go", number)
    clock.advance(61)
    assert await run.result(10) == list(range(1_000))


payment = Signal("payment", Approval)


class Color(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int


@dataclass
class Visit:
    n: int
    when: datetime | None = None


class Quote(TypedDict):
    when: datetime
    price: Decimal


class Order(pydantic.BaseModel):
    n: int


NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: (what is sent, what is waited for, what arrives)
PAYLOADS = [
    (NOW, datetime, NOW),
    (NOW.date(), date, NOW.date()),
    (timedelta(3), timedelta, timedelta(3)),
    (Decimal("1.50"), Decimal, Decimal("1.50")),
    (1.5, Decimal, Decimal("1.5")),
    (UUID(int=3), UUID, UUID(int=3)),
    (b"ab", bytes, b"ab"),
    ((1, "a"), tuple[int, str], (1, "a")),
    ([1, 2], tuple[int, ...], (1, 2)),
    ({1, 2}, set[int], {1, 2}),
    (Path("/a"), Path, Path("/a")),
    ({1: "a"}, dict[int, str], {1: "a"}),
    ({"1": "a"}, dict[int, str], {1: "a"}),
    ({(1, 2): NOW}, dict[tuple[int, int], datetime], {(1, 2): NOW}),
    ({"$": "datetime", "v": "x"}, dict[str, str], {"$": "datetime", "v": "x"}),
    (Color.RED, Color, Color.RED),
    (1, Color, Color.RED),
    (Point(3), Point, Point(3)),
    (Visit(1, NOW), Visit, Visit(1, NOW)),
    ({"n": 1, "when": NOW}, Visit, Visit(1, NOW)),
    ({"n": 1, "when": NOW.isoformat()}, Visit, Visit(1, NOW)),
    ([Visit(1)], list[Visit], [Visit(1)]),
    (Visit(1), Visit | None, Visit(1)),
    (Approval("ann"), Approval, Approval("ann")),
    (Order(n=1), Order, Order(n=1)),
    ({"order": Order(n=1)}, dict[str, Order], {"order": Order(n=1)}),
    ({"when": NOW, "price": Decimal(2)}, Quote, {"when": NOW, "price": Decimal(2)}),
    (3, float, 3.0),
    ([NOW, {1, 2}], Any, [NOW, {1, 2}]),
]


@pytest.mark.parametrize("sent, type_, arrives", PAYLOADS, ids=lambda value: f"{value!r:.40}")
async def test_a_payload_arrives_as_the_type_that_is_waited_for(engines, sent, type_, arrives):
    """
    Whatever the sender had: it is written by its own type, and read by the one that the workflow names.
    """
    got = []

    @workflow
    async def waits() -> Flow[None]:
        got.append((yield wait_for("x", type_)))

    engine = await engines.memory(waits, replay_always=True)
    run = await engine.start(waits())
    await run.signal("x", sent)
    await run.result(5)
    assert got[-1] == arrives
    assert isinstance(got[-1], type(arrives))


async def test_a_signal_object_names_and_types_both_ends(engines):
    """
    What it carries is of its type, or refused where it is sent.
    """

    @workflow
    async def pays() -> Flow[str]:
        paid = await wait_for(payment)
        try:
            await wait_for(payment, timeout=0)
        except TimeoutError:
            yield Return(paid.by)

    engine = await engines.memory(pays)
    run = await engine.start(pays())
    wrong: Any = {"by": 3}
    with pytest.raises(EncodeError, match="payload of signal 'payment'"):
        await run.signal(payment, wrong)
    await run.signal(payment, Approval("ann"))
    assert await run.result(5) == "ann"


async def test_a_bad_payload_can_be_answered_and_the_next_one_counts(engines):
    """
    SignalPayloadError is raised at the `wait_for`; the workflow goes on to the next signal.
    """

    refused = []

    @workflow
    async def patient() -> Flow[int]:
        while True:
            try:
                yield Return(await wait_for("n", int))
            except SignalPayloadError as error:
                refused.append((error.signal, error.expected))

    engine = await engines.memory(patient, replay_always=True)
    run = await engine.start(patient())
    await run.signal("n", "abc")
    await run.signal("n", NOW)
    await run.signal("n", 4)
    assert await run.result(5) == 4
    assert set(refused) == {("n", "int")}


async def test_what_replaces_an_outcome_may_be_of_any_type_that_the_step_returns(engines):
    """
    A fork knows the value and not the annotation: it arrives as if the step had returned it.
    """

    @step
    async def visit() -> Visit:
        return Visit(1)

    @step
    async def price() -> Decimal:
        return Decimal(1)

    @workflow
    async def asks() -> Flow[str]:
        found: Visit = yield visit()
        cost: Decimal = yield price()
        yield Return(f"{found.when} {cost!r}")

    engine = await engines.memory(asks)
    run = await engine.start(asks())
    await run.result(5)
    fork = await run.fork(at="0", replace={"0": {"n": 1, "when": NOW}})
    fork = await fork.fork(at="1", replace={"1": Decimal("9.99")}) if await fork.result(5) else fork
    assert await fork.result(5) == f"{NOW} Decimal('9.99')"


async def test_attributes_may_be_of_classes(engines):
    """
    They are published as their fields: who reads them has no annotation.
    """

    @workflow
    async def publishes() -> Flow[None]:
        set_attributes(visit=Visit(1, NOW), order=Order(n=2), color=Color.RED)
        yield Return(None)

    engine = await engines.memory(publishes)
    run = await engine.start(publishes())
    await run.result(5)
    assert await run.attributes() == {"visit": {"n": 1, "when": NOW.isoformat()}, "order": {"n": 2}, "color": 1}
