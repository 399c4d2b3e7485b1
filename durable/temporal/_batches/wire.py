"""
What travels about batches: how one is made, what is added to it, and how it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from attrs import asdict, field, frozen

from durable._core.codec.json_text import dumps, loads
from durable._core.statuses import EndStatus
from durable._shell.rows import templates
from durable._shell.rows.rows import NewRun

#: The type of its workflow; its query, its updates; the type of the error of one that is over.
BATCH: Final = "durable.batch"
INFO: Final = "durable.batch_info"
ADD: Final = "durable.batch_add"
CANCEL: Final = "durable.batch_cancel"
REOPEN: Final = "durable.batch_reopen"
WHOLE: Final = "durable.batch_whole"
CLOSED: Final = "durable.batch_closed"

#: What a batch starts: when all have succeeded, when the first has failed, when all have ended.
Event: TypeAlias = Literal["on_success", "on_failure", "on_complete"]


@frozen
class NewBatch:
    """A batch that is to be made, with all that is in it."""

    batch_id: str
    description: str = ""
    labels: Mapping[str, str] = field(factory=dict)
    #: The ids of those that it is nested in, the innermost first.
    ancestors: tuple[str, ...] = ()
    members: Sequence[NewRun] = ()
    callbacks: Mapping[str, Sequence[NewRun]] = field(factory=dict)
    nested: Sequence[NewBatch] = ()


def batch_text(new: NewBatch) -> str:
    """A batch as the argument of its workflow."""
    return dumps(_to_plain(new))


def batch_in(text: str) -> NewBatch:
    """What `batch_text` wrote."""
    return _from_plain(loads(text))


def _to_plain(new: NewBatch) -> dict[str, Any]:
    return {
        "batch_id": new.batch_id,
        "description": new.description,
        "labels": dict(new.labels),
        "ancestors": list(new.ancestors),
        "members": templates.to_json(new.members),
        "callbacks": {event: templates.to_json(made) for event, made in new.callbacks.items()},
        "nested": [_to_plain(each) for each in new.nested],
    }


def _from_plain(plain: Mapping[str, Any]) -> NewBatch:
    return NewBatch(
        plain["batch_id"],
        plain["description"],
        plain["labels"],
        tuple(plain["ancestors"]),
        templates.from_json(plain["members"]),
        {event: templates.from_json(made) for event, made in plain["callbacks"].items()},
        [_from_plain(each) for each in plain["nested"]],
    )


@frozen
class BatchState:
    """How a batch stands. Instants are epoch seconds."""

    batch_id: str
    description: str
    labels: Mapping[str, str]
    parent: str | None
    members: Mapping[str, str]
    created_at: float
    cancelled_at: float | None
    reason: str | None
    completed_at: float | None
    finished_at: float | None
    outcome: EndStatus | None
    #: How each nested batch and callback has ended, or "pending"; and what was started.
    nested: Mapping[str, str] = field(factory=dict)
    callbacks: Mapping[str, str] = field(factory=dict)
    begun: Sequence[str] = ()


@frozen
class Reopening:
    """What of a batch has been begun again, or is to be begun again by it."""

    #: Members and callbacks that were: ids of their workflows on the server, by their own.
    runs: Mapping[str, str] = field(factory=dict)
    #: Members that the server has never heard of.
    unknown: Sequence[str] = ()
    #: Nested batches.
    nested: Sequence[str] = ()


def reopening_text(reopening: Reopening) -> str:
    """As it travels."""
    return dumps(asdict(reopening))


def reopening_in(text: str) -> Reopening:
    """What `reopening_text` wrote."""
    return Reopening(**loads(text))


def state_text(state: BatchState) -> str:
    """A state as the answer to a query."""
    return dumps(asdict(state, recurse=False))


def state_in(text: str) -> BatchState:
    """What `state_text` wrote."""
    return BatchState(**loads(text))
