"""
Orders, executed by as many processes as one likes: ``python fleet.py ADDRESS TASK_QUEUE [QUEUE ...]`` is one of them.

The definitions name no engine. The same ones run in one file (`Engine("orders.db", DEFINITIONS)`) until that is no
longer enough, and then here; runs that wait move along.
"""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen
from temporalio.client import Client

from durable import Definition, context, gather, job, step, wait_for, workflow
from durable.temporal import TemporalEngine


@frozen
class Parcel:
    order: int
    label: str
    mails: list[str]


def note(folder: str, what: str) -> None:
    """An effect in the world: a file for each idempotency key, with a line for each time that it happened."""
    path = Path(folder, context().idempotency_key.replace("/", "_").replace(":", "_"))
    with path.open("a") as file:
        file.write(f"{what}\n")


@job(queue="mail", retry=3)
async def send_mail(folder: str, order: int, to: str) -> str:
    await asyncio.sleep(0.1)
    note(folder, f"mail to {to} for {order}")
    return to


@step
async def print_label(folder: str, order: int) -> str:
    note(folder, f"label for {order}")
    return f"label-{order}"


@workflow
async def ship(folder: str, order: int, *, when_paid: bool = False) -> Parcel:
    if when_paid:
        await wait_for("paid", str)
    label = await print_label(folder, order)
    mails = [*await gather(send_mail(folder, order, "customer"), send_mail(folder, order, "warehouse"))]
    return Parcel(order, label, mails)


DEFINITIONS: list[Definition] = [ship, send_mail]


async def open_engine(address: str, task_queue: str, queues: Iterable[str]) -> TemporalEngine:
    """One that works on *queues*; on none, it only starts runs and asks."""
    client = await Client.connect(address)
    return TemporalEngine(client, task_queue, DEFINITIONS, poll=queues, worker_timeout=2.0, searchable=False)


async def work(address: str, task_queue: str, *queues: str) -> None:
    await (await open_engine(address, task_queue, queues)).serve()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
