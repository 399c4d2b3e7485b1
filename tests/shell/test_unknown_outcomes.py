"""
Unknown outcomes: `on_crash` holds however an attempt was cut off, and a person may say how it ended.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from durable import Client, Flow, Return, gather, job, step, workflow
from durable._cli.main import main
from durable.errors import (
    DecodeError,
    Fatal,
    RunFailedError,
    RunStateError,
    StepInterruptedError,
    UsageError,
)
from tests import children

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
#: Seconds that a plain function outlives the grace of its engine.
LONG = 0.6


def marks(path: str, seconds: float) -> str:
    """Note in a file that it began, and take its time: a coroutine, a thread and a process can all do that."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("began\n")
    time.sleep(seconds)
    return "done"


async def marks_in_a_coroutine(path: str, seconds: float) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("began\n")
    await asyncio.sleep(seconds)
    return "done"


def forbidden_in_a_process(path: str, seconds: float) -> str:
    return marks(path, seconds)


def blocking_in_a_process(path: str, seconds: float) -> str:
    return marks(path, seconds)


#: The same function where it may run, for each policy: (policy, kind) to a step and to a job.
STEPS, JOBS = {}, {}
for _policy in ("raise", "block"):
    for _kind, _fn, _options in (
        ("coroutine", marks_in_a_coroutine, {}),
        ("thread", marks, {}),
        ("process", forbidden_in_a_process if _policy == "raise" else blocking_in_a_process, {"process": True}),
    ):
        STEPS[_policy, _kind] = step(on_crash=_policy, **_options)(_fn)
        JOBS[_policy, _kind] = job(on_crash=_policy, name=f"{_policy}-{_kind}", **_options)(_fn)


@workflow
async def calls(policy: str, kind: str, path: str) -> Flow[str]:
    try:
        value: str = yield STEPS[policy, kind](path, LONG)
    except StepInterruptedError as error:
        yield Return(f"unknown: attempt {error.attempt}")
    yield Return(value)


async def has_begun(path: Path) -> None:
    async with asyncio.timeout(20):
        while not (path.exists() and path.read_text()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["step", "job"])
@pytest.mark.parametrize("kind", ["coroutine", "thread", "process"])
@pytest.mark.parametrize("policy", ["raise", "block"])
async def test_an_orderly_stop_does_not_run_it_twice(engines, reached, tmp_path, policy, kind, what):
    """
    What outlasts the grace has an unknown outcome, as if the process had died: the function is called once.
    """
    began = tmp_path / "began"
    top, op = (calls, calls(policy, kind, str(began))) if what == "step" else (
        JOBS[policy, kind], JOBS[policy, kind](str(began), LONG)
    )  # fmt: skip
    engine = await engines.file(top, grace=0.05)
    await engine.start(op, id="r")
    await has_begun(began)
    await engine.aclose()
    engine = await engines.file(top)
    run = engine.get("r")
    if policy == "block":
        await reached(run, "blocked")
        assert "was running when its engine closed: its outcome is unknown" in await run.why()
    elif what == "step":
        assert await run.result(10) == "unknown: attempt 1"
    else:
        with pytest.raises(RunFailedError) as caught:
            await run.result(10)
        assert isinstance(caught.value.__cause__, StepInterruptedError)
    await asyncio.sleep(LONG if kind == "thread" else 0)  # lest it write into a folder that is gone
    assert began.read_text() == "began\n"


@pytest.mark.parametrize("policy", ["raise", "block"])
async def test_the_drain_waits_for_it_first(engines, tmp_path, policy):
    """
    What ends within the grace has a known outcome.
    """
    began = tmp_path / "began"
    engine = await engines.file(calls, grace=10.0)
    await engine.start(calls(policy, "thread", str(began)), id="r")
    await has_begun(began)
    await engine.aclose()
    engine = await engines.file(calls)
    assert await engine.get("r").result(5) == "done"
    assert began.read_text() == "began\n"


SCRIPT = """
    import asyncio, sys
    from durable import Engine, job
    @job(on_crash="raise")
    async def once() -> str:
        print("began", flush=True)
        await asyncio.Event().wait()
    async def main():
        async with Engine(sys.argv[1], [once], grace=0.1) as engine:
            run = await engine.start(once(), key="k")
            try:
                print(await run.result(), flush=True)
            except Exception as error:
                print(type(error.__cause__).__name__, flush=True)
    asyncio.run(main())
"""


