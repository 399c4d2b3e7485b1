"""
Runs transactions in the application's database.

The outcome is recorded under the transaction's idempotency key, in the commit of its rows: an attempt that finds it
returns it, so the SQL happens exactly once, whatever workers and server do. Staged runs are in an outbox in the same
commit; a worker that finds them there starts them, under ids that derive from the transaction's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, Protocol, Unpack

from attrs import frozen

from durable._core.authoring.op_constructors import with_options
from durable._core.codec.codec import Codec, Payload
from durable._core.codec.json_text import dumps, loads
from durable._core.program.ops import RunOp, TransactionOp
from durable._core.program.start_options import StartOptions
from durable._core.program.transactions import (
    AsyncTransaction,
    Parameters,
    Statement,
    StatementResult,
    Transaction,
)
from durable._shell.clock import SystemClock
from durable._shell.storage.guard import refuse_control
from durable.errors import DurableError, UsageError
from durable.temporal._transactions.tables import Placeholder, Tables
from durable.temporal._wire.payloads import from_plain, plain

#: Times that the tables are made, where others make them at the same moment: some databases refuse the second.
_TRIES: Final = 3


class DatabaseAwayError(DurableError):
    """The application's database cannot be reached: no failed attempt of the transaction."""


class Staging(Protocol):
    """Makes the runs that transactions stage, and starts them."""

    def staged(self, op: RunOp[Any], run_id: str) -> tuple[str, str]:
        """The id of the run that *op* starts, and how it is kept; *run_id* where it has chosen none."""
        ...

    async def start(self, run_id: str, kept: str) -> None:
        """Start a run that was staged; nothing, if it exists."""
        ...


class AppTransactions:
    """
    Where ``@transaction`` commits on a server without a journal: ``TemporalEngine(transactions=AppTransactions(...))``.

    It makes two tables of its own there, ``durable_outcomes`` and ``durable_outbox``, when the first engine opens.

    Args:
        connect: Makes a connection of a DB-API module, not in autocommit mode: ``lambda: psycopg.connect(...)``, or
            of sqlite3, where all workers are on one machine. It is called for each transaction, in the thread of that.
        placeholder: What stands for a parameter in SQL of that module: ``%s`` for psycopg, ``?`` for sqlite3. Found
            out by the module of the connection, unless it is given.
    """

    def __init__(self, connect: Callable[[], Any], *, placeholder: Placeholder | None = None) -> None:
        self._connect = connect
        self._placeholder: Placeholder | None = placeholder
        self._tables: Tables | None = None
        self._clock = SystemClock()

    # --- what an engine calls ------------------------------------------------------------------

    async def open(self, staging: Staging) -> None:
        """Make the tables, and start what a worker that died has left in the outbox."""
        await asyncio.to_thread(self._create)
        await self.relay(staging)

    async def transact(self, op: TransactionOp[Any], key: str, codec: Codec, staging: Staging) -> Payload:
        """
        The value of a transaction, which is committed when this returns; what it has staged is started.

        Raises what its function does.

        Raises:
            DatabaseAwayError: Nothing was done, since there is no connection.
        """
        value = await asyncio.to_thread(self._perform, _Call(op, key, codec, staging))
        await self.relay(staging, key)
        return value

    async def relay(self, staging: Staging, key: str | None = None) -> int:
        """Start what is staged, of all transactions or of the one called *key*; how many runs."""
        found = await asyncio.to_thread(self._look, key)
        for run_id, kept in found:
            await staging.start(run_id, kept)
            await asyncio.to_thread(self._started, run_id)
        return len(found)

    # --- what users call -----------------------------------------------------------------------

    async def forget(self, *, older_than: float) -> int:
        """
        Drop outcomes older than so many seconds; how many. They are needed as long as an attempt may come again.

        Safe where no run has been open for so long.
        """
        return await asyncio.to_thread(self._forget, self._clock.now() - older_than)

    # --- in a thread ---------------------------------------------------------------------------

    def _perform(self, call: _Call) -> Payload:
        with self._transaction() as (conn, tables):
            try:
                tables.claim(conn, call.key, self._clock.now())
            except Exception:  # its own class in every module: the key is there, or something is wrong
                conn.rollback()
                found = tables.outcome(conn, call.key)
                if found is None:
                    raise
                return from_plain(loads(found))
            payload = call.value(conn, tables)
            tables.record(conn, call.key, dumps(plain(payload)))
        return payload

    @contextlib.contextmanager
    def _transaction(self) -> Generator[tuple[Any, Tables]]:
        """A connection, which is committed at the end, or rolled back; and closed."""
        try:
            conn = self._connect()
        except Exception as error:
            msg = f"no connection to the application's database: {error}"
            raise DatabaseAwayError(msg) from error
        with contextlib.closing(conn):
            try:
                yield conn, self._tables_of(conn)
            except BaseException:
                with contextlib.suppress(Exception):  # of a connection that is lost: nothing was committed
                    conn.rollback()
                raise
            conn.commit()

    def _tables_of(self, conn: Any) -> Tables:
        if self._tables is None:
            sqlite = type(conn).__module__.partition(".")[0] in ("sqlite3", "_sqlite3")
            found: Placeholder = "?" if sqlite else "%s"
            self._tables = Tables(found if self._placeholder is None else self._placeholder)
        return self._tables

    def _create(self) -> None:
        for left in reversed(range(_TRIES)):
            try:
                with self._transaction() as (conn, tables):
                    tables.create(conn)
            except DatabaseAwayError:
                raise
            except Exception:
                if not left:
                    raise
            else:
                return

    def _look(self, key: str | None) -> list[tuple[str, str]]:
        with self._transaction() as (conn, tables):
            return tables.staged(conn, key)

    def _started(self, run_id: str) -> None:
        with self._transaction() as (conn, tables):
            tables.started(conn, run_id)

    def _forget(self, before: float) -> int:
        with self._transaction() as (conn, tables):
            return tables.forget(conn, before)


