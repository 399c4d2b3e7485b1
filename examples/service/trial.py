"""
Real workers under load: the one that executes is killed, all are reloaded, and a second server replaces the first.

It prints how many requests were answered, how many orders were started, ended, lost and doubled, and the longest time
in which none ended. It fails if any was lost or doubled.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from attrs import Factory, define

from durable import Client

HERE = Path(__file__).parent
#: Seconds for a server to come up, and for a request to be answered, by whichever worker.
PATIENCE = 30.0
CUSTOMERS = 6


# --- a server --------------------------------------------------------------------------------------


def listening() -> socket.socket:
    """A socket on a free port; servers inherit it, so that none finds it taken."""
    bound = socket.create_server(("127.0.0.1", 0))
    bound.set_inheritable(True)
    return bound


@define
class Server:
    """A server with several workers, in a session of its own."""

    kind: str
    workers: int
    journal: Path
    listener: socket.socket = Factory(listening)
    process: subprocess.Popen[bytes] = None  # type: ignore[assignment]  # set by `start`

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def start(self) -> None:
        python = [sys.executable, "-m"]
        descriptor = str(self.listener.fileno())
        commands = {
            "uvicorn": [*python, "uvicorn", "--fd", descriptor, "--workers", f"{self.workers}", "--log-level", "error"],
            "gunicorn": [*python, "gunicorn", "--bind", f"fd://{descriptor}", "-w", f"{self.workers}", "-k", "asgi",
                         "--preload", "--log-level", "error"],
        }  # fmt: skip
        where = os.pathsep.join(filter(None, [str(HERE), *sys.path]))
        self.process = subprocess.Popen(
            [*commands[self.kind], "orders:app"],
            env={**os.environ, "PYTHONPATH": where, "JOURNAL": str(self.journal)},
            pass_fds=[self.listener.fileno()],
            start_new_session=True,
        )

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.listener.close()


# --- its customers -----------------------------------------------------------------------------------


@define
class Load:
    """Customers who order one thing after the other, and ask again under the same key when a worker dies on them."""

    port: int
    answered: int = 0
    again: int = 0
    longest_answer: float = 0.0
    placed: dict[int, str] = Factory(dict)
    stopped: bool = False

    async def ask(self, method: str, path: str, key: str = "") -> dict[str, Any]:
        """The answer to a request, of whichever worker gives one."""
        began = time.monotonic()
        while True:
            try:
                status, answer = await asyncio.wait_for(request(self.port, method, path, key), PATIENCE)
            except (OSError, asyncio.IncompleteReadError, ValueError):  # the worker was killed while it had it
                status, answer = 0, {}
            if status in {200, 202}:
                self.answered += 1
                self.longest_answer = max(self.longest_answer, time.monotonic() - began)
                return answer
            assert status in {0, 503}, (status, answer)
            assert time.monotonic() < began + PATIENCE, f"{method} {path} is not answered"
            self.again += 1
            await asyncio.sleep(0.05)

    async def order(self, customer: int) -> None:
        number = customer
        while not self.stopped:
            placed = await self.ask("POST", f"/orders/{number}", key=f"order-{number}")
            self.placed[number] = placed["id"]
            await self.ask("GET", f"/orders/{placed['id']}")
            number += CUSTOMERS

    async def executing(self, *, other_than: int = 0) -> int:
        """The pid of the worker that executes."""
        while True:
            found = await self.ask("GET", "/health")
            if found["executes"] and found["pid"] != other_than:
                return int(found["pid"])
            await asyncio.sleep(0.02)


async def request(port: int, method: str, path: str, key: str) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n"
        writer.write(f"{head}Idempotency-Key: {key}\r\n\r\n".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = await reader.read()
        return int(answer.split()[1]), json.loads(body)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def ordering(port: int) -> AsyncIterator[Load]:
    """Customers for as long as the block takes; each gets what he has ordered by then."""
    load = Load(port)
    async with asyncio.TaskGroup() as customers:
        for customer in range(CUSTOMERS):
            customers.create_task(load.order(customer))
        yield load
        load.stopped = True


# --- the trial ---------------------------------------------------------------------------------------


async def try_out(kind: str, workers: int, seconds: float, folder: Path) -> bool:
    """Whether nothing was lost or doubled, with *seconds* of load around each event."""
    journal = folder / "orders.db"
    first, second = Server(kind, workers, journal), Server(kind, workers, journal)
    try:
        first.start()
        load = Load(first.port)
        await load.ask("GET", "/health")
        async with ordering(first.port) as load:
            await asyncio.sleep(seconds)
            killed = await load.executing()
            os.kill(killed, signal.SIGKILL)
            began = time.monotonic()
            await load.executing(other_than=killed)
            taken_over = time.monotonic() - began
            await asyncio.sleep(seconds)
            first.tell(signal.SIGHUP)  # new workers, one after the other, in place of the old
            await asyncio.sleep(2 * seconds)
            second.start()  # the new release, on the same volume: ready before the first is told to end
            await Load(second.port).ask("GET", "/health")
            load.port = second.port
            first.tell(signal.SIGTERM)
            await first.ended()
            await asyncio.sleep(seconds)
        print(f"{kind}, {workers} workers: one killed while it executed, all reloaded, the server replaced")
        print(f"requests answered {load.answered} (asked again {load.again}), longest {load.longest_answer:.2f} s")
        return await counted(journal, load, taken_over)
    finally:
        for server in (first, second):
            if server.process is not None:
                server.kill()


async def counted(journal: Path, load: Load, taken_over: float) -> bool:
    """What the journal and the application's own table say of the orders that were placed."""
    async with Client(journal) as client:
        runs = [info async for info in client.runs(workflow="order")]
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        booked = [number for (number,) in connection.execute("SELECT number FROM bookings")]
    ends = sorted(info.ended_at for info in runs if info.ended_at is not None and info.status == "succeeded")
    gap = max(later - earlier for earlier, later in itertools.pairwise(ends))
    lost = len(set(load.placed) - set(booked))
    doubled = len(booked) - len(set(booked)) + len(runs) - len(load.placed)
    print(f"runs started {len(load.placed)}, ended {len(ends)}, lost {lost}, doubled {doubled}")
    print(f"taken over after {taken_over:.2f} s, longest gap {gap:.2f} s")
    return lost == doubled == 0 and len(ends) == len(load.placed)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["uvicorn", "gunicorn"], default="uvicorn")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load before and after each event")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(try_out(given.server, given.workers, given.seconds, Path(folder))) else 1
