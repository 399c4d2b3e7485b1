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

Never opens the database file or its shared memory except through SQLite: closing such a
descriptor drops SQLite's locks. There are none on the WAL.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, cast

import aiosqlite

from durable._shell.loops import to_its_end
from durable._shell.storage.connections import (
    apply_pragmas,
    attempt,
    begin,
    checkpoint,
    commit,
    connected,
    empty_wal,
    look,
    open_reader,
    real_path,
    restart_wal,
    roll_back,
    transact,
    translate,
    version_notices,
    within,
    write_anew,
)
from durable._shell.storage.copies.backups import back_up
from durable._shell.storage.folder import Folder
from durable._shell.storage.guard import Guard
from durable._shell.storage.location import check_place
from durable._shell.storage.pace import Pace
from durable._shell.storage.port import Exclusive
from durable._shell.storage.wal_room import WalRoom
from durable._shell.switching import switching
from durable.errors import (
    DurableError,
    EngineClosedError,
    JournalAccessError,
    JournalDamagedError,
    JournalError,
    JournalIOError,
    JournalLostError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

T = TypeVar("T")

_NOT_OPEN: Final = "it was closed after an error and could not be opened again yet"
# What SQLite keeps beside an open file: suffix, name, what follows if it is gone.
_SIDE_FILES: Final = (
    ("-wal", "WAL", "recent commits are in no file"),
    ("-shm", "shared memory", "other processes would not see which parts of the WAL are in use"),
)
# Time for the current call to end at `aclose`, before it is interrupted, and after.
CLOSE_SECONDS: Final = 5.0
INTERRUPTED_SECONDS: Final = 1.0
# Before each look whether the last reader of a WAL that is to be emptied has ended: others write meanwhile.
_EMPTYING_PAUSES: Final = (0.0, 0.05, 0.5, 2.0)
# A loop that is never idle, in iterations shorter than the interpreter's switch interval, keeps its lock (GIL) from
# every other thread: it takes it back before they have woken up, and a commit takes minutes. Where no call has ended
# for so long, the loop sleeps that long, that often, so that ours get their turn.
STARVED_SECONDS: Final = 0.02
GIVEN_SECONDS: Final = 0.0001
GIVEN_EVERY: Final = 0.002
# What aiosqlite's thread ends after.
_ENDS_THE_THREAD: Final[object] = cast("Any", aiosqlite.core)._STOP_RUNNING_SENTINEL  # noqa: SLF001


class _Worker(aiosqlite.Connection):
    """One connection and its thread, which runs whole functions and never keeps the process alive."""

    def __init__(self, opened: Callable[[], sqlite3.Connection], name: str) -> None:
        self.raw: sqlite3.Connection | None = None
        #: Calls of which the loop has not heard that they have ended, abandoned ones among them.
        self.calls = 0

        def connector() -> sqlite3.Connection:
            self.raw = opened()
            return self.raw

        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True
        self._thread.name = name

    async def begin(self) -> None:
        """Start the thread, and open the connection there."""
        self._thread.start()
        try:
            await self.call(cast("Any", self)._connector)  # noqa: SLF001 - untyped there
        except BaseException:
            self.stop()
            raise

    def call(
        self, fn: Callable[..., Any], *arguments: Any, then: Callable[[], None] | None = None
    ) -> asyncio.Future[Any]:
        """The result of *fn*, called on the thread, and *then*: queued at once, without a coroutine of its own."""
        if not self._running:
            raise ValueError("the connection is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(partial(_answer, future, fn, arguments, self, then))
        self.calls += 1
        return future

    def call_at_once(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        """As `call`, without the loop, which waits for it."""
        if not self._running:
            raise ValueError("the connection is closed")
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def carry_out() -> None:
            try:
                done.set_result(fn(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
                done.set_exception(error)

        self._put(carry_out)
        return done.result()

    def landed(self) -> asyncio.Future[None] | None:
        """Done when every call made so far has ended; None if that cannot be waited for."""
        return self.call(int) if self._running else None

    def stop(self) -> asyncio.Future[Any]:
        """Close after the calls made so far, also when nobody waited for the connection to open."""
        stopped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.stop_unheard(partial(_answer, stopped, int, (), None, None))
        return stopped

    def stop_unheard(self, then: Callable[[], None]) -> None:
        """As `stop`, for whom no loop waits: *then* is called on the thread, once the connection is closed."""
        self._running = False

        def close() -> object:
            raw, self.raw = self.raw, None
            try:
                if raw is not None:
                    raw.close()
            finally:
                then()
            return _ENDS_THE_THREAD

        self._put(close)

    def _put(self, fn: Callable[[], object]) -> None:
        # Not with the future, which aiosqlite would answer even if its loop has been closed, and fail at that.
        cast("Any", self)._tx.put_nowait((None, fn))  # noqa: SLF001 - untyped there

    @property
    def began(self) -> bool:
        """Whether the system had a thread for it."""
        return self._thread.ident is not None

    def join(self) -> bool:
        """Whether the thread has ended, after waiting for it to leave its last call."""
        self._thread.join(INTERRUPTED_SECONDS)
        return not self._thread.is_alive()


def _answer(
    future: asyncio.Future[Any],
    fn: Callable[..., Any],
    arguments: tuple[Any, ...],
    worker: _Worker | None,
    then: Callable[[], None] | None,
) -> None:
    """
    Call *fn*, and tell the one who waits on the loop, if it is still there; *worker* is told that the call has ended.

    If *fn* returns, *then* is called in the iteration of the loop in which it hears of that, where given: in nobody's
    task, and before the one who waits, who goes on in the next one.
    """
    value: Any = None
    failure: BaseException | None = None
    try:
        value = fn(*arguments)
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
        failure = error
    try:  # noqa: SIM105 - it costs as much as the call, and each commit comes here
        future.get_loop().call_soon_threadsafe(_tell, future, value, failure, worker, then)
    except RuntimeError:
        pass  # the loop was closed meanwhile: nobody waits


def _tell(
    future: asyncio.Future[Any],
    value: Any,
    failure: BaseException | None,
    worker: _Worker | None,
    then: Callable[[], None] | None,
) -> None:
    if worker is not None:
        worker.calls -= 1
    if failure is not None:
        if not future.done():
            future.set_exception(failure)
        return
    try:
        if then is not None:
            then()
    finally:
        if not future.done():
            future.set_result(value)


class Database:
    """The connections to one file, for one event loop. Make it with `open`."""

    def __init__(
        self,
        path: str,
        durability: Literal["full", "process"],
        prepare: Callable[[sqlite3.Connection], None] | None,
        inspect: Callable[[sqlite3.Connection], None] | None,
        make: Callable[[str], None] | None,
        *,
        allow_network_fs: bool,
        inline: bool,
    ) -> None:
        self._allow_network_fs = allow_network_fs
        #: Only where commits may be made on the loop's thread.
        self._pace = Pace() if inline else None
        #: The real path: a symbolic link is followed once, here.
        self.path = path
        #: Whether it was found to be a copy of a file that was open: a whole one, see `torn`.
        self.is_copy = False
        #: What an operator should know, in sentences. Nothing that prevents work.
        self.notices: list[str] = version_notices(sqlite3.sqlite_version_info)
        #: Calls whose work is running on a thread, even if nobody awaits them any more.
        self.calls_in_flight = 0
        self._calls_ended = self._ended_before = 0
        self._watched = False
        self.guard = Guard()
        self._durability, self._prepare, self._inspect, self._make = durability, prepare, inspect, make
        self._loop = asyncio.get_running_loop()
        self._exclusive = asyncio.Lock()  # held during several hops: `write` needs it only then
        self._opening = asyncio.Lock()  # held while connections come and go after `open`
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        #: Those that make backups, and what tells each to stop.
        self._copiers: dict[_Worker, threading.Event] = {}
        self._no_copiers = asyncio.Event()
        self._no_copiers.set()
        self._identity: os.stat_result | None = None
        self._side_files: dict[str, os.stat_result] = {}
        #: Only where commits are synced.
        self._room: WalRoom | None = None
        self._folder = Folder(path)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "process"] = "full",
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        inspect: Callable[[sqlite3.Connection], None] | None = None,
        make: Callable[[str], None] | None = None,
        allow_network_fs: bool = False,
        inline: bool = False,
    ) -> Self:
        """
        Open, creating the file (mode 0600) where there is none.

        Args:
            path: On a local file system.
            durability: "full" survives a power cut, "process" the death of the process.
            prepare: Called on the writer's thread before anything else writes; does its own
                BEGIN and COMMIT. Called again by `reopen`. What it raises closes everything.
            inspect: Called before anything is modified: the place to refuse a file.
            make: Called with the path before that; may make a file where there is none.
            allow_network_fs: Whether it may lie where locks do not hold.
            inline: Whether the loop may wait for short commits, see `write_inline`.

        Raises:
            JournalError: A subclass that says what about the file or the machine is wrong.
        """
        database = cls(
            real_path(path), durability, prepare, inspect, make, allow_network_fs=allow_network_fs, inline=inline
        )
        try:
            await to_its_end(database._start())
        except BaseException:
            await database.aclose()
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T], then: Callable[[], None] | None = None) -> T:
        """
        The result of *fn*, once everything it wrote is committed.

        Goes on to its end when the caller is cancelled. *fn* must not begin or end transactions. *then* is called as
        soon as the loop hears of the commit, one iteration before the caller goes on; it must not raise.

        Raises:
            CommitUnknownError: The commit failed, and may have committed. `reopen`, then look.
            JournalError: Nothing was written.
        """
        if self._exclusive.locked():
            async with self._exclusive:
                return await self._hop(self._writer, self._transact, fn, then=then)
        return await self._hop(self._writer, self._transact, fn, then=then)

    def _transact(self, conn: sqlite3.Connection, path: str, fn: Callable[[sqlite3.Connection], T]) -> T:
        if self._room is not None:
            fn = self._room.before(fn)
        return (transact if self._pace is None else self._pace.transact)(conn, path, fn)

    @property
    def may_write_inline(self) -> bool:
        """Whether the loop may wait for a short write: nobody else writes, and commits have been quick of late."""
        writer = self._writer
        return (
            self._pace is not None
            and self._pace.is_quick
            and writer is not None
            and writer.raw is not None
            and not writer.calls
            and not self._exclusive.locked()
            and self._closing is None
        )

    def write_inline(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """
        As `write`, on the loop's thread, which waits for it. To be asked for at once after `may_write_inline`.

        It saves the two changes of thread, which take as long as a short commit. The writer's thread has nothing to do
        meanwhile, so that the connection is still used by one thread at a time.
        """
        writer = self._writer
        if writer is None or writer.raw is None:
            raise JournalIOError(self.path, _NOT_OPEN)
        return self._transact(writer.raw, self.path, fn)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[Exclusive, None]:
        """One transaction of several hops: committed at the block's end, rolled back on an exception."""
        async with self._exclusive:
            writer = self._writer
            transaction = Exclusive(partial(self._hop, writer, within), partial(self._at_once, writer, within))
            try:
                # Cancelled here, BEGIN still happens: hence the rollback below.
                await self._hop(writer, begin)
                yield transaction
            except BaseException:
                # Its place in the queue is what matters: later writes come after it, awaited or not.
                with contextlib.suppress(DurableError):
                    await self._hop(writer, roll_back)
                raise
            finally:
                transaction.over = True
            await self._hop(writer, commit)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of *fn* on the reading connection, in a transaction of its own. Keep it short."""
        return await self._hop(self._reader or await self._reading(), look, fn)

    async def reopen(self) -> None:
        """Close both connections and open them again, after an error that made the writer stop."""
        async with self._exclusive, self._opening:
            if self._closing is not None:
                raise EngineClosedError(f"journal {self.path} is closed")
            self.check_file()
            await to_its_end(self._stop_all())
            await to_its_end(self._start())

    async def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """
        A verified copy at *target* (mode 0600), complete in one file. Neither reads nor writes wait meanwhile.

        It is made by a connection of its own. Cancelled, or if the file is closed or opened anew, it stops within a
        moment, and nothing is left of it.
        """
        stop = threading.Event()
        copying = asyncio.ensure_future(
            self._copy(partial(back_up, overwrite=overwrite, stopped=stop.is_set), target, stop)
        )
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            stop.set()
            with contextlib.suppress(JournalError, EngineClosedError):  # what became of it, of which nobody hears
                await to_its_end(copying)
            raise

    async def _copy(self, fn: Callable[..., None], target: str | os.PathLike[str], stop: threading.Event) -> None:
        async with self._opening:
            if self._closing is not None:
                raise EngineClosedError(f"journal {self.path} is closed")
            if self._writer is None:
                raise JournalIOError(self.path, _NOT_OPEN)
            copier = await self._started(_Worker(self._open_reader, "durable-backup"))
            self._copiers[copier] = stop
            self._no_copiers.clear()
        try:
            await self._hop(copier, fn, real_path(target))
        finally:
            try:
                await self._stop(copier)
            finally:
                del self._copiers[copier]
                if not self._copiers:
                    self._no_copiers.set()

    async def scrub(self) -> None:
        """
        Write the file anew, without what was deleted. Everything that writes waits meanwhile, but not for readers.

        Raises:
            JournalFullError: It takes as much room as the file, twice, until it is done.
            JournalAccessError: Another program reads the file, and does not stop.
        """
        async with self._exclusive:
            await self._hop(self._writer, write_anew)
        for pause in _EMPTYING_PAUSES:
            await asyncio.sleep(pause)
            async with self._exclusive:
                if await self._hop(self._writer, empty_wal):
                    return
        msg = "another program reads the file, so its WAL still holds what was deleted: scrub it once that has ended"
        raise JournalAccessError(self.path, msg)

    @property
    def wal_bytes(self) -> int:
        """Size of the WAL."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    async def checkpoint(self) -> tuple[int, int]:
        """Move what the WAL holds into the file, as far as nobody reads it: pages there, and pages moved."""
        return await self._hop(self._writer, checkpoint)

    async def restart_wal(self) -> bool:
        """As `checkpoint`, and wait a moment for readers; whether the next commit begins the WAL anew."""
        async with self._exclusive:
            return await self._hop(self._writer, restart_wal)

    def check_identity(self) -> None:
        """
        Nothing, while the path still leads to the file we write and its WAL and shared memory are beside it.

        Raises:
            JournalLostError: Commits may be going where nobody will find them; says why.
            JournalAccessError: It cannot be seen, with its folder; or it has a second name.
        """
        self.check_file()
        side_files = self._side_files
        for suffix, name, consequence in _SIDE_FILES:
            if _is_still(f"{self.path}{suffix}", side_files.get(suffix)):
                continue
            self.check_file()  # its folder may have gone in between
            if self._writer is None or self._opening.locked() or self._side_files is not side_files:
                break  # a closed file has neither, and one that is opened anew has others
            raise JournalLostError(self.path, f"its {name} ({suffix}) was deleted or replaced: {consequence}")
        if Path(self.path).stat().st_nlink != 1:
            raise JournalAccessError(
                self.path,
                "it has a second name (hard link), and a program that opens it by that would use a second WAL: delete "
                "that name, and copy journals with engine.backup() or `durable backup`",
            )

    def check_file(self) -> None:
        """`check_identity` of the file alone."""
        try:
            self._check_file()
        except JournalLostError:  # or its folder came back just between two things that were looked at
            self._check_file()

    def _check_file(self) -> None:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            if self._folder.is_away():
                raise JournalAccessError(self.path, f"its folder {self._folder.path} is out of sight") from error
            if isinstance(error, FileNotFoundError):
                raise JournalLostError(self.path, "it was deleted, renamed or hidden") from error
            raise JournalAccessError(self.path, f"it cannot be seen: {error.strerror}") from error
        if self._identity is not None and not os.path.samestat(found, self._identity):
            if self._folder.is_away():
                raise JournalAccessError(self.path, f"another folder has taken the place of {self._folder.path}")
            raise JournalLostError(self.path, "another file has taken its place")

    async def aclose(self) -> None:
        """Close both connections and join their threads, within a few seconds. Never raises for a second call."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await to_its_end(self._closing)

    def abandon(self, then: Callable[[], None]) -> None:
        """
        Close both connections without the event loop, which is gone. *then* is called once they are closed.

        Waits for nothing: the threads do it, after what they are at.
        """
        self._unwatch()  # which the loop would have done
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        for copier, stop in self._copiers.items():
            stop.set()
            copier.stop_unheard(lambda: None)
        last = then if writer is None else partial(writer.stop_unheard, then)
        if reader is None:
            last()
        else:
            reader.stop_unheard(last)

    async def _hop(
        self, worker: _Worker | None, fn: Callable[..., T], *arguments: Any, then: Callable[[], None] | None = None
    ) -> T:
        """*fn*, called with connection, path and *arguments* on the worker's thread; *then* as in `write`."""
        raw = worker and worker.raw
        if self._closing is not None:
            raise EngineClosedError(f"journal {self.path} is closed")
        if worker is None or raw is None:
            raise JournalIOError(self.path, _NOT_OPEN)
        if asyncio.get_running_loop() is not self._loop:
            raise EngineClosedError(f"journal {self.path} was opened on another event loop")
        self.calls_in_flight += 1
        # needless where time jumps, since that waits for threads anyway
        if not self._watched and not getattr(self._loop, "jumps", False):
            self._watch()
        try:
            result: T = await worker.call(fn, raw, self.path, *arguments, then=then)
        except asyncio.CancelledError:
            # The thread continues. Its queue is in order, so this is done when the call is.
            if (landed := worker.landed()) is not None:
                self.calls_in_flight += 1
                landed.add_done_callback(self._landed)
            raise
        finally:
            self.calls_in_flight -= 1
            self._calls_ended += 1
        return result

    def _at_once(self, worker: _Worker | None, fn: Callable[..., T], *arguments: Any) -> T:
        """As `_hop`, while the loop waits."""
        if worker is None or worker.raw is None:
            raise JournalIOError(self.path, _NOT_OPEN)
        result: T = worker.call_at_once(fn, worker.raw, self.path, *arguments)
        return result

    def _watch(self) -> None:
        """From here on, until no call is in progress, see to it that others leave our threads their turns."""
        self._watched = True
        switching.begin()
        self._ended_before = self._calls_ended
        self._loop.call_later(STARVED_SECONDS, self._give_way)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            switching.end()

    def _give_way(self) -> None:
        """Let our threads run if the loop keeps them from it; again as long as calls are in progress."""
        if not self._watched:
            return  # closed meanwhile
        if not self.calls_in_flight:
            self._unwatch()
            return
        starved, self._ended_before = self._calls_ended == self._ended_before, self._calls_ended
        if starved:
            time.sleep(GIVEN_SECONDS)
        self._loop.call_later(GIVEN_EVERY if starved else STARVED_SECONDS, self._give_way)

    def _landed(self, _: object) -> None:
        self.calls_in_flight -= 1

    async def _start(self) -> None:
        self._writer = await self._started(_Worker(self._open_writer, "durable-writer"))

    async def _reading(self) -> _Worker:
        async with self._opening:
            if self._closing is not None:
                raise EngineClosedError(f"journal {self.path} is closed")
            if self._writer is None:
                raise JournalIOError(self.path, _NOT_OPEN)
            if self._reader is None:
                self._reader = await to_its_end(self._started(_Worker(self._open_reader, "durable-reader")))
            return self._reader

    async def _started(self, worker: _Worker) -> _Worker:
        self.calls_in_flight += 1
        try:
            await worker.begin()
        except RuntimeError as error:
            if worker.began:
                worker.join()
                raise
            raise JournalIOError(self.path, f"no thread for its connection: {error}") from error
        except BaseException:
            worker.join()  # it was told to stop
            raise
        finally:
            self.calls_in_flight -= 1
        return worker

    async def _close(self) -> None:
        async with self._opening:  # so that what is being opened right now is closed as well
            await self._stop_all()

    async def _stop_all(self) -> None:
        for stop in self._copiers.values():
            stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS + 2 * INTERRUPTED_SECONDS):
                await self._no_copiers.wait()
        # The writer last: the last one to close checkpoints, and only the writer may.
        workers = [worker for worker in (self._reader, self._writer) if worker is not None]
        self._reader = self._writer = None
        self.calls_in_flight += 1
        try:
            while workers:
                await self._stop(workers.pop(0))
        finally:
            for worker in workers:  # also where the loop is being torn down, since nobody would stop them later
                worker.stop()
            self.calls_in_flight -= 1
            self._unwatch()

    async def _stop(self, worker: _Worker) -> None:
        raw, stopped = worker.raw, worker.stop()
        await asyncio.wait([stopped], timeout=CLOSE_SECONDS)
        if not stopped.done() and raw is not None:
            raw.interrupt()
            await asyncio.wait([stopped], timeout=INTERRUPTED_SECONDS)
        if not stopped.done() or not worker.join():
            self.notices.append("a call did not end in time: its thread was abandoned and ends with the process")

    def _open_writer(self) -> sqlite3.Connection:
        try:
            create, insists = self._identity is None, self._allow_network_fs
            check_place(self.path, create=create, allow_network_fs=insists, make=self._make)
            conn = connected(self.path, "rw")
        except (sqlite3.Error, OSError) as error:
            raise translate(error, self.path) from error
        try:
            try:
                # first of all, since it may be no database
                conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                apply_pragmas(conn, self.path, "shared")
                if self._inspect is not None:
                    self._inspect(conn)
                apply_pragmas(conn, self.path, "writer", self._durability)
                conn.execute("BEGIN IMMEDIATE")  # may we write? also creates the WAL
                conn.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            except UnicodeDecodeError as error:  # because SQLite quotes the damaged schema in its message
                raise JournalDamagedError(self.path, "its schema is not text. Restore from a backup") from error
            self.guard.install(conn)
            if self._prepare is not None:
                attempt(conn, self.path, self._prepare)
            self._identity = Path(self.path).stat()
            # Made above, and the same until the last connection is closed.
            self._side_files = {suffix: Path(f"{self.path}{suffix}").stat() for suffix, *_ in _SIDE_FILES}
            if self._durability == "full":
                self._room = WalRoom(self.path, self._side_files["-wal"])
        except BaseException:
            conn.close()
            raise
        return conn

    def _open_reader(self) -> sqlite3.Connection:
        return open_reader(self.path)


def _is_still(path: str, known: os.stat_result | None) -> bool:
    try:
        return known is not None and os.path.samestat(os.stat(path), known)
    except OSError:
        return False
