"""
Records the journal of the walk-through: orders in a process that is killed on the way, and finished by the next.

Run by `__main__`; as a script it is that process: `recording.py FILE`.
"""

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from pathlib import Path

import structlog
from shop import Order, fulfil, tell_customer

from durable import Engine, RunFailedError

ORDERS = [Order(1, []), Order(2, ["tea", "lamp", "rope", "map"])]


async def take_orders(path: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with Engine(path, [fulfil, tell_customer]) as engine:
        runs = [await engine.start(fulfil(order), id=f"order-{order.number}") for order in ORDERS]
        await asyncio.sleep(0.08)  # the second item of order 2 is being looked for
        print("taken", flush=True)
        for run in runs:
            with contextlib.suppress(RunFailedError):  # what the walk-through is about
                await run.result()


def record(path: Path) -> None:
    """Take the orders at *path* in two lives: the first one is killed, as by an out-of-memory kill."""
    for kill in (True, False):
        child = subprocess.Popen([sys.executable, __file__, path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()  # the orders are on disk
        if kill:
            child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        assert child.returncode == (-signal.SIGKILL if kill else 0)


if __name__ == "__main__":
    asyncio.run(take_orders(sys.argv[1]))
