"""
What it takes to ask a freed run something, and to have its answer.
"""

import statistics
from pathlib import Path
from typing import Any

from measuring import clock

from durable import Client, Engine, Flow, Request, Run, wait_for, workflow

number = Request("number", int, int)


@workflow
async def answers(times: int) -> Flow[None]:
    for _ in range(times):
        asked = yield wait_for(number)
        yield asked.reply(asked.value)


async def asking(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    From the engine's own process, and from a `Client`: each run a few times, and freed in between.
    """
    path = folder / "app.db"
    async with Engine(path, [answers], durability=durability) as engine, Client(path, durability=durability) as client:
        own = [await engine.start(answers(params["times"])) for _ in range(params["runs"])]
        others = [await engine.start(answers(params["times"])) for _ in range(params["runs"])]
        here = await _ask(own, params["times"])
        there = await _ask([client.get(run.id) for run in others], params["times"])
    return {"times": len(here), "p50_ms": statistics.median(here), "client_p50_ms": statistics.median(there)}


async def _ask(runs: list[Run[Any]], times: int) -> list[float]:
    found: list[float] = []
    for run in runs:
        for turn in range(times):
            began = clock()
            assert await run.ask(number, turn) == turn
            found.append((clock() - began) * 1e3)
    return found
