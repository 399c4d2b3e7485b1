"""
Groups: commands made of members (gather, race, settle, timeout, for_each).

A group reports once every member has. What settles it early (the first of a race, a failure where `fail_fast`
is set, enough successes or too many failures, a deadline) cancels the rest, and it still waits for their reports.
What is settled stays so, whatever they report; and so it does if the group itself is cancelled then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from durable._core.codec.exceptions.parts import Unrecorded, attribute, is_exception, set_attribute
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.events import FeedOpened, GroupArranged, GroupOpened, TimerSet
from durable._core.journal.payloads import arguments_payload
from durable._core.journal.waits import WakeOn
from durable._core.policies.limits import Limit
from durable._core.policies.settled import (
    NO_RULE,
    SETTLED,
    EndReason,
    EndRule,
    GroupFailedError,
    NamedOutcomes,
    Outcomes,
    Settled,
)
from durable._core.program.functions import Job, Workflow
from durable._core.program.group_ops import (
    PLAIN,
    ForEachOp,
    GatherOp,
    GroupOp,
    GroupOptions,
    RaceOp,
    SettleOp,
    TimeoutOp,
    Winner,
    discard,
)
from durable._core.program.ops import Op, RunOp
from durable._core.run.decision import FedChild, Feed, added, entered
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

T = TypeVar("T")


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
        self, op: GroupOp[Any], name: str, size: int, value: Any = None, aliases: Sequence[str] = ()
    ) -> tuple[GroupOpened, bool]:
        """Record that this group began: the recorded event, perhaps older than this code, and whether it is new."""
        opened = GroupOpened(self.position, name, size, self.ex.site(op), op.name, value, self.ex.time)
        return self.ex.command(opened, aliases)

    def open_member(self, member: Any, index: int) -> None:
        """Open the member's op, or begin its strand, unless the group is closing already."""
        self.ex.room -= 1
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

    def begins_later(self) -> bool:
        """Whether the turn is to pause before the next member begins: then `fill` is called again, before all else."""
        if self.ex.room > 0:
            return False
        self.ex.unfinished = added(self.ex.unfinished, self)
        return True

    def fill(self) -> None:
        """Begin the members that are still to begin."""
        raise NotImplementedError  # pragma: no cover - those that may pause have their own

    def give_up(self, error: BaseException) -> None:
        """A member could not begin, and that is how the group ended."""
        self.closed = True
        self.owner.member_done(self.index, NodeOutcome(error=error))


class FewNode(Group):
    """What `race`, `settle` and `timeout` share: members that begin one after another, until one settles the group."""

    __slots__ = ("given", "next")

    def open_all(self, members: Sequence[Any]) -> None:
        """Open *members*."""
        self.given = members
        self.next = 0
        self.fill()

    def fill(self) -> None:
        self.opening = True
        while self.next < len(self.given):
            if self.begins_later():
                self.ex.unbegun = entered(self.ex.unbegun, self.position, self.given[self.next :])
                return
            index, self.next = self.next, self.next + 1
            if self.closing:
                discard(self.given[index])
            else:
                self.open_member(self.given[index], index)
        self.opening = False
        self.given = ()
        self.ex.unbegun.pop(self.position, None)
        self.finish_if_done()


