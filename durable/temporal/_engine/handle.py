"""
A handle on a run of a server: an id and a way to ask, as `durable.Run` is on one of a journal.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from attrs import evolve
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from durable._core.codec.codec import Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.codec.json_text import dumps, loads
from durable._core.journal import history
from durable._core.journal.events import KIND_NAMES, TimerSet
from durable._core.journal.payloads import encoded_question, encoded_signal, failure_in, failure_payload, rebuilt
from durable._core.program.ops import Signal
from durable._core.program.requests import Request
from durable._core.recorded.copies import fork_of
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.export_reader import read_export
from durable._core.recorded.steps import recorded_steps
from durable._core.statuses import ENDS, Status
from durable._shell.handles.handle import HistoryEvent
from durable._shell.handles.queries import RunView, query_of, view_of
from durable._shell.handles.run_info import RunInfo
from durable._shell.handles.step_arguments import arguments_of_steps
from durable._shell.handles.step_info import StepInfo, step_info
from durable._shell.reads.waits import WaitInfo
from durable._shell.rows.new_runs import new_run_id
from durable.errors import (
    Fatal,
    RequestRefusedError,
    RequestUnansweredError,
    RetryRefusedError,
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunStateError,
    UsageError,
)
from durable.temporal._attempts.run_ends import run_end
from durable.temporal._driving.questions import REFUSED, UNANSWERED
from durable.temporal._engine.asking import NOBODY, Asking
from durable.temporal._engine.elsewhere import OF_RUNS, refuse
from durable.temporal._engine.run_infos import detailed, failed_turns, why_turns_fail
from durable.temporal._engine.streams import TemporalStream
from durable.temporal._wire.ends import RunEnd
from durable.temporal._wire.items import CHAPTERS
from durable.temporal._wire.payloads import ASK, from_plain, packed, plain, unpacked_text
from durable.temporal._wire.starts import BATCHES, new_run_from, workflow_id_of

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
S = TypeVar("S")
P = ParamSpec("P")

#: Seconds between looks whether a run is blocked whose result is waited for: the first, and the longest.
_FIRST_LOOK: Final = 1.0
_LONGEST_LOOK: Final = 15.0
#: And between looks of who watches it.
_LOOK_EVERY: Final = 2.0
_NOT_GIVEN: Final[Any] = object()


class TemporalRun(Generic[T]):
    """A run on a server. What is not here, Temporal's own tools have: ``client.get_workflow_handle(run.id)``."""

    def __init__(self, asking: Asking, run_id: str, result_type: Any = None, handle: Any = None) -> None:
        self._asking = asking
        self._type = result_type
        #: Its id.
        self.id = run_id
        self._handle: WorkflowHandle[Any, Any] = handle or asking.handle_on(workflow_id_of(run_id))

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.id

    @property
    def workflow_id(self) -> str:
        """Its id on the server: a key, if it has one."""
        return self._handle.id

    @property
    def web_ui(self) -> str | None:
        """The address of Temporal's own page about it, where the engine was told ``web_ui=``."""
        asking = self._asking
        if asking.web_ui is None:
            return None
        namespace, name = (quote(each, safe="") for each in (asking.client.namespace, self._handle.id))
        return f"{asking.web_ui.rstrip('/')}/namespaces/{namespace}/workflows/{name}"

    def __repr__(self) -> str:
        return f"<TemporalRun {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TemporalRun) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    if not TYPE_CHECKING:  # a type checker says of what is not there that it is not

        def __getattr__(self, name: str) -> Any:
            refuse(name, OF_RUNS, type(self).__name__)

    # --- looking -------------------------------------------------------------------------------

    async def result(self, timeout: float | None = None, *, wait: bool = False) -> T:
        """
        The run's value, once it has ended. As `Run.result`, with the same errors.

        Args:
            timeout: Seconds to wait.
            wait: Go on waiting while the run is blocked, for a person who resumes it.
        """
        if timeout is not None:
            try:
                async with asyncio.timeout(timeout):
                    return await self.result(wait=wait)
            except TimeoutError:
                msg = f"run {self.id!r} has not ended after {timeout:g} s, and keeps running"
                raise TimeoutError(msg) from None
        codec = self._asking.codec
        ending = asyncio.ensure_future(self._end())
        try:
            if not wait:
                await self._watch_for_blocks(ending)
            end = await ending
        finally:
            ending.cancel()
        match end.status:
            case "succeeded":
                kind = self._type if self._type is not None else await self._result_type()
                value: T = codec.decode(end.outcome or "null", kind, where=f"result of run {self.id!r}")
                return value
            case "cancelled":
                cause = None if end.outcome in (None, "null") else rebuilt(end.outcome, codec)
                raise RunCancelledError(self.id, codec.reveal(end.reason)) from cause
            case "failed":
                failure = failure_in(end.outcome, codec)
                cause = rebuilt(end.outcome, codec)
                raise RunFailedError(self.id, describe(failure), failure.traceback) from cause

    async def _end(self) -> RunEnd:
        return await run_end(self._handle, self._asking.codec)

    async def _watch_for_blocks(self, ending: asyncio.Future[Any]) -> None:
        seconds = _FIRST_LOOK
        while True:
            done, _ = await asyncio.wait({ending}, timeout=seconds)
            if done:
                return
            info = await self._described()
            if info.status == "blocked":
                raise RunBlockedError(self.id, info.reason or "")
            seconds = min(seconds * 2, _LONGEST_LOOK)

    async def _result_type(self) -> Any:
        described = await self._describe()
        new = new_run_from(await described.memo())
        definition = self._asking.definitions.find(described.workflow_type, None if new is None else new.version)
        return Any if definition is None else definition.result

    async def _describe(self) -> WorkflowExecutionDescription:
        try:
            return await self._handle.describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise RunNotFoundError("id", self.id) from None
            raise

    async def info(self) -> RunInfo:
        """The run as the server tells of it. Raises RunNotFoundError if there is none, or no more."""
        info = await self._described()
        definition = self._asking.definitions.find(info.workflow, info.version)
        converter = self._asking.client.data_converter
        return await detailed(info, self._handle, converter, self._asking.codec, definition)

    async def _described(self) -> RunInfo:
        """The run as a list has it."""
        return await self._asking.info_from(await self._describe())

    async def status(self) -> Status:
        """Its status alone."""
        return (await self._described()).status

    async def attributes(self) -> Mapping[str, Any]:
        """What the workflow published with `set_attributes`."""
        return (await self._described()).attributes

    async def why(self) -> str:
        """What it waits for. A worker answers, unless it cannot take the run's turn: then that is why."""
        described = await self._describe()
        if times := failed_turns(described):
            told = await why_turns_fail(self._handle, self._asking.client.data_converter)
            return f"is blocked: its turn has failed {times} times. {told}"
        found: str = await self._query("durable.why")
        return found

    async def export(self) -> RunHistory:
        """
        The run as an embedded engine would have recorded it: for `durable.replay`, `what_if`, ``durable check``.

        A worker that has its definition answers, also for a run that has ended.

        Raises:
            RunNotFoundError: There is no such run.
            TimeoutError: No worker answers.
        """
        text = await self._query("durable.export")
        (found,) = read_export([line.encode() for line in text.split("\n")], f"run {self.id!r}")
        return found

    async def _query(self, name: str) -> str:
        try:
            found: str = await self._handle.query(name, result_type=str)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise RunNotFoundError("id", self.id) from None
            if error.status in NOBODY:
                msg = f"run {self.id!r}: no worker that polls its queue answers: {error.message}"
                raise TimeoutError(msg) from None
            raise
        return found

    async def history(self) -> Sequence[HistoryEvent]:
        """Its events, as those of `Run.history`: attempts that the server repeated by itself are not among them."""
        names: dict[str | None, str] = {}
        found: list[HistoryEvent] = []
        for seq, event in enumerate((await self.export()).events, 1):
            if event.category == "command":
                names[event.position] = event.called if isinstance(event, TimerSet) else event.name
            name, kind = names.get(event.position), KIND_NAMES[event.kind]
            found.append(HistoryEvent(seq, kind, event.position, event.at, event.value, event, name))
        return found

    async def steps(self) -> list[StepInfo]:
        """Its steps and transactions, as `Run.steps`: attempts that the server repeated by itself are not told."""
        exported = await self.export()
        notes: dict[str, dict[str, Payload]] = {}
        for note in exported.notes:
            notes.setdefault(note.position, {})[note.name] = note.value or "null"
        codec, facts, events = self._asking.codec, exported.run, exported.events
        definition = self._asking.definitions.find(facts.workflow, facts.version)
        called = await arguments_of_steps(definition, events, facts.run_id, codec)
        return [
            step_info(step, called.get(step.position), notes.get(step.position, {}), codec)
            for step in recorded_steps(events)
        ]

    async def waits(self) -> list[WaitInfo]:
        """What it waits for."""
        exported = await self.export()
        return [
            WaitInfo(wait.kind, wait.name, wait.position, wait.since, wait.fire_at, wait.target)
            for wait in exported.waits
        ]

    @overload
    async def query(self, query: Callable[Concatenate[RunView, P], S], /, *args: P.args, **kwargs: P.kwargs) -> S: ...
    @overload
    async def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def query(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """
        What a query of the workflow says of the run. As `Run.query`, with the same errors.

        The function runs here, on the journal that a worker gives; the workflow takes no turn for it.
        """
        info, exported = await self.info(), await self.export()
        definition = self._asking.definitions.find(exported.run.workflow, exported.run.version)
        fn = query_of(query, definition, exported.run.workflow)
        return fn(view_of(info, exported.events, self._asking.codec), *args, **kwargs)

    async def watch(self) -> AsyncGenerator[RunInfo]:
        """
        The run as it stands, then as it stands after each change, until it has ended: it looks every other second.

        Raises:
            RunNotFoundError: There is no such run.
        """
        last: RunInfo | None = None
        while last is None or last.status not in ENDS:
            info = await self._described()
            if info != last:
                last = info
                yield await self.info() if info.status in ENDS else info
            else:
                await asyncio.sleep(_LOOK_EVERY)

    @overload
    def stream(self, name: str, *, after: int = ...) -> TemporalStream[Any]: ...
    @overload
    def stream(self, name: str, kind: type[S], *, after: int = ...) -> TemporalStream[S]: ...
    def stream(self, name: str, kind: Any = Any, *, after: int = 0) -> TemporalStream[Any]:
        """
        What the run emits under *name*: ``async for token in run.stream("tokens", str)``. As `Run.stream`.

        Args:
            name: As it is given to `emit`.
            kind: The type of its items.
            after: The `seq` of the item behind which to begin.
        """
        return TemporalStream(self._asking, self._handle.id, self.status, name, after, kind)

    async def children(self) -> list[RunInfo]:
        """The runs that it started, oldest first."""
        found: dict[str, RunInfo] = {}
        # What the server finds may be seconds behind, so those of its latest execution are looked up there.
        async for info in self._asking.runs(f"ParentWorkflowId = {quoted(self._handle.id)}"):
            found[workflow_id_of(info.id)] = info
        for workflow_id in {*found, *await self._begun_here()}:
            listed = found.get(workflow_id)
            if listed is not None and listed.status in ("succeeded", "cancelled"):
                continue
            with suppress(RunNotFoundError):  # the namespace keeps it no longer
                info = await TemporalRun[Any](self._asking, workflow_id)._described()  # noqa: SLF001 - of its own class
                # Of one that was retried the latest execution is, to the server, nobody's child.
                found[workflow_id] = info if listed is None else evolve(info, parent=self.id, follows=listed.follows)
        children = [info for info in found.values() if info.follows is None]
        return sorted(children, key=lambda info: [int(each) for each in (info.position or "0").split(".")])

    async def _begun_here(self) -> list[str]:
        """Workflow ids of the children that its latest execution has begun."""
        found: list[str] = []
        async for event in self._handle.fetch_history_events():
            if event.HasField("child_workflow_execution_started_event_attributes"):
                begun = event.child_workflow_execution_started_event_attributes
                found.append(begun.workflow_execution.workflow_id)
        return found

    # --- asking --------------------------------------------------------------------------------

    @overload
    async def signal(self, name: Signal[S], payload: S, *, dedup: str | None = ...) -> bool: ...
    @overload
    async def signal(self, name: str, payload: Any = ..., *, dedup: str | None = ...) -> bool: ...
    async def signal(self, name: str | Signal[Any], payload: Any = None, *, dedup: str | None = None) -> bool:
        """
        Send a signal; returns when the server has recorded it.

        A second one with the same *dedup* is dropped by the run: who sends it is not told, and gets True.

        Raises:
            RunNotFoundError, RunStateError: There is no such run, or it has ended.
            EncodeError: The payload cannot be recorded, or is not of the type of the `Signal`.
        """
        signal, encoded = encoded_signal(name, payload, self._asking.codec)
        args = [packed(encoded)] if dedup is None else [packed(encoded), packed(dumps(dedup))]
        await self._signal(signal, args, f"signal {signal!r}")
        return True

    async def _signal(self, name: str, args: Sequence[RawValue], request: str) -> None:
        try:
            await self._handle.signal(name, args=args)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise RunStateError(self.id, await self.status(), request) from None

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
        Ask the workflow something, and wait for its answer. As `Run.ask`, with the same errors.

        Args:
            request: As in ``wait_for(request)``; or the name of one.
            question: Of the type of the `Request`.
            timeout: Seconds to wait; the request stays.
            dedup: An id of the caller's, to ask again: it is the same request, and gets the answer that there is.
        """
        name, payload = encoded_question(request, question, self._asking.codec)
        asked = dedup or secrets.token_hex(16)
        try:
            async with asyncio.timeout(timeout):
                raw = await self._handle.execute_update(
                    ASK, args=[name, asked, packed(payload)], id=asked, result_type=RawValue
                )
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            msg = f"run {self.id!r} has not answered {name!r} after {timeout:g} s; the request stays"
            raise TimeoutError(msg) from None
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise RunStateError(self.id, await self.status(), f"request {name!r}") from None
        how, value = loads(unpacked_text(raw))
        codec = self._asking.codec
        if how == REFUSED:
            reason: str = codec.decode(from_plain(value), str, where=f"refusal of request {name!r}")
            raise RequestRefusedError(self.id, name, reason)
        if how == UNANSWERED:
            raise RequestUnansweredError(self.id, name, codec.decode(from_plain(value), str))
        type_ = request.answer if isinstance(request, Request) else Any
        return codec.decode(from_plain(value), type_, where=f"answer to request {name!r}")

    async def cancel(self, reason: str = "") -> bool:
        """Ask the run to end, which it does once its clean-up is done; False if it has ended already."""
        # The server acknowledges a cancellation of what has ended, so one has to look.
        if (await self._describe()).status != WorkflowExecutionStatus.RUNNING:
            return False
        try:
            await self._handle.cancel(reason=self._asking.codec.conceal(reason))
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def pause(self) -> bool:
        """Begin nothing new, until `resume`; what is running ends."""
        await self._signal("durable.pause", [], "pause")
        return True

    async def resume(self) -> bool:
        """Continue, after `pause` or when it is blocked."""
        await self._signal("durable.resume", [], "resume")
        return True

    # --- continuing from its journal -----------------------------------------------------------

    async def retry(self, *, force: bool = False) -> bool:
        """
        Resume a failed run from what failed; completed steps are not repeated. As `Run.retry`, with the same errors.

        It continues as a fresh run of the server, of the same id, with its journal. A child that failed is retried,
        too.
        """
        reopened = await self.reopened(force=force)
        if reopened is None:
            return False
        await self.begin_again(reopened, force=force)
        await self._asking.mending.tell_batches(self._asking, await self.batches(), self._handle.id)
        return True

    async def reopened(self, *, force: bool) -> RunHistory | None:
        """Its history with the retry; None if it has not ended. Raises as `retry`."""
        exported = await self.export()
        status, events = exported.run.status, exported.events
        if status not in ENDS:
            return None
        unborn = history.never_began(events)
        if status != "failed" and not (status == "cancelled" and unborn):
            raise RunStateError(self.id, status, "retry", "Only failed runs can be retried; fork it instead")
        again = history.reopened(events, time.time())
        ran = () if force or unborn else history.ran_since(events, again)
        if ran:
            named = [f"{each.describe()} at {each.position}" for each in ran]
            raise RetryRefusedError(self.id, named, history.is_compensated(events))
        run = evolve(exported.run, status="waiting", ended_at=None, reason=None)
        return evolve(exported, run=run, events=[*events, again], waits=[])

    async def begin_again(self, reopened: RunHistory, *, force: bool) -> None:
        """Begin it again with the history that `reopened` gave, and its children that have failed."""
        for child in history.open_waits(reopened.events).children.values():
            handle = TemporalRun[Any](self._asking, child)
            if await handle.status() == "failed":
                await handle.retry(force=force)
        chapters, batches = await self._query(CHAPTERS), await self.batches()
        await self._asking.start_again(reopened, again=True, chapters=chapters, batches=batches)
        self._handle = self._asking.handle_on(self._handle.id)  # that of `start` knows the run that has failed

    async def batches(self) -> list[str]:
        """Ids of the batch that it is a member or callback of, and of those around that."""
        found: list[str] = (await (await self._describe()).memo()).get(BATCHES) or []
        return found

    async def fork(
        self, at: str | int, replace: Mapping[str, Any] | Mapping[int, Any] | None = None, *, id: str | None = None
    ) -> TemporalRun[T]:
        """
        A new run that continues from position *at*, with the outcomes in *replace* instead of the recorded.

        Raises:
            UsageError: If a position was never asked for.
        """
        codec, at_time = self._asking.codec, time.time()
        encoded = {
            str(position): codec.encode_by_value(value, where=f"replacement at {position}")
            for position, value in (replace or {}).items()
        }
        new_id = id or new_run_id(at_time)
        made = fork_of(await self.export(), run_id=new_id, at=str(at), replace=encoded, now=at_time)
        await self._asking.start_again(made)
        return TemporalRun(self._asking, new_id, self._type)

    async def leave(self) -> RunHistory:
        """
        The run, which ends here, to continue elsewhere: ``await engine.import_runs([await run.leave()])``.

        It is paused first. A step that is running is cut off, and begins anew where the run continues; children that
        are open are left to themselves, and leave by themselves.

        Raises:
            RunStateError: It has ended.
        """
        await self.pause()
        exported = await self.export()
        if exported.run.status in ENDS:
            raise RunStateError(self.id, exported.run.status, "leave")
        await self._handle.terminate("it continues elsewhere")
        return exported

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
        Say how a step has ended that blocks the run because nobody knows. As `Run.resolve`.

        Raises:
            RunStateError: The run is not blocked.
            UsageError: Not one of *value* and *error* is given.
        """
        if (value is _NOT_GIVEN) == (error is None):
            msg = "resolve takes either value= (None counts) or error="
            raise UsageError(msg)
        status = await self.status()
        if status != "blocked":
            raise RunStateError(self.id, status, "resolve")
        codec = self._asking.codec
        if error is not None:
            failure = Fatal(error) if isinstance(error, str) else error
            payload = failure_payload(failure, codec, with_traceback=False)
        else:
            payload = codec.encode_by_value(value, where=f"outcome at {position}")
        told = [str(position), plain(payload), error is not None, by, codec.conceal(reason)]
        await self._signal("durable.resolve", [packed(dumps(told))], "resolve")


def moment(at: datetime | float) -> str:
    """An instant in a query of the server's."""
    found = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return quoted(found.astimezone(UTC).isoformat(timespec="microseconds"))


def quoted(text: str) -> str:
    """*text* in a query of the server's."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
