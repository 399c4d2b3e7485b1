"""
What a transaction from a request handler costs, beside one that is a step of a workflow.
"""

import asyncio
from pathlib import Path
from typing import Any

from measuring import clock

from durable import Engine, Flow, Transaction, transaction, workflow


@transaction
def insert(tx: Transaction, number: int) -> None:
    tx.execute("INSERT INTO orders (number) VALUES (?)", (number,))


@workflow
async def inserts(times: int) -> Flow[None]:
    for number in range(times):
        yield insert(number)


async def transacting(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    As many handlers as runs, each with as many transactions, one after the other: first the runs, then the handlers.
    """
    runs, times = params["runs"], params["times"]
    schema = "CREATE TABLE orders (number INTEGER)"
    async with Engine(folder / "app.db", [inserts], durability=durability, schema=schema) as engine:

        async def handler() -> None:
            for number in range(times):
                await engine.transact(insert(number))

        began = clock()
        started = await engine.start_many([inserts(times) for _ in range(runs)])
        await asyncio.gather(*(run.result() for run in started))
        plain = clock() - began
        began = clock()
        await asyncio.gather(*(handler() for _ in range(runs)))
        outside = clock() - began
    return {"transact_per_s": runs * times / outside, "plain_per_s": runs * times / plain, "share": plain / outside}
