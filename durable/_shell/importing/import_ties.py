"""
What ties runs that are imported to each other, and to those that are here: parents, followers, chains.

Made again by ids, and checked: requests go along such ties without a look, and ids of children and
successors derive from their run's, so that a run which was exported too early would give them twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from durable._core import run_ids
from durable._core.journal.events import ChildStarted
from durable._core.journal.history import only
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import ENDS
from durable._shell.reads.run_rows import run_by_id
from durable.errors import RunExistsError, UsageError

_PARENT = "SELECT parent FROM durable_runs WHERE run = ?"
_FOLLOWS = "SELECT follows FROM durable_runs WHERE run = ?"
_SUCCESSOR = """
SELECT r.run FROM durable_runs AS o JOIN durable_runs AS r ON r.run_id = o.successor WHERE o.run = ?
"""
_STARTED = """
SELECT position FROM durable_events WHERE run = ? AND kind = ?
UNION SELECT position FROM durable_waits WHERE run = ? AND kind = 'child'
UNION SELECT position FROM durable_inbox WHERE run = ? AND position IS NOT NULL
"""
#: Children of a run, by their ids: "/" is the character behind ".", and "0" the one behind "/".
_DERIVED = """
SELECT run_id, position FROM durable_runs WHERE run_id > :run_id || '~.' AND run_id < :run_id || '~/'
AND instr(substr(run_id, length(:run_id) + 3), '/') = 0 AND instr(substr(run_id, length(:run_id) + 3), '~.') = 0
UNION ALL
SELECT run_id, position FROM durable_runs WHERE run_id > :run_id || '/' AND run_id < :run_id || '0'
AND instr(substr(run_id, length(:run_id) + 2), '/') = 0 AND instr(substr(run_id, length(:run_id) + 2), '~.') = 0
"""


class Ties:
    """The ties of one import, inside its transaction."""

    def __init__(self, conn: sqlite3.Connection, numbers: dict[str, int]) -> None:
        self._conn = conn
        #: Numbers of the runs that are imported, by id; and of those that were looked up, too.
        self._imported = numbers
        self._numbers: dict[str, int | None] = dict(numbers)

    def number_of(self, imported: RunHistory) -> int:
        """The number of a run that is imported."""
        return self._imported[imported.run.run_id]

    def number(self, run_id: str | None) -> int | None:
        """The number of a run; None if it is not here."""
        if run_id is None:
            return None
        if run_id not in self._numbers:
            row = self._conn.execute("SELECT run FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone()
            self._numbers[run_id] = None if row is None else row[0]
        return self._numbers[run_id]

    def tie(self, each: RunHistory) -> None:
        """Link a run to those that started it, and to those here that it has started."""
        conn, run, number = self._conn, each.run, self.number_of(each)
        conn.execute(
            "UPDATE durable_runs SET parent = ?, follows = ? WHERE run = ?",
            (self.number(run.parent), self.number(run.follows), number),
        )
        orphans = [
            (number, event.position, event.run_id)
            for event in only(each.events, ChildStarted)
            if run_ids.below(event.run_id, run.run_id)
        ]
        conn.executemany(
            "UPDATE durable_runs SET parent = ? WHERE position = ? AND run_id = ? AND parent IS NULL", orphans
        )

    def check(self, new: Sequence[RunHistory]) -> None:
        """
        Refuse ties that go in circles, and runs that another would start again.

        Raises:
            UsageError: There is one.
        """
        for sql in (_PARENT, _FOLLOWS, _SUCCESSOR):
            self._check_circles(sql, new)
        for each in new:
            if each.run.status not in ENDS:
                self._check_not_started(each)
        self._check_expected(new)

    def _check_circles(self, sql: str, new: Sequence[RunHistory]) -> None:
        done: set[int] = set()
        for each in new:
            at = self._numbers[each.run.run_id]
            way: set[int] = set()
            while at is not None and at not in done:
                if at in way:
                    msg = f"run {each.run.run_id!r} stands in a circle of runs that started, or followed, each other"
                    raise UsageError(msg)
                way.add(at)
                row = self._conn.execute(sql, (at,)).fetchone()
                at = None if row is None else row[0]
            done |= way

    def _check_not_started(self, each: RunHistory) -> None:
        """Ids of children and successors derive from the run's: what is here already, it must know of."""
        run_id = each.run.run_id
        successor = run_ids.successor(run_id)
        if self.number(successor) is not None:
            raise RunExistsError(successor, f"{run_id!r} would continue as it: its export is older")
        known = {event.run_id for event in only(each.events, ChildStarted)}
        known |= {wait.target for wait in each.waits if wait.target is not None}
        ended = {event.position for event in each.pending}
        for child, position in self._conn.execute(_DERIVED, {"run_id": run_id}).fetchall():
            if child not in known and child.rpartition("~")[0] not in known and position not in ended:
                reason = f"{run_id!r}, which has not ended, would start it again: its export is older"
                raise RunExistsError(child, reason)
        for window in each.feeds:
            for item in window.items:
                if self.number(item.child) is not None:
                    raise RunExistsError(item.child, f"{run_id!r} would start it again: its export is older")

    def _check_expected(self, new: Sequence[RunHistory]) -> None:
        """The same for open runs that were here before: they must know of what comes now."""
        mine = {each.run.run_id for each in new}
        started: dict[str, set[str]] = {}
        for each in new:
            run_id, position = each.run.run_id, each.run.position or ""
            parent, before = run_ids.parent(run_id), run_ids.predecessor(run_id)
            row = run_by_id(self._conn, before) if before and before not in mine else None
            if row is not None and row.status not in ENDS:
                raise RunExistsError(before, f"it has not ended here, and would continue as {run_id!r}")
            if not parent or parent in mine:
                continue
            if parent not in started:
                started[parent] = self._started_here(parent)
            if position not in started[parent] and "*" not in started[parent]:
                raise RunExistsError(parent, f"it has not ended here, and would start {run_id!r} itself")

    def _started_here(self, run_id: str) -> set[str]:
        """Positions of the children that an open run has started; "*" where that does not matter."""
        row = run_by_id(self._conn, run_id)
        if row is None or row.status in ENDS:
            return {"*"}
        found = self._conn.execute(_STARTED, (row.run, ChildStarted.kind, row.run, row.run)).fetchall()
        return {position for (position,) in found}
