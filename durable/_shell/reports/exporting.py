"""
Runs out of a journal, as objects and as the lines of a file. Synchronous: what it needs is a connection.

All runs of one export are read in one transaction, so that parents and children fit together; it holds
up nobody, but keeps the WAL from being emptied until the last line is taken. Events are checked against
their checksums on the way out: what is exported is what was recorded.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

from durable._core.codec.codec import Codec
from durable._core.journal.columns import from_row
from durable._core.journal.events import SignalReceived
from durable._core.recorded.export_format import (
    ExportedFeed,
    ExportedWait,
    FeedItem,
    Header,
    RunFacts,
    RunHistory,
    StepNote,
    export_lines,
    header_line,
)
from durable._core.recorded.export_reader import read_export
from durable._core.recorded.export_values import MAX_LINE_BYTES
from durable._core.recorded.redaction import Redact, redacted
from durable._shell.reads.event_rows import load_history
from durable._shell.reads.run_rows import RunRow, require_run, run_by_id
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.errors import JournalAccessError, RunNotFoundError

_FACTS = """
SELECT key_live IS NOT NULL, coalesce(key_until, started_at + key_ttl), key_ttl, arguments, limit_name, limit_key,
    retry, timeout, expires_at, follow_ups, on_parent_end
FROM durable_runs WHERE run = ?
"""
_PENDING = """
SELECT i.kind, i.position, i.body, coalesce(i.value, p.value), i.at, CASE WHEN i.kind = ? THEN NULL ELSE i.name END
FROM durable_inbox AS i LEFT JOIN durable_payloads AS p ON p.payload = i.payload WHERE i.run = ? ORDER BY i.item
"""
_WAITS = """
SELECT w.grp, w.position, w.kind, w.wake_on, w.name, t.run_id, w.fire_at, w.since
FROM durable_waits AS w LEFT JOIN durable_runs AS t ON t.run = w.target WHERE w.run = ? ORDER BY w.wait
"""
_TREE = """
WITH RECURSIVE tree(run) AS (
    SELECT run FROM durable_runs WHERE run_id = ?
    UNION
    SELECT r.run FROM tree JOIN durable_runs AS r ON r.parent = tree.run OR r.follows = tree.run
        OR r.run_id = (SELECT o.successor FROM durable_runs AS o WHERE o.run = tree.run)
)
SELECT r.run_id, r.run FROM tree JOIN durable_runs AS r ON r.run = tree.run
"""


def export_runs(
    conn: sqlite3.Connection,
    path: str,
    run_ids: Sequence[str],
    *,
    now: float,
    release: str = "",
    tree: bool = False,
    redact: Redact | None = None,
    codec: Codec | None = None,
) -> Iterator[str]:
    """
    The lines of an export of runs, without line ends: oldest run first, each once.

    Args:
        conn: If it is in no transaction, one is open until the last line was taken.
        path: Of the journal, for errors.
        run_ids: Which runs.
        now: When it is exported, epoch seconds.
        release: Of this library.
        tree: Also what they have started: children, follow-ups, the runs that they continued as, and theirs.
        redact: Called for each value, see `Redacted`.
        codec: What reads the values for *redact*.

    Raises:
        RunNotFoundError: There is no such run.
        JournalCorruptError: An event does not match its checksum.
    """
    mine = not conn.in_transaction
    if mine:
        conn.execute("BEGIN")
    try:
        rows = _rows(conn, run_ids, tree=tree)
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        yield header_line(Header(release, SCHEMA_VERSION, at, redacted=redact is not None, runs=len(rows)))
        for run in rows:
            history = load_run_history(conn, path, require_run(conn, run))
            yield from export_lines(history if redact is None else redacted(history, redact, codec or Codec()))
    finally:
        if mine:
            conn.execute("ROLLBACK")


def _rows(conn: sqlite3.Connection, run_ids: Sequence[str], *, tree: bool) -> list[str]:
    """Ids of the runs to export, in order of creation."""
    numbers: dict[str, int] = {}
    for run_id in run_ids:
        row = run_by_id(conn, run_id)
        if row is None:
            raise RunNotFoundError("id", run_id)
        if tree and run_id not in numbers:
            numbers |= dict(conn.execute(_TREE, (run_id,)).fetchall())
        numbers[run_id] = row.run
    return sorted(numbers, key=numbers.__getitem__)


def load_run_history(conn: sqlite3.Connection, path: str, row: RunRow) -> RunHistory:
    """
    All of one run of the journal at *path*.

    Raises:
        JournalCorruptError: An event does not match its checksum.
    """
    run = row.run
    events = load_history(conn, path, row)
    found = conn.execute(_FACTS, (run,)).fetchone()
    live, until, key_ttl, arguments, limit, limit_key, retry, timeout, expires_at, follow_ups, on_parent_end = found
    facts = RunFacts(
        run_id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        sort=row.kind,
        status=row.status,
        created_at=row.created_at,
        queue=row.queue,
        priority=row.priority,
        key=row.key,
        key_live=bool(live),
        key_until=until,
        key_ttl=key_ttl if until is None else None,
        arguments=arguments,
        labels=row.labels,
        attributes=row.attributes,
        reason=row.reason,
        parent=row.parent,
        position=row.position,
        follows=row.follows,
        successor=row.successor,
        batch=row.batch,
        retry=retry,
        timeout=timeout,
        expires_at=expires_at,
        follow_ups=follow_ups,
        limit=limit,
        limit_key=limit_key,
        unread=row.unread or None,
        abandoned=row.abandoned or None,
        on_parent_end=on_parent_end,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
    pending = conn.execute(_PENDING, (SignalReceived.kind, run)).fetchall()
    notes = conn.execute(
        "SELECT position, name, value, at FROM durable_notes WHERE run = ? ORDER BY position, name", (run,)
    ).fetchall()
    dedups = conn.execute("SELECT dedup FROM durable_dedup WHERE run = ? ORDER BY dedup", (run,)).fetchall()
    return RunHistory(
        facts,
        events,
        [from_row(*columns) for *columns, _ in pending],
        [StepNote(*note) for note in notes],
        [ExportedWait(*wait) for wait in conn.execute(_WAITS, (run,)).fetchall()],
        _feeds(conn, run),
        [dedup for (dedup,) in dedups],
        {index: owed for index, (*_, owed) in enumerate(pending) if owed is not None},
    )


def _feeds(conn: sqlite3.Connection, run: int) -> list[ExportedFeed]:
    feeds = conn.execute(
        "SELECT position, size, grp, wake_on, template, tolerate FROM durable_feeds WHERE run = ? ORDER BY position",
        (run,),
    ).fetchall()
    return [
        ExportedFeed(position, size, group, wake_on, template, _items(conn, run, position), tolerate)
        for position, size, group, wake_on, template, tolerate in feeds
    ]


def _items(conn: sqlite3.Connection, run: int, position: str) -> tuple[FeedItem, ...]:
    rows = conn.execute(
        "SELECT item, child_id, value FROM durable_feed_items WHERE run = ? AND position = ? ORDER BY item",
        (run, position),
    )
    return tuple(FeedItem(*row) for row in rows)


# --- files -------------------------------------------------------------------------------------------


def read_histories(path: str | os.PathLike[str]) -> list[RunHistory]:
    """
    The runs that were exported to the file at *path*, in its order.

    Raises:
        ExportFormatError: It holds something else; the error names the line. Nothing in it is ever executed.
        JournalAccessError: It cannot be read.

    Example:
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome]) as engine:
        ...     run = await engine.start(welcome("ada"))
        ...     await run.result()
        ...     await engine.export(run.id, "run.jsonl")
        'welcome, ada'
        >>> [history.run.workflow for history in read_histories("run.jsonl")]
        ['welcome']
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return list(read_export(lines_in(file), name))
    except OSError as error:
        raise JournalAccessError(name, f"cannot be read: {error.strerror}") from error


def lines_in(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file: never more of it in memory than what a line may have."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line


def write_file(path: str | os.PathLike[str], lines: Iterator[str]) -> None:
    """
    Write *lines* to a new file (mode 0600); none is left if that fails.

    Raises:
        JournalAccessError: There is a file of this name, or it cannot be written.
    """
    name = os.fspath(path)
    try:
        number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise JournalAccessError(name, f"cannot be made: {error.strerror}") from error
    try:
        with open(number, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise JournalAccessError(name, f"cannot be written: {error.strerror or error}") from error
        raise
