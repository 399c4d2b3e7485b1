"""
What it costs to be watched: a thousand runs with a watcher each, against the same runs without; and while all wait.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import workloads

from durable import Engine, Flow, Return, Run, wait_for, workflow


@workflow
async def patient() -> Flow[None]:
    yield wait_for("go")
    yield Return(None)


async def watched(run: Run[Any], seen: list[int]) -> None:
    async for _ in run.watch():
        seen[0] += 1


async def watching(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    CPU time of W1's steps with a watcher on each run against that without, in turns; and of an engine that idles.
    """
    runs, steps = params["runs"], params["steps"]
    seen, alone, with_watchers = [0], 0.0, 0.0
    async with Engine(folder / "app.db", [workloads.sequence, patient], durability=durability) as engine:
        await workloads.sequences(engine, 2, 1)
        for _ in range(params["rounds"]):
            began = time.process_time()
            await workloads.sequences(engine, runs, steps)
            alone += time.process_time() - began
            began = time.process_time()
            started = await engine.start_many([workloads.sequence(steps) for _ in range(runs)])
            tasks = [asyncio.create_task(watched(run, seen)) for run in started]
            await asyncio.gather(*(run.result() for run in started))
            await asyncio.gather(*tasks)
            with_watchers += time.process_time() - began
        waiting = await engine.start_many([patient() for _ in range(runs)])
        tasks = [asyncio.create_task(watched(run, [0])) for run in waiting]
        await engine.idle()
        await asyncio.sleep(params["settles"])
        began, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(params["idles"])
        idle = (time.process_time() - began) / (time.perf_counter() - wall)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return {
        "watchers": runs,
        "share": with_watchers / alone - 1,
        "infos": seen[0] / params["rounds"],
        "idle_share": idle,
    }
