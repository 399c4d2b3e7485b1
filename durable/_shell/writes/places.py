"""
Places in line from the file alone, for runs that no engine's memory has placed; see `admission`.

Those are what a client recorded while nobody executed the file, and members and callbacks of batches.
"""

from __future__ import annotations

import sqlite3

from attrs import define, evolve, field

from durable._core.admission import Places
from durable._shell.rows.rows import NewRun

#: Runs created last that are searched for one of the same group.
_NEAR = 100


@define
class PlacesFromFile:
    """Gives places in the lines of the queues, as one transaction finds them."""

    conn: sqlite3.Connection
    _places: dict[str, Places] = field(factory=dict)
    _seen: set[tuple[str, str]] = field(factory=set)

    def placed(self, new: NewRun) -> NewRun:
        """*new* with a place in the line of its queue; as it is, if it has one."""
        if new.place:
            return new
        return evolve(new, place=self.place(new.queue, new.workflow, new.parent, new.started.at))

    def place(self, queue: str, workflow: str, parent: int | None, at: float) -> float:
        """A place in the line of *queue* for a run that is made *at* this moment."""
        places = self._places.setdefault(queue, Places(at))
        if (queue, workflow) not in self._seen:
            self._seen.add((queue, workflow))
            first = self.conn.execute(
                "SELECT place FROM durable_runs WHERE queue = ? AND ready_at IS NOT NULL "
                "ORDER BY priority DESC, place LIMIT 1",
                (queue,),
            ).fetchone()
            (last,) = self.conn.execute(
                "SELECT max(place) FROM (SELECT * FROM durable_runs ORDER BY run DESC LIMIT ?) "
                "WHERE queue = ? AND workflow = ? AND parent IS NULL",
                (_NEAR, queue, workflow),
            ).fetchone()
            if first is not None:
                places.recover(queue, workflow, first[0], last or 0.0)
        return places.place(queue, workflow, parent)
