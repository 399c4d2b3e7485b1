"""
mundane-sdk in this process: a file for each run, with a rollback journal; a commit holds up the event loop.

It has no engine and no children: whoever called a function calls it again after a crash, and a parent here calls
what its steps are.
"""

import asyncio

import mundane
from common import awaited, main, now, sequential, throughput

stamps: list[float] = []


async def ok():
    return {"ok": True}


async def sequence(path, steps):
    async def body(ctx):
        for number in range(steps):
            await ctx.astep(f"s{number}", ok)
            stamps.append(now())
        return steps

    return await mundane.arun(str(path), body)


async def w1(folder, runs, steps):
    began = now()
    await asyncio.gather(*(sequence(folder / f"{number}.db", steps) for number in range(runs)))
    return throughput(runs, steps, now() - began)


async def w2(folder, steps, latency_runs):
    await sequence(folder / "long.db", steps + 1)
    seconds, latencies = stamps[-1] - stamps[0], []
    for number in range(latency_runs):
        began = now()
        await sequence(folder / f"{number}.db", 1)
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


async def w3(folder, jobs):
    async def parent(ctx):
        children = (ctx.astep(f"c{n}", lambda n=n: sequence(folder / f"{n}.db", 1)) for n in range(jobs))
        return sum(await asyncio.gather(*children))

    began = now()
    assert await mundane.arun(str(folder / "parent.db"), parent) == jobs
    return awaited(jobs, now() - began)


main(w1, w2, w3)
