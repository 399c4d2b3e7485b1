"""
The shop, mended: each store has a basket of its own.
"""

from shop import STORES, Order, find_store, ship, tell_customer

from durable import Flow, Return, gather, workflow


async def packed(items: list[str]) -> dict[str, list[str]]:
    baskets: dict[str, list[str]] = {store: [] for store in STORES}
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
