"""
Places in line from the file alone, for runs that no engine's memory has placed; see `admission`.

Those are what a client recorded while nobody executed the file, what is imported, and callbacks of batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from attrs import evolve, field

from durable._core.admission import BY_LABEL, Places, Queue
from durable._core.light_frozen import light_define
from durable._shell.rows.rows import NewRun

#: Runs created last that are searched for one of the same group.
_NEAR = 100
#: The last place of a group, see `admission`.
_LAST = """
SELECT max(place) FROM (SELECT * FROM durable_runs ORDER BY run DESC LIMIT :near)
WHERE queue = :queue AND coalesce(
    char(10) || CASE WHEN json_valid(labels) THEN json_extract(labels, '$."' || :label || '"') END,
    CASE WHEN parent IS NULL THEN workflow END
) = :group
"""


@light_define
class PlacesFromFile:
    """Gives places in the lines of the queues, as one transaction finds them."""

    conn: sqlite3.Connection
    #: What the engine knows of the lines, if one has the file open and is at hand.
    known: Places | None = None
    _places: dict[str, Places] = field(factory=dict)
    _labels: dict[str, str | None] = field(factory=dict)
    _seen: set[tuple[str, str]] = field(factory=set)

    def placed(self, new: NewRun) -> NewRun:
        """*new* with a place in the line of its queue; as it is, if it has one, or gets it when its delay is over."""
        if new.place or new.due_at is not None:
            return new
        return evolve(new, place=self.place(new.queue, new.workflow, new.parent, new.labels, new.started.at))

    def place(self, queue: str, workflow: str, parent: int | None, labels: Mapping[str, str], at: float) -> float:
        """A place in the line of *queue* for a run that is due *at* this moment."""
        if self.known is not None:
            return self.known.place(queue, workflow, parent, labels)
        if queue not in self._places:
            row = self.conn.execute("SELECT fair_by FROM durable_queues WHERE name = ?", (queue,)).fetchone()
            label = self._labels[queue] = None if row is None else row[0]
            self._places[queue] = Places(at, {} if label is None else {queue: label})
        places, label = self._places[queue], self._labels[queue]
        value = None if label is None else labels.get(label)
        group = workflow if value is None else BY_LABEL + value
        if (queue, group) not in self._seen:
            self._seen.add((queue, group))
            first = self.conn.execute(
                "SELECT place FROM durable_runs WHERE queue = ? AND ready_at IS NOT NULL "
                "ORDER BY priority DESC, place LIMIT 1",
                (queue,),
            ).fetchone()
            (last,) = self.conn.execute(
                _LAST, {"near": _NEAR, "queue": queue, "group": group, "label": label}
            ).fetchone()
            if first is not None:
                places.recover(queue, group, first[0], last or 0.0)
        return places.place(queue, workflow, parent, labels)


def register_fairness(conn: sqlite3.Connection, queues: Iterable[Queue]) -> None:
    """Write by which labels the queues of the code are fair, for those who record runs without it."""
    conn.execute("UPDATE durable_queues SET fair_by = NULL WHERE fair_by IS NOT NULL")
    conn.executemany(
        "INSERT INTO durable_queues (name, fair_by) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET fair_by = excluded.fair_by",
        [(queue.name, queue.fair_by) for queue in queues if queue.fair_by is not None],
    )
