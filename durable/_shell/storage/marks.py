"""
Whose file it is, and of which schema: known by two numbers in its header, before anything is changed.

A journal has the application id `APPLICATION_ID`; its `user_version` is the schema's. A newer or
foreign file is refused untouched; an older one is migrated by `schema`. Light: the command line reads
with it.
"""

from __future__ import annotations

import sqlite3

from durable.errors import ForeignJournalError, JournalAccessError, JournalVersionError

#: "dura" in ASCII: `file(1)` and SQLite tools show it.
APPLICATION_ID = 0x64757261
SCHEMA_VERSION = 4

_OUR_TABLES = "SELECT 1 FROM sqlite_master WHERE name LIKE 'durable\\_%' ESCAPE '\\' LIMIT 1"


def inspect(connection: sqlite3.Connection, path: str) -> None:
    """
    Look whose file it is, before anything is changed.

    Raises:
        ForeignJournalError: If another application's mark stands in the file.
        JournalVersionError: If a newer release wrote it.
    """
    application, version = _marks(connection)
    if application not in (0, APPLICATION_ID):
        raise ForeignJournalError(
            path, f"it belongs to another application (application_id {application:#x}); choose another path"
        )
    if application == 0 and (version or connection.execute(_OUR_TABLES).fetchone()):
        raise ForeignJournalError(
            path, "a database that is not a journal, with a user_version of its own; choose another path"
        )
    if version > SCHEMA_VERSION:
        raise JournalVersionError(
            path, f"written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}): upgrade durable"
        )


def require_journal(connection: sqlite3.Connection, path: str) -> None:
    """
    Refuse what `inspect` lets pass because an engine would make a journal of it, or migrate it.

    Raises:
        ForeignJournalError: If it is a database without a journal.
        JournalAccessError: If its schema is older than what this release reads.
    """
    application, version = _marks(connection)
    if application == 0:
        raise ForeignJournalError(path, "a database without a journal in it: no engine has opened it yet")
    if version < SCHEMA_VERSION:
        reason = f"its schema is {version}, this release reads {SCHEMA_VERSION}: an engine migrates it when it opens it"
        raise JournalAccessError(path, reason)


def _marks(connection: sqlite3.Connection) -> tuple[int, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version
