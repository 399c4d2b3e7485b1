"""
One run of a job: a single step with a run of its own.

The same face as `Execution`, so one driver serves both, but no user code is driven here: the
state is an attempt number. Its history is `RunStarted`, `StepStarted`, then the end; the value
stands in the closing event only. Where it has a limit, `SlotAwaited` and `SlotGranted` stand before
each `StepStarted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durable._core.codec.codec import Codec
from durable._core.codec.failures import describe as describe_failure
from durable._core.journal import history
from durable._core.journal.events import (
    CancelRequested,
    Event,
    Payload,
    ResumeRequested,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    SlotAwaited,
    SlotGranted,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
)
from durable._core.journal.payloads import failure_in, failure_payload
from durable._core.journal.waits import Wait
from durable._core.program.functions import Job
from durable._core.program.limits import name_of
from durable._core.program.ops import NO_OPTIONS, Options, StepOp
from durable._core.program.retry import Retry
from durable._core.run.caps import CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.run.decision import Decision, EndStatus, FailedAttempt, SlotAction, StepAction, added
from durable.errors import DefinitionError, StepInterruptedError

#: The position of a job's only step.
POSITION = "0"


class JobExecution:
    """A job's attempts."""

    def __init__(
        self,
        definition: Job[..., Any],
        events: Sequence[Event],
        *,
        run_id: str,
        codec: Codec,
        crash_limit: int = CRASH_LIMIT,
        caps: Caps = DEFAULT_CAPS,
        limited: bool = True,
        retry: Retry | None = None,
    ) -> None:
        """
        *limited* False: the limit of *definition*, if any, is that of the whole run, not of its attempts.

        *retry* takes the place of the policy of *definition*.
        """
        self._options = NO_OPTIONS if retry is None else Options(retry=retry)
        self.definition = definition
        self.run_id = run_id
        self.codec = codec
        self.crash_limit = crash_limit
        self.ended = False
        self._caps = caps
        self._size = len(events)
        self._events, _ = history.effective(events)
        assert isinstance(self._events[0], RunStarted)
        #: Its first event.
        self.started: RunStarted = self._events[0]
        self._limited = limited and definition.options.limit is not None
        self._attempt = 0
        self._failures = 0
        self._crashes = 0
        self._running = False
        self._stuck = False
        #: Set while it waits for the slot of its next attempt, and while that attempt may hold it.
        self._queued = self._slot = False
        self._first_started_at = 0.0
        self._retry: Wait | None = None
        #: The outcome that a fork gave in place of the recorded one.
        self._given: StepSucceeded | None = None
        self._decision = Decision()
        self._op: StepOp[Any] | None = None

    def load(self) -> None:
        """Take in what is recorded."""
        for event in self._events[1:]:
            match event:
                case SlotAwaited():
                    self._queued, self._slot, self._running, self._retry = True, True, False, None
                case StepStarted():
                    self._queued = False
                    self._attempt, self._running, self._retry = event.attempt, True, None
                    self._first_started_at = self._first_started_at or event.at
                case StepRetrying():
                    self._failures += 1
                    self._crashes = 0
                    self._running = self._slot = False
                    self._retry = Wait(POSITION, "retry", POSITION, fire_at=event.fire_at)
                case StepSucceeded():
                    self._running, self._given = False, event
                case StepInterrupted():
                    self._running = False
                    self._crashes += event.crashed
                    self._stuck = event.crashed and self._is_stuck()
                case ResumeRequested():
                    self._crashes, self._stuck = 0, False
                case _:
                    pass

    def advance(self, arrived: Sequence[Event], *, now: float) -> Decision:
        """As `Execution.advance`."""
        unborn = history.ends_unborn(arrived)
        if self._given is not None:
            self._take(self._given, now)
        elif self._attempt == 0 and not self._queued and not unborn:
            self._start(now)
        for event in arrived:
            if self.ended:
                break
            self._take(event, now)
        decision, self._decision = self._decision, Decision()
        self._size = self._caps.grown(self.run_id, self._size, decision, remedy="Give up earlier (retry=)")
        return decision

    @property
    def idle(self) -> bool:
        """Whether no attempt is under way."""
        return not self._running

    def in_flight(self) -> list[tuple[str, int]]:
        """(position, attempt) of the attempt under way."""
        return [(POSITION, self._attempt)] if self._running else []

    def close(self) -> None:
        """Nothing to close."""

    def _take(self, event: Event, now: float) -> None:
        match event:
            case StepSucceeded():
                self._end(RunSucceeded(event.value, now), "succeeded", event.value)
            case StepFailed():
                self._tell(event.attempt, event.value)
                self._fail(event.value, now)
            case StepRetrying() if self._running:
                self._record(event)
                self._tell(event.attempt, event.value, event.fire_at)
                self._failures += 1
                self._crashes = 0
                self._running = False
                self._let_go()
                self._retry = Wait(POSITION, "retry", POSITION, fire_at=event.fire_at)
                self._decision.waits = added(self._decision.waits, self._retry)
            case TimerFired() if self._retry is not None:
                self._record(event)
                self._start(now)
            case SlotGranted() if self._queued:
                self._record(event)
                self._begin(now)
            case StepInterrupted() if self._running and event.attempt == self._attempt:
                self._interrupted(event, now)
            case ResumeRequested() if self._stuck:
                self._record(event)
                self._start(now)
            case CancelRequested():
                self._record(event)
                self._stop()
                self._end(RunCancelled(event.reason, now), "cancelled", None, event.reason)
            case RunTimedOut():
                self._record(event)
                self._stop()
                error = TimeoutError(f"job not done within {event.seconds:g} s")
                self._fail(failure_payload(error, self.codec, with_traceback=False), now)
            case _:
                pass  # of no use to a job (a signal), or too late

    def _interrupted(self, event: StepInterrupted, now: float) -> None:
        self._running = False
        self._crashes += event.crashed
        if event.crashed and self.definition.options.on_crash == "raise":
            error = StepInterruptedError(POSITION, self.definition.name, self._attempt)
            failure = failure_payload(error, self.codec, with_traceback=False)
            self._tell(self._attempt, failure)
            self._fail(failure, now)
            return
        self._record(event)
        if event.crashed and self._is_stuck():
            self._stuck = True
            self._let_go()
            times = f"{self._crashes} times" if self._crashes > 1 else "once: its outcome is unknown"
            self._decision.blocked = f"job {self.definition.name!r} was running when the process died {times}"
        else:
            self._start(now)

    def _is_stuck(self) -> bool:
        return self._crashes >= self.crash_limit or self.definition.options.on_crash == "block"

    def _start(self, now: float) -> None:
        """Begin the next attempt, or let it stand in line."""
        limit = self.definition.options.limit
        if limit is None or not self._limited:
            self._let_go()  # a limit that is gone from the code
            self._begin(now)
            return
        op = self._operation()
        try:
            key = self.definition.limit_key_for(op.args, op.kwargs)
        except DefinitionError as error:
            self._fail(failure_payload(error, self.codec), now)
            return
        self._queued, self._slot, self._stuck, self._retry = True, True, False, None
        event = SlotAwaited(POSITION, self.definition.name, self._attempt + 1, name_of(limit), key, "", "", now)
        self._record(event)
        self._decision.slots += (SlotAction(POSITION, limit, key),)

    def _let_go(self) -> None:
        if self._slot:
            self._slot = False
            self._decision.slots_released += (POSITION,)

    def _begin(self, now: float) -> None:
        self._attempt += 1
        self._queued = False
        self._running, self._stuck, self._retry = True, False, None
        self._first_started_at = self._first_started_at or now
        op = self._operation()
        # No digest: the arguments themselves stand in RunStarted.
        self._record(StepStarted(POSITION, self.definition.name, self._attempt, "", "", now))
        self._decision.steps.append(StepAction(POSITION, self._attempt, self._failures, self._first_started_at, op))

    def _operation(self) -> StepOp[Any]:
        if self._op is None:
            where = f"arguments of run {self.run_id!r}"
            payload: Payload = self.started.value or "[[],{}]"
            args, kwargs = self.codec.decode_arguments(payload, self.definition.arguments, where=where)
            self._op = StepOp(self.definition.as_step, tuple(args), dict(kwargs), self._options)
        return self._op

    def _stop(self) -> None:
        if self._running:
            self._running = False
            if self._decision.steps:  # it was to start in this very turn, and does not
                self._decision.steps.clear()
            else:
                self._decision.cancelled_steps = [POSITION]

    def _fail(self, payload: Payload | None, now: float) -> None:
        reason = describe_failure(failure_in(payload, self.codec))
        self._end(RunFailed([POSITION], payload, now), "failed", payload, reason)

    def _tell(self, attempt: int, failure: Payload | None, retry_at: float | None = None) -> None:
        failed = FailedAttempt(POSITION, self.definition.name, attempt, failure, retry_at)
        self._decision.failed_attempts += (failed,)

    def _end(self, event: Event, status: EndStatus, outcome: Payload | None, reason: str = "") -> None:
        self.ended, self._running, self._queued = True, False, False
        self._decision.slots = ()
        self._let_go()
        self._record(event)
        self._decision.ended = status
        self._decision.outcome = outcome
        self._decision.reason = reason

    def _record(self, event: Event) -> None:
        self._decision.events.append(event)