@pytest.mark.parametrize("killed_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_does_not_matter_which_signal_ends_the_process(tmp_path, killed_by):
    """
    Ctrl-C, a deploy and the out-of-memory killer alike: it is not called a second time.
    """
    script = tmp_path / "app.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path / "app.db")]
    with children.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        for line in child.stdout:
            if line == "began\n":
                child.send_signal(killed_by)
                break
    assert child.returncode != 0
    again = children.run(command, check=False, env=environ, capture_output=True, text=True, timeout=20)
    said = [line for line in again.stdout.splitlines() if line in ("began", "StepInterruptedError")]
    assert said == ["StepInterruptedError"]


# --- settled by a person ----------------------------------------------------------------------------


class Hanging:
    """A step and a job whose first attempt hangs, and whose outcome is then unknown."""

    def __init__(self):
        self.began = asyncio.Event()
        self.calls = 0

        @step(on_crash="block")
        async def charge(amount: int) -> int:
            return await self.hang(amount)

        @job(on_crash="block", name="charging")
        async def charging(amount: int) -> int:
            return await self.hang(amount)

        @workflow
        async def ride() -> Flow[str]:
            try:
                cents: int = yield charge(5)
            except Fatal as error:
                yield Return(f"failed: {error}")
            yield Return(f"charged {cents}")

        @workflow
        async def parent() -> Flow[str]:
            value: str = yield ride()
            yield Return(f"parent: {value}")

        @workflow
        async def both() -> Flow[list]:
            values: list = yield gather(charge(1), charge(2))
            yield Return(values)

        self.ride, self.parent, self.both, self.charging = ride, parent, both, charging

    async def hang(self, amount: int) -> int:
        self.calls += 1
        self.began.set()
        await asyncio.Event().wait()
        return amount

    async def stuck(self, engines, reached, op):
        """An engine whose run "r", or the child of that, has an outcome that nobody knows."""
        definitions = [self.ride, self.parent, self.both, self.charging]
        engine = await engines.file(*definitions)
        await engine.start(op, id="r")
        async with asyncio.timeout(5):
            await self.began.wait()
        children = await engine.get("r").children()
        await engines.crash(engine)
        engine = await engines.file(*definitions)
        await reached(engine.get(children[0].run_id if children else "r"), "blocked")
        return engine


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_the_run_continues_with_the_value_that_a_person_gave(engines, reached, through):
    """
    Its parent, too; who said so and why stand in the history, and the step is not called again.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.parent())
    (child,) = await engine.get("r").children()
    async with contextlib.AsyncExitStack() as stack:
        journal = engine if through == "engine" else await stack.enter_async_context(Client(engine.path))
        await journal.get(child.run_id).resolve("0", value=500, by="ann", reason="the bank says so")
    assert await engine.get("r").result(5) == "parent: charged 500"
    assert hanging.calls == 1
    events = [event.event for event in await engine.get(child.run_id).history()]
    at = next(index for index, event in enumerate(events) if type(event).__name__ == "OutcomeResolved")
    assert (events[at].by, events[at].reason, events[at].failed) == ("ann", "the bank says so", False)
    assert type(events[at + 1]).__name__ == "StepSucceeded"


async def test_the_run_continues_with_the_error_that_a_person_gave(engines, reached):
    """
    A text is a `Fatal`; the workflow may catch it.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.ride())
    await engine.get("r").resolve(0, error="no money")
    assert await engine.get("r").result(5) == "failed: no money"


async def test_a_job_ends_as_a_person_says(engines, reached):
    """
    A value of another type than the job's is refused where it is said; an error keeps its type.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.charging(3))
    run = engine.get("r")
    with pytest.raises(DecodeError, match="expected"):
        await run.resolve(0, value="three")
    await run.resolve(0, error=KeyError("card"))
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, KeyError)
    assert hanging.calls == 1


async def test_a_value_of_another_type_leaves_the_workflow_blocked(engines, reached):
    """
    And `why()` says so; the right one is accepted afterwards.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.ride())
    run = engine.get("r")
    await run.resolve(0, value="much", by="ann")
    await reached(run, "blocked")
    assert "the value that ann gave for step 'charge' at 0 does not fit" in await run.why()
    await run.resolve(0, value=7)
    assert await run.result(5) == "charged 7"


async def test_of_two_unknown_outcomes_each_is_settled(engines, reached):
    """
    The run stays blocked until both are.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.both())
    run = engine.get("r")
    await run.resolve("0.1", value=2)
    await reached(run, "blocked")
    assert "at 0.0 is still unknown" in await run.why()
    await run.resolve("0.0", value=1)
    assert await run.result(5) == [1, 2]


async def test_the_command_line_settles_it(engines, reached, capsys):
    """
    ``durable resolve RUN POSITION --value JSON``: recorded with the name of the user.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.ride())
    argv = ["resolve", "r", "0", "--value", "8", "--by", "ann", "--reason", "seen", "--db", engine.path]
    assert await asyncio.to_thread(main, argv) == 0
    assert "r: position 0 is resolved" in capsys.readouterr().out
    assert await engine.get("r").result(5) == "charged 8"
    assert await asyncio.to_thread(main, argv) == 2
    assert "cannot resolve position 0 of run 'r': it is succeeded" in capsys.readouterr().err


async def test_what_has_an_outcome_or_may_yet_have_one_is_refused(engines, reached):
    """
    So are a position that was never asked for, and neither or both of value and error.
    """
    hanging = Hanging()
    engine = await hanging.stuck(engines, reached, hanging.ride())
    run = engine.get("r")
    with pytest.raises(UsageError, match="takes either"):
        await run.resolve(0)
    with pytest.raises(UsageError, match="takes either"):
        await run.resolve(0, value=1, error="no")
    with pytest.raises(UsageError, match="has asked for nothing at position '9'"):
        await run.resolve(9, value=1)
    hanging.began.clear()
    await run.resume()
    await hanging.began.wait()
    with pytest.raises(RunStateError, match="cannot resolve position 0 of run 'r': it is running"):
        await run.resolve(0, value=1)
    await engines.crash(engine)
    engine = await engines.file(hanging.ride)
    run = engine.get("r")
    await reached(run, "blocked")
    await run.resolve(0, value=1)
    assert await run.result(5) == "charged 1"
    with pytest.raises(RunStateError, match="it is succeeded"):
        await run.resolve(0, value=2)
