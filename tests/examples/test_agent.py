"""
The agent: killed in the middle of its work, it asks nothing twice; its cost is bounded, its words come without a gap.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from durable import Engine, Flow, Return, RunFailedError, step, workflow

FOLDER = Path(__file__).parents[2] / "examples" / "agent"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def researcher(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import model_server
    import researcher

    with model_server.model_server() as (url, model):
        monkeypatch.setenv("MODEL", url)
        yield researcher, model


def test_no_request_to_the_model_is_made_twice():
    """
    Killed with SIGKILL in a tool: the next process asks the model what it had not been asked.
    """
    paths = os.pathsep.join([str(FOLDER), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", "import evening; evening.run(1)"], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "exit code -9" in ended.stdout
    assert "asked 4 times, each thing once" in ended.stdout
    assert "as it was written: It was the butler , in the cellar , with a journal ." in ended.stdout


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
    assert model.asked == Counter("0123")


async def test_its_cost_is_bounded(researcher, tmp_db):
    """
    Beyond the tokens that it may use, the run fails, and says by what.
    """
    example, model = researcher
    async with Engine(tmp_db, [example.research]) as engine:
        with pytest.raises(RunFailedError, match="UsageLimitExceeded"):
            await engine.run(example.research("Who was it?", most_tokens=60))
    assert sum(model.asked.values()) < 4


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
    assert model.asked == Counter(dict.fromkeys("0123", 2))
