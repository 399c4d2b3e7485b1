"""
`engine.events()`: what happens, for dashboards and metrics.

Taken from what commits caused, so an event is published once it is on disk. Subscribers never
hold anything up: a slow one loses its oldest events, and its next one says how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Literal, TypeAlias
from weakref import WeakSet

from attrs import evolve, frozen

from durable._core.ports import Clock
from durable._shell.rows.rows import Effects, Notice

#: Events kept for one slow subscriber: some seconds of a busy engine.
BUFFERED = 10_000


#: ready: a run was created, or woken; started: its first turn is on disk; waiting: it was freed.
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
    "step.attempt_failed",
    "batch.failed",
    "batch.complete",
    "batch.finished",
]
#: As a commit tells them.
_BATCH_EVENTS: Mapping[str, EventName] = {
    "failed": "batch.failed",
    "complete": "batch.complete",
    "finished": "batch.finished",
}


@frozen
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
    #: Of the failed attempt, for ``step.attempt_failed``; None otherwise.
    step: str | None = None
    position: str | None = None
    attempt: int | None = None


class _Subscription:
    def __init__(self) -> None:
        self.buffer: deque[EngineEvent] = deque(maxlen=BUFFERED)
        self.lost = 0
        self.closed = False
        #: What is raised at the end, if the engine failed.
        self.error: Exception | None = None
        self.wake = asyncio.Event()

    def put(self, event: EngineEvent) -> None:
        if len(self.buffer) == BUFFERED:
            self.lost += 1
        self.buffer.append(event)
        self.wake.set()


class Broadcast:
    """The subscribers of one engine, while it is open."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Weak: a reader that gives up before its first event closes nothing.
        self._subscriptions: WeakSet[_Subscription] = WeakSet()

    @property
    def has_readers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._subscriptions)

    def publish(self, effects: Effects) -> None:
        """Tell the subscribers what a commit group caused."""
        if not self._subscriptions:
            return
        now = self._clock.now()
        events = [
            _noticed(notice, now)
            for notice in effects.notices
            if notice.name != "run.waiting" or notice.run not in effects.kept
        ]
        events += [EngineEvent("run.ready", ready.run_id, ready.workflow, now) for ready in effects.ready]
        events += [EngineEvent(_named(run.status), run.run_id, run.workflow, now) for run in effects.ended]
        events += [EngineEvent(_named(run.status), run.run_id, run.workflow, now) for run in effects.stopped]
        events += [EngineEvent(_BATCH_EVENTS[batch.name], batch.batch_id, "", now) for batch in effects.batches]
        for subscription in self._subscriptions:
            for event in events:
                subscription.put(event)

    def subscribe(self) -> AsyncIterator[EngineEvent]:
        """Events from this moment on."""
        subscription = _Subscription()
        self._subscriptions.add(subscription)
        return self._iterate(subscription)

    async def _iterate(self, subscription: _Subscription) -> AsyncIterator[EngineEvent]:
        try:
            while True:
                while subscription.buffer:
                    event = subscription.buffer.popleft()
                    if subscription.lost:
                        event = evolve(event, lost=subscription.lost)
                        subscription.lost = 0
                    yield event
                if subscription.error is not None:
                    raise subscription.error
                if subscription.closed:
                    return
                subscription.wake.clear()
                await subscription.wake.wait()
        finally:
            self._subscriptions.discard(subscription)

    def close(self, error: Callable[[], Exception] | None = None) -> None:
        """End all subscriptions; each with an *error* of its own, if the engine failed."""
        for subscription in self._subscriptions:
            subscription.closed = True
            subscription.error = subscription.error or (error and error())
            subscription.wake.set()


def _named(status: str) -> EventName:
    return f"run.{status}"  # type: ignore[return-value]  # those that commits tell of are all in the list


def _noticed(notice: Notice, now: float) -> EngineEvent:
    event = EngineEvent(notice.name, notice.run_id, notice.workflow, now)
    failed = notice.failed
    if failed is None:
        return event
    return evolve(event, step=failed.step, position=failed.position, attempt=failed.attempt)
