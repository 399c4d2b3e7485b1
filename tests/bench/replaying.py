"""
How fast a recorded run is brought back: read by SQL, checked, decoded, replayed.

White box: the three parts are the engine's own functions, called as its driver calls them, so
that each can be timed. The whole is also measured from outside, by a signal that wakes the run.
"""

import asyncio
import sqlite3
from pathlib import Path
from statistics import median
from typing import Any

from measuring import clock, collect
from workloads import long_history, opened

from durable._core.codec.codec import Codec
from durable._core.run.execution import Execution
from durable._shell.reads.event_rows import load_run
from durable._shell.rows.rows import RunState, read_events


async def replay(folder: Path, params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Events a second of one long history, the median of *repeats*; and from signal to result.
    """
    steps = params["events"] // 2
    async with opened(folder, "process") as engine:  # how it was written is not the question
        run = await engine.start(long_history(steps))
        while (await run.info()).status != "waiting":
            await asyncio.sleep(0.05)
        run_id = run.id
    measured = [_once(folder / "app.db", run_id) for _ in range(params["repeats"])]
    async with opened(folder, "process") as engine:
        run = engine.get(run_id)
        began = clock()
        await run.signal("go")
        assert await run.result() == steps
        woken = clock() - began
    events = measured[0]["events"]
    whole = median(parts["sql_s"] + parts["decode_s"] + parts["replay_s"] for parts in measured)
    return {
        "events": events,
        "events_per_s": events / whole,
        "replayed_per_s": events / median(parts["replay_s"] for parts in measured),
        **{f"{part}_us_per_event": median(parts[f"{part}_s"] for parts in measured) / events * 1e6
           for part in ("sql", "decode", "replay")},
        "signal_to_result_s": woken,
    }  # fmt: skip


def _once(path: Path, run_id: str) -> dict[str, float]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        (number,) = connection.execute("SELECT run FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone()
        collect()
        began = clock()
        rows = load_run(connection, number).rows
        read = clock()
        state = RunState(number, run_id, long_history.name, "default")
        events = read_events(str(path), state, rows)
        decoded = clock()
        execution = Execution(long_history, events, run_id=run_id, codec=Codec())
        execution.load()
        replayed = clock()
        execution.close()
    finally:
        connection.close()
    return {"events": len(events), "sql_s": read - began, "decode_s": decoded - read, "replay_s": replayed - decoded}
