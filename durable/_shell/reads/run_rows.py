"""
What is shown of runs: rows of the file as named tuples, without events.

Light on purpose: nothing but the standard library, statuses and `durable.errors` is imported here, so that
the command line lists runs before asyncio or attrs would have been loaded. Lists are paged by run
number, never by OFFSET, so a page costs the same wherever it stands.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from durable._core.codec.json_text import read_list, read_object
from durable._core.light_tuples import NamedTuple
from durable._core.program.progress import Progress, progress_from
from durable._core.run_ids import CHILD_SIGN, OLD_CHILD_SIGN
from durable._core.statuses import CLEANUP_FAILED, HELD, OPEN
from durable._shell.reads.lenient import fetch_all
from durable._shell.storage.run_counts import run_counts
from durable._shell.storage.run_labels import rarest
from durable.errors import JournalDamagedError, RunNotFoundError

#: Statuses of open runs, and of those that stand still, as lists of SQL.
OPEN_SQL: Final = "('" + "', '".join(OPEN) + "')"
#: Whether the queue of run `r` is paused.
IN_PAUSED_QUEUE_SQL: Final = (
    "EXISTS (SELECT 1 FROM durable_queues AS q WHERE q.name = r.queue AND q.paused_at IS NOT NULL)"
)
HELD_SQL: Final = "('" + "', '".join(HELD) + "')"
#: The kinds of `SignalReceived`, `RunCancelled` and `GroupArranged`: this module does not know events.
_SIGNAL_RECEIVED: Final = 24
_RUN_CANCELLED: Final = 4
_GROUP_ARRANGED: Final = 37

#: `CancelSent`, with the command that it is about (`StepStarted`, `SlotAwaited`, `ChildStarted`) and nothing behind it.
_TOLD_TO_END: Final = """
SELECT sent.position,
    CASE WHEN json_valid(asked.body) THEN json_extract(asked.body, iif(asked.kind = 25, '$[1]', '$[0]')) END,
    sent.at, asked.kind = 25
FROM durable_events AS sent
JOIN durable_events AS asked ON asked.run = sent.run AND asked.position = sent.position AND asked.kind IN (10, 17, 25)
WHERE sent.run = ? AND sent.kind = 36 AND NOT EXISTS (
    SELECT 1 FROM durable_events AS after
    WHERE after.run = sent.run AND after.position = sent.position AND after.seq > sent.seq
)
ORDER BY sent.seq, asked.seq LIMIT 1
"""
#: Ancestors that are followed to the first one. Ids are too short for more; a damaged file may lead in a circle.
_HIGHEST: Final = 2_000
#: One of them is what was given to `cancel`, where clean-up failed: the event is looked up for such runs alone.
_COLUMNS = f"""
SELECT r.run, r.run_id, r.workflow, r.version, r.sort, r.status, r.queue, r.priority, r.key, r.labels, r.attributes,
       r.reason, r.successor, r.created_at, r.started_at, r.ended_at, r.ready_at,
       (SELECT p.run_id FROM durable_runs AS p WHERE p.run = r.parent), r.position,
       (SELECT p.run_id FROM durable_runs AS p WHERE p.run = r.follows),
       (SELECT b.batch_id FROM durable_batches AS b WHERE b.batch = r.batch), r.unread,
       (SELECT json_group_array(json_array(h.hook, h.error, h.at)) FROM durable_hook_errors AS h WHERE h.run = r.run),
       r.abandoned,
       CASE WHEN r.status = 'cancelled' AND instr(r.reason, '{CLEANUP_FAILED}') THEN (
           SELECT CASE WHEN json_valid(e.body) THEN json_extract(e.body, '$[0]') END FROM durable_events AS e
           WHERE e.run = r.run AND e.kind = {_RUN_CANCELLED} ORDER BY e.seq DESC LIMIT 1
       ) END, r.compensated, r.progress, r.forked_from,
       CASE WHEN r.parent IS NULL THEN r.run_id ELSE coalesce((
           WITH RECURSIVE above(run_id, parent, height) AS (
               SELECT run_id, parent, 1 FROM durable_runs WHERE run = r.parent
               UNION ALL SELECT p.run_id, p.parent, height + 1 FROM durable_runs AS p JOIN above ON p.run = above.parent
               WHERE height < {_HIGHEST}
           )
           SELECT run_id FROM above ORDER BY height DESC LIMIT 1
       ), r.run_id) END
