"""
What is written of one run: each of its decisions as a turn for the writer's thread.

A turn is made on the event loop (numbered and chained, with the runs that it starts encoded), and written by one
commit group. Turns with transactions are in `transaction_turn`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Collection, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeGuard

from attrs import evolve, field

from durable._core.journal import history
from durable._core.journal.events import (
    Event,
    RunCancelled,
    RunFailed,
    RunStarted,
    SignalReceived,
    StepStarted,
    TransactionStarted,
)
from durable._core.journal.payloads import failure_payload
from durable._core.light_frozen import light_define
from durable._core.policies.limits import Limit, LimitRef, limit_name, numbers
from durable._core.run.decision import ChildAction, Decision, Feed
from durable._core.statuses import EndStatus
from durable._core.suspicion import HOOKS
from durable._shell.commits.commits import Turn
from durable._shell.commits.witness import UNWATCHED, Watch
from durable._shell.reads.event_rows import cancel_in_inbox, load_run
from durable._shell.rows.new_runs import check_known, make_template
from durable._shell.rows.rows import (
    BEHIND_FIRST,
    Effects,
    EventTuple,
    LastTurn,
    NewFeed,
    NewRun,
    Notice,
    ReadyRun,
    TurnWrite,
    read_events,
)
from durable._shell.rows.said import Emitted, ProgressMade, Said
from durable._shell.rows.told_events import TOLD
from durable._shell.turns.attempt_runner import AttemptRunner
from durable._shell.turns.continuations import Continuations, continuations, uncalled
from durable._shell.turns.executions import AnyExecution
from durable._shell.turns.merging import merging
from durable._shell.turns.notes import StepNotes
from durable._shell.turns.services import Services
from durable._shell.writes.damage import put_back
from durable._shell.writes.deaths import acquit
from durable._shell.writes.turn_writes import TurnOutdatedError, end_undriven, write_turns
from durable._shell.writes.wakeups import await_code
from durable.errors import DefinitionError, DurableError, PoisonError

#: What one iteration of the event loop makes of a large turn: two milliseconds.
ROWS_AT_ONCE = 500
RUNS_AT_ONCE = 100
#: What one commit takes of a turn that opens very much: some milliseconds of the writer's, since a child, whose run is
#: written too, takes as long as so many rows.
ROWS_A_COMMIT = 1_500
ROWS_OF_CHILD = 10
#: How often a turn is made again because children that it was to cancel end faster than it is written; then it is
#: written all the same: those that it does not know are cancelled, too, but what follows does not wait for their ends.
MOST_OUTRUN: Final = 20

#: The rows of a decision, and the runs that it starts.
Made: TypeAlias = tuple[Sequence[EventTuple], Sequence[NewRun]]


@light_define(eq=False)
class TurnWriter:
    """Makes the turns of one run, and has them written. The only one who appends to its history."""

    _state: ReadyRun
    _notes: StepNotes
    _services: Services
    _attempts: AttemptRunner
    #: Whether the file says that the run is running.
    announced: bool = field(default=False, init=False)
    #: Signals that the code had consumed when it did the same turn before: if that was redone for the sake of
    #: signals, and it consumes no more, it is redone for no others.
    heard_before: int = field(default=-1, init=False)
    #: What the feeds would have started next that the same turn closed before, each time that it was redone for that.
    outrun: Sequence[Sequence[str]] = field(default=(), init=False)
    #: Steps that have begun while somebody listened, and their last attempts, by position.
    _steps: dict[str, tuple[str, int, bool]] = field(factory=dict, init=False)
    #: What notes that hooks of the run are called, if the last engine died.
    watch: Watch = field(default=UNWATCHED, init=False)

    def check(self, decision: Decision) -> None:
        """
        See to it that nothing of *decision* is written, which comes in parts, if a later part of it cannot be.

        Raises:
            DefinitionError: A run cannot be started: the engine was not given what it is of.
        """
        for definition in {id(child.op.definition): child.op.definition for child in decision.children}.values():
            check_known(definition, self._services.definitions)

    async def make(self, decision: Decision, now: float) -> Made:
        """
        The rows and the runs of *decision*, which `record` is to write next, made in several iterations of the loop.

        Raises:
            DurableError: A run cannot be started.
        """
        rows: list[EventTuple] = []
        children: list[NewRun] = []
        for at in range(0, len(decision.events), ROWS_AT_ONCE):
            rows += self._state.append(decision.events[at : at + ROWS_AT_ONCE])
            await asyncio.sleep(0)
        for at in range(0, len(decision.children), RUNS_AT_ONCE):
            children += [self._child(action, now) for action in decision.children[at : at + RUNS_AT_ONCE]]
            await asyncio.sleep(0)
        return rows, children

    def record(
        self,
        decision: Decision,
        execution: AnyExecution,
        inbox_upto: int,
        now: float,
        *,
        made: Made | None = None,
        last: bool = True,
    ) -> Awaitable[bool]:
        """
        Have *decision* of *execution*, made at *now*, written.

        With it, what the inbox holds up to item *inbox_upto* is taken in. *made* is what `make` made of it, if it was
        asked; *last* is False while more of the same turn is to follow.

        Done when it is on disk: whether the run was let go of, if it waits; else something has arrived meanwhile.

        Raises:
            JournalError: It could not be written.
            TurnOutdatedError: It is to be made again with what came meanwhile: nothing of it was written.
        """
        firsts: Sequence[Turn] = ()
        if decision.ended is None:
            write = self.turn(decision, execution, inbox_upto, now, made=made, last=last)
            if decision.feeds_next and made is None and not self.is_outrun(decision):
                write.feeds_next = decision.feeds_next
            if write.children:
                firsts = self._services.begin_unborn(write.children)
        else:
            with self.watch.turn:  # hooks are asked what follows
                write = self.turn(decision, execution, inbox_upto, now, made=made)
        return self._services.commits.turn(write, firsts)

    def first(self, decision: Decision | None, execution: AnyExecution, now: float) -> Turn:
        """
        What is written with the creation of a run: its first turn, made at *now*; or that it is running.

        The latter where *decision* is None, since its first turn is to follow.
        """
        decided = Decision() if decision is None else decision
        return self._services.commits.first_turn(self.turn(decided, execution, 0, now, last=decision is not None))

    def is_outrun(self, decision: Decision) -> bool:
        """Whether to make the turn of *decision* again is of no more use, see `write_turns`."""
        return len(self.outrun) >= MOST_OUTRUN or decision.feeds_next in self.outrun

    async def block(self, reason: str, running: Collection[str]) -> None:
        """
        Write that the run cannot proceed without a person; or its end, if somebody asked for that.

        Steps at the positions in *running* end by themselves, and keep their slots until then.

        Raises:
            JournalDamagedError: Not even that can be written.
        """
        now = self._services.clock.now()

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            if not self._end_if_asked(conn, now, effects):
                decision = Decision(blocked=reason)
                write_turns(conn, [self._blocking(decision, now, list(running))], effects)
                await_code(conn, self._state.run, now)

        await self._services.commits.call(insert, answers=False)

    async def put_back(self) -> bool:
        """Whether events that only stood with the run, and are another's, were given back: then it can be read."""
        return await self._services.commits.call(partial(put_back, run=self._state.run), answers=False)

    async def condemn(self, error: PoisonError, *, blocks: bool) -> None:
        """
        Write that the run fails by *error*, or *blocks*, without running its code; or its end, as in `block`.

        Its hooks are called, unless these are what kills the process.

        Raises:
            JournalDamagedError: Not even that can be written.
        """
        now, run = self._services.clock.now(), self._state.run
        payload = failure_payload(error, self._services.codec, with_traceback=False)
        end = Decision([RunFailed([], payload, now)], ended="failed", outcome=payload, reason=f"PoisonError: {error}")

        def insert(conn: sqlite3.Connection, effects: Effects) -> None:
            acquit(conn, run)
            with self.watch.hooks:
                if self._end_if_asked(conn, now, effects):
                    return
                if blocks:
                    blocked = Decision(blocked=f"{error}; resume it once that is mended")
                    write_turns(conn, [self._blocking(blocked, now, ())], effects)
                else:
                    self._end(conn, end, now, effects)

        await self._services.commits.call(insert, answers=False)

    def _blocking(self, decision: Decision, now: float, under_way: Collection[str]) -> TurnWrite:
        turn = TurnWrite(self._state, now, decision, status="blocked")
        turn.under_way = under_way
        return turn

    def _end_if_asked(self, conn: sqlite3.Connection, now: float, effects: Effects) -> bool:
        """Write the end of the run, if somebody asked for that: its clean-up cannot run."""
        asked = cancel_in_inbox(conn, self._state.run)
        if asked is None:
            return False
        events: list[Event] = [asked, RunCancelled(asked.reason, at=now)]
        self._end(conn, Decision(events, ended="cancelled", reason=asked.reason), now, effects)
        return True

    def _end(self, conn: sqlite3.Connection, end: Decision, now: float, effects: Effects) -> None:
        """Write *end*, which no execution has decided, and what it starts."""
        services = self._services
        started = self._first_event(conn)
        then = Continuations([], [])
        if started is not None and end.ended is not None:
            kill = services.witness.deaths(self._state.run, HOOKS)
            ask = uncalled if kill else continuations
            then = ask(self._state, started, end.ended, end, services)
        end_undriven(conn, self._state, end, now, then.runs, then.broken, services.allocate, effects)

    def turn(
        self,
        decision: Decision,
        execution: AnyExecution,
        inbox_upto: int,
        now: float,
        *,
        made: Made | None = None,
        last: bool = True,
    ) -> TurnWrite:
        """*decision*, ready to be written. *last* is False while more of the same turn is to follow."""
        services = self._services
        events = self._state.append(decision.events) if made is None else made[0]
        if decision.ended is None:
            write = TurnWrite(self._state, now, decision, events, inbox_upto)
            if decision.blocked is not None:
                write.status = "blocked"
            elif last and execution.idle:
                write.status = "waiting"
                if execution.ended:  # for its next attempt
                    write.unconsumed = [*execution.unanswered_requests(), *execution.unread(), *execution.late()]
            elif not self.announced:
                write.status = "running"
            if not self.announced and self._state.kind == "workflow" and self._state.timeout is not None:
                write.deadline = now + self._state.timeout
        else:
            write = LastTurn(self._state, now, decision, events, inbox_upto, decision.ended)
            write.allocate = services.allocate
            self._add_signals(write, execution)
            self._add_followers(write, execution, decision.ended)
        write.notices_of = self._notices
        notes = self._notes.dropped(decision)
        if notes is not None:
            write.notes = notes
        if decision.is_plain():
            write.is_plain = True
            if write.status is None and notes is None and not inbox_upto and events:  # nor does it begin the run
                write.is_usual = events[0][1] > BEHIND_FIRST
        else:
            self._add_rest(write, made)
        if not self.announced:
            self.announced = write.begins = True
        return write

    def _add_rest(self, write: TurnWrite, made: Made | None) -> None:
        """What few turns have, of the decision that is to be written."""
        services, decision, now = self._services, write.decision, write.at
        refusable = bool(decision.requests)
        if decision.children:
            write.children = [self._child(action, now) for action in decision.children] if made is None else made[1]
            refusable = refusable or any(child.may_be_refused for child in write.children)
        if refusable:
            write.refusal = lambda error: failure_payload(error, services.codec, with_traceback=False)
        if decision.feeds:
            write.feeds = [self._feed(feed) for feed in decision.feeds]
        if decision.slots:
            write.limits = [numbers(each.limit) for each in decision.slots if self._is_new(each.limit)]
        if decision.emitted or decision.progress is not None:
            write.said = self._said(decision, now)
        if decision.attributes is not None:
            write.attributes = merging(decision.attributes, services.codec)
        if decision.troubled and (abandoned := [step.position for step in decision.troubled if step.abandoned]):
            write.outlasting = self._attempts.outlasting(abandoned)

    def _add_signals(self, write: LastTurn, execution: AnyExecution) -> None:
        """
        The signals that nobody consumed: for the run as which it continues, or to be kept.

        Raises:
            TurnOutdatedError: The code may ask for those that came after the outcome which ended the run.
        """
        unread, late = execution.unread(), execution.late()
        if write.decision.continued is not None:
            write.unconsumed = [*unread, *late]
            return
        write.listens = execution.hears and execution.heard > self.heard_before
        if unread:
            write.unread = Counter(event.name for event in unread)
        if late:
            write.unconsumed = [*history.only(late, SignalReceived)]
            if write.listens and any(event.name not in write.unread for event in write.unconsumed):
                raise TurnOutdatedError

    def _add_followers(self, write: LastTurn, execution: AnyExecution, status: EndStatus) -> None:
        """What the end of the run starts: the run as which it continues, or its follow-ups."""
        decision = write.decision
        if decision.continued is not None:
            write.successor = self._child(decision.continued, write.at)
        elif self._state.follow_ups or execution.definition.hooks:
            found = continuations(self._state, execution.started, status, decision, self._services)
            write.follow_ups, write.broken_hooks = found.runs, found.broken

    def _is_new(self, limit: LimitRef) -> TypeGuard[Limit]:
        """Whether the opening did not see this limit, so that its numbers are still to be written."""
        if limit_name(limit) in self._services.limits:
            return False
        if isinstance(limit, Limit):
            return True
        msg = f"limit {limit!r} is not known: list it, Engine(limits=[Limit({limit!r}, ...)])"
        raise DefinitionError(msg)

    def _first_event(self, conn: sqlite3.Connection) -> RunStarted | None:
        """How the run began, as far as that can be read."""
        try:
            rows = load_run(conn, self._state.run).rows[:1]
            (event,) = read_events(self._services.path, evolve(self._state), rows)
        except (DurableError, ValueError):
            return None
        return event if event.category == "start" else None

    def _notices(self, write: TurnWrite) -> list[Notice]:
        """What to tell those who look on."""
        decision, run, run_id, workflow = write.decision, self._state.run, self._state.run_id, self._state.workflow
        notices: list[Notice] = []
        if write.begins and not history.ends_unborn(decision.events):
            notices.append(Notice("run.started", run, run_id, workflow))
        notices += [Notice("step.attempt_failed", run, run_id, workflow, failed) for failed in decision.failed_attempts]
        if self._state.kind == "workflow":
            notices += filter(None, map(self._told, decision.events))
        if write.status == "waiting":
            notices.append(Notice("run.waiting", run, run_id, workflow))
        return notices

    def _told(self, event: Event) -> Notice | None:
        """What to tell of an event of a workflow: about its steps, and the signals that reach it."""
        state, name = self._state, TOLD.get(type(event))
        if name is None:
            return None
        if isinstance(event, (StepStarted, TransactionStarted)):
            self._steps[event.position] = event.name, event.attempt, isinstance(event, TransactionStarted)
        if isinstance(event, SignalReceived):
            return Notice(name, state.run, state.run_id, state.workflow, about=event.name)
        step, attempt, transaction = self._steps.get(event.position or "", (None, None, False))
        return Notice(
            name, state.run, state.run_id, state.workflow, step=step, position=event.position,
            attempt=getattr(event, "attempt", attempt), transaction=transaction,
        )  # fmt: skip

    def _child(self, action: ChildAction, now: float) -> NewRun:
        return self._services.new_run(
            action.op,
            now,
            run_id=action.run_id,
            parent=self._state.run,
            position=action.position,
            arguments=action.arguments,
            keys=action.keys,
            carried=self._state.carried,
        )

    def _feed(self, feed: Feed) -> NewFeed:
        services = self._services
        template = make_template(
            feed.op, definitions=services.definitions, codec=services.codec, carried=self._state.carried
        )
        return NewFeed(feed, template, [services.allocate() for _ in feed.children])

    def _said(self, decision: Decision, now: float) -> list[Said]:
        run = self._state.run
        said: list[Said] = [
            Emitted(run, stream, position, 0, value, now) for stream, position, value in decision.emitted
        ]
        if decision.progress is not None:
            said.append(ProgressMade(run, decision.progress))
        return said
