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


SERVER = """
import os, sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("sources")

@server.tool()
def look_up(source: str) -> str:
    with open(sys.argv[1], "a") as asked:
        asked.write(f"{source}\\n")
    return f"{source} names the gardener"

server.run("stdio")
"""

ASKING = """
import asyncio, os, signal, sys
from pydantic_ai import Agent
from fastmcp.client.transports import StdioTransport
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from durable import Engine, Flow, Return, step, workflow
from durable.pydantic_ai import Durability

def model(messages, info):
    known = sum(isinstance(part, ToolReturnPart) for each in messages for part in each.parts)
    print("asked: request", known + 1, flush=True)
    if known == 2 and os.environ["DIES_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if known < 2:
        return ModelResponse(parts=[ToolCallPart("look_up", {"source": ["the library", "the archive"][known]})])
    return ModelResponse(parts=[TextPart("it was the gardener")])

tools = MCPToolset(StdioTransport(sys.executable, [SERVER, ASKED]), id="sources", init_timeout=40)
agent = Agent(FunctionModel(model), name="asker", toolsets=[tools], capabilities=[Durability()])

@step
async def ask(question: str) -> str:
    async with agent:
        return (await agent.run(question)).output

@workflow
async def case(question: str) -> Flow[str]:
    yield Return((yield ask(question)))

async def main():
    async with Engine(sys.argv[1], [case]) as engine:
        print(await engine.run(case("?"), key="case-1"))

asyncio.run(main())
"""


async def test_tools_of_an_mcp_server_are_called_once(tmp_db, tmp_path):
    """
    With Pydantic AI: killed after two calls of tools of a server beside it, the next life asks the server nothing.
    """
    needs("fastmcp")
    server, asked, example = tmp_path / "server.py", tmp_path / "asked.txt", tmp_path / "asking.py"
    server.write_text(SERVER)
    example.write_text(f"SERVER, ASKED = {str(server)!r}, {str(asked)!r}\n{ASKING}")
    code, first, _ = lived(example.with_suffix(""), tmp_db, "request 3")
    assert (code, first) == (-9, ["request 1", "request 2", "request 3"])
    code, second, answer = lived(example.with_suffix(""), tmp_db)
    assert (code, second, answer) == (0, ["request 3"], "it was the gardener")
    assert asked.read_text().splitlines() == ["the library", "the archive"]
