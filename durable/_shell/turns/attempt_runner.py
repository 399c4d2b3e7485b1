"""
The steps of one run that are running: each in a task of its own, or in that of the run's driver.

A step begins once the turn that asked for it is on disk; how it ended goes into the run's inbox. A step that nothing
else runs beside is run by the driver's own task, and all of those in one cancel scope: a task and a scope less for
each job, and for each step of a plain sequence. If something arrives meanwhile, another task takes the turns over (a
*relief*), and the driver's task ends with its step.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import anyio

from durable._core.journal.events import Event, StepInterrupted
from durable._core.run.decision import StepAction
from durable._shell.reads.batch_rows import lineage
from durable._shell.rows.rows import RunState
from durable._shell.turns.inbox import Inbox
from durable._shell.turns.notes import StepNotes
from durable._shell.turns.services import Services

#: Batches whose ids are kept in memory.
BATCHES_KNOWN = 1000


class CutOffError(Exception):
    """Raised where a step has outlived the cancellation of its scope: what comes next is not to be cancelled."""


class AttemptRunner:
    """Runs attempts of one run's steps."""

    def __init__(self, state: RunState, inbox: Inbox, notes: StepNotes, services: Services) -> None:
        #: What steps see of context variables, where middleware may have set some.
        self.context: contextvars.Context | None = None
        self._state = state
        self._inbox = inbox
        self._notes = notes
        self._services = services
        #: What cancels each step that is running, by position.
        self._scopes: dict[str, anyio.CancelScope] = {}
        #: The step that is left to the driver's task ...
        self._inline: StepAction | None = None
        #: ... and, if something arrived meanwhile, the end of the task that takes the turns.
        self._relief: asyncio.Future[None] | None = None
        self._is_cut_off = False

    @property
    def running(self) -> Collection[str]:
        """The positions of the steps that are running."""
        return self._scopes.keys()

    def begin(self, actions: Sequence[StepAction], here: anyio.CancelScope | None) -> None:
        """
        Run *actions*, each in a task of its own.

        Where nothing else of the run is open, *here* is the scope of the driver's task: a single step is left to
        `run_inline`, which is to be called there next.
        """
        if here is not None and len(actions) == 1 and not self._scopes and self._relief is None:
            self._inline = action = actions[0]
            self._scopes[action.position] = here
            return
        for action in actions:
            self._scopes[action.position] = self._services.new_scope()
            self._services.spawn(self._run, action, self.context)

    def skip(self, actions: Iterable[StepAction]) -> None:
        """Do not begin *actions*: the run has to stop. They begin when it continues."""
        for action in actions:
            self._interrupted(action)

    def cancel(self, positions: Iterable[str]) -> None:
        """Cancel the steps at *positions*, as far as they are running."""
        for position in positions:
            if scope := self._scopes.get(position):
                scope.cancel()

    def cut_off(self) -> None:
        """Cancel all that is running, and record that it was interrupted: the grace is over."""
        self._is_cut_off = True
        for scope in list(self._scopes.values()):
            scope.cancel()

    # --- in the driver's task --------------------------------------------------------------------------

    async def run_inline(self) -> bool:
        """
        Run the step that was left to this task, if one was; False if another task has taken the turns meanwhile.

        Raises:
            CutOffError: The scope was cancelled, but the step ended by itself.
        """
        action = self._inline
        if action is None or self._relief is not None:
            return True
        scope = self._scopes[action.position]
        try:
            await self._attempt(action, scope)
        finally:
            self._inline = None
        if self.is_relieved:
            return False
        if scope.cancel_called:
            raise CutOffError
        return True

    @property
    def is_relieved(self) -> bool:
        """Whether the task that ran the last step has no turns to take any more."""
        return self._relief is not None

    def relieve(self, take_turns: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let another task *take_turns*, if the driver's is busy with a step."""
        if self._inline is not None and self._relief is None:
            self._relief = asyncio.get_running_loop().create_future()
            self._services.spawn(partial(_relieve, take_turns), self._relief, self.context)

    async def wait_relieved(self) -> None:
        """Return once the task that has taken the turns, if there is one, has ended."""
        if self._relief is not None:
            await self._relief

    # --- one attempt -----------------------------------------------------------------------------------

    async def _run(self, action: StepAction) -> None:
        """Run a step in a task, and a scope, of its own."""
        with self._scopes[action.position] as scope:
            await self._attempt(action, scope)

    async def _attempt(self, action: StepAction, scope: anyio.CancelScope) -> None:
        state, notes = self._state, self._notes
        outcome: Event | None = None
        try:
            left = await notes.left(action, state.run_id) if notes.may_be_left(action) else {}
            if state.batch is not None or state.callback is not None:
                await self._name_batches()
            outcome = await self._services.steps.attempt(action, state, notes, left)
        finally:
            if self._scopes.get(action.position) is scope:
                del self._scopes[action.position]
            if outcome is not None:
                self._inbox.add(outcome)
            elif self._is_cut_off:
                self._interrupted(action)
            else:
                self._inbox.wake()  # nothing came of it, but the driver must see that it is running no more

    def _interrupted(self, action: StepAction) -> None:
        now = self._services.clock.now()
        self._inbox.add(StepInterrupted(action.position, action.attempt, False, now))  # noqa: FBT003

    async def _name_batches(self) -> None:
        """Learn the ids of the run's batch, and of those around it: they never change."""
        state, known = self._state, self._services.batches
        number = state.callback if state.batch is None else state.batch
        if state.batches or number is None:
            return
        if number not in known:
            if len(known) >= BATCHES_KNOWN:
                known.clear()
            known[number] = await self._services.read(state.run_id, partial(lineage, batch=number))
        state.batches = known[number]


async def _relieve(take_turns: Callable[[], Coroutine[Any, Any, None]], done: asyncio.Future[None]) -> None:
    try:
        await take_turns()
    finally:
        if not done.done():
            done.set_result(None)
