"""
Runs that are on a cluster, for the same pages: `Cluster` is what is asked of it, and `durable.temporal` gives it.

Lists are the server's. Of one run, a worker tells the journal; where none answers, its page shows what the server
knows, and says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Protocol

from durable._cli.commands.look.show import Page
from durable._cli.journals.families import Family
from durable._core.authoring.registry import Definitions, collect
from durable._core.codec.codec import Codec
from durable._core.journal.events import SignalReceived
from durable._core.recorded.export_format import Header, RunFacts, RunHistory, export_lines, header_line
from durable._core.recorded.memos import memos_in
from durable._core.release import RELEASE
from durable._core.statuses import ENDS, Status
from durable._shell.handles.batch_info import BatchInfo
from durable._shell.handles.handle import LimitInfo
from durable._shell.handles.run_info import RunInfo
from durable._shell.handles.schedule_handle import ScheduleInfo
from durable._shell.reads.run_rows import Filter, LimitRow, RunRow, WaitRow
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.errors import RunNotFoundError
from durable.web.journal import App, application_in
from durable.web.source import (
    FILTERS,
    MOST_LIMITS,
    MOST_WAITS,
    PAGE_LENGTH,
    BatchPage,
    Listed,
    OneBatch,
    Queues,
    Recorded,
    RunPage,
)

#: Seconds that a worker has to tell the journal of a run.
_PATIENCE: Final = 5.0
#: Runs behind which a list goes no further: a filter leads to older ones.
_FARTHEST: Final = 5_000
#: Children of a run that are named; and runs that an export with all that a run has started takes.
_CHILDREN: Final = 20
_IN_ALL: Final = 1_000


class RunThere(Protocol):
    """A run of a cluster."""

    @property
    def web_ui(self) -> str | None:
        """The address of the server's own page about it."""
        ...

    async def info(self) -> RunInfo:
        """The run as the server tells of it."""
        ...

    async def why(self) -> str:
        """What it waits for. A worker answers."""
        ...

    async def export(self) -> RunHistory:
        """Its journal. A worker answers."""
        ...

    async def children(self) -> list[RunInfo]:
        """The runs that it started, and those that its end started."""
        ...


class BatchThere(Protocol):
    """A batch of a cluster. A worker answers."""

    async def info(self) -> BatchInfo:
        """The batch as it stands."""
        ...

    async def why(self) -> str:
        """What it waits for."""
        ...


class Cluster(Protocol):
    """What a dashboard asks of an engine whose runs are not in a file."""

    @property
    def name(self) -> str:
        """Which of its runs these are: what the dashboard is called."""
        ...

    @property
    def definitions(self) -> Definitions:
        """What it executes."""
        ...

    @property
    def codec(self) -> Codec:
        """How it reads values."""
        ...

    def get(self, run_id: str, /) -> RunThere:
        """A handle on a run, by its id or key."""
        ...

    def runs(
        self,
        *,
        workflow: str | None = ...,
        status: Iterable[Status] | None = ...,
        labels: Mapping[str, str] | None = ...,
        queue: str | None = ...,
        parent: str | None = ...,
        batch: str | None = ...,
        since: float | None = ...,
        until: float | None = ...,
        limit: int | None = ...,
    ) -> AsyncIterator[RunInfo]:
        """Runs that fit all filters, in the server's order."""
        ...

    def get_batch(self, batch_id: str, /) -> BatchThere:
        """A handle on a batch."""
        ...

    def batches(self, *, limit: int | None = ...) -> AsyncIterator[BatchInfo]:
        """Batches, newest first."""
        ...

    @property
    def schedules(self) -> Callable[[], Awaitable[list[ScheduleInfo]]]:
        """Gives all schedules."""
        ...

    async def limits(self) -> list[LimitInfo]:
        """All limits. A worker answers."""
        ...


