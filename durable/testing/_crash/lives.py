"""
One operation, lived through: an engine over a store in memory that can be cut off, and time that jumps.

A *life* is an engine on an event loop of its own, in which whatever is in memory can be lost at any instant: the
store is severed first, so that nothing that continues for a moment (a ``finally``, a step in a thread) can record
anything; then the loop stops where it stands, and what was in it is never resumed. The next life begins with what
the store had committed. Nothing of the engine is replaced: the store and the clock are its constructor's arguments.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from durable._core.ports import Clock
from durable._shell.log import silenced
from durable._shell.storage.memory import MemoryDatabase
from durable._shell.storage.port import AnyDatabase, OpenDatabase
from durable.testing._crash.sites import BEGIN, COMMIT_AFTER, COMMIT_BEFORE
from durable.testing.loop import AutojumpLoop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator

    from durable._shell.storage.port import Exclusive

#: When every first life begins, epoch seconds: a morning, so that a jump back crosses no midnight.
DAWN: Final = 1_800_000_000.0


class ProcessLost(SystemExit):
    """
    The memory of the process is gone: raised wherever something still runs.

    A SystemExit, since asyncio lets that one through at once: nothing else of the loop runs any more.
    """


class LifeStuckError(SystemExit):
    """A life that took too many real seconds."""


def make_tables(path: str, tables: str) -> None:
    """Make the application's tables in the file at *path*, as the application does."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(tables)


class Store:
    """What survives: the committed rows of a database in memory."""

    def __init__(self, tables: str = "", on_point: Callable[[str], None] = lambda _: None) -> None:
        self._content: bytes | None = None
        self._database: _StoreDatabase | None = None
        self.on_point = on_point
        #: Set as soon as the process is lost: nothing is committed any more.
        self.severed = False
        if tables:
            with self.looked_at() as conn:
                conn.executescript(tables)
                self._content = conn.serialize()

    async def open(self, path: str, *, prepare: Callable[[sqlite3.Connection], None]) -> AnyDatabase:  # noqa: ARG002 - an OpenDatabase
        """A database that begins with what survived."""
        self._database = await _StoreDatabase.open_with(self, self._content, prepare)
        return self._database

    def check(self) -> None:
        """Nothing, while the process lives."""
        if self.severed:
            raise ProcessLost

    def closed(self, database: _StoreDatabase) -> None:
        """*database* is closed, in order: what it holds stays."""
        if self._database is database:
            self.bury()

    def bury(self) -> None:
        """Keep what was committed, and nothing else."""
        database, self._database = self._database, None
        conn = None if database is None else database.left()
        if conn is not None:
            if conn.in_transaction:
                conn.rollback()
            self._content = conn.serialize()
            conn.close()
        self.severed = False

    @contextmanager
    def looked_at(self) -> Generator[sqlite3.Connection]:
        """A copy of what it holds."""
        conn = sqlite3.connect(":memory:")
        try:
            if self._content is not None:
                conn.deserialize(self._content)
            yield conn
        finally:
            conn.close()


