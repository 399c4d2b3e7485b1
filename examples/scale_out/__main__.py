"""
From one file to a fleet: ``python examples/scale_out --temporal localhost:7233``.

An order waits for its payment in a file, and moves to a Temporal server. There a process works on the queue `default`
and another one on the queue `mail`. While sixty mails are being sent, the second is killed with SIGKILL, and a third is
started in its place. Nothing is lost, and what had ended is not done again; a mail that was being sent may go twice.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from durable import Engine

sys.path.insert(0, str(Path(__file__).parent))
from fleet import DEFINITIONS, Parcel, open_engine, ship

ORDERS = 30


def worker(address: str, task_queue: str, queue: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("fleet.py")), address, task_queue, queue])


async def export_waiting(folder: Path, world: str) -> Path:
    """An order that waits in a file, written down to be taken elsewhere."""
    async with Engine(folder / "orders.db", DEFINITIONS) as engine:
        run = await engine.start(ship(world, 0, when_paid=True))
        await engine.idle()
        await run.pause()  # from here on, it continues where it is imported
        await engine.export(run.id, folder / "moving.jsonl")
        print(f"order 0: {await run.why()}; exported")
    return folder / "moving.jsonl"


async def main(address: str, folder: Path) -> None:
    task_queue = f"orders-{uuid.uuid4().hex[:8]}"
    world = folder / "world"
    world.mkdir()
    moving = await export_waiting(folder, str(world))
    first, second = worker(address, task_queue, "default"), worker(address, task_queue, "mail")
    workers = [first, second]
    try:
        async with await open_engine(address, task_queue, ()) as engine:
            moved = engine.get((await engine.import_runs(moving)).runs[0])
            await moved.resume()
            print(f"order 0: moved to {address}")
            orders = [await engine.start(ship(str(world), order)) for order in range(1, ORDERS + 1)]
            while len(list(world.iterdir())) < ORDERS:  # noqa: ASYNC110 - about half of what other processes do
                await asyncio.sleep(0.05)
            os.kill(second.pid, signal.SIGKILL)
            print("the process that sends mails was killed; another one takes its place")
            workers.append(worker(address, task_queue, "mail"))
            await moved.signal("paid", "card-1")
            parcels: list[Parcel] = [await run.result(timeout=120) for run in [*orders, moved]]
    finally:
        for each in workers:
            each.terminate()
            each.wait()
    done = [path.read_text().splitlines() for path in world.iterdir()]
    wanted = 3 * (ORDERS + 1)
    again = sum(len(lines) - 1 for lines in done)
    print(f"orders shipped: {len(parcels)} of {ORDERS + 1}; labels and mails: {len(done)} of {wanted}; twice: {again}")
    assert len(parcels) == ORDERS + 1
    assert len(done) == wanted


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--temporal", required=True, metavar="ADDRESS")
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(parser.parse_args().temporal, Path(temporary)))
