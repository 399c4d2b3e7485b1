"""
`engine.events()`: what happens, for dashboards and metrics.

Taken from what commits caused, so an event is published once it is on disk. Subscribers never
hold anything up: a slow one loses its oldest events, and its next one says how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from attrs import frozen

from durable._core.ports import Clock
from durable._shell.rows import Effects

#: Events kept for one slow subscriber: some seconds of a busy engine.
BUFFERED = 10_000


@frozen
class EngineEvent:
    """
    Something that happened to a run.

    `name` is run.ready, run.succeeded, run.failed, run.cancelled, run.paused or run.blocked.
    """

    name: str
    run_id: str
    workflow: str
    #: Epoch seconds, UTC.
    at: float
    #: Events that this subscriber lost just before this one, because it was slow.
    lost: int = 0


class _Subscription:
    def __init__(self) -> None:
        self.buffer: deque[EngineEvent] = deque(maxlen=BUFFERED)
        self.lost = 0
        self.closed = False
        self.wake = asyncio.Event()

    def put(self, event: EngineEvent) -> None:
        if len(self.buffer) == BUFFERED:
            self.lost += 1
        self.buffer.append(event)
        self.wake.set()


class Broadcast:
    """The subscribers of one engine."""

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []

    def publish(self, effects: Effects, clock: Clock) -> None:
        """Tell the subscribers what a commit group caused."""
        if not self._subscriptions:
            return
        now = clock.now()
        events = [EngineEvent("run.ready", ready.run_id, ready.workflow, now) for ready in effects.ready]
        events += [EngineEvent(f"run.{status}", run_id, name, now) for _, run_id, name, status in effects.ended]
        events += [EngineEvent(f"run.{status}", run_id, name, now) for status, run_id, name in effects.stopped]
        for subscription in self._subscriptions:
            for event in events:
                subscription.put(event)

    def subscribe(self) -> AsyncIterator[EngineEvent]:
        """Events from this moment on."""
        subscription = _Subscription()
        self._subscriptions.append(subscription)
        return self._iterate(subscription)

    async def _iterate(self, subscription: _Subscription) -> AsyncIterator[EngineEvent]:
        try:
            while True:
                while subscription.buffer:
                    event = subscription.buffer.popleft()
                    if subscription.lost:
                        event = EngineEvent(event.name, event.run_id, event.workflow, event.at, subscription.lost)
                        subscription.lost = 0
                    yield event
                if subscription.closed:
                    return
                subscription.wake.clear()
                await subscription.wake.wait()
        finally:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.closed = True
            subscription.wake.set()
