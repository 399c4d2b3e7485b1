"""
A research agent that survives a crash: no request to its model is made twice, a person approves what it writes.

    pip install 'durable-asyncio[pydantic-ai]'
    python examples/agent          kills it three times in the middle of its work, counts what was asked, finds a lie

The agent is Pydantic AI's. `Durability` makes each request to the model and each call of a tool a memo of the step that
runs the agent: recorded at once, and answered from the journal when the step runs again. Its words are emitted as they
come. The workflow around it bounds the cost, and waits for an editor: for months, if need be.
"""

import json
import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
from attrs import frozen
from pydantic_ai import Agent, FunctionToolset, UsageLimits
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from durable import Flow, Request, Retry, Return, progress, set_attributes, step, wait_for, workflow
from durable.pydantic_ai import Durability

# --- the model, in place of "openai:gpt-5": asked over HTTP, streamed ----------------------------------------------


async def lines_of(messages: list[ModelMessage]) -> AsyncIterator[dict[str, str]]:
    parts = [part for each in messages if isinstance(each, ModelRequest) for part in each.parts]
    known = sum(isinstance(part, ToolReturnPart) for part in parts)
    async with (
        httpx.AsyncClient(timeout=600) as client,  # models take their time
        client.stream("POST", os.environ["MODEL"], json={"known": known}) as answer,
    ):
        may_die_at(f"request {known + 1}")
        async for line in answer.aiter_lines():
            yield json.loads(line)


def may_die_at(moment: str) -> None:
    if os.environ.get("DIES_AT") == moment:
        os.kill(os.getpid(), signal.SIGKILL)  # for the demonstration


async def streamed(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    async for line in lines_of(messages):
        if "word" in line:
            yield line["word"]
            if line["word"].startswith("cellar"):
                may_die_at("a word")
        else:
            yield {0: DeltaToolCall("look_up", json.dumps({"source": line["look_up"]}))}


async def whole(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    lines = [line async for line in lines_of(messages)]
    if "look_up" in lines[0]:
        return ModelResponse(parts=[ToolCallPart("look_up", {"source": lines[0]["look_up"]})])
    return ModelResponse(parts=[TextPart("".join(line["word"] for line in lines))])


# --- the agent ---------------------------------------------------------------------------------------------------

tools: FunctionToolset[object] = FunctionToolset(id="sources")


@tools.tool_plain
async def look_up(source: str) -> str:
    """What a source says."""
    async with httpx.AsyncClient(timeout=600) as client:
        answer = await client.post(os.environ["MODEL"], json={"source": source})
    may_die_at(source)
    return str(answer.json()["says"])


agent = Agent(
    FunctionModel(whole, stream_function=streamed, model_name="gpt-4o"),  # which it is priced as
    name="researcher",
    toolsets=[tools],
    capabilities=[Durability(stream="words")],
)

# --- the workflow around it ----------------------------------------------------------------------------------------


@frozen
class Decision:
    publish: bool
    editor: str


@frozen
class Outcome:
    text: str
    published: bool


#: An editor asks the run to publish, or not; the run answers with what became of it.
decide = Request("decide", Decision, Outcome)


@step(retry=Retry(attempts=3, delay=0.1, on=httpx.HTTPError))
async def write(question: str, most_dollars: Decimal) -> str:
    result = await agent.run(question, usage_limits=UsageLimits(cost_limit=most_dollars))
    usage = result.usage
    set_attributes(model_requests=usage.requests, tokens=usage.total_tokens, dollars=str(usage.cost))
    return result.output.strip()


@workflow
async def research(question: str, most_dollars: Decimal = Decimal("0.10")) -> Flow[Outcome]:
    progress(0, 2, "researching")
    text: str = yield write(question, most_dollars)
    progress(1, 2, "waiting for an editor")
    asked = await wait_for(decide)
    outcome = Outcome(text, asked.value.publish)
    yield asked.reply(outcome)
    progress(2, 2)
    yield Return(outcome)
