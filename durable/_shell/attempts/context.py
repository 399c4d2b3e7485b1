"""
What a step or job may ask while it runs: `context()`, `cursor()`, `memo()`, `resource()`; and `snooze()`.

The scope of an attempt is a context variable, set in the attempt's own copied context: it
reaches threads, and what the attempt awaits, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast

from attrs import field

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.signatures import result_type
from durable._core.light_frozen import late_frozen, light_define, light_frozen
from durable._core.program.definition import check_name
from durable._core.program.saying import ROOM, Speaker, speaker
from durable._core.run.decision import entered
from durable._shell.attempts.resources import NO_RESOURCES, Resources
from durable._shell.backend import Backend
from durable._shell.loops import from_thread
from durable.errors import Snooze, UsageError

#: Ids derived from a step's beyond this length are made of a digest instead.
LONGEST_DERIVED = 120

T = TypeVar("T")
P = ParamSpec("P")


def _never() -> bool:
    return False


class Cancelled:
    """
    Whether an attempt is to end: as a `threading.Event` that is only ever looked at.

    Set when the attempt has timed out, is cancelled, or its engine closes. Plain functions, which cannot be cut off, do
    well to ask it between two parts of a long work.
    """

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether it is to end."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is to end, or for *timeout* seconds; whether it is to end."""
        with _making:
            event = self._event
            if event is None:
                event = self._event = threading.Event()
            if self._is_set:
                event.set()
        return event.wait(timeout)

    def _set(self) -> None:
        with _making:
            self._is_set = True
            if self._event is not None:
                self._event.set()


_making = threading.Lock()
#: Tells an attempt that it is to end.
tell: Callable[[Cancelled], None] = Cancelled._set  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # ours to call, and nobody else's


@late_frozen
class StepContext:
    """
    Where a step's code stands.

    Example:
        >>> @job(retry=3)
        ... async def charge(cents: int) -> str:
        ...     return f"{cents}, attempt {context().attempt}"  # `idempotency_key` is for the other side
        >>> async with Engine(":memory:", [charge]) as engine:
        ...     await engine.run(charge(500))
        '500, attempt 1'
    """

    run_id: str
    workflow: str
    #: Of the step in its run; "0" in a job.
    position: str
    #: Counted from 1; interrupted attempts count too.
    attempt: int
    #: The same for all attempts of this step: give it to whatever the step calls.
    idempotency_key: str
    #: When this attempt times out, epoch seconds UTC; None if never.
    deadline: float | None
    labels: Mapping[str, str]
    #: Id of the batch that its run is a member of, or a callback of.
    batch: str | None = None
    #: Whether the attempt is to end: for plain functions, which cannot be cut off.
    cancelled: Cancelled = field(factory=Cancelled, repr=False, eq=False)
    _is_draining: Callable[[], bool] = field(default=_never, repr=False, eq=False)

    @property
    def draining(self) -> bool:
        """Whether its engine closes: the step has the rest of `Engine(grace=)`, and does well to keep its progress."""
        return self._is_draining()


class Notes(Protocol):
    """Where cursors and memos are kept."""

    async def keep(self, position: str, name: str, value: Payload) -> None:
        """Record; returns once it is on disk."""
        ...

    def emit(
        self, about: StepContext, emitted: EmittedSoFar, stream: str, value: Any, *, sync: bool
    ) -> Awaitable[None]:
        """Write an item that an attempt emits, with the next commit."""
        ...

    def progress(self, about: StepContext, done: float, total: float | None, note: str) -> None:
        """Write how far the run has come, with the next commit."""
        ...

    def publish(self, about: StepContext, values: dict[str, Any]) -> None:
        """Write attributes, with the next commit."""
        ...


@light_define
class EmittedSoFar:
    """What an attempt has emitted."""

    items: int = 0
    #: What it was given to await with the latest.
    last: Awaitable[None] = ROOM


class BatchesElsewhere(ABC):
    """What another engine than ours, which has no journal, says to `current_batch`."""

    @abstractmethod
    def batch_of(self, scope: Scope, /) -> Any:
        """Its batch, of which the run of *scope* is a member or callback."""


@light_frozen
class Surroundings:
    """What all attempts of an engine have around them: one object, which each of them refers to."""

    #: Where to ask about batches.
    backend: Backend | BatchesElsewhere | None = None
    #: That of the engine: for what is asked in a thread.
    loop: asyncio.AbstractEventLoop | None = None
    #: What the engine was given to share.
    resources: Resources = NO_RESOURCES
    is_draining: Callable[[], bool] = _never


#: Around what no engine runs.
_ALONE: Final = Surroundings()


