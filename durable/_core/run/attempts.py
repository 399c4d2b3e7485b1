"""
Open steps and transactions: their attempts, and what an interrupted one means.

A step is *queued* (it waits for a slot of its limit), *running* (an attempt is under way),
*retrying* (it waits, as a timer, for the next attempt) or *stuck* (it was running too often when
the process died, or its `on_crash` says "block"; a person decides). In replay the journal's
facts set the state; nothing is decided: whether a recorded attempt had a limit is one of these
facts, so limits come and go with the code.

Each attempt asks for a slot, also the one after an interruption: the row of the interrupted one
stands first in line then, so it keeps its slot, but a rate counts it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeGuard

from attrs import evolve

from durable._core.journal.events import (
    Event,
    ResumeRequested,
    SlotAwaited,
    SlotGranted,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TransactionStarted,
)
from durable._core.journal.payloads import arguments_digest, failure_payload, rebuilt
from durable._core.program.limits import LimitRef, name_of
from durable._core.program.ops import StepOp, TransactionOp
from durable._core.run.decision import FailedAttempt, SlotAction, StepAction, TransactionAction, added
from durable._core.run.nodes import Leaf, OpenRun, Outcome, Owner
from durable.errors import StepInterruptedError

#: Where a step stands.
Phase: TypeAlias = Literal["queued", "running", "retrying", "stuck"]


class AttemptNode(Leaf[Any]):
    """A step or a transaction."""

    __slots__ = ("attempt", "crashes", "event", "failures", "first_started_at", "op", "phase", "slot")

    def __init__(
        self, ex: OpenRun, position: str, owner: Owner, index: int, op: StepOp[Any] | TransactionOp[Any]
    ) -> None:
        self.ex = ex  # as Leaf does: a replay makes one of these for every step
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False
        self.wait = None
        ex.leaves[position] = self
        self.op = op
        self.attempt = 1
        self.failures = 0
        #: Times the process died during it since it last made progress.
        self.crashes = 0
        self.phase: Phase = "queued"
        #: Set while a slot, or a place in line, is its own.
        self.slot = False
        recorded = ex.replays(position)
        kind = StepStarted if isinstance(op, StepOp) else TransactionStarted
        if type(recorded) is kind and recorded.name == op.definition.name and ex.matches(position, recorded):
            self._run(recorded)
            return
        digest = "" if recorded else arguments_digest(op.args, op.kwargs, ex.codec)
        self.event = kind(position, op.definition.name, 1, ex.site(op), digest, ex.time)
        limit = op.definition.options.limit
        if isinstance(op, StepOp) and (isinstance(recorded, SlotAwaited) or (recorded is None and limit is not None)):
            key = "" if recorded else op.definition.limit_key_for(op.args, op.kwargs)
            awaited, fresh = ex.command(self._awaited(limit or "", key), op.definition.aliases)
            self.event = evolve(self.event, site=awaited.site, digest=awaited.digest)
            self.first_started_at = awaited.at
            self._queue(limit if fresh else None, key)
            return
        self.event, fresh = ex.command(self.event, op.definition.aliases)
        self._run(self.event)
        if fresh:
            self._act()

    def _run(self, event: StepStarted | TransactionStarted) -> None:
        """The first attempt, which *event* records, is under way."""
        self.event = event
        self.first_started_at = event.at
        self.phase = "running"
        self.ex.running += 1

    def _awaited(self, limit: LimitRef, key: str) -> SlotAwaited:
        event = self.event
        name = name_of(limit)
        return SlotAwaited(self.position, event.name, self.attempt, name, key, event.site, event.digest, self.ex.time)

    def _queue(self, limit: LimitRef | None, key: str) -> None:
        """Stand in line, and ask for a slot of *limit* where that was not done before."""
        self._enter("queued")
        self.slot = True
        if limit is not None:
            self.ex.decision.slots += (SlotAction(self.position, limit, key),)

    def _let_go(self) -> None:
        """Give up the slot, or the place in line."""
        if not self.slot:
            return
        self.slot = False
        decision = self.ex.decision
        decision.slots = tuple(action for action in decision.slots if action.position != self.position)
        if not self.ex.replaying:
            decision.slots_released += (self.position,)

    def _act(self) -> None:
        decision, op = self.ex.decision, self.op
        if isinstance(op, StepOp):
            action = StepAction(self.position, self.attempt, self.failures, self.first_started_at, op)
            decision.steps.append(action)
        else:
            started = TransactionAction(self.position, self.attempt, self.failures, self.first_started_at, op)
            decision.transactions = added(decision.transactions, started)

    def _enter(self, phase: Phase) -> None:
        self.ex.running += (phase == "running") - (self.phase == "running")
        self.phase = phase

    def begin_attempt(self) -> None:
        """Start the next attempt, or let it stand in line: recorded, then acted upon."""
        self._enter("running")
        if self.ex.replaying and isinstance(self.op, StepOp):
            return  # the StepStarted or SlotAwaited of this attempt comes next
        self.attempt += 1
        if self.ex.replaying:
            return
        definition = self.op.definition
        if definition.options.limit is not None:
            key = definition.limit_key_for(self.op.args, self.op.kwargs)
            self.ex.decision.events.append(self._awaited(definition.options.limit, key))
            self._queue(definition.options.limit, key)
            return
        self._let_go()  # its limit is gone from the code
        self._start()

    def _start(self) -> None:
        if isinstance(self.op, StepOp):
            event = evolve(self.event, attempt=self.attempt, at=self.ex.time)
            self.ex.decision.events.append(event)
        self._act()

    def _granted(self) -> None:
        self._enter("running")
        if self.ex.replaying:
            return  # the StepStarted of this attempt comes next
        if self.attempt == 1:
            self.first_started_at = self.ex.time
        self._start()

    def accepts(self, event: Event) -> TypeGuard[Any]:
        match event:
            case StepSucceeded():
                return True
            case StepFailed() | StepRetrying():
                return self.phase == "running"
            case StepInterrupted():
                return self.phase == "running" and event.attempt == self.attempt
            case StepStarted() | SlotAwaited():
                return self.ex.replaying
            case SlotGranted():
                return self.phase == "queued"
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
                self._let_go()
                self.failures += 1
                self.crashes = 0
                self.wait_for("retry", fire_at=event.fire_at, fresh=not self.ex.replaying)
            case StepInterrupted():
                self._interrupted(event)
            case StepStarted():
                self._enter("running")
                self.attempt = event.attempt
                if event.attempt == 1:
                    self.first_started_at = event.at
            case SlotAwaited():
                self.attempt = event.attempt
                self._queue(None, event.key)
            case SlotGranted():
                self._granted()
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
            self._stick()
            self.ex.block(f"{name} at {self.position} was running when the process died {times}")
        elif event.crashed and self.op.definition.options.on_crash == "block":
            self._stick()
            self.ex.block(f"{name} at {self.position} was running when the process died: its outcome is unknown")
        else:
            self.begin_attempt()

    def _stick(self) -> None:
        self._enter("stuck")
        self._let_go()

    def close(self, outcome: Outcome, *, arrived: bool = True) -> None:
        if not self.closed:
            self._enter("retrying")  # no longer counted as running
            if self.slot:  # asked here, too: a call less for every command of a replay
                self._let_go()
        super().close(outcome, arrived=arrived)

    def withdraw(self) -> None:
        decision = self.ex.decision
        begun = len(decision.steps) + len(decision.transactions)
        decision.steps = [action for action in decision.steps if action.position != self.position]
        decision.transactions = [action for action in decision.transactions if action.position != self.position]
        if self.phase in ("running", "queued") and not self.ex.replaying:
            decision.events.append(StepCancelled(self.position, self.ex.time))
            # Else it was to start in this very turn, and does not; or it stands in line.
            if begun == len(decision.steps) + len(decision.transactions) and self.phase == "running":
                decision.cancelled_steps = added(decision.cancelled_steps, self.position)
