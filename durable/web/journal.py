"""
The journal that is shown: read by connections of its own, so that no page holds up an engine; changed by requests.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import types
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import anyio.to_thread

from durable._cli.applications import Application, load_application
from durable._cli.commands.look.list import why_in_short
from durable._cli.commands.look.show import page_of
from durable._cli.journals.files import open_readonly, snapshot
from durable._core.authoring.registry import collect
from durable._core.codec.codec import Codec
from durable._core.journal.events import Event
from durable._core.program.functions import RunnableDefinition
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import STATUSES
from durable._shell.client.client import Client
from durable._shell.engine.engine import Engine
from durable._shell.engine.service import Service, engine_of
from durable._shell.handles.batch_info import batch_info
from durable._shell.handles.journal import JournalHandle, backend_of
from durable._shell.handles.schedule_handle import ScheduleInfo, info_of
from durable._shell.reads import batch_rows
from durable._shell.reads.event_rows import event_rows, readable_events
from durable._shell.reads.run_rows import (
    Filter,
    RunRow,
    limit_rows,
    list_runs,
    paused_queues,
    require_run,
    waits_of,
)
from durable._shell.reads.schedule_rows import all_schedules
from durable._shell.reports.census import queue_lines
from durable._shell.reports.exporting import load_run_history
from durable._shell.storage.memory import MEMORY
from durable._shell.tasks.health import Health
from durable.errors import BatchNotFoundError, UsageError
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

T = TypeVar("T")

#: A journal, as `dashboard` takes it.
GivenJournal: TypeAlias = "JournalHandle[Any] | str | os.PathLike[str]"
#: Whose code the debugger walks through: ``"pkg.mod"``, a module, definitions, or an engine that has them.
App: TypeAlias = (
    "str | types.ModuleType | Engine | Service | Iterable[RunnableDefinition[..., Any] | types.ModuleType] | None"
)


class Journal:
    """
    One journal, and the code of its workflows as far as it was given; a `Source`.

    Args:
        shown: An engine, a service, a client, or the path of a file.
        app: The application; by default what the engine or service executes.
    """

    #: All there are.
    pages: ClassVar[Collection[str]] = ("", "runs", "schedules", "batches", "queues", "check", "debug")
    statuses: ClassVar[Sequence[str]] = ("open", "ended", *STATUSES)
    filters: ClassVar[Sequence[str]] = FILTERS
    may_change: ClassVar[bool] = True

    def __init__(self, shown: GivenJournal, app: App = None) -> None:
        self._given = shown if isinstance(shown, JournalHandle) else None
        self.path = shown.path if isinstance(shown, JournalHandle) else os.fspath(shown)
        found: Application | None = None  # a path, or a client, knows no code
        if app is not None:
            found = application_in(app)
        elif isinstance(shown, Engine | Service):
            found = _application_of(shown)
        #: None where no code was given: then runs are shown as they are recorded, and not replayed.
        self.definitions = None if found is None else collect(found.definitions)
        #: Without the application's hooks, what they encode is shown as it stands.
        self.codec = _codec_of(shown) if found is None else found.codec
        self._application = found
        if self.path == MEMORY and self._given is None:
            msg = "a journal in memory is its engine's alone: give the engine to dashboard(), not ':memory:'"
            raise UsageError(msg)

    @property
    def name(self) -> str:
        """The file's name."""
        return os.path.basename(self.path)

    def state(self) -> str | None:
        """What changes whenever the file does, without reading it; None of a journal in memory."""
        try:
            files = [os.stat(self.path), os.stat(f"{self.path}-wal")]
        except OSError:  # no WAL, or no file: what is wrong is told by the page
            return None
        return "-".join(f"{each.st_mtime_ns:x}.{each.st_size:x}" for each in files)

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """
        What *fn* returns, called with a connection that only reads and *args*, in a thread.

        A connection for each page: it costs a millisecond, and there is nothing to close when the host ends.
        """
        if self.path == MEMORY:
            found: T = await backend_of(self._handle_given()).read(fn, *args)
            return found
        return await anyio.to_thread.run_sync(partial(_read, self.path, fn, args))

    @asynccontextmanager
    async def handle(self) -> AsyncGenerator[JournalHandle[Any]]:
        """What changes something is asked for here: the engine or client that was given, or a client for a moment."""
        if self._given is not None:
            yield self._given
            return
        async with Client(self.path) as client:
            yield client

    def health(self) -> Health | None:
        """How the engine of this process is; None where there is none."""
        return self._given.health() if isinstance(self._given, Engine | Service) else None

    def signal_type(self, name: str) -> Any:
        """What signals called *name* carry, as far as the application declares it; else None."""
        return None if self._application is None else self._application.signal_type(name)

    async def runs(self, wanted: Filter, after: int | None, now: float) -> Listed:
        return await self.read(_read_runs, wanted, after, now)

    async def run(self, run_id: str, now: float) -> RunPage:
        return await self.read(_read_run, self.path, run_id, now)

    async def events(self, run_id: str, opened: Sequence[str] = ()) -> Recorded:
        return await self.read(_read_events, self.path, run_id, opened)

    async def recorded(self, run_id: str) -> RunHistory:
        return await self.read(_read_recorded, self.path, run_id)

    async def export(self, run_id: str, *, tree: bool) -> bytes:
        with tempfile.TemporaryDirectory(prefix="durable-") as folder:
            path = Path(folder) / "run.jsonl"
            async with self.handle() as handle:
                await handle.export(run_id, path, tree=tree)
            return path.read_bytes()

    async def batches(self, after: int | None) -> BatchPage:
        rows = await self.read(batch_rows.list_batches, {}, None, after, PAGE_LENGTH + 1)
        shown = [batch_info(row, self.codec) for row in rows[:PAGE_LENGTH]]
        return BatchPage(shown, shown[-1].cursor if len(rows) > PAGE_LENGTH else None)

    async def batch(self, batch_id: str, now: float) -> OneBatch:
        return await self.read(_read_batch, batch_id, now, self.codec)

    async def schedules(self) -> list[ScheduleInfo]:
        return [info_of(row, self.codec) for row in await self.read(all_schedules)]

    async def queues(self) -> Queues:
        return await self.read(_read_queues)

    def _handle_given(self) -> JournalHandle[Any]:
        assert self._given is not None
        return self._given


