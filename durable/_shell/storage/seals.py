"""
Checksums of the rows that decide what runs do, beside the events: waits, inboxes, slots, schedules, batches, notes.

Most of these rows live for milliseconds, and are not summed for that long: a row is *sealed* once it rests, by an
engine every few seconds and as it closes the file. A seal is the CRC-32 of all columns. Triggers of the writing
connection (temporary ones, so that the file has none) break it when the row is changed, and the next look seals it
anew. So a row whose columns do not fit its seal was changed by nobody that may: it is *damaged*. One that was found so
is marked, lest a later change makes it look sound.

Nothing here knows what rows mean: see `damage`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32

#: In place of a seal: the row was found damaged. No CRC-32 is negative.
DAMAGED: Final = -1
#: Rows that are sealed in one go, or looked at.
AT_ONCE: Final = 1_000
#: Times `AT_ONCE` are the rows of one table that are looked at before anything is driven: some hundredths of a second.
PAGES: Final = 20


#: The key of a row. Texts may be bytes.
Key: TypeAlias = Sequence[Any]


class _Table(NamedTuple):
    """What is sealed of a table."""

    key: Sequence[str]
    #: All of its columns but key and checksum; of runs, what no event says.
    columns: Sequence[str]
    #: Which rows; the others are there for people only.
    only: str = "1"

    @property
    def selected(self) -> str:
        return ", ".join((*self.key, *self.columns))

    @property
    def is_it(self) -> str:
        return f"({', '.join(self.key)}) = ({self.places})"

    @property
    def places(self) -> str:
        """For a key. One that is a text may be none any more, and is bound as bytes."""
        return ", ".join("CAST(? AS TEXT)" if name in ("position", "name") else "?" for name in self.key)


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
    "durable_feeds": _Table(("run", "position"), ("size", "grp", "wake_on", "template", "tolerate")),
    "durable_feed_items": _Table(("run", "position", "item"), ("child", "child_id", "value")),
    "durable_schedules": _Table(
        ("name",),
        (
            "spec", "timezone", "anchor", "upto", "next_at", "last_at", "last_run", "open_runs", "paused_at", "skipped",
            "last_skipped_at", "last_error", "triggers", "failed", "overlap", "missed", "starts",
        ),
    ),
    "durable_batches": _Table(
        ("batch",),
        (
            "batch_id", "parent", "description", "labels", "contents", "created_at", "cancelled_at", "reason",
            "failed_at", "completed_at", "finished_at", "outcome", "on_success", "on_failure", "on_complete",
        ),
    ),
    "durable_runs": _Table(("run",), ("attributes",), "attributes IS NOT NULL AND ended_at IS NULL"),
}  # fmt: skip

_TRIGGERS: Final = [
    f"CREATE TEMP TRIGGER IF NOT EXISTS {name}_unseal AFTER UPDATE OF {table.selected} ON main.{name} "  # noqa: S608 - constants
    f"WHEN old.checksum >= 0 BEGIN UPDATE {name} SET checksum = NULL "
    f"WHERE {' AND '.join(f'{key} = new.{key}' for key in table.key)}; END"
    for name, table in TABLES.items()
]
_ANY_UNSEALED: Final = " UNION ALL ".join(
    f"SELECT EXISTS (SELECT 1 FROM {name} WHERE checksum IS NULL AND {table.only})"  # noqa: S608 - constants
    for name, table in TABLES.items()
)


def break_when_changed(conn: sqlite3.Connection) -> None:
    """Let every change of a row, made through *conn*, break its seal."""
    for trigger in _TRIGGERS:
        conn.execute(trigger)


def has_unsealed(conn: sqlite3.Connection) -> bool:
    """Whether anything was written since it was sealed last."""
    return any(found for (found,) in conn.execute(_ANY_UNSEALED))


def seal(conn: sqlite3.Connection) -> bool:
    """Seal what is not; whether there may be more."""
    more = False
    for name, table in TABLES.items():
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
        more |= len(rows) == AT_ONCE
    return more


def is_sound(conn: sqlite3.Connection, name: str, *key: Any) -> bool:
    """Whether a row fits its seal; also if it has none, or is gone."""
    found = _found(conn, name, key)
    return found is None or found[1] is None or bool(_sum(found[0]) == found[1])


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
    for name in TABLES:
        last: Key = ()
        for _ in range(PAGES):
            found, last = damaged_rows(conn, name, last)
            damaged += [(name, key) for key in found]
            if not last:
                break
    return damaged


def mark_damaged(conn: sqlite3.Connection, name: str, *key: Any) -> bool:
    """Let a row stay damaged, whatever is written to it; whether that was news."""
    found = _found(conn, name, key)
    if found is None or found[1] == DAMAGED:
        return False
    conn.execute(f"UPDATE {name} SET checksum = {DAMAGED} WHERE {TABLES[name].is_it}", key)  # noqa: S608 - constants
    return True


def fits(conn: sqlite3.Connection, name: str, key: Sequence[Any], column: str, value: Any) -> bool:
    """Whether a damaged row would fit its seal if *value* stood in a *column*: then that is what was damaged."""
    found = _found(conn, name, key)
    if found is None:
        return False
    table = TABLES[name]
    row = list(found[0])
    row[[*table.key, *table.columns].index(column)] = value
    return bool(_sum(row) == found[1])


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
