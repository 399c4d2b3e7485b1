"""
An agent without a framework: a loop in a step, each call of the model and of a tool a memo, its cost bounded.

    python examples/agent/plain_loop.py FILE     run it, kill it, run it again: nothing that was answered is asked again

Control flow stays ordinary Python. What stands in no memo runs again after a crash, so it must have no effect. An
answer that says what it used, as those of all providers do, has its tokens and cost in `durable show`.
"""

import asyncio
import sys
from typing import Any

from durable import Engine, Fatal, Flow, Retry, Return, emit, memo, set_attributes, step, workflow

#: Dollars that one question may cost.
MOST = 0.01


async def ask_model(messages: list[str]) -> dict[str, Any]:
    """In place of a provider: it looks two things up, one after the other, then answers."""
    print("asked: the model,", messages[-1], flush=True)
    script = ["look up the library", "look up the archive", "it was the gardener"]
    text = script[min(len(messages) // 2, 2)]
    for word in text.split():
        await emit("words", word)
    return {"text": text, "usage": {"input_tokens": 40 * len(messages), "output_tokens": 4, "cost": 0.002}}


async def look_up(source: str) -> str:
    print("asked:", source, flush=True)
    return f"{source} names the gardener"


@step(retry=Retry(attempts=5, on=ConnectionError, delay=0.1))
async def research(question: str, most: float = MOST) -> str:
    messages, spent = [question], 0.0
    while spent < most:
        answer = await memo("model", ask_model, messages)  # the nth use of a name is the nth memo, in each attempt
        spent += answer["usage"]["cost"]
        set_attributes(dollars=round(spent, 6), requests=len(messages) // 2 + 1)
        text = str(answer["text"])
        if not text.startswith("look up "):
            return text
        source = text.removeprefix("look up ")
        messages += [text, await memo(f"look up {source}", look_up, source)]
    raise Fatal(f"no answer for ${most}: ${spent} were spent")


@workflow
async def case(question: str, most: float = MOST) -> Flow[str]:
    answer: str = yield research(question, most)
    yield Return(answer)


async def main(journal: str) -> None:
    async with Engine(journal, [case]) as engine:
        print(await engine.run(case("Who was it?"), key="case-1"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
