"""
Asks the process that owns a journal, over the Unix socket beside the file: one connection a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from durable._shell.requests.request import JournalRequest
from durable._shell.requests.wire import LINE_BYTES, Asked, WaitForEnd, decode_answer, encode_request, socket_path
from durable.errors import DurableError

#: Requests that an owner is asked at once: enough for it to commit them in groups, and less than a socket queues.
TOGETHER: Final = 32


class Silence(Enum):
    """Instead of an answer, where nobody listens."""

    SILENCE = "nobody listens"


SILENCE: Final = Silence.SILENCE


class OwnerSocket:
    """The owner of the journal at *path*, whichever process that is when it is asked."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def ask_each(self, requests: Sequence[JournalRequest[Any]]) -> list[Any]:
        """Of each request, in order, the owner's result or its `DurableError`; `SILENCE` where nobody listens."""
        free = asyncio.Semaphore(TOGETHER)

        async def ask(request: JournalRequest[Any]) -> Any:
            try:
                async with free:
                    answer = await self._ask(request)
                return SILENCE if answer is None else decode_answer(request, answer, self._path)
            except DurableError as error:
                return error

        return await asyncio.gather(*map(ask, requests))

    async def wait_for_end(self, run_id: str) -> bool:
        """
        Return True once the run called *run_id* may have ended; False at once if nobody listens.

        Raises:
            DurableError: The owner cannot answer.
        """
        request = WaitForEnd(run_id)
        answer = await self._ask(request)
        if answer is None:
            return False
        decode_answer(request, answer, self._path)
        return True

    async def _ask(self, request: Asked) -> bytes | None:
        """The owner's answer, or None if nobody listens."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket_path(self._path), limit=LINE_BYTES)
        except OSError:
            return None
        try:
            writer.write(encode_request(request))
            await writer.drain()
            answer = await reader.readline()
            # half of one is none: the owner died while it wrote, so another must be asked
            return answer if answer.endswith(b"\n") else None
        except OSError:
            return None
        finally:
            writer.close()
