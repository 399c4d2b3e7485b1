"""
The agent: killed in the middle of its work, it asks nothing twice; its cost is bounded, its words come without a gap.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from durable import Engine, Flow, Return, RunCancelledError, RunFailedError, step, workflow

FOLDER = Path(__file__).parents[2] / "examples" / "agent"
REQUESTS = [f"request {number}" for number in range(1, 5)]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def researcher(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import model_server
    import researcher

    with model_server.model_server() as (url, model):
        monkeypatch.setenv("MODEL", url)
        yield researcher, model


@pytest.mark.long
@pytest.mark.timeout(240)
def test_no_request_to_the_model_is_made_twice():
    """
    Killed with SIGKILL while the answer comes, word by word: it is asked for again, and nothing else is. With
    DURABLE_LONG=1 also within another request and within a tool, and the lie is found in the debugger.
    """
    paths = os.pathsep.join([str(FOLDER), *filter(None, sys.path)])
    deaths = "" if os.environ.get("DURABLE_LONG") else "['a word']"
    ended = subprocess.run(
        [sys.executable, "-c", f"import evening; evening.run({deaths})"], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "killed at 'a word': exit code -9" in ended.stdout
    repeated = re.findall(r"^(?:request \d|the \w+|a witness) +\d +\d +(\d)$", ended.stdout, re.MULTILINE)
    assert repeated == ["0"] * 7
    assert "It was the butler , in the cellar , with a journal . (no gap)" in ended.stdout
    assert "case-2 failed: UsageLimitExceeded: Exceeded the `cost_limit` of 0.0003" in ended.stdout
    if not deaths:
        assert "in the cellar lay a glove of the butler" in ended.stdout.partition("memos butler")[2]


async def test_an_editor_decides_and_is_answered(researcher, tmp_db):
    """
    The request is asked while the agent works, and answered when it has written.
    """
    example, model = researcher
    async with Engine(tmp_db, [example.research]) as engine:
        run = await engine.start(example.research("Who was it?"))
        answer = await run.ask(example.decide, example.Decision(publish=False, editor="Mia"))
        assert answer == example.Outcome("It was the butler , in the cellar , with a journal .", published=False)
        assert await run.result() == answer
        info = await run.info()
        assert info.attributes["model_requests"] == 4
        (step,) = [each for each in await run.steps() if each.name == "write"]
        costs = [memo["usage"]["cost"] for name, memo in step.memos.items() if "model" in name]
    assert [float(cost) for cost in costs] == [0.000175, 0.000175, 0.000175, 0.000285]
    assert model.asked == Counter([*REQUESTS, "the library", "the archive", "a witness"])


async def test_its_cost_is_bounded(researcher, tmp_db):
    """
    Beyond the tokens that it may use, the run fails, and says by what.
    """
    example, model = researcher
    async with Engine(tmp_db, [example.research]) as engine:
        with pytest.raises(RunFailedError, match="UsageLimitExceeded"):
            await engine.run(example.research("Who was it?", most_dollars=Decimal("0.0003")))
    assert model.asked == Counter(["request 1", "the library", "request 2"])


async def test_it_is_cancelled_in_the_midst_of_its_answer(researcher, tmp_db):
    """
    At its first word: the rest is not waited for, and no editor is asked.
    """
    example, model = researcher
    async with Engine(tmp_db, [example.research]) as engine:
        run = await engine.start(example.research("Who was it?"))
        said = []
        async for word in run.stream("words", str):
            said.append(word)
            await run.cancel("nobody wants to know")
        with pytest.raises(RunCancelledError, match="nobody wants to know"):
            await run.result()
    assert said
    assert model.asked["request 4"] == 1


async def test_outside_of_steps_the_agent_is_as_it_was(researcher):
    """
    Nothing is recorded, and nothing is missing.
    """
    example, _ = researcher
    result = await example.agent.run("Who was it?")
    assert "butler" in result.output


async def test_two_runs_of_an_agent_in_one_step_do_not_mix(researcher, tmp_db):
    """
    Each has memos of its own, by their order, and answers from them when the step runs again.
    """
    example, model = researcher
    attempts = []

    @step(retry=3)
    async def twice() -> list[str]:
        texts = [(await example.agent.run(f"question {n}")).output for n in range(2)]
        attempts.append(texts)
        if len(attempts) < 2:
            raise ValueError("after all of it")
        return texts

    @workflow
    async def flow() -> Flow[list[str]]:
        texts: list[str] = yield twice()
        yield Return(texts)

    async with Engine(tmp_db, [flow]) as engine:
        assert await engine.run(flow()) == attempts[0]
    assert attempts[0] == attempts[1]
    assert [model.asked[request] for request in REQUESTS] == [2] * 4


@pytest.fixture
def plain_loop(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import plain_loop

    return plain_loop


async def test_a_loop_without_a_framework_asks_nothing_twice(plain_loop, monkeypatch, tmp_db, capsys):
    """
    The network goes away in a tool: the next attempt has all answers from before, and what they cost.
    """
    away = iter([True])
    reached = plain_loop.look_up

    async def look_up(source):
        answer = await reached(source)
        if source == "the archive" and next(away, False):
            raise ConnectionError("the network went away")
        return answer

    monkeypatch.setattr(plain_loop, "look_up", look_up)
    async with Engine(tmp_db, [plain_loop.case]) as engine:
        run = await engine.start(plain_loop.case("Who was it?"))
        assert await run.result() == "it was the gardener"
        assert (await run.info()).attributes == {"dollars": 0.006, "requests": 3}
        (research,) = await run.steps()
        assert [*research.memos] == ["model", "look up the library", "model:2", "look up the archive", "model:3"]
    asked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("asked: ")]
    assert [each for each, times in Counter(asked).items() if times > 1] == ["asked: the archive"]
    assert len(asked) == 6


async def test_the_cost_of_a_loop_is_bounded(plain_loop, tmp_db):
    """
    It ends with what was spent, without another request.
    """
    async with Engine(tmp_db, [plain_loop.case]) as engine:
        with pytest.raises(RunFailedError, match=r"no answer for \$0.003: \$0.004 were spent"):
            await engine.run(plain_loop.case("Who was it?", 0.003))


def agent_of(model, *tools):
    """
    An agent of Pydantic AI whose *model* is a function, and whose calls are memos.
    """
    from pydantic_ai import Agent, FunctionToolset
    from pydantic_ai.models.function import FunctionModel

    from durable.pydantic_ai import Durability

    toolset = FunctionToolset(tools=[*tools], id="tools")
    return Agent(FunctionModel(model), name="asker", toolsets=[toolset], capabilities=[Durability()])


async def test_tools_that_are_asked_for_at_once_are_recorded_in_the_order_of_the_answer(tmp_db):
    """
    The slow one first, although the other would be done before it; neither is called by the second attempt.
    """
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

    called, attempts = [], []

    async def slow() -> str:
        await anyio.sleep(0)
        called.append("slow")
        return "s"

    async def fast() -> str:
        called.append("fast")
        return "f"

    async def model(messages, info):
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("slow", {}), ToolCallPart("fast", {})])
        return ModelResponse(parts=[TextPart("done")])

    agent = agent_of(model, slow, fast)

    @step(retry=2)
    async def ask() -> str:
        text = (await agent.run("?")).output
        attempts.append(text)
        if len(attempts) == 1:
            raise ValueError("after all of it")
        return text

    @workflow
    async def flow() -> Flow[str]:
        yield Return((yield ask()))

    async with Engine(tmp_db, [flow]) as engine:
        run = await engine.start(flow())
        assert await run.result() == "done"
        (asked,) = await run.steps()
    assert called == ["slow", "fast"]
    assert attempts == ["done", "done"]
    assert [name.rpartition(":")[2] for name in asked.memos if "call_tool" in name] == ["slow", "fast"]


async def test_cancelling_the_run_cancels_the_request_to_the_model(tmp_db):
    """
    The request ends by a cancellation, and nothing more is asked.
    """
    events, reached = [], anyio.Event()

    async def model(messages, info):
        events.append("asked")
        reached.set()
        try:
            await anyio.sleep_forever()
        finally:
            events.append("cut off")

    agent = agent_of(model)

    @step(retry=3)
    async def ask() -> str:
        return (await agent.run("?")).output

    @workflow
    async def flow() -> Flow[str]:
        yield Return((yield ask()))

    async with Engine(tmp_db, [flow]) as engine:
        run = await engine.start(flow())
        await reached.wait()
        await run.cancel("enough")
        with pytest.raises(RunCancelledError):
            await run.result()
    assert events == ["asked", "cut off"]
