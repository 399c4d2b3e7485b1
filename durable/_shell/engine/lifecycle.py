"""
The life of an engine: opening, supervising, draining, closing.

Opening takes the owner's lock, opens the database (migrating it if need be) and lets the
scheduler begin with whatever the file says is ready; nothing is loaded before its turn comes,
so a million waiting runs cost nothing. All tasks live in a task group inside a task of the
engine's own, so that `open` and `aclose` may be called from different tasks.

The engine installs no signal handlers and configures no logging.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import sqlite3
import types
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Literal, Self

import anyio

from durable._core.admission import Admission, Places, Queue
from durable._core.codec.codec import Codec, ValueCodec
from durable._core.ports import Clock, Watcher
from durable._core.program.functions import RunnableDefinition
from durable._core.program.limits import Limit, as_listed, collect_limits
from durable._core.program.registry import Definitions, collect
from durable._core.program.schedules import Schedule
from durable._core.run.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._shell.clock import SystemClock
from durable._shell.engine.broadcast import Broadcast
from durable._shell.engine.checks import check_journal, report_at_opening
from durable._shell.engine.housekeeping import keep_house
from durable._shell.engine.idling import Idling
from durable._shell.engine.inside import Inside
from durable._shell.engine.opening import open_file, recover, recover_lines
from durable._shell.engine.result_waiters import Watching
from durable._shell.engine.scheduler import Scheduler
from durable._shell.engine.server import Server
from durable._shell.engine.ticker import Schedules
from durable._shell.log import log
from durable._shell.reads import batch_rows, event_rows, run_rows
from durable._shell.reads.run_rows import RunRow
from durable._shell.rows.rows import Effects, Outcome, ReadyRun
from durable._shell.storage.database import Database
from durable._shell.storage.ownership import Ownership
from durable._shell.storage.port import AnyDatabase, OpenDatabase
from durable._shell.turns.activity import Activity
from durable._shell.turns.commits import Commits
from durable._shell.turns.hooks import Hooks
from durable._shell.turns.middleware import Middleware
from durable._shell.turns.services import Services
from durable._shell.turns.stand_ins import StandIns
from durable._shell.turns.steps import Steps
from durable._shell.writes.wakeups import read_unborn
from durable.errors import BatchNotFoundError, EngineClosedError, JournalDamagedError, RunNotFoundError

#: Seconds that closing waits for what ignores its cancellation, before it goes on without.
LAST_WAIT = 5.0
#: Before a batch's id, among those of the runs that somebody waits for: no id begins like this.
_FINISHED = "\n"


class Lifecycle(Idling):
    """An engine's parts, and how they begin and end."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        definitions: Iterable[RunnableDefinition[..., Any] | types.ModuleType],
        *,
        queues: Iterable[Queue] = (),
        schedules: Iterable[Schedule] = (),
        limits: Iterable[Limit] = (),
        concurrency: int = 100,
        durability: Literal["full", "process"] = "full",
        keep_resident: int = 0,
        keep_finished: float | timedelta | None = None,
        codec: ValueCodec | None = None,
        clock: Clock | None = None,
        check_on_open: bool = False,
        standby: bool = False,
        grace: float = 10.0,
        crash_limit: int = CRASH_LIMIT,
        cleanup_timeout: float = CLEANUP_SECONDS,
        caps: Caps = DEFAULT_CAPS,
        middleware: Iterable[Middleware] = (),
        replay_always: bool = False,
        storage: OpenDatabase | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._caps = caps
        self._value_codec = codec
        self.codec = Codec(codec, max_bytes=caps.value_bytes, max_depth=caps.nesting)
        self.clock: Clock = clock or SystemClock()
        self._definitions = collect(definitions)  # type: ignore[arg-type]
        self._queues = as_listed("queues", queues, Queue)
        self._schedules = Schedules(as_listed("schedules", schedules, Schedule), self._definitions)
        self._limits = collect_limits(self._definitions.all(), limits)
        self._concurrency = concurrency
        self._durability: Literal["full", "process"] = durability
        self._keep_resident = 0 if replay_always else keep_resident
        self._replay_always = replay_always
        self._keep_finished = keep_finished.total_seconds() if isinstance(keep_finished, timedelta) else keep_finished
        self._check_on_open = check_on_open
        self._standby = standby
        self._storage = storage
        self._grace = grace
        self._crash_limit = crash_limit
        self._cleanup_seconds = cleanup_timeout
        self._places = Places(self.clock.now())
        self._admission: Admission[ReadyRun] = Admission(self._queues, concurrency, self._places)
        self._database: AnyDatabase | None = None
        self._ownership: Ownership | None = None
        self._commits: Commits | None = None
        self._activity = Activity()
        self._steps: Steps | None = None
        self._watchers: list[Watcher] = []
        self._scheduler: Scheduler | None = None
        self._server: Server | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._main: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._draining = False
        self._failure: BaseException | None = None
        self._hooks = Hooks(middleware, self.codec)
        self._stand_ins: StandIns | None = None
        self._numbers = itertools.count(1)
        self._waiters = Watching()
        self._broadcast = Broadcast()
        self._pid = 0
        self._context = contextvars.copy_context()

    # --- opening and closing -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """
        Take the file over, recover, and run.

        Raises:
            JournalLockedError: Another engine owns it (and not *standby*).
            JournalVersionError, ForeignJournalError: It is not ours to open; it was left untouched.
            JournalAccessError, JournalFullError, JournalIOError, JournalDamagedError: It cannot be opened.
        """
        if self._database is not None or self._closing is not None:
            msg = "this engine was opened before: make another Engine"
            raise EngineClosedError(msg)
        self._pid = os.getpid()
        self._context = contextvars.copy_context()
        self._activity.begin()
        try:
            self._let_watch()
            self._database, self._ownership = await open_file(
                self.path,
                standby=self._standby,
                durability=self._durability,
                now=self.clock.now,
                storage=self._storage,
            )
            database = self._require_database()
            self._numbers = itertools.count(await database.read(event_rows.last_run) + 1)
            await database.write(self._recover)
            queues = await database.read(event_rows.ready_queues)
            next_fire_at = await database.read(event_rows.next_fire_at)
            paused = await database.read(run_rows.paused_queues)
            await recover_lines(database, self._queues, self._places, self._admission, self.clock.now())
            if self._check_on_open:
                checked = await check_journal(database.read, self.path, self._definitions, self.codec, whole=False)
                report_at_opening(checked, self.path)
            self._build(database)
            started = asyncio.Event()
            self._main = asyncio.create_task(self._supervise(started), name="durable-engine")
            await started.wait()
            if self._failure is not None:
                raise self._failure
            scheduler = self._require_scheduler()
            for queue in paused:
                scheduler.pause_queue(queue, paused=True)
            scheduler.take(Effects(unborn=await database.read(read_unborn)))
            scheduler.recover(queues, next_fire_at)
            self._schedules.begin()
            if isinstance(database, Database):
                self._server = Server(database.path, self)
                await self._server.start()
                for notice in database.notices:
                    log.info("journal.notice", path=self.path, notice=notice)
        except BaseException as error:
            await self._release()
            if isinstance(error, sqlite3.Error):  # statements that any sound journal takes
                raise JournalDamagedError(self.path, f"{error}. Restore from a backup") from error
            raise
        finally:
            self._activity.end()
        if self._stand_ins is None:  # a dry run is no engine that anybody opened
            log.info("engine.opened", path=self.path, durability=self._durability)

    def _recover(self, conn: sqlite3.Connection) -> None:
        now = self.clock.now()
        recover(conn, self._limits, now)
        self._schedules.adopt(conn, now)

    def _build(self, database: AnyDatabase) -> None:
        self._commits = Commits(database, self._take, self._activity)
        inside = Inside(self, self._commits, database, self.allocate)
        self._steps = Steps(self.codec, self.clock, self._is_ending, self._hooks, inside, self._stand_ins)
        services = Services(
            path=self.path,
            database=database,
            commits=self._commits,
            codec=self.codec,
            clock=self.clock,
            steps=self._steps,
            definitions=self._definitions,
            limits=self._limits,
            places=self._places,
            allocate=self.allocate,
            spawn=self._spawn,
            on_effects=self._take,
            hooks=self._hooks,
            activity=self._activity,
            is_watched=self._is_watched,
            crash_limit=self._crash_limit,
            cleanup_seconds=self._cleanup_seconds,
            caps=self._caps,
            keep_resident=self._keep_resident,
            replay_always=self._replay_always,
            stand_ins=self._stand_ins,
        )
        self._scheduler = Scheduler(services, self._admission)
        self._schedules.attach(services)

    async def _supervise(self, started: asyncio.Event) -> None:
        """The engine's own task: everything runs inside, and the death of any part stops it loudly."""
        commits, scheduler = self._commits, self._scheduler
        assert commits is not None
        assert scheduler is not None
        self._writer = asyncio.create_task(commits.run(), name="durable-commits")
        self._writer.add_done_callback(self._writer_ended)
        try:
            # asyncio's own group: anyio's costs three times as much a task, and every run is one.
            # Steps have anyio cancel scopes of their own inside.
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(scheduler.run_timers())
                house = keep_house(self, self._require_database(), self._ownership, self._keep_finished)
                tasks.create_task(house)
                started.set()
                await anyio.sleep_forever()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            if not isinstance(error, asyncio.CancelledError):
                self._fail(error)
        finally:
            started.set()

    def _is_ending(self) -> bool:
        return self._main is not None and self._main.cancelling() > 0

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception() or RuntimeError("the writer ended"))

    def _fail(self, error: BaseException) -> None:
        """Stop loudly: everybody who waits gets the error."""
        if self._failure is None:
            self._failure = error
            log.error("engine.failed", path=self.path, error=repr(error))
        self._waiters.fail(f"the engine failed: {error!r}")
        self._activity.close()

    def _spawn(
        self,
        fn: Callable[..., Coroutine[Any, Any, None]],
        argument: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        assert self._tasks is not None
        # In the context of the opening: who happens to spawn has context variables of a run's in his.
        self._tasks.create_task(fn(argument), context=(context or self._context).copy())

    def _is_watched(self) -> bool:
        return self._hooks.watches_attempts or self._broadcast.has_readers

    async def drain(self) -> None:
        """Begin no new step, and wait until those under way have ended (or the grace is over)."""
        scheduler = self._require_scheduler()
        self._draining = True
        self._schedules.stop()
        scheduler.stop()
        with anyio.move_on_after(self._grace):
            await scheduler.wait_idle()
            return
        scheduler.interrupt()
        with anyio.move_on_after(LAST_WAIT):
            await scheduler.wait_idle()

    async def aclose(self) -> None:
        """Drain, then close everything. Bounded, idempotent; may be called from any task of the loop."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="durable-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.aclose()
        if self._scheduler is not None and self._failure is None:
            await self.drain()
        await self._release()
        if self._stand_ins is None:
            log.info("engine.closed", path=self.path)

    async def _release(self) -> None:
        """Let go of everything, in order: tasks, writer, file, lock."""
        if self._scheduler is not None:
            self._scheduler.close()
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main], timeout=LAST_WAIT)
        if self._commits is not None:
            self._commits.close()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=LAST_WAIT)
        self._waiters.fail("the engine was closed; it goes on when it opens again")
        self._activity.close()
        self._broadcast.close()
        if self._database is not None:
            await self._database.aclose()
        if self._ownership is not None:
            self._ownership.release()
        self._stop_watching()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(_nothing())

    # --- what everything else asks of it ---------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        return self._closing is not None

    @property
    def definitions(self) -> Definitions:
        """The workflows and jobs that it executes, by name; the newest version of each. Read-only."""
        return self._definitions

    def allocate(self) -> int:
        """The number of the next run. There is one owner, so counting in memory is enough."""
        return next(self._numbers)

    async def end_of(self, run_id: str, number: int = 0, /) -> tuple[RunRow | None, Outcome]:
        """
        The run called *run_id* (or the one it continued as) and its outcome, once it has ended.

        One look at the file where it has not: its outcome then comes with the commit that ends it. None at all
        (and no row) where its *number* says that it is under way here.
        """
        self._check_open()
        if number and self._require_scheduler().is_under_way(number):
            with self._waiters.until(run_id) as future:
                outcome = await future
            if outcome is not None:
                return None, outcome
        while True:
            with self._waiters.until(run_id) as future:  # before the look, lest it ends in between
                row, outcome = await self.read(event_rows.outcome_of, self.path, run_id)
                if row is None:
                    raise RunNotFoundError("id", run_id)
                if outcome is None and row.run_id == run_id:
                    outcome = await future
                if outcome is not None:
                    return row, outcome
            run_id = row.run_id

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished: one look at the file, then the commit that finishes it says so."""
        self._check_open()
        with self._waiters.until(_FINISHED + batch_id) as future:
            exists, finished = await self.read(batch_rows.finish_of, batch_id)
            if not exists:
                raise BatchNotFoundError("id", batch_id)
            if not finished:
                await future

    async def wait_for_end(self, run_id: str) -> None:
        """Return once the run called *run_id* may have ended."""
        self._check_open()
        with self._waiters.until(run_id) as future:
            row = await self.read(run_rows.run_by_id, run_id)
            if row is not None and row.ended_at is None:
                await future

    def _take(self, effects: Effects) -> None:
        """Act on what a commit group caused."""
        for ended in effects.ended:
            self._waiters.resolve(ended.run_id, ended.outcome)
        for run_id, error in effects.refused:
            log.error("follow_up.refused", run_id=run_id, error=error)
        for batch in effects.batches:
            if batch.name == "finished":
                self._waiters.resolve(_FINISHED + batch.batch_id)
        self._broadcast.publish(effects, self.clock)
        self._hooks.tell(effects)
        self._schedules.take(effects)
        scheduler = self._scheduler
        if scheduler is not None:
            scheduler.take(effects)

    def _check_open(self) -> None:
        if self._failure is not None:
            msg = f"the engine failed and must be opened anew: {self._failure!r}"
            raise EngineClosedError(msg) from self._failure
        if self._database is None or self._commits is None or self._closing is not None:
            msg = "the engine is not open: use `async with Engine(...)`, or await engine.open()"
            raise EngineClosedError(msg)
        if os.getpid() != self._pid:
            msg = f"this engine belongs to process {self._pid}, from which this one was forked: open it after forking"
            raise EngineClosedError(msg)

    def _require_database(self) -> AnyDatabase:
        if self._database is None:
            msg = "the engine is not open"
            raise EngineClosedError(msg)
        return self._database

    def _require_scheduler(self) -> Scheduler:
        if self._scheduler is None:
            msg = "the engine is not open"
            raise EngineClosedError(msg)
        return self._scheduler


async def _nothing() -> None:
    """For an engine that never opened: its closing is done."""
