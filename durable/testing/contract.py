"""
What every storage must do: tests for a database of your own, given to ``Engine(storage=...)``.

    class TestMine(StorageContract):
        def storage(self, folder):
            return functools.partial(Mine.open, folder / "mine.db")

Pytest runs its methods, each in a folder and on an event loop of its own. Nothing of an engine is replaced: the last
tests run one over the storage, lose the process, and open it again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from durable._core.authoring.decorators import step, workflow
from durable._core.authoring.op_constructors import sleep
from durable._core.program.ops import Flow, Return
from durable._shell.engine.engine import Engine
from durable._shell.storage.port import AnyDatabase, OpenDatabase
from durable.errors import EngineClosedError


def _tables(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY)")


def _put(number: int) -> Callable[[sqlite3.Connection], int]:
    def put(conn: sqlite3.Connection) -> int:
        conn.execute("INSERT INTO kept VALUES (?)", (number,))
        return number

    return put


def _kept(conn: sqlite3.Connection) -> list[int]:
    return [number for (number,) in conn.execute("SELECT number FROM kept ORDER BY number").fetchall()]


class _StruckError(Exception):
    pass


@step
async def _double(number: int) -> int:
    return 2 * number


@workflow
async def _doubling(number: int, seconds: float) -> Flow[int]:
    doubled = yield _double(number)
    yield sleep(seconds)
    again = yield _double(doubled)
    yield Return(again)


class StorageContract:
    """
    Subclass it, and say what `storage` is.

    Attributes:
        survives: Whether what was committed is there when the same storage is opened again.
    """

    survives: bool = True

    def storage(self, folder: Path) -> OpenDatabase:
        """What opens the database; called once a test. *folder* is empty, and the test's own."""
        raise NotImplementedError

    # --- transactions ------------------------------------------------------------------------------------------

    def test_a_write_gives_its_result_and_stays(self, tmp_path: Path) -> None:
        """What a function returned; and its rows, for later reads and writes."""

        async def body(database: AnyDatabase) -> None:
            assert await database.write(_put(1)) == 1
            assert await database.read(_kept) == [1]
            assert await database.write(_kept) == [1]

        self._with_database(tmp_path, body)

    def test_a_write_that_raises_leaves_nothing(self, tmp_path: Path) -> None:
        """Its error reaches the caller as it is, and the next write works."""

        def fails(conn: sqlite3.Connection) -> None:
            _put(1)(conn)
            raise _StruckError

        async def body(database: AnyDatabase) -> None:
            with pytest.raises(_StruckError):
                await database.write(fails)
            assert await database.read(_kept) == []
            await database.write(_put(2))
            assert await database.read(_kept) == [2]

        self._with_database(tmp_path, body)

    def test_stop_iteration_reaches_the_caller(self, tmp_path: Path) -> None:
        """No future can carry it: it arrives as a RuntimeError, rather than never."""

        async def body(database: AnyDatabase) -> None:
            with pytest.raises(RuntimeError):
                await asyncio.wait_for(database.write(lambda _: next(iter(()))), 5)
            assert await database.read(_kept) == []

        self._with_database(tmp_path, body)

    def test_a_broken_constraint_is_the_callers(self, tmp_path: Path) -> None:
        """An IntegrityError is no trouble of the disk."""

        async def body(database: AnyDatabase) -> None:
            await database.write(_put(1))
            with pytest.raises(sqlite3.IntegrityError):
                await database.write(_put(1))
            assert await database.read(_kept) == [1]

        self._with_database(tmp_path, body)

    def test_writes_keep_their_order(self, tmp_path: Path) -> None:
        """Those that are called one after the other are committed one after the other."""

        async def body(database: AnyDatabase) -> None:
            seen: list[list[int]] = []

            def put(number: int) -> Callable[[sqlite3.Connection], None]:
                def fn(conn: sqlite3.Connection) -> None:
                    seen.append(_kept(conn))
                    _put(number)(conn)

                return fn

            await asyncio.gather(*(database.write(put(number)) for number in range(20)))
            assert seen == [list(range(number)) for number in range(20)]

        self._with_database(tmp_path, body)

    def test_a_cancelled_caller_does_not_undo_a_write(self, tmp_path: Path) -> None:
        """It is committed, or it never began; the database continues."""

        async def body(database: AnyDatabase) -> None:
            task = asyncio.ensure_future(database.write(_put(1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await database.write(_put(2))  # behind it, if it began
            assert await database.read(_kept) in ([2], [1, 2])

        self._with_database(tmp_path, body)

    def test_a_read_changes_nothing(self, tmp_path: Path) -> None:
        """It cannot write."""

        async def body(database: AnyDatabase) -> None:
            with pytest.raises(Exception, match="readonly"):
                await database.read(_put(1))
            assert await database.read(_kept) == []

        self._with_database(tmp_path, body)

    def test_an_exclusive_transaction_is_one(self, tmp_path: Path) -> None:
        """Its rows come together; other writes wait for its end, and it is over then."""

        async def body(database: AnyDatabase) -> None:
            async with database.exclusive() as exclusive:
                await exclusive.run(_put(1))
                other = asyncio.ensure_future(database.write(_put(3)))
                await asyncio.sleep(0.01)
                assert not other.done()
                await exclusive.execute("INSERT INTO kept VALUES (?)", (2,))
            await other
            assert await database.read(_kept) == [1, 2, 3]
            with pytest.raises(EngineClosedError):
                await exclusive.run(_put(4))

        self._with_database(tmp_path, body)

    def test_an_exclusive_transaction_that_raises_leaves_nothing(self, tmp_path: Path) -> None:
        """Nor does one that is cancelled."""

        async def raises(database: AnyDatabase) -> None:
            async with database.exclusive() as exclusive:
                await exclusive.run(_put(1))
                raise _StruckError

        async def waits(database: AnyDatabase, reached: asyncio.Event) -> None:
            async with database.exclusive() as exclusive:
                await exclusive.run(_put(2))
                reached.set()
                await asyncio.sleep(60)

        async def body(database: AnyDatabase) -> None:
            with pytest.raises(_StruckError):
                await raises(database)
            reached = asyncio.Event()
            task = asyncio.ensure_future(waits(database, reached))
            await reached.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await database.read(_kept) == []
            await database.write(_put(3))

        self._with_database(tmp_path, body)

    # --- opening and closing -------------------------------------------------------------------------------

    def test_after_closing_everything_says_so(self, tmp_path: Path) -> None:
        """Nobody waits for ever; closing again is harmless."""

        async def body() -> None:
            database = await self.storage(tmp_path)(str(tmp_path / "storage.db"), prepare=_tables)
            await database.aclose()
            await database.aclose()
            for call in (database.write, database.read):
                with pytest.raises(EngineClosedError):
                    await call(_kept)

        _run(body())

    def test_what_fails_to_prepare_does_not_open(self, tmp_path: Path) -> None:
        """And can be opened afterwards."""

        def refuse(_: sqlite3.Connection) -> None:
            raise _StruckError

        async def body() -> None:
            storage = self.storage(tmp_path)
            with pytest.raises(_StruckError):
                await storage(str(tmp_path / "storage.db"), prepare=refuse)
            database = await storage(str(tmp_path / "storage.db"), prepare=_tables)
            await database.aclose()

        _run(body())

    def test_reopening_keeps_what_was_committed(self, tmp_path: Path) -> None:
        """As the engine does after a commit whose outcome is unknown."""

        async def body(database: AnyDatabase) -> None:
            await database.write(_put(1))
            await database.reopen()
            assert await database.read(_kept) == [1]
            await database.write(_put(2))
            assert database.calls_in_flight == 0
            database.check_identity()

        self._with_database(tmp_path, body)

    def test_a_backup_is_a_whole_file(self, tmp_path: Path) -> None:
        """SQLite opens it."""

        async def body(database: AnyDatabase) -> None:
            await database.write(_put(7))
            await database.backup(tmp_path / "copy.db")

        self._with_database(tmp_path, body)
        conn = sqlite3.connect(tmp_path / "copy.db")
        try:
            assert _kept(conn) == [7]
        finally:
            conn.close()

    # --- an engine over it ---------------------------------------------------------------------------------

    def test_an_engine_runs_over_it(self, tmp_path: Path) -> None:
        """A workflow from its start to its end."""

        async def body() -> None:
            async with Engine(tmp_path / "storage.db", [_doubling], storage=self.storage(tmp_path)) as engine:
                runs = [await engine.start(_doubling(number, 0.01)) for number in range(20)]
                assert [await run.result(timeout=30) for run in runs] == [4 * number for number in range(20)]

        _run(body())

    def test_a_run_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """Over the same storage, opened again."""
        if not self.survives:
            pytest.skip("this storage forgets what it holds when it is closed")

        async def body() -> None:
            storage = self.storage(tmp_path)
            async with Engine(tmp_path / "storage.db", [_doubling], storage=storage) as engine:
                run = await engine.start(_doubling(3, 0.2), key="once")
                await engine.idle()  # its first step has ended, and it sleeps
            async with Engine(tmp_path / "storage.db", [_doubling], storage=storage) as engine:
                again = await engine.start(_doubling(3, 0.2), key="once")
                assert again.id == run.id
                assert await again.result(timeout=30) == 4 * 3
                kinds = [type(each.event).__name__ for each in await again.history()]
                assert [kind for kind in kinds if kind.startswith("Step")] == ["StepStarted", "StepSucceeded"] * 2

        _run(body())

    # ---------------------------------------------------------------------------------------------------------

    def _with_database(self, folder: Path, body: Callable[[AnyDatabase], Awaitable[None]]) -> None:
        async def opened() -> None:
            database = await self.storage(folder)(str(folder / "storage.db"), prepare=_tables)
            try:
                await body(database)
            finally:
                await database.aclose()

        _run(opened())


def _run(code: Coroutine[Any, Any, None]) -> None:
    asyncio.run(code)
