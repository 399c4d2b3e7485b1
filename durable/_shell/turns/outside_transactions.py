"""
Transactions that no run asked for: those of request handlers, beside the runs that they enqueue.

They commit with the journal, as those of workflows do, but nothing is recorded of them: what they answer is the
caller's, and what they leave are their rows, and the runs that exist if and only if they commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from durable._core.codec.exceptions.origin import came_from_outside, is_the_users_own
from durable._core.program.current_driver import driver_in_charge
from durable._core.program.ops import RunOp, TransactionOp, kind_of
from durable._core.program.transactions import AsyncTransaction
from durable._shell.attempts.transaction import ExclusiveTransaction, holds_writer, run_sync
from durable._shell.commits.commits import SpoiledError, mark
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.storage.connections import CommitUnknownError, TransactionUndoneError, is_the_disk
from durable._shell.storage.guard import ENDED_FROM_INSIDE
from durable._shell.turns.services import Services
from durable._shell.turns.transaction_turn import is_undone
from durable.errors import JournalIOError, TransactionRefusedError, UsageError

T = TypeVar("T")


async def transact(op: TransactionOp[T], services: Services, timeout: float) -> T:
    """What the function of *op* returns, once it is on disk; raises what it raises, with nothing of it left."""
    given: Any = op
    if not isinstance(given, TransactionOp):
        msg = f"transact takes a call of a @transaction, found {kind_of(given)}"
        raise TypeError(msg)
    if driver_in_charge() is not None:
        msg = f"in a workflow, yield (or await) {op.definition.name}(...) itself: then it is recorded, and runs once"
        raise UsageError(msg)
    _refuse_inside(op.describe())
    if op.definition.is_async:
        async with transaction(services, timeout, op.describe()) as tx:
            fn: Any = op.definition.fn
            value: T = await fn(tx, *op.args, **op.kwargs)
            return value
    try:
        value, error = await _in_group(op, services, alone=False)
    except SpoiledError:  # by it, or by another one of its group: by itself it is known
        try:
            value, error = await _in_group(op, services, alone=True)
        except SpoiledError as spoiled:
            raise _as_the_callers(op.describe(), spoiled.cause) from spoiled
    if error is not None:
        raise error
    return value


async def _in_group(op: TransactionOp[T], services: Services, *, alone: bool) -> tuple[T, BaseException | None]:
    guard, stage = services.database.guard, _staging(services)

    def run(conn: sqlite3.Connection, effects: Effects) -> tuple[Any, BaseException | None]:
        try:
            return run_sync(conn, guard, op, stage, effects, lambda value: value), None
        except BaseException as error:
            if came_from_outside(error) or is_undone(error) or _is_the_disk(error):
                raise
            return None, error

    return await services.commits.call(run, repeats=False, alone=alone)


@asynccontextmanager
async def transaction(
    services: Services, timeout: float, name: str = "transaction()"
) -> AsyncGenerator[AsyncTransaction]:
    """The writer to itself, for *timeout* seconds at most, the wait for it included."""
    _refuse_inside(name)
    commits = services.commits
    effects, marked, time = Effects(), 0, asyncio.timeout(timeout)
    try:
        async with time, services.database.exclusive() as exclusive:
            tx = ExclusiveTransaction(exclusive, services.database.guard, _staging(services))
            token = holds_writer.set(True)
            try:
                yield tx
                effects = await tx.write_staged()
                marked = await exclusive.run(mark)
            finally:
                holds_writer.reset(token)
                tx.close()
    except TimeoutError as error:
        if not time.expired():
            raise
        msg = f"{name} took longer than {timeout:g} s with the writer, for which all runs wait: it was rolled back"
        raise TimeoutError(msg) from error
    except CommitUnknownError as error:
        if not await commits.settle_mark(marked, error):
            raise error.cause from error
    except JournalIOError:
        await commits.reopen()
        raise
    except TransactionUndoneError as error:
        raise _as_the_callers(name, error) from error
    services.on_effects(effects)


def _staging(services: Services) -> Any:
    carried = services.carry.captured(services.codec)  # here, since the function may run on the writer's thread

    def stage(op: RunOp[Any]) -> NewRun:
        return services.new_run(op, services.clock.now(), carried=carried)

    return stage


def _is_the_disk(error: BaseException) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and is_the_disk(error) and not is_the_users_own(error)


def _as_the_callers(name: str, cause: Exception) -> Exception:
    """Why a transaction could not be committed, as its caller knows it: deferred constraints are checked last."""
    return TransactionRefusedError(name, ENDED_FROM_INSIDE) if isinstance(cause, TransactionUndoneError) else cause


def _refuse_inside(name: str) -> None:
    if holds_writer.get():
        msg = f"{name} inside a @transaction would wait for that transaction itself: call its function with tx instead"
        raise UsageError(msg)
