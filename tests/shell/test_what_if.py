"""
`durable.what_if`: a recorded run goes on in memory, with other outcomes and stand-ins.
"""

import pytest
from attrs import frozen

from durable import (
    Flow,
    Return,
    RunFailedError,
    for_each,
    gather,
    job,
    now,
    race,
    read_histories,
    set_attributes,
    sleep,
    step,
    timeout,
    wait_for,
    what_if,
    workflow,
)
from durable._core.events import ChildFailed, ChildSucceeded, RunForked
from durable.errors import DryRunError, UsageError

pytestmark = pytest.mark.anyio

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def calls():
    """
    What was executed for real.
    """
    CALLS.clear()
    return CALLS


@frozen
class Receipt:
    ride: int
    paid: str


@step
async def book(user: int) -> int:
    CALLS.append("book")
    return user * 10


@step
async def charge(ride: int) -> Receipt:
    CALLS.append("charge")
    raise ConnectionError("no connection to the bank")


@step
async def thank(receipt: Receipt) -> str:
    CALLS.append("thank")
    return f"thanks for {receipt.paid}"


@workflow
async def ride(user: int) -> Flow[str]:
    number: int = yield book(user)
    set_attributes(stage="charging")
    receipt: Receipt = yield charge(number)
    thanks: str = yield thank(receipt)
    yield Return(thanks)


@job
async def mail(text: str) -> str:
    CALLS.append(f"mail {text}")
    if text == "bad":
        raise ValueError(text)
    return f"mailed {text}"


@workflow
async def asks(name: str) -> Flow[str]:
    word: str = yield wait_for(name, str)
    sent: str = yield mail(word)
    yield Return(sent)


@workflow
async def family(text: str) -> Flow[list]:
    parts: list = yield gather(asks("go"), mail(text), book(1))
    yield sleep(3600)
    yield Return([*parts, (yield book(2))])


DEFINITIONS = [ride, mail, asks, family]
STAND_INS = {thank: lambda receipt: f"said thanks for {receipt.paid}"}


async def exported(engine, tmp_path, *run_ids, tree=True):
    """The runs as an export has them: [the run, those it started]."""
    path = tmp_path / f"{run_ids[0].replace('/', '-')}-{len(list(tmp_path.iterdir()))}.jsonl"
    await engine.export(list(run_ids), path, tree=tree)
    return path


async def failed_ride(engines):
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(ride(4), id="r")
    with pytest.raises(RunFailedError):
        await run.result(5)
    return engine, run


async def waiting_family(engine, reached):
    """A run that waits for a child that waits for a signal; another child and a step have ended."""
    run = await engine.start(family("x"), id="f")
    await reached(run, "waiting")
    await engine.get("f/0.1").result(5)
    await reached(engine.get("f/0.0"), "waiting")
    await reached(run, "waiting")
    return run


async def test_a_failed_run_with_the_outcome_replaced_goes_to_a_good_end(engines, tmp_path):
    """
    Nothing is executed, the recorded run keeps its bytes, and the history begins with what was copied.
    """
    engine, run = await failed_ride(engines)
    before = (await exported(engine, tmp_path, "r")).read_text().splitlines()[1:]
    CALLS.clear()
    (recorded,) = read_histories(await exported(engine, tmp_path, "r"))
    found = await what_if(recorded, ride, replace={1: Receipt(40, "cash")}, stand_ins=STAND_INS)
    assert (found.status, found.value) == ("succeeded", "said thanks for cash")
    assert CALLS == []
    assert [each.event for each in found][:3] == recorded.events[:3]
    assert [each.event for each in found if each.kind == "RunForked"] == [RunForked("r", "1", recorded.events[-1].at)]
    assert found.run_id == "r:what-if"
    assert (await exported(engine, tmp_path, "r")).read_text().splitlines()[1:] == before
    assert await run.status() == "failed"


async def test_it_takes_what_replay_takes(engines, tmp_path):
    """
    A RunHistory, a path, events of a handle; one workflow, a list, a module.
    """
    engine, run = await failed_ride(engines)
    path = await exported(engine, tmp_path, "r")
    for history in (read_histories(path)[0], read_histories(path), path, await run.history()):
        for definitions in (ride, DEFINITIONS):
            found = await what_if(history, definitions, replace={"1": Receipt(1, "x")}, stand_ins=STAND_INS)
            assert found.value == "said thanks for x"
    again = await what_if(found, ride, at="2", stand_ins={"thank": lambda receipt: receipt.paid})
    assert again.value == "x"
    with pytest.raises(UsageError, match="has succeeded: say at which position"):
        await what_if(again, ride)


async def test_without_a_position_a_failed_run_goes_on_as_a_retry_would(engines, tmp_path):
    """
    What failed is asked for again, of its stand-in; what had succeeded is not.
    """
    engine, _ = await failed_ride(engines)
    path = await exported(engine, tmp_path, "r")
    found = await what_if(path, ride, stand_ins={charge: lambda ride: Receipt(ride, "card"), **STAND_INS})
    assert (found.status, found.value, found.run_id) == ("succeeded", "said thanks for card", "r")
    still = await what_if(path, ride, stand_ins=STAND_INS)
    assert isinstance(still.error, DryRunError)
    assert "step 'charge' at 1" in still.why
    events = await what_if(
        await engine.get("r").history(), ride, stand_ins={charge: lambda n: Receipt(n, "e"), **STAND_INS}
    )
    assert events.value == "said thanks for e"


