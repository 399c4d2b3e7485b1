"""
What a journal holds: one frozen class a fact, a closed union.

A run's history is a list of these. Each says its *category*:

* the **start**, `RunStarted`, stands first;
* **commands**: what the workflow asked for (`StepStarted`, `TimerSet`, `ChildStarted`, ...);
  replay matches them by position, kind and name;
* **arrivals**: what happened to a command or to the run (`StepSucceeded`, `TimerFired`,
  `SignalReceived`, ...); their order in the journal is the order in which replay delivers them;
* **notes**: what explains (`AttributesSet`, `NowRead`, ...);
* **revisions**: what opens the run again, so that other events before it count than did;
* the **end**: `RunSucceeded` and its like.

Those who read events match the unions at the foot of this file and end in `assert_never`, or read
what an event says of itself: `category`, `outcome`, `position`, `name`, `value`, and of commands, ends
and what is about the run as a whole `describe()`, in a few words. So mypy lists what a new class
concerns, and there is nothing to do where its own words are enough.

`columns` maps them to columns. Kind numbers are part of the file format: never reuse one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Union, assert_never, get_args

from attrs import field
from attrs.converters import optional

from durable._core.codec.codec import Payload
from durable._core.codec.records import Instant
from durable._core.light_frozen import light_frozen

#: What an event says of its command, or of the run. "failed" and "retrying": its value is the failure.
OutcomeKind: TypeAlias = Literal[
    "succeeded",
    "failed",
    "retrying",
    "snoozed",
    "interrupted",
    "cancelling",
    "cancelled",
    "fired",
    "continued",
    "received",
    "over",
]
#: The name of a signal or request, and whether it is a request.
Channel: TypeAlias = tuple[str, bool]


class _Recorded:
    """What can be asked of any event; what its class does not have is empty."""

    __slots__ = ()
    outcome: ClassVar[OutcomeKind | None] = None
    #: Of the step, group, signal, workflow or patch.
    name: str = ""
    value: Payload | None = None
    #: A person's words.
    reason: str = ""
    #: Where the workflow's code asked for it, as "file:line"; and a digest of the arguments that it gave.
    site: str = ""
    digest: str = ""


class Positioned(_Recorded):
    """What is about one command, the one at *position*. Empty: the timer of the run's own next attempt."""

    __slots__ = ()
    position: str


class AskedByCode(Positioned):
    """A command: what the code asked for. On replay it asks again, and must come to the same."""

    __slots__ = ()

    @property
    def sought(self) -> str:
        """What it is called where code is searched for it; empty where that needs no name of it."""
        return self.name

    def repeats(self, _recorded: Any, /) -> bool:
        """Whether it is the same command as that of its class and name which is recorded."""
        return True


class RunWide(_Recorded):
    """What is about the run as a whole."""

    __slots__ = ()
    position: ClassVar[None] = None


# --- the run -------------------------------------------------------------------------------


@light_frozen
class RunStarted(RunWide):
    """
    The run exists. *value* holds its arguments, *seed* what randomness is derived from.

    *carried* holds the context variables that its steps see (`Engine(carry=)`).
    """

    kind: ClassVar[int] = 1
    category: ClassVar[Literal["start"]] = "start"
    workflow: str
    version: int
    seed: str
    value: Payload | None = None
    at: Instant = 0.0
    carried: str = field(factory=str)


@light_frozen
class RunSucceeded(RunWide):
    """The run ended with *value*."""

    kind: ClassVar[int] = 2
    category: ClassVar[Literal["end"]] = "end"
    outcome = "succeeded"
    status: ClassVar[Literal["succeeded"]] = "succeeded"
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return "the end of the workflow"


@light_frozen
class RunFailed(RunWide):
    """The run ended by an error. *positions* are the commands whose failure caused it."""

    kind: ClassVar[int] = 3
    category: ClassVar[Literal["end"]] = "end"
    outcome = "failed"
    status: ClassVar[Literal["failed"]] = "failed"
    positions: list[str]
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return "the end of the workflow, by an error"


@light_frozen
class RunCancelled(RunWide):
    """
    The run ended because it was cancelled, after its clean-up. *value* is the failure of that, if it failed.

    Journals and exports have its name, which is also that of the error at the command that was cancelled
    (`durable.RunCancelled`): where it is made or matched it is imported as ``RunCancelledEvent``.
    """

    kind: ClassVar[int] = 4
    category: ClassVar[Literal["end"]] = "end"
    outcome = "cancelled"
    status: ClassVar[Literal["cancelled"]] = "cancelled"
    reason: str
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return "the end of the workflow, cancelled"


