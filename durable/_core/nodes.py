"""
Open commands: leaves (a step, a timer, a signal, a child) and groups (gather, race, ...).

Every command a strand asks for becomes a node, and reports its outcome to its owner: a strand,
or the group it is a member of. Cancelling is structured: a cancelled group reports only once
all of its members have reported, so clean-up in a helper strand ends before its group does.

Nodes hold no rule about replay: they ask `Execution.command` whether a command is recorded or
new, and act (emit actions and waits) only for new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from durable._core.decision import Wait, WaitKind, WakeOn
from durable._core.events import (
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildStarted,
    ChildSucceeded,
    Event,
    GroupOpened,
    SignalAwaited,
    SignalReceived,
    TimerFired,
    TimerSet,
)
from durable._core.ops import (
    AwaitRunOp,
    Child,
    Command,
    ForEachOp,
    GatherOp,
    Op,
    RaceOp,
    RunOp,
    Settled,
    SettleOp,
    SleepOp,
    StartOp,
    TimeoutOp,
    WaitForOp,
    Winner,
)
from durable._core.outcomes import rebuilt
from durable._core.strand import Strand
from durable.errors import DecodeError, RunCancelled, RunCancelledError

if TYPE_CHECKING:
    from durable._core.execution import Execution


class Outcome:
    """How a command ended: with a value, an error, or cancelled."""

    __slots__ = ("cancelled", "error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        self.value = value
        self.error = error
        self.cancelled = cancelled


CANCELLED = Outcome(cancelled=True)


class Owner(Protocol):
    """Who is told how a node ended."""

    def member_done(self, index: int, outcome: Outcome) -> None: ...


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

    def delivered(self, error: BaseException) -> BaseException:
        """*error*, marked with the position whose failure it is, so that a retry finds it."""
        try:
            error.__durable_position__ = self.position  # type: ignore[attr-defined]  # ours alone
        except AttributeError:  # a type with slots: retry falls back to the closing event
            pass
        return error


# --- strands -------------------------------------------------------------------------------------


class StrandNode(Node):
    """A strand: the body of the run, or a helper coroutine in a group."""

    __slots__ = ("cancel_requested", "current", "strand")

    def __init__(self, ex: Execution, strand: Strand, owner: Owner, index: int) -> None:
        super().__init__(ex, strand.prefix, owner, index)
        self.strand = strand
        self.current: Node | None = None
        self.cancel_requested = False
        ex.strands.append(self)

    def begin(self) -> None:
        """Run it to its first command, in its turn."""
        self.ex.runnable.append((self, Outcome()))

    def member_done(self, index: int, outcome: Outcome) -> None:
        """Its current command ended."""
        self.current = None
        self.ex.runnable.append((self, outcome))

    def step(self, outcome: Outcome) -> None:
        """Resume the code with *outcome*, and open what it asks for."""
        error = outcome.error
        if outcome.cancelled or self.cancel_requested:
            self.cancel_requested = False
            error = RunCancelled(self.ex.cancel_reason)
        kind, found = self.strand.resume(outcome.value, error)
        if kind == "asked":
            self.ex.open(found, self.strand.next_position(), self, 0)
            return
        self.ex.strands.remove(self)
        if kind == "returned":
            self.report(Outcome(found))
        elif isinstance(found, RunCancelled) and self.owner is not self.ex:
            self.report(CANCELLED)
        else:
            self.report(Outcome(error=found))

    def cancel(self) -> None:
        if self.current is not None:
            self.current.cancel()
        else:
            self.cancel_requested = True


# --- leaves ----------------------------------------------------------------------------------------


class Leaf(Node):
    """A command that an arrival ends."""

    __slots__ = ("wait",)

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int) -> None:
        super().__init__(ex, position, owner, index)
        self.wait: Wait | None = None
        ex.leaves[position] = self

    def accepts(self, event: Event) -> bool:
        """Whether *event* can happen to this command in the state it is in."""
        raise NotImplementedError  # pragma: no cover - every leaf has its own

    def deliver(self, event: Event) -> None:
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
        group, wake_on = self._wake_group()
        self.wait = Wait(self.position, kind, group, wake_on, name, run_id, fire_at)
        if fresh:
            self.ex.decision.waits.append(self.wait)

    def _wake_group(self) -> tuple[str, WakeOn]:
        """
        Which rows must be gone before the run needs to be woken.

        A member of a plain gather of gathers wakes nobody until the outermost has no row left,
        so a parent of 10,000 children replays once. Any other owner wants to know at once.
        """
        group, wake_on, owner = self.position, "any", self.owner
        while isinstance(owner, (GatherNode, ForEachNode)) and not owner.closing:
            if isinstance(owner, ForEachNode) and owner.concurrency is not None:
                break  # each end makes room for the next item
            group = owner.position
            fails_fast = isinstance(owner, GatherNode) and owner.fail_fast
            wake_on = "failure" if fails_fast or wake_on == "failure" else "all"
            owner = owner.owner
        return group, wake_on  # type: ignore[return-value]  # the three literals

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

    def cancel(self) -> None:
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

    def deliver(self, event: Event) -> None:
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
        try:
            value = self.ex.codec.decode(event.value, self.type, where=f"payload of signal {self.name!r}")
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

    def deliver(self, event: Event) -> None:
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
        event, fresh = ex.command(
            ChildStarted(
                position,
                run_op.definition.name,
                run_op.given.id or ex.child_id(position),
                not self.starting,
                ex.site(op),
                ex.digest(run_op.args, run_op.kwargs),
                ex.time,
            )
        )
        self.run_id = event.run_id
        if fresh:
            ex.start_child(position, self.run_id, run_op, awaited=not self.starting)
        if self.starting and run_op.given.key is None and run_op.definition.options.key is None:
            self.close(Outcome(Child(self.run_id, self.type)))
            return
        self.wait_for("child", run_id=self.run_id, fresh=fresh and not self.starting)

    def accepts(self, event: Event) -> bool:
        return isinstance(event, (ChildSucceeded, ChildFailed, ChildCancelled, ChildJoined))

    def deliver(self, event: Event) -> None:
        match event:
            case ChildSucceeded():
                where = f"result of run {self.run_id!r}"
                self.close(Outcome(self.ex.codec.decode(event.value or "null", self.type, where=where)))
            case ChildFailed():
                error = rebuilt(event.value, self.ex.codec)
                error.add_note(f"in run {event.run_id!r}, started at {self.position} of {self.ex.run_id!r}")
                self.close(Outcome(error=self.delivered(error)))
            case ChildCancelled():
                cancelled = RunCancelledError(event.run_id, event.reason)
                self.close(Outcome(error=self.delivered(cancelled)))
            case ChildJoined():
                self.run_id = event.run_id
                if self.starting:
                    self.close(Outcome(Child(event.run_id, self.type)))

    def cancel(self) -> None:
        self.ex.cancel_child(self.run_id)
        super().cancel()


# --- groups -------------------------------------------------------------------------------------------


class Group(Node):
    """A command made of members."""

    __slots__ = ("closing", "members", "opening", "outcomes", "was_cancelled")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int) -> None:
        super().__init__(ex, position, owner, index)
        self.members: dict[int, Node] = {}
        self.outcomes: dict[int, Outcome] = {}
        #: Set once what is still open no longer counts.
        self.closing = False
        self.opening = False
        self.was_cancelled = False

    def announce(self, op: Command, name: str, size: int, value: Any = None) -> GroupOpened:
        """Record that this group began; the recorded event, which may be older than this code."""
        event, _ = self.ex.command(GroupOpened(self.position, name, size, self.ex.site(op), value, self.ex.time))
        return event

    def open_member(self, member: Any, index: int) -> None:
        """Open the member's op, or begin its strand, unless the group is closing already."""
        position = f"{self.position}.{index}"
        if isinstance(member, Op):
            node = self.ex.open(member, position, self, index)
        else:
            strand = StrandNode(self.ex, Strand(member, position), self, index)
            strand.begin()
            node = strand
        if node is not None and not node.closed:
            self.members[index] = node

    def member_done(self, index: int, outcome: Outcome) -> None:
        self.members.pop(index, None)
        self.outcomes[index] = outcome
        if not self.closing and not outcome.cancelled and self.decides(index, outcome):
            self.close_members()
        self.finish_if_done()

    def decides(self, index: int, outcome: Outcome) -> bool:
        """Whether *outcome* settles the group, so that the rest is cancelled."""
        return False

    def close_members(self) -> None:
        """Cancel whatever is still open."""
        self.closing = True
        for node in list(self.members.values()):
            node.cancel()

    def finish_if_done(self) -> None:
        """Report, once every member has."""
        if self.closed or self.opening or self.members:
            return
        self.report(CANCELLED if self.was_cancelled else self.result())

    def result(self) -> Outcome:
        """The group's outcome, all members having ended."""
        raise NotImplementedError  # pragma: no cover - every group has its own

    def cancel(self) -> None:
        if not self.closed:
            self.was_cancelled = True
            self.close_members()
            self.finish_if_done()

    def open_all(self, members: tuple[Any, ...]) -> None:
        """Open members until one of them settles the group."""
        self.opening = True
        for index, member in enumerate(members):
            if self.closing:
                _discard(member)
            else:
                self.open_member(member, index)
        self.opening = False
        self.finish_if_done()


