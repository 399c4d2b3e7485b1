"""
The engine: opens a file, executes its runs, takes requests.

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
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, Self, TypeVar

import anyio
from attrs import frozen

from durable._core.admission import Admission, Queue
from durable._core.codec import Codec, ValueCodec
from durable._core.definition import RunnableDefinition, collect
from durable._core.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.making import with_options
from durable._core.ops import OnConflict, RunOp
from durable._core.ports import Clock
from durable._shell import reading, requests, schema
from durable._shell.clock import SystemClock
from durable._shell.commits import Commits
from durable._shell.database import Database
from durable._shell.driver import Services
from durable._shell.events import Broadcast, EngineEvent
from durable._shell.finding import Finding
from durable._shell.handle import Run
from durable._shell.log import log
from durable._shell.memory_database import AnyDatabase, MemoryDatabase
from durable._shell.ownership import Ownership
from durable._shell.rows import Effects, ReadyRun
from durable._shell.scheduler import Scheduler
from durable._shell.server import Server
from durable._shell.starting import make_run
from durable._shell.steps import Steps
from durable._shell.waking import retry_blocked
from durable.errors import EngineClosedError, JournalError, UsageError

T = TypeVar("T")

#: The path that keeps the journal in memory: for tests, it is gone with the engine.
MEMORY = ":memory:"
#: Seconds that closing waits for what ignores its cancellation, before it goes on without.
LAST_WAIT = 5.0
#: Seconds between two looks whether the file is still the one that was opened.
IDENTITY_SECONDS = 5.0


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


class Engine(Finding):
    """
    Executes the runs of one journal.

    Args:
        path: The SQLite file; made (mode 0600) if missing. ``":memory:"`` keeps it in memory.
        definitions: Workflows and jobs, or modules of them.
        queues: Limits of queues; a queue not listed has none of its own.
        concurrency: Runs active at once.
        durability: ``"full"``: what is acknowledged survives a power cut; ``"process"``: the
            death of the process.
        keep_resident: Freed executions to keep in memory as a cache.
        keep_finished: Prune trees of runs this long after they ended; None keeps them.
        codec: Hooks on the bytes of values (compression, encryption, redaction).
        clock: Another clock, for tests.
        standby: Wait for the file while another engine owns it.
        grace: Seconds that steps under way get when the engine closes.
        crash_limit: A step that was running when the process died this often blocks its run.
        cleanup_timeout: Seconds that a cancelled run may spend on clean-up.
        caps: Sizes beyond which values and histories are refused.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        definitions: Iterable[RunnableDefinition[..., Any] | types.ModuleType],
        *,
        queues: Iterable[Queue] = (),
        concurrency: int = 100,
        durability: Literal["full", "process"] = "full",
        keep_resident: int = 0,
        keep_finished: float | timedelta | None = None,
        codec: ValueCodec | None = None,
        clock: Clock | None = None,
        standby: bool = False,
        grace: float = 10.0,
        crash_limit: int = CRASH_LIMIT,
        cleanup_timeout: float = CLEANUP_SECONDS,
        caps: Caps = DEFAULT_CAPS,
    ) -> None:
        self.path = os.fspath(path)
        self._caps = caps
        self.codec = Codec(codec, max_bytes=caps.value_bytes, max_depth=caps.nesting)
        self.clock: Clock = clock or SystemClock()
        self._definitions: dict[str, RunnableDefinition[..., Any]] = dict(collect(definitions))  # type: ignore[arg-type]
        self._queues = tuple(queues)
        self._concurrency = concurrency
        self._durability: Literal["full", "process"] = durability
        self._keep_resident = keep_resident
        self._keep_finished = keep_finished.total_seconds() if isinstance(keep_finished, timedelta) else keep_finished
        self._standby = standby
        self._grace = grace
        self._crash_limit = crash_limit
        self._cleanup_seconds = cleanup_timeout
        Admission[ReadyRun](self._queues, concurrency)  # refuses wrong numbers here, where they are written
        self._database: AnyDatabase | None = None
        self._ownership: Ownership | None = None
        self._commits: Commits | None = None
        self._scheduler: Scheduler | None = None
        self._server: Server | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._main: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._draining = False
        self._failure: BaseException | None = None
        self._numbers = itertools.count(1)
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
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
            JournalAccessError, JournalFullError, JournalIOError: It cannot be opened.
        """
        if self._database is not None or self._closing is not None:
            msg = "this engine was opened before: make another Engine"
            raise EngineClosedError(msg)
        self._pid = os.getpid()
        self._context = contextvars.copy_context()
        try:
            await self._open_file()
            database = self._require_database()
            self._numbers = itertools.count(await database.read(reading.last_run) + 1)
            await database.write(lambda conn: retry_blocked(conn, self.clock.now()))
            queues = await database.read(reading.ready_queues)
            next_fire_at = await database.read(reading.next_fire_at)
            paused = await database.read(reading.paused_queues)
            self._build(database)
            started = asyncio.Event()
            self._main = asyncio.create_task(self._supervise(started), name="durable-engine")
            await started.wait()
            if self._failure is not None:
                raise self._failure
            scheduler = self._require_scheduler()
            for queue in paused:
                scheduler.pause_queue(queue, paused=True)
            scheduler.recover(queues, next_fire_at)
            if isinstance(database, Database):
                self._server = Server(database.path, self)
                await self._server.start()
                for notice in database.notices:
                    log.info("journal.notice", path=self.path, notice=notice)
        except BaseException:
            await self._release()
            raise
        log.info("engine.opened", path=self.path, durability=self._durability)

    async def _open_file(self) -> None:
        if self.path == MEMORY:
            self._database = await MemoryDatabase.open(prepare=lambda conn: schema.prepare(conn, self.clock.now()))
            return
        if self._standby:
            self._ownership = await Ownership.wait(self.path)
        else:
            self._ownership = Ownership.acquire(self.path)
        self._database = await Database.open(
            self.path,
            durability=self._durability,
            inspect=lambda conn: schema.inspect(conn, self.path),
            prepare=lambda conn: schema.prepare(conn, self.clock.now()),
        )

    def _build(self, database: AnyDatabase) -> None:
        self._commits = Commits(database, self._take)
        services = Services(
            path=self.path,
            database=database,
            commits=self._commits,
            codec=self.codec,
            clock=self.clock,
            steps=Steps(self.codec, self.clock, self._is_ending),
            definitions=self._definitions,
            allocate=self.allocate,
            spawn=self._spawn,
            on_effects=self._take,
            crash_limit=self._crash_limit,
            cleanup_seconds=self._cleanup_seconds,
            caps=self._caps,
            keep_resident=self._keep_resident,
        )
        self._scheduler = Scheduler(services, Admission(self._queues, self._concurrency))

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
                tasks.create_task(self._housekeeping())
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
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(EngineClosedError(f"the engine failed: {error!r}"))
        self._waiters.clear()

    async def _housekeeping(self) -> None:
        """Looks whether the file is still ours, and prunes, now and then."""
        pruned_at = self.clock.monotonic()
        while True:
            await asyncio.sleep(IDENTITY_SECONDS)
            database, ownership = self._require_database(), self._ownership
            try:
                await asyncio.to_thread(database.check_identity)
                if ownership is not None:
                    ownership.check()
            except JournalError:
                if self._closing is not None:
                    return
                raise
            if self._keep_finished is not None:
                every = min(3600.0, max(60.0, self._keep_finished / 10))
                if self.clock.monotonic() - pruned_at >= every:
                    pruned_at = self.clock.monotonic()
                    try:
                        await self.prune(older_than=self._keep_finished)
                    except JournalError as error:  # a full disk, say: there will be another time
                        log.warning("prune.failed", path=self.path, error=str(error))

    def _spawn(self, fn: Callable[..., Coroutine[Any, Any, None]], argument: Any) -> None:
        assert self._tasks is not None
        # In the context of the opening: who happens to spawn has context variables of a run's in his.
        self._tasks.create_task(fn(argument), context=self._context.copy())

    async def drain(self) -> None:
        """Begin no new step, and wait until those under way have ended (or the grace is over)."""
        scheduler = self._require_scheduler()
        self._draining = True
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
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(EngineClosedError("the engine was closed; the run goes on when it opens again"))
        self._waiters.clear()
        self._broadcast.close()
        if self._database is not None:
            await self._database.aclose()
        if self._ownership is not None:
            self._ownership.release()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(_nothing())

    # --- starting and finding runs -------------------------------------------------------------------------

    async def start(
        self,
        op: RunOp[T],
        *,
        id: str | None = None,
        key: str | None = None,
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
            on_conflict: What to do if the key is taken: ``join`` that run, ``reject``,
                ``replace`` (cancel) it, or ``rerun`` if it has ended.
            queue: The queue it runs on.
            delay: Seconds before it may begin.
            at: When it may begin.
            priority: Higher goes first within its queue.
            labels: Short strings to filter runs by.

        Raises:
            KeyConflictError, RunExistsError: The key or id belongs to another run.
            DefinitionError: The workflow is not among the engine's definitions.
            EncodeError: An argument cannot be recorded.
            JournalError: Nothing could be recorded.
        """
        made = with_options(
            op, id=id, key=key, on_conflict=on_conflict, queue=queue, delay=delay, at=at, priority=priority,
            labels=labels,
        )  # fmt: skip
        (run,) = await self.start_many([made])
        return run

    async def start_many(self, ops: Iterable[RunOp[T]]) -> list[Run[T]]:
        """Start many runs in one transaction: all, or none. Options are given by ``op.options(...)``."""
        self._check_open()
        now = self.clock.now()
        made = list(ops)
        runs = [
            make_run(with_options(op), definitions=self._definitions, codec=self.codec, allocate=self.allocate, now=now)
            for op in made
        ]
        ids: Sequence[str] = await self.request("start", runs=runs)
        return [Run(self, run_id, op.definition.result) for run_id, op in zip(ids, made, strict=True)]

    async def run(self, op: RunOp[T], **options: Any) -> T:
        """Start a run and wait for its result. Options as for `start`."""
        handle = await self.start(op, **options)
        return await handle.result()

    def events(self) -> AsyncIterator[EngineEvent]:
        """What happens from now on, for dashboards and metrics. A slow reader loses the oldest, and is told."""
        self._check_open()
        return self._broadcast.subscribe()

    # --- housekeeping -----------------------------------------------------------------------------------------

    async def prune(self, older_than: float | timedelta) -> int:
        """Delete trees of runs that ended longer ago than this (seconds or timedelta); how many runs."""
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        before = self.clock.now() - seconds
        deleted, after = 0, 0
        while True:
            count: int
            following: int | None
            count, following = await self.request("prune", before=before, after_run=after)
            deleted += count
            if following is None:
                return deleted
            after = following

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """A verified copy of the journal at *path*, while the engine runs. Refuses an existing file."""
        self._check_open()
        await self._require_database().backup(path)

    async def stats(self) -> Stats:
        """Counts and sizes."""
        found = await self.read(reading.counts)
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

    # --- for handles, the server, and drivers (the Backend protocol) --------------------------------------------

    def allocate(self) -> int:
        """The number of the next run. There is one owner, so counting in memory is enough."""
        return next(self._numbers)

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of a function of `reading`."""
        self._check_open()
        return await self._require_database().read(partial(_apply, fn, args))

    async def request(self, request: str, **arguments: Any) -> Any:
        """Record a request of `requests`; its result once it is on disk."""
        self._check_open()
        if self._draining and request == "start":
            msg = "the engine is draining: it accepts no new runs"
            raise EngineClosedError(msg)
        commits = self._commits
        assert commits is not None
        fn = requests.REQUESTS.get(request)
        if fn is None:
            msg = f"no request is called {request!r}"
            raise UsageError(msg)
        if request in ("retry", "fork"):
            arguments["path"] = self.path
        if request == "fork":
            arguments["number"] = self.allocate()
        if request not in ("start", "prune"):
            arguments["now"] = self.clock.now()
        result = await commits.call(lambda conn, effects: fn(conn, effects, **arguments))
        if request == "pause_queue":
            self._require_scheduler().pause_queue(arguments["queue"], paused=arguments["paused"])
        return result

    async def wait_for_end(self, run_id: str) -> None:
        """Return once the run called *run_id* may have ended."""
        self._check_open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, []).append(future)
        row = await self.read(reading.run_by_id, run_id)
        if row is None or row.ended_at is not None:
            self._resolve(run_id)
        try:
            await future
        finally:
            waiting = self._waiters.get(run_id)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiters[run_id]

    def result_type(self, workflow: str) -> Any:
        """What a workflow or job returns, as far as it is known here."""
        definition = self._definitions.get(workflow)
        return Any if definition is None else definition.result

    def _take(self, effects: Effects) -> None:
        """Act on what a commit group caused."""
        for _, run_id, _, _ in effects.ended:
            self._resolve(run_id)
        self._broadcast.publish(effects, self.clock)
        scheduler = self._scheduler
        if scheduler is not None:
            scheduler.take(effects)

    def _resolve(self, run_id: str) -> None:
        for future in self._waiters.pop(run_id, ()):
            if not future.done():
                future.set_result(None)

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


def _apply(fn: Callable[..., Any], args: tuple[Any, ...], conn: Any) -> Any:
    return fn(conn, *args)


async def _nothing() -> None:
    """For an engine that never opened: its closing is done."""


