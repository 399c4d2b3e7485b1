"""
A trip: flight, hotel and car are booked one after the other, and unbooked in reverse where one is not to be had.

The three desks are the same small bookkeeping; a real one is another company's server, which books once for each of our
references. Ada gets her trip. Bob gets no car, so his hotel and flight are given back: by steps of their own, which a
crash in between does not lose. Cyd changes his mind while the hotel is being asked.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

import structlog
from attrs import frozen

from durable import (
    Engine,
    Fatal,
    Flow,
    Retry,
    RetryRefusedError,
    Return,
    RunCancelledError,
    RunFailedError,
    saga,
    step,
    workflow,
)


@frozen
class Trip:
    flight: str
    hotel: str
    car: str


#: What is booked, at all desks, by our own reference.
BOOKED: dict[str, str] = {}


@step(retry=Retry(attempts=3, delay=0.05))
async def book(what: str, reference: str) -> str:
    await asyncio.sleep(0.02)
    if what == "car" and reference.startswith("Bob"):
        raise Fatal("no car is left")
    BOOKED[f"{what} {reference}"] = what  # asked twice, the desk books once
    return f"{what} {reference}"


@step(retry=Retry(attempts=None, delay=0.05))  # tried until it is done
async def unbook(what: str, reference: str) -> None:
    BOOKED.pop(f"{what} {reference}", None)  # what is not there need not be undone


@workflow
async def trip(traveller: str) -> Flow[Trip]:
    async with saga() as undo:
        # Said before it is booked: a booking that is cut off, or made and not heard of, is undone, too.
        undo(unbook("flight", traveller))
        flight: str = yield book("flight", traveller)
        undo(unbook("hotel", traveller))
        hotel: str = yield book("hotel", traveller)
        undo(unbook("car", traveller))
        car: str = yield book("car", traveller)
        yield Return(Trip(flight, hotel, car))


async def main(path: Path) -> None:
    async with Engine(path, [trip]) as engine:
        ada, bob, cyd = await engine.start_many([trip("Ada"), trip("Bob"), trip("Cyd")])
        await asyncio.sleep(0.03)
        await cyd.cancel("changed his mind")

        print(f"Ada: {await ada.result()}")
        try:
            await bob.result()
        except RunFailedError as error:
            print(f"Bob: {error}; compensated: {(await bob.info()).compensated}")
        try:
            await bob.retry()
        except RetryRefusedError as error:
            print(f"  {error}")
        try:
            await cyd.result()
        except RunCancelledError as error:
            print(f"Cyd: {error}; compensated: {(await cyd.info()).compensated}")
        print(f"left at the desks: {sorted(BOOKED)}")
        assert sorted(BOOKED) == ["car Ada", "flight Ada", "hotel Ada"]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "trips.db")))
