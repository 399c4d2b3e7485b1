"""
What the pages read, wherever it is: `Source`, which a journal gives (`journal`), and a cluster (`cluster`).

A source says in `pages` what it can show; what it cannot is in no menu, and its address leads to a page that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from attrs import field, frozen

from durable._cli.commands.look.show import Page
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import Event
from durable._core.recorded.export_format import RunHistory
from durable._shell.handles.batch_info import BatchInfo
from durable._shell.handles.schedule_handle import ScheduleInfo
from durable._shell.reads.run_rows import Filter, LimitRow, RunRow, WaitRow
from durable._shell.reports.census import QueueLine
from durable.errors import DurableError

#: Parts of an address that choose runs.
FILTERS = ("text", "status", "workflow", "queue", "label", "waiting_for", "parent", "batch", "since", "until")
#: Waits of a run, runs and batches that are shown on one page.
MOST_WAITS = 50
PAGE_LENGTH = 50
#: Limits (of a key each) that are shown: those at which most wait.
MOST_LIMITS = 200


class Listed(NamedTuple):
    """A page of runs."""

    #: Each with what it waits for, or why it ended or stopped.
    rows: list[tuple[RunRow, str]]
    #: Where the next page begins; None if this is the last.
    following: int | None
    workflows: list[str]
    queues: list[str]


class RunPage(NamedTuple):
    """A run as its summary shows it: `Page`, as the command line's, and what it waits for."""

    page: Page
    waits: list[WaitRow]
    #: The address of a page about it that somebody else has.
    elsewhere: str | None = None


@frozen
class Recorded:
    """A run with its events as far as they can be read, and why not all can."""

    row: RunRow
    events: list[Event]
    problem: str | None
    #: Events of those children that were asked for, too, by their ids.
    children: Mapping[str, Sequence[Event]] = field(factory=dict)


class BatchPage(NamedTuple):
    """A page of batches."""

    batches: list[BatchInfo]
    following: int | None


class OneBatch(NamedTuple):
    """A batch, what it waits for if it is not finished, and its latest members."""

    info: BatchInfo
    waits: str | None
    members: list[RunRow]


class Queues(NamedTuple):
    """Queues with something to do, or paused (None where they are not known); and limits at which somebody is."""

    queues: list[QueueLine] | None
    limits: list[LimitRow]


class Source(Protocol):
    """Where the runs of a dashboard are."""

    #: What of the menu it can show.
    pages: ClassVar[Collection[str]]
    #: Statuses that runs can be chosen by: open and ended are groups of them.
    statuses: ClassVar[Sequence[str]]
    #: Parts of an address that runs can be chosen by.
    filters: ClassVar[Sequence[str]]
    #: Whether anything can be changed here by those who may.
    may_change: ClassVar[bool]

    @property
    def name(self) -> str:
        """What the dashboard is called, where nobody says."""
        ...

    @property
    def definitions(self) -> Definitions | None:
        """The code at hand; None where none was given: then runs are shown as they are recorded, and not replayed."""
        ...

    @property
    def codec(self) -> Codec:
        """How values are read. Without the application's hooks, what they encode is shown as it stands."""
        ...

    def state(self) -> str | None:
        """What changes whenever anything does, found without reading it; None where nothing tells so."""
        ...

    def signal_type(self, name: str) -> Any:
        """What signals called *name* carry, as far as the application declares it; else None."""
        ...

    async def runs(self, wanted: Filter, after: int | None, now: float) -> Listed:
        """The runs that fit, newest first, and the names that filters may be chosen from."""
        ...

    async def run(self, run_id: str, now: float) -> RunPage:
        """All about one run."""
        ...

    async def events(self, run_id: str, opened: Sequence[str] = ()) -> Recorded:
        """What happened to a run, and to those of its children that are in *opened*."""
        ...

    async def recorded(self, run_id: str) -> RunHistory:
        """A run with its history, as the debugger replays it."""
        ...

    async def export(self, run_id: str, *, tree: bool) -> bytes:
        """A run, or *tree*: and what it started, as `durable export` writes them."""
        ...

    async def batches(self, after: int | None) -> BatchPage:
        """Batches, newest first."""
        ...

    async def batch(self, batch_id: str, now: float) -> OneBatch:
        """One of them."""
        ...

    async def schedules(self) -> list[ScheduleInfo]:
        """All schedules."""
        ...

    async def queues(self) -> Queues:
        """Queues and limits: who waits, who is inside."""
        ...


def text_of(payload: Payload | None, codec: Codec) -> Payload | None:
    """A recorded value as JSON text; as it is where the codec of the application is not known, or refuses it."""
    if not isinstance(payload, bytes):
        return payload
    try:
        return Codec().dump_plain(codec.load_plain(payload))
    except DurableError:
        return payload
