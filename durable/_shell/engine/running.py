"""
The parts of an open engine: made when it is opened, used up when it is closed.

Opening takes the owner's lock, opens the database (migrating it if need be) and lets the
scheduler begin with whatever the file says is ready; nothing is loaded before its turn comes,
so a million waiting runs cost nothing. The parts are closed in the reverse order of their making,
also where a later one could not be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol, Self

import anyio

from durable._core.admission import Admission, Places
from durable._core.codec.exceptions.failure import Failure
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.payloads import failure_in
from durable._core.light_frozen import light_frozen
from durable._core.policies.limits import numbers
from durable._core.supervision import remedy
from durable._core.suspicion import guilty
from durable._shell.attempts.functions import journal_key
from durable._shell.attempts.steps import Steps
from durable._shell.backend import Backend
from durable._shell.claims import slots
from durable._shell.claims.keys import forget_renewed
from durable._shell.claims.places import register_fairness
from durable._shell.claims.row_numbers import mend_numbers
from durable._shell.commits.activity import Activity
from durable._shell.commits.commits import Commits
from durable._shell.commits.quarantine import Quarantine
from durable._shell.commits.residents import Residents
from durable._shell.commits.witness import Note, Witness, read_notes
from durable._shell.engine.settings import Settings
from durable._shell.log import log, tell_failed
from durable._shell.ownership.opening import open_owned
from durable._shell.ownership.outliving import OutlivedElsewhere, sweep
from durable._shell.ownership.ownership import Keeper, Ownership
from durable._shell.reads import event_rows, run_rows
from durable._shell.reads.hook_rows import runs_with_owed_hooks
from durable._shell.reads.queue_rows import changed_queues
from durable._shell.rows.rows import ChangedQueue, Damaged, Effects, Ended, ReadyRun, RunResult
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.rows.token_keys import make_token_key, token_key
from durable._shell.rows.value_caps import note_value_caps
from durable._shell.storage import schema, seals
from durable._shell.storage.copies import marks
from durable._shell.storage.copies.torn import WHOLE, note_closed, note_open
from durable._shell.storage.database import Database
from durable._shell.storage.location import check_name
from durable._shell.storage.memory import MEMORY, MemoryDatabase
from durable._shell.storage.port import AnyDatabase
from durable._shell.storage.untrusted import open_to_others
from durable._shell.tasks.broadcast import Broadcast
from durable._shell.tasks.housekeeping import keep_house
from durable._shell.tasks.news import News
from durable._shell.tasks.result_waiters import ResultWaiters
from durable._shell.tasks.scheduler import Scheduler
from durable._shell.tasks.server import Answering, Server
from durable._shell.tasks.supervisor import LAST_WAIT, Supervisor
from durable._shell.tasks.ticker import Ticker
from durable._shell.tasks.troubles import Troubles
from durable._shell.tasks.watchers import Watchers
from durable._shell.tasks.workload import Workload
from durable._shell.turns.continuations import HookCalls
from durable._shell.turns.services import Services
from durable._shell.writes.damage import isolate, stop_ended
from durable._shell.writes.deaths import LastLife, note_drain, take_last_life
from durable._shell.writes.schedule_writes import adopt
from durable._shell.writes.wakeups import let_in, read_unborn, retry_blocked
from durable.errors import DurableError, EngineClosedError, EngineFailedError, JournalAccessError

#: Notices that this process has given: they are about its libraries.
_told: set[str] = set()


class Host(Answering, Keeper, Protocol):
    """The engine that is opened, as its parts ask it."""

    @property
    def for_steps(self) -> Backend:
        """Where steps and jobs ask."""
        ...

    def check_open(self) -> None:
        """Raise EngineClosedError, unless it is open."""
        ...

    def on_failure(self, error: EngineFailedError) -> None:
        """Hear that *error* has ended it, and close it."""
        ...

    def stand_by(self, holder: str) -> None:
        """Hear that *holder* has the file, and is waited for."""
        ...


class Running:
    """What an engine has only while it is open. Made by `open`."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        activity: Activity,
        workload: Workload,
        database: AnyDatabase,
        recovered: Recovered,
        note: Note | None,
    ) -> None:
        self.settings = settings
        self.activity = activity
        self.workload = workload
        self.database = database
        self.waiters = ResultWaiters()
        self.news = News()
        hooks = settings.hooks
        self.broadcast = Broadcast(settings.clock, hooks.happened if hooks.watches_events else None)
        self.troubles = Troubles(settings.path)
        self.supervisor = Supervisor(settings.path, self.troubles, self._failed)
        self.watchers = Watchers(database.read, self.supervisor.spawn)
        self.commits = Commits(
            database, self._take, self._is_looked_on, activity, settings.caps.stream_buffer,
            on_commit=hooks.committed if hooks.watches_commits else None,
        )  # fmt: skip
        self.places, admission = _lines(settings, recovered)
        #: Those that the program gives its queues.
        self.rates = {queue.name: queue.rate for queue in settings.queues if queue.rate is not None}
        self.allocate = settings.numbering(recovered.last_run)
        self.steps = Steps(
            settings.codec,
            settings.clock,
            self.supervisor.is_ending,
            settings.hooks,
            host.for_steps,
            journal_key(settings.path, settings.codec),
            settings.threads,
            settings.stand_ins,
            lambda: self.draining,
            settings.resources,
            settings.carry,
        )
        services = Services(
            path=settings.path,
            database=database,
            commits=self.commits,
            codec=settings.codec,
            clock=settings.clock,
            steps=self.steps,
            definitions=settings.definitions,
            carry=settings.carry,
            limits=settings.limits,
            places=self.places,
            allocate=self.allocate,
            spawn=self.supervisor.spawn,
            on_effects=self._take,
            hooks=settings.hooks,
            activity=activity,
            is_watched=self._is_watched,
            crash_limit=settings.crash_limit,
            last_life=recovered.last_life,
            quarantine=Quarantine(self.commits),
            witness=Witness(note, guilty(recovered.last_life.accused, settings.crash_limit)),
            cleanup_seconds=settings.cleanup_seconds,
            caps=settings.caps,
            residents=Residents(settings.keep_resident),
            token_key=recovered.token_key,
            replay_always=settings.replay_always,
            stand_ins=settings.stand_ins,
        )
        self.services = services
        self.scheduler = Scheduler(services, admission)
        self.hook_calls = HookCalls(services)
        self.ticker = Ticker(settings.schedules, recovered.schedules, services, self.supervisor.start)
        #: Where other processes ask; a journal in memory has none.
        self.server = Server(database.path, host) if isinstance(database, Database) else None
        workload.consists_of(timed=(self.scheduler, self.ticker), calling=(database, self.steps))
        #: Whether nothing more is begun, nor accepted if it would have to be.
        self.draining = False
        self._drained = False
        #: Whether it is being closed, or is.
        self.closing = False
        #: Set once all of it is closed.
        self.over = asyncio.Event()
        self._on_failure = host.on_failure
        self._ownership: Ownership | None = None
        #: Where all of it happens.
        self.loop = asyncio.get_running_loop()
        self._recovered = recovered
        self._pid = os.getpid()
        self._parts = AsyncExitStack()
        #: Gives the file up where nobody has closed it: what is behind the parts must not lead back to them.
        self._orphaned: weakref.finalize[..., Self] | None = None

    # --- opening and closing -------------------------------------------------------------------------

    @classmethod
    async def open(cls, settings: Settings, host: Host, activity: Activity) -> Self:
        """Make the parts. Nothing is driven, and nobody listened to, before `begin`."""
        async with AsyncExitStack() as parts:
            workload = Workload(activity, settings.clock, host.check_open)
            parts.enter_context(workload.shown())
            database, ownership = await _open_file(settings, host, parts)
            begun = _noting(database)
            await settings.schema.prepare(database, settings.path, begun)
            left = None if ownership is None else ownership.last_words()
            elsewhere = OutlivedElsewhere(settings.path) if isinstance(database, Database) else None
            if elsewhere is not None:
                parts.callback(sweep, settings.path)
                parts.callback(elsewhere.close)
            outlived: Collection[tuple[str, str]] = () if elsewhere is None else elsewhere.steps
            recovered = await _recover(database, settings, left, outlived, begun)
            if ownership is not None:
                ownership.forget_last_words()
            if settings.check_on_open:
                from durable._shell.engine import checks  # noqa: PLC0415 - for those who ask for it

                definitions, codec = settings.definitions, settings.codec
                checked = await checks.check_journal(database.read, settings.path, definitions, codec, whole=False)
                checks.report_at_opening(checked, settings.path)
            note = None if ownership is None or left is None else ownership.note
            running = cls(settings, host, activity, workload, database, recovered, note)
            running._ownership = ownership
            if ownership is not None and isinstance(database, Database):
                ownership.keeper = weakref.ref(host)
                running._orphaned = weakref.finalize(running, _abandon, database, ownership)
                running._orphaned.atexit = False  # the kernel frees the lock
                parts.callback(running._orphaned.detach)
            parts.callback(running.broadcast.close)
            parts.callback(running._let_go, _closed)
            await settings.resources.open()  # before anything is driven, and left after all that was
            parts.push_async_callback(settings.resources.aclose, settings.grace)
            parts.push_async_callback(running.supervisor.aclose)
            parts.callback(running.scheduler.close)
            running.steps.elsewhere = elsewhere
            parts.callback(running._leave_word)
            parts.callback(running.steps.close)
            await running.supervisor.begin()
            commits, supervisor = running.commits, running.supervisor
            supervisor.start_uncancelled(commits.run(), name="durable-commits", stop=commits.close)
            supervisor.start("timers", running.scheduler.run_timers)
            if elsewhere is not None and elsewhere.steps:
                supervisor.start("slots", partial(running._free_slots, elsewhere))
            house = partial(
                keep_house, host, database, ownership, settings.keep_finished, running.troubles, running._write_again
            )
            supervisor.start("housekeeping", house)
            running._parts = parts.pop_all()
            return running

    async def begin(self) -> None:
        """Drive what is ready, let schedules tick, and listen to other processes."""
        found = self._recovered
        for queue in found.paused_queues:
            self.scheduler.pause_queue(queue, paused=True)
        effects = Effects()
        effects.unborn, effects.hooks = found.unborn, found.owed_hooks
        self.scheduler.take(effects)
        self.scheduler.recover(found.ready_queues, found.next_fire_at)
        self.ticker.begin()
        self.hook_calls.take(effects)
        if self.server is not None:
            self._parts.push_async_callback(self.server.aclose)
            await self.server.start()
        # They are about two writers: only we write where no tables of others are.
        for notice in self.database.notices if found.is_shared else ():
            if notice not in _told:  # once a process, since it is about that
                _told.add(notice)
                log.warning("journal.notice", path=self.settings.path, notice=notice)
        self.check_alive()  # lest it looks open that has failed meanwhile

    async def _write_again(self) -> None:
        """Learn whether anything can be recorded again, where nobody else tries."""
        if self.commits.trouble is not None:
            await self.commits.call(lambda _conn, _effects: None)

    async def _free_slots(self, elsewhere: OutlivedElsewhere) -> None:
        """Free the slots of functions of engines before this one, once they have returned."""
        await elsewhere.wait_returned()
        now, own = self.settings.clock.now(), {function.key[1:] for function in self.steps.outlived()}

        def free(conn: sqlite3.Connection, effects: Effects) -> None:
            let_in(conn, slots.free_outlived(conn, own, now, effects), now, effects)

        with contextlib.suppress(EngineClosedError):
            await self.commits.call(free, answers=False)

    def _leave_word(self) -> None:
        """Tell the next owner of the file which functions still run."""
        for function in self.steps.outlived():
            self.steps.leave_word(function)

    async def drain(self) -> None:
        """Begin no new step, and wait until those that are running have ended (or the grace is over): once."""
        if self._drained:
            return
        self.draining = True
        self.ticker.stop()
        self.scheduler.stop()
        with anyio.move_on_after(self.settings.grace):
            if self.scheduler.active:
                await self._record_drain()
            await self.scheduler.wait_idle()
            self._drained = True
            return
        self.scheduler.interrupt()
        with anyio.move_on_after(LAST_WAIT):
            await self.scheduler.wait_idle()
        self._drained = True

    async def _record_drain(self) -> None:
        """Record that a death from here on is no fault of the steps that are running."""
        now = self.settings.clock.now()
        try:
            await self.commits.call(lambda conn, _: note_drain(conn, now))
        except DurableError as error:  # closing does not depend on it
            log.warning("drain.not_recorded", path=self.settings.path, error=str(error))

    async def close(self) -> None:
        """Drain, then close all parts: tasks, writer, file, lock. Within the grace and a few seconds."""
        async with self._parts:  # clients are listened to as long as anything can be recorded
            if self.supervisor.failure is None:
                await self.drain()

    async def give_up(self) -> None:
        """Close all parts at once: it could not begin."""
        await self._parts.aclose()

    def abandon(self) -> None:
        """Let go of the file without the event loop, which is gone and all tasks with it; see `Database.abandon`."""
        self.closing = True
        self._leave_word()
        self.steps.close()
        if self.steps.elsewhere is not None:
            self.steps.elsewhere.close()
        if self.server is not None:
            self.server.abandon()
        if not self.loop.is_closed():  # it stands still: what is left there ends if it ever runs again
            self.loop.call_soon_threadsafe(self.supervisor.cancel)
        if self._orphaned is not None:
            self._orphaned()

    # --- what its parts tell -------------------------------------------------------------------------

    @property
    def troubles_now(self) -> tuple[str, ...]:
        """What it waits out at the moment, one sentence for each."""
        told = list(self.troubles.reasons)
        if (trouble := self.commits.trouble) is not None:
            told.append(f"nothing can be recorded: {trouble}")
        if (shortage := self.steps.shortage) is not None:
            told.append(f"plain functions wait: {shortage}")
        return tuple(told)

    @property
    def is_anothers(self) -> bool:
        """Whether this is a child of the process that opened it."""
        return os.getpid() != self._pid

    @property
    def belongs(self) -> str:
        """Whose it is, for a forked child."""
        return f"belongs to process {self._pid}, from which this one was forked: open it after forking"

    def check_open(self) -> None:
        """
        Nothing, while it may be asked.

        Raises:
            EngineClosedError: It is closing, has failed, or belongs to the process that this one was forked from.
        """
        self.check_alive()
        if self.closing:
            raise not_open()

    def check_alive(self) -> None:
        """
        Nothing, while it works, be it that it closes.

        Raises:
            EngineClosedError: It has failed, its tasks were cancelled, or it belongs to the process that this one was
                forked from.
        """
        failure = self.supervisor.failure
        if failure is not None:
            raise failed(self.settings.path, failure)
        if self.supervisor.is_ending() and not self.closing:
            msg = "the tasks of the engine were cancelled, as when its event loop ends: it must be opened anew"
            raise EngineClosedError(msg)
        if self.is_anothers:
            raise EngineClosedError(f"this engine {self.belongs}")

    def _take(self, effects: Effects) -> None:
        """Tell whom it concerns what a commit group caused."""
        self.waiters.take(effects)
        self.news.take(effects)
        self.watchers.take(effects)
        for run_id, error in effects.refused:
            log.error("follow_up.refused", run_id=run_id, error=error)
        for run_id, error in effects.unpublished:
            log.error("attributes.refused", run_id=run_id, error=error)
        _tell_damaged(self.settings.path, effects.damaged)
        for ended in effects.ended:
            if ended.status == "failed" and ended.outcome is not None:
                self._tell_failed(ended, ended.outcome)
            if ended.unread:
                log.warning("signals.unread", run_id=ended.run_id, workflow=ended.workflow, signals=dict(ended.unread))
        if self._is_watched():
            effects.notice_turns()
        self.broadcast.publish(effects, self.scheduler.name_of)
        self.settings.hooks.tell(effects)
        self.ticker.take(effects)
        self.scheduler.take(effects)
        self.hook_calls.take(effects)

    def _tell_failed(self, run: Ended, outcome: RunResult) -> None:
        if self.settings.stand_ins is not None:  # as it would be in a dry run, of which nobody needs a log
            return
        if self.settings.codec.conceals:  # neither what it says nor what stands in its traceback
            log.error("run.failed", run_id=run.run_id, workflow=run.workflow, error=outcome.reason)
            return
        try:
            failure = failure_in(outcome.payload, self.settings.codec)
        except Exception as error:  # noqa: BLE001 - the codec is the user's
            failure = Failure("", "", f"{outcome.reason} ({one_line(error)})", {})
        tell_failed(run.run_id, run.workflow, failure)

    def _is_looked_on(self) -> bool:
        """Whether anybody hears of turns, also where nothing more came of them."""
        return self._is_watched() or bool(self.news) or bool(self.watchers)

    def _is_watched(self) -> bool:
        return self.settings.hooks.watches_attempts or self.broadcast.has_readers

    def _failed(self, error: BaseException) -> None:
        def made() -> EngineFailedError:
            return failed(self.settings.path, error)

        if self._ownership is not None:
            self._ownership.failure = one_line(error)
        self.commits.fail(made)
        self.broadcast.close(made)
        self._let_go(made)
        self._on_failure(made())

    def _let_go(self, error: Callable[[], Exception]) -> None:
        """Nobody is to wait any more: neither for runs, nor for the engine to be idle."""
        self.waiters.fail(error)
        self.news.fail(error)
        self.watchers.fail(error)
        self.activity.close()


