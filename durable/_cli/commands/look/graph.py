"""
``durable graph``: a run as a drawing.
"""

from __future__ import annotations

import io
import sqlite3
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from attrs import asdict

from durable._cli.drawing.model import GraphNode, nodes_of, with_inside
from durable._cli.drawing.svg import svg_lines
from durable._cli.drawing.text import dot_lines, mermaid_lines, text_lines
from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable._shell.reads.event_rows import event_rows, readable_events
from durable._shell.reads.run_rows import RunRow, run_by_id
from durable.errors import DurableError

_EPILOG = """\
examples:
  durable graph 019a3b --db rides.db
  durable graph 019a3b --db rides.db --format svg --output ride.svg
  durable graph 019a3b --db rides.db --format dot | dot -Tpdf > ride.pdf

A run is a sequence from top to bottom; members of a group stand side by side, each with what its
helper did. Children are drawn with what they did themselves; --depth looks further, or --depth 0 not at all."""
#: Runs that one drawing reads: more would be no drawing.
_MOST_RUNS = 200


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_database(parser)
    parser.add_argument(
        "--format", choices=("text", "mermaid", "dot", "svg"), default="text", help="what to draw (default: text)"
    )
    parser.add_argument("--output", metavar="FILE", help="write to a new file instead of standard output")
    parser.add_argument(
        "--depth", type=int, default=1, metavar="N", help="levels of children to look into (default: 1)"
    )
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Draw one run; FINDING if its history is damaged, and drawn as far as it is good."""
    path = database_path(args)
    with closing(open_readonly(path)) as conn, snapshot(conn):
        row = find_run(conn, args.run)
        reader = _Reader(conn, path)
        nodes = reader.nodes(row, args.depth)
    title = f"{row.workflow} {row.run_id}, {row.status}"
    if args.output:
        _to_file(args.output, _lines(nodes, title, args.format, Output(io.StringIO())))
    elif out.json:
        out.value({"run_id": row.run_id, "status": row.status, "nodes": [_plain(node) for node in nodes]})
    else:
        for line in _lines(nodes, title, args.format, out):
            out.line(line)
    if reader.problem is not None:
        msg = str(reader.problem)
        raise CommandError(msg, FINDING)
    return OK


class _Reader:
    """Reads runs for one drawing."""

    def __init__(self, conn: sqlite3.Connection, path: str) -> None:
        self._conn, self._path = conn, path
        self._left = _MOST_RUNS
        self.problem: DurableError | None = None

    def nodes(self, row: RunRow, depth: int) -> list[GraphNode]:
        self._left -= 1
        events, problem = readable_events(event_rows(self._conn, row.run), self._path, row)
        self.problem = self.problem or problem
        nodes = nodes_of(events) if events else []
        if depth <= 0:
            return nodes
        inside: dict[str, list[GraphNode]] = {}
        for run_id in _children(nodes):
            child = run_by_id(self._conn, run_id) if self._left > 0 else None
            if child is not None:
                inside[run_id] = self.nodes(child, depth - 1)
        return with_inside(nodes, inside)


def _children(nodes: Iterable[GraphNode]) -> list[str]:
    found: list[str] = []
    for node in nodes:
        if node.run_id is not None and node.kind != "end":
            found.append(node.run_id)
        for member in node.members:
            found += _children(member)
    return found


def _lines(nodes: list[GraphNode], title: str, kind: str, out: Output) -> Iterable[str]:
    match kind:
        case "mermaid":
            return mermaid_lines(nodes)
        case "dot":
            return dot_lines(nodes)
        case "svg":
            return (each for line in svg_lines(nodes, title) for each in line.split("\n"))
        case _:
            return [out.bold(title), *text_lines(nodes, out)]


def _to_file(name: str, lines: Iterable[str]) -> None:
    try:
        with open(name, "x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        msg = f"cannot write {name}: {error.strerror}"
        raise CommandError(msg) from None


def _plain(node: GraphNode) -> dict[str, Any]:
    return asdict(node)
