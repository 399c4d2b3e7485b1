"""
Drives one active run: the turn loop.

A turn is: take what arrived, `advance` the execution, record the decision, perform it. The
driver is the only one who appends to its run's history, so nothing races with it: whatever
comes from elsewhere (signals, timers, ends of children, cancels) is put into the run's inbox
and becomes part of the history with the turn that takes it in.

A driver ends when its run ends, is freed, is blocked, or has to stop (pause, shutdown). Then
nothing of the run is left in memory. If it has to stop, the outcomes of steps still under way
go into the inbox too, so that the history stays closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from durable._core.journal.events import Event, Reopening, RunRetried, StepInterrupted, StepStarted
from durable._core.journal.history import only
from durable._core.run.decision import Decision
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution
from durable._shell.log import log
from durable._shell.reads.event_rows import Loaded, cancel_in_inbox, load_items, load_run
from durable._shell.rows.rows import Effects, InboxItem, ReadyRun, TurnWrite, read_events
from durable._shell.turns.performer import RELOAD_PAUSE, CutOffError, Performer, RelievedError, current_task
from durable._shell.turns.services import Services
from durable._shell.writes.turn_writes import end_cancelled, write_turns
from durable._shell.writes.wakeups import await_code, put_back
from durable.errors import (
    DurableError,
    EngineClosedError,
    InternalError,
    JournalDamagedError,
    JournalError,
)

T = TypeVar("T")

#: Arrivals that one turn takes in: what more there is follows in the next ones, so that neither the
#: event loop nor the writer is held for long when thousands of children have ended.
ARRIVALS_AT_ONCE = 250


class Driver(Performer):
    """One active run."""

    def __init__(self, ready: ReadyRun, services: Services) -> None:
        super().__init__(ready, services)
        #: Set once the end of the run is on disk, and was told.
        self.over = False
        #: Set once the run was taken over: what is under way after that did not see the process die.
        self._lived = False
        #: Outcomes of steps that the turn under way took in: not on disk yet.
        self._unrecorded: list[Event] = []
        #: Read of its inbox, and not yet taken in.
        self._backlog: list[InboxItem] = []
        #: The first event and its checksum, where the run was only just created and needs no loading.
        self._fresh = ready.fresh

    # --- what others call -----------------------------------------------------------------------

    def notify(self) -> None:
        """Something is in the inbox."""
        self._notified = True
        self._wake.set()
        if self._inline is not None and self._relief is None:
            self._relief = asyncio.get_running_loop().create_future()
            self._services.spawn(self._relieve, self._relief, self._context)

    # --- the loop -----------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Drive the run until it ends, is freed or blocked, or has to stop."""
        if self._services.hooks.around_runs:
            self._context = contextvars.copy_context()
        await self._drive(self._take_over)
        if self._relief is not None:
            await self._relief

    async def refuse(self, error: DurableError) -> None:
        """Block the run because of *error*, without driving it."""

        async def begin() -> None:
            run = self.ready.run
            if (await self._read(lambda conn: load_run(conn, run))).ready:
                raise error

        await self._drive(begin)

    async def _relieve(self, done: asyncio.Future[None]) -> None:
        """Go on with the turns while the first task is busy with a step."""
        try:
            await self._drive(self._next)
        finally:
            if not done.done():
                done.set_result(None)

    async def _drive(self, begin: Callable[[], Coroutine[Any, Any, list[Event] | None]]) -> None:
        relieved = False
        self._task = current_task()
        try:
            arrived = await begin()
            while arrived is not None:
                with contextlib.suppress(CutOffError), self._services.new_scope() as self._around:
                    while arrived is not None:
                        arrived = await self._turn(arrived)
                    break
                if self._relief is not None:  # a step was cancelled, by the task that goes on with the turns
                    raise RelievedError
                arrived = await self._next()
        except RelievedError:
            relieved = True  # another task goes on, and closes the execution
        except EngineClosedError:
            pass  # what was not recorded is found again when the file is opened
        except DurableError as error:
            await self._block(error)
        except (Exception, asyncio.CancelledError) as error:  # a bug of ours must block one run, not kill the engine
            if isinstance(error, asyncio.CancelledError) and self._task.cancelling():
                raise
            log.exception("run.blocked", run_id=self.ready.run_id)
            text = "".join(traceback.format_exception(error)[-6:])
            await self._block(InternalError(f"{type(error).__name__}: {error}. Please report this:\n{text}"))
        finally:
            if not relieved:
                if self._execution is not None:
                    self._execution.close()
                    self._execution = None
                self._task = None  # which knows us: a cycle

    async def _turn(self, arrived: list[Event]) -> list[Event] | None:
        """One turn; the next arrivals, or None once there is nothing left to drive."""
        services = self._services
        execution = self._execution
        assert execution is not None
        decision = execution.advance(arrived, now=services.clock.now())
        if services.replay_always and decision.ended is not None:
            (await self._replayed(self._read, decision.events)).close()  # before it is too late to block the run
        try:
            if decision.transactions:
                decisions, freed = await self._transact(decision)
            else:
                decisions, freed = [decision], await services.commits.turn(self._write(decision, last=True))
        except JournalDamagedError:
            raise  # nor would it be taken the next time
        except JournalError as error:
            # The execution ran ahead of a file that did not take it: back to what is recorded.
            log.warning("commit.failed", run_id=self.ready.run_id, error=str(error))
            return await self._reload()
        self._unrecorded = []
        last = decisions[-1]
        if services.replay_always and last.blocked is None and not execution.ended:
            self._execution = await self._replayed(self._read)
            execution.close()
            execution = self._execution
        for done in decisions:
            self._perform(done)
        if last.ended is not None or (last.blocked is not None and not self._scopes):
            return None
        if last.blocked is not None:
            self._stopping = True
        elif execution.idle:
            if freed:
                self._set_aside(execution)
                return None
            if execution.ended:  # it restarts, and something arrived meanwhile: take over afresh
                return await self._take_over()
            self._notified = True
        return await self._next()

    def _set_aside(self, execution: Execution | JobExecution) -> None:
        """Keep a freed execution for a while, if asked to."""
        services = self._services
        if services.keep_resident and isinstance(execution, Execution) and not execution.ended:
            services.resident[self.ready.run] = (execution, self._state, self._inbox_upto)
            self._execution = None
            while len(services.resident) > services.keep_resident:
                oldest, _, _ = services.resident.pop(next(iter(services.resident)))
                oldest.close()

    async def _next(self) -> list[Event] | None:
        """What arrived next; None if the driver has to end."""
        if self._inline is not None and self._relief is None:
            await self._run_inline(self._inline)
        while True:
            arrived = self._unrecorded = self._outcomes
            self._outcomes = []
            if self._stopping:
                if arrived:
                    await self._put_back(arrived)
                    self._unrecorded = []
                elif not self._scopes:
                    return None
                if not self._outcomes and self._scopes:
                    self._wake.clear()
                    await self._wake.wait()
                continue
            if self._notified:
                self._notified = False
                items: list[InboxItem] = []
                if not self._backlog:
                    run, after = self._state.run, self._inbox_upto
                    items = await self._read(partial(load_items, run=run, after=after))
                arrived = [*arrived, *self._take_in(items)]
            if arrived:
                return arrived
            self._wake.clear()
            if self._outcomes or self._notified or self._stopping:
                continue
            await self._wake.wait()

    def _take_in(self, items: list[InboxItem]) -> list[Event]:
        """The next arrivals, of *items* and those that the last turns left: not too many for one turn."""
        self._backlog += items
        taken, self._backlog = self._backlog[:ARRIVALS_AT_ONCE], self._backlog[ARRIVALS_AT_ONCE:]
        if taken:
            self._inbox_upto = taken[-1].item
        self._notified |= bool(self._backlog)
        return [each.event for each in taken]

    # --- taking over ----------------------------------------------------------------------------------

    async def _take_over(self) -> list[Event] | None:
        """Make the execution, replay what is recorded; the arrivals that no turn has taken in."""
        services, ready = self._services, self.ready
        kept = services.resident.pop(ready.run, None)
        if kept is not None:
            self._execution, self._state, self._inbox_upto = kept
            run, after = ready.run, self._inbox_upto
            self._announced = True
            return self._take_in(await self._read(lambda conn: load_items(conn, run, after)))
        if self._fresh is not None:
            (started, self._state.chain), self._fresh = self._fresh, None  # should it have to be taken over again
            self._state.seq = 1
            self._execution = self._make_execution([started])
            self._lived = True
            return []
        run = ready.run
        loaded: Loaded = await self._read(lambda conn: load_run(conn, run))
        if not loaded.ready:
            return None  # it went on, or ended, since the scheduler read that it was ready
        events = read_events(services.path, self._state, loaded.rows)
        items = loaded.items
        self._announced = len(events) > 1
        if any(only(events, RunRetried)):
            self._asked_before = {event.position: event.name for event in only(events, StepStarted)}
        self._execution = self._make_execution(events)
        self._execution.load()
        interrupted = await self._interrupted(events, [each.event for each in items])
        arrived = self._take_in(items) + interrupted
        self._lived = True
        return arrived

    async def _reload(self) -> list[Event] | None:
        """Go back to what is recorded; the outcomes of steps that ended in this process are kept."""
        if self._execution is not None:
            self._execution.close()
            self._execution = None
        self._take_back()
        await asyncio.sleep(RELOAD_PAUSE)
        if self._stopping:
            return await self._next()
        self._state.seq = self._state.chain = 0
        self._inbox_upto = 0
        self._backlog.clear()
        return await self._take_over()

    def _take_back(self) -> None:
        self._outcomes[:0] = self._unrecorded
        self._unrecorded = []
        if self._outcomes:
            self._wake.set()

    async def _interrupted(self, events: list[Event], arrived: list[Event]) -> list[Event]:
        """An interruption for each step that was under way when its last driver ended."""
        execution = self._execution
        assert execution is not None
        settled = {event.position for event in (*arrived, *self._outcomes)}
        found: list[Event] = []
        now = self._services.clock.now()
        reopened = isinstance(events[-1], Reopening)
        for position, attempt in execution.in_flight():
            if position not in settled and position not in self._scopes:
                crashed = not (self._lived or reopened) and not await self._progressed(position, events)
                found.append(StepInterrupted(position, attempt, crashed, now))
        return found

    async def _progressed(self, position: str, events: list[Event]) -> bool:
        """Whether the step recorded a cursor or memo since its last attempt began: then it is no poison."""
        began = max((event.at for event in events if event.position == position), default=0.0)
        run = self._state.run
        latest = await self._read(
            lambda conn: conn.execute(
                "SELECT max(at) FROM durable_notes WHERE run = ? AND position = ?", (run, position)
            ).fetchone()[0]
        )
        return latest is not None and latest > began

    # --- putting back ---------------------------------------------------------------------------------

    async def _put_back(self, outcomes: list[Event]) -> None:
        """Keep the outcomes of steps for when the run goes on."""
        run = self._state.run

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            put_back(conn, run, outcomes, effects)
            effects.arrived.discard(run)

        await self._services.commits.call(insert, answers=False)

    async def _block(self, error: DurableError) -> None:
        """The run cannot go on without a person: nothing is executed, nothing but the report written."""
        log.error("run.blocked", run_id=self.ready.run_id, workflow=self.ready.workflow, reason=str(error))
        self._stopping = True
        self._take_back()
        now = self._services.clock.now()

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            run = self._state.run
            asked = cancel_in_inbox(conn, run)
            if asked is None:
                decision = Decision(blocked=str(error))
                turn = TurnWrite(self._state, now, decision, status="blocked", under_way=list(self._scopes))
                write_turns(conn, [turn], effects)
                await_code(conn, run, now)
            else:  # its clean-up cannot run, and nobody wants to wait for the code that could
                started = self._first_event(conn)
                end = Decision(ended="cancelled", reason=asked.reason)
                then = [] if started is None else self._following(started, "cancelled", end)
                end_cancelled(conn, self._state, asked, now, then, self._services.allocate, effects)

        try:
            await self._services.commits.call(insert, answers=False)
            while self._scopes or self._outcomes:
                await self._next()
        except EngineClosedError:
            pass
        except JournalDamagedError as damage:  # not even that can be written: found again when the file is opened
            log.error("run.not_blocked", run_id=self.ready.run_id, error=str(damage))
