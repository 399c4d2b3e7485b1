"""
The runs that a run has started, and those that these have: a tree of bounded size.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from durable._cli.terminal.output import Output, iso, printable
from durable._shell.reads.run_rows import RunRow, children_by_status, children_of

#: Children of one run, and runs in all, that are shown unless all were asked for: a page.
_OF_ONE: Final = 20
_IN_ALL: Final = 60
#: Generations that are shown, however many there are.
_DEPTH: Final = 50
_UNBOUNDED: Final = 10_000_000


class Family(NamedTuple):
    """What one run has started: *members* with their own, and of the others how many have which status."""

    members: list[tuple[RunRow, Family]]
    more: dict[str, int]


def family_of(conn: sqlite3.Connection, run: int, *, full: bool = False) -> Family:
    """The family below run number *run*."""
    return _family(conn, run, _UNBOUNDED if full else _OF_ONE, [_UNBOUNDED if full else _IN_ALL], 0)


def _family(conn: sqlite3.Connection, run: int, most: int, left: list[int], depth: int) -> Family:
    counts = Counter(children_by_status(conn, run))
    if not counts:
        return Family([], {})
    rows = children_of(conn, run, 0 if depth == _DEPTH else min(most, left[0]))
    left[0] -= len(rows)
    more = counts - Counter(row.status for row in rows)
    return Family([(row, _family(conn, row.run, most, left, depth + 1)) for row in rows], dict(more))


def family_lines(run_id: str, family: Family, out: Output) -> Iterator[str]:
    """The tree, indented; a line that leaves runs out says how to list them."""
    for row, below in family.members:
        why = f"  {printable(row.reason.strip().partition(chr(10))[0])}" if row.reason else ""
        yield f"{printable(row.run_id)}  {printable(row.workflow)}  {out.status(row.status)}{why}"
        for line in family_lines(row.run_id, below, out):
            yield f"  {line}"
    if family.more:
        counted = ", ".join(f"{count:,} {status}" for status, count in sorted(family.more.items()))
        yield f"... and {sum(family.more.values()):,} more ({counted}): durable list --parent {printable(run_id)}"


def family_json(family: Family) -> dict[str, Any]:
    """The tree for programs."""
    members = [
        {
            "run_id": row.run_id,
            "workflow": row.workflow,
            "status": row.status,
            "position": row.position,
            "created_at": iso(row.created_at),
            "ended_at": iso(row.ended_at),
            "reason": row.reason,
            **family_json(below),
        }
        for row, below in family.members
    ]
    return {"children": members, "more_children": family.more}
