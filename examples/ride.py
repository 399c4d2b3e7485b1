"""
The ride: a trip is booked, two jobs run on queues of their own, then a card is charged over HTTP.

The payment server is real, if small: it listens on loopback, remembers each charge, and honours
idempotency keys. It is also unreliable: it makes the first charge of every ride and then answers 503.
The step is tried again with the same key, so the rider pays once.
"""

import asyncio
import json
import logging
import sqlite3
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

from durable import Engine, Flow, Retry, Return, Transaction, context, gather, job, step, transaction, workflow


@frozen
class Receipt:
    ride_id: int
    charge_id: str
    drivers_told: int


@transaction  # the ride, its audit record and the journal's entry commit together: exactly once
def create_ride(tx: Transaction, user_id: int, pickup: str) -> int:
    ride = tx.execute("INSERT INTO rides (user_id, pickup) VALUES (?, ?)", (user_id, pickup))
    tx.execute("INSERT INTO audit (entry) VALUES (?)", (f"user {user_id} asked for a ride from {pickup}",))
    return ride.lastrowid or 0


@job(queue="drivers", retry=5)  # a job is a run of its own
async def notify_drivers(ride_id: int) -> int:
    await asyncio.sleep(0.05)
    print(f"  ride {ride_id}: three drivers near the pickup were told")
    return 3


@job(queue="audit")
async def write_audit(ride_id: int) -> None:
    print(f"  ride {ride_id}: the audit service was told")


@step(retry=Retry(attempts=5, on=ConnectionError, delay=0.1), timeout=10.0)
def charge(ride_id: int, cents: int, server: str) -> str:  # a plain function runs in a thread
    attempt = context()
    request = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{server}/charges",
        data=json.dumps({"ride": ride_id, "cents": cents}).encode(),
        headers={"Idempotency-Key": attempt.idempotency_key},  # the same for all attempts
    )
    try:
        with urllib.request.urlopen(request, timeout=5.0) as response:  # noqa: S310 - as above
            charge_id: str = json.load(response)["charge_id"]
    except urllib.error.URLError as error:  # also the parent of HTTPError
        print(f"  ride {ride_id}: attempt {attempt.attempt} to charge failed: {error}")
        raise ConnectionError(str(error)) from error
    print(f"  ride {ride_id}: attempt {attempt.attempt} to charge succeeded: {charge_id}")
    return charge_id


@step
async def send_receipt(receipt: Receipt) -> None:
    print(f"  ride {receipt.ride_id}: receipt sent for {receipt.charge_id}")


@workflow
async def ride(user_id: int, pickup: str, server: str) -> Flow[Receipt]:
    ride_id: int = yield create_ride(user_id, pickup)
    told, _ = yield gather(notify_drivers(ride_id), write_audit(ride_id))  # freed here until both have ended
    charge_id: str = yield charge(ride_id, 2_000, server)
    receipt = Receipt(ride_id, charge_id, told)
    yield send_receipt(receipt)
    yield Return(receipt)


class Payments(BaseHTTPRequestHandler):
    """POST /charges: one charge for each idempotency key, however often it is asked for."""

    charges: dict[str, str]
    requests: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        known = key in self.charges
        charge_id = self.charges.setdefault(key, f"charge-{len(self.charges) + 1}")
        self.requests.append(key)
        self.send_response(200 if known else 503)  # the charge is made, and the caller is not told
        self.end_headers()
        self.wfile.write(json.dumps({"charge_id": charge_id}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the example prints what matters."""


@contextmanager
def payment_server() -> Iterator[tuple[str, type[Payments]]]:
    Payments.charges, Payments.requests = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Payments) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Payments
        server.shutdown()


async def main(path: Path) -> None:
    with closing(sqlite3.connect(path)) as app:  # the application's tables live beside the journal's
        app.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
        app.execute("CREATE TABLE audit (entry TEXT)")
    with payment_server() as (server, payments):
        async with Engine(path, [ride, notify_drivers, write_audit]) as engine:
            trip = ride(42, "Main St 1", server)
            print("A ride is booked; somebody double-clicks.")
            first, second = await asyncio.gather(*(engine.start(trip, key="ride-42") for _ in range(2)))
            print(f"{await first.result()}; one run: {first.id == second.id}")
        print(f"the server saw {len(payments.requests)} requests and made {len(payments.charges)} charge")
        assert (len(payments.requests), len(payments.charges)) == (2, 1)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "rides.db")))
