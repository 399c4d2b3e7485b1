"""
Runs as callers are told of them: their rows, and the events that hold their arguments and results.

Nothing is decoded or compared with its checksum before somebody asks for it: most who list runs do not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from durable._core.codec.codec import Payload
from durable._core.light_tuples import NamedTuple
from durable._shell.reads.run_rows import Filter, RunRow, list_runs, run_by_id, runs_by_ids
from durable._shell.reads.waits import WaitInfo, waits_of_each
from durable._shell.rows.checksums import is_chained
from durable._shell.storage.connections import is_no_text, primary_code
from durable.errors import JournalCorruptError

#: A page ends with the run that makes its large values this large in all: lists of such runs take no more memory.
_PAGE_BYTES: Final = 4_194_304

_STARTS: Final = """
SELECT e.run, 0, e.seq, e.kind, e.position, e.at, e.body, e.value, e.payload, e.checksum
FROM json_each(?) AS wanted JOIN durable_events AS e ON e.run = wanted.value AND e.seq = 1
"""
_ENDS: Final = """
SELECT e.run, before.checksum, e.seq, e.kind, e.position, e.at, e.body, e.value, e.payload, e.checksum
FROM json_each(?) AS wanted
JOIN durable_events AS e ON e.run = wanted.value
    AND e.seq = (SELECT max(seq) FROM durable_events WHERE run = wanted.value)
LEFT JOIN durable_events AS before ON before.run = e.run AND before.seq = e.seq - 1
"""


class RecordedEvent(NamedTuple):
    """An event as its row has it, *before* being the checksum of the one before it."""

    before: int | None
    seq: int
    kind: int
    position: str | None
    at: float
    body: str | None
    value: Payload | None
    #: The row of a large value, which is in `value` all the same.
    payload: int | None
    checksum: int

    def sound_value(self, path: str, run_id: str) -> Payload | None:
        """
        Its value.

        Raises:
            JournalCorruptError: It does not match its checksum.
        """
        columns = self.kind, self.position, self.at, self.body, self.value
        if not is_chained(self.checksum, self.before or 0, *columns):
            raise JournalCorruptError(path, run_id, self.seq, "it does not match its checksum")
        return self.value


class RunDetails(NamedTuple):
    """A run, what it waits for, its first event, and its last one if it succeeded; None for what is lost."""

    row: RunRow
    start: RecordedEvent | None
    end: RecordedEvent | None
    waits: Sequence[WaitInfo]


def details_by_id(conn: sqlite3.Connection, run_id: str) -> RunDetails | None:
    """The run called *run_id*."""
    row = run_by_id(conn, run_id)
    return None if row is None else _details(conn, [row])[0]._replace(waits=_waits(conn, [row], ending=True)[row.run])


def details_by_ids(conn: sqlite3.Connection, run_ids: Sequence[str]) -> list[RunDetails]:
    """Those of the runs called *run_ids* that there are, however large their values are."""
    rows = runs_by_ids(conn, run_ids)
    found: list[RunDetails] = []
    while len(found) < len(rows):
        found += _details(conn, rows[len(found) :])
    return found


def list_details(
    conn: sqlite3.Connection, wanted: Filter, before: int | None, limit: int
) -> tuple[list[RunDetails], bool]:
    """As `list_runs`; and whether there may be more. Ends early where the values are large."""
    rows = list_runs(conn, wanted, before, limit)
    found = _details(conn, rows)
    return found, len(rows) == limit or len(found) < len(rows)


def _details(conn: sqlite3.Connection, rows: Sequence[RunRow]) -> list[RunDetails]:
    """Of *rows*, as far as a page takes them."""
    starts = _events(conn, _STARTS, [row.run for row in rows])
    ends = _events(conn, _ENDS, [row.run for row in rows if row.status == "succeeded"])
    waits = _waits(conn, rows)
    found: list[RunDetails] = []
    size = 0
    for row in rows:
        start, end = starts.get(row.run), ends.get(row.run)
        if start is not None and start.payload is not None:
            start = _with_value(conn, start)
            size += len(start.value or "")
        if end is not None and end.payload is not None:
            end = _with_value(conn, end)
            size += len(end.value or "")
        found.append(RunDetails(row, start, end, waits[row.run]))
        if size > _PAGE_BYTES:
            break
    return found


def _with_value(conn: sqlite3.Connection, event: RecordedEvent) -> RecordedEvent:
    try:
        row = conn.execute("SELECT value FROM durable_payloads WHERE payload = ?", (event.payload,)).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_lost(error):
            raise
        row = None
    return event if row is None else event._replace(value=row[0])


def _waits(
    conn: sqlite3.Connection, rows: Sequence[RunRow], *, ending: bool = False
) -> Mapping[int, Sequence[WaitInfo]]:
    """As `waits_of_each`; of a run of which that is lost, nothing."""
    try:
        return waits_of_each(conn, rows, ending=ending)
    except sqlite3.DatabaseError as error:
        if not is_lost(error):
            raise
        if len(rows) == 1:
            return {rows[0].run: ()}
        return {run: waits for row in rows for run, waits in _waits(conn, [row], ending=ending).items()}


def is_lost(error: sqlite3.DatabaseError) -> bool:
    """Whether what was to be read is no text any more, or on a page that is gone: of a run, the rest is told."""
    return primary_code(error) == sqlite3.SQLITE_CORRUPT or is_no_text(error)


def _events(conn: sqlite3.Connection, sql: str, runs: list[int]) -> dict[int, RecordedEvent]:
    """What *sql* finds of each run; of one of which that is lost, nothing."""
    if not runs:
        return {}
    try:
        found: list[tuple[Any, ...]] = conn.execute(sql, (json.dumps(runs),)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_lost(error):
            raise
        if len(runs) == 1:
            return {}
        return {run: event for each in runs for run, event in _events(conn, sql, [each]).items()}
    return {run: RecordedEvent(*event) for run, *event in found}
