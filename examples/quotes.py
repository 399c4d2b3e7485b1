"""
Two quotes of three are enough, and a parcel that cannot be packed does not hold up the others.

    python examples/quotes.py

The three carriers are asked at once, under their names: once two have answered, the third is not waited for. Then
each parcel is packed and labelled by a helper, three at a time; one in ten may fail. When more do, the run fails, but
what was packed until then is told all the same.
"""

import asyncio
import tempfile
from pathlib import Path

from attrs import frozen

from durable import (
    Engine,
    Flow,
    GroupFailedError,
    NamedOutcomes,
    Outcomes,
    Return,
    for_each,
    gather,
    set_attributes,
    sleep,
    step,
    workflow,
)


@frozen
class Shipment:
    carrier: str
    labels: list[str]
    left_out: list[str]


@step
async def ask(carrier: str, parcels: int) -> int:
    return parcels * {"post": 5, "van": 4, "bike": 9}[carrier]


@step
async def pack(parcel: str) -> str:
    if "piano" in parcel:
        raise ValueError(f"{parcel} fits no box")
    return f"box of {parcel}"


@step
async def label(box: str, carrier: str) -> str:
    return f"{box}, by {carrier}"


async def quote(carrier: str, parcels: int) -> int:
    if carrier == "bike":
        await sleep(3600)  # a durable timer, which is withdrawn once the others have answered
    return await ask(carrier, parcels)


@workflow
async def ship(parcels: list[str]) -> Flow[Shipment]:
    count = len(parcels)
    asked = {carrier: quote(carrier, count) for carrier in ("post", "van", "bike")}
    quotes: NamedOutcomes[str, int] = yield gather(asked, enough=2)
    cents = quotes.succeeded  # of those that have answered
    carrier = min(cents, key=lambda name: cents[name])

    async def packed(parcel: str) -> str:
        return await label(await pack(parcel), carrier)

    try:
        found: Outcomes[str] = yield for_each(packed, parcels, concurrency=3, tolerate=0.1, names=parcels)
    except GroupFailedError as error:
        set_attributes(packed=error.settled.succeeded)  # seen from outside, by `run.attributes()` and `durable show`
        raise
    left_out = [each.name or "" for each in found if not each.ok]
    yield Return(Shipment(carrier, found.succeeded, left_out))


async def main(path: Path) -> None:
    async with Engine(path, [ship]) as engine:
        parcels = [f"book {number}" for number in range(9)]
        shipment = await engine.run(ship([*parcels, "piano"]))
        print(f"{shipment.carrier} takes {len(shipment.labels)} parcels, without the {shipment.left_out[0]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder) / "quotes.db"))
