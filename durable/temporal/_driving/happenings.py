"""
What happens to one run, for readers of `TemporalEngine.events()` in the process that works on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import workflow

from durable._core.journal.events import Event, SignalReceived, StepStarted, TransactionStarted
from durable._core.program.functions import Job
from durable._core.run.decision import Decision
from durable._shell.rows.engine_events import EngineEvent, EventName
from durable._shell.rows.told_events import TOLD
from durable.temporal._driving.here import RunHere, now


class Happenings:
    """What is told of a run, at most once by each worker that has it: not again where it is replayed."""

    def __init__(self, here: RunHere, *, has_begun: bool) -> None:
        self._here = here
        self._has_begun = has_begun
        #: Steps by position: name, attempt, whether it is a transaction.
        self._steps: dict[str, tuple[str, int, bool]] = {}

    def of_turn(self, decision: Decision) -> None:
        """Tell what a turn has decided."""
        if self._here.setup.happened is not None:
            self._tell(list(self._in_order(decision)))

    def of_run(self, name: EventName) -> None:
        """Tell that a run was paused, or is blocked."""
        if self._here.setup.happened is not None:
            self._tell([self._event(name)])

    def _in_order(self, decision: Decision) -> Iterator[EngineEvent]:
        if not self._has_begun:
            self._has_begun = True
            yield self._event("run.started")
        for failed in decision.failed_attempts:
            yield self._event("step.attempt_failed", step=failed.step, position=failed.position, attempt=failed.attempt)
        if not isinstance(self._here.definition, Job):
            for event in decision.events:
                yield from self._of_event(event)
        if decision.progress is not None:
            yield self._event("run.progress", position=decision.progress.position)
        for stream, position, _ in decision.emitted:
            yield self._event("stream.item", position=position, about=stream)
        if decision.ended is not None:
            yield self._event(f"run.{decision.ended}")  # type: ignore[arg-type]  # each of them is a name

    def _of_event(self, event: Event) -> Iterator[EngineEvent]:
        name = TOLD.get(type(event))
        if name is None:
            return
        if isinstance(event, (StepStarted, TransactionStarted)):
            self._steps[event.position] = event.name, event.attempt, isinstance(event, TransactionStarted)
        if isinstance(event, SignalReceived):
            yield self._event(name, about=event.name)
            return
        step, attempt, transaction = self._steps.get(event.position or "", (None, None, False))
        attempt = getattr(event, "attempt", attempt)
        yield self._event(name, step=step, position=event.position, attempt=attempt, transaction=transaction)

    def _event(
        self,
        name: EventName,
        *,
        step: str | None = None,
        position: str | None = None,
        attempt: int | None = None,
        about: str | None = None,
        transaction: bool = False,
    ) -> EngineEvent:
        here = self._here
        return EngineEvent(
            name, here.run_id, here.definition.name, now(), step=step, position=position, attempt=attempt, about=about,
            transaction=transaction,
        )  # fmt: skip

    def _tell(self, events: list[EngineEvent]) -> None:
        happened = self._here.setup.happened
        if events and happened is not None and not workflow.unsafe.is_replaying():
            happened(events)
