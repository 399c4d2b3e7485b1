"""
Slots of named limits: who is inside, who waits, in which order. Runs on the writer's thread.

Each slot, and each place in line, is a row; the order of arrival is the row's number. Whoever
releases a slot deletes its row and lets the next in, in one transaction, so a kill at any point
neither leaks a slot nor gives it twice, and nobody polls. Rates are an exact log of grants; if
the rate is what stops the first in line, its row says when it is due, and the timers look there.

Numbers are rows too (`durable_limits`), written by the code that opens the file: a waiting step
needs none of its code to be let in. Runs that are paused or blocked, or whose queue is paused, are passed over,
and keep their place. What is returned is who was let in, as (run, position); `waking.let_in` tells them.

A function in a thread cannot be cut off. One that outlives its attempt keeps the slot (`outlive`) until it has returned
(`returned`), whatever becomes of its run; an engine that opens the file frees those of processes that are gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from durable._core.journal.events import SlotGranted
from durable._core.light_frozen import light_frozen
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.run_rows import HELD_SQL, IN_PAUSED_QUEUE_SQL
from durable._shell.rows.rows import Damaged, Effects

#: (run, position) of those who were let in; the position is '' where the slot is the run's own.
Granted: TypeAlias = list[tuple[int, str]]

#: Aged grants that are deleted with each new one: more than come, so that the log stays short.
_PRUNED = 20
#: Turns of one commit differ by less than so many seconds; grants further ahead are of a clock that was set back.
_AHEAD = 1.0

_NEXT = f"""
SELECT s.slot, s.run, s.position FROM durable_slots AS s JOIN durable_runs AS r ON r.run = s.run
WHERE s.name = ? AND s.key = ? AND s.granted_at IS NULL AND s.aside = 0 AND r.status NOT IN {HELD_SQL}
    AND NOT {IN_PAUSED_QUEUE_SQL}
ORDER BY s.slot LIMIT 1
"""  # noqa: S608 - a constant

#: A run that was woken for a slot which it has not any more: it waits as before.
_FREED_AGAIN = """
UPDATE durable_runs SET status = CASE status WHEN 'running' THEN 'waiting' ELSE status END, ready_at = NULL
WHERE run = :run AND (status = 'running' OR (status = 'pending' AND started_at IS NULL))
    AND EXISTS (SELECT 1 FROM durable_slots AS s WHERE s.run = :run AND s.granted_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM durable_inbox AS i WHERE i.run = :run AND i.wakes = 1)
"""

_TAKEN_BACK = """
UPDATE durable_slots SET outlived = 0 WHERE run = ? AND position = ? AND name = ? AND key = ? AND outlived = 1
"""
_REGISTER = """
INSERT INTO durable_limits (name, concurrency, count, per, on_conflict) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
    concurrency = iif(own IS NULL, excluded.concurrency, concurrency), count = iif(own IS NULL, excluded.count, count),
    per = iif(own IS NULL, excluded.per, per), on_conflict = excluded.on_conflict,
    own = iif(own IS NULL, NULL, json_array(excluded.concurrency, excluded.count, excluded.per))
"""

_NO_NUMBERS = """
UPDATE durable_limits SET own = NULL
WHERE own IS NOT NULL AND (concurrency < 1 OR count < 1 OR per <= 0 OR (count IS NULL) <> (per IS NULL))
RETURNING name
"""

_SET_ASIDE = """
UPDATE durable_slots SET aside = :aside WHERE aside <> :aside AND granted_at IS NULL
    AND EXISTS (SELECT 1 FROM durable_runs AS r WHERE r.run = durable_slots.run AND r.queue = :queue)
"""

_IS_PAUSED = "SELECT EXISTS (SELECT 1 FROM durable_queues WHERE name = ? AND paused_at IS NOT NULL)"


@light_frozen
class _Numbers:
    concurrency: int | None
    count: int | None
    per: float
    on_conflict: str


def register(conn: sqlite3.Connection, rows: Iterable[Sequence[object]]) -> None:
    """Write down the numbers of limits, as `limits.numbers` gives them. Those that were changed at run time stay."""
    conn.executemany(_REGISTER, rows)


def forget_damaged(conn: sqlite3.Connection) -> list[Damaged]:
    """Let the code's numbers hold again for limits whose changed ones are none, and would let in nobody, ever."""
    names = fetch_all(conn, _NO_NUMBERS)
    return [Damaged("limits", name, "its numbers are none. Those of the code hold: change them") for (name,) in names]


