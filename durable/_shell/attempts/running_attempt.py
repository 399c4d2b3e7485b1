"""
How one running attempt of a step is told to end: once, as `asyncio.timeout` does, so that its clean-up may await.

An anyio scope that is cancelled raises at each `await` anew, and a ``finally: await conn.rollback()`` would
never get to its end. Here the task is cancelled once, while it awaits the user's function and at no other time:
what of ours stands around that function is not struck.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator
from typing import Any, Protocol, TypeAlias

from durable._core.codec.exceptions.parts import context_of
from durable._core.journal.events import Event
from durable._core.run.decision import StepAction
from durable._shell.attempts.context import Cancelled, Scope, StepContext, tell
from durable._shell.attempts.functions import Function
from durable._shell.attempts.raised import is_cancellation
from durable._shell.rows.rows import RunState

#: Errors within errors that are looked at.
_DEEPEST = 100
_making = threading.Lock()


class Keeper(Protocol):
    """Who has attempts run."""

    def overdue(self, attempt: RunningAttempt) -> None:
        """The time of *attempt* is over, whose function is one that can be cancelled."""
        ...

    def ended(self, attempt: RunningAttempt, outcome: Event | None) -> None:
        """*attempt* is over, by *outcome*; None if it was cut off."""
        ...


class RunningAttempt(Scope):
    """One attempt, and what was asked of it; and, once it has begun, what its function may ask."""

    # One is made for every attempt: with slots it is read without a look at the class. And it is one object rather than
    # several, since each that an active run holds is one more that the garbage collector visits.
    __slots__ = (
        "_cancelled",
        "attempt",
        "crashes",
        "deadline",
        "failures",
        "first_started_at",
        "function",
        "in_call",
        "inside",
        "is_cancelled",
        "is_cut_off",
        "keeper",
        "limit",
        "op",
        "position",
        "state",
        "struck",
        "task",
        "timer",
        "turn",
    )

    state: RunState
    #: When it times out, epoch seconds UTC; None if never.
    deadline: float | None

    def __init__(self, action: StepAction, keeper: Keeper | None = None) -> None:
        # What it is given to work with is set when it begins, by `Steps.attempt`.
        # As of the action, which goes with its decision.
        self.position = action.position
        self.attempt = action.attempt
        self.failures = action.failures
        self.first_started_at = action.first_started_at
        self.op = action.op
        self.crashes = action.crashes
        self.keeper = keeper
        self._cancelled: Cancelled | None = None
        #: The task that awaits the function: one of its own, or that of its driver. None once it is over.
        self.task: asyncio.Task[Any] | None = None
        #: Its timeout, while it has one.
        self.limit: asyncio.Timeout | None = None
        #: Set once its run waits for its end. A value that it has all the same counts.
        self.is_cancelled = False
        #: Set once the engine closes, and its grace is over.
        self.is_cut_off = False
        #: Whether its task awaits the function.
        self.inside = False
        #: Its function in a thread: that cannot be cancelled, so it is waited for.
        self.function: Function | None = None
        #: Set while its value is awaited.
        self.in_call = False
        #: Whether the function was cancelled.
        self.struck = False
        #: What gives it up when its time for clean-up is over.
        self.timer: asyncio.TimerHandle | None = None
        #: While it waits for its turn among those that may kill the process.
        self.turn: asyncio.Future[None] | None = None
        self.deadline = None
        # As `Scope` does, instead of calling it.
        self.cursor = self.emitted = self._counts = self._context = None
        self.adding = ()
        self.is_over = False

    @property
    def cancelled(self) -> Cancelled:
        """What its function may ask: made when somebody does, or has something to tell it."""
        return self._cancelled or self._make_cancelled()

    def _make_cancelled(self) -> Cancelled:
        with _making:  # its function may be in a thread, and in several
            if self._cancelled is None:
                self._cancelled = Cancelled()
            return self._cancelled

    def _describe(self) -> StepContext:
        state = self.state
        return StepContext(
            state.run_id,
            state.workflow,
            self.position,
            self.attempt,
            f"{state.run_id}:{self.position}",
            self.deadline,
            state.labels,
            state.batches[0] if state.batches else None,
            self.cancelled,
            self.around.is_draining,
        )

    @property
    def was_told(self) -> bool:
        """Whether it is to end, before it began or while it runs."""
        return self.is_cancelled or self.is_cut_off

    @property
    def in_thread(self) -> bool:
        """Whether its function runs in a thread, or what that returned is still on its way to the loop."""
        return self.in_call or self.has_outlived

    @property
    def has_outlived(self) -> bool:
        """Whether a function runs in a thread; which it does, once the attempt is over, without anybody's waiting."""
        return self.function is not None and not self.function.returned

    @contextlib.contextmanager
    def not_begun(self) -> Generator[None]:
        """What is awaited in the block comes before its function: struck there, it has not begun."""
        try:
            yield
        except asyncio.CancelledError:
            if self.struck:
                self.task = None
            raise

    def await_thread(self, task: asyncio.Task[Any]) -> None:
        """*task* waits for its thread from here on, until it is cut off."""
        self.task, self.inside, self.struck = task, True, False

    def cancel(self) -> None:
        """Have it end, its clean-up included."""
        self.is_cancelled = True
        tell(self.cancelled)
        if not self.in_thread:
            self._strike()

    def cut_off(self) -> None:
        """Have it end, and do not wait for a thread."""
        self.is_cut_off = True
        tell(self.cancelled)
        self._strike()

    def end(self) -> None:
        """It is over: what still runs of it leaves no effect."""
        self.is_over = True

    def _strike(self) -> None:
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)
        if self.inside and not self.struck:
            assert self.task is not None
            self.struck = True
            self.task.cancel()


def is_of_cleanup(error: BaseException) -> bool:
    """Whether *error* was raised while a cancellation was being handled."""
    within: BaseException | None = error
    for _ in range(_DEEPEST):  # contexts can be made a circle
        if within is None:
            break
        if is_cancellation(within):
            return True
        within = context_of(within)
    return False


#: An attempt, whether it has begun or is about to.
AnyAttempt: TypeAlias = StepAction | RunningAttempt
