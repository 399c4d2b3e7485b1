"""
What runs wait for, each wait a value; `why` has the sentence that is made of them.

Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from durable._core.statuses import ENDS
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.run_rows import RunRow, names_at, paused_queues, told_to_end

#: Waits that are told of one run: a gather may have thousands of members.
_MOST: Final = 100
#: What only ends a wait that lasts too long, as the timer of a `timeout` does.
BOUNDS: Final = ("deadline", "expiry", "cleanup")

_WAITS: Final = """
SELECT w.run, w.kind, CASE w.kind WHEN 'child' THEN t.workflow ELSE w.name END, w.position, w.since, w.fire_at, t.run_id
FROM json_each(:runs) AS wanted JOIN durable_waits AS w ON w.run = wanted.value
    AND w.wait IN (SELECT wait FROM durable_waits WHERE run = wanted.value ORDER BY wait LIMIT :most)
LEFT JOIN durable_runs AS t ON t.run = w.target
WHERE w.kind NOT IN ('code', 'heartbeat') ORDER BY w.wait
"""
_SLOTS: Final = """
SELECT s.run, 'slot', s.name, s.position, s.since, s.due_at,
    (SELECT r.run_id FROM durable_slots AS h JOIN durable_runs AS r ON r.run = h.run WHERE h.name = s.name
     AND h.key = s.key AND h.granted_at IS NOT NULL ORDER BY h.granted_at, h.slot LIMIT 1), s.key
FROM json_each(:runs) AS wanted JOIN durable_slots AS s ON s.run = wanted.value AND s.granted_at IS NULL
    AND s.slot IN (SELECT slot FROM durable_slots WHERE run = wanted.value AND granted_at IS NULL
                   ORDER BY slot LIMIT :most)
ORDER BY s.slot
"""


class WaitInfo(NamedTuple):
    """
    Something that a run waits for. Instants are epoch seconds, UTC.

    Its *kind* is "signal", "request", "callback", "timer", "child", "retry" (the next attempt, of a step or of the
    run), "start" (its delay, or the run before it), "slot" (of a limit), "queue" (its turn there), "ending" (a step or
    child was cancelled and has not ended yet), "resume" (it is paused, or its queue is) or "person" (it is blocked); or
    what ends the run if that takes too long: "deadline", "expiry", "cleanup".
    """

    kind: str
    #: Of the signal, request, callback, step, limit or queue; the workflow of a child; what the code calls a timer.
    name: str | None
    #: Where the code asked for it; None if it is about the run as a whole.
    position: str | None
    #: None where that is not recorded.
    since: float | None
    #: When the timer fires, the signal's time is over, the next attempt may begin, the rate lets it in.
    due: float | None = None
    #: The run that it waits for: the child; the one that has been in the limit for longest.
    holder: str | None = None
    #: Of the limit, where that has keys.
    key: str | None = None
    #: What the code calls what stands at its position, and the group that it is in: "eu in regions". Not in lists.
    called: str | None = None


def waits_of(conn: sqlite3.Connection, row: RunRow) -> list[WaitInfo]:
    """What a run waits for, what holds it up most first; at most some hundred."""
    return waits_of_each(conn, [row], ending=True)[row.run]


def waits_of_each(
    conn: sqlite3.Connection, rows: Sequence[RunRow], *, ending: bool = False
) -> dict[int, list[WaitInfo]]:
    """
    As `waits_of`, of many runs by their numbers, in a few statements.

    What is *ending*, and what the code calls things, is looked for in all events of a run: a list goes without it.
    """
    found: dict[int, list[WaitInfo]] = {row.run: [] for row in rows}
    queued = [row for row in rows if row.status not in ENDS]
    if not queued:
        return found
    paused = set(paused_queues(conn))
    values = {"runs": json.dumps([row.run for row in queued]), "most": _MOST}
    for run, *wait in fetch_all(conn, _SLOTS, values):
        found[run].append(_wait(*wait))
    bounds: list[tuple[int, WaitInfo]] = []
    for run, *wait in fetch_all(conn, _WAITS, values):
        told = _wait(*wait)
        if told.kind in BOUNDS or (told.kind, told.name) == ("timer", "timeout"):
            bounds.append((run, told))
        else:
            found[run].append(told)
    for row in queued:
        waits = found[row.run]
        found[row.run] = [*_first_of_all(conn, row, waits, row.queue in paused, ending=ending), *waits]
    for run, told in bounds:
        found[run].append(told)
    return {run: _with_names(conn, run, waits) for run, waits in found.items()} if ending else found


def _with_names(conn: sqlite3.Connection, run: int, waits: list[WaitInfo]) -> list[WaitInfo]:
    positions = [each.position for each in waits if each.position]
    names = names_at(conn, run, positions) if positions else {}
    return [each._replace(called=names.get(each.position or "") or None) for each in waits]


def _wait(
    kind: str,
    name: str | None,
    position: str,
    since: float,
    due: float | None,
    holder: str | None,
    key: str | None = None,
) -> WaitInfo:
    return WaitInfo("retry" if kind == "restart" else kind, name, position or None, since, due, holder, key or None)


def _first_of_all(
    conn: sqlite3.Connection,
    row: RunRow,
    waits: list[WaitInfo],
    paused: bool,  # noqa: FBT001
    *,
    ending: bool,
) -> Iterable[WaitInfo]:
    """What has to come before anything else that *row* waits for; a child that is ending is taken out of *waits*."""
    if row.status == "blocked":
        yield WaitInfo("person", None, None, None)
    elif row.status == "paused":
        yield WaitInfo("resume", None, None, None)
    if ending and (stopping := told_to_end(conn, row.run)):
        position, what, since, is_child = stopping
        waits[:] = [each for each in waits if not (each.kind == "child" and each.position == position)]
        yield WaitInfo("ending", None if is_child else what, position, since, None, what if is_child else None)
    begins = row.status == "pending" and row.ready_at is not None
    if paused and (begins or row.status == "running" or any(each.kind == "slot" for each in waits)):
        yield WaitInfo("resume", row.queue, None, None)
    elif begins:
        yield WaitInfo("queue", row.queue, None, row.ready_at)
