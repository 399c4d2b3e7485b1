"""
What is told of a run: `RunInfo`, as it stood when it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple, Protocol

from attrs import field

from durable._core.codec.codec import Codec, Payload
from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.program.functions import RunnableDefinition
from durable._core.program.progress import Progress
from durable._core.statuses import Status
from durable._shell.backend import Backend
from durable._shell.reads import run_details, run_rows
from durable._shell.reads.run_details import RecordedEvent, RunDetails
from durable._shell.reads.run_rows import FailedHook
from durable._shell.reads.waits import WaitInfo
from durable._shell.reports.watched_rows import StepBegun
from durable.errors import DecodeError, JournalCorruptError


class Arguments(NamedTuple):
    """Those of a call: `args` by position, `kwargs` by name."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class RunValues(Protocol):
    """What a run was given and what it returned."""

    def arguments(self) -> Arguments: ...
    def result(self) -> Any: ...


@light_frozen
class RecordedValues:
    """What a run was given and what it returned: decoded when somebody asks, since who lists runs seldom does."""

    details: RunDetails
    path: str
    codec: Codec
    #: Whose annotations they are read by; without one as plain JSON.
    definition: RunnableDefinition[..., Any] | None

    def arguments(self) -> Arguments:
        where = f"arguments of run {self.details.row.run_id!r}"
        payload = self._value_of(self.details.start, "first") or "[[],{}]"
        if self.definition is not None:
            return Arguments(*self.codec.decode_arguments(payload, self.definition.arguments, where=where))
        match self.codec.decode(payload, where=where):
            case [list() as args, dict() as kwargs]:
                return Arguments(tuple(args), kwargs)
            case other:
                raise DecodeError(where, "$", "[[arguments],{named arguments}]", f"found {type(other).__name__}")

    def result(self) -> Any:
        row = self.details.row
        if row.status != "succeeded" or row.successor is not None:
            return None
        kind = Any if self.definition is None else self.definition.result
        payload = self._value_of(self.details.end, "last") or "null"
        return self.codec.decode(payload, kind, where=f"result of run {row.run_id!r}")

    def _value_of(self, event: RecordedEvent | None, which: str) -> Payload | None:
        run_id = self.details.row.run_id
        if event is None:
            raise JournalCorruptError(self.path, run_id, 0, f"its {which} event cannot be read")
        return event.sound_value(self.path, run_id)


@late_frozen
class RunInfo:
    """A run as it stood when it was read. Instants are epoch seconds, UTC."""

    id: str
    workflow: str
    version: int
    #: "workflow" or "job".
    kind: str
    status: Status
    queue: str
    priority: int
    key: str | None
    labels: Mapping[str, str]
    #: What the workflow published with `set_attributes`.
    attributes: Mapping[str, Any]
    #: Why it failed, was cancelled, or is blocked or paused; None otherwise.
    reason: str | None
    parent: str | None
    #: Where its parent started it.
    position: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    #: The first of those that led to it by starting one another; its own id if nobody's run started it.
    root: str
    _values: RunValues = field(alias="values", repr=False, eq=False)  # named for type checkers that know no attrs
    #: What it waits for, as `Run.waits` tells; without what is "ending" in a list of runs.
    waits: Sequence[WaitInfo] = ()
    #: The run that it continued as.
    successor: str | None = None
    #: The run whose end started it: by `op.then`, or by a hook.
    follows: str | None = None
    #: The run that it is a fork of.
    forked_from: str | None = None
    #: The batch that it is a member of.
    batch: str | None = None
    #: Signals that nobody had asked for when it ended: how many of each name. A retry delivers them.
    unread_signals: Mapping[str, int] = field(factory=dict)
    #: Hooks that went wrong when it ended, and starts that were refused: `retry_hooks` makes up for them.
    hook_errors: Sequence[FailedHook] = ()
    #: Steps that were told to end and did not within `Engine(cleanup_timeout=)`: their names, by position.
    abandoned: Mapping[str, str] = field(factory=dict)
    #: By what it failed, as "ValueError: no such ride"; or its clean-up did, if it was cancelled. None otherwise.
    error: str | None = None
    #: The step that began last, if that is not long ago; None in a list of runs.
    step: str | None = None
    #: How far it has come, as its code tells by `progress`.
    progress: Progress | None = None
    #: Whether a `saga` of it failed, and what it had done was undone. Such a run is not retried.
    compensated: bool = False
    #: Where a page that begins behind this run continues: ``engine.runs(after=info.cursor)``.
    cursor: int = field(default=0, repr=False)

    @property
    def run_id(self) -> str:
        """As `id`."""
        return self.id

    @property
    def arguments(self) -> Arguments:
        """
        What it was started with: by the annotations of its function where that is known, else as plain JSON.

        An engine and a `Service` know their definitions, a `Client` those that it has started.

        Raises:
            DecodeError: They do not fit the function of today.
            JournalCorruptError: They are damaged.
        """
        return self._values.arguments()

    @property
    def result(self) -> Any:
        """
        What it returned, read as `arguments` are; None unless it succeeded.

        Raises:
            DecodeError, JournalCorruptError: As `arguments`.
        """
        return self._values.result()

    @property
    def sort(self) -> str:
        """The older name of `kind`, until 1.0."""
        return self.kind


def info_from(details: RunDetails, backend: Backend, step: StepBegun | None = None, *, listed: bool = False) -> RunInfo:
    """What was read of a run, as callers see it."""
    row, codec = details.row, backend.codec
    attributes: Mapping[str, Any] = {}
    if row.attributes is not None:
        # Of one among many, damage to its attributes must not hide the others.
        with suppress(DecodeError) if listed else nullcontext():
            attributes = codec.decode(row.attributes, dict[str, Any], where="attributes")
    definition = backend.definition(row.workflow, row.version)
    return RunInfo(
        id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        kind=row.kind,
        status=row.status,  # type: ignore[arg-type]  # the file holds nothing else
        queue=row.queue,
        priority=row.priority,
        key=row.key,
        labels=row.labels,
        attributes=attributes,
        reason=None if row.reason is None else codec.reveal(row.reason),
        parent=row.parent,
        position=row.position,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        root=row.root,
        values=RecordedValues(details, backend.path, codec, definition),
        waits=details.waits,
        successor=row.successor,
        follows=row.follows,
        forked_from=row.forked_from,
        batch=row.batch,
        unread_signals=row.unread,
        hook_errors=tuple(each._replace(error=codec.reveal(each.error)) for each in row.hook_errors),
        abandoned=row.abandoned,
        error=None if row.error is None else codec.reveal(row.error),
        compensated=row.compensated,
        progress=None if row.progress is None else row.progress._replace(note=codec.reveal(row.progress.note)),
        step=None if step is None else step.name,
        cursor=row.run,
    )


async def all_infos(backend: Backend, wanted: run_rows.Filter) -> list[RunInfo]:
    """The runs that fit, oldest first, read page by page."""
    found: list[RunInfo] = []
    before: int | None = None
    more = True
    while more:
        page, more = await backend.read(run_details.list_details, wanted, before, 500)
        before = page[-1].row.run if page else None
        found += [info_from(each, backend, listed=True) for each in page]
    return found[::-1]
