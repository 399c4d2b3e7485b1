"""
The states of a step: one table for steps and transactions of workflows, and for the single step of a job.

Two rules. All that changes where a step stands is in this module: `AttemptNode` (a step of a workflow) and
`JobExecution` (a job) pass on what happened, and perform nothing but what this module says. And this module does not
know which of the two it serves: it sees an `OpenStep`, which both are.

A step stands in one of these states. It changes by what arrives, and by nothing else:

* *queued*: it has a limit, and its next attempt waits in line for a slot;
* *running*: an attempt has begun. The user's function is at work, or its process died; the journal cannot tell,
  so the next owner of the run says what became of it (`StepInterrupted`);
* *cancelling*: its attempt was told to end, and has not: it may have clean-up to do, or be a thread, which cannot be
  cut off. With what it ended, its command ends: without an outcome, or with one that it had all the same;
* *retrying*: an attempt failed, or asked for more time, and a timer, which is a row, stands for the delay before the
  next;
* *stuck*: whether it may run again is for a person to decide. The run is blocked;
* *ended*: it has an outcome, or nobody waits for one any more.

Two more are choices, left in the moment in which they are entered:

* *due*: the next attempt is to begin. Where the code has a limit it stands in line, else it runs. Every step begins
  here, and every later attempt does, so limits come and go with the code;
* *interrupted*: an attempt was cut off, and whether it had its effect is unknown: `on_crash` may forbid the
  repetition ("raise") or leave it to a person ("block"). A shutdown is no fault of the step. The death of the process
  may be: a step that was running at too many of them is called poison, and fails. A death that says nothing of a step
  is no crash of it, see `suspicion`. (An attempt that was recorded, and whose function was not called, is no such
  case: it is `StepNotBegun`, and begins again.)

What `STEP_TRANSITIONS` has no entry for cannot happen to a step in that state, and is dropped unrecorded: the outcome
of an attempt that is over, a second interruption of one attempt, a grant for a step that left the line. So of
two arrivals the one that a turn takes in first wins, and the order in which they are recorded tells which. One entry
stands in every state: `StepSucceeded`, for a fork may give an outcome to a step that waits in line, or is stuck. A
person may also say how a step that is stuck has ended.
(A resume is meant for the run: that a person asked for it is recorded, whether or not a step was stuck.)

In a replay nothing is decided. An interruption leaves the step stuck and a fired timer leaves it running, until the
next fact (`SlotAwaited`, `StepStarted`) tells what was chosen: it was recorded in the same transaction, so if there
is none, none was chosen. Choices therefore stand although code, limits and options have changed since. Transactions
alone record no later attempts (their rows commit with their outcome): for them a replay chooses again.

Crashes are counted in a row: a failed attempt shows that the step can end, and sets the count back, as does the
person who lets a stuck step run again. For the retry policy, those that failed are counted, and those that were cut
off by the death of the process, since they have begun, too: when its attempts are used up, there is none after a
crash. A shutdown costs none, nor does an attempt that asked for more time (`StepSnoozed`). The policy is asked where
the attempt ran, so the arrival says already whether there is another (`StepRetrying`) or not (`StepFailed`).

Each attempt asks for a slot, also the one after an interruption: the row of the interrupted one stands first in line
then, so it keeps its slot, but a rate counts it. A slot is given up for a delay, by a step that is stuck or has
ended, and when the code has no limit any more.

What differs between a step and a job (all else is the same, and a test compares them), with the reasons:

* A job records neither `StepSucceeded`, `StepFailed` nor `StepCancelled`. Its run ends with its step, in the same
  turn, and the closing event has the outcome: a copy would double the size of the journal.
* Its `StepStarted` names no line of code and no digest of arguments. They stand in `RunStarted`, and there is no code
  that could ask for something else.
* What is raised in a workflow where it asks for a step is the failure of a job: its limit has no key for these
  arguments. (At a later attempt the code was changed for the worse, and either run is blocked.)
* A job ends with the attempt that was told to end: it has no code that could clean up, nor be told of a value that
  the attempt had all the same. With one, a cancelled job has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeGuard, assert_never

from durable._core.codec.codec import Codec
from durable._core.journal.events import (
    CancelSent,
    Event,
    LaterAttempt,
    OutcomeResolved,
    ResumeRequested,
    SlotAwaited,
    SlotGranted,
    StepArrival,
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
from durable._core.journal.payloads import failure_payload
from durable._core.journal.waits import Wait
from durable._core.light_frozen import light_frozen
from durable._core.light_tuples import NamedTuple
from durable._core.policies.limits import LimitRef, limit_name
from durable._core.policies.retry import next_attempt
from durable._core.program.definition import OnCrash, OnPoison
from durable._core.program.ops import StepOp, TransactionOp
from durable._core.run.decision import Decision, FailedAttempt, SlotAction, StepAction, TransactionAction, added
from durable.errors import DecodeError, PoisonError, StepInterruptedError

# --- the table -----------------------------------------------------------------------------------

#: Where a step stands.
Phase: TypeAlias = Literal["due", "queued", "running", "cancelling", "retrying", "stuck", "interrupted", "ended"]
#: Those in which its attempt has not ended.
UNDER_WAY: Final = frozenset[Phase](("running", "cancelling"))


#: What can happen to a step: what arrives, and in a replay the facts, too.
StepEvent: TypeAlias = StepArrival | TimerFired | ResumeRequested | LaterAttempt


class Choice(StrEnum):
    """What takes a step further where no arrival does."""

    LIMITED = "it has a limit"
    UNLIMITED = "it has no limit"
    SHUTDOWN = "by a shutdown"
    CRASH = "by a crash"
    USED_UP = "by a crash, and its attempts are used up"
    POISON = "by one crash too many"
    POISON_BLOCKS = "by one crash too many, on_poison is block"
    UNKNOWN = "on_crash is block"
    FORBIDDEN = "on_crash is raise"
    CANCELLED = "it is told to end"
    WITHDRAWN = "nobody waits for it"


class StepEffect(StrEnum):
    """What is recorded besides the arrival, and done once that is on disk."""

    QUEUE = "record `SlotAwaited`, ask for a slot"
    START = "record `StepStarted`, run the attempt"
    RELEASE = "give up the slot"
    DELAY = "set a timer"
    REPORT = "report the failed attempt"
    BLOCK_POISON = "block the run: it is poison"
    BLOCK_UNKNOWN = "block the run: the outcome is unknown"
    CANCEL = "cancel the attempt"


@light_frozen(eq=False)
class Transition:
    """One entry of the table."""

    to: Phase
    effects: tuple[StepEffect, ...] = ()
    #: What is recorded, where that is not the arrival.
    recorded: type[Event] | None = None
    #: Added to the counts of attempts, of failed ones, and of crashes; None sets that of crashes back.
    attempts: int = 0
    failures: int = 0
    crashes: int | None = 0


_SUCCEEDS: Final = Transition("ended", (StepEffect.RELEASE,))

#: By state, and by what happens in it. `durable/README.md` has it as a drawing.
STEP_TRANSITIONS: Final[Mapping[Phase, Mapping[type[Event] | Choice, Transition]]] = {
    "due": {
        Choice.LIMITED: Transition("queued", (StepEffect.QUEUE,), attempts=1),
        Choice.UNLIMITED: Transition("running", (StepEffect.RELEASE, StepEffect.START), attempts=1),
        Choice.WITHDRAWN: Transition("ended"),  # a job, before its first turn
    },
    "queued": {
        SlotGranted: Transition("running", (StepEffect.START,)),
        StepSucceeded: _SUCCEEDS,
        Choice.WITHDRAWN: Transition("ended", (StepEffect.RELEASE,), StepCancelled),
    },
    "running": {
        StepSucceeded: _SUCCEEDS,
        StepFailed: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE)),
        StepRetrying: Transition(
            "retrying", (StepEffect.REPORT, StepEffect.RELEASE, StepEffect.DELAY), failures=1, crashes=None
        ),
        StepSnoozed: Transition("retrying", (StepEffect.RELEASE, StepEffect.DELAY), crashes=None),
        StepInterrupted: Transition("interrupted"),
        StepNotBegun: Transition("due"),
        Choice.CANCELLED: Transition("cancelling", (StepEffect.CANCEL,), CancelSent),
        Choice.WITHDRAWN: Transition("ended", (StepEffect.CANCEL, StepEffect.RELEASE), StepCancelled),
    },
    "cancelling": {
        StepStopped: Transition("ended", (StepEffect.RELEASE,)),
        StepSucceeded: _SUCCEEDS,
        StepFailed: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE)),
        StepRetrying: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE), StepFailed),
        StepSnoozed: Transition("ended", (StepEffect.RELEASE,), StepStopped),
        StepInterrupted: Transition("ended", (StepEffect.RELEASE,), StepStopped),
        StepNotBegun: Transition("ended", (StepEffect.RELEASE,), StepStopped),
        Choice.WITHDRAWN: Transition("ended", (StepEffect.RELEASE,), StepCancelled),
    },
    "interrupted": {
        Choice.SHUTDOWN: Transition("due"),
        Choice.CRASH: Transition("due", crashes=1),
        Choice.USED_UP: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE), StepFailed),
        Choice.POISON: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE), StepFailed),
        Choice.POISON_BLOCKS: Transition("stuck", (StepEffect.RELEASE, StepEffect.BLOCK_POISON), crashes=1),
        Choice.UNKNOWN: Transition("stuck", (StepEffect.RELEASE, StepEffect.BLOCK_UNKNOWN)),
        Choice.FORBIDDEN: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE), StepFailed),
    },
    "retrying": {
        TimerFired: Transition("due"),
        StepSucceeded: _SUCCEEDS,
        Choice.WITHDRAWN: Transition("ended"),
    },
    "stuck": {
        ResumeRequested: Transition("due", crashes=None),
        StepSucceeded: _SUCCEEDS,
        StepFailed: Transition("ended", (StepEffect.REPORT, StepEffect.RELEASE)),
        Choice.WITHDRAWN: Transition("ended"),
    },
    "ended": {},
}  # fmt: skip

#: Facts of a replay: what they say holds wherever the step stood.
_FACTS: Final[Mapping[type[Event], Phase]] = {StepStarted: "running", SlotAwaited: "queued"}


# --- where an event leads ------------------------------------------------------------------------


class StepState(NamedTuple):
    """Where a step stands. A value: the many steps that stand where nearly every step does share one."""

    phase: Phase
    attempt: int = 0
    #: Attempts that the retry policy counts: that failed, or were cut off by the death of the process.
    failures: int = 0
    #: Times the process died during it since it last made progress.
    crashes: int = 0
    #: Whether a slot, or a place in line, is its own.
    slot: bool = False


#: Before its first attempt; and with that attempt begun, or in line.
ASKED: Final = StepState("due")
STARTED: Final = StepState("running", 1)
QUEUED: Final = StepState("queued", 1, slot=True)


class StepRules(NamedTuple):
    """What the code and the engine of today say of a step."""

    limited: bool
    on_crash: OnCrash
    on_poison: OnPoison
    crash_limit: int
    #: Those that its retry policy allows; None: it has none, or allows any number.
    attempts: int | None = None


#: Where something leads, and what that has for effects.
Move: TypeAlias = tuple[StepState, tuple[StepEffect, ...]]


def accepts(event: Event, state: StepState, *, replaying: bool = False) -> TypeGuard[StepEvent]:
    """Whether *event* can happen to a step that stands in *state*."""
    kind = type(event)
    if isinstance(event, (StepInterrupted, StepNotBegun, StepStopped)) and event.attempt != state.attempt:
        return False
    return kind in STEP_TRANSITIONS[state.phase] or (replaying and kind in _FACTS)


def moved(state: StepState, event: StepEvent, rules: StepRules | None) -> Move:
    """
    Where *event*, which `accepts` let pass, takes a step from *state*.

    *rules* None: it is replayed, and what was chosen is recorded next.
    """
    if isinstance(event, (StepStarted, SlotAwaited)):
        slot = state.slot or isinstance(event, SlotAwaited)
        return state._replace(phase=_FACTS[type(event)], attempt=event.attempt, slot=slot), ()
    state, effects = _along(STEP_TRANSITIONS[state.phase][type(event)], state)
    if state.phase == "interrupted":
        assert isinstance(event, StepInterrupted)
        if rules is None:
            # If it has a slot, what was chosen says so: a step that is stuck has given it up.
            failures, crashes = state.failures + event.crashed, state.crashes + event.crashed
            return state._replace(phase="stuck", failures=failures, crashes=crashes, slot=False), ()
        judged = _judged(state, event, rules)
        # An attempt that a crash cut off has begun, so the retry policy counts it, whatever becomes of it.
        state = state._replace(failures=state.failures + event.crashed)
        if judged is Choice.UNKNOWN and event.crashed:
            state = state._replace(crashes=state.crashes + 1)  # as a replay counts, which knows no rules
        state, effects = _along(STEP_TRANSITIONS["interrupted"][judged], state)
    if state.phase == "due":
        return (state._replace(phase="running"), ()) if rules is None else _begun(state, rules)
    return state, effects


def _begun(state: StepState, rules: StepRules) -> Move:
    return _along(STEP_TRANSITIONS["due"][Choice.LIMITED if rules.limited else Choice.UNLIMITED], state)


def told_to_end(state: StepState) -> Move:
    """Where it takes a step, whose attempt is running, that this is told to end."""
    return _along(STEP_TRANSITIONS[state.phase][Choice.CANCELLED], state)


def withdrawn(state: StepState) -> Move:
    """Where it takes a step that nobody waits for its outcome any more."""
    return _along(STEP_TRANSITIONS[state.phase][Choice.WITHDRAWN], state)


def _judged(state: StepState, event: StepInterrupted, rules: StepRules) -> Choice:
    if rules.on_crash == "raise":
        return Choice.FORBIDDEN
    if rules.on_crash == "block":
        return Choice.UNKNOWN
    if event.crashed and state.crashes + 1 >= rules.crash_limit:
        return Choice.POISON_BLOCKS if rules.on_poison == "block" else Choice.POISON
    if not event.crashed:
        return Choice.SHUTDOWN
    used_up = rules.attempts is not None and state.failures + 1 >= rules.attempts
    return Choice.USED_UP if used_up else Choice.CRASH


@lru_cache(maxsize=1024)  # since nearly all steps take the same few ways
def _along(taken: Transition, state: StepState) -> Move:
    effects = taken.effects
    if not state.slot:
        effects = tuple(effect for effect in effects if effect is not StepEffect.RELEASE)
    slot = StepEffect.QUEUE in effects or (state.slot and StepEffect.RELEASE not in effects)
    crashes = 0 if taken.crashes is None else state.crashes + taken.crashes
    state = StepState(taken.to, state.attempt + taken.attempts, state.failures + taken.failures, crashes, slot)
    return state, effects


# --- what that has for effects -------------------------------------------------------------------


class OpenStep(Protocol):
    """A step as this module sees it: one of a workflow, or that of a job."""

    position: str
    state: StepState

    @property
    def run_id(self) -> str: ...

    #: Its first attempt, as it is recorded or is to be: the name, site and digest of all others.
    first: StepStarted | TransactionStarted

    @property
    def op(self) -> StepOp[Any] | TransactionOp[Any]: ...

    @property
    def rules(self) -> StepRules: ...

    def line(self) -> tuple[LimitRef, str]:
        """The limit that an attempt has to ask, and under which key. Raises where there can be no key."""
        ...

    def describe(self) -> str:
        """What errors call it."""
        ...


def begin_attempt(step: OpenStep, decision: Decision, now: float) -> None:
    """Begin the next attempt of *step*, which is due; what is to be recorded and done goes into *decision*."""
    step.state, effects = _begun(step.state, step.rules)
    _perform(effects, step, None, decision, now)


def take(step: OpenStep, event: StepEvent, decision: Decision, now: float) -> None:
    """Let *event*, which is recorded, happen to *step*; as `begin_attempt`."""
    step.state, effects = moved(step.state, event, step.rules)
    if decision.waits and isinstance(event, TimerFired):  # of a delay that began in this very turn: it needs no timer
        decision.waits = [wait for wait in decision.waits if (wait.kind, wait.position) != ("retry", step.position)]
    _perform(effects, step, event, decision, now)


def cancel(step: OpenStep, decision: Decision, now: float) -> None:
    """Tell the attempt of *step*, which is running, to end: the step stays open until it has. As `begin_attempt`."""
    decision.events.append(CancelSent(step.position, now))
    step.state, effects = told_to_end(step.state)
    _perform(effects, step, None, decision, now)


def withdraw(step: OpenStep, decision: Decision, now: float) -> type[Event] | None:
    """Nobody waits for the outcome of *step* any more; what kind of event records that. As `begin_attempt`."""
    recorded = STEP_TRANSITIONS[step.state.phase][Choice.WITHDRAWN].recorded
    step.state, effects = withdrawn(step.state)
    _perform(effects, step, None, decision, now)
    return recorded


def replay_event(step: OpenStep, event: StepEvent) -> None:
    """Let *event* have happened to *step*: nothing is recorded or done."""
    step.state, _ = moved(step.state, event, None if isinstance(step.first, StepStarted) else step.rules)
    if isinstance(event, StepStarted) and event.attempt == 1:
        step.first = event


def recorded_as(step: OpenStep, event: StepEvent, codec: Codec) -> StepEvent:
    """
    What is recorded for *event*.

    An interruption that must not be repeated is a failed attempt, and whether there is another one is for the retry
    policy to say. Of a step that was told to end, an interruption is what it
    was told to do, and a failed attempt is the last one.
    """
    if step.state.phase == "cancelling":
        match event:
            case StepInterrupted() | StepNotBegun() | StepSnoozed():
                return StepStopped(event.position, event.attempt, abandoned=False, at=event.at)
            case StepRetrying():
                return StepFailed(event.position, event.attempt, event.value, event.at)
            case _:
                return event
    if not isinstance(event, StepInterrupted):
        return event
    judged = _judged(step.state, event, step.rules)
    if STEP_TRANSITIONS["interrupted"][judged].recorded is not StepFailed:
        return event
    if judged is Choice.POISON:
        poison = PoisonError(step.position, step.first.name, step.state.crashes + 1)
        failure = failure_payload(poison, codec, with_traceback=False)
        return StepFailed(step.position, event.attempt, failure, event.at)
    op, state = step.op, step.state
    error = StepInterruptedError(step.position, step.first.name, event.attempt)
    payload = failure_payload(error, codec, with_traceback=False)
    seconds, _ = next_attempt(
        op.given.retry or op.definition.options.retry, error, failures=state.failures + 1,
        elapsed=event.at - step.first.at, seed=f"{step.run_id}:{step.position}:{event.attempt}",
    )  # fmt: skip
    if seconds is None:
        return StepFailed(step.position, event.attempt, payload, event.at)
    return StepRetrying(step.position, event.attempt, event.at + seconds, payload, event.at)


def resolved(step: OpenStep, event: OutcomeResolved, codec: Codec) -> StepSucceeded | StepFailed | None:
    """
    What is recorded behind *event*: the outcome that a person gave to *step*. None if it waits for no such thing.

    Raises:
        DecodeError: The value is none of its.
    """
    if step.state.phase != "stuck":
        return None
    if event.failed:
        return StepFailed(event.position, event.attempt, event.value, event.at)
    definition = step.op.definition
    definition.codec_of(codec).decode(event.value or "null", definition.result, where=definition.result_place)
    return StepSucceeded(event.position, event.value, event.at)


def refused(step: OpenStep, event: OutcomeResolved, error: DecodeError) -> str:
    """Why the run of *step* stays blocked: the value that a person gave is none of its."""
    return f"the value that {event.by or 'somebody'} gave for {step.describe()} does not fit: {error}"


def still_stuck(step: OpenStep) -> str:
    """Why a run stays blocked in which another step than *step* was resolved."""
    return f"the outcome of {step.describe()} is still unknown"


def _perform(
    effects: tuple[StepEffect, ...], step: OpenStep, event: StepEvent | None, decision: Decision, now: float
) -> None:
    position = step.position
    for effect in effects:
        match effect:
            case StepEffect.QUEUE:
                limit, key = step.line()
                decision.events.append(slot_awaited(step, limit, key, now))
                decision.slots += (SlotAction(position, limit, key),)
            case StepEffect.START:
                _record_start(step, decision, now)
                start_attempt(step, decision)
            case StepEffect.RELEASE:
                decision.release_slot(position)
            case StepEffect.DELAY:
                assert isinstance(event, (StepRetrying, StepSnoozed))
                decision.waits = added(decision.waits, delay(event, step.first.name))
            case StepEffect.REPORT:
                assert isinstance(event, (StepFailed, StepRetrying))
                retry_at = event.fire_at if isinstance(event, StepRetrying) else None
                failed = FailedAttempt(position, step.first.name, event.attempt, event.value, retry_at)
                decision.failed_attempts += (failed,)
            case StepEffect.BLOCK_POISON:
                times = f"{step.state.crashes} times" if step.state.crashes > 1 else "once"
                decision.blocked = f"{step.describe()} was running when the process died {times}"
            case StepEffect.BLOCK_UNKNOWN:
                assert isinstance(event, StepInterrupted)
                how = "the process died" if event.crashed else "its engine closed"
                decision.blocked = f"{step.describe()} was running when {how}: its outcome is unknown"
            case StepEffect.CANCEL:
                if not decision.drop_attempt(position):  # else it was to begin in this very turn, and does not
                    decision.cancelled_steps = added(decision.cancelled_steps, position)
            case _:
                assert_never(effect)


def slot_awaited(step: OpenStep, limit: LimitRef, key: str, now: float) -> SlotAwaited:
    """What records that the attempt of *step* stands in line."""
    first, attempt = step.first, step.state.attempt
    return SlotAwaited(step.position, first.name, attempt, limit_name(limit), key, first.site, first.digest, now)


def _record_start(step: OpenStep, decision: Decision, now: float) -> None:
    first, attempt = step.first, step.state.attempt
    if not isinstance(first, StepStarted):
        return  # a transaction commits with its outcome, so its attempts need no event of their own
    started = StepStarted(step.position, first.name, attempt, first.site, first.digest, now)
    if attempt == 1:  # the time in line must not count as time of the step
        step.first = started
    decision.events.append(started)


def start_attempt(step: OpenStep, decision: Decision) -> None:
    """Run the attempt of *step* that was recorded."""
    state, op, began = step.state, step.op, step.first.at
    if isinstance(op, StepOp):
        decision.steps.append(StepAction(step.position, state.attempt, state.failures, began, op, state.crashes))
    else:
        action = TransactionAction(step.position, state.attempt, state.failures, began, op)
        decision.transactions = added(decision.transactions, action)


def delay(event: StepRetrying | StepSnoozed, name: str) -> Wait:
    """The timer of a delay of step *name*. Its next attempt begins when it is due, whatever its group waits for."""
    return Wait(event.position, "retry", event.position, name=name, fire_at=event.fire_at)
