"""
Checksums of the rows that decide what runs do, beside the events: waits, inboxes, limits, queues, schedules, keys, ...

A seal is the CRC-32 of all columns. Rows that live for long, and are written seldom, are *sealed* as they are written,
by triggers of the writing connection (temporary ones, so that the file has none). Most others live for milliseconds,
and are not summed for that long: they are sealed once they rest, by an engine every few seconds and as it closes the
file; triggers break the seal when the row is changed, and the next look seals it anew. So a row whose columns do not
fit its seal was changed by nobody that may: it is *damaged*. One that was found so is marked, lest a later change makes
it look sound (its seal becomes negative, as no CRC-32 is, and can still be told); and one that is written before it was
found does not get a new seal.

Nothing here knows what rows mean: see `damage`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from zlib import crc32

from durable._core.light_tuples import NamedTuple

#: Rows that are sealed in one go, or looked at.
AT_ONCE: Final = 1_000
#: Times `AT_ONCE` are the rows of one table that are looked at before anything is driven: some hundredths of a second.
PAGES: Final = 20


#: The key of a row. Texts may be bytes.
Key: TypeAlias = Sequence[Any]


#: Of the keys, those that are texts.
_TEXTS: Final = frozenset({"position", "name", "key", "dedup", "request", "id"})
#: Of the columns, those that hold reals, and those that hold anything. Those left hold integers or texts.
_REALS: Final = frozenset(
    {
        "at", "since", "anchor", "upto", "per", "until", "fire_at", "granted_at", "due_at", "next_at", "last_at",
        "paused_at", "last_skipped_at", "created_at", "cancelled_at", "failed_at", "completed_at", "finished_at",
        "asked_at", "answered_at",
    }
)  # fmt: skip
_ANY: Final = frozenset({"value", "answer", "attributes"})
#: Sums a row in SQL.
_FUNCTION: Final = "durable_seal"


class _Table(NamedTuple):
    """What is sealed of a table."""

    key: Sequence[str]
    #: All of its columns but key and checksum; of runs, what no event says.
    columns: Sequence[str]
    #: Which rows; the others are there for people only.
    only: str = "1"
    #: Whether a row is sealed by the statement that writes it.
    at_once: bool = False
    #: Whether an opening looks at its rows. Those of others may be large: they are looked at when they are read.
    is_opened: bool = True

    @property
    def selected(self) -> str:
        return ", ".join((*self.key, *self.columns))

    @property
    def is_it(self) -> str:
        return f"({', '.join(self.key)}) = ({self.places})"

    @property
    def places(self) -> str:
        """For a key. One that is a text may be none any more, and is bound as bytes."""
        return ", ".join("CAST(? AS TEXT)" if name in _TEXTS else "?" for name in self.key)

    def is_row(self, row: str) -> str:
        """Whether a row is the one that a trigger calls *row*."""
        return " AND ".join(f"{name} = {row}.{name}" for name in self.key)

    def sum_of(self, row: str) -> str:
        """
        The seal of a row, in a trigger: of ``old.``, or, as it is now, of the row itself ("").

        What may be a text is passed as bytes, and what is to be a real as a number: a damaged one may be no text, and
        the statement would fail. Short, since each connection that writes has SQLite read all of these.
        """
        return f"{_FUNCTION}({', '.join(_passed(row, name) for name in (*self.key, *self.columns))})"


def _passed(row: str, name: str) -> str:
    value = f"{row}{name}"
    if name in _REALS:
        return f"{value} * 1.0"
    if name in _ANY:
        return f"CASE typeof({value}) WHEN 'text' THEN CAST({value} AS BLOB) ELSE {value} END"
    return f"CAST({value} AS BLOB)"  # of an integer: as Python writes it


TABLES: Final[Mapping[str, _Table]] = {
    "durable_waits": _Table(
        ("wait",), ("run", "grp", "position", "kind", "wake_on", "name", "target", "fire_at", "since")
    ),
    "durable_inbox": _Table(
        ("item",), ("run", "kind", "position", "at", "body", "value", "payload", "name", "wakes")
    ),
    "durable_slots": _Table(
        ("slot",),
        ("name", "key", "run", "position", "since", "granted_at", "due_at", "leaving", "outlived", "aside"),
    ),
    "durable_notes": _Table(("run", "position", "name"), ("value", "at"), "name NOT GLOB 'kept:*'"),
    "durable_feeds": _Table(("run", "position"), ("size", "grp", "wake_on", "template", "tolerate"), at_once=True),
    "durable_feed_items": _Table(("run", "position", "item"), ("child", "child_id", "value")),
    "durable_schedules": _Table(
        ("name",),
        (
            "spec", "timezone", "anchor", "upto", "next_at", "last_at", "last_run", "open_runs", "paused_at", "skipped",
            "last_skipped_at", "last_error", "triggers", "failed", "overlap", "missed", "starts",
        ),
        at_once=True,
    ),
    "durable_batches": _Table(
        ("batch",),
        (
            "batch_id", "parent", "description", "labels", "contents", "created_at", "cancelled_at", "reason",
            "failed_at", "completed_at", "finished_at", "outcome", "on_success", "on_failure", "on_complete",
        ),
        at_once=True,
    ),
    "durable_limits": _Table(("name",), ("concurrency", "count", "per", "on_conflict", "own"), at_once=True),
    "durable_queues": _Table(("name",), ("paused_at", "fair_by", "changed"), at_once=True),
    "durable_keys": _Table(("key",), ("run_id", "workflow", "arguments", "status", "until"), at_once=True),
    "durable_dedup": _Table(("run", "dedup"), (), at_once=True),
    "durable_asked": _Table(
        ("request",),
        ("run", "name", "dedup", "digest", "answer", "refused", "asked_at", "answered_at"),
        at_once=True,
    ),
    "durable_stream_items": _Table(
        ("entry",), ("run", "stream", "position", "attempt", "value", "at"), at_once=True, is_opened=False
    ),
    "durable_requests": _Table(("id",), ("answer", "at", "refused"), at_once=True, is_opened=False),
    "durable_hook_errors": _Table(
        ("entry",), ("run", "hook", "error", "at", "starts", "asked_at"), at_once=True, is_opened=False
    ),
    "durable_runs": _Table(("run",), ("attributes",), "attributes IS NOT NULL AND ended_at IS NULL"),
}  # fmt: skip

_RESTING: Final = {name: table for name, table in TABLES.items() if not table.at_once}
_AT_ONCE: Final = {name: table for name, table in TABLES.items() if table.at_once}
_TRIGGERS: Final = [
    *(
        f"CREATE TEMP TRIGGER IF NOT EXISTS {name}_unseal AFTER UPDATE OF {table.selected} ON main.{name} "  # noqa: S608 - constants
        f"WHEN old.checksum >= 0 BEGIN UPDATE {name} SET checksum = NULL WHERE {table.is_row('new')}; END"
        for name, table in _RESTING.items()
    ),
    *(
        f"CREATE TEMP TRIGGER IF NOT EXISTS {name}_seal AFTER INSERT ON main.{name} "  # noqa: S608 - constants
        f"BEGIN UPDATE {name} SET checksum = {table.sum_of('')} WHERE {table.is_row('new')}; END"
        for name, table in _AT_ONCE.items()
    ),
    *(
        f"CREATE TEMP TRIGGER IF NOT EXISTS {name}_reseal AFTER UPDATE OF {table.selected} ON main.{name} "  # noqa: S608 - constants
        f"WHEN old.checksum IS NULL OR old.checksum = {table.sum_of('old.')} "
        f"BEGIN UPDATE {name} SET checksum = {table.sum_of('')} WHERE {table.is_row('new')}; END"
        for name, table in _AT_ONCE.items()
    ),
]
_ANY_UNSEALED: Final = " UNION ALL ".join(
    f"SELECT EXISTS (SELECT 1 FROM {name} WHERE checksum IS NULL AND {table.only})"  # noqa: S608 - constants
    for name, table in _RESTING.items()
)


def keep_seals(conn: sqlite3.Connection) -> None:
    """Let every row that is written through *conn* be sealed, or its seal be broken until it rests."""
    conn.create_function(_FUNCTION, -1, lambda *row: _sum(row), deterministic=True)
    for trigger in _TRIGGERS:
        conn.execute(trigger)


def has_unsealed(conn: sqlite3.Connection) -> bool:
    """Whether anything that is sealed at rest was written since it was sealed last."""
    return any(found for (found,) in conn.execute(_ANY_UNSEALED))


def seal(conn: sqlite3.Connection) -> bool:
    """Seal what rests and is not; whether there may be more."""
    more = [_seal_page(conn, name) for name in _RESTING]
    return any(more)


def seal_older(conn: sqlite3.Connection) -> None:
    """Seal the rows of an older file that today are sealed as they are written."""
    for name in _AT_ONCE:
        while _seal_page(conn, name):
            pass


def _seal_page(conn: sqlite3.Connection, name: str) -> bool:
    table = TABLES[name]
    rows = _fetch_bytes(
        conn,
        f"SELECT {table.selected} FROM {name} WHERE checksum IS NULL AND {table.only} LIMIT ?",  # noqa: S608 - constants
        (AT_ONCE,),
    )
    size = len(table.key)
    conn.executemany(
        f"UPDATE {name} SET checksum = ? WHERE {table.is_it}",  # noqa: S608 - constants
        [(_sum(row), *row[:size]) for row in rows],
    )
    return len(rows) == AT_ONCE


def is_sound(conn: sqlite3.Connection, name: str, *key: Any) -> bool:
    """Whether a row fits its seal; also if it has none, or is gone."""
    found = _found(conn, name, key)
    return found is None or found[1] is None or bool(_sum(found[0]) == found[1])


def fits_seal(seal: int | None, *row: Any) -> bool:
    """Whether the columns of a row, its key first, fit its seal; also if it has none."""
    return seal is None or _sum([value.encode() if isinstance(value, str) else value for value in row]) == seal


def damaged_rows(conn: sqlite3.Connection, name: str, after: Key = ()) -> tuple[list[Key], Key]:
    """The keys of the damaged rows among the next ones of a table, those behind key *after*; the last key of all."""
    table = TABLES[name]
    order = ", ".join(table.key)
    behind = f" AND ({order}) > ({table.places})" if after else ""
    rows = _fetch_bytes(
        conn,
        f"SELECT {table.selected}, checksum FROM {name} WHERE {table.only}{behind} ORDER BY {order} LIMIT ?",  # noqa: S608 - constants
        (*after, AT_ONCE),
    )
    size = len(table.key)
    bad = [row[:size] for row in rows if row[-1] is not None and row[-1] != _sum(row[:-1])]
    return bad, rows[-1][:size] if rows else ()


def all_damaged(conn: sqlite3.Connection) -> list[tuple[str, Key]]:
    """Tables and keys of the damaged rows that an opening looks for: who reads one of more finds out by himself."""
    damaged: list[tuple[str, Key]] = []
    for name, table in TABLES.items():
        last: Key = ()
        for _ in range(PAGES if table.is_opened else 0):
            found, last = damaged_rows(conn, name, last)
            damaged += [(name, key) for key in found]
            if not last:
                break
    return damaged


def mark_damaged(conn: sqlite3.Connection, name: str, *key: Any) -> bool:
    """Let a row stay damaged, whatever is written to it; whether that was news."""
    found = _found(conn, name, key)
    if found is None or found[1] < 0:
        return False
    conn.execute(f"UPDATE {name} SET checksum = ~checksum WHERE {TABLES[name].is_it}", key)  # noqa: S608 - constants
    return True


def fits(conn: sqlite3.Connection, name: str, key: Sequence[Any], column: str, value: Any) -> bool:
    """Whether a damaged row would fit its seal if *value* stood in a *column*: then that is what was damaged."""
    found = _found(conn, name, key)
    if found is None or found[1] is None:
        return False
    return _fits_with(name, *found, column, value)


def was_there(conn: sqlite3.Connection, name: str, column: str, value: Any) -> bool:
    """Whether a row that is marked as damaged would fit its seal if *value* stood in a *column*."""
    marked = _fetch_bytes(
        conn,
        f"SELECT {TABLES[name].selected}, checksum FROM {name} WHERE checksum < 0 LIMIT ?",  # noqa: S608 - constants
        (AT_ONCE,),
    )
    return any(_fits_with(name, row[:-1], row[-1], column, value) for row in marked)


def _fits_with(name: str, row: Sequence[Any], seal: int, column: str, value: Any) -> bool:
    table, changed = TABLES[name], list(row)
    changed[[*table.key, *table.columns].index(column)] = value.encode() if isinstance(value, str) else value
    return _sum(changed) == (seal if seal >= 0 else ~seal)


def column(conn: sqlite3.Connection, name: str, key: Key, of: str) -> Any:
    """What a row has in column *of*, readable or not; None if it is gone."""
    found = _found(conn, name, key)
    if found is None:
        return None
    value = found[0][[*TABLES[name].key, *TABLES[name].columns].index(of)]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _found(conn: sqlite3.Connection, name: str, key: Sequence[Any]) -> tuple[Sequence[Any], Any] | None:
    """A row and its seal."""
    table = TABLES[name]
    rows = _fetch_bytes(conn, f"SELECT {table.selected}, checksum FROM {name} WHERE {table.is_it}", key)  # noqa: S608 - constants
    return (rows[0][:-1], rows[0][-1]) if rows else None


def _sum(row: Sequence[Any]) -> int:
    return crc32(b"\x1f".join(b"\0" if value is None else _plain(value) for value in row))


def _plain(value: Any) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


def _fetch_bytes(conn: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    """Rows in which texts are bytes, so that one which is no text any more can be read."""
    with _texts_as_bytes(conn):
        return conn.execute(sql, values).fetchall()


@contextmanager
def _texts_as_bytes(conn: sqlite3.Connection) -> Generator[None]:
    before, conn.text_factory = conn.text_factory, bytes
    try:
        yield
    finally:
        conn.text_factory = before
