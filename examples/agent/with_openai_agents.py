"""
OpenAI's Agents SDK in a step: each answer of the model and each call of a tool is a memo, made once.

    pip install durable-asyncio openai-agents
    python examples/agent/with_openai_agents.py FILE

Two wrappers are all it takes: `Remembered` around the model, `once` around a tool. Run it, kill it, run it again.
"""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import Agent, FunctionTool, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.items import TResponseStreamEvent
from agents.tool_context import ToolContext
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import TypeAdapter

from durable import Engine, Flow, Return, emit, memo, set_attributes, step, workflow

# --- the recipe ----------------------------------------------------------------------------------------------------

_ANSWER = TypeAdapter(ModelResponse)


class Remembered(Model):
    """A model whose answers are memos of the step that asks: `Runner.run` and `Runner.run_streamed` work with it."""

    def __init__(self, model: Model, stream: str | None = None) -> None:
        self._model, self._stream = model, stream

    async def get_response(self, *asked: Any, **options: Any) -> ModelResponse:
        async def ask() -> Any:
            return _plain(await self._model.get_response(*asked, **options))

        return _ANSWER.validate_python(await memo("model", ask))

    async def stream_response(self, *asked: Any, **options: Any) -> AsyncIterator[TResponseStreamEvent]:
        async def ask() -> dict[str, Any]:
            async for event in self._model.stream_response(*asked, **options):
                if self._stream and event.type == "response.output_text.delta":
                    await emit(self._stream, event.delta)
                if event.type == "response.completed":
                    return event.response.model_dump(mode="json", exclude_unset=True)
            raise ConnectionError("the model stopped in the middle of its answer")

        response = Response.model_validate(await memo("model", ask))
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")


def once(tool: FunctionTool) -> FunctionTool:
    """A tool each call of which is a memo: by the id that the model gave it, so that calls may run side by side."""

    async def call(context: ToolContext[Any], arguments: str) -> Any:
        return await memo(f"{tool.name} {context.tool_call_id}", tool.on_invoke_tool, context, arguments)

    return dataclasses.replace(tool, on_invoke_tool=call)


def _plain(answer: ModelResponse) -> Any:
    return _ANSWER.dump_python(answer, mode="json", exclude_defaults=True)


# --- a model that needs no network -----------------------------------------------------------------------------------


class Scripted(Model):
    """Asks two sources at once, then answers. `asked` is told each time that it is asked something."""

    def __init__(self, asked: Callable[[str], object]) -> None:
        self._asked = asked

    async def get_response(
        self,
        system_instructions: str | None,  # noqa: ARG002 - of the interface
        input: str | list[Any],
        *_: Any,
        **__: Any,
    ) -> ModelResponse:
        output = self._answer(input)
        used = Usage(requests=1, input_tokens=50, output_tokens=9, total_tokens=59)
        return ModelResponse(output=output, usage=used, response_id=None)

    async def stream_response(
        self,
        system_instructions: str | None,  # noqa: ARG002 - of the interface
        input: str | list[Any],
        *_: Any,
        **__: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        output = self._answer(input)
        for item in output:
            if isinstance(item, ResponseOutputMessage):
                for number, word in enumerate(["It", "was", "the", "gardener", "."]):
                    yield ResponseTextDeltaEvent(
                        type="response.output_text.delta", delta=f"{word} ", item_id=item.id, content_index=0,
                        output_index=0, sequence_number=number, logprobs=[],
                    )  # fmt: skip
                    may_die_at(word)
        yield ResponseCompletedEvent(
            type="response.completed", sequence_number=99, response=Response(
                id="r", created_at=0, model="scripted", object="response", output=output, tools=[], tool_choice="auto",
                parallel_tool_calls=True, usage=ResponseUsage(
                    input_tokens=50, output_tokens=9, total_tokens=59,
                    input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                    output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
                ),
            ),
        )  # fmt: skip

    def _answer(self, input: str | list[Any]) -> list[Any]:
        known = isinstance(input, list) and any(each.get("type") == "function_call_output" for each in input)
        self._asked("the model, the second time" if known else "the model")
        if known:
            text = ResponseOutputText(type="output_text", text="It was the gardener .", annotations=[])
            return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])]
        return [
            ResponseFunctionToolCall(
                type="function_call", name="look_up", call_id=f"call-{source}", arguments=f'{{"source": "{source}"}}'
            )
            for source in ("archive", "library")
        ]


def may_die_at(moment: str) -> None:
    if os.environ.get("DIES_AT") == moment:
        os.kill(os.getpid(), signal.SIGKILL)  # for the demonstration


def asked(what: str) -> None:
    print("asked:", what, flush=True)


@function_tool
async def look_up(source: str) -> str:
    """What a source says."""
    asked(source)
    may_die_at(source)
    return f"the {source} names the gardener"


# --- an agent, a step, a workflow ----------------------------------------------------------------------------------

agent = Agent(name="researcher", model=Remembered(Scripted(asked), stream="words"), tools=[once(look_up)])


@step(retry=3)
async def research(question: str) -> str:
    running = Runner.run_streamed(agent, question, max_turns=5, run_config=RunConfig(tracing_disabled=True))
    async for _ in running.stream_events():
        pass  # the words are in the stream of the run
    set_attributes(tokens=running.context_wrapper.usage.total_tokens)
    return str(running.final_output)


@workflow
async def case(question: str) -> Flow[str]:
    answer: str = yield research(question)
    yield Return(answer)


async def main(journal: str) -> None:
    async with Engine(journal, [case]) as engine:
        print(await engine.run(case("Who was it?"), key="case-1"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
