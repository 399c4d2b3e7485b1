"""
Copies of a journal: how they are made and marked, and told from a write-ahead log (WAL) that is not theirs.

SQLite applies whatever WAL lies beside a file: if that is left of a process that was killed, and a backup was put in
the place of its file, the two make a mixture, and often a damaged one. So a backup has a mark, in a row of the
journal's own; whoever opens it removes the mark in the very first transaction, and records which backup the file
continues. A WAL that makes anything else of a marked file is not the file's: it is refused, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from durable._shell.storage.connections import connected, primary_code, translate
from durable._shell.storage.copies import marks, torn
from durable._shell.storage.wal import has_commits, wal_of
from durable.errors import JournalAccessError, JournalDamagedError

#: Rows of `durable_meta`: which backup this is, as long as nobody has opened it; which one the file continues.
_BACKUP: Final = "backup"
_CONTINUES: Final = "continues"
#: What the file systems say that have no hard links.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)
_UNREADABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Pages that are copied between two looks at whether to stop: 4 MiB, some milliseconds.
_PAGES_AT_ONCE: Final = 1024
#: As many steps of SQLite's machine, while the copy is verified.
_STEPS_AT_ONCE: Final = 100_000


def never() -> bool:
    """Whether to stop, for a copy that nothing stops."""
    return False


# --- making one ----------------------------------------------------------------------------------------


def back_up(
    conn: sqlite3.Connection, path: str, target: str, *, overwrite: bool, stopped: Callable[[], bool] = never
) -> None:
    """
    Copy to a file beside *target*, mark and verify it, and only then give it its name.

    Asks now and then whether it was *stopped*; then nothing is left of it.
    """
    if target == path:
        raise JournalAccessError(path, "a backup cannot replace the journal itself")
    if not os.path.isdir(folder := os.path.dirname(target)):
        raise JournalAccessError(target, f"the folder {folder} does not exist: make it first")
    for leftover in (f"{target}-wal", f"{target}-journal"):
        if Path(leftover).exists():
            raise JournalAccessError(target, f"{leftover} exists, and would be applied to the backup")
    with copied(conn, target, stopped=stopped) as copy:
        if overwrite:
            Path(copy).replace(target)
        else:
            _give_name(copy, target)
        sync_folder(target)


@contextlib.contextmanager
def copied(
    conn: sqlite3.Connection, target: str, *, whole: bool = False, stopped: Callable[[], bool] = never
) -> Generator[str]:
    """
    A copy beside *target*, marked and verified: one file, on disk, for its user alone. Gone after the block.

    *whole*: verified with all indexes, which takes longer.
    """

    def look(*_: object) -> None:
        if stopped():
            raise JournalAccessError(target, "the backup was stopped before it was complete: nothing is left of it")

    copy_path = f"{target}.{os.urandom(4).hex()}.partial"
    try:
        os.close(os.open(copy_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(connected(copy_path, "rw")) as copy:
                with _snapshot(conn):
                    conn.backup(copy, pages=_PAGES_AT_ONCE, progress=look)
                copy.set_progress_handler(stopped, _STEPS_AT_ONCE)
                # so that the copy is one file, complete without a WAL
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()
                _mark(copy)
                pages = copy.execute("PRAGMA integrity_check(1)" if whole else "PRAGMA quick_check(1)")
                if (found := pages.fetchone()[0]) != "ok":
                    raise JournalDamagedError(target, f"the copy does not verify: {found}")
            look()
            yield copy_path
        finally:
            Path(copy_path).unlink(missing_ok=True)
    except FileExistsError:
        raise JournalAccessError(
            target, "it exists already, and a backup replaces nothing: choose another name"
        ) from None
    except (sqlite3.Error, OSError) as error:
        look()  # else it was interrupted
        raise translate(error, target) from error


@contextlib.contextmanager
def _snapshot(conn: sqlite3.Connection) -> Generator[None]:
    """Have *conn* see one state of the file: a copy in steps begins anew whenever that changes under it."""
    if conn.in_transaction:
        yield
        return
    conn.execute("BEGIN")
    try:
        conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield
    finally:
        conn.execute("ROLLBACK")


def sync_folder(path: str) -> None:
    """Let the name of the file at *path* survive a power cut."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_name(file: str, name: str) -> None:
    """Rename *file*, unless *name* is taken, which `replace` would not see."""
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # takes the name first
        Path(file).replace(name)


def _mark(copy: sqlite3.Connection) -> None:
    if marks.schema_of(copy) is not None:
        told = f"{datetime.now(UTC).isoformat('T', 'seconds')} {os.urandom(8).hex()}"
        copy.execute("INSERT OR REPLACE INTO durable_meta VALUES (?, ?)", (_BACKUP, told))
        torn.note_closed(copy)


# --- opening one ---------------------------------------------------------------------------------------


def is_backup(conn: sqlite3.Connection) -> bool:
    """Whether nobody has opened the journal since it was made as a backup."""
    return _row(conn, _BACKUP) is not None


def continue_backup(conn: sqlite3.Connection) -> None:
    """Remove the mark, in an open transaction: from here on the file is no backup, but continues one."""
    conn.execute("UPDATE OR REPLACE durable_meta SET name = ? WHERE name = ?", (_CONTINUES, _BACKUP))


def check_wal(path: str) -> None:
    """
    Nothing, unless the WAL beside the journal at *path* is another file's. Changes nothing, whatever it finds.

    Raises:
        JournalAccessError: It is; or its file is gone.
    """
    if not has_commits(path):
        return
    wal = wal_of(path)
    if not _bytes(path):
        reason = (
            f"the file is gone, but {wal} is there, with what was committed last: put the file back beside it, {_OR}"
        )
        raise JournalAccessError(path, reason)
    mark = _read(path, _BACKUP, without_wal=True)
    if mark is not None and _read(path, _CONTINUES) != mark:
        made, _, _ = mark.partition(" ")
        reason = (
            f"the file is a backup, made {made}, and {wal} is not its own: it was left by the file in whose place the "
            f"backup was put, and would spoil it. Nothing was changed; {_AWAY.format(wal=wal)}. "
            "`durable restore BACKUP --to FILE` does all of that"
        )
        raise JournalAccessError(path, reason)


_AWAY: Final = "move {wal} away (it has what was committed after the backup), and open the file again"
_OR: Final = "or move that away, too, and start anew"


def _read(path: str, name: str, *, without_wal: bool = False) -> str | None:
    """
    A row of `durable_meta`, on a connection that neither changes the file nor checkpoints when it is closed.

    Not by the file's own descriptor: closing that would drop the locks that SQLite has in this process.
    """
    try:
        with contextlib.closing(connected(path, "ro&immutable=1" if without_wal else "ro")) as conn:
            return _row(conn, name)
    except sqlite3.Error as error:
        # A file that is just being checkpointed, say, or one that cannot be opened: its opening says what is wrong. But
        # what a WAL makes unreadable has no rows.
        if without_wal or primary_code(error) in _UNREADABLE:
            return None
        raise translate(error, path) from error


def _row(conn: sqlite3.Connection, name: str) -> str | None:
    if marks.schema_of(conn) is None:
        return None
    row = conn.execute("SELECT value FROM durable_meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
