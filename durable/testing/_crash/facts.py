"""
Reads an `Outcome` out of a store: runs by where they come from, journals, the application's rows, and what is left.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from durable._core import run_ids
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.journal.events import Event
from durable._core.journal.payloads import failure_in
from durable._core.program.functions import Workflow
from durable._core.run.divergence.comparing import EVERYWHERE, Comparing
from durable._core.run.execution import Execution
from durable._core.statuses import ENDS
from durable._shell.reads.event_rows import load_history
from durable._shell.reads.run_rows import RunRow, require_run, run_by_id
from durable.errors import DurableError
from durable.testing._crash.invariants import Effect, Item, Outcome, RunOutcome, renamed

#: The id of the run that is started.
ROOT: Final = "run"

_RUNS: Final = """
SELECT r.run_id, r.workflow, r.position, r.status, r.reason, p.run_id, f.run_id, c.run_id
FROM durable_runs AS r
LEFT JOIN durable_runs AS p ON p.run = r.parent
LEFT JOIN durable_runs AS f ON f.run = r.follows
LEFT JOIN durable_runs AS c ON c.successor = r.run_id
ORDER BY r.run
"""
_STREAMS: Final = """
SELECT r.run_id, s.stream, s.position, s.attempt, s.value
FROM durable_stream_items AS s JOIN durable_runs AS r USING (run) ORDER BY s.entry
"""
_LEFT: Final = """
SELECT 'a wait for ' || w.kind, r.run_id, w.position FROM durable_waits AS w JOIN durable_runs AS r USING (run)
WHERE r.ended_at IS NOT NULL
UNION ALL SELECT 'an arrival', r.run_id, i.position FROM durable_inbox AS i JOIN durable_runs AS r USING (run)
WHERE r.ended_at IS NOT NULL AND i.name IS NULL
UNION ALL SELECT 'a feed', r.run_id, x.position FROM durable_feeds AS x JOIN durable_runs AS r USING (run)
WHERE r.ended_at IS NOT NULL
UNION ALL SELECT 'an item of a feed', r.run_id, x.position FROM durable_feed_items AS x
JOIN durable_runs AS r USING (run) WHERE r.ended_at IS NOT NULL
UNION ALL SELECT 'a slot of ' || s.name, r.run_id, s.position FROM durable_slots AS s JOIN durable_runs AS r USING (run)
WHERE r.ended_at IS NOT NULL
UNION ALL SELECT 'a note of a step', r.run_id, n.position FROM durable_notes AS n JOIN durable_runs AS r USING (run)
WHERE r.status = 'succeeded' AND n.name NOT GLOB 'kept:*'
UNION ALL SELECT 'a wait of no run', w.kind, w.position FROM durable_waits AS w
WHERE w.run NOT IN (SELECT run FROM durable_runs)
UNION ALL SELECT 'an event of no run', CAST(e.run AS TEXT), e.position FROM durable_events AS e
WHERE e.run NOT IN (SELECT run FROM durable_runs)
UNION ALL SELECT 'an item of a stream of no run', CAST(s.run AS TEXT), s.position FROM durable_stream_items AS s
WHERE s.run NOT IN (SELECT run FROM durable_runs)
"""


def is_over(conn: sqlite3.Connection) -> bool:
    """Whether every run has ended."""
    return bool(conn.execute("SELECT count(*) FROM durable_runs WHERE ended_at IS NULL").fetchone()[0] == 0)


def read_outcome(
    conn: sqlite3.Connection,
    definitions: Definitions,
    codec: Codec,
    *,
    begun: Mapping[tuple[str, str], int],
    effects: tuple[Effect, ...],
    left: list[str],
    lost: int,
    disturbed: int,
    excused: bool,
) -> Outcome:
    """
    What all the runs in *conn* came to.

    *excused* says that an error struck workflow code, which a replay does not repeat.
    """
    names, runs, diverged = _Names(), dict[str, RunOutcome](), list[str]()
    for run_id, workflow, position, status, reason, parent, follows, before in conn.execute(_RUNS).fetchall():
        name = names.give(run_id, workflow, position, parent, follows, before)
        row = require_run(conn, run_id)
        events = load_history(conn, ":memory:", row)
        if not excused and (found := _divergence(definitions, codec, row, events)) is not None:
            diverged.append(f"{workflow} ({name}) does not replay: {found}")
        value = (_ended_with(events[-1], codec) if status in ENDS else reason) or ""
        parent_name = None if parent is None else names.of[parent]
        runs[name] = RunOutcome(run_id, workflow, parent_name, position, status, names.replace(value), tuple(events))
    left += [f"{what} of run {names.replace(run)!r} is left (at {place})" for what, run, place in conn.execute(_LEFT)]
    result, error = _result(conn, definitions, codec)
    streams: dict[tuple[str, str], list[Item]] = {}
    for run_id, stream, position, attempt, item in conn.execute(_STREAMS):
        text = names.replace(item) if isinstance(item, str) else repr(item)
        streams.setdefault((names.of[run_id], stream), []).append(Item(position, attempt, text))
    counted = Counter[str]()
    for (run_id, position), count in begun.items():
        counted[f"{names.of.get(run_id, run_id)}:{position}"] += count
    return Outcome(
        result,
        error,
        {name: names.in_run(run) for name, run in runs.items()},
        Counter(names.replace(row) for row in _rows(conn)),
        counted,
        renamed(effects, names.replace),
        tuple(left),
        tuple(diverged),
        lost,
        disturbed,
        excused,
        streams,
    )


class _Names:
    """Names of runs that say where they come from: ids of follow-ups and of enqueued runs are made by chance."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def give(
        self,
        run_id: str,
        workflow: str,
        position: str | None,
        parent: str | None,
        follows: str | None,
        before: str | None,
    ) -> str:
        """The name of the next run."""
        if before in self.of:
            name = f"{self.of[before]}, continued"
        elif follows in self.of:
            name = self._numbered(f"{self.of[follows]} > {workflow}")
        elif parent in self.of and position:
            name = run_ids.child(self.of[parent], position, 1)
        elif parent in self.of:
            name = self._numbered(f"{self.of[parent]} + {workflow}")
        else:
            name = run_id if run_id == ROOT else self._numbered(workflow)
        if name in self.of.values():  # a second child of one position: a violation, to be told apart all the same
            name = self._numbered(f"{name} again")
        self.of[run_id] = name
        return name

    def _numbered(self, name: str) -> str:
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name} ({self._counts[name]})"

    def replace(self, text: str) -> str:
        """*text*, with names for ids."""
        for run_id in sorted(self.of, key=len, reverse=True):
            if run_id != ROOT and run_ids.below(run_id, ROOT) is None:
                text = text.replace(run_id, self.of[run_id])
        return text

    def in_run(self, run: RunOutcome) -> RunOutcome:
        """*run*, its events with names for ids."""
        import attrs  # noqa: PLC0415 - for this alone

        events = tuple(_with_names(event, self.replace) for event in run.events)
        return attrs.evolve(run, events=events)


