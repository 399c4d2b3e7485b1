"""
One run: arrivals in, decision out.

`Execution` holds a run's strands and open commands. `load` replays what is recorded;
`advance(arrived, now=...)` takes what happened since and returns what to record and do. It is
synchronous and knows no clock, event loop or database; the shell records the decision before
it performs it, and throws the execution away if recording fails.

Replay and live run are one code path. The code is resumed with the recorded outcomes in their
recorded order; each command it asks for is looked up by position: recorded with the same kind
and name (go on), recorded differently (`NondeterminismError`), or new (decide). A history is
always closed: all commands that its arrivals caused were recorded together with them, so a new
command during replay is a divergence too.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from attrs import evolve

from durable._core import charge, history
from durable._core.attempts import AttemptNode
from durable._core.codec import Codec
from durable._core.decision import ChildAction, Decision, Wait
from durable._core.definition import Workflow
from durable._core.events import (
    AttributesSet,
    CancelRequested,
    CleanupTimedOut,
    Event,
    NowRead,
    PatchMarked,
    ResumeRequested,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunRestarted,
    RunSucceeded,
    RunTimedOut,
    SignalReceived,
    TimerFired,
)
from durable._core.failures import describe as describe_failure
from durable._core.nodes import OPENERS, Leaf, Node, Outcome, SignalNode, StrandNode
from durable._core.ops import Command, ContinueAs, OnCrash, RunOp, StepOp, TransactionOp
from durable._core.outcomes import failure_in, failure_payload
from durable._core.retry import plan
from durable._core.strand import Strand
from durable.errors import (
    CapExceededError,
    EncodeError,
    InternalError,
    NondeterminismError,
    NotDurableError,
)
from durable.errors import RunCancelled as RunCancelledSignal

_E = TypeVar("_E", bound=Event)

#: A step that was running this often when the process died is poison. Three, as in Sidekiq's
#: super_fetch: one crash is bad luck, two may be, three is the step.
CRASH_LIMIT = 3
#: Seconds that a cancelled run may spend on clean-up.
CLEANUP_SECONDS = 60.0
#: Events of one run: Temporal warns at 10,240; a million replay in about ten seconds here.
MAX_EVENTS = 1_000_000
WARN_EVENTS = 10_000

_OPENERS: dict[type, Callable[..., Node]] = {**OPENERS, StepOp: AttemptNode, TransactionOp: AttemptNode}


class Execution:
    """A run's strands and open commands."""

    def __init__(
        self,
        definition: Workflow[..., Any],
        events: Sequence[Event],
        *,
        run_id: str,
        codec: Codec,
        crash_limit: int = CRASH_LIMIT,
        cleanup_seconds: float = CLEANUP_SECONDS,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self.history = history.read(events)
        self.definition = definition
        self.run_id = run_id
        self.workflow = definition.name
        self.codec = codec
        self.crash_limit = crash_limit
        self.decision = Decision()
        self.runnable: deque[tuple[StrandNode, Outcome]] = deque()
        self.strands: list[StrandNode] = []
        self.leaves: dict[str, Leaf] = {}
        self.signal_waiters: dict[str, list[SignalNode]] = {}
        #: Steps whose attempt is under way.
        self.running = 0
        #: The time of the turn.
        self.time = self.history.started.at
        self.replaying = False
        self.cancel_reason = ""
        self.ended = False
        self._cleanup_seconds = cleanup_seconds
        self._max_events = max_events
        self._body: StrandNode | None = None
        self._current: StrandNode | None = None
        self._signals: dict[str, deque[SignalReceived]] = {}
        self._patches: dict[str, bool] = {}
        self._created: dict[int, Command] = {}
        self._unmatched = dict(self.history.commands)
        self._arrivals = 0
        self._size = self.history.size
        self._now_read_at = -1
        self._cancelling = False
        self._timed_out: RunTimedOut | None = None
        self._begun = False
        # User code sees and may change context variables; the copy keeps them from leaking.
        self._context = contextvars.copy_context()

    # --- what the shell calls ----------------------------------------------------------------

    def load(self) -> None:
        """
        Replay what is recorded.

        Raises:
            NondeterminismError: If the code asks for something else than was recorded.
            DecodeError: If a recorded value does not fit today's type.
        """
        if self.history.fresh or self.history.restarting:
            return
        self.replaying = True
        try:
            self._drive(self._replay)
        finally:
            self.replaying = False

    def advance(self, arrived: Sequence[Event], *, now: float) -> Decision:
        """Take what happened, run the code as far as that leads, and return what to do."""
        self.time = now
        self._drive(self._turn, arrived)
        decision, self.decision = self.decision, Decision()
        self._size += len(decision.events)
        if self._size > self._max_events:
            remedy = "End it with continue_as, or raise the cap"
            raise CapExceededError(f"run {self.run_id!r}", "number of events", self._size, self._max_events, remedy)
        if self._size >= WARN_EVENTS > self._size - len(decision.events):
            values = {"events": self._size, "run_id": self.run_id}
            decision.logs.append(("warning", "run.history_is_long", values))
        return decision

    @property
    def idle(self) -> bool:
        """Whether no step is under way: nothing but an arrival from outside can move this run."""
        return self.running == 0

    def in_flight(self) -> list[tuple[str, int]]:
        """(position, attempt) of the steps under way."""
        return [
            (leaf.position, leaf.attempt)
            for leaf in self.leaves.values()
            if isinstance(leaf, AttemptNode) and leaf.phase == "running"
        ]

    def close(self) -> None:
        """Close all user code, in dead mode: nothing that it asks for is recorded."""
        for node in self.strands:
            self._context.run(node.strand.close)
        self.strands.clear()
        self.leaves.clear()
        self._created.clear()

    # --- turns ---------------------------------------------------------------------------------

    def _drive(self, turn: Callable[..., None], *args: Any) -> None:
        with charge.in_charge(self):
            self._context.run(turn, *args)

    def _replay(self) -> None:
        reads = self.history.now_reads
        self._begin()
        for event in self.history.arrivals:
            if self.ended:
                break
            self.time = event.at
            if not self._take(event):
                self._diverged_by(event)
            self._run()
        if self._unmatched and not self.ended:
            self._missing()
        if self.ended and not self.decision.events:
            msg = f"run {self.run_id!r} ended during replay but its history goes on"
            raise InternalError(msg)
        if reads and self.history.reopened:
            self._now_read_at = -1

    def _turn(self, arrived: Sequence[Event]) -> None:
        if not self._begun and not self.history.restarting and not self._stillborn(arrived):
            self._begin()
        for event in arrived:
            if self.ended:
                break
            self._take(event)
            self._run()
        self._report_dropped()

    def _begin(self) -> None:
        self._begun = True
        self._arrivals = 0
        started = self.history.started
        arguments = self.definition.arguments
        args, kwargs = self.codec.decode_arguments(
            started.value or "[[],{}]", arguments, where=f"arguments of run {self.run_id!r}"
        )
        code = self.definition.fn(*args, **kwargs)
        self._body = StrandNode(self, Strand(code, ""), self, 0)
        self._body.begin()
        self._run()

    def _stillborn(self, arrived: Sequence[Event]) -> bool:
        """Cancelled before its first turn: its code never runs."""
        return any(isinstance(event, CancelRequested) for event in arrived)

    def _run(self) -> None:
        while self.runnable and not self.ended:
            self._current, outcome = self.runnable.popleft()
            self._current.step(outcome)
        self._current = None

    def _take(self, event: Event) -> bool:
        """Record *event* (unless it is replayed) and let it happen; False if it is of no use."""
        match event:
            case SignalReceived():
                self._record(event)
                self._signal(event)
            case CancelRequested():
                if self._cancelling:
                    return self.replaying
                self._record(event)
                self._cancel(event.reason)
            case RunTimedOut():
                if self._cancelling:
                    return self.replaying
                self._record(event)
                self._timed_out = event
                self._cancel(f"not done within {event.seconds:g} s")
            case CleanupTimedOut():
                self._record(event)
                self._end_cancelled()
            case ResumeRequested():
                self._record(event)
                for leaf in list(self.leaves.values()):
                    if leaf.accepts(event):
                        leaf.deliver(event)
            case TimerFired() if event.position == "":
                self._record(event)
                if not self._begun:
                    self.history = evolve(self.history, restarting=False)
                    self._begin()
            case _:
                leaf = self.leaves.get(event.position)  # type: ignore[union-attr]  # all others have one
                if leaf is None or not leaf.accepts(event):
                    return False  # its command is closed: a race is lost, a timeout passed
                recorded = event if self.replaying or not isinstance(leaf, AttemptNode) else leaf.converted(event)
                self._record(recorded)
                leaf.deliver(recorded)
        return True

    def _record(self, event: Event) -> None:
        self._arrivals += 1
        if not self.replaying:
            self.decision.events.append(event)

    # --- for nodes -------------------------------------------------------------------------------

    def open(self, op: Command, position: str, owner: Any, index: int) -> Node | None:
        """Open *op* at *position*; its node reports to *owner*."""
        self._created.pop(id(op), None)
        opener = _OPENERS.get(type(op))
        if opener is None:
            if isinstance(op, ContinueAs):
                self._continue(op)
                return None
            error = TypeError(f"a workflow cannot yield {op!r:.80}")
            owner.member_done(index, Outcome(error=error))
            return None
        try:
            node = opener(self, position, owner, index, op)
        except (EncodeError, CapExceededError) as error:  # the user's value: raise it at the user's line
            owner.member_done(index, Outcome(error=error))
            return None
        if isinstance(owner, StrandNode) and not node.closed:
            owner.current = node
            if owner.cancel_requested:
                owner.cancel_requested = False
                node.cancel()
        return node

    def command(self, event: _E) -> tuple[_E, bool]:
        """The recorded event for this command, or *event* itself, recorded now; and whether it is new."""
        position: str = event.position  # type: ignore[union-attr]  # commands have one
        recorded = self._unmatched.pop(position, None)
        if recorded is not None:
            if type(recorded) is not type(event) or not _alike(recorded, event):
                self._diverged(position, recorded, event)
            return recorded, False  # type: ignore[return-value]  # of the same type, just tested
        if self.replaying and not self.history.reopened:
            self._diverged(position, None, event)
        self.decision.events.append(event)
        return event, True

    def replays(self, position: str) -> bool:
        """Whether the command at *position* is recorded already."""
        return position in self._unmatched

    def site(self, op: Any) -> str:
        """Where *op* was made, short enough to be recorded with every command."""
        if op.site is None:
            return ""
        path, line = op.site
        return f"{'/'.join(path.rsplit('/', 2)[-2:])}:{line}"

    def digest(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """A short digest of a call's arguments, for reports; empty where they cannot be recorded."""
        if self.replaying or not (args or kwargs):
            return ""
        try:
            return self.codec.digest(self.codec.encode([list(args), dict(kwargs)]))
        except (EncodeError, CapExceededError):
            return ""

    def child_id(self, position: str) -> str:
        """The id of the child at *position*: derived, so a child exists exactly once."""
        attempt = self.history.run_attempt
        return f"{self.run_id}/{position}" if attempt == 1 else f"{self.run_id}/{position}@{attempt}"

    def start_child(self, position: str, run_id: str, op: RunOp[Any], *, awaited: bool) -> None:
        """Create a child run with this decision."""
        self.decision.children.append(ChildAction(position, run_id, op, awaited))

    def cancel_child(self, run_id: str) -> None:
        """Ask a child to end."""
        if not self.replaying:
            self.decision.cancelled_children.append(run_id)

    def closed_wait(self, wait: Wait) -> None:
        """A wait ended otherwise than by its arrival: its row goes."""
        if not self.replaying:
            self.decision.waits_closed.append(wait)

    def take_signal(self, name: str) -> SignalReceived | None:
        """The oldest signal of *name* that nobody consumed yet."""
        kept = self._signals.get(name)
        return kept.popleft() if kept else None

    def on_crash(self, op: StepOp[Any] | TransactionOp[Any]) -> OnCrash:
        """What to do about an attempt of *op* that the death of the process cut off."""
        return op.definition.options.on_crash

    def block(self, reason: str) -> None:
        """The run cannot go on without a person."""
        if not self.replaying:
            self.decision.blocked = reason

    def member_done(self, index: int, outcome: Outcome) -> None:
        """The body ended."""
        self.runnable.clear()
        if self._cancelling:
            self._end_cancelled()
        elif outcome.error is None:
            self._end_succeeded(outcome.value)
        elif isinstance(outcome.error, RunCancelledSignal):
            self.cancel_reason = outcome.error.reason
            self._end_cancelled()
        elif isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            raise outcome.error
        else:
            self._end_failed(outcome.error)

    # --- ends ------------------------------------------------------------------------------------

    def _end(self, event: Any, status: Any, outcome: Any = None, reason: str = "") -> None:
        if self.replaying and not self.history.reopened and self._unmatched:
            position = next(iter(self._unmatched))
            self._diverged(position, self._unmatched[position], event)
        if self.replaying and not self.history.reopened:
            position = self._body.strand.position() if self._body else ""
            self._diverged(position, None, event)
        self.ended = True
        self.decision.events.append(event)
        self.decision.ended = status
        self.decision.outcome = outcome
        self.decision.reason = reason

    def _end_succeeded(self, value: Any) -> None:
        try:
            outcome = self.codec.encode(value, self.definition.result, where=f"result of workflow {self.workflow!r}")
        except (EncodeError, CapExceededError) as error:
            self._end_failed(error)
            return
        self._end(RunSucceeded(outcome, self.time), "succeeded", outcome)

    def _end_failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = RuntimeError(f"workflow code raised {type(error).__name__}: {error}")
        payload = failure_payload(error, self.codec)
        described = describe_failure(failure_in(payload, self.codec))
        attempt = self.history.run_attempt
        seed = f"{self.run_id}:run:{attempt}"
        elapsed = self.time - self.history.started.at
        policy = self.definition.options.retry
        fatal = isinstance(error, NotDurableError)
        delay = None if fatal else plan(policy, error, failures=attempt, elapsed=elapsed, seed=seed)
        if delay is not None and not self.replaying:
            self.ended = True
            fire_at = self.time + delay
            self.decision.events.append(RunRestarted(attempt + 1, fire_at, payload, self.time))
            self.decision.waits.append(Wait("", "restart", "", "any", fire_at=fire_at))
            self.decision.reason = f"attempt {attempt} failed: {described}"
            return
        event = RunFailed(_positions_in(error), payload, self.time)
        self._end(event, "failed", payload, described)

    def _end_cancelled(self) -> None:
        if self._timed_out is not None:
            error = TimeoutError(f"run not done within {self._timed_out.seconds:g} s")
            payload = failure_payload(error, self.codec, with_traceback=False)
            self._end(RunFailed([], payload, self.time), "failed", payload, f"TimeoutError: {error}")
        else:
            self._end(RunCancelled(self.cancel_reason, self.time), "cancelled", None, self.cancel_reason)

    def _continue(self, op: ContinueAs) -> None:
        base, _, count = self.run_id.rpartition("~")
        successor = f"{base}~{int(count) + 1}" if base and count.isdigit() else f"{self.run_id}~2"
        self.decision.continued = ChildAction("", successor, op.op, awaited=False)
        self._end(RunContinued(successor, op.op.definition.name, self.time), "succeeded", None, successor)

    # --- cancelling ---------------------------------------------------------------------------------

    def _cancel(self, reason: str) -> None:
        self._cancelling = True
        self.cancel_reason = reason
        if self._body is None:
            self._end_cancelled()
            return
        if not self.replaying:
            self.decision.cancel_all_children = True
            fire_at = self.time + self._cleanup_seconds
            self.decision.waits.append(Wait("", "cleanup", "", "any", fire_at=fire_at))
        self._body.cancel()

    # --- signals --------------------------------------------------------------------------------------

    def _signal(self, event: SignalReceived) -> None:
        waiting = self.signal_waiters.get(event.name)
        if waiting:
            waiting[0].receive(event)
        else:
            self._signals.setdefault(event.name, deque()).append(event)

    # --- divergence -------------------------------------------------------------------------------------

    def _diverged(self, position: str, recorded: Event | None, requested: Any) -> None:
        wanted = history.describe(requested)
        raise NondeterminismError(
            self.run_id,
            position,
            "nothing" if recorded is None else history.describe(recorded),
            wanted,
            getattr(recorded, "site", ""),
            getattr(requested, "site", ""),
            _nearest(position, recorded, requested, self.history.commands),
        )

    def _missing(self) -> None:
        position, recorded = next(iter(self._unmatched.items()))
        raise NondeterminismError(
            self.run_id, position, history.describe(recorded), "nothing there", getattr(recorded, "site", "")
        )

    def _diverged_by(self, event: Event) -> None:
        position = getattr(event, "position", "")
        recorded = self.history.commands.get(position)
        described = history.describe(recorded) if recorded else type(event).__name__
        raise NondeterminismError(self.run_id, position, described, "nothing there", getattr(recorded, "site", ""))

    # --- what workflow code may ask (charge.Driver) ------------------------------------------------------

    def created(self, command: Command) -> None:
        self._created[id(command)] = command

    def superseded(self, command: Command) -> None:
        self._created.pop(id(command), None)

    def _report_dropped(self) -> None:
        """Warn of ops that nobody can yield any more: made, never yielded, no reference left."""
        while self._created:
            found = [key for key, command in self._created.items() if self.ended or sys.getrefcount(command) <= _OURS]
            if not found:
                return
            for key in found:
                command = self._created.pop(key)
                site = getattr(command, "site", None) or ("<unknown>", 0)
                message = f"{command.describe()} was created in workflow {self.workflow!r} and never yielded or awaited"
                warnings.warn_explicit(message, RuntimeWarning, *site)

    def now(self) -> float:
        if self.replaying:
            return self.history.now_reads.get(self._arrivals, self.time)
        if self._now_read_at != self._arrivals:
            self._now_read_at = self._arrivals
            self.decision.events.append(NowRead(self._arrivals, self.time))
        return self.time

    def random(self) -> Random:
        strand = self._strand()
        strand.draws += 1
        return Random(f"{self.history.started.seed}:{strand.position()}:{strand.draws}")  # noqa: S311 - replayable

    def uuid4(self) -> UUID:
        return UUID(int=self.random().getrandbits(128), version=4)

    def patched(self, change_id: str) -> bool:
        known = self._patches.get(change_id)
        if known is None:
            known = change_id in self.history.patches if self.replaying else True
            self._patches[change_id] = known
            if not self.replaying:
                self.decision.events.append(PatchMarked(change_id, self.time))
        return known

    def set_attributes(self, values: dict[str, Any]) -> None:
        if self.replaying:
            return
        payload = self.codec.encode(values, dict[str, Any], where=f"attributes of run {self.run_id!r}")
        self.decision.events.append(AttributesSet(payload, self.time))
        self.decision.attributes = {**(self.decision.attributes or {}), **values}

    def log(self, level: str, event: str, values: dict[str, Any]) -> None:
        if not self.replaying:
            self.decision.logs.append((level, event, values))

    def position(self) -> str:
        return self._strand().position()

    def _strand(self) -> Strand:
        if self._current is None:  # pragma: no cover - user code runs inside a strand
            msg = "no strand is being driven"
            raise InternalError(msg)
        return self._current.strand


#: References to an op that only the execution holds: its entry, the loop's tuple and variable,
#: and `getrefcount`'s own argument.
_OURS = 3


def _alike(recorded: Any, requested: Any) -> bool:
    name = getattr(requested, "name", None)
    if name is not None and recorded.name != name:
        return False
    if hasattr(requested, "size") and not requested.name.startswith("for_each") and recorded.size != requested.size:
        return False
    return not (type(requested).__name__ == "ChildAwaited" and recorded.run_id != requested.run_id)


def _nearest(position: str, recorded: Event | None, requested: Any, commands: Mapping[str, Event]) -> str:
    """A guess at what changed, by looking for each side a little further on in the same strand."""
    prefix, _, last = position.rpartition(".")
    wanted = history.describe(requested)
    for offset in range(1, 10):
        number = int(last) + offset if last.isdigit() else offset
        later = commands.get(f"{prefix}.{number}" if prefix else str(number))
        if later is not None and history.describe(later) == wanted:
            return f"It looks as if {history.describe(recorded) if recorded else 'a command'} was removed before it"
    if recorded is None:
        return f"It looks as if {wanted} was added here"
    return f"It looks as if {wanted} was inserted before, or {history.describe(recorded)} was renamed or moved"


def _positions_in(error: BaseException, found: list[str] | None = None, depth: int = 0) -> list[str]:
    """Positions of the commands whose failures *error* is, wraps, or groups."""
    found = [] if found is None else found
    position = getattr(error, "__durable_position__", None)
    if position is not None and position not in found:
        found.append(position)
    if depth < 20:  # noqa: PLR2004 - causes nest a few deep; a cycle must end
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                _positions_in(member, found, depth + 1)
        for wrapped in (error.__cause__, error.__context__):
            if wrapped is not None and position is None:
                _positions_in(wrapped, found, depth + 1)
    return found


def is_generator_workflow(definition: Workflow[..., Any]) -> bool:
    """Whether the workflow is an async generator (else a coroutine function)."""
    return inspect.isasyncgenfunction(definition.fn)
