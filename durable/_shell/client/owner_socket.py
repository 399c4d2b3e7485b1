"""
Asks the process that owns a journal, over the Unix socket beside the file: one connection a request.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final, TypeAlias

from durable._core.light_tuples import NamedTuple
from durable._shell.ownership.ownership import has_owner, holder_of, owner_pid
from durable._shell.requests.peers import UNKNOWN_UID, Peer, is_process, may_answer, peer_of
from durable._shell.requests.request import JournalRequest
from durable._shell.requests.sockets import address_of, socket_path
from durable._shell.requests.wire import (
    LARGE_LINE,
    LINE_BYTES,
    Asked,
    AskHealth,
    FollowEvents,
    ScrubFile,
    WaitForAnswer,
    WaitForEnd,
    WaitForNews,
    decode_answer,
    encode_request,
    name_of,
)
from durable._shell.threads import in_thread
from durable.errors import DurableError, JournalAccessError

#: Requests that an owner is asked at once: enough for it to commit them in groups, and less than a socket queues.
TOGETHER: Final = 32
#: Seconds without an answer after which a client looks whether the file has an owner at all, doubled each time:
#: children that a killed owner forked may keep its socket, and say nothing.
LOOK_SECONDS: Final = 1.0
LONGEST_LOOK_SECONDS: Final = 8.0


#: Device, inode and time of its making: an inode is given away again.
_Identity: TypeAlias = tuple[int, int, int]


class Silence(Enum):
    """Instead of an answer, where nobody listens."""

    SILENCE = "nobody listens"


SILENCE: Final = Silence.SILENCE


class OwnerSocket:
    """The owner of the journal at *path*, whichever process that is; an answer may take *timeout* seconds."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._free = asyncio.Semaphore(TOGETHER)

    async def ask_each(self, requests: Sequence[JournalRequest[Any]]) -> list[Any]:
        """Of each request, in order, the owner's result or its `DurableError`; `SILENCE` where nobody listens."""

        async def ask(request: JournalRequest[Any]) -> Any:
            try:
                async with self._free:
                    answer = await self._ask(request)
                if answer is None:
                    return SILENCE
                decode = partial(decode_answer, request, answer, self._path)
                return await in_thread(decode) if len(answer) >= LARGE_LINE else decode()
            except DurableError as error:
                return error

        return await asyncio.gather(*map(ask, requests))

    async def wait_for_end(self, run_id: str) -> bool:
        """
        Return True once the run called *run_id* may have ended; False at once if nobody listens.

        Raises:
            DurableError: The owner cannot answer.
        """
        return await self._wait_for(WaitForEnd(run_id))

    async def wait_for_news(self, run_id: str, mark: str) -> bool:
        """As `wait_for_end`, for whatever may change."""
        return await self._wait_for(WaitForNews(run_id, mark))

    async def wait_for_answer(self, request: str, run_id: str) -> bool:
        """As `wait_for_end`, for the answer to a request into the run called *run_id*."""
        return await self._wait_for(WaitForAnswer(request, run_id))

    async def _wait_for(self, request: WaitForEnd | WaitForNews | WaitForAnswer) -> bool:
        try:
            answer = await self._answer(request)
        except TimeoutError:
            # A run takes as long as it does; but the owner that runs it must answer: at once, for a run that is none.
            request = WaitForEnd("")
            answer = await self._ask(request)
        if answer is None:
            return False
        decode_answer(request, answer, self._path)
        return True

    async def follow(self, request: FollowEvents) -> AsyncGenerator[list[str]]:
        """
        What the owner pushes, until it closes or dies; at first that it does. Nothing if nobody listens.

        Raises:
            DurableError: The owner cannot answer, or is of a release that pushes nothing.
        """
        talk = await self._connected(math.inf)
        if talk is None:
            return
        try:
            talk.writer.write(encode_request(request))
            await talk.writer.drain()
            while (line := await talk.reader.readline()).endswith(b"\n"):
                yield decode_answer(request, line, self._path)
        except OSError:
            return
        finally:
            talk.close()

    async def scrub(self) -> bool:
        """
        Return True once the owner has written the file anew; False at once if nobody listens.

        Raises:
            DurableError: It cannot, or takes too long.
        """
        answer = await self._ask(ScrubFile())
        if answer is not None:
            decode_answer(ScrubFile(), answer, self._path)
        return answer is not None

    async def health(self) -> list[str] | None:
        """
        How the owner's engine is: its status, and a sentence for each thing that is wrong; None if nobody listens.

        Raises:
            DurableError: It says nothing, or is of a release that cannot be asked that.
        """
        answer = await self._ask(AskHealth())
        told: list[str] | None = None if answer is None else decode_answer(AskHealth(), answer, self._path)
        return told

    async def _ask(self, request: Asked) -> bytes | None:
        """
        The owner's answer, or None if nobody listens.

        Raises:
            JournalAccessError: Somebody does, and says nothing.
        """
        try:
            return await self._answer(request)
        except TimeoutError:
            who = holder_of(self._path) or "an unnamed process"
            msg = (
                f"its owner ({who}) has not answered {name_of(request)} for {self._timeout:g} s. "
                "What was asked for may still be recorded: look before you ask again, or ask with an id, key or dedup"
            )
            raise JournalAccessError(self._path, msg) from None

    async def _answer(self, request: Asked) -> bytes | None:
        """As `_ask`; TimeoutError if nothing is said."""
        talk = await self._connected(self._timeout)
        if talk is None:
            return None
        answer = b""
        try:
            talk.writer.write(encode_request(request))
            await talk.writer.drain()
            answer = await talk.reader.readline()
        except OSError:
            pass
        except ValueError as error:
            msg = f"its owner answered {name_of(request)} with more than {LINE_BYTES:,} bytes"
            raise JournalAccessError(self._path, msg) from error
        finally:
            talk.close()
        if talk.patience.is_over:
            raise TimeoutError
        # half of one is none: the owner died while it wrote, so another must be asked
        return answer if answer.endswith(b"\n") else None

    async def _connected(self, seconds: float) -> _Talk | None:
        """
        A connection to the owner, hung up if it is silent for so long; None if nobody listens, or not the owner.

        Raises:
            JournalAccessError: Another user's process listens in its place.
        """
        path = socket_path(self._path)
        found = _identity(path)
        try:
            with address_of(path) as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=LINE_BYTES)
        except OSError:
            return None
        talk = _Talk(reader, writer, _Patience(self._path, found, seconds, writer.transport))
        is_owner = False
        try:
            is_owner = self._is_owner(peer_of(writer.get_extra_info("socket")))
        finally:
            if not is_owner:
                talk.close()
        return talk if is_owner else None

    def _is_owner(self, peer: Peer | None) -> bool:
        """
        Whether it is the process that the lock names that listens. Between two owners it may be the one before.

        Raises:
            JournalAccessError: It is another user's.
        """
        if peer is None:
            return True
        if peer.uid == UNKNOWN_UID:  # it hung up before the kernel could say who it was
            return False
        if not may_answer(peer, self._path):
            where = socket_path(self._path)
            msg = f"a process of user {peer.uid} ({peer.pid}) listens in place of its owner: remove {where}"
            raise JournalAccessError(self._path, msg)
        return is_process(peer, owner_pid(self._path))


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


class _Patience:
    """
    Hangs up on a socket that says nothing: after *timeout* seconds, or as soon as the file has no owner, or another.

    Which one was asked is known by its socket, *asked*: each owner makes one of its own.
    """

    def __init__(self, path: str, asked: _Identity | None, timeout: float, transport: asyncio.WriteTransport) -> None:
        self._path = path
        self._asked = asked
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + timeout
        self._pause = LOOK_SECONDS
        self._next = self._loop.call_later(min(timeout, self._pause), self._look)
        #: Whether there is an owner, and it was silent for all that time.
        self.is_over = False

    def end(self) -> None:
        """Something was said."""
        self._next.cancel()

    def _look(self) -> None:
        left = self._until - self._loop.time()
        owned = has_owner(self._path) and _identity(socket_path(self._path)) == self._asked
        if owned and left > 0:
            self._pause = min(2 * self._pause, LONGEST_LOOK_SECONDS)
            self._next = self._loop.call_later(min(left, self._pause), self._look)
        else:
            self.is_over = owned
            self._transport.abort()


class _Talk(NamedTuple):
    """A connection to an owner."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    patience: _Patience

    def close(self) -> None:
        """Hang up."""
        self.patience.end()
        self.writer.close()
