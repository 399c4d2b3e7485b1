"""
What the shell keeps of an active run, and how its decisions become rows.

A decision is written by one commit group; one with transactions together with what those
write, their outcomes, and the turns which these cause.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

from attrs import evolve

from durable._core.journal import history
from durable._core.journal.events import (
    Event,
    Payload,
    RunStarted,
    StepStarted,
    StepSucceeded,
)
from durable._core.journal.payloads import failure_payload
from durable._core.program.functions import Job
from durable._core.program.limits import Limit, LimitRef, name_of, numbers
from durable._core.program.retry import from_record
from durable._core.run.decision import ChildAction, Decision, Feed, TransactionAction
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution
from durable._core.statuses import EndStatus
from durable._shell.reads.batch_rows import lineage
from durable._shell.reads.event_rows import load_run
from durable._shell.rows.new_runs import make_run, make_template
from durable._shell.rows.rows import (
    Effects,
    EventTuple,
    LastTurn,
    NewFeed,
    NewRun,
    Notice,
    ReadyRun,
    RunState,
    TurnWrite,
    read_events,
)
from durable._shell.storage.connections import CommitUnknownError, is_the_disk
from durable._shell.turns.continuations import follow_ups
from durable._shell.turns.services import Services
from durable._shell.turns.transaction import ExclusiveTransaction, cancelled_by_itself, holds_writer, run_sync
from durable._shell.writes.run_writes import get_or_create
from durable._shell.writes.turn_writes import write_turns
from durable.errors import (
    DefinitionError,
    DurableError,
    JournalError,
    JournalIOError,
)

#: Transactions of one run in a row inside one commit group; then others get their turn.
MAX_TRANSACTIONS = 64
#: Batches whose ids are kept in memory.
BATCHES_KNOWN = 1000


class Recorder:
    """Records the decisions of one run. The only one who appends to its history."""

    def __init__(self, ready: ReadyRun, services: Services) -> None:
        self.ready = ready
        self._services = services
        self._state = RunState(
            ready.run, ready.run_id, ready.workflow, ready.queue, labels=ready.labels, batch=ready.batch,
            callback=ready.callback,
        )  # fmt: skip
        self._execution: Execution | JobExecution | None = None
        #: The newest item of its inbox that was taken in.
        self._inbox_upto = 0
        #: Set once the file says that it is running.
        self._announced = False
        #: Positions of steps that have left notes (cursors, memos).
        self._dirty: set[str] = set()
        #: In a run that was retried: names by position of the steps that were ever asked for.
        self._asked_before: dict[str, str] = {}

    def _make_execution(self, events: list[Event]) -> Execution | JobExecution:
        services, ready = self._services, self.ready
        started = events[0]
        version = started.version if isinstance(started, RunStarted) else None
        definition = services.definitions.find(ready.workflow, version)
        if definition is None:
            msg = (
                f"no {ready.kind} called {ready.workflow!r} is among the definitions given to Engine; "
                "the run goes on when an engine with it opens the file"
            )
            raise DurableError(msg)
        retry = None if ready.retry is None else from_record(ready.retry)
        if isinstance(definition, Job):
            limit = definition.options.limit
            limited = limit is not None and services.limits[name_of(limit)].on_conflict == "wait"
            return JobExecution(
                definition,
                events,
                run_id=ready.run_id,
                codec=services.codec,
                crash_limit=services.crash_limit,
                caps=services.caps,
                limited=limited,
                retry=retry,
            )
        return Execution(
            definition,
            events,
            run_id=ready.run_id,
            codec=services.codec,
            crash_limit=services.crash_limit,
            cleanup_seconds=services.cleanup_seconds,
            caps=services.caps,
            retry=retry,
        )

    async def _replayed(
        self, read: Callable[..., Awaitable[Any]], unrecorded: Sequence[Event] = ()
    ) -> Execution | JobExecution:
        """
        Another execution, made of the journal alone, and of *unrecorded* events.

        Raises:
            NondeterminismError: The code asks for something else than it did.
        """
        run, state = self._state.run, evolve(self._state, seq=0, chain=0)
        rows = (await read(partial(load_run, run=run))).rows
        execution = self._make_execution([*read_events(self._services.path, state, rows), *unrecorded])
        try:
            execution.load()
        except DurableError:
            execution.close()
            raise
        return execution

    async def keep(self, position: str, name: str, value: Payload) -> None:
        """Record a note of a step (a cursor, a memo)."""
        run, at = self._state.run, self._services.clock.now()
        self._dirty.add(position)

        def insert(conn: sqlite3.Connection, _: Effects) -> None:
            conn.execute(
                "INSERT OR REPLACE INTO durable_notes (run, position, name, value, at) VALUES (?, ?, ?, ?, ?)",
                (run, position, name, value, at),
            )

        await self._services.commits.call(insert, answers=False)

    def _write(self, decision: Decision, *, last: bool) -> TurnWrite:
        """*decision*, ready to be written. *last* is False while transactions of the same turn are still to run."""
        execution, services = self._execution, self._services
        assert execution is not None
        now = services.clock.now()
        events = self._state.append(decision.events)
        if decision.ended is None:
            write = TurnWrite(self._state, now, decision, events, self._inbox_upto)
            if decision.blocked is not None:
                write.status = "blocked"
            elif last and execution.idle:
                write.status = "waiting"
            elif not self._announced:
                write.status = "running"
        else:
            write = self._last_turn(execution, decision, decision.ended, events, now)
        if decision.children:
            write.children = [self._child(action, now) for action in decision.children]
            if any(child.may_be_refused for child in write.children):
                write.refusal = lambda error: failure_payload(error, services.codec, with_traceback=False)
        if decision.feeds:
            write.feeds = [self._feed(feed) for feed in decision.feeds]
        if decision.slots:
            write.limits = [numbers(each.limit) for each in decision.slots if self._is_new(each.limit)]
        if decision.attributes is not None:
            write.attributes = self._merging(decision.attributes)
        if decision.waits or self._dirty or self._asked_before:
            self._drop_notes(decision, write)
        if (write.status is not None or decision.failed_attempts) and services.is_watched():
            write.notices = self._notices(decision, write)
        self._announced = True
        return write

    def _last_turn(
        self,
        execution: Execution | JobExecution,
        decision: Decision,
        status: EndStatus,
        events: Sequence[EventTuple],
        now: float,
    ) -> LastTurn:
        write = LastTurn(self._state, now, decision, events, self._inbox_upto, status, allocate=self._services.allocate)
        if decision.continued is not None:
            write.successor = self._child(decision.continued, now)
            write.unconsumed = execution.unconsumed() if isinstance(execution, Execution) else ()
        else:
            write.follow_ups = self._following(execution.started, status, decision)
        return write

    def _is_new(self, limit: LimitRef) -> TypeGuard[Limit]:
        """Whether the opening did not see this limit, so that its numbers are still to be written."""
        if name_of(limit) in self._services.limits:
            return False
        if isinstance(limit, Limit):
            return True
        msg = f"limit {limit!r} is not known: list it, Engine(limits=[Limit({limit!r}, ...)])"
        raise DefinitionError(msg)

    def _following(self, started: RunStarted, status: EndStatus, end: Decision) -> list[NewRun]:
        """The runs that the end of this one starts."""
        definition = self._services.definitions.find(self.ready.workflow, started.version)
        if not self.ready.follow_ups and (definition is None or not definition.hooks):
            return []
        return follow_ups(self.ready, started, status, end, self._services)

    async def _name_batches(self, read: Callable[..., Awaitable[Any]]) -> None:
        """Learn the ids of the run's batch, and of those around it: they never change."""
        state, known = self._state, self._services.batches
        number = state.callback if state.batch is None else state.batch
        if state.batches or number is None:
            return
        if number not in known:
            if len(known) >= BATCHES_KNOWN:
                known.clear()
            known[number] = await read(partial(lineage, batch=number))
        state.batches = known[number]

    def _first_event(self, conn: sqlite3.Connection) -> RunStarted | None:
        """How the run began, as far as that can be read."""
        try:
            rows = load_run(conn, self._state.run).rows[:1]
            (event,) = read_events(self._services.path, evolve(self._state), rows)
        except (DurableError, ValueError):
            return None
        return event if event.category == "start" else None

    def _notices(self, decision: Decision, write: TurnWrite) -> list[Notice]:
        """What to tell those who look on."""
        run, run_id, workflow = self._state.run, self._state.run_id, self._state.workflow
        notices: list[Notice] = []
        if not self._announced and not history.ends_unborn(decision.events):
            notices.append(Notice("run.started", run, run_id, workflow))
        notices += [Notice("step.attempt_failed", run, run_id, workflow, failed) for failed in decision.failed_attempts]
        if write.status == "waiting":
            notices.append(Notice("run.waiting", run, run_id, workflow))
        return notices

    def _drop_notes(self, decision: Decision, write: TurnWrite) -> None:
        """Cursors and memos go when their step succeeds, or when nobody can ask for it again."""
        if decision.waits and decision.waits[-1].kind == "restart":
            write.notes_over = True  # the next attempt of the run asks for everything anew
        elif self._dirty:
            # A failed run may be retried: its failed steps then go on from their cursors.
            write.notes_over = decision.ended is not None and decision.ended != "failed"
            succeeded = (event.position for event in history.only(decision.events, StepSucceeded))
            write.notes_done = [position for position in succeeded if position in self._dirty]
            self._dirty.difference_update(write.notes_done)
        if self._asked_before:  # if the mended code asks for another step, what is there is not for it
            write.notes_done = [
                *write.notes_done,
                *(
                    event.position
                    for event in history.only(decision.events, StepStarted)
                    if self._asked_before.get(event.position, event.name) != event.name
                ),
            ]

    def _child(self, action: ChildAction, now: float) -> NewRun:
        services = self._services
        return make_run(
            action.op,
            definitions=services.definitions,
            codec=services.codec,
            allocate=services.allocate,
            now=now,
            places=services.places,
            run_id=action.run_id,
            parent=self._state.run,
            position=action.position,
            arguments=action.arguments,
        )

    def _feed(self, feed: Feed) -> NewFeed:
        services = self._services
        template = make_template(feed.op, definitions=services.definitions, codec=services.codec)
        return NewFeed(feed, template, [services.allocate() for _ in feed.children])

    def _merging(self, values: dict[str, Any]) -> Callable[[Payload | None], Payload]:
        codec = self._services.codec

        def merge(before: Payload | None) -> Payload:
            known = {} if before is None else codec.decode(before, dict[str, Any], where="attributes")
            return codec.encode({**known, **values}, dict[str, Any], where="attributes")

        return merge

    async def _transact(self, decision: Decision) -> tuple[list[Decision], bool]:
        """
        Record a decision with transactions: their rows, outcomes and turns commit with it.

        Sync ones in a row share the commit group; an async one, or the `MAX_TRANSACTIONS`th,
        begins another transaction of the file.
        """
        decisions: list[Decision] = []
        queue = list(decision.transactions)
        first: Decision | None = decision
        freed = False
        while first is not None or queue:
            if self._is_async(queue[0]):
                freed = await self._transact_exclusively(first, queue, decisions)
            else:
                work = partial(self._transact_in_group, first, queue, decisions)
                freed = await self._services.commits.call(work)
            first = None
        return decisions, freed

    def _is_async(self, action: TransactionAction) -> bool:
        return action.op.definition.is_async or self._services.stand_ins is not None  # which may be either

    def _transact_in_group(
        self,
        first: Decision | None,
        queue: list[TransactionAction],
        decisions: list[Decision],
        conn: sqlite3.Connection,
        effects: Effects,
    ) -> bool:
        if first is not None:
            decisions.append(first)
            write_turns(conn, [self._write(first, last=False)], effects)
        for _ in range(MAX_TRANSACTIONS):
            if not queue or self._is_async(queue[0]):
                break
            event = self._transaction_outcome(conn, queue.pop(0), effects)
            following = self._advance_inside(event)
            queue += following.transactions
            decisions.append(following)
            write_turns(conn, [self._write(following, last=not queue)], effects)
        return self._state.run not in effects.kept

    def _advance_inside(self, event: Event) -> Decision:
        execution = self._execution
        assert execution is not None
        return execution.advance([event], now=self._services.clock.now())

    def _transaction_outcome(self, conn: sqlite3.Connection, action: TransactionAction, effects: Effects) -> Event:
        services = self._services
        try:
            finish = partial(self._succeeded, action)
            return run_sync(conn, services.database.guard, action, self._stage, effects, finish)
        except (sqlite3.DatabaseError, JournalError) as error:
            undone = isinstance(error, sqlite3.OperationalError) and not conn.in_transaction
            if isinstance(error, JournalError) or undone or is_the_disk(error):
                raise  # the disk, not the user's SQL: the whole group goes back
            return services.steps.failed(action, error, self.ready.run_id)
        except Exception as error:  # noqa: BLE001 - user code may raise anything: it is the outcome
            return services.steps.failed(action, error, self.ready.run_id)

    def _succeeded(self, action: TransactionAction, value: Any) -> Event:
        where = f"result of {action.op.describe()}"
        payload = self._services.codec.encode(value, action.op.definition.result, where=where)
        return StepSucceeded(action.position, payload, self._services.clock.now())

    def _stage(self, op: Any) -> NewRun:
        services = self._services
        return make_run(
            op,
            definitions=services.definitions,
            codec=services.codec,
            allocate=services.allocate,
            now=services.clock.now(),
            places=services.places,
            parent=self._state.run,
        )

    async def _transact_exclusively(
        self, first: Decision | None, queue: list[TransactionAction], decisions: list[Decision]
    ) -> bool:
        """One async transaction: several hops, and the writer to itself."""
        services = self._services
        effects = Effects()
        turn: TurnWrite | None = None
        try:
            async with services.database.exclusive() as exclusive:
                if first is not None:
                    decisions.append(first)
                    write = self._write(first, last=False)
                    await exclusive.run(lambda conn: write_turns(conn, [write], effects))
                event = await self._async_outcome(exclusive, queue.pop(0), effects)
                following = self._advance_inside(event)
                queue += following.transactions
                decisions.append(following)
                turn = end = self._write(following, last=not queue)
                await exclusive.run(lambda conn: write_turns(conn, [end], effects))
        except CommitUnknownError as error:
            if turn is None or not await services.commits.settle(turn, error):
                raise error.cause from error
        except JournalIOError:
            await services.commits.reopen()
            raise
        services.on_effects(effects)
        return self._state.run not in effects.kept

    async def _async_outcome(self, exclusive: Any, action: TransactionAction, effects: Effects) -> Event:
        services = self._services
        transaction = ExclusiveTransaction(exclusive, services.database.guard, self._stage)
        await exclusive.execute("SAVEPOINT durable_transaction")
        token = holds_writer.set(True)
        try:
            op, stand_ins = action.op, services.stand_ins
            if stand_ins is None:
                value = await op.definition.fn(transaction, *op.args, **op.kwargs)
            else:
                value = await stand_ins.call(op.definition, action.position, self.ready.run_id, op.args, op.kwargs)
            event = self._succeeded(action, value)
            for new in transaction.staged:
                await exclusive.run(lambda conn, new=new: get_or_create(conn, new, effects))
        except JournalError:
            raise  # the disk, not the user's code
        except (Exception, asyncio.CancelledError) as raised:  # user code may raise anything: it is the outcome
            error: Exception
            if isinstance(raised, asyncio.CancelledError):
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                error = cancelled_by_itself()
            else:
                error = raised
            await exclusive.execute("ROLLBACK TO durable_transaction")
            event = services.steps.failed(action, error, self.ready.run_id)
        finally:
            holds_writer.reset(token)
            transaction.close()
        await exclusive.execute("RELEASE durable_transaction")
        return event
