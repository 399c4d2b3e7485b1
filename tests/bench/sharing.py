"""
What the engine costs those who share its process, and what they cost it.
"""

import asyncio
import threading
from pathlib import Path
from typing import Any

import workloads
from measuring import clock


async def beside(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    W1 alone, then beside a thread that computes: such as a sync step, or any other thread of the program.

    A pure Python loop, so that the thread lets the interpreter's lock go only when it is asked to, each 5 ms.
    """
    runs, steps = params["runs"], params["steps"]
    over = False

    def compute() -> None:
        while not over:
            pass

    async with workloads.opened(folder, durability) as engine:
        await _seconds(engine, 2, 1)
        alone = await _seconds(engine, runs, steps)
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            together = await _seconds(engine, runs, steps)
        finally:
            over = True
            thread.join()
    return {
        "alone_steps_per_s": runs * steps / alone,
        "beside_steps_per_s": runs * steps / together,
        "slower": together / alone,
    }


async def _seconds(engine: Any, runs: int, steps: int) -> float:
    began = clock()
    started = await engine.start_many([workloads.sequence(steps) for _ in range(runs)])
    results = await asyncio.gather(*(run.result() for run in started))
    assert results == [steps] * runs
    return clock() - began
