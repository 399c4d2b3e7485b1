"""
Runs as text that leaves a journal: one fact a line, JSON, for people, programs and other files.

The first line is a header with versions. Then, for each run, a line of facts about it, its events
in order, and what it needs to continue elsewhere: arrivals that no turn has taken in, notes, waits,
windows. Values stand in it as the JSON that they are, so that a file needs nothing beside it.

Promises: what `export_lines` wrote, `export_reader` reads back equal, of this release and of every later
one; pure functions of plain data, no file and no clock. Kinds of events are identified by their class
names and fields by theirs, hence neither is ever renamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import field
from attrs import fields as attrs_fields

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps
from durable._core.codec.records import Instant, Seconds
from durable._core.journal.columns import fields_of
from durable._core.journal.events import KIND_NAMES, Event, RunStarted
from durable._core.journal.history import start_of
from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.recorded.export_fields import (
    ExportedKind,
    ExportedStatus,
    ExportedWake,
    JsonText,
    ParentEnd,
    RetryText,
    RunId,
    RunKind,
    Window,
    json_to_plain,
    payload_to_plain,
)

#: What the header begins with: tells these files from others.
MAGIC: Final = "journal export"
#: Of the lines; grows when an older release could no longer read them.
FORMAT: Final = 1


@light_frozen
class Header:
    """The first line of an export."""

    #: Release that wrote it, and the schema of the journal that it came from.
    release: str
    schema: int
    #: ISO 8601, UTC.
    exported_at: str
    #: Whether values were changed on the way out: then a replay may not see what the run saw.
    redacted: bool = False
    #: How many runs follow, where that was known.
    runs: int | None = None
    format: int = FORMAT


@light_frozen(kw_only=True)
class RunFacts:
    """
    What a journal knows of a run beside its events.

    Attributes:
        run_id, workflow, version: Which run, of what.
        sort: ``workflow`` or ``job``: `kind`, under the name that it has in files.
        status: As `RunInfo.status`, when it was exported.
        key_live: Whether the key was still this run's; until *key_until*, or for *key_ttl* seconds from when it begins.
        arguments: Digest of its arguments.
        reason: Why it is blocked, failed or cancelled.
        parent, position: Id of the run that started it, and where.
        follows: Id of the run whose end started it.
        successor: Id of the run that it continued as.
        batch: Id of the batch that it is a member of. For people: an import does not restore it.
        retry: Its own retry policy as JSON text, if it was started with one.
        timeout: Seconds, of a workflow from when it begins; of each attempt of a job, where it was started with that.
        expires_at: When it is given up if it has not begun.
        follow_ups: Runs that its success starts, as JSON text.
        unread: Signals that nobody had asked for when it ended, how many of each name.
        abandoned: Steps that were told to end and did not in time: their names, by position.
        on_parent_end: ``cancel`` or ``abandon``, if it does not end with the wait for it.
        limit, limit_key: Limit of which it holds a slot while it runs.
    """

    run_id: RunId
    workflow: str
    version: int
    sort: RunKind
    status: ExportedStatus
    created_at: Instant
    queue: str = "default"
    priority: int = 0
    key: str | None = None
    key_live: bool = False
    key_until: float | None = None
    arguments: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    attributes: Payload | None = None
    reason: str | None = None
    parent: str | None = None
    position: str | None = None
    follows: str | None = None
    successor: str | None = None
    batch: str | None = None
    retry: RetryText | None = None
    timeout: Seconds | None = None
    expires_at: Instant | None = None
    follow_ups: JsonText | None = None
    limit: str | None = None
    limit_key: str | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    unread: Mapping[str, int] | None = None
    abandoned: Mapping[str, str] | None = None
    on_parent_end: ParentEnd | None = None
    key_ttl: Seconds | None = None

    @property
    def kind(self) -> str:
        """``workflow`` or ``job``."""
        return self.sort


@light_frozen
class StepNote:
    """What a running step has noted: a cursor, or a memo (``memo:NAME:n``)."""

    position: str
    name: str
    value: Payload | None
    at: Instant


@light_frozen
class ExportedWait:
    """What a run waits for; *target* is the id of a run."""

    group: str
    position: str
    kind: ExportedKind
    wake_on: ExportedWake
    name: str | None
    target: str | None
    fire_at: float | None
    since: Instant


@light_frozen
class FeedItem:
    """An item of a window whose child is still to come."""

    item: int
    child: str
    value: Payload | None


@light_frozen
class ExportedFeed:
    """A window of a `for_each` that still has items to start; *template* is the run of an item, as JSON text."""

    position: str
    size: Window
    group: str
    wake_on: ExportedWake
    template: JsonText
    items: tuple[FeedItem, ...] = ()
    #: Failures that do not stop it yet; None: the first does.
    tolerate: int | None = None


@late_frozen
class RunHistory:
    """
    All of one run: what `durable.replay` needs, and what an import needs.

    Attributes:
        run: Facts about it.
        events: What is recorded, in order.
        pending: Arrivals that no turn has taken in yet, in order.
        notes: Cursors and memos of running steps.
        waits: What it waits for.
        feeds: Windows of each `for_each` that has items left.
        dedups: Ids of signals that it takes no second time.
        owed: Which of *pending* (by index) owes its window (a position) the next child.
    """

    run: RunFacts
    events: list[Event] = field(repr=False)
    pending: list[Event] = field(factory=list, repr=False)
    notes: list[StepNote] = field(factory=list, repr=False)
    waits: list[ExportedWait] = field(factory=list, repr=False)
    feeds: list[ExportedFeed] = field(factory=list, repr=False)
    dedups: list[str] = field(factory=list, repr=False)
    owed: Mapping[int, str] = field(factory=dict, repr=False)

    @property
    def started(self) -> RunStarted:
        """The first event: what it is a run of, and its arguments."""
        return start_of(self.events)


# --- writing -----------------------------------------------------------------------------------------


def header_line(header: Header) -> str:
    """The first line."""
    plain = {
        "durable": MAGIC,
        "format": header.format,
        "release": header.release,
        "schema": header.schema,
        "exported_at": header.exported_at,
        "redacted": header.redacted,
    }
    return dumps(plain if header.runs is None else {**plain, "runs": header.runs})


def export_lines(history: RunHistory) -> Iterator[str]:
    """The lines of one run, without line ends."""
    yield dumps({"run": _run_to_plain(history)})
    for seq, event in enumerate(history.events, 1):
        yield dumps({"seq": seq, **event_to_plain(event)})
    for index, event in enumerate(history.pending):
        owed = {"owes": history.owed[index]} if index in history.owed else {}
        yield dumps({"pending": {**event_to_plain(event), **owed}})
    for note in history.notes:
        plain = {"position": note.position, "name": note.name, "at": note.at}
        yield dumps({"note": {**plain, **payload_to_plain(note.value)}})
    for wait in history.waits:
        yield dumps(
            {"wait": _without_none({each.name: getattr(wait, each.name) for each in attrs_fields(ExportedWait)})}
        )
    for feed in history.feeds:
        plain = _without_none(
            {name: getattr(feed, name) for name in ("position", "size", "group", "wake_on", "tolerate")}
        )
        yield dumps({"feed": {**plain, "template": json_to_plain(feed.template)}})
        for item in feed.items:
            told = {"position": feed.position, "item": item.item, "child": item.child}
            yield dumps({"item": {**told, **payload_to_plain(item.value)}})
    for dedup in history.dedups:
        yield dumps({"dedup": dedup})


def _run_to_plain(history: RunHistory) -> dict[str, Any]:
    """The facts, less those that are absent; and what follows, so that a file which was cut off is noticed."""
    run = history.run
    plain: dict[str, Any] = {attribute.name: getattr(run, attribute.name) for attribute in attrs_fields(RunFacts)}
    plain["labels"] = dict(run.labels) or None
    plain["attributes"] = payload_to_plain(run.attributes) or None
    for name in ("retry", "follow_ups"):
        if plain[name] is not None:
            plain[name] = json_to_plain(plain[name])
    return {**_without_none(plain), "lines": {name: count for name, count in line_counts(history).items() if count}}


def line_counts(history: RunHistory) -> dict[str, int]:
    """How many lines of each sort follow the facts."""
    return {
        "events": len(history.events),
        "pending": len(history.pending),
        "notes": len(history.notes),
        "waits": len(history.waits),
        "feeds": len(history.feeds),
        "items": sum(len(feed.items) for feed in history.feeds),
        "dedups": len(history.dedups),
    }


def event_to_plain(event: Event) -> dict[str, Any]:
    """An event as data: its name, position, time, fields by name, and value."""
    plain: dict[str, Any] = {"event": KIND_NAMES[event.kind]}
    if event.position is not None:
        plain["position"] = event.position
    plain["at"] = event.at
    if fields := fields_of(event):
        plain["fields"] = fields
    return plain if event.value is None else plain | payload_to_plain(event.value)


def _without_none(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if value is not None}
