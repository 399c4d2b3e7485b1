"""
The parts of a driver, each alone: what arrived, what steps noted, executions that are kept.
"""

import asyncio

import pytest

from durable._core.journal.events import RunRetried, SignalReceived, StepStarted, StepSucceeded
from durable._core.journal.waits import Wait
from durable._core.run.decision import Decision
from durable._shell.commits.residents import Resident, Residents
from durable._shell.rows.rows import InboxItem
from durable._shell.turns.inbox import ARRIVALS_AT_ONCE, Inbox
from durable._shell.turns.notes import StepNotes

pytestmark = pytest.mark.anyio


def signal(number):
    return SignalReceived(str(number), None, 1.0)


def succeeded(position):
    return StepSucceeded(position, None, 1.0)


def started(position, name):
    return StepStarted(position, name, 1, "", "", 1.0)


class Items:
    """The inbox of a run in a file, and how it is read."""

    def __init__(self, *numbers):
        self.items = [InboxItem(number, signal(number)) for number in numbers]
        self.reads = []

    async def read(self, fn):
        after = fn.keywords["after"]
        self.reads.append(after)
        return [each for each in self.items if each.item > after]


class TestInbox:
    async def test_nothing_is_read_before_somebody_says_that_something_is_there(self):
        """A turn that only outcomes cause costs no look at the file."""
        inbox = Inbox(1)
        inbox.add(succeeded("0"))
        assert not inbox.notified
        assert inbox.take() == [succeeded("0")]
        assert not inbox.take()

    async def test_outcomes_come_before_what_is_in_the_file(self):
        """And items in the order of their numbers, each once."""
        inbox, file = Inbox(1), Items(7, 9)
        inbox.notify()
        await inbox.look(file.read)
        inbox.add(succeeded("0"))
        assert inbox.take() == [succeeded("0"), signal(7), signal(9)]
        assert inbox.upto == 9
        await inbox.look(file.read)
        assert not inbox.take()
        assert file.reads == [0, 9]

    async def test_one_turn_takes_in_no_more_than_so_many_items(self):
        """The others are there for the next turns, and nobody reads again before they are taken in."""
        inbox, file = Inbox(1), Items(*range(1, 2 * ARRIVALS_AT_ONCE + 2))
        inbox.notify()
        sizes = []
        while inbox.notified:
            await inbox.look(file.read)
            sizes.append(len(inbox.take()))
        assert sizes == [ARRIVALS_AT_ONCE, ARRIVALS_AT_ONCE, 1]
        assert file.reads == [0]

    async def test_what_was_taken_in_and_not_recorded_comes_again(self):
        """In its order, before what ended since; what is on disk does not."""
        inbox = Inbox(1)
        inbox.add(succeeded("0"))
        inbox.take()
        inbox.recorded()
        inbox.add(succeeded("1"))
        inbox.take()
        inbox.add(succeeded("2"))
        inbox.take_back()
        assert inbox.take() == [succeeded("1"), succeeded("2")]

    async def test_a_new_start_forgets_what_was_read_and_keeps_what_ended(self):
        """After a commit that failed: the file says what is in it, and steps do not run again."""
        inbox, file = Inbox(1), Items(3)
        inbox.notify()
        await inbox.look(file.read)
        inbox.add(succeeded("4"))
        inbox.take()
        inbox.take_back()
        inbox.begin([InboxItem(2, succeeded("5"))])
        assert (inbox.upto, inbox.positions()) == (0, {"4", "5"})
        assert inbox.take() == [succeeded("4"), succeeded("5")]

    @pytest.mark.parametrize("rouse", [Inbox.notify, Inbox.wake, lambda inbox: inbox.add(succeeded("0"))])
    async def test_no_waking_is_lost(self, rouse):
        """Whether it comes before the driver waits, or while it does."""
        inbox = Inbox(1)
        rouse(inbox)
        await asyncio.wait_for(inbox.wait(), 5)
        waits = asyncio.ensure_future(inbox.wait())
        await asyncio.sleep(0)
        assert not waits.done()
        rouse(inbox)
        rouse(inbox)
        await asyncio.wait_for(waits, 5)
        await asyncio.wait_for(inbox.wait(), 5)


class TestNotes:
    def test_a_step_that_left_nothing_drops_nothing(self):
        """So that most turns write nothing about notes."""
        assert StepNotes(1, None).dropped(Decision([succeeded("0")])) is None

    def test_everything_goes_when_the_run_restarts(self):
        """Its next attempt asks for everything anew."""
        dropped = StepNotes(1, None).dropped(Decision(waits=[Wait("", "restart", "", fire_at=1.0)]))
        assert dropped.everything

    def test_a_retried_run_drops_what_another_step_left_at_a_position(self):
        """The mended code may ask there for another step, for which that is no cursor."""
        notes = StepNotes(1, None)
        notes.recorded([started("0", "old"), started("1", "kept"), RunRetried(2, ["1"], at=1.0)])
        dropped = notes.dropped(Decision([started("0", "new"), started("1", "kept"), started("2", "more")]))
        assert (dropped.positions, dropped.everything) == (["0"], False)


class Closes:
    """An execution of which one can see whether it was closed."""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


class TestResidents:
    def test_the_oldest_is_closed_when_there_are_too_many(self):
        """The others stay, until somebody takes them."""
        residents = Residents(2)
        kept = [Resident(Closes(), 1, 0, 0) for _ in range(3)]
        assert all(residents.keep(run, each) for run, each in enumerate(kept))
        assert [each.execution.closed for each in kept] == [True, False, False]
        assert (residents.take(0), residents.take(1), residents.take(1)) == (None, kept[1], None)
        residents.close()
        assert [each.execution.closed for each in kept] == [True, False, True]
        assert len(residents) == 0

    def test_without_room_nothing_is_kept_nor_closed(self):
        """Whoever offered it closes it."""
        mine = Resident(Closes(), 1, 0, 0)
        assert not Residents(0).keep(1, mine)
        assert not mine.execution.closed
