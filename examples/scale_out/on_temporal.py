"""
The examples on a Temporal server: ``python examples/scale_out/on_temporal.py ride trip --temporal ADDRESS``.

Not a line of them changes. Each makes its engine by ``Engine(path, definitions)``, and here that name stands for
another engine, as an application would choose by its settings. What ``@transaction`` writes goes to the example's own
database. A server remembers the keys of its runs, so each example runs once on it: `temporal server start-dev` makes a
fresh one.
"""

import argparse
import asyncio
import importlib
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from temporalio.client import Client

from durable import RunInfo
from durable.temporal import AppTransactions, TemporalEngine

EXAMPLES = ("ride", "approval", "etl", "welcome", "product_images", "trip")
#: What is known of an engine of a file alone: how many runs are in memory, for one.
OF_A_FILE = ("concurrency",)


class PatientEngine(TemporalEngine):
    """Lists runs a moment later than it is asked to: what a server lists is behind, and an example looks at once."""

    async def runs(self, **filters: Any) -> AsyncIterator[RunInfo]:
        await asyncio.sleep(1)
        async for info in super().runs(**filters):
            yield info


async def main(name: str, address: str, folder: Path) -> None:
    client = await Client.connect(address)

    def engine(path: Path, definitions: Iterable[Any], **options: Any) -> PatientEngine:
        transactions = AppTransactions(lambda: sqlite3.connect(path))
        queue = f"{name}-{uuid.uuid4().hex[:8]}"  # several programs share a server
        kept = {key: value for key, value in options.items() if key not in OF_A_FILE}
        return PatientEngine(client, queue, definitions, transactions=transactions, searchable=False, **kept)

    sys.path.insert(0, str(Path(__file__).parents[1]))
    example = importlib.import_module(name)
    example.Engine = engine  # type: ignore[attr-defined]  # the one line of an application that changes
    await example.main(folder if name in ("etl", "product_images") else folder / "app.db")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=EXAMPLES, choices=EXAMPLES)
    parser.add_argument("--temporal", required=True, metavar="ADDRESS")
    given = parser.parse_args()
    for each in given.examples:
        print(f"=== {each}")
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(each, given.temporal, Path(temporary)))
