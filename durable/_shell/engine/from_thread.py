"""
An engine for code outside its event loop: plain functions in threads, and other event loops.

    def view(request):                                  # a synchronous view, in a thread of its server's
        run = engine.from_thread.start(ride(42), key="ride-42")
        return run.result(timeout=10)

Each call is carried out on the engine's own loop, while the thread that made it waits. On another event loop, that
would hold up the loop: ``await asyncio.to_thread(engine.from_thread.start, op)`` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from durable._core.program.ops import RunOp, Signal
from durable._core.program.requests import Request
from durable._core.program.start_options import StartOptions
from durable._core.statuses import Status
from durable._shell.attempts.transaction import holds_writer
from durable._shell.engine.backend import EngineBackend
from durable._shell.handles.handle import Run
from durable._shell.handles.journal import JournalHandle
from durable._shell.handles.run_info import RunInfo
from durable._shell.loops import from_thread, running_loop
from durable.errors import UsageError

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
S = TypeVar("S")
P = ParamSpec("P")


class FromThread:
    """
    What `Engine.from_thread` is: the calls of an engine as plain functions, which wait for it.

    Raises of each: EngineClosedError if the engine is not open, or is closed meanwhile; UsageError where it would
    wait for itself: on the engine's loop, or in a `@transaction`.
    """

    def __init__(self, engine: JournalHandle[EngineBackend], backend: EngineBackend) -> None:
        self._engine = engine
        self._backend = backend

    def call(self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        What any asynchronous function returns or raises, on the engine's loop.

        ``engine.from_thread.call(engine.stats)``, ``engine.from_thread.call(engine.queue("mail").pause)``.
        """
        return self._wait_for(lambda: fn(*args, **kwargs))

    def _wait_for(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine that *ask* makes returns or raises, on the engine's loop."""
        home = self._backend.home()
        if running_loop() is home:
            msg = "from_thread would wait for the very event loop that it blocks: await the engine's own method here"
            raise UsageError(msg)
        if holds_writer.get():
            msg = "from_thread in a @transaction would wait for that transaction: use tx.enqueue(op), or call it later"
            raise UsageError(msg)
        return from_thread(home, ask())

    def start(self, op: RunOp[T], **options: Unpack[StartOptions]) -> RunFromThread[T]:
        """As `Engine.start`: recorded when this returns."""
        return self._found(self._wait_for(lambda: self._engine.start(op, **options)))

    def start_many(self, ops: Iterable[RunOp[T]]) -> list[RunFromThread[T]]:
        """As `Engine.start_many`."""
        return [self._found(run) for run in self.call(self._engine.start_many, ops)]

    def run(self, op: RunOp[T], **options: Unpack[StartOptions]) -> T:
        """As `Engine.run`: start a run and wait for its result."""
        return self._wait_for(lambda: self._engine.run(op, **options))

    def get(self, run_id: str) -> RunFromThread[Any]:
        """As `Engine.get`."""
        return self._found(self._engine.get(run_id))

    def find(self, key: str) -> RunFromThread[Any]:
        """As `Engine.find`."""
        return self._found(self.call(self._engine.find, key))

    def complete(self, token: str, value: Any = None) -> bool:
        """As `Engine.complete`: recorded when this returns."""
        return self.call(self._engine.complete, token, value)

    def fail(self, token: str, error: str | Exception) -> bool:
        """As `Engine.fail`: recorded when this returns."""
        return self.call(self._engine.fail, token, error)

    def heartbeat(self, token: str) -> None:
        """As `Engine.heartbeat`."""
        self.call(self._engine.heartbeat, token)

    def _found(self, run: Run[T]) -> RunFromThread[T]:
        return RunFromThread(self, run)


class RunFromThread(Generic[T]):
    """A handle on one run, as `Run`, for code outside the engine's event loop."""

    def __init__(self, engine: FromThread, run: Run[T]) -> None:
        self._engine = engine
        #: The same for the engine's own loop: ``engine.from_thread.call(run.handle.history)``.
        self.handle = run
        #: Its id.
        self.id = run.id

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.id

    def __repr__(self) -> str:
        return f"<RunFromThread {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunFromThread) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def result(self, timeout: float | None = None, *, wait: bool = False) -> T:
        """As `Run.result`: the value, once the run has ended."""
        return self._engine.call(self.handle.result, timeout, wait=wait)

    def info(self) -> RunInfo:
        """As `Run.info`."""
        return self._engine.call(self.handle.info)

    def status(self) -> Status:
        """As `Run.status`."""
        return self._engine.call(self.handle.status)

    def why(self) -> str:
        """As `Run.why`: what it waits for."""
        return self._engine.call(self.handle.why)

    @overload
    def signal(self, name: Signal[S], payload: S, *, dedup: str | None = ...) -> bool: ...
    @overload
    def signal(self, name: str, payload: Any = ..., *, dedup: str | None = ...) -> bool: ...
    def signal(self, name: str | Signal[Any], payload: Any = None, *, dedup: str | None = None) -> bool:
        """As `Run.signal`: returns when it is recorded."""

        async def send() -> bool:
            return await self.handle.signal(name, payload, dedup=dedup)

        return self._engine.call(send)

    @overload
    def ask(
        self, request: Request[Q, A], question: Q, *, timeout: float | None = ..., dedup: str | None = ...
    ) -> A: ...
    @overload
    def ask(
        self, request: str, question: Any = ..., *, timeout: float | None = ..., dedup: str | None = ...
    ) -> Any: ...
    def ask(
        self,
        request: str | Request[Any, Any],
        question: Any = None,
        *,
        timeout: float | None = None,
        dedup: str | None = None,
    ) -> Any:
        """As `Run.ask`: the answer of the workflow."""

        async def ask() -> Any:
            return await self.handle.ask(request, question, timeout=timeout, dedup=dedup)

        return self._engine.call(ask)

    def cancel(self, reason: str = "") -> bool:
        """As `Run.cancel`."""
        return self._engine.call(self.handle.cancel, reason)

    def pause(self) -> bool:
        """As `Run.pause`."""
        return self._engine.call(self.handle.pause)

    def resume(self) -> bool:
        """As `Run.resume`."""
        return self._engine.call(self.handle.resume)
