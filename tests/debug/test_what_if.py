"""
`durable.what_if`: a recorded run goes on in memory, with other outcomes and stand-ins.
"""

import asyncio

import pytest
from attrs import frozen

from durable import (
    Caps,
    Flow,
    Limit,
    Return,
    RunFailedError,
    Signal,
    continue_as,
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
from durable._core.codec.codec import Codec
from durable._core.journal.events import ChildFailed, ChildSucceeded, RunForked, StepSucceeded
from durable.errors import CapExceededError, DryRunError, EncodeError, UsageError

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
    await engine.get("f~.0.1").result(5)
    await reached(engine.get("f~.0.0"), "waiting")
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
        assert "f~.0.0" in found.children
    assert CALLS == []
    waits = await what_if(path, DEFINITIONS, stand_ins=stand_ins)
    assert waits.status == "waiting"
    assert "f~.0.0" in waits.why


async def test_a_child_that_had_not_ended_is_needed(engines, tmp_path, reached):
    """
    The error names it, and its outcome given instead is enough.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await waiting_family(engine, reached)
    (alone,) = read_histories(await exported(engine, tmp_path, "f", tree=False))
    with pytest.raises(DryRunError, match=r"child 'f~.0.0' at 0.0 of run 'f'.*replace=\{'0.0': \.\.\.\}"):
        await what_if(alone, DEFINITIONS)
    with pytest.raises(DryRunError, match=r"f~.0\.0"):
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
    with pytest.raises(DryRunError, match=r"child 'p~\.0'"):
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
        quick = await what_if(history, hurries, signals={Signal("go", str): ["x"], "more": ["y"]})
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
    await reached(engine.get("m~.0.0"), "waiting")
    await engine.get("m~.0.0").signal("a", "first")
    assert await engine.get("m~.0.0").result(5) == "mailed first"
    await reached(engine.get("m~.0.1"), "waiting")
    await reached(engine.get("m~.0.2"), "waiting")
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


def changing(*, longer):
    """A workflow before and after an edit that breaks runs."""

    async def code() -> str:
        if longer:
            await book(1)
        return await wait_for("go", str)

    return workflow(name="changing")(code)


async def test_a_blocked_run_goes_on_with_the_code_at_hand(engines, tmp_path, reached):
    """
    Under code that is as it was; under the code that blocked it, it is blocked again, and says why.
    """
    old, new = changing(longer=False), changing(longer=True)
    engine = await engines.file(old)
    await reached(await engine.start(old(), id="c"), "waiting")
    await engine.aclose()
    engine = await engines.file(new)
    run = engine.get("c")
    await run.signal("go", "x")
    await reached(run, "blocked")
    path = await exported(engine, tmp_path, "c")
    assert (await what_if(path, old)).value == "x"
    again = await what_if(path, new)
    assert again.status == "blocked"
    assert "step 'book'" in again.why


async def test_a_step_of_which_nobody_knows_whether_it_ran_is_asked_for_again(engines, tmp_path, reached):
    """
    As a person would have it who resumes the run.
    """
    begun = asyncio.Event()

    @step(on_crash="block")
    async def hangs() -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    @workflow
    async def risky() -> Flow[str]:
        yield Return((yield hangs()))

    engine = await engines.file(risky)
    await engine.start(risky(), id="k")
    await begun.wait()
    await engines.crash(engine)
    engine = await engines.file(risky)
    await reached(engine.get("k"), "blocked")
    found = await what_if(await exported(engine, tmp_path, "k"), risky, stand_ins={hangs: lambda: "ran"})
    assert (found.status, found.value) == ("succeeded", "ran")


async def test_a_job_goes_on_too(engines, tmp_path):
    """
    Its function has a stand-in, or its outcome is given.
    """
    engine = await engines.file(mail)
    run = await engine.start(mail("bad"), id="j")
    with pytest.raises(RunFailedError):
        await run.result(5)
    path = await exported(engine, tmp_path, "j")
    assert (await what_if(path, [mail], stand_ins={mail: lambda text: text * 2})).value == "badbad"
    assert (await what_if(path, [mail], replace={"0": "by hand"})).value == "by hand"


class Reversed:
    """A codec hook: bytes that nobody else can read."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


async def test_values_go_through_the_codec(engines, tmp_path):
    """
    Recorded ones are read with the application's hooks, given ones written with them.
    """
    engine = await engines.file(ride, codec=Reversed())
    run = await engine.start(ride(4), id="r")
    with pytest.raises(RunFailedError):
        await run.result(5)
    path = await exported(engine, tmp_path, "r")
    replace = {"1": Receipt(1, "coins")}
    found = await what_if(path, ride, replace=replace, stand_ins=STAND_INS, codec=Codec(Reversed()))
    assert found.value == "said thanks for coins"
    (given,) = (each.event for each in found if isinstance(each.event, StepSucceeded) and each.position == "1")
    assert isinstance(given.value, bytes)


async def test_what_cannot_be_is_refused(engines, tmp_path):
    """
    A value of another type, a position that was never asked for, a workflow that is not there, a file of many runs.
    """
    engine, run = await failed_ride(engines)
    path = await exported(engine, tmp_path, "r")
    with pytest.raises(EncodeError, match="replacement at 1"):
        await what_if(path, ride, replace={"1": "no receipt"})
    with pytest.raises(UsageError, match="recorded are 0, 1"):
        await what_if(path, ride, at=9)
    with pytest.raises(UsageError, match="recorded are 0, 1"):
        await what_if(path, ride, replace={"9": 1})
    with pytest.raises(UsageError, match="'ride', which is not among"):
        await what_if(path, asks)
    with pytest.raises(CapExceededError):
        await what_if(path, ride, replace={"1": Receipt(1, "x" * 200)}, caps=Caps(value_bytes=100))
    await run.fork(0, id="second")
    many = tmp_path / "many.jsonl"
    await engine.export(["r", "second"], many)
    with pytest.raises(UsageError, match=r"has 2 runs that none of the others started \('r', 'second'\)"):
        await what_if(many, ride)
    assert (await what_if(read_histories(many), ride, replace={"1": Receipt(1, "x")}, stand_ins=STAND_INS)).value


async def test_limits_let_a_copy_in(engines, tmp_path):
    """
    A run and a step that hold slots of limits get them in memory as well.
    """
    one = Limit("one", concurrency=1)

    @step(limit=one)
    async def limited(n: int) -> int:
        CALLS.append("limited")
        if n == 2:
            raise ValueError(n)
        return n

    @workflow(limit=Limit("runs", concurrency=1))
    async def within() -> Flow[list]:
        yield Return((yield gather(limited(1), limited(2), limited(3))))

    engine = await engines.file(within)
    run = await engine.start(within(), id="w")
    with pytest.raises(RunFailedError):
        await run.result(5)
    path = await exported(engine, tmp_path, "w")
    CALLS.clear()
    assert (await what_if(path, within, replace={"0.1": 20})).value == [1, 20, 3]
    assert (await what_if(path, within, at="0.0", stand_ins={limited: lambda n: -n})).value == [-1, -2, -3]
    assert (await what_if(path, within, stand_ins={limited: lambda n: -n})).value == [1, -2, 3]
    assert CALLS == []


async def test_a_child_that_went_on_as_another_run_comes_along(engines, tmp_path, eventually):
    """
    The chain is followed: the parent waits for its last run.
    """

    @workflow
    async def again(n: int) -> Flow[str]:
        if n:
            yield continue_as(again(n - 1))
        word: str = yield wait_for("go", str)
        yield Return(word)

    @workflow
    async def parent() -> Flow[str]:
        yield Return((yield again(2)))

    engine = await engines.file(parent, again)
    await engine.start(parent(), id="p")

    async def both_wait():
        return [info.status async for info in engine.runs(status="waiting")] == ["waiting"] * 2

    await eventually(both_wait)
    path = await exported(engine, tmp_path, "p")
    assert len(read_histories(path)) == 4
    found = await what_if(path, [parent, again], signals={"go": ["end"]})
    assert found.value == "end"
    assert (await what_if(path, [parent, again], at="0", signals={"go": ["anew"]})).value == "anew"


async def test_signals_that_no_turn_has_taken_in_are_part_of_the_run(engines, tmp_path, reached):
    """
    Sent while the run was paused: a copy has them, too.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(asks("go"), id="a")
    await reached(run, "waiting")
    await run.pause()
    await run.signal("go", "early")
    path = await exported(engine, tmp_path, "a")
    stand_ins = {mail: lambda text: text}
    for at in (None, 0):
        assert (await what_if(path, DEFINITIONS, at=at, stand_ins=stand_ins)).value == "early"
