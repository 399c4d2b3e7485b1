"""
Which run is driven next, and when the next timer fires.

The scheduler holds the drivers of active runs and little else: candidates are bounded
(`admission`), and timers are rows of which only the next deadline is known here. It never
polls: it acts on what commits caused, and sleeps until the next deadline.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial

from attrs import evolve

from durable._core.admission import CANDIDATES, Admission
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.supervision import decide
from durable._shell.claims.slots import leave_paused_queue
from durable._shell.commits.commits import Turn
from durable._shell.log import log
from durable._shell.reads import event_rows
from durable._shell.rows.new_runs import unborn
from durable._shell.rows.rows import Effects, NewRun, ReadyRun
from durable._shell.tasks.alarm import Alarm
from durable._shell.turns.driver import Driver
from durable._shell.turns.services import RELOAD_PAUSE, Services
from durable._shell.writes.wakeups import fire_apart, fire_due, let_in
from durable.errors import (
    EngineClosedError,
    JournalAccessError,
    JournalFullError,
    JournalIOError,
)

#: Timers that fire in one transaction: bounds how long it holds the writer.
TIMERS_AT_ONCE = 500
#: Runs that begin in one iteration of the event loop: each then runs its code to its first command.
BEGUN_AT_ONCE = 8
#: Times that a run is driven in vain, with nothing of it written, before it is left until the file is opened again.
VAIN_DRIVES = 3


class Scheduler:
    """Drives ready runs, within their slots, and fires timers."""

    def __init__(self, services: Services, admission: Admission[ReadyRun]) -> None:
        self._services = services
        services.begin_unborn = self.begin_unborn
        self._admission = admission
        self._drivers: dict[int, Driver] = {}
        #: Runs that became ready again while their driver was winding down.
        self._again: dict[int, ReadyRun] = {}
        #: Candidates that have something in their inbox, so that what is known of them is stale.
        self._touched: set[int] = set()
        self._refilling: set[str] = set()
        #: How often runs were driven in vain: they are ready in the file, and would be read from it again and again.
        self._in_vain: Counter[int] = Counter()
        #: Runs that were active, or had something arrive, since a refill began to read: what it has
        #: read of them may be stale.
        self._moved: set[int] = set()
        self._alarm = Alarm(services.clock)
        #: Set while more runs are to begin in the next iteration of the loop.
        self._pumping = False
        self._stopping = False
        #: That of the opening: as `Supervisor` has it.
        self._context = copy_context()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """Runs being driven."""
        return len(self._drivers)

    def name_of(self, run: int) -> tuple[str, str] | None:
        """Id and workflow of a run that is active."""
        driver = self._drivers.get(run)
        return None if driver is None else (driver.ready.run_id, driver.ready.workflow)

    def is_under_way(self, run: int) -> bool:
        """Whether *run* is active, or about to be, and its end was not reported yet."""
        driver = self._drivers.get(run)
        return self._admission.is_candidate(run) if driver is None else not driver.over

    @property
    def resident(self) -> int:
        """Freed executions kept as a cache."""
        return len(self._services.residents)

    @property
    def next_due_at(self) -> float | None:
        """When the next timer fires, as far as is known."""
        return self._alarm.at

    # --- what commits caused -----------------------------------------------------------------------

    def take(self, effects: Effects) -> None:
        """Act on what a commit group caused."""
        if effects.next_fire_at is not None:
            self._alarm.set(effects.next_fire_at)
        for run in effects.arrived:
            if driver := self._drivers.get(run):
                driver.notify()
            elif self._admission.is_candidate(run):
                self._touched.add(run)
        for ready in effects.unborn:
            self._end_unborn(ready)
        for ended in effects.ended:
            if driver := self._drivers.get(ended.run):
                driver.over = True
            self._again.pop(ended.run, None)  # asked for before that end: nobody is told of another one
        if self._refilling:
            self._moved |= effects.arrived | effects.paused
        for run in effects.paused:
            if driver := self._drivers.get(run):
                driver.stop()
            elif self._admission.is_candidate(run):
                self._touched.add(run)
            self._again.pop(run, None)
            self._services.residents.drop(run)  # it is to look at the file before it continues
        for run in effects.given_up:
            if driver := self._drivers.get(run):
                driver.interrupt()
        for queue, changed in effects.changed_queues.items():
            self._admission.change(queue, *changed)
        if effects.changed_queues:
            self._pump()
        for queue, paused in effects.queues.items():
            self.pause_queue(queue, paused=paused)
            if paused:
                self._services.activity.begin()
                self._services.spawn(self._vacate, queue)
        touched = effects.arrived | effects.paused
        for ready in effects.ready:
            if ready.run in effects.begun and ready.fresh is not None:
                continue
            # Created and written to in one group: what is known of it is stale already.
            self._offer(evolve(ready, fresh=None) if ready.run in touched else ready)
        if effects.ready:
            self._pump()

    def recover(self, queues: list[str], next_fire_at: float | None) -> None:
        """Begin with what the file says is ready: nothing is loaded before its turn comes."""
        for queue in queues:
            self._admission.found_more(queue, more=True)
        if next_fire_at is not None:
            self._alarm.set(next_fire_at)
        self._pump()

    def pause_queue(self, queue: str, *, paused: bool) -> None:
        """Admit nothing more from *queue*, or again."""
        self._admission.pause(queue, paused=paused)
        if not paused:
            self._admission.found_more(queue, more=True)
        self._pump()

    async def _vacate(self, queue: str) -> None:
        """Let the runs of a paused queue give back slots of limits: but for those that are active nobody uses them."""
        try:
            active, now = frozenset(self._drivers), self._services.clock.now()  # it admits no others

            def leave(conn: sqlite3.Connection, effects: Effects) -> None:
                let_in(conn, leave_paused_queue(conn, queue, now, effects, active=active), now, effects)

            await self._services.commits.call(leave, answers=False)
        except EngineClosedError:
            pass  # as the next opening does
        finally:
            self._services.activity.end()

    def _offer(self, ready: ReadyRun) -> None:
        if ready.run in self._drivers:
            # Its driver may have begun before we heard of the commit that created it: a refill has read it.
            self._again[ready.run] = evolve(ready, fresh=None)
        else:
            self._offer_candidate(ready)

    def _offer_candidate(self, ready: ReadyRun) -> None:
        self._admission.offer(
            ready.queue, ready.run, ready.priority, ready.ready_at, ready, place=ready.place, begun=ready.begun
        )

    def _end_unborn(self, ready: ReadyRun) -> None:
        """Drive a run to an end that comes before its beginning, without a slot."""
        if ready.run in self._drivers:
            self._again[ready.run] = evolve(ready, fresh=None)  # should its driver be winding down
        elif not self._stopping:
            self._admission.withdraw(ready.queue, ready.run)
            self._begin(ready)

    def begin_unborn(self, news: Sequence[NewRun]) -> list[Turn]:
        """
        Begin those of *news*, which are about to be created, that nothing stands before: their first turns.

        These are to be written with them. Their drivers wait for that, and end where it comes to nothing.
        """
        services = self._services
        if self._stopping or self._pumping or len(news) > BEGUN_AT_ONCE or not services.may_begin_early():
            return []
        found: list[Turn] = []
        for new in news:
            if new.kind == "workflow" and new.may_exist:
                continue  # a start that creates nothing calls none of the user's code
            if new.waits_to_begin or not self._admission.admit_unborn(new.queue, new.run, new.place):
                continue
            turn: Turn | None = None
            try:
                driver = Driver(unborn(new), services)
                context = self._context.copy()
                turn = context.run(driver.take_first_turn)
            finally:  # also where Ctrl-C strikes
                if turn is None:
                    self._admission.release(new.run)
            if turn is not None:
                self._spawn(driver, context)
                found.append(turn)
        return found

    def _begin(self, ready: ReadyRun) -> None:
        self._spawn(Driver(ready, self._services))

    def _spawn(self, driver: Driver, context: Context | None = None) -> None:
        run = driver.ready.run
        self._drivers[run] = driver
        if self._refilling:
            self._moved.add(run)
        self._idle.clear()
        self._services.activity.begin()
        if self._services.hooks.around_runs:
            self._services.spawn(self._drive_within, driver, context)
        else:
            self._services.spawn(driver.drive, self, context)

    def _pump_on(self) -> None:
        self._pumping = False
        try:
            self._pump()
        finally:
            self._services.activity.end()  # begun where this was asked for

    def _pump(self) -> None:
        if self._stopping or self._pumping or self._admission.is_idle():
            return
        now = self._services.clock.now()
        begun = 0
        while (ready := self._admission.admit(now)) is not None:
            if ready.run in self._touched:
                self._touched.discard(ready.run)
                ready = evolve(ready, fresh=None)
            self._begin(ready)
            begun += 1
            if begun == BEGUN_AT_ONCE:
                self._pumping = True
                self._services.activity.begin()
                asyncio.get_running_loop().call_soon(self._pump_on)
                return
        opens_at = self._admission.opens_at(now)
        if opens_at is not None:
            self._alarm.set(opens_at)
        for queue in self._admission.wanting():
            if queue not in self._refilling:
                self._moved.update(self._drivers)
                self._refilling.add(queue)
                self._services.activity.begin()
                self._services.spawn(self._fetch, queue)

    async def _drive_within(self, driver: Driver) -> None:
        """Have *driver* drive its run, within middleware."""
        try:
            await self._services.hooks.run(driver, self._services.spawn)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            driver.failed(error)
        finally:
            self.driven(driver)

    def driven(self, driver: Driver) -> None:
        """*driver* has ended: others may begin."""
        run = driver.ready.run
        del self._drivers[run]
        if driver.in_vain:
            self._in_vain[run] += 1
        self._admission.release(run)
        if again := self._again.pop(run, None):
            self._offer(again)
        self._pump()
        if not self._drivers:
            self._idle.set()
        self._services.activity.end()

    async def _fetch(self, queue: str) -> None:
        try:
            await self._refill(queue)
        finally:
            self._services.activity.end()

    async def _refill(self, queue: str) -> None:
        """Fetch the next candidates of a queue from the file."""
        limit = CANDIDATES + self._admission.active + len(self._in_vain)
        # Before reading: runs that become ready meanwhile and find no room say that there are more.
        self._admission.found_more(queue, more=False)
        try:
            found = await self._services.database.read(lambda conn: event_rows.ready_runs(conn, queue, limit))
        except EngineClosedError:
            return
        except Exception as error:
            if decide(error, 1) is None:
                raise
            log.warning("read.failed", queue=queue, error=one_line(error))
            await asyncio.sleep(RELOAD_PAUSE)
            self._admission.found_more(queue, more=True)
            found = []
        finally:
            self._refilling.discard(queue)
        for ready in found:
            stale = ready.fresh is not None and ready.run in self._moved
            self._offer_found(evolve(ready, fresh=None) if stale else ready)
        if not self._refilling:
            self._moved.clear()
        if len(found) == limit:  # told after they were offered: candidates behind "more" are turned away
            self._admission.found_more(queue, more=True)
        self._pump()

    def _offer_found(self, ready: ReadyRun) -> None:
        # A run that is driven already is read as ready too: it says so itself when it is again.
        if ready.run not in self._drivers and self._in_vain[ready.run] < VAIN_DRIVES:
            self._offer_candidate(ready)

    # --- timers ----------------------------------------------------------------------------------------

    async def run_timers(self) -> None:
        """Fire timers as they come due. Runs in a task of its own."""
        while await self._alarm.wait():
            with self._services.activity:
                try:
                    await self._fire(fire_due)
                except EngineClosedError:
                    return
                except BaseException:
                    self._alarm.set(self._services.clock.now())  # they are due still
                    raise
                self._pump()  # since the rate of a queue may admit more by now

    async def _fire(self, fire: Callable[..., object]) -> None:
        """Let what is due fire; where that fails because of one of them, all others."""
        services = self._services
        due = partial(fire, now=services.clock.now(), limit=TIMERS_AT_ONCE, places=services.places)
        try:
            await services.commits.call(lambda conn, effects: due(conn, effects=effects), answers=False)
        except (EngineClosedError, JournalIOError, JournalFullError, JournalAccessError):
            raise
        except Exception as error:
            if fire is fire_apart:
                raise
            log.error("timers.failed", error=one_line(error))
            await self._fire(fire_apart)

    # --- stopping ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more; running steps may end."""
        self._stopping = True
        self._alarm.stop()
        for driver in list(self._drivers.values()):
            driver.drain()

    def interrupt(self) -> None:
        """Cut off the running steps."""
        for driver in list(self._drivers.values()):
            driver.interrupt()

    async def wait_idle(self) -> None:
        """Return once no run is being driven."""
        await self._idle.wait()

    def close(self) -> None:
        """Close the executions that were kept as a cache."""
        self._services.residents.close()
