"""
What a journal holds: one frozen class a fact, a closed union.

A run's history is a list of these. Three sorts:

* **commands**: what the workflow asked for (`StepStarted`, `TimerSet`, `ChildStarted`, ...);
  replay matches them by position, kind and name;
* **arrivals**: what happened to a command or to the run (`StepSucceeded`, `TimerFired`,
  `SignalReceived`, ...); their order in the journal is the order in which replay delivers them;
* **notes**: what explains or ends (`AttributesSet`, `NowRead`, `RunSucceeded`, ...).

`columns` maps them to columns. Kind numbers are part of the file format: never reuse one.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias, Union, get_args

from attrs import frozen

#: JSON text; bytes only where the user's codec hooks made them.
Payload: TypeAlias = str | bytes


# --- the run -------------------------------------------------------------------------------


@frozen
class RunStarted:
    """The run exists. *value* holds its arguments, *seed* what randomness is derived from."""

    kind: ClassVar[int] = 1
    workflow: str
    version: int
    seed: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class RunSucceeded:
    """The run ended with *value*."""

    kind: ClassVar[int] = 2
    value: Payload | None = None
    at: float = 0.0


@frozen
class RunFailed:
    """The run ended by an error. *positions* are the commands whose failure caused it."""

    kind: ClassVar[int] = 3
    positions: list[str]
    value: Payload | None = None
    at: float = 0.0


@frozen
class RunCancelled:
    """The run ended because it was cancelled, after its clean-up."""

    kind: ClassVar[int] = 4
    reason: str
    at: float = 0.0


@frozen
class RunContinued:
    """The run ended and goes on as *run_id* (`continue_as`)."""

    kind: ClassVar[int] = 5
    run_id: str
    name: str
    at: float = 0.0


@frozen
class RunRestarted:
    """The whole run failed and starts afresh as *attempt*, at *fire_at* (its `retry` option)."""

    kind: ClassVar[int] = 6
    attempt: int
    fire_at: float
    value: Payload | None = None
    at: float = 0.0


@frozen
class RunRetried:
    """A person retried a failed run: what failed at *positions*, and what followed *cut*, is set aside."""

    kind: ClassVar[int] = 7
    cut: int
    positions: list[str]
    at: float = 0.0


@frozen
class RunForked:
    """The run is a copy of *source* up to *at_position*; what stands before this was copied."""

    kind: ClassVar[int] = 8
    source: str
    at_position: str
    at: float = 0.0


# --- steps -----------------------------------------------------------------------------------


@frozen
class StepStarted:
    """An attempt of a step may begin. Attempt 1 is the command itself."""

    kind: ClassVar[int] = 10
    position: str
    name: str
    attempt: int
    site: str
    digest: str
    at: float = 0.0


@frozen
class StepSucceeded:
    """A step or transaction returned *value*."""

    kind: ClassVar[int] = 11
    position: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class StepRetrying:
    """An attempt failed; the next one may begin at *fire_at*."""

    kind: ClassVar[int] = 12
    position: str
    attempt: int
    fire_at: float
    value: Payload | None = None
    at: float = 0.0


@frozen
class StepFailed:
    """A step or transaction failed for good."""

    kind: ClassVar[int] = 13
    position: str
    attempt: int
    value: Payload | None = None
    at: float = 0.0


@frozen
class StepInterrupted:
    """An attempt was cut off: by the death of the process (*crashed*), or by a shutdown."""

    kind: ClassVar[int] = 14
    position: str
    attempt: int
    crashed: bool
    at: float = 0.0


@frozen
class StepCancelled:
    """A running step was cancelled: its race is lost, its time is over, or its run cancelled."""

    kind: ClassVar[int] = 15
    position: str
    at: float = 0.0


@frozen
class TransactionStarted:
    """A transaction was asked for. Its outcome commits together with its rows."""

    kind: ClassVar[int] = 16
    position: str
    name: str
    attempt: int
    site: str
    digest: str
    at: float = 0.0


@frozen
class SlotAwaited:
    """An attempt of step *name* waits for a slot of *limit*; attempt 1 is the command. `StepStarted` comes later."""

    kind: ClassVar[int] = 17
    position: str
    name: str
    attempt: int
    limit: str
    key: str
    site: str
    digest: str
    at: float = 0.0


@frozen
class SlotGranted:
    """The step at *position* has the slot that it waited for."""

    kind: ClassVar[int] = 18
    position: str
    at: float = 0.0


# --- groups, timers, signals, children ---------------------------------------------------------


@frozen
class GroupOpened:
    """A gather, race, settle or for_each began. For `for_each`, *value* holds its items."""

    kind: ClassVar[int] = 20
    position: str
    name: str
    size: int
    site: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class TimerSet:
    """A timer was set, due at *fire_at*; *name* is sleep, sleep_until or timeout."""

    kind: ClassVar[int] = 21
    position: str
    name: str
    fire_at: float
    site: str
    at: float = 0.0


@frozen
class TimerFired:
    """The timer of a command (also of a retry, or of a `wait_for` with a timeout) came due."""

    kind: ClassVar[int] = 22
    position: str
    at: float = 0.0


@frozen
class SignalAwaited:
    """The run waits for a signal; *fire_at* is its timeout, if any."""

    kind: ClassVar[int] = 23
    position: str
    name: str
    fire_at: float | None
    site: str
    at: float = 0.0


@frozen
class SignalReceived:
    """A signal from outside; kept until a `wait_for` of its name consumes it."""

    kind: ClassVar[int] = 24
    name: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class ChildStarted:
    """A child run was created; *awaited* is False for `start`."""

    kind: ClassVar[int] = 25
    position: str
    name: str
    run_id: str
    awaited: bool
    site: str
    digest: str
    at: float = 0.0


@frozen
class ChildAwaited:
    """The run waits for a run that exists already."""

    kind: ClassVar[int] = 26
    position: str
    run_id: str
    site: str
    at: float = 0.0


@frozen
class ChildSucceeded:
    """A child ended with *value*: a copy, so what the parent saw stays fixed."""

    kind: ClassVar[int] = 27
    position: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class ChildFailed:
    """A child ended by an error. One that was refused, so that it never began, has no run id."""

    kind: ClassVar[int] = 28
    position: str
    run_id: str
    value: Payload | None = None
    at: float = 0.0


@frozen
class ChildCancelled:
    """A child was cancelled."""

    kind: ClassVar[int] = 29
    position: str
    run_id: str
    reason: str
    at: float = 0.0


@frozen
class ChildJoined:
    """A child with a key exists: *run_id* is the run which the key stands for."""

    kind: ClassVar[int] = 30
    position: str
    run_id: str
    at: float = 0.0


@frozen
class FeedOpened:
    """The later children of the `for_each` at *position* are started by the file itself, *window* at once."""

    kind: ClassVar[int] = 35
    position: str
    window: int
    at: float = 0.0


# --- requests and notes ----------------------------------------------------------------------------


@frozen
class CancelRequested:
    """Somebody asked for the run to be cancelled."""

    kind: ClassVar[int] = 40
    reason: str
    at: float = 0.0


@frozen
class RunTimedOut:
    """The time allowed for the whole run is over."""

    kind: ClassVar[int] = 41
    seconds: float
    at: float = 0.0


@frozen
class CleanupTimedOut:
    """A cancelled run took too long over its clean-up."""

    kind: ClassVar[int] = 42
    at: float = 0.0


@frozen
class ResumeRequested:
    """A person let a blocked run go on: interrupted steps may run again."""

    kind: ClassVar[int] = 43
    at: float = 0.0


@frozen
class AttributesSet:
    """The workflow published attributes (`set_attributes`)."""

    kind: ClassVar[int] = 44
    value: Payload | None = None
    at: float = 0.0


@frozen
class PatchMarked:
    """`patched(name)` was asked for the first time, by code that has the change."""

    kind: ClassVar[int] = 45
    name: str
    at: float = 0.0


@frozen
class NowRead:
    """`now()` was asked after *arrivals* arrivals; the answer was this event's time."""

    kind: ClassVar[int] = 46
    arrivals: int
    at: float = 0.0


