"""
Groups: commands made of members (gather, race, settle, timeout, for_each).

A group reports once every member has. What settles it early (the first of a race, a failure
where `fail_fast` is set, a deadline) cancels the rest, and it still waits for their reports. What is settled
stays so, whatever they report; and so it does if the group itself is cancelled then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durable._core.codec.exceptions.parts import is_exception
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.events import FeedOpened, GroupOpened, TimerSet
from durable._core.journal.payloads import arguments_payload
from durable._core.journal.waits import WakeOn
from durable._core.program.command import Command
from durable._core.program.functions import Job, Workflow
from durable._core.program.group_ops import ForEachOp, GatherOp, RaceOp, Settled, SettleOp, TimeoutOp, Winner, discard
from durable._core.program.limits import Limit
from durable._core.program.ops import Op
from durable._core.run.decision import FedChild, Feed
from durable._core.run.nodes import (
    CANCELLED,
    LateOutcome,
    Node,
    NodeOutcome,
    NodeOwner,
    Opener,
    OpenRun,
    StrandNode,
    TimerLeaf,
    wake_group,
)
from durable._core.run.strand import Strand


class Group(Node):
    """A command made of members."""

    __slots__ = ("closing", "members", "opening", "outcomes", "settled_before", "was_cancelled")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int) -> None:
        super().__init__(ex, position, owner, index)
        self.members: dict[int, Node] = {}
        self.outcomes: dict[int, NodeOutcome] = {}
        #: Set once what is still open no longer counts.
        self.closing = False
        self.opening = False
        self.was_cancelled = False
        #: Set if it was settled when it was cancelled.
        self.settled_before = False

    def announce(
        self, op: Command, name: str, size: int, value: Any = None, aliases: Sequence[str] = ()
    ) -> GroupOpened:
        """Record that this group began; the recorded event, which may be older than this code."""
        opened = GroupOpened(self.position, name, size, self.ex.site(op), value, self.ex.time)
        event, _ = self.ex.command(opened, aliases)
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

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
        self.members.pop(index, None)
        self.outcomes[index] = outcome
        if not self.closing and not outcome.cancelled and self.decides(index, outcome):
            self.close_members()
        self.finish_if_done()

    def decides(self, _index: int, _outcome: NodeOutcome, /) -> bool:
        """Whether the outcome of a member settles the group, so that the rest is cancelled."""
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
        if self.settled_before or (self.was_cancelled and self.came_late()):
            outcome = self.result()
            self.report(LateOutcome(outcome.value, outcome.error))
        else:
            self.report(CANCELLED if self.was_cancelled else self.result())

    def report(self, outcome: NodeOutcome) -> None:
        if self.ex.unseen:
            self._settle_signals(outcome)
        super().report(outcome)

    def _settle_signals(self, outcome: NodeOutcome) -> None:
        """Signals that members consumed go back to the queue, if their values are no part of *outcome*."""
        unseen, start = self.ex.unseen, len(self.position) + 1
        mine = [position for position in unseen if position.startswith(f"{self.position}.")]
        lost = [position for position in mine if not self.shows(int(position[start:].partition(".")[0]), outcome)]
        self.ex.return_signals(lost)
        if isinstance(self.owner, StrandNode):  # its code sees the others now
            for position in mine:
                unseen.pop(position, None)

    def shows(self, _index: int, outcome: NodeOutcome, /) -> bool:
        """Whether the value of a member is part of *outcome*."""
        return outcome.error is None and not outcome.cancelled

    def came_late(self) -> bool:
        """Whether the group has an outcome although it was cancelled: members had theirs all the same."""
        outcomes = self.outcomes.values()
        return any(outcome.late for outcome in outcomes) and not any(outcome.cancelled for outcome in outcomes)

    @property
    def settled(self) -> bool:
        """Whether its outcome is known already, and the rest cancelled."""
        return self.closing

    def result(self) -> NodeOutcome:
        """The group's outcome, all members having ended."""
        raise NotImplementedError  # pragma: no cover - every group has its own

    def cancel(self) -> None:
        if self.closed or self.settled_before:
            return
        if self.settled and not self.was_cancelled and self.ex.note_cancel(self.position):
            self.settled_before = True
            return
        self.was_cancelled = True
        self.close_members()
        self.finish_if_done()

    def open_all(self, members: tuple[Any, ...]) -> None:
        """Open members until one of them settles the group."""
        self.opening = True
        for index, member in enumerate(members):
            if self.closing:
                discard(member)
            else:
                self.open_member(member, index)
        self.opening = False
        self.finish_if_done()


