"""
What a client's handles ask: reads go to the file, on a read-only connection; requests to who may record them.

That is the owner, over its socket; or, where nobody owns the file, this process, for a moment. Either way,
acknowledged means recorded; and recorded once, whichever process dies before the answer arrives, since each
request has an id that is recorded with its effect.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from durable._core.authoring.op_constructors import with_options
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.ports import Clock
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp
from durable._shell.backend import Backend
from durable._shell.client.brief_owner import BriefOwner
from durable._shell.client.event_feed import EventFeed
from durable._shell.client.owner_socket import SILENCE, OwnerSocket
from durable._shell.client.waiting import Waiting
from durable._shell.clock import SystemClock
from durable._shell.loops import check_loop
from durable._shell.ownership.opening import Durability
from durable._shell.reads import batch_rows, event_rows
from durable._shell.reads.asked_rows import AskedRow, asked_row
from durable._shell.reads.run_rows import RunRow
from durable._shell.reports.watched_rows import Watched, watched_with_mark
from durable._shell.requests.once import ASKED_SECONDS, Once
from durable._shell.requests.request import JournalRequest, is_readable
from durable._shell.rows.carried import NO_CARRY, Carry
from durable._shell.rows.engine_events import EngineEvent, WantedEvents
from durable._shell.rows.new_runs import make_run, make_template
from durable._shell.rows.rows import NewRun, RunResult
from durable._shell.rows.value_caps import value_caps
from durable._shell.storage.connections import CommitUnknownError, open_reader, translate
from durable._shell.storage.copies import marks
from durable._shell.storage.copies.backups import check_wal
from durable._shell.storage.location import check_name, check_readable, check_side_files
from durable._shell.threads import Threads
from durable.errors import (
    BatchNotFoundError,
    DurableError,
    EngineClosedError,
    JournalAccessError,
    JournalLockedError,
    RunNotFoundError,
    UsageError,
)

T = TypeVar("T")
R = TypeVar("R")

#: Seconds for which an owner may be silent, or the file have one that does not listen: while it is opened or closed.
TIMEOUT: Final = 30.0
#: Seconds between two tries to reach an owner while the file changes hands.
PAUSE = 0.05
#: Seconds between two looks at a file that nobody owns, while waiting for a run to end. There
#: is nobody to tell us then; it can only end once an engine opens the file.
UNOWNED_PAUSE = 0.5
#: Seconds for which news of a run that is watched are collected: each costs the owner two looks at its file.
NEWS_PAUSE = 0.02
#: Seconds between two looks whether a batch is finished.
BATCH_PAUSE = 0.1


class ClientBackend:
    """
    A journal that another process may own. *codec* and *durability* are those of its engine, and so are *definitions*.

    Without *definitions*, whatever a start brings along is taken.

    Raises:
        UsageError: *timeout* is no time, or longer than requests are known again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        definitions: Definitions | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
        durability: Durability = "full",
        allow_network_fs: bool = False,
        timeout: float = TIMEOUT,
        carry: Carry = NO_CARRY,
    ) -> None:
        if not 0 < timeout <= ASKED_SECONDS:
            msg = f"timeout: expected seconds, more than 0 and up to {ASKED_SECONDS:g}, found {timeout!r}"
            raise UsageError(msg)
        given = os.fspath(path)
        check_name(given)
        self.path = os.path.realpath(given)
        self.codec = codec or Codec()
        self.clock: Clock = clock or SystemClock()
        self._definitions = definitions
        self._carry = carry
        self._durability: Durability = durability
        self._allow_network_fs = allow_network_fs
        self._timeout = timeout
        #: Called with each request before it is made; refuses by raising.
        self.on_request: Callable[[JournalRequest[Any]], None] = lambda _: None
        #: Whether the values of the journal are encrypted.
        self._encrypted = False
        self._reader: sqlite3.Connection | None = None
        self._started: dict[tuple[str, int], RunnableDefinition[..., Any]] = {}
        self._begin()

    def _begin(self) -> None:
        """Make what belongs to one event loop: a client may be opened again, in another."""
        self._owner = OwnerSocket(self.path, self._timeout)
        self._brief_owner = BriefOwner(self.path, self.clock, self._durability, allow_network_fs=self._allow_network_fs)
        self._reading = asyncio.Lock()
        self._waiting = Waiting()
        self._watching = Waiting()
        self._feeds: WeakSet[EventFeed] = WeakSet()

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
        check_readable(self.path)  # a few stat calls
        self._begin()
        threads = Threads(1, name="durable-client")
        try:
            self._reader, caps = await threads.call(_open_reader, self.path)
        except BaseException as error:
            threads.close()
            if isinstance(error, JournalAccessError):
                check_side_files(self.path)
            raise
        self._threads, self._loop = threads, asyncio.get_running_loop()
        if caps is not None:
            max_bytes, max_depth, self._encrypted = caps
            self.codec.take_caps(max_bytes, max_depth)

    def end_waits(self, seconds: float = 0.0) -> None:
        """
        Let nobody wait for an end of a run or batch for more than *seconds* from now: EngineClosedError.

        Who watches is told at once, since nothing that he waits for is an end of it.
        """
        now = asyncio.get_running_loop().time()  # anyio knows none in callbacks
        self._watching.end_by(now)
        self._waiting.end_by(now + seconds)

    async def aclose(self) -> None:
        """Close it. Who waits for something is told."""
        self.end_waits()
        for feed in list(self._feeds):
            feed.end()
        reader, self._reader = self._reader, None
        if reader is not None:
            await self._threads.call(reader.close)
            self._threads.close()

    # --- what is recorded -----------------------------------------------------------------------------

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """The result of a function of `reads`, called with a connection and *args*."""
        reader = self._check_open()
        async with self._reading:
            return await self._threads.call(fn, reader, *args)

    def _check_open(self) -> sqlite3.Connection:
        """The open file. Raises EngineClosedError, or WrongLoopError on another event loop than it was opened on."""
        reader = self._reader
        if reader is None:
            msg = "the client is not open: use `async with Client(...)`"
            raise EngineClosedError(msg)
        check_loop(self._loop, f"client of {self.path}", "open a Client of its own on this one: it costs little")
        return reader

    async def end_of(self, run_id: str, _number: int = 0, /, *, wait: bool = False) -> tuple[RunRow, RunResult]:
        """As `Backend.end_of`: asks the owner to say when, and the file to say what."""
        with self._waiting.without_limit():
            while True:
                row, outcome = await self.read(event_rows.outcome_of, self.path, run_id)
                if row is None:
                    raise RunNotFoundError("id", run_id)
                if outcome is not None:
                    return row, outcome
                if row.status == "blocked" and not wait:
                    return row, RunResult("blocked", None, row.reason or "")
                if not await self._owner.wait_for_end(row.run_id):
                    await asyncio.sleep(UNOWNED_PAUSE)

    async def wait_for_news(self, run_id: str, mark: str) -> None:
        """As `Backend.wait_for_news`: asks the owner to say when; where there is none, looks now and then."""
        with self._watching.without_limit():
            if not await self._owner.wait_for_news(run_id, mark):
                await asyncio.sleep(UNOWNED_PAUSE)

    async def answer_of(self, request: str, run_id: str) -> AskedRow:
        """As `Backend.answer_of`. The owner says when to look; where there is none, there is no code that answers."""
        with self._waiting.without_limit():
            while True:
                heard = await self._owner.wait_for_answer(request, run_id)
                row = await self.read(asked_row, request)
                if row is None:
                    raise RunNotFoundError("id", run_id)
                if not row.is_open:
                    return row
                run_id = row.run_id
                if not heard:
                    await asyncio.sleep(UNOWNED_PAUSE)

    async def watch(self, run_id: str) -> AsyncGenerator[Watched]:
        """As `Backend.watch`: looks at the file, and has the owner say when to look again."""
        while True:
            found = await self.read(watched_with_mark, run_id)
            if found is None:
                raise RunNotFoundError("id", run_id)
            seen, mark = found
            yield seen
            if seen.has_ended:
                return
            await self.wait_for_news(run_id, mark)
            await asyncio.sleep(NEWS_PAUSE)

    def events(self, wanted: WantedEvents) -> AsyncGenerator[EngineEvent]:
        """As `Backend.events`, see `event_feed`."""
        self._check_open()
        feed = EventFeed(self.read, self._owner, wanted, self._watching)
        self._feeds.add(feed)
        return feed.events()

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished: looks at the file now and then."""
        with self._waiting.without_limit():
            while True:
                exists, finished = await self.read(batch_rows.finish_of, batch_id)
                if not exists:
                    raise BatchNotFoundError("id", batch_id)
                if finished:
                    return
                await asyncio.sleep(BATCH_PAUSE)

    def _refuse_plain(self, recorded: Sequence[Payload]) -> None:
        if self._encrypted and any(map(is_readable, recorded)):
            msg = (
                f"the values of journal {self.path} are encrypted, and what this client was given would be recorded in "
                "plain: give it the codec (`Client(path, codec=...)`, `durable --app`)"
            )
            raise UsageError(msg)

    # --- what is to be --------------------------------------------------------------------------------

    async def request(self, request: JournalRequest[R], /) -> R:
        """Have a request recorded, by the owner or by ourselves; its result."""
        (result,) = await self.request_each([request])
        if isinstance(result, DurableError):
            raise result
        return result

    async def request_each(self, requests: Iterable[JournalRequest[R]]) -> list[R | DurableError]:
        """
        As `request`, many times: of each, in order, its result, or the `DurableError` that refused it.

        The owner records them in its commit groups. Where nobody owns the file it is taken once, for one
        transaction of them all. No engine can open it meanwhile, so give them in pages of some hundreds.

        Raises:
            UsageError: The journal is encrypted, and something of these would stand there in plain.
            JournalAccessError: The file has an owner that does not listen.
            JournalError: They could not be recorded.
        """
        self._check_open()
        requests = list(requests)
        for feed in list(self._feeds):  # its reader is to hear of what is asked for here
            await feed.begun.wait()
        for each in requests:
            self.on_request(each)
            self._refuse_plain(each.values)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        # An owner may die between its commit and its answer: what is asked again under its id is recorded once.
        every = [Once(secrets.token_hex(16), each) for each in requests]
        found: dict[int, Any] = {}
        closed: EngineClosedError | None = None
        while True:
            left = [index for index in range(len(every)) if index not in found]
            answers = await self._owner.ask_each([every[index] for index in left])
            for index, answer in zip(left, answers, strict=True):
                if isinstance(answer, EngineClosedError):  # it has failed, and keeps the file until it is closed
                    closed = answer
                elif answer is not SILENCE:
                    found[index] = answer
            left = [index for index in left if index not in found]
            if not left:
                break
            for index in left:
                self._refuse_plain(every[index].texts)
            try:
                results = await self._brief_owner.record_each([every[index] for index in left])
            except JournalLockedError as error:
                # it is being opened or closed this moment, so it is asked again instead of failing
                if loop.time() >= deadline:
                    if closed is not None:
                        raise closed from error
                    msg = f"it is owned by {error.holder}, which has not listened on its socket for {self._timeout:g} s"
                    raise JournalAccessError(self.path, msg) from error
            except CommitUnknownError:  # asked for again, it is recorded once whether that committed or not
                if loop.time() >= deadline:
                    raise
            else:
                found |= zip(left, results, strict=True)
                break
            await asyncio.sleep(PAUSE)
        return [found[index] for index in range(len(every))]

    async def scrub(self) -> None:
        """
        Have the file written anew, by its owner or by ourselves.

        Raises:
            JournalError: It could not be.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while not await self._owner.scrub():
            try:
                return await self._brief_owner.scrub()
            except JournalLockedError as error:  # it is being opened or closed this moment
                if loop.time() >= deadline:
                    msg = f"it is owned by {error.holder}, which has not listened on its socket for {self._timeout:g} s"
                    raise JournalAccessError(self.path, msg) from error
            await asyncio.sleep(PAUSE)
        return None

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None, in_line: bool = False) -> NewRun:  # noqa: ARG002
        """The run that *op* starts: the process that records it gives it its number, and its place in line."""
        made = with_options(op)
        known = self._learn(made)
        return make_run(
            made,
            definitions=known,
            codec=self.codec,
            allocate=lambda: 0,
            now=self.clock.now(),
            run_id=run_id,
            carried=self._carry.captured(self.codec),
        )

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        carried = self._carry.captured(self.codec)
        return make_template(op, definitions=self._learn(op), codec=self.codec, carried=carried)

    def definition(self, workflow: str, version: int) -> RunnableDefinition[..., Any] | None:
        """The workflow or job of that name and version, if this client was given it, or has started one."""
        definition = None if self._definitions is None else self._definitions.find(workflow, version)
        return self._started.get((workflow, version)) if definition is None else definition

    def _learn(self, op: RunOp[Any]) -> Definitions:
        """The definitions given, or those of *op* and its follow-ups, which are kept for `definition`."""
        if self._definitions is not None:
            return self._definitions
        ops = [op]
        for each in ops:
            self._started[each.definition.name, each.definition.options.version] = each.definition
            ops += each.given.then
        return Definitions(each.definition for each in ops)


def _open_reader(path: str) -> tuple[sqlite3.Connection, tuple[int, int, bool] | None]:
    """The file, and what `value_caps` says of it."""
    check_wal(path)
    connection = open_reader(path)
    try:
        marks.inspect(connection, path)
        if marks.schema_of(connection) is None:  # empty, say: its engine has made the file, and not yet its tables
            raise JournalAccessError(path, "there is no journal in it yet: an Engine makes it one")
        event_rows.last_run(connection)
        return connection, value_caps(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise translate(error, path) from error
        raise


_fits: type[Backend] = ClientBackend