@light_frozen
class RunContinued(RunWide):
    """The run ended and continues as *run_id* (`continue_as`)."""

    kind: ClassVar[int] = 5
    category: ClassVar[Literal["end"]] = "end"
    outcome = "continued"
    status: ClassVar[Literal["succeeded"]] = "succeeded"
    run_id: str
    name: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"continue as {self.name!r}"


@light_frozen
class RunRestarted(RunWide):
    """The whole run failed and starts afresh as *attempt*, at *fire_at* (its `retry` option)."""

    kind: ClassVar[int] = 6
    category: ClassVar[Literal["revision"]] = "revision"
    outcome = "retrying"
    attempt: int
    fire_at: float
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return "the end of an attempt of the workflow, by an error"


@light_frozen
class RunRetried(RunWide):
    """
    A person retried a failed run: what failed at *positions*, and what followed *cut*, is set aside.

    But for the commands at the *kept* positions, which went on by themselves: see `aftermath`.
    """

    kind: ClassVar[int] = 7
    category: ClassVar[Literal["revision"]] = "revision"
    cut: int
    positions: list[str]
    kept: list[str] = field(factory=list)
    at: Instant = 0.0


@light_frozen
class RunForked(RunWide):
    """The run is a copy of *source* up to *at_position*; what stands before this was copied."""

    kind: ClassVar[int] = 8
    category: ClassVar[Literal["revision"]] = "revision"
    source: str
    at_position: str
    at: Instant = 0.0


# --- steps -----------------------------------------------------------------------------------


@light_frozen
class StepStarted(AskedByCode):
    """An attempt of a step may begin. Attempt 1 is the command itself."""

    kind: ClassVar[int] = 10
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    attempt: int
    site: str
    digest: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"step {self.name!r}"


@light_frozen
class StepSucceeded(Positioned):
    """A step or transaction returned *value*."""

    kind: ClassVar[int] = 11
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "succeeded"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class StepRetrying(Positioned):
    """An attempt failed; the next one may begin at *fire_at*."""

    kind: ClassVar[int] = 12
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "retrying"
    position: str
    attempt: int
    fire_at: float
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class StepSnoozed(Positioned):
    """An attempt asked to be called again at *fire_at*: it has not failed, and the retry policy does not count it."""

    kind: ClassVar[int] = 50
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "snoozed"
    position: str
    attempt: int
    fire_at: float
    reason: str = ""
    at: Instant = 0.0


@light_frozen
class StepFailed(Positioned):
    """A step or transaction failed permanently."""

    kind: ClassVar[int] = 13
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "failed"
    position: str
    attempt: int
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class StepInterrupted(Positioned):
    """An attempt was cut off: by the death of the process (*crashed*), or by a shutdown."""

    kind: ClassVar[int] = 14
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "interrupted"
    position: str
    attempt: int
    crashed: bool
    at: Instant = 0.0


@light_frozen
class StepNotBegun(Positioned):
    """An attempt was recorded, but its function never called: its run had to stop first. So it is safe to repeat."""

    kind: ClassVar[int] = 47
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "interrupted"
    position: str
    attempt: int
    at: Instant = 0.0


@light_frozen
class OutcomeResolved(Positioned):
    """
    A person, *by*, said how a step ended whose outcome was unknown: its *value* is a failure if it *failed*.

    The outcome itself is recorded behind it, as that of any other step.
    """

    kind: ClassVar[int] = 48
    category: ClassVar[Literal["note"]] = "note"
    position: str
    attempt: int
    failed: bool
    by: str
    reason: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class StepCancelled(Positioned):
    """
    Nobody waits for a step any more: its race is lost, its time is over, or its run cancelled or ended.

    Of one that was running, only releases before `CancelSent` recorded it at once.
    """

    kind: ClassVar[int] = 15
    category: ClassVar[Literal["note"]] = "note"
    outcome = "cancelled"
    position: str
    at: Instant = 0.0


@light_frozen
class TransactionStarted(AskedByCode):
    """A transaction was asked for. Its outcome commits together with its rows."""

    kind: ClassVar[int] = 16
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    attempt: int
    site: str
    digest: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"transaction {self.name!r}"


