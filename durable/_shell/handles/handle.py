"""
What callers hold: `Run`, `QueueHandle`, `LimitHandle`.

A handle is an id and a way to ask; it holds nothing of the run itself, so it may be kept, made
again from the id, and used when the run has long ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

import anyio
from attrs import field

from durable._core.admission import Queue
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.events import KIND_NAMES, Event, GroupOpened, TimerSet
from durable._core.journal.payloads import encoded_signal, failure_in, failure_payload, rebuilt
from durable._core.light_frozen import late_frozen
from durable._core.policies.limits import Rate
from durable._core.program.ops import Signal, in_seconds
from durable._core.program.requests import Request
from durable._core.recorded.steps import RecordedStep, recorded_steps
from durable._core.statuses import Status
from durable._shell.attempts.functions import journal_key, outlived
from durable._shell.backend import Backend
from durable._shell.handles.asking import ask
from durable._shell.handles.queries import RunView, ask_journal
from durable._shell.handles.run_info import RunInfo, all_infos, info_from
from durable._shell.handles.step_arguments import arguments_of_steps
from durable._shell.handles.step_info import StepInfo, step_info
from durable._shell.handles.stream import RunStream
from durable._shell.ownership.outlived import Outlived, in_words, still_running
from durable._shell.reads import event_rows, queue_rows, run_rows, why
from durable._shell.reads.run_rows import RunRow
from durable._shell.reads.waits import WaitInfo
from durable._shell.reports import limit_rows
from durable._shell.reports.limit_rows import LimitDetails, SlotInfo
from durable._shell.reports.watched_rows import StepBegun, watched_run
from durable._shell.requests.history_requests import ForkRun, RetryHooks, RetryRun, RetryRunAnyway
from durable._shell.requests.queue_requests import ChangeLimit, ChangeQueue, ClearQueue, PauseQueue
from durable._shell.requests.run_requests import (
    CancelRun,
    PauseRun,
    RescheduleRun,
    ResolveStep,
    ResumeRun,
    SendSignal,
)
from durable._shell.rows.new_runs import new_run_id
from durable._shell.storage.memory import MEMORY
from durable.errors import (
    DurableError,
    Fatal,
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    UsageError,
)

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
S = TypeVar("S")
P = ParamSpec("P")
_NOT_GIVEN: Final[Any] = object()


@late_frozen
class HistoryEvent:
    """An event of `run.history()`. `event` holds its fields; `value` is the payload as JSON text."""

    seq: int
    kind: str
    position: str | None
    #: Epoch seconds, UTC.
    at: float
    value: Any
    event: Event = field(repr=False)
    #: Of the command at its position: the name of the step, job, signal, group or timer.
    name: str | None = None


async def overdue(backend: Backend, reason: Callable[[sqlite3.Connection, str, float], str | None], target: str) -> str:
    """Why what was waited for has not ended, as far as it can be told."""
    try:
        found = await backend.read(reason, target, backend.clock.now())
        return "it is gone" if found is None else backend.codec.reveal(found)
    except DurableError as error:  # the engine or client was closed meanwhile; the caller's time is over all the same
        return f"nobody can tell why ({error})"


class Run(Generic[T]):
    """
    A handle on one run.

    Example:
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome]) as engine:  # in production a path: "app.db"
        ...     run = await engine.start(welcome("ada"), key="ada")
        ...     await run.result()
        'welcome, ada'
    """

    def __init__(self, backend: Backend, run_id: str, result_type: Any = None, number: int = 0) -> None:
        self._backend = backend
        self._type = result_type
        #: Its number in the file, where this process has given it one.
        self._number = number
        #: Its id.
        self.id = run_id

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.id

    def __repr__(self) -> str:
        return f"<Run {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    async def result(self, timeout: float | None = None, *, wait: bool = False) -> T:
        """
        The run's value, once it has ended.

        The caller's cancellation or timeout never touches the run.

        Args:
            timeout: Seconds to wait.
            wait: Go on waiting while the run is blocked, for a person who resumes it.

        Raises:
            RunFailedError: It failed; the original error is the `__cause__`.
            RunCancelledError: It was cancelled; if its clean-up failed, that error is the `__cause__`.
            RunBlockedError: It is blocked, and nobody is to *wait*: it cannot continue without a person.
            TimeoutError: It did not end within *timeout* seconds, and why. It keeps running.
        """
        if timeout is not None:
            with anyio.move_on_after(timeout):
                return await self.result(wait=wait)
            found = await overdue(self._backend, why.why_by_id, self.id)
            msg = f"run {self.id!r} has not ended after {timeout:g} s, and keeps running: {found}"
            raise TimeoutError(msg)
        backend = self._backend
        number = self._number if self._type is not None else 0
        row, (status, payload, reason) = await backend.end_of(self.id, number, wait=wait)
        run_id = self.id if row is None else row.run_id
        if status == "succeeded":
            kind = self._type
            if kind is None and row is not None:
                kind = self._result_type(row)
            value: T = backend.codec.decode(payload or "null", kind, where=f"result of run {run_id!r}")
            return value
        if status == "blocked":
            raise RunBlockedError(run_id, backend.codec.reveal(reason))
        if status == "cancelled":
            cause = None if payload is None else rebuilt(payload, backend.codec)
            raise RunCancelledError(run_id, backend.codec.reveal(reason)) from cause
        failure = failure_in(payload, backend.codec)
        raise RunFailedError(run_id, describe(failure), failure.traceback) from rebuilt(payload, backend.codec)

    async def info(self) -> RunInfo:
        """The run as it stands. Raises RunNotFoundError if it was pruned."""
        found = await self._backend.read(watched_run, self.id)
        if found is None:
            raise RunNotFoundError("id", self.id)
        return info_from(found.details, self._backend, found.step)

    async def watch(self) -> AsyncGenerator[RunInfo]:
        """
        The run as it stands, then as it stands after each change, until it has ended.

        As in ``async for info in run.watch()``. A change is one of its status, the step that it is at, its attributes,
        its progress, and what it waits for.
        Changes that come together, or faster than they are read, are told at once: the latest, and always the end.
        Where the run continues as another one, so does this, and it ends with the last.

        Raises:
            RunNotFoundError: There is no such run.
            EngineClosedError: The engine, or client, was closed.
        """
        run_id: str | None = self.id
        last: tuple[RunInfo, StepBegun | None] | None = None
        while run_id is not None:
            async with aclosing(self._backend.watch(run_id)) as views:
                async for view in views:
                    run_id = view.details.row.successor
                    if run_id is not None:
                        break
                    found = info_from(view.details, self._backend, view.step), view.step
                    if found != last:
                        last = found
                        yield found[0]

    async def status(self) -> Status:
        """Its status alone."""
        return (await self.info()).status

    async def attributes(self) -> Mapping[str, Any]:
        """What the workflow published with `set_attributes`."""
        return (await self.info()).attributes

    @overload
    def stream(self, name: str, *, after: int = ...) -> RunStream[Any]: ...
    @overload
    def stream(self, name: str, kind: type[S], *, after: int = ...) -> RunStream[S]: ...
    def stream(self, name: str, kind: Any = Any, *, after: int = 0) -> RunStream[Any]:
        """
        What the run emits under *name*: ``async for token in run.stream("tokens", str)``; see `RunStream`.

        Args:
            name: As it is given to `emit`.
            kind: The type of its items.
            after: The `seq` of the item behind which to begin.
        """
        return RunStream(self._backend, self.id, name, after, kind)

    async def history(self) -> list[HistoryEvent]:
        """All recorded events, in order."""
        row = await self._row()
        events = await self._backend.read(event_rows.load_history, self._backend.path, row)
        names: dict[str | None, str] = {}
        found: list[HistoryEvent] = []
        for seq, event in enumerate(events, 1):
            if event.category == "command":
                names[event.position] = event.called if isinstance(event, TimerSet | GroupOpened) else event.name
            name, kind = names.get(event.position), KIND_NAMES[event.kind]
            found.append(HistoryEvent(seq, kind, event.position, event.at, event.value, event, name))
        return found

    async def steps(self) -> list[StepInfo]:
        """
        Its steps and transactions, in the order in which they were asked for: status, attempts, result, memos.

        Those that count: what a retry, or another attempt of the whole run, has set aside is in `history` alone.
        Their arguments are not in the journal: where the workflow's code is at hand, it is replayed for them.
        """
        backend, row = self._backend, await self._row()

        def look(conn: sqlite3.Connection) -> tuple[list[Event], list[RecordedStep], dict[str, dict[str, Any]]]:
            events = event_rows.load_history(conn, backend.path, row)
            return events, recorded_steps(events), event_rows.notes_of(conn, row.run)

        events, steps, notes = await backend.read(look)
        definition = backend.definition(row.workflow, row.version)
        called = await arguments_of_steps(definition, events, row.run_id, backend.codec)
        return [
            step_info(step, called.get(step.position), notes.get(step.position, {}), backend.codec) for step in steps
        ]

    async def children(self) -> list[RunInfo]:
        """The runs that it started, oldest first."""
        await self._row()
        return await all_infos(self._backend, run_rows.Filter(parent=self.id))

    async def descendants(self) -> list[RunInfo]:
        """The runs that it started, those that they started, and so on: oldest first."""
        await self._row()
        return await all_infos(self._backend, run_rows.Filter(ancestor=self.id))

    async def waits(self) -> Sequence[WaitInfo]:
        """What it waits for, what holds it up most first; a hundred of each at most. `why` says it in a sentence."""
        return (await self.info()).waits

    async def why(self) -> str:
        """One sentence: what the run waits for, and since when."""
        found = await self._backend.read(why.why_by_id, self.id, self._backend.clock.now())
        if found is None:
            raise RunNotFoundError("id", self.id)
        functions = {Outlived(*each.key[1:], each.name) for each in outlived(self._journal_key(), self.id)}
        if self._backend.path != MEMORY:
            functions |= set(await self._backend.read(lambda _: still_running(self._backend.path)))
        return self._backend.codec.reveal(found) + in_words(sorted(functions), self.id)

    def _journal_key(self) -> str:
        return journal_key(self._backend.path, self._backend.codec)

    @overload
    async def signal(self, name: Signal[S], payload: S, *, dedup: str | None = ...) -> bool: ...
    @overload
    async def signal(self, name: str, payload: Any = ..., *, dedup: str | None = ...) -> bool: ...
    async def signal(self, name: str | Signal[Any], payload: Any = None, *, dedup: str | None = None) -> bool:
        """
        Send a signal; returns when it is recorded.

        Args:
            name: As in ``wait_for(name)``: a `Signal`, or a name.
            payload: With a `Signal`, of its type. Else it is recorded by its own type, and read as the one that the
                waiting workflow names.
            dedup: An id of the caller's: a second signal with the same one is not accepted.

        Returns:
            False if *dedup* was accepted before, also if the run has ended since.

        Raises:
            RunNotFoundError, RunStateError: There is no such run, or it has ended.
            EncodeError: The payload cannot be recorded, or is not of the type of the `Signal`.
        """
        signal, encoded = encoded_signal(name, payload, self._backend.codec)
        return await self._backend.request(SendSignal(self.id, signal, encoded, dedup))

    @overload
    async def ask(
        self, request: Request[Q, A], question: Q, *, timeout: float | None = ..., dedup: str | None = ...
    ) -> A: ...
    @overload
    async def ask(
        self, request: str, question: Any = ..., *, timeout: float | None = ..., dedup: str | None = ...
    ) -> Any: ...
    async def ask(
        self,
        request: str | Request[Any, Any],
        question: Any = None,
        *,
        timeout: float | None = None,
        dedup: str | None = None,
    ) -> Any:
        """
        Ask the workflow something, and wait for its answer.

        The request is recorded, and is answered once, whatever becomes of who asks: a cancellation or timeout of the
        caller touches nothing. Under the same *dedup* it is the same request, and gets the answer that there is.

        Args:
            request: As in ``wait_for(request)``; or the name of one.
            question: Of the type of the `Request`. With a name alone it is recorded by its own type.
            timeout: Seconds to wait.
            dedup: An id of the caller's, to ask again after a timeout or the death of this process.

        Raises:
            RequestRefusedError: The workflow refused it, or the question is not of the type that it takes.
            RequestUnansweredError: The run ended without an answer.
            RunBlockedError: It is blocked: the answer comes once a person has resumed it.
            TimeoutError: There is no answer after *timeout* seconds, and why. The request stays.
            RunNotFoundError, RunStateError: There is no such run, or it has ended. Nothing was asked.
            RequestConflictError: Something else was asked under *dedup*.
            EncodeError: The question cannot be recorded, or is not of the request's type.
        """
        if timeout is not None:
            with anyio.move_on_after(timeout):
                return await self.ask(request, question, dedup=dedup)
            name = request if isinstance(request, str) else request.name
            found = await overdue(self._backend, why.why_by_id, self.id)
            msg = f"run {self.id!r} has not answered request {name!r} after {timeout:g} s; it stays asked: {found}"
            raise TimeoutError(msg)
        return await ask(self._backend, self.id, request, question, dedup)

    @overload
    async def query(self, query: Callable[Concatenate[RunView, P], S], /, *args: P.args, **kwargs: P.kwargs) -> S: ...
    @overload
    async def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def query(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """
        What a query of the workflow says of the run: ``await run.query(status)``.

        The function runs here, on what is recorded at this moment; nothing of the run is woken.

        Args:
            query: A function that ``@ride.query`` has registered, or its name, where the definition is known.
            *args: Given to it, behind the `RunView`.
            **kwargs: Likewise.

        Raises:
            RunNotFoundError: There is no such run.
            UsageError: It is no query of this workflow.
        """
        return await ask_journal(self._backend, self.id, query, args, kwargs)

    async def cancel(self, reason: str = "") -> bool:
        """Ask the run to end; False if it has. It ends once its clean-up is done."""
        return await self._backend.request(CancelRun(self.id, self._backend.codec.conceal(reason)))

    async def pause(self) -> bool:
        """Let the run begin nothing more until `resume`; what is in progress ends and is recorded."""
        return await self._backend.request(PauseRun(self.id))

    async def resume(self) -> bool:
        """Resume a paused or blocked run; False if it is neither."""
        return await self._backend.request(ResumeRun(self.id))

    async def reschedule(self, *, at: datetime | None = None, delay: float | timedelta | None = None) -> None:
        """
        Let a run that waits for its ``delay=`` or ``at=`` begin at another time; without either, at once.

        Args:
            at: When it may begin, an aware datetime.
            delay: Or seconds (or a timedelta) from now.

        Raises:
            RunStateError: Its delay is over, or it had none.
            UsageError: Both are given, or *at* is naive.
        """
        if at is not None and (delay is not None or at.utcoffset() is None):
            msg = f"reschedule takes either at= (an aware datetime) or delay=, found at={at!r}, delay={delay!r}"
            raise UsageError(msg)
        instant = None if at is None else at.timestamp()
        await self._backend.request(RescheduleRun(self.id, instant, in_seconds(delay)))

    async def resolve(
        self,
        position: str | int,
        *,
        value: Any = _NOT_GIVEN,
        error: str | Exception | None = None,
        by: str = "",
        reason: str = "",
    ) -> None:
        """
        Say how a step has ended that blocks the run because nobody knows: the run continues as if it had ended so.

        Args:
            position: Of the step, as `why()` and ``durable show`` name it; "0" in a job.
            value: What it returned. What does not fit its type leaves the run blocked, and says so.
            error: Or what it failed with; a text becomes a `Fatal`.
            by: Who says so, and
            reason: how they know: both are recorded.

        Raises:
            RunStateError: The run is not blocked, or not by this step: an outcome exists, or may yet come.
            UsageError: The run has asked for nothing at this position; or not one of *value* and *error* is given.
            EncodeError, DecodeError: The value cannot be recorded, or is none of this job's.
        """
        if (value is _NOT_GIVEN) == (error is None):
            msg = "resolve takes either value= (None counts) or error="
            raise UsageError(msg)
        codec = self._backend.codec
        if error is not None:
            failure = Fatal(error) if isinstance(error, str) else error
            payload = failure_payload(failure, codec, with_traceback=False)
        else:
            payload = codec.encode_by_value(value, where=f"outcome at {position}")
            row = await self._row()
            if row.kind == "job":
                kind = self._type or self._result_type(row)
                codec.decode(payload, kind, where=f"result of run {self.id!r}")
        await self._backend.request(
            ResolveStep(self.id, str(position), payload, error is not None, by, codec.conceal(reason))
        )

    async def retry(self, *, force: bool = False) -> bool:
        """
        Resume a failed run from what failed; completed steps are not repeated.

        A child that failed is retried, too; one that was cancelled, or refused by its key or limit, is started anew.

        Args:
            force: Also if steps ran because of the failure (a refund, a message): the run continues from before them.

        Raises:
            RetryRefusedError: Such steps ran, in it or in a child that failed. Those of other members of a group,
                which went on by themselves, do not count, and are not repeated.
            RunStateError: It has ended otherwise.
        """
        return await self._backend.request(RetryRunAnyway(self.id) if force else RetryRun(self.id))

    async def retry_hooks(self) -> int:
        """
        Have the hooks called again that went wrong when the run ended, and start what was refused; how many.

        What they ask for is started exactly once; one that fails again is told in `info().hook_errors` as before.
        A client of a file that nobody owns has it recorded, and the next engine calls them.

        Raises:
            RunStateError: The run has not ended.
        """
        return await self._backend.request(RetryHooks(self.id))

    async def fork(
        self, at: str | int, replace: Mapping[str, Any] | Mapping[int, Any] | None = None, *, id: str | None = None
    ) -> Run[T]:
        """
        A new run that continues from position *at*, with the outcomes in *replace* instead of the recorded.

        What was recorded before the command at *at* is copied, and what follows executed anew; if *replace* has
        *at* itself, what was recorded before its outcome: members of the same group keep their outcomes.

        Raises:
            UsageError: If a position was never asked for, or *id* is taken.
        """
        codec = self._backend.codec
        encoded = {
            str(position): codec.encode_by_value(value, where=f"replacement at {position}")
            for position, value in (replace or {}).items()
        }
        new_id = id or new_run_id(self._backend.clock.now())
        await self._backend.request(ForkRun(self.id, str(at), encoded, new_id))
        return Run(self._backend, new_id, self._type)

    def _result_type(self, row: RunRow) -> Any:
        definition = self._backend.definition(row.workflow, row.version)
        return Any if definition is None else definition.result

    async def _row(self) -> RunRow:
        row = await self._backend.read(run_rows.run_by_id, self.id)
        if row is None:
            raise RunNotFoundError("id", self.id)
        return row


@late_frozen
class QueueInfo:
    """A queue as it stood when it was read."""

    name: str
    #: Runs that have not begun and wait for a slot.
    depth: int
    #: Runs that are active, or woken and about to be.
    running: int
    #: Seconds that the oldest waiting run waits; None if none does.
    oldest_wait: float | None
    paused: bool
    #: The numbers that were set by `change`, and hold in place of the program's; None if those do.
    changed: Queue | None = None


class QueueHandle:
    """A handle on one queue."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self.name = name

    async def info(self) -> QueueInfo:
        """Depth, running, oldest wait."""
        row = await self._backend.read(run_rows.queue_row, self.name)
        paused = self.name in await self._backend.read(run_rows.paused_queues)
        oldest = None if row.oldest_ready_at is None else max(0.0, self._backend.clock.now() - row.oldest_ready_at)
        changed = await self._backend.read(queue_rows.numbers_of_queue, self.name)
        return QueueInfo(self.name, row.depth, row.running, oldest, paused, changed)

    async def change(self, *, concurrency: int | None, rate: Rate | None = None) -> None:
        """
        Let other numbers hold from now on: None is no bound. Recorded: they hold until `reset`, also over restarts.

        What is active ends as it would have.

        Raises:
            DefinitionError: These are no numbers.
        """
        count, per = (None, None) if rate is None else (rate.count, rate.per)
        await self._backend.request(ChangeQueue(self.name, concurrency, count, per))

    async def reset(self) -> None:
        """Let the program's own numbers hold again."""
        await self._backend.request(ChangeQueue(self.name, None, None, None, reset=True))

    async def pause(self) -> None:
        """Let nothing more of this queue begin until `resume`. Recorded: it outlives a restart."""
        await self._backend.request(PauseQueue(self.name, paused=True))

    async def resume(self) -> None:
        """Let runs of this queue begin again."""
        await self._backend.request(PauseQueue(self.name, paused=False))

    async def clear(self) -> int:
        """Cancel every run of this queue that has not begun; how many."""
        return await self._backend.request(ClearQueue(self.name))


