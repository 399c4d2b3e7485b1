"""
A run over time: one line for each command, one bar for each attempt or wait of it. Events in, lines out.

The lines are those of the drawing (`durable._cli.drawing.model`), in the order in which the commands were asked for;
the lines of children stand inside that of the command which started them, where their events were read, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, assert_never

from attrs import frozen

from durable._cli.drawing.model import GraphNode, NodeStatus, nodes_of
from durable._core.journal.events import Event
from durable._core.journal.history import effective
from durable._core.recorded.steps import RecordedStep, StepStatus, recorded_steps

#: What a bar is of: an attempt that ran, a child or group, or time in which nothing of it ran.
BarKind: TypeAlias = Literal["attempt", "inside", "wait", "retry", "slot"]

#: What the page says about the colours of bars: kind, status, name.
LEGEND: Final[Sequence[tuple[BarKind, NodeStatus, str]]] = (
    ("attempt", "succeeded", "succeeded"),
    ("attempt", "failed", "failed attempt"),
    ("attempt", "open", "running"),
    ("attempt", "interrupted", "interrupted"),
    ("inside", "succeeded", "child or group"),
    ("wait", "succeeded", "timer or signal"),
    ("retry", "retrying", "until the next attempt, or a slot"),
)
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

    @property
    def seconds(self) -> float | None:
        """From the first of its bars to the end of the last; None where it has none, or has not ended."""
        end = self.bars[-1].end if self.bars else None
        return None if end is None else max(0.0, end - self.bars[0].start)


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
    steps = {step.position: step for step in recorded_steps(events)}
    over = kept[-1].at if kept[-1].category == "end" else None
    body = [node for node in nodes_of(events) if node.kind not in ("begin", "end")]
    return list(_lines(body, steps, over, children or {}, depth, of))


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
    steps: Mapping[str, RecordedStep],
    over: float | None,
    children: Mapping[str, Sequence[Event]],
    depth: int,
    of: str,
) -> Iterator[Line]:
    for index, node in enumerate(nodes):
        following = nodes[index + 1].began_at if index + 1 < len(nodes) else over
        bars = tuple(_bars(node, steps.get(node.position), following))
        yield Line(node.position, node.label, node.kind, node.status, depth, bars, node.run_id, of or None)
        for member in node.members:
            yield from _lines(member, steps, node.ended_at or following, children, depth + 1, of)
        if node.run_id is not None and node.run_id in children:
            inside = {run_id: found for run_id, found in children.items() if run_id != node.run_id}
            yield from lines_of(children[node.run_id], inside, depth=depth + 1, of=node.run_id)


def _bars(node: GraphNode, step: RecordedStep | None, following: float | None) -> Iterator[Bar]:
    """The bars of a command; *following* is when the next one was asked for, so that this one was over by then."""
    if step is not None:
        yield from _attempts(node, step)
        return
    ended = node.ended_at if node.ended_at is not None else None if node.status == "open" else following
    kind: BarKind = "wait" if node.kind in _WAITS else "inside"
    if node.kind in ("start", "request"):
        ended = node.began_at
    yield Bar(node.began_at, ended, kind, node.status)


def _attempts(node: GraphNode, step: RecordedStep) -> Iterator[Bar]:
    """A bar for each attempt of a step; between them one for what it waited for: its slot, or the next attempt."""
    since: float | None = step.asked_at  # from when on it waits
    before = 0
    for attempt in step.attempts:
        if since is not None and since < attempt.started_at:
            yield _wait(since, attempt.started_at, before)
        status = node.status if attempt.ended_at is None else _drawn(attempt.status)
        ended = node.ended_at if attempt.ended_at is None else attempt.ended_at
        yield Bar(attempt.started_at, ended, "attempt", status, attempt.number)
        before, since = attempt.number, attempt.ended_at if attempt.status in ("retrying", "snoozed") else None
    if since is not None:
        yield _wait(since, node.ended_at, before)


def _wait(since: float, until: float | None, before: int) -> Bar:
    """For the slot of the first attempt, or for the one that comes after attempt *before*."""
    return Bar(since, until, "retry", "retrying", before) if before else Bar(since, until, "slot", "open", 1)


def _drawn(status: StepStatus) -> NodeStatus:
    """How an attempt that has ended is drawn: a failed one as that, whether or not another one comes."""
    match status:
        case "succeeded" | "failed" | "cancelled" | "interrupted":
            return status
        case "retrying":
            return "failed"
        case "abandoned":
            return "cancelled"
        case "snoozed":
            return "done"
        case "waiting" | "running" | "cancelling":
            return "open"
        case _:
            assert_never(status)
