"""
Transactions in PostgreSQL, as `test_transactions` has them in SQLite: skipped where it is not installed.
"""

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
import time

import pytest

from durable import Flow, Return, gather, job, transaction, workflow
from durable.temporal import AppTransactions
from tests.temporal.dev_server import free_port

psycopg = pytest.importorskip("psycopg")
PROGRAMS = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), None)

told: list[int] = []


@transaction
def create_ride(tx, rider: str) -> int:
    row = tx.execute("INSERT INTO rides (rider) VALUES (%s) RETURNING id", (rider,)).fetchone()
    tx.enqueue(notify(row[0]))
    return row[0]


@job
async def notify(ride: int) -> None:
    told.append(ride)


@workflow
async def rides() -> Flow[list[int]]:
    numbers: list[int] = yield gather(*(create_ride(name) for name in ("Ann", "Bob", "Cid")))
    yield Return(sorted(numbers))


@pytest.fixture
def database():
    """
    A cluster of its own, in a folder in memory or on disk, as a user who is not root.
    """
    if PROGRAMS is None or (os.geteuid() == 0 and shutil.which("setpriv") is None):
        pytest.skip("PostgreSQL is not installed")
    folder = tempfile.mkdtemp(prefix="durable-pg-", dir="/tmp")
    port = free_port()
    as_nobody = []
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "nobody")
        os.chmod(folder, 0o700)
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(
        [*as_nobody, f"{PROGRAMS}/initdb", "-D", folder, "-A", "trust", "-U", "durable", "--no-sync"],
        check=True,
        **quiet,
    )
    options = ["-D", folder, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    process = subprocess.Popen([*as_nobody, f"{PROGRAMS}/postgres", *options], **quiet)

    def connect():
        return psycopg.connect(host="127.0.0.1", port=port, user="durable", dbname="postgres")

    try:
        until = time.monotonic() + 30
        while True:
            try:
                with contextlib.closing(connect()) as conn:
                    conn.execute("CREATE TABLE rides (id SERIAL PRIMARY KEY, rider TEXT)")
                    conn.commit()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, "PostgreSQL has ended"
                assert time.monotonic() < until, "PostgreSQL does not answer"
                time.sleep(0.05)
        yield connect
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


async def test_rows_outcome_and_staged_runs_commit_together_in_postgresql(engines, database):
    """
    Three transactions at once; each is there once, and so is what it has staged.
    """
    told.clear()
    transactions = AppTransactions(database)
    engine = await engines(rides, notify, transactions=transactions)
    run = await engine.start(rides())
    assert await run.result() == [1, 2, 3]
    for position in ("0.0", "0.1", "0.2"):
        await engine.get(f"{run.id}:{position}.tx0").result()
    assert sorted(told) == [1, 2, 3]
    commits, codec = engine._commits, engine._codec
    assert await transactions.transact(create_ride("Dee"), f"{run.id}:0.0", codec, commits.staging) in ("1", "2", "3")
    with contextlib.closing(database()) as conn:
        assert conn.execute("SELECT count(*) FROM rides").fetchone() == (3,)
        assert conn.execute("SELECT count(*) FROM durable_outbox").fetchone() == (0,)
