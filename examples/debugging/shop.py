"""
A small shop with a bug in it. Orders are packed in baskets, one for each store, and shipped.
"""

import asyncio

from attrs import frozen

from durable import Flow, Return, gather, job, step, workflow

STORES = ("harbour", "station")
STOCK = {"tea": "harbour", "lamp": "station", "rope": "harbour", "map": "station"}


@frozen
class Order:
    number: int
    items: list[str]


@step
async def find_store(item: str) -> str:
    await asyncio.sleep(0.05)
    return STOCK[item]


@step
async def ship(store: str, items: list[str]) -> str:
    for item in items:
        if STOCK[item] != store:
            raise ValueError(f"{store} has no {item}")
    return f"{store}: {' and '.join(items)}"


@job(queue="mail")
async def tell_customer(number: int) -> str:
    return f"order {number} is being packed"


async def packed(items: list[str]) -> dict[str, list[str]]:
    baskets: dict[str, list[str]] = dict.fromkeys(STORES, [])
    for item in items:
        store = await find_store(item)
        baskets[store].append(item)
    return baskets


@workflow
async def fulfil(order: Order) -> Flow[list[str]]:
    baskets, _ = yield gather(packed(order.items), tell_customer(order.number))
    parcels: list[str] = []
    for store, items in baskets.items():
        if items:
            parcel: str = yield ship(store, items)
            parcels.append(parcel)
    yield Return(parcels)
