"""
Open steps and transactions: their attempts, and what an interrupted one means.

A step is *running* (an attempt is under way), *retrying* (it waits, as a timer, for the next
attempt) or *stuck* (it was running too often when the process died, or its `on_crash` says
"block"; a person decides). In replay the journal's facts set the state; nothing is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve

from durable._core.decision import FailedAttempt, StepAction, TransactionAction
from durable._core.events import (
    Event,
    ResumeRequested,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TransactionStarted,
)
from durable._core.nodes import Leaf, Outcome, Owner
from durable._core.ops import StepOp, TransactionOp
from durable._core.outcomes import arguments_digest, failure_payload, rebuilt
from durable.errors import StepInterruptedError

if TYPE_CHECKING:
    from durable._core.execution import Execution


class AttemptNode(Leaf):
    """A step or a transaction."""

    __slots__ = ("attempt", "crashes", "event", "failures", "first_started_at", "op", "phase")

    def __init__(
        self, ex: Execution, position: str, owner: Owner, index: int, op: StepOp[Any] | TransactionOp[Any]
    ) -> None:
        super().__init__(ex, position, owner, index)
        self.op = op
        self.attempt = 1
        self.failures = 0
        #: Times the process died during it since it last made progress.
        self.crashes = 0
        self.phase: Literal["running", "retrying", "stuck"] = "running"
        kind = StepStarted if isinstance(op, StepOp) else TransactionStarted
        digest = "" if ex.replays(position) else arguments_digest(op.args, op.kwargs, ex.codec)
        self.event, fresh = ex.command(kind(position, op.definition.name, 1, ex.site(op), digest, ex.time))
        self.first_started_at = self.event.at
        ex.running += 1
        if fresh:
            self._act()

    @property
    def _actions(self) -> list[Any]:
        decision = self.ex.decision
        return decision.transactions if isinstance(self.op, TransactionOp) else decision.steps

    def _act(self) -> None:
        action: type[Any] = TransactionAction if isinstance(self.op, TransactionOp) else StepAction
        self._actions.append(action(self.position, self.attempt, self.failures, self.first_started_at, self.op))

    def _enter(self, phase: Literal["running", "retrying", "stuck"]) -> None:
        self.ex.running += (phase == "running") - (self.phase == "running")
        self.phase = phase

    def begin_attempt(self) -> None:
        """Start the next attempt: recorded, then acted upon."""
        self._enter("running")
        if self.ex.replaying and isinstance(self.op, StepOp):
            return  # the StepStarted of this attempt comes next
        self.attempt += 1
        if self.ex.replaying:
            return
        if isinstance(self.op, StepOp):
            event = evolve(self.event, attempt=self.attempt, at=self.ex.time)
            self.ex.decision.events.append(event)
        self._act()

    def accepts(self, event: Event) -> bool:
        match event:
            case StepSucceeded() | StepFailed() | StepRetrying():
                return self.phase == "running" or isinstance(event, StepSucceeded)
            case StepInterrupted():
                return self.phase == "running" and event.attempt == self.attempt
            case StepStarted():
                return self.ex.replaying
            case TimerFired():
                return self.phase == "retrying"
            case ResumeRequested():
                return self.phase == "stuck"
            case _:
                return False

    def converted(self, event: Event) -> Event:
        """What is recorded for *event*: an interruption that must not be repeated is a failure."""
        if isinstance(event, StepInterrupted) and event.crashed and self.op.definition.options.on_crash == "raise":
            error = StepInterruptedError(self.position, self.op.definition.name, self.attempt)
            payload = failure_payload(error, self.ex.codec, with_traceback=False)
            return StepFailed(self.position, self.attempt, payload, event.at)
        return event

    def deliver(self, event: Event) -> None:
        match event:
            case StepSucceeded():
                definition = self.op.definition
                value = self.ex.codec.decode(event.value or "null", definition.result, where=definition.result_place)
                self.close(Outcome(value))
            case StepFailed():
                self._tell(event, None)
                error = rebuilt(event.value, self.ex.codec)
                self.close(Outcome(error=self.delivered(error)))
            case StepRetrying():
                self._tell(event, event.fire_at)
                self._enter("retrying")
                self.failures += 1
                self.crashes = 0
                self.wait_for("retry", fire_at=event.fire_at, fresh=not self.ex.replaying)
            case StepInterrupted():
                self._interrupted(event)
            case StepStarted():
                self._enter("running")
                self.attempt = event.attempt
            case TimerFired():
                self.wait = None
                self.begin_attempt()
            case ResumeRequested():
                self.crashes = 0
                self.begin_attempt()
            case _:
                pass

    def _tell(self, event: StepFailed | StepRetrying, retry_at: float | None) -> None:
        if not self.ex.replaying:
            name = self.op.definition.name
            failed = FailedAttempt(self.position, name, event.attempt, event.value, retry_at)
            self.ex.decision.failed_attempts += (failed,)

    def _interrupted(self, event: StepInterrupted) -> None:
        self.crashes += event.crashed
        name = self.op.describe()
        if event.crashed and self.crashes >= self.ex.crash_limit:
            times = f"{self.crashes} times" if self.crashes > 1 else "once"
            self._enter("stuck")
            self.ex.block(f"{name} at {self.position} was running when the process died {times}")
        elif event.crashed and self.op.definition.options.on_crash == "block":
            self._enter("stuck")
            self.ex.block(f"{name} at {self.position} was running when the process died: its outcome is unknown")
        else:
            self.begin_attempt()

    def close(self, outcome: Outcome, *, arrived: bool = True) -> None:
        if not self.closed:
            self._enter("retrying")  # no longer counted as running
        super().close(outcome, arrived=arrived)

    def withdraw(self) -> None:
        decision = self.ex.decision
        begun = len(self._actions)
        self._actions[:] = [action for action in self._actions if action.position != self.position]
        if self.phase == "running" and not self.ex.replaying:
            decision.events.append(StepCancelled(self.position, self.ex.time))
            if begun == len(self._actions):  # else it was to start in this very turn, and does not
                decision.cancelled_steps.append(self.position)