def on_conflict(conn: sqlite3.Connection, name: str) -> str:
    """What a run does that finds no slot of *name* free."""
    numbers = _numbers(conn, name)
    return "wait" if numbers is None else numbers.on_conflict


def ask(conn: sqlite3.Connection, run: int, position: str, name: str, key: str, at: float, effects: Effects) -> Granted:
    """
    Stand in line for a slot.

    A row that is there keeps its place: that of an interrupted attempt is first in line for its
    next one. A step of a run that itself has a slot of the limit goes in with it, since it
    would wait for its own run for ever.
    """
    found = conn.execute(
        "SELECT slot, name, key FROM durable_slots WHERE run = ? AND position = ?", (run, position)
    ).fetchone()
    granted: Granted = []
    if conn.execute(_TAKEN_BACK, (run, position, name, key)).rowcount:  # its next attempt, which waits for the function
        return [(run, position)]
    if found is not None and found[1:] != (name, key):  # the code has another limit now
        granted = release(conn, run, position, at, effects)
        found = None
    if position and _has(conn, run, name, key):
        return [*granted, (run, position)]
    if found is not None:
        conn.execute("UPDATE durable_slots SET granted_at = NULL, due_at = NULL WHERE slot = ?", (found[0],))
    else:
        conn.execute(
            "INSERT INTO durable_slots (name, key, run, position, since) VALUES (?, ?, ?, ?, ?)",
            (name, key, run, position, at),
        )
    return granted + grant_next(conn, name, key, at, effects)


def _has(conn: sqlite3.Connection, run: int, name: str, key: str) -> bool:
    own = conn.execute(
        "SELECT 1 FROM durable_slots WHERE run = ? AND position = '' AND name = ? AND key = ? "
        "AND granted_at IS NOT NULL",
        (run, name, key),
    ).fetchone()
    return own is not None


def release(conn: sqlite3.Connection, run: int, position: str, at: float, effects: Effects) -> Granted:
    """Give up a slot, or a place in line."""
    gone = conn.execute(
        "DELETE FROM durable_slots WHERE run = ? AND position = ? AND outlived = 0 RETURNING name, key",
        (run, position),
    ).fetchall()
    return _grant_all(conn, gone, at, effects)


def release_runs(conn: sqlite3.Connection, runs: Iterable[int], at: float, effects: Effects) -> Granted:
    """Give up whatever *runs*, which have ended, hold or wait for."""
    if not conn.execute("SELECT EXISTS (SELECT 1 FROM durable_slots)").fetchone()[0]:
        return []
    gone: list[tuple[str, str]] = []
    for run in runs:
        gone += conn.execute(
            "DELETE FROM durable_slots WHERE run = ? AND outlived = 0 RETURNING name, key", (run,)
        ).fetchall()
    return _grant_all(conn, gone, at, effects)


def outlive(conn: sqlite3.Connection, run: int, position: str, *, is_job: bool) -> None:
    """The function of the attempt at *position* outlives it; that of a job has the slot of its run, too."""
    conn.execute(
        "UPDATE durable_slots SET outlived = 1 WHERE run = ? AND position IN (?, ?) AND granted_at IS NOT NULL",
        (run, position, "" if is_job else position),
    )


def returned(
    conn: sqlite3.Connection, run: int, position: str, at: float, effects: Effects, *, is_job: bool
) -> Granted:
    """That function has returned."""
    gone = conn.execute(
        "DELETE FROM durable_slots WHERE run = ? AND position IN (?, ?) AND outlived = 1 RETURNING name, key",
        (run, position, "" if is_job else position),
    ).fetchall()
    return _grant_all(conn, gone, at, effects)


def free_outlived(
    conn: sqlite3.Connection, running: Collection[tuple[str, str]], at: float, effects: Effects
) -> Granted:
    """Free the slots of all functions but those that still run, as (run id, position)."""
    rows = conn.execute(
        "SELECT s.slot, s.name, s.key, r.run_id, s.position FROM durable_slots AS s "
        "LEFT JOIN durable_runs AS r ON r.run = s.run WHERE s.outlived = 1"
    ).fetchall()
    runs = {run_id for run_id, _ in running}
    gone = [row for row in rows if not ((row[3], row[4]) in running or (not row[4] and row[3] in runs))]
    conn.executemany("DELETE FROM durable_slots WHERE slot = ?", [row[:1] for row in gone])
    return _grant_all(conn, [(row[1], row[2]) for row in gone], at, effects)


