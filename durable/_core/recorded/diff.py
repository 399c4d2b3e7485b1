"""
Two runs side by side: which of their commands correspond, where they part, and in what they differ.

Commands are aligned strand by strand, by what they ask for: a command that was inserted stands alone, and
those behind it still find their counterparts. Members of groups are aligned by their place. Durations,
times, sites, tracebacks and numbers of attempts are no differences; nor is it one that ids of children
derive from those of their runs. Pure: events in, rows out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Any, Final, Literal, TypeAlias

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps_sorted, loads
from durable._core.light_frozen import light_frozen
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.run_lines import Line, command_lines

#: How two lines differ. *order*: the outcome arrived earlier or later among the others, which replay tells apart.
Difference: TypeAlias = Literal["command", "arguments", "outcome", "order", "only first", "only second"]
#: What makes a payload comparable and printable: plain JSON data.
Reader: TypeAlias = Callable[[Payload], Any]

#: Commands of one strand times those of its counterpart, beyond the ends that are alike: with more, they are
#: paired by their numbers alone, since looking for insertions would take seconds.
MAX_SEARCH: Final = 250_000


@light_frozen
class Row:
    """What corresponds in two runs; None where one has no counterpart."""

    first: Line | None
    second: Line | None
    differs: tuple[Difference, ...] = ()

    @property
    def position(self) -> str:
        """In the first run, if it is there."""
        line = self.first or self.second
        return "" if line is None else line.position


@light_frozen
class FactRow:
    """A fact about two runs that is not the same."""

    name: str
    first: Any
    second: Any


@light_frozen
class Comparison:
    """Two runs side by side."""

    #: What differs of the runs as such: ``workflow``, ``version``, ``arguments``, ``status``.
    facts: list[FactRow]
    rows: list[Row]

    @property
    def parting(self) -> int:
        """Index of the first row that differs; their number if none does."""
        return sum(1 for _ in takewhile(lambda row: not row.differs, self.rows))

    @property
    def alike(self) -> bool:
        """Whether nothing differs."""
        return not self.facts and self.parting == len(self.rows)


def compare(first: RunHistory, second: RunHistory, *, plain: Reader | None = None) -> Comparison:
    """
    Two runs side by side.

    Args:
        first: One run. What a retry has set aside in it does not count.
        second: The other one.
        plain: Reads payloads; by default those that are JSON, and bytes that codec hooks made stay bytes.
    """
    read = plain or _plain
    facts = [
        FactRow(name, *pair)
        for name in ("workflow", "version", "status")
        if (pair := (getattr(first.run, name), getattr(second.run, name)))[0] != pair[1]
    ]
    given = first.started.value, second.started.value
    if _meaning(given[0], read) != _meaning(given[1], read):
        facts.append(FactRow("arguments", *given))
    ones, twos = command_lines(first), command_lines(second)
    pairs = [*_aligned(ones, twos), *_paired_notes(ones, twos)]
    late = _out_of_order(pairs)
    rows = {one.began: Row(one, two, _differences(one, two, read, late=one.began in late)) for one, two in pairs}
    return Comparison(facts, list(_merged(ones, twos, rows)))


# --- what corresponds ------------------------------------------------------------------------------------


class _Node:
    """A command, a strand (which has no line), or both: a group and its members."""

    __slots__ = ("line", "parts")

    def __init__(self) -> None:
        self.line: Line | None = None
        self.parts: dict[str, _Node] = {}

    @property
    def words(self) -> str:
        """What is asked for; of a group without its size."""
        command = "" if self.line is None else self.line.command
        return command.rpartition(" of ")[0] if self.parts and " of " in command else command


def _tree(lines: Sequence[Line]) -> _Node:
    root = _Node()
    for line in lines:
        if line.position:
            node = root
            for part in line.position.split("."):
                node = node.parts.setdefault(part, _Node())
            node.line = line
    return root


def _aligned(ones: Sequence[Line], twos: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Commands of both runs that correspond."""
    pending = [(_tree(ones), _tree(twos))]
    while pending:
        one, two = pending.pop()
        if one.line is not None and two.line is not None:
            yield one.line, two.line
            pending += [(one.parts[part], two.parts[part]) for part in one.parts if part in two.parts]
        elif one.line is None and two.line is None:
            pending += _strand_pairs(one, two)


def _strand_pairs(one: _Node, two: _Node) -> Iterator[tuple[_Node, _Node]]:
    """Commands of two strands: by what they ask for, and, where they ask for other things, one by one."""
    ones, twos = _in_order(one), _in_order(two)
    same = _alike(zip(ones, twos, strict=False))
    yield from zip(ones[:same], twos[:same], strict=True)
    ones, twos = ones[same:], twos[same:]
    if same := _alike(zip(reversed(ones), reversed(twos), strict=False)):
        yield from zip(ones[-same:], twos[-same:], strict=True)
        ones, twos = ones[:-same], twos[:-same]
    if len(ones) * len(twos) > MAX_SEARCH:
        yield from zip(ones, twos, strict=False)
        return
    matcher = SequenceMatcher(None, [node.words for node in ones], [node.words for node in twos], autojunk=False)
    for kind, first, end, other, other_end in matcher.get_opcodes():
        if kind in ("equal", "replace"):
            yield from zip(ones[first:end], twos[other:other_end], strict=False)


