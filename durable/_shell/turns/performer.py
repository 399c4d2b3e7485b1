"""
What an active run has under way: its steps, each in a task of its own, or in that of its driver.

A step begins once the turn that asked for it is on disk, and its outcome stays in memory until a
turn of the driver takes it in. A step that nothing else runs beside is run by the driver's own
task, and all of those in one cancel scope: a task and a scope less for each job, and for each
step of a plain sequence.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

from durable._core.journal.events import Event, StepInterrupted
from durable._core.run.decision import Decision, StepAction
from durable._core.run.execution import Execution
from durable._shell.log import emit, log
from durable._shell.reads.event_rows import notes_of
from durable._shell.rows.rows import ReadyRun
from durable._shell.turns.recorder import Recorder
from durable._shell.turns.services import Services
from durable.errors import EngineClosedError, JournalAccessError, JournalFullError, JournalIOError

T = TypeVar("T")

#: Seconds before a run goes back to what is recorded after a commit that failed, and before a read is tried again.
RELOAD_PAUSE = 1.0


class CutOffError(Exception):
    """Raised where a step has outlived the cancellation of its scope: what comes next is not to be cancelled."""


class RelievedError(Exception):
    """Raised in the task that ran a step, where another one has gone on with the turns."""


class Performer(Recorder):
    """Runs the steps of one run."""

    def __init__(self, ready: ReadyRun, services: Services) -> None:
        super().__init__(ready, services)
        #: How steps ended that no turn has taken in yet.
        self._outcomes: list[Event] = []
        #: What cancels each step under way, by position.
        self._scopes: dict[str, anyio.CancelScope] = {}
        #: A step that nothing else runs beside, in the driver's task rather than in one of its own ...
        self._inline: StepAction | None = None
        #: ... and, if something arrived meanwhile, the end of the task that goes on with the turns.
        self._relief: asyncio.Future[None] | None = None
        #: The scope of the steps that run in the driver's task, one after the other: a new one only once it was
        #: cancelled.
        self._around: anyio.CancelScope | None = None
        #: The scope of the middleware around this activation.
        self.surroundings = services.new_scope()
        #: What its steps see of context variables, where middleware may have set some.
        self._context: contextvars.Context | None = None
        #: The task that drives.
        self._task: asyncio.Task[Any] | None = None
        #: Set while something is in the inbox that no turn has taken in.
        self._notified = False
        self._stopping = False
        self._interrupting = False
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Begin no new turn or step; end once the steps under way have."""
        self._stopping = True
        self._wake.set()

    def interrupt(self) -> None:
        """Cut off the steps under way: the grace is over."""
        self._stopping = self._interrupting = True
        for scope in [self.surroundings, *self._scopes.values()]:
            scope.cancel()
        self._wake.set()

    def _perform(self, decision: Decision) -> None:
        """What is on disk now may begin."""
        if decision.logs:
            emit(decision.logs, self.ready.run_id, self.ready.workflow)
        for position in decision.cancelled_steps:
            if scope := self._scopes.get(position):
                scope.cancel()
        for action in decision.steps:
            if self._stopping:
                now = self._services.clock.now()
                self._outcomes.append(StepInterrupted(action.position, action.attempt, False, now))  # noqa: FBT003
                continue
            if len(decision.steps) == 1 and not self._notified and self._is_alone():
                assert self._around is not None
                self._scopes[action.position] = self._around
                self._inline = action
            else:
                self._scopes[action.position] = self._services.new_scope()
                self._services.spawn(self._run_step, action, self._context)

    def _is_alone(self) -> bool:
        """
        Whether nothing of the run is open but the step that is to begin.

        Then it may run in this task: a task less for each job, and for each step of a plain
        sequence. If something arrives meanwhile, another task goes on with the turns.
        """
        execution = self._execution
        alone = not isinstance(execution, Execution) or (not self._scopes and len(execution.leaves) == 1)
        return alone and self._relief is None

    async def _run_inline(self, action: StepAction) -> None:
        """
        Run a step in the driver's task.

        Raises:
            RelievedError: Another task has gone on with the turns meanwhile.
            CutOffError: The scope was cancelled, but the step ended by itself.
        """
        scope = self._around
        assert scope is not None
        assert self._task is not None
        try:
            await self._attempt(action, scope, self._task)
        finally:
            self._inline = None
        if self._relief is not None:
            raise RelievedError
        if scope.cancel_called:
            raise CutOffError

    async def _run_step(self, action: StepAction) -> None:
        """Run a step in a task, and a scope, of its own."""
        with self._scopes[action.position] as scope:
            await self._attempt(action, scope, current_task())

    async def _attempt(self, action: StepAction, scope: anyio.CancelScope, task: asyncio.Task[Any]) -> None:
        services = self._services
        event: Event | None = None
        try:
            left = {}
            if action.attempt > 1 or action.position in self._asked_before:
                run, position = self._state.run, action.position
                left = await self._read(lambda conn: notes_of(conn, run, position))
                if left:
                    self._dirty.add(position)
            if self._state.batch is not None or self._state.callback is not None:
                await self._name_batches(self._read)
            event = await services.steps.attempt(action, self._state, self, left, task)
        finally:
            if self._scopes.get(action.position) is scope:
                del self._scopes[action.position]
            if event is None and self._interrupting:
                now = services.clock.now()
                event = StepInterrupted(action.position, action.attempt, False, now)  # noqa: FBT003
            if event is not None:
                self._outcomes.append(event)
            self._wake.set()

    async def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of *fn* on the reader's connection; waits out a disk that fails."""
        while True:
            try:
                return await self._services.database.read(fn)
            except (JournalIOError, JournalFullError, JournalAccessError) as error:
                if self._stopping and not self._scopes:
                    raise EngineClosedError("the engine closed before its file could be read again") from error
                log.warning("read.failed", run_id=self.ready.run_id, error=str(error))
                await asyncio.sleep(RELOAD_PAUSE)


def current_task() -> asyncio.Task[Any]:
    """The task that asks."""
    task = asyncio.current_task()
    assert task is not None
    return task
