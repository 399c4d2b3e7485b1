"""
An aggregator that respects the limits of somebody else's API: a named limit, shared by all who use it.

Users are fetched by mapped jobs, ten of a report in progress at a time, and two reports are made at once;
yet at most five requests are at the API at any instant, and no more than forty begin in any half second.
Who waits for a slot is a row in a file. The API is real, if small: it listens on loopback, takes its
time, and turns away who comes while five are inside, so a job that got there by mistake would fail.
"""

import asyncio
import json
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

from durable import Engine, Flow, Limit, Rate, Return, for_each, job, step, workflow

MOST = 5
RATE = Rate(40, per=0.5)


@frozen
class Lookup:
    server: str
    user_id: int


@frozen
class User:
    user_id: int
    city: str


@job(queue="fetch", limit=Limit("external_api", concurrency=MOST, rate=RATE))
def fetch_user(lookup: Lookup) -> User:
    with closing(HTTPConnection(lookup.server, timeout=5.0)) as connection:
        connection.request("GET", f"/users/{lookup.user_id}")
        with connection.getresponse() as response:
            if response.status != 200:
                raise ConnectionError(f"user {lookup.user_id}: {response.reason}")
            return User(**json.load(response))


@step
def make_report(users: list[User]) -> dict[str, int]:
    cities = [user.city for user in users]
    return {city: cities.count(city) for city in sorted(set(cities))}


@workflow
async def aggregate(user_ids: list[int], server: str) -> Flow[dict[str, int]]:
    lookups = [Lookup(server, user_id) for user_id in user_ids]
    users: list[User] = yield for_each(fetch_user, lookups, concurrency=10)
    report: dict[str, int] = yield make_report(users)  # all calls have ended; until then nothing was held
    yield Return(report)


class ExternalApi(BaseHTTPRequestHandler):
    """GET /users/ID, for five at once."""

    door = threading.Lock()
    inside: list[str]
    visits: list[int]

    def do_GET(self) -> None:
        with self.door:
            self.inside.append(self.path)
            self.visits.append(len(self.inside))
            admitted = len(self.inside) <= MOST
        time.sleep(0.02)
        user_id = int(self.path.rpartition("/")[2])
        body = json.dumps({"user_id": user_id, "city": ("Bern", "Oslo", "Rome")[user_id % 3]}).encode()
        with self.door:  # before the answer: who reads it may send the next caller in
            self.inside.remove(self.path)
        self.send_response(200 if admitted else 429)
        self.end_headers()
        self.wfile.write(body if admitted else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the example prints what matters."""


@contextmanager
def api_server() -> Iterator[tuple[str, type[ExternalApi]]]:
    ExternalApi.inside, ExternalApi.visits = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), ExternalApi) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", ExternalApi
        server.shutdown()


async def main(path: Path) -> None:
    with api_server() as (server, api):
        async with Engine(path, [aggregate, fetch_user]) as engine:
            began = time.monotonic()
            first, second = await asyncio.gather(
                engine.run(aggregate(list(range(60)), server)),
                engine.run(aggregate(list(range(100, 130)), server)),
            )
            took = time.monotonic() - began
        print(f"{first}, {second}: {len(api.visits)} calls in {took:.1f} s, at most {max(api.visits)} at once")
        assert first == {"Bern": 20, "Oslo": 20, "Rome": 20}
        assert second == {"Bern": 10, "Oslo": 10, "Rome": 10}
        assert max(api.visits) <= MOST
        assert took >= (len(api.visits) - 1) // RATE.count * RATE.per


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "reports.db")))