def failed(path: str, cause: BaseException) -> EngineFailedError:
    """For those who ask an engine that *cause* ended."""
    error = EngineFailedError(path, one_line(cause), remedy(cause))
    error.__cause__ = cause
    return error


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine was closed; it resumes when it opens again")


def not_open() -> EngineClosedError:
    """For callers of an engine that is not open, or not any more."""
    return EngineClosedError("the engine is not open: use `async with Engine(...)`, or await engine.open()")


def _abandon(database: Database, ownership: Ownership) -> None:
    """Close *database* and then give its file up: called where the engine is garbage, or its event loop gone."""
    log.warning("engine.abandoned", path=database.path, hint="close it (async with, or await engine.aclose())")
    database.abandon(ownership.release)


# --- the file ----------------------------------------------------------------------------------------


async def _open_file(settings: Settings, host: Host, parts: AsyncExitStack) -> tuple[AnyDatabase, Ownership | None]:
    """The database, and who owns its file, if it has one; *parts* closes both."""
    path, clock = settings.path, settings.clock
    storage = MemoryDatabase.open if settings.storage is None and path == MEMORY else settings.storage
    if storage is not None:
        database = await storage(path, prepare=lambda conn: schema.prepare(conn, clock.now()))
        parts.push_async_callback(database.aclose)
        return database, None
    check_name(path)
    if why := open_to_others(path):
        if settings.strict_permissions:
            raise JournalAccessError(path, why)
        log.warning("journal.notice", path=path, notice=why)
    stand_by = host.stand_by if settings.standby else None
    file, ownership = await open_owned(
        path,
        durability=settings.durability,
        now=clock.now,
        stand_by=stand_by,
        allow_network_fs=settings.allow_network_fs,
        inline=settings.commits == "inline",
    )
    parts.callback(ownership.release)
    parts.push_async_callback(file.aclose)
    parts.push_async_callback(_note_closed, file, ownership)
    if file.is_copy:
        log.warning("journal.notice", path=path, notice=WHOLE)
    return file, ownership