class ManyNode(Group):
    """What `gather` and `for_each` share: members that begin as there is room, and a rule that may end the group."""

    __slots__ = ("concurrency", "failed", "names", "next", "reason", "rule", "size", "succeeded")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int) -> None:
        super().__init__(ex, position, owner, index)
        self.size = 0
        self.concurrency: int | None = None
        self.rule = NO_RULE
        self.names: Sequence[str] | None = None
        #: The member that begins next.
        self.next = 0
        self.succeeded = self.failed = 0
        #: Why it ended before all of its members had, once it has.
        self.reason: EndReason | None = None

    def arrange(
        self, opened: GroupOpened, asked: GroupOptions, concurrency: int | None, rule: EndRule, *, fresh: bool
    ) -> None:
        """
        Run the members as the code has *asked* for where the group is *fresh*, else as it is recorded.

        Where nothing is recorded, *concurrency* at once, and ended by *rule*: asking for that needs no record.

        Raises:
            NondeterminismError: Code without a rule would not understand the result of a group that has one.
        """
        if fresh:
            self.concurrency, self.rule, self.names = asked.concurrency, asked.end, asked.names
            if asked.names is not None or asked.concurrency != concurrency or asked.end != rule:
                ex, end = self.ex, asked.end
                made = GroupArranged(self.position, asked.concurrency, end.enough, end.tolerate, asked.names, ex.time)
                ex.decision.events.append(made)
            return
        recorded = self.ex.history.arranged.get(self.position)
        if recorded is None:
            self.concurrency, self.rule = concurrency, rule
        else:
            self.concurrency, self.names = recorded.concurrency, recorded.names
            self.rule = EndRule(recorded.enough, recorded.tolerate)
            if self.rule.given and not asked.end.given:
                self.ex.diverge(self.position, opened, opened, "it has neither enough= nor tolerate= any more")

    def member(self, index: int) -> Any:
        """What the member at *index* is: an op, or a helper's coroutine."""
        raise NotImplementedError  # pragma: no cover - both have their own

    def fill(self) -> None:
        """Open members until the window is full, one of them settles the group, or the turn pauses."""
        self.opening = True
        while (
            not self.closing
            and self.next < self.size
            and (self.concurrency is None or len(self.members) < self.concurrency)
        ):
            if self.begins_later():
                return
            index, self.next = self.next, self.next + 1
            self.open_member(self.member(index), index)
        self.opening = False
        if self.closing or self.next == self.size:
            self.finish_if_done()

    def member_done(self, index: int, outcome: NodeOutcome) -> None:
        self.members.pop(index, None)
        self.outcomes[index] = outcome
        if outcome.error is not None:
            self.failed += 1
        elif not outcome.cancelled:
            self.succeeded += 1
        if not self.closing and not outcome.cancelled:
            if self.rule.given:
                self.reason = self.rule.reason(self.size, self.succeeded, self.failed)
                if self.reason not in (None, "all ended"):
                    self.close_members()
            elif outcome.error is not None:
                self.failed_without_rule()
        if self.opening:
            return
        if self.next < self.size and not self.closing:
            self.fill()
        elif not self.members:
            self.finish_if_done()

    def failed_without_rule(self) -> None:
        """A member failed, and nothing was asked for about that."""

    def member_rule(self) -> WakeOn:
        """With a window, each end makes room for the next member; and each success may be the last that is wanted."""
        waits = self.concurrency is not None and self.concurrency < self.size
        if self.closing or waits or self.rule.enough is not None:
            return "any"
        return "all" if self.rule.tolerate is None else "failure"

    def came_late(self) -> bool:
        return len(self.outcomes) == self.size and super().came_late()

    # --- how it ended -----------------------------------------------------------------------------

    def errors(self) -> list[BaseException]:
        """Those of the members that failed, in order."""
        return [outcome.error for _, outcome in sorted(self.outcomes.items()) if outcome.error is not None]

    def settled_members(self, *, failing: bool) -> Iterator[Settled[Any]]:
        """
        How each member ended, in order.

        What a `wait_for` consumed goes back to the queue if the group is *failing*: then that member has no value.
        """
        start = len(self.position) + 1
        given_back = {
            int(position[start:].partition(".")[0])
            for position in (self.ex.unseen if failing else ())
            if position.startswith(f"{self.position}.")
        }
        for index in range(self.size):
            yield self.settled_member(index, given_back=index in given_back)

    def settled_member(self, index: int, *, given_back: bool = False) -> Settled[Any]:
        """How the member at *index* ended; without its value if that was *given_back*."""
        outcome = self.outcomes.get(index)
        name = None if self.names is None else self.names[index]
        if outcome is None:
            return Settled(status="not begun", name=name)
        if outcome.error is not None:
            return Settled(error=_as_exception(outcome.error), name=name)
        if outcome.cancelled or given_back:
            return Settled(status="cancelled", name=name)
        return Settled(outcome.value, name=name)

    def outcomes_of_members(self, *, failing: bool) -> Outcomes[Any] | NamedOutcomes[Any, Any]:
        """As `settled_members`, with the reason of the end."""
        return Outcomes(self.settled_members(failing=failing), self.why())

    def why(self) -> EndReason:
        """Why it ended, all of its members having ended or never begun."""
        return self.reason or self.rule.reason(self.size, self.succeeded, self.failed) or "all ended"

    def fails(self) -> bool:
        """Whether it raises, all of its members having ended or never begun."""
        return self.why() == "too many failed" if self.rule.given else self.failed > 0 and not self.never_fails

    def failure(self, error: BaseException) -> NodeOutcome:
        """*error* as the group's own, which tells how each member ended."""
        found = attribute(error, SETTLED)
        # Else that of a group within, whose failures these are; or the error has its own of that name.
        if found is None or (issubclass(type(found), Unrecorded) and type(error) is not GroupFailedError):
            set_attribute(error, SETTLED, self.outcomes_of_members(failing=True))
        return NodeOutcome(error=error)


