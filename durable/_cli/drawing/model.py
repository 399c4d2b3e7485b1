"""
A run as a tree, from its events: commands in order, groups with their members side by side.

Everything that draws (text, mermaid, dot, svg) draws this. Groups of many members are folded: the first few, how many
more there are and how they stand, and the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, assert_never

from attrs import define, evolve, field

from durable._core.journal.events import (
    CallbackAwaited,
    CallbackOpened,
    CancelAsked,
    ChildAwaited,
    ChildJoined,
    ChildStarted,
    CommandEvent,
    End,
    Event,
    GroupArranged,
    GroupOpened,
    LaterAttempt,
    ReplySent,
    RunContinued,
    RunFailed,
    RunSucceeded,
    SignalAwaited,
    SignalSent,
    SlotAwaited,
    StepStarted,
    TimerSet,
    TransactionStarted,
)
from durable._core.journal.events import (
    RunCancelled as RunCancelledEvent,
)
from durable._core.journal.history import effective

#: "open" is in progress or waited for; "done" is passed, without a record of its own (a signal consumed, a group over).
NodeStatus: TypeAlias = Literal["open", "done", "succeeded", "failed", "retrying", "cancelled", "interrupted"]

#: "start" is a child that is not awaited, "result" the end of a run that exists, "request" what is asked of one,
#: "more" what stands for folded members.
NodeKind: TypeAlias = Literal[
    "step",
    "transaction",
    "child",
    "start",
    "result",
    "timer",
    "signal",
    "callback",
    "request",
    "group",
    "begin",
    "end",
    "more",
]

#: Members of a group that are drawn before it is folded.
MOST_MEMBERS: Final = 8
#: Of a folded group: how many of the first are drawn; the last is, too.
_FIRST: Final = 5
_WORST_FIRST: Final[tuple[NodeStatus, ...]] = (
    "failed", "retrying", "interrupted", "open", "cancelled", "succeeded", "done",
)  # fmt: skip


@define
class GraphNode:
    """A command, or the beginning or end of the run."""

    position: str
    kind: NodeKind
    label: str
    status: NodeStatus
    began_at: float
    ended_at: float | None = None
    attempts: int = 1
    #: Of a child.
    run_id: str | None = None
    #: Of a group: what each member did, in order.
    members: list[list[GraphNode]] = field(factory=list)
    #: Of a child whose own run was read, too.
    inside: list[GraphNode] = field(factory=list)

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.ended_at is None else max(0.0, self.ended_at - self.began_at)


def nodes_of(events: Sequence[Event]) -> list[GraphNode]:
    """The commands of one run in order, from its beginning to its end (or to where it stands)."""
    kept, _ = effective(events)
    made: dict[tuple[int, ...], GraphNode] = {}
    ends: list[GraphNode] = []
    keys: dict[str | None, tuple[int, ...]] = {}  # most positions come twice: asked for, and ended
    for event in kept:
        position = event.position
        key = keys[position] if position in keys else keys.setdefault(position, _key(position))
        if key in made:
            _happened(made[key], event)
        elif event.category == "command" and key:
            made[key] = _node(event)
        elif event.category == "end":
            ends.append(_end(event))
    _name_members(made, kept)
    body = _sequence((), made, over=bool(ends))
    started = kept[0]
    begin = [GraphNode("", "begin", started.workflow, "done", started.at)] if started.category == "start" else []
    return [*begin, *body, *ends]


def _name_members(made: dict[tuple[int, ...], GraphNode], events: Iterable[Event]) -> None:
    """Say which member of its group a command is, or the first one of a helper, where members have names."""
    names = {_key(event.position): event.names for event in events if isinstance(event, GroupArranged) and event.names}
    for key, node in made.items():
        of_helper = key[-1:] == (0,) and key[:-1] not in made
        group = key[:-2] if of_helper else key[:-1]
        if group in names and (member := key[len(group)]) < len(names[group]):  # as above
            node.label += f" ({names[group][member]})"


def folded(members: Sequence[list[GraphNode]]) -> list[list[GraphNode]]:
    """*members*, or where they are many: the first few, one node for those between, and the last."""
    if len(members) <= MOST_MEMBERS:
        return [*members]
    hidden = members[_FIRST:-1]
    counts = Counter(worst(each) for each in hidden)
    told = next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count:,} {name}" for name, count in counts.items())
    label = f"{len(hidden):,} more ({'all ' if len(counts) == 1 else ''}{told})"
    more = GraphNode("", "more", label, worst([node for each in hidden for node in each]), 0.0)
    return [*members[:_FIRST], [more], members[-1]]


def worst(nodes: Iterable[GraphNode]) -> NodeStatus:
    """The status that matters most among *nodes*."""
    statuses = {node.status for node in nodes}
    for status in _WORST_FIRST:
        if status in statuses:
            return status
    return "done"


def _key(position: str | None) -> tuple[int, ...]:
    try:
        return tuple(map(int, position.split("."))) if position else ()
    except ValueError:  # a file that somebody else wrote: drawn all the same, rather than refused
        return ()


def _sequence(prefix: tuple[int, ...], made: dict[tuple[int, ...], GraphNode], *, over: bool) -> list[GraphNode]:
    """The commands of the strand at *prefix*. Each is passed once there is a later one, or the run is *over*."""
    children: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for key in made:
        for length in range(len(key)):
            children.setdefault(key[:length], []).append(key[: length + 1])
    return _strand(prefix, made, {parent: sorted(set(keys)) for parent, keys in children.items()}, over=over)


def _strand(
    prefix: tuple[int, ...],
    made: dict[tuple[int, ...], GraphNode],
    children: dict[tuple[int, ...], list[tuple[int, ...]]],
    *,
    over: bool,
) -> list[GraphNode]:
    found: list[GraphNode] = []
    keys = [key for key in children.get(prefix, []) if key in made]
    for key in keys:
        node = made[key]
        passed = over or key != keys[-1]
        for member in children.get(key, []):
            inside = [made[member]] if member in made else _strand(member, made, children, over=passed)
            if member in made:
                inside = _with_members(made[member], member, made, children, over=passed)
            node.members.append(inside)
        # A callback is made, and awaited later on, or by several.
        if node.status == "open" and (over if node.kind == "callback" else passed):
            node.status = "done" if node.kind in ("group", "signal", "start") else "cancelled"
        if node.members and node.status in ("open", "done"):
            node.status = _of_group(node, passed=passed)
        found.append(node)
    return found


def _with_members(
    node: GraphNode,
    key: tuple[int, ...],
    made: dict[tuple[int, ...], GraphNode],
    children: dict[tuple[int, ...], list[tuple[int, ...]]],
    *,
    over: bool,
) -> list[GraphNode]:
    """A member that is itself a command, perhaps a group."""
    for member in children.get(key, []):
        inside = (
            _with_members(made[member], member, made, children, over=over)
            if member in made
            else _strand(member, made, children, over=over)
        )
        node.members.append(inside)
    if node.status == "open" and over:
        node.status = "done" if node.kind in ("group", "signal", "start") else "cancelled"
    if node.members and node.status in ("open", "done"):
        node.status = _of_group(node, passed=over)
    return [node]


def _of_group(node: GraphNode, *, passed: bool) -> NodeStatus:
    ended = [each.ended_at for member in node.members for each in member if each.ended_at is not None]
    if not passed:
        return "open"
    node.ended_at = max(ended, default=None)
    return "failed" if all(worst(member) == "failed" for member in node.members) else "done"


def _node(event: CommandEvent) -> GraphNode:
    at = event.at
    match event:
        case StepStarted() | SlotAwaited():
            return GraphNode(event.position, "step", event.name, "open", at)
        case TransactionStarted():
            return GraphNode(event.position, "transaction", event.name, "open", at)
        case GroupOpened():
            return GraphNode(event.position, "group", event.describe(), "open", at)
        case TimerSet(name="timeout"):
            return GraphNode(event.position, "group", event.describe(), "open", at)
        case TimerSet():
            return GraphNode(event.position, "timer", event.called, "open", at)
        case SignalAwaited():
            what = f"request {event.name}" if event.answers else event.name
            return GraphNode(event.position, "signal", f"wait_for {what}", "open", at)
        case ChildStarted():
            kind: NodeKind = "child" if event.awaited else "start"
            return GraphNode(event.position, kind, event.name, "open", at, run_id=event.run_id)
        case CallbackOpened():
            return GraphNode(event.position, "callback", event.name or "callback", "open", at)
        case CallbackAwaited():
            return GraphNode(event.position, "signal", event.describe(), "open", at)
        case SignalSent() | CancelAsked():
            return GraphNode(event.position, "request", event.describe(), "open", at)
        case ReplySent():
            return GraphNode(event.position, "request", event.describe(), "succeeded", at, ended_at=at)
        case ChildAwaited():
            return GraphNode(event.position, "result", f"result of {event.run_id}", "open", at, run_id=event.run_id)
        case _:
            assert_never(event)


def _happened(node: GraphNode, event: Event) -> None:
    match event.outcome:
        case "succeeded" | "fired":
            node.status = "succeeded" if node.kind != "group" else "failed"  # the time of a `timeout` is over
        case "failed" | "retrying" | "interrupted" | "cancelled":
            node.status = event.outcome
        case "snoozed" | "cancelling" | "continued" | "received" | "over" | None:
            if isinstance(event, LaterAttempt):
                node.status, node.attempts = "open", event.attempt
            elif isinstance(event, ChildJoined):
                node.run_id = event.run_id
            return
        case _:
            assert_never(event.outcome)
    node.ended_at = event.at


def _end(event: End) -> GraphNode:
    match event:
        case RunSucceeded() | RunFailed():
            return GraphNode("", "end", event.status, event.status, event.at)
        case RunCancelledEvent():
            return GraphNode("", "end", f"cancelled {event.reason}".strip(), event.status, event.at)
        case RunContinued():
            return GraphNode("", "end", f"continued as {event.run_id}", event.status, event.at, run_id=event.run_id)
        case _:
            assert_never(event)


def with_inside(nodes: Sequence[GraphNode], runs: dict[str, list[GraphNode]]) -> list[GraphNode]:
    """*nodes*, with what their children did inside, as far as *runs* has it by run id."""
    return [
        evolve(
            node,
            members=[with_inside(member, runs) for member in node.members],
            inside=[each for each in runs.get(node.run_id or "", []) if each.kind != "begin"],
        )
        for node in nodes
    ]