def _noting(database: AnyDatabase) -> Callable[[sqlite3.Connection], None]:
    """What the first transaction of an engine begins with: the file is to say that it is open."""
    return partial(note_open, path=database.path) if isinstance(database, Database) else lambda _: None


def _leave(conn: sqlite3.Connection) -> bool:
    """What is done last; whether there is more."""
    note_closed(conn)
    return seals.seal(conn)


async def _note_closed(file: Database, ownership: Ownership) -> None:
    """Record that nobody writes any more, unless the file is not ours to write. Closing does not depend on it."""
    if not ownership.failure:
        with contextlib.suppress(DurableError), anyio.move_on_after(LAST_WAIT):
            while await file.write(_leave):
                pass


@light_frozen
class Recovered:
    """What a file holds when it is opened."""

    at: float
    last_run: int
    last_life: LastLife
    #: Those that the engine was given, by name.
    schedules: dict[str, ScheduleRow]
    #: Those whose numbers were changed at run time.
    changed_queues: dict[str, ChangedQueue]
    ready_queues: list[str]
    paused_queues: list[str]
    next_fire_at: float | None
    #: (queue, group, first place, last place), see `Places.recover`.
    places: list[tuple[str, str | None, float, float]]
    #: When the latest runs of queues with a rate began.
    starts: dict[str, list[float]]
    token_key: str
    #: See `read_unborn`.
    unborn: list[ReadyRun]
    #: Runs of which hooks are to be called again.
    owed_hooks: list[int]
    #: Whether others have tables in the file.
    is_shared: bool


