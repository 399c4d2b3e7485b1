"""
A batch before it is recorded: what its block collects, and the request that this becomes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from attrs import evolve, field

from durable._core.authoring.op_constructors import with_options
from durable._core.codec.codec import Codec
from durable._core.journal.payloads import call_digest
from durable._core.light_frozen import light_define
from durable._core.program.command import Command
from durable._core.program.ops import RunOp
from durable._shell.backend import Backend
from durable._shell.handles.handle import Run
from durable._shell.requests.batch_requests import CreateBatches, NewBatch
from durable._shell.rows.rows import NewRun
from durable.errors import UsageError

#: What `on_success` and its like take.
Callbacks: TypeAlias = RunOp[Any] | Iterable[RunOp[Any]] | None


@light_define(eq=False)
class Draft:
    """A batch that is not recorded yet."""

    batch_id: str
    description: str
    labels: Mapping[str, str]
    #: Templates of what it starts, by event; each with its call.
    callbacks: Mapping[str, list[tuple[NewRun, RunOp[Any]]]]
    #: Id of the batch that it is nested in; and that one itself, if it was a draft as well.
    parent: str | None
    outer: Draft | None
    #: Whether its id was chosen, or derived from where it is made: then an equal batch is the same.
    chosen_id: bool
    entered: bool = False
    discarded: bool = False
    created: bool = False
    members: list[tuple[NewRun, RunOp[Any], Run[Any]]] = field(factory=list)
    nested: list[Draft] = field(factory=list)

    def check_entered(self) -> None:
        """Refuse to take anything outside of its block."""
        if not self.entered or self.discarded:
            when = "whose block raised" if self.discarded else "whose block has yet to begin"
            msg = f"batch {self.batch_id!r}, {when}, takes nothing: use `async with engine.batch(...) as batch`"
            raise UsageError(msg)

    async def create(self, backend: Backend) -> None:
        """Record it, with all that is nested in it, in one transaction."""
        drafts = list(self._walk())
        batches = tuple(draft._row(backend.codec) for draft in drafts)  # noqa: SLF001 - of its own class
        ids = await backend.request(CreateBatches(batches))
        handles = [handle for draft in drafts for *_, handle in draft.members]
        for handle, run_id in zip(handles, ids, strict=True):
            handle.id = run_id
        for draft in drafts:
            draft.created = True

    def _walk(self) -> Iterator[Draft]:
        """It, and what is nested in it: outer ones first."""
        yield self
        for each in self.nested:
            yield from each._walk()  # noqa: SLF001 - of its own class

    def _row(self, codec: Codec) -> NewBatch:
        callbacks = {event: tuple(new for new, _ in made) for event, made in self.callbacks.items()}
        contents = contents_digest(self._contents(codec)) if self.chosen_id else None
        runs = tuple(new for new, *_ in self.members)
        return NewBatch(self.batch_id, self.parent, self.description, self.labels, contents, runs, **callbacks)

    def _contents(self, codec: Codec) -> list[Any]:
        def brief(new: NewRun, op: RunOp[Any]) -> list[Any]:
            return [new.workflow, call_digest(op, new.started.value or "", codec), new.key]

        return batch_contents(
            self.description,
            self.labels,
            {event: [brief(new, op) for new, op in made] for event, made in self.callbacks.items()},
            [brief(new, op) for new, op, _ in self.members],
            [each._contents(codec) for each in self.nested],  # noqa: SLF001 - of its own class
        )


def batch_contents(
    description: str,
    labels: Mapping[str, str],
    callbacks: Mapping[str, list[list[Any]]],
    members: list[list[Any]],
    nested: list[list[Any]],
) -> list[Any]:
    """What equal batches have in common, whichever engine makes them: of a run what it calls, and its key."""
    return [description, dict(labels), dict(callbacks), members, nested]


def contents_digest(contents: list[Any]) -> str:
    """By which a batch is known again that is made again under its id."""
    text = json.dumps(contents, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def callbacks_of(backend: Backend, ops: Callbacks) -> list[tuple[NewRun, RunOp[Any]]]:
    """
    The templates of callbacks, each with its call.

    A key of their definition does not count: they are started once by their batch.

    Raises:
        UsageError: One has a key or id of its own.
        TypeError: One is not a call of a workflow or job.
    """
    return [(evolve(backend.template(op), key=None, key_ttl=None, arguments=""), op) for op in callback_ops(ops)]


def callback_ops(ops: Callbacks) -> list[RunOp[Any]]:
    """
    The calls that *ops* are: one, several or none.

    Raises:
        UsageError, TypeError: As `callbacks_of`.
    """
    found: Any = ops
    if isinstance(found, Command) or not isinstance(found, Iterable):
        found = [] if found is None else [found]
    listed: list[RunOp[Any]] = list(found)
    return [_without_identity(op) for op in map(with_options, listed)]


def _without_identity(op: RunOp[Any]) -> RunOp[Any]:
    if op.given.id is not None or op.given.key is not None:
        msg = f"callback {op.describe()} takes neither id nor key: its batch starts it once, whatever else runs"
        raise UsageError(msg)
    return op
