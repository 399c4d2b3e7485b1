"""
What arrived for one run and is not part of its history yet.

Two sources: the run's inbox in the file (signals, timers, ends of children, cancels), and the outcomes of its
steps, which stay in memory until a turn takes them in. What a turn has taken in comes again if that turn is not
recorded. If the run has to stop, its outcomes go into the file, so that the history stays closed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from attrs import field

from durable._core.journal.events import Event
from durable._core.light_frozen import light_define
from durable._core.program.saying import ROOM
from durable._core.run.decision import added
from durable._shell.commits.commits import Commits
from durable._shell.reads.event_rows import load_items
from durable._shell.rows.rows import Effects, InboxItem
from durable._shell.writes.wakeups import put_back

T = TypeVar("T")

#: Arrivals that one turn takes in: what more there is follows in the next ones, so that neither the
#: event loop nor the writer is held for long when thousands of children have ended.
ARRIVALS_AT_ONCE = 250


class Read(Protocol):
    """Runs a function on the reader's connection, for as long as that is of use."""

    async def __call__(self, fn: Callable[[sqlite3.Connection], T], /) -> T: ...


@light_define(eq=False)
class Inbox:
    """The arrivals of one run, in their order."""

    _run: int
    #: The newest item that was taken in: with that turn, it and those before it are done with.
    upto: int = field(default=0, init=False)
    #: Whether the file holds items that were not taken in.
    notified: bool = field(default=False, init=False)
    #: How steps ended, as far as no turn has taken that in.
    outcomes: Sequence[Event] = field(default=(), init=False)
    #: Outcomes that were taken in and are not on disk yet.
    _unrecorded: Sequence[Event] = field(default=(), init=False)
    #: Items that were read and not taken in.
    _backlog: Sequence[InboxItem] = field(default=(), init=False)
    #: Whether `wake` was called while nobody waited; and what those wait for who do. An `asyncio.Event` would be made
    #: for each job, whose driver never waits.
    _woken: bool = field(default=False, init=False)
    _waiter: asyncio.Future[None] | None = field(default=None, init=False)

    # --- for who has something -----------------------------------------------------------------------

    def notify(self) -> None:
        """Something is in the file."""
        self.notified = True
        self.wake()

    def add(self, outcome: Event) -> None:
        """A step has ended."""
        self.outcomes = added(self.outcomes, outcome) if self.outcomes else [outcome]
        self.wake()

    def wake(self) -> None:
        """Let `wait` return, or the next one."""
        if self._waiter is None or self._waiter.done():
            self._woken = True
        else:
            self._waiter.set_result(None)

    # --- for the driver --------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of that a turn could take in."""
        return not (self.outcomes or self.notified or self._backlog)

    def wait(self) -> Awaitable[None]:
        """Done once something may have arrived since it was done last. To be awaited at once."""
        if self._woken:
            self._woken = False
            return ROOM
        if self._waiter is None or self._waiter.done():
            self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def begin(self, items: Sequence[InboxItem]) -> None:
        """Start anew with *items*, all that the file holds."""
        self.upto = 0
        self._backlog = items

    def positions(self) -> set[str | None]:
        """The positions of what is here to be taken in."""
        return {each.event.position for each in self._backlog} | {event.position for event in self.outcomes}

    async def look(self, read: Read) -> None:
        """Find out what is in the file, once all that was read has been taken in."""
        self.notified = False
        if not self._backlog:
            self._backlog = await read(partial(load_items, run=self._run, after=self.upto))

    def take(self) -> Sequence[Event]:
        """What the next turn is to take in, if anything: outcomes, then items, of each not too many."""
        arrived = self._unrecorded = self.outcomes
        self.outcomes = ()
        if len(arrived) > ARRIVALS_AT_ONCE:
            arrived, self.outcomes = arrived[:ARRIVALS_AT_ONCE], arrived[ARRIVALS_AT_ONCE:]
            self._unrecorded = arrived
            return arrived
        return [*arrived, *self.take_items()] if self._backlog else arrived

    def take_items(self) -> list[Event]:
        """The first items of those that were read."""
        taken, self._backlog = self._backlog[:ARRIVALS_AT_ONCE], self._backlog[ARRIVALS_AT_ONCE:]
        if taken:
            self.upto = taken[-1].item
        self.notified |= bool(self._backlog)
        return [each.event for each in taken]

    def take_all(self) -> list[Event]:
        """All that is here, however much it is: outcomes, and the items that were read."""
        self._unrecorded, self.outcomes = self.outcomes, ()
        arrived = [*self._unrecorded, *(each.event for each in self._backlog)]
        if self._backlog:
            self.upto = self._backlog[-1].item
        self._backlog = ()
        return arrived

    def recorded(self) -> None:
        """The outcomes that were taken in are on disk."""
        self._unrecorded = ()

    def take_back(self) -> None:
        """The outcomes that were taken in are not on disk, and come again."""
        if self._unrecorded:
            self.outcomes = [*self._unrecorded, *self.outcomes]
            self._unrecorded = ()
        if self.outcomes:
            self.wake()

    async def put_back(self, commits: Commits) -> None:
        """Keep the outcomes in the file, for when the run continues."""
        run = self._run
        outcomes = self._unrecorded = self.outcomes
        self.outcomes = ()

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            put_back(conn, run, outcomes, effects)
            effects.arrived.discard(run)

        await commits.call(insert, answers=False)
        self.recorded()
