"""
What `events()` tells: a class, the names, and which of them a reader wants.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from durable._core.codec.exceptions.safe_text import shown
from durable._core.codec.json_text import loads
from durable._core.light_frozen import late_frozen, light_frozen
from durable.errors import DecodeError, UsageError

#: ready: a run was created, or woken; started: its first turn is on disk; waiting: it was freed.
#: Of steps: each attempt, and how it ended; of jobs, whose one step is all there is of the run, only failed attempts.
#: Those of batches: the first member failed; all have ended; their callbacks, too.
EventName: TypeAlias = Literal[
    "run.ready",
    "run.started",
    "run.waiting",
    "run.paused",
    "run.blocked",
    "run.succeeded",
    "run.failed",
    "run.cancelled",
    "run.attributes",
    "run.progress",
    "step.started",
    "step.succeeded",
    "step.failed",
    "step.retrying",
    "step.snoozed",
    "step.interrupted",
    "step.cancelled",
    "step.attempt_failed",
    "signal.received",
    "stream.item",
    "batch.failed",
    "batch.complete",
    "batch.finished",
]
#: Events kept for one slow reader: some seconds of a busy engine.
BUFFERED: Final = 10_000
NAMES: Final[frozenset[str]] = frozenset(get_args(EventName))
_GROUPS: Final = sorted({name.partition(".")[0] for name in NAMES})


@late_frozen
class EngineEvent:
    """Something that happened to a run or batch, and is on disk."""

    name: EventName
    #: Or the batch's id, for events of batches; these have no workflow.
    run_id: str
    workflow: str
    #: Epoch seconds, UTC.
    at: float
    #: Events that this subscriber lost just before this one, because it was slow.
    lost: int = 0
    #: Of the step, for ``step....``; None otherwise, or where it began before anybody listened.
    step: str | None = None
    #: Of the step, or of what emitted the item.
    position: str | None = None
    attempt: int | None = None
    #: The name of the signal that was received, or of the stream of an item.
    about: str | None = None
    #: Whether the step is a transaction.
    transaction: bool = False

    @property
    def kind(self) -> EventName:
        """As `name`: what ``events(kinds=)`` takes."""
        return self.name


@light_frozen
class WantedEvents:
    """Which events a reader wants: of one run, of one workflow, of some kinds; what is None is not asked for."""

    run_id: str | None = None
    workflow: str | None = None
    kinds: frozenset[str] | None = None

    def fits(self, event: EngineEvent) -> bool:
        """Whether *event* is one of them."""
        return (
            (self.kinds is None or event.name in self.kinds)
            and (self.run_id is None or event.run_id == self.run_id)
            and (self.workflow is None or event.workflow == self.workflow)
        )


def wanted_events(run: Any, workflow: Any, kinds: str | Iterable[str] | None) -> WantedEvents:
    """
    What `events` was given: a run or its id, a workflow or its name, names of events or the words before their dots.

    Raises:
        UsageError: There is no such event, or what was given is no run or workflow.
    """
    run_id, name = getattr(run, "id", run), getattr(workflow, "name", workflow)
    for what, found, given in (("run", run_id, run), ("workflow", name, workflow)):
        if found is not None and not isinstance(found, str):
            msg = f"events({what}=) takes a {what} or its {'id' if what == 'run' else 'name'}, found {shown(given, 60)}"
            raise UsageError(msg)
    if kinds is None:
        return WantedEvents(run_id, name)
    names: set[str] = set()
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        fitting = {each for each in NAMES if kind in (each, each.partition(".")[0])}
        if not fitting:
            msg = (
                f"events(kinds=): there is no event called {shown(kind, 60)}; there are {', '.join(sorted(NAMES))}, "
                f"and all of one kind: {', '.join(_GROUPS)}"
            )
            raise UsageError(msg)
        names |= fitting
    return WantedEvents(run_id, name, frozenset(names))


def to_text(event: EngineEvent) -> str:
    """*event* as it travels to another process."""
    return json.dumps(attrs.asdict(event))


def from_text(text: str) -> EngineEvent:
    """
    The event that `to_text` made *text* of.

    Raises:
        DecodeError: An owner of another release says something else.
    """
    try:
        return EngineEvent(**loads(text))
    except (TypeError, ValueError) as error:
        raise DecodeError("an event", "$", "one of this release", str(error)) from error
