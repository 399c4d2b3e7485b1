"""
The journal that is shown: read by connections of its own, so that no page holds up an engine; changed by requests.
"""

from __future__ import annotations

import os
import sqlite3
import types
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, TypeAlias, TypeVar

import anyio.to_thread

from durable._cli.applications import Application, load_application
from durable._cli.journals.files import open_readonly, snapshot
from durable._core.authoring.registry import collect
from durable._core.codec.codec import Codec, Payload
from durable._core.program.functions import RunnableDefinition
from durable._shell.client.client import Client
from durable._shell.engine.engine import Engine
from durable._shell.engine.service import Service, engine_of
from durable._shell.handles.journal import JournalHandle, backend_of
from durable._shell.storage.memory import MEMORY
from durable._shell.tasks.health import Health
from durable.errors import DurableError, UsageError

T = TypeVar("T")

#: What a dashboard may be of.
Shown: TypeAlias = "JournalHandle[Any] | str | os.PathLike[str]"
#: Whose code the debugger walks through: ``"pkg.mod"``, a module, definitions, or an engine that has them.
App: TypeAlias = (
    "str | types.ModuleType | Engine | Service | Iterable[RunnableDefinition[..., Any] | types.ModuleType] | None"
)


class Journal:
    """
    One journal, and the code of its workflows as far as it was given.

    Args:
        shown: An engine, a service, a client, or the path of a file.
        app: The application; by default what the engine or service executes.
    """

    def __init__(self, shown: Shown, app: App = None) -> None:
        self._given = shown if isinstance(shown, JournalHandle) else None
        self.path = shown.path if isinstance(shown, JournalHandle) else os.fspath(shown)
        found = _application_of(shown) if app is None else _application(app)
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

    def text_of(self, payload: Payload | None) -> Payload | None:
        """A recorded value as JSON text; as it is where the codec of the application is not known, or refuses it."""
        if not isinstance(payload, bytes):
            return payload
        try:
            return Codec().dump_plain(self.codec.load_plain(payload))
        except DurableError:
            return payload

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


def _application(app: Any) -> Application:
    """The application that was given for the debugger."""
    if isinstance(app, str):
        return load_application(app)
    if isinstance(app, Engine | Service):
        found = _application_of(app)
        assert found is not None
        return found
    return Application("", [app] if isinstance(app, types.ModuleType) else [*app], Codec())


def _application_of(shown: Shown) -> Application | None:
    """What an engine or service executes; None for a path, or a client, which know no code."""
    engine = engine_of(shown) if isinstance(shown, Service) else shown
    if not isinstance(engine, Engine):
        return None
    settings = backend_of(engine).settings
    return Application("", [*settings.definitions.all()], settings.codec)


def _codec_of(shown: Shown) -> Codec:
    return backend_of(shown).codec if isinstance(shown, JournalHandle) else Codec()