@light_frozen
class SlotAwaited(AskedByCode):
    """An attempt of step *name* waits for a slot of *limit*; attempt 1 is the command. `StepStarted` comes later."""

    kind: ClassVar[int] = 17
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    attempt: int
    limit: str
    key: str
    site: str
    digest: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"step {self.name!r}"


@light_frozen
class SlotGranted(Positioned):
    """The step at *position* has the slot that it waited for."""

    kind: ClassVar[int] = 18
    category: ClassVar[Literal["arrival"]] = "arrival"
    position: str
    at: Instant = 0.0


@light_frozen
class StepStopped(Positioned):
    """
    An attempt that was cancelled has ended without an outcome, its clean-up included.

    *abandoned*: its time for that was over, and nobody waits for it any more. *value* is the failure of the clean-up.
    """

    kind: ClassVar[int] = 19
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "cancelled"
    position: str
    attempt: int
    abandoned: bool
    value: Payload | None = None
    at: Instant = 0.0


# --- groups, timers, signals, children ---------------------------------------------------------


@light_frozen
class GroupOpened(AskedByCode):
    """
    A gather, race or another command made of members began; *label* is what the code calls it.

    For `for_each`, *value* holds its items.
    """

    kind: ClassVar[int] = 20
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    size: int
    site: str
    label: str = field(factory=str)
    value: Payload | None = None
    at: Instant = 0.0

    @property
    def called(self) -> str:
        """What people read at its position: what the code calls it, if it does."""
        return self.label or self.name

    def describe(self) -> str:
        what = self.name if self.in_turn else f"{self.name} of {self.size}"
        return f"{what} ({self.label})" if self.label else what

    @property
    def sought(self) -> str:
        return "gather" if self.name.startswith("gather") else self.name

    def repeats(self, recorded: GroupOpened, /) -> bool:
        # The items of a for_each are the recorded ones, however many the code has now.
        return self.name.startswith("for_each ") or recorded.size == self.size

    @property
    def in_turn(self) -> bool:
        """Whether each of its members begins because of the one before it: the calls and delays of a `poll_until`."""
        return self.name == "poll_until"


@light_frozen
class TimerSet(AskedByCode):
    """A timer was set, due at *fire_at*; *name* is sleep, sleep_until or timeout, *label* what the code calls it."""

    kind: ClassVar[int] = 21
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    fire_at: float
    site: str
    label: str = field(factory=str)
    at: Instant = 0.0

    @property
    def called(self) -> str:
        """What people read at its position: what the code calls it, if it does."""
        return self.label or self.name

    def describe(self) -> str:
        return f"{self.name} ({self.label})" if self.label else self.name


@light_frozen
class TimerFired(Positioned):
    """The timer of a command (also of a retry, or of a `wait_for` with a timeout) came due."""

    kind: ClassVar[int] = 22
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "fired"
    position: str
    at: Instant = 0.0


@light_frozen
class SignalAwaited(AskedByCode):
    """The run waits for a signal, or for a request if it *answers*; *fire_at* is its timeout, if any."""

    kind: ClassVar[int] = 23
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    fire_at: float | None
    site: str
    at: Instant = 0.0
    answers: bool = field(factory=bool)

    def describe(self) -> str:
        return f"wait_for {'request ' if self.answers else ''}{self.name!r}"

    @property
    def sought(self) -> str:
        return f"wait_for {self.name}"


@light_frozen
class SignalReceived(RunWide):
    """
    A signal from outside; kept until a `wait_for` of its name consumes it.

    Where somebody waits for an answer to it, it is a request: *request* is the id of that.
    """

    kind: ClassVar[int] = 24
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "received"
    name: str
    value: Payload | None = None
    at: Instant = 0.0
    request: str = field(factory=str)

    @property
    def channel(self) -> Channel:
        """Who hears it: a `Signal` and a `Request` of one name are two things."""
        return self.name, bool(self.request)

    def describe(self) -> str:
        return f"request {self.name!r}" if self.request else f"signal {self.name!r}"


@light_frozen
class ChildStarted(AskedByCode):
    """A child run was created; *awaited* is False for `start`."""

    kind: ClassVar[int] = 25
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    run_id: str
    awaited: bool
    site: str
    digest: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"child {self.name!r}" if self.awaited else f"start of {self.name!r}"

    def repeats(self, recorded: ChildStarted, /) -> bool:
        return recorded.awaited == self.awaited


