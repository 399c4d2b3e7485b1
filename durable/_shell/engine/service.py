"""
A journal for all the processes of one application: asked in each, executed in one of them.

Nothing here is new to the journal: requests and reads are those of a client, and the engine is one that stands by.
"""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Iterable
from typing import Any, Final, Self, Unpack

from durable._core.codec.codec import Codec
from durable._core.program.functions import RunnableDefinition
from durable._shell.client.client_backend import TIMEOUT, ClientBackend
from durable._shell.engine.backend import refuse_in_transaction
from durable._shell.engine.engine import Engine, EngineOptions
from durable._shell.engine.standby import Standby
from durable._shell.engine.termination import Termination
from durable._shell.handles.journal import JournalHandle, backend_of
from durable._shell.log import log
from durable._shell.loops import to_its_end
from durable._shell.storage.copies import marks
from durable._shell.storage.memory import MEMORY
from durable._shell.tasks.health import Health
from durable.errors import JournalError, JournalVersionError, UsageError

#: Seconds between two looks at a file that another process is making this moment.
_PAUSE: Final = 0.02


class Service(JournalHandle[ClientBackend]):
    """
    One journal for several processes, as the workers of a web application: all ask it, one of them executes it.

    Each process opens a service of the same file. Whatever it is asked for is done as by a `Client`; and it stands by
    to execute: one is chosen, and when that one is closed, killed or replaced, another takes over at once. Requests
    wait meanwhile, and are recorded once. Opening does not wait for that turn to come.

        async with durable.Service("rides.db", [ride]) as app:
            run = await app.start(ride(42))

    Open it where the process serves, not before it forks: in the lifespan of a web application. A server that is told
    to end (SIGTERM, SIGINT) first waits for its requests. Those that wait for the end of a run or batch then get half
    of the *grace*, and `EngineClosedError` after that; runs continue. To hear of it, the service passes the signal on
    to the handler that is there; it adds none where there is none.

    Args:
        path: The SQLite file; made (mode 0600) if missing.
        definitions: Workflows and jobs, or modules of them. Only these are started, and results are read as they say.
        timeout: Seconds, up to 600, that a call waits for an owner that does not answer, as for `Client`.
        options: Of the engine, as for `Engine`. It always stands by.

    Example:
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Service("app.db", [welcome]) as service:
        ...     await service.run(welcome("ada"))
        'welcome, ada'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        definitions: Iterable[RunnableDefinition[..., Any] | types.ModuleType],
        *,
        timeout: float = TIMEOUT,
        **options: Unpack[EngineOptions],
    ) -> None:
        if os.fspath(path) == MEMORY:
            msg = "a journal in memory has no other processes: use Engine, or give a service the path of a file"
            raise UsageError(msg)
        if (value_types := options.get("types")) is not None:
            options["types"] = value_types = tuple(value_types)
        self._engine = Engine(path, definitions, standby=True, **options)
        settings = backend_of(self._engine).settings
        super().__init__(
            ClientBackend(
                path,
                definitions=settings.definitions,
                # of its own: it takes over the caps of the process that executes the file
                codec=Codec(settings.codec.hooks, types=value_types or ()),
                clock=settings.clock,
                durability=settings.durability,
                allow_network_fs=settings.allow_network_fs,
                timeout=timeout,
                carry=settings.carry,
            )
        )
        self._backend.on_request = refuse_in_transaction  # it may be our own engine that is to record it
        self._timeout = timeout
        self._grace = settings.grace
        self._standby: Standby | None = None
        self._termination: Termination | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def is_executing(self) -> bool:
        """Whether it is this process that executes the journal at the moment."""
        return self._standby is not None and self._standby.is_executing

    def health(self) -> Health:
        """
        How this process is, at once: as its engine while it executes, and healthy while another process does.

        Degraded while it can do neither, and tries again. It may answer requests all the while.
        """
        standby = self._standby
        return Health("closed", ("it was closed, or never opened",)) if standby is None else standby.health()

    async def open(self) -> None:
        """
        Stand by to execute the journal, and return once it can be asked. A closed service may be opened again.

        Raises:
            JournalVersionError, ForeignJournalError: It is not ours to open.
            JournalAccessError, JournalFullError, JournalIOError, JournalDamagedError: It cannot be opened.
            UsageError: It is open already.
        """
        if self._standby is not None:
            msg = f"the service of {self.path} is open, or about to be: close it before it is opened again"
            raise UsageError(msg)
        self._standby = Standby(backend_of(self._engine))
        try:
            await self._open_client(self._standby)
        except BaseException:
            await self.aclose()
            raise
        self._termination = Termination(self._end_waits)

    async def aclose(self) -> None:
        """
        Close it. If this process executes the journal, its engine drains, and another process takes over.

        Bounded, idempotent; may be called from any task of the loop. It is closed when this returns, also to a caller
        who was cancelled.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="durable-service-close")
        await to_its_end(self._closing)

    async def _open_client(self, standby: Standby) -> None:
        """Open the file for reading: at once if it is a journal, or else as soon as who executes it has made it one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            await standby.tried()
            being_made = standby.is_waiting and loop.time() < deadline  # maybe: its owner has the lock before a file
            try:
                await self._backend.open()
                await self._backend.read(marks.require_journal, self.path)
            except JournalError as error:
                await self._backend.aclose()
                if isinstance(error, JournalVersionError) or not being_made:
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE)

    async def _close(self) -> None:
        standby, self._standby = self._standby, None
        termination, self._termination = self._termination, None
        try:
            if termination is not None:
                termination.close()
            self._backend.end_waits()
            if standby is not None:
                await standby.aclose()
        finally:
            await self._backend.aclose()
            self._closing = None

    def _end_waits(self) -> None:
        log.info("service.ending", path=self.path)
        self._backend.end_waits(self._grace / 2)


def engine_of(service: Service) -> Engine:
    """The engine that a service executes its journal with: for other rooms of this package, and not for users."""
    return service._engine  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the one door to it
