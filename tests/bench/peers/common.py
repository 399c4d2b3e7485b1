"""
What the peers' scripts share: `python on_dbos.py WORKLOAD FOLDER SIZES`, and one line of JSON comes back.

A peer is another library on SQLite that a user could pick, as its documentation sets it up, with every commit on
disk. It does the same as our W1 to W3, with no-op steps: `SIZES` are those of `run.py`.
"""

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

now = time.perf_counter


def throughput(runs: int, steps: int, seconds: float) -> dict[str, float]:
    """W1: many runs of a few steps, from the first start to the last result."""
    return {"steps_per_s": runs * steps / seconds}


def sequential(steps: int, seconds: float, latencies: Sequence[float]) -> dict[str, float]:
    """W2: one run alone; and from start to result of runs of one step, one after the other."""
    ordered = sorted(latencies)
    return {
        "steps_per_s": steps / seconds,
        "latency_p50_ms": 1e3 * ordered[len(ordered) // 2],
        "latency_p99_ms": 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


def awaited(jobs: int, seconds: float) -> dict[str, float]:
    """W3: a parent that awaits so many children of one step."""
    return {"jobs_per_s": jobs / seconds}


def main(w1: Callable[..., Any], w2: Callable[..., Any], w3: Callable[..., Any]) -> None:
    """Run the workload that the command line names."""
    name, folder, sizes = sys.argv[1:4]
    done = {"W1": w1, "W2": w2, "W3": w3}[name](Path(folder), **json.loads(sizes))
    if inspect.isawaitable(done):
        done = asyncio.run(_awaited(done))
    print("RESULT " + json.dumps(done), flush=True)
    sys.stdout.flush()
    import os

    os._exit(0)  # some leave threads behind that never end


async def _awaited(done: Any) -> Any:
    return await done
