"""
What the end of one child costs while its parent still waits for others: few, or many.

White box: the function of the engine's that every commit group calls for the runs that ended in it,
on a journal's own tables. Nothing is counted there, so the figures should be alike.
"""

import sqlite3
from pathlib import Path
from statistics import median
from typing import Any

from measuring import clock

from durable._shell.rows.rows import Effects
from durable._shell.storage import schema
from durable._shell.storage.bulk import write_many
from durable._shell.writes.run_writes import INSERT_WAITS
from durable._shell.writes.waiters import AwaitedEnd, tell_waiters


def waking(folder: Path, params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Microseconds for each of *ends* ends, with *few* and with *many* members; and for the last one of all.
    """
    found: dict[str, float] = {}
    for name in ("few", "many"):
        each, last = _ends(folder / f"{name}.db", params[name])
        found |= {f"{name}_us": each * 1e6, f"{name}_last_us": last * 1e6}
    return {
        **found,
        "growth": found["many_us"] / found["few_us"],
        "last_growth": found["many_last_us"] / found["few_last_us"],
    }


def _ends(path: Path, members: int) -> tuple[float, float]:
    conn = sqlite3.connect(path, isolation_level=None)
    schema.prepare(conn, 0.0)
    times: list[float] = []
    lasts: list[float] = []
    # Done over and over, so that the last ends are a median too.
    for parent in range(1, max(6, 2_000 // members)):
        first = parent * 1_000_000
        conn.execute("BEGIN IMMEDIATE")
        rows = [(parent, "0", f"0.{n}", "child", "all", None, first + n, None, 0.0) for n in range(members)]
        write_many(conn, INSERT_WAITS, rows)
        for number in range(members):
            end = AwaitedEnd(first + number, f"r/{number}", "succeeded", "1", "", 0.0)
            began = clock()
            tell_waiters(conn, [end], Effects())
            (lasts if number == members - 1 else times).append(clock() - began)
        conn.execute("COMMIT")
    conn.close()
    return median(times), median(lasts)