def step_aside(
    conn: sqlite3.Connection,
    run: int,
    at: float,
    effects: Effects,
    *,
    idle: Collection[str] = (),
    under_way: Collection[str] | None = None,
) -> Granted:
    """
    Let others pass a run that is paused or blocked; it keeps its places in line.

    A grant that it has not taken in yet is taken back; so is the slot that it is to hold from its beginning on, if it
    has not begun. Attempts at *idle* positions, which were cut
    off, give their slots up, and ask again when they begin again; where it is known which attempts
    are *under_way*, all others do.
    """
    rows = conn.execute(
        "SELECT slot, name, key, position, granted_at FROM durable_slots WHERE run = ? AND outlived = 0", (run,)
    ).fetchall()
    for slot, _, _, position, granted_at in rows:
        if not position and granted_at is not None and _is_unborn(conn, run):
            conn.execute("UPDATE durable_slots SET granted_at = NULL WHERE slot = ?", (slot,))
        if not position or granted_at is None or (under_way is not None and position in under_way):
            continue
        taken_back = conn.execute(
            "DELETE FROM durable_inbox WHERE run = ? AND kind = ? AND position = ?", (run, SlotGranted.kind, position)
        )
        if taken_back.rowcount:
            conn.execute("UPDATE durable_slots SET granted_at = NULL WHERE slot = ?", (slot,))
        elif under_way is not None or position in idle:
            conn.execute("DELETE FROM durable_slots WHERE slot = ?", (slot,))
    return _grant_all(conn, [(row[1], row[2]) for row in rows], at, effects)


def come_back(conn: sqlite3.Connection, run: int, at: float, effects: Effects) -> Granted:
    """Let a run continue waiting that had stepped aside."""
    rows = conn.execute(
        "SELECT name, key FROM durable_slots WHERE run = ? AND position <> '' AND granted_at IS NULL", (run,)
    ).fetchall()
    return _grant_all(conn, rows, at, effects)


def leave_paused_queue(
    conn: sqlite3.Connection, queue: str, at: float, effects: Effects, *, active: Collection[int] | None
) -> Granted:
    """
    Let others pass the runs of a paused queue that are not *active*: they keep their places in line, and hold nothing.

    None is active where an engine opens the file: then attempts that were cut off give their slots up, too.
    A queue that was resumed meanwhile is left as it is: nothing would let its runs back in line.
    """
    if not conn.execute(_IS_PAUSED, (queue,)).fetchone()[0]:
        return []
    rows = conn.execute(
        "SELECT DISTINCT s.run FROM durable_slots AS s JOIN durable_runs AS r ON r.run = s.run "
        "WHERE r.queue = ? AND s.granted_at IS NOT NULL",
        (queue,),
    ).fetchall()
    granted: Granted = []
    for (run,) in rows:
        if active is not None and run in active:
            continue
        granted += step_aside(conn, run, at, effects, under_way=() if active is None else None)
        conn.execute(_FREED_AGAIN, {"run": run})
        effects.arrived.add(run)  # what memory knows of it is stale
    # So that a grant need not pass thousands of them one by one.
    conn.execute(_SET_ASIDE, {"queue": queue, "aside": 1})
    return granted


def _is_unborn(conn: sqlite3.Connection, run: int) -> bool:
    (started_at,) = conn.execute("SELECT started_at FROM durable_runs WHERE run = ?", (run,)).fetchone()
    return started_at is None


def come_back_to_queue(conn: sqlite3.Connection, queue: str, at: float, effects: Effects) -> Granted:
    """Let the runs of a queue continue waiting that was paused."""
    conn.execute(_SET_ASIDE, {"queue": queue, "aside": 0})
    rows = conn.execute(
        "SELECT DISTINCT s.name, s.key FROM durable_slots AS s JOIN durable_runs AS r ON r.run = s.run "
        "WHERE r.queue = ? AND s.granted_at IS NULL",
        (queue,),
    ).fetchall()
    return _grant_all(conn, rows, at, effects)


def runs_to_replace(conn: sqlite3.Connection, name: str, key: str) -> list[int]:
    """The oldest runs inside or in line that are too many for the limit. Each is named once."""
    numbers = _numbers(conn, name)
    if numbers is None or numbers.concurrency is None:
        return []
    rows = conn.execute(
        "SELECT slot, run FROM durable_slots "
        "WHERE name = ? AND key = ? AND position = '' AND leaving = 0 ORDER BY slot",
        (name, key),
    ).fetchall()
    excess = rows[: max(0, len(rows) - numbers.concurrency)]
    conn.executemany("UPDATE durable_slots SET leaving = 1 WHERE slot = ?", [(slot,) for slot, _ in excess])
    return [run for _, run in excess]


