"""
Extract, transform, load: a pipeline whose later tasks depend on all of its mapped jobs.

It reads four sources, each a file of its own kind, by jobs of which four run at once. Transforming
depends on all of them; while it waits for them, the pipeline is rows in a file and keeps no worker busy, so
any number of pipelines can wait on a single slot. There is nothing to tune: no polling, no rescheduling.
"""

import asyncio
import csv
import json
import logging
import random
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import structlog
from attrs import frozen

from durable import Engine, Flow, Retry, Return, Transaction, for_each, job, step, transaction, workflow


@frozen
class Source:
    folder: str
    file: str


@frozen
class Extract:
    source: str
    count: int
    rows: str  # a file: large things stay beside the journal


@frozen
class Sale:
    user: str
    product: str
    cents: int


SOURCES = ("users.csv", "orders.json", "products.csv", "inventory.json")


@job(queue="extract", retry=Retry(attempts=3, on=OSError, delay=0.1))
def extract(source: Source) -> Extract:
    path = Path(source.folder, source.file)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file)) if path.suffix == ".csv" else json.load(file)
    extracted = path.with_suffix(".extracted")
    extracted.write_text(json.dumps(rows))
    return Extract(path.stem, len(rows), str(extracted))


@step
def transform(extracts: list[Extract]) -> list[Sale]:
    tables = {found.source: json.loads(Path(found.rows).read_text()) for found in extracts}
    users = {row["id"]: row["name"] for row in tables["users"]}
    products = {row["id"]: (row["name"], int(row["cents"])) for row in tables["products"]}
    in_stock = {row["product"] for row in tables["inventory"] if row["count"]}
    return [
        Sale(users[str(order["user"])], *products[str(order["product"])])
        for order in tables["orders"]
        if order["product"] in in_stock
    ]


@transaction  # the warehouse is in the journal's file, so this happens exactly once
def load(tx: Transaction, date: str, sales: list[Sale]) -> int:
    rows = [(date, sale.user, sale.product, sale.cents) for sale in sales]
    return tx.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", rows).rowcount


@workflow
async def data_pipeline(folder: str, date: str) -> Flow[int]:
    sources = [Source(folder, file) for file in SOURCES]
    extracts: list[Extract] = yield for_each(extract, sources, concurrency=4)  # freed until all four have ended
    sales: list[Sale] = yield transform(extracts)
    loaded: int = yield load(date, sales)
    yield Return(loaded)


# --- sources to read ------------------------------------------------------------------------------


def make_sources(folder: Path) -> int:
    """Write the four files of a day; how many sales are in them."""
    folder.mkdir()
    users = [{"id": n, "name": f"user {n}"} for n in range(20)]
    products = [{"id": n, "name": f"product {n}", "cents": 100 * n} for n in range(10)]
    inventory = [{"product": n, "count": n % 4} for n in range(10)]
    orders = [{"user": random.randrange(20), "product": random.randrange(10)} for _ in range(500)]
    for name, rows in {"users": users, "products": products}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (folder / "orders.json").write_text(json.dumps(orders))
    (folder / "inventory.json").write_text(json.dumps(inventory))
    return sum(order["product"] % 4 > 0 for order in orders)


async def main(folder: Path) -> None:
    path = folder / "warehouse.db"
    with closing(sqlite3.connect(path)) as app, app:
        app.execute("CREATE TABLE sales (date TEXT, user TEXT, product TEXT, cents INTEGER)")
    days = {day: make_sources(folder / day) for day in ("2026-11-01", "2026-11-02", "2026-11-03")}
    async with Engine(path, [data_pipeline, extract], concurrency=1) as engine:  # one worker, three pipelines
        runs = [await engine.start(data_pipeline(str(folder / day), day), key=day) for day in days]
        loaded = [await run.result() for run in runs]
        jobs = Counter([info.workflow async for info in engine.runs(status="succeeded")])
        print(f"{jobs['data_pipeline']} pipelines, {jobs['extract']} extracts on one worker: {loaded} sales")
        assert loaded == list(days.values())
        assert jobs == {"data_pipeline": 3, "extract": 12}


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary)))
