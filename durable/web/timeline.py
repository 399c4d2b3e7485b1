"""
A run over time: one line for each command, one bar for each attempt or wait of it. Events in, lines out.

The lines are those of the drawing (`durable._cli.drawing.model`), in the order in which the commands were asked for;
the lines of children stand inside that of the command which started them, where their events were read, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, assert_never

from attrs import frozen

from durable._cli.drawing.model import GraphNode, NodeStatus, nodes_of
from durable._core.journal.events import ChildJoined, Event, SlotAwaited, StepRetrying, StepSnoozed, StepStarted
from durable._core.journal.history import effective

#: What a bar is of: an attempt that ran, a child or group, or time in which nothing of it ran.
BarKind: TypeAlias = Literal["attempt", "inside", "wait", "retry", "slot"]

_WAITS: Final = ("timer", "signal")


@frozen
class Bar:
    """A stretch of time, in epoch seconds; *end* is None while it lasts."""

    start: float
    end: float | None
    kind: BarKind
    status: NodeStatus
    #: Which attempt, from 1; 0 where that means nothing.
    attempt: int = 0


@frozen
class Line:
    """A command."""

    position: str
    label: str
    kind: str
    status: NodeStatus
    #: How deep it is nested: members of groups, commands of helpers, those of children.
    depth: int
    bars: tuple[Bar, ...]
    #: Of the run that it started.
    run_id: str | None = None
    #: Of the run whose command it is, where that is not the one that is shown.
    of_run: str | None = None


@frozen
class Mark:
    """A moment on the axis: how far along (0 to 1), and how long after the beginning, in seconds."""

    at: float
    seconds: float


def lines_of(
    events: Sequence[Event], children: Mapping[str, Sequence[Event]] | None = None, *, depth: int = 0, of: str = ""
) -> list[Line]:
    """
    The lines of one run.

    Args:
        events: Its events.
        children: By id, those of children that are to be shown inside.
        depth: How deep the first of them stands.
        of: Its id, where it is a child.
    """
    kept, _ = effective(events)
    if not kept:
        return []
    by_position: dict[str | None, list[Event]] = defaultdict(list)
    for event in kept:
        by_position[event.position].append(event)
    over = kept[-1].at if kept[-1].category == "end" else None
    body = [node for node in nodes_of(events) if node.kind not in ("begin", "end")]
    return list(_lines(body, by_position, over, children or {}, depth, of))


def span_of(lines: Iterable[Line], began_at: float, now: float) -> tuple[float, float]:
    """From when to when there is something to be seen."""
    ends = [now if bar.end is None else bar.end for line in lines for bar in line.bars]
    return began_at, max([began_at, *ends])


def axis(begin: float, end: float, origin: float) -> list[Mark]:
    """At most eight moments at round numbers of seconds since *origin*."""
    length = end - begin
    if length <= 0:
        return []
    step = next((size for size in _round_sizes() if length / size <= 7), length)  # noqa: PLR2004 - as many as fit a phone
    first = -(-(begin - origin) // step) * step
    found = []
    while first <= end - origin:
        found.append(Mark((first + origin - begin) / length, first))
        first += step
    return found


def _round_sizes() -> Iterator[float]:
    for power in range(-4, 2):
        yield from (factor * 10.0**power for factor in (1, 2, 5))
    yield from (60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 172_800, 604_800, 2_592_000, 31_536_000)


def _lines(
    nodes: Sequence[GraphNode],
    events: Mapping[str | None, Sequence[Event]],
    over: float | None,
    children: Mapping[str, Sequence[Event]],
    depth: int,
    of: str,
) -> Iterator[Line]:
    for index, node in enumerate(nodes):
        following = nodes[index + 1].began_at if index + 1 < len(nodes) else over
        bars = tuple(_bars(node, events.get(node.position, ()), following))
        yield Line(node.position, node.label, node.kind, node.status, depth, bars, node.run_id, of or None)
        for member in node.members:
            yield from _lines(member, events, node.ended_at or following, children, depth + 1, of)
        if node.run_id is not None and node.run_id in children:
            inside = {run_id: found for run_id, found in children.items() if run_id != node.run_id}
            yield from lines_of(children[node.run_id], inside, depth=depth + 1, of=node.run_id)


def _bars(node: GraphNode, events: Sequence[Event], following: float | None) -> Iterator[Bar]:
    """The bars of a command; *following* is when the next one was asked for, so that this one was over by then."""
    if node.kind in ("step", "transaction"):
        yield from _attempts(node, events)
        return
    ended = node.ended_at if node.ended_at is not None else None if node.status == "open" else following
    kind: BarKind = "wait" if node.kind in _WAITS else "inside"
    if node.kind in ("start", "request"):
        ended = node.began_at
    yield Bar(node.began_at, ended, kind, node.status)


def _attempts(node: GraphNode, events: Sequence[Event]) -> Iterator[Bar]:
    begun: Bar | None = None
    for event in events:
        if isinstance(event, SlotAwaited):
            begun = Bar(event.at, None, "slot", "open", event.attempt)
        elif isinstance(event, StepStarted) or event.category == "command":
            if begun is not None and begun.kind in ("slot", "retry"):
                yield Bar(begun.start, event.at, begun.kind, begun.status, begun.attempt)
            begun = Bar(event.at, None, "attempt", "open", getattr(event, "attempt", 1))
        elif begun is not None and not isinstance(event, ChildJoined):
            bar = _ended(begun, event)
            if bar is None:
                continue
            yield bar
            waits = isinstance(event, StepRetrying | StepSnoozed)
            begun = Bar(event.at, None, "retry", "retrying", begun.attempt) if waits else None
    if begun is not None:
        yield Bar(begun.start, node.ended_at, begun.kind, node.status if begun.kind == "attempt" else begun.status,
                  begun.attempt)  # fmt: skip


def _ended(begun: Bar, event: Event) -> Bar | None:
    """The bar that *event* ends; None if it does not."""
    status: NodeStatus
    match event.outcome:
        case "succeeded" | "failed" | "cancelled" | "interrupted":
            status = event.outcome
        case "retrying":
            status = "failed"
        case "snoozed":
            status = "done"
        case "fired" | "cancelling" | "continued" | "received" | "over" | None:
            return None
        case _:
            assert_never(event.outcome)
    return Bar(begun.start, event.at, begun.kind, status, begun.attempt)
