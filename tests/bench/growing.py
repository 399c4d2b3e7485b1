"""
Growth: what a step costs as its run gets longer, what a run costs as its file gets fuller; and what two cores bring.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workloads
from measuring import clock, cores

from durable import Engine, Queue, job

#: Of a run of this many steps, and a file of this many runs.
DECADES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
SPIN_SECONDS = 0.04


async def growing(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    One run of many steps, in a file of its own; then a file that is filled up with waiting runs.
    """
    longest, fullest = params["steps"], params["runs"]
    async with workloads.opened(folder, durability) as engine:
        await engine.run(workloads.timed(5))
        workloads.ended_at.clear()
        await engine.run(workloads.timed(longest))
        steps = _per_step(workloads.ended_at, longest)
        began = clock()
        await engine.start_many([workloads.parked(workloads.HOUR) for _ in range(params["at_once"])])
        start_many_s = clock() - began
    found = {f"us_at_step_{at}": us for at, us in steps.items()}
    found |= {"start_many": params["at_once"], "start_many_s": start_many_s}
    found |= await _per_file(folder, fullest, params["probes"], durability)
    signals = await _per_signal(folder, workloads.counting(params["signals"]), params["signals"], durability, 1)
    chained = await _per_signal(folder, workloads.chained(0, params["signals"]), params["signals"], durability, 0)
    found |= {f"us_at_signal_{at}": us for at, us in signals.items()}
    found |= {f"us_at_chained_{at}": us for at, us in chained.items()}
    first_step = steps.get(100, next(iter(steps.values())))
    return found | {
        "step_growth": steps[longest] / first_step,
        "signal_growth": signals[max(signals)] / signals[min(signals)],
    }


def _per_step(ended_at: Sequence[float], longest: int) -> dict[int, float]:
    """
    Microseconds a step, by how many came before: the median over the last tenth (of some hundreds at most).
    """
    found = {}
    for at in [decade for decade in DECADES if decade < longest] + [longest]:
        window = min(500, max(8, at // 10))
        spans = [ended_at[n] - ended_at[n - 1] for n in range(at - window, at)]
        found[at] = statistics.median(spans) * 1e6
    return found


async def _per_file(folder: Path, fullest: int, probes: int, durability: str) -> dict[str, float]:
    """
    Microseconds a run, of *probes* at a time: in a file of so many waiting ones, and in turn with each in one of 1,000.
    """
    (folder / "full").mkdir()
    (folder / "small").mkdir()
    found: dict[str, float] = {}
    async with (
        workloads.opened(folder / "full", durability) as full,
        workloads.opened(folder / "small", durability) as small,
    ):
        await _fill(small, 0, min(1_000, fullest))
        filled = 0
        for at in [decade for decade in DECADES if 1_000 <= decade < fullest] + [fullest]:
            await _fill(full, filled, at)
            filled = at
            pairs = [(await _per_run(small, probes), await _per_run(full, probes)) for _ in range(7)]
            found[f"us_among_{at}"] = statistics.median(us for _, us in pairs)
            found["run_growth"] = statistics.median(us / of_small for of_small, us in pairs)
    return found


async def _fill(engine: Engine, filled: int, upto: int) -> None:
    await engine.run(workloads.sequence(1))
    for first in range(filled, upto, workloads.CHUNK):
        chunk = min(workloads.CHUNK, upto - first)
        await engine.start_many([workloads.parked(workloads.HOUR) for _ in range(chunk)])
    while (await engine.stats()).runs.get("waiting", 0) < upto:
        await asyncio.sleep(0.2)


async def _per_signal(folder: Path, op: Any, signals: int, durability: str, keep_resident: int) -> dict[int, float]:
    """
    Microseconds from a signal until its run waits for the next one, by how many came before.
    """
    spans = []
    place = folder / op.definition.name
    place.mkdir()
    async with workloads.opened(place, durability, keep_resident=keep_resident) as engine:
        run = await engine.start(op)
        await engine.idle()
        for _ in range(signals):
            began = clock()
            await run.signal("add", 1)
            await engine.idle()
            spans.append(clock() - began)
        assert await run.result() == signals
    places = [decade for decade in DECADES if decade < signals] + [signals]
    return {at: statistics.median(spans[max(0, at - max(8, min(500, at // 2))) : at]) * 1e6 for at in places}


async def _per_run(engine: Engine, probes: int) -> float:
    began = clock()
    runs = await engine.start_many([workloads.sequence(1) for _ in range(probes)])
    for run in runs:
        await run.result()
    return (clock() - began) / probes * 1e6


# --- cores ---------------------------------------------------------------------------------------------------


def _spin() -> int:
    until, turns = time.process_time() + SPIN_SECONDS, 0
    while time.process_time() < until:
        turns += 1
    return turns


@job(process=True, queue="one")
def spin_alone(number: int) -> bool:
    return _spin() > number


@job(process=True, queue="all")
def spin_together(number: int) -> bool:
    return _spin() > number


async def multicore(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Jobs that keep a core busy, in processes: one at a time, and as many at a time as there are cores.
    """
    jobs = params["jobs"]
    queues = [Queue("one", concurrency=1), Queue("all", concurrency=cores())]
    async with Engine(folder / "app.db", [spin_alone, spin_together], queues=queues, durability=durability) as engine:
        found = {}
        for name, definition in {"alone": spin_alone, "together": spin_together}.items():
            await asyncio.gather(*(engine.run(definition(0)) for _ in range(2 * cores())))  # processes have begun
            began = clock()
            runs = await engine.start_many([definition(number % 7) for number in range(jobs)])
            for run in runs:
                await run.result()
            found[f"{name}_s"] = clock() - began
    return found | {"cores": cores(), "speedup": found["alone_s"] / found["together_s"]}
