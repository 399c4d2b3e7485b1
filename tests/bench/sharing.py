"""
What the engine costs those who share its process, and what they cost it.
"""

import threading
from pathlib import Path
from typing import Any

import workloads


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
        await workloads.sequences(engine, 2, 1)
        alone = await workloads.sequences(engine, runs, steps)
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            together = await workloads.sequences(engine, runs, steps)
        finally:
            over = True
            thread.join()
    return {
        "alone_steps_per_s": runs * steps / alone,
        "beside_steps_per_s": runs * steps / together,
        "slower": together / alone,
    }
