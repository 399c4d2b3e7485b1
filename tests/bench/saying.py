"""
What it costs to emit items of a stream, and to follow it.
"""

import time
from pathlib import Path
from typing import Any

import workloads
from measuring import clock

from durable import Engine, Flow, Return, emit, step, workflow


@step
async def tell(items: int) -> int:
    for number in range(items):
        await emit("numbers", number)
    return items


@workflow
async def telling(items: int) -> Flow[int]:
    told: int = yield tell(items)
    yield Return(told)


async def emitting(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Many items from one run, with a reader and without; and what an item costs against a step of W1, in CPU time.
    """
    items, runs, steps = params["items"], params["runs"], params["steps"]
    async with Engine(folder / "app.db", [telling, workloads.sequence], durability=durability) as engine:
        await engine.run(telling(10))
        await workloads.sequences(engine, 2, 1)
        began = time.process_time()
        await workloads.sequences(engine, runs, steps)
        per_step = (time.process_time() - began) / (runs * steps)
        wall, began = clock(), time.process_time()
        await engine.run(telling(items))
        seconds, per_item = clock() - wall, (time.process_time() - began) / items
        began = clock()
        run = await engine.start(telling(items))
        followed = [number async for number in run.stream("numbers", int)]
        read = clock() - began
        assert followed == list(range(items))
    return {
        "items": items,
        "items_per_s": items / seconds,
        "followed_per_s": items / read,
        "us_per_item": per_item * 1e6,
        "us_per_step": per_step * 1e6,
        "share": per_item / per_step,
    }
