"""
Reads runs as those see them who watch: with the step that they are at, and a mark that changes with every news.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from durable._core.codec.json_text import read_list
from durable._core.journal.events import StepStarted, TransactionStarted
from durable._core.light_tuples import NamedTuple
from durable._core.statuses import ENDS
from durable._shell.reads.run_details import RunDetails, details_by_id, details_by_ids, is_lost
from durable._shell.reads.stream_rows import news_mark

#: Events that are searched for the step that began last, from the newest: a run may have received many signals since.
_SEARCHED: Final = 200
_LAST_STEPS: Final = f"""
SELECT e.run, e.position, e.body FROM json_each(?) AS wanted
JOIN durable_events AS e ON e.run = wanted.value AND e.seq = (
    SELECT seq FROM durable_events WHERE run = wanted.value AND kind IN (?, ?)
    AND seq > (SELECT max(seq) - {_SEARCHED} FROM durable_events WHERE run = wanted.value) ORDER BY seq DESC LIMIT 1
)
"""  # noqa: S608 - constants


class StepBegun(NamedTuple):
    """An attempt of a step, or a transaction."""

    name: str
    position: str
    attempt: int


class Watched(NamedTuple):
    """A run, and the step that began last, if that is not long ago."""

    details: RunDetails
    step: StepBegun | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes, but of the run that it continued as."""
        return self.details.row.status in ENDS


def watched_runs(conn: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, Watched]:
    """Those of the runs called *run_ids* that there are; what they wait for is told as in lists."""
    found = details_by_ids(conn, run_ids)
    steps = _steps(conn, [each.row.run for each in found])
    return {each.row.run_id: Watched(each, steps.get(each.row.run)) for each in found}


def watched_run(conn: sqlite3.Connection, run_id: str) -> Watched | None:
    """The run called *run_id*."""
    found = details_by_id(conn, run_id)
    return None if found is None else Watched(found, _steps(conn, [found.row.run]).get(found.row.run))


def watched_with_mark(conn: sqlite3.Connection, run_id: str) -> tuple[Watched, str] | None:
    """The run called *run_id*, and what `wait_for_news` waits by."""
    news, found = news_mark(conn, run_id), watched_run(conn, run_id)
    return None if news is None or found is None else (found, news[1])


def _steps(conn: sqlite3.Connection, runs: Sequence[int]) -> dict[int, StepBegun | None]:
    """The step that each began last; of a run of which that is lost, nothing."""
    values = (json.dumps(runs), StepStarted.kind, TransactionStarted.kind)
    try:
        found = conn.execute(_LAST_STEPS, values).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_lost(error):
            raise
        return {} if len(runs) == 1 else {run: step for each in runs for run, step in _steps(conn, [each]).items()}
    return {run: _begun(position, body) for run, position, body in found}


def _begun(position: str, body: object) -> StepBegun | None:
    match read_list(body):  # of a run that may be damaged
        case [str(name), int(attempt), *_]:
            return StepBegun(name, position, attempt)
        case [str(name), *_]:
            return StepBegun(name, position, 1)
        case _:
            return None
