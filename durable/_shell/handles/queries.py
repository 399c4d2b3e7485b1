"""
Queries: what a run's journal tells about it, through a plain function of its workflow's. Nothing of the run is woken.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from attrs import field

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.events import (
    ChildArrival,
    ChildStarted,
    Event,
    SlotAwaited,
    StepArrival,
    StepStarted,
    TransactionStarted,
)
from durable._core.journal.history import effective
from durable._core.journal.payloads import failure_in
from durable._core.light_frozen import late_frozen
from durable._core.light_tuples import NamedTuple
from durable._core.program.definition import Definition
from durable._core.program.functions import Workflow
from durable._core.statuses import Status
from durable._shell.backend import Backend
from durable._shell.handles.run_info import Arguments, RunInfo, info_from
from durable._shell.reads.event_rows import load_history
from durable._shell.reads.run_details import RunDetails, details_by_id
from durable._shell.reads.run_rows import current_run
from durable.errors import RunNotFoundError, UsageError

T = TypeVar("T")


@late_frozen
class StepOutcome:
    """A step, transaction, job or child workflow of a run, and how it stands."""

    #: Of its definition.
    name: str
    position: str
    #: "open": it has not ended, or is tried again.
    status: Literal["open", "succeeded", "failed", "cancelled"]
    #: By what it failed, as "ValueError: no such ride"; also the latest attempt of one that is tried again.
    error: str | None
    _payload: Payload | None = field(repr=False)
    _codec: Codec = field(repr=False, eq=False)

    @property
    def value(self) -> Any:
        """What it returned, as plain data where it is an instance of a class: `RunView.values` knows types."""
        return self.value_as(Any) if self.status == "succeeded" else None

    def value_as(self, kind: Any) -> Any:
        """What it returned, as a *kind*. Raises DecodeError if it is none."""
        return self._codec.decode(self._payload or "null", kind, where=f"value of {self.name!r} at {self.position}")


@late_frozen
class RunView:
    """
    A run as its journal has it, for `Workflow.query`: all of one moment.

    Example:
        >>> @workflow
        ... async def order() -> None:
        ...     set_attributes(stage="packed")
        >>> @order.query
        ... def stage(view: RunView) -> str:
        ...     return view.attributes["stage"]
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.result()
        ...     await run.query(stage)
        'packed'
    """

    info: RunInfo
    #: In the order in which they began. What a retry has set aside is left out.
    steps: Sequence[StepOutcome]

    @property
    def status(self) -> Status:
        """Of the run."""
        return self.info.status

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the workflow published with `set_attributes`."""
        return self.info.attributes

    @property
    def arguments(self) -> Arguments:
        """What it was called with."""
        return self.info.arguments

    @overload
    def values(self, step: Definition[..., T]) -> list[T]: ...
    @overload
    def values(self, step: str) -> list[Any]: ...
    def values(self, step: Definition[..., Any] | str) -> list[Any]:
        """What the calls of a step, transaction, job or child workflow have returned so far; of its type, if given."""
        if isinstance(step, str):
            return [each.value for each in self.steps if each.name == step and each.status == "succeeded"]
        names = {step.name, *step.aliases}
        found = [each for each in self.steps if each.name in names and each.status == "succeeded"]
        return [each.value_as(step.result) for each in found]

    @overload
    def value(self, step: Definition[..., T]) -> T | None: ...
    @overload
    def value(self, step: str) -> Any: ...
    def value(self, step: Definition[..., Any] | str) -> Any:
        """As `values`, of the call that began last; None if none has returned."""
        return next(reversed(self.values(step)), None)


async def ask_journal(
    backend: Backend, run_id: str, query: Callable[..., T] | str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> T:
    """
    What *query* says of a run, or of what it continued as.

    Raises:
        RunNotFoundError: There is no such run.
        UsageError: It is no query of the run's workflow, as far as that is known here.
    """
    fn, view = await open_query(backend, run_id, query)
    return fn(view, *args, **kwargs)


async def open_query(backend: Backend, run_id: str, query: Callable[..., T] | str) -> tuple[Callable[..., T], RunView]:
    """The function, and the view of the run that it is called with. Raises what `ask_journal` does."""
    details, events = await backend.read(_read, backend.path, run_id)
    info = info_from(details, backend)
    fn: Callable[..., T] = query_of(query, backend.definition(info.workflow, info.version), info.workflow)
    return fn, view_of(info, events, backend.codec)


def view_of(info: RunInfo, events: Sequence[Event], codec: Codec) -> RunView:
    """The view of a run that has recorded *events*."""
    return RunView(info, _steps(events, codec))


def query_of(query: Callable[..., Any] | str, definition: Any, workflow: str) -> Callable[..., Any]:
    """
    The function that *query* is or names.

    Raises:
        UsageError: It is no query of *definition*, which is that of *workflow*, or not known.
    """
    known: Mapping[str, Callable[..., Any]] | None = definition.queries if isinstance(definition, Workflow) else None
    if isinstance(query, str):
        if known is not None and query in known:
            return known[query]
        listed = "is not known here: give its definition" if known is None else f"has {', '.join(known) or 'none'}"
        msg = f"no query called {query!r}: workflow {workflow!r} {listed}"
        raise UsageError(msg)
    if not inspect.isfunction(query) or (known is not None and query not in known.values()):
        msg = f"query() takes a function registered by @{workflow}.query, or the name of one, found {query!r:.80}"
        raise UsageError(msg)
    return query


def _read(conn: sqlite3.Connection, path: str, run_id: str) -> tuple[RunDetails, list[Event]]:
    row = current_run(conn, run_id)
    details = details_by_id(conn, row.run_id)
    if details is None:  # pragma: no cover - it was there a moment ago, in the same transaction
        raise RunNotFoundError("id", run_id)
    return details, load_history(conn, path, row)


class _Found(NamedTuple):
    name: str
    status: Literal["open", "succeeded", "failed", "cancelled"] = "open"
    payload: Payload | None = None


def _steps(events: Sequence[Event], codec: Codec) -> list[StepOutcome]:
    found: dict[str, _Found] = {}
    for event in effective(events)[0]:
        if isinstance(event, (StepStarted, SlotAwaited, TransactionStarted, ChildStarted)):
            found.setdefault(event.position, _Found(event.name))
        elif isinstance(event, (StepArrival, ChildArrival)) and event.position in found:
            name = found[event.position].name
            if event.outcome in ("succeeded", "failed", "cancelled"):
                found[event.position] = _Found(name, event.outcome, event.value)
            elif event.outcome == "retrying":
                found[event.position] = _Found(name, "open", event.value)
    return [_outcome(position, each, codec) for position, each in found.items()]


def _outcome(position: str, found: _Found, codec: Codec) -> StepOutcome:
    failed = found.status != "succeeded" and found.payload is not None
    error = describe(failure_in(found.payload, codec)) if failed else None
    return StepOutcome(found.name, position, found.status, error, found.payload, codec)
