"""
A turn with transactions: what these write, their outcomes, and the turns which these cause, commit with it.

Sync transactions in a row share the commit group; an async one, or the `MAX_TRANSACTIONS`th, begins another
transaction of the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import field

from durable._core.codec.exceptions.origin import came_from_outside, is_the_users_own
from durable._core.codec.exceptions.parts import attribute
from durable._core.journal.events import Event, StepSucceeded
from durable._core.light_frozen import light_define
from durable._core.light_tuples import NamedTuple
from durable._core.program.ops import RunOp
from durable._core.run.decision import Decision, TransactionAction
from durable._core.run.execution import Execution
from durable._shell.attempts.raised import is_cancellation, is_for_the_program
from durable._shell.attempts.transaction import ExclusiveTransaction, holds_writer, run_sync
from durable._shell.commits.commits import SpoiledError
from durable._shell.commits.witness import Watch
from durable._shell.loops import current_task
from durable._shell.rows.rows import Effects, NewRun, RunState, TurnWrite
from durable._shell.storage.connections import CommitUnknownError, TransactionUndoneError, is_the_disk
from durable._shell.storage.guard import ENDED_FROM_INSIDE
from durable._shell.storage.port import Exclusive
from durable._shell.turns.executions import AnyExecution
from durable._shell.turns.services import Services
from durable._shell.turns.turn_writer import TurnWriter
from durable._shell.writes.deaths import acquit
from durable._shell.writes.turn_writes import TurnOutdatedError, write_turns
from durable.errors import JournalError, JournalIOError, TransactionRefusedError

#: Transactions of one run in a row inside one commit group; then others get their turn.
MAX_TRANSACTIONS = 64


class Recorded(NamedTuple):
    """What is on disk after a turn with transactions."""

    #: That of the turn, and those that its transactions have caused.
    decisions: list[Decision]
    #: Whether the run was let go of, if it waits: nothing has arrived since the turn began.
    freed: bool


@light_define
class Spoiling:
    """Which transactions of one run cannot be committed, for a reason of their own."""

    #: Whether the next one has a commit of its own: one that shared it could not be committed.
    suspected: bool = False
    #: Those for which even that failed, by position and attempt, and why: they are not run again.
    proven: dict[tuple[str, int], Exception] = field(factory=dict)


def is_undone(error: BaseException) -> bool:
    """Whether *error* says that the whole transaction is gone: ours, not one of its class that user code raised."""
    return type(error) is TransactionUndoneError and not is_the_users_own(error)


class TransactionTurn:
    """Runs the transactions of one turn, and records them with it."""

    def __init__(
        self,
        execution: AnyExecution,
        inbox_upto: int,
        state: RunState,
        writer: TurnWriter,
        services: Services,
        watch: Watch,
        spoiling: Spoiling,
    ) -> None:
        self._execution = execution
        self._inbox_upto = inbox_upto
        self._state = state
        self._writer = writer
        self._services = services
        self._watch = watch
        self._spoiling = spoiling
        #: Transactions that were asked for, and have not run.
        self._queue: list[TransactionAction] = []
        self._decisions: list[Decision] = []

    async def record(self, decision: Decision) -> Recorded:
        """
        Write *decision*, then run and write its transactions, and those which these lead to.

        Raises:
            JournalError: Something of it could not be written: the execution has run ahead of the file.
            TurnOutdatedError: As in `TurnWriter.record`.
        """
        freed = False
        unwritten = [self._decided(decision)]
        while self._queue:
            if self._is_async(self._queue[0]):
                freed = await self._run_exclusively(unwritten)
            else:
                freed = await self._commit_in_group(unwritten)
            unwritten = []
        self._spoiling.suspected = bool(self._spoiling.proven)
        return Recorded(self._decisions, freed)

    def _decided(self, decision: Decision) -> TurnWrite:
        """The turn of *decision*; its transactions are to run next."""
        self._decisions.append(decision)
        if decision.blocked is not None:  # a person decides; what was asked for begins again when the run does
            self._queue.clear()
        if decision.cancelled_steps:  # not begun: its rows would commit, and nobody would know of them
            self._queue = [action for action in self._queue if action.position not in decision.cancelled_steps]
        self._queue += decision.transactions
        return self._writer.turn(
            decision, self._execution, self._inbox_upto, self._services.clock.now(), last=not self._queue
        )

    def _advanced(self, outcome: Event) -> TurnWrite:
        """The turn which the outcome of a transaction causes."""
        return self._decided(self._execution.advance([outcome], now=self._services.clock.now()))

    def _is_async(self, action: TransactionAction) -> bool:
        return action.op.definition.is_async or self._services.stand_ins is not None  # which may be either

    def _succeeded(self, action: TransactionAction, value: Any) -> Event:
        where = f"result of {action.op.describe()}"
        definition = action.op.definition
        payload = definition.codec_of(self._services.codec).encode(value, definition.result, where=where)
        return StepSucceeded(action.position, payload, self._services.clock.now())

    def _failed(self, action: TransactionAction, error: BaseException) -> Event:
        return self._services.steps.failed(action, error, self._state.run_id)

    def _stage(self, op: RunOp[Any]) -> NewRun:
        state = self._state
        return self._services.new_run(op, self._services.clock.now(), parent=state.run, carried=state.carried)

    # --- in a commit group -------------------------------------------------------------------------------

    async def _commit_in_group(self, unwritten: Sequence[TurnWrite]) -> bool:
        """
        Sync transactions in a row; one at a time while they are suspected.

        Raises:
            SpoiledError: They were not committed: from now on they are suspects, or one is proven to be why.
        """
        spoiling, action = self._spoiling, self._queue[0]
        run = partial(self._run_in_group, unwritten, 1 if spoiling.suspected else MAX_TRANSACTIONS)
        try:
            return await self._services.commits.call(run, repeats=False, alone=spoiling.suspected)
        except SpoiledError as error:
            if spoiling.suspected:
                self._prove(action, error.cause)
            spoiling.suspected = True
            raise

    def _prove(self, action: TransactionAction, cause: Exception) -> None:
        """Let the transaction fail by *cause* once the run has gone back to what is recorded."""
        undone = isinstance(cause, TransactionUndoneError)
        error = TransactionRefusedError(action.op.describe(), ENDED_FROM_INSIDE) if undone else cause
        self._spoiling.proven[action.position, action.attempt] = error

    def _run_in_group(
        self, unwritten: Sequence[TurnWrite], most: int, conn: sqlite3.Connection, effects: Effects
    ) -> bool:
        """Up to *most* sync transactions in a row. Runs on the writer's thread."""
        write_turns(conn, unwritten, effects)
        for _ in range(most):
            if not self._queue or self._is_async(self._queue[0]):
                break
            action = self._queue.pop(0)
            outcome = self._verdict(conn, action)
            if outcome is None:
                with self._watch.transaction(action.position):
                    outcome = self._outcome(conn, action, effects)
            with self._watch.turn_in_commit:
                turn = self._advanced(outcome)
            write_turns(conn, [turn], effects)
        if effects.listening:
            raise TurnOutdatedError
        return self._state.run not in effects.kept

    def _verdict(self, conn: sqlite3.Connection, action: TransactionAction) -> Event | None:
        """What takes the place of the outcome of a transaction that is not to run again, see `suspicion`."""
        spoiled = self._spoiling.proven.get((action.position, action.attempt))
        if spoiled is not None:
            return self._failed(action, spoiled)
        witness, run = self._services.witness, self._state.run
        deaths = witness.deaths(run, action.position)
        if not deaths or not isinstance(self._execution, Execution):
            return None
        acquit(conn, run)
        witness.acquit(run)
        return self._execution.condemned(action.position, deaths, self._services.clock.now())

    def _outcome(self, conn: sqlite3.Connection, action: TransactionAction, effects: Effects) -> Event:
        guard = self._services.database.guard
        try:
            return run_sync(conn, guard, action.op, self._stage, effects, partial(self._succeeded, action))
        except BaseException as error:  # user code may raise anything: it is the outcome
            if came_from_outside(error) or is_undone(error) or self._is_the_file(error):
                raise  # not that of the user's SQL alone: the whole group must go back
            return self._failed(action, error)

    def _is_the_file(self, error: BaseException) -> bool:
        """Whether *error*, which a transaction raised, says that the journal cannot be written."""
        kind = type(error)
        if not issubclass(kind, (JournalError, sqlite3.DatabaseError)) or is_the_users_own(error):
            return False
        if issubclass(kind, JournalError):
            return bool(attribute(error, "path") == self._services.path)
        return is_the_disk(error)  # type: ignore[arg-type]  # one of SQLite's

    # --- with the writer to itself ------------------------------------------------------------------------

    async def _run_exclusively(self, unwritten: Sequence[TurnWrite]) -> bool:
        """One async transaction: several hops to the writer's thread, on which nothing else runs meanwhile."""
        services = self._services
        effects, action, is_written = Effects(), self._queue[0], False
        turn: TurnWrite | None = None
        try:
            async with services.database.exclusive() as exclusive:
                if unwritten:
                    await exclusive.run(lambda conn: write_turns(conn, unwritten, effects))
                self._queue.pop(0)
                outcome = await exclusive.run(partial(self._verdict, action=action))
                if outcome is None:
                    with self._watch.transaction(action.position):
                        outcome = await self._async_outcome(exclusive, action, effects)
                with self._watch.turn:
                    turn = caused = self._advanced(outcome)
                await exclusive.run(lambda conn: write_turns(conn, [caused], effects))
                if effects.listening:
                    raise TurnOutdatedError
                is_written = True
        except CommitUnknownError as error:
            if turn is None or not await services.commits.settle(turn, error):
                raise error.cause from error
        except JournalIOError:
            await services.commits.reopen()
            raise
        except (TransactionUndoneError, sqlite3.IntegrityError) as error:
            if type(error) is not TransactionUndoneError and not is_written:
                raise
            # by ON CONFLICT ROLLBACK, or by a deferred constraint
            self._prove(action, error)
            raise SpoiledError(services.path, error) from error
        services.on_effects(effects)
        return self._state.run not in effects.kept

    async def _async_outcome(self, exclusive: Exclusive, action: TransactionAction, effects: Effects) -> Event:
        services = self._services
        transaction = ExclusiveTransaction(exclusive, services.database.guard, self._stage)
        caused = Effects()
        await exclusive.execute("SAVEPOINT durable_transaction")
        token, task = holds_writer.set(True), current_task()
        try:
            op, stand_ins = action.op, services.stand_ins
            if stand_ins is None:
                value = await op.definition.fn(transaction, *op.args, **op.kwargs)
            else:
                value = await stand_ins.call(op.definition, action.position, self._state.run_id, op.args, op.kwargs)
            outcome = self._succeeded(action, value)
            caused = await transaction.write_staged()
        except BaseException as error:  # user code may raise anything: it is the outcome
            if task.cancelling() > 0 if is_cancellation(error) else is_for_the_program(error, task):
                raise
            if self._is_the_file(error):
                raise
            await exclusive.execute("ROLLBACK TO durable_transaction")
            outcome = self._failed(action, error)
        finally:
            holds_writer.reset(token)
            transaction.close()
        await exclusive.execute("RELEASE durable_transaction")
        effects.add(caused)
        return outcome
