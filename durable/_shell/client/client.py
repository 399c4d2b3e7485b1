"""
The journal from another process: everything but execution.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

from durable._core.codec.codec import Codec, ValueCodec
from durable._core.codec.value_types import ValueType
from durable._core.ports import Clock
from durable._shell.client.client_backend import TIMEOUT, ClientBackend
from durable._shell.handles.journal import JournalHandle
from durable._shell.ownership.opening import Durability
from durable._shell.rows.carried import Carried, Carry


class Client(JournalHandle[ClientBackend]):
    """
    Talks to a journal that another process executes.

    It reads the file itself. What changes something is recorded by the engine that owns the file; where none
    does, the client records it, and it is acted upon once an engine opens the file. Either way it is recorded once,
    and an engine that is closed, killed or replaced meanwhile costs no more than time.

    Args:
        path: The journal's file; it must exist.
        codec: The same hooks as the engine's.
        types: The same as the engine's.
        clock: Another clock, for tests.
        durability: As the engine's; used where the client records a request itself.
        allow_network_fs: As the engine's; used there as well.
        timeout: Seconds, up to 600, that a call waits for an owner that does not answer: then JournalAccessError says
            which process that is.
        carry: The context variables that are recorded with what it starts, as the engine's.

    Example:
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine("app.db", [welcome]) as engine:
        ...     async with Client("app.db") as client:  # of another process, in earnest
        ...         run = await client.start(welcome("ada"))
        ...         await run.result()
        'welcome, ada'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        codec: ValueCodec | None = None,
        types: Iterable[ValueType[Any]] = (),
        clock: Clock | None = None,
        durability: Durability = "full",
        allow_network_fs: bool = False,
        timeout: float = TIMEOUT,
        carry: Iterable[Carried] = (),
    ) -> None:
        super().__init__(
            ClientBackend(
                path,
                codec=Codec(codec, types=types),
                clock=clock,
                durability=durability,
                allow_network_fs=allow_network_fs,
                timeout=timeout,
                carry=Carry(carry),
            )
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """
        Open the file for reading.

        Raises:
            JournalAccessError: There is no such file, it cannot be read, or no engine has made it a journal yet.
        """
        await self._backend.open()

    async def aclose(self) -> None:
        """Close it."""
        await self._backend.aclose()
