"""
Runs into a journal: with their ids, events, and all that they need to continue. One transaction.

A run that had not ended arrives paused, since elsewhere it may be going on: nothing runs twice by
surprise, and `resume` resumes it here. What it waits for is written as it was; a child that is not
here counts as cancelled once its parent is resumed. Numbers, places in line and checksums are this file's own.

What is imported may come from anybody (see `export_reader`), so whatever the scheduler will later
read without a look is checked here: ties between runs that would go in circles, ids that are
taken, runs that a recorded parent would start a second time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from durable._core.journal import history
from durable._core.journal.columns import from_row
from durable._core.journal.events import (
    ChildAwaited,
    ChildCancelled,
    ChildJoined,
    ChildStarted,
    SignalReceived,
    SlotGranted,
)
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._core.statuses import ENDS
from durable._shell.claims import slots
from durable._shell.claims.keys import holder_of
from durable._shell.claims.places import PlacesFromFile
from durable._shell.importing.import_ties import Ties
from durable._shell.reads.event_rows import load_history, read_end
from durable._shell.reads.run_rows import RunRow, last_of_chain, run_by_id
from durable._shell.rows.rows import Effects, RunState, labels_json
from durable._shell.rows.templates import checked_json
from durable._shell.storage.bulk import write_many
from durable._shell.storage.run_counts import count_ended
from durable._shell.storage.run_labels import note_labels
from durable._shell.writes.feeds import feed
from durable._shell.writes.run_writes import INSERT_WAITS, write_rows
from durable._shell.writes.waiters import AwaitedEnd, tell_waiters
from durable._shell.writes.wakeups import INSERT_ITEMS, item_row, let_in, put_item
from durable.errors import RunExistsError, UsageError

#: Why a run that was imported does not proceed.
REASON: Final = "imported; resume it to let it continue"
#: Ids that an error names.
_NAMED: Final = 5

_INSERT_RUN = """
INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, place, ready_at, key, key_live,
    key_until, arguments, parent, position, labels, attributes, reason, successor, retry, timeout, expires_at,
    follows, follow_ups, limit_name, limit_key, created_at, started_at, ended_at, unread, key_ttl,
    abandoned, on_parent_end, compensated, forked_from)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def import_runs(
    conn: sqlite3.Connection,
    effects: Effects,
    *,
    histories: Sequence[RunHistory],
    path: str,
    now: float,
    allocate: Callable[[], int],
) -> tuple[list[str], list[str]]:
    """
    Write runs that are not here yet: the ids of those, and of those that are here already.

    Raises:
        RunExistsError: A run of the same id is here, with other events. Nothing was written.
        UsageError: The runs contradict each other, or those that are here. Nothing was written.
    """
    present = find_present(conn, path, histories)
    new = [each for each in each_once(histories) if each.run.run_id not in present]
    ties = Ties(conn, {each.run.run_id: allocate() for each in new})
    work = _Import(conn, effects, now, allocate, ties)
    for each in new:
        work.write(each)
    for each in new:
        ties.tie(each)
    ties.check(new)
    for each in new:
        work.arrive(each)
        if each.run.status not in ENDS:
            work.wait(each)
    for each in new:
        if each.run.successor is None:
            work.end_waits_for(each)
    return [each.run.run_id for each in new], sorted(present)


def find_present(conn: sqlite3.Connection, path: str, histories: Sequence[RunHistory]) -> set[str]:
    """
    The ids of those that are here already, event for event.

    Raises:
        RunExistsError: Some are here with other events.
    """
    equal: set[str] = set()
    others: list[str] = []
    for each in histories:
        row = run_by_id(conn, each.run.run_id)
        if row is None:
            continue
        if (row.workflow, row.version) == (each.run.workflow, each.run.version) and _is_equal(conn, path, row, each):
            equal.add(row.run_id)
        else:
            others.append(row.run_id)
    if others:
        more = f" (so do {', '.join(others[1:_NAMED])}{', and more' if len(others) > _NAMED else ''})"
        reason = f"it has other events than the one to be imported{more if others[1:] else ''}; nothing was imported"
        raise RunExistsError(others[0], reason)
    return equal


