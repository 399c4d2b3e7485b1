"""
Connections to the journal's file: one that writes, one that reads. Nothing about tables.

A write is one function, run on the writer's thread between BEGIN IMMEDIATE and COMMIT, in one
hop. The thread takes its work in order of arrival, so that no lock is needed between writes.

Promises: what one function wrote is committed whole or not at all, whatever happens to the
awaiter; `write` returns only after COMMIT did (needs durability "full": "process" may lose the
last commits at a power cut); a COMMIT that raised is never reported as "nothing was written"
unless SQLite says so, and the connection then refuses everything until `reopen`; only the
writer's connection ever writes or checkpoints; every pragma is read back; a file that is
refused is not modified; closing is bounded, and a process that forgot to close can end.

Never opens the database file, its WAL or its shared memory except through SQLite: closing such
a descriptor drops SQLite's locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeVar, cast
from urllib.parse import quote

import aiosqlite
import anyio

from durable.errors import (
    DurableError,
    EngineClosedError,
    ForeignJournalError,
    JournalAccessError,
    JournalError,
    JournalFullError,
    JournalIOError,
    TransactionRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables
CACHED_STATEMENTS: Final = 512  # all of ours and a fair number of the application's
# SQLite maps 32 KiB of shared memory into a file; on a full disk touching it kills the process.
FREE_BYTES: Final = 128 << 10
# Each is set, then read back: SQLite accepts a mistyped pragma in silence.
_SHARED_PRAGMAS: Final = (
    ("PRAGMA busy_timeout = 5000", "PRAGMA busy_timeout", 5000),  # somebody's shell; no other engine can
    ("PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", 1),
    ("PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", 0),
)
_WRITER_PRAGMAS: Final = (
    ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode", "wal"),
    ("PRAGMA journal_size_limit = 67108864", "PRAGMA journal_size_limit", 67108864),  # kept after a burst
    ("PRAGMA wal_autocheckpoint = 1000", "PRAGMA wal_autocheckpoint", 1000),  # automatic ones are PASSIVE
)
_READER_PRAGMAS: Final = (
    ("PRAGMA query_only = ON", "PRAGMA query_only", 1),
    ("PRAGMA wal_autocheckpoint = 0", "PRAGMA wal_autocheckpoint", 0),
)
_SYNCHRONOUS: Final = {
    "full": ("PRAGMA synchronous = FULL", "PRAGMA synchronous", 2),
    "process": ("PRAGMA synchronous = NORMAL", "PRAGMA synchronous", 1),
}
# Time for the call under way to end at `aclose`, before it is interrupted, and after.
CLOSE_SECONDS: Final = 5.0
INTERRUPTED_SECONDS: Final = 1.0
# No working locks, or no shared memory between processes.
NETWORK_FILESYSTEMS: Final = re.compile(
    r"9p|afs|ceph|cifs|coda|davfs|gfs2|glusterfs|lustre|ncpfs|nfs4?|ocfs2|smb3|smbfs"
    r"|fuse\.(ceph|gcsfuse|glusterfs|juicefs|rclone|s3fs|sshfs)"
)


class CommitUnknownError(JournalError):
    """A COMMIT failed and may have committed: reopen, read back, then decide. `cause` says why it failed."""

    def __init__(self, path: str, cause: JournalError) -> None:
        super().__init__(path, f"a commit failed, its outcome is unknown: {cause.reason}")
        self.args = (path, cause)
        self.cause = cause


def translate(error: sqlite3.Error | OSError, path: str) -> JournalError:
    """The error of this library that says what *error* means for the journal at *path*."""
    reason = str(error)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        denied = error.errno != errno.EIO
        return (JournalFullError if full else JournalAccessError if denied else JournalIOError)(path, reason)
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the Python module, not by SQLite
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
            return (JournalFullError if _free_bytes(path) < FREE_BYTES else JournalIOError)(path, reason)
        case sqlite3.SQLITE_CORRUPT:
            return JournalError(path, f"{reason}. Restore from a backup")
        case _:
            return JournalError(path, reason)


class Guard:
    """
    Refuses SQL of the application that would break the transaction it runs in, or write our tables.

    SQLite asks an authorizer when it prepares a statement, and prepared statements are cached by
    their text: hence the mark in front of the application's, which keeps them apart from ours.
    """

    def __init__(self) -> None:
        self.active = False
        self._denied = ""

    def install(self, conn: sqlite3.Connection) -> None:
        """Watch *conn*: once for each connection, it costs nothing while `active` is False."""
        conn.set_authorizer(self._authorize)

    def run(self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], *, sql: str = "") -> T:
        """The result of *fn*, guarded. Text of the application's goes through `execute` instead."""
        before, self.active, self._denied = self.active, True, ""
        try:
            return fn(conn)
        except sqlite3.DatabaseError as error:
            if self._denied and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
                raise TransactionRefusedError(sql, self._denied) from error
            raise
        finally:
            self.active = before

    def execute(self, conn: sqlite3.Connection, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """The cursor of one statement of the application's."""
        refuse_control(sql)
        return self.run(conn, lambda conn: conn.execute(_MARK + sql, parameters), sql=sql)

    def executemany(self, conn: sqlite3.Connection, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        """The cursor of one statement of the application's, run for each of *rows*."""
        refuse_control(sql)
        return self.run(conn, lambda conn: conn.executemany(_MARK + sql, rows), sql=sql)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if not self.active:
            return sqlite3.SQLITE_OK
        reason = ""
        if action in _CONTROL_ACTIONS or (action == sqlite3.SQLITE_PRAGMA and first not in _READING_PRAGMAS):
            reason = "the engine begins and ends the transaction, and owns the connection's settings"
        elif action in _WRITE_ACTIONS and (_ours(first) or (action != sqlite3.SQLITE_UPDATE and _ours(second))):
            # An update's second name is a column's, which may be what the application likes.
            reason = "tables, indexes and views of the engine are read-only"
        self._denied = reason or self._denied
        return sqlite3.SQLITE_DENY if reason else sqlite3.SQLITE_OK


_MARK: Final = "/* application */ "
_CONTROL_ACTIONS: Final = frozenset(
    (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
)
_READING_PRAGMAS: Final = frozenset(
    ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list")
)
# INSERT, UPDATE, DELETE, ALTER TABLE, and every CREATE and DROP: SQLite numbers them like this.
_WRITE_ACTIONS: Final = frozenset((*range(1, 19), 23, 26, 29, 30))
_SKIPPED: Final = re.compile(r"(?:[\s;\ufeff]+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*", re.DOTALL)
_CONTROL_WORDS: Final = frozenset(
    ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM", "PRAGMA")
)


def refuse_control(sql: str) -> None:
    """
    Nothing, if *sql* may be run inside a transaction of ours.

    Raises:
        TransactionRefusedError: If it would end or nest the transaction, or change the connection.
    """
    start = _SKIPPED.match(sql)
    word = re.match(r"\w*", sql[start.end() if start else 0 :])
    if word and word.group().upper() in _CONTROL_WORDS:
        raise TransactionRefusedError(
            sql, f"{word.group().upper()} belongs to the engine: return, or raise to roll back"
        )


def _ours(name: str | None) -> bool:
    return name is not None and (name.lower().startswith("durable_") or name.lower() in ("runs", "history", "waits"))


# --- transactions, on whichever thread owns the connection ----------------------------------


def _begin(conn: sqlite3.Connection, path: str) -> None:
    try:
        conn.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _commit(conn: sqlite3.Connection, path: str) -> None:
    if not conn.in_transaction:
        # A full disk makes SQLite roll back by itself; what came after committed statement by statement.
        conn.close()
        raise CommitUnknownError(path, JournalIOError(path, "the transaction ended before its commit"))
    try:
        conn.execute("COMMIT")
    except sqlite3.Error as error:
        cause = translate(error, path)
        # Still in the transaction, so rolling it back decides. After a failed sync nothing does.
        if _open_transaction(conn) and _primary_code(error) != sqlite3.SQLITE_IOERR:
            _roll_back(conn, path)
            if isinstance(error, sqlite3.IntegrityError):  # a deferred constraint: the application's
                raise
            raise cause from error
        conn.close()
        raise CommitUnknownError(path, cause) from error


def _open_transaction(conn: sqlite3.Connection) -> bool:
    return conn.in_transaction  # a function, because type checkers believe what they saw before COMMIT


def _roll_back(conn: sqlite3.Connection, path: str) -> None:
    try:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
    except sqlite3.Error as error:
        conn.close()  # nothing was committed, and closing forgets it; `reopen` goes on
        raise translate(error, path) from error


def _transact(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    _begin(conn, path)
    result = _attempt(conn, path, fn)
    _commit(conn, path)
    return result


def _attempt(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*; on any error of its the transaction is rolled back."""
    try:
        return fn(conn)
    except BaseException as error:
        _roll_back(conn, path)
        shown = _shown(error, path)
        if shown is error:
            raise
        raise shown from error


def _look(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*, in a transaction that only reads: all of it sees one state of the file."""
    try:
        conn.execute("BEGIN")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    result = _attempt(conn, path, fn)
    _roll_back(conn, path)  # nothing to commit, and this cannot fail half-way
    return result


def _shown(error: BaseException, path: str) -> BaseException:
    """*error*, as the caller is to see it."""
    if isinstance(error, sqlite3.Error) and _primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return translate(error, path)
    if isinstance(error, StopIteration):  # no future can carry it: its awaiter would wait for ever
        return RuntimeError("StopIteration raised in a transaction: give next() a default")
    return error


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


# --- opening, on the thread that will own the connection -------------------------------------


def _check_place(path: str, *, create: bool) -> None:
    """Refuse a place where SQLite's promises do not hold; create the file, for its owner alone."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise JournalAccessError(path, f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    directory = str(Path(path).parent)
    if not Path(directory).is_dir():
        raise JournalAccessError(path, f"directory {directory} does not exist")
    kind = _filesystem(directory)
    if NETWORK_FILESYSTEMS.fullmatch(kind):
        raise JournalAccessError(path, f"{directory} is on a network file system ({kind}), whose locks do not hold")
    if _free_bytes(path) < FREE_BYTES:
        raise JournalFullError(path, f"less than {FREE_BYTES >> 10} KiB are free in {directory}")
    if create:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if not Path(path).is_file():
        raise JournalAccessError(path, "it is no regular file, or it was deleted")
    if Path(path).stat().st_nlink != 1:
        raise JournalAccessError(path, "it has a second name (hard link), and with it a second WAL")


def _filesystem(directory: str) -> str:
    """Type of the file system that *directory* is on, or "" where that cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), left.split(" ")[4])
        # A later mount hides an earlier one on the same directory.
        if len(mount) >= len(best) and f"{directory}/".startswith(mount.rstrip("/") + "/"):
            best, kind = mount, right.split(" ")[0]
    return kind


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path)  # a few stat calls, once: not worth a thread


def _free_bytes(path: str) -> int:
    try:
        free = os.statvfs(Path(path).parent)
    except OSError:
        return sys.maxsize
    return free.f_bavail * free.f_frsize


def _connected(path: str, mode: Literal["rw", "ro", "memory"]) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        isolation_level=None,  # no BEGIN but ours
        cached_statements=CACHED_STATEMENTS,
        # Each connection has one thread; only `interrupt` comes from another.
        check_same_thread=False,
    )


def _apply(conn: sqlite3.Connection, path: str, pragmas: Iterable[tuple[str, str, int | str]]) -> None:
    for set_it, read_it, expected in pragmas:
        conn.execute(set_it).fetchall()
        found = conn.execute(read_it).fetchone()
        if found is None or found[0] != expected:
            raise JournalAccessError(path, f"{read_it} is {found and found[0]!r}, not {expected!r} as was set")


def _version_notices(version: tuple[int, ...]) -> list[str]:
    """What to tell about a version of SQLite with a known corruption race between two writers."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    text = ".".join(map(str, version))
    remedy = "no other program may write to or checkpoint the journal; fixed in 3.51.3, 3.50.7 and 3.44.6"
    return [] if fixed else [f"SQLite {text} can corrupt a WAL that two connections reset at once: {remedy}"]


def _back_up(conn: sqlite3.Connection, path: str, target: str, *, overwrite: bool) -> None:
    """Copy to a file beside *target*, verify it, and only then give it its name."""
    if target == path:
        raise JournalAccessError(path, "a backup cannot replace the journal itself")
    for leftover in (f"{target}-wal", f"{target}-journal"):
        if Path(leftover).exists():
            raise JournalAccessError(target, f"{leftover} exists, and would be applied to the backup")
    partial_path = f"{target}.{secrets.token_hex(4)}.partial"
    try:
        os.close(os.open(partial_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(_connected(partial_path, "rw")) as copy:
                conn.backup(copy, pages=-1)
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, complete without a WAL
                if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise JournalError(target, f"the backup does not verify: {found}")
            if overwrite:
                Path(partial_path).replace(target)
            else:
                os.link(partial_path, target)  # refuses an existing target, which replace would not
        finally:
            Path(partial_path).unlink(missing_ok=True)
        directory = os.open(Path(target).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise JournalAccessError(target, "it exists already: pass overwrite=True to replace it") from None
    except (sqlite3.Error, OSError) as error:
        raise translate(error, target) from error


# --- the database --------------------------------------------------------------------------


class _Worker(aiosqlite.Connection):
    """One connection and its thread, which runs whole functions and never keeps the process alive."""

    def __init__(self, opened: Callable[[], sqlite3.Connection], name: str) -> None:
        self.raw: sqlite3.Connection | None = None

        def connector() -> sqlite3.Connection:
            self.raw = opened()
            return self.raw

        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True
        self._thread.name = name

    def call(self, fn: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """The result of *fn*, called on the thread. It is queued when this is first awaited."""
        result: Awaitable[Any] = cast("Any", self)._execute(fn, *arguments)  # noqa: SLF001 - untyped there
        return result

    def landed(self) -> asyncio.Future[None] | None:
        """Done when every call made so far has ended; None if that cannot be waited for."""
        if not self._running:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cast("Any", self)._tx.put_nowait((future, lambda: None))  # noqa: SLF001 - untyped there
        return future

    def stop(self) -> asyncio.Future[Any] | None:
        """Close after the calls made so far, also when nobody waited for the connection to open."""

        def close() -> None:
            raw, self.raw, self._connection = self.raw, None, None
            if raw is not None:
                raw.close()

        cast("Any", self)._tx.put_nowait((None, close))  # noqa: SLF001 - untyped there
        return cast("Any", super()).stop()  # type: ignore[no-any-return] # half typed there

    def join(self) -> bool:
        """Whether the thread has ended, after waiting for it to leave its last call."""
        self._thread.join(INTERRUPTED_SECONDS)
        return not self._thread.is_alive()


class Exclusive:
    """One transaction of several hops; everybody else's writes wait until it has ended."""

    def __init__(self, hop: Callable[..., Awaitable[Any]]) -> None:
        self._hop = hop
        self.over = False

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of *fn*, run inside the transaction. Its errors do not end the transaction."""
        if self.over:
            raise EngineClosedError("this transaction is over")
        result: T = await self._hop(fn)
        return result

    async def execute(self, sql: str, parameters: Any = ()) -> list[Any]:
        """All rows of one statement (none, for one that returns no rows)."""
        return await self.run(lambda conn: conn.execute(sql, parameters).fetchall())


class Database:
    """The connections to one file, for one event loop. Make it with `open`."""

    def __init__(
        self,
        path: str,
        durability: Literal["full", "process"],
        prepare: Callable[[sqlite3.Connection], None] | None,
        inspect: Callable[[sqlite3.Connection], None] | None,
    ) -> None:
        #: The real path: a symbolic link is followed once, here.
        self.path = path
        #: What an operator should know, in sentences. Nothing that prevents work.
        self.notices: list[str] = _version_notices(sqlite3.sqlite_version_info)
        #: Calls whose work is under way on a thread, even if nobody awaits them any more.
        self.calls_in_flight = 0
        self.guard = Guard()
        self._durability, self._prepare, self._inspect = durability, prepare, inspect
        self._loop = asyncio.get_running_loop()
        self._exclusive = asyncio.Lock()  # held during several hops: `write` needs it only then
        self._reader_opening = asyncio.Lock()
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        self._identity: os.stat_result | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "process"] = "full",
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        inspect: Callable[[sqlite3.Connection], None] | None = None,
    ) -> Self:
        """
        Open, creating the file (mode 0600) where there is none.

        Args:
            path: On a local file system.
            durability: "full" survives a power cut, "process" the death of the process.
            prepare: Called on the writer's thread before anything else writes; does its own
                BEGIN and COMMIT. Called again by `reopen`. What it raises closes everything.
            inspect: Called before anything is modified: the place to refuse a file.

        Raises:
            JournalError: A subclass that says what about the file or the machine is wrong.
        """
        database = cls(_real(path), durability, prepare, inspect)
        try:
            await _whole(database._start())
        except BaseException:
            await database.aclose()
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """
        The result of *fn*, once everything it wrote is committed.

        Goes on to its end when the caller is cancelled. *fn* must not begin or end transactions.

        Raises:
            CommitUnknownError: The commit failed, and may have committed. `reopen`, then look.
            JournalError: Nothing was written.
        """
        if self._exclusive.locked():
            async with self._exclusive:
                return await self._hop(self._writer, _transact, fn)
        return await self._hop(self._writer, _transact, fn)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[Exclusive, None]:
        """One transaction of several hops: committed at the block's end, rolled back on an exception."""
        async with self._exclusive:
            writer = self._writer
            transaction = Exclusive(partial(self._hop, writer, _within))
            try:
                # Cancelled here, BEGIN still happens: hence the rollback below.
                await self._hop(writer, _begin)
                yield transaction
            except BaseException:
                # Its place in the queue is what matters: later writes come after it, awaited or not.
                with contextlib.suppress(DurableError):
                    await self._hop(writer, _roll_back)
                raise
            finally:
                transaction.over = True
            await self._hop(writer, _commit)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of *fn* on the reading connection, in a transaction of its own. Keep it short."""
        return await self._hop(self._reader or await self._reading(), _look, fn)

    async def reopen(self) -> None:
        """Close both connections and open them again, after an error that made the writer stop."""
        async with self._exclusive, self._reader_opening:
            self.check_file()
            await _whole(self._stop_all())
            await _whole(self._start())

    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """A verified copy at *target* (mode 0600), complete in one file. Reads wait meanwhile, writes do not."""
        reader = self._reader or await self._reading()
        await self._hop(reader, partial(_back_up, overwrite=overwrite), _real(target))

    async def checkpoint(self) -> tuple[int, int, int]:
        """Move what readers allow from the WAL to the file: (busy, pages in the WAL, pages moved)."""

        def passive(conn: sqlite3.Connection) -> tuple[int, int, int]:
            try:
                busy, pages, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            return busy, pages, moved

        async with self._exclusive:
            return await self._hop(self._writer, _within, passive)

    def check_identity(self) -> None:
        """
        Nothing, while the path still leads to the file we write and its WAL is beside it.

        Raises:
            JournalAccessError: Commits may be going where nobody will find them; says why.
        """
        self.check_file()
        if not Path(f"{self.path}-wal").exists():
            raise JournalAccessError(self.path, "its WAL (-wal) was deleted: recent commits are in no file")

    def check_file(self) -> None:
        """`check_identity` without the WAL, which a closed file does not have."""
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise JournalAccessError(self.path, f"it was deleted, renamed or hidden: {error.strerror}") from error
        if self._identity is not None and not os.path.samestat(found, self._identity):
            raise JournalAccessError(self.path, "another file has taken its place")
        if found.st_nlink != 1:
            raise JournalAccessError(self.path, "it has a second name (hard link), and with it a second WAL")

    async def aclose(self) -> None:
        """Close both connections and join their threads, within a few seconds. Never raises for a second call."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._stop_all())
        await _whole(self._closing)

    async def _hop(self, worker: _Worker | None, fn: Callable[..., T], *arguments: Any) -> T:
        """*fn*, called with connection, path and *arguments* on the worker's thread."""
        raw = worker and worker.raw
        if worker is None or raw is None or self._closing is not None:
            raise EngineClosedError(f"journal {self.path} is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise EngineClosedError(f"journal {self.path} was opened on another event loop")
        self.calls_in_flight += 1
        try:
            result: T = await worker.call(fn, raw, self.path, *arguments)
        except asyncio.CancelledError:
            # The thread goes on. Its queue is in order, so this is done when the call is.
            if (landed := worker.landed()) is not None:
                self.calls_in_flight += 1
                landed.add_done_callback(self._landed)
            raise
        finally:
            self.calls_in_flight -= 1
        return result

    def _landed(self, _: object) -> None:
        self.calls_in_flight -= 1

    async def _start(self) -> None:
        self._writer = await self._started(_Worker(self._open_writer, "durable-writer"))

    async def _reading(self) -> _Worker:
        async with self._reader_opening:
            if self._closing is not None or self._writer is None:
                raise EngineClosedError(f"journal {self.path} is closed")
            if self._reader is None:
                self._reader = await _whole(self._started(_Worker(self._open_reader, "durable-reader")))
            return self._reader

    async def _started(self, worker: _Worker) -> _Worker:
        self.calls_in_flight += 1
        try:
            await worker
        except BaseException:
            worker.join()  # aiosqlite has told it to stop
            raise
        finally:
            self.calls_in_flight -= 1
        return worker

    async def _stop_all(self) -> None:
        # The writer last: the last one to close checkpoints, and only the writer may.
        workers = [worker for worker in (self._reader, self._writer) if worker is not None]
        self._reader = self._writer = None
        self.calls_in_flight += 1
        try:
            while workers:
                await self._stop(workers.pop(0))
        finally:
            for worker in workers:  # the loop itself is being torn down
                worker.stop()
            self.calls_in_flight -= 1

    async def _stop(self, worker: _Worker) -> None:
        raw, stopped = worker.raw, worker.stop()
        if stopped is not None:
            await asyncio.wait([stopped], timeout=CLOSE_SECONDS)
            if not stopped.done() and raw is not None:
                raw.interrupt()
                await asyncio.wait([stopped], timeout=INTERRUPTED_SECONDS)
        if (stopped is not None and not stopped.done()) or not worker.join():
            self.notices.append("a call did not end in time: its thread was abandoned and ends with the process")

    def _open_writer(self) -> sqlite3.Connection:
        try:
            _check_place(self.path, create=self._identity is None)
            conn = _connected(self.path, "rw")
        except (sqlite3.Error, OSError) as error:
            raise translate(error, self.path) from error
        try:
            try:
                conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # is it a database at all?
                _apply(conn, self.path, _SHARED_PRAGMAS)
                if self._inspect is not None:
                    self._inspect(conn)
                _apply(conn, self.path, (*_WRITER_PRAGMAS, _SYNCHRONOUS[self._durability]))
                conn.execute("BEGIN IMMEDIATE")  # may we write? also creates the WAL
                conn.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            self.guard.install(conn)
            if self._prepare is not None:
                _attempt(conn, self.path, self._prepare)
            self._identity = Path(self.path).stat()
        except BaseException:
            conn.close()
            raise
        return conn

    def _open_reader(self) -> sqlite3.Connection:
        try:
            conn = _connected(self.path, "ro")
            try:
                _apply(conn, self.path, (*_SHARED_PRAGMAS, *_READER_PRAGMAS))
            except BaseException:
                conn.close()
                raise
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        return conn


def _within(conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
    """The result of *fn*, which leaves the transaction as it is."""
    try:
        return fn(conn)
    except (sqlite3.Error, StopIteration) as error:
        shown = _shown(error, path)
        if shown is error:
            raise
        raise shown from error


async def _whole(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """The result of *work*, which is not cancelled with its caller; the caller is, afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it at its end
        raise cancelled
    return task.result()


class MemoryDatabase:
    """The same over one private in-memory database, for tests: no file, no thread, no hop."""

    def __init__(self) -> None:
        self.path = ":memory:"
        self.notices: list[str] = []
        self.calls_in_flight = 0
        self.guard = Guard()
        self._exclusive = asyncio.Lock()
        self._conn: sqlite3.Connection | None = _connected("", "memory")
        _apply(self._conn, self.path, _SHARED_PRAGMAS)
        self.guard.install(self._conn)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str] = ":memory:",  # noqa: ARG003 - opens like a Database
        *,
        durability: Literal["full", "process"] = "full",  # noqa: ARG003 - nothing survives anyway
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        inspect: Callable[[sqlite3.Connection], None] | None = None,
    ) -> Self:
        """Open an empty database."""
        database = cls()
        try:
            for fn in (inspect, prepare):
                if fn is not None:
                    _attempt(database._raw(), database.path, fn)
        except BaseException:
            await database.aclose()
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database.write`; runs at once, without giving other tasks a turn."""
        if self._exclusive.locked():
            async with self._exclusive:
                return _transact(self._raw(), self.path, fn)
        return _transact(self._raw(), self.path, fn)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[Exclusive, None]:
        """As `Database.exclusive`."""
        async with self._exclusive:

            async def hop(fn: Callable[[sqlite3.Connection], T]) -> T:
                return _within(self._raw(), self.path, fn)

            transaction = Exclusive(hop)
            _begin(self._raw(), self.path)
            try:
                yield transaction
            except BaseException:
                if self._conn is not None:
                    _roll_back(self._conn, self.path)
                raise
            finally:
                transaction.over = True
            _commit(self._raw(), self.path)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As `Database.read`; waits for an exclusive transaction, since there is one connection."""
        if self._exclusive.locked():
            async with self._exclusive:
                return self._look(fn)
        return self._look(fn)

    async def reopen(self) -> None:
        """Nothing: closing would lose everything."""
        self._raw()

    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """As `Database.backup`."""
        _back_up(self._raw(), self.path, _real(target), overwrite=overwrite)

    async def checkpoint(self) -> tuple[int, int, int]:
        """Nothing: there is no WAL."""
        self._raw()
        return 0, 0, 0

    def check_identity(self) -> None:
        """Nothing: there is no file."""

    async def aclose(self) -> None:
        """Close, and forget everything."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _raw(self) -> sqlite3.Connection:
        if self._conn is None:
            raise EngineClosedError(f"journal {self.path} is closed")
        return self._conn

    def _look(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        conn = self._raw()
        conn.execute("PRAGMA query_only = ON")
        try:
            return _look(conn, self.path, fn)
        finally:
            conn.execute("PRAGMA query_only = OFF")


class AnyDatabase(Protocol):
    """What the journal needs of a database."""

    path: str
    notices: list[str]
    calls_in_flight: int
    guard: Guard

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...
    def exclusive(self) -> AbstractAsyncContextManager[Exclusive]: ...
    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...
    async def reopen(self) -> None: ...
    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None: ...
    async def checkpoint(self) -> tuple[int, int, int]: ...
    def check_identity(self) -> None: ...
    async def aclose(self) -> None: ...


_fits: tuple[type[AnyDatabase], ...] = (Database, MemoryDatabase)