@light_frozen
class ChildAwaited(AskedByCode):
    """The run waits for a run that exists already."""

    kind: ClassVar[int] = 26
    category: ClassVar[Literal["command"]] = "command"
    position: str
    run_id: str
    site: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"result of run {self.run_id!r}"

    def repeats(self, recorded: ChildAwaited, /) -> bool:
        return recorded.run_id == self.run_id


@light_frozen
class ChildSucceeded(Positioned):
    """A child ended with *value*: a copy, so what the parent saw stays fixed."""

    kind: ClassVar[int] = 27
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "succeeded"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class ChildFailed(Positioned):
    """A child ended by an error. One that was refused, so that it never began, has no run id."""

    kind: ClassVar[int] = 28
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "failed"
    position: str
    run_id: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class ChildCancelled(Positioned):
    """A child was cancelled."""

    kind: ClassVar[int] = 29
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "cancelled"
    position: str
    run_id: str
    reason: str
    at: Instant = 0.0


@light_frozen
class ChildJoined(Positioned):
    """A child with a key exists: *run_id* is the run which the key stands for."""

    kind: ClassVar[int] = 30
    category: ClassVar[Literal["arrival"]] = "arrival"
    position: str
    run_id: str
    at: Instant = 0.0


@light_frozen
class SignalSent(AskedByCode):
    """The run sent signal *name* to another run; *digest* is that of what it carries."""

    kind: ClassVar[int] = 31
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    run_id: str
    site: str
    digest: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"signal_run {self.name!r} of run {self.run_id!r}"

    @property
    def sought(self) -> str:
        return "signal_run"

    def repeats(self, recorded: SignalSent, /) -> bool:
        return recorded.run_id == self.run_id


@light_frozen
class CancelAsked(AskedByCode):
    """The run asked for another run to be cancelled."""

    kind: ClassVar[int] = 32
    category: ClassVar[Literal["command"]] = "command"
    position: str
    run_id: str
    reason: str
    site: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"cancel_run {self.run_id!r}"

    @property
    def sought(self) -> str:
        return "cancel_run"

    def repeats(self, recorded: CancelAsked, /) -> bool:
        return recorded.run_id == self.run_id


@light_frozen
class RequestAccepted(Positioned):
    """What was asked of another run was done, with the command; *value* is what that came to."""

    kind: ClassVar[int] = 33
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "succeeded"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class RequestRefused(Positioned):
    """What was asked of another run was not done: there is none, or it has ended. *value* is the failure."""

    kind: ClassVar[int] = 34
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "failed"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class ReplySent(AskedByCode):
    """The run answered a request, or *refused* it: *value* is the answer, or the reason in words."""

    kind: ClassVar[int] = 57
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    #: Its id.
    request: str
    refused: bool
    site: str
    digest: str
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return f"{'refusal of' if self.refused else 'reply to'} request {self.name!r}"

    @property
    def sought(self) -> str:
        return "refuse" if self.refused else "reply"

    def repeats(self, recorded: ReplySent, /) -> bool:
        return (recorded.request, recorded.refused) == (self.request, self.refused)


@light_frozen
class RequestTurnedAway(RunWide):
    """A request whose question does not fit the type that the code waits for: refused, and no code has seen it."""

    kind: ClassVar[int] = 58
    category: ClassVar[Literal["note"]] = "note"
    name: str
    #: Its id.
    request: str
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return f"request {self.name!r}, which was turned away"


@light_frozen
class CancelSent(Positioned):
    """
    A running step, or an awaited child, is told to end; its command stays open until it has.

    At the position of a group: it had its outcome when it was cancelled, and what it waits for has been told already.
    """

    kind: ClassVar[int] = 36
    category: ClassVar[Literal["note"]] = "note"
    outcome = "cancelling"
    position: str
    at: Instant = 0.0


@light_frozen
class FeedOpened(Positioned):
    """The later children of the `for_each` at *position* are started by the file itself, *window* at once."""

    kind: ClassVar[int] = 35
    category: ClassVar[Literal["note"]] = "note"
    position: str
    window: int
    at: Instant = 0.0


