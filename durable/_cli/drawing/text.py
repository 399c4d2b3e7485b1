"""
A run as text, as mermaid and as dot: each node a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from durable._cli.drawing.model import GraphNode, folded
from durable._cli.terminal.output import Output
from durable._core.durations import span

#: How a status is shown where there is no colour.
MARKS: Final = {
    "succeeded": "ok",
    "done": "ok",
    "open": "...",
    "failed": "FAILED",
    "retrying": "retrying",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}
#: Fill and border by status, for dot and mermaid (both are drawn on white).
FILLS: Final = {
    "succeeded": ("#e6f4ea", "#34a853"),
    "done": ("#f1f3f4", "#9aa0a6"),
    "open": ("#e8f0fe", "#4285f4"),
    "failed": ("#fce8e6", "#d93025"),
    "retrying": ("#fef7e0", "#f9ab00"),
    "cancelled": ("#f1f3f4", "#5f6368"),
    "interrupted": ("#fef7e0", "#e37400"),
}
_UNNAMED: Final = frozenset(("group", "begin", "end", "more", "timer", "signal", "request", "result"))


def title_of(node: GraphNode) -> str:
    """A node in words: "step charge"."""
    kind = "" if node.kind in _UNNAMED else f"{node.kind} "
    attempts = f" (attempt {node.attempts})" if node.attempts > 1 else ""
    return f"{kind}{node.label}{attempts}"


def text_lines(nodes: Sequence[GraphNode], out: Output) -> Iterator[str]:
    """The tree as lines: groups indent their members."""
    yield from _text(nodes, "", out, closes=True)


def _text(nodes: Sequence[GraphNode], indent: str, out: Output, *, closes: bool) -> Iterator[str]:
    """Lines of *nodes*; *closes* if nothing of the same level comes behind the last of them."""
    for index, node in enumerate(nodes):
        branch, below = ("└─ ", "   ") if closes and index == len(nodes) - 1 else ("├─ ", "│  ")
        took = f"  {span(node.seconds)}" if node.seconds is not None else ""
        colour = {"failed": "31", "retrying": "33", "interrupted": "33", "open": "34"}.get(node.status, "2")
        mark = "" if node.kind in ("begin", "end", "more") else f"  {out.colour(MARKS[node.status], colour)}"
        position = f"{node.position}  " if node.position else ""
        run = f"  {node.run_id}" if node.kind in ("child", "start") and node.run_id else ""
        yield f"{indent}{branch}{position}{title_of(node)}{mark}{out.dim(took)}{out.dim(run)}"
        yield from _text(node.inside, indent + below, out, closes=True)
        members = folded(node.members)
        for number, member in enumerate(members):
            last = number == len(members) - 1
            if len(member) == 1:
                yield from _text(member, indent + below, out, closes=last)
            else:
                yield f"{indent}{below}{'└─' if last else '├─'} helper"
                yield from _text(member, indent + below + ("   " if last else "│  "), out, closes=True)


# --- mermaid -----------------------------------------------------------------------------------------


def mermaid_lines(nodes: Sequence[GraphNode]) -> Iterator[str]:
    """A mermaid flowchart: a sequence is a chain of arrows, a group a subgraph."""
    yield "flowchart TD"
    writer = _Mermaid()
    writer.sequence(nodes, "  ")
    yield from writer.lines
    for status, (fill, border) in FILLS.items():
        yield f"  classDef {status} fill:{fill},stroke:{border},color:#202124"


class _Mermaid:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def sequence(self, nodes: Sequence[GraphNode], indent: str) -> tuple[str, str] | None:
        """Draws *nodes* one behind the other; the first and last of them."""
        first = before = None
        for node in nodes:
            begin, end = self.node(node, indent)
            if before is not None:
                self.lines.append(f"{indent}{before} --> {begin}")
            first, before = first or begin, end
        return None if first is None or before is None else (first, before)

    def node(self, node: GraphNode, indent: str) -> tuple[str, str]:
        self._count += 1
        name = f"n{self._count}"
        told = _mermaid_text(f"{node.position} {title_of(node)}".strip())
        inside = [*folded(node.members), *([node.inside] if node.inside else [])]
        if not inside:
            shape = ("([", "])") if node.kind in ("begin", "end") else ("[", "]")
            self.lines.append(f'{indent}{name}{shape[0]}"{told}"{shape[1]}:::{node.status}')
            return name, name
        self.lines.append(f'{indent}subgraph {name}["{told}"]')
        for member in inside:
            self.sequence(member, indent + "  ")
        self.lines.append(f"{indent}end")
        return name, name


def _mermaid_text(text: str) -> str:
    """Text within quotes of mermaid: everything that could end them, or be markup, as an entity."""
    return "".join(each if each.isalnum() or each in " ._-,:/()" else f"#{ord(each)};" for each in text)


# --- dot ---------------------------------------------------------------------------------------------


def dot_lines(nodes: Sequence[GraphNode]) -> Iterator[str]:
    """A graph for Graphviz: groups are clusters."""
    yield "digraph run {"
    yield '  node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=11];'
    yield '  edge [color="#5f6368"]; compound=true; fontname="sans-serif"; fontsize=11;'
    writer = _Dot()
    writer.sequence(nodes, "  ")
    yield from writer.lines
    yield "}"


class _Dot:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def sequence(self, nodes: Sequence[GraphNode], indent: str) -> tuple[list[str], list[str]]:
        """Draws *nodes* one behind the other; the nodes that it begins and ends with."""
        first: list[str] = []
        before: list[str] = []
        for node in nodes:
            begins, ends = self.node(node, indent)
            self.lines += [f"{indent}{one} -> {other};" for one in before for other in begins]
            first, before = first or begins, ends
        return first, before

    def node(self, node: GraphNode, indent: str) -> tuple[list[str], list[str]]:
        self._count += 1
        name = f"n{self._count}"
        told = _dot_text(f"{node.position} {title_of(node)}".strip())
        fill, border = FILLS[node.status]
        inside = [*folded(node.members), *([node.inside] if node.inside else [])]
        if not inside:
            self.lines.append(f'{indent}{name} [label={told}, fillcolor="{fill}", color="{border}"];')
            return [name], [name]
        self.lines.append(f"{indent}subgraph cluster_{name} {{")
        self.lines.append(f'{indent}  label={told}; color="{border}"; style="rounded";')
        begins: list[str] = []
        ends: list[str] = []
        for member in inside:
            first, last = self.sequence(member, indent + "  ")
            begins += first
            ends += last
        self.lines.append(f"{indent}}}")
        return begins, ends


def _dot_text(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
