"""
What `Engine` and `Client` offer alike: starting and finding runs, batches, queues, schedules; housekeeping; files.

All of it asks a `Backend`, so that it means the same wherever the journal is executed.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from durable._core.authoring.op_constructors import with_options
from durable._core.journal.payloads import answer_failure
from durable._core.program.definition import OnConflict
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp, Signal
from durable._core.program.requests import Request
from durable._core.program.start_options import StartOptions
from durable._core.program.tokens import read_token
from durable._core.recorded.export_format import RunHistory
from durable._core.release import RELEASE
from durable._core.statuses import Status
from durable._shell.backend import Backend
from durable._shell.handles.batch import Batch, draft_batch
from durable._shell.handles.batch_drafts import Callbacks
from durable._shell.handles.batch_info import BatchInfo, list_all
from durable._shell.handles.handle import LimitHandle, LimitInfo, QueueHandle, Run, limit_info
from durable._shell.handles.run_info import RunInfo, info_from
from durable._shell.handles.schedule_handle import ScheduleHandle, Schedules
from durable._shell.reads import run_details, run_rows
from durable._shell.reports import limit_rows
from durable._shell.requests.callback_requests import CompleteCallback, FailCallback, KeepCallback, is_new
from durable._shell.requests.history_requests import Imported, ImportRuns
from durable._shell.requests.prune_requests import (
    DeleteRun,
    PruneBatches,
    PruneBatchesAndKeys,
    PruneRuns,
    PruneRunsAndKeys,
)
from durable._shell.requests.run_requests import StartRuns
from durable._shell.rows.engine_events import EngineEvent, wanted_events
from durable._shell.rows.rows import NewRun
from durable._shell.threads import in_thread
from durable.errors import RunNotFoundError, UsageError

if TYPE_CHECKING:
    from durable._core.recorded.redaction import Redact

T = TypeVar("T")
B = TypeVar("B", bound=Backend)

#: Runs of one `start_many` that are made in one iteration of the event loop: their arguments are encoded there.
MADE_AT_ONCE = 64


class JournalHandle(Generic[B]):
    """What can be asked of a journal, no matter which process executes it."""

    def __init__(self, backend: B) -> None:
        self._backend = backend

    @property
    def path(self) -> str:
        """The journal's file."""
        return self._backend.path

    # --- starting runs --------------------------------------------------------------------------------------

    async def start(
        self,
        op: RunOp[T],
        *,
        id: str | None = None,
        key: str | None = None,
        key_ttl: float | timedelta | None = None,
        on_conflict: OnConflict | None = None,
        queue: str | None = None,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        expires: float | timedelta | datetime | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        signals: Sequence[tuple[str | Signal[Any], Any]] = (),
    ) -> Run[T]:
        """
        Start a run, or find the one that its key or id stands for; recorded when this returns.

        It is executed as soon as an engine has the journal open.

        Args:
            op: A call of a workflow or job.
            id: The run's id; by default one is made.
            key: One run per key: a later start with it and the same arguments gives the same run.
            key_ttl: Seconds (or a timedelta) for which this run holds the key, from when it begins; else for ever.
            on_conflict: What to do if the key is taken: ``join`` that run (unless the definition says otherwise),
                ``reject``, ``replace`` (cancel) it, ``rerun`` if it has ended, ``rerun-failed`` if it has ended
                without success. Or ``coalesce``: while it is running, one more run waits behind it, and further
                starts give that one their arguments.
            queue: The queue it runs on.
            delay: Seconds (or a timedelta) before it may begin.
            at: When it may begin, an aware datetime.
            expires: Seconds (or a timedelta) from now, or an aware datetime: if it has not begun by then, it fails
                with `RunExpiredError`.
            priority: Higher goes first within its queue.
            labels: Short strings to filter runs by.
            signals: Pairs of a signal and its payload, sent in the same transaction: to the run that is started, or
                to the one that is joined.

        Raises:
            RunStateError: The run that is joined has ended, so that it takes no signals.
            KeyConflictError, RunExistsError: The key or id belongs to another run.
            LimitReachedError: Its limit has no free slot, and says ``on_conflict="reject"``.
            DefinitionError: The workflow is not among the engine's definitions.
            EncodeError: An argument cannot be recorded.
            EngineClosedError: The engine (or client) is not open.
            JournalError: Nothing could be recorded.
        """
        made = with_options(
            op, id=id, key=key, key_ttl=key_ttl, on_conflict=on_conflict, queue=queue, delay=delay, at=at,
            expires=expires, priority=priority, labels=labels, signals=signals or None,
        )  # fmt: skip
        (run,) = await self.start_many([made])
        return run

    async def start_many(self, ops: Iterable[RunOp[T]]) -> list[Run[T]]:
        """Start many runs in one transaction: all, or none. Options are given by ``op.options(...)``."""
        backend, made = self._backend, list(ops)
        runs: list[NewRun] = []
        for op in made:
            runs.append(backend.new_run(op, in_line=True))
            if len(runs) % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
        ids = await backend.request(StartRuns(tuple(runs)))
        return [
            Run(backend, run_id, op.definition.result, new.run if run_id == new.run_id else 0)
            for run_id, op, new in zip(ids, made, runs, strict=True)
        ]

    async def run(self, op: RunOp[T], **options: Unpack[StartOptions]) -> T:
        """Start a run and wait for its result. Options as for `start`."""
        handle = await self.start(op, **options)
        return await handle.result()

    # --- finding them ---------------------------------------------------------------------------------------

    def get(self, run_id: str) -> Run[Any]:
        """A handle on the run called *run_id*; asking it raises RunNotFoundError if there is none."""
        return Run(self._backend, run_id)

    async def find(self, key: str) -> Run[Any]:
        """
        The run that *key* stands for.

        Raises:
            RunNotFoundError: If there is none.
        """
        row = await self._backend.read(run_rows.run_by_key, key)
        if row is None:
            raise RunNotFoundError("key", key)
        return Run(self._backend, row.run_id)

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
        waiting_for: str | Signal[Any] | Request[Any, Any] | None = None,
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
            waiting_for: What they wait for: a `Signal` or `Request`, or the name of one, or of a callback; or "signal",
                "request", "callback", "timer", "child", "retry" (the next attempt), "start" (a delay, or runs before
                it) or "slot" (of a limit). A signal that is called like one of these is "signal:NAME".
            since: Created at or after.
            until: Created before.
            limit: How many at most.
            after: The `RunInfo.cursor` of the last one seen: continues behind it.
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
            waiting_for=_waited_for(waiting_for),
            since=since.timestamp() if isinstance(since, datetime) else since,
            until=until.timestamp() if isinstance(until, datetime) else until,
        )
        left = limit
        before = after
        while left is None or left > 0:
            size = 200 if left is None else min(200, left)
            page, more = await self._backend.read(run_details.list_details, wanted, before, size)
            for each in page:
                yield info_from(each, self._backend, listed=True)
            if not more:
                return
            before = page[-1].row.run
            left = None if left is None else left - len(page)

    # --- answers to callbacks -------------------------------------------------------------------------------

    async def complete(self, token: str, value: Any = None) -> bool:
        """
        Complete a callback: the workflow that waits for it gets *value*. Returns when that is recorded.

        Args:
            token: Of the `Callback`, as it was handed out.
            value: Of the callback's type. It is recorded by its own type, and read as that of the callback.

        Returns:
            False if the callback was completed before, with an equal value.

        Raises:
            TokenUsedError: It was completed with something else, or failed.
            TokenExpiredError: Its deadline is over, or a heartbeat was missed.
            TokenEndedError: Its run has ended, or the attempt of it that asked.
            TokenForeignError: It is of another file, or its run was pruned.
            TokenMalformedError: It is no token.
            CallbackValueError: The value is of another type. The callback stays open.
            EncodeError: The value cannot be recorded.
        """
        read_token(token)
        payload = self._backend.codec.encode_by_value(value, where="answer to a callback")
        found = await self._backend.request(CompleteCallback(token, payload))
        return is_new(found, payload, self._backend.codec, failed=False)

    async def fail(self, token: str, error: str | Exception) -> bool:
        """
        Fail a callback: the workflow that waits for it gets *error*, as it gets that of a step.

        Args:
            token: Of the `Callback`, as it was handed out.
            error: What is raised there; a text becomes a `CallbackFailedError`.

        Returns:
            False if the callback was failed before, with an equal error.

        Raises:
            TokenError: As for `complete`.
        """
        read_token(token)
        payload = answer_failure(error, self._backend.codec)
        found = await self._backend.request(FailCallback(token, payload))
        return is_new(found, payload, self._backend.codec, failed=True)

    async def heartbeat(self, token: str) -> None:
        """
        Say that a callback is still being worked on: from now on it may be silent for its ``heartbeat=`` again.

        Nothing of that is in the history.

        Raises:
            TokenError: As for `complete`; also if it was answered.
        """
        read_token(token)
        await self._backend.request(KeepCallback(token))

    # --- queues, limits, schedules --------------------------------------------------------------------------

    def events(
        self,
        *,
        run: Run[Any] | str | None = None,
        workflow: RunnableDefinition[..., Any] | str | None = None,
        kinds: str | Iterable[str] | None = None,
    ) -> AsyncGenerator[EngineEvent]:
        """
        What happens from now on, for dashboards and metrics: ``async for event in engine.events(kinds="step")``.

        A slow reader holds nobody up: it loses the oldest, and is told (`EngineEvent.lost`). The end of an engine is
        the end of its events; a client and a service continue with the engine that executes the journal next.

        Args:
            run: A run or its id, to hear of that alone.
            workflow: A workflow or job, or its name.
            kinds: Names of events, as "step.failed"; or what stands before the dot, for all of these.

        Raises:
            UsageError: There are no events of that kind.
            EngineClosedError: The engine, or client, is not open.
        """
        return self._backend.events(wanted_events(run, workflow, kinds))

    @overload
    async def counts(self, by: str) -> dict[Any, int]: ...
    @overload
    async def counts(self, by: Iterable[str] = ...) -> dict[tuple[Any, ...], int]: ...
    async def counts(self, by: str | Iterable[str] = ("workflow", "status")) -> dict[Any, int]:
        """
        How many runs there are of each kind, such as ``{("ride", "failed"): 3, ...}``.

        Args:
            by: What to count by: "workflow", "version", "kind", "status", "queue", or "label:NAME" (None where a run
                has no such label). Of a single name, not in a tuple, the keys are the values themselves.

        Raises:
            UsageError: Runs cannot be counted by one of these.
        """
        names = (by,) if isinstance(by, str) else tuple(by)
        unknown = [name for name in names if name not in run_rows.COUNTED_BY and not name.startswith("label:")]
        if unknown or not names:
            msg = f"counts(by=) takes {', '.join(run_rows.COUNTED_BY)} and label:NAME, found {by!r}"
            raise UsageError(msg)
        found = await self._backend.read(run_rows.counts_by, names)
        return {values[0] if isinstance(by, str) else values: count for values, count in found}

    def queue(self, name: str) -> QueueHandle:
        """A handle on a queue."""
        return QueueHandle(self._backend, name)

    def limit(self, name: str) -> LimitHandle:
        """A handle on a named limit."""
        return LimitHandle(self._backend, name)

    async def limits(self) -> list[LimitInfo]:
        """All named limits that an engine has had, by name: their numbers, who has a slot, and who waits for one."""
        return [limit_info(row) for row in await self._backend.read(limit_rows.all_limit_rows)]

    def schedule(self, name: str) -> ScheduleHandle:
        """
        A handle on a schedule: `info`, `pause`, `resume`, `trigger`, `backfill`, `change`, `delete`.

        Each of these raises ScheduleNotFoundError if the journal knows none of this name.
        """
        return ScheduleHandle(self._backend, name)

    @property
    def schedules(self) -> Schedules:
        """
        The schedules of the journal.

        ``await engine.schedules()`` gives all that it knows, by name; those that no engine lists no longer tick.
        ``await engine.schedules.create(name, op, cron=...)`` makes one that is kept in the journal.
        """
        return Schedules(self._backend)

    async def prune(self, older_than: float | timedelta, *, keep_keys: bool | None = None, secure: bool = False) -> int:
        """
        Delete trees of runs that ended longer ago than this (seconds or timedelta); how many runs.

        A batch goes with all its runs, once it is finished and all of them ended that long ago.

        Args:
            older_than: Seconds, or a timedelta.
            keep_keys: A small row stays for each key that would be a deleted run's still: a start with it finds the run
                that is gone, and repeats nothing. If False, keys are free again. By default they are kept, unless
                *secure*.
            secure: Leave nothing of the runs in the file's pages or its WAL, as `scrub` does.
        """
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        before = self._backend.clock.now() - seconds
        deleted = 0
        if keep_keys is None:
            keep_keys = not secure
        for kind in (PruneBatches, PruneRuns) if keep_keys else (PruneBatchesAndKeys, PruneRunsAndKeys):
            following: int | None = 0
            while following is not None:
                pruned = await self._backend.request(kind(before, following))
                following = pruned.following
                deleted += pruned.runs
        if secure:
            await self.scrub()
        return deleted

    async def scrub(self) -> None:
        """
        Write the file anew, so that nothing of what was deleted is left in it: in no free page, and not in its WAL.

        Nothing is recorded meanwhile: about a second for each 100 MB. What the disk itself, copies and backups keep is
        beyond it. Tables of the application without an INTEGER PRIMARY KEY get other rowids.

        Raises:
            JournalFullError: It takes as much room as the file, twice, until it is done.
            JournalAccessError: Another program reads the file, and does not stop.
        """
        await self._backend.scrub()

    async def delete(self, run_id: str) -> int:
        """
        Delete a run that has ended, all that it continued as, and all that those started; how many runs.

        Nothing of them is left: their keys and ids are free again.

        Raises:
            RunNotFoundError: There is none.
            RunStateError: One of them is open, or another run waits for it, or it is a member of a batch.
        """
        return await self._backend.request(DeleteRun(run_id))

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

        Their histories: what they emitted is in the file, and in its backups.

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
        backend = self._backend
        run_ids = [runs] if isinstance(runs, str) else list(runs)

        def write(conn: sqlite3.Connection) -> None:
            from durable._shell.reports.exporting import export_runs, write_file  # noqa: PLC0415 - for those who export

            lines = export_runs(
                conn, backend.path, run_ids, now=backend.clock.now(), release=RELEASE, tree=tree, redact=redact,
                codec=backend.codec,
            )  # fmt: skip
            write_file(path, lines)

        await backend.read(write)

    async def import_runs(self, source: str | os.PathLike[str] | Iterable[RunHistory]) -> Imported:
        """
        Write exported runs into this journal, with their ids: all of them, or none; recorded when this returns.

        Those that had not ended arrive paused: `Run.resume` resumes them here. Those that are here already,
        event for event, are passed over. A key stays a run's own if it is free; batches are not restored.

        Args:
            source: A file that `export` wrote, or runs that `read_histories` read.

        Raises:
            ExportFormatError: The file holds something else; the error names the line.
            RunExistsError: A run with one of the ids is here, with other events.
            UsageError: The runs contradict each other.
        """
        if isinstance(source, (str, os.PathLike)):
            from durable._shell.reports.exporting import read_histories  # noqa: PLC0415 - for those who import

            histories = await in_thread(read_histories, source)
        else:
            histories = list(source)
        return await self._backend.request(ImportRuns(tuple(histories)))

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
            on_failure: Started when the first member, or nested batch, has failed permanently.
            on_complete: Started when all have ended, however they did.
            description: For people.
            labels: Short strings to filter batches by.
            id: The batch's id; by default one is made. A second batch with it and the same contents is the first.

        Raises:
            UsageError: A callback has an id or key; at the end of the block: another batch has this id.
            TypeError: A callback is not a call of a workflow or job.
        """
        given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        return draft_batch(self._backend, given, description, labels, id)

    def get_batch(self, batch_id: str) -> Batch:
        """A handle on the batch called *batch_id*; asking it raises BatchNotFoundError if there is none."""
        return Batch(self._backend, batch_id)

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
            after: The `BatchInfo.cursor` of the last one seen: continues behind it.
        """
        return list_all(self._backend, labels, description, limit, after)


def _waited_for(given: str | Signal[Any] | Request[Any, Any] | None) -> str | None:
    """As a filter has it."""
    match given:
        case Signal():
            return f"signal:{given.name}"
        case Request():
            return f"request:{given.name}"
        case _:
            return given


def backend_of(handle: JournalHandle[B]) -> B:
    """What is behind an engine or client: for the other rooms of this package, and not for users."""
    return handle._backend  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the one door to it
