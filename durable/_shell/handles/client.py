"""
The journal from another process: everything but execution.

Reads go straight to the file, on a read-only connection. What changes something goes to the
owner over its socket; where nobody owns the file, the client becomes its owner for a moment
and records the request itself. Either way, acknowledged means recorded.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, TypeVar

from attrs import evolve

from durable._core.codec.codec import Codec, ValueCodec
from durable._core.ports import Clock
from durable._core.program.op_constructors import with_options
from durable._core.program.ops import RunOp
from durable._core.program.registry import Definitions
from durable._shell.backend import Backend
from durable._shell.clock import SystemClock
from durable._shell.handles.finding import Finding
from durable._shell.handles.handle import Run
from durable._shell.reads import batch_rows, event_rows
from durable._shell.reads.run_rows import RunRow
from durable._shell.requests.request import Env, Request
from durable._shell.requests.run_requests import SendSignal, StartRuns
from durable._shell.requests.wire import LINE_BYTES, Asked, WaitForEnd, decode_answer, encode_request, socket_path
from durable._shell.rows.new_runs import make_run, make_template
from durable._shell.rows.rows import Effects, NewRun, Outcome
from durable._shell.storage import marks, schema
from durable._shell.storage.database import Database
from durable._shell.storage.ownership import Ownership
from durable.errors import (
    BatchNotFoundError,
    DurableError,
    EngineClosedError,
    JournalAccessError,
    JournalLockedError,
    RunNotFoundError,
)

T = TypeVar("T")
R = TypeVar("R")

#: Tries to reach the owner while the file changes hands, and seconds between two of them.
TRIES = 40
PAUSE = 0.05
#: Requests that an owner is asked at once: enough for it to commit them in groups, and less than a socket queues.
TOGETHER = 32
#: Instead of an answer, where nobody listens.
_SILENCE = object()
#: Seconds between two looks at a file that nobody owns, while waiting for a run to end. There
#: is nobody to tell us then; it can only end once an engine opens the file.
UNOWNED_PAUSE = 0.5
#: Seconds between two looks whether a batch is finished.
BATCH_PAUSE = 0.1


class Client(Finding):
    """
    Talks to a journal that another process executes.

    Args:
        path: The journal's file; it must exist.
        codec: The same hooks as the engine's.
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
        self.path = os.path.realpath(os.fspath(path))
        self.codec = Codec(codec)
        self.clock: Clock = clock or SystemClock()
        self._durability: Literal["full", "process"] = durability
        self._reader: sqlite3.Connection | None = None
        self._reading = asyncio.Lock()
        self._types: dict[tuple[str, int], Any] = {}

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
        if not os.path.exists(self.path):  # noqa: ASYNC240 - one stat
            raise JournalAccessError(self.path, "no such file: an Engine makes it")
        self._reader = await asyncio.to_thread(_open_reader, self.path)

    async def aclose(self) -> None:
        """Close it."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.to_thread(reader.close)

    async def start(self, op: RunOp[T], **options: Any) -> Run[T]:
        """As `Engine.start`: recorded when this returns; it is executed once an engine owns the file."""
        (run,) = await self.start_many([with_options(op, **options)])
        return run

    async def start_many(self, ops: Iterable[RunOp[T]]) -> list[Run[T]]:
        """As `Engine.start_many`."""
        made = list(ops)
        now = self.clock.now()
        runs = []
        for op in made:
            known = self._learn(op)
            runs.append(make_run(with_options(op), definitions=known, codec=self.codec, allocate=lambda: 0, now=now))
        ids = await self.request(StartRuns(tuple(runs)))
        return [Run(self, run_id, op.definition.result) for run_id, op in zip(ids, made, strict=True)]

    async def run(self, op: RunOp[T], **options: Any) -> T:
        """Start a run and wait for its result."""
        handle = await self.start(op, **options)
        return await handle.result()

    # --- the Backend protocol -----------------------------------------------------------------------

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of a function of `event_rows`."""
        reader = self._reader
        if reader is None:
            msg = "the client is not open: use `async with Client(...)`"
            raise EngineClosedError(msg)
        async with self._reading:
            return await asyncio.to_thread(fn, reader, *args)

    async def request(self, request: Request[R]) -> R:
        """Have a request recorded, by the owner or by ourselves; its result."""
        (result,) = await self.request_each([request])
        if isinstance(result, DurableError):
            raise result
        return result

    async def request_each(self, requests: Iterable[Request[R]]) -> list[R | DurableError]:
        """
        As `request`, many times: of each, in order, its result, or the `DurableError` that refused it.

        The owner records them in its commit groups. Where nobody owns the file it is taken once, for one
        transaction of them all. No engine can open it meanwhile, so give them in pages of some hundreds.
        """
        every: list[Request[Any]] = list(requests)
        found: dict[int, Any] = {}
        unnamed: list[int] = []
        for index, each in enumerate(every):
            # An owner may die between its commit and its answer: asked again, a signal counts once.
            if isinstance(each, SendSignal) and each.dedup is None:
                every[index] = evolve(each, dedup=f"client {secrets.token_hex(8)}")
                unnamed.append(index)
        for _ in range(TRIES):
            left = [index for index in range(len(every)) if index not in found]
            answers = await self._ask_each([every[index] for index in left])
            found |= {index: answer for index, answer in zip(left, answers, strict=True) if answer is not _SILENCE}
            left = [index for index in left if index not in found]
            if not left:
                break
            try:
                ownership = Ownership.acquire(self.path)
            except JournalLockedError:
                await asyncio.sleep(PAUSE)  # it is being opened or closed this moment
                continue
            try:
                results = await self._record([every[index] for index in left])
            finally:
                ownership.release()
            found |= zip(left, results, strict=True)
            break
        else:
            raise JournalAccessError(self.path, "it is owned by a process that does not answer on its socket")
        # False would tell of a dedup that the caller never gave: it was accepted, the first time.
        found |= {index: True for index in unnamed if found[index] is False}
        return [found[index] for index in range(len(every))]

    async def _ask_each(self, requests: list[Request[Any]]) -> list[Any]:
        """The owner's results, or errors; `_SILENCE` where nobody listens."""
        free = asyncio.Semaphore(TOGETHER)

        async def ask(request: Request[Any]) -> Any:
            try:
                async with free:
                    answer = await self._ask(request)
                return _SILENCE if answer is None else decode_answer(request, answer, self.path)
            except DurableError as error:
                return error

        return await asyncio.gather(*map(ask, requests))

    async def _ask(self, request: Asked) -> bytes | None:
        """The owner's answer, or None if nobody listens."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket_path(self.path), limit=LINE_BYTES)
        except OSError:
            return None
        try:
            writer.write(encode_request(request))
            await writer.drain()
            answer = await reader.readline()
            return answer if answer.endswith(b"\n") else None  # half of one: it died while it wrote
        except OSError:
            return None
        finally:
            writer.close()

    async def _record(self, requests: list[Request[Any]]) -> list[Any]:
        """Record requests as the owner of the moment, in one transaction. The next engine finds them in the file."""
        database = await Database.open(
            self.path,
            durability=self._durability,
            inspect=lambda conn: marks.inspect(conn, self.path),
            prepare=lambda conn: schema.prepare(conn, self.clock.now()),
        )
        env = Env(self.clock.now(), self.path)
        try:
            return await database.write(lambda conn: _each_recorded(conn, requests, env))
        finally:
            await database.aclose()

    async def end_of(self, run_id: str, _number: int = 0, /) -> tuple[RunRow, Outcome]:
        """As `Engine.end_of`: asks the owner to say when, and the file to say what."""
        while True:
            row, outcome = await self.read(event_rows.outcome_of, self.path, run_id)
            if row is None:
                raise RunNotFoundError("id", run_id)
            if outcome is not None:
                return row, outcome
            await self._wait_for_end(row.run_id)

    async def _wait_for_end(self, run_id: str) -> None:
        request = WaitForEnd(run_id)
        answer = await self._ask(request)
        if answer is None:
            await asyncio.sleep(UNOWNED_PAUSE)
        else:
            decode_answer(request, answer, self.path)

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished: looks at the file now and then."""
        while True:
            exists, finished = await self.read(batch_rows.finish_of, batch_id)
            if not exists:
                raise BatchNotFoundError("id", batch_id)
            if finished:
                return
            await asyncio.sleep(BATCH_PAUSE)

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None) -> NewRun:
        """The run that *op* starts, to be numbered by whoever records it."""
        made = with_options(op)
        known = self._learn(made)
        return make_run(
            made, definitions=known, codec=self.codec, allocate=lambda: 0, now=self.clock.now(), run_id=run_id
        )

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        return make_template(op, definitions=self._learn(op), codec=self.codec)

    def _learn(self, op: RunOp[Any]) -> Definitions:
        """The definitions of *op* and its follow-ups; what they return is kept for `result_type`."""
        ops = [op]
        for each in ops:
            self._types[each.definition.name, each.definition.options.version] = each.definition.result
            ops += each.given.then
        return Definitions(each.definition for each in ops)

    def result_type(self, workflow: str, version: int) -> Any:
        """What a workflow returns, as far as this client has started one."""
        return self._types.get((workflow, version), Any)


def _each_recorded(conn: sqlite3.Connection, requests: list[Request[Any]], env: Env) -> list[Any]:
    """The results of requests, each recorded whole or not at all; the error of one that was refused."""
    results: list[Any] = []
    for request in requests:
        conn.execute("SAVEPOINT durable_request")
        try:
            results.append(request.record(conn, Effects(), env))
        except DurableError as error:
            conn.execute("ROLLBACK TO durable_request")
            results.append(error)
        conn.execute("RELEASE durable_request")
    return results


def _open_reader(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA busy_timeout = 5000")
        marks.inspect(connection, path)
        event_rows.last_run(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise JournalAccessError(path, str(error)) from error
        raise
    return connection


_fits: Callable[[Client], Backend] = lambda client: client  # noqa: E731 - mypy proves it where it stands
