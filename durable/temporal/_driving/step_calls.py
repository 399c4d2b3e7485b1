"""
Steps of one run as activities: begun, told to end, and what comes of them.

Where another attempt is harmless, the server gives it to a worker by itself, and no event tells of it. A step that must
not run twice (``on_crash=``), or stands in line before each attempt (``limit=``), asks the core every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.exceptions import TimeoutError as ServerTimeout

from durable._core.codec.codec import Payload
from durable._core.journal.events import (
    Event,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepSnoozed,
    StepStopped,
    StepSucceeded,
)
from durable._core.policies.retry import recorded
from durable._core.run.decision import StepAction, TransactionAction
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.seam import Travelling
from durable.temporal._limits.room import Room
from durable.temporal._wire import ends
from durable.temporal._wire.payloads import (
    facts,
    failure_of,
    notes_in,
    plain_notes,
    split_arguments,
    unpacked,
)

#: A step may take this long where it has no timeout: what tells that its worker died is the heartbeat.
FOR_EVER: Final = timedelta(days=3_650)
#: How soon the server gives a step to another worker, where nobody said.
SOON: Final = RetryPolicy(initial_interval=timedelta(seconds=0.1), maximum_interval=timedelta(seconds=1))
ONCE: Final = RetryPolicy(maximum_attempts=1)


class StepCalls:
    """The activities of one run."""

    def __init__(self, here: RunHere, travelling: Travelling, room: Room) -> None:
        self._here = here
        self._travelling = travelling
        self._room = room
        self._running: dict[str, workflow.ActivityHandle[RawValue]] = {}
        #: The latest attempt of each, by position; and positions that were told to end.
        self._asked: dict[str, int] = {}
        self._told: set[str] = set()
        #: What earlier attempts have left, by position.
        self.notes: dict[str, Mapping[str, Payload]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether none is running."""
        return not self._running

    def begin(self, action: StepAction | TransactionAction) -> None:
        """Run an attempt, as soon as there is room."""
        self._asked[action.position] = action.attempt
        self._told.discard(action.position)
        self._room.begin(action.position, partial(self._begin, action))

    def cancel(self, position: str) -> None:
        """Tell the step at *position* to end; that it has is an arrival."""
        if self._room.withdraw(position):
            self._here.inbox.append(StepStopped(position, self._asked[position], abandoned=False, at=now()))
        elif (running := self._running.get(position)) is not None:
            self._told.add(position)
            running.cancel()

    def cancel_all(self) -> None:
        """Tell all to end, and hear nothing of that: the run has ended."""
        for running in self._running.values():
            running.cancel()
        self._running.clear()

    def _begin(self, action: StepAction | TransactionAction) -> None:
        here, op, position = self._here, action.op, action.position
        definition, given = op.definition, op.given
        arguments, place = self._travelling.take(position, op)
        by_server = definition.options.on_crash == "rerun" and definition.options.limit is None
        told = facts(
            {
                "position": position,
                "run_id": here.run_id,
                "attempt": action.attempt,
                "failures": action.failures,
                "first_started_at": action.first_started_at,
                "by_server": by_server,
                "labels": dict(here.new.labels),
                "batches": here.batches,
                "carried": here.new.started.carried or None,
                "place": place,
                "retry": None if given.retry is None else recorded(given.retry),
                "timeout": given.timeout,
                "notes": plain_notes(self.notes.get(position, {})),
            }
        )
        running = workflow.start_activity(
            definition.name,
            args=self._room.counted([*split_arguments(arguments), told]),
            result_type=RawValue,
            activity_id=position if action.attempt == 1 else f"{position}#{action.attempt}",
            task_queue=workflow.info().task_queue,
            start_to_close_timeout=FOR_EVER,
            heartbeat_timeout=timedelta(seconds=here.setup.worker_timeout),
            retry_policy=SOON if by_server else ONCE,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{position} {op.site[0].rpartition('/')[2]}:{op.site[1]}" if op.site else position,
        )
        self._running[position] = running
        running.add_done_callback(partial(self._ended, action))

    def _ended(self, action: StepAction | TransactionAction, running: workflow.ActivityHandle[RawValue]) -> None:
        self._room.ended()
        position = action.position
        if self._running.get(position) is not running:
            if not running.cancelled():
                running.exception()  # looked at: nobody waits for it any more
            return
        del self._running[position]
        error = CancelledError() if running.cancelled() else running.exception()
        if error is None:
            self.notes.pop(position, None)
            self._here.inbox.append(StepSucceeded(position, unpacked(running.result()), now()))
        else:
            self._here.inbox += self._outcome(action, error.cause if isinstance(error, ActivityError) else error)

    def _outcome(self, action: StepAction | TransactionAction, cause: BaseException | None) -> list[Event]:
        position, attempt, at = action.position, action.attempt, now()
        payload, told = failure_of(cause)
        if left := notes_in(told):
            self.notes[position] = left
        match cause:
            case ServerTimeout():  # no sign of life: its worker died
                if cause.last_heartbeat_details:
                    self.notes[position] = notes_in(cause.last_heartbeat_details[0])
                return [StepInterrupted(position, attempt, crashed=True, at=at)]
            case CancelledError() if position in self._told:
                return [StepStopped(position, attempt, abandoned=False, at=at)]
            case CancelledError():
                return [StepInterrupted(position, attempt, crashed=False, at=at)]
            case ApplicationError(type=ends.STOPPED):
                abandoned = bool(told.get("abandoned"))
                return [StepStopped(position, attempt, abandoned, None if abandoned else payload, at)]
            case ApplicationError(type=ends.INTERRUPTED):
                return [StepInterrupted(position, attempt, crashed=False, at=at)]
            case ApplicationError(type=ends.POISON):
                return [StepInterrupted(position, attempt + n, crashed=True, at=at) for n in range(told["crashes"])]
            case ApplicationError(type=ends.RETRYING):
                return [StepRetrying(position, attempt, at + told.get("delay", 0.0), payload, at)]
            case ApplicationError(type=ends.SNOOZED):
                return [StepSnoozed(position, attempt, at + told.get("delay", 0.0), told.get("reason", ""), at)]
            case _:
                failure = payload or ends.foreign_failure(cause, self._here.setup.codec)
                return [StepFailed(position, told.get("attempt", attempt), failure, at)]