@frozen
class _Call:
    """A call of a transaction."""

    op: TransactionOp[Any]
    key: str
    codec: Codec
    staging: Staging

    def value(self, conn: Any, tables: Tables) -> Payload:
        """What its function returns, as it is recorded."""
        definition, op = self.op.definition, self.op
        transaction = _AppTransaction(conn, tables, self)
        try:
            if definition.is_async:
                value = asyncio.run(definition.fn(_AsyncAppTransaction(transaction), *op.args, **op.kwargs))
            else:
                value = definition.fn(transaction, *op.args, **op.kwargs)
        finally:
            transaction.close()
        return self.codec.encode(value, definition.result, where=definition.result_place)


class _AppTransaction:
    """A `Transaction` in the application's database."""

    def __init__(self, conn: Any, tables: Tables, call: _Call) -> None:
        self._conn = conn
        self._tables = tables
        self._call = call
        self._staged = 0

    def execute(self, sql: Statement, parameters: Parameters = (), /) -> StatementResult:
        """Run one statement."""
        cursor = self._cursor(sql)
        cursor.execute(sql, parameters)
        return cursor  # type: ignore[no-any-return]  # of whichever module

    def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> StatementResult:
        """Run one statement once for each item of *parameters*."""
        cursor = self._cursor(sql)
        cursor.executemany(sql, list(parameters))
        return cursor  # type: ignore[no-any-return]  # of whichever module

    def _cursor(self, sql: Statement) -> Any:
        if not isinstance(sql, str):
            msg = "on Temporal tx.execute takes SQL text, in the words of the application's database"
            raise UsageError(msg)
        refuse_control(sql)
        return self._open().cursor()

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """Stage a run: it exists if and only if this transaction commits. Its id; with a key, that."""
        conn, key = self._open(), self._call.key
        run_id, kept = self._call.staging.staged(with_options(op, **options), f"{key}.tx{self._staged}")
        self._staged += 1
        self._tables.stage(conn, run_id, key, kept)
        return run_id

    def _open(self) -> Any:
        if self._conn is None:
            msg = "this transaction has ended: its Transaction must not be kept or used by another thread"
            raise UsageError(msg)
        return self._conn

    def close(self) -> None:
        """Refuse any further use."""
        self._conn = None


class _AsyncAppTransaction:
    """An `AsyncTransaction`: the loop of its thread has nothing else to do."""

    def __init__(self, transaction: _AppTransaction) -> None:
        self._transaction = transaction

    async def execute(self, sql: Statement, parameters: Parameters = (), /) -> StatementResult:
        """Run one statement."""
        return self._transaction.execute(sql, parameters)

    async def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> StatementResult:
        """Run one statement once for each item of *parameters*."""
        return self._transaction.executemany(sql, parameters)

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """Stage a run: it exists if and only if this transaction commits. Its id; with a key, that."""
        return self._transaction.enqueue(op, **options)


_fits: tuple[type[Transaction], type[AsyncTransaction]] = (_AppTransaction, _AsyncAppTransaction)