StepCommand: TypeAlias = StepStarted | SlotAwaited | TransactionStarted
Command: TypeAlias = StepCommand | GroupOpened | TimerSet | SignalAwaited | ChildStarted | ChildAwaited
Arrival: TypeAlias = (
    StepSucceeded
    | StepRetrying
    | StepFailed
    | StepInterrupted
    | SlotGranted
    | TimerFired
    | SignalReceived
    | ChildSucceeded
    | ChildFailed
    | ChildCancelled
    | ChildJoined
    | CancelRequested
    | RunTimedOut
    | CleanupTimedOut
    | ResumeRequested
)
End: TypeAlias = RunSucceeded | RunFailed | RunCancelled | RunContinued
Note: TypeAlias = StepCancelled | FeedOpened | AttributesSet | PatchMarked | NowRead
Event: TypeAlias = Union[  # noqa: UP007 - unions of aliases
    RunStarted, RunRestarted, RunRetried, RunForked, End, Command, Arrival, Note
]

EVENT_CLASSES: dict[int, type[Any]] = {cls.kind: cls for cls in get_args(Event)}
#: The name of each kind as people see it: in `run.history()`, views and reports.
KIND_NAMES: dict[int, str] = {kind: cls.__name__ for kind, cls in EVENT_CLASSES.items()}
