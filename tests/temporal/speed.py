"""
How fast the same workflows are on a server and in a file, on one machine, in turns.

    python -m tests.temporal.speed            # some minutes: what the guide says
    python -m tests.temporal.speed --rounds 1 --steps 5 --rides 1

Empty steps, one after the other in one run, then in twenty runs at once; and rides of two steps and two jobs. Medians
of the rounds, since other work on the machine makes some slow; each round is of all engines, so that this meets all.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from temporalio.client import Client

from durable import Engine, gather, job, step, workflow
from durable.temporal import TemporalEngine
from tests.temporal.dev_server import dev_server


@step
async def nothing() -> None:
    pass


@workflow
async def many(count: int) -> None:
    for _ in range(count):
        await nothing()


@step
async def reserve(ride: int) -> str:
    return f"reserved-{ride}"


@step
async def charge(ride: int) -> str:
    return f"charge-{ride}"


@job
async def tell(whom: str, ride: int) -> str:
    return f"{whom}-{ride}"


@workflow
async def ride(number: int) -> list[str]:
    reserved = await reserve(number)
    paid = await charge(number)
    return [reserved, paid, *await gather(tell("driver", number), tell("rider", number))]


ALL = [many, ride, tell]


async def measured(engine, steps, rides):
    """
    Steps a second of one run and of twenty, and milliseconds of a ride.
    """
    await engine.run(many(2))  # what the first run of an engine costs is not asked for
    began = time.perf_counter()
    await engine.run(many(steps))
    alone = steps / (time.perf_counter() - began)
    began = time.perf_counter()
    for run in await engine.start_many([many(max(1, steps // 20)) for _ in range(20)]):
        await run.result()
    together = 20 * max(1, steps // 20) / (time.perf_counter() - began)
    began = time.perf_counter()
    for number in range(rides):
        await engine.run(ride(number))
    return alone, together, (time.perf_counter() - began) / rides * 1_000


async def compared(address, folder, rounds, steps, rides):
    """
    Of each engine the medians of *rounds*.
    """
    client = await Client.connect(address)
    found = {"a file": [], "a server": [], "a server, light jobs": []}
    async with (
        Engine(folder / "speed.db", ALL) as embedded,
        TemporalEngine(client, "speed", ALL) as plain,
        TemporalEngine(client, "speed-light", ALL, light_jobs=True) as light,
    ):
        engines = dict(zip(found, (embedded, plain, light), strict=True))
        for _ in range(rounds):
            for name, engine in engines.items():
                found[name].append(await measured(engine, steps if engine is not embedded else 10 * steps, rides))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True)) for name, rows in found.items()
    }


def main(given):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="of a round on a server; ten times as many in a file")
    parser.add_argument("--rides", type=int, default=10)
    args = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder, dev_server(Path(folder)) as (address, _):
        told = asyncio.run(compared(address, Path(folder), args.rounds, args.steps, args.rides))
    print(f"{'':24}{'steps/s':>10}{'of 20 runs':>12}{'ms a ride':>12}")
    for name, (alone, together, milliseconds) in told.items():
        print(f"{name:24}{alone:10.0f}{together:12.0f}{milliseconds:12.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
