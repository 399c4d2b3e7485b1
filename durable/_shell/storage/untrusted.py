"""
What a file from a stranger is refused for, before SQLite acts upon it, and how much work a statement on it may make.

A journal can come from somebody else, and lie in a folder that others write. Then what SQLite does by itself counts:
it rolls back the journal that it finds beside a file (and deletes the files that are named there), runs triggers, and
evaluates what stands in place of columns and tables. None of that is in a file of ours, so none of it is let happen.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any, Final

from durable.errors import ForeignJournalError, JournalAccessError

#: Longest text, blob or row of any connection: far above `Caps`, and below what hurts a machine. SQLite's is 1 GB.
LONGEST_BYTES: Final = 256 << 20
#: Steps of SQLite's machine between two looks at how many a statement has taken, and looks after which it is
#: interrupted: a minute or two. Counted rather than timed, since whoever reads the rows may take his time.
STEPS: Final = 100_000
MOST_LOOKS: Final = 40_000

#: Files that SQLite, the lock and the socket keep beside the journal.
SIDE_FILES: Final = ("-wal", "-shm", "-journal", ".lock")
#: No journal of ours is so small; one that is being made is, and leaves a rollback journal if its maker is killed.
_BEING_MADE: Final = 65_536
#: SQLite puts it at the end of a rollback journal that names another file.
_NAMES_ANOTHER: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
#: Seconds for another program to end its transaction, or to make the file.
_JOURNAL_SECONDS: Final = 1.0
_JOURNAL_PAUSE: Final = 0.01

_NOT_TABLES: Final = r"""
SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master
WHERE name LIKE 'durable\_%' ESCAPE '\' OR (type IN ('trigger', 'index') AND tbl_name LIKE 'durable\_%' ESCAPE '\')
"""
_COMMENTS: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
# What tables of ours never say: it would be evaluated, or act, when a row is written or read.
_ACTING: Final = re.compile(r"\b(GENERATED|AS|CHECK|COLLATE|REFERENCES|CONFLICT)\b", re.IGNORECASE)
# Found in few texts that are in capitals, and in a third of the time: of one such pattern the first letters are sought.
_PERHAPS: Final = re.compile(r"(?:GENERATED|AS|CHECK|COLLATE|REFERENCES|CONFLICT)\b")


class Watched(sqlite3.Connection):
    """A connection that only reads: a statement that never ends is interrupted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        looks = self._looks = [0]

        def is_enough() -> bool:
            looks[0] += 1
            return looks[0] > MOST_LOOKS

        self.set_progress_handler(is_enough, STEPS)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As ever; each statement has all of the time."""
        self._looks[0] = 0
        return super().execute(sql, parameters)


def refuse_side_files(path: str) -> None:
    """
    Nothing, if what lies beside the journal at *path* was made by somebody who may write it.

    Raises:
        JournalAccessError: Another has put it there, or SQLite would act upon it; nothing was changed.
    """
    for end in ("", *SIDE_FILES):
        try:
            found = os.lstat(path + end)
        except OSError:
            continue
        name = os.path.basename(path + end)
        if end and not stat.S_ISREG(found.st_mode):
            raise JournalAccessError(path, f"{name} beside it is not a regular file: remove it")
        if end and found.st_nlink > 1:
            raise JournalAccessError(path, f"{name} beside it is another file as well (hard link): remove it")
        if found.st_uid not in (os.geteuid(), 0) and found.st_mode & stat.S_IWOTH:
            msg = f"{name} belongs to user {found.st_uid}, and everybody may write to it: make a copy of your own"
            raise JournalAccessError(path, msg)
    _refuse_hot_journal(path)


def _refuse_hot_journal(path: str) -> None:
    """A journal is in WAL mode, so a rollback journal beside it is another's; made of it SQLite deletes files."""
    deadline = time.monotonic() + _JOURNAL_SECONDS
    while (why := _hot(path)) and time.monotonic() < deadline:
        time.sleep(_JOURNAL_PAUSE)
    if why:
        msg = (
            f"a rollback journal lies beside it ({os.path.basename(path)}-journal), {why}. If a program of yours was "
            "killed while it wrote to the file, open it with that program, or with the sqlite3 shell; if the file came "
            "from elsewhere, remove the rollback journal"
        )
        raise JournalAccessError(path, msg)


def _hot(path: str) -> str:
    """Why the rollback journal beside *path* is not to be rolled back; empty if it may, or there is none."""
    try:
        fd = os.open(f"{path}-journal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        size = os.fstat(fd).st_size
        # As SQLite decides whether there is anything to roll back.
        if os.pread(fd, 1, 0) in (b"", b"\0"):
            return ""
        if os.pread(fd, 8, max(0, size - 8)) == _NAMES_ANOTHER:
            return "and names another file, which SQLite would delete"
        return "and SQLite would apply it" if Path(path).stat().st_size > _BEING_MADE else ""
    except OSError:
        return ""
    finally:
        os.close(fd)


def open_to_others(path: str) -> str:
    """What everybody may do to the journal at *path*, in a sentence for its owner; empty if nothing."""
    folder = os.path.dirname(os.path.realpath(path))
    for place, means in ((folder, "put files beside the journal"), (path, "write to the journal")):
        try:
            mode = stat.S_IMODE(os.stat(place).st_mode)
        except OSError:
            continue
        if mode & stat.S_IWOTH:
            return f"every user of this machine may {means}, since {place} has mode {mode:o}: chmod o-w {place}"
    return ""


def refuse_schema(connection: sqlite3.Connection, path: str) -> None:
    """
    Nothing, if what is called like tables of ours are plain tables.

    Raises:
        ForeignJournalError: There are views, triggers, or columns that are computed or checked.
    """
    for kind, name, table, sql in connection.execute(_NOT_TABLES):
        text = sql if isinstance(sql, str) else ""
        if kind == "index":
            found = "an index of an expression" if "(" in text.partition("(")[2].partition(" WHERE ")[0] else ""
        elif kind != "table":
            found = f"a {kind}"
        elif text.lstrip()[:14].upper().startswith("CREATE VIRTUAL"):
            found = "a virtual table"
        else:
            text = _COMMENTS.sub(" ", text)
            acting = _PERHAPS.search(text.upper()) and _ACTING.search(text)
            found = f"a table with {acting.group().upper()}" if acting else ""
        if found:
            on = "" if name == table else f" on {table}"
            raise ForeignJournalError(path, f"{name!r:.80}{on!r:.80} is {found}, where a journal has plain tables only")
