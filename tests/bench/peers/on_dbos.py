"""DBOS in this process, on an SQLite file in WAL mode (its own choice is a rollback journal, which is slower)."""

import asyncio
import contextlib
import logging
import sqlite3

from common import awaited, main, now, sequential, throughput
from dbos import DBOS


@DBOS.step()
async def ok(number: int) -> dict[str, bool]:
    return {"ok": True}


@DBOS.workflow()
async def sequence(steps: int) -> int:
    for number in range(steps):
        await ok(number)
    return steps


@DBOS.workflow()
async def fan_out(jobs: int) -> int:
    handles = [await DBOS.start_workflow_async(sequence, 1) for _ in range(jobs)]
    return len(await asyncio.gather(*(handle.get_result() for handle in handles)))


def launch(folder):
    path = folder / "dbos.db"
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
    url = f"sqlite:///{path}"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": "1"})
    DBOS.launch()
    logging.getLogger("dbos").setLevel(logging.ERROR)


async def result_of(workflow, argument):
    return await (await DBOS.start_workflow_async(workflow, argument)).get_result()


async def w1(folder, runs, steps):
    launch(folder)
    await sequence(1)
    began = now()
    await asyncio.gather(*(result_of(sequence, steps) for _ in range(runs)))
    return throughput(runs, steps, now() - began)


async def w2(folder, steps, latency_runs):
    launch(folder)
    await sequence(5)
    began = now()
    await sequence(steps)
    seconds, latencies = now() - began, []
    for _ in range(latency_runs):
        began = now()
        await result_of(sequence, 1)
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


async def w3(folder, jobs):
    launch(folder)
    await sequence(1)
    began = now()
    assert await result_of(fan_out, jobs) == jobs
    return awaited(jobs, now() - began)


main(w1, w2, w3)
