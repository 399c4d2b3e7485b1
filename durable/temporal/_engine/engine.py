"""
`TemporalEngine`: the calls of `Engine` that mean something on a Temporal server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from temporalio.client import Client
from temporalio.common import (
    RawValue,
    VersioningBehavior,
    WorkerDeploymentVersion,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from durable._core.admission import Queue
from durable._core.authoring.op_constructors import with_options
from durable._core.authoring.registry import Definitions, Given
from durable._core.authoring.schedules import Schedule
from durable._core.codec.codec import Codec, ValueCodec
from durable._core.journal.payloads import answer_failure
from durable._core.policies.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.policies.limits import Limit, as_listed, collect_limits
from durable._core.program.definition import OnConflict
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp, Signal, TransactionOp
from durable._core.program.start_options import StartOptions
from durable._core.recorded.check import CheckReport
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.redaction import Redact
from durable._core.statuses import ENDS, OPEN, Status
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.middleware import Middleware
from durable._shell.attempts.resources import Resources
from durable._shell.attempts.steps import Steps
from durable._shell.clock import SystemClock
from durable._shell.engine.serving import told_to_stop
from durable._shell.handles.batch_drafts import Callbacks
from durable._shell.handles.batch_info import BatchInfo
from durable._shell.handles.handle import LimitInfo
from durable._shell.handles.run_info import RunInfo
from durable._shell.reports.exporting import read_histories
from durable._shell.requests.history_requests import Imported
from durable._shell.rows.carried import Carried, Carry
from durable._shell.rows.engine_events import EngineEvent, wanted_events
from durable._shell.tasks.broadcast import Broadcast
from durable.errors import (
    DefinitionError,
    EngineClosedError,
    KeyConflictError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    UsageError,
)
from durable.temporal._attempts.attempts import Attempts, Commits
from durable.temporal._attempts.run_ends import wait_for_ends
from durable.temporal._batches.batch_workflow import BatchWorkflow, batch_workflow_id
from durable.temporal._driving.run_workflow import RunWorkflow
from durable.temporal._engine import journals, reopening
from durable.temporal._engine.answering import answer
from durable.temporal._engine.asking import Asking
from durable.temporal._engine.batches import BatchesHere, TemporalBatch, draft_batch, list_batches
from durable.temporal._engine.elsewhere import OF_ENGINES, refuse
from durable.temporal._engine.handle import TemporalRun, moment, quoted
from durable.temporal._engine.limits import TemporalLimit
from durable.temporal._engine.run_infos import statuses_on_server
from durable.temporal._engine.schedules import TemporalSchedule, TemporalSchedules
from durable.temporal._engine.staging import StagedRuns
from durable.temporal._limits.limit_activities import limit_activities
from durable.temporal._limits.limit_workflow import LimitWorkflow
from durable.temporal._schedules.registering import check_schedule, register_schedule
from durable.temporal._schedules.tick_workflow import Ticks, TickWorkflow
from durable.temporal._setup.registry import register
from durable.temporal._setup.setup import Setup, SetupInterceptor
from durable.temporal._transactions.app_transactions import AppTransactions
from durable.temporal._wire.items import CHAPTERS
from durable.temporal._wire.journals import packed_journal
from durable.temporal._wire.payloads import packed
from durable.temporal._wire.starts import (
    ATTRIBUTES,
    Start,
    labels_of,
    make_start,
    memo_of_batches,
    new_run_from,
    start_of_journal,
    workflow_id_of,
)

T = TypeVar("T")

_DEFAULT: Final = "default"
#: How long the server keeps a run for the worker that has it in memory, before any other may take it.
_STICKY: Final = timedelta(seconds=2)


class TemporalEngine:
    """
    Runs workflows on a Temporal server: ``async with TemporalEngine(client, "rides", [ride, ...]) as engine``.

    Args:
        client: Connected to the server. Values do not pass the rules of its data converter, only its payload codec.
        task_queue: The server's task queue of the queue ``default``; queue ``mail`` is ``{task_queue}.mail``.
        definitions: As for `Engine`.
        light_jobs: Run awaited jobs that need no run of their own as activities of their parent: less work
            for the server. Such a job has no handle.
        queues: The concurrency of a `Queue` holds for each worker, its rate over all workers.
        limits: As for `Engine`; they hold over all workers.
        schedules: As for `Engine`; they are the server's, of the same names, and tick while no worker is there.
        transactions: Where ``@transaction`` commits.
        poll: Names of the queues that this process works on: all, unless told otherwise; none with ``()``, then it
            only starts runs and asks.
        codec: As for `Engine`: what encrypts values encrypts them here, too.
        resources: As for `Engine`: what the steps of this process share.
        middleware: As for `Engine`, as far as it is about steps.
        carry: As for `Engine`: by `durable.telemetry.instrumented`, spans of steps join the trace of who started them.
        deployment: The version that this worker is, for the server's Worker Versioning: a run stays with the version
            that it began with, so that its code never changes under it; ``version=`` and `patched` are for runs that
            outlive that. Batches and limits move along.
        worker_timeout: Seconds without a sign of life after which the step of a dead worker is given to another.
        grace: Seconds that running steps have to end when the engine closes; as many again for their clean-up.
        concurrency: Steps that this process runs at once, of each queue.
        threads: Of plain functions.
        crash_limit: Deaths of workers after which the step that was running counts as poison, as for `Engine`.
        cleanup_timeout: As for `Engine`.
        caps: As for `Engine`.
        compact_at: Events of the server after which a run continues as a fresh one of the server, with its journal;
            by default when the server suggests it.
        cached_runs: How many runs are kept in memory; others are replayed when something happens.
        searchable: Whether labels can be searched for: the namespace needs the search attribute ``DurableLabels``, a
            keyword list.
        web_ui: Where Temporal's own pages are, as ``http://localhost:8233``: `TemporalRun.web_ui`, and the dashboard.

    Raises:
        DefinitionError: Something cannot run on Temporal, and what to use instead.
    """

    def __init__(
        self,
        client: Client,
        task_queue: str,
        definitions: Iterable[Given],
        *,
        light_jobs: bool = False,
        queues: Sequence[Queue] = (),
        limits: Sequence[Limit] = (),
        schedules: Sequence[Schedule] = (),
        transactions: AppTransactions | None = None,
        poll: Iterable[str] | None = None,
        codec: ValueCodec | None = None,
        resources: Iterable[Any] | Mapping[type[Any], Any] = (),
        middleware: Sequence[Middleware] = (),
        carry: Iterable[Carried] = (),
        deployment: WorkerDeploymentVersion | None = None,
        worker_timeout: float = 15.0,
        grace: float = 5.0,
        concurrency: int = 100,
        threads: int = 40,
        crash_limit: int = CRASH_LIMIT,
        cleanup_timeout: float = CLEANUP_SECONDS,
        caps: Caps = DEFAULT_CAPS,
        compact_at: int | None = None,
        cached_runs: int = 1_000,
        searchable: bool = True,
        web_ui: str | None = None,
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._codec = Codec(codec, max_bytes=caps.value_bytes, max_depth=caps.nesting)
        self._clock = SystemClock()
        registry = register(definitions, transactions=transactions is not None)
        self._definitions = registry.definitions
        self._queues = {queue.name: queue for queue in queues}
        in_force = collect_limits([*registry.definitions.all(), *registry.steps.values()], limits)
        self._setup = Setup(
            registry,
            self._codec,
            self._task_queue_of,
            in_force,
            worker_timeout,
            crash_limit=crash_limit,
            cleanup_seconds=cleanup_timeout,
            caps=caps,
            compact_at=compact_at,
            light_jobs=light_jobs,
            searchable=searchable,
            pins_runs=deployment is not None,
            happened=self._happened,
        )
        self._hooks = Hooks(middleware, self._codec)
        self._resources, self._carry = Resources(resources), Carry(carry)
        named = {each.options.queue for each in registry.definitions.all()} | {*self._queues, _DEFAULT}
        self._deployment = None
        if deployment is not None:
            moving = VersioningBehavior.AUTO_UPGRADE  # limits and batches; runs say of themselves that they are pinned
            self._deployment = WorkerDeploymentConfig(deployment, True, moving)  # noqa: FBT003 - a record
        self._polled = sorted(named) if poll is None else [*poll]
        self._grace, self._concurrency, self._threads, self._cached = grace, concurrency, threads, cached_runs
        queue_names = {self._task_queue_of(name): name for name in {*named, *self._polled}}
        self._asking = Asking(
            client,
            self._codec,
            registry.definitions,
            self._carry,
            task_queue,
            queue_names,
            self._continue,
            reopening,
            web_ui,
        )
        self._schedules = as_listed("schedules", schedules, Schedule)
        for schedule in self._schedules:
            check_schedule(schedule)
        self._commits: Commits | None = None
        if transactions is not None:
            staging = StagedRuns(
                client, registry.definitions, self._codec, self._clock, self._task_queue_of, searchable, self._carry
            )
            self._commits = Commits(transactions, staging)
        self._steps: Steps | None = None
        self._broadcast: Broadcast | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_draining = False
        self._workers: list[Worker] = []
        self._running: list[asyncio.Task[None]] = []

    def _task_queue_of(self, queue: str) -> str:
        return self._task_queue if queue == _DEFAULT else f"{self._task_queue}.{queue}"

    if not TYPE_CHECKING:  # a type checker says of what is not there that it is not

        def __getattr__(self, name: str) -> Any:
            refuse(name, OF_ENGINES, type(self).__name__)

    @property
    def name(self) -> str:
        """Where its runs are: the task queue of the queue ``default``, and the namespace."""
        return f"{self._task_queue} in {self._client.namespace}"

    @property
    def definitions(self) -> Definitions:
        """The workflows and jobs that it knows."""
        return self._definitions

    @property
    def codec(self) -> Codec:
        """How it writes and reads values."""
        return self._codec

    # --- workers -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to work on the queues; as ``async with`` does."""
        steps = self._steps = Steps(
            self._codec,
            self._clock,
            _never,
            self._hooks,
            BatchesHere(self._asking),
            f"temporal:{self._client.namespace}",
            self._threads,
            is_draining=lambda: self._is_draining,
            resources=self._resources,
            carry=self._carry,
        )
        self._loop = asyncio.get_running_loop()
        self._broadcast = Broadcast(self._clock, self._hooks.happened if self._hooks.watches_events else None)
        await self._resources.open()
        attempts = Attempts(self._setup, self._client, steps, self._commits, self._carry)
        if self._commits is not None and self._polled:
            await self._commits.transactions.open(self._commits.staging)
        self._workers = [self._worker(name, attempts) for name in self._polled]
        if self._polled:
            for schedule in self._schedules:
                await register_schedule(self._client, schedule, self._task_queue)
        self._is_draining = False
        self._running = [asyncio.create_task(worker.run()) for worker in self._workers]

    async def aclose(self) -> None:
        """End the work: running steps have their grace; what is cut off continues on another worker."""
        self._is_draining = True
        await asyncio.gather(*(worker.shutdown() for worker in self._workers))
        running, self._running, self._workers = self._running, [], []
        await asyncio.gather(*running)
        await self._resources.aclose(self._grace)
        broadcast, self._broadcast = self._broadcast, None
        if broadcast is not None:
            broadcast.close()
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    async def serve(self) -> None:
        """Work until SIGTERM or SIGINT, then close: the whole of a program that only executes."""
        with told_to_stop() as stop:
            async with self:
                asked = asyncio.create_task(stop.asked())
                try:
                    await asyncio.wait([asked, *self._running], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    asked.cancel()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _worker(self, name: str, attempts: Attempts) -> Worker:
        queue = self._queues.get(name)
        rate = None if queue is None else queue.rate
        beat = timedelta(seconds=min(0.2, self._setup.worker_timeout / 3))
        setup = self._setup
        ticks = Ticks(self._schedules, self._definitions, self._codec, self._task_queue_of, setup.searchable)
        return Worker(
            self._client,
            task_queue=self._task_queue_of(name),
            workflows=[RunWorkflow, LimitWorkflow, TickWorkflow, BatchWorkflow],
            activities=[
                attempts.activity(),
                wait_for_ends(self._client, self._codec),
                *limit_activities(self._client, self._task_queue),
                ticks.activity(),
            ],
            workflow_runner=UnsandboxedWorkflowRunner(),
            interceptors=[SetupInterceptor(self._setup)],
            max_concurrent_activities=(queue and queue.concurrency) or self._concurrency,
            max_task_queue_activities_per_second=None if rate is None else rate.count / rate.per,
            max_cached_workflows=self._cached,
            deployment_config=self._deployment,
            sticky_queue_schedule_to_start_timeout=_STICKY,
            graceful_shutdown_timeout=timedelta(seconds=self._grace),
            # Attempts set the pace of their signs of life themselves.
            max_heartbeat_throttle_interval=beat,
            default_heartbeat_throttle_interval=beat,
        )

    # --- starting runs -------------------------------------------------------------------------

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
    ) -> TemporalRun[T]:
        """
        Start a run, or find the one that its key or id stands for; the server has recorded it when this returns.

        Options as those of `Engine.start`, but that a key is the id of the run on the server: taken as long as the
        namespace keeps the run.

        Raises:
            KeyConflictError, RunExistsError: The key or id belongs to another run.
            DefinitionError: The workflow is not among the engine's definitions.
            EncodeError: An argument cannot be recorded.
            UsageError: An option has no meaning on Temporal; the message says what to use instead.
        """
        made = with_options(
            op, id=id, key=key, key_ttl=key_ttl, on_conflict=on_conflict, queue=queue, delay=delay, at=at,
            expires=expires, priority=priority, labels=labels, signals=signals or None,
        )  # fmt: skip
        return await self._start(made)

    async def start_many(self, ops: Iterable[RunOp[T]]) -> list[TemporalRun[T]]:
        """Start many runs; not all or none: the server starts one a call."""
        made = [with_options(op) for op in ops]
        return list(await asyncio.gather(*map(self._start, made)))

    async def run(self, op: RunOp[T], **options: Unpack[StartOptions]) -> T:
        """Start a run and wait for its result. Options as for `start`."""
        handle = await self.start(op, **options)
        return await handle.result()

    async def _start(self, op: RunOp[T]) -> TemporalRun[T]:
        return await self._start_as(op)

    async def _start_as(self, op: RunOp[T], *, run_id: str | None = None) -> TemporalRun[T]:
        start = make_start(
            op, definitions=self._definitions, codec=self._codec, now=self._clock.now(), run_id=run_id,
            carried=self._carry.captured(self._codec),
        )  # fmt: skip
        new = start.new
        if new.on_conflict == "replace":
            await self._end_other(start.workflow_id)
        result = op.definition.result
        try:
            handle = await self._client.start_workflow(
                new.workflow,
                args=start.arguments,
                result_type=RawValue,
                id=start.workflow_id,
                task_queue=self._task_queue_of(new.queue),
                memo=start.memo,
                priority=start.priority,
                start_delay=start.delay,
                search_attributes=labels_of(new) if self._setup.searchable else None,
                id_reuse_policy=start.reuse,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            run = await self._joined(start, result)
            for signal, payload in op.given.signals:
                await run.signal(signal, payload)
            return run
        # The server's own handle: that of a time-skipping test server skips time while somebody waits.
        return TemporalRun(self._asking, start.workflow_id, result, handle)

    async def _joined(self, start: Start, result: Any) -> TemporalRun[Any]:
        """The run that has the key or id already."""
        new = start.new
        found = TemporalRun[Any](self._asking, start.workflow_id, result)
        described = await self._asking.handle_on(start.workflow_id).describe()
        other = new_run_from(await described.memo())
        recorded = described.workflow_type if other is None else other.arguments
        if new.on_conflict != "reject" and recorded == new.arguments:
            return found
        if new.key is None:
            raise RunExistsError(start.workflow_id, f"started as {recorded}")
        raise KeyConflictError(new.key, start.workflow_id, recorded, new.arguments)

    async def _end_other(self, workflow_id: str) -> None:
        other = TemporalRun[Any](self._asking, workflow_id)
        try:
            if await other.cancel("replaced"):
                await other.result(wait=True)
        except (RunNotFoundError, RunCancelledError, RunFailedError):
            return

    # --- answers to callbacks ------------------------------------------------------------------

    async def complete(self, token: str, value: Any = None) -> bool:
        """
        Complete a callback: the workflow that waits for it gets *value*. As `Engine.complete`, with the same errors.

        A worker that has the run answers.
        """
        payload = self._codec.encode_by_value(value, where="answer to a callback")
        return await answer(self._asking, token, "complete", payload)

    async def fail(self, token: str, error: str | Exception) -> bool:
        """Fail a callback: the workflow that waits for it gets *error*. As `Engine.fail`, with the same errors."""
        return await answer(self._asking, token, "fail", answer_failure(error, self._codec))

    async def heartbeat(self, token: str) -> None:
        """Say that a callback is still being worked on. As `Engine.heartbeat`, with the same errors."""
        await answer(self._asking, token, "heartbeat", "null")

    # --- the application's own data ------------------------------------------------------------

    async def transact(self, op: TransactionOp[T], *, timeout: float = 5.0) -> T:
        """
        What a `@transaction` returns, called outside of workflows. As `Engine.transact`.

        It commits in the application's database, with the runs that it enqueues; nothing else is recorded of it.

        Args:
            op: A call of it, without the `Transaction`.
            timeout: Seconds to wait. One that is late may still commit.

        Raises:
            UsageError: The engine has no ``transactions=``.
            TimeoutError: It took longer.
        """
        if self._commits is None:
            msg = f"transact({op.describe()}): give the engine transactions=AppTransactions(connect) to commit to"
            raise UsageError(msg)
        transactions, staging = self._commits.transactions, self._commits.staging
        async with asyncio.timeout(timeout):
            payload = await transactions.transact(op, f"handler:{secrets.token_hex(16)}", self._codec, staging)
        value: T = self._codec.decode(payload, op.definition.result, where=op.definition.result_place)
        return value

    # --- runs that come with their journals ----------------------------------------------------

    async def import_runs(self, source: str | os.PathLike[str] | Iterable[RunHistory]) -> Imported:
        """
        Have runs continue here that were exported from a journal, or by `TemporalRun.leave`; with their ids.

        They arrive paused, as in an embedded engine: `TemporalRun.resume` resumes them. Those that have the same id
        here already are passed over; and those that have ended stay where they are. Children come before parents.

        Args:
            source: A file that `Engine.export` wrote, or runs that `durable.read_histories` read.

        Raises:
            ExportFormatError: The file holds something else.
            DefinitionError: The definition of a run is not among the engine's.
            UsageError: A run stands in a `for_each` whose later items are its file's to start.
        """
        histories = read_histories(source) if isinstance(source, (str, os.PathLike)) else list(source)
        found = Imported([], [])
        for history in reversed(histories):
            if history.run.status in ENDS:
                continue
            self._check_importable(history)
            try:
                await self._continue(history, held=True)
                found.runs.append(history.run.run_id)
            except WorkflowAlreadyStartedError:
                found.present.append(history.run.run_id)
        return found

    def _check_importable(self, history: RunHistory) -> None:
        facts = history.run
        if self._definitions.find(facts.workflow, facts.version) is None:
            msg = f"run {facts.run_id!r}: no workflow or job called {facts.workflow!r} is among the definitions"
            raise DefinitionError(msg)
        if history.feeds:
            msg = (
                f"run {facts.run_id!r} stands in a for_each with a window, whose later items its file starts: move it "
                "when that is done"
            )
            raise UsageError(msg)

    async def _continue(
        self,
        history: RunHistory,
        *,
        held: bool = False,
        again: bool = False,
        chapters: str = "",
        batches: Sequence[str] = (),
    ) -> None:
        """Start a run that has a journal, as a member of *batches*; *again*: one of its id has ended."""
        start = start_of_journal(history)
        new, attributes = start.new, history.run.attributes
        memo = {**start.memo, **memo_of_batches(batches)}
        policy = WorkflowIDReusePolicy
        await self._client.start_workflow(
            new.workflow,
            args=[packed_journal(history, held=held), *([packed(chapters, CHAPTERS)] if chapters else [])],
            id=start.workflow_id,
            task_queue=self._task_queue_of(new.queue),
            memo=memo if attributes is None else {**memo, ATTRIBUTES: packed(attributes)},
            priority=start.priority,
            search_attributes=labels_of(new) if self._setup.searchable else None,
            id_reuse_policy=policy.ALLOW_DUPLICATE if again else policy.REJECT_DUPLICATE,
        )

    async def export(
        self,
        runs: str | Iterable[str],
        path: str | os.PathLike[str],
        *,
        tree: bool = False,
        redact: Redact | None = None,
    ) -> None:
        """
        Write runs to a new text file, as `Engine.export`; workers tell their journals.

        Args:
            runs: Their ids.
            path: The file; an existing one is refused.
            tree: Also what they have started, and what that has started.
            redact: As of `Engine.export`.

        Raises:
            RunNotFoundError: There is no such run.
            JournalAccessError: The file exists, or cannot be written.
            TimeoutError: No worker answers.
        """
        run_ids = [runs] if isinstance(runs, str) else runs
        await journals.export(self._asking, run_ids, path, tree=tree, redact=redact)

    async def check(self, *, all: bool = False) -> CheckReport:
        """
        What the engine's definitions would break: replays every open run (with *all*, every run) as workers tell it.

        Before a deploy: with ``poll=()``, so that those who tell are the workers that are deployed.

        Raises:
            TimeoutError: No worker answers.
        """
        return await journals.check(self._asking, self.runs(status=None if all else OPEN))

    # --- limits and schedules ------------------------------------------------------------------

    def limit(self, name: str) -> TemporalLimit:
        """A handle on a named limit: its `info`."""
        return TemporalLimit(self._asking, self._setup.limits, name)

    async def limits(self) -> list[LimitInfo]:
        """The engine's limits by name: their numbers, who has a slot, and who waits for one, over all workers."""
        return [await self.limit(name).info() for name in sorted(self._setup.limits)]

    def schedule(self, name: str) -> TemporalSchedule:
        """
        A handle on a schedule: `info`, `pause`, `resume`, `trigger`, `backfill`, `delete`.

        Each of these raises ScheduleNotFoundError if the server has none of this name.
        """
        return TemporalSchedule(self._asking, self._schedules, self._start_as, name)

    @property
    def schedules(self) -> TemporalSchedules:
        """The schedules on the server: ``await engine.schedules()``."""
        return TemporalSchedules(self._asking, self.schedule)

    # --- batches -------------------------------------------------------------------------------

    def batch(
        self,
        *,
        on_success: Callbacks = None,
        on_failure: Callbacks = None,
        on_complete: Callbacks = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> TemporalBatch:
        """
        A batch, to be filled within ``async with engine.batch(...) as batch: batch.add(op)``. As `Engine.batch`.

        It is made at the end of the block; its members begin one after the other. It takes 8,000, and more in nested
        batches.
        """
        given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
        return draft_batch(self._asking, given, description, labels, id)

    def get_batch(self, batch_id: str) -> TemporalBatch:
        """A handle on the batch called *batch_id*; asking it raises BatchNotFoundError if there is none."""
        return TemporalBatch(self._asking, batch_id)

    def batches(
        self, *, labels: Mapping[str, str] | None = None, description: str | None = None, limit: int | None = None
    ) -> AsyncIterator[BatchInfo]:
        """Batches, newest first, as the server finds them; a worker is asked about each."""
        return list_batches(self._asking, labels, description, limit)

    # --- what happens --------------------------------------------------------------------------

    def events(
        self,
        *,
        run: TemporalRun[Any] | str | None = None,
        workflow: RunnableDefinition[..., Any] | str | None = None,
        kinds: str | Iterable[str] | None = None,
    ) -> AsyncGenerator[EngineEvent]:
        """
        What happens from now on to the runs that this process works on. As `Engine.events`, with the same errors.

        Told as a worker decides it, a moment before the server has recorded it; of ``run.ready``, ``run.waiting``,
        items that steps emit and batches nothing is told. Middleware hears the same by `Middleware.happened`.
        """
        wanted = wanted_events(run, workflow, kinds)
        if self._broadcast is None:
            msg = "events(): this engine is not open"
            raise EngineClosedError(msg)
        return self._broadcast.subscribe(wanted)

    def _happened(self, events: Sequence[EngineEvent]) -> None:
        """Called in the thread of a workflow."""
        broadcast, loop = self._broadcast, self._loop
        if broadcast is None or loop is None or not (broadcast.has_readers or self._hooks.watches_events):
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(broadcast.tell, events)

    # --- finding them --------------------------------------------------------------------------

    def get(self, run_id: str) -> TemporalRun[Any]:
        """A handle on the run called *run_id*; asking it raises RunNotFoundError if there is none."""
        return TemporalRun(self._asking, run_id)

    async def find(self, key: str) -> TemporalRun[Any]:
        """
        The run that *key* stands for.

        Raises:
            RunNotFoundError: If there is none.
        """
        run = TemporalRun[Any](self._asking, key)
        try:
            await run.info()
        except RunNotFoundError:
            raise RunNotFoundError("key", key) from None
        return run

    async def runs(
        self,
        *,
        workflow: str | RunnableDefinition[..., Any] | None = None,
        status: Status | Iterable[Status] | None = None,
        labels: Mapping[str, str] | None = None,
        queue: str | None = None,
        parent: str | None = None,
        batch: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[RunInfo]:
        """
        Runs that fit all filters, as the server finds them: seconds behind. Filters are as of `Engine.runs`.

        In the server's order: those that are open, the newest first, then those that have ended, the latest first.

        Of open runs it knows only that they are open: whether one is paused or blocked, its own `info` tells.
        """
        queues = self._asking.queues if queue is None else [self._task_queue_of(queue)]
        parts = [f"TaskQueue IN ({', '.join(map(quoted, queues))})"]  # others use the namespace, too
        if workflow is not None:
            name = workflow if isinstance(workflow, str) else workflow.name
            parts.append(f"WorkflowType = {quoted(name)}")
        if status is not None:
            chosen: Iterable[Status] = (status,) if isinstance(status, str) else status
            names = dict.fromkeys(name for each in chosen for name in statuses_on_server(each))
            parts.append(f"ExecutionStatus IN ({', '.join(map(quoted, names))})")
        if parent is not None:
            parts.append(f"ParentWorkflowId = {quoted(workflow_id_of(parent))}")
        if batch is not None:
            parts.append(f"ParentWorkflowId = {quoted(batch_workflow_id(batch))}")
        parts += [f"StartTime >= {moment(since)}"] if since is not None else []
        parts += [f"StartTime < {moment(until)}"] if until is not None else []
        parts += [f"DurableLabels = {quoted(f'{name}={value}')}" for name, value in (labels or {}).items()]
        async for info in self._asking.runs(" AND ".join(parts), limit, by_status=status is not None):
            yield info


def _never() -> bool:
    return False