def _with_names(event: Event, replace: Callable[[str], str]) -> Event:
    import attrs  # noqa: PLC0415 - as above

    changed: dict[str, Any] = {
        attribute.name: replace(value)
        for attribute in attrs.fields(type(event))
        if isinstance(value := getattr(event, attribute.name), str) and attribute.name not in ("position", "site")
    }
    return attrs.evolve(event, **changed)


def _rows(conn: sqlite3.Connection) -> list[str]:
    """The rows of the application's tables, as SQL."""
    found = []
    for line in conn.iterdump():
        table = line.removeprefix("INSERT INTO ").lstrip('"') if line.startswith("INSERT INTO ") else "durable_"
        if not table.startswith(("durable_", "sqlite_")):
            found.append(line)
    return found


def _ended_with(event: Event, codec: Codec) -> str:
    if event.outcome != "failed":
        return str(event.value)
    return _told(event.value, codec)


def _told(value: Any, codec: Codec) -> str:
    failure = failure_in(value, codec)
    return f"{failure.type_name}: {failure.message}"


def _result(conn: sqlite3.Connection, definitions: Definitions, codec: Codec) -> tuple[Any, str | None]:
    row = run_by_id(conn, ROOT)
    while row is not None and row.successor is not None:
        row = run_by_id(conn, row.successor)
    if row is None:
        return None, "it was never started"
    last = load_history(conn, ":memory:", row)[-1]
    definition = definitions.find(row.workflow, row.version)
    if row.status == "succeeded" and definition is not None:
        return codec.decode(last.value or "null", definition.result, where="the result"), None
    return None, _ended_with(last, codec) if row.status == "failed" else f"{row.status}: {row.reason}"


def _divergence(definitions: Definitions, codec: Codec, row: RunRow, events: list[Event]) -> str | None:
    definition = definitions.find(row.workflow, row.version)
    if not isinstance(definition, Workflow):
        return None
    try:
        execution = Execution(definition, events, run_id=row.run_id, codec=codec)
        execution.comparing = Comparing(EVERYWHERE, strict=True)
        execution.load()
        execution.close()
    except DurableError as error:
        return str(error)
    return None