def has_room(conn: sqlite3.Connection, name: str, key: str, at: float) -> bool:
    """Whether who asks now is let in at once."""
    numbers = _numbers(conn, name)
    if numbers is None:
        return True
    if conn.execute(_NEXT, (name, key)).fetchone() is not None:
        return False
    return not _is_full(conn, name, key, numbers) and _due_at(conn, name, key, numbers, at) is None


def grant_all(conn: sqlite3.Connection, at: float, effects: Effects) -> Granted:
    """Let in whom the numbers of today let in: at the opening, when they may be others than before."""
    rows = conn.execute("SELECT DISTINCT name, key FROM durable_slots WHERE granted_at IS NULL").fetchall()
    return _grant_all(conn, rows, at, effects)


def grant_due(conn: sqlite3.Connection, now: float, limit: int, effects: Effects) -> Granted:
    """Let in whom a rate made wait until now, in up to *limit* lines."""
    rows = conn.execute(
        "SELECT DISTINCT name, key FROM durable_slots WHERE due_at <= ? LIMIT ?", (now, limit)
    ).fetchall()
    conn.executemany(
        "UPDATE durable_slots SET due_at = NULL WHERE name = ? AND key = ? AND due_at <= ?",
        [(name, key, now) for name, key in rows],
    )
    granted = _grant_all(conn, rows, now, effects)
    due: float | None = conn.execute("SELECT min(due_at) FROM durable_slots WHERE due_at IS NOT NULL").fetchone()[0]
    if due is not None:
        effects.fires(due)
    return granted


def _grant_all(conn: sqlite3.Connection, lines: Iterable[tuple[str, str]], at: float, effects: Effects) -> Granted:
    granted: Granted = []
    for name, key in dict.fromkeys(lines):
        granted += grant_next(conn, name, key, at, effects)
    return granted


def grant_next(conn: sqlite3.Connection, name: str, key: str, at: float, effects: Effects) -> Granted:
    """Let in as many of a line as there is room for, first come first served."""
    numbers = _numbers(conn, name)
    granted: Granted = []
    if numbers is None:  # recorded while nobody executed this file: the engine that opens it knows the numbers
        return granted
    while not _is_full(conn, name, key, numbers):
        row = conn.execute(_NEXT, (name, key)).fetchone()
        if row is None:
            break
        slot, run, position = row
        due_at = _due_at(conn, name, key, numbers, at)
        if due_at is not None:
            conn.execute("UPDATE durable_slots SET due_at = ? WHERE slot = ?", (due_at, slot))
            effects.fires(due_at)
            break
        conn.execute("UPDATE durable_slots SET granted_at = ?, due_at = NULL WHERE slot = ?", (at, slot))
        if numbers.count is not None:
            _note_grant(conn, name, key, numbers, at)
        granted.append((run, position))
    return granted


def _numbers(conn: sqlite3.Connection, name: str) -> _Numbers | None:
    row = conn.execute(
        "SELECT concurrency, count, coalesce(per, 0), on_conflict FROM durable_limits WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else _Numbers(*row)


def _is_full(conn: sqlite3.Connection, name: str, key: str, numbers: _Numbers) -> bool:
    if numbers.concurrency is None:
        return False
    (held,) = conn.execute(
        "SELECT count(*) FROM durable_slots WHERE name = ? AND key = ? AND granted_at IS NOT NULL", (name, key)
    ).fetchone()
    return bool(held >= numbers.concurrency)


def _due_at(conn: sqlite3.Connection, name: str, key: str, numbers: _Numbers, at: float) -> float | None:
    """When the rate lets the next one in; None is now."""
    if numbers.count is None:
        return None
    conn.execute("UPDATE durable_grants SET at = ? WHERE name = ? AND key = ? AND at > ?", (at, name, key, at + _AHEAD))
    row = conn.execute(
        "SELECT at FROM durable_grants WHERE name = ? AND key = ? ORDER BY at DESC LIMIT 1 OFFSET ?",
        (name, key, numbers.count - 1),
    ).fetchone()
    if row is None or row[0] + numbers.per <= at:
        return None
    due_at: float = row[0] + numbers.per
    return due_at


def _note_grant(conn: sqlite3.Connection, name: str, key: str, numbers: _Numbers, at: float) -> None:
    conn.execute("INSERT INTO durable_grants (name, key, at) VALUES (?, ?, ?)", (name, key, at))
    conn.execute(
        "DELETE FROM durable_grants WHERE rowid IN "
        "(SELECT rowid FROM durable_grants WHERE name = ? AND at < ? ORDER BY at LIMIT ?)",
        (name, at - numbers.per - _AHEAD, _PRUNED),
    )
