"""
What is open in one run: its strands and commands as nodes, and what these ask of their run.

A run and its nodes know each other, so they stand together. `OpenRun` holds the rule of replay: a command
is looked up by position; recorded with the same kind and name it continues, recorded differently the run
diverges, and where nothing is recorded it is new, or in a replay a divergence too. Nodes hold no such
rule: they ask `OpenRun.command`, and act (emit actions and waits) only for new ones.

Every command a strand asks for becomes a node, and reports its outcome to its owner: a strand, or the
group it is a member of. Cancelling is structured: what follows a cancelled thing starts after that thing has ended.
A running step, or an awaited child, is told to end, and its node stays open until it has; a cancelled group reports
only once all of its members have, so clean-up in a helper strand ends before its group does. One that has an outcome
all the same delivers it, and the cancellation is raised at the next command: who undoes knows of all that was done.
If that command is itself clean-up (see `clean_up`), it runs, and the next one behind the clean-up raises.
Leaves are in `leaves`, `attempts` and `groups`; `execution` drives the code.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeGuard, TypeVar

from durable._core import run_ids
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.journal.events import (
    CancelSent,
    Channel,
    CommandEvent,
    Event,
    RequestTurnedAway,
    RunStarted,
    SignalReceived,
    StepStopped,
    TimerFired,
)
from durable._core.journal.waits import Wait, WakeOn
from durable._core.light_tuples import NamedTuple
from durable._core.policies.caps import Caps
from durable._core.run.clean_up import in_clean_up
from durable._core.run.decision import NOTHING, Decision, ReplyAction, added, entered, removed
from durable._core.run.divergence.comparing import NOT_COMPARING, Comparing
from durable._core.run.divergence.report import Code, Requested, alike, diverged, other_arguments
from durable._core.run.failed_positions import mark
from durable._core.run.strand import Strand
from durable._core.statuses import WaitKind
from durable.errors import RunCancelled

if TYPE_CHECKING:
    from durable._core.codec.codec import Codec
    from durable._core.journal.history import History
    from durable._core.program import current_driver
    from durable._core.program.command import Command
    from durable._core.program.functions import Workflow
    from durable._core.run.callbacks import CallbackNode

_E = TypeVar("_E", bound=CommandEvent)
#: What can happen to a leaf.
_Taken = TypeVar("_Taken", bound=Event)


#: The `OpenRun.room` of a turn that is taken at once.
UNBOUNDED = sys.maxsize
_NO_FEEDS: frozenset[str] = frozenset()
#: The `OpenRun.runnable` of all runs that are not driven: an empty deque takes 760 bytes, and most active runs wait.
AT_REST: Final[deque[Any]] = deque(maxlen=0)


@lru_cache(maxsize=4096)
def _short(site: current_driver.CallSite) -> str:
    path, line = site
    return f"{'/'.join(path.rsplit('/', 2)[-2:])}:{line}"


class NumberedSignal(NamedTuple):
    """A signal that was received, and its number in the order in which those of its run were."""

    number: int
    event: SignalReceived


class Completions(Protocol):
    """A group that is open beside what follows it."""

    closed: bool

    def cancel(self) -> None: ...
    def has_next(self) -> bool: ...


class Unfinished(Protocol):
    """A group of which more members are to begin."""

    def fill(self) -> None: ...
    def give_up(self, error: BaseException) -> None: ...


class SignalWaiter(Protocol):
    """Who waits for a signal."""

    def receive(self, signal: NumberedSignal, /) -> bool: ...


class NodeOutcome:
    """How a command ended: with a value, an error, or cancelled."""

    __slots__ = ("cancelled", "error", "value")
    late = False

    def __init__(self, value: Any = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        self.value = value
        self.error = error
        self.cancelled = cancelled


class LateOutcome(NodeOutcome):
    """The outcome of a command that was cancelled, and ended with one all the same."""

    __slots__ = ()
    late = True


CANCELLED = NodeOutcome(cancelled=True)
_ANY: WakeOn = "any"


class NodeOwner(Protocol):
    """What a node reports its end to."""

    def member_done(self, index: int, outcome: NodeOutcome, /) -> None: ...


class _Nobody:
    """Owns what is open when an execution is closed."""

    def member_done(self, index: int, outcome: NodeOutcome, /) -> None:
        """It has no listener."""


NOBODY = _Nobody()


class Node:
    """One open command."""

    __slots__ = ("closed", "ex", "index", "owner", "position")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int) -> None:
        self.ex = ex
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False

    @staticmethod
    def carried(_op: Any, _codec: Codec, /) -> tuple[str, ...]:
        """
        What its op carries, as canonical text: as it is recorded, then as other releases recorded the same.

        Empty where it carries nothing that can be compared.
        """
        return ()

    def report(self, outcome: NodeOutcome) -> None:
        """Tell the owner, once."""
        self.closed = True
        self.owner.member_done(self.index, outcome)

    def cancel(self) -> None:
        """
        Give up. It reports once what it set going has ended: `CANCELLED`, or an outcome that it has all the same.
        """
        raise NotImplementedError  # pragma: no cover - every node has its own

    def member_rule(self) -> WakeOn:
        """Which ends among its members the run must hear of at once: "all" is none but the last."""
        return "any"

    @property
    def never_fails(self) -> bool:
        """Whether its outcome is a value, however its members end."""
        return False

    def feed_of(self, _index: int, /) -> tuple[str | None, bool]:
        """The feed that a member belongs to, by its position; and whether that feed starts it."""
        return None, False

    def delivered(self, error: BaseException) -> BaseException:
        """*error*, marked with the position whose failure it is, so that a retry finds it."""
        return mark(error, self.position)


class Opener(Protocol):
    """What opens the ops of one class: the class of their nodes. Each module of nodes ends with its table of these."""

    def __call__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: Any, /) -> Node: ...
    def carried(self, op: Any, codec: Codec, /) -> tuple[str, ...]: ...


def wake_group(position: str, owner: NodeOwner) -> tuple[str, WakeOn]:
    """
    Which rows must be gone before a run needs to be woken that waits at *position* for *owner*.

    A member of a plain gather of gathers wakes nobody until the outermost has no row left,
    so a parent of 10,000 children replays once. Any other owner wants to know at once.
    """
    group, wake_on, never_fails = position, _ANY, False
    while isinstance(owner, Node) and (rule := owner.member_rule()) != "any":
        if wake_on == "any":
            wake_on = rule
        elif rule in ("fail_fast", "failure") and not never_fails:
            break  # the end of the group below may decide this one
        never_fails = owner.never_fails
        group, owner = owner.position, owner.owner
    return group, wake_on


# --- strands -------------------------------------------------------------------------------------


class StrandNode(Node):
    """A strand: the body of the run, or a helper coroutine in a group."""

    __slots__ = ("cancelled", "current", "ending", "held", "is_done", "late", "owes_cancel", "strand", "throw_cancel")

    def __init__(self, ex: OpenRun, strand: Strand, owner: NodeOwner, index: int) -> None:
        super().__init__(ex, strand.prefix, owner, index)
        self.strand = strand
        self.current: Node | None = None
        #: Set once its code has ended.
        self.is_done = False
        #: Set once somebody cancelled it: what it raises then is not a failure.
        self.cancelled = False
        #: Set while the cancellation still has to be raised in its code.
        self.throw_cancel = False
        #: Set once it was given the outcome of a command that was cancelled,
        self.late = False
        #: and from then on until the cancellation is raised, at the first command that is no clean-up.
        self.owes_cancel = False
        #: Once it is cancelled: groups beside its current command, which end first; and the outcome held until then.
        self.ending: Sequence[Completions] = ()
        self.held: NodeOutcome | None = None
        if strand.prefix:
            ex.helpers = added(ex.helpers, self)
        else:
            ex.body = self

    def begin(self) -> None:
        """Run it to its first command, in its turn."""
        self.ex.runnable.append((self, NodeOutcome()))

    def member_done(self, _index: int, outcome: NodeOutcome) -> None:
        """Its current command ended."""
        self.current = None
        self.ex.runnable.append((self, outcome))

    def step(self, outcome: NodeOutcome) -> None:
        """Resume the code with *outcome*, and open what it asks for."""
        strand = self.strand
        if not self.cancelled:  # as nearly always
            asked = strand.resume(outcome.value, outcome.error)
        elif self.ending:
            self.held = outcome
            return
        else:
            asked = self._resume_cancelled(outcome)
        if asked is not None:
            position = strand.next_position() if asked.is_numbered else strand.position()
            node = self.ex.open(asked, position, self, 0)
            if node is not None and not node.closed:
                self.current = node
            return
        self.is_done = True
        removed(self.ex.helpers, self)
        raised = self.strand.raised
        if raised is not None and self.cancelled and issubclass(type(raised), RunCancelled):
            self.report(CANCELLED)
        elif raised is not None and came_from_outside(raised):
            raise raised  # meant for the program: the run must not record it as its end
        else:
            self.report((LateOutcome if self.late else NodeOutcome)(self.strand.value, raised))

    def _resume_cancelled(self, outcome: NodeOutcome) -> Command | None:
        ex, strand = self.ex, self.strand
        error = outcome.error
        if outcome.cancelled or self.throw_cancel:
            self.throw_cancel = self.owes_cancel = False
            error = RunCancelled(ex.codec.reveal(ex.cancel_reason))
        elif outcome.late:
            self.late = self.owes_cancel = True
        asked = strand.resume(outcome.value, error)
        if self.owes_cancel and asked is not None and not ex.has_outcome(asked) and not in_clean_up(strand.frames()):
            self.owes_cancel = False
            ex.refuse(asked)
            asked = strand.resume(None, RunCancelled(ex.codec.reveal(ex.cancel_reason)))
        return asked

    def cancel(self) -> None:
        self.cancelled = True
        self.ending = self.ex.completions_within(self.position)
        if self.current is not None:
            self.current.cancel()
        else:  # about to be resumed: the cancellation takes the place of the outcome
            self.throw_cancel = True
        for group in list(self.ending):
            group.cancel()

    def has_ended(self, group: Completions) -> None:
        """One of those that had to end has; behind the last, the code hears of the cancellation."""
        if group in self.ending:
            self.ending = [other for other in self.ending if other is not group]
            if self.held is not None and not self.ending:
                self.ex.runnable.append((self, self.held))
                self.held = None


# --- leaves ----------------------------------------------------------------------------------------


class Leaf(Node, Generic[_Taken]):
    """A command that an arrival ends."""

    __slots__ = ("wait",)

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int) -> None:
        self.ex = ex  # as Node does, instead of calling it: one is made for every command
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False
        self.wait: Wait | None = None
        ex.leaves[position] = self

    def accepts(self, event: Event) -> TypeGuard[_Taken]:
        """Whether *event* can happen to this command in the state it is in."""
        raise NotImplementedError  # pragma: no cover - every leaf has its own

    def deliver(self, event: _Taken, /) -> None:
        """Take *event*, which `accepts` let pass."""
        raise NotImplementedError  # pragma: no cover - every leaf has its own

    def wait_for(
        self,
        kind: WaitKind,
        *,
        name: str | None = None,
        run_id: str | None = None,
        fire_at: float | None = None,
        fresh: bool,
    ) -> None:
        """Note what ends this wait; a row of it is written when the command is *fresh*."""
        group, wake_on = wake_group(self.position, self.owner)
        self.wait = Wait(self.position, kind, group, wake_on, name, run_id, fire_at)
        if fresh:
            self.ex.decision.waits = added(self.ex.decision.waits, self.wait)

    def close(self, outcome: NodeOutcome, *, arrived: bool = True) -> None:
        """End with *outcome*; the row of its wait is gone already where an arrival ended it."""
        if self.closed:
            return
        self.ex.leaves.pop(self.position, None)
        if self.wait is not None:
            if not arrived:
                self.ex.closed_wait(self.wait)
            self.wait = None
        self.report(outcome)

    @property
    def stopping(self) -> bool:
        """Whether it was told to end, and has not."""
        return False

    def tell_to_end(self) -> bool:
        """Tell what the command set going outside to end, and wait for that; False if there is nothing to wait for."""
        return False

    def given_up(self, now: float) -> Event:
        """What happens to it if it is waited for no longer, although it is `stopping`."""
        raise NotImplementedError  # pragma: no cover - those that can be told to end have their own

    def withdraw(self) -> None:
        """Undo what the command set going outside: nobody waits for its outcome any more."""

    def converted(self, event: _Taken) -> _Taken:
        """What is recorded for *event*."""
        return event

    def cancel(self) -> None:
        if not self.closed and not self.stopping and not self.tell_to_end():
            self.withdraw()
            self.close(CANCELLED, arrived=False)


class TimerLeaf(Leaf[TimerFired]):
    """A command that a timer ends."""

    __slots__ = ()

    def accepts(self, event: Event) -> TypeGuard[TimerFired]:
        return isinstance(event, TimerFired)

    def deliver(self, _event: TimerFired, /) -> None:
        self.close(NodeOutcome())


# --- the run ----------------------------------------------------------------------------------------------------


class OpenRun:
    """A run's strands and open commands."""

    # More attributes than the dictionaries of a class share: each active run would have one of its own, of 1,600 bytes.
    __slots__ = (
        "_received",
        "arrivals",
        "asked",
        "at_frontier",
        "body",
        "callbacks",
        "cancel_reason",
        "caps",
        "codec",
        "comparing",
        "completions",
        "consumed",
        "crash_limit",
        "current",
        "decision",
        "definition",
        "feeds",
        "heard",
        "helpers",
        "history",
        "leaves",
        "old_ids",
        "opened",
        "replaying",
        "room",
        "run_id",
        "runnable",
        "running",
        "signal_waiters",
        "signals",
        "started",
        "taken",
        "time",
        "token_key",
        "unanswered",
        "unbegun",
        "unfinished",
        "unmatched",
        "unseen",
    )

    def __init__(
        self,
        definition: Workflow[..., Any],
        started: RunStarted,
        recorded: History,
        run_id: str,
        codec: Codec,
        crash_limit: int,
        caps: Caps,
    ) -> None:
        self.caps = caps
        self.history = recorded
        self.started = started
        self.definition = definition
        self.run_id = run_id
        self.codec = codec
        self.crash_limit = crash_limit
        self.decision = Decision()
        #: Strands to be resumed, and with what; `AT_REST` between turns.
        self.runnable: deque[tuple[StrandNode, NodeOutcome]] = AT_REST
        #: How many members of groups may begin before the turn pauses; and the groups that then had more, in the order
        #: in which they continue, before all else.
        self.room = UNBOUNDED
        self.unfinished: Sequence[Unfinished] = ()
        #: The strands of helpers that are open, and that of the body, once it has begun.
        self.helpers: Sequence[StrandNode] = ()
        self.body: StrandNode | None = None
        self.leaves: dict[str, Leaf[Any]] = {}
        #: Positions of open `for_each`es whose later children the file starts.
        self.feeds: frozenset[str] = _NO_FEEDS
        #: Members of open groups that may not have begun yet, by position: their coroutines have to be closed.
        self.unbegun: dict[str, Sequence[Any]] = NOTHING
        self.signal_waiters: dict[Channel, Sequence[SignalWaiter]] = NOTHING
        #: `as_completed`s and `wait_first`s, by position: their members are open beside what follows them.
        self.completions: dict[str, Completions] = NOTHING
        #: Callbacks of this attempt of the run, by position, answered or not.
        self.callbacks: dict[str, CallbackNode] = NOTHING
        #: Whether it has children by ids as they were before (see `run_ids`).
        self.old_ids = False
        #: What the nonces of new ones are made of.
        self.token_key = ""
        #: Signals that nobody consumed yet, by channel.
        self.signals: dict[Channel, deque[NumberedSignal]] = NOTHING
        #: Requests that were consumed and not answered yet, by id.
        self.unanswered: dict[str, NumberedSignal] = NOTHING
        #: Those that members of open groups consumed, by position: no code has seen them yet.
        self.unseen: dict[str, NumberedSignal] = NOTHING
        self._received = 0
        #: How many somebody has consumed.
        self.heard = 0
        #: Recorded commands that the code has not asked for yet.
        self.unmatched: dict[str, CommandEvent] = dict(recorded.commands) if recorded.commands else NOTHING
        #: Steps whose attempt is running.
        self.running = 0
        self.time = self.started.at  # of the turn
        #: Why the run is being cancelled, once it is.
        self.cancel_reason = ""
        self.replaying = False
        #: Set in the replay of a reopened or unfinished history once all that it holds was delivered.
        self.at_frontier = False
        #: Arrivals taken so far; and how many events were looked at for that, later attempts included.
        self.arrivals = 0
        self.taken = 0
        #: Commands opened since the list was emptied, while somebody looks on (see `Execution.walk`).
        self.opened: list[CommandEvent] | None = None
        #: While somebody looks on: the signals that were consumed, by the position of who waited for them.
        self.consumed: dict[str, SignalReceived] = NOTHING
        #: Which commands' arguments are compared with the recorded ones, and what was found.
        self.comparing: Comparing = NOT_COMPARING
        #: The op that is being opened, and the strand whose code runs right now.
        self.asked: Command | None = None
        self.current: StrandNode | None = None

    @property
    def delivered_all(self) -> bool:
        """Whether nothing that is recorded is still to be delivered."""
        return self.taken >= len(self.history.arrivals)

    def open(self, op: Command, position: str, owner: NodeOwner, index: int) -> Node | None:
        """Open *op* at *position*; its node reports to *owner*."""
        raise NotImplementedError  # pragma: no cover - `Execution` has its own

    def refuse(self, op: Command) -> None:
        """Open nothing for *op*: its strand is cancelled."""
        raise NotImplementedError  # pragma: no cover - `Execution` has its own

    def has_outcome(self, op: Command) -> bool:
        """Whether what *op* asks for is there already: the next of an `as_completed`."""
        raise NotImplementedError  # pragma: no cover - `Execution` has its own

    def stopped(self, event: StepStopped, step: str) -> None:
        """A step that was told to end has, without an outcome."""
        raise NotImplementedError  # pragma: no cover - `Execution` has its own

    def carried(self) -> tuple[str, ...]:
        """What the command carries that is being opened, see `Node.carried`."""
        raise NotImplementedError  # pragma: no cover - `Execution` has its own

    def completions_within(self, position: str) -> list[Completions]:
        """Those open groups that the strand at *position* left open, or one within it."""
        within = f"{position}." if position else ""
        return [group for at, group in self.completions.items() if at.startswith(within) and not group.closed]

    @property
    def strands(self) -> list[StrandNode]:
        """Those that are open, in the order in which they began."""
        body = self.body
        return [*self.helpers] if body is None or body.is_done else [body, *self.helpers]

    # --- commands ----------------------------------------------------------------------------------

    def command(self, event: _E, aliases: Sequence[str] = ()) -> tuple[_E, bool]:
        """
        The recorded event for this command, or *event* itself, recorded now; and whether it is new.

        *aliases* are names that it had in older code.
        """
        position: str = event.position
        recorded = self.unmatched.pop(position, None)
        if self.opened is not None:
            self.opened.append(recorded or event)
        if recorded is not None:
            if type(recorded) is not type(event) or not alike(recorded, event, aliases):
                self.diverge(position, event, recorded)
            if position in self.comparing.positions and not self._carries(recorded):
                self._carries_other(recorded, event)
            return recorded, False
        if self.replaying and not self.may_ask_anew:
            self.diverge(position, event)
        self.decision.events.append(event)
        return event, True

    @property
    def may_ask_anew(self) -> bool:
        """Whether what the code asks for, and is not recorded, is new; else the code has changed."""
        return not self.replaying or self.history.reopened or self.at_frontier

    def taken_as(self, position: str, kind: type[_E], name: str) -> _E | None:
        """
        The command at *position*, taken, if it is recorded with the *kind* and *name* of what the code asks for.

        As most replayed commands are: nothing is made of them that would only be compared. All else is for `command`.
        """
        recorded = self.unmatched.get(position)
        if recorded is None or type(recorded) is not kind or recorded.name != name:
            return None
        if position in self.comparing.positions and not self._carries(recorded):
            return None
        del self.unmatched[position]
        if self.opened is not None:
            self.opened.append(recorded)
        return recorded

    def _carries(self, recorded: CommandEvent) -> bool:
        """Whether the command that is being opened carries what was recorded, as far as can be told."""
        if not recorded.digest:
            return True
        carried = self.carried()
        return not carried or any(self.comparing.equal(recorded, each, self.codec) for each in carried)

    def _carries_other(self, recorded: CommandEvent, requested: CommandEvent) -> None:
        """
        The command that is being opened carries something else than recorded.

        Raises:
            NondeterminismError: That is not allowed here.
        """
        if self.comparing.strict:
            raise other_arguments(self.run_id, recorded, requested, self._digest())
        self.comparing.changed = added(self.comparing.changed, requested)

    def replays(self, position: str) -> CommandEvent | None:
        """The command at *position*, if it is recorded already."""
        return self.unmatched.get(position)

    def diverge(
        self, position: str, requested: Requested | None, recorded: CommandEvent | None = None, why: str = ""
    ) -> NoReturn:
        """
        The code asks for *requested* (None: for nothing) where something else is recorded.

        Raises:
            NondeterminismError: Always.
        """
        recorded = recorded or self.history.commands.get(position)
        code = Code([] if self.current is None else self.current.strand.frames(), self.definition.fn)
        digest = self._digest() if requested is not None and requested.category == "command" else ""
        raise diverged(self.run_id, position, recorded, requested, self.history.commands, code, digest, why)

    def _digest(self) -> str:
        """Of what the command carries that is being opened."""
        carried = self.carried()
        return self.codec.digest_of(carried[0]) if carried else ""

    def site(self, op: Any) -> str:
        """Where *op* was made, short enough to be recorded with every command."""
        site: current_driver.CallSite | None = op.site
        if site is None:
            return ""
        return _short(site)

    # --- children, waits, blocks -------------------------------------------------------------------

    def note_cancel(self, position: str) -> bool:
        """Record that what stands at *position* was told to end; in a replay, whether it is recorded."""
        if self.replaying:
            return position in self.history.cancels_sent
        self.decision.events.append(CancelSent(position, self.time))
        return True

    def child_id(self, position: str) -> str:
        """The id of the child at *position*: derived, so a child exists exactly once."""
        return run_ids.child(self.run_id, position, self.history.generation, old=self.old_ids)

    def is_unborn(self, run_id: str) -> bool:
        """Whether a child is to be created by this very turn."""
        return any(child.run_id == run_id for child in self.decision.children)

    def cancel_child(self, run_id: str) -> None:
        """Ask a child to end; one that this very turn would create is not created."""
        unborn = next((child for child in self.decision.children if child.run_id == run_id), None)
        if unborn is not None:
            removed(self.decision.children, unborn)
        elif not self.replaying:
            self.decision.cancelled_children = added(self.decision.cancelled_children, run_id)

    def closed_wait(self, wait: Wait) -> None:
        """A wait ended otherwise than by its arrival: its row goes, or is not written at all."""
        if not removed(self.decision.waits, wait) and not self.replaying:
            self.decision.waits_closed = added(self.decision.waits_closed, wait)

    # --- signals -----------------------------------------------------------------------------------

    def receive_signal(self, event: SignalReceived) -> None:
        """Give a signal to the one that has waited longest for its name; else keep it."""
        self._received += 1
        self._give(NumberedSignal(self._received, event))

    def _give(self, signal: NumberedSignal) -> None:
        channel = signal.event.channel
        if waiting := self.signal_waiters.get(channel):
            waiting[0].receive(signal)
            return
        kept = self.signals.get(channel)
        if kept is None:
            kept = deque()
            self.signals = entered(self.signals, channel, kept)
        kept.append(signal)
        if len(kept) > 1 and kept[-2].number > signal.number:  # it came back, to its place in the queue
            self.signals[channel] = deque(sorted(kept))

    def return_signals(self, positions: Sequence[str]) -> None:
        """Put the signals back that were consumed at *positions*, whose group came to something else."""
        for signal in sorted(self.unseen.pop(position) for position in positions):
            self.heard -= 1
            self.unanswered.pop(signal.event.request, None)
            self._give(signal)

    def take_signal(self, channel: Channel) -> NumberedSignal | None:
        """The oldest signal of *channel* that nobody consumed yet."""
        kept = self.signals.get(channel)
        return kept.popleft() if kept else None

    def turn_away(self, event: SignalReceived, reason: str) -> None:
        """Refuse a request whose question does not fit, since it is its asker's mistake and not the workflow's."""
        payload = self.codec.encode(reason, str, where="a reason")
        self.decision.events.append(RequestTurnedAway(event.name, event.request, payload, self.time))
        self.decision.replies = added(self.decision.replies, ReplyAction(event.request, payload, refused=True))