class MembersNode(ManyNode):
    """Members that the code gives, by name or one by one: what `gather` shares with `as_completed`."""

    __slots__ = ("op", "order")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: GatherOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.op = op
        self.size = len(op.members)
        #: The member behind each position.
        self.order: Sequence[int] = range(self.size)

    def begin(self, name: str, rule: EndRule) -> None:
        """Record the group under *name*, which tells of the *rule* already, and open members."""
        ex, op = self.ex, self.op
        opened, fresh = self.announce(op, name, self.size)
        if op.options is not PLAIN or ex.history.arranged:
            self.arrange(opened, op.options, None, rule, fresh=fresh)
        if self.names is not None and op.options.names is not None and self.names != op.options.names:
            self._order_by_names(opened, op.options.names, self.names)
        if self.concurrency is not None:
            ex.unbegun = entered(ex.unbegun, self.position, op.members)
        self.fill()

    def begins_later(self) -> bool:
        if not super().begins_later():
            return False
        self.ex.unbegun = entered(self.ex.unbegun, self.position, self.op.members)
        return True

    def _order_by_names(self, opened: GroupOpened, names: Sequence[str], recorded: Sequence[str]) -> None:
        """A mapping may come in another order than the recorded one: then each member keeps its recorded position."""
        if sorted(names) != sorted(recorded):
            why = f"its members are {', '.join(names)}, and were {', '.join(recorded)}"
            self.ex.diverge(self.position, opened, opened, why)
        self.order = [names.index(name) for name in recorded]

    def member(self, index: int) -> Any:
        return self.op.members[self.order[index]]

    def report(self, outcome: NodeOutcome) -> None:
        if self.next < self.size:
            discard(*(self.member(index) for index in range(self.next, self.size)))
        if self.ex.unbegun:
            self.ex.unbegun.pop(self.position, None)
        super().report(outcome)

    def outcomes_of_members(self, *, failing: bool) -> Outcomes[Any] | NamedOutcomes[Any, Any]:
        if self.op.keys is None:
            return super().outcomes_of_members(failing=failing)
        return NamedOutcomes(self._by_key(self.settled_members(failing=failing)), self.why())

    def _by_key(self, found: Iterable[T]) -> dict[Any, T]:
        """What was *found* at each position, by the keys of the members, in their order."""
        keys = self.op.keys or ()
        unordered = dict(zip((keys[member] for member in self.order), found, strict=True))
        return {key: unordered[key] for key in keys}

    def failed_members(self) -> NodeOutcome:
        """All failures of members, as one."""
        return self.failure(_group(self.errors(), self.size))