"""  # noqa: S608 - constants
_RUN_COLUMNS = _COLUMNS + "FROM durable_runs AS r\n"


#: Runs that are counted of a line, at most: who is told of more does not care how many.
LONGEST_LINE: Final = 10_000
#: Those that go before a run, see `admission`; and all that wait to begin. What has begun has a slot, or is first.
_AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM durable_runs AS mine JOIN durable_runs AS r ON r.queue = mine.queue AND r.ready_at IS NOT NULL
    WHERE mine.run = :run AND r.status = 'pending' AND (r.priority > mine.priority OR (r.priority = mine.priority
        AND (r.place, r.ready_at, r.run) < (mine.place, mine.ready_at, mine.run)))
    LIMIT :most
)
"""
_LINE = """
SELECT count(*) FROM (
    SELECT 1 FROM durable_runs AS mine JOIN durable_runs AS r ON r.queue = mine.queue AND r.ready_at IS NOT NULL
    WHERE mine.run = :run AND r.status = 'pending' LIMIT :most
)
"""


class FailedHook(NamedTuple):
    """A hook of a run that went wrong, or a start that its end asked for and that was refused."""

    #: Its name; or "start of 'JOB'".
    hook: str
    error: str
    #: Epoch seconds, UTC.
    at: float


class RunRow(NamedTuple):
    """A row of `durable_runs`, decoded as far as columns go."""

    run: int
    run_id: str
    workflow: str
    version: int
    kind: str
    status: str
    queue: str
    priority: int
    key: str | None
    labels: Mapping[str, str]
    attributes: Any
    reason: str | None
    successor: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    ready_at: float | None
    parent: str | None
    position: str | None
    follows: str | None
    batch: str | None
    #: Signals that nobody had asked for when it ended: how many of each name.
    unread: Mapping[str, int]
    hook_errors: tuple[FailedHook, ...]
    #: Names of steps that were told to end and did not in time, by position.
    abandoned: Mapping[str, str]
    #: By what it failed, or its clean-up did.
    error: str | None
    #: Whether a saga of it failed, and what it had done was undone.
    compensated: bool
    progress: Progress | None
    #: The run that it is a fork of.
    forked_from: str | None
    #: The first of its ancestors, or itself.
    root: str


def _run_row(row: Sequence[Any]) -> RunRow:
    columns: list[Any] = list(row)
    for of_object in (9, 21, 23):  # damage to one run must not hide all others
        columns[of_object] = read_object(row[of_object]) or {}
    columns[22] = () if row[22] == "[]" else tuple(FailedHook(*each) for each in read_list(row[22]) or ())
    columns[24] = _error(status=row[5], reason=row[11], asked=row[24])
    columns[25] = bool(row[25])
    columns[26] = progress_from(row[26])
    return RunRow(*columns)


def _error(*, status: str, reason: str | None, asked: str | None) -> str | None:
    """By what a run failed, or the clean-up of one that was cancelled, *asked* being the reason given to `cancel`."""
    if status == "failed":
        return reason
    if asked is None or reason is None or reason == asked:
        return None
    return reason.removeprefix(asked).removeprefix("; ").removeprefix(CLEANUP_FAILED)


