"""
Groups that tell of one member at a time: `as_completed`, `wait_first`; and `poll_until`, which calls one again.

The first two are open beside what follows them: their members report to the group, and the group tells the code when it
asks (`NextNode`). No event says so, nor is there a position for it, since the order of the members' own outcomes
tells all. A strand that is cancelled ends what it left open so, before its code hears of that (see `StrandNode`); at
the end of the run steps are withdrawn, and children continue.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from durable._core.journal.events import TimerSet
from durable._core.journal.waits import WakeOn
from durable._core.policies.settled import NO_RULE
from durable._core.program.group_ops import CompletionsOp, NextCompletion, PollOp, WaitFirstOp, Winner
from durable._core.program.ops import SleepOp
from durable._core.run.decision import entered
from durable._core.run.groups import Group, MembersNode
from durable._core.run.nodes import (
    CANCELLED,
    NOBODY,
    UNBOUNDED,
    LateOutcome,
    Node,
    NodeOutcome,
    NodeOwner,
    Opener,
    OpenRun,
    TimerLeaf,
)


class CompletionsNode(MembersNode):
    """Members that are told of as they end, to those who ask for the next one."""

    __slots__ = ("end", "ready", "takers")

    def __init__(self, ex: OpenRun, position: str, op: CompletionsOp | WaitFirstOp[Any], name: str) -> None:
        super().__init__(ex, position, NOBODY, 0, op)
        #: Members that have ended, in that order, and nobody was told of.
        self.ready: deque[int] = deque()
        self.takers: deque[NextNode] = deque()
        #: How the group itself did, once it has.
        self.end: NodeOutcome | None = None
        ex.completions = entered(ex.completions, position, self)
        self.begin(name, NO_RULE)

    def fill(self) -> None:
        # Without a pause: what follows it would begin before the members that are still to begin, and after them in a
        # replay, which may have no pause there.
        room, self.ex.room = self.ex.room, UNBOUNDED
        begun = self.next
        super().fill()
        self.ex.room = room - (self.next - begun)

    def member_rule(self) -> WakeOn:
        return "any"

    @property
    def never_fails(self) -> bool:
        return True  # but for its rule: each failure is told in its turn

    def has_next(self) -> bool:
        """Whether a member has ended that nobody was told of."""
        return bool(self.ready)

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
        if not outcome.cancelled:
            self.ready.append(index)
        super().member_done(index, outcome)
        self._tell()

    def ask(self, taker: NextNode) -> None:
        """Tell *taker* of the member that ends next, or has."""
        self.takers.append(taker)
        self._tell()

    def _tell(self) -> None:
        while self.takers and (self.closed or (self.ready and not self.was_cancelled)):
            taker = self.takers.popleft()
            if self.ready:
                told = self._outcome_of(self.ready.popleft())
                taker.report(LateOutcome(told.value, told.error) if taker.stopping else told)
            else:
                assert self.end is not None
                self.ex.completions.pop(self.position, None)
                taker.report(CANCELLED if taker.stopping and self.was_cancelled else self.end)

    def _outcome_of(self, index: int) -> NodeOutcome:
        unseen, within = self.ex.unseen, f"{self.position}.{index}"
        for position in [each for each in unseen if f"{each}.".startswith(f"{within}.")]:
            del unseen[position]  # its code sees that signal now
        return self.told(index)

    def told(self, index: int) -> NodeOutcome:
        """What the code is told of the member at *index*."""
        outcome, keys = self.outcomes[index], self.op.keys
        value: Any = outcome.value
        if self.op.settles:
            value = self.settled_member(index)
        elif outcome.error is not None:
            return outcome
        return NodeOutcome((value if keys is None else (keys[self.order[index]], value),))

    def result(self) -> NodeOutcome:
        return self.failed_members() if self.fails() else NodeOutcome()

    def came_late(self) -> bool:
        return False  # who asks for the next one is told of each

    def report(self, outcome: NodeOutcome) -> None:
        self.end = NodeOutcome() if outcome.cancelled else outcome
        super().report(outcome)
        self._tell()
        for strand in list(self.ex.strands):
            strand.has_ended(self)


class FirstNode(CompletionsNode):
    """`wait_first`: one is told of."""

    __slots__ = ()

    def told(self, index: int) -> NodeOutcome:
        for member in list(self.members.values()):
            if isinstance(member, TimerLeaf):  # that it only waits is of use to nobody, and a signal may be
                member.cancel()
        outcome, keys = self.outcomes[index], self.op.keys
        if outcome.error is not None:
            return outcome
        given = self.order[index]
        return NodeOutcome(Winner(given, outcome.value, None if keys is None else keys[given]))

    def report(self, outcome: NodeOutcome) -> None:
        super().report(outcome)
        self.ex.completions.pop(self.position, None)  # nobody asks for another one


class NextNode(Node):
    """Who asks for the next one, and waits for it."""

    __slots__ = ("group", "stopping")

    def __init__(
        self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: NextCompletion | WaitFirstOp[Any]
    ) -> None:
        super().__init__(ex, position, owner, index)
        #: Set once it was cancelled: the members end first.
        self.stopping = False
        if isinstance(op, WaitFirstOp):
            self.group: CompletionsNode = FirstNode(ex, position, op, "wait_first")
        else:
            found = ex.completions[op.position]
            assert isinstance(found, CompletionsNode)
            self.group = found
        self.group.ask(self)

    def cancel(self) -> None:
        if not self.closed:
            self.stopping = True
            self.group.cancel()


class OpenedNode(Node):
    """`as_completed`: its members begin, and the code continues with its position."""

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: CompletionsOp) -> None:
        super().__init__(ex, position, owner, index)
        CompletionsNode(ex, position, op, "as_completed")
        self.report(NodeOutcome(position))

    def cancel(self) -> None:
        """It has reported."""


class PollNode(Group):
    """
    `poll_until`: calls at the odd positions within it, delays at the even ones.

    A deadline is at position 0. It cuts off no call: a delay it does, and a last call follows.
    """

    __slots__ = ("deadline", "delay", "found", "op", "over")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: PollOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.op = op
        self.delay = op.every
        #: Whether its time is over.
        self.over = False
        self.found: NodeOutcome = CANCELLED
        self.deadline: TimerLeaf | None = None
        self.announce(op, "poll_until", 1)
        if op.timeout is not None:
            within = f"{position}.0"
            self.deadline = TimerLeaf(ex, within, self, 0)
            event, fresh = ex.command(TimerSet(within, "timeout", ex.time + op.timeout, ex.site(op), at=ex.time))
            self.deadline.wait_for("timer", name=event.called, fire_at=event.fire_at, fresh=fresh)
        self.open_member(op.op, 1)

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
        if index == 0:
            if not outcome.cancelled:
                self.over = True
                self._cut_delay()
            return
        self.members.pop(index, None)
        if index % 2 == 0:
            if not self.closing:
                self.open_member(self.op.op, index + 1)
                return
        elif not self._decides(outcome) and not self.closing:
            self.open_member(SleepOp(self.delay, None, self.op.site), index + 1)
            self.delay *= self.op.factor
            return
        self.finish_if_done()

    def _cut_delay(self) -> None:
        for index, member in list(self.members.items()):
            if index % 2 == 0:
                member.cancel()

    def _decides(self, outcome: NodeOutcome) -> bool:
        """Whether a call has settled it."""
        try:
            is_over = outcome.cancelled or outcome.error is not None or bool(outcome.value)
        except Exception as error:  # noqa: BLE001 - of the user's class
            is_over, outcome = True, NodeOutcome(error=error)
        if not is_over:
            if not self.over:
                return False
            assert self.deadline is not None
            limit = TimeoutError(f"{self.op.op.describe()} returned nothing true within {self.op.timeout:g} s")
            outcome = NodeOutcome(error=self.deadline.delivered(limit))
        self.found = outcome
        self.outcomes[0] = outcome
        return True

    def finish_if_done(self) -> None:
        if not self.members and self.deadline is not None and not self.deadline.closed:
            self.deadline.cancel()
        super().finish_if_done()

    def result(self) -> NodeOutcome:
        return self.found


OPENERS: dict[type, Opener] = {
    CompletionsOp: OpenedNode,
    WaitFirstOp: NextNode,
    NextCompletion: NextNode,
    PollOp: PollNode,
}
