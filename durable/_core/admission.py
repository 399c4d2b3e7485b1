"""
Which runs may become active: queues, their slots and rates, and the engine's own slots.

Pure: it holds candidates and counts, and says who is next; the scheduler acts. A run takes one
slot of its queue and one of the engine while it is *active* (a step of it runs, or a turn is
due). A run that waits for children, timers or signals has none, so parents never starve their
children: depth 50 works on one slot. A queue's rate bounds how many of its runs *begin*; one that
was woken has begun before, and passes.

Fairness: runs of one queue go by priority, then by their `place`, then by age. A place is the
start tag of start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM
1996), given when the run is due: when it is created, or its delay is over. Virtual time is the highest
place admitted so far; runs of a group (those with one value of the label that the queue is `fair_by`; else the
children of one parent, or the runs of one workflow) get places one after the
other, and none before the virtual time. So 10,000 queued runs of A do not delay 10 of B: B's
begin at today's virtual time, and the two alternate. Within a group order is that of becoming due.
A woken run keeps its place, which is lower than that of any run that has not begun: what has begun is
finished first.

Memory is bounded: a queue keeps at most `CANDIDATES` runs here, those that go first; the rest are
rows, fetched when these are used up.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Final, Generic, TypeVar

from attrs import field

from durable._core.light_frozen import late_frozen, light_define
from durable._core.policies.limits import Rate, check_count, check_rate
from durable._core.program.definition import check_name
from durable.errors import DefinitionError

R = TypeVar("R")

#: Ready runs of one queue that are kept in memory. Enough to keep a thousand slots busy
#: between two look-ups; 100,000 queued jobs stay rows.
CANDIDATES = 1_000
#: Groups whose last place is remembered. One that is forgotten begins at the virtual time again.
GROUPS = 10_000
#: Places to a second of real time: a virtual time that begins with the clock is ahead of every
#: place given before, as long as fewer runs than this are created a second.
_PLACES_A_SECOND = 1e6


@late_frozen
class Queue:
    """
    A named lane of runs: ``Engine(queues=[Queue("mail", 5)])``. One that is not listed has no limits of its own.

    Args:
        name: As in ``@job(queue=...)``.
        concurrency: Runs of this queue active at once; None leaves it to the engine's.
        rate: How many of its runs may begin in a window of time; one that resumes does not count.
        fair_by: A label: its values take turns, however many runs each of them has in line. Without it, or among the
            runs that do not have it, the workflows do, and the children of different parents.

    Raises:
        DefinitionError: One of these is no such thing.

    Example:
        >>> @job(queue="mail")
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome], queues=[Queue("mail", concurrency=5)]) as engine:
        ...     await engine.run(welcome("ada"))
        'welcome, ada'
    """

    name: str
    concurrency: int | None = None
    rate: Rate | None = field(default=None, kw_only=True)
    fair_by: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.fair_by is not None:
            check_name(f"queue {self.name!r}: fair_by", self.fair_by)
            if '"' in self.fair_by:
                msg = f"queue {self.name!r}: fair_by is a label without quotes, found {self.fair_by!r}"
                raise DefinitionError(msg)
        if self.concurrency is not None:
            check_count(f"queue {self.name!r}: concurrency", self.concurrency)
        check_rate(f"queue {self.name!r}", self.rate)


#: Begins the name of a group that shares a value of a label: no workflow is called so.
BY_LABEL: Final = "\n"


class Places:
    """
    Gives runs that are due their places in the lines of their queues.

    Two threads may ask at once: that of the event loop for what is started, the writer's for what comes due. Each
    step is one operation of a dict, so at worst two runs get one place, and the older of them goes first.
    """

    def __init__(self, now: float = 0.0, fair_by: Mapping[str, str] | None = None) -> None:
        """*fair_by*: the labels whose values take turns, by queue."""
        self._base = now * _PLACES_A_SECOND
        self._fair_by = fair_by or {}
        self._virtual: dict[str, float] = {}
        # Apart, so that many parents do not push out the few workflows (or values of labels), whose order must hold.
        self._workflows: OrderedDict[tuple[str, Hashable], float] = OrderedDict()
        self._parents: OrderedDict[tuple[str, Hashable], float] = OrderedDict()

    def place(self, queue: str, workflow: str, parent: int | None, labels: Mapping[str, str]) -> float:
        """The place of a run that is due: behind the last of its group, and not before the virtual time."""
        value = labels.get(self._fair_by[queue]) if queue in self._fair_by else None
        last: OrderedDict[tuple[str, Hashable], float] = self._workflows
        group: tuple[str, Hashable] = (queue, workflow)
        if value is not None:
            group = (queue, BY_LABEL + value)
        elif parent is not None:
            last, group = self._parents, (queue, parent)
        virtual = self._virtual.get(queue, self._base)
        found = max(virtual, last.pop(group, 0.0)) + 1
        last[group] = found
        if len(last) > GROUPS:
            last.popitem(last=False)
        return found

    def admitted(self, queue: str, place: float) -> None:
        """A run with *place* became active: virtual time is there now."""
        if place > self._virtual.get(queue, self._base):
            self._virtual[queue] = place

    def recover(self, queue: str, group: str | None, first: float, last: float) -> None:
        """
        What the file knows of a group of runs that have not begun.

        It is called as its workflow is, or `BY_LABEL` and the value of the label; None are children.
        """
        self._virtual[queue] = min(first, self._virtual.get(queue, first))
        if group is not None:
            self._workflows[queue, group] = last


#: -priority, place, ready_at, run: who goes first is the least.
_Key = tuple[int, float, float, int]


@light_define
class _Lane(Generic[R]):
    concurrency: int | None
    rate: Rate | None
    #: Candidates, the next one first. With a rate, those that were woken stand apart.
    line: list[tuple[_Key, R]] = field(factory=list)
    woken: list[tuple[_Key, R]] = field(factory=list)
    known: set[int] = field(factory=set)
    active: int = 0
    paused: bool = False
    #: Set when the file holds ready runs that are not here.
    more: bool = False
    #: When the latest runs began, as many as the rate counts.
    starts: deque[float] = field(factory=deque)

    def is_open(self) -> bool:
        return not self.paused and (self.concurrency is None or self.active < self.concurrency)

    def opens_at(self, now: float) -> float | None:
        """When the rate lets the next run begin; None is now."""
        if self.rate is None or len(self.starts) < self.rate.count:
            return None
        # the clock was set back: starts in the future would keep the queue closed for as long
        if self.starts[-1] > now:
            self.starts = deque(min(at, now) for at in self.starts)
        due = self.starts[0] + self.rate.per
        return due if due > now else None

    def next(self, now: float) -> list[tuple[_Key, R]] | None:
        """The line whose first candidate is the next to be admitted; None if there is none."""
        if not self.is_open():
            return None
        if self.woken and not (self.line and self.line[0][0] < self.woken[0][0] and self.opens_at(now) is None):
            return self.woken
        return self.line if self.line and self.opens_at(now) is None else None

    def note_start(self, now: float) -> None:
        if self.rate is not None:
            self.starts.append(now)
            if len(self.starts) > self.rate.count:
                self.starts.popleft()


class Admission(Generic[R]):
    """Candidates and slots of all queues."""

    def __init__(self, queues: Iterable[Queue], concurrency: int, places: Places | None = None) -> None:
        check_count("Engine(concurrency=)", concurrency)
        self._queues: dict[str, Queue] = {}
        for queue in queues:
            if self._queues.setdefault(queue.name, queue) != queue:
                msg = f"two different queues are called {queue.name!r}: {self._queues[queue.name]!r} and {queue!r}"
                raise DefinitionError(msg)
        self._concurrency = concurrency
        self._places = places or Places()
        self._lanes: dict[str, _Lane[R]] = {}
        self._order: list[str] = []
        self._active: dict[int, str] = {}

    @property
    def active(self) -> int:
        """Runs that hold a slot."""
        return len(self._active)

    def offer(
        self, queue: str, run: int, priority: int, ready_at: float, item: R, *, place: float = 0.0, begun: bool = False
    ) -> None:
        """A run is ready: keep it as a candidate, or remember that the file holds more."""
        lane = self._lane(queue)
        if run in lane.known or run in self._active:
            return
        line = lane.woken if begun and lane.rate is not None else lane.line
        entry = ((-priority, place, ready_at, run), item)
        # While the file holds more, what comes after the last candidate may come after those too. Where
        # there is no candidate, the file will be asked.
        unknown = lane.more and not lane.line and (line is lane.line or not lane.woken)
        if unknown or (line and entry[0] > line[-1][0] and (lane.more or len(line) >= CANDIDATES)):
            lane.more = True
            return
        if len(line) >= CANDIDATES:  # full: the last one is read again later, so that memory stays bounded
            lane.more = True
            lane.known.discard(line.pop()[0][3])
        lane.known.add(run)
        insort(line, entry, key=_key)

    def found_more(self, queue: str, *, more: bool) -> None:
        """Whether the file holds ready runs of *queue* beyond those offered."""
        self._lane(queue).more = more

    def started(self, queue: str, at: Iterable[float]) -> None:
        """When the latest runs of a queue with a rate began, as the file has it."""
        lane = self._lane(queue)
        for each in sorted(at):
            lane.note_start(each)

    def wanting(self) -> list[str]:
        """Queues with a free slot and no candidate here, whose next runs are to be fetched."""
        if len(self._active) >= self._concurrency:
            return []
        return [
            name
            for name, lane in self._lanes.items()
            if lane.more and not lane.line and not lane.woken and lane.is_open()
        ]

    def admit(self, now: float) -> R | None:
        """The next run to become active, its slots taken; None if there is none. Queues take turns."""
        if len(self._active) >= self._concurrency:
            return None
        for index, name in enumerate(self._order):
            lane = self._lanes[name]
            line = lane.next(now)
            if line is not None:
                (_, place, _, run), item = line.pop(0)
                lane.known.discard(run)
                lane.active += 1
                if line is lane.line:
                    lane.note_start(now)
                self._places.admitted(name, place)
                self._active[run] = name
                # To the back of the line, so that one busy queue does not keep the others waiting.
                del self._order[index]
                self._order.append(name)
                return item
        return None

    def admit_unborn(self, queue: str, run: int, place: float) -> bool:
        """
        Take the slots for a run that is about to be created; False if it has to stand in line.

        Not where a rate counts who begins: it may come to nothing.
        """
        lane = self._lane(queue)
        waits = lane.more or lane.line or lane.woken or lane.rate is not None or not lane.is_open()
        if waits or len(self._active) >= self._concurrency:
            return False
        lane.active += 1
        self._places.admitted(queue, place)
        self._active[run] = queue
        return True

    def is_idle(self) -> bool:
        """Whether no run waits for a slot, neither here nor in the file."""
        for lane in self._lanes.values():  # noqa: SIM110 - `all` would cost each end of a run a generator
            if lane.line or lane.woken or lane.more:
                return False
        return True

    def opens_at(self, now: float) -> float | None:
        """When to look again, because a rate is all that keeps a candidate waiting."""
        if len(self._active) >= self._concurrency:
            return None
        waits = (lane.opens_at(now) for lane in self._lanes.values() if lane.line and lane.is_open())
        return min((at for at in waits if at is not None), default=None)

    def is_candidate(self, run: int) -> bool:
        """Whether *run* waits here for a slot."""
        return any(run in lane.known for lane in self._lanes.values())

    def release(self, run: int) -> None:
        """*run* is no longer active."""
        name = self._active.pop(run, None)
        if name is not None:
            self._lanes[name].active -= 1

    def withdraw(self, queue: str, run: int) -> None:
        """*run* is not a candidate any more (paused, or cancelled before it began)."""
        lane = self._lane(queue)
        if run in lane.known:
            lane.known.discard(run)
            lane.line = [entry for entry in lane.line if entry[0][3] != run]
            lane.woken = [entry for entry in lane.woken if entry[0][3] != run]

    def pause(self, queue: str, *, paused: bool) -> None:
        """Admit nothing more from *queue*, or again."""
        self._lane(queue).paused = paused

    def change(self, queue: str, numbers: Queue | None, starts: Iterable[float]) -> None:
        """
        Let other *numbers* hold for *queue*, or (None) those that it was made with; its latest runs began at *starts*.

        Its candidates are fetched again: with a rate, those that were woken stand apart.
        """
        lane = self._lane(queue)
        known = numbers or self._queues.get(queue) or Queue(queue)
        lane.concurrency, lane.rate = known.concurrency, known.rate
        lane.starts.clear()
        self.started(queue, starts)
        lane.line.clear()
        lane.woken.clear()
        lane.known.clear()
        lane.more = True

    def _lane(self, queue: str) -> _Lane[R]:
        lane = self._lanes.get(queue)
        if lane is None:
            known = self._queues.get(queue) or Queue(queue)
            lane = self._lanes[queue] = _Lane(known.concurrency, known.rate)
            self._order.append(queue)
        return lane


def _key(entry: tuple[_Key, object]) -> _Key:
    return entry[0]
