"""
Looking at a journal: listing a large file, replaying through the public call, going back, checking many runs.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from measuring import clock
from workloads import long_history, opened

from durable import replay
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.journal.events import RunFailed, RunStarted, RunSucceeded, StepStarted, StepSucceeded
from durable._core.recorded.check import check_run
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._shell.rows.rows import RunState
from durable._shell.storage import schema
from durable._shell.storage.run_counts import count_anew

_INSERT_RUN = (
    "INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, labels, reason, "
    "created_at, started_at, ended_at) VALUES (?, ?, ?, 1, 'workflow', ?, 'default', 0, ?, ?, ?, ?, ?)"
)
_INSERT_EVENT = (
    "INSERT INTO durable_events (run, seq, kind, position, at, body, value, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def looking(folder: Path, params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Milliseconds of whole `durable` processes on a file of *runs* runs with ten events each: medians of *repeats*.
    """
    path = folder / "large.db"
    events = _large_file(path, params["runs"])
    commands = {
        "list": ["list"],
        "list_failed": ["list", "--status", "failed", "--json"],
        "stats": ["stats"],
        "show": ["show", f"run-{params['runs']}"],
    }
    found: dict[str, Any] = {"runs": params["runs"], "events": events}
    for name, words in commands.items():
        times = []
        for _ in range(params["repeats"]):
            began = clock()
            command = [sys.executable, "-m", "durable", *words, "--db", path]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(clock() - began)
        found[f"{name}_ms"] = median(times) * 1e3
    return found


def _large_file(path: Path, runs: int) -> int:
    """
    A new file of as many runs.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        schema.prepare(conn, 0.0)
        return fill(conn, range(1, runs + 1))


def fill(conn: sqlite3.Connection, numbers: range, since: float = 1_700_000_000.0) -> int:
    """
    Put runs with these numbers into a journal, ten events each, one a second; how many events.

    Every twentieth run failed; rows as the engine writes them, checksums included.
    """
    count = 0
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("BEGIN")
    for number in numbers:
        at, failed = since + number, number % 20 == 0
        events: list[Any] = [RunStarted("ride", 1, "seed", "[[42],{}]", at)]
        for step in range(4):
            events.append(StepStarted(str(step), "charge", 1, "app/rides.py:12", "d" * 16, at))
            events.append(StepSucceeded(str(step), '"paid"', at))
        events.append(RunFailed(["3"], None, at) if failed else RunSucceeded('"paid"', at))
        status, reason = ("failed", "ValueError: no") if failed else ("succeeded", None)
        labels = json.dumps({"city": "Bern"})
        conn.execute(_INSERT_RUN, (number, f"run-{number}", "ride", status, labels, reason, at, at, at))
        conn.executemany(_INSERT_EVENT, RunState(number, f"run-{number}", "ride", "default").append(events))
        count += len(events)
    count_anew(conn)
    conn.execute("COMMIT")
    return count


async def debugging(folder: Path, params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Events a second of `durable.replay`; milliseconds of a step back at the end of a long run; seconds of a check.
    """
    async with opened(folder, "process") as engine:
        run = await engine.start(long_history(params["steps"]))
        while (await run.info()).status != "waiting":
            await asyncio.sleep(0.05)
        history = await run.history()
    began = clock()
    replayed = replay(history, long_history)
    seconds = clock() - began
    last = len(replayed.stops) - 1
    backs = []
    for _ in range(params["repeats"]):
        replayed.places(replayed.stops[last])
        began = clock()
        places = replayed.places(replayed.stops[last - 1])
        assert places[-1].frame.f_locals
        backs.append(clock() - began)
    facts = RunFacts(
        run_id="r", workflow=long_history.name, version=1, sort="workflow", status="waiting", created_at=0.0
    )
    short = RunHistory(facts, [each.event for each in history[:22]])  # ten steps, and one under way
    began = clock()
    definitions, codec = Definitions([long_history]), Codec()
    assert all(check_run(short, definitions, codec).ok for _ in range(params["checked"]))
    return {
        "events": len(history),
        "stops": last + 1,
        "replay_events_per_s": len(history) / seconds,
        "back_ms": median(backs) * 1e3,
        "checked": params["checked"],
        "check_s": clock() - began,
    }
