"""
One connection of SQLite's: how it is opened, set up, begun, committed. No thread, no loop.

Promises: every pragma is read back; a file that is refused is not modified; a COMMIT that raised is
reported as rolled back only if SQLite says so, and is of unknown outcome otherwise.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import quote

from durable._shell.storage.untrusted import LONGEST_BYTES, Watched, refuse_side_files
from durable.errors import (
    ForeignJournalError,
    JournalAccessError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalIOError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CACHED_STATEMENTS: Final = 512  # all of ours and a fair number of the application's
# SQLite maps 32 KiB of shared memory into a file; on a full disk touching it kills the process.
FREE_BYTES: Final = 128 << 10
# How long one waits for a lock of another program; and the writer for readers, so that it can begin the WAL anew.
BUSY_MILLISECONDS: Final = 5000
READERS_MILLISECONDS: Final = 250
# Each is set, then read back: SQLite accepts a mistyped pragma in silence.
PRAGMAS: Final[dict[str, tuple[tuple[str, str, int | str], ...]]] = {
    "shared": (
        # because of somebody's shell; another engine cannot be in the way
        (f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}", "PRAGMA busy_timeout", BUSY_MILLISECONDS),
        ("PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", 1),
        ("PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", 0),
        # for what is sorted and rolled back: there may be no folder for temporary files that can be written
        ("PRAGMA temp_store = MEMORY", "PRAGMA temp_store", 2),
        # a damaged page is found when it is read, not when it is followed
        ("PRAGMA cell_size_check = ON", "PRAGMA cell_size_check", 1),
    ),
    "writer": (
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode", "wal"),
        # lest the WAL keeps the size of its largest burst
        ("PRAGMA journal_size_limit = 67108864", "PRAGMA journal_size_limit", 67108864),
        # automatic ones are PASSIVE, so that they keep nobody waiting
        ("PRAGMA wal_autocheckpoint = 1000", "PRAGMA wal_autocheckpoint", 1000),
    ),
    "full": (("PRAGMA synchronous = FULL", "PRAGMA synchronous", 2),),
    "process": (("PRAGMA synchronous = NORMAL", "PRAGMA synchronous", 1),),
    "reader": (
        ("PRAGMA query_only = ON", "PRAGMA query_only", 1),
        ("PRAGMA wal_autocheckpoint = 0", "PRAGMA wal_autocheckpoint", 0),
    ),
}


class CommitUnknownError(JournalError):
    """A COMMIT failed and may have committed: reopen, read back, then decide. `cause` says why it failed."""

    def __init__(self, path: str, cause: JournalError) -> None:
        super().__init__(path, f"a commit failed, its outcome is unknown: {cause.reason}")
        self.args = (path, cause)
        self.cause = cause


class TransactionUndoneError(Exception):
    """
    SQL of the application's ended the transaction in which it ran, from inside: ON CONFLICT ROLLBACK, RAISE(ROLLBACK).

    No authorizer is asked about these, and all who share the transaction lose what they wrote in it.
    """


def translate(error: sqlite3.Error | OSError, path: str) -> JournalError:
    """The error of this library that says what *error* means for the journal at *path*."""
    reason = str(error)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        denied = error.errno != errno.EIO
        return (JournalFullError if full else JournalAccessError if denied else JournalIOError)(path, reason)
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the Python module: SQLite would have given a code
        return JournalIOError(path, f"{reason} Its connection was closed after an earlier failure: reopen it")
    reason = f"{reason} ({error.sqlite_errorname})"
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return ForeignJournalError(path, reason)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return JournalAccessError(path, reason)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return JournalAccessError(path, f"{reason}: another program is writing to the file")
        case sqlite3.SQLITE_FULL:
            return JournalFullError(path, reason)
        case sqlite3.SQLITE_IOERR:
            # Growing the shared memory on a full disk is reported as an I/O error.
            return (JournalFullError if free_bytes(path) < FREE_BYTES else JournalIOError)(path, reason)
        case sqlite3.SQLITE_INTERRUPT:
            return JournalAccessError(path, f"{reason}: a statement took too long, or the file was closed meanwhile")
        case sqlite3.SQLITE_CORRUPT:
            return JournalDamagedError(path, f"{reason}. Restore from a backup")
        case _:
            return JournalError(path, reason)


# --- transactions, on whichever thread owns the connection ----------------------------------


def begin(conn: sqlite3.Connection, path: str) -> None:
    try:
        conn.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise translate(error, path) from error


def commit(conn: sqlite3.Connection, path: str) -> None:
    if not conn.in_transaction:
        # A full disk makes SQLite roll back by itself; what came after committed statement by statement.
        conn.close()
        raise CommitUnknownError(path, JournalIOError(path, "the transaction ended before its commit"))
    try:
        conn.execute("COMMIT")
    except sqlite3.Error as error:
        cause = translate(error, path)
        # Still in the transaction, so rolling it back decides. After a failed sync nothing does.
        if open_transaction(conn) and primary_code(error) != sqlite3.SQLITE_IOERR:
            roll_back(conn, path)
            # a deferred constraint of the application's: the disk is sound, so the error must reach its code
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise cause from error
        conn.close()
        raise CommitUnknownError(path, cause) from error


def open_transaction(conn: sqlite3.Connection) -> bool:
    return conn.in_transaction  # a function, because type checkers believe what they saw before COMMIT


def checkpoint(conn: sqlite3.Connection, path: str) -> tuple[int, int]:
    """Checkpoint without waiting for anybody: frames in the WAL, frames moved."""
    try:
        _, frames, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return frames, moved


def restart_wal(conn: sqlite3.Connection, path: str) -> bool:
    """
    Checkpoint, and wait a moment for readers, while nobody writes: whether the next commit begins the WAL anew.

    Readers of which each begins before the one before him has ended let a WAL grow without end, short as each of them
    is. Who begins while nobody writes needs nothing of the WAL, so it is enough to wait for those that are there.
    """
    try:
        conn.execute(f"PRAGMA busy_timeout = {READERS_MILLISECONDS}").fetchall()
        try:
            (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            conn.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}").fetchall()
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return not busy


def roll_back(conn: sqlite3.Connection, path: str) -> None:
    try:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
    except sqlite3.Error as error:
        conn.close()  # nothing was committed, and closing forgets it; `reopen` continues
        raise translate(error, path) from error


def transact(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    begin(conn, path)
    result = attempt(conn, path, fn)
    commit(conn, path)
    return result


def attempt(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*; on any error of its the transaction is rolled back."""
    try:
        return fn(conn)
    except BaseException as error:
        roll_back(conn, path)
        shown = of_ours(error, path)
        if shown is error:
            raise
        raise shown from error


