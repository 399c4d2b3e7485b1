"""
The engine's face: start runs, ask for changes, keep house. How it opens and closes is in `lifecycle`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from attrs import frozen

from durable._core.program.op_constructors import with_options
from durable._core.program.ops import OnConflict, RunOp
from durable._core.recorded.check import CheckReport
from durable._shell.engine.broadcast import EngineEvent
from durable._shell.engine.checks import check_journal
from durable._shell.engine.dry_run import KEEP_RESIDENT, DryRun, JumpingClock, Rehearsing
from durable._shell.engine.lifecycle import Lifecycle
from durable._shell.engine.opening import MEMORY
from durable._shell.handles.handle import Run
from durable._shell.reads import run_rows
from durable._shell.requests.request import Env, Request
from durable._shell.requests.run_requests import StartRuns
from durable._shell.rows.new_runs import make_run, make_template
from durable._shell.rows.rows import NewRun
from durable._shell.turns.stand_ins import StandFor, StandIns
from durable._shell.turns.transaction import holds_writer
from durable.errors import EngineClosedError, UsageError

T = TypeVar("T")
R = TypeVar("R")

#: Runs of one `start_many` that are made in one iteration of the event loop: their arguments are encoded there.
MADE_AT_ONCE = 64


@frozen
class Stats:
    """A snapshot of an engine."""

    #: Runs by status.
    runs: Mapping[str, int]
    #: Runs being driven at this moment.
    active: int
    #: Freed executions kept as a cache.
    resident: int
    #: Events ever recorded.
    events: int
    #: Rows of what runs wait for.
    waits: int
    #: Size of the database, the WAL apart.
    bytes: int
    #: Commit groups, and the turns and requests in them, since it was opened.
    commits: int
    writes: int
    #: Why nothing can be written at the moment; None if all is well.
    trouble: str | None


class Engine(Lifecycle):
    """
    Executes the runs of one journal.

    Args:
        path: The SQLite file; made (mode 0600) if missing. ``":memory:"`` keeps it in memory.
        definitions: Workflows and jobs, or modules of them.
        queues: Limits of queues; a queue not listed has none of its own.
        limits: Named limits: those that definitions refer to by name, and other numbers for those
            that they bring along.
        schedules: What starts runs by itself, see `Schedule`. One that the journal knows and that is not
            listed here starts nothing.
        concurrency: Runs active at once.
        durability: ``"full"``: what is acknowledged survives a power cut; ``"process"``: the
            death of the process.
        keep_resident: Freed executions to keep in memory as a cache.
        keep_finished: Prune trees of runs this long after they ended; None keeps them.
        codec: Hooks on the bytes of values (compression, encryption, redaction).
        clock: Another clock, for tests.
        check_on_open: Replay every open run at opening, and log each that the definitions would break. Such a
            run is blocked when it is next driven, with or without this.
        standby: Wait for the file while another engine owns it.
        grace: Seconds that steps under way get when the engine closes.
        crash_limit: A step that was running when the process died this often blocks its run.
        cleanup_timeout: Seconds that a cancelled run may spend on clean-up.
        caps: Sizes beyond which values and histories are refused.
        middleware: What surrounds each attempt and activation, the outermost first.
        replay_always: For tests: forget each run after every turn, and replay it from the journal before the
            next. Slow, and a workflow that is not deterministic is blocked, with a report, at once.
        storage: For tests: opens another database in place of SQLite's file, see `OpenDatabase`.
    """

    # --- starting and finding runs -------------------------------------------------------------------------

    async def start(
        self,
        op: RunOp[T],
        *,
        id: str | None = None,
        key: str | None = None,
        key_ttl: float | timedelta | None = None,
        on_conflict: OnConflict = "join",
        queue: str | None = None,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Run[T]:
        """
        Start a run, or find the one that its key or id stands for; recorded when this returns.

        Args:
            op: A call of a workflow or job.
            id: The run's id; by default one is made.
            key: One run a key: a later start with it and the same arguments gives the same run.
            key_ttl: Seconds (or a timedelta) from the start for which the key is this run's; by default for ever.
            on_conflict: What to do if the key is taken: ``join`` that run, ``reject``,
                ``replace`` (cancel) it, or ``rerun`` if it has ended.
            queue: The queue it runs on.
            delay: Seconds (or a timedelta) before it may begin.
            at: When it may begin, an aware datetime.
            priority: Higher goes first within its queue.
            labels: Short strings to filter runs by.

        Raises:
            KeyConflictError, RunExistsError: The key or id belongs to another run.
            LimitReachedError: Its limit has no free slot, and says ``on_conflict="reject"``.
            DefinitionError: The workflow is not among the engine's definitions.
            EncodeError: An argument cannot be recorded.
            EngineClosedError: The engine is not open.
            JournalError: Nothing could be recorded.
        """
        made = with_options(
            op, id=id, key=key, key_ttl=key_ttl, on_conflict=on_conflict, queue=queue, delay=delay, at=at,
            priority=priority, labels=labels,
        )  # fmt: skip
        (run,) = await self.start_many([made])
        return run

    async def start_many(self, ops: Iterable[RunOp[T]]) -> list[Run[T]]:
        """Start many runs in one transaction: all, or none. Options are given by ``op.options(...)``."""
        self._check_open()
        now = self.clock.now()
        made = list(ops)
        runs: list[NewRun] = []
        for op in made:
            runs.append(
                make_run(
                    with_options(op),
                    definitions=self._definitions,
                    codec=self.codec,
                    allocate=self.allocate,
                    now=now,
                    places=self._places,
                )
            )
            if len(runs) % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
        ids = await self.request(StartRuns(tuple(runs)))
        return [
            Run(self, run_id, op.definition.result, new.run if run_id == new.run_id else 0)
            for run_id, op, new in zip(ids, made, runs, strict=True)
        ]

    async def run(self, op: RunOp[T], **options: Any) -> T:
        """Start a run and wait for its result. Options as for `start`."""
        handle = await self.start(op, **options)
        return await handle.result()

    async def dry_run(
        self,
        op: RunOp[T],
        *,
        stand_ins: Mapping[StandFor, Callable[..., Any]] | None = None,
        signals: Mapping[str, Iterable[Any]] | None = None,
    ) -> DryRun[T]:
        """
        Run a workflow in memory: stand-ins in place of steps, no file touched, no waiting.

        Child workflows, jobs and follow-ups run as dry. Timers, retry delays and deadlines come
        due at once, in their order, whenever nothing else is under way. Middleware is not called.
        The engine need not be open.

        Args:
            op: A call of a workflow or job.
            stand_ins: What to call in place of each step, transaction and job: its definition (the
                function, for `call`), or its name, to a plain or async function of the same
                arguments; a transaction's without the `Transaction`. What has none is not
                executed: the dry run has failed, with a `DryRunError`.
            signals: A list of payloads by the name of the signal. Each goes to the run that has
                waited longest for it, before any time passes.

        Returns:
            How it ended, or what it waits for: a workflow that fails does not raise here.

        Raises:
            DryRunError: A stand-in is for nothing that is known, or cannot be called like that.
            DefinitionError, EncodeError: As for `start`.
        """
        clock = JumpingClock(self.clock.now())
        stands = StandIns(stand_ins or {}, self._definitions)
        rehearsal = _Rehearsal(
            MEMORY,
            self._definitions.all(),
            queues=self._queues,
            limits=self._limits.values(),
            concurrency=self._concurrency,
            codec=self._value_codec,
            clock=clock,
            keep_resident=KEEP_RESIDENT,
            grace=0.0,
            cleanup_timeout=self._cleanup_seconds,
            caps=self._caps,
        )
        rehearsal.equip(clock, stands)
        async with rehearsal:
            return await rehearsal.rehearse(await rehearsal.start(op), signals or {})

    def events(self) -> AsyncIterator[EngineEvent]:
        """What happens from now on, for dashboards and metrics. A slow reader loses the oldest, and is told."""
        self._check_open()
        return self._broadcast.subscribe()

    # --- housekeeping -----------------------------------------------------------------------------------------

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """A verified copy of the journal at *path*, while the engine runs. Refuses an existing file."""
        self._check_open()
        await self._require_database().backup(path)

    async def check(self, *, all: bool = False) -> CheckReport:
        """
        What the engine's definitions would break: replays every open run (with *all*, every run).

        Nothing is executed or changed. Ahead of a deploy, `durable check` does the same from outside.
        """
        return await check_journal(self.read, self.path, self._definitions, self.codec, whole=all)

    async def stats(self) -> Stats:
        """Counts and sizes."""
        found = await self.read(run_rows.counts)
        commits, scheduler = self._commits, self._require_scheduler()
        assert commits is not None
        others = {name: found.pop(name) for name in ("events", "waits", "bytes")}
        return Stats(
            runs=found,
            active=scheduler.active,
            resident=scheduler.resident,
            commits=commits.groups,
            writes=commits.writes,
            trouble=None if commits.trouble is None else str(commits.trouble),
            **others,
        )

    # --- for handles and the server (the Backend protocol) ----------------------------------------------

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of a function of `event_rows`."""
        self._check_open()
        with self._activity:
            return await self._require_database().read(partial(_apply, fn, args))

    async def request(self, request: Request[R]) -> R:
        """Have a request recorded; its result once it is on disk."""
        self._check_open()
        if holds_writer.get():
            msg = (
                f"{type(request).__name__} inside an async @transaction would wait for that transaction itself: "
                "use tx.enqueue(op) to start runs, and ask the engine for everything else after it"
            )
            raise UsageError(msg)
        if self._draining and request.starts_runs:
            msg = "the engine is draining: it accepts no new runs"
            raise EngineClosedError(msg)
        commits = self._commits
        assert commits is not None
        env = Env(self.clock.now(), self.path, self.allocate, self._places, self._schedules)
        record = request.prepared(env).record
        with self._activity:
            return await commits.call(lambda conn, effects: record(conn, effects, env))

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None) -> NewRun:
        """The run that *op* starts, not yet recorded."""
        return make_run(
            with_options(op), definitions=self._definitions, codec=self.codec, allocate=self.allocate,
            now=self.clock.now(), run_id=run_id,
        )  # fmt: skip

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        return make_template(op, definitions=self._definitions, codec=self.codec)

    def result_type(self, workflow: str, version: int) -> Any:
        """What a workflow or job returns, as far as it is known here."""
        definition = self._definitions.find(workflow, version)
        return Any if definition is None else definition.result


class _Rehearsal(Rehearsing, Engine):
    """The engine of a dry run."""


def _apply(fn: Callable[..., Any], args: tuple[Any, ...], conn: Any) -> Any:
    return fn(conn, *args)
