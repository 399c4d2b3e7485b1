"""
Kills workers and the server while rides run, then counts: ``python -m tests.temporal.soak --rides 300 --kills 30``.

Two workers execute the rides; every so often one is killed with SIGKILL and another one takes its place. The server
keeps its database on disk, is killed three times, too, and started again. In the end each ride has ended well, each
transaction has written one row, and each step has had one idempotency key, however often it was tried.
"""

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from durable import Retry, Transaction, context, gather, job, step, transaction, workflow
from durable.temporal import AppTransactions, TemporalEngine
from tests.temporal.dev_server import dev_server, free_port

STEPS = 4  # of a ride, that leave an effect: two steps and two jobs


def connect(folder: str) -> sqlite3.Connection:
    return sqlite3.connect(Path(folder, "app.db"), timeout=30)


@contextmanager
def effect(folder: str, ride: int, what: str) -> Iterator[float]:
    """Something that happens: lines for its begin and end, with the key by which the other side would know it again."""
    with Path(folder, "effects", f"{ride}").open("a") as file:
        print("begins", what, context().idempotency_key, file=file, flush=True)
        yield random.random() / 2
        print("ends", what, context().idempotency_key, file=file, flush=True)


@transaction
def book(tx: Transaction, ride: int) -> int:
    tx.execute("INSERT INTO rides (ride) VALUES (?)", (ride,))
    return ride


@job(retry=Retry(attempts=None, delay=0.1))
async def tell(folder: str, ride: int, whom: str) -> str:
    with effect(folder, ride, whom) as seconds:
        await asyncio.sleep(seconds)
    return whom


@step(retry=Retry(attempts=None, delay=0.1))
async def charge(folder: str, ride: int) -> int:
    with effect(folder, ride, "charge") as seconds:
        await asyncio.sleep(seconds)
    return ride


@step(retry=Retry(attempts=None, delay=0.1))
def receipt(folder: str, ride: int) -> None:
    with effect(folder, ride, "receipt") as seconds:
        time.sleep(seconds)


@workflow
async def ride(folder: str, number: int) -> int:
    await book(number)
    await gather(tell(folder, number, "driver"), tell(folder, number, "audit"))
    await charge(folder, number)
    await receipt(folder, number)
    return number


async def engine_of(address: str, queue: str, folder: str, poll: tuple[str, ...] | None) -> TemporalEngine:
    while True:
        try:
            client = await Client.connect(address)
            return TemporalEngine(
                client, queue, [ride, tell], transactions=AppTransactions(lambda: connect(folder)), poll=poll,
                worker_timeout=2.0, grace=0.5, searchable=False, crash_limit=30,  # they are killed from outside
            )  # fmt: skip
        except (RPCError, RuntimeError):  # the server is being started
            await asyncio.sleep(0.1)


async def work(address: str, queue: str, folder: str) -> None:
    serving = asyncio.create_task((await engine_of(address, queue, folder, None)).serve())
    Path(folder, f"ready-{os.getpid()}").touch()
    await serving


class Trial:
    """The processes of one trial."""

    def __init__(self, folder: Path, kills: int) -> None:
        self.folder, self.kills, self.killed = folder, kills, 0
        self.queue = f"soak-{uuid.uuid4().hex[:8]}"
        self.workers: list[subprocess.Popen[bytes]] = []

    def begin_worker(self, address: str) -> None:
        command = [sys.executable, "-m", "tests.temporal.soak", "--worker", address, self.queue, str(self.folder)]
        with open(self.folder / "workers.log", "ab") as log:
            self.workers.append(subprocess.Popen(command, stdout=log, stderr=log))

    async def kill_workers(self, address: str, share: int) -> None:
        """Kill and replace *share* workers, one after the other."""
        for _ in range(share):
            while not (ready := [each for each in self.workers if (self.folder / f"ready-{each.pid}").exists()]):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5 + random.random())
            victim = random.choice(ready)
            self.workers.remove(victim)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            self.killed += 1
            self.begin_worker(address)


async def start_rides(trial: Trial, address: str, rides: int) -> None:
    """Start each once, also if the server is away for a while; a few at a time, so that there is always work."""
    engine = await engine_of(address, trial.queue, str(trial.folder), ())
    for number in range(rides):
        await asyncio.sleep(2.0 * trial.kills / rides)
        while True:
            try:
                await engine.start(ride(str(trial.folder), number), key=f"{trial.queue}-{number}")
                break
            except RPCError:
                await asyncio.sleep(0.2)


async def results(trial: Trial, address: str, rides: int) -> Counter[str]:
    engine = await engine_of(address, trial.queue, str(trial.folder), ())
    found: Counter[str] = Counter()
    for number in range(rides):
        try:
            found["ended"] += await (await engine.find(f"{trial.queue}-{number}")).result(timeout=300) == number
        except Exception as error:
            found[type(error).__name__] += 1
            print(f"ride {number}: {error}")
    return found


async def soak(rides: int, kills: int, server_kills: int, folder: Path) -> bool:
    (folder / "effects").mkdir()
    with connect(str(folder)) as app:
        app.execute("PRAGMA journal_mode = wal")
        app.execute("CREATE TABLE rides (ride INTEGER)")
    trial, port = Trial(folder, kills), free_port()
    address = f"127.0.0.1:{port}"
    starting: asyncio.Task[None] | None = None
    for life in range(server_kills + 1):
        with dev_server(folder, port=port, on_disk=True) as (_, server):
            if not trial.workers:
                trial.begin_worker(address)
                trial.begin_worker(address)
                starting = asyncio.create_task(start_rides(trial, address, rides))
            await trial.kill_workers(address, kills // (server_kills + 1) + (life < kills % (server_kills + 1)))
            if life < server_kills:
                server.kill()
                server.wait()
                continue
            assert starting is not None
            await starting
            found = await results(trial, address, rides)
    for each in trial.workers:
        each.terminate()
        each.wait()
    return report(trial, found, rides, server_kills)


def report(trial: Trial, found: Counter[str], rides: int, server_kills: int) -> bool:
    """Count, print, and say whether all is as promised."""
    with connect(str(trial.folder)) as app:
        rows = Counter(number for (number,) in app.execute("SELECT ride FROM rides"))
    effects = [path.read_text().splitlines() for path in (trial.folder / "effects").iterdir()]
    lines = [line.split() for each in effects for line in each]
    begun = Counter(key for kind, _, key in lines if kind == "begins")
    ended = {key for kind, _, key in lines if kind == "ends"}
    several = len(begun) - STEPS * rides  # another key would be another effect to the other side
    lost = rides - found["ended"] + STEPS * rides - len(ended)
    doubled = sum(count - 1 for count in rows.values()) + rides - len(rows)
    tried_again = sum(begun.values()) - len(begun)
    print(
        f"{rides} rides, {trial.killed} workers and {server_kills} servers killed: lost {lost}, rows doubled or "
        f"missing {doubled}, steps with several keys {several}; steps that were cut off and tried again: {tried_again}"
    )
    return lost == doubled == several == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rides", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--server-kills", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(*given.worker))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(not asyncio.run(soak(given.rides, given.kills, given.server_kills, Path(temporary))))