def _as_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@light_frozen
class GroupArranged(Positioned):
    """
    How the group at *position* runs its members, and what ends it: as it was opened, whatever the code says later.

    Not recorded where nothing of this was asked for. *concurrency* members run at once; *enough* successes end it, or
    more failures than *tolerate*, a count or a share; *names* are those of its members.
    """

    kind: ClassVar[int] = 37
    category: ClassVar[Literal["note"]] = "note"
    position: str
    concurrency: int | None
    enough: int | None
    tolerate: int | float | None
    names: tuple[str, ...] | None = field(converter=optional(_as_names))
    at: Instant = 0.0


# --- callbacks: what somebody outside answers ---------------------------------------------------------


@light_frozen
class CallbackOpened(AskedByCode):
    """
    A callback exists: somebody outside is to answer it by *fire_at*, if that is given.

    And is not to be silent for *heartbeat* seconds. *type* is what the answer is read as, for people; *nonce* the part
    of its token that nobody guesses.
    """

    kind: ClassVar[int] = 52
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    fire_at: float | None
    heartbeat: float | None
    type: str
    nonce: str
    site: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"callback {self.name!r}" if self.name else "callback"

    @property
    def sought(self) -> str:
        return "callback"


@light_frozen
class CallbackAwaited(AskedByCode):
    """The run waits for the answer to the callback *name* at position *callback*."""

    kind: ClassVar[int] = 53
    category: ClassVar[Literal["command"]] = "command"
    position: str
    name: str
    callback: str
    site: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"answer to callback {self.name!r} at {self.callback}" if self.name else f"answer to {self.callback}"

    @property
    def sought(self) -> str:
        return ""

    def repeats(self, recorded: CallbackAwaited, /) -> bool:
        return recorded.callback == self.callback


@light_frozen
class CallbackCompleted(Positioned):
    """Somebody outside completed the callback at *position* with *value*."""

    kind: ClassVar[int] = 54
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "succeeded"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class CallbackFailed(Positioned):
    """Somebody outside failed the callback at *position*; *value* is the failure."""

    kind: ClassVar[int] = 55
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "failed"
    position: str
    value: Payload | None = None
    at: Instant = 0.0


@light_frozen
class HeartbeatMissed(Positioned):
    """Nothing was heard of the callback at *position* for as long as it may be silent."""

    kind: ClassVar[int] = 56
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "fired"
    position: str
    at: Instant = 0.0


# --- requests and notes ----------------------------------------------------------------------------


@light_frozen
class CancelRequested(RunWide):
    """Somebody asked for the run to be cancelled."""

    kind: ClassVar[int] = 40
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "received"
    reason: str
    at: Instant = 0.0

    def describe(self) -> str:
        return "request to cancel"


@light_frozen
class RunTimedOut(RunWide):
    """The time allowed for the whole run is over."""

    kind: ClassVar[int] = 41
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "over"
    seconds: float
    at: Instant = 0.0

    def describe(self) -> str:
        return "the time of the run"


@light_frozen
class RunExpired(RunWide):
    """The run had not begun by *expires_at* (its `expires` option), so it is given up."""

    kind: ClassVar[int] = 49
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "over"
    expires_at: float
    at: Instant = 0.0

    def describe(self) -> str:
        return "the time by which the run had to begin"


@light_frozen
class CleanupTimedOut(RunWide):
    """A cancelled run took too long over its clean-up."""

    kind: ClassVar[int] = 42
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "over"
    at: Instant = 0.0

    def describe(self) -> str:
        return "the time of the clean-up"


@light_frozen
class ResumeRequested(RunWide):
    """A person resumed a blocked run: interrupted steps may run again."""

    kind: ClassVar[int] = 43
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "received"
    at: Instant = 0.0

    def describe(self) -> str:
        return "request to resume"


@light_frozen
class AttributesSet(RunWide):
    """The workflow published attributes (`set_attributes`)."""

    kind: ClassVar[int] = 44
    category: ClassVar[Literal["note"]] = "note"
    value: Payload | None = None
    at: Instant = 0.0

    def describe(self) -> str:
        return "attributes"


@light_frozen
class PatchMarked(RunWide):
    """`patched(name)` was asked for the first time, by code that has the change."""

    kind: ClassVar[int] = 45
    category: ClassVar[Literal["note"]] = "note"
    name: str
    at: Instant = 0.0

    def describe(self) -> str:
        return f"patched {self.name!r}"