def _read(path: str, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    with closing(open_readonly(path)) as conn:
        return fn(conn, *args)


def at_one_moment(fn: Callable[..., T]) -> Callable[..., T]:
    """*fn*, reading one state of the file throughout."""

    def reading(conn: sqlite3.Connection, *args: Any) -> T:
        with snapshot(conn):
            return fn(conn, *args)

    return reading


def application_in(app: Any) -> Application:
    """The application that was given for the debugger."""
    if isinstance(app, str):
        return load_application(app)
    if isinstance(app, Engine | Service):
        return _application_of(app)
    return Application("", [app] if isinstance(app, types.ModuleType) else [*app], Codec())


def _application_of(shown: Engine | Service) -> Application:
    """What it executes."""
    engine = engine_of(shown) if isinstance(shown, Service) else shown
    settings = backend_of(engine).settings
    return Application("", [*settings.definitions.all()], settings.codec)


def _codec_of(shown: GivenJournal) -> Codec:
    return backend_of(shown).codec if isinstance(shown, JournalHandle) else Codec()


# --- what is read, each of one moment ---------------------------------------------------------------------------


@at_one_moment
def _read_runs(conn: sqlite3.Connection, wanted: Filter, before: int | None, now: float) -> Listed:
    rows = list_runs(conn, wanted, before, PAGE_LENGTH + 1)
    paused = set(paused_queues(conn))
    told = [(row, why_in_short(conn, row, paused, now)) for row in rows[:PAGE_LENGTH]]
    following = rows[PAGE_LENGTH - 1].run if len(rows) > PAGE_LENGTH else None
    # Names that the latest runs have: a choice, and no promise that there are no others.
    latest = conn.execute("SELECT workflow, queue FROM durable_runs ORDER BY run DESC LIMIT 2000").fetchall()
    return Listed(told, following, *(sorted({row[column] for row in latest}) for column in (0, 1)))


def _read_run(conn: sqlite3.Connection, path: str, run_id: str, now: float) -> RunPage:
    page = page_of(conn, path, run_id, now)
    return RunPage(page, waits_of(conn, page.row.run, MOST_WAITS))


@at_one_moment
def _read_events(conn: sqlite3.Connection, path: str, run_id: str, opened: Sequence[str]) -> Recorded:
    row, events, problem = _row_and_events(conn, path, run_id)
    return Recorded(row, events, problem, {each: _row_and_events(conn, path, each)[1] for each in opened})


def _row_and_events(conn: sqlite3.Connection, path: str, run_id: str) -> tuple[RunRow, list[Event], str | None]:
    row = require_run(conn, run_id)
    events, problem = readable_events(event_rows(conn, row.run), path, row)
    return row, events, None if problem is None else str(problem)


@at_one_moment
def _read_recorded(conn: sqlite3.Connection, path: str, run_id: str) -> RunHistory:
    return load_run_history(conn, path, require_run(conn, run_id))


@at_one_moment
def _read_batch(conn: sqlite3.Connection, batch_id: str, now: float, codec: Codec) -> OneBatch:
    row = batch_rows.batch_by_id(conn, batch_id)
    if row is None:
        raise BatchNotFoundError("id", batch_id)
    waits = None if row.finished_at is not None else batch_rows.why_unfinished(conn, batch_id, now)
    return OneBatch(batch_info(row, codec), waits, list_runs(conn, Filter(batch=batch_id), None, PAGE_LENGTH))


@at_one_moment
def _read_queues(conn: sqlite3.Connection) -> Queues:
    return Queues(queue_lines(conn), limit_rows(conn, MOST_LIMITS))