async def test_a_waiting_run_goes_on_with_signals_and_its_children(engines, tmp_path, reached):
    """
    Children that had ended are history, those that had not go on from where they stand; time jumps.
    """
    engine = await engines.file(*DEFINITIONS)
    await waiting_family(engine, reached)
    path = await exported(engine, tmp_path, "f")
    CALLS.clear()
    stand_ins = {mail: lambda text: f"pretended {text}", book: lambda user: -user}
    for at, parts in ((None, ["mailed x", 10]), ("0.1", ["pretended x", -1])):
        found = await what_if(path, DEFINITIONS, at=at, stand_ins=stand_ins, signals={"go": ["word"]})
        assert found.value == ["pretended word", *parts, -2]
        assert found.seconds >= 3600
        assert "f/0.0" in found.children
    assert CALLS == []
    waits = await what_if(path, DEFINITIONS, stand_ins=stand_ins)
    assert waits.status == "waiting"
    assert "f/0.0" in waits.why


async def test_a_child_that_had_not_ended_is_needed(engines, tmp_path, reached):
    """
    The error names it, and its outcome given instead is enough.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await waiting_family(engine, reached)
    (alone,) = read_histories(await exported(engine, tmp_path, "f", tree=False))
    with pytest.raises(DryRunError, match=r"child 'f/0.0' at 0.0 of run 'f'.*replace=\{'0.0': \.\.\.\}"):
        await what_if(alone, DEFINITIONS)
    with pytest.raises(DryRunError, match=r"f/0\.0"):
        await what_if(await run.history(), DEFINITIONS)
    stand_ins = {mail: lambda text: f"pretended {text}", book: lambda user: -user}
    found = await what_if(alone, DEFINITIONS, replace={"0.0": "by hand"}, stand_ins=stand_ins)
    assert found.value == ["by hand", "mailed x", 10, -2]


async def test_a_failed_child_goes_on_with_its_parent(engines, tmp_path):
    """
    As a retry has it: the child's failed step is asked of its stand-in. Without the child the error says so.
    """

    @workflow
    async def sends(text: str) -> Flow[str]:
        yield Return((yield mail(text)))

    engine = await engines.file(sends, mail)
    run = await engine.start(sends("bad"), id="p")
    with pytest.raises(RunFailedError):
        await run.result(5)
    path = await exported(engine, tmp_path, "p")
    CALLS.clear()
    found = await what_if(path, [sends, mail], stand_ins={mail: lambda text: text.upper()})
    assert (found.value, CALLS) == ("BAD", [])
    assert [type(each.event) for each in found if each.position == "0"][-2:] == [ChildFailed, ChildSucceeded]
    with pytest.raises(DryRunError, match="child 'p/0'"):
        await what_if(read_histories(path)[0], [sends, mail])
    assert (await what_if(read_histories(path)[0], sends, replace={"0": "given"})).value == "given"


async def test_races_timers_and_deadlines_go_on(engines, tmp_path, reached):
    """
    What is left of a timer passes at once, in order; signals come before time does.
    """

    @workflow
    async def hurries() -> Flow[list]:
        first = yield race(wait_for("go", str), sleep(600))
        try:
            second = yield timeout(wait_for("more", str), 300)
        except TimeoutError:
            second = "too late"
        yield Return([first.index, second, round(now().timestamp())])

    engine = await engines.file(hurries)
    run = await engine.start(hurries(), id="h")
    await reached(run, "waiting")
    (recorded,) = read_histories(await exported(engine, tmp_path, "h"))
    began = recorded.events[0].at
    for history in (recorded, await run.history()):
        slow = await what_if(history, hurries)
        assert slow.value[:2] == [1, "too late"]
        assert slow.value[2] == pytest.approx(began + 900, abs=2)
        assert slow.seconds == pytest.approx(900, abs=2)
        quick = await what_if(history, hurries, signals={"go": ["x"], "more": ["y"]})
        assert quick.value[:2] == [0, "y"]
        assert quick.value[2] == pytest.approx(began, abs=2)
    forked = await what_if(recorded, hurries, at="0.1", signals={"go": ["x"]})
    assert forked.value[:2] == [0, "too late"]


async def test_a_for_each_goes_on_with_the_items_that_are_left(engines, tmp_path, reached):
    """
    Items that ended are history, others are asked of the stand-in; events alone cannot say which are left.
    """
    items = ["a", "bad", "c", "d"]

    @workflow
    async def many() -> Flow[list]:
        values: list = yield for_each(asks, items, concurrency=2)
        yield Return(values)

    engine = await engines.file(many, asks, mail)
    run = await engine.start(many(), id="m")
    await reached(run, "waiting")
    await reached(engine.get("m/0.0"), "waiting")
    await engine.get("m/0.0").signal("a", "first")
    assert await engine.get("m/0.0").result(5) == "mailed first"
    await reached(engine.get("m/0.1"), "waiting")
    await reached(engine.get("m/0.2"), "waiting")
    path = await exported(engine, tmp_path, "m")
    CALLS.clear()
    found = await what_if(
        path,
        [many, asks, mail],
        stand_ins={mail: lambda text: f"pretended {text}"},
        signals={"bad": ["B"], "c": ["C"], "d": ["D"]},
    )
    assert found.value == ["mailed first", "pretended B", "pretended C", "pretended D"], found.why
    assert CALLS == []
    with pytest.raises(UsageError, match="give the RunHistory"):
        await what_if(await run.history(), [many, asks, mail])
