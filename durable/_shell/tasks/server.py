"""
The owner's ear for other processes: a Unix socket beside the file.

Mode 0600, JSON lines, one request a line, one answer a line. What a client asks is recorded
through the engine's commit groups: it is answered once it is
on disk. Where sockets cannot be made (too long a path, another platform) the engine continues
without, and says so in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import weakref
from collections.abc import Coroutine
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from durable._shell.backend import Backend
from durable._shell.log import log
from durable._shell.requests.peers import Peer, may_ask, peer_of
from durable._shell.requests.request import JournalRequest
from durable._shell.requests.sockets import address_of, socket_path
from durable._shell.requests.wire import (
    LARGE_LINE,
    LINE_BYTES,
    AskHealth,
    FollowEvents,
    ScrubFile,
    WaitForAnswer,
    WaitForEnd,
    WaitForNews,
    decode_request,
    encode_answer,
    encode_error,
)
from durable._shell.rows.engine_events import WantedEvents, to_text
from durable._shell.storage.location import give_to_owner
from durable._shell.tasks.health import Health
from durable._shell.threads import in_thread
from durable.errors import EngineClosedError

R = TypeVar("R")

#: Seconds for a line to arrive, once a client has connected or was answered, and for an answer to be taken.
LINE_SECONDS: Final = 60.0
#: Clients that are connected at once: a process has 1,024 descriptors, and more to do with them. Who finds no place
#: tries again, and reads the file meanwhile.
MOST_CLIENTS: Final = 512
#: Of them, those that wait for runs to end, or to answer. Others are told to look again in a while.
MOST_WAITING: Final = 384
LOOK_AGAIN_SECONDS: Final = 1.0
#: Bytes that are read of any line, and lines that may become longer than that at once.
_SHORT_LINE: Final = 1 << 20
_LONG_LINES: Final = 2

#: Turns of the loop until a connection that was accepted is known, and closed.
_ACCEPTING = 4


class Answering(Backend, Protocol):
    """What answers clients: an engine."""

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        ...

    async def request_of_client(self, request: JournalRequest[R], /) -> R:
        """Have a request recorded; its result once it is on disk. Also while it closes, as long as it can."""
        ...

    def health(self) -> Health:
        """How it is at the moment."""
        ...

    async def wait_for_end(self, run_id: str) -> None:
        """Return once the run called *run_id* may have ended."""
        ...

    async def wait_for_answer(self, request: str, run_id: str) -> None:
        """Return once the request of that id into the run called *run_id* may have been answered, or cannot be."""
        ...


# Those that listen. Module state, because a fork hook cannot be removed.
_listening: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """Answers clients of one engine."""

    def __init__(self, path: str, engine: Answering) -> None:
        self._journal = path
        self._path = socket_path(path)
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._bound: socket.socket | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._waiting = 0
        self._long_lines = asyncio.Semaphore(_LONG_LINES)
        self._strangers: set[int] = set()

    async def start(self) -> None:
        """Listen. The lock is held, so a socket that is there was left by a dead owner."""
        try:
            bound = _bound(self._path)
            give_to_owner(self._path, self._journal)
        except OSError as error:
            log.warning("journal.notice", path=self._path, notice=f"clients cannot connect: {error}")
        else:
            self._bound = bound
            _listening.add(self)
            self._server = await asyncio.start_unix_server(self._connected, sock=bound, limit=_SHORT_LINE)

    async def aclose(self) -> None:
        """Stop listening, and drop who is connected: they find the file free, or its next owner."""
        server, self._server = self._server, None
        if server is None:
            return
        # Nobody finds it any more, and who found it is let in first: a connection that asyncio has accepted and not
        # attached when its server is closed stays open, and mute.
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        await _turns()
        server.close()
        for task in list(self._clients):
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=1.0)
        await _turns()

    def abandon(self) -> None:
        """Close the socket, whose event loop is gone."""
        if self._bound is not None and self._server is not None:
            self._server = None
            self._bound.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def hang_up_in_child(self) -> None:
        """
        Let a forked child keep neither the ear nor the clients: they would wait for it when the owner has died.

        The objects keep their descriptors, which they close at some time: these lead nowhere from here on.
        """
        held = [self._bound, *(writer.get_extra_info("socket") for writer in self._clients.values())]
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in (each.fileno() for each in held if each is not None):
            if descriptor >= 0:
                os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        # accepted while we closed, or there is no place
        if self._server is None or len(self._clients) >= MOST_CLIENTS or not self._knows(peer):
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._clients[task] = writer

        def ended(_: object) -> None:
            del self._clients[task]
            writer.close()

        task.add_done_callback(ended)  # which is called even if it is cancelled before it begins

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await self._line(reader):
                answer = await self._answer(line, reader, writer)
                if not answer:
                    return
                writer.write(answer)
                async with asyncio.timeout(LINE_SECONDS):
                    await writer.drain()
        except (OSError, ValueError, EngineClosedError, asyncio.CancelledError):
            pass  # the client went away or sent no line, or the engine closes: there is nobody who needs an answer

    def _knows(self, peer: Peer | None) -> bool:
        """Whether *peer* may ask; who may not is told once, as is their user."""
        if peer is None or may_ask(peer):
            return True
        if peer.uid not in self._strangers and len(self._strangers) < MOST_CLIENTS:
            self._strangers.add(peer.uid)
            log.warning("client.refused", path=self._path, uid=peer.uid, pid=peer.pid)
        return False

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        """
        The next line; empty at the end, or if it takes too long. Of long ones there are few at a time.

        Raises:
            ValueError: It is longer than any request.
        """
        parts: list[bytes] = []
        try:
            async with AsyncExitStack() as held, asyncio.timeout(LINE_SECONDS) as limit:
                while True:
                    try:
                        parts.append(await reader.readuntil(b"\n"))
                        return b"".join(parts)
                    except asyncio.LimitOverrunError as error:
                        parts.append(await reader.readexactly(error.consumed))
                    if sum(map(len, parts)) > LINE_BYTES:
                        raise ValueError
                    if len(parts) == 1:
                        limit.reschedule(None)  # others are before it
                        await held.enter_async_context(self._long_lines)
                        limit.reschedule(asyncio.get_running_loop().time() + LINE_SECONDS)
        except (TimeoutError, asyncio.IncompleteReadError):
            return b""

    async def _answer(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The answer to a line; empty if there is no more to say."""
        try:
            decode = partial(decode_request, line, self._engine.path)
            asked = await in_thread(decode) if len(line) >= LARGE_LINE else decode()
            if isinstance(asked, WaitForEnd):
                await self._wait(reader, self._engine.wait_for_end(asked.run_id))
                return encode_answer(asked, None)
            if isinstance(asked, WaitForNews):
                await self._wait(reader, self._engine.wait_for_news(asked.run_id, asked.mark))
                return encode_answer(asked, None)
            if isinstance(asked, WaitForAnswer):
                await self._wait(reader, self._engine.wait_for_answer(asked.request, asked.run_id))
                return encode_answer(asked, None)
            if isinstance(asked, FollowEvents):
                await self._wait(reader, self._push(asked, writer))
                return b""
            if isinstance(asked, AskHealth):
                health = self._engine.health()
                return encode_answer(asked, [health.status, *health.reasons])
            if isinstance(asked, ScrubFile):
                await self._engine.scrub()
                return encode_answer(asked, None)
            return encode_answer(asked, await self._engine.request_of_client(asked))
        except Exception as error:
            if isinstance(error, EngineClosedError) and self._engine.is_closing:
                raise  # unless it is this: the file is free in a moment, or another's
            return encode_error(error)

    async def _push(self, asked: FollowEvents, writer: asyncio.StreamWriter) -> None:
        """Write what happens from now on; first that this is so."""
        kinds = None if asked.kinds is None else frozenset(asked.kinds)
        async with aclosing(self._engine.events(WantedEvents(asked.run_id, asked.workflow, kinds))) as events:
            writer.write(encode_answer(asked, []))
            async for event in events:
                writer.write(encode_answer(asked, [to_text(event)]))
                async with asyncio.timeout(LINE_SECONDS):
                    await writer.drain()

    async def _wait(self, reader: asyncio.StreamReader, until: Coroutine[Any, Any, None]) -> None:
        """Return once *until* has, or the client has hung up (it sends nothing meanwhile)."""
        if self._waiting >= MOST_WAITING:
            until.close()
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            return
        self._waiting += 1
        waiting: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(until),
            asyncio.ensure_future(reader.read(1)),
        }
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            self._waiting -= 1
            for each in waiting:
                each.cancel()
            # both must have ended before the next line is read: a stream has one reader at a time
            await asyncio.wait(waiting)


def _bound(path: str) -> socket.socket:
    """
    A socket at *path* that its user alone may connect to, in place of one that a dead owner left.

    Nobody can connect before it listens. The umask would give it its mode, too, but belongs to the whole process.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):
            os.fchmod(bound.fileno(), 0o600)  # the mode that Linux makes it with
        with address_of(path) as address:
            bound.bind(address)
        if os.lstat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            os.chmod(path, 0o600)
        bound.settimeout(0)
    except BaseException:
        bound.close()
        raise
    return bound


async def _turns() -> None:
    for _ in range(_ACCEPTING):
        await asyncio.sleep(0)


def _hang_up_in_child() -> None:
    for server in list(_listening):
        server.hang_up_in_child()


os.register_at_fork(after_in_child=_hang_up_in_child)
