"""
The engine's face: what users call. How it opens and closes is in `running`, and what it is asked in `backend`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar

from durable._core.admission import Admission, Queue
from durable._core.authoring.registry import Given, collect
from durable._core.authoring.schedules import Schedule
from durable._core.codec.codec import Codec, ValueCodec
from durable._core.codec.value_types import ValueType
from durable._core.light_frozen import late_frozen
from durable._core.policies.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.policies.limits import Limit, as_listed, check_count, collect_limits
from durable._core.ports import Clock
from durable._core.program.ops import RunOp, TransactionOp
from durable._core.program.transactions import AsyncTransaction
from durable._shell.attempts.asking import Asking
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.middleware import Middleware
from durable._shell.attempts.resources import Resources
from durable._shell.attempts.stand_ins import StandFor, StandIns
from durable._shell.clock import SystemClock, steady
from durable._shell.engine.application_schema import ApplicationSchema, SchemaStep
from durable._shell.engine.backend import EngineBackend
from durable._shell.engine.from_thread import FromThread
from durable._shell.engine.serving import serve
from durable._shell.engine.settings import Settings
from durable._shell.handles.journal import JournalHandle
from durable._shell.reads import run_rows
from durable._shell.rows.carried import Carried, Carry
from durable._shell.storage.port import OpenDatabase
from durable._shell.tasks.health import Health
from durable._shell.tasks.ticker import collect_schedules
from durable._shell.turns.outside_transactions import transact, transaction
from durable.errors import EngineFailedError, UsageError

if TYPE_CHECKING:  # loaded by those who try code out
    from durable._core.recorded.check import CheckReport
    from durable._shell.engine.dry_run import DryRun, SignalsToSend

T = TypeVar("T")


@late_frozen
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
    #: Steps, jobs and runs that wait for a slot of a limit.
    waiting_for_limits: int
    #: Size of the database, the WAL apart.
    bytes: int
    #: Size of the WAL: 64 MiB or less, unless a reader does not end its transaction.
    wal_bytes: int
    #: Commit groups, and the turns and requests in them, since it was opened.
    commits: int
    writes: int
    #: Seconds that these commits took, in sum.
    commit_seconds: float
    #: Threads of plain functions that are at work, and those of them whose function was told to end and has not.
    threads: int
    threads_outlived: int
    #: Why nothing can be written at the moment; None if all is well.
    trouble: str | None


class EngineOptions(TypedDict, total=False):
    """What `Engine` takes by keyword and a `Service` passes on to it; they are described there."""

    queues: Iterable[Queue]
    schedules: Iterable[Schedule]
    limits: Iterable[Limit]
    concurrency: int
    durability: Literal["full", "process"]
    commits: Literal["thread", "inline"]
    keep_resident: int
    keep_finished: float | timedelta | None
    codec: ValueCodec | None
    types: Iterable[ValueType[Any]]
    clock: Clock | None
    check_on_open: bool
    grace: float
    crash_limit: int
    cleanup_timeout: float
    threads: int
    caps: Caps
    middleware: Iterable[Middleware]
    replay_always: bool
    schema: SchemaStep | None
    migrations: Iterable[SchemaStep]
    resources: Iterable[Any] | Mapping[type[Any], Any]
    carry: Iterable[Carried]
    strict_permissions: bool
    allow_network_fs: bool


class Engine(JournalHandle[EngineBackend]):
    """
    Executes the runs of one journal.

    What passes (no thread to be had, a full disk) it waits out. What does not (the file, its WAL or its lock was
    deleted or replaced) ends it: the body of `async with` is cancelled, which then raises `EngineFailedError`, as does
    everything that waits for a result; and the file is given up.

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
        commits: ``"thread"``: the event loop never waits for the disk. ``"inline"``: it does for small commits, as long
            as they take less than a millisecond in the mean. For scripts and command lines: each step of a run alone
            takes a third less processor time, and what else is on the loop may wait for ten milliseconds.
        keep_resident: Freed executions to keep in memory as a cache.
        keep_finished: Prune trees of runs this long after they ended; None keeps them.
        codec: Hooks on the bytes of values (compression, encryption, redaction).
        types: Classes of the program's own that say themselves how they are recorded.
        clock: Another clock, for tests. Set back while the engine lives, as the machine's clock may be, it is not
            followed: timers and schedules continue (see "What survives what").
        check_on_open: Replay every open run at opening, and log each that the definitions would break. Such a
            run is blocked when it is next driven, with or without this.
        standby: Wait for the file while another engine owns it.
        grace: Seconds that running steps get when the engine closes, before they are cut off. Keep it below what
            kills the process after its SIGTERM: Docker after 10 s, systemd after 90 s.
        crash_limit: Deaths of the process after which the step that causes them fails (or blocks its run, see
            `step(on_poison=)`). Before the last of them, the steps that may be it run one at a time. A death after
            the engine began to drain does not count.
        cleanup_timeout: Seconds that a cancelled step may take to end, and then the code of a cancelled run for its
            clean-up. What has not ended by then is abandoned.
        threads: For plain functions, at most. One that hangs takes its thread along until it returns, or the process
            ends: it does not keep that from ending.
        caps: Sizes beyond which values and histories are refused.
        middleware: What surrounds each attempt and activation, the outermost first.
        replay_always: For tests: forget each run after every turn, and replay it from the journal before the
            next. Slow, and a workflow that is not deterministic is blocked, with a report, at once: it asks for
            something else, passes other arguments, or reads a clock, dice or the environment.
        schema: The application's own tables, made in the transaction in which the file is first opened: SQL statements
            (in one text, or a list of them), or a function of the `Transaction`.
        migrations: What has changed them since, each as *schema*: a file gets those that it has not had, in their
            order and in one transaction. Add to the end, and change none that has been released.
        resources: What steps and jobs share, and ask for by `resource`: an HTTP client, a pool, settings. Async context
            managers are entered when the engine has the file, and left when it closes; a function is called for one
            at each opening. Or a mapping by the type that is asked for, as tests put another object in its place.
        allow_network_fs: Open the file also on a network file system, or a folder shared with a virtual machine, where
            locks may not hold: then it is yours to see to it that one process on one host has it.
        carry: Context variables that are recorded with the start of a run, as far as they are set where it is started,
            and set again in its steps, its jobs, and those of its children. In a process of its own
            (``process=True``), too, where a variable stands in a module.
        strict_permissions: Refuse a file, or a folder, that every user of the machine may write, in place of a warning.
        storage: For tests: opens another database in place of SQLite's file, see `OpenDatabase`.

    Example:
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome]) as engine:  # in production a path: "app.db"
        ...     run = await engine.start(welcome("ada"), key="ada")
        ...     await run.result()
        'welcome, ada'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        definitions: Iterable[Given],
        *,
        queues: Iterable[Queue] = (),
        schedules: Iterable[Schedule] = (),
        limits: Iterable[Limit] = (),
        concurrency: int = 100,
        durability: Literal["full", "process"] = "full",
        commits: Literal["thread", "inline"] = "thread",
        keep_resident: int = 0,
        keep_finished: float | timedelta | None = None,
        codec: ValueCodec | None = None,
        types: Iterable[ValueType[Any]] = (),
        clock: Clock | None = None,
        check_on_open: bool = False,
        standby: bool = False,
        grace: float = 5.0,
        crash_limit: int = CRASH_LIMIT,
        cleanup_timeout: float = CLEANUP_SECONDS,
        threads: int = 40,
        caps: Caps = DEFAULT_CAPS,
        middleware: Iterable[Middleware] = (),
        replay_always: bool = False,
        schema: SchemaStep | None = None,
        migrations: Iterable[SchemaStep] = (),
        resources: Iterable[Any] | Mapping[type[Any], Any] = (),
        carry: Iterable[Carried] = (),
        strict_permissions: bool = False,
        allow_network_fs: bool = False,
        storage: OpenDatabase | None = None,
    ) -> None:
        values = Codec(codec, max_bytes=caps.value_bytes, max_depth=caps.nesting, types=types, asking=Asking)
        found = collect(definitions)
        lanes = as_listed("queues", queues, Queue)
        Admission(lanes, concurrency)  # refuses here what it would at the opening
        check_count("Engine(threads=)", threads)
        if commits not in ("thread", "inline"):
            msg = f"Engine(commits=) must be 'thread' or 'inline', found {commits!r}"
            raise UsageError(msg)
        settings = Settings(
            path=os.fspath(path),
            definitions=found,
            queues=lanes,
            schedules=collect_schedules(as_listed("schedules", schedules, Schedule), found),
            limits=collect_limits(found.all(), limits),
            concurrency=concurrency,
            durability=durability,
            commits=commits,
            keep_resident=0 if replay_always else keep_resident,
            keep_finished=keep_finished.total_seconds() if isinstance(keep_finished, timedelta) else keep_finished,
            codec=values,
            clock=steady(clock or SystemClock()),
            check_on_open=check_on_open,
            standby=standby,
            grace=grace,
            crash_limit=crash_limit,
            cleanup_seconds=cleanup_timeout,
            threads=threads,
            caps=caps,
            hooks=Hooks(middleware, values),
            replay_always=replay_always,
            storage=storage,
            strict_permissions=strict_permissions,
            schema=ApplicationSchema.of(schema, migrations),
            resources=Resources(resources),
            carry=Carry(carry),
            allow_network_fs=allow_network_fs,
        )
        super().__init__(EngineBackend(settings))
        self._backend.face = weakref.ref(self)

    # --- opening and closing -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        self._backend.body.enter()
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _tb: object) -> None:
        interrupted = self._backend.body.leave()
        await self.aclose()
        failure = self._backend.failure
        if interrupted and failure is not None and (error is None or isinstance(error, asyncio.CancelledError)):
            raise failure from failure.__cause__

    async def open(self) -> None:
        """
        Take the file over, recover, and run. An engine that was closed may be opened again.

        Raises:
            JournalLockedError: Another engine owns it (and not *standby*), or a client that does not let go of it.
            JournalVersionError, ForeignJournalError: It is not ours to open; it was left untouched.
            JournalAccessError, JournalFullError, JournalIOError, JournalDamagedError: It cannot be opened.
            UsageError: It is open already.
        """
        await self._backend.open()

    async def drain(self) -> None:
        """Begin no new step, and wait until those that are running have ended (or the grace is over)."""
        await self._backend.parts_here().drain()

    async def aclose(self) -> None:
        """
        Drain, then close everything. Bounded, idempotent; may be called from any task, on any event loop.

        It is closed when this returns, also to a caller who was cancelled.
        """
        await self._backend.aclose()

    async def wait_closed(self) -> None:
        """
        Return once the engine is closed: for who opened it without `async with`.

        Raises:
            EngineFailedError: It ended by itself.
        """
        await self._backend.wait_closed()

    async def serve(self) -> None:
        """
        Run until SIGTERM or SIGINT, then drain: no new step begins, those that are running get the grace.

        The whole of a program that only executes: opened here, unless it is open, and then closed. A second signal
        cuts off what is running. The handlers that were there before are there again afterwards. An engine touches none
        otherwise; a `Service` listens in on those that are there.

        Raises:
            EngineFailedError: It ended by itself.
            UsageError: Outside of the main thread, which alone gets signals.
        """
        await serve(self._backend)

    def health(self) -> Health:
        """How it is: healthy, degraded (and why), failed, or closed. At once, so that probes may ask it."""
        return self._backend.health()

    @property
    def failure(self) -> EngineFailedError | None:
        """What ended the engine since it was last opened; None if nothing did, or somebody closed it."""
        return self._backend.failure

    @property
    def from_thread(self) -> FromThread:
        """
        The engine for plain functions in threads, and for other event loops: see `FromThread`.

        ``engine.from_thread.run(op)`` blocks its thread until the run has ended.
        """
        return FromThread(self, self._backend)

    # --- transactions ---------------------------------------------------------------------------------

    async def transact(self, op: TransactionOp[T], *, timeout: float = 5.0) -> T:
        """
        What a `@transaction` returns, called outside of workflows: ``await engine.transact(create_order(42))``.

        Its rows, and the runs that it enqueues (``tx.enqueue``), are on disk when this returns, or nothing of it is. A
        plain `def` shares a commit with whatever else is written at that moment. Nothing is recorded of it, and its
        `retry=` is not used: the caller hears of a failure, and decides. It is called a second time where the commit
        that it shared fails. A caller who is cancelled does not undo it.

        Args:
            op: A call of it, without the `Transaction`.
            timeout: Seconds for an `async def`, for which the writer waits.

        Raises:
            TimeoutError: An `async def` took longer, and was rolled back.
            TransactionRefusedError: Its SQL would end the transaction, or write tables of the engine.
            UsageError: It is asked inside of a transaction; of another engine's, too.
            EngineClosedError, JournalError: Nothing can be written.
        """
        return await transact(op, self._backend.parts_here().services, timeout)

    @asynccontextmanager
    async def transaction(self, *, timeout: float = 5.0) -> AsyncGenerator[AsyncTransaction]:
        """
        The writer to itself: ``async with engine.transaction() as tx: await tx.execute(...)``.

        Committed at the end of the block, with what it enqueues; rolled back by an error. All runs wait meanwhile.

        Args:
            timeout: Seconds for all of it, the wait for the writer included.

        Raises:
            TimeoutError: In the block, which took longer, and was rolled back.
            As `transact`.
        """
        async with transaction(self._backend.parts_here().services, timeout) as tx:
            yield tx

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """
        What *fn* returns, called in a thread with a connection that only reads, inside a transaction of its own.

        For the application's tables: ``await engine.read(lambda conn: conn.execute("SELECT ...").fetchall())``. Keep it
        short: the engine's own reads wait for it.
        """
        self._backend.parts_here()
        return await self._backend.read(fn)

    @property
    def _failure(self) -> EngineFailedError | None:  # pyright: ignore[reportUnusedFunction]
        """As `failure`, under the name by which programs found it when it had no public one; until 1.0."""
        return self.failure

    # --- what it does ----------------------------------------------------------------------------------

    async def idle(self) -> None:
        """
        Return once nothing is in progress: at once, if nothing is.

        In progress are steps, turns of runs, requests and reads that are not answered yet, and timers and ticks
        that are due. What waits for something from outside, or for a later time, does not count; nor does what a
        full queue or a pause holds back.

        Raises:
            EngineClosedError: The engine is not open, or was closed meanwhile.
        """
        await self._backend.require_running().workload.idle()

    async def stats(self) -> Stats:
        """Counts and sizes."""
        running = self._backend.require_running()
        found = await self._backend.read(run_rows.counts)
        others = {name: found.pop(name) for name in ("events", "waits", "waiting_for_limits", "bytes")}
        trouble = running.commits.trouble
        return Stats(
            runs=found,
            active=running.scheduler.active,
            resident=running.scheduler.resident,
            wal_bytes=running.database.wal_bytes,
            commits=running.commits.groups,
            writes=running.commits.writes,
            commit_seconds=running.commits.seconds,
            threads=running.steps.threads,
            threads_outlived=running.steps.threads_outlived,
            trouble=None if trouble is None else str(trouble),
            **others,
        )

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """A verified copy of the journal at *path*, while the engine runs. Refuses an existing file."""
        await self._backend.require_running().database.backup(path)

    # --- trying code out -------------------------------------------------------------------------------

    async def check(self, *, all: bool = False) -> CheckReport:
        """
        What the engine's definitions would break: replays every open run (with *all*, every run).

        Nothing is executed or changed. Ahead of a deploy, `durable check` does the same from outside.
        """
        from durable._shell.engine.checks import check_journal  # noqa: PLC0415 - for those who try code out

        backend, settings = self._backend, self._backend.settings
        return await check_journal(backend.read, settings.path, settings.definitions, settings.codec, whole=all)

    async def dry_run(
        self,
        op: RunOp[T],
        *,
        stand_ins: Mapping[StandFor, Callable[..., Any]] | None = None,
        signals: SignalsToSend | None = None,
    ) -> DryRun[T]:
        """
        Run a workflow in memory: stand-ins in place of steps, no file touched, no waiting.

        Child workflows, jobs and follow-ups are rehearsed too. Timers, retry delays and deadlines come
        due at once, in their order, whenever nothing else is in progress. Middleware is not called.
        The engine need not be open.

        Args:
            op: A call of a workflow or job.
            stand_ins: What to call in place of each step, transaction and job: its definition (the
                function, for `call`), or its name, to a plain or async function of the same
                arguments; a transaction's without the `Transaction`. What has none is not
                executed: the dry run has failed, with a `DryRunError`.
            signals: A list of payloads by `Signal`, or by the name of one; of questions by `Request`. Each goes to the
                run that has waited longest for it, before any time passes.

        Returns:
            How it ended, or what it waits for: a workflow that fails does not raise here.

        Raises:
            DryRunError: A stand-in names nothing that is known, or cannot take these arguments.
            DefinitionError, EncodeError: As for `start`.
        """
        from durable._shell.engine.dry_run import rehearsing  # noqa: PLC0415 - for those who try code out

        settings = self._backend.settings
        stands = StandIns(stand_ins or {}, settings.definitions)
        async with rehearsing(settings, stands, now=settings.clock.now()) as rehearsal:
            return await rehearsal.play(await rehearsal.journal.start(op), signals or {})
