"""
Open commands: strands, and leaves (a timer, a signal, a child; steps are in `attempts`).

Every command a strand asks for becomes a node, and reports its outcome to its owner: a strand,
or the group it is a member of. Cancelling is structured: a cancelled group reports only once
all of its members have reported, so clean-up in a helper strand ends before its group does.

Nodes hold no rule about replay: they ask `Execution.command` whether a command is recorded or
new, and act (emit actions and waits) only for new ones.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from durable._core.journal.events import (
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildStarted,
    ChildSucceeded,
    Event,
    SignalAwaited,
    SignalReceived,
    TimerFired,
    TimerSet,
)
from durable._core.journal.payloads import arguments_payload, rebuilt
from durable._core.journal.waits import Wait, WaitKind, WakeOn
from durable._core.program.ops import AwaitRunOp, Child, Op, RunOp, SleepOp, StartOp, WaitForOp
from durable._core.run.decision import ChildAction, added
from durable._core.run.strand import Strand
from durable.errors import DecodeError, RunCancelled, RunCancelledError

if TYPE_CHECKING:
    from durable._core.run.execution import Execution


class Outcome:
    """How a command ended: with a value, an error, or cancelled."""

    __slots__ = ("cancelled", "error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        self.value = value
        self.error = error
        self.cancelled = cancelled


CANCELLED = Outcome(cancelled=True)
_ANY: WakeOn = "any"


class Owner(Protocol):
    """Who is told how a node ended."""

    def member_done(self, index: int, outcome: Outcome, /) -> None: ...


class _Nobody:
    """Owns what is open when an execution is closed."""

    def member_done(self, index: int, outcome: Outcome, /) -> None:
        """Nobody is told."""


NOBODY = _Nobody()


class Node:
    """One open command."""

    __slots__ = ("closed", "ex", "index", "owner", "position")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int) -> None:
        self.ex = ex
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False

    def report(self, outcome: Outcome) -> None:
        """Tell the owner, once."""
        self.closed = True
        self.owner.member_done(self.index, outcome)

    def cancel(self) -> None:
        """Give up; reports `CANCELLED`, at once for leaves, when all members have for groups."""
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
        with contextlib.suppress(AttributeError):  # a type with slots: retry falls back to the closing event
            error.__durable_position__ = self.position  # type: ignore[attr-defined]  # ours alone
        return error


def wake_group(position: str, owner: Owner) -> tuple[str, WakeOn]:
    """
    Which rows must be gone before a run needs to be woken that waits at *position* for *owner*.

    A member of a plain gather of gathers wakes nobody until the outermost has no row left,
    so a parent of 10,000 children replays once. Any other owner wants to know at once.
    """
    group, wake_on, never_fails = position, _ANY, False
    while isinstance(owner, Node) and (rule := owner.member_rule()) != "any":
        if wake_on == "any":
            wake_on = rule
        elif rule == "fail_fast" and not never_fails:
            break  # the end of the group below may decide this one
        never_fails = owner.never_fails
        group, owner = owner.position, owner.owner
    return group, wake_on


# --- strands -------------------------------------------------------------------------------------


class StrandNode(Node):
    """A strand: the body of the run, or a helper coroutine in a group."""

    __slots__ = ("cancelled", "current", "strand", "throw_cancel")

    def __init__(self, ex: Execution, strand: Strand, owner: Owner, index: int) -> None:
        super().__init__(ex, strand.prefix, owner, index)
        self.strand = strand
        self.current: Node | None = None
        #: Set once somebody cancelled it: what it raises then is no failure.
        self.cancelled = False
        #: Set while the cancellation still has to be raised in its code.
        self.throw_cancel = False
        ex.strands.append(self)

    def begin(self) -> None:
        """Run it to its first command, in its turn."""
        self.ex.runnable.append((self, Outcome()))

    def member_done(self, _index: int, outcome: Outcome) -> None:
        """Its current command ended."""
        self.current = None
        self.ex.runnable.append((self, outcome))

    def step(self, outcome: Outcome) -> None:
        """Resume the code with *outcome*, and open what it asks for."""
        error = outcome.error
        if outcome.cancelled or self.throw_cancel:
            self.throw_cancel = False
            error = RunCancelled(self.ex.cancel_reason)
        strand = self.strand
        asked = strand.resume(outcome.value, error)
        if asked is not None:
            node = self.ex.open(asked, strand.next_position(), self, 0)
            if node is not None and not node.closed:
                self.current = node
            return
        self.ex.strands.remove(self)
        raised = self.strand.raised
        if isinstance(raised, RunCancelled) and self.cancelled:
            self.report(CANCELLED)
        elif isinstance(raised, (KeyboardInterrupt, SystemExit)):
            raise raised  # meant for the program, not for the run
        else:
            self.report(Outcome(self.strand.value, raised))

    def cancel(self) -> None:
        self.cancelled = True
        if self.current is not None:
            self.current.cancel()
        else:  # about to be resumed: the cancellation takes the place of the outcome
            self.throw_cancel = True


# --- leaves ----------------------------------------------------------------------------------------


class Leaf(Node):
    """A command that an arrival ends."""

    __slots__ = ("wait",)

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int) -> None:
        self.ex = ex  # as Node does: one is made for every command
        self.position = position
        self.owner = owner
        self.index = index
        self.closed = False
        self.wait: Wait | None = None
        ex.leaves[position] = self

    def accepts(self, event: Event) -> bool:
        """Whether *event* can happen to this command in the state it is in."""
        raise NotImplementedError  # pragma: no cover - every leaf has its own

    def deliver(self, event: Event, /) -> None:
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
        # A retry is this step's own affair: it begins when it is due, whatever its group waits for.
        group, wake_on = (self.position, _ANY) if kind == "retry" else wake_group(self.position, self.owner)
        self.wait = Wait(self.position, kind, group, wake_on, name, run_id, fire_at)
        if fresh:
            self.ex.decision.waits = added(self.ex.decision.waits, self.wait)

    def close(self, outcome: Outcome, *, arrived: bool = True) -> None:
        """End with *outcome*; the row of its wait is gone already where an arrival ended it."""
        if self.closed:
            return
        self.ex.leaves.pop(self.position, None)
        if self.wait is not None:
            if not arrived:
                self.ex.closed_wait(self.wait)
            self.wait = None
        self.report(outcome)

    def withdraw(self) -> None:
        """Undo what the command set going outside: nobody waits for its outcome any more."""

    def converted(self, event: Event) -> Event:
        """What is recorded for *event*."""
        return event

    def cancel(self) -> None:
        if not self.closed:
            self.withdraw()
            self.close(CANCELLED, arrived=False)


class TimerNode(Leaf):
    """`sleep` and `sleep_until`."""

    __slots__ = ()

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: SleepOp) -> None:
        super().__init__(ex, position, owner, index)
        name = "sleep" if op.until is None else "sleep_until"
        fire_at = op.until if op.until is not None else ex.time + (op.seconds or 0.0)
        event, fresh = ex.command(TimerSet(position, name, fire_at, ex.site(op), ex.time))
        self.wait_for("timer", fire_at=event.fire_at, fresh=fresh)

    def accepts(self, event: Event) -> bool:
        return isinstance(event, TimerFired)

    def deliver(self, _event: Event, /) -> None:
        self.close(Outcome())


class SignalNode(Leaf):
    """`wait_for`."""

    __slots__ = ("name", "type")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: WaitForOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.name, self.type = op.name, op.type
        fire_at = None if op.timeout is None else ex.time + op.timeout
        event, fresh = ex.command(SignalAwaited(position, op.name, fire_at, ex.site(op), ex.time))
        if buffered := ex.take_signal(op.name):
            self.receive(buffered)
            return
        ex.signal_waiters.setdefault(op.name, []).append(self)
        self.wait_for("signal", name=op.name, fire_at=event.fire_at, fresh=fresh)

    def receive(self, event: SignalReceived) -> None:
        """Consume *event*."""
        if self.ex.opened is not None:
            self.ex.consumed[self.position] = event
        try:
            value = self.ex.codec.decode(event.value or "null", self.type, where=f"payload of signal {self.name!r}")
        except DecodeError as error:
            # The sender's mistake: raised in the workflow, which can answer it, rather than
            # blocking a run for ever on a payload that no change of code makes fit.
            self.close(Outcome(error=self.delivered(error)), arrived=False)
        else:
            self.close(Outcome(value), arrived=False)

    def close(self, outcome: Outcome, *, arrived: bool = True) -> None:
        waiters = self.ex.signal_waiters.get(self.name, [])
        if self in waiters:
            waiters.remove(self)
        super().close(outcome, arrived=arrived)

    def accepts(self, event: Event) -> bool:
        return isinstance(event, TimerFired)

    def deliver(self, _event: Event, /) -> None:
        limit = TimeoutError(f"no signal {self.name!r} came in time")
        self.close(Outcome(error=self.delivered(limit)))


class ChildNode(Leaf):
    """A child run awaited, a start with a key, or the result of a run that exists."""

    __slots__ = ("run_id", "starting", "type")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: Op[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.starting = isinstance(op, StartOp)
        if isinstance(op, AwaitRunOp):
            self.run_id, self.type = op.run_id, op.type
            _, fresh = ex.command(ChildAwaited(position, op.run_id, ex.site(op), ex.time))
            self.wait_for("child", run_id=self.run_id, fresh=fresh)
            return
        run_op: RunOp[Any] = op.op if isinstance(op, StartOp) else op  # type: ignore[assignment]  # the only others
        self.type = run_op.definition.result
        arguments = "" if ex.replays(position) else arguments_payload(run_op, ex.codec)
        event, fresh = ex.command(
            ChildStarted(
                position,
                run_op.definition.name,
                run_op.given.id or ex.child_id(position),
                not self.starting,
                ex.site(op),
                ex.codec.digest(arguments) if arguments else "",
                ex.time,
            ),
            run_op.definition.aliases,
        )
        self.run_id = event.run_id
        feed, fed = owner.feed_of(index) if isinstance(owner, Node) else (None, False)
        if fresh and not fed:
            child = ChildAction(position, self.run_id, run_op, arguments, awaited=not self.starting)
            ex.decision.children = added(ex.decision.children, child)
        given = run_op.given
        may_exist = given.key is not None or given.id is not None or run_op.definition.options.key is not None
        if self.starting and not may_exist:  # else `ChildJoined` tells which run it is
            self.close(Outcome(Child(self.run_id, self.type)))
            return
        self.wait_for("child", name=feed, run_id=self.run_id, fresh=fresh and not (self.starting or fed))

    def accepts(self, event: Event) -> bool:
        return isinstance(event, (ChildSucceeded, ChildFailed, ChildCancelled, ChildJoined))

    def deliver(self, event: Event) -> None:
        match event:
            case ChildSucceeded():
                where = f"result of run {self.run_id!r}"
                self.close(Outcome(self.ex.codec.decode(event.value or "null", self.type, where=where)))
            case ChildFailed():
                error = rebuilt(event.value, self.ex.codec)
                if event.run_id:
                    error.add_note(f"in run {event.run_id!r}, started at {self.position} of {self.ex.run_id!r}")
                self.close(Outcome(error=self.delivered(error)))
            case ChildCancelled():
                cancelled = RunCancelledError(event.run_id, event.reason)
                self.close(Outcome(error=self.delivered(cancelled)))
            case ChildJoined():
                self.run_id = event.run_id
                if self.starting:
                    self.close(Outcome(Child(event.run_id, self.type)))
            case _:
                pass

    def withdraw(self) -> None:
        self.ex.cancel_child(self.run_id)