class Scope:
    """One running attempt, as its function sees it."""

    __slots__ = (
        "_context",
        "_counts",
        "adding",
        "around",
        "batches",
        "codec",
        "cursor",
        "emitted",
        "is_over",
        "left",
        "notes",
    )

    def __init__(
        self,
        codec: Codec,
        notes: Notes,
        left: dict[str, Payload],
        batches: tuple[str, ...] = (),
        around: Surroundings = _ALONE,
        context: StepContext | None = None,
    ) -> None:
        self.codec = codec
        self.notes = notes
        #: What earlier attempts left, by name.
        self.left = left
        #: Ids of its run's batch, and of those around that.
        self.batches = batches
        self.around = around
        self.cursor: Cursor[Any] | None = None
        self.emitted: EmittedSoFar | None = None
        #: Members being added that nobody has awaited yet.
        self.adding: tuple[asyncio.Future[None], ...] = ()
        #: Set once the attempt is over: what still runs of it, in a thread, leaves no effect.
        self.is_over = False
        self._counts: dict[str, int] | None = None
        #: Made when it is asked for, which few attempts do.
        self._context = context

    @property
    def context(self) -> StepContext:
        """Where the attempt stands."""
        found = self._context
        if found is None:
            found = self._context = self._describe()
        return found

    def _describe(self) -> StepContext:
        raise NotImplementedError  # pragma: no cover - who gives no context can make one

    def check(self) -> None:
        """
        Nothing, while the attempt is running.

        Raises:
            UsageError: It is over.
        """
        if self.is_over:
            about = self.context
            msg = (
                f"attempt {about.attempt} of the step at {about.position} of run {about.run_id!r} is over (it timed "
                "out, was cancelled, or its engine was closed), so nothing is recorded for it: see context().cancelled"
            )
            raise UsageError(msg)

    def emit(self, stream: str, value: Any, *, sync: bool) -> Awaitable[None]:
        """As `durable.emit`."""
        self.check()
        if self.emitted is None:
            self.emitted = EmittedSoFar()
        return self.notes.emit(self.context, self.emitted, stream, value, sync=sync)

    def progress(self, done: float, total: float | None, note: str) -> None:
        """As `durable.progress`."""
        self.check()
        self.notes.progress(self.context, done, total, note)

    def set_attributes(self, values: dict[str, Any]) -> None:
        """As `durable.set_attributes`."""
        self.check()
        self.notes.publish(self.context, values)

    def next_id(self, kind: str) -> str:
        """An id for the next run or batch that this attempt makes: the same in every attempt."""
        self.check()
        number = self.count(f"id:{kind}")
        made = f"{self.context.idempotency_key}:{kind}.{number}"
        if len(made) <= LONGEST_DERIVED:
            return made
        # Members that add members, and callbacks that add batches, may do so for ever.
        return f"{kind}-{hashlib.blake2b(made.encode(), digest_size=16).hexdigest()}"

    def count(self, name: str) -> int:
        """How often *name* was counted before: a memo of that name, an id of that kind."""
        if self._counts is None:
            self._counts = {}
        before = self._counts.get(name, 0)
        self._counts[name] = before + 1
        return before

    def on_loop(self, asked: Coroutine[Any, Any, T]) -> T:
        """What *asked* returns, for a plain function in its thread: it runs on the engine's loop."""
        loop = self.around.loop
        assert loop is not None, "an engine's attempts know it"
        return from_thread(loop, asked)

    async def settle(self) -> None:
        """Wait until all that was added is recorded, or refused."""
        if self.adding:
            await asyncio.wait(self.adding)
            for each in self.adding:
                each.exception()  # looked at, lest asyncio logs it as lost where the step's own error hides it

    def raise_refused(self) -> None:
        """Raise the error of a member that was added, not awaited, and refused."""
        for each in self.adding:
            each.result()


#: The same variable as that of `saying`, which knows no more of an attempt than it needs.
_scope: ContextVar[Scope | None] = cast("ContextVar[Scope | None]", speaker)
#: Makes a scope that of the current task's context.
enter = _scope.set


def scope_here() -> Scope | None:
    """The attempt that asks, if one does."""
    return _scope.get()


def _require(what: str) -> Scope:
    scope = _scope.get()
    if scope is None:
        msg = f"{what} works while a step or job of an engine runs, and nothing of that kind does here"
        raise UsageError(msg)
    return scope


def context() -> StepContext:
    """
    The run, position, attempt and idempotency key of the step or job that asks.

    Example:
        >>> @job(retry=3)
        ... async def charge(cents: int) -> str:
        ...     return f"{cents}, attempt {context().attempt}"  # `idempotency_key` is for the other side
        >>> async with Engine(":memory:", [charge]) as engine:
        ...     await engine.run(charge(500))
        '500, attempt 1'
    """
    return _require("context()").context


