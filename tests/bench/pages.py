"""
Pages: how long the dashboard takes for each, of a large file.

    python tests/bench/pages.py [--runs 100000] [--events 10000] [--repeats 5] [--file KEEP.db]
    python tests/bench/pages.py --tabs 10

The file has as many runs with ten events each, waiting and queued ones among them, and one run of so many events. Each
page is asked for in this process, as a web server would; its figures are medians, in milliseconds: processor time of
all threads, and the wall.

With `--tabs`, W1's runs in turns with and without so many open tabs, each of which asks for its page every two seconds:
by how much more processor time a run takes. The seconds are those of the processor, too, so that other programs on a
noisy machine do not count.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from looking import fill
from workloads import long_history, sequence, sequences

from durable import Engine, Schedule, job, wait_for, workflow
from durable.web import dashboard

#: What is asked for, by name: which page, and its query.
PAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "overview": ("", {}),
    "runs": ("runs", {}),
    "runs, page 2": ("runs", {"after": 10_100}),
    "runs, failed": ("runs", {"status": "failed"}),
    "runs, open": ("runs", {"status": "open"}),
    "runs of a workflow": ("runs", {"workflow": "family"}),
    "runs of a queue": ("runs", {"queue": "mail"}),
    "runs by label": ("runs", {"label": "city=Bern"}),
    "runs by text": ("runs", {"text": "run-777"}),
    "runs by text, none": ("runs", {"text": "nothing of that name"}),
    "run": ("run", {"id": "run-10100"}),
    "long run": ("run", {"id": "long"}),
    "long run, timeline": ("run/timeline", {"id": "long"}),
    "long run, graph": ("run/graph", {"id": "long"}),
    "long run, history": ("run/history", {"id": "long", "first": 5_000}),
    "family": ("run", {"id": "family"}),
    "debug": ("run/debug", {"id": "asking"}),
    "schedules": ("schedules", {}),
    "batches": ("batches", {}),
    "batch": ("batch", {"id": "letters"}),
    "queues": ("queues", {}),
}


#: What open tabs show.
SEEN: list[tuple[str, dict[str, Any]]] = [("", {}), ("runs", {}), ("runs", {"status": "open"}), ("queues", {})]


@job(queue="mail")
async def tell(number: int) -> int:
    """A member of the batch."""
    return number


@workflow
async def family(size: int) -> None:
    """Has many children."""
    for number in range(size):
        await tell(number)


@workflow
async def asking() -> None:
    """Waits for somebody."""
    await wait_for("said")


DEFINITIONS = [long_history, tell, family, asking]


async def make(path: str, runs: int, events: int) -> None:
    """What an engine makes; then the many, by SQL."""
    schedules = [Schedule("nightly", tell(0), cron="0 3 * * *")]
    async with Engine(path, DEFINITIONS, durability="process", schedules=schedules) as engine:
        await engine.start(long_history(events // 2), id="long")
        await engine.start(asking(), id="asking")
        await engine.run(family(100), id="family")
        async with engine.batch(id="letters") as batch:
            for number in range(500):
                batch.add(tell(number))
        await batch.wait()
        while await engine.get("long").status() == "running":
            await asyncio.sleep(0.1)
        await engine.queue("mail").pause()
        await engine.start_many([tell(number) for number in range(500)])
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        fill(conn, range(10_000, 10_000 + runs), since=time.time() - runs - 10_000)


async def visit(app: Callable[..., Awaitable[None]], page: str, query: dict[str, Any]) -> int:
    """Ask for a page; how many bytes came."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": f"/{page}", "raw_path": f"/{page}".encode(), "headers": [],
        "query_string": urlencode(query).encode(), "http_version": "1.1", "scheme": "http", "server": ("here", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    if sent[0]["status"] != 200:
        raise RuntimeError((page, query, sent))
    return sum(len(each.get("body", b"")) for each in sent)


async def measure(path: str, repeats: int) -> None:
    """A line for each page."""
    app = dashboard(path, app=DEFINITIONS)
    for name, (page, query) in PAGES.items():
        size = await visit(app, page, query)
        busy, wall = [], []
        for _ in range(repeats):
            began, cpu = time.perf_counter(), time.process_time()
            await visit(app, page, query)
            busy.append((time.process_time() - cpu) * 1e3)
            wall.append((time.perf_counter() - began) * 1e3)
        told = {"page": name, "cpu_ms": round(median(busy), 1), "wall_ms": round(median(wall), 1), "bytes": size}
        print(json.dumps(told))
        sys.stdout.flush()


async def beside(path: str, tabs: int, rounds: int = 6) -> None:
    """W1 in turns, alone and looked at."""
    alone, looked_at, asked = 0.0, 0.0, 0
    async with Engine(path, [sequence], durability="process") as engine:
        app = dashboard(engine)
        await sequences(engine, 50, 5)
        for _ in range(rounds):
            began = time.process_time()
            await sequences(engine, 1_000, 10)
            alone += time.process_time() - began
            began, count = time.process_time(), 0
            runs = asyncio.create_task(sequences(engine, 1_000, 10))
            while not runs.done():
                await asyncio.sleep(0.01)
                while time.process_time() - began > (count + 1) * 2.0 / tabs:
                    await visit(app, *SEEN[count % len(SEEN)])
                    count += 1
            looked_at += time.process_time() - began
            asked += count
    print(json.dumps({"tabs": tabs, "pages_asked_for": asked, "seconds_alone": round(alone, 2),
                      "seconds_looked_at": round(looked_at, 2), "share": round(looked_at / alone - 1, 3)}))  # fmt: skip


def main() -> None:
    """Make the file, unless it is kept from before; then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--tabs", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.tabs:
            asyncio.run(beside(f"{folder}/w1.db", args.tabs))
            return
        path = str(args.file or Path(folder) / "large.db")
        if not Path(path).exists():
            asyncio.run(make(path, args.runs, args.events))
        asyncio.run(measure(path, args.repeats))


if __name__ == "__main__":
    main()