@light_frozen
class NowRead(RunWide):
    """`now()` was asked after *arrivals* arrivals; the answer was this event's time."""

    kind: ClassVar[int] = 46
    category: ClassVar[Literal["note"]] = "note"
    arrivals: int
    at: Instant = 0.0


@light_frozen
class Compensated(RunWide):
    """A saga failed, and what it had done is being undone. *name* is what the code calls it."""

    kind: ClassVar[int] = 51
    category: ClassVar[Literal["note"]] = "note"
    name: str = field(factory=str)
    at: Instant = 0.0

    def describe(self) -> str:
        return f"saga {self.name!r}, which is undone" if self.name else "a saga that is undone"


@light_frozen
class TurnUnfinished(RunWide):
    """
    A turn that opens very much is recorded by several commits: the next events belong to it.

    Where nothing follows, the process died in between, and the replay opens the rest.
    """

    kind: ClassVar[int] = 59
    category: ClassVar[Literal["note"]] = "note"
    #: When the turn was taken.
    at: Instant = 0.0

    def describe(self) -> str:
        return "the turn continues"


# --- the unions ------------------------------------------------------------------------------------

StepCommand: TypeAlias = StepStarted | SlotAwaited | TransactionStarted
ChildCommand: TypeAlias = ChildStarted | ChildAwaited
#: What asks something of another run.
RequestCommand: TypeAlias = SignalSent | CancelAsked
CallbackCommand: TypeAlias = CallbackOpened | CallbackAwaited
OtherCommand: TypeAlias = GroupOpened | TimerSet | SignalAwaited | ReplySent
CommandEvent: TypeAlias = StepCommand | ChildCommand | RequestCommand | CallbackCommand | OtherCommand
#: What records an attempt, and the wait for it: those after the first stand among the arrivals.
LaterAttempt: TypeAlias = StepStarted | SlotAwaited

StepArrival: TypeAlias = (
    StepSucceeded | StepRetrying | StepSnoozed | StepFailed | StepInterrupted | StepNotBegun | StepStopped | SlotGranted
)
ChildArrival: TypeAlias = ChildSucceeded | ChildFailed | ChildCancelled | ChildJoined
RequestAnswer: TypeAlias = RequestAccepted | RequestRefused
CallbackArrival: TypeAlias = CallbackCompleted | CallbackFailed | HeartbeatMissed
#: What has a run end before its code says so.
EndRequest: TypeAlias = CancelRequested | RunTimedOut | RunExpired
RunArrival: TypeAlias = SignalReceived | EndRequest | CleanupTimedOut | ResumeRequested
Arrival: TypeAlias = StepArrival | ChildArrival | RequestAnswer | CallbackArrival | TimerFired | RunArrival
#: What ends a step, transaction or child.
Completion: TypeAlias = StepSucceeded | StepFailed | ChildSucceeded | ChildFailed | ChildCancelled

Note: TypeAlias = (
    OutcomeResolved
    | StepCancelled
    | CancelSent
    | FeedOpened
    | GroupArranged
    | AttributesSet
    | PatchMarked
    | NowRead
    | Compensated
    | RequestTurnedAway
    | TurnUnfinished
)
#: What a person has opened again: replay issues what it finds missing.
Reopening: TypeAlias = RunRetried | RunForked
Revision: TypeAlias = RunRestarted | Reopening
End: TypeAlias = RunSucceeded | RunFailed | RunCancelled | RunContinued
Event: TypeAlias = Union[RunStarted, CommandEvent, Arrival, Note, Revision, End]  # noqa: UP007 - unions of aliases

EVENT_CLASSES: dict[int, type[Any]] = {cls.kind: cls for cls in get_args(Event)}
#: The name of each kind as people see it: in `run.history()`, views and reports.
KIND_NAMES: dict[int, str] = {kind: cls.__name__ for kind, cls in EVENT_CLASSES.items()}

if TYPE_CHECKING:

    def union_of(event: Event) -> RunStarted | CommandEvent | Arrival | Note | Revision | End:
        """Refused by type checkers where a class says another category than that of the union which it is in."""
        match event.category:
            case "start":
                start: RunStarted = event
                return start
            case "command":
                command: CommandEvent = event
                return command
            case "arrival":
                arrival: Arrival = event
                return arrival
            case "note":
                note: Note = event
                return note
            case "revision":
                revision: Revision = event
                return revision
            case "end":
                end: End = event
                return end
            case _:
                assert_never(event)
