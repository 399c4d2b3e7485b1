"""
A run as a table: each command a row, so that no position is missing. Steps as `step_lines` tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from durable._cli.drawing.model import GraphNode, nodes_of
from durable._cli.drawing.text import title_of
from durable._cli.journals.step_lines import StepLine, steps_in
from durable._cli.terminal.values import failure_in_short
from durable._core.journal.events import Event


def commands_in(events: Sequence[Event]) -> list[StepLine]:
    """The commands of a run that count, in the order of their positions: groups before their members."""
    steps = {step.position: step for step in steps_in(events)}
    sites: dict[str, str] = {}
    last: dict[str, Event] = {}
    for event in events:
        if event.category == "command":
            sites.setdefault(event.position, event.site)
        elif event.position and event.outcome in ("succeeded", "failed"):
            last[event.position] = event
    nodes = _flat(nodes_of(events)) if events else ()
    return [steps.get(each.position) or _line(each, sites, last.get(each.position)) for each in nodes if each.position]


def _line(node: GraphNode, sites: dict[str, str], outcome: Event | None) -> StepLine:
    value = None if outcome is None else outcome.value
    failed = outcome is not None and outcome.outcome == "failed"
    return StepLine(
        node.position, title_of(node), 0, node.status, node.began_at, node.ended_at, sites.get(node.position, ""),
        error=failure_in_short(value) if failed else "", value=None if failed else value,
    )  # fmt: skip


def _flat(nodes: Iterable[GraphNode]) -> Iterator[GraphNode]:
    for node in nodes:
        yield node
        for member in node.members:
            yield from _flat(member)