class GatherNode(MembersNode):
    """`gather`."""

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: GatherOp[Any]) -> None:
        super().__init__(ex, position, owner, index, op)
        rule = op.options.end
        name = "gather" if rule.enough is None else f"gather at least {rule.enough}"
        self.begin(name, rule if rule.tolerate is None else EndRule(rule.enough))

    def member_rule(self) -> WakeOn:
        rule = super().member_rule()
        return "fail_fast" if rule == "all" and self.op.fail_fast else rule

    @property
    def never_fails(self) -> bool:
        return self.op.return_exceptions

    def failed_without_rule(self) -> None:
        if self.op.fail_fast:
            self.reason = "too many failed"
            self.close_members()

    def result(self) -> NodeOutcome:
        if self.fails():
            return self.failed_members()
        if self.op.settles:
            return NodeOutcome(self.outcomes_of_members(failing=False))
        if self.rule.given:  # a quorum: the values of those that succeeded
            succeeded = self.outcomes_of_members(failing=False).succeeded
            return NodeOutcome(succeeded)
        values = [_value_or_error(self.outcomes[index]) for index in range(self.size)]
        return NodeOutcome(values if self.op.keys is None else self._by_key(values))


class RaceNode(FewNode):
    """`race`."""

    __slots__ = ("keys", "winner")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: RaceOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.keys = op.keys
        self.winner: int | None = None
        _, fresh = self.announce(op, "race", len(op.members))
        if fresh and op.names is not None:
            ex.decision.events.append(GroupArranged(position, None, None, None, op.names, ex.time))
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


class SettleNode(FewNode):
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


class TimeoutNode(FewNode):
    """`timeout`."""

    __slots__ = ("deadline", "seconds", "timed_out")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: TimeoutOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.seconds = op.seconds
        self.timed_out = False
        self.deadline = TimerLeaf(ex, position, self, -1)  # at the same position as its group
        event, fresh = ex.command(TimerSet(position, "timeout", ex.time + op.seconds, ex.site(op), op.name, ex.time))
        self.deadline.wait_for("timer", name=event.name, fire_at=event.fire_at, fresh=fresh)
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


