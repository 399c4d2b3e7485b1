"""
Recipes for other frameworks of agents, with the real packages and models that need no network: `make test-agents`.

Each example is killed with SIGKILL in the middle of a call, again and again, until it has its answer; it says what it
asks. Where the package is missing, its test is left out, and says so.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable import Client

FOLDER = Path(__file__).parents[2] / "examples" / "agent"
REQUIRED = bool(os.environ.get("DURABLE_AGENTS"))


def lived(example, journal, dies_at=""):
    """
    One life of an example: its exit code, what it asked, and the line that it printed at its end.
    """
    ended = subprocess.run(
        [sys.executable, str(FOLDER / f"{example}.py"), str(journal)], capture_output=True, text=True, timeout=50,
        env={**os.environ, "DIES_AT": dies_at, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
    )  # fmt: skip
    assert ended.returncode in (0, -9), ended.stderr
    asked = [line.removeprefix("asked: ") for line in ended.stdout.splitlines() if line.startswith("asked: ")]
    return ended.returncode, asked, ended.stdout.splitlines()[-1] if ended.stdout else ""


def needs(package):
    """
    Leave the test out where the package is missing, unless all was asked for.
    """
    if not REQUIRED:
        pytest.importorskip(package, reason=f"{package} is not installed: `make test-agents` does that")


async def facts(journal):
    """
    The names of the memos of the step, and the words that its last attempt has emitted.
    """
    async with Client(journal) as client:
        run = await client.find(key="case-1")
        (step,) = [each for each in await run.steps() if each.name == "research"]
        items = [item async for item in run.stream("words", str).items()]
    last = max(item.attempt for item in items)
    return [*step.memos], [item.value.strip() for item in items if item.attempt == last]


async def test_the_agents_sdk_of_openai_asks_nothing_twice(tmp_db):
    """
    Killed in a tool of two that run side by side, then in the midst of the words of an answer.
    """
    needs("agents")
    code, first, _ = lived("with_openai_agents", tmp_db, "archive")
    assert (code, first[:2]) == (-9, ["the model", "archive"])
    code, second, _ = lived("with_openai_agents", tmp_db, "gardener")
    assert (code, second) == (-9, ["archive", "library", "the model, the second time"])
    code, third, answer = lived("with_openai_agents", tmp_db)
    assert (code, third, answer) == (0, ["the model, the second time"], "It was the gardener .")
    memos, words = await facts(tmp_db)
    assert memos == ["model", "look_up call-archive", "look_up call-library", "model:2"]
    assert words == ["It", "was", "the", "gardener", "."]


async def test_a_node_of_langgraph_is_a_memo(tmp_db):
    """
    Killed in one node, then in another: those that have ended answer from the journal. A person approves it.
    """
    needs("langgraph")
    code, first, _ = lived("with_langgraph", tmp_db, "witness")
    assert (code, first) == (-9, ["the model, turn 1", "witness"])
    code, second, _ = lived("with_langgraph", tmp_db, "the model, turn 2")
    assert (code, second) == (-9, ["witness", "the model, turn 2"])
    code, third, answer = lived("with_langgraph", tmp_db)
    assert (code, third, answer) == (0, ["the model, turn 2"], "it was the gardener")
    memos, words = await facts(tmp_db)
    assert memos == ["model", "look_up", "model:2"]
    assert words == ["it", "was", "the", "gardener"]
