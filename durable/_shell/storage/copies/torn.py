"""
Copies that were made of a file while an engine wrote to it (`cp`, `rsync`): told from the file, and tried.

Pages of such a copy may be of different moments. Mostly it looks sound until somebody reads the wrong page. So a file
says, in a row of the journal's own, which one it is (its inode) as long as an engine has it open; closing removes that.
A file that says it and is another one is a copy of a file that was open: it is verified as a whole before anything is
changed, and refused if it is torn. One that is whole (a snapshot of the file, Litestream's) passes, and is told.

After a crash the file is still the one that it says, and is not verified. Backups say nothing: see `backups`.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from durable._shell.storage.copies import marks
from durable.errors import JournalDamagedError

#: The row of `durable_meta` that says which file an engine has open.
_OPEN: Final = "open"
WHOLE: Final = (
    "the file is a copy, made while an engine had the journal open. It was verified, and is whole; what was recorded "
    "after it was made is not in it, and, if its -wal was not copied, not even what was recorded shortly before"
)
_TORN: Final = (
    "the file is a torn copy, made (by cp, say) while an engine wrote to the journal: {found}. Make a copy with "
    "`durable backup` or engine.backup(), or restore an older backup. `durable export` saves the runs that are good"
)


def is_copy_of_open(conn: sqlite3.Connection, path: str) -> bool:
    """Whether the file at *path* is another one than the one that an engine had open."""
    if marks.schema_of(conn) is None:
        return False
    row = conn.execute("SELECT value FROM durable_meta WHERE name = ?", (_OPEN,)).fetchone()
    return row is not None and row[0] != _number(path)


def refuse_torn(conn: sqlite3.Connection, path: str) -> bool:
    """
    Whether the file at *path* is a copy of one that was open; whole, then.

    Raises:
        JournalDamagedError: It is one, and its pages do not fit together. Nothing was changed.
    """
    if not is_copy_of_open(conn, path):
        return False
    try:
        (found,) = conn.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise JournalDamagedError(path, _TORN.format(found=found.splitlines()[-1]))
    return True


def note_open(conn: sqlite3.Connection, path: str) -> None:
    """Let the file say which one it is; nothing is written where it does."""
    number = _number(path)
    conn.execute(
        "INSERT INTO durable_meta VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        (_OPEN, number),
    )


def note_closed(conn: sqlite3.Connection) -> None:
    """Nobody writes to the file any more: from here on a copy is as good as the file, wherever it is."""
    conn.execute("DELETE FROM durable_meta WHERE name = ?", (_OPEN,))


def _number(path: str) -> int:
    """Which file it is, on its file system. A path would not do: files are moved, and mounted elsewhere."""
    return os.stat(path).st_ino