class GatherNode(Group):
    """`gather`."""

    __slots__ = ("at_least", "fail_fast", "return_exceptions", "size")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: GatherOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.fail_fast, self.return_exceptions, self.at_least = op.fail_fast, op.return_exceptions, op.at_least
        self.size = len(op.members)
        self.announce(op, "gather" if op.at_least is None else f"gather at least {op.at_least}", self.size)
        self.open_all(op.members)

    def member_rule(self) -> WakeOn:
        if self.closing or self.at_least is not None:
            return "any"
        return "fail_fast" if self.fail_fast else "all"

    @property
    def never_fails(self) -> bool:
        return self.return_exceptions

    def decides(self, _index: int, outcome: NodeOutcome, /) -> bool:
        if self.at_least is None:
            return self.fail_fast and outcome.error is not None
        succeeded, open_yet = len(self._succeeded()), self.size - len(self.outcomes)
        return succeeded >= self.at_least or succeeded + open_yet < self.at_least

    def _succeeded(self) -> list[Any]:
        ended = [outcome for _, outcome in sorted(self.outcomes.items())]
        return [each.value for each in ended if each.error is None and not each.cancelled]

    def came_late(self) -> bool:
        return len(self.outcomes) == self.size and super().came_late()

    def result(self) -> NodeOutcome:
        if self.at_least is not None and len(succeeded := self._succeeded()) >= self.at_least:
            return NodeOutcome(succeeded)
        errors = [outcome.error for _, outcome in sorted(self.outcomes.items()) if outcome.error is not None]
        if errors and not self.return_exceptions:
            return NodeOutcome(error=_group(errors, self.size))
        return NodeOutcome([_value_or_error(self.outcomes[index]) for index in range(self.size)])


class RaceNode(Group):
    """`race`."""

    __slots__ = ("keys", "winner")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: RaceOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.keys = op.keys
        self.winner: int | None = None
        self.announce(op, "race", len(op.members))
        self.open_all(op.members)

    def decides(self, index: int, _outcome: NodeOutcome, /) -> bool:
        self.winner = index
        return True

    def shows(self, index: int, outcome: NodeOutcome, /) -> bool:
        return index == self.winner and super().shows(index, outcome)

    def came_late(self) -> bool:
        late = (index for index, outcome in self.outcomes.items() if outcome.late)
        self.winner = next(late, None)
        return self.winner is not None

    def result(self) -> NodeOutcome:
        if self.winner is None:
            return CANCELLED
        outcome = self.outcomes[self.winner]
        if outcome.error is not None:
            return outcome
        key = self.keys[self.winner] if self.keys is not None else None
        return NodeOutcome(Winner(self.winner, outcome.value, key))


class SettleNode(Group):
    """`settle`."""

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: SettleOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.announce(op, "settle", 1)
        self.open_all((op.member,))

    def member_rule(self) -> WakeOn:
        return "all"

    @property
    def never_fails(self) -> bool:
        return True

    def result(self) -> NodeOutcome:
        outcome = self.outcomes[0]
        if outcome.cancelled:
            return CANCELLED
        error = outcome.error
        if error is None or is_exception(error):
            return NodeOutcome(Settled(outcome.value, error))
        return outcome


class TimeoutNode(Group):
    """`timeout`."""

    __slots__ = ("deadline", "seconds", "timed_out")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: TimeoutOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.seconds = op.seconds
        self.timed_out = False
        self.deadline = TimerLeaf(ex, position, self, -1)  # at the same position as its group
        event, fresh = ex.command(TimerSet(position, "timeout", ex.time + op.seconds, ex.site(op), ex.time))
        self.deadline.wait_for("timer", fire_at=event.fire_at, fresh=fresh)
        self.open_all((op.member,))

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
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

    def result(self) -> NodeOutcome:
        if self.timed_out:
            return NodeOutcome(error=self.delivered(TimeoutError(f"not done within {self.seconds:g} s")))
        return self.outcomes[0]


