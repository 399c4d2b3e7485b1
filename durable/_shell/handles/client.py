"""
The journal from another process: everything but execution.
"""

from __future__ import annotations

import os
from typing import Literal, Self

from durable._core.codec.codec import Codec, ValueCodec
from durable._core.ports import Clock
from durable._shell.handles.client_backend import ClientBackend
from durable._shell.handles.journal import JournalHandle


class Client(JournalHandle[ClientBackend]):
    """
    Talks to a journal that another process executes.

    It reads the file itself. What changes something is recorded by the engine that owns the file; where none
    does, the client records it, and it is acted upon once an engine opens the file.

    Args:
        path: The journal's file; it must exist.
        codec: The same hooks as the engine's.
        clock: Another clock, for tests.
        durability: As the engine's; used where the client records a request itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        codec: ValueCodec | None = None,
        clock: Clock | None = None,
        durability: Literal["full", "process"] = "full",
    ) -> None:
        super().__init__(ClientBackend(path, codec=Codec(codec), clock=clock, durability=durability))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """
        Open the file for reading.

        Raises:
            JournalAccessError: There is no such file, or it cannot be read.
        """
        await self._backend.open()

    async def aclose(self) -> None:
        """Close it."""
        await self._backend.aclose()
