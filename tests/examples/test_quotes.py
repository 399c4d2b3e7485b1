"""
Enough quotes end the asking, and a parcel that fails is told of; too many fail the run.
"""

import pytest

from durable import Engine, GroupFailedError
from durable.errors import RunFailedError


async def test_the_cheaper_of_two_quotes_wins_and_one_parcel_is_left_out(example, tmp_db):
    """
    The bike's timer is withdrawn: nobody waits an hour for a third quote.
    """
    async with Engine(tmp_db, [example.ship]) as engine:
        books = [f"book {number}" for number in range(9)]
        shipment = await engine.run(example.ship([*books, "piano"]))
    assert (shipment.carrier, shipment.left_out) == ("van", ["piano"])
    assert shipment.labels == [f"box of {book}, by van" for book in books]


async def test_too_many_pianos_fail_the_run_and_the_packed_parcels_are_told(example, tmp_db):
    """
    One in ten may fail, here one in two does.
    """
    async with Engine(tmp_db, [example.ship]) as engine:
        run = await engine.start(example.ship(["book", "piano"]))
        with pytest.raises(RunFailedError) as failed:
            await run.result()
        assert (await run.attributes())["packed"] in ([], ["box of book, by van"])
    assert isinstance(failed.value.__cause__, GroupFailedError)
    assert "fits no box" in str(failed.value.__cause__.exceptions[0])
