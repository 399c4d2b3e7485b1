"""
Whether a file has a journal, and of which schema: known before anything is changed.

The schema's number is a row of the journal's own table, since the file may be the application's as well: its
`user_version` and `application_id` are the application's to use. A file that has no `application_id` gets ours. Older
releases kept the number in `user_version`; `schema` moves it when it opens such a file. A newer journal is
refused untouched. Light: the command line reads with it.
"""

from __future__ import annotations

import sqlite3

from durable._shell.storage.untrusted import refuse_schema
from durable.errors import ForeignJournalError, JournalAccessError, JournalVersionError

#: "dura" in ASCII: `file(1)` and SQLite tools show it.
APPLICATION_ID = 0x64757261
SCHEMA_VERSION = 5
#: The row of `durable_meta` with the schema's number.
SCHEMA_ROW = "schema"

_OUR_TABLES = "SELECT 1 FROM sqlite_master WHERE name LIKE 'durable\\_%' ESCAPE '\\' LIMIT 1"
_OTHER_TABLES = (
    "SELECT 1 FROM sqlite_master WHERE type = 'table'"
    " AND name NOT LIKE 'durable\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT 1"
)
_META = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durable_meta'"


def holds_other_tables(connection: sqlite3.Connection) -> bool:
    """Whether somebody else has tables in the file (the application, Litestream), so that others may write to it."""
    return connection.execute(_OTHER_TABLES).fetchone() is not None


def inspect(connection: sqlite3.Connection, path: str) -> None:
    """
    Look whose tables there are, before anything is changed.

    Raises:
        ForeignJournalError: If some are named as ours would be, and are not, or act when they are read or written.
        JournalVersionError: If a newer release wrote it.
    """
    version = schema_of(connection)
    if version is None and connection.execute(_OUR_TABLES).fetchone():
        raise ForeignJournalError(
            path, "it has tables called durable_..., and no journal that we know; choose another path"
        )
    if version is not None and version > SCHEMA_VERSION:
        raise JournalVersionError(
            path, f"written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}): upgrade durable"
        )
    if version is not None:
        refuse_schema(connection, path)


def require_journal(connection: sqlite3.Connection, path: str) -> None:
    """
    Refuse what `inspect` lets pass because an engine would make a journal of it, or migrate it.

    Raises:
        ForeignJournalError: If it is a database without a journal.
        JournalAccessError: If its schema is older than what this release reads.
    """
    version = schema_of(connection)
    if version is None:
        raise ForeignJournalError(path, "a database without a journal in it: no engine has opened it yet")
    if version < SCHEMA_VERSION:
        reason = f"its schema is {version}, this release reads {SCHEMA_VERSION}: an engine migrates it when it opens it"
        raise JournalAccessError(path, reason)


def schema_of(connection: sqlite3.Connection) -> int | None:
    """The number of the journal's schema; None where there is no journal."""
    if connection.execute(_META).fetchone() is None:
        return None
    try:
        row = connection.execute("SELECT value FROM durable_meta WHERE name = ?", (SCHEMA_ROW,)).fetchone()
    except sqlite3.OperationalError:  # a table of that name with other columns
        return None
    if row is not None:
        return row[0] if type(row[0]) is int and row[0] > 0 else None
    # An older release: both numbers in the header are its own.
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version if application == APPLICATION_ID and version else None
