"""
``durable diff``: two runs side by side, from where they part.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from typing import Any, Final

from durable._cli.journals.files import add_database
from durable._cli.journals.finding import RUN_HELP
from durable._cli.journals.recorded import Damaged, recorded_runs
from durable._cli.terminal.output import Output, cut, iso, printable, width_of
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable._cli.terminal.values import call_lines, failure_in_short, plain
from durable._core.durations import span
from durable._core.recorded.copies import roots
from durable._core.recorded.diff import Comparison, Row, compare
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.run_lines import Line

_EPILOG: Final = """\
examples:
  durable diff 019a3b 019a3c --db rides.db
  durable diff 019a3b failed.jsonl --db rides.db --full
  durable diff before.jsonl after.jsonl

Commands are aligned by what they ask for, in each strand; then their arguments, their outcomes, and the order in which
the outcomes arrived are compared. Durations, times and numbers of attempts are no differences. Exit code 1 if
the runs differ, 0 if they are alike."""

#: Rows alike, between two that differ, that are left out unless all was asked for: more than this.
_CONTEXT: Final = 3
#: A terminal with fewer columns has no room for two runs side by side.
_TWO_COLUMNS: Final = 100
#: Characters of a value, where no terminal says how many there are.
_VALUE: Final = 160
_POSITION: Final = 8
#: How a difference is described.
_WORDS: Final = {
    "command": "other command",
    "arguments": "other arguments",
    "outcome": "other outcome",
    "order": "arrived in another order",
    "only first": "only in the first",
    "only second": "only in the second",
}


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN|FILE",
        help=f"a run of the journal ({RUN_HELP}), or an exported journal of one run (and its children); two of them",
    )
    add_database(parser)
    parser.add_argument("--full", action="store_true", help="all lines, whole values, durations and attempts")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the two side by side; FINDING if they differ."""
    first, second = _two(args)
    found = compare(first, second)
    if out.json:
        for each in plain_rows(found, full=args.full):
            out.value(each)
    else:
        write_comparison(first, second, found, out, full=args.full)
    return OK if found.alike else FINDING


def _two(args: Namespace) -> tuple[RunHistory, RunHistory]:
    if len(args.runs) != 2:  # noqa: PLR2004 - what "diff" means
        msg = f"which two runs? Found {len(args.runs)}: {', '.join(args.runs) or 'nothing'}"
        raise CommandError(msg)
    first, second = (_one(args, text) for text in args.runs)
    return first, second


def _one(args: Namespace, text: str) -> RunHistory:
    """The run that *text* means: of an exported journal, the one that started the others."""
    found: list[RunHistory] = []
    for each in recorded_runs(Namespace(runs=[text], db=args.db), time.time(), filters=False):
        if isinstance(each, Damaged):
            raise each.error
        found.append(each)
    if os.path.isfile(text):
        found = roots(found)
        if len(found) != 1:
            named = ", ".join(each.run.run_id for each in found[:5]) or "none"
            msg = f"{text} has {len(found)} runs that none of the others started ({named}), expected one"
            raise CommandError(msg)
    return found[0]


# --- for programs ------------------------------------------------------------------------------------------


def plain_rows(found: Comparison, *, full: bool) -> Iterator[dict[str, Any]]:
    """Facts that differ, then the rows from where the runs part; with *full* all rows."""
    for fact in found.facts:
        pair = (plain(fact.first), plain(fact.second)) if fact.name == "arguments" else (fact.first, fact.second)
        yield {"fact": fact.name, "first": pair[0], "second": pair[1]}
    for row in found.rows if full else found.rows[found.parting :]:
        yield {
            "position": row.position or None,
            "differs": list(row.differs),
            "first": _plain_line(row.first),
            "second": _plain_line(row.second),
        }


