"""
Finding runs and queues: what `Engine` and `Client` answer alike, from the file.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.redaction import Redact
from durable._shell.handles.batch import Batch, draft_batch
from durable._shell.handles.batch_drafts import Callbacks
from durable._shell.handles.batch_info import BatchInfo, list_all
from durable._shell.handles.handle import QueueHandle, Run, RunInfo, info_from
from durable._shell.handles.schedule_handle import ScheduleHandle, ScheduleInfo, info_of
from durable._shell.reads import run_rows
from durable._shell.reads.exporting import export_runs, read_histories, release, write_file
from durable._shell.reads.run_rows import RunRow
from durable._shell.reads.schedule_rows import all_schedules
from durable._shell.requests.history_requests import Imported, ImportRuns
from durable._shell.requests.prune_requests import PruneBatches, PruneRuns
from durable._shell.requests.request import Request
from durable._shell.rows.rows import NewRun, Outcome, Status
from durable.errors import RunNotFoundError

R = TypeVar("R")


class Finding:
    """Look-ups by id, key and filter."""

    path: str
    codec: Codec
    clock: Clock

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of a function of `event_rows`."""
        raise NotImplementedError  # pragma: no cover - both have their own

    async def request(self, request: Request[R]) -> R:
        """Have a request recorded; its result once it is on disk."""
        raise NotImplementedError  # pragma: no cover - both have their own

    async def end_of(self, run_id: str, number: int = 0, /) -> tuple[RunRow | None, Outcome]:
        """A run and its outcome, once it has ended; no row where *number* tells that it is under way here."""
        raise NotImplementedError  # pragma: no cover - both have their own

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished."""
        raise NotImplementedError  # pragma: no cover - both have their own

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None) -> NewRun:
        """The run that *op* starts, not yet recorded."""
        raise NotImplementedError  # pragma: no cover - both have their own

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        raise NotImplementedError  # pragma: no cover - both have their own

    def result_type(self, workflow: str, version: int) -> Any:
        """What a workflow or job returns, as far as it is known here."""
        raise NotImplementedError  # pragma: no cover - both have their own

    def get(self, run_id: str) -> Run[Any]:
        """A handle on the run called *run_id*; asking it raises RunNotFoundError if there is none."""
        return Run(self, run_id)

    async def find(self, key: str) -> Run[Any]:
        """
        The run that *key* stands for.

        Raises:
            RunNotFoundError: If there is none.
        """
        row = await self.read(run_rows.run_by_key, key)
        if row is None:
            raise RunNotFoundError("key", key)
        return Run(self, row.run_id)

    async def runs(
        self,
        *,
        workflow: str | RunnableDefinition[..., Any] | None = None,
        status: Status | Iterable[Status] | None = None,
        labels: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        queue: str | None = None,
        parent: str | None = None,
        batch: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> AsyncIterator[RunInfo]:
        """
        Runs that fit all filters, newest first, read page by page.

        Args:
            workflow: Name or definition of a workflow or job.
            status: One status, or several.
            labels: All of these must be equal.
            attributes: Published values that must be equal.
            queue: Name of a queue.
            parent: Id of the run that started them.
            batch: Id of the batch that they are members of.
            since: Created at or after.
            until: Created before.
            limit: How many at most.
            after: The `RunInfo.cursor` of the last one seen: goes on behind it.
        """
        statuses = (status,) if isinstance(status, str) else None if status is None else tuple(status)
        wanted = run_rows.Filter(
            workflow=workflow.name if isinstance(workflow, RunnableDefinition) else workflow,
            status=statuses,
            labels=labels,
            attributes=attributes,
            queue=queue,
            parent=parent,
            batch=batch,
            since=since.timestamp() if isinstance(since, datetime) else since,
            until=until.timestamp() if isinstance(until, datetime) else until,
        )
        left = limit
        before = after
        while left is None or left > 0:
            size = 200 if left is None else min(200, left)
            page = await self.read(run_rows.list_runs, wanted, before, size)
            for row in page:
                yield info_from(row, self.codec)
            if len(page) < size:
                return
            before = page[-1].run
            left = None if left is None else left - len(page)

    def queue(self, name: str) -> QueueHandle:
        """A handle on a queue."""
        return QueueHandle(self, name)

    def schedule(self, name: str) -> ScheduleHandle:
        """
        A handle on a schedule: `info`, `pause`, `resume`, `trigger`.

        Each of these raises ScheduleNotFoundError if the journal knows none of this name.
        """
        return ScheduleHandle(self, name)

    async def schedules(self) -> list[ScheduleInfo]:
        """All schedules that the journal knows, by name; those that no engine was given tick no more."""
        return [info_of(row) for row in await self.read(all_schedules)]

    async def prune(self, older_than: float | timedelta) -> int:
        """
        Delete trees of runs that ended longer ago than this (seconds or timedelta); how many runs.

        A batch goes with all its runs, once it is finished and all of them ended that long ago.
        """
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        before = self.clock.now() - seconds
        deleted = 0
        for kind in (PruneBatches, PruneRuns):
            following: int | None = 0
            while following is not None:
                pruned = await self.request(kind(before, following))
                following = pruned.following
                deleted += pruned.runs
        return deleted

    # --- runs that leave, and arrive -----------------------------------------------------------------------

    async def export(
        self,
        runs: str | Iterable[str],
        path: str | os.PathLike[str],
        *,
        tree: bool = False,
        redact: Redact | None = None,
    ) -> None:
        """
        Write runs to a new text file (mode 0600): one event a line, JSON, for `import_runs`, `read_histories`, people.

        Args:
            runs: Their ids.
            path: The file; an existing one is refused.
            tree: Also what they have started: children, follow-ups, the runs that they continued as, and theirs.
            redact: Called with a `Redacted` for each value, label, key and reason; what it returns is written instead.

        Raises:
            RunNotFoundError: There is no such run.
            JournalAccessError: The file exists, or cannot be written.
            JournalCorruptError: An event does not match its checksum.
        """
        run_ids = [runs] if isinstance(runs, str) else list(runs)

        def write(conn: sqlite3.Connection) -> None:
            lines = export_runs(
                conn, self.path, run_ids, now=self.clock.now(), release=release(), tree=tree, redact=redact,
                codec=self.codec,
            )  # fmt: skip
            write_file(path, lines)

        await self.read(write)

    async def import_runs(self, source: str | os.PathLike[str] | Iterable[RunHistory]) -> Imported:
        """
        Write exported runs into this journal, with their ids: all of them, or none; recorded when this returns.

        Those that had not ended arrive paused: `Run.resume` lets them go on here. Those that are here already,
        event for event, are passed over. A key stays a run's own if it is free; batches are not restored.

        Args:
            source: A file that `export` wrote, or runs that `read_histories` read.

        Raises:
            ExportFormatError: The file holds something else; the error names the line.
            RunExistsError: A run with one of the ids is here, with other events.
            UsageError: The runs contradict each other.
        """
        if isinstance(source, (str, os.PathLike)):
            histories = await asyncio.to_thread(read_histories, source)
        else:
            histories = list(source)
        return await self.request(ImportRuns(tuple(histories)))

    # --- batches --------------------------------------------------------------------------------------------

    def batch(
        self,
        *,
        on_success: Callbacks = None,
        on_failure: Callbacks = None,
        on_complete: Callbacks = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Batch:
        """
        A batch, to be filled within ``async with engine.batch(...) as batch: batch.add(op)``.

        It is created at the end of the block, with its members and nested batches, in one
        transaction; an error in the block creates nothing. An empty batch completes at once.

        Args:
            on_success: A call of a workflow or job, or several: started when all members and
                nested batches have succeeded.
            on_failure: Started when the first member, or nested batch, has failed for good.
            on_complete: Started when all have ended, however they did.
            description: For people.
            labels: Short strings to filter batches by.
            id: The batch's id; by default one is made. A second batch with it and the same contents is the first.

        Raises:
            UsageError: A callback has an id or key; at the end of the block: another batch has this id.
            TypeError: A callback is no call of a workflow or job.
        """
        given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        return draft_batch(self, given, description, labels, id)

    def get_batch(self, batch_id: str) -> Batch:
        """A handle on the batch called *batch_id*; asking it raises BatchNotFoundError if there is none."""
        return Batch(self, batch_id)

    def batches(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> AsyncIterator[BatchInfo]:
        """
        Batches, newest first, read page by page.

        Args:
            labels: All of these must be equal.
            description: A part of it.
            limit: How many at most.
            after: The `BatchInfo.cursor` of the last one seen: goes on behind it.
        """
        return list_all(self, labels, description, limit, after)
