"""
An engine without its face: it is opened and closed here, and here handles, clients and its own steps ask it.

It outlives its openings, so that handles may be kept: what they need of the parts of an open engine they get from the
`Running` of the moment, if there is one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final, TypeVar

from durable._core.authoring.op_constructors import with_options
from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp
from durable._shell.attempts.transaction import holds_writer
from durable._shell.backend import Backend
from durable._shell.commits.activity import Activity
from durable._shell.engine.body import Body
from durable._shell.engine.running import Host, Running, not_open
from durable._shell.engine.settings import Settings
from durable._shell.log import log
from durable._shell.loops import LOOP_ENDED, on_its_loop, running_loop, to_its_end
from durable._shell.reads import batch_rows, event_rows, run_rows
from durable._shell.reads.asked_rows import AskedRow, asked_row
from durable._shell.reads.run_rows import RunRow
from durable._shell.reads.stream_rows import news_mark
from durable._shell.reports.watched_rows import Watched
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.requests.run_requests import StartRuns
from durable._shell.rows.engine_events import EngineEvent, WantedEvents
from durable._shell.rows.new_runs import make_run, make_template
from durable._shell.rows.rows import NewRun, RunResult
from durable._shell.tasks.health import Health
from durable._shell.turns.callback_types import check_answer
from durable.errors import (
    BatchNotFoundError,
    DurableError,
    EngineClosedError,
    EngineFailedError,
    JournalDamagedError,
    RunNotFoundError,
    UsageError,
    WrongLoopError,
)

T = TypeVar("T")
R = TypeVar("R")

_ASK_FROM_THREAD: Final = (
    "await it on the engine's own loop, or call engine.from_thread.start(...), which is synchronous and works here"
)


def refuse_in_transaction(request: JournalRequest[Any]) -> None:
    """
    Nothing, outside of the functions of async transactions.

    Raises:
        UsageError: *request* would wait for the transaction that it is made in.
    """
    if holds_writer.get():
        msg = (
            f"{type(request).__name__} inside an async @transaction would wait for that transaction itself: "
            "use tx.enqueue(op) to start runs, and ask the engine for everything else after it"
        )
        raise UsageError(msg)


class EngineBackend:
    """An engine, as everything but its user sees it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: Its parts, while it is open, or is about to be.
        self.running: Running | None = None
        #: What ended it since it was last opened, if it did not end because somebody closed it.
        self.failure: EngineFailedError | None = None
        #: The task in the body of `async with`.
        self.body = Body()
        self.for_steps: Backend = StepBackend(self)
        #: What its user holds, as long as he does: who dropped it can close it no more.
        self.face: weakref.ref[object] | None = None
        #: That on which it was opened last.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Called when another process has the file, and is waited for.
        self.on_stand_by: Callable[[], None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        """The journal's file."""
        return self.settings.path

    @property
    def codec(self) -> Codec:
        """Writes and reads values."""
        return self.settings.codec

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self.settings.clock

    # --- opening and closing ---------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Make its parts, and let them begin.

        Raises:
            UsageError: It is open.
            EngineClosedError: It was closed meanwhile.
            JournalError: What `Engine.open` says.
        """
        if self._loop is not None and self._loop.is_closed():
            self.abandon()
        if self._opening is not None or self.running is not None:
            msg = f"the engine of {self.path} is open, or about to be: close it before it is opened again"
            raise UsageError(msg)
        self.failure = None
        self._loop = asyncio.get_running_loop()
        # A task of its own, so that it can be closed while it waits for the file.
        self._opening = opening = asyncio.create_task(self._open(), name="durable-open")
        try:
            await opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise EngineClosedError("the engine was closed while it was being opened") from None
        finally:
            self._opening = None

    async def _open(self) -> None:
        activity = Activity()
        try:
            with activity:
                self.running = running = await Running.open(self.settings, self, activity)
                try:
                    await running.begin()
                except BaseException:
                    self.running = None
                    await running.give_up()
                    raise
        except sqlite3.Error as error:  # a sound journal takes these statements, so it must be damaged
            raise JournalDamagedError(self.path, f"{error}. Restore from a backup") from error
        self._log("engine.opened", durability=self.settings.durability)

    def stand_by(self, holder: str) -> None:
        """Hear that *holder* has the file, and is waited for."""
        self._log("engine.standing_by", holder=holder)
        if self.on_stand_by is not None:
            self.on_stand_by()

    async def aclose(self) -> None:
        """
        Drain, then close everything. Bounded, idempotent; may be called from any task, on any event loop.

        It is closed when this returns, also to a caller who was cancelled: a lock that is held a moment longer keeps
        the next engine out.
        """
        home = self._loop
        if home is None:
            return
        if home is not asyncio.get_running_loop():
            if not await to_its_end(on_its_loop(home, self.aclose)):
                self.abandon()
            return
        if self._opening is not None:
            self._opening.cancel()
            await to_its_end(_ended(self._opening))
        if self._closing is None:
            if self.running is None:
                return
            self._closing = self._begin_close(self.running)
        await to_its_end(self._closing)

    def abandon(self) -> None:
        """Be closed without the event loop, which is gone: as `Keeper`."""
        running, self.running = self.running, None
        self._opening = self._closing = None
        if running is not None:
            running.abandon()

    async def make_way(self) -> None:
        """Close, if the `Engine` is gone and so nobody else can: as `Keeper`."""
        if self.face is not None and self.face() is None:
            log.warning("engine.replaced", path=self.path, reason="its Engine object is gone, and a new one opens")
            await self.aclose()

    async def wait_closed(self) -> None:
        """Return once it is closed; raises what ended it, if it failed."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self.running is not None:
            await self.running.over.wait()
        if self.failure is not None:
            raise self._failed_again(self.failure)

    def health(self) -> Health:
        """How it is at the moment."""
        running = self.running
        if self.failure is not None:
            return Health("failed", (str(self.failure),))
        if self._opening is not None:
            return Health("closed", ("it is being opened, or waits for the file",))
        if running is None or running.closing:
            return Health("closed", ("it was closed, or never opened",))
        if running.is_anothers:
            return Health("closed", (f"it {running.belongs}",))
        reasons = running.troubles_now
        return Health("degraded" if reasons else "healthy", reasons)

    def on_failure(self, error: EngineFailedError) -> None:
        """Hear that *error* has ended it: who waits in `async with` is told, and the file is given up."""
        self.failure = error
        if self._opening is None and self._closing is None and self.running is not None:
            self.body.interrupt()
            self._closing = self._begin_close(self.running)

    def _begin_close(self, running: Running) -> asyncio.Task[None]:
        running.closing = True
        return asyncio.create_task(self._close(running), name="durable-close")

    async def _close(self, running: Running) -> None:
        try:
            await running.close()
        finally:
            self.running = self._closing = None
            running.over.set()
        self._log("engine.closed")

    @staticmethod
    def _failed_again(error: EngineFailedError) -> EngineFailedError:
        """The same error for one more who asks: each has a traceback of his own."""
        again = EngineFailedError(error.path, error.reason, error.remedy)
        again.__cause__ = error.__cause__
        return again

    def _log(self, event: str, **values: Any) -> None:
        if self.settings.stand_ins is None:  # nobody opened a dry run, so nobody needs a log of it
            log.info(event, path=self.path, **values)

    def require_running(self) -> Running:
        """
        The parts of the open engine.

        Raises:
            EngineClosedError: It is not open.
        """
        running = self.parts_here()
        running.check_open()
        return running

    def check_open(self) -> None:
        """As `require_running`."""
        self.require_running()

    @property
    def parts(self) -> Running:
        """Its parts, also while it closes. Raises EngineClosedError where there are none."""
        if self.running is None:
            raise not_open() if self.failure is None else self._failed_again(self.failure)
        return self.running

    def parts_here(self) -> Running:
        """
        As `parts`, for who asks from outside.

        Raises:
            EngineClosedError: There are none.
            WrongLoopError: They are asked on another event loop than theirs.
        """
        running = self.parts
        if running_loop() is not running.loop:
            raise self._elsewhere(running)
        return running

    def _elsewhere(self, running: Running) -> UsageError:
        """What is wrong with a call that does not come from the loop of the open engine."""
        if running.is_anothers:  # for asyncio, a forked child runs no loop
            return EngineClosedError(f"this engine {running.belongs}")
        if running.loop.is_closed():
            return EngineClosedError(LOOP_ENDED)
        return WrongLoopError(f"engine of {self.path}", threading.current_thread().name, _ASK_FROM_THREAD)

    def home(self) -> asyncio.AbstractEventLoop:
        """The event loop of the open engine. Raises EngineClosedError if it is not open."""
        if self.running is None:
            raise not_open()
        return self.running.loop

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        return self.running is None or self.running.closing

    # --- what is recorded ------------------------------------------------------------------------------

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """The result of a function of `reads`, called with a connection and *args*."""
        running = self.require_running()
        with running.activity:
            return await running.database.read(partial(_apply, fn, args))

    async def end_of(self, run_id: str, number: int = 0, /, *, wait: bool = False) -> tuple[RunRow | None, RunResult]:
        """
        As `Backend.end_of`.

        One look at the file where the run has not ended: its outcome then comes with the commit that ends it.
        """
        running = self.require_running()
        if number and running.scheduler.is_under_way(number):
            with running.waiters.until(run_id) as future:
                outcome = await future
            if outcome is not None:
                return None, outcome
        while True:
            with running.waiters.until(run_id) as future:  # before the look, lest it ends in between
                row, outcome = await self.read(event_rows.outcome_of, self.path, run_id)
                if row is None:
                    raise RunNotFoundError("id", run_id)
                if outcome is None and row.run_id == run_id:
                    if row.status == "blocked" and not wait:
                        return row, RunResult("blocked", None, row.reason or "")
                    outcome = await future
                if outcome is not None:
                    return row, outcome
            run_id = row.run_id

    async def answer_of(self, request: str, run_id: str) -> AskedRow:
        """As `Backend.answer_of`: a look at the file, then the commit that answers it says so."""
        while True:
            with self.require_running().waiters.until_answered(request, run_id) as future:
                row = await self._asked(request, run_id)
                if not row.is_open:
                    return row
                if row.run_id == run_id:
                    await future
                run_id = row.run_id

    async def wait_for_answer(self, request: str, run_id: str) -> None:
        """Return once the request of that id into the run called *run_id* may have been answered, or cannot be."""
        with self.require_running().waiters.until_answered(request, run_id) as future:
            row = await self._asked(request, run_id)
            if row.is_open and row.run_id == run_id:
                await future

    async def _asked(self, request: str, run_id: str) -> AskedRow:
        row = await self.read(asked_row, request)
        if row is None:
            raise RunNotFoundError("id", run_id)
        return row

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished: one look at the file, then the commit that finishes it says so."""
        with self.require_running().waiters.until_finished(batch_id) as future:
            exists, finished = await self.read(batch_rows.finish_of, batch_id)
            if not exists:
                raise BatchNotFoundError("id", batch_id)
            if not finished:
                await future

    async def wait_for_end(self, run_id: str) -> None:
        """Return once the run called *run_id* may have ended."""
        with self.require_running().waiters.until(run_id) as future:
            row = await self.read(run_rows.run_by_id, run_id)
            if row is not None and row.ended_at is None:
                await future

    async def wait_for_news(self, run_id: str, mark: str) -> None:
        """As `Backend.wait_for_news`: a look at the file, then the commit that makes some says so."""
        found = await self.read(news_mark, run_id)
        if found is None:
            return
        with self.require_running().news.until(found[0]) as future:
            again = await self.read(news_mark, run_id)  # now that nothing can come in between
            if again is not None and again[1] == mark:
                await future

    def watch(self, run_id: str) -> AsyncGenerator[Watched]:
        """As `Backend.watch`."""
        return self.require_running().watchers.follow(run_id)

    def events(self, wanted: WantedEvents) -> AsyncGenerator[EngineEvent]:
        """As `Backend.events`."""
        return self.require_running().broadcast.subscribe(wanted)

    # --- what is to be ---------------------------------------------------------------------------------

    async def request(self, request: JournalRequest[R], /) -> R:
        """Have a request recorded; its result once it is on disk."""
        running = self.require_running()
        refuse_in_transaction(request)
        return await self._record(running, request, draining=running.draining)

    async def request_of_client(self, request: JournalRequest[R], /) -> R:
        """
        As `request`, also while the engine closes, as long as it can: what nobody begins here, the next owner does.

        Raises:
            EngineClosedError: It cannot any more, or has failed.
        """
        running = self.parts
        running.check_alive()
        return await self._record(running, request, draining=False)

    async def scrub(self) -> None:
        """Write the file anew, without what was deleted."""
        running = self.require_running()
        with running.activity:
            await running.database.scrub()

    async def _record(self, running: Running, request: JournalRequest[R], *, draining: bool) -> R:
        if request.answered is not None:
            with running.activity:
                await check_answer(*request.answered, running.services)
        env = Env(
            self.clock.now(), self.path, running.allocate, running.places, running.ticker, draining, running.rates,
            self.codec.conceal,
        )  # fmt: skip
        prepared = request.prepared(env)
        record = prepared.record
        with running.activity:
            firsts = running.scheduler.begin_unborn(prepared.runs) if isinstance(prepared, StartRuns) else ()
            result = await running.commits.call(
                lambda conn, effects: record(conn, effects, env), is_short=prepared.is_short, firsts=firsts
            )
        if isinstance(result, DurableError):  # on disk as well: the answer to who asks again
            raise result
        return result

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None, in_line: bool = False) -> NewRun:
        """The run that *op* starts, not yet recorded; *in_line*, it gets its place in its queue."""
        return self.make_run(self.parts_here(), op, run_id=run_id, in_line=in_line)

    def make_run(self, running: Running, op: RunOp[Any], *, run_id: str | None, in_line: bool) -> NewRun:
        """As `new_run`, also in a thread of *running*."""
        return make_run(
            with_options(op),
            definitions=self.settings.definitions,
            codec=self.codec,
            allocate=running.allocate,
            now=self.clock.now(),
            places=running.places if in_line else None,
            run_id=run_id,
            carried=self.settings.carry.captured(self.codec),
        )

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        carried = self.settings.carry.captured(self.codec)
        return make_template(op, definitions=self.settings.definitions, codec=self.codec, carried=carried)

    def definition(self, workflow: str, version: int) -> RunnableDefinition[..., Any] | None:
        """The workflow or job of that name and version, if it was given to the engine."""
        return self.settings.definitions.find(workflow, version)


class StepBackend:
    """
    What a step or job asks of the engine that runs it, through `current_batch`.

    The same as from outside, but for one thing: a step may continue while its engine closes, and what
    it records then must not fail because nobody else may ask any more.
    """

    def __init__(self, engine: EngineBackend) -> None:
        self._engine = engine

    @property
    def path(self) -> str:
        """The journal's file."""
        return self._engine.path

    @property
    def codec(self) -> Codec:
        """Writes and reads values."""
        return self._engine.codec

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self._engine.clock

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """The result of a function of `reads`, called with a connection and *args*."""
        return await self._engine.parts.database.read(partial(_apply, fn, args))

    async def request(self, request: JournalRequest[R], /) -> R:
        """Have a request recorded; its result once it is on disk."""
        if not request.for_steps:
            return await self._engine.request(request)
        running = self._engine.parts
        env = Env(self.clock.now(), self.path, running.allocate)
        return await running.commits.call(lambda conn, effects: request.record(conn, effects, env))

    async def scrub(self) -> None:
        """Write the file anew, without what was deleted."""
        await self._engine.scrub()

    async def end_of(self, run_id: str, number: int = 0, /, *, wait: bool = False) -> tuple[RunRow | None, RunResult]:
        """A run and its outcome, once it has ended."""
        return await self._engine.end_of(run_id, number, wait=wait)

    async def wait_for_news(self, run_id: str, mark: str) -> None:
        """As `Backend.wait_for_news`."""
        await self._engine.wait_for_news(run_id, mark)

    async def answer_of(self, request: str, run_id: str) -> AskedRow:
        """As `Backend.answer_of`."""
        return await self._engine.answer_of(request, run_id)

    def watch(self, run_id: str) -> AsyncGenerator[Watched]:
        """As `Backend.watch`."""
        return self._engine.watch(run_id)

    def events(self, wanted: WantedEvents) -> AsyncGenerator[EngineEvent]:
        """As `Backend.events`."""
        return self._engine.events(wanted)

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished."""
        await self._engine.end_of_batch(batch_id)

    def definition(self, workflow: str, version: int) -> RunnableDefinition[..., Any] | None:
        """The workflow or job of that name and version."""
        return self._engine.definition(workflow, version)

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None, in_line: bool = False) -> NewRun:
        """The run that *op* starts. Also in the thread of a plain function."""
        return self._engine.make_run(self._engine.parts, op, run_id=run_id, in_line=in_line)

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        return self._engine.template(op)


def _apply(fn: Callable[..., T], args: tuple[Any, ...], conn: sqlite3.Connection) -> T:
    return fn(conn, *args)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


_fits: tuple[type[Host], type[Backend], type[Backend]] = (EngineBackend, EngineBackend, StepBackend)
