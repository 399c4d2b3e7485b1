"""
The journal of one run, as an embedded engine would have written it; and one that travels, so that its run continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from temporalio import workflow

from durable._core.journal.events import Event
from durable._core.recorded.copies import waits_of
from durable._core.recorded.export_format import Header, RunFacts, RunHistory, StepNote, export_lines, header_line
from durable._core.release import RELEASE
from durable._core.run.decision import Decision
from durable._core.statuses import Status
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.step_calls import StepCalls


@define
class Journal:
    """What is recorded of one run, and how it stands."""

    here: RunHere
    calls: StepCalls
    events: list[Event]
    #: What it has published.
    attributes: dict[str, Any] = field(factory=dict)
    #: Ids of signals that it takes no second time.
    dedups: set[str] = field(factory=set)
    is_paused: bool = False
    #: Why it is blocked, if it is.
    blocked: str | None = None
    #: When its first turn was taken.
    begun_at: float | None = None
    #: How it has ended, once it has.
    end: Decision | None = None

    @property
    def status(self) -> Status:
        """How it stands."""
        if self.end is not None and self.end.ended is not None:
            return self.end.ended
        return "blocked" if self.blocked else "paused" if self.is_paused else "waiting"

    def history(self, pending: Sequence[Event] = ()) -> RunHistory:
        """The run as an export has it; *pending*: arrivals that were taken out of its inbox, and not taken in."""
        here, new, end = self.here, self.here.new, self.end
        codec, parent = here.setup.codec, workflow.info().parent
        run = RunFacts(
            run_id=here.run_id,
            workflow=here.definition.name,
            version=new.version,
            sort=new.kind,
            status=self.status,
            created_at=self.events[0].at,
            queue=new.queue,
            priority=new.priority,
            key=new.key,
            key_live=new.key is not None,
            arguments=new.arguments or None,
            labels=new.labels,
            attributes=codec.encode(self.attributes, dict[str, Any]) if self.attributes else None,
            reason=self.blocked or (end.reason or None if end else None),
            parent=None if parent is None else parent.workflow_id,
            position=new.position,
            retry=new.retry,
            timeout=new.timeout,
            started_at=self.begun_at,
            ended_at=self.events[-1].at if end else None,
        )
        notes = [
            StepNote(position, name, value, now())
            for position, each in self.calls.notes.items()
            for name, value in each.items()
        ]
        waits = [] if end else waits_of(self.events, now())
        return RunHistory(run, [*self.events], [*pending, *here.inbox], notes, waits, dedups=sorted(self.dedups))

    def exported(self) -> str:
        """As the lines of a file."""
        at = workflow.now().isoformat(timespec="seconds")
        header = Header(RELEASE, SCHEMA_VERSION, at, runs=1)
        return "\n".join([header_line(header), *export_lines(self.history())])