class ClusterSource:
    """The runs of a cluster; a `Source`."""

    #: Without what only a file tells: counts of all runs, queues, what today's code would break.
    pages: ClassVar[Collection[str]] = ("runs", "schedules", "batches", "queues", "debug")
    #: Of open runs, the server knows no more than that.
    statuses: ClassVar[Sequence[str]] = ("open", *ENDS, "ended")
    filters: ClassVar[Sequence[str]] = tuple(each for each in FILTERS if each != "waiting_for")
    may_change: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, app: App = None) -> None:
        self._cluster = cluster
        found = None if app is None else application_in(app)
        self.definitions = cluster.definitions if found is None else collect(found.definitions)
        self.codec = cluster.codec if found is None else found.codec
        self.name = cluster.name

    def state(self) -> None:
        """Nothing tells whether something has changed."""

    def signal_type(self, name: str) -> None:
        """Nothing is sent from here."""

    # --- runs ----------------------------------------------------------------------------------

    async def runs(self, wanted: Filter, after: int | None, now: float) -> Listed:  # noqa: ARG002 - of the protocol
        # Counted from the first, since the server's order is none that a run could tell its place in.
        first = min(after or 0, _FARTHEST)
        found = [info async for info in self._fitting(wanted, first + PAGE_LENGTH + 1)][first:]
        rows = [(row_of(info), _in_short(info)) for info in found[:PAGE_LENGTH]]
        following = first + PAGE_LENGTH if len(found) > PAGE_LENGTH and first < _FARTHEST else None
        names = sorted({each.name for each in self.definitions.all()})
        return Listed(rows, following, names, sorted({row.queue for row, _ in rows}))

    async def _fitting(self, wanted: Filter, limit: int) -> AsyncIterator[RunInfo]:
        if wanted.text is not None:  # the server does not search in texts: an id or a key leads to its run
            try:
                yield await self._cluster.get(wanted.text).info()
            except RunNotFoundError:
                return
            return
        statuses: Any = wanted.status  # of those that `statuses` has
        async for info in self._cluster.runs(
            workflow=wanted.workflow, status=statuses, labels=wanted.labels, queue=wanted.queue, parent=wanted.parent,
            batch=wanted.batch, since=wanted.since, until=wanted.until, limit=limit,
        ):  # fmt: skip
            yield info

    async def run(self, run_id: str, now: float) -> RunPage:  # noqa: ARG002 - of the protocol
        run = self._cluster.get(run_id)
        info = await run.info()
        exported, problem = await self._told(run)
        why = await run.why() if exported is not None else info.reason or f"it is {info.status}"
        started = await run.children()
        events, pending, waits, notes = [], [], [], []
        if exported is not None:
            events, pending, waits, notes = exported.events, exported.pending, exported.waits, exported.notes
        page = Page(
            row=row_of(info, None if exported is None else exported.run),
            why=why,
            events=events,
            pending=Counter(event.name for event in pending if isinstance(event, SignalReceived)),
            family=_family([each for each in started if each.follows != info.id]),
            waits=[],
            slots=[],
            followers=[row_of(each) for each in started if each.follows == info.id],
            memos=memos_in(notes),
            streams={},
            problem=problem,
        )
        shown = [WaitRow(each.position, each.kind, each.name, each.target, each.fire_at, each.since) for each in waits]
        return RunPage(page, shown[:MOST_WAITS], run.web_ui)

    async def events(self, run_id: str, opened: Sequence[str] = ()) -> Recorded:
        run = self._cluster.get(run_id)
        info = await run.info()
        exported, problem = await self._told(run)
        children = {each: (await self.recorded(each)).events for each in opened}
        if exported is None:
            return Recorded(row_of(info), [], problem)
        return Recorded(row_of(info, exported.run), exported.events, None, children)

    async def recorded(self, run_id: str) -> RunHistory:
        async with asyncio.timeout(_PATIENCE):
            return await self._cluster.get(run_id).export()

    async def export(self, run_id: str, *, tree: bool) -> bytes:
        found = [await self.recorded(run_id)]
        for history in found if tree else ():  # it grows meanwhile
            children = await self._cluster.get(history.run.run_id).children()
            found += [await self.recorded(each.id) for each in children[: _IN_ALL - len(found)]]
        at = datetime.now(UTC).isoformat(timespec="seconds")
        lines = [header_line(Header(RELEASE, SCHEMA_VERSION, at, runs=len(found)))]
        lines += [line for history in found for line in export_lines(history)]
        return "".join(f"{line}\n" for line in lines).encode()

    async def _told(self, run: RunThere) -> tuple[RunHistory | None, str | None]:
        """The journal of a run; or why no worker tells it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await run.export(), None
        except TimeoutError as error:
            said = str(error) or f"no worker of its queue has told its history within {_PATIENCE:g} s"
            return None, f"this is what the server knows: {said}"

    # --- batches -------------------------------------------------------------------------------

    async def batches(self, after: int | None) -> BatchPage:  # noqa: ARG002 - of the protocol
        async with asyncio.timeout(_PATIENCE):
            return BatchPage([info async for info in self._cluster.batches(limit=PAGE_LENGTH)], None)

    async def batch(self, batch_id: str, now: float) -> OneBatch:  # noqa: ARG002 - of the protocol
        batch = self._cluster.get_batch(batch_id)
        async with asyncio.timeout(_PATIENCE):
            info = await batch.info()
            waits = None if info.finished_at is not None else await batch.why()
        members = [row_of(each) async for each in self._cluster.runs(batch=batch_id, limit=PAGE_LENGTH)]
        return OneBatch(info, waits, members)

    # --- what else there is --------------------------------------------------------------------

    async def schedules(self) -> list[ScheduleInfo]:
        return await self._cluster.schedules()

    async def queues(self) -> Queues:
        async with asyncio.timeout(_PATIENCE):
            limits = await self._cluster.limits()
        return Queues(None, [row for limit in limits for row in _limit_rows(limit)][:MOST_LIMITS])


def row_of(info: RunInfo, facts: RunFacts | None = None) -> RunRow:
    """A run as a file would have it; *facts* are those of its journal, where a worker has told that."""
    return RunRow(
        run=0,
        run_id=info.id,
        workflow=info.workflow,
        version=info.version,
        kind=info.kind,
        status=info.status,
        queue=info.queue,
        priority=info.priority,
        key=info.key,
        labels=info.labels,
        attributes=None if facts is None else facts.attributes,
        reason=info.reason,
        successor=info.successor if facts is None else facts.successor,
        created_at=info.created_at,
        started_at=info.started_at,
        ended_at=info.ended_at,
        ready_at=None,
        parent=info.parent,
        position=info.position,
        follows=info.follows,
        batch=info.batch,
        unread={} if facts is None or facts.unread is None else facts.unread,
        hook_errors=(),
        abandoned={} if facts is None or facts.abandoned is None else facts.abandoned,
        error=info.error,
        compensated=info.compensated,
        progress=info.progress,
        forked_from=info.forked_from,
        root=info.root,
    )


def _family(children: Sequence[RunInfo]) -> Family:
    """Its children; theirs are on their own pages, each of which costs the server a question."""
    more = Counter[str](each.status for each in children[_CHILDREN:])
    return Family([(row_of(each), Family([], {})) for each in children[:_CHILDREN]], dict(more))


def _limit_rows(limit: LimitInfo) -> list[LimitRow]:
    """A line for each key at which somebody is, those with most who wait first."""
    inside = Counter(slot.key or "" for slot in limit.holders)
    waiting = Counter(slot.key or "" for slot in limit.waiters)
    since = {slot.key or "": slot.since for slot in reversed(limit.waiters)}
    rows = [LimitRow(limit.name, key, inside[key], waiting[key], since.get(key)) for key in sorted({*inside, *waiting})]
    return sorted(rows, key=lambda row: -row.waiting)


def _in_short(info: RunInfo) -> str:
    return "" if not info.reason else info.reason.strip().partition("\n")[0]
