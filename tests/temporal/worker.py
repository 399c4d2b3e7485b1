"""
A worker process: ``python -m tests.temporal.worker ADDRESS TASK_QUEUE``; it prints what its steps do.
"""

import asyncio
import signal
import sys

from temporalio.client import Client

from durable import Flow, Return, context, cursor, gather, step, workflow
from durable.temporal import TemporalEngine


def say(*words: object) -> None:
    print(*words, flush=True)


@step
async def quick(n: int) -> int:
    say("quick", n)
    return n


@step
async def slow() -> list[int]:
    """
    Counts to 400 in 20 s, from where its cursor is; asks for a kill on its first attempt.
    """
    here = cursor(0)
    say("slow", context().attempt, here.value)
    begun = here.value
    for n in range(here.value, 10):
        await here.advance(n + 1)
        if n == 4 and context().attempt == 1:
            say("half way")
            await asyncio.sleep(60)
    return [context().attempt, begun]


@step(on_crash="block")
async def careful() -> str:
    say("careful", context().attempt)
    await asyncio.sleep(60)
    return "done"


@workflow
async def long_way() -> Flow[list[int]]:
    yield gather(quick(1), quick(2))
    found: list[int] = yield slow()
    yield quick(3)
    yield Return(found)


@workflow
async def carefully() -> str:
    return await careful()


ALL = [long_way, carefully]


async def main(address: str, queue: str) -> None:
    client = await Client.connect(address)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with TemporalEngine(client, queue, ALL, worker_timeout=1.5, grace=0.3, cleanup_timeout=0.5):
        say("ready")
        await stop.wait()
    say("closed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
