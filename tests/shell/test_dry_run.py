"""
Dry runs: the workflow is real, its steps are not, time jumps, and no file is touched.
"""

import asyncio
import contextlib
import hashlib
from datetime import date, timedelta

import pytest

from durable import (
    Caps,
    Engine,
    Flow,
    NondeterminismError,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    Signal,
    Transaction,
    call,
    context,
    continue_as,
    for_each,
    gather,
    job,
    now,
    race,
    sleep,
    start,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.attempts import stand_ins
from durable._shell.engine import dry_run
from durable.errors import DefinitionError, DryRunError, EncodeError

pytestmark = pytest.mark.anyio

DAY = 24 * 3600.0


def never(*_args: object) -> None:
    """The function of what must not be executed."""
    raise AssertionError("executed")


def total(numbers: list[int]) -> int:
    never()
    return 0


@transaction
def create_ride(tx: Transaction, user_id: int) -> int:
    never(tx)
    return user_id


@transaction
async def close_ride(tx: Transaction, ride_id: int) -> None:
    never(tx)


@step(retry=Retry(attempts=3, on=ConnectionError, delay=3600.0, max_delay=DAY, jitter=0.0))
async def charge(ride_id: int, *, currency: str = "CHF") -> str:
    never()
    return ""


@step(process=True, timeout=10)
def crunch(text: str) -> int:
    never()
    return 0


@job(queue="drivers", retry=2)
def notify(driver: str) -> int:
    never()
    return 0


@workflow
async def rate(ride_id: int) -> Flow[int]:
    stars: int = yield wait_for("stars", int)
    yield Return(stars)


@workflow
async def ride(user_id: int) -> Flow[list[object]]:
    ride_id: int = yield create_ride(user_id)
    told: list[int] = yield gather(notify("Ada"), notify("Bob"))
    charged: str = yield charge(ride_id)
    yield sleep(timedelta(days=30))
    stars: int = yield rate(ride_id)
    size: int = yield crunch("x")
    yield close_ride(ride_id)
    yield Return([ride_id, told, charged, stars, size])


@workflow
async def charging(ride_id: int) -> Flow[str]:
    charged: str = yield charge(ride_id)
    yield Return(charged)


DEFINITIONS = [ride, rate, notify, charging]


async def test_a_whole_workflow_runs_dry(tmp_path, monkeypatch):
    """
    Transactions, jobs, retries with delays, thirty days, a child that waits for a signal: at once, and in no file.
    """
    monkeypatch.chdir(tmp_path)
    engine = Engine(tmp_path / "rides.db", DEFINITIONS, queues=[Queue("drivers", concurrency=1)])
    attempts: list[int] = []
    notified: list[str] = []

    async def charge_in_vain_twice(ride_id: int, *, currency: str = "CHF") -> str:
        attempts.append(context().attempt)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return f"charge-{ride_id}"

    async def close(ride_id: int) -> None:
        await asyncio.sleep(0)

    dry = await engine.dry_run(
        ride(7),
        stand_ins={
            create_ride: lambda user_id: user_id * 100,
            notify: lambda driver: notified.append(driver) or len(driver),
            charge: charge_in_vain_twice,
            crunch: len,
            close_ride: close,
        },
        signals={"stars": [5]},
    )

    assert dry.error is None
    assert (dry.status, dry.value) == ("succeeded", [700, [3, 3], "charge-700", 5, 1])
    assert attempts == [1, 2, 3]
    assert notified == ["Ada", "Bob"]
    assert [event.kind for event in dry] == [event.kind for event in dry.history]
    assert [event.kind for event in dry].count("StepRetrying") == 2
    assert dry.history[-1].kind == "RunSucceeded"
    assert {key: events[-1].kind for key, events in dry.children.items()} == {
        f"{dry.run_id}~.1.0": "RunSucceeded",
        f"{dry.run_id}~.1.1": "RunSucceeded",
        f"{dry.run_id}~.4": "RunSucceeded",
    }
    assert dry.seconds == pytest.approx(30 * DAY + 3600 + 7200)
    assert "succeeded" in dry.why
    assert list(tmp_path.iterdir()) == []


async def test_an_open_engine_does_not_notice(engines):
    """
    Its journal is the same, byte for byte, and it goes on with its own stand-in-less functions.
    """

    @step
    async def real() -> str:
        return "real"

    @workflow(name="one", key="only-once")
    async def one() -> Flow[str]:
        value: str = yield real()
        yield Return(value)

    engine = await engines.file(one)
    await engine.run(one())
    digest = hashlib.sha256(engines.path.read_bytes()).digest()
    stats = await engine.stats()

    dry = await engine.dry_run(one(), stand_ins={real: lambda: "dry"})

    assert dry.value == "dry"
    assert await engine.stats() == stats
    assert hashlib.sha256(engines.path.read_bytes()).digest() == digest
    assert await engine.run(one()) == "real"


async def test_a_step_without_a_stand_in_is_not_executed():
    """
    The dry run has failed there, with an error that says what to give; its retries do not help.
    """

    @step(retry=5)
    async def pay(amount: int, *, to: str) -> None:
        never()

    @workflow(name="paying")
    async def paying() -> Flow[str]:
        yield sleep(1)
        try:
            yield pay(3, to="Ada")
        except Exception:
            yield Return("swallowed")

    dry = await Engine(":memory:", [paying]).dry_run(paying())

    assert (dry.status, dry.value) == ("failed", None)
    assert isinstance(dry.error, DryRunError)
    assert dry.why == str(dry.error)
    assert f"step 'pay' at 1 of run {dry.run_id!r}" in dry.why
    assert "stand_ins={pay: lambda amount, to: ...}" in dry.why


@pytest.mark.parametrize("op", [create_ride(1), notify("Ada"), call(never, 1)])
async def test_nothing_is_executed_without_a_stand_in(op):
    """
    Neither transactions, nor jobs, nor functions given to `call`.
    """

    @workflow(name="one")
    async def one() -> Flow[None]:
        yield op

    dry = await Engine(":memory:", [one, notify]).dry_run(one())
    assert dry.status == "failed"
    assert isinstance(dry.error, DryRunError)


async def test_stand_ins_are_found_by_name_and_for_plain_functions():
    """
    The name of a step, transaction or job, or the function given to `call`.
    """

    @workflow(name="named")
    async def named() -> Flow[list[object]]:
        values = [(yield create_ride(1)), (yield charge(2)), (yield notify("c")), (yield call(total, [4, 5]))]
        yield Return(values)

    dry = await Engine(":memory:", [named, notify]).dry_run(
        named(),
        stand_ins={
            "create_ride": lambda user_id: user_id,
            "charge": lambda ride_id, **_: str(ride_id),
            "notify": lambda _driver: 3,
            total: lambda numbers: numbers[0],
        },
    )
    assert (dry.status, dry.value) == ("succeeded", [1, "2", 3, 4])


@pytest.mark.parametrize(
    "stand_ins, says",
    [
        ({"chargee": lambda ride_id: ""}, "no step, transaction or job of that name"),
        ({charge: "charge-7"}, "it is not a function"),
        ({charge: lambda: ""}, "is called with \\(ride_id, currency\\)"),
        ({charge: lambda ride_id: ""}, "unexpected keyword argument 'currency'"),
        ({create_ride: lambda tx, user_id: 1}, "missing a required argument: 'user_id'"),
        ({"notify": lambda: 1}, "is called with \\(driver\\)"),
        ({ride: lambda user_id: []}, "a workflow needs none"),
        ({"ride": lambda user_id: []}, "a workflow needs none"),
        ({7: lambda: 1}, "a key is a step"),
    ],
)
async def test_a_wrong_stand_in_is_refused_before_anything_runs(stand_ins, says):
    """
    With what was found, and what is expected.
    """
    with pytest.raises(DryRunError, match=says):
        await Engine(":memory:", DEFINITIONS).dry_run(ride(1), stand_ins=stand_ins)


@pytest.mark.parametrize("payloads", ["yes", b"yes", {"by": "Ada"}, 5, None])
async def test_signals_are_lists_of_payloads(payloads):
    """
    A single payload, above all a string, is not taken apart.
    """
    with pytest.raises(DryRunError, match=r"signals\['go'\]: takes a list of payloads"):
        await Engine(":memory:", DEFINITIONS).dry_run(ride(1), signals={"go": payloads})


async def test_a_job_that_the_engine_does_not_know_is_refused():
    """
    It could never be called.
    """
    with pytest.raises(DryRunError, match="not among the definitions"):
        await Engine(":memory:", [charging]).dry_run(charging(1), stand_ins={notify: lambda driver: 1})
    with pytest.raises(DefinitionError):
        await Engine(":memory:", [charging]).dry_run(ride(1))


async def test_failures_are_those_of_a_run():
    """
    The original error, after as many attempts; a value of a wrong type is refused as in a run.
    """

    def down(ride_id: int, **_: object) -> str:
        raise ConnectionError(f"ride {ride_id}")

    engine = Engine(":memory:", DEFINITIONS)
    dry = await engine.dry_run(charging(7), stand_ins={charge: down})
    assert dry.status == "failed"
    assert isinstance(dry.error, ConnectionError)
    assert str(dry.error) == "ride 7"
    assert [event.kind for event in dry].count("StepStarted") == 3
    assert "ride 7" in dry.why

    dry = await engine.dry_run(charging(7), stand_ins={charge: lambda ride_id, **_: object()})
    assert isinstance(dry.error, EncodeError)


async def test_it_ends_waiting_where_only_a_signal_could_move_it():
    """
    And says for which.
    """
    engine = Engine(":memory:", DEFINITIONS)
    dry = await engine.dry_run(rate(1))
    assert (dry.status, dry.value, dry.error) == ("waiting", None, None)
    assert "'stars'" in dry.why

    assert (await engine.dry_run(rate(1), signals={"star": [1]})).status == "waiting"
    assert (await engine.dry_run(rate(1), signals={"stars": [1]})).value == 1


async def test_signals_come_before_time_passes_and_in_order():
    """
    A signal that is there wins against a timer; without it the timer fires.
    """

    @workflow(name="approval")
    async def approval() -> Flow[list[object]]:
        first = yield wait_for("answer", str)
        second = yield race(wait_for("answer", str), sleep(DAY))
        third = yield race(wait_for("answer", str), sleep(DAY))
        yield Return([first, second.value, third.index])

    dry = await Engine(":memory:", [approval]).dry_run(approval(), signals={"answer": ["a", "b"]})
    assert dry.value == ["a", "b", 1]
    assert dry.seconds == DAY


async def test_signals_are_given_by_the_objects_that_name_them_too():
    """
    A `Signal` is as good a key as its name, and its payloads are of its type.
    """
    due = Signal("due", date)

    @workflow(name="collects")
    async def collects() -> Flow[list[object]]:
        first: date = yield wait_for(due)
        second: int = yield wait_for("go", int)
        third: date = yield wait_for(due)
        yield Return([first, second, third])

    engine, day = Engine(":memory:", [collects]), date(2026, 11, 30)
    dry = await engine.dry_run(collects(), signals={due: [day, day], "go": [1]})
    assert dry.value == [day, 1, day]
    with pytest.raises(DryRunError, match=r"signals\['due'\]: takes a list of payloads"):
        await engine.dry_run(collects(), signals={due: "soon"})
    with pytest.raises(EncodeError, match="payload of signal 'due'"):
        await engine.dry_run(collects(), signals={due: ["soon"]})


async def test_time_stands_still_while_a_stand_in_runs():
    """
    A stand-in that takes its time loses no race against a timer, nor its own timeout in jumped time.
    """

    async def slow(text: str) -> int:
        for _ in range(50):
            await asyncio.sleep(0)
        return 5

    @workflow(name="racing")
    async def racing() -> Flow[list[object]]:
        before = now()
        first = yield race(crunch("a"), sleep(0.001))
        second = yield timeout(crunch("b"), 0.001)
        yield Return([first.index, second, now() == before])

    dry = await Engine(":memory:", [racing]).dry_run(racing(), stand_ins={crunch: slow})
    assert dry.value == [0, 5, True]


async def test_deadlines_come_due_in_their_order():
    """
    Those of the workflow itself, of its members and of its children.
    """

    @workflow(name="late", timeout=2 * DAY)
    async def late() -> Flow[None]:
        yield wait_for("never")

    @workflow(name="ordered")
    async def ordered() -> Flow[list[object]]:
        began = now()
        seconds = []
        for op in (sleep(5), timeout(wait_for("never"), 10), late()):
            with contextlib.suppress(TimeoutError):
                yield op
            seconds.append((now() - began).total_seconds())
        yield Return(seconds)

    dry = await Engine(":memory:", [ordered, late]).dry_run(ordered())
    assert dry.value == pytest.approx([5, 15, 15 + 2 * DAY], abs=0.01)


async def test_what_a_run_starts_runs_dry_too():
    """
    Children that nobody awaits, and runs that it continues as; the value is that of the last one.
    """

    @workflow(name="counting")
    async def counting(number: int) -> Flow[int]:
        yield start(notify("Ada").options(delay=3600))
        if number < 3:
            yield continue_as(counting(number + 1))
        yield Return(number)

    notified = []
    dry = await Engine(":memory:", [counting, notify]).dry_run(
        counting(1), stand_ins={notify: lambda driver: notified.append(driver) or 1}
    )
    assert (dry.status, dry.value) == ("succeeded", 3)
    assert len(notified) == 3
    assert dry.history[-1].kind == "RunContinued"
    assert len(dry.children) == 5


async def test_a_cancelled_run_is_told():
    """
    As its status, and as an error with the reason.
    """

    @workflow(name="replaced")
    async def replaced() -> Flow[None]:
        yield start(rate(1), key="one-at-a-time", on_conflict="replace")
        yield sleep(DAY)

    engine = Engine(":memory:", [replaced, rate])
    dry = await engine.dry_run(replaced().options(key="one-at-a-time"))
    assert dry.status == "cancelled"
    assert isinstance(dry.error, RunCancelledError)
    assert "cancelled" in dry.why


async def test_a_failing_transaction_raises_in_the_workflow():
    """
    The stand-in of a plain transaction may be async, and its error is the transaction's.
    """

    async def refuse(user_id: int) -> int:
        await asyncio.sleep(0)
        raise ValueError(f"no user {user_id}")

    @workflow(name="catching")
    async def catching() -> Flow[str]:
        try:
            yield create_ride(3)
        except ValueError as error:
            yield Return(str(error))

    dry = await Engine(":memory:", [catching]).dry_run(catching(), stand_ins={create_ride: refuse})
    assert dry.value == "no user 3"


async def test_a_function_may_stand_in_for_itself():
    """
    What is harmless needs no double: give its plain function.
    """

    @step
    def add(a: int, b: int = 2) -> int:
        return a + b

    @workflow(name="adding")
    async def adding() -> Flow[int]:
        value: int = yield add(1)
        yield Return(value)

    assert (await Engine(":memory:", [adding]).dry_run(adding(), stand_ins={add: add.fn})).value == 3


async def test_a_blocked_run_is_told():
    """
    A history over its cap needs a person, and so does whoever waits for that run.
    """

    @workflow(name="greedy")
    async def greedy() -> Flow[None]:
        for _ in range(100):
            yield charge(1)

    @workflow(name="parent")
    async def parent() -> Flow[None]:
        yield greedy()

    engine = Engine(":memory:", [parent, greedy], caps=Caps(events=50, events_warning=40))
    dry = await engine.dry_run(parent(), stand_ins={charge: lambda ride_id, **_: ""})
    assert dry.status == "blocked"
    assert "number of events" in dry.why


async def test_a_loop_without_end_ends(monkeypatch):
    """
    One of timers, one of steps, and one of runs that continue as another: they are given up.
    """
    monkeypatch.setattr(dry_run, "MAX_JUMPS", 20)
    monkeypatch.setattr(dry_run, "MAX_RUNS", 20)
    monkeypatch.setattr(stand_ins, "MAX_CALLS", 20)

    @workflow(name="ticking")
    async def ticking() -> Flow[None]:
        while True:
            yield sleep(60)

    @workflow(name="spinning")
    async def spinning() -> Flow[None]:
        while True:
            yield charge(1)

    @workflow(name="reborn")
    async def reborn() -> Flow[None]:
        yield continue_as(reborn())

    engine = Engine(":memory:", [ticking, spinning, reborn])
    dry = await engine.dry_run(ticking())
    assert (dry.status, dry.seconds) == ("waiting", 20 * 60)
    assert "does not seem to end" in dry.why
    dry = await engine.dry_run(reborn())
    assert dry.status == "blocked"
    assert "does not seem to end" in dry.why
    dry = await engine.dry_run(spinning(), stand_ins={charge: lambda ride_id, **_: ""})
    assert (dry.status, type(dry.error)) == ("failed", DryRunError)
    assert "does not seem to end" in dry.why


async def test_what_the_end_of_a_run_starts_runs_dry_too():
    """
    Follow-ups, and what hooks of the definition ask for, with their delays.
    """

    @workflow(name="followed")
    async def followed() -> Flow[int]:
        yield Return(1)

    @followed.on_success
    def rate_it(finished):
        return [notify("hook").options(delay=DAY)]

    notified: list[str] = []
    dry = await Engine(":memory:", [followed, notify]).dry_run(
        followed().then(notify("then")), stand_ins={notify: lambda driver: notified.append(driver) or 1}
    )
    assert (dry.status, dry.value, dry.seconds) == ("succeeded", 1, DAY)
    assert notified == ["then", "hook"]
    assert {events[-1].kind for events in dry.children.values()} == {"RunSucceeded"}


async def test_code_that_is_not_deterministic_shows():
    """
    Each workflow is replayed at the end: one that asks for something else then is blocked, with both requests.
    """
    runs: list[int] = []

    @workflow(name="fickle")
    async def fickle() -> Flow[None]:
        runs.append(1)
        yield charge(1) if len(runs) == 1 else sleep(1)

    dry = await Engine(":memory:", [fickle]).dry_run(fickle(), stand_ins={charge: lambda ride_id, **_: ""})
    assert dry.status == "blocked"
    assert isinstance(dry.error, NondeterminismError)
    assert "step 'charge'" in dry.why


async def test_a_wait_costs_no_replay():
    """
    A loop of five hundred waits is executed once, and replayed once at the end, not at each wake-up.
    """
    begun: list[int] = []

    @workflow(name="patient")
    async def patient() -> Flow[int]:
        begun.append(1)
        for _ in range(500):
            yield sleep(60)
        yield Return(1)

    dry = await Engine(":memory:", [patient]).dry_run(patient())
    assert (dry.value, dry.seconds) == (1, pytest.approx(500 * 60))
    assert len(begun) == 2


async def test_for_each_over_jobs_runs_dry():
    """
    With a window, item by item, on a queue with one slot; each job with its own retries.
    """
    seen: list[str] = []

    def notify_badly(driver: str) -> int:
        seen.append(driver)
        if seen.count(driver) == 1:
            raise ConnectionError(driver)
        return len(seen)

    @workflow(name="all-drivers")
    async def all_drivers() -> Flow[list[int]]:
        told: list[int] = yield for_each(notify, ["a", "b", "c"], concurrency=1)
        yield Return(told)

    engine = Engine(":memory:", [all_drivers, notify], queues=[Queue("drivers", concurrency=1)])
    dry = await engine.dry_run(all_drivers(), stand_ins={notify: notify_badly})
    assert (dry.status, dry.value) == ("succeeded", [2, 4, 6])
    assert seen == ["a", "a", "b", "b", "c", "c"]
