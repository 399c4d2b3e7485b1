"""
Which runs have a label, in the order of their numbers: so that a rare one among a million runs is found.

What `durable_runs` says counts; this is looked up by it. Whoever creates or deletes runs says so here, in the same
transaction. Where somebody else has written to `durable_runs`, `doctor` says so, as of the counts: see `run_counts`.
Light: the command line reads with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from durable._shell.storage.bulk import about_many

#: A label with more runs is no rare one.
_RARE: Final = 2_000
_OF_RUNS: Final = """
FROM durable_runs AS r, json_each(CASE WHEN json_valid(r.labels) THEN r.labels END) AS each WHERE each.type = 'text'
"""
_NOTE: Final = "INSERT INTO durable_labels SELECT each.key, each.value, r.run " + _OF_RUNS + " AND r.run IN ({items})"
_ALL: Final = "SELECT each.key, each.value, r.run " + _OF_RUNS
_NOTED: Final = "SELECT name, value, run FROM durable_labels"
_FORGET: Final = "DELETE FROM durable_labels WHERE (name, value, run) IN (" + _ALL + " AND r.run IN ({items}))"  # noqa: S608


def note_labels(conn: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Runs of these numbers were created, with labels."""
    about_many(conn, _NOTE, runs)


def forget_labels(conn: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Runs of these numbers are about to be deleted."""
    about_many(conn, _FORGET, runs)


def label_anew(conn: sqlite3.Connection) -> None:
    """Note the labels of all runs, whatever was noted before."""
    conn.execute("DELETE FROM durable_labels")
    conn.execute("INSERT INTO durable_labels " + _ALL)


def are_right(conn: sqlite3.Connection) -> bool:
    """Whether the labels of all runs are those that were noted."""
    return not any(
        conn.execute(f"SELECT 1 FROM ({one} EXCEPT {other}) LIMIT 1").fetchone()  # noqa: S608 - constants
        for one, other in ((_NOTED, _ALL), (_ALL, _NOTED))
    )


def rarest(conn: sqlite3.Connection, labels: Mapping[str, str]) -> tuple[tuple[str, str], bool]:
    """The one of *labels* that the fewest runs have, as far as that is counted; and whether those are few."""
    found = {label: _count(conn, label) for label in labels.items()}
    label = min(found, key=found.__getitem__)
    return label, found[label] <= _RARE


def _count(conn: sqlite3.Connection, label: tuple[str, str]) -> int:
    """How many runs have *label*; or a few more than are rare."""
    sql = "SELECT count(*) FROM (SELECT 1 FROM durable_labels WHERE name = ? AND value = ? LIMIT ?)"
    (count,) = conn.execute(sql, (*label, _RARE + 1)).fetchone()
    return int(count)
