"""
One run of a job: a single step with a run of its own.

The same face as `Execution`, so one driver serves both, but no user code is driven here: the
state is that of its one step, see `step_states`. Its history is `RunStarted`, `StepStarted`, then the end; the value
stands in the closing event only. Where it has a limit, `SlotAwaited` and `SlotGranted` stand before
each `StepStarted`.

One that is cancelled while its attempt is running ends once that has: `CancelRequested` (or `RunTimedOut`),
`CancelSent`, then the end. If a cancelled attempt returns a value all the same, the job has succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe as describe_failure
from durable._core.journal import history
from durable._core.journal.events import (
    CancelRequested,
    CancelSent,
    CleanupTimedOut,
    EndRequest,
    Event,
    OutcomeResolved,
    Positioned,
    ResumeRequested,
    RunExpired,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
    SignalReceived,
    SlotAwaited,
    SlotGranted,
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
from durable._core.journal.payloads import failure_in, failure_payload, rebuilt
from durable._core.policies.caps import CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.policies.limits import LimitRef
from durable._core.policies.retry import Retry, attempts_of
from durable._core.program.functions import Job
from durable._core.program.ops import NO_OPTIONS, Options, StepOp
from durable._core.run import ending
from durable._core.run.decision import UNDECIDED, Decision, TroubledStep, grown
from durable._core.run.step_states import (
    ASKED,
    QUEUED,
    UNDER_WAY,
    StepEvent,
    StepRules,
    accepts,
    begin_attempt,
    cancel,
    recorded_as,
    refused,
    replay_event,
    resolved,
    take,
    told_to_end,
    withdraw,
)
from durable._core.statuses import EndStatus
from durable.errors import CapExceededError, DecodeError, DefinitionError

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
        timeout: float | None = None,
    ) -> None:
        """
        *limited* False: the limit of *definition*, if any, is that of the whole run, not of its attempts.

        *retry* takes the place of the policy of *definition*, and *timeout* that of the time of each attempt.
        """
        self.definition = definition
        self.run_id = run_id
        self.codec = codec
        self.ended = False
        self._options = NO_OPTIONS if retry is None and timeout is None else Options(retry=retry, timeout=timeout)
        self._caps = caps
        self._size = len(events)
        self._events, _ = history.effective(events)
        #: Its first event.
        self.started = history.start_of(events)
        limited = limited and definition.options.limit is not None
        options, attempts = definition.options, attempts_of(retry or definition.options.retry)
        self.rules = StepRules(limited, options.on_crash, options.on_poison, crash_limit, attempts)
        self.position = POSITION
        self.state = ASKED
        #: No digest: the arguments themselves stand in RunStarted.
        self.first: StepStarted | TransactionStarted = StepStarted(POSITION, definition.name, 1, "", "")
        #: The outcome that a fork gave in place of the recorded one.
        self._given: StepSucceeded | None = None
        #: What asked for the end that it is told of, and waits for.
        self._asked_to_end: EndRequest | None = None
        self._decision = UNDECIDED
        self._op: StepOp[Any] | None = None
        self._signals: list[SignalReceived] = []
        self._late: list[SignalReceived] = []

    # --- what the shell calls ----------------------------------------------------------------

    def load(self) -> None:
        """Take in what is recorded."""
        for event in self._events[1:]:
            if isinstance(event, SignalReceived):
                self._signals.append(event)
            elif isinstance(event, StepSucceeded):
                self._given = event
            elif isinstance(event, EndRequest):
                self._asked_to_end = event
            elif isinstance(event, CancelSent):
                self.state, _ = told_to_end(self.state)
            elif accepts(event, self.state, replaying=True):
                replay_event(self, event)

    def advance(self, arrived: Sequence[Event], *, now: float) -> Decision:
        """As `Execution.advance`."""
        decision = self._decision = Decision()
        if self._given is not None:
            self._take(self._given, now)
        elif self.state is ASKED and not history.ends_unborn(arrived):
            self._begin(now)
        for event in arrived:
            if not self.ended:
                self._take(event, now)
            elif isinstance(event, SignalReceived):
                self._late.append(event)
        self._decision = UNDECIDED
        self._size = grown(self._caps, self.run_id, self._size, decision, remedy="Give up earlier (retry=)")
        return decision

    #: Its turns are too short to pause.
    begin_turn = advance

    @property
    def idle(self) -> bool:
        """Whether no attempt is running."""
        return self.state.phase not in UNDER_WAY

    @property
    def alone(self) -> bool:
        """Whether no more than one command is open: there is but the job's only step."""
        return True

    def in_flight(self) -> list[tuple[str, int]]:
        """(position, attempt) of the attempt that is running."""
        return [] if self.idle else [(POSITION, self.state.attempt)]

    def crashes_of(self, _position: str) -> int:
        """Deaths of the process that count for its step."""
        return self.state.crashes

    #: No job asks for signals.
    hears = hears_all = False
    heard = 0

    def unread(self) -> list[SignalReceived]:
        """All signals that it was sent."""
        return self._signals

    def unanswered_requests(self) -> list[SignalReceived]:
        """It answers none."""
        return []

    def late(self) -> list[SignalReceived]:
        """Those that came in the turn that ended it, but behind its end."""
        return self._late

    def close(self) -> None:
        """Nothing to close."""

    # --- what `step_states` asks ---------------------------------------------------------------

    @property
    def op(self) -> StepOp[Any]:
        """The call of its function."""
        if self._op is None:
            where = f"arguments of run {self.run_id!r}"
            payload: Payload = self.started.value or "[[],{}]"
            args, kwargs = self.codec.decode_arguments(payload, self.definition.arguments, where=where)
            self._op = StepOp(self.definition.as_step, tuple(args), dict(kwargs), self._options)
        return self._op

    def line(self) -> tuple[LimitRef, str]:
        """The limit of its attempts, and the key of this run."""
        limit = self.definition.options.limit
        assert limit is not None
        return limit, self.definition.limit_key_for(self.op.args, self.op.kwargs)

    def describe(self) -> str:
        """What errors call it."""
        return f"job {self.definition.name!r}"

    # --- what happens to it ----------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        try:
            begin_attempt(self, self._decision, now)
        except (CapExceededError, DefinitionError) as error:
            # its limit has no key for these arguments: it cannot begin, so it fails
            self._fail(failure_payload(error, self.codec), now)

    def _take(self, event: Event, now: float) -> None:
        if accepts(event, self.state):
            self._move(event, now)
            return
        if isinstance(event, OutcomeResolved):
            self._resolve(event, now)
        if event.category != "arrival":
            return
        match event:
            case CancelRequested() | RunTimedOut() | RunExpired():
                if self._asked_to_end is None and not (isinstance(event, RunExpired) and self._begun):
                    self._record(event)
                    self._ask_to_end(event, now)
            case ResumeRequested():  # as in a workflow, that a person asked for it is recorded
                self._record(event)
            case SignalReceived():
                self._record(event)
                self._signals.append(event)
            case CleanupTimedOut():
                pass  # of no use to a job
            case Positioned():
                pass  # too late, so it is dropped instead of recorded
            case _:
                assert_never(event)

    def _resolve(self, event: OutcomeResolved, now: float) -> None:
        """A person said how it ended."""
        try:
            outcome = resolved(self, event, self.codec)
        except DecodeError as error:
            self._decision.blocked = self.codec.conceal(refused(self, event, error), "DecodeError")
            return
        if outcome is not None:
            self._record(event)
            self._move(outcome, now)

    @property
    def _begun(self) -> bool:
        """Whether its function was called, as far as is known: it has not as long as its first attempt is in line."""
        return not (self.state is ASKED or self.state == QUEUED)

    def _ask_to_end(self, asked: EndRequest, now: float) -> None:
        self._asked_to_end = asked
        if self.state.phase == "running" and not self._decision.starts(POSITION):
            cancel(self, self._decision, now)
            return
        withdraw(self, self._decision, now)
        self._decision.waits = ()  # the timer of an attempt that was to come, asked for in this very turn
        self._end_as_asked(asked, None, now)

    def _end_as_asked(self, asked: EndRequest, trouble: BaseException | None, now: float) -> None:
        match asked:
            case CancelRequested():
                end = ending.cancelled(asked.reason, trouble, self.codec, now)
            case RunTimedOut():
                end = ending.timed_out(asked, trouble, self.codec, now, job_at=POSITION)
            case RunExpired():
                end = ending.expired(asked, self.run_id, self.codec, now)
            case _:
                assert_never(asked)
        self._end(end.event, end.status, end.outcome, end.reason)

    def _move(self, event: StepEvent, now: float) -> None:
        event = recorded_as(self, event, self.codec)
        if isinstance(self._asked_to_end, RunTimedOut) or (
            self._asked_to_end is not None and not isinstance(event, StepSucceeded)
        ):
            self._stop(event, self._asked_to_end, now)
            return
        match event:
            case StepSucceeded():  # not recorded by itself, since the closing event holds the outcome
                take(self, event, self._decision, now)
                self._end(RunSucceeded(event.value, now), "succeeded", event.value)
            case StepFailed():
                take(self, event, self._decision, now)
                self._fail(event.value, now)
            case (
                StepRetrying() | StepSnoozed() | StepInterrupted() | StepNotBegun() | SlotGranted() | TimerFired()
                | ResumeRequested() | StepStarted() | SlotAwaited()
            ):  # fmt: skip
                self._record(event)
                take(self, event, self._decision, now)
            case StepStopped():
                pass  # of an attempt that was told to end, see above
            case _:
                assert_never(event)

    def _stop(self, event: StepEvent, asked: EndRequest, now: float) -> None:
        """The attempt that was told to end has, without a value."""
        take(self, event, self._decision, now)
        trouble: BaseException | None = None
        if isinstance(event, StepStopped) and (event.abandoned or event.value is not None):
            trouble = ending.trouble(event, self.definition.name, self.codec)
            troubled = TroubledStep(POSITION, self.definition.name, event.attempt, event.abandoned, event.value)
            self._decision.troubled = (troubled,)
        elif isinstance(event, StepFailed):
            trouble = rebuilt(event.value, self.codec)
        self._end_as_asked(asked, trouble, now)

    def _fail(self, payload: Payload | None, now: float) -> None:
        reason = self.codec.conceal_message(describe_failure(failure_in(payload, self.codec)))
        self._end(RunFailed([POSITION], payload, now), "failed", payload, reason)

    def _end(self, event: Event, status: EndStatus, outcome: Payload | None, reason: str = "") -> None:
        self.ended = True
        self._record(event)
        self._decision.ended = status
        self._decision.outcome = outcome
        self._decision.reason = reason

    def _record(self, event: Event) -> None:
        self._decision.events.append(event)
