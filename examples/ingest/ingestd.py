"""
A daemon that takes in the files of a folder: each is parsed in a process pool, stored in a table, and moved to `done`.

    ingestd serve FOLDER            take in what is there and what comes, until SIGTERM
    ingestd durable COMMAND ...     look at it: `durable watch ID` has a bar, `durable list`, `durable ui`

Run it by `python examples/ingest/ingestd.py`, or as one file that needs no Python where it runs:

    pyinstaller --onefile --name ingestd examples/ingest/ingestd.py

Killed at any moment and started again, it has each file in its table, once: a row and the journal are one commit.
What is no file of measurements goes to `bad`.
"""

import asyncio
import os
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from readings import Summary, parse

from durable import (
    Engine,
    Transaction,
    command_line,
    continue_as,
    for_each,
    poll_until,
    progress,
    step,
    transaction,
    workflow,
)  # fmt: skip

SCHEMA = "CREATE TABLE files (name TEXT PRIMARY KEY, lines INTEGER, mean REAL)"
#: Files of one run: its history is read again whenever it resumes, and a person looks at its bar.
MOST = 1_000


@step
def arrivals(folder: str) -> list[str]:
    """The oldest files of the folder; who writes one there writes it elsewhere first, and moves it in."""
    found = [each for each in os.scandir(folder) if each.is_file() and not each.name.startswith("ingest.db")]
    return [each.path for each in sorted(found, key=lambda each: (each.stat().st_mtime, each.name))[:MOST]]


@transaction
def store(tx: Transaction, found: Summary) -> None:
    tx.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (found.name, found.lines, found.mean))


@step
def move(path: str, where: str) -> None:
    target = Path(path).parent / where
    target.mkdir(exist_ok=True)
    if os.path.exists(path):  # else an attempt that was killed has moved it
        os.replace(path, target / Path(path).name)


@workflow
async def ingest(paths: list[str]) -> int:
    done = 0

    async def one(path: str) -> None:
        nonlocal done
        try:
            await store(await parse(path))
        except (OSError, ValueError):
            await move(path, "bad")
        else:
            await move(path, "done")
        done += 1
        progress(done, len(paths), Path(path).name)

    await for_each(one, paths, concurrency=50)
    return done


@workflow
async def watch_folder(folder: str) -> None:
    """Waits for files and lets a run take them in, for ever; between two looks nothing of it is in memory."""
    with suppress(TimeoutError):  # nothing came: the next run begins with an empty history
        await ingest(await poll_until(arrivals(folder), every=1.0, timeout=600.0))
    await continue_as(watch_folder(folder))


async def serve(folder: str) -> None:
    journal = Path(folder, "ingest.db")
    async with Engine(journal, [watch_folder, ingest], schema=SCHEMA, keep_finished=timedelta(days=7)) as engine:
        await engine.start(watch_folder(folder), key=f"watch {folder}", on_conflict="rerun-failed")
        print(f"taking in {folder} as process {os.getpid()}", flush=True)
        await engine.serve()


def main(argv: list[str]) -> int:
    if argv[:1] == ["durable"]:
        os.environ.setdefault("DURABLE_APP", "ingestd")
        return command_line(argv[1:])
    if len(argv) != 2 or argv[0] != "serve":
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    asyncio.run(serve(os.path.abspath(argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
