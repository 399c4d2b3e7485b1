"""
LangGraph in a step: one node, one memo. What a node has answered is never asked again.

    pip install durable-asyncio langgraph
    python examples/agent/with_langgraph.py FILE

One wrapper is all it takes, `once` around a node. The graph needs no checkpointer: the journal is one. Run it, kill it,
run it again.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, messages_from_dict, messages_to_dict
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from durable import Asked, Engine, Flow, Request, Return, emit, memo, step, wait_for, workflow


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    sources: list[str]


# --- the recipe ----------------------------------------------------------------------------------------------------

Node = Callable[[State], Awaitable[dict[str, Any]]]


def once(node: Node) -> Any:
    """A node whose update of the state is a memo, in each turn of a loop."""

    async def run(state: State) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            update = await node(state)
            return {**update, "messages": messages_to_dict(update.get("messages", []))}

        update = await memo(node.__name__, ask)
        return {**update, "messages": messages_from_dict(update["messages"])}

    return run


# --- a graph with a model that needs no network ----------------------------------------------------------------------


def asked(what: str) -> None:
    print("asked:", what, flush=True)
    if os.environ.get("DIES_AT") == what:
        os.kill(os.getpid(), signal.SIGKILL)  # for the demonstration


async def model(state: State) -> dict[str, Any]:
    turn = sum(isinstance(each, AIMessage) for each in state["messages"]) + 1
    asked(f"the model, turn {turn}")
    words = "ask the witness" if turn == 1 else "it was the gardener"
    for word in words.split():
        await emit("words", word)
    used = {"input_tokens": 50, "output_tokens": len(words.split()), "total_tokens": 50 + len(words.split())}
    return {"messages": [AIMessage(words, usage_metadata=used)]}


async def look_up(state: State) -> dict[str, Any]:
    source = state["messages"][-1].text.rpartition(" ")[2]
    asked(source)
    return {"messages": [HumanMessage(f"the {source} names the gardener")], "sources": [*state["sources"], source]}


def next_node(state: State) -> str:
    return "look_up" if state["messages"][-1].text.startswith("ask") else END


graph = StateGraph(State)
graph.add_node("model", once(model))
graph.add_node("look_up", once(look_up))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", next_node)
graph.add_edge("look_up", "model")
agent = graph.compile()

# --- a step, a workflow, a person ------------------------------------------------------------------------------

approve = Request("approve", bool, str)  # in place of `interrupt`: the run waits on disk


@step(retry=3)
async def research(question: str) -> str:
    state = await agent.ainvoke({"messages": [HumanMessage(question)], "sources": []})
    return str(state["messages"][-1].text)


@workflow
async def case(question: str) -> Flow[str]:
    answer: str = yield research(question)
    by_editor: Asked[bool, str] = yield wait_for(approve)
    yield by_editor.reply(answer if by_editor.value else "withdrawn")
    yield Return(answer)


async def main(journal: str) -> None:
    async with Engine(journal, [case]) as engine:
        run = await engine.start(case("Who was it?"), key="case-1")
        print(await run.ask(approve, question=True, dedup="editor-1"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