def run_by_id(conn: sqlite3.Connection, run_id: str) -> RunRow | None:
    """The run called *run_id*."""
    row = conn.execute(_RUN_COLUMNS + "WHERE r.run_id = ?", (run_id,)).fetchone()
    if row is None or conn.execute("SELECT run_id FROM durable_runs WHERE run = ?", row[:1]).fetchone() != (run_id,):
        return None  # a damaged index may lead to another run, so the row must say who it is
    return _run_row(row)


def last_run(conn: sqlite3.Connection) -> int:
    """The number of the newest run; 0 if there is none."""
    (found,) = conn.execute("SELECT coalesce(max(run), 0) FROM durable_runs").fetchone()
    return int(found)


def runs_after(conn: sqlite3.Connection, run: int) -> list[tuple[int, str, str, float]]:
    """The runs that are newer than the one of that number: number, id, workflow, and when they were created."""
    sql = "SELECT run, run_id, workflow, created_at FROM durable_runs WHERE run > ? ORDER BY run LIMIT 1000"
    return conn.execute(sql, (run,)).fetchall()


def runs_by_ids(conn: sqlite3.Connection, run_ids: Sequence[str]) -> list[RunRow]:
    """Those of the runs called *run_ids* that there are."""
    sql = _RUN_COLUMNS + "WHERE r.run_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
    return [_run_row(row) for row in conn.execute(sql, (json.dumps(run_ids),))]


def run_by_key(conn: sqlite3.Connection, key: str) -> RunRow | None:
    """The run that *key* stands for."""
    row = conn.execute(_RUN_COLUMNS + "WHERE r.key_live = ?", (key,)).fetchone()
    return None if row is None else _run_row(row)


def runs_by_prefix(conn: sqlite3.Connection, prefix: str, limit: int) -> list[RunRow]:
    """
    Up to *limit* runs whose ids begin with *prefix*, by id.

    None of which they have started others: those bear the id of the run, and a sign, before their own position.
    """
    rows = fetch_all(
        conn,
        _RUN_COLUMNS + "WHERE r.run_id >= ? AND r.run_id < ? || char(1114111) "
        "AND instr(substr(r.run_id, length(?) + 1), ?) = 0 AND instr(substr(r.run_id, length(?) + 1), ?) = 0 "
        "ORDER BY r.run_id LIMIT ?",
        (prefix, prefix, prefix, CHILD_SIGN, prefix, OLD_CHILD_SIGN, limit),
    )
    return [_run_row(row) for row in rows]


def first_and_last_id(conn: sqlite3.Connection, since: str, until: str) -> tuple[str | None, str | None]:
    """Of the ids from *since* to before *until*, the first and the last; None if there are none."""
    first, last = conn.execute(
        "SELECT (SELECT min(run_id) FROM durable_runs WHERE run_id >= :since AND run_id < :until), "
        "(SELECT max(run_id) FROM durable_runs WHERE run_id >= :since AND run_id < :until)",
        {"since": since, "until": until},
    ).fetchone()
    return first, last


def children_of(conn: sqlite3.Connection, run: int, limit: int) -> list[RunRow]:
    """Up to *limit* runs that run number *run* has started, oldest first."""
    rows = fetch_all(conn, _RUN_COLUMNS + "WHERE r.parent = ? ORDER BY r.run LIMIT ?", (run, limit))
    return [_run_row(row) for row in rows]


def children_by_status(conn: sqlite3.Connection, run: int) -> dict[str, int]:
    """How many runs that it has started have which status."""
    rows = conn.execute("SELECT status, count(*) FROM durable_runs WHERE parent = ? GROUP BY status", (run,))
    return dict(rows.fetchall())


def followers_of(conn: sqlite3.Connection, run: int, limit: int) -> list[RunRow]:
    """Up to *limit* runs that the end of run number *run* has started, oldest first."""
    rows = fetch_all(conn, _RUN_COLUMNS + "WHERE r.follows = ? ORDER BY r.run LIMIT ?", (run, limit))
    return [_run_row(row) for row in rows]