def look(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*, in a transaction that only reads: all of it sees one state of the file."""
    try:
        conn.execute("BEGIN")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    try:
        result = attempt(conn, path, fn)
    except BaseException as error:
        _end_statements(error)
        raise
    roll_back(conn, path)  # nothing to commit, and this cannot fail half-way
    return result


def _end_statements(error: BaseException) -> None:
    """
    Let go of the cursors of the functions that *error* came through.

    ROLLBACK does not end a SELECT of which rows are left: as long as anybody keeps the error, and with it these
    frames, the connection would keep seeing the state of today.
    """
    traceback.clear_frames(error.__traceback__)
    for behind in (error.__cause__, error.__context__):
        if behind is not None:
            traceback.clear_frames(behind.__traceback__)


def is_no_text(error: BaseException) -> bool:
    """Whether *error* says that a text of a row is none any more."""
    return isinstance(error, sqlite3.OperationalError) and "decode" in str(error)


def as_shown(error: BaseException, path: str) -> BaseException:
    """*error*, as the caller is to see it."""
    if isinstance(error, sqlite3.Error) and is_the_disk(error):
        return translate(error, path)
    if isinstance(error, StopIteration):  # no future can carry it: its awaiter would wait for ever
        return RuntimeError("StopIteration raised in a transaction: give next() a default")
    return error


def of_ours(error: BaseException, path: str) -> BaseException:
    """*error*, from statements on our tables; an application may keep what is not text in its own."""
    if is_no_text(error):
        return JournalDamagedError(path, f"{error}. Restore from a backup")
    if isinstance(error, sqlite3.Error) and is_of_the_machine(error):
        return translate(error, path)
    if isinstance(error, MemoryError):
        return JournalError(path, "no memory was left to write it")
    return as_shown(error, path)


def is_the_disk(error: sqlite3.Error) -> bool:
    """Whether *error* says that the disk is full or failing, or the file damaged, whatever the statement was."""
    return primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether *error*, from a statement on our tables, is about disk, memory or other programs: no row is to blame."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, MemoryError)
    # Plain READONLY is our own `query_only`; its kinds are that the file was moved, and the like.
    return primary_code(error) in _OF_MACHINE and getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_READONLY


_OF_MACHINE: Final = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_NOMEM,
    )
)


def primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def within(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*, which leaves the transaction as it is. Raises TransactionUndoneError if there is none."""
    if not conn.in_transaction:
        raise TransactionUndoneError
    try:
        return fn(conn)
    except (sqlite3.Error, StopIteration) as error:
        shown = as_shown(error, path)
        if shown is error:
            raise
        raise shown from error


def write_anew(conn: sqlite3.Connection, path: str) -> None:
    """Write the file anew, so that nothing is left of what was deleted in any page of it."""
    try:
        # All of it, rather than `secure_delete`, which knows nothing of copies that earlier changes left in free space.
        conn.execute("VACUUM")
    except sqlite3.Error as error:
        raise translate(error, path) from error


def empty_wal(conn: sqlite3.Connection, path: str) -> bool:
    """Leave nothing in the WAL; False if somebody reads it, who was waited for as long as for a lock."""
    try:
        (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # nothing less empties it
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return not busy


# --- opening, on the thread that will own the connection -------------------------------------


def real_path(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path)  # a few stat calls, once: not worth a thread


def free_bytes(path: str) -> int:
    try:
        free = os.statvfs(Path(path).parent)
    except OSError:
        return sys.maxsize
    return free.f_bavail * free.f_frsize


def connected(path: str, mode: Literal["rw", "ro", "ro&immutable=1", "memory"]) -> sqlite3.Connection:
    # The name may hold ? and #, and bytes that are no text; what begins with two slashes would name a host.
    place = "file://" if path.startswith("/") else "file:"
    conn = sqlite3.connect(
        f"{place}{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        isolation_level=None,  # so that there is no BEGIN but ours
        cached_statements=CACHED_STATEMENTS,
        # Each connection has one thread; only `interrupt` comes from another.
        check_same_thread=False,
        # What writes runs the application's own statements, too, which take as long as they take.
        factory=Watched if mode.startswith("ro") else sqlite3.Connection,
    )
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_BYTES)
    return conn


def open_reader(path: str, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that cannot write, to a file that may be a stranger's."""
    refuse_side_files(real_path(path))
    try:
        conn = connected(path, "ro&immutable=1" if immutable else "ro")
        try:
            apply_pragmas(conn, path, "shared", "reader")
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return conn


def apply_pragmas(conn: sqlite3.Connection, path: str, *kinds: str) -> None:
    for kind in kinds:
        for set_it, read_it, expected in PRAGMAS[kind]:
            conn.execute(set_it).fetchall()
            found = conn.execute(read_it).fetchone()
            if found is None or found[0] != expected:
                raise JournalAccessError(path, f"{read_it} is {found and found[0]!r}, not {expected!r} as was set")


def version_notices(version: tuple[int, ...]) -> list[str]:
    """What to tell about a version of SQLite with a known corruption race between two writers."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    text = ".".join(map(str, version))
    told = (
        f"SQLite {text} has a bug that can damage a file which two programs write at the same moment. durable writes "
        "its file from one process only, so it is safe as long as no other program writes to it, or checkpoints it, "
        "meanwhile: read it with `sqlite3 -readonly`, copy it with `durable backup`. Fixed in SQLite 3.51.3, 3.50.7 "
        "and 3.44.6"
    )
    return [] if fixed else [told]