class ForEachNode(Group):
    """`for_each`: a window that moves over recorded items."""

    __slots__ = ("concurrency", "definition", "fed", "items", "next", "site")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: ForEachOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.definition, self.concurrency, self.site = op.definition, op.concurrency, op.site
        items_type: Any = list.__class_getitem__(op.definition.arguments.positional(0))
        where = f"items of for_each {op.definition.name!r}"
        fresh = not ex.replays(position)
        value = ex.codec.encode(list(op.items), items_type, where=where) if fresh else None
        aliases = [f"for_each {alias}" for alias in op.definition.aliases]
        event = self.announce(op, f"for_each {op.definition.name}", len(op.items), value, aliases)
        self.items: list[Any] = ex.codec.decode(event.value or "[]", items_type, where=where)
        self.next = 0
        #: Whether the file starts the items behind the first window: then that window stays as recorded.
        self.fed = self._open_feed() if fresh else position in ex.history.feeds
        if self.fed:
            self.concurrency = ex.history.feeds.get(position, self.concurrency)
            ex.feeds.add(position)
        self._fill()

    def _open_feed(self) -> bool:
        definition, window = self.definition, self.concurrency
        if window is None or len(self.items) <= window or not isinstance(definition, (Job, Workflow)):
            return False
        limit = definition.options.limit
        of_attempts = isinstance(definition, Job) and isinstance(limit, Limit) and limit.on_conflict == "wait"
        if limit is not None and not of_attempts:
            return False  # the slot may be each child's own, by a key of its arguments
        if definition.options.key is not None:
            return False  # its run may exist already, and that is for the turn to find out
        ops = [(index, definition.for_item(self.items[index], self.site)) for index in range(window, len(self.items))]
        self.fed = True  # first, since `wake_group` asks for it
        group, wake_on = wake_group(self.position, self)
        children = [
            FedChild(index, self.ex.child_id(f"{self.position}.{index}"), arguments_payload(op, self.ex.codec))
            for index, op in ops
        ]
        self.ex.decision.feeds += (Feed(self.position, window, group, wake_on, ops[0][1], children),)
        self.ex.decision.events.append(FeedOpened(self.position, window, self.ex.time))
        return True

    @property
    def settled(self) -> bool:
        return False  # once one has failed no more begin, but those that are running are not cancelled

    def feed_of(self, index: int, /) -> tuple[str | None, bool]:
        if not self.fed or self.concurrency is None:
            return None, False
        return self.position, index >= self.concurrency

    def member_rule(self) -> WakeOn:
        if self.closing:
            return "any"
        if self.fed:
            return "failure"
        # With a window, each end must wake it, because it makes room for the next item.
        return "all" if self.concurrency is None else "any"

    def report(self, outcome: NodeOutcome) -> None:
        self.ex.feeds.discard(self.position)
        super().report(outcome)

    def cancel(self) -> None:
        if self.fed and not self.closed and not self.ex.replaying:
            decision = self.ex.decision
            decision.feeds = tuple(feed for feed in decision.feeds if feed.position != self.position)  # of this turn
            decision.feeds_closed += (self.position,)
        super().cancel()

    def _fill(self) -> None:
        self.opening = True
        while (
            not self.closing
            and self.next < len(self.items)
            and (self.concurrency is None or len(self.members) < self.concurrency)
        ):
            index, self.next = self.next, self.next + 1
            self.open_member(self.definition.for_item(self.items[index], self.site), index)
        self.opening = False
        if self.closing or self.next == len(self.items):
            self.finish_if_done()

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
        self.members.pop(index, None)
        self.outcomes[index] = outcome
        if outcome.error is not None:
            self.closing = True  # start no more; those that are running may end
        if not self.opening:
            self._fill()

    def came_late(self) -> bool:
        return len(self.outcomes) == len(self.items) and super().came_late()

    def result(self) -> NodeOutcome:
        errors = [outcome.error for _, outcome in sorted(self.outcomes.items()) if outcome.error is not None]
        if errors:
            alone = self.concurrency == 1
            return NodeOutcome(error=errors[0] if alone else _group(errors, len(self.items)))
        return NodeOutcome([self.outcomes[index].value for index in range(len(self.items))])


def _value_or_error(outcome: NodeOutcome) -> Any:
    return outcome.value if outcome.error is None else outcome.error


def _group(errors: list[BaseException], size: int) -> BaseException:
    """An `ExceptionGroup`, unless helpers raised what is not an Exception."""
    message = f"{len(errors)} of {size} failed"
    try:
        return BaseExceptionGroup(message, errors)
    except Exception:  # noqa: BLE001 - it asks what is not an Exception for its __class__, which may be the user's code
        return ExceptionGroup(
            message, [each if is_exception(each) else RuntimeError(one_line(each)) for each in errors]
        )


OPENERS: dict[type, Opener] = {
    GatherOp: GatherNode,
    RaceOp: RaceNode,
    SettleOp: SettleNode,
    TimeoutOp: TimeoutNode,
    ForEachOp: ForEachNode,
}