class GatherNode(Group):
    """`gather`."""

    __slots__ = ("fail_fast", "return_exceptions", "size")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: GatherOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.fail_fast, self.return_exceptions = op.fail_fast, op.return_exceptions
        self.size = len(op.members)
        self.announce(op, "gather", self.size)
        self.open_all(op.members)

    def decides(self, index: int, outcome: Outcome) -> bool:
        return self.fail_fast and outcome.error is not None

    def result(self) -> Outcome:
        errors = [outcome.error for _, outcome in sorted(self.outcomes.items()) if outcome.error is not None]
        if errors and not self.return_exceptions:
            return Outcome(error=ExceptionGroup(_failed(len(errors), self.size), errors))  # type: ignore[type-var]
        return Outcome([_value_or_error(self.outcomes[index]) for index in range(self.size)])


class RaceNode(Group):
    """`race`."""

    __slots__ = ("keys", "winner")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: RaceOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.keys = op.keys
        self.winner: int | None = None
        self.announce(op, "race", len(op.members))
        self.open_all(op.members)

    def decides(self, index: int, outcome: Outcome) -> bool:
        self.winner = index
        return True

    def result(self) -> Outcome:
        if self.winner is None:
            return CANCELLED
        outcome = self.outcomes[self.winner]
        if outcome.error is not None:
            return outcome
        key = self.keys[self.winner] if self.keys is not None else None
        return Outcome(Winner(self.winner, outcome.value, key))


