"""
Code that gives a command other arguments than recorded: a warning on every replay, an error in tests.
"""

import itertools

import pytest
from structlog.testing import capture_logs

from durable import Flow, Return, gather, job, start, step, transaction, wait_for, workflow
from durable._core.codec.codec import Codec, digest
from durable._core.journal.events import StepStarted
from durable._core.journal.payloads import step_arguments
from durable._core.run.divergence.comparing import EVERYWHERE, Comparing
from durable._shell.turns.executions import _COMPARED_COMMANDS, _some_of

pytestmark = pytest.mark.anyio


@step
async def charge(amount: int) -> int:
    return amount


@transaction
def book(tx, amount: int) -> int:
    return amount


AMOUNT = [100]


@workflow
async def shop() -> Flow[list]:
    first: int = yield charge(1)
    both: list = yield gather(charge(AMOUNT[0]), book(AMOUNT[0]), charge(2))
    yield wait_for("go", str)
    yield wait_for("on", str)
    yield Return([first, *both])


@pytest.fixture(autouse=True)
def amount_as_before():
    AMOUNT[0] = 100


def told(logs):
    return [entry for entry in logs if entry["event"] == "replay.arguments_changed"]


async def test_other_arguments_than_recorded_are_a_warning_on_every_replay(engines, reached, eventually):
    """
    Once a position and replay, with the step, the position and today's line; what was recorded stands.
    """
    engine = await engines.file(shop)
    run = await engine.start(shop(), id="s-1")
    await reached(run, "waiting")
    AMOUNT[0] = 200
    for signal in ("go", "on"):
        heard = len(await run.history())
        with capture_logs() as logs:
            await run.signal(signal, "x")
            await eventually(lambda before=heard: _longer(run, before))
        assert [(each["step"], each["position"], each["log_level"]) for each in told(logs)] == [
            ("charge", "1.0", "warning"),
            ("book", "1.1", "warning"),
        ]
        assert {each["run_id"] for each in told(logs)} == {"s-1"}
        assert {each["workflow"] for each in told(logs)} == {"shop"}
        assert all(each["site"].startswith("shell/test_changed_arguments.py:") for each in told(logs))
    assert await run.result() == [1, 100, 100, 2]


async def _longer(run, before):
    return len(await run.history()) > before


async def test_the_same_arguments_are_no_warning(engines, reached):
    """
    A replay of the code that recorded them says nothing.
    """
    engine = await engines.file(shop)
    run = await engine.start(shop())
    await reached(run, "waiting")
    with capture_logs() as logs:
        await run.signal("go", "x")
        await run.signal("on", "x")
        assert await run.result() == [1, 100, 100, 2]
    assert told(logs) == []


async def test_in_an_engine_that_replays_always_they_are_an_error(engines):
    """
    The run is blocked before its next step begins; the report names the step, both lines and what to do.
    """
    amounts, charged = itertools.count(1), []

    @step
    async def charge_card(amount: int) -> None:
        charged.append(amount)

    @workflow
    async def moody() -> Flow[None]:
        yield charge_card(next(amounts))

    engine = await engines.memory(moody, replay_always=True)
    run = await engine.start(moody())
    await engine.idle()
    assert await run.status() == "blocked"
    assert charged == []
    why = await run.why()
    for words in ("step 'charge_card'", "other arguments than recorded", "test_changed_arguments.py:", "durable.now()"):
        assert words in why


@job
async def send(number: int, *, way: str = "post") -> str:
    return f"{number} by {way}"


@step
async def pack(number: int, size: int = 3, colour: str = "red") -> str:
    return f"{number} {size} {colour}"


@transaction
def file(tx, number: int, year: int = 2000) -> int:
    return year


BRIEF = (lambda: pack(1), lambda: pack(1, colour="blue"), lambda: file(1), lambda: send(1), lambda: start(send(2)))
FULL = (
    lambda: pack(1, size=3),
    lambda: pack(1, 3, "blue"),
    lambda: file(1, 2000),
    lambda: send(1, way="post"),
    lambda: start(send(2, way="post")),
)
CALLS = [BRIEF]


@workflow
async def parcel() -> None:
    for call in CALLS[0]:
        await call()
    await wait_for("go", str)


@pytest.fixture(params=[(BRIEF, FULL), (FULL, BRIEF), (FULL, FULL)], ids=["written out", "left out", "kept"])
def rewritten(request):
    """
    Code and newer code, which makes the same calls.
    """
    CALLS[0], newer = request.param
    yield newer
    CALLS[0] = BRIEF


async def test_a_default_written_out_is_no_other_argument(engines, reached, rewritten):
    """
    Of a step, a transaction, or a child: `f(1)` and `f(1, opt=<its default>)` are the same command to a replay.
    """
    engine = await engines.file(parcel, send)
    run = await engine.start(parcel())
    await reached(run, "waiting")
    CALLS[0] = rewritten
    with capture_logs() as logs:
        await run.signal("go", "x")
        await run.result()
    assert told(logs) == []


def test_of_a_long_history_some_are_compared_others_each_time():
    """
    A digest costs as much as a step's replay, so an engine makes a bounded number of them.
    """
    positions = [str(number) for number in range(10 * _COMPARED_COMMANDS)]
    assert _some_of(dict.fromkeys(positions[:_COMPARED_COMMANDS])) is EVERYWHERE
    first, second = _some_of(dict.fromkeys(positions)), _some_of(dict.fromkeys(positions))
    assert sum(each in first for each in positions) == _COMPARED_COMMANDS
    assert first != second


def test_no_more_is_compared_once_the_arguments_were_so_long():
    """
    Arguments of a megabyte cost what a thousand steps do: after one of them, a replay looks at no other.
    """
    recorded = StepStarted("0", "charge", 1, "", digest("[1]"))
    comparing, codec = Comparing(EVERYWHERE, budget=10), Codec()
    assert comparing.equal(recorded, "[1]", codec)
    assert "1" in comparing.positions
    assert not comparing.equal(recorded, '["a long text"]', codec)
    assert "1" not in comparing.positions


@pytest.mark.parametrize(
    "args", [(1, "a", None, True), ("é", -(2**62)), (2**63,), (1.5,), ({"b": 1, "a": 2},), ("x" * 2000,)]
)
def test_the_short_way_to_a_digest_is_the_long_one(args):
    """
    Of numbers and short texts nothing needs to be converted; a digest tells no difference.
    """
    codec = Codec()
    found = step_arguments(args, {}, codec)
    assert found is not None
    assert codec.digest_of(found) == codec.digest(codec.encode([list(args), {}]))
