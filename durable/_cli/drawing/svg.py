"""
A run as an SVG: time goes down, members of a group stand side by side.

Boxes are measured first, from the inside out, and then placed: what stands in a sequence below each other,
what stands in a group beside each other. No script, no font and no picture from elsewhere; light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from attrs import define

from durable._cli.drawing.model import GraphNode, folded
from durable._cli.drawing.text import title_of
from durable._cli.terminal.output import printable, width_of
from durable._core.durations import span

_LINE: Final = 16  # height of a line of text
_LETTER: Final = 6.9  # width of a letter of the monospaced font, at 11.5 px
_PAD: Final = 10
_GAP: Final = 22  # between boxes, where the arrow is
_BESIDE: Final = 16  # between members of a group
_LONGEST: Final = 46  # letters of a title

_STYLE: Final = """
  text { font: 11.5px ui-monospace, Menlo, Consolas, monospace; fill: #202124 }
  .small { fill: #5f6368 }
  rect { fill: #fff; stroke: #9aa0a6; rx: 6px }
  .succeeded { fill: #e6f4ea; stroke: #34a853 } .failed { fill: #fce8e6; stroke: #d93025; stroke-width: 2 }
  .open { fill: #e8f0fe; stroke: #4285f4 } .retrying, .interrupted { fill: #fef7e0; stroke: #f9ab00 }
  .cancelled { fill: #f1f3f4; stroke: #5f6368; stroke-dasharray: 4 3 }
  .group { fill: none; stroke: #bdc1c6; stroke-dasharray: 2 3 } .group.failed { stroke: #d93025 }
  path { fill: none; stroke: #5f6368; marker-end: url(#end) }
  .head { fill: #5f6368; stroke: none; marker-end: none }
  .page { fill: #fff; stroke: none; rx: 0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8eaed } .small { fill: #9aa0a6 } rect { fill: #303134; stroke: #80868b } .page { fill: #202124 }
    .succeeded { fill: #16351f; stroke: #34a853 } .failed { fill: #4a1c19; stroke: #f28b82 }
    .open { fill: #1b2c4a; stroke: #8ab4f8 } .retrying, .interrupted { fill: #453506; stroke: #fdd663 }
    .cancelled { fill: #303134; stroke: #9aa0a6 } .group { fill: none; stroke: #5f6368 }
  }
"""


@define
class _Box:
    """A node with its size; *columns* are the sequences within."""

    node: GraphNode
    title: str
    small: str
    width: float
    height: float
    columns: list[list[_Box]]


def svg_lines(nodes: Sequence[GraphNode], title: str) -> Iterator[str]:
    """A document of its own."""
    boxes = [_measured(node) for node in nodes]
    width = max([_width(boxes), len(title) * _LETTER]) + 2 * _PAD
    height = _height(boxes) + 3 * _PAD + _LINE
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label={quoteattr(printable(title))}>'
    )
    yield f"<title>{_text(title)}</title>"
    yield f"<style>{_STYLE}</style>"
    yield (
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    yield f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>'
    yield f'<text x="{_PAD}" y="{_PAD + _LINE - 4}" style="font-weight:bold">{_text(title)}</text>'
    yield from _placed(boxes, width / 2, 2 * _PAD + _LINE)
    yield "</svg>"


def _measured(node: GraphNode) -> _Box:
    title = _short(f"{node.position} {title_of(node)}".strip())
    small: str = "" if node.kind in ("begin", "end", "more") else node.status
    if node.seconds is not None:
        small = f"{small}, {span(node.seconds)}"
    columns = [[_measured(each) for each in member] for member in folded(node.members)]
    if node.inside:
        columns.append([_measured(each) for each in node.inside])
    text = max(width_of(title), width_of(small)) * _LETTER + 2 * _PAD
    lines = 2 if small else 1
    if not columns:
        return _Box(node, title, small, text, lines * _LINE + _PAD, columns)
    width = sum(_width(column) for column in columns) + _BESIDE * (len(columns) - 1) + 2 * _PAD
    height = max(_height(column) for column in columns) + lines * _LINE + 2 * _PAD
    return _Box(node, title, small, max(text, width), height, columns)


def _width(boxes: Sequence[_Box]) -> float:
    return max((box.width for box in boxes), default=0.0)


def _height(boxes: Sequence[_Box]) -> float:
    return sum(box.height for box in boxes) + _GAP * max(0, len(boxes) - 1)


def _placed(boxes: Sequence[_Box], middle: float, top: float) -> Iterator[str]:
    """*boxes* below each other around a vertical line, with arrows between them."""
    y = top
    for index, box in enumerate(boxes):
        if index:
            yield f'<path d="M{middle:.1f} {y - _GAP:.1f}V{y - 1:.1f}"/>'
        yield from _drawn(box, middle - box.width / 2, y)
        y += box.height + _GAP


def _drawn(box: _Box, x: float, y: float) -> Iterator[str]:
    group = "group " if box.columns else ""
    yield (
        f'<rect class="{group}{box.node.status}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}"/>'
    )
    base = y + _LINE - 1
    yield f'<text x="{x + _PAD:.1f}" y="{base:.1f}">{_text(box.title)}</text>'
    if box.small:
        yield f'<text class="small" x="{x + _PAD:.1f}" y="{base + _LINE - 2:.1f}">{_text(box.small)}</text>'
    if not box.columns:
        return
    inner = sum(_width(column) for column in box.columns) + _BESIDE * (len(box.columns) - 1)
    left = x + (box.width - inner) / 2
    top = y + (2 if box.small else 1) * _LINE + _PAD
    for column in box.columns:
        yield from _placed(column, left + _width(column) / 2, top)
        left += _width(column) + _BESIDE


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _text(text: str) -> str:
    return escape(printable(text))
