"""
A little shop, and an hour of it that passes in seconds, on a clock that jumps: what the pictures of the guide show.
"""

from __future__ import annotations

import asyncio
import random
import time

from attrs import frozen

from durable import (
    Engine,
    Flow,
    Retry,
    Return,
    Schedule,
    Signal,
    context,
    gather,
    job,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable.testing import VirtualClock

luck = random.Random(4)


@frozen
class Decision:
    approved: bool
    by: str


decision = Signal("decision", Decision)


@step
async def price(item: str) -> int:
    await asyncio.sleep(luck.uniform(0.05, 0.3))
    return len(item) * 150


@step(retry=Retry(attempts=3, delay=0.8, on=ConnectionError))
async def charge(cents: int) -> str:
    await asyncio.sleep(luck.uniform(0.2, 0.7))
    if luck.random() < 0.35 or (cents == 2_850 and context().attempt == 1):
        raise ConnectionError("the card gateway does not answer")
    if cents > 2_400:
        raise ValueError(f"card declined: {cents / 100:.2f} is over its limit")
    return f"ch-{luck.randrange(10**6):06}"


@job(queue="mail")
async def notify(who: str) -> None:
    await asyncio.sleep(luck.uniform(0.2, 1.2))


@workflow
async def order(customer: str, items: list[str]) -> Flow[str]:
    total = 0
    for item in items:
        cents: int = yield price(item)
        total += cents
    set_attributes(total=total)
    yield gather(notify(customer), notify("warehouse"), sleep(1.5, name="time to change one's mind"))
    receipt: str = yield charge(total)
    yield Return(receipt)


@workflow
async def refund(order_id: str) -> Flow[bool]:
    said: Decision = yield wait_for(decision, timeout=86_400)
    yield Return(said.approved)


DEFINITIONS = [order, refund, notify]


async def an_hour(path: str) -> None:
    """Customers come, more and more of them; some cards are declined, and refunds wait for somebody."""
    clock = VirtualClock(start=time.time() - 3_600)
    items = ["tea", "lamp", "teapot", "armchair", "bookshelf"]
    nightly = Schedule("nightly report", notify("accounting"), cron="0 3 * * *")
    async with Engine(path, DEFINITIONS, schedules=[nightly], clock=clock) as engine:
        while (left := time.time() - clock.now()) > 12:
            who = luck.choice(["ada", "bob", "cleo", "dan"])
            wanted = luck.sample(items, luck.randint(1, 3))
            await engine.start(order(who, wanted), labels={"customer": who})
            if luck.random() < 0.05:
                await engine.start(refund(f"order-{luck.randrange(900)}"), labels={"customer": who})
            await asyncio.sleep(min(left - 10, luck.expovariate(1 / 25) * (1 + left / 1_800)))
        await engine.start(order("cleo", ["teapot", "bookshelf", "lamp"]), id="order-of-cleo")
        await asyncio.sleep(8)