@late_frozen
class LimitInfo:
    """A named limit as it stood when it was read, with the numbers that hold."""

    name: str
    concurrency: int | None
    rate: Rate | None
    #: Attempts and runs that have a slot, and that wait for one, of all keys.
    inside: int
    waiting: int
    #: Whether the numbers were set by `change`.
    changed: bool
    #: Those who have a slot, the longest first; and those who wait for one, in their order. A hundred of each at most.
    holders: Sequence[SlotInfo] = ()
    waiters: Sequence[SlotInfo] = ()


def limit_info(row: LimitDetails) -> LimitInfo:
    """A row as callers see it."""
    rate = None if row.grants is None else Rate(row.grants, per=row.per or 0.0)
    return LimitInfo(row.name, row.concurrency, rate, row.inside, row.waiting, row.changed, row.holders, row.waiters)


class LimitHandle:
    """A handle on a named limit. Every call raises UsageError if no engine has had one of this name."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self.name = name

    async def info(self) -> LimitInfo:
        """Its numbers, and who is in it."""
        row = await self._backend.read(limit_rows.limit_row, self.name)
        if row is None:
            msg = f"no limit is called {self.name!r} in this journal: it is known once an engine has had it"
            raise UsageError(msg)
        return limit_info(row)

    async def change(self, *, concurrency: int | None = None, rate: Rate | None = None) -> None:
        """
        Let other numbers hold from now on: None is no bound. Recorded: they hold until `reset`, also over restarts.

        Who is inside stays; with more room, those who wait are let in at once.

        Raises:
            DefinitionError: These are no numbers, or limit nothing.
        """
        count, per = (None, None) if rate is None else (rate.count, rate.per)
        await self._backend.request(ChangeLimit(self.name, concurrency, count, per))

    async def reset(self) -> None:
        """Let the program's own numbers hold again."""
        await self._backend.request(ChangeLimit(self.name, None, None, None, reset=True))