def _plain_line(line: Line | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {
        "position": line.position or None,
        "command": line.command,
        "outcome": line.outcome or None,
        "value": plain(line.value),
        "digest": line.digest or None,
        "attempts": line.attempts or None,
        "began_at": iso(line.began_at),
        "ended_at": iso(line.ended_at),
    }


# --- for people --------------------------------------------------------------------------------------------


def write_comparison(first: RunHistory, second: RunHistory, found: Comparison, out: Output, *, full: bool) -> None:
    """Facts that differ, how much is alike, and the rows from there on."""
    for mark, each in (("-", first), ("+", second)):
        facts = each.run
        out.line(
            f"{mark} {out.bold(facts.run_id)}  {facts.workflow} version {facts.version}, {out.status(facts.status)}"
        )
    for fact in found.facts:
        if fact.name == "arguments":
            for mark, each in (("-", first), ("+", second)):
                for line in call_lines(each.run.workflow, each.started.value, full=full):
                    out.line(_coloured(f"{mark} {line}", mark, out))
    out.line(_in_short(found))
    shown = list(enumerate(found.rows)) if full else _around(found)
    last = shown[0][0] - 1 if shown else -1
    for index, row in shown:
        if index != last + 1:
            out.line(out.dim(f"  ... {index - last - 1} alike"))
        last = index
        _write_row(row, out, full=full)
    if shown and last != len(found.rows) - 1:
        out.line(out.dim(f"  ... {len(found.rows) - last - 1} alike"))


def _in_short(found: Comparison) -> str:
    if found.parting == len(found.rows):
        return "all that is recorded is alike" if found.rows else "nothing was asked for"
    alike = found.rows[: found.parting]
    commands = [row for row in alike if row.position]
    if not commands:
        return "they part at the beginning"
    return f"{len(commands):,} command{'s' if len(commands) != 1 else ''} alike, up to {commands[-1].position}"


def _around(found: Comparison) -> list[tuple[int, Row]]:
    """The rows that differ, with some around them; nothing before the runs part."""
    near: set[int] = set()
    for index, row in enumerate(found.rows):
        if row.differs:
            near.update(range(max(found.parting, index - _CONTEXT), min(len(found.rows), index + _CONTEXT + 1)))
    return [(index, found.rows[index]) for index in sorted(near)]


def _write_row(row: Row, out: Output, *, full: bool) -> None:
    asked = "arguments" in row.differs
    one, two = (line_text(line, full=full, asked=asked) for line in (row.first, row.second))
    words = ", ".join(_WORDS[each] for each in row.differs)
    if not row.differs:
        out.line(f"  {row.position:<{_POSITION}} {_fitted(one, out, full=full)}".rstrip())
    elif out.width >= _TWO_COLUMNS and not full:
        half = (out.width - _POSITION - 6) // 2
        shift = "" if row.first is None or row.second is None or row.first.position == row.second.position else "→ "
        left, right = cut(one, half), cut(shift + two, half)
        padded = left + " " * (half - width_of(left))
        mark = "<" if row.second is None else ">" if row.first is None else "|"
        text = f"{mark} {row.position:<{_POSITION}} {_coloured(padded, '-', out)}  {_coloured(right, '+', out)}"
        out.line(text.rstrip())
        out.line(out.dim(f"  {'':<{_POSITION}} {words}"))
    else:
        for mark, line, text in (("-", row.first, one), ("+", row.second, two)):
            if line is not None:
                shown = f"{mark} {line.position:<{_POSITION}} {_fitted(text, out, full=full)}"
                out.line(_coloured(shown, mark, out))
        out.line(out.dim(f"  {'':<{_POSITION}} ({words})"))


def _fitted(text: str, out: Output, *, full: bool) -> str:
    return text if full else cut(text, out.width - _POSITION - 3 if out.width else _VALUE)


def _coloured(text: str, mark: str, out: Output) -> str:
    return out.colour(text, "31" if mark == "-" else "32")


def line_text(line: Line | None, *, full: bool = False, asked: bool = False) -> str:
    """
    A line of a run in words: what was asked for, and what came of it.

    Args:
        line: None gives an empty text.
        full: With durations and attempts.
        asked: With what is known of arguments: the items of a `for_each`, or a digest.
    """
    if line is None:
        return ""
    text = line.command
    if asked:
        text += f" ({_value_text(line.items)})" if line.items is not None else f" (arguments {line.digest or 'none'})"
    if line.outcome == "failed":
        text += f" failed: {failure_in_short(line.value)}"
    elif line.value is not None:
        arrow = "->" if line.outcome == "succeeded" or not line.outcome else f"{line.outcome}:"
        text += f" {arrow} {_value_text(line.value)}"
    elif line.outcome:
        text += f": {line.outcome}" if line.outcome != "succeeded" else " -> null"
    if full and line.attempts > 1:
        text += f", {line.attempts} attempts"
    if full and line.ended_at is not None and line.position:
        text += f", {span(max(0.0, line.ended_at - line.began_at))}"
    return printable(text)


def _value_text(value: Any) -> str:
    return f"<{len(value):,} bytes, encoded>" if isinstance(value, bytes) else str(value)