class _StoreDatabase(MemoryDatabase):
    """A database in memory that a store can cut off."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    @classmethod
    async def open_with(
        cls, store: Store, content: bytes | None, prepare: Callable[[sqlite3.Connection], None]
    ) -> _StoreDatabase:
        """Open with what survived in *store*."""
        database = cls(store)
        conn = database._raw()
        try:
            if content is not None:
                conn.deserialize(content)
            prepare(conn)
            if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'durable_meta'").fetchone():  # it is a journal's
                conn.execute("INSERT OR IGNORE INTO durable_meta VALUES ('token_key', 'the same in each play')")
        except BaseException:
            conn.close()
            raise
        return database

    async def read(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        """As ever, while the process lives."""
        self._store.check()
        return await super().read(fn)

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[Exclusive, None]:
        """As ever, while the process lives."""
        self._store.check()
        self._store.on_point(BEGIN)
        async with super().exclusive() as exclusive:
            yield exclusive

    def _transact(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        self._store.check()
        self._store.on_point(BEGIN)
        return super()._transact(fn)

    def _commit(self) -> None:
        store, conn = self._store, self._raw()
        try:
            store.on_point(COMMIT_BEFORE)
            store.check()
        except Exception:
            conn.execute("ROLLBACK")
            raise
        super()._commit()
        store.on_point(COMMIT_AFTER)
        store.check()

    async def aclose(self) -> None:
        """Close; the store keeps what was committed."""
        self._store.closed(self)

    def left(self) -> sqlite3.Connection | None:
        """The connection, which is used no more by this."""
        conn, self._conn = self._conn, None
        return conn


class LifeClock:
    """The time of an `AutojumpLoop`, which jumps; and can be set to something else, as clocks of machines are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._loop = loop
        self._epoch = now - loop.time()

    def now(self) -> float:
        """Epoch seconds, UTC."""
        return self._loop.time() + self._epoch

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def set_by(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._epoch += seconds


class Life:
    """An event loop of its own, and the clock of it."""

    def __init__(self, now: float, order: int | None = None) -> None:
        self.loop = AutojumpLoop(order=order)
        self.loop.set_exception_handler(self._complain)
        self.clock = LifeClock(self.loop, now)
        #: What the event loop complained of.
        self.complaints: list[str] = []
        self._thread = threading.get_ident()
        self._dead: list[asyncio.Task[Any]] = []
        self._beside: set[asyncio.Task[Any]] = set()

    def _complain(self, _: object, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    @property
    def is_here(self) -> bool:
        """Whether this thread belongs to it."""
        if threading.get_ident() == self._thread:
            return True
        thread: Any = threading.current_thread()
        return getattr(thread, "loop", None) is self.loop  # a worker of anyio's

    def live(self, code: Coroutine[Any, Any, None], patience: float) -> bool:
        """
        Run *code* to its end; False if the process was lost before.

        Raises:
            LifeStuckError: It took more than *patience* real seconds.
        """
        watchdog = threading.Timer(patience, self._give_up, (patience,))
        watchdog.daemon = True
        watchdog.start()
        try:
            self.loop.run_until_complete(code)
        except ProcessLost:
            return False
        else:
            return True
        finally:
            watchdog.cancel()

    def _give_up(self, patience: float) -> None:
        with suppress(RuntimeError):  # it may have ended just now, and then needs no end
            self.loop.call_soon_threadsafe(_raise_stuck, patience)

    def lose(self) -> None:
        """End it as soon as it can be, whatever the code does that hears of it first."""
        self.loop.call_soon_threadsafe(_raise_lost)

    def keep(self, code: Coroutine[Any, Any, None]) -> None:
        """Run *code* beside the rest."""
        task = self.loop.create_task(code)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def tasks(self) -> list[str]:
        """What is left in it, once *code* has ended."""
        left = (task for task in asyncio.all_tasks(self.loop) if not task.done())
        # anyio keeps its worker processes for as long as the loop, by a task.
        return [repr(task) for task in left if not task.get_name().startswith("AnyIO process pool")]

    def end(self) -> None:
        """Never resume anything; wait for its threads, which may end what they are at."""
        self._dead = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in self._dead:
            setattr(task, "_log_destroy_pending", False)  # noqa: B010 - asyncio's own switch, of its gather
        for thread in threading.enumerate():
            worker: Any = thread
            if getattr(worker, "loop", None) is self.loop and hasattr(worker, "stop"):
                worker.stop()
                worker.join(5.0)
        self.loop.close()

    def forget(self) -> None:
        """Let go of what was in memory: only now may a ``finally`` of it run, when nobody looks any more."""
        with _silence():
            for task in self._dead:
                with suppress(BaseException):
                    found: Any = task.get_coro()
                    found.close()
            self._dead.clear()


#: How many `dead_are_silent` blocks this is in: the outermost clears up.
_depth = 0


@contextmanager
def dead_are_silent() -> Generator[None]:
    """
    What the dead leave is let go inside this ``with`` block, without the complaints of its ``__del__``.

    A coroutine that was made, and struck before it was awaited, is no mistake of the user's; a ``finally`` of a
    workflow that nobody drives any more cannot do what it wants to.
    """
    global _depth  # noqa: PLW0603 - one for the process, as is what it sets
    _depth += 1
    hook = sys.unraisablehook
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            warnings.filterwarnings("ignore", "unclosed ", ResourceWarning)
            warnings.filterwarnings("ignore", ".* was created in workflow .* and never yielded", RuntimeWarning)
            sys.unraisablehook = _ignore
            try:
                yield
            finally:
                if _depth == 1:
                    gc.collect()  # because they hang in cycles, with the errors that struck them
    finally:
        sys.unraisablehook = hook
        _depth -= 1


def _ignore(_: object) -> None:
    pass


@contextmanager
def _silence() -> Generator[None]:
    """Log nothing: what the dead say misleads."""
    with silenced():
        yield


def _raise_lost() -> None:
    raise ProcessLost


def _raise_stuck(patience: float) -> None:
    raise LifeStuckError(f"a run under test had not come to an end, nor to rest, after {patience:g} real seconds")


_fits: type[Clock] = LifeClock
_opens: Callable[[Store], OpenDatabase] = lambda store: store.open  # noqa: E731 - for type checkers
