"""
`engine.dry_run`: a workflow in memory, with stand-ins for its steps, and time that jumps.

It is the engine itself that runs, over a journal in memory: what a dry run does is what a run
does. Nothing is executed but workflow code and stand-ins, and no file is touched. At the end each
workflow is replayed once, so that code which is not deterministic shows here and not in production.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from attrs import evolve, field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.ports import Clock
from durable._core.program.functions import Workflow
from durable._core.program.ops import Signal
from durable._core.program.requests import Request, name_of
from durable._core.run.execution import Execution
from durable._core.statuses import ENDS, EndStatus
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.resources import NO_RESOURCES
from durable._shell.attempts.stand_ins import StandIns
from durable._shell.engine.application_schema import NO_SCHEMA
from durable._shell.engine.backend import EngineBackend
from durable._shell.engine.settings import Allocate, Settings, counting
from durable._shell.handles.asking import put_question
from durable._shell.handles.handle import HistoryEvent, Run
from durable._shell.handles.journal import JournalHandle
from durable._shell.handles.run_info import RunInfo
from durable._shell.reads import run_rows
from durable._shell.storage.memory import MEMORY
from durable.errors import DryRunError, DurableError, RunCancelledError, RunFailedError

T = TypeVar("T")

#: Deadlines that one dry run jumps to: more are a loop without end.
MAX_JUMPS = 10_000
#: Runs of one dry run: more are a loop without end, of runs that continue as another.
MAX_RUNS = 10_000
#: Freed executions that are not replayed each time: a loop of a thousand timers takes no minutes.
KEEP_RESIDENT = 1_000

#: How a dry run ended. "waiting": only a signal could move it; "blocked": it needs a person.
DryRunStatus: TypeAlias = Literal["waiting", "blocked", EndStatus]


class SignalsToSend(Protocol):
    """
    Lists of payloads by `Signal`, or by the name of one, and of questions by `Request`: a mapping.

    A protocol, since keys of a `Mapping` are invariant: one of signals alone, or of names alone, would be none of both.
    """

    def items(self) -> Iterable[tuple[str | Signal[Any] | Request[Any, Any], Iterable[Any]]]:
        """Signals, each with its payloads."""
        ...


@late_frozen
class DryRun(Generic[T]):
    """
    What a dry run came to. Iterating over it gives its history.

    The history is that of the run itself; those of its children, of runs it continued as, and of
    follow-ups are in `children`, by run id.

    Attributes:
        status: ``succeeded``, ``failed``, ``cancelled``, ``blocked``, or ``waiting`` for what will not come.
        value: What the workflow returned, if it succeeded.
        error: What it failed with, rebuilt; a `DryRunError` if a stand-in is missing; a `RunCancelledError`
            if it was cancelled; a `NondeterminismError` if it is blocked because a replay asks for
            something else; or None.
        why: One sentence: how it ended, or what it waits for.
        run_id: The run's id.
        seconds: How far the time was moved, in seconds.
        history: Its events, in order.
        children: Events of the other runs, by run id.
    """

    status: DryRunStatus
    value: T | None
    error: Exception | None
    why: str
    run_id: str
    seconds: float
    history: list[HistoryEvent] = field(repr=False)
    children: Mapping[str, list[HistoryEvent]] = field(repr=False)

    def __iter__(self) -> Iterator[HistoryEvent]:
        return iter(self.history)


class JumpingClock:
    """A clock that stands still until it is moved to the next deadline."""

    def __init__(self, now: float) -> None:
        self.began_at = now
        self._now = now
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Epoch seconds, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the dry run began."""
        return self._now - self.began_at

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved past it."""
        until = self._now + seconds
        while self._now < until:
            await self._moved.wait()

    def jump_to(self, at: float) -> None:
        """Let the time until *at* pass."""
        self._now = max(self._now, at)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


_fits: type[Clock] = JumpingClock


@asynccontextmanager
async def rehearsing(settings: Settings, stand_ins: StandIns, *, now: float) -> AsyncGenerator[Rehearsal, None]:
    """An engine in memory, with stand-ins for steps, and time that begins *now*; what else it is like: *settings*."""
    clock = JumpingClock(now)
    engine = EngineBackend(
        evolve(
            settings,
            path=MEMORY,
            schedules={},
            keep_resident=KEEP_RESIDENT,
            keep_finished=None,
            clock=clock,
            check_on_open=False,
            standby=False,
            grace=0.0,
            hooks=Hooks((), settings.codec),
            replay_always=False,
            storage=None,
            stand_ins=stand_ins,
            resources=NO_RESOURCES,
            schema=NO_SCHEMA,
            numbering=_counting_to_an_end,
        )
    )
    await engine.open()
    try:
        yield Rehearsal(engine, clock, stand_ins, JournalHandle(engine))
    finally:
        await engine.aclose()


def _counting_to_an_end(last: int) -> Allocate:
    allocate = counting(last)

    def bounded() -> int:
        number = allocate()
        if number > MAX_RUNS:
            raise DryRunError(f"run {number:,}", "the workflow does not seem to end: each run leads to another one")
        return number

    return bounded


@light_frozen
class Rehearsal:
    """An engine in memory that is open for a dry run. Made by `rehearsing`."""

    engine: EngineBackend
    clock: JumpingClock
    stand_ins: StandIns
    #: To start runs there, or to bring some.
    journal: JournalHandle[EngineBackend]

    async def play(self, run: Run[T], signals: SignalsToSend) -> DryRun[T]:
        """
        Let *run*, and all that it leads to, continue until nothing can move it.

        Signals are delivered, and then the time moves, only while nothing is running: no
        stand-in ever loses a race against the clock.
        """
        payloads = {signal: deque(_listed(signal, values)) for signal, values in signals.items()}
        workload, journal = self.engine.require_running().workload, self.journal
        jumps = 0
        while True:
            await workload.idle()
            if await self._deliver(payloads):
                continue
            due_at = workload.next_due_at
            if due_at is None or jumps == MAX_JUMPS:
                break
            jumps += 1
            self.clock.jump_to(due_at)
        infos = [info async for info in journal.runs()]
        missing = self.stand_ins.missing
        last = await run.info()
        while last.successor is not None:
            last = await journal.get(last.successor).info()
        status, why = await self._verdict(last, infos)
        if due_at is not None and status == "waiting":
            why += f"; the dry run ended after {MAX_JUMPS:,} timers: the workflow does not seem to end"
        value: T | None = None
        error: Any = None
        if missing is not None:  # rather than what the workflow made of it: a stand-in must be given first
            status, why, error = "failed", str(missing), missing
        elif last.status in ENDS:
            try:
                value = await run.result()
            except RunFailedError as failed:
                error = failed.__cause__
            except RunCancelledError as cancelled:
                error = cancelled
        histories = {info.run_id: await journal.get(info.run_id).history() for info in reversed(infos)}
        if diverged := self._divergence(infos, histories):
            status, value, error, why = "blocked", None, diverged, str(diverged)
        history = histories.pop(run.run_id)
        return DryRun(status, value, error, why, run.run_id, self.clock.monotonic(), history, histories)

    async def _verdict(self, last: RunInfo, infos: list[RunInfo]) -> tuple[DryRunStatus, str]:
        if last.status in ENDS:
            return last.status, await self.journal.get(last.run_id).why()
        blocked = [info for info in infos if info.status == "blocked"]
        if blocked:  # it, or what it waits for
            return "blocked", await self.journal.get(blocked[-1].run_id).why()
        return "waiting", await self.journal.get(last.run_id).why()

    def _divergence(self, infos: list[RunInfo], histories: Mapping[str, list[HistoryEvent]]) -> DurableError | None:
        """What replaying all workflows finds, if they do not ask for the same again."""
        settings = self.engine.settings
        for info in reversed(infos):
            definition = settings.definitions.find(info.workflow, info.version)
            if isinstance(definition, Workflow):
                events = [each.event for each in histories[info.run_id]]
                try:
                    execution = Execution(
                        definition, events, run_id=info.run_id, codec=settings.codec, caps=settings.caps
                    )
                    execution.load()
                    execution.close()
                except DurableError as error:
                    return error
        return None

    async def _deliver(self, payloads: Mapping[str | Signal[Any] | Request[Any, Any], deque[Any]]) -> bool:
        """Give one payload to the run that waits longest for a signal of its name; False if none does."""
        for signal, left in payloads.items():
            if left and (run_id := await self.engine.read(run_rows.waiting_for_signal, name_of(signal))) is not None:
                if isinstance(signal, Request):
                    await put_question(self.engine, run_id, signal, left.popleft())
                else:
                    await self.journal.get(run_id).signal(signal, left.popleft())
                return True
        return False


def _listed(signal: str | Signal[Any] | Request[Any, Any], payloads: Any) -> Iterable[Any]:
    """The payloads of one signal. A str is iterable too, and never meant as payloads of one character."""
    if isinstance(payloads, (str, bytes, Mapping)) or not isinstance(payloads, Iterable):
        reason = f"takes a list of payloads, one for each time it is sent; found {payloads!r:.60}"
        raise DryRunError(f"signals[{name_of(signal)!r}]", reason)
    return payloads