def require_run(conn: sqlite3.Connection, run_id: str) -> RunRow:
    """
    The run called *run_id*.

    Raises:
        RunNotFoundError: There is none.
    """
    found = run_by_id(conn, run_id)
    if found is None:
        raise RunNotFoundError("id", run_id)
    return found


def current_run(conn: sqlite3.Connection, run_id: str) -> RunRow:
    """The run called *run_id*, or the one that it continued as."""
    found = require_run(conn, run_id)
    return found if found.successor is None else require_run(conn, last_id(conn, run_id))


def last_of_chain(conn: sqlite3.Connection, run_id: str) -> RunRow | None:
    """The run called *run_id*, or the one it continued as in the end."""
    found = run_by_id(conn, run_id)
    return found if found is None or found.successor is None else run_by_id(conn, last_id(conn, run_id))


def chain(conn: sqlite3.Connection, run_id: str) -> Iterator[str]:
    """
    *run_id*, the id of what that continued as, and so on; the last of them may have been pruned.

    Raises:
        JournalDamagedError: It leads back to where it was.
    """
    seen: set[str] = set()
    following: str | None = run_id
    while following is not None:
        if following in seen:
            raise damaged(conn, f"run {run_id!r} continues as {following!r}, in a circle")
        seen.add(following)
        yield following
        row = conn.execute("SELECT successor FROM durable_runs WHERE run_id = ?", (following,)).fetchone()
        following = None if row is None else row[0]


def damaged(conn: sqlite3.Connection, what: str) -> JournalDamagedError:
    """The error that says *what* is wrong with the rows of this journal."""
    _, _, path = conn.execute("PRAGMA database_list").fetchone()
    return JournalDamagedError(path or ":memory:", f"{what}. Restore from a backup")


def last_id(conn: sqlite3.Connection, run_id: str) -> str:
    """The last of its `chain`."""
    *_, last = chain(conn, run_id)
    return last


class Filter(NamedTuple):
    """What `engine.runs` may be asked for; None does not filter."""

    workflow: str | None = None
    status: tuple[str, ...] | None = None
    labels: Mapping[str, str] | None = None
    attributes: Mapping[str, Any] | None = None
    queue: str | None = None
    parent: str | None = None
    #: As *parent*, also further up.
    ancestor: str | None = None
    batch: str | None = None
    since: float | None = None
    until: float | None = None
    #: A name of `WAITED_FOR`, or that of a signal ("signal:NAME" where the two could be mixed up).
    waiting_for: str | None = None
    #: A part of the id, key, labels or reason. No index helps: all runs that fit otherwise are looked through.
    text: str | None = None


# What the code calls groups and timers, and the members of a group: of `GroupOpened`, `TimerSet` and `GroupArranged`.
_NAMES = """
SELECT position, kind, CASE WHEN json_valid(body) THEN json_extract(body, '$[3]') END FROM durable_events
WHERE run = ? AND kind IN (20, 21, 37) AND position IN (SELECT value FROM json_each(?)) ORDER BY seq
"""

#: What runs can be asked for by: what they wait for, and the kinds of rows in `durable_waits` that say so.
WAITED_FOR: Final[Mapping[str, tuple[str, ...]]] = {
    "signal": ("signal",),
    "request": ("request",),
    "timer": ("timer",),
    "child": ("child",),
    "callback": ("callback",),
    "retry": ("retry", "restart"),
    "start": ("start",),
    "slot": (),
}
#: Those of them that have names.
_NAMED: Final = ("signal", "request", "callback")
#: Statuses that have an index of their own, and the term that lets SQLite use it.
_INDEXED: Final = {
    "failed": "r.status = 'failed'",
    "blocked": "r.status = 'blocked'",
    "paused": "r.status = 'paused'",
    "cancelled": "r.status = 'cancelled'",
}
#: Epoch seconds that no run was created at, nor before their opposite.
_NEVER: Final = 9e99
#: Runs that were created in a time that counts as short.
_SHORT_TIME: Final = 2_000


