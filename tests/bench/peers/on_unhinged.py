"""unhinged in this process: its worker with 200 places, polling every 10 ms (its own choice is one place, 250 ms)."""

import asyncio

from common import awaited, main, now, sequential, throughput
from unhinged.aio import AsyncUnhinged


async def ok() -> dict[str, bool]:
    return {"ok": True}


class Peer:
    def __init__(self, folder):
        self.stamps, path = [], str(folder / "peer.db")
        self.app = AsyncUnhinged(path, queue_name="main", synchronous="full")
        self.children = AsyncUnhinged(path, queue_name="children", synchronous="full")
        for each in (self.app, self.children):
            each.create_queue()

        @self.app.register_task("sequence")
        async def sequence(params, ctx):
            for number in range(params["steps"]):
                await ctx.step(f"s{number}", ok)
                self.stamps.append(now())
            return {"done": params["steps"]}

        @self.children.register_task("child")
        async def child(params, ctx):
            return await ctx.step("s", ok)

        @self.app.register_task("parent")
        async def parent(params, ctx):
            async def start_all():
                jobs = range(params["jobs"])
                return [self.children.spawn("child", {"n": n}, queue="children")["task_id"] for n in jobs]

            ended = 0
            for task in await ctx.step("start", start_all):
                ended += (await ctx.await_task_result(task, queue_name="children")).result["ok"]
            return {"ended": ended}

        self.workers = [
            asyncio.create_task(each.start_worker(concurrency=200, poll_interval=0.01))
            for each in (self.app, self.children)
        ]

    async def ended(self, count):
        conn = self.app.engine._conn
        while conn.execute("SELECT count(*) FROM t_main WHERE state = 'completed'").fetchone()[0] < count:
            await asyncio.sleep(0.01)


async def w1(folder, runs, steps):
    peer = Peer(folder)
    await asyncio.sleep(0.3)
    began = now()
    for _ in range(runs):
        peer.app.spawn("sequence", {"steps": steps})
    await peer.ended(runs)
    return throughput(runs, steps, now() - began)


async def w2(folder, steps, latency_runs):
    peer = Peer(folder)
    await asyncio.sleep(0.3)
    await peer.app.await_task_result(peer.app.spawn("sequence", {"steps": steps + 1})["task_id"])
    seconds, latencies = peer.stamps[-1] - peer.stamps[0], []
    for _ in range(latency_runs):
        began = now()
        await peer.app.await_task_result(peer.app.spawn("sequence", {"steps": 1})["task_id"])
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


async def w3(folder, jobs):
    peer = Peer(folder)
    await asyncio.sleep(0.3)
    began = now()
    task = peer.app.spawn("parent", {"jobs": jobs})
    await peer.ended(1)
    seconds = now() - began
    assert peer.app.fetch_task_result(task["task_id"]).result["ended"] == jobs
    return awaited(jobs, seconds)


main(w1, w2, w3)