class ForEachNode(ManyNode):
    """`for_each`: a window that moves over recorded items."""

    __slots__ = ("fed", "feeding", "items", "op", "unfed")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: ForEachOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.op = op
        definition, options = op.definition, op.options
        items_type: Any = list.__class_getitem__(definition.arguments.positional(0))
        where = f"items of for_each {definition.name!r}"
        value = None if ex.replays(position) else ex.codec.encode(list(op.items), items_type, where=where)
        aliases = [f"for_each {alias}" for alias in definition.aliases]
        event, fresh = self.announce(op, f"for_each {definition.name}", len(op.items), value, aliases)
        self.items: list[Any] = ex.codec.decode(event.value or "[]", items_type, where=where)
        self.size = len(self.items)
        self.arrange(event, options, options.concurrency, NO_RULE, fresh=fresh)
        #: What the file is still to be told to start, and where it is told.
        self.unfed: Iterator[FedChild] | None = None
        self.feeding: list[FedChild] = []
        #: Whether the file starts the items behind the first window: then that window stays as recorded.
        self.fed = self._open_feed() if fresh else position in ex.history.feeds
        if self.fed:
            self.concurrency = ex.history.feeds.get(position, self.concurrency)
            ex.feeds |= {position}
        self.fill()

    def _open_feed(self) -> bool:
        definition, window = self.op.definition, self.concurrency
        if window is None or self.size <= window or not isinstance(definition, (Job, Workflow)):
            return False
        if self.rule.enough is not None:
            return False  # each success may be the last one that is wanted
        limit = definition.options.limit
        of_attempts = isinstance(definition, Job) and isinstance(limit, Limit) and limit.on_conflict == "wait"
        if limit is not None and not of_attempts:
            return False  # the slot may be each child's own, by a key of its arguments
        if definition.options.key is not None:
            return False  # its run may exist already, and that is for the turn to find out
        self.fed = True  # first, since `wake_group` asks for it
        group, wake_on = wake_group(self.position, self)
        tolerate = None if self.rule.tolerate is None else self.rule.tolerated(self.size)
        feed = Feed(self.position, window, group, wake_on, self.member(window), [], tolerate)
        self.unfed, self.feeding = self._children(window), feed.children
        self.ex.decision.feeds += (feed,)
        self.ex.decision.events.append(FeedOpened(self.position, window, self.ex.time))
        return True

    def _children(self, window: int) -> Iterator[FedChild]:
        for index in range(window, self.size):
            op: RunOp[Any] = self.member(index)
            self.ex.room -= 1
            arguments = arguments_payload(op, self.ex.codec)
            yield FedChild(index, self.ex.child_id(f"{self.position}.{index}"), arguments)

    def fill(self) -> None:
        while self.unfed is not None:
            if self.begins_later():
                return
            child = next(self.unfed, None)
            if child is None:
                self.unfed = None
            else:
                self.feeding.append(child)
        super().fill()

    def member(self, index: int) -> Any:
        op, item = self.op, self.items[index]
        return op.definition.for_item((item, index) if op.index else (item,), op.site)

    @property
    def settled(self) -> bool:
        # Without a rule no more begin once one has failed, but those that are running are not cancelled.
        return self.closing and self.rule.given

    def failed_without_rule(self) -> None:
        self.reason = "too many failed"
        self.closing = True  # start no more; those that are running may end

    def feed_of(self, index: int, /) -> tuple[str | None, bool]:
        if not self.fed or self.concurrency is None:
            return None, False
        return self.position, index >= self.concurrency

    def member_rule(self) -> WakeOn:
        return "failure" if self.fed and not self.closing else super().member_rule()

    def report(self, outcome: NodeOutcome) -> None:
        self.ex.feeds -= {self.position}
        super().report(outcome)

    def cancel(self) -> None:
        if self.fed and not self.closed and not self.ex.replaying:
            decision = self.ex.decision
            decision.feeds = tuple(feed for feed in decision.feeds if feed.position != self.position)  # of this turn
            decision.feeds_closed += (self.position,)
            if self.next < self.size:
                decision.feeds_next += (self.ex.child_id(f"{self.position}.{self.next}"),)
        super().cancel()

    def result(self) -> NodeOutcome:
        if self.fails():
            errors = self.errors()
            alone = self.concurrency == 1 and not self.rule.given
            return self.failure(errors[0] if alone else _group(errors, self.size))
        if self.op.options.end.given:
            return NodeOutcome(self.outcomes_of_members(failing=False))
        return NodeOutcome([self.outcomes[index].value for index in range(self.size)])


def _value_or_error(outcome: NodeOutcome) -> Any:
    return outcome.value if outcome.error is None else outcome.error


def _as_exception(error: BaseException) -> Exception:
    return error if is_exception(error) else RuntimeError(one_line(error))


def _group(errors: list[BaseException], size: int) -> BaseException:
    """A `GroupFailedError`, unless helpers raised what is not an Exception."""
    message = f"{len(errors)} of {size} failed"
    exceptions = [each for each in errors if is_exception(each)]
    if len(exceptions) == len(errors):
        return GroupFailedError(message, exceptions)
    try:
        return BaseExceptionGroup(message, errors)
    except Exception:  # noqa: BLE001 - it asks what is not an Exception for its __class__, which may be the user's code
        return ExceptionGroup(message, [_as_exception(each) for each in errors])


OPENERS: dict[type, Opener] = {
    GatherOp: GatherNode,
    RaceOp: RaceNode,
    SettleOp: SettleNode,
    TimeoutOp: TimeoutNode,
    ForEachOp: ForEachNode,
}
