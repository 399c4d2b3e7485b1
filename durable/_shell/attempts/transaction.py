"""
What the function of a `@transaction` gets, and how it runs.

A plain ``def`` runs on the writer's thread inside the commit group, in a savepoint of its own:
its rows, its staged jobs, its journal entry and the turn which that causes commit together, or
not at all. An ``async def`` has the writer to itself while it runs. Either way, commit,
rollback, ATTACH and writes to the engine's tables are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, Unpack

from durable._core.authoring.op_constructors import with_options
from durable._core.program.ops import RunOp, TransactionOp
from durable._core.program.start_options import StartOptions
from durable._core.program.transactions import AsyncTransaction, Parameters, Statement, Transaction
from durable._shell.attempts.statements import as_many, as_sql
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.storage.connections import TransactionUndoneError, is_the_disk
from durable._shell.storage.guard import ENDED_FROM_INSIDE, Guard, refuse_control
from durable._shell.storage.port import Exclusive
from durable._shell.writes.run_writes import get_or_create, insert_plain
from durable.errors import TransactionRefusedError, UsageError

T = TypeVar("T")

#: Set while the function of an async transaction runs: it holds the writer, so a request that
#: it awaits would wait for itself.
holds_writer: ContextVar[bool] = ContextVar("durable_holds_writer", default=False)

#: Makes the row of a staged run from an op.
Stage = Callable[[RunOp[Any]], NewRun]


class SyncTransaction:
    """A `Transaction` on the writer's own thread."""

    def __init__(self, conn: sqlite3.Connection, guard: Guard, stage: Stage, effects: Effects) -> None:
        self._conn: sqlite3.Connection | None = conn
        self._guard = guard
        self._stage = stage
        self._effects = effects

    def execute(self, sql: Statement, parameters: Parameters = (), /) -> sqlite3.Cursor:
        """Run one statement."""
        return self._guard.perform(self._open(), *as_sql(sql, parameters))

    def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> sqlite3.Cursor:
        """Run one statement once for each item of *parameters*."""
        return self._guard.perform_many(self._open(), *as_many(sql, parameters))

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """Stage a run: it exists if and only if this transaction commits. Its id."""
        return enqueued(self._open(), self._stage(with_options(op, **options)), self._effects)

    def _open(self) -> sqlite3.Connection:
        if self._conn is None:
            msg = "this transaction has ended: its Transaction must not be kept or used by another thread"
            raise UsageError(msg)
        if not self._conn.in_transaction:  # what it writes would be committed at once, and nobody would know of it
            raise TransactionRefusedError("", ENDED_FROM_INSIDE)
        return self._conn

    def close(self) -> None:
        """Refuse any further use."""
        self._conn = None


def enqueued(conn: sqlite3.Connection, new: NewRun, effects: Effects) -> str:
    """As `get_or_create`; nothing of it is left if it raises, since the user's function may catch that."""
    if not new.may_be_refused:
        return get_or_create(conn, new, effects)
    mine = Effects()
    conn.execute("SAVEPOINT durable_enqueue")
    try:
        run_id = get_or_create(conn, new, mine)
    except BaseException:
        conn.execute("ROLLBACK TO durable_enqueue")
        conn.execute("RELEASE durable_enqueue")
        raise
    conn.execute("RELEASE durable_enqueue")
    effects.add(mine)
    return run_id


def run_sync(
    conn: sqlite3.Connection,
    guard: Guard,
    op: TransactionOp[Any],
    stage: Stage,
    effects: Effects,
    finish: Callable[[Any], T],
) -> T:
    """
    What *finish* makes of the value of the function of *op*, both run in one savepoint.

    Raises whatever they raise, rows and staged jobs rolled back.

    Raises:
        TransactionUndoneError: The whole transaction was, with what others have written in it.
    """
    conn.execute("SAVEPOINT durable_transaction")
    mine = Effects()
    transaction = SyncTransaction(conn, guard, stage, mine)
    token = holds_writer.set(True)
    try:
        value = finish(op.definition.fn(transaction, *op.args, **op.kwargs))
    except BaseException as error:
        transaction.close()
        if not conn.in_transaction:
            if isinstance(error, sqlite3.Error) and is_the_disk(error):  # for which SQLite rolls back by itself
                raise
            raise TransactionUndoneError from error
        conn.execute("ROLLBACK TO durable_transaction")
        conn.execute("RELEASE durable_transaction")
        raise
    finally:
        holds_writer.reset(token)
    transaction.close()
    if not conn.in_transaction:
        raise TransactionUndoneError
    conn.execute("RELEASE durable_transaction")
    effects.add(mine)
    return value


class FetchedCursor:
    """The result of a statement, its rows fetched while the writer's thread was at it."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.lastrowid = cursor.lastrowid
        self.rowcount = cursor.rowcount
        self.description = cursor.description
        self._rows = iter(cursor.fetchall())

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class ExclusiveTransaction:
    """An `AsyncTransaction`: one hop to the writer's thread a statement."""

    def __init__(self, exclusive: Exclusive, guard: Guard, stage: Stage) -> None:
        self._exclusive: Exclusive | None = exclusive
        self._guard = guard
        self._stage = stage
        #: Staged runs in whose way nothing can stand: written when the function has returned.
        self._staged: list[NewRun] = []
        #: What the others have caused.
        self._effects = Effects()

    async def execute(self, sql: Statement, parameters: Parameters = (), /) -> FetchedCursor:
        """Run one statement; its rows are fetched already."""
        text, values = as_sql(sql, parameters)
        refuse_control(text)
        return await self._open().run(lambda conn: FetchedCursor(self._guard.perform(conn, text, values)))

    async def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> FetchedCursor:
        """Run one statement once for each item of *parameters*."""
        text, values = as_many(sql, parameters)
        rows = list(values)
        return await self._open().run(lambda conn: FetchedCursor(self._guard.perform_many(conn, text, rows)))

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """Stage a run: it exists if and only if this transaction commits. Its id."""
        exclusive, new = self._open(), self._stage(with_options(op, **options))
        if new.may_be_refused:  # at once, so that it is refused here, and the id is that of the run which has its key
            return exclusive.run_at_once(lambda conn: enqueued(conn, new, self._effects))
        self._staged.append(new)
        return new.run_id

    async def write_staged(self) -> Effects:
        """Write what is staged, now that the function has returned; what all of it causes, once it is committed."""
        if self._staged:
            await self._open().run(lambda conn: insert_plain(conn, self._staged, self._effects))
        return self._effects

    def _open(self) -> Exclusive:
        if self._exclusive is None:
            msg = "this transaction has ended: its Transaction must not be kept"
            raise UsageError(msg)
        return self._exclusive

    def close(self) -> None:
        """Refuse any further use."""
        self._exclusive = None


_fits: tuple[type[Transaction], type[AsyncTransaction]] = (SyncTransaction, ExclusiveTransaction)
