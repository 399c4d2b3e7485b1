"""kairo in this process, on its SQLite store with synchronous=FULL. Needs Python 3.12."""

import asyncio

from common import awaited, main, now, sequential, throughput
from kairo_sdk import EmbeddedBackend, Kairo, SQLiteStore

stamps: list[float] = []


async def launch(folder):
    store = SQLiteStore(str(folder / "peer.db"), synchronous="FULL")
    peer = Kairo(backend=await EmbeddedBackend.open(store, owner="bench"))

    @peer.action("ok", effect="unprotected")
    async def ok(number, ctx):
        return {"ok": True}

    @peer.workflow("sequence")
    async def sequence(ctx, given):
        for number in range(given["steps"]):
            await ctx.call("ok", number)
            stamps.append(now())
        return {"done": given["steps"]}

    @peer.workflow("parent")
    async def parent(ctx, given):
        children = (ctx.workflow("sequence", {"steps": 1, "number": number}) for number in range(given["jobs"]))
        return {"ended": len(await asyncio.gather(*children))}

    await peer.start()
    return peer


async def w1(folder, runs, steps):
    peer = await launch(folder)
    began = now()
    await asyncio.gather(*(peer.run("sequence", {"steps": steps}, id=f"w{number}") for number in range(runs)))
    return throughput(runs, steps, now() - began)


async def w2(folder, steps, latency_runs):
    peer = await launch(folder)
    await peer.run("sequence", {"steps": steps + 1}, id="long")
    seconds, latencies = stamps[-1] - stamps[0], []
    for number in range(latency_runs):
        began = now()
        await peer.run("sequence", {"steps": 1}, id=f"l{number}")
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


async def w3(folder, jobs):
    peer = await launch(folder)
    began = now()
    assert (await peer.run("parent", {"jobs": jobs}, id="p"))["ended"] == jobs
    return awaited(jobs, now() - began)


main(w1, w2, w3)