def resource(kind: type[T]) -> T:
    """
    The resource of type *kind* that the engine was given (`Engine(resources=)`), for the step or job that asks.

    Raises:
        ResourceNotFoundError: It was given none of that type, or several.
        UsageError: No step or job asks; or it runs in a process of its own, which shares no objects.

    Example:
        >>> @dataclass
        ... class Prices:
        ...     tea: int
        >>> @job
        ... async def price() -> int:
        ...     return resource(Prices).tea
        >>> async with Engine(":memory:", [price], resources=[Prices(tea=3)]) as engine:
        ...     await engine.run(price())
        3
    """
    scope = _require("resource()")

    def asked_by() -> str:
        about = scope.context
        return f"the step at {about.position} of run {about.run_id!r} ({about.workflow})"

    return scope.around.resources.get(kind, asked_by)


async def snooze(seconds: float | timedelta, message: str = "") -> NoReturn:
    """
    End this attempt, and have the step or job that asks called again in *seconds*: as ``raise Snooze(seconds)``.

    It begins anew then, and it uses up no attempt of its retry policy. *message* is for people, and recorded.

    Raises:
        UsageError: No step or job asks. In a workflow there is `durable.sleep`.

    Example:
        >>> @job
        ... async def deliver(parcel: str) -> str:
        ...     if not cursor(False).value:
        ...         await cursor().advance(True)
        ...         await snooze(0)  # too early: called again later, which costs no attempt
        ...     return f"delivered {parcel}"
        >>> async with Engine(":memory:", [deliver]) as engine:
        ...     await engine.run(deliver("tea"))
        'delivered tea'
    """
    _require("snooze()")
    raise Snooze(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds, message)


class Cursor(Generic[T]):
    """
    How far a long loop has come: kept across attempts, crashes and restarts.

    Dropped when the step succeeds.
    """

    def __init__(self, scope: Scope, start: T) -> None:
        self._scope = scope
        self._unsaved = 0
        kept = scope.left.get("cursor")
        #: Where to continue.
        self.value: T = start if kept is None else scope.codec.decode(kept, where="a cursor")

    async def advance(self, value: T, *, every: int = 1) -> None:
        """
        Move to *value*; recorded before it returns.

        With ``every=N`` only each Nth move is recorded: up to N - 1 of them repeat after a crash.
        """
        if every < 1:
            msg = f"every counts moves, so it must be at least 1, found {every!r}"
            raise ValueError(msg)
        scope = self._scope
        payload = scope.codec.encode(value, where=f"the cursor of step at {scope.context.position}")
        self.value = value
        self._unsaved += 1
        if self._unsaved >= every:
            await self._save(payload)

    async def save(self) -> None:
        """Record a value that ``every=N`` has held back."""
        if self._unsaved:
            await self._save(self._scope.codec.encode(self.value, where="a cursor"))

    async def _save(self, payload: Payload) -> None:
        self._scope.check()
        self._unsaved = 0
        self._scope.left = entered(self._scope.left, "cursor", payload)
        await self._scope.notes.keep(self._scope.context.position, "cursor", payload)


def cursor(start: T = None) -> Cursor[T]:  # type: ignore[assignment]  # without a start, T is None-able
    """
    The cursor of the step or job that asks, at *start* if none was recorded.

    One per step; recorded under `Any`, so values of the standard library come back as themselves.

    Example:
        >>> @job
        ... async def load(items: list[str]) -> int:
        ...     done = cursor(0)
        ...     for number in range(done.value, len(items)):
        ...         await done.advance(number + 1)  # on disk when this returns: a crash resumes here
        ...     return done.value
        >>> async with Engine(":memory:", [load]) as engine:
        ...     await engine.run(load(["tea", "salt"]))
        2
    """
    scope = _require("cursor()")
    if scope.cursor is None:
        scope.cursor = Cursor(scope, start)
    return scope.cursor


async def memo(name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """
    The result of ``await fn(*args, **kwargs)``, recorded at once under this step and *name*.

    When the step runs again after a crash or a failed attempt, finished memos answer from the
    journal. The nth use of a name in an attempt is the nth use in every attempt.

    Example:
        >>> async def ask(question: str) -> str:
        ...     return question.upper()
        >>> @job(retry=3)
        ... async def research(topic: str) -> str:
        ...     plan = await memo("plan", ask, topic)  # asked once, however often this function runs
        ...     return await memo("answer", ask, plan + "!")
        >>> async with Engine(":memory:", [research]) as engine:
        ...     await engine.run(research("tea"))
        'TEA!'
    """
    scope = _require("memo()")
    check_name("the name of a memo", name)
    used = f"memo:{name}"
    key = f"{used}:{scope.count(used) + 1}"
    where = f"memo {name!r} of step at {scope.context.position}"
    kind = result_type(fn)
    kept = scope.left.get(key)
    scope.check()
    if kept is None:
        kept = scope.codec.encode(await fn(*args, **kwargs), kind, where=where)
        scope.check()
        scope.left = entered(scope.left, key, kept)
        await scope.notes.keep(scope.context.position, key, kept)
    found: T = scope.codec.decode(kept, kind, where=where)
    return found


_fits: type[Speaker] = Scope
