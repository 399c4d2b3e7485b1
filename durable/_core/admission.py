"""
Which runs may become active: queues, their slots, and the engine's own.

Pure: it holds candidates and counts, and says who is next; the scheduler acts. A run takes one
slot of its queue and one of the engine while it is *active* (a step of it runs, or a turn is
due). A run that waits for children, timers or signals has none, so parents never starve their
children: depth 50 works on one slot.

Memory is bounded: a queue keeps at most `CANDIDATES` runs here; the rest are rows, fetched
when these are used up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from attrs import define, field, frozen

from durable.errors import DefinitionError

R = TypeVar("R")

#: Ready runs of one queue that are kept in memory. Enough to keep a thousand slots busy
#: between two look-ups; 100,000 queued jobs stay rows.
CANDIDATES = 1_000


@frozen
class Queue:
    """
    A named lane of runs.

    Args:
        name: As in ``@job(queue=...)``.
        concurrency: Runs of this queue active at once; None leaves it to the engine's.
    """

    name: str
    concurrency: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            msg = f"queue {self.name!r}: concurrency must be at least 1, found {self.concurrency!r}"
            raise DefinitionError(msg)


@define
class _Lane(Generic[R]):
    concurrency: int | None
    heap: list[tuple[int, float, int, R]] = field(factory=list)
    known: set[int] = field(factory=set)
    active: int = 0
    paused: bool = False
    #: Set when the file holds ready runs that are not here.
    more: bool = False
    #: The place in line of the last candidate taken in.
    last: tuple[int, float, int] = (0, 0.0, 0)

    def is_open(self) -> bool:
        return not self.paused and (self.concurrency is None or self.active < self.concurrency)


class Admission(Generic[R]):
    """Candidates and slots of all queues."""

    def __init__(self, queues: Iterable[Queue], concurrency: int) -> None:
        if concurrency < 1:
            msg = f"concurrency must be at least 1, found {concurrency!r}"
            raise DefinitionError(msg)
        self._limits: Mapping[str, int | None] = {queue.name: queue.concurrency for queue in queues}
        self._concurrency = concurrency
        self._lanes: dict[str, _Lane[R]] = {}
        self._order: list[str] = []
        self._active: dict[int, str] = {}

    @property
    def active(self) -> int:
        """Runs that hold a slot."""
        return len(self._active)

    def offer(self, queue: str, run: int, priority: int, ready_at: float, item: R) -> None:
        """A run is ready: keep it as a candidate, or remember that the file holds more."""
        lane = self._lane(queue)
        if run in lane.known or run in self._active:
            return
        place = (-priority, ready_at, run)
        # While the file holds more, what comes after the last candidate may come after those too.
        if len(lane.heap) >= CANDIDATES or (lane.more and lane.heap and place > lane.last):
            lane.more = True
            if not lane.heap or place[0] >= lane.heap[-1][0]:
                return
            # It is more urgent than the leaf at the heap's end, which goes back to the file.
            lane.known.discard(lane.heap.pop()[2])
        lane.last = max(lane.last, place) if lane.heap else place
        lane.known.add(run)
        heapq.heappush(lane.heap, (*place, item))

    def found_more(self, queue: str, *, more: bool) -> None:
        """Whether the file holds ready runs of *queue* beyond those offered."""
        self._lane(queue).more = more

    def wanting(self) -> list[str]:
        """Queues with a free slot and no candidate here, whose next runs are to be fetched."""
        if len(self._active) >= self._concurrency:
            return []
        return [name for name, lane in self._lanes.items() if lane.more and not lane.heap and lane.is_open()]

    def admit(self) -> R | None:
        """The next run to become active, its slots taken; None if there is none. Queues take turns."""
        if len(self._active) >= self._concurrency:
            return None
        for index, name in enumerate(self._order):
            lane = self._lanes[name]
            if lane.heap and lane.is_open():
                _, _, run, item = heapq.heappop(lane.heap)
                lane.known.discard(run)
                lane.active += 1
                self._active[run] = name
                # To the back of the line, so that one busy queue does not keep the others waiting.
                del self._order[index]
                self._order.append(name)
                return item
        return None

    def is_candidate(self, run: int) -> bool:
        """Whether *run* waits here for a slot."""
        return any(run in lane.known for lane in self._lanes.values())

    def release(self, run: int) -> None:
        """*run* is no longer active."""
        name = self._active.pop(run, None)
        if name is not None:
            self._lanes[name].active -= 1

    def withdraw(self, queue: str, run: int) -> None:
        """*run* is no candidate any more (paused, or cancelled before it began)."""
        lane = self._lane(queue)
        if run in lane.known:
            lane.known.discard(run)
            lane.heap = [entry for entry in lane.heap if entry[2] != run]
            heapq.heapify(lane.heap)

    def pause(self, queue: str, *, paused: bool) -> None:
        """Admit nothing more from *queue*, or again."""
        self._lane(queue).paused = paused

    def _lane(self, queue: str) -> _Lane[R]:
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = _Lane(self._limits.get(queue))
            self._order.append(queue)
        return lane