def each_once(histories: Sequence[RunHistory]) -> list[RunHistory]:
    """
    *histories* without repetitions: several files may share runs.

    Raises:
        UsageError: Two of one id have different events.
    """
    found: dict[str, RunHistory] = {}
    for each in histories:
        if found.setdefault(each.run.run_id, each).events != each.events:
            msg = f"run {each.run.run_id!r} is to be imported twice, with different events"
            raise UsageError(msg)
    return list(found.values())


def _is_equal(conn: sqlite3.Connection, path: str, row: RunRow, other: RunHistory) -> bool:
    (size,) = conn.execute("SELECT coalesce(max(seq), 0) FROM durable_events WHERE run = ?", (row.run,)).fetchone()
    return bool(size == len(other.events)) and load_history(conn, path, row) == other.events


class _Import:
    """One import in progress."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        effects: Effects,
        now: float,
        allocate: Callable[[], int],
        ties: Ties,
    ) -> None:
        self._conn, self._effects, self._now, self._allocate = conn, effects, now, allocate
        self._ties = ties
        self._places = PlacesFromFile(conn)

    def write(self, each: RunHistory) -> None:
        """The row of a run, its events, notes and accepted signals."""
        conn, run, number = self._conn, each.run, self._ties.number_of(each)
        ended = run.status in ENDS
        started = each.started
        follow_ups = None if run.follow_ups is None else checked_json(run.follow_ups, f"follow-ups of {run.run_id!r}")
        conn.execute(
            _INSERT_RUN,
            (
                number,
                run.run_id,
                run.workflow,
                run.version,
                run.kind,
                run.status if ended else "paused",
                run.queue,
                run.priority,
                0.0 if ended else self._places.place(run.queue, run.workflow, None, run.labels, started.at),
                run.key,
                self._live_key(run),
                run.key_until,
                run.arguments,
                None,
                run.position,
                labels_json(run.labels),
                run.attributes,
                run.reason if ended else REASON,
                run.successor,
                run.retry,
                _timeout_of(each),
                run.expires_at,
                None,
                follow_ups,
                run.limit,
                run.limit_key,
                run.created_at,
                run.started_at,
                run.ended_at,
                json.dumps(dict(run.unread), ensure_ascii=False, sort_keys=True) if run.unread else None,
                run.key_ttl,
                json.dumps(dict(run.abandoned), ensure_ascii=False) if run.abandoned else None,
                run.on_parent_end,
                history.is_compensated(each.events),
                history.forked_from(each.events),
            ),
        )
        if ended:
            count_ended(conn, [(run.workflow, run.status)])
        if run.labels:
            note_labels(conn, [number])
        write_rows(conn, RunState(number, run.run_id, run.workflow, run.queue).append(each.events))
        conn.executemany(
            "INSERT OR REPLACE INTO durable_notes (run, position, name, value, at) VALUES (?, ?, ?, ?, ?)",
            [(number, note.position, note.name, note.value, note.at) for note in each.notes],
        )
        conn.executemany(
            "INSERT OR IGNORE INTO durable_dedup (run, dedup) VALUES (?, ?)",
            [(number, dedup) for dedup in each.dedups],
        )

    def _live_key(self, run: RunFacts) -> str | None:
        """The key, while it is the run's own; another run of this file may have it."""
        if run.key is None or not run.key_live:
            return None
        return run.key if holder_of(self._conn, run.key) is None else None

    # --- what runs wait for ---------------------------------------------------------------------------------

    def arrive(self, each: RunHistory) -> None:
        """The rows of what has arrived, and no turn has taken in; of a run that has ended, signals."""
        conn, number = self._conn, self._ties.number_of(each)
        # Granted slots are of the other file, and asked for again in `wait`.
        write_many(
            conn,
            INSERT_ITEMS,
            [
                item_row(conn, number, event, wakes=not isinstance(event, SignalReceived), name=each.owed.get(index))
                for index, event in enumerate(each.pending)
                if not isinstance(event, SlotGranted)
            ],
        )

    def wait(self, each: RunHistory) -> None:
        """The rows of what an open run waits for."""
        conn, effects, number = self._conn, self._effects, self._ties.number_of(each)
        self._write_feeds(number, each)
        ended = {row.run: row for row in self._write_waits(number, each)}
        for position, (name, key) in history.open_waits(each.events).slots.items():
            let_in(conn, slots.ask(conn, number, position, name, key, self._now, effects), self._now, effects)
        for row in ended.values():
            self._tell(row.run, row.run_id, row.ended_at)

    def end_waits_for(self, each: RunHistory) -> None:
        """A parent that came before its child waits for it, from now on."""
        run, number = each.run, self._ties.number_of(each)
        waiting = self._conn.execute(
            "UPDATE durable_waits SET target = ? WHERE run = ? AND position = ? AND kind = 'child' AND target IS NULL",
            (number, self._ties.number(run.parent), run.position),
        )
        if waiting.rowcount and run.status in ENDS:
            self._tell(number, run.run_id, run.ended_at)

    def _tell(self, number: int, run_id: str, ended_at: float | None) -> None:
        """A run that had ended when it, or the run that waits for it, was imported."""
        end = AwaitedEnd(number, run_id, *read_end(self._conn, number), ended_at or self._now)
        tell_waiters(self._conn, [end], self._effects)

    def _write_waits(self, number: int, each: RunHistory) -> Iterator[RunRow]:
        """Write the waits; the runs waited for that have ended."""
        for wait in each.waits:
            found = None if wait.target is None else last_of_chain(self._conn, wait.target)
            target = None if found is None else found.run
            if wait.kind == "code" or (wait.kind == "start" and wait.target is not None and target is None):
                continue  # it is paused, not blocked; and behind nobody here
            if wait.kind == "deadline" and _counts_later(each):
                continue
            row = (number, wait.group, wait.position, wait.kind, wait.wake_on, wait.name, target, wait.fire_at)
            write_many(self._conn, INSERT_WAITS, [(*row, wait.since)])
            if wait.fire_at is not None:
                self._effects.fires(wait.fire_at)
            if found is not None and found.status in ENDS:
                yield found

    def _write_feeds(self, number: int, each: RunHistory) -> None:
        for window in each.feeds:
            template = checked_json(window.template, f"window at {window.position} of {each.run.run_id!r}")
            self._conn.execute(
                "INSERT INTO durable_feeds (run, position, size, grp, wake_on, template, tolerate) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, window.position, window.size, window.group, window.wake_on, template, window.tolerate),
            )
            self._conn.executemany(
                "INSERT OR IGNORE INTO durable_feed_items (run, position, item, child, child_id, value) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, window.position, each.item, self._allocate(), each.child, each.value)
                    for each in window.items
                ],
            )


