"""
A bulk import that is killed on the way: checkpoints inside a long job, and a job that follows it.

Some thousand rows of a CSV file go into a table of the application's, in a database of its own. The
import keeps a cursor: after a crash it continues behind the last chunk it recorded. The two databases
cannot commit together, so a chunk may be written again, and each row says how often it was; a crash
costs one chunk at most. What must run exactly once, the report, follows the import's success.

    python examples/bulk_import.py               kill the import twice with SIGKILL, and prove the result
    python examples/bulk_import.py --run FOLDER  only run it: kill it and start it again yourself
"""

import asyncio
import csv
import json
import logging
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from durable import Engine, Finished, Flow, Return, RunOp, context, cursor, job, set_attributes, step, workflow

ROWS = 8_000
CHUNK = 50
KILLS = 2


@step
def prepare(file: str, database: str) -> int:
    with closing(sqlite3.connect(database)) as app:
        app.execute("CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name, cents, written)")
        app.execute("CREATE TABLE IF NOT EXISTS metrics (event PRIMARY KEY, rows)")
    with Path(file).open(newline="") as lines:
        return sum(1 for _ in csv.reader(lines)) - 1  # the first has the titles


def store(database: str, rows: list[list[str]]) -> None:
    with closing(sqlite3.connect(database)) as app, app:  # one commit a chunk
        app.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET written = written + 1",
            [(int(number), name, round(float(amount) * 100)) for number, name, amount in rows],
        )


@job(queue="imports")
async def import_customers(file: str, database: str) -> int:
    done = cursor(0)  # rows, the first time; afterwards what was recorded last
    with Path(file).open(newline="") as lines:  # noqa: ASYNC230 - a file of the machine's own: it does not wait
        rows = islice(csv.reader(lines), 1 + done.value, None)
        while chunk := list(islice(rows, CHUNK)):
            await asyncio.to_thread(store, database, chunk)
            await done.advance(done.value + len(chunk))  # on disk when this returns
    return done.value


@workflow
async def bulk_import(file: str, database: str) -> Flow[int]:
    set_attributes(stage="preparing")
    total: int = yield prepare(file, database)
    set_attributes(stage="importing", total=total)
    imported: int = yield import_customers(file, database)
    set_attributes(stage="imported")
    yield Return(imported)


@job
def track_metrics(database: str, rows: int) -> None:
    with closing(sqlite3.connect(database)) as app, app:  # its key is the same if it should be run again
        app.execute("INSERT OR IGNORE INTO metrics VALUES (?, ?)", (context().idempotency_key, rows))


@bulk_import.on_success
def after_import(finished: Finished[int]) -> RunOp[None]:
    return track_metrics(finished.arguments["database"], finished.value or 0)


async def run(folder: Path) -> None:
    """Start the import, or continue with it: that is the same call."""
    async with Engine(folder / "journal.db", [bulk_import, import_customers, track_metrics]) as engine:
        imported = await engine.start(
            bulk_import(str(folder / "customers.csv"), str(folder / "app.db")), key="customers.csv"
        )
        await imported.result()
        async for follower in engine.runs(workflow=track_metrics):
            await engine.get(follower.run_id).result()


# --- kill it, and look ----------------------------------------------------------------------------


def query(database: Path, sql: str) -> list[Any]:
    """Rows, read as anybody may; none while the file or table is not there."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []


def run_and_kill(folder: Path, after: int | None) -> int:
    """The exit code of a process that imports; it is killed when so many rows are there."""
    child = subprocess.Popen([sys.executable, __file__, "--run", str(folder)])
    try:
        while child.poll() is None:
            time.sleep(0.01)
            (count,) = next(iter(query(folder / "app.db", "SELECT count(*) FROM customers")), (0,))
            if after is not None and count >= after:
                child.kill()  # SIGKILL: it cannot tidy up, nor even notice
                ((attributes,),) = query(folder / "journal.db", "SELECT attributes FROM runs WHERE sort = 'workflow'")
                print(f"killed at {count} rows; its attributes: {json.loads(attributes)}")
                after = None
    finally:
        child.kill()  # harmless if it has ended
    return child.wait()


def main(folder: Path) -> None:
    customers = [(n, random.choice(["Ada", "Bob", "Cyd"]), random.randint(0, 99_999)) for n in range(1, ROWS + 1)]
    with (folder / "customers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "name", "amount"), *((n, name, f"{cents / 100:.2f}") for n, name, cents in customers)])
    for share in sorted(random.uniform(0.1, 0.6) for _ in range(KILLS)):
        assert run_and_kill(folder, int(share * ROWS)) == -signal.SIGKILL
    assert run_and_kill(folder, None) == 0
    assert query(folder / "app.db", "SELECT id, name, cents FROM customers ORDER BY id") == customers
    ((again,),) = query(folder / "app.db", "SELECT sum(written - 1) FROM customers")
    print(f"{ROWS} rows are there, none lost and none twice; {again} were written again after {KILLS} kills")
    assert again <= KILLS * CHUNK
    assert [rows for _, rows in query(folder / "app.db", "SELECT * FROM metrics")] == [ROWS]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if sys.argv[1:2] == ["--run"]:
        asyncio.run(run(Path(sys.argv[2])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
