"""
A program of every kind of step, as hosts run it: two lives of one journal. Arguments: the file, and the event loop.
"""

import asyncio
import logging
import sys
import threading

import anyio

from durable import (
    Client,
    Engine,
    Flow,
    Retry,
    Return,
    RunFailedError,
    Transaction,
    gather,
    job,
    sleep,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)


@step
async def on_the_loop(number: int) -> int:
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await anyio.sleep(0.001)
    return number + 1


@step(retry=Retry(attempts=2, delay=0.01))
def in_a_thread(number: int) -> int:
    if threading.current_thread() is threading.main_thread():
        raise ValueError("no thread")
    return number + 10


@transaction
def in_the_file(tx: Transaction, number: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
    tx.execute("INSERT INTO numbers VALUES (?)", (number,))
    return number + 100


@job
async def child(number: int) -> int:
    return number + 1000


@job
async def fails() -> int:
    raise LookupError("as it should")


@workflow
async def with_yields(number: int) -> Flow[int]:
    for op in (on_the_loop, in_a_thread, in_the_file, child):
        number = yield op(number)
    yield sleep(0.001)
    both: list[int] = yield gather(on_the_loop(number), child(number))
    word: str = yield timeout(wait_for("go"), 60)
    yield Return(sum(both) + len(word))


@workflow
async def with_awaits(number: int) -> int:
    word = await wait_for("go", str)
    return await in_a_thread(await on_the_loop(number)) + len(word)


async def main(path: str) -> None:
    definitions = [with_yields, with_awaits, child, fails]
    engine = Engine(path, definitions)
    async with engine:
        await engine.start(with_yields(1), id="yields")
        await engine.start(with_awaits(1), id="awaits")
        try:
            await engine.run(fails())
        except RunFailedError as error:
            print("failed:", repr(error.__cause__))
        while {info.status async for info in engine.runs(status=("pending", "running"))}:
            await engine.idle()
    async with Client(path) as client:
        await client.get("yields").signal("go", "word")
    async with engine:
        await engine.get("awaits").signal("go", "word")
        results = [await engine.get(run_id).result(timeout=20) for run_id in ("yields", "awaits")]
        by_thread = await asyncio.to_thread(engine.from_thread.run, child(5))
        print("results:", *results, by_thread)


def start(path: str, loop: str) -> None:
    if loop == "anyio":
        anyio.run(main, path)
        return
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(debug=loop == "debug", loop_factory=factory) as runner:
        if loop == "eager":
            runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        runner.run(main(path))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout)
    start(*sys.argv[1:3])