def list_runs(conn: sqlite3.Connection, wanted: Filter, before: int | None, limit: int) -> list[RunRow]:
    """
    Up to *limit* runs that fit, newest first, all older than run number *before*.

    The statuses that an operator looks for stand in the SQL as literals: a bound value would not
    let SQLite use their indexes. It knows nothing of how many rows each index leaves, so it is
    kept (by a plus sign) from those that may leave nearly all.
    """
    where: list[str] = []
    values: list[Any] = []
    is_narrow = any((wanted.parent, wanted.ancestor, wanted.batch, wanted.waiting_for))
    if wanted.status is not None and len(wanted.status) == 1 and wanted.status[0] in _INDEXED:
        is_narrow = True
        where.append(_INDEXED[wanted.status[0]])
    elif wanted.status is not None:
        where.append("r.status IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(wanted.status))
        if all(status in OPEN for status in wanted.status):
            is_narrow = True
            where.append("r.ended_at IS NULL")
    since, until = wanted.since, _NEVER if wanted.until is None else wanted.until
    is_short = since is not None and not is_narrow and _is_short_time(conn, since, until)
    if is_short:  # both ends, without which SQLite rather looks through all
        where.append("r.created_at >= ? AND r.created_at < ?")
    elif since is not None or wanted.until is not None:
        where.append("+r.created_at >= ? AND +r.created_at < ?")
    if since is not None or wanted.until is not None:
        values += [-_NEVER if since is None else since, until]
    if wanted.workflow is not None:
        where.append("+r.workflow = ?" if is_narrow or is_short else "r.workflow = ?")
        values.append(wanted.workflow)
    if wanted.queue is not None:
        where.append("r.queue = ?")
        values.append(wanted.queue)
    if wanted.parent is not None:
        where.append("r.parent = (SELECT run FROM durable_runs WHERE run_id = ?)")
        values.append(wanted.parent)
    if wanted.ancestor is not None:
        where.append(
            "r.run IN (WITH RECURSIVE below(run) AS ("
            "SELECT c.run FROM durable_runs AS c JOIN durable_runs AS p ON p.run = c.parent WHERE p.run_id = ? "
            "UNION SELECT c.run FROM durable_runs AS c JOIN below ON c.parent = below.run) SELECT run FROM below)"
        )
        values.append(wanted.ancestor)
    if wanted.batch is not None:
        where.append("r.batch = (SELECT batch FROM durable_batches WHERE batch_id = ?)")
        values.append(wanted.batch)
    for name, value in (wanted.labels or {}).items():
        where.append("CASE WHEN json_valid(r.labels) THEN json_extract(r.labels, ?) END = ?")
        values += [_json_path(name), value]
    for name, value in (wanted.attributes or {}).items():
        where.append(
            "CASE WHEN json_valid(r.attributes) THEN json_extract(r.attributes, ?) END IS json_extract(?, '$')"
        )
        values += [_json_path(name), json.dumps(value)]
    if wanted.waiting_for == "slot":
        where.append("r.run IN (SELECT s.run FROM durable_slots AS s WHERE s.granted_at IS NULL)")
    elif wanted.waiting_for is not None and wanted.waiting_for in WAITED_FOR:
        where.append("r.run IN (SELECT w.run FROM durable_waits AS w WHERE w.kind IN (SELECT value FROM json_each(?)))")
        values.append(json.dumps(WAITED_FOR[wanted.waiting_for]))
    elif wanted.waiting_for is not None:
        kind, colon, name = wanted.waiting_for.partition(":")
        kinds = [kind]
        if not (colon and kind in _NAMED):
            name, kinds = wanted.waiting_for, [*_NAMED]
        where.append(
            "r.run IN (SELECT w.run FROM durable_waits AS w "
            "WHERE w.kind IN (SELECT value FROM json_each(?)) AND w.name = ?)"
        )
        values += [json.dumps(kinds), name]
    label = _driving(conn, wanted.labels, is_narrow=is_narrow or is_short) if wanted.labels else None
    if wanted.text is not None:
        where.append("(instr(r.run_id, ?) OR instr(r.key, ?) OR instr(r.labels, ?) OR instr(r.reason, ?))")
        values += [wanted.text] * 4
    sql, by = _RUN_COLUMNS, "r.run"
    if label is not None:  # in this order, whatever SQLite would rather do
        sql, by = _COLUMNS + "FROM durable_labels AS l CROSS JOIN durable_runs AS r ON r.run = l.run\n", "l.run"
        where.append("l.name = ? AND l.value = ?")
        values += label
    if before is not None:
        where.append(f"{by} < ?")
        values.append(before)
    sql += ("WHERE " + " AND ".join(where) if where else "") + f" ORDER BY {by} DESC LIMIT ?"
    return [_run_row(row) for row in fetch_all(conn, sql, (*values, limit))]


def _driving(conn: sqlite3.Connection, labels: Mapping[str, str], *, is_narrow: bool) -> tuple[str, str] | None:
    """The one of *labels* whose runs are looked through; None if those that fit otherwise are, which *is_narrow*."""
    label, is_rare = rarest(conn, labels)
    return label if is_rare or not is_narrow else None


def _is_short_time(conn: sqlite3.Connection, since: float, until: float) -> bool:
    """Whether so few runs were created then that all of them can be looked at."""
    sql = "SELECT 1 FROM durable_runs WHERE created_at >= ? AND created_at < ? LIMIT 1 OFFSET ?"
    return conn.execute(sql, (since, until, _SHORT_TIME)).fetchone() is None


def _json_path(name: str) -> str:
    quoted = name.replace('"', "")
    return f'$."{quoted}"'


class WaitRow(NamedTuple):
    """A row of `durable_waits`."""

    position: str
    kind: str
    name: str | None
    target: str | None
    fire_at: float | None
    since: float


def waits_of(conn: sqlite3.Connection, run: int, limit: int = 100) -> list[WaitRow]:
    """What a run waits for, oldest first; that a callback may not be silent is part of that it waits for it."""
    rows = conn.execute(
        "SELECT w.position, w.kind, w.name, t.run_id, w.fire_at, w.since FROM durable_waits AS w "
        "LEFT JOIN durable_runs AS t ON t.run = w.target WHERE w.run = ? AND w.kind <> 'heartbeat' "
        "ORDER BY w.wait LIMIT ?",
        (run, limit),
    )
    return [WaitRow(*row) for row in rows]


def name_at(conn: sqlite3.Connection, run: int, position: str) -> str:
    """What the code calls what stands at *position* of a run; see `names_at`. "" for nothing."""
    return names_at(conn, run, [position])[position]


def names_at(conn: sqlite3.Connection, run: int, positions: Sequence[str]) -> dict[str, str]:
    """
    What the code calls what stands at each of the *positions* of a run: "eu in regions".

    Of a timer or group its name; else the member of a group that it is in, the name of that group, or both.
    """
    around = {outer for position in positions for outer in _outwards(position)}
    own: dict[str, str] = {}
    members: dict[str, Sequence[str]] = {}
    for position, kind, found in conn.execute(_NAMES, (run, json.dumps(sorted(around)))):
        if kind == _GROUP_ARRANGED:
            members[position] = read_list(found) or ()
        else:
            own[position] = str(found or "")
    return {position: _name_of(position, own, members) for position in positions}


#: Of the number of a member: there are no groups of so many.
_DIGITS: Final = 19


def _outwards(position: str) -> Iterator[str]:
    """*position*, and all that it stands in."""
    while position:
        yield position
        position = position.rpartition(".")[0]


def _name_of(position: str, own: Mapping[str, str], members: Mapping[str, Sequence[str]]) -> str:
    if own.get(position):
        return own[position]
    member = ""
    for inner in _outwards(position):
        outer, _, index = inner.rpartition(".")
        names = members.get(outer, ())
        # A damaged position has no such numbers, and the run that it belongs to is shown all the same.
        if not member and index.isdecimal() and len(index) < _DIGITS and int(index) < len(names):
            member = names[int(index)]
        if own.get(outer):
            return f"{member} in {own[outer]}" if member else f"in {own[outer]}"
    return member


def told_to_end(conn: sqlite3.Connection, run: int) -> tuple[str, str, float, bool] | None:
    """
    What a run has cancelled first of all that has not ended: position, name of the step or id of the child, since when.

    And whether it is a child.
    """
    row = conn.execute(_TOLD_TO_END, (run,)).fetchone()
    return None if row is None else (row[0], row[1], row[2], bool(row[3]))


def count_waits(conn: sqlite3.Connection, run: int) -> int:
    """How many rows a run waits for, as `waits_of` counts."""
    rows = conn.execute("SELECT count(*) FROM durable_waits WHERE run = ? AND kind <> 'heartbeat'", (run,))
    return int(rows.fetchone()[0])


def pending_signals(conn: sqlite3.Connection, run: int) -> dict[str, int]:
    """Names of signals recorded for a run, which it has not taken in yet, and how many of each."""
    rows = conn.execute(
        "SELECT name, count(*) FROM durable_inbox WHERE run = ? AND kind = ? GROUP BY name", (run, _SIGNAL_RECEIVED)
    )
    return dict(rows.fetchall())


def waiting_for_signal(conn: sqlite3.Connection, name: str) -> str | None:
    """The freed run that has waited longest for a signal or request called *name*, if any."""
    row = conn.execute(
        "SELECT r.run_id FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.run "
        "WHERE w.kind IN ('signal', 'request') AND w.name = ? AND r.status = 'waiting' ORDER BY w.wait LIMIT 1",
        (name,),
    ).fetchone()
    return None if row is None else str(row[0])


class SlotRow(NamedTuple):
    """A place in the line of a limit."""

    position: str
    name: str
    key: str
    since: float
    due_at: float | None
    ahead: int
    #: Id of the run that has been inside for longest.
    holder: str | None


def slots_awaited(conn: sqlite3.Connection, run: int) -> list[SlotRow]:
    """The slots that a run waits for, oldest first."""
    rows = conn.execute(
        "SELECT s.position, s.name, s.key, s.since, s.due_at, "  # noqa: S608 - constants
        "(SELECT count(*) FROM durable_slots AS o JOIN durable_runs AS r ON r.run = o.run WHERE o.name = s.name "
        "AND o.key = s.key AND o.granted_at IS NULL AND o.aside = 0 AND o.slot < s.slot "
        f"AND r.status NOT IN {HELD_SQL} AND NOT {IN_PAUSED_QUEUE_SQL}), "
        "(SELECT r.run_id FROM durable_slots AS h JOIN durable_runs AS r ON r.run = h.run WHERE h.name = s.name "
        "AND h.key = s.key AND h.granted_at IS NOT NULL ORDER BY h.granted_at, h.slot LIMIT 1) "
        "FROM durable_slots AS s WHERE s.run = ? AND s.granted_at IS NULL ORDER BY s.slot LIMIT 100",
        (run,),
    )
    return [SlotRow(*row) for row in rows]


def ahead_in_limit(conn: sqlite3.Connection, run: int, position: str) -> int:
    """How many wait for the slot of a limit that are let in before that command of a run."""
    return next((slot.ahead for slot in slots_awaited(conn, run) if slot.position == position), 0)


class QueueRow(NamedTuple):
    """A queue as `engine.queue(name).info()` needs it."""

    depth: int
    running: int
    oldest_ready_at: float | None


def queue_row(conn: sqlite3.Connection, queue: str) -> QueueRow:
    """Counts of one queue."""
    depth, oldest = conn.execute(
        "SELECT count(*), min(ready_at) FROM durable_runs "
        "WHERE queue = ? AND ready_at IS NOT NULL AND status = 'pending'",
        (queue,),
    ).fetchone()
    (running,) = conn.execute(
        "SELECT count(*) FROM durable_runs WHERE queue = ? AND ready_at IS NOT NULL AND status = 'running'", (queue,)
    ).fetchone()
    return QueueRow(depth, running, oldest)


def place_in_line(conn: sqlite3.Connection, row: RunRow) -> tuple[int, int]:
    """How many runs of its queue wait to begin before this one does, and how many in all: see `LONGEST_LINE`."""
    (ahead,) = conn.execute(_AHEAD, {"run": row.run, "most": LONGEST_LINE}).fetchone()
    (length,) = conn.execute(_LINE, {"run": row.run, "most": LONGEST_LINE + 1}).fetchone()
    return ahead, length


def paused_queues(conn: sqlite3.Connection) -> list[str]:
    """The queues that are paused."""
    return [name for (name,) in fetch_all(conn, "SELECT name FROM durable_queues WHERE paused_at IS NOT NULL")]


class LimitRow(NamedTuple):
    """A limit under one of its keys, at which somebody is."""

    name: str
    key: str
    #: Runs, steps and attempts that hold a slot, and that wait for one.
    inside: int
    waiting: int
    #: Since when the first of those waits.
    oldest_since: float | None


def limit_rows(conn: sqlite3.Connection, limit: int = -1) -> list[LimitRow]:
    """Limits at which somebody is, those with most who wait first."""
    rows = conn.execute(
        "SELECT name, key, count(granted_at), count(*) - count(granted_at) AS waiting, "
        "min(CASE WHEN granted_at IS NULL THEN since END) FROM durable_slots "
        "GROUP BY name, key ORDER BY waiting DESC, name, key LIMIT ?",
        (limit,),
    )
    return [LimitRow(*row) for row in rows]


#: What runs can be counted by, beside labels.
COUNTED_BY: Final = ("workflow", "version", "kind", "status", "queue")
_COUNTED: Final = """
CASE ? WHEN 'workflow' THEN workflow WHEN 'version' THEN version WHEN 'kind' THEN sort WHEN 'status' THEN status
WHEN 'queue' THEN queue ELSE CASE WHEN json_valid(labels) THEN json_extract(labels, ?) END END
"""


def counts_by(conn: sqlite3.Connection, names: Sequence[str]) -> list[tuple[tuple[Any, ...], int]]:
    """How many runs have which values of what *names* say: those of `COUNTED_BY`, and "label:NAME" of labels."""
    values: list[str | None] = []
    for name in names:
        values += [name, None if name in COUNTED_BY else _json_path(name.removeprefix("label:"))]
    terms = ", ".join([_COUNTED] * len(names))
    grouped = ") AS counted, count(*) FROM durable_runs GROUP BY counted ORDER BY counted"
    sql = "SELECT json_array(" + terms + grouped
    return [(tuple(json.loads(counted)), count) for counted, count in conn.execute(sql, values)]


def counts(conn: sqlite3.Connection) -> dict[str, int]:
    """Runs by status, and the sizes of the other tables."""
    found: dict[str, int] = {}
    for _, status, runs in run_counts(conn):
        found[status] = found.get(status, 0) + runs
    found["events"] = conn.execute("SELECT coalesce(max(id), 0) FROM durable_events").fetchone()[0]
    found["waits"] = conn.execute("SELECT count(*) FROM durable_waits").fetchone()[0]
    found["waiting_for_limits"] = conn.execute(
        "SELECT count(*) FROM durable_slots WHERE granted_at IS NULL"
    ).fetchone()[0]
    pages, size = conn.execute("PRAGMA page_count").fetchone()[0], conn.execute("PRAGMA page_size").fetchone()[0]
    found["bytes"] = pages * size
    return found