def _counts_later(each: RunHistory) -> bool:
    """Whether a deadline of *each* is one of the releases whose timeouts counted from the start of a run."""
    return each.run.kind == "job" or each.run.started_at is None


def _timeout_of(each: RunHistory) -> float | None:
    for wait in each.waits:
        if wait.kind == "deadline" and wait.fire_at is not None and _counts_later(each):
            return wait.fire_at - wait.since
    return each.run.timeout


def give_up_absent(conn: sqlite3.Connection, run: int, now: float, effects: Effects) -> None:
    """A run that was imported is resumed: children that were not imported count as cancelled."""
    absent = conn.execute(
        "DELETE FROM durable_waits WHERE run = ? AND kind = 'child' AND target IS NULL RETURNING position, name", (run,)
    ).fetchall()
    for position, feeds in absent:
        row = conn.execute(
            "SELECT kind, position, body, value, at FROM durable_events "
            "WHERE run = ? AND position = ? AND kind IN (?, ?, ?) ORDER BY seq DESC LIMIT 1",
            (run, position, ChildJoined.kind, ChildStarted.kind, ChildAwaited.kind),
        ).fetchone()
        run_id = "" if row is None else getattr(from_row(*row), "run_id", "")
        if feeds is not None:
            feed(conn, run, feeds, 0, succeeded=False, at=now, effects=effects)
        event = ChildCancelled(position, run_id, "its run is not in this journal: it was not imported", now)
        put_item(conn, run, event, effects, wakes=True)
