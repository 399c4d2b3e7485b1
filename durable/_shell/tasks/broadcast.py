"""
`engine.events()`: what happens, for dashboards and metrics.

Taken from what commits caused, so an event is published once it is on disk. Subscribers never
hold anything up: a slow one loses its oldest events, and its next one says how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from weakref import WeakSet

from attrs import evolve

from durable._core.ports import Clock
from durable._shell.rows.engine_events import BUFFERED, EngineEvent, EventName, WantedEvents
from durable._shell.rows.rows import Effects, Notice
from durable._shell.rows.said import AttributesPublished, Emitted, ProgressMade, Said

#: As a commit tells them.
_BATCH_EVENTS: Mapping[str, EventName] = {
    "failed": "batch.failed",
    "complete": "batch.complete",
    "finished": "batch.finished",
}

#: What a turn leads to, in the words of its notices.
_BEHIND_CODE: frozenset[EventName] = frozenset({"step.started", "run.waiting"})


class _Subscription:
    def __init__(self, wanted: WantedEvents) -> None:
        self.wanted = wanted
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

    def __init__(self, clock: Clock, hear: Callable[[Sequence[EngineEvent]], None] | None = None) -> None:
        self._clock = clock
        #: Hears everything at once: middleware that wants to.
        self._hear = hear
        # Weak: a reader that gives up before its first event closes nothing.
        self._subscriptions: WeakSet[_Subscription] = WeakSet()
        #: Whether anybody listens. Asked by every turn, so that it is kept: who gave up is missed with the next commit.
        self.has_readers = False

    def publish(self, effects: Effects, names: Callable[[int], tuple[str, str] | None]) -> None:
        """Tell the subscribers what a commit group caused. *names* gives id and workflow of a run that is active."""
        if not self.has_readers and self._hear is None:
            return
        self.has_readers = bool(self._subscriptions)
        now = self._clock.now()
        created = [each for each in effects.ready if each.run in effects.begun]  # with the turns that follow
        woken = [each for each in effects.ready if each.run not in effects.begun] if created else effects.ready
        events = [EngineEvent("run.ready", ready.run_id, ready.workflow, now) for ready in created]
        events += _of_turns(effects, names, now)
        events += [EngineEvent("run.ready", ready.run_id, ready.workflow, now) for ready in woken]
        events += [EngineEvent(_named(run.status), run.run_id, run.workflow, now) for run in effects.ended]
        events += [EngineEvent(_named(run.status), run.run_id, run.workflow, now) for run in effects.stopped]
        events += [EngineEvent(_BATCH_EVENTS[batch.name], batch.batch_id, "", now) for batch in effects.batches]
        self.tell(events)

    def tell(self, events: Sequence[EngineEvent]) -> None:
        """Tell the subscribers of *events*."""
        for subscription in self._subscriptions:
            for event in filter(subscription.wanted.fits, events):
                subscription.put(event)
        if self._hear is not None:
            self._hear(events)

    def subscribe(self, wanted: WantedEvents) -> AsyncGenerator[EngineEvent]:
        """Events from this moment on."""
        subscription = _Subscription(wanted)
        self._subscriptions.add(subscription)
        self.has_readers = True
        return self._iterate(subscription)

    async def _iterate(self, subscription: _Subscription) -> AsyncGenerator[EngineEvent]:
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
            self.has_readers = bool(self._subscriptions)

    def close(self, error: Callable[[], Exception] | None = None) -> None:
        """End all subscriptions; each with an *error* of its own, if the engine failed."""
        for subscription in self._subscriptions:
            subscription.closed = True
            subscription.error = subscription.error or (error and error())
            subscription.wake.set()


def _named(status: str) -> EventName:
    return f"run.{status}"  # type: ignore[return-value]  # those that commits tell of are all in the list


def _noticed(notice: Notice, now: float) -> EngineEvent:
    step, position, attempt = notice.step, notice.position, notice.attempt
    if (failed := notice.failed) is not None:
        step, position, attempt = failed.step, failed.position, failed.attempt
    return EngineEvent(
        notice.name, notice.run_id, notice.workflow, now, step=step, position=position, attempt=attempt,
        about=notice.about, transaction=notice.transaction,
    )  # fmt: skip


def _of_turns(effects: Effects, names: Callable[[int], tuple[str, str] | None], now: float) -> list[EngineEvent]:
    """What steps said; then of each turn what it took in, what its code said, and what it led to."""
    events: list[EngineEvent] = []
    by_code: dict[str, list[EngineEvent]] = {}
    for said in effects.said:
        if (of := names(said.run)) is not None:
            is_code = isinstance(said, Emitted) and said.attempt == 0
            (by_code.setdefault(of[0], []) if is_code else events).append(_said(said, of, now))
    for notice in effects.notices:
        if by_code and notice.name in _BEHIND_CODE:
            events += by_code.pop(notice.run_id, ())
        if notice.name != "run.waiting" or notice.run not in effects.kept:
            events.append(_noticed(notice, now))
    for left in by_code.values():
        events += left
    return events


def _said(said: Said, of: tuple[str, str], now: float) -> EngineEvent:
    """What the code of a run said, *of* which id and workflow are given."""
    run_id, workflow = of
    match said:
        case Emitted():
            return EngineEvent(
                "stream.item", run_id, workflow, said.at, position=said.position, attempt=said.attempt or None,
                about=said.stream,
            )  # fmt: skip
        case ProgressMade():
            return EngineEvent("run.progress", run_id, workflow, said.progress.at, position=said.progress.position)
        case AttributesPublished():
            return EngineEvent("run.attributes", run_id, workflow, now)