class SettleNode(Group):
    """`settle`."""

    __slots__ = ()

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: SettleOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.announce(op, "settle", 1)
        self.open_all((op.member,))

    def result(self) -> Outcome:
        outcome = self.outcomes[0]
        if outcome.cancelled:
            return CANCELLED
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            return outcome
        return Outcome(Settled(outcome.value, outcome.error))


class _Deadline(Leaf):
    """The timer of a `timeout`; it stands at the same position as its group."""

    __slots__ = ()

    def accepts(self, event: Event) -> bool:
        return isinstance(event, TimerFired)

    def deliver(self, event: Event) -> None:
        self.close(Outcome())


class TimeoutNode(Group):
    """`timeout`."""

    __slots__ = ("deadline", "seconds", "timed_out")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: TimeoutOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.seconds = op.seconds
        self.timed_out = False
        self.deadline = _Deadline(ex, position, self, -1)
        event, fresh = ex.command(TimerSet(position, "timeout", ex.time + op.seconds, ex.site(op), ex.time))
        self.deadline.wait_for("timer", fire_at=event.fire_at, fresh=fresh)
        self.open_all((op.member,))

    def member_done(self, index: int, outcome: Outcome) -> None:
        if index == 0:
            if not self.deadline.closed:
                self.deadline.cancel()
            super().member_done(index, outcome)
        elif not outcome.cancelled:  # the deadline fired
            self.timed_out = True
            self.close_members()
            self.finish_if_done()

    def cancel(self) -> None:
        if not self.deadline.closed:
            self.deadline.cancel()
        super().cancel()

    def result(self) -> Outcome:
        if self.timed_out:
            return Outcome(error=self.delivered(TimeoutError(f"not done within {self.seconds:g} s")))
        return self.outcomes[0]


class ForEachNode(Group):
    """`for_each`: a window that moves over recorded items."""

    __slots__ = ("concurrency", "definition", "items", "next")

    def __init__(self, ex: Execution, position: str, owner: Owner, index: int, op: ForEachOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.definition, self.concurrency = op.definition, op.concurrency
        item_type = op.definition.arguments.positional(0)
        where = f"items of for_each {op.definition.name!r}"
        value = None if ex.replays(position) else ex.codec.encode(list(op.items), list[item_type], where=where)
        event = self.announce(op, f"for_each {op.definition.name}", len(op.items), value)
        self.items: list[Any] = ex.codec.decode(event.value or "[]", list[item_type], where=where)
        self.next = 0
        self._fill()

    def _fill(self) -> None:
        self.opening = True
        while (
            not self.closing
            and self.next < len(self.items)
            and (self.concurrency is None or len(self.members) < self.concurrency)
        ):
            index, self.next = self.next, self.next + 1
            self.open_member(self.definition(self.items[index]), index)
        self.opening = False
        if self.closing or self.next == len(self.items):
            self.finish_if_done()

    def member_done(self, index: int, outcome: Outcome) -> None:
        self.members.pop(index, None)
        self.outcomes[index] = outcome
        if outcome.error is not None:
            self.closing = True  # start no more; those under way may end
        if not self.opening:
            self._fill()

    def result(self) -> Outcome:
        errors = [outcome.error for _, outcome in sorted(self.outcomes.items()) if outcome.error is not None]
        if errors:
            alone = errors[0] if self.concurrency == 1 else None
            return Outcome(error=alone or ExceptionGroup(_failed(len(errors), len(self.items)), errors))  # type: ignore[type-var]
        return Outcome([self.outcomes[index].value for index in range(len(self.items))])


def _value_or_error(outcome: Outcome) -> Any:
    return outcome.value if outcome.error is None else outcome.error


def _failed(count: int, size: int) -> str:
    return f"{count} of {size} failed"


def _discard(member: Any) -> None:
    """A helper coroutine that will never run is closed, so that Python does not complain about it."""
    if isinstance(member, Coroutine):
        member.close()


#: How each op opens (steps and transactions are in `attempts`, which `execution` adds).
OPENERS: dict[type, Callable[..., Node]] = {
    SleepOp: TimerNode,
    WaitForOp: SignalNode,
    RunOp: ChildNode,
    StartOp: ChildNode,
    AwaitRunOp: ChildNode,
    GatherOp: GatherNode,
    RaceOp: RaceNode,
    SettleOp: SettleNode,
    TimeoutOp: TimeoutNode,
    ForEachOp: ForEachNode,
}
