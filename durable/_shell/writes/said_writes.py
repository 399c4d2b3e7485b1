"""
Writes what running code says of itself, before the turns of its group: an outcome never overtakes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from durable._core.program.progress import Progress
from durable._shell.rows.rows import Effects
from durable._shell.rows.said import AttributesPublished, Emitted, ProgressMade, Said
from durable.errors import DurableError

_EMIT = "INSERT INTO durable_stream_items (run, stream, position, attempt, value, at) VALUES (?, ?, ?, ?, ?, ?)"
_PROGRESS = "UPDATE durable_runs SET progress = ? WHERE run = ?"
_NEWS = "UPDATE durable_runs SET said = said + 1 WHERE run = ?"


def write_said(conn: sqlite3.Connection, said: Iterable[Said], effects: Effects) -> None:
    """Write *said*, in its order. Attributes that cannot be merged are left out: nobody else is to suffer by them."""
    items: list[Emitted] = []
    progress: dict[int, Progress] = {}
    runs: set[int] = set()
    for each in said:
        runs.add(each.run)
        effects.said.append(each)
        match each:
            case Emitted():
                items.append(each)
            case ProgressMade():
                progress[each.run] = each.progress
            case AttributesPublished():
                _publish(conn, each, effects)
    conn.executemany(_EMIT, items)
    conn.executemany(_PROGRESS, [(made.to_json(), run) for run, made in progress.items()])
    conn.executemany(_NEWS, [(run,) for run in runs])
    effects.changed |= runs


def _publish(conn: sqlite3.Connection, published: AttributesPublished, effects: Effects) -> None:
    row = conn.execute("SELECT run_id, attributes FROM durable_runs WHERE run = ?", (published.run,)).fetchone()
    if row is None:
        return
    try:
        merged = published.merge(row[1])
    except DurableError as error:
        effects.unpublished.append((row[0], str(error)))
    else:
        conn.execute("UPDATE durable_runs SET attributes = ? WHERE run = ?", (merged, published.run))