async def _recover(
    database: AnyDatabase,
    settings: Settings,
    left: Sequence[bytes] | None,
    outlived: Collection[tuple[str, str]],
    begun: Callable[[sqlite3.Connection], None],
) -> Recovered:
    """
    Let runs try again that other code had blocked, and let in whom today's numbers of limits let in.

    One transaction, and so one change of thread and one sync. *left*: what the last engine had noted of itself, if it
    died. *outlived*: steps, by run and position, whose functions still run elsewhere. *begun*: what the first
    transaction of an opening begins with.
    """
    now = settings.clock.now()
    noted = read_notes(left)

    def recover(conn: sqlite3.Connection) -> tuple[Recovered, list[Damaged]]:
        effects = Effects()  # not needed but for damage, since what these cause is read from the file afterwards
        begun(conn)
        for table, key in seals.all_damaged(conn):  # before anything is written to them
            isolate(conn, table, key, now, effects)
        stop_ended(conn, effects)
        retry_blocked(conn, now)
        forget_renewed(conn)
        mend_numbers(conn)
        effects.damaged += slots.forget_damaged(conn)
        slots.register(conn, [numbers(limit) for limit in settings.limits.values()])
        register_fairness(conn, settings.queues)
        note_value_caps(conn, settings.caps.value_bytes, settings.caps.nesting, encrypts=settings.codec.conceals)
        make_token_key(conn)
        for queue in run_rows.paused_queues(conn):
            let_in(conn, slots.leave_paused_queue(conn, queue, now, effects, active=None), now, effects)
        let_in(conn, slots.free_outlived(conn, outlived, now, effects), now, effects)
        let_in(conn, slots.grant_all(conn, now, effects), now, effects)
        schedules = adopt(conn, list(settings.schedules.values()), now, effects)
        last_life = take_last_life(conn, noted)
        changed, unread = changed_queues(conn, now)
        rates = [(queue.name, queue.rate) for queue in settings.queues if queue.rate is not None]
        recovered = Recovered(
            at=now,
            last_run=event_rows.last_run(conn),
            last_life=last_life,
            schedules=schedules,
            changed_queues=changed,
            ready_queues=event_rows.ready_queues(conn),
            paused_queues=run_rows.paused_queues(conn),
            next_fire_at=event_rows.next_fire_at(conn),
            places=event_rows.places(conn),
            starts={
                name: event_rows.recent_starts(conn, name, since=now - rate.per, count=rate.count)
                for name, rate in rates
            },
            token_key=token_key(conn),
            unborn=read_unborn(conn),
            owed_hooks=runs_with_owed_hooks(conn),
            is_shared=marks.holds_other_tables(conn),
        )
        return recovered, [*effects.damaged, *unread]

    # Meanwhile the reader is opened, and reads: later another file, or none, may lie under the path.
    (recovered, damaged), _ = await asyncio.gather(database.write(recover), database.read(marks.schema_of))
    _tell_damaged(settings.path, damaged)
    return recovered


def _tell_damaged(path: str, found: Sequence[Damaged]) -> None:
    for each in found:
        log.error("journal.damaged", path=path, what=each.what, of=each.of, error=each.error)


def _lines(settings: Settings, recovered: Recovered) -> tuple[Places, Admission[ReadyRun]]:
    """Where the lines of the queues stand, and what the windows of their rates hold already."""
    fair_by = {queue.name: queue.fair_by for queue in settings.queues if queue.fair_by is not None}
    places = Places(recovered.at, fair_by)
    admission: Admission[ReadyRun] = Admission(settings.queues, settings.concurrency, places)
    for queue, group, first, last in recovered.places:
        places.recover(queue, group, first, last)
    for queue, starts in recovered.starts.items():
        admission.started(queue, starts)
    for queue, changed in recovered.changed_queues.items():
        admission.change(queue, *changed)
    return places, admission
