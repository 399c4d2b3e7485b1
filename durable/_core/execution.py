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
command during replay is a divergence too. The one exception is a *reopened* history (a retry or
fork took its end away): its replay issues what it finds missing, at the time of the reopening.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from durable._core import charge, ending, history
from durable._core.answers import Answers
from durable._core.attempts import AttemptNode
from durable._core.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.codec import Codec
from durable._core.decision import ChildAction, Decision, Wait
from durable._core.definition import Workflow
from durable._core.divergence import alike, diverged
from durable._core.events import (
    CancelRequested,
    CleanupTimedOut,
    Event,
    ResumeRequested,
    RunContinued,
    RunTimedOut,
    SignalReceived,
    TimerFired,
)
from durable._core.events import Command as RecordedCommand
from durable._core.groups import OPENERS
from durable._core.nodes import Leaf, Node, Outcome, SignalNode, StrandNode
from durable._core.ops import Command, ContinueAs, StepOp, TransactionOp
from durable._core.outcomes import arguments_payload
from durable._core.retry import Retry
from durable._core.strand import Strand
from durable.errors import CapExceededError, DefinitionError, EncodeError, RunCancelled

_E = TypeVar("_E", bound=RecordedCommand)

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
        caps: Caps = DEFAULT_CAPS,
        retry: Retry | None = None,
    ) -> None:
        self.history = history.read(events, retry)
        self.started = self.history.started
        self.definition = definition
        self.run_id = run_id
        self.codec = codec
        self.crash_limit = crash_limit
        self.decision = Decision()
        self.runnable: deque[tuple[StrandNode, Outcome]] = deque()
        self.strands: list[StrandNode] = []
        self.leaves: dict[str, Leaf] = {}
        #: Positions of open `for_each`es whose later children the file starts.
        self.feeds: set[str] = set()
        self.signal_waiters: dict[str, list[SignalNode]] = {}
        #: Steps whose attempt is under way.
        self.running = 0
        self.time = self.started.at  # of the turn
        self.replaying = False
        #: Set in the replay of a reopened history once all that it holds was delivered.
        self.at_frontier = False
        #: Arrivals taken so far.
        self.arrivals = 0
        #: The strand whose code runs right now.
        self.current: StrandNode | None = None
        self.cancel_reason = ""
        self.ended = False
        self.answers = Answers(self)
        self._cleanup_seconds = cleanup_seconds
        self._caps = caps
        self._body: StrandNode | None = None
        self._signals: dict[str, deque[SignalReceived]] = {}
        self._late: list[Event] = []
        self._unmatched = dict(self.history.commands)
        self._sites: dict[charge.Site, str] = {}
        self._size = self.history.size
        self._cancelling = False
        self._timed_out: RunTimedOut | None = None
        self._begun = False
        # User code sees and may change context variables; the copy keeps them from leaking.
        self._context = contextvars.copy_context()

    # --- what the shell calls ----------------------------------------------------------------

    def load(self) -> None:
        """
        Replay what is recorded.

        A reopened history may lead to new commands at once: call `advance([])` afterwards.

        Raises:
            NondeterminismError: If the code asks for something else than was recorded.
            DecodeError: If a recorded value does not fit today's type.
        """
        if self.history.fresh:
            return
        self.replaying = True
        try:
            self._drive(self._replay)
        finally:
            self.replaying = False
            self.at_frontier = False

    def advance(self, arrived: Sequence[Event], *, now: float) -> Decision:
        """Take what happened, run the code as far as that leads, and return what to do."""
        self.time = now
        self._drive(self._turn, arrived)
        decision, self.decision = self.decision, Decision()
        before, self._size = self._size, self._size + len(decision.events)
        decision.logs += self._caps.check_events(self.run_id, before, self._size)
        return decision

    @property
    def idle(self) -> bool:
        """Whether no step is under way: nothing but an arrival from outside can move this run."""
        return self.running == 0

    def in_flight(self) -> list[tuple[str, int]]:
        """(position, attempt) of the steps under way, but for those that the next decision is to start."""
        fresh = {action.position for action in self.decision.steps}
        fresh |= {action.position for action in self.decision.transactions}
        return [
            (leaf.position, leaf.attempt)
            for leaf in self.leaves.values()
            if isinstance(leaf, AttemptNode) and leaf.phase == "running" and leaf.position not in fresh
        ]

    def close(self) -> None:
        """Close all user code, in dead mode: nothing that it asks for is recorded."""
        for node in self.strands:
            self._context.run(node.strand.close)
        self.strands.clear()
        self.leaves.clear()
        self.runnable.clear()
        self.answers.created_ops.clear()

    # --- turns ---------------------------------------------------------------------------------

    def _drive(self, turn: Callable[..., None], *args: Any) -> None:
        before = charge.put_in_charge(self.answers)
        try:
            self._context.run(turn, *args)
        finally:
            charge.put_in_charge(before)

    def _replay(self) -> None:
        recorded = self.history
        if recorded.reopened:
            self.time = recorded.reopened_at
        last = len(recorded.arrivals) - 1
        if recorded.run_attempt == 1 and not (self._ends_unborn(recorded.arrivals) and not recorded.commands):
            self.at_frontier = recorded.reopened and last < 0
            self._begin()
        for index, event in enumerate(recorded.arrivals):
            if self.ended:
                break
            if recorded.reopened:
                self.at_frontier = index == last
            else:
                self.time = event.at
            if not self._take(event):
                self._diverged(getattr(event, "position", ""), None)
            self._run()
        if self._unmatched and not self.ended:
            self._diverged(next(iter(self._unmatched)), None)
        self.answers.take_dropped()  # reported when they were new

    def _turn(self, arrived: Sequence[Event]) -> None:
        if not self._begun and self.history.run_attempt == 1 and not self._ends_unborn(arrived):
            self._begin()
        for event in arrived:
            if self.ended:  # it may have continued as another run, for which this is kept
                self._late.append(event)
                continue
            self._take(event)
            if self.runnable:
                self._run()
        if self.answers.created_ops:
            self._report_dropped()

    def _report_dropped(self) -> None:
        if not self.ended:
            self.answers.report(self.answers.take_dropped())
        elif self.decision.ended == "succeeded":
            self.answers.report(list(self.answers.created_ops.values()))
        # else an error or a cancellation came before they could be yielded

    def _begin(self) -> None:
        self._begun = True
        args, kwargs = self.codec.decode_arguments(
            self.started.value or "[[],{}]", self.definition.arguments, where=f"arguments of run {self.run_id!r}"
        )
        self._body = StrandNode(self, Strand(self.definition.fn(*args, **kwargs), ""), self, 0)
        self._body.begin()
        self._run()

    def _ends_unborn(self, arrived: Sequence[Event]) -> bool:
        """Cancelled, or out of time, before its first turn: its code never runs."""
        return not self._begun and any(isinstance(event, (CancelRequested, RunTimedOut)) for event in arrived)

    def _run(self) -> None:
        runnable = self.runnable
        while runnable and not self.ended:
            self.current, outcome = runnable.popleft()
            self.current.step(outcome)
        self.current = None

    def _take(self, event: Event) -> bool:
        """Record *event* (unless it is replayed) and let it happen; False if it is of no use."""
        position = getattr(event, "position", None)
        if position:
            leaf = self.leaves.get(position)
            if leaf is None or not leaf.accepts(event):
                return False  # its command is closed: a race is lost, a timeout passed
            if self.replaying:
                # Later attempts are replayed among the arrivals, but are none.
                self.arrivals += not isinstance(event, history.LATER_ATTEMPTS)
            else:
                event = leaf.converted(event)
                self._record(event)
            leaf.deliver(event)
            return True
        match event:
            case CancelRequested() | RunTimedOut() if self._cancelling:
                return self.replaying
            case SignalReceived():
                self._record(event)
                self._signal(event)
            case CancelRequested():
                self._record(event)
                self._cancel(event.reason)
            case RunTimedOut():
                self._record(event)
                self._timed_out = event
                self._cancel(f"not done within {event.seconds:g} s")
            case CleanupTimedOut():
                if not self._cancelling:
                    return False
                self._record(event)
                self._end_cancelled()
            case ResumeRequested():
                self._record(event)
                for leaf in list(self.leaves.values()):
                    if leaf.accepts(event):
                        leaf.deliver(event)
            case TimerFired():  # the run's own: its next attempt may begin
                if self._begun:
                    return False
                self._record(event)
                self._begin()
            case _:
                return False
        return True

    def _record(self, event: Event) -> None:
        self.arrivals += 1
        if not self.replaying:
            self.decision.events.append(event)

    # --- for nodes -------------------------------------------------------------------------------

    def open(self, op: Command, position: str, owner: Any, index: int) -> Node | None:
        """Open *op* at *position*; its node reports to *owner*."""
        self.answers.created_ops.pop(id(op), None)
        opener = _OPENERS.get(type(op))
        try:
            if opener is not None:
                return opener(self, position, owner, index, op)
            if isinstance(op, ContinueAs):
                self._continue(op)
            else:
                owner.member_done(index, Outcome(error=TypeError(f"a workflow cannot yield {op!r:.80}")))
        except (EncodeError, CapExceededError, DefinitionError) as error:  # the user's value: raised at the user's line
            self.leaves.pop(position, None)
            owner.member_done(index, Outcome(error=error))
        return None

    def command(self, event: _E) -> tuple[_E, bool]:
        """The recorded event for this command, or *event* itself, recorded now; and whether it is new."""
        position: str = event.position
        recorded = self._unmatched.pop(position, None)
        if recorded is not None:
            if type(recorded) is not type(event) or not alike(recorded, event):
                self._diverged(position, event, recorded)
            return recorded, False
        if self.replaying and not self.history.reopened:
            self._diverged(position, event)
        self.decision.events.append(event)
        return event, True

    def replays(self, position: str) -> Event | None:
        """The command at *position*, if it is recorded already."""
        return self._unmatched.get(position)

    def site(self, op: Any) -> str:
        """Where *op* was made, short enough to be recorded with every command."""
        site: charge.Site | None = op.site
        if site is None:
            return ""
        short = self._sites.get(site)
        if short is None:
            path, line = site
            short = self._sites[site] = f"{'/'.join(path.rsplit('/', 2)[-2:])}:{line}"
        return short

    def child_id(self, position: str) -> str:
        """The id of the child at *position*: derived, so a child exists exactly once."""
        attempt = self.history.generation
        return f"{self.run_id}/{position}" if attempt == 1 else f"{self.run_id}/{position}@{attempt}"

    def cancel_child(self, run_id: str) -> None:
        """Ask a child to end; one that this very turn would create is not created."""
        children = self.decision.children
        unborn = [child for child in children if child.run_id == run_id]
        if unborn:
            children.remove(unborn[0])
        elif not self.replaying:
            self.decision.cancelled_children.append(run_id)

    def closed_wait(self, wait: Wait) -> None:
        """A wait ended otherwise than by its arrival: its row goes, or is not written at all."""
        if wait in self.decision.waits:
            self.decision.waits.remove(wait)
        elif not self.replaying:
            self.decision.waits_closed.append(wait)

    def take_signal(self, name: str) -> SignalReceived | None:
        """The oldest signal of *name* that nobody consumed yet."""
        kept = self._signals.get(name)
        return kept.popleft() if kept else None

    def unconsumed(self) -> list[SignalReceived | CancelRequested]:
        """Signals that nobody consumed, in the order in which they came by name; and a cancel that came too late."""
        late = [event for event in self._late if isinstance(event, (SignalReceived, CancelRequested))]
        return [*(event for kept in self._signals.values() for event in kept), *late]

    def block(self, reason: str) -> None:
        """The run cannot go on without a person."""
        if not self.replaying:
            self.decision.blocked = reason

    # --- ends ------------------------------------------------------------------------------------

    def member_done(self, _index: int, outcome: Outcome) -> None:
        """The body ended."""
        error = outcome.error
        if self._cancelling or outcome.cancelled:
            self._end_cancelled()
        elif isinstance(error, RunCancelled):  # raised by the workflow itself
            self.cancel_reason = error.reason
            self._end_cancelled()
        elif error is None:
            self._end(ending.succeeded(outcome.value, self.definition, self.codec, self.history, self.time))
        else:
            self._end(ending.failed(error, self.definition, self.codec, self.history, self.time))

    def _end_cancelled(self) -> None:
        if self._timed_out is not None:
            self._end(ending.timed_out(self._timed_out.seconds, self.codec, self.time))
        else:
            self._end(ending.cancelled(self.cancel_reason, self.time))

    def _continue(self, op: ContinueAs) -> None:
        successor = ending.successor(self.run_id)
        arguments = arguments_payload(op.op, self.codec)
        self.decision.continued = ChildAction("", successor, op.op, arguments, awaited=False)
        event = RunContinued(successor, op.op.definition.name, self.time)
        self._end(ending.Ending(event, "succeeded", None, successor))

    def _end(self, verdict: ending.Verdict) -> None:
        event = verdict.event
        self.ended = True
        self.runnable.clear()
        if self.replaying and not self.history.reopened:
            if type(self.history.end) is not type(event):
                position = next(iter(self._unmatched), self._body.strand.position() if self._body else "")
                self._diverged(position, event, self._unmatched.get(position))
            self.decision = Decision()  # an old end, and no new decision
            return
        for leaf in list(self.leaves.values()):
            leaf.withdraw()  # a clean-up ran out of time, or a helper continued as another run
        self.leaves.clear()
        self.decision.feeds, self.decision.feeds_closed = (), (*self.decision.feeds_closed, *self.feeds)
        self.decision.events.append(event)
        self.decision.reason = verdict.reason
        if isinstance(verdict, ending.Ending):
            self.decision.ended = verdict.status
            self.decision.outcome = verdict.outcome
        else:
            self.decision.waits.append(Wait("", "restart", "", "any", fire_at=verdict.event.fire_at))

    # --- cancelling ---------------------------------------------------------------------------------

    def _cancel(self, reason: str) -> None:
        self._cancelling = True
        self.cancel_reason = reason
        if not self.replaying:
            self.decision.cancel_all_children = True
            # By name, since those that the clean-up starts in this very turn are spared.
            self.decision.cancelled_children += [child.run_id for child in self.decision.children]
        if self._body is None:
            self._end_cancelled()
            return
        if not self.replaying:
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

    def _diverged(self, position: str, requested: Any, recorded: Event | None = None) -> NoReturn:
        recorded = recorded or self.history.commands.get(position)
        raise diverged(self.run_id, position, recorded, requested, self.history.commands)
