"""
What arrived for one run and is not part of its history yet.

Two sources: the run's inbox in the file (signals, timers, ends of children, cancels), and the outcomes of its
steps, which stay in memory until a turn takes them in. What a turn has taken in comes again if that turn is not
recorded. If the run has to stop, its outcomes go into the file, so that the history stays closed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from durable._core.journal.events import Event
from durable._shell.reads.event_rows import load_items
from durable._shell.rows.rows import Effects, InboxItem
from durable._shell.turns.commits import Commits
from durable._shell.writes.wakeups import put_back

T = TypeVar("T")

#: Arrivals that one turn takes in: what more there is follows in the next ones, so that neither the
#: event loop nor the writer is held for long when thousands of children have ended.
ARRIVALS_AT_ONCE = 250


class Read(Protocol):
    """Runs a function on the reader's connection, for as long as that is of use."""

    async def __call__(self, fn: Callable[[sqlite3.Connection], T], /) -> T: ...


class Inbox:
    """The arrivals of one run, in their order."""

    def __init__(self, run: int) -> None:
        self._run = run
        #: The newest item that was taken in: with that turn, it and those before it are done with.
        self.upto = 0
        #: Whether the file holds items that were not taken in.
        self.notified = False
        #: How steps ended, as far as no turn has taken that in.
        self.outcomes: list[Event] = []
        #: Outcomes that were taken in and are not on disk yet.
        self._unrecorded: list[Event] = []
        #: Items that were read and not taken in.
        self._backlog: Sequence[InboxItem] = ()
        self._wake = asyncio.Event()

    # --- for who has something -----------------------------------------------------------------------

    def notify(self) -> None:
        """Something is in the file."""
        self.notified = True
        self._wake.set()

    def add(self, outcome: Event) -> None:
        """A step has ended."""
        self.outcomes.append(outcome)
        self._wake.set()

    def wake(self) -> None:
        """Let `wait` return although nothing arrived."""
        self._wake.set()

    # --- for the driver --------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Return once something arrived since the last look; now and then, although nothing did."""
        await self._wake.wait()
        self._wake.clear()

    def begin(self, items: Sequence[InboxItem]) -> None:
        """Start anew with *items*, all that the file holds."""
        self.upto = 0
        self._backlog = items

    def positions(self) -> set[str | None]:
        """The positions of what is here to be taken in."""
        return {each.event.position for each in self._backlog} | {event.position for event in self.outcomes}

    async def take(self, read: Read) -> list[Event]:
        """What the next turn is to take in, if anything: outcomes first, and not too many items."""
        arrived = self._unrecorded = self.outcomes
        self.outcomes = []
        if not self.notified:
            return arrived
        self.notified = False
        if not self._backlog:
            self._backlog = await read(partial(load_items, run=self._run, after=self.upto))
        return [*arrived, *self.take_items()]

    def take_items(self) -> list[Event]:
        """The first items of those that were read."""
        taken, self._backlog = self._backlog[:ARRIVALS_AT_ONCE], self._backlog[ARRIVALS_AT_ONCE:]
        if taken:
            self.upto = taken[-1].item
        self.notified |= bool(self._backlog)
        return [each.event for each in taken]

    def take_all(self) -> list[Event]:
        """All that is here, however much it is: outcomes, and the items that were read."""
        self._unrecorded, self.outcomes = self.outcomes, []
        arrived = [*self._unrecorded, *(each.event for each in self._backlog)]
        if self._backlog:
            self.upto = self._backlog[-1].item
        self._backlog = ()
        return arrived

    def recorded(self) -> None:
        """The outcomes that were taken in are on disk."""
        self._unrecorded = []

    def take_back(self) -> None:
        """The outcomes that were taken in are not on disk, and come again."""
        self.outcomes[:0] = self._unrecorded
        self._unrecorded = []
        if self.outcomes:
            self._wake.set()

    async def put_back(self, commits: Commits) -> None:
        """Keep the outcomes in the file, for when the run continues."""
        run = self._run
        outcomes = self._unrecorded = self.outcomes
        self.outcomes = []

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            put_back(conn, run, outcomes, effects)
            effects.arrived.discard(run)

        await commits.call(insert, answers=False)
        self.recorded()
