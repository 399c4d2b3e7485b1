"""
Open steps and transactions of a workflow: what `step_states` says of them, done to a run.
"""

from __future__ import annotations

from typing import Any, TypeGuard, assert_never

from attrs import evolve

from durable._core.codec.codec import Codec
from durable._core.journal.events import (
    Event,
    ResumeRequested,
    SlotAwaited,
    SlotGranted,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepNotBegun,
    StepRetrying,
    StepSnoozed,
    StepStarted,
    StepStopped,
    StepSucceeded,
    TimerFired,
    TransactionStarted,
)
from durable._core.journal.payloads import rebuilt, step_forms
from durable._core.policies.limits import LimitRef
from durable._core.policies.retry import attempts_of
from durable._core.program.ops import StepOp, TransactionOp
from durable._core.run.decision import SlotAction
from durable._core.run.nodes import CANCELLED, LateOutcome, Leaf, NodeOutcome, NodeOwner, Opener, OpenRun
from durable._core.run.step_states import (
    QUEUED,
    STARTED,
    UNDER_WAY,
    StepEvent,
    StepRules,
    StepState,
    accepts,
    cancel,
    delay,
    recorded_as,
    replay_event,
    slot_awaited,
    start_attempt,
    take,
    told_to_end,
    withdraw,
    withdrawn,
)


class AttemptNode(Leaf[StepEvent]):
    """A step or a transaction."""

    __slots__ = ("first", "op", "state")

    def __init__(
        self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: StepOp[Any] | TransactionOp[Any]
    ) -> None:
        self.ex = ex  # as Leaf does, instead of calling it: a replay makes one of these for every step
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False
        self.wait = None
        ex.leaves[position] = self
        self.op = op
        self.first: StepStarted | TransactionStarted
        self.state = STARTED  # shared, as of every other step: a replay makes no object for it
        definition = op.definition
        kind: type[StepStarted | TransactionStarted] = StepStarted if isinstance(op, StepOp) else TransactionStarted
        first = ex.taken_as(position, kind, definition.name)
        if first is not None:
            self.first = first
            ex.running += 1
            return
        recorded = ex.replays(position)
        carried = () if recorded or not (op.args or op.kwargs) else step_forms(op, ex.codec)
        digest = ex.codec.digest_of(carried[0]) if carried else ""
        self.first = kind(position, definition.name, 1, ex.site(op), digest, ex.time)
        limited = isinstance(recorded, SlotAwaited) if recorded else definition.options.limit is not None
        if limited and kind is StepStarted:
            self._stand_in_line(new=recorded is None)
            return
        self.first, fresh = ex.command(self.first, definition.aliases)
        ex.running += 1
        if fresh:
            start_attempt(self, ex.decision)

    @staticmethod
    def carried(op: StepOp[Any] | TransactionOp[Any], codec: Codec, /) -> tuple[str, ...]:
        return step_forms(op, codec)

    def _stand_in_line(self, *, new: bool) -> None:
        ex = self.ex
        self.state = QUEUED
        # where it is recorded, the limit of then holds: today's must not be asked
        limit, key = self.line() if new else ("", "")
        event, fresh = ex.command(slot_awaited(self, limit, key, ex.time), self.op.definition.aliases)
        self.first = evolve(self.first, site=event.site, digest=event.digest)
        if fresh:
            ex.decision.slots += (SlotAction(self.position, limit, key),)

    # --- what `step_states` asks -----------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return self.ex.run_id

    @property
    def rules(self) -> StepRules:
        options = self.op.definition.options
        attempts = attempts_of(self.op.given.retry or options.retry)
        return StepRules(options.limit is not None, options.on_crash, options.on_poison, self.ex.crash_limit, attempts)

    def line(self) -> tuple[LimitRef, str]:
        definition = self.op.definition
        assert definition.options.limit is not None
        return definition.options.limit, definition.limit_key_for(self.op.args, self.op.kwargs)

    def describe(self) -> str:
        return f"{self.op.describe()} at {self.position}"

    # --- what happens to it ----------------------------------------------------------------------

    def accepts(self, event: Event) -> TypeGuard[StepEvent]:
        return isinstance(event, StepSucceeded) or accepts(event, self.state, replaying=self.ex.replaying)

    def converted(self, event: StepEvent) -> StepEvent:
        return event if isinstance(event, StepSucceeded) else recorded_as(self, event, self.ex.codec)

    def deliver(self, event: StepEvent, /) -> None:
        ex, ended = self.ex, NodeOutcome
        before = self.state
        if before is STARTED and isinstance(event, StepSucceeded):  # as nearly always: as below, with no wait to close
            value = self._value_of(event)
            ex.running -= 1
            del ex.leaves[self.position]
            self.closed = True
            self.owner.member_done(self.index, ended(value))
            return
        if before.phase == "cancelling":
            ended = LateOutcome
        if ex.replaying:
            replay_event(self, event)
        else:
            take(self, event, ex.decision, ex.time)
        self._count(before)
        match event:
            case StepSucceeded():
                self.close(ended(self._value_of(event)))
            case StepFailed():
                error = rebuilt(event.value, ex.codec)
                self.close(ended(error=self.delivered(error)))
            case StepStopped():
                ex.stopped(event, self.first.name)
                self.close(CANCELLED)
            case StepRetrying() | StepSnoozed():
                self.wait = delay(event, self.first.name)
            case (
                StepInterrupted() | StepNotBegun() | SlotGranted() | TimerFired() | ResumeRequested()
                | StepStarted() | SlotAwaited()
            ):  # fmt: skip
                self.wait = None
            case _:
                assert_never(event)

    def _value_of(self, event: StepSucceeded) -> Any:
        definition, codec = self.op.definition, self.ex.codec
        if definition.options.codec is not None:
            codec = definition.codec_of(codec)
        return codec.decode(event.value or "null", definition.result, where=definition.result_place)

    @property
    def stopping(self) -> bool:
        return self.state.phase == "cancelling"

    def tell_to_end(self) -> bool:
        ex, before = self.ex, self.state
        if before.phase != "running":
            return False
        if ex.replaying:
            if self.position not in ex.history.cancels_sent:
                return False
            self.state, _ = told_to_end(before)
        elif not isinstance(self.op, StepOp) or ex.decision.starts(self.position):
            return False  # a transaction runs between turns, so it has not begun either
        else:
            cancel(self, ex.decision, ex.time)
        return True

    def given_up(self, now: float) -> Event:
        return StepStopped(self.position, self.state.attempt, abandoned=True, at=now)

    def withdraw(self) -> None:
        ex, before = self.ex, self.state
        if ex.replaying:  # of a reopened run, which asks for more
            self.state, _ = withdrawn(self.state)
            ex.decision.drop_attempt(self.position)
            ex.decision.withdraw_slot(self.position)
        elif withdraw(self, ex.decision, ex.time) is StepCancelled:
            ex.decision.events.append(StepCancelled(self.position, ex.time))
        self._count(before)

    def _count(self, before: StepState) -> None:
        self.ex.running += (self.state.phase in UNDER_WAY) - (before.phase in UNDER_WAY)


OPENERS: dict[type, Opener] = {StepOp: AttemptNode, TransactionOp: AttemptNode}
