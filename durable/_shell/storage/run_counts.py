"""
How many runs have ended, by workflow and status: kept as they end, so that nobody counts a million rows.

Whoever lets a run end, be retried, arrive ended or be deleted says so here, in the same transaction. Open runs are
counted when somebody asks: they have an index. Where somebody else has written to `durable_runs` the counts are wrong,
which decides nothing: `doctor` compares, and the next engine that opens the file counts anew once the row `counted` of
`durable_meta` is gone. Light: the command line reads with it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Final

from durable._shell.storage.run_labels import label_anew

#: The row of `durable_meta` that says that runs were counted.
COUNTED: Final = "counted"

_ADD: Final = """
INSERT INTO durable_ended VALUES (?, ?, ?) ON CONFLICT (workflow, status) DO UPDATE SET runs = runs + excluded.runs
"""
# By a plus sign SQLite is kept from the index of workflows, in which all runs are.
_OPEN: Final = "SELECT workflow, status, count(*) FROM durable_runs WHERE ended_at IS NULL GROUP BY +workflow, status"
_ALL: Final = "SELECT workflow, status, count(*) FROM durable_runs GROUP BY workflow, status"
_ENDED: Final = (
    "SELECT workflow, status, count(*) FROM durable_runs WHERE ended_at IS NOT NULL GROUP BY workflow, status"
)


def count_ended(conn: sqlite3.Connection, ended: Iterable[tuple[str, str]], by: int = 1) -> None:
    """Note that a run of this workflow has ended so, for each of *ended*; or, by -1, that it is no longer there so."""
    found = Counter(ended)
    conn.executemany(_ADD, [(*which, by * runs) for which, runs in found.items()])


def count_anew(conn: sqlite3.Connection) -> None:
    """Count all rows of runs, and note their labels, whatever was before."""
    label_anew(conn)
    conn.execute("DELETE FROM durable_ended")
    conn.execute("INSERT INTO durable_ended " + _ENDED)
    conn.execute("INSERT OR REPLACE INTO durable_meta VALUES (?, 1)", (COUNTED,))


def count_missing(conn: sqlite3.Connection) -> None:
    """Count anew if somebody asks for it."""
    if conn.execute("SELECT 1 FROM durable_meta WHERE name = ?", (COUNTED,)).fetchone() is None:
        count_anew(conn)


def run_counts(conn: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """Workflow or job, status, how many runs; of those that there are."""
    ended = conn.execute("SELECT workflow, status, runs FROM durable_ended WHERE runs > 0").fetchall()
    return ended + conn.execute(_OPEN).fetchall()


def are_right(conn: sqlite3.Connection) -> bool:
    """Whether a count of all rows of runs comes to the same."""
    return sorted(run_counts(conn)) == sorted(conn.execute(_ALL).fetchall())
