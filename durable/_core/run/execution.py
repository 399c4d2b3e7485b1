"""
One run: arrivals in, decision out.

`Execution` holds a run's strands and open commands. `load` replays what is recorded;
`advance(arrived, now=...)` takes what happened since and returns what to record and do. It is
synchronous and knows no clock, event loop or database; the shell records the decision before
it performs it, and throws the execution away if recording fails.

Replay and live run are one code path. The code is resumed with the recorded outcomes in their
recorded order; each command it asks for is looked up by position: recorded with the same kind
and name (continue), recorded differently (`NondeterminismError`), or new (decide). A history is
always closed: all commands that its arrivals caused were recorded together with them, so a new
command during replay is a divergence too. The one exception is a *reopened* history (a retry or
fork took its end away): its replay issues what it finds missing, at the time of the reopening.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, TypeAlias, TypeVar, assert_never

from durable._core import run_ids
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.safe_text import LINE_CAP, message_of, shown
from durable._core.journal import history
from durable._core.journal.events import (
    CancelRequested,
    CleanupTimedOut,
    Event,
    OutcomeResolved,
    Positioned,
    ResumeRequested,
    RunArrival,
    RunContinued,
    RunExpired,
    RunTimedOut,
    SignalReceived,
    StepInterrupted,
    StepStopped,
    TimerFired,
)
from durable._core.journal.history import History
from durable._core.journal.payloads import arguments_payload, keys_of
from durable._core.journal.waits import Wait
from durable._core.policies.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.policies.retry import Retry
from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.functions import Workflow
from durable._core.program.group_ops import NextCompletion, discard
from durable._core.program.ops import ContinueAs
from durable._core.run import attempts, callbacks, completions, ending, groups, leaves
from durable._core.run.answers import Answers
from durable._core.run.attempts import AttemptNode
from durable._core.run.decision import NOTHING, UNDECIDED, ChildAction, Decision, TroubledStep, added, grown
from durable._core.run.leaves import ChildNode, SignalNode
from durable._core.run.nodes import (
    AT_REST,
    NOBODY,
    UNBOUNDED,
    Node,
    NodeOutcome,
    NodeOwner,
    Opener,
    OpenRun,
    StrandNode,
)
from durable._core.run.step_states import UNDER_WAY, refused, resolved, still_stuck
from durable._core.run.strand import Strand
from durable.errors import (
    CapExceededError,
    DecodeError,
    DefinitionError,
    EncodeError,
    NondeterminismError,
    RunCancelled,
)

_T = TypeVar("_T")

#: Runs an iterator to its end, at the speed of C.
_exhaust: Callable[[Iterator[Any]], None] = deque[Any](maxlen=0).extend


#: What a turn gives after each strand's step, where somebody looks on; None where it pauses (see `OpenRun.room`).
Steps: TypeAlias = Iterator[StrandNode | None]
_OVER: Steps = iter(())


def _next(steps: Steps) -> StrandNode | None:
    return next(steps, None)


def _pauses(steps: Steps) -> bool:
    """Whether *steps* came to a pause rather than to their end."""
    for step in steps:  # noqa: SIM110 - `any` would cost each turn a generator
        if step is None:
            return True
    return False


#: Members of groups that begin, or steps of strands, in one slice of a turn: a few milliseconds, in which an event loop
#: does nothing else. Events that are replayed in one.
SLICE = 128
REPLAYED_AT_ONCE = 512


#: What opens each op; `ContinueAs` ends the run instead. A driver may give others, see `Execution`.
OPENERS: Mapping[type, Opener] = {
    **attempts.OPENERS, **leaves.OPENERS, **groups.OPENERS, **completions.OPENERS, **callbacks.OPENERS,
}  # fmt: skip


class Execution(OpenRun):
    """
    A run's code, driven: turn by turn, or over what is recorded.

    What drives it may give two things of its own: *answers*, what the code gets to know; and *openers*, what opens the
    ops, where some of them mean something else or cannot be had. An opener refuses an op by raising a
    `DefinitionError`: it is raised at the line that asks.
    """

    __slots__ = (
        "_begun",
        "_cancelling",
        "_cleaning_since",
        "_cleanup_seconds",
        "_context",
        "_given_up",
        "_late",
        "_openers",
        "_paused",
        "_resolved",
        "_size",
        "_timed_out",
        "_troubles",
        "answers",
        "around",
        "ended",
        "hears_all",
    )

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
        token_key: str = "",
        answers: Callable[[OpenRun], Answers] = Answers,
        openers: Mapping[type, Opener] = OPENERS,
        recorded: History | None = None,
    ) -> None:
        """*recorded*: what `history.read` made of *events*, by who has it already."""
        recorded = recorded or history.read(events, retry)
        super().__init__(definition, history.start_of(events), recorded, run_id, codec, crash_limit, caps)
        self.token_key = token_key
        self.answers = answers(self)
        self._openers = openers
        self.ended = False
        #: Set if the next turn takes in all signals that there are: then a `wait_for` whose time is over need not wait.
        self.hears_all = False
        self._cleanup_seconds = cleanup_seconds
        self._late: Sequence[Event] = ()
        self._size = self.history.size
        self._cancelling = False
        #: While it is being cancelled: when the latest of what was told to end had; and what went wrong with that.
        self._cleaning_since = 0.0
        self._troubles: tuple[BaseException, ...] = ()
        #: What happens to those that were waited for too long.
        self._given_up: Sequence[Event] = ()
        self._timed_out: RunTimedOut | RunExpired | None = None
        self._begun = False
        #: The turn that has paused.
        self._paused: Steps = _OVER
        #: Whether a person gave a step its outcome in this turn.
        self._resolved = False
        #: Around all that drives the code, if anything is.
        self.around: AbstractContextManager[object] | None = None
        # User code sees and may change context variables; the copy keeps them from leaking.
        self._context = contextvars.copy_context()

    # --- what the shell calls ----------------------------------------------------------------

    def load(self) -> None:
        """
        Replay what is recorded.

        A reopened or unfinished history may lead to new commands at once: call `advance([])` afterwards.

        Raises:
            NondeterminismError: If the code asks for something else than was recorded.
            DecodeError: If a recorded value does not fit today's type.
        """
        for _ in self.load_in_slices(UNBOUNDED):
            pass

    def load_in_slices(self, room: int = SLICE) -> Iterator[None]:
        """As `load`, with a pause now and then, which is where this yields. Nothing else may be asked meanwhile."""
        if self.history.fresh:
            return
        self.replaying = True
        self.runnable = deque()
        self.room = room
        try:
            steps = self._replay()
            while self._drive(_pauses, steps):
                yield
                self.room = room
        finally:
            self.replaying = False
            self.at_frontier = False
            self.runnable = self.runnable or AT_REST
            self.room = UNBOUNDED

    def walk(self, pending: Sequence[Event], *, now: float) -> Iterator[StrandNode]:
        """
        As `load`, then `advance(pending)`, one resumption of user code at a time: for debuggers.

        Gives the strand that was resumed last, standing at its next command or ended; or the one that
        waits where a command was opened without it (the next item of a `for_each`). What the commands
        were is noted in `opened`. Errors are those of `load`.
        """
        self.opened = []
        self.replaying = True
        self.runnable = deque()
        try:
            if not self.history.fresh:
                yield from self._each(self._replay())
        finally:
            self.replaying = False
            self.at_frontier = False
        if (pending or self.history.fresh or self.history.continues) and not self.ended:
            self._begin_deciding(now)
            yield from self._each(self._turn(pending))

    def _each(self, steps: Steps) -> Iterator[StrandNode]:
        while (node := self._drive(_next, steps)) is not None:
            yield node

    def advance(self, arrived: Sequence[Event], *, now: float) -> Decision:
        """Take what happened, run the code as far as that leads, and return what to do."""
        self._begin_deciding(now)
        self._drive(_exhaust, self._turn(arrived))
        return self._decided()

    def begin_turn(self, arrived: Sequence[Event], *, now: float, room: int = SLICE) -> Decision | None:
        """
        As `advance`; None where the turn pauses, since that leads far: then `continue_turn` is to be called.

        What it decides is the same. Nothing else may be asked meanwhile, but to `close`.
        """
        self._begin_deciding(now)
        self.room = room
        steps = self._turn(arrived)
        if self._drive(_pauses, steps):
            self._paused = steps
            return None
        return self._decided()

    def continue_turn(self, room: int = SLICE) -> Decision | None:
        """The turn that has paused, continued: as `begin_turn`."""
        self.room = room
        if self._drive(_pauses, self._paused):
            return None
        self._paused = _OVER
        return self._decided()

    def _begin_deciding(self, now: float) -> None:
        self.time = now
        if self.runnable is AT_REST:
            self.runnable = deque()
        if self.decision is UNDECIDED:  # else the replay has decided something already
            self.decision = Decision()

    def _decided(self) -> Decision:
        self.room = UNBOUNDED
        if self._given_up:
            given_up, self._given_up = self._given_up, ()
            self._drive(_exhaust, self._turn(given_up))
        if self._resolved:
            self._block_again()
        self.runnable = AT_REST
        decision, self.decision = self.decision, UNDECIDED
        self._size = grown(self.caps, self.run_id, self._size, decision)
        return decision

    @property
    def idle(self) -> bool:
        """Whether no step is running: nothing but an arrival from outside can move this run."""
        return self.running == 0

    @property
    def alone(self) -> bool:
        """Whether no more than one command is open."""
        return len(self.leaves) <= 1

    def in_flight(self) -> list[tuple[str, int]]:
        """(position, attempt) of the running steps, but for those that the next decision is to start."""
        fresh = {action.position for action in self.decision.steps}
        fresh |= {action.position for action in self.decision.transactions}
        return [
            (leaf.position, leaf.state.attempt)
            for leaf in self.leaves.values()
            if isinstance(leaf, AttemptNode) and leaf.state.phase in UNDER_WAY and leaf.position not in fresh
        ]

    def crashes_of(self, position: str) -> int:
        """Deaths of the process that count for the step at *position*, which is open."""
        leaf = self.leaves[position]
        assert isinstance(leaf, AttemptNode)
        return leaf.state.crashes

    def condemned(self, position: str, deaths: int, now: float) -> StepInterrupted:
        """What takes the place of the outcome of a transaction that killed the process: it began, and was cut off."""
        leaf = self.leaves[position]
        assert isinstance(leaf, AttemptNode)
        # none of them is in the journal, where a transaction begins with its outcome
        leaf.state = leaf.state._replace(crashes=deaths - 1)
        return StepInterrupted(position, leaf.state.attempt, crashed=True, at=now)

    def close(self) -> None:
        """Close all user code, in dead mode: nothing that it asks for is recorded."""
        for node in self.strands:
            self._context.run(node.strand.close)
            node.current = None
        for leaf in self.leaves.values():
            leaf.owner = NOBODY
        for members in self.unbegun.values():
            discard(*members)
        self.helpers = ()
        self.leaves.clear()
        self.unbegun.clear()
        self.runnable.clear()
        self.unfinished = ()
        self.completions.clear()
        self.callbacks.clear()
        self.answers.close()
        self._paused = _OVER
        self.body = None  # so that no cycle is left for the garbage collector

    # --- turns ---------------------------------------------------------------------------------

    def _drive(self, turn: Callable[..., _T], *args: Any) -> _T:
        before = current_driver.put_in_charge(self.answers)
        try:
            if self.around is None:
                return self._context.run(turn, *args)
            with self.around:
                return self._context.run(turn, *args)
        finally:
            current_driver.put_in_charge(before)

    def _replay(self) -> Steps:
        recorded = self.history
        pause_at = REPLAYED_AT_ONCE if self.room < UNBOUNDED else -1
        if recorded.reopened:
            self.time = recorded.reopened_at
        last = len(recorded.arrivals) - 1
        if recorded.run_attempt == 1 and (recorded.commands or not history.ends_unborn(recorded.arrivals)):
            if last < 0:
                self._reach_end()
            self._begin()
            yield from self._resumed()
        for index, event in enumerate(recorded.arrivals):
            if self.ended:
                break
            if index == pause_at:
                yield None
                pause_at += REPLAYED_AT_ONCE
            self.taken = index + 1
            if not recorded.reopened:
                self.time = event.at
            if index == last:
                self._reach_end()
            if not self._take(event):
                self.diverge(event.position or "", None)
            if self.opened and not self.runnable:
                yield self._strand_at(self.opened[-1].position)
            if self.runnable or self.room <= 0:
                yield from self._resumed()
        if self.unmatched and not self.ended:
            self.diverge(next(iter(self.unmatched)), None)
        self.answers.take_dropped()  # not reported again, since they were when they were new

    def _reach_end(self) -> None:
        """What is replayed next is the last that is recorded: from there on an open history is continued."""
        self.at_frontier = self.history.continues
        if self.history.unfinished_at is not None:
            self.time = self.history.unfinished_at

    def _turn(self, arrived: Sequence[Event]) -> Steps:
        if not self._begun and self.history.run_attempt == 1 and not history.ends_unborn(arrived):
            self._begin()
            yield from self._resumed()
        for event in arrived:
            if self.ended:  # kept, since it may have continued as another run, which gets them
                self._late = added(self._late, event)
                continue
            self.taken += 1
            self._take(event)
            if self.opened and not self.runnable:
                yield self._strand_at(self.opened[-1].position)
            if self.runnable or self.room <= 0:
                yield from self._resumed()
        while self.hears_all and not self.ended and (overdue := self._overdue()) is not None:
            self._record(TimerFired(overdue.position, self.time))
            overdue.give_up()
            yield from self._resumed()
        self.hears_all = False
        if self.answers.created_ops:
            self._report_dropped()
        else:
            self.answers.created_ops = NOTHING

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
        StrandNode(self, Strand(self.definition.fn(*args, **kwargs), ""), self, 0).begin()

    def _resumed(self) -> Steps:
        """Run what can run: at once where nobody looks on, which costs no generator; gives what pauses, or is shown."""
        if self.opened is not None:
            return self._run()
        runnable = self.runnable
        while runnable and not self.ended:
            self.current, outcome = runnable.popleft()
            self.current.step(outcome)
            if self.room <= 0:
                return self._rest()
        self.current = None
        return _OVER if self.room > 0 else self._rest()

    def _rest(self) -> Steps:
        """What a slice had no room for: pauses, and continues in the same order as if there had been no pause."""
        runnable = self.runnable
        while True:
            if self.room <= 0:
                yield None
            if self.unfinished:
                group, *around = self.unfinished
                self.unfinished = ()
                try:
                    group.fill()
                except (EncodeError, CapExceededError, DefinitionError) as error:  # as in `open`
                    group.give_up(error)
                self.unfinished = [*self.unfinished, *around]
            elif runnable and not self.ended:
                self.room -= 1
                self.current, outcome = runnable.popleft()
                self.current.step(outcome)
            else:
                break
        self.current = None

    def _run(self) -> Steps:
        runnable = self.runnable
        while runnable and not self.ended:
            node, outcome = runnable.popleft()
            self.current = node
            node.step(outcome)
            yield node
        self.current = None

    def _strand_at(self, position: str) -> StrandNode:
        """The strand that asked for the command at *position*, or for a group around it."""
        around = [node for node in self.strands if not node.position or f"{position}.".startswith(f"{node.position}.")]
        return max(around, key=lambda node: len(node.position))

    def _take(self, event: Event) -> bool:
        """Record *event* (unless it is replayed) and let it happen; False if it is of no use."""
        position = event.position
        if position:
            leaf = self.leaves.get(position)
            if leaf is None or not leaf.accepts(event):
                if isinstance(event, OutcomeResolved) and isinstance(leaf, AttemptNode):
                    return self._resolve(leaf, event)
                return False  # its command is closed (a race is lost, a timeout passed): nobody needs it
            if self.replaying:
                # Later attempts are replayed among the arrivals, but are none.
                self.arrivals += event.category == "arrival"
            else:
                event = leaf.converted(event)
                self._record(event)
            if self._cancelling and leaf.stopping:
                self._cleaning_since = self.time
            leaf.deliver(event)
            return True
        if event.category != "arrival":
            return False
        match event:
            case CancelRequested() | RunTimedOut() if self._cancelling:
                return self.replaying
            case RunExpired():
                if self._begun or self._cancelling or self.history.run_attempt > 1:
                    return False
                self._record(event)
                self._timed_out = event
                self._cancel("it has expired")
            case SignalReceived():
                self._record(event)
                self.receive_signal(event)
            case CancelRequested():
                self._record(event)
                self._cancel(event.reason)
            case RunTimedOut():
                self._record(event)
                self._timed_out = event
                self._cancel(f"not done within {event.seconds:g} s")
            case CleanupTimedOut():
                if not self._cancelling or (not self.replaying and self._has_time_yet()):
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
            case Positioned():  # at no position: nothing of ours
                return False
            case _:
                assert_never(event)
        return True

    def _resolve(self, leaf: AttemptNode, event: OutcomeResolved) -> bool:
        """A person said how a step ended; False if it waits for no such thing, or its type is another one."""
        try:
            outcome = resolved(leaf, event, self.codec)
        except DecodeError as error:
            self.decision.blocked = self.codec.conceal(refused(leaf, event, error), "DecodeError")
            return False
        if outcome is None:
            return False
        self.decision.events.append(event)
        self._record(outcome)
        leaf.deliver(outcome)
        self._resolved = True
        return True

    def _block_again(self) -> None:
        """One stuck step was resolved: what others are stuck keep the run from continuing."""
        self._resolved = False
        for leaf in self.leaves.values():
            if isinstance(leaf, AttemptNode) and leaf.state.phase == "stuck" and not self.ended:
                self.decision.blocked = still_stuck(leaf)

    def _record(self, event: Event) -> None:
        self.arrivals += 1
        if not self.replaying:
            self.decision.events.append(event)

    # --- opening commands -------------------------------------------------------------------------------

    def open(self, op: Command, position: str, owner: NodeOwner, index: int) -> Node | None:
        """Open *op* at *position*; its node reports to *owner*."""
        self.answers.created_ops.pop(id(op), None)
        opener = self._openers.get(type(op))
        self.asked = op
        try:
            if opener is not None:
                return opener(self, position, owner, index, op)
            if isinstance(op, ContinueAs):
                self._continue(op)
            else:
                owner.member_done(index, NodeOutcome(error=TypeError(f"a workflow cannot yield {shown(op, 80)}")))
        except NondeterminismError:
            op.discard()
            raise
        except (EncodeError, CapExceededError, DefinitionError) as error:
            # of the user's value, so it is raised at the user's line instead of ending the turn
            self.leaves.pop(position, None)
            owner.member_done(index, NodeOutcome(error=error))
        return None

    def carried(self) -> tuple[str, ...]:
        """What the command carries that is being opened, see `Node.carried`."""
        opener = self._openers.get(type(self.asked))
        return () if opener is None else opener.carried(self.asked, self.codec)

    def refuse(self, op: Command) -> None:
        """Open nothing for *op*: its strand is cancelled."""
        self.answers.created_ops.pop(id(op), None)
        op.discard()

    def has_outcome(self, op: Command) -> bool:
        """Whether what *op* asks for is there already: the next of an `as_completed`."""
        if not isinstance(op, NextCompletion):
            return False
        group = self.completions.get(op.position)
        return group is not None and group.has_next()

    # --- signals that nobody asked for ---------------------------------------------------------------

    def _overdue(self) -> SignalNode | None:
        return next((leaf for leaf in self.leaves.values() if isinstance(leaf, SignalNode) and leaf.overdue), None)

    @property
    def hears(self) -> bool:
        """Whether other signals might have changed its end: not if its code never waited for anything."""
        return self._begun and self.arrivals > 0

    def unread(self) -> list[SignalReceived]:
        """Signals of its history that no code has seen, in the order in which they came."""
        kept = chain(self.unseen.values(), *self.signals.values())
        return [signal.event for signal in sorted(kept)]

    def unanswered_requests(self) -> list[SignalReceived]:
        """Requests that its code has seen and not answered, in the order in which they came."""
        seen = {*self.unanswered.values()} - {*self.unseen.values()}
        return [signal.event for signal in sorted(seen)]

    def late(self) -> list[RunArrival]:
        """What came for the run in the turn that ended it, or this attempt of it, but behind that end."""
        return [event for event in self._late if isinstance(event, (SignalReceived, CancelRequested, RunTimedOut))]

    # --- ends ------------------------------------------------------------------------------------

    def member_done(self, _index: int, outcome: NodeOutcome) -> None:
        """The body ended."""
        error = outcome.error
        if self._cancelling or outcome.cancelled:
            if error is not None and not issubclass(type(error), RunCancelled):
                self._troubles = (error, *self._troubles)  # of the code itself, which may be what came of the others
            self._end_cancelled()
        elif error is not None and issubclass(type(error), RunCancelled):  # raised by the workflow itself
            self.cancel_reason = self.codec.conceal(message_of(error, LINE_CAP))
            self._end_cancelled()
        elif error is None:
            self._end(ending.succeeded(outcome.value, self))
        else:
            self._end(ending.failed(error, self))

    def _end_cancelled(self) -> None:
        match self._timed_out:
            case RunTimedOut() as over:
                self._end(ending.timed_out(over, self._trouble(), self.codec, self.time))
            case RunExpired() as expired:
                self._end(ending.expired(expired, self.run_id, self.codec, self.time))
            case None:
                self._end(ending.cancelled(self.cancel_reason, self._trouble(), self.codec, self.time))

    def _trouble(self) -> BaseException | None:
        """What went wrong with the clean-up, if something did."""
        return self._troubles[0] if self._troubles else None

    def _continue(self, op: ContinueAs) -> None:
        successor = run_ids.successor(self.run_id)
        arguments = arguments_payload(op.op, self.codec)
        is_new = not self.replaying or self.history.reopened
        keys = keys_of(op.op, arguments, self.codec) if is_new else (None, "")
        self.decision.continued = ChildAction("", successor, op.op, arguments, awaited=False, keys=keys)
        event = RunContinued(successor, op.op.definition.name, self.time)
        self._end(ending.Ending(event, "succeeded", None, successor))

    def _end(self, verdict: ending.EndOrRestart) -> None:
        event = verdict.event
        self.ended = True
        self.runnable.clear()
        self.unfinished = ()
        if self.replaying and not self.history.reopened:
            if type(self.history.end) is not type(event):
                position = next(iter(self.unmatched), self.body.strand.position() if self.body else "")
                self.diverge(position, event, self.unmatched.get(position), verdict.reason)
            self.decision = Decision()  # the end is recorded already: nothing must be decided anew
            return
        for leaf in list(self.leaves.values()):
            # A clean-up ran out of time, a helper continued as another run, or it was open beside what followed it.
            if not (isinstance(leaf, ChildNode) and isinstance(verdict, ending.Ending) and self._is_beside(leaf)):
                leaf.withdraw()
            if leaf.wait is not None:
                self.closed_wait(leaf.wait)
        self.leaves.clear()
        self.decision.feeds, self.decision.feeds_closed = (), (*self.decision.feeds_closed, *self.feeds)
        self.decision.events.append(event)
        self.decision.reason = verdict.reason
        match verdict:
            case ending.Ending():
                self.decision.ended = verdict.status
                self.decision.outcome = verdict.outcome
            case ending.Restart():
                wait = Wait("", "restart", "", "any", fire_at=verdict.event.fire_at)
                self.decision.waits = added(self.decision.waits, wait)
                self.decision.compensated = False
            case _:
                assert_never(verdict)

    def _is_beside(self, leaf: ChildNode) -> bool:
        """Whether a child was left open beside what followed it: then it continues without its parent."""
        return not self._cancelling and any(leaf.position.startswith(f"{each}.") for each in self.completions)

    # --- cancelling ---------------------------------------------------------------------------------

    def _cancel(self, reason: str) -> None:
        self._cancelling = True
        self._cleaning_since = self.time
        self.cancel_reason = reason
        if not self.replaying:
            self.decision.cancel_all_children = True
            # By name, since those that the clean-up starts in this very turn are spared.
            for child in (each for each in self.decision.children if each.awaited):
                self.decision.cancelled_children = added(self.decision.cancelled_children, child.run_id)
        if self.body is None:
            self._end_cancelled()
            return
        if not self.replaying:
            self._limit_cleanup()
        self.body.cancel()

    def _limit_cleanup(self) -> None:
        fire_at = self._cleaning_since + self._cleanup_seconds
        self.decision.waits = added(self.decision.waits, Wait("", "cleanup", "", "any", fire_at=fire_at))

    def _has_time_yet(self) -> bool:
        """
        Whether the code still has time for its clean-up: that begins once what was told to end has ended.

        What has not ended by now is waited for no longer.
        """
        self._given_up = [leaf.given_up(self.time) for leaf in self.leaves.values() if leaf.stopping]
        if self._given_up:
            self._cleaning_since = self.time
        elif self.time >= self._cleaning_since + self._cleanup_seconds:
            return False
        self._limit_cleanup()
        return True

    def stopped(self, event: StepStopped, step: str) -> None:
        """A step that was told to end has, without an outcome."""
        if not event.abandoned and event.value is None:
            return
        if self._cancelling:
            self._troubles += (ending.trouble(event, step, self.codec),)
        if not self.replaying:
            troubled = TroubledStep(event.position, step, event.attempt, event.abandoned, event.value)
            self.decision.troubled = added(self.decision.troubled, troubled)
