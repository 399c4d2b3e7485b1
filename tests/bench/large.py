"""
A large file: whether what users do takes longer with it than with a small one.

    python tests/bench/large.py [--runs 1000000] [--small 1000] [--repeats 9] [--folder KEPT]

Both files have runs of ten events each, of which every twentieth failed. Each thing is done in turns with the one and
with the other, with an open engine or as a whole process of the command line: medians in milliseconds by the wall, and
the median of the ratios of neighbours. What is done once before is not counted: it reads the pages of the file.
"""

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from looking import fill
from measuring import clock
from workloads import ok

from durable import Engine, Flow, Return, RunInfo, wait_for, workflow
from durable._shell.storage import schema
from durable._shell.storage.run_counts import count_anew

#: Runs that are written as the engine writes them; the others are their copies, by SQL.
WRITTEN = 1_000


@workflow
async def one_step() -> Flow[int]:
    """Begins, and ends."""
    yield ok()
    yield Return(1)


@workflow
async def waiting() -> Flow[int]:
    """Is freed, and woken."""
    number: int = yield wait_for("go", int)
    yield Return(number)


async def woken(engine: Engine) -> float:
    """Seconds from the signal to the result of a run that was freed."""
    run = await engine.start(waiting())
    while await run.status() != "waiting":
        await asyncio.sleep(0.002)
    began = clock()
    await run.signal("go", 1)
    await run.result()
    return clock() - began


async def started(engine: Engine) -> None:
    await engine.run(one_step())


async def started_many(engine: Engine) -> None:
    await engine.start_many([one_step() for _ in range(100)])


async def first_page(found: AsyncIterator[RunInfo]) -> None:
    async for _ in found:
        pass


async def shown(engine: Engine) -> None:
    run = engine.get("run-500")
    await run.info()
    await run.history()


#: What is done with an open engine. One that measures itself says how many seconds it took.
DONE: dict[str, Callable[[Engine], Awaitable[float | None]]] = {
    "start, to the result": started,
    "start of 100": started_many,
    "wake a run, to the result": woken,
    "info and history of a run": shown,
    "list": lambda engine: first_page(engine.runs(limit=50)),
    "list, failed": lambda engine: first_page(engine.runs(limit=50, status="failed")),
    "list, of a workflow": lambda engine: first_page(engine.runs(limit=50, workflow="ride")),
    "list, waiting: none": lambda engine: first_page(engine.runs(limit=50, status="waiting")),
    "list, of a workflow: none": lambda engine: first_page(engine.runs(limit=50, workflow="nobody")),
    "list, since an hour": lambda engine: first_page(engine.runs(limit=50, since=time.time() - 3600)),
    "list, by label": lambda engine: first_page(engine.runs(limit=50, labels={"city": "Bern"})),
    "list, by label: one": lambda engine: first_page(engine.runs(limit=50, labels={"order": "500"})),
    "stats": lambda engine: engine.stats(),
}
#: Commands of the command line, each as a whole process.
COMMANDS = {
    "durable list": ["list"],
    "durable list --status failed": ["list", "--status", "failed"],
    "durable list --status waiting": ["list", "--status", "waiting"],
    "durable list --since 1h": ["list", "--since", "1h"],
    "durable show": ["show", "run-500"],
    "durable stats": ["stats"],
}


def make(path: Path, runs: int) -> None:
    """A new file of so many runs."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        schema.prepare(conn, 0.0)
        fill(conn, range(1, min(WRITTEN, runs) + 1))
        columns = [
            name for _, name, *_ in conn.execute("PRAGMA table_info(durable_runs)") if name not in ("run", "run_id")
        ]
        others = ", ".join(columns)
        for by in range(WRITTEN, runs, WRITTEN):
            conn.execute("BEGIN")
            conn.execute(
                f"INSERT INTO durable_runs (run, run_id, {others}) SELECT run + :by, 'run-' || (run + :by), {others} "
                "FROM durable_runs WHERE run <= :written AND run + :by <= :runs",
                {"by": by, "written": WRITTEN, "runs": runs},
            )
            conn.execute(
                "INSERT INTO durable_events (run, seq, kind, position, at, body, value, checksum) "
                "SELECT run + :by, seq, kind, position, at, body, value, checksum FROM durable_events "
                "WHERE run <= :written AND run + :by <= :runs ORDER BY run, seq",
                {"by": by, "written": WRITTEN, "runs": runs},
            )
            conn.execute("COMMIT")
        conn.execute("UPDATE durable_runs SET labels = json_set(labels, '$.order', '500') WHERE run = 500")
        count_anew(conn)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def opened(path: Path) -> float:
    """Seconds until an engine is open."""
    engine = Engine(path, [one_step, waiting])
    began = clock()
    await engine.open()
    took = clock() - began
    await engine.aclose()
    return took


async def measure(small: Path, large: Path, repeats: int) -> None:
    """A line for each thing."""
    seconds = await _in_turns(opened, small, large, repeats)
    _tell("open", seconds)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine(path, [one_step, waiting])) for path in (small, large)]
        for name, do in DONE.items():
            _tell(name, await _in_turns(do, *engines, repeats))
    for name, words in COMMANDS.items():
        _tell(name, await _in_turns(lambda path, words=words: _command(words, path), small, large, repeats))


async def _in_turns(
    do: Callable[[Any], Awaitable[Any]], small: Any, large: Any, repeats: int
) -> list[tuple[float, float]]:
    pairs = [(await _seconds(do, small), await _seconds(do, large)) for _ in range(repeats + 1)]
    return pairs[1:]


async def _seconds(do: Callable[[Any], Awaitable[Any]], what: Any) -> float:
    began = clock()
    own = await do(what)
    return own if isinstance(own, float) else clock() - began


async def _command(words: list[str], path: Path) -> None:
    command = [sys.executable, "-m", "durable", *words, "--db", path]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _tell(name: str, pairs: list[tuple[float, float]]) -> None:
    small, large = (median(each) * 1e3 for each in zip(*pairs, strict=True))
    ratio = median(large / small for small, large in pairs)
    print(
        json.dumps({"done": name, "small_ms": round(small, 2), "large_ms": round(large, 2), "ratio": round(ratio, 2)})
    )
    sys.stdout.flush()


def main() -> None:
    """Make the files, unless they were kept; then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, large = (Path(args.folder or folder) / f"{runs}.db" for runs in (args.small, args.runs))
        for path, runs in ((small, args.small), (large, args.runs)):
            if not path.exists():
                make(path, runs)
        print(json.dumps({"runs": args.runs, "events": 10 * args.runs, "megabytes": large.stat().st_size // 1_000_000}))
        asyncio.run(measure(small, large, args.repeats))


if __name__ == "__main__":
    main()