def _alike(pairs: Iterable[tuple[_Node, _Node]]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0].words == pair[1].words, pairs))


def _in_order(node: _Node) -> list[_Node]:
    return [node.parts[part] for part in sorted(node.parts, key=lambda part: (len(part), part))]


def _paired_notes(ones: Sequence[Line], twos: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Signals, notes and ends of both: the first of a name with the first, and so on."""
    counts: dict[str, int] = {}
    waiting: dict[tuple[str, int], Line] = {}
    for line in twos:
        if not line.position:
            counts[line.command] = number = counts.get(line.command, 0) + 1
            waiting[line.command, number] = line
    counts.clear()
    for line in ones:
        if not line.position:
            counts[line.command] = number = counts.get(line.command, 0) + 1
            if (other := waiting.get((line.command, number))) is not None:
                yield line, other


def _merged(ones: Sequence[Line], twos: Sequence[Line], rows: Mapping[int, Row]) -> Iterator[Row]:
    """All rows, in the order of the first run; what only the second has stands behind what it stood behind there."""
    paired = {row.second.began: row for row in rows.values() if row.second is not None}
    behind: dict[int, list[Row]] = {}
    anchor = -1
    for line in twos:
        row = paired.get(line.began)
        if row is not None and row.first is not None:
            anchor = row.first.began
        else:
            behind.setdefault(anchor, []).append(Row(None, line, ("only second",)))
    yield from behind.get(-1, ())
    for line in ones:
        yield rows.get(line.began) or Row(line, None, ("only first",))
        yield from behind.get(line.began, ())


# --- in what they differ ---------------------------------------------------------------------------------


def _differences(one: Line, two: Line, read: Reader, *, late: bool) -> tuple[Difference, ...]:
    if one.command != two.command:
        return ("command",)
    found: list[Difference] = []
    if (one.digest, _meaning(one.items, read)) != (two.digest, _meaning(two.items, read)):
        found.append("arguments")
    if (one.outcome, _came_to(one, read)) != (two.outcome, _came_to(two, read)):
        found.append("outcome")
    if late:
        found.append("order")
    return tuple(found)


def _came_to(line: Line, read: Reader) -> Any:
    return _meaning(line.value, read, failure=line.outcome == "failed")


def _meaning(payload: Payload | None, read: Reader, *, failure: bool = False) -> Any:
    """What two payloads that mean the same have in common: text, so that 1 is not true."""
    found = None if payload is None else read(payload)
    if found is None or isinstance(found, bytes):
        return found
    try:
        return dumps_sorted(_untraced(found) if failure else found)
    except (ValueError, RecursionError):  # not written by a codec of ours: compared as text instead
        return repr(payload)


def _untraced(failure: Any) -> Any:
    """A failure without its tracebacks: they hold lines and paths, which change with every edit."""
    if isinstance(failure, dict):
        return {
            name: _untraced(each) if name in ("cause", "context") else each
            for name, each in failure.items()
            if name not in ("traceback", "members")
        } | {"members": [_untraced(each) for each in failure.get("members") or ()]}
    return failure


def _plain(payload: Payload) -> Any:
    if isinstance(payload, bytes):
        return payload
    try:
        return loads(payload)
    except (ValueError, RecursionError):  # not written by a codec of ours: compared as text instead
        return payload


def _out_of_order(pairs: Sequence[tuple[Line, Line]]) -> set[int]:
    """
    The fewest outcomes that would have to move, for all to have arrived in the same order in both runs.

    They are identified by where their lines began in the first run.
    """
    arrived = sorted((one.ended, two.ended, one.began) for one, two in pairs if one.ended >= 0 and two.ended >= 0)
    # The longest increasing sequence of the second's indices stays: patience sorting, with links back.
    tops: list[int] = []  # the second's index on each pile
    piles: list[int] = []  # and its number in `arrived`
    below: list[int | None] = []
    for number, (_, second, _) in enumerate(arrived):
        pile = bisect_left(tops, second)
        tops[pile : pile + 1], piles[pile : pile + 1] = [second], [number]
        below.append(piles[pile - 1] if pile else None)
    stay: set[int] = set()
    left = piles[-1] if piles else None
    while left is not None:
        stay.add(left)
        left = below[left]
    return {began for index, (_, _, began) in enumerate(arrived) if index not in stay}
