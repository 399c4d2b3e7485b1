"""
Exported runs read back, however they were changed on the way: strictly, line by line.

A file may come from anybody. Nothing in it is executed, imported or looked up by name but classes
of events; sizes and nesting are bounded before anything is built; and whatever is wrong is one
error that names the file, the line, what was found and what was expected. Keys that are not known
are passed over, and absent fields take their defaults, so that releases can read each other's files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from attrs import evolve, field

from durable._core.journal.events import Event, RunContinued, RunRetried
from durable._core.journal.history import effective, only
from durable._core.light_frozen import light_define
from durable._core.recorded.export_format import (
    ExportedFeed,
    ExportedWait,
    FeedItem,
    Header,
    RunFacts,
    RunHistory,
    StepNote,
    line_counts,
)
from durable._core.recorded.export_values import (
    Wrong,
    event_from,
    facts_from,
    header_from,
    object_from,
    parse_line,
    read,
    wrong,
)
from durable._core.statuses import ENDS
from durable.errors import ExportFormatError


def read_export(lines: Iterable[bytes], source: str) -> Iterator[RunHistory]:
    """
    The runs in *lines*, one after the other; each is complete and consistent in itself.

    Args:
        lines: As a file in binary mode gives them.
        source: What to call it in errors: its path.

    Raises:
        ExportFormatError: At the first line that is wrong.
    """
    reader = _Reader()
    number = 0
    try:
        for line in lines:
            number += 1
            yield from reader.take(line)
        number += 1  # what is absent would stand there
        yield from reader.finish()
    except Wrong as error:
        raise ExportFormatError(source, number, str(error)) from None


@light_define
class _Draft:
    """A run whose lines are being read."""

    facts: RunFacts
    expected: dict[str, int]
    events: list[Event] = field(factory=list)
    pending: list[Event] = field(factory=list)
    notes: list[StepNote] = field(factory=list)
    waits: list[ExportedWait] = field(factory=list)
    feeds: dict[str, ExportedFeed] = field(factory=dict)
    items: dict[str, list[FeedItem]] = field(factory=dict)
    dedups: list[str] = field(factory=list)
    owed: dict[int, str] = field(factory=dict)

    def take(self, plain: dict[str, Any]) -> None:
        """Take in one line."""
        if "seq" in plain:
            self._take_event(plain)
            return
        for name, take in _TAKERS.items():
            if name in plain:
                take(self, plain[name] if name == "dedup" else object_from(plain[name], name))
                return
        found = ", ".join(repr(str(name)[:40]) for name in list(plain)[:5]) or "an empty object"
        wrong(f"expected an event (with seq), run, {', '.join(_TAKERS)}; found {found}: of a newer release?")

    def _take_event(self, plain: dict[str, Any]) -> None:
        expected = len(self.events) + 1
        if plain["seq"] != expected or type(plain["seq"]) is not int:
            wrong(f"seq: expected {expected} of run {self.facts.run_id!r}, found {plain['seq']!r:.40}")
        event = event_from(plain)
        if (event.category == "start") is not (expected == 1):
            what = "the first event is RunStarted" if expected == 1 else "RunStarted is the first event alone"
            wrong(f"event: {what}; found {type(event).__name__} as number {expected}")
        self.events.append(event)

    def take_pending(self, plain: dict[str, Any]) -> None:
        """Take in a line of this name."""
        if plain.get("owes") is not None:
            self.owed[len(self.pending)] = read(str, plain["owes"], "owes")
        self.pending.append(event_from(plain))

    def take_note(self, plain: dict[str, Any]) -> None:
        """Take in a line of this name."""
        self.notes.append(read(StepNote, {**plain, "value": plain}))

    def take_wait(self, plain: dict[str, Any]) -> None:
        """Take in a line of this name."""
        self.waits.append(read(ExportedWait, {"name": None, "target": None, "fire_at": None, **plain}))

    def take_feed(self, plain: dict[str, Any]) -> None:
        """Take in a line of this name."""
        feed: ExportedFeed = read(ExportedFeed, {"tolerate": None, **plain, "items": []})
        if feed.position in self.feeds:
            wrong(f"feed: a second one at {feed.position!r:.40}")
        self.feeds[feed.position], self.items[feed.position] = feed, []

    def take_item(self, plain: dict[str, Any]) -> None:
        """Take in a line of this name."""
        position = read(str, plain.get("position"), "item.position")
        if position not in self.items:
            wrong(f"item: no feed at {position!r:.40} stands before it")
        self.items[position].append(read(FeedItem, {**plain, "value": plain}))

    def take_dedup(self, plain: Any) -> None:
        """Take in a line of this name."""
        self.dedups.append(read(str, plain, "dedup"))

    def finished(self) -> RunHistory:
        """The run, now that all of its lines were read."""
        facts = self.facts
        feeds = [evolve(feed, items=tuple(self.items[position])) for position, feed in self.feeds.items()]
        run = RunHistory(facts, self.events, self.pending, self.notes, self.waits, feeds, self.dedups, self.owed)
        found = line_counts(run)
        for name, count in self.expected.items():
            if found.get(name, count) != count:
                wrong(f"run {facts.run_id!r} has {found[name]} of its {count} {name}: the file was cut off, or edited")
        if not self.events:
            wrong(f"run {facts.run_id!r} has no events")
        self._check_end()
        if any(only(self.events, RunRetried)):
            try:
                effective(self.events)
            except IndexError:
                wrong(f"run {facts.run_id!r}: RunRetried cuts behind the end of what is recorded")
        return run

    def _check_end(self) -> None:
        facts, last = self.facts, self.events[-1]
        closed = facts.status in ENDS
        if (last.status if last.category == "end" else None) != (facts.status if closed else None):
            wrong(f"run {facts.run_id!r} is said to be {facts.status}, but its last event is {type(last).__name__}")
        # Another run than it continued as is fine: pruning lets a chain point past links that are gone.
        if (facts.successor is None) is isinstance(last, RunContinued):
            wrong(f"run {facts.run_id!r}: successor {facts.successor!r:.40} with {type(last).__name__} as last event")
        if facts.successor == facts.run_id:
            wrong(f"run {facts.run_id!r} is said to continue as itself")
        if (facts.ended_at is not None) is not closed:
            wrong(f"run {facts.run_id!r} is said to be {facts.status}, with ended_at {facts.ended_at}")


_TAKERS: Final[dict[str, Callable[[_Draft, Any], None]]] = {
    "pending": _Draft.take_pending,
    "note": _Draft.take_note,
    "wait": _Draft.take_wait,
    "feed": _Draft.take_feed,
    "item": _Draft.take_item,
    "dedup": _Draft.take_dedup,
}


class _Reader:
    """What was read so far."""

    def __init__(self) -> None:
        self._header: Header | None = None
        self._draft: _Draft | None = None
        self._seen: set[str] = set()

    def take(self, line: bytes) -> Iterator[RunHistory]:
        """Take in one line; the run before it, if that is complete now."""
        if self._header is None:
            self._header = header_from(parse_line(line))
            return
        if not line.strip():
            return
        plain = parse_line(line)
        if "run" in plain:
            if self._draft is not None:
                yield self._draft.finished()
            self._draft = self._begin(object_from(plain["run"], "run"))
        elif self._draft is None:
            wrong("expected the facts of a run behind the header")
        else:
            self._draft.take(plain)

    def finish(self) -> Iterator[RunHistory]:
        """The last run."""
        if self._header is None:
            wrong("the file is empty: expected the header of a journal export")
        if self._draft is not None:
            yield self._draft.finished()
        if self._header.runs not in (None, len(self._seen)):
            wrong(f"{len(self._seen)} of {self._header.runs} runs: the file was cut off, or edited")

    def _begin(self, plain: dict[str, Any]) -> _Draft:
        facts = facts_from(plain)
        if facts.run_id in self._seen:
            wrong(f"run {facts.run_id!r} stands in this file twice")
        self._seen.add(facts.run_id)
        counts = object_from(plain.get("lines", {}), "lines")
        return _Draft(facts, {name: read(int, count, f"lines.{name:.20}") for name, count in counts.items()})
