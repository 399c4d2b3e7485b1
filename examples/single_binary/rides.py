"""
The rides: a booking, a job for the drivers, and a charge by a payment service over HTTP.

Nothing in here knows whether it is run from source or from one frozen file. What a journal holds has names that are
the same for both: `rides.DeclinedError`, `current_driver`, `ride`.
"""

import json
import urllib.error
import urllib.request

from attrs import frozen

from durable import Flow, Retry, Return, Transaction, context, job, step, transaction, workflow

FARE = 2_000  # cents
PAYMENT_REQUIRED = 402


class DeclinedError(Exception):
    """The bank says no: another attempt would not help."""


@frozen
class Receipt:
    ride_id: int
    charge_id: str
    drivers_told: int


@transaction  # exactly once: the row and the journal's entry commit together
def create_ride(tx: Transaction, user_id: int, pickup: str) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT, state TEXT)")
    booked = tx.execute("INSERT INTO rides (user_id, pickup, state) VALUES (?, ?, 'booked')", (user_id, pickup))
    return booked.lastrowid or 0


@transaction
def close_ride(tx: Transaction, ride_id: int, state: str) -> None:
    tx.execute("UPDATE rides SET state = ? WHERE id = ?", (state, ride_id))


@job(queue="drivers", retry=5)
async def notify_drivers(ride_id: int) -> int:
    return 3 + ride_id % 2


@step(retry=Retry(attempts=5, on=ConnectionError, delay=0.1), timeout=60.0)
def charge(ride_id: int, cents: int, payments: str) -> str:  # a plain function runs in a thread
    request = urllib.request.Request(  # noqa: S310 - the address is the application's
        payments,
        data=json.dumps({"ride": ride_id, "cents": cents}).encode(),
        headers={"Idempotency-Key": context().idempotency_key},  # the same for all attempts, also after a crash
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - as above
            charge_id: str = json.load(response)["charge_id"]
    except urllib.error.HTTPError as error:
        with error:
            if error.code == PAYMENT_REQUIRED:
                raise DeclinedError(ride_id, error.reason) from None
            raise ConnectionError(str(error)) from None
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from None
    return charge_id


@workflow
async def ride(user_id: int, pickup: str, payments: str) -> Flow[Receipt]:
    ride_id: int = yield create_ride(user_id, pickup)
    told: int = yield notify_drivers(ride_id)
    try:
        charge_id: str = yield charge(ride_id, FARE, payments)
    except DeclinedError:
        yield close_ride(ride_id, "declined")
        raise
    yield close_ride(ride_id, "paid")
    yield Return(Receipt(ride_id, charge_id, told))
