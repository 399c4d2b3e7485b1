"""
Edda in this process, on an SQLite file in WAL mode (its own choice is a rollback journal, which is slower).

Two runs at once: above a few, some die of locks. It has no children: a parent awaits activities instead.
"""

import asyncio
import contextlib
import logging
import sqlite3

from common import awaited, main, now, sequential, throughput
from edda import EddaApp, WorkflowContext, activity, workflow

stamps: list[float] = []


@activity
async def ok(ctx: WorkflowContext, number: int) -> dict[str, bool]:
    return {"ok": True}


@workflow
async def sequence(ctx: WorkflowContext, steps: int) -> dict[str, int]:
    for number in range(steps):
        await ok(ctx, number)
        stamps.append(now())
    return {"done": steps}


@workflow
async def parent(ctx: WorkflowContext, jobs: int) -> dict[str, int]:
    done = await asyncio.gather(*(ok(ctx, number, activity_id=f"job:{number}") for number in range(jobs)))
    return {"ended": len(done)}


async def launch(folder):
    path = folder / "peer.db"
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
    logging.getLogger("edda").setLevel(logging.ERROR)
    await EddaApp(service_name="bench", db_url=f"sqlite:///{path}").initialize()
    await sequence.start(steps=1)  # two first starts at once would fail: both store the definition


async def w1(folder, runs, steps):
    await launch(folder)
    places = asyncio.Semaphore(2)

    async def one():
        async with places:
            await sequence.start(steps=steps)

    began = now()
    await asyncio.gather(*(one() for _ in range(runs)))
    return throughput(runs, steps, now() - began)


async def w2(folder, steps, latency_runs):
    await launch(folder)
    stamps.clear()
    await sequence.start(steps=steps + 1)
    seconds, latencies = stamps[-1] - stamps[0], []
    for _ in range(latency_runs):
        began = now()
        await sequence.start(steps=1)
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


async def w3(folder, jobs):
    await launch(folder)
    began = now()
    await parent.start(jobs=jobs)
    return awaited(jobs, now() - began)


main(w1, w2, w3)
