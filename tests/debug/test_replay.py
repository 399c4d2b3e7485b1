"""
`durable.replay`: what comes back for runs in every state, from every form of a history.
"""

import subprocess
import sys
import types

import pytest

from durable import (
    Engine,
    Flow,
    NondeterminismError,
    Return,
    gather,
    job,
    patched,
    race,
    read_histories,
    replay,
    settle,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable._core.codec.codec import Codec
from durable._core.journal.events import CancelRequested, SignalReceived, StepStarted, StepStopped, StepSucceeded
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable.errors import DecodeError, UsageError
from tests.core.drive import World, run

pytestmark = pytest.mark.anyio


@step
def add(n: int) -> int:
    return n + 1


@step
def fail(n: int) -> int:
    raise ValueError(f"no {n}")


@job
def tell(n: int) -> str:
    return f"told {n}"


async def add_twice(n: int) -> int:
    first = await add(n)
    return await add(first)


@workflow
async def plain(n: int) -> list[int]:
    seen = []
    for i in range(n):
        found = await add(i)
        seen.append(found)
    return seen


@workflow
async def grouped(n: int) -> Flow[list]:
    both: list = yield gather(add_twice(n), tell(n), settle(fail(n)))
    yield Return(both)


@workflow
async def waits(n: int) -> Flow[str]:
    found = yield race(wait_for("go", str), sleep(60))
    word: str = yield timeout(wait_for("word", str), 600)
    yield Return(f"{found.value} {word} {n}")


@workflow
async def buggy(n: int) -> Flow[int]:
    prices = {"tea": 3}
    total: int = yield add(n)
    total += prices["coffee"]
    yield Return(total)


async def test_each_command_has_position_place_outcome_and_locals():
    """
    In the order in which they were asked for; locals are those of that moment, not of the end.
    """
    found = replay(run(plain(3)).events, plain)
    assert (found.verdict, found.ended, found.value, found.raised) == ("same", True, [1, 2, 3], None)
    assert [command.position for command in found] == ["0", "1", "2", "3"]
    assert [command.locals["seen"] for command in found] == [[], [1], [1, 2], [1, 2, 3]]
    first = found.at("0")
    assert (first.command, first.outcome.value, first.source) == ("step 'add'", "1", "found = await add(i)")
    assert first.stack[0].function == "plain"
    assert first.stack[0].text == first.source
    assert found.at("3").command == "returned [1, 2, 3]"
    assert len(found) == 4
    assert "test_replay.py:" in repr(first)
    assert "same" in repr(found)


async def test_locals_can_be_asked_for_in_any_order():
    """
    Backwards and forwards give the same, and what was given before does not change by that.
    """
    found = replay(run(plain(5)).events, plain)
    forwards = [command.locals for command in found]
    assert [command.locals for command in reversed(found.commands)] == forwards[::-1]
    found.close()
    with pytest.raises(UsageError, match="closed"):
        found.at("0").locals  # noqa: B018 - the access is the test


async def test_groups_helpers_and_children_have_their_positions():
    """
    Members stand at their group's line, helpers at their own, each with the strand that asked.
    """
    found = replay(run(grouped(5)).events, grouped)
    by_position = {command.position: command for command in found}
    assert list(by_position) == ["0", "0.1", "0.2", "0.2.0", "0.0.0", "0.0.1", "0.0.2", "1"]
    assert by_position["0.1"].command == "child 'tell'"
    assert by_position["0.1"].stop == by_position["0"].stop
    assert (by_position["0.0.1"].strand, by_position["0.0.1"].locals) == ("0.0", {"n": 5, "first": 6})
    assert by_position["0.0.2"].command == "returned 7"
    assert not by_position["0"].is_open
    with pytest.raises(UsageError, match=r"no command at position '9'.* there are 0, 0\.1"):
        found.at("9")


async def test_a_failed_run_is_replayed_to_the_line_that_raised():
    """
    The last command is the failing turn: where the code raised, with the locals of then.
    """
    found = replay(run(buggy(1)).events, buggy)
    last = found.commands[-1]
    assert found.verdict == "same"
    assert isinstance(found.raised, KeyError)
    assert (last.command, last.source) == ("raised KeyError: 'coffee'", 'total += prices["coffee"]')
    assert last.locals == {"n": 1, "prices": {"tea": 3}, "total": 2}


async def test_a_waiting_run_is_replayed_to_where_it_waits():
    """
    Open commands are told from those that ended; consumed signals are outcomes, and the loser of a race is neither.
    """
    world = World(waits(3))
    world.begin()
    world.signal("go", "now")
    found = replay(world.events, waits)
    assert (found.verdict, found.ended) == ("same", False)
    states = {command.position: (command.outcome and command.outcome.value, command.is_open) for command in found}
    assert states["0.0"] == ('"now"', False)
    assert states["0.1"] == (None, False)
    assert states["1.0"] == (None, True)
    assert found.open == {"1", "1.0"}


async def test_what_waits_in_the_inbox_is_the_failing_turn_of_a_blocked_run():
    """
    An arrival that no turn has taken in is delivered at the end: a value that does not fit shows there.
    """
    world = World(plain(2))
    world.begin()
    events = list(world.events)
    facts = RunFacts(run_id="r", workflow="plain", version=1, sort="workflow", status="blocked", created_at=1000.0)
    found = replay(RunHistory(facts, events, [StepSucceeded("0", '"no number"', 1001.0)]), plain)
    assert found.verdict == "unreadable"
    assert isinstance(found.error, DecodeError)
    assert found.commands[-1].command.startswith("stuck: cannot read result of step 'add'")
    with pytest.raises(DecodeError):
        found.verify()
    asked, stopped = CancelRequested("enough", 1002.0), StepStopped("0", 1, abandoned=False, at=1003.0)
    pending = RunHistory(facts, events, [SignalReceived("go", '"x"', 1001.0), asked, stopped])
    cancelled = replay(pending, plain)
    assert cancelled.commands[-1].command == "raised RunCancelled: enough"


async def test_a_run_that_has_not_begun_shows_its_first_turn():
    """
    Its code runs to the first command, as it will when its turn comes.
    """
    found = replay(World(plain(2)).events or [run(plain(0)).events[0]], plain)
    assert found.verdict == "same"
    fresh = replay(run(plain(2)).events[:1], plain)
    assert [command.position for command in fresh] == ["0"]


async def test_a_divergence_is_an_error_with_the_locals_where_it_happened():
    """
    The replay stops at the command that was not recorded, with the code standing there.
    """

    @workflow(name="plain")
    async def changed(n: int) -> list[int]:
        seen = []
        for i in range(n):
            if i == 1:
                seen.append(await fail(i))
            seen.append(await add(i))
        return seen

    found = replay(run(plain(3)).events, changed)
    assert (found.verdict, found.ok) == ("diverged", False)
    last = found.commands[-1]
    assert (last.position, last.locals["i"]) == ("1", 1)
    assert last.command == "diverged: asks for step 'fail', recorded is step 'add'"
    with pytest.raises(NondeterminismError, match="inserted before"):
        found.verify()


async def test_code_that_no_longer_fails_goes_further():
    """
    The recorded run failed; what today's code asks for instead is told, and is not an error.
    """

    @workflow(name="buggy")
    async def mended(n: int) -> Flow[int]:
        total: int = yield add(n)
        total = yield add(total)
        yield Return(total)

    @workflow(name="buggy")
    async def ends(n: int) -> Flow[None]:
        yield add(n)

    events = run(buggy(1)).events
    found = replay(events, mended).verify()
    assert (found.verdict, found.further) == ("further", "step 'add'")
    assert replay(events, ends).further == "the end of the workflow"


async def test_patches_are_told():
    """
    Which way the run goes at each `patched`.
    """

    @workflow(name="plain")
    async def with_patch(n: int) -> list[int]:
        seen = [-1] if patched("minus") else []
        for i in range(n):
            found = await add(i)
            seen.append(found)
        return seen

    assert replay(run(plain(1)).events, with_patch).patches == {"minus": False}
    assert replay(run(with_patch(1)).events, with_patch).patches == {"minus": True}


# --- forms of a history, and of code -------------------------------------------------------------------


async def test_every_form_of_a_history_is_taken(tmp_path):
    """
    `run.history()`, a dry run, an exported file, a `RunHistory` of it.
    """
    async with Engine(tmp_path / "a.db", [plain, tell], durability="process") as engine:
        run = await engine.start(plain(2), id="r")
        await run.result(5)
        history = await run.history()
        dry = await engine.dry_run(plain(2), stand_ins={add: lambda n: n})
        await engine.export(["r"], tmp_path / "r.jsonl")
    (recorded,) = read_histories(tmp_path / "r.jsonl")
    for form in (history, dry, tmp_path / "r.jsonl", str(tmp_path / "r.jsonl"), recorded):
        assert replay(form, plain).verify().ended


async def test_code_is_a_workflow_or_several(tmp_path):
    """
    Of a list or module, the workflow that was recorded is taken; old names and versions lead there, too.
    """
    events = run(plain(1)).events
    module = types.ModuleType("app")
    module.plain, module.tell = plain, tell
    other = workflow(name="other", aliases=("plain",))(plain.fn)
    for code in (plain, [grouped, plain], module, [module], [other]):
        assert replay(events, code).ok


async def test_what_cannot_be_replayed_is_refused():
    """
    A job, an unknown workflow, a list of events that is not a history.
    """
    with pytest.raises(UsageError, match="'plain', which is not among grouped"):
        replay(run(plain(1)).events, grouped)
    facts = RunFacts(run_id="j", workflow="tell", version=1, sort="job", status="succeeded", created_at=0.0)
    with pytest.raises(UsageError, match="a job is one step"):
        replay(RunHistory(facts, run(plain(1)).events), [tell])
    for none in ([], [StepStarted("0", "add", 1, "", "", 0.0)]):
        with pytest.raises(UsageError, match="begins with RunStarted"):
            replay(none, plain)


async def test_a_file_of_several_runs_asks_which(tmp_path):
    """
    The error names the count and what to do.
    """
    async with Engine(tmp_path / "a.db", [plain], durability="process") as engine:
        for name in ("a", "b"):
            await engine.run(plain(1), id=name)
        await engine.export(["a", "b"], tmp_path / "two.jsonl")
    with pytest.raises(UsageError, match=r"has 2 runs of .*read_histories"):
        replay(tmp_path / "two.jsonl", plain)
    assert all(replay(each, plain).ok for each in read_histories(tmp_path / "two.jsonl"))


async def test_encoded_values_need_their_codec(tmp_path):
    """
    A journal written with codec hooks is replayed with them.
    """

    class Reversed:
        def encode(self, data: bytes) -> bytes:
            return data[::-1]

        def decode(self, data: bytes) -> bytes:
            return data[::-1]

    async with Engine(tmp_path / "a.db", [plain], durability="process", codec=Reversed()) as engine:
        run = await engine.start(plain(2))
        await run.result(5)
        history = await run.history()
    assert replay(history, plain, codec=Codec(Reversed())).value == [1, 2]
    assert replay(history, plain).verdict == "unreadable"


def test_replaying_needs_no_event_loop(tmp_path):
    """
    An ordinary program, without asyncio running, can look at what happened.
    """
    program = (
        "from tests.debug.test_replay import *\n"
        "events = run(plain(2)).events\n"
        "print([command.locals['seen'] for command in replay(events, plain)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[[], [1], [1, 2]]"
