"""
The walk-through: from `durable list --status failed` to the guilty line, on a journal of a process that was killed.

`python examples/debugging` records such a journal and prints the session on it; `walkthrough.md` explains it.
"""

import asyncio
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import mended
import structlog
from recording import record

from durable import Engine

HERE = Path(__file__).parent
SESSION = [
    "last",
    "back",
    "print baskets",
    "find 'tea' in baskets['station']",
    "print baskets['harbour'] is baskets['station']",
    "list",
]


def durable(*arguments: object) -> str:
    """What the command line says."""
    command = [sys.executable, "-m", "durable", *map(str, arguments)]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    print(f"$ durable {arguments[0]} ...\n{said}")
    return said


async def retried(db: Path) -> list[str]:
    """The failed run continues with the mended code: nothing that had succeeded is repeated."""
    async with Engine(db, [mended]) as engine:
        run = engine.get("order-2")
        await run.retry()
        parcels: list[str] = await run.result()
        return parcels


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder, "shop.db")
        record(db)
        assert "harbour has no lamp" in durable("list", "--status", "failed", "--db", db)
        commands = [word for command in SESSION for word in ("-c", command)]
        session = durable("debug", "order-2", "--db", db, "--app", HERE / "shop.py", *commands)
        assert "baskets = {'harbour': ['tea'], 'station': ['tea']}" in session  # one item, and it is in both
        assert "dict.fromkeys(STORES, [])" in session
        assert "order-2  fulfil  same" in durable("replay", "order-2", "--db", db, "--app", HERE / "mended.py")
        print("retried with the mended code:", asyncio.run(retried(db)))


if __name__ == "__main__":
    main()
