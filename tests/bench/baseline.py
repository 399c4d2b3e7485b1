"""
Raw `sqlite3` on the same disk: what the file costs without an engine.

One thread, one connection, no event loop, nothing read. The table is that of our events (a
rowid table with a unique (run, seq) index), the rows are what W1 records: for each step its
start and its outcome. Two figures: rows committed a hundred at a time, and one at a time.

As many rows as the workload they are held against, on new files: until its first checkpoint a
WAL grows with every commit, which costs more than writing over an old one.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from measuring import clock

GROUP = 100
#: A figure is the median of at least this many passes over fresh files ...
PASSES = 3
#: ... and of as many as fit into this time, because one pass takes a fraction of it.
SECONDS = 0.5

TABLE = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, position TEXT,
    at REAL NOT NULL, body TEXT, value ANY, payload INTEGER, checksum INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_run ON events (run, seq);
"""
INSERT = """
INSERT INTO events (run, seq, kind, position, at, body, value, payload, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def raw(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Rows a second in groups of 100, and one commit a row.

    Args:
        folder: On the disk to measure.
        params: `rows` to write in groups (as W1 writes), `single_rows` one at a time (as W2 has steps).
        durability: As of the engine: "full" or "process".
    """
    grouped = _rates(folder / "grouped", params["rows"], GROUP, durability)
    single = _rates(folder / "single", params["single_rows"], 1, durability)
    return {
        "rows": params["rows"],
        "grouped_rows_per_s": median(grouped),
        "single_rows_per_s": median(single),
        "passes": len(grouped) + len(single),
    }


def _rates(path: Path, count: int, group: int, durability: str) -> list[float]:
    rates: list[float] = []
    began = clock()
    while len(rates) < PASSES or clock() - began < SECONDS:
        rates.append(count / _write(Path(f"{path}-{len(rates)}.db"), count, group, durability))
    return rates


def _write(path: Path, count: int, group: int, durability: str) -> float:
    """
    Seconds to commit *count* rows to a new file, *group* a transaction.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.executescript(TABLE)
        rows = list(_rows(count))
        began = clock()
        for first in range(0, count, group):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows[first : first + group])
            connection.execute("COMMIT")
        return clock() - began
    finally:
        connection.close()


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    """
    *count* rows as W1's are, of runs that take turns: starts and outcomes of steps.
    """
    at = 1_700_000_000.123456
    for index in range(count):
        run, seq = index % 100 + 1, index // 100 + 1
        position = str(seq // 2 % 10)
        if seq % 2:
            yield (run, seq, 10, position, at + index, '["ok",1,"bench/workloads.py:40",""]', None, None, 3141592653)
        else:
            yield (run, seq, 11, position, at + index, None, '{"ok":true}', None, 2718281828)
