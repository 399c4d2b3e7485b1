"""
Drives one run: the turn loop, with a server around it.

The loop is that of an embedded engine's driver. What that one commits, this one gives as commands to the server, which
records them with what led to them; what that one reads back, this one is given again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias

from attrs import evolve
from temporalio import workflow
from temporalio.common import RawValue

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps, loads
from durable._core.journal import history
from durable._core.journal.events import (
    EndRequest,
    Event,
    OutcomeResolved,
    ResumeRequested,
    RunExpired,
    RunStarted,
    RunTimedOut,
    SignalReceived,
    SlotGranted,
    StepInterrupted,
    TimerFired,
)
from durable._core.journal.waits import Wait
from durable._core.policies.retry import from_record
from durable._core.program.functions import Job
from durable._core.program.ops import RunOp
from durable._core.recorded.copies import waits_of
from durable._core.recorded.export_format import RunHistory
from durable._core.run.attempts import AttemptNode
from durable._core.run.decision import ChildAction, Decision, SlotAction, StepAction, TransactionAction
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution
from durable._core.statuses import EndStatus, WaitKind
from durable._shell.log import emit, log
from durable._shell.rows.rows import NewRun, SentSignal
from durable.temporal._driving.callbacks import Callbacks
from durable.temporal._driving.child_runs import ChildRuns
from durable.temporal._driving.follow_ups import follow
from durable.temporal._driving.happenings import Happenings
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.journal import Journal
from durable.temporal._driving.questions import Questions
from durable.temporal._driving.requests import Requests
from durable.temporal._driving.seam import ServerAnswers, Travelling
from durable.temporal._driving.slots import Slots
from durable.temporal._driving.step_calls import StepCalls
from durable.temporal._driving.streams import Streams
from durable.temporal._driving.timers import Timers
from durable.temporal._limits.room import Room
from durable.temporal._limits.wire import OF_RUN
from durable.temporal._setup.setup import Setup
from durable.temporal._wire.answers import How
from durable.temporal._wire.ends import cancelled_run, failed_run
from durable.temporal._wire.items import Item
from durable.temporal._wire.journals import CARRIED, HELD, packed_journal, unpacked_journal
from durable.temporal._wire.payloads import from_plain, joined_arguments, packed, unpacked, unpacked_text
from durable.temporal._wire.starts import (
    ATTRIBUTES,
    BLOCKED,
    COMPENSATED,
    PAUSED,
    PROGRESS,
    Start,
    batches_in,
    keyed_run_id,
    make_start,
    memo_of,
    memo_of_batches,
    new_run_in,
    sent_signals,
    signals_in,
)

AnyExecution: TypeAlias = Execution | JobExecution

#: Waits of a journal's file that mean nothing here, or are set anew.
_OF_THE_FILE: Final = frozenset(("deadline", "start", "code", "expiry"))


class Driver:
    """One run, as long as a worker keeps it in memory."""

    def __init__(self, setup: Setup, args: Sequence[RawValue]) -> None:
        arguments, marked = joined_arguments(args)
        here = self._here = _run_here(setup, arguments)
        self._room = Room()
        self._travelling = Travelling(setup.registry, setup.codec)
        self._calls = StepCalls(here, self._travelling, self._room)
        self._children = ChildRuns(here, self._room)
        self._requests = Requests(here)
        self.slots = Slots(here)
        self.questions = Questions(here)
        self._timers = Timers(here)
        self._callbacks = Callbacks(here, self._timers)
        self.streams = Streams(marked)
        self._early: list[Event] = [SignalReceived(name, value, now()) for name, value in signals_in(marked)]
        carried = marked.get(CARRIED) or marked.get(HELD)
        self._carried = None if carried is None else unpacked_journal(carried)
        if self._carried is None:
            started = evolve(here.new.started, seed=here.run_id, value=arguments, at=now())
            self.journal = Journal(here, self._calls, [started])
        else:
            self.journal = self._take_journal(self._carried)
        #: Whether what came along was taken in.
        self._is_replayed = self._carried is None
        self._happenings = Happenings(here, has_begun=self._carried is not None and self.journal.begun_at is not None)
        if HELD in marked:
            self.pause()
        self._execution = self._make_execution()

    # --- what arrives from outside ------------------------------------------------------------

    def signalled(self, name: str, args: Sequence[RawValue]) -> None:
        """A signal: its payload, and the id under which it is taken once."""
        value = unpacked(args[0]) if args else "null"
        if len(args) > 1:
            dedup: str = loads(unpacked_text(args[1]))
            if dedup in self.journal.dedups:
                return
            self.journal.dedups.add(dedup)
        self._here.inbox.append(SignalReceived(name, value, now()))

    def publish(self, attributes: Any) -> None:
        """Attributes that a step has set."""
        codec = self._here.setup.codec
        self._show_attributes(codec.decode(attributes, dict[str, Any], where="attributes"))

    def pause(self) -> None:
        """Take no more turns."""
        self.journal.is_paused = True
        workflow.upsert_memo({PAUSED: packed("true")})
        self._happenings.of_run("run.paused")

    def resume(self) -> None:
        """Take turns again, also if it was blocked."""
        if self.journal.is_paused:
            self.journal.is_paused = False
            workflow.upsert_memo({PAUSED: None})
        if self.journal.blocked is not None:
            self._unblock()
            self._here.inbox.append(ResumeRequested(now()))

    def _unblock(self) -> None:
        self.journal.blocked = None
        workflow.upsert_memo({BLOCKED: None})

    def resolve(self, told: str) -> None:
        """A person says how the step ended that blocks it."""
        position, value, failed, by, reason = loads(told)
        execution = self._execution
        leaf = execution if isinstance(execution, JobExecution) else execution.leaves.get(position)
        if self.journal.blocked is None or not isinstance(leaf, (AttemptNode, JobExecution)):
            return
        self._unblock()
        attempt = leaf.state.attempt
        self._here.inbox.append(OutcomeResolved(position, attempt, failed, by, reason, from_plain(value), now()))

    def check_answer(self, token: str, how: How, payload: Payload) -> None:
        """Raise ApplicationError, if no callback of the run takes this answer."""
        execution = self._execution if self._is_replayed else None
        self._callbacks.check(execution, self.journal.events, token, how, payload)

    def answer(self, token: str, how: How, payload: Payload) -> None:
        """An answer to a callback, which was looked at."""
        self._callbacks.take(self.journal.events, token, how, payload)

    def why(self) -> str:
        """In a sentence, what it waits for."""
        journal = self.journal
        if journal.blocked:
            return f"blocked: {journal.blocked}"
        if journal.end is not None:
            return journal.status
        waits = history.open_waits(journal.events)
        parts = [
            f"{wait.kind} {wait.name or ''} at {wait.position}".replace("  ", " ") for wait in waits.timers.values()
        ]
        parts += [f"run {run_id!r} at {position}" for position, run_id in waits.children.items()]
        parts += [f"a slot of {limit!r} at {position}" for position, (limit, _) in waits.slots.items()]
        parts += [f"the step at {position}" for position, _ in self._execution.in_flight()]
        return f"{'paused; ' if journal.is_paused else ''}waits for {', '.join(parts) or 'nothing'}"

    # --- the loop ------------------------------------------------------------------------------

    async def drive(self) -> RawValue:
        """Drive the run to its end; its value."""
        here = self._here
        try:
            await self._await_beginning()
            if self._carried is not None:
                self._resume(self._carried)
            arrived, here.inbox = [*self._early, *here.inbox], []
            self._let_end(arrived)
            while True:
                if self._may_compact(arrived):
                    self._compact(arrived)
                decision = self._execution.advance(arrived, now=now())
                self.journal.events += decision.events
                self.journal.end = decision if decision.ended is not None else None
                if here.setup.told is not None:
                    here.setup.told(self.journal.history())
                self._happenings.of_turn(decision)
                self._perform(decision)
                if decision.ended is not None:
                    return await self._end(decision, decision.ended)
                if self._execution.ended:  # the whole run is tried again
                    self._stop(keep=("restart", "deadline"))
                await here.until(lambda: bool(here.inbox) and (self._takes_turns or self._is_to_end))
                arrived, here.inbox = here.inbox, []
                self._let_end(arrived)
                if self._execution.ended:
                    self._execution.close()
                    self._execution = self._make_execution()
                    self._execution.load()
        finally:
            self._execution.close()  # in dead mode: that it is evicted from the worker's cache runs nothing

    # --- a journal that came along -------------------------------------------------------------

    def _take_journal(self, carried: RunHistory) -> Journal:
        """What is known of the run from before."""
        facts, codec = carried.run, self._here.setup.codec
        self._here.run_id = facts.run_id
        self._early += carried.pending
        notes = self._calls.notes
        for note in carried.notes:
            notes[note.position] = {**notes.get(note.position, {}), note.name: note.value or "null"}
        attributes = codec.decode(facts.attributes, dict[str, Any]) if facts.attributes else {}
        journal = Journal(self._here, self._calls, [*carried.events], attributes, {*carried.dedups})
        journal.begun_at = facts.started_at
        return journal

    def _resume(self, carried: RunHistory) -> None:
        """Replay the journal that came along, and begin again what was running."""
        execution, events = self._execution, carried.events
        execution.load()
        self._is_replayed = True
        over = {event.position for event in [*carried.pending, *self._here.inbox] if event.position}
        for wait in carried.waits or waits_of(events, now()):
            if wait.position not in over and wait.kind not in _OF_THE_FILE:
                kind: WaitKind = wait.kind  # type: ignore[assignment]  # the file holds nothing else
                self._wait(Wait(wait.position, kind, wait.group, "any", wait.name, wait.target, wait.fire_at))
        for position, (limit, key) in history.open_waits(events).slots.items():
            self.slots.ask(SlotAction(position, limit, key))
        self._early += [
            StepInterrupted(position, attempt, crashed=False, at=now())
            for position, attempt in execution.in_flight()
            if position not in over
        ]

    def _may_compact(self, arrived: Sequence[Event]) -> bool:
        """Whether the server's history is long, and nothing is open there that a fresh run could not begin again."""
        info, at = workflow.info(), self._here.setup.compact_at
        is_long = info.is_continue_as_new_suggested() if at is None else info.get_current_history_length() >= at
        return (
            is_long
            and bool(arrived)
            and not self._execution.ended
            and self._calls.is_idle
            and self._children.is_idle
            and self._requests.are_sent
            and self.slots.is_idle
            and self.questions.is_idle
            and self._room.is_empty
        )

    def _compact(self, arrived: Sequence[Event]) -> NoReturn:
        """Continue as a fresh run of the server, with the journal: nothing of the run itself ends."""
        memo = {**memo_of(self._here.new), **memo_of_batches(self._here.batches)}
        if self.journal.attributes:
            memo[ATTRIBUTES] = self._encoded_attributes()
        journal = packed_journal(self.journal.history(arrived))
        workflow.continue_as_new(args=[journal, *self.streams.carried()], memo=memo)

    @property
    def _takes_turns(self) -> bool:
        return not self.journal.is_paused and self.journal.blocked is None

    @property
    def _is_to_end(self) -> bool:
        return any(isinstance(each, EndRequest) for each in self._here.inbox)

    def _let_end(self, arrived: Sequence[Event]) -> None:
        """One that is paused or blocked, and is to end, takes turns again for its clean-up."""
        if any(isinstance(each, EndRequest) for each in arrived) and not self._takes_turns:
            self.resume()
            self._taken(ResumeRequested)

    # --- until it begins -----------------------------------------------------------------------

    async def _await_beginning(self) -> None:
        """
        Return when its first turn may be taken: its delay is over, its limit has let it in, and it is not paused.

        Or when it is to end before that, because it was cancelled or has expired.
        """
        here, new, at = self._here, self._here.new, now()
        expiry = Wait("", "expiry", "", fire_at=new.expires_at)
        if new.expires_at is not None and self._carried is None:
            self._timers.arm(expiry, new.expires_at, partial(RunExpired, new.expires_at))
        if new.due_at is not None and new.due_at > at and self._carried is None:  # a client's start is delayed there
            self._timers.arm(Wait("", "start", ""), new.due_at)
            await here.until(lambda: bool(self._taken(TimerFired)) or self._is_to_end)
        limit = here.definition.options.limit
        if limit is not None and not isinstance(here.definition, Job) and not self._is_to_end:
            self.slots.ask(SlotAction(OF_RUN, limit, new.limit_key))
            await here.until(lambda: OF_RUN in self.slots.granted or self._is_to_end)
            self._taken(SlotGranted)
        await here.until(lambda: self._takes_turns or self._is_to_end)
        self._timers.disarm(expiry)
        self.journal.begun_at = self.journal.begun_at or now()
        if new.timeout is not None and new.kind == "workflow":
            over = Wait("", "deadline", "")
            self._timers.arm(over, self.journal.begun_at + new.timeout, partial(RunTimedOut, new.timeout))

    def _taken(self, kind: type[Event]) -> list[Event]:
        """Arrivals of *kind*, which are no more in the inbox."""
        inbox = self._here.inbox
        found = [each for each in inbox if isinstance(each, kind)]
        self._here.inbox = [each for each in inbox if not isinstance(each, kind)]
        return found

    def _make_execution(self) -> AnyExecution:
        here, setup, events = self._here, self._here.setup, self.journal.events
        retry = None if here.new.retry is None else from_record(here.new.retry)
        if isinstance(here.definition, Job):
            return JobExecution(
                here.definition,
                events,
                run_id=here.run_id,
                codec=setup.codec,
                crash_limit=setup.crash_limit,
                caps=setup.caps,
                retry=retry,
                timeout=here.new.timeout,
            )
        return Execution(
            here.definition,
            events,
            run_id=here.run_id,
            codec=setup.codec,
            crash_limit=setup.crash_limit,
            cleanup_seconds=setup.cleanup_seconds,
            caps=setup.caps,
            retry=retry,
            token_key=workflow.info().first_execution_run_id,
            answers=ServerAnswers,
            openers=self._travelling.openers,
        )

    # --- what was decided ----------------------------------------------------------------------

    def _perform(self, decision: Decision) -> None:
        here, children = self._here, self._children
        if decision.logs and not workflow.unsafe.is_replaying():
            emit(decision.logs, here.run_id, here.definition.name)
        for position in decision.cancelled_steps:
            self._calls.cancel(position)
        reason = getattr(self._execution, "cancel_reason", "")
        if decision.cancel_all_children:
            children.cancel_all(reason)
        for run_id in decision.cancelled_children:
            children.cancel(run_id, reason)
        for position in decision.slots_released:
            self.slots.give_back(position)
        for position in decision.feeds_closed:
            children.close_window(position, reason)
        for wait in decision.waits_closed:
            self._timers.disarm(wait)
        attempts: list[StepAction | TransactionAction] = [*decision.steps, *decision.transactions]
        for action in filter(self._is_wanted, attempts):
            self._calls.begin(action)
        for slot in decision.slots:
            self.slots.ask(slot)
        for feed in decision.feeds:
            children.open_window(feed)
        for child in decision.children:
            children.begin(child)
        for wait in decision.waits:
            self._wait(wait)
        for request in decision.requests:
            self._requests.send(request)
        for reply in decision.replies:
            self.questions.answer(reply)
        if decision.attributes is not None:
            self._show_attributes(decision.attributes)
        self.streams.take(Item(stream, position, 0, value, now()) for stream, position, value in decision.emitted)
        if decision.progress is not None:
            done = decision.progress
            workflow.upsert_memo({PROGRESS: packed(dumps([done.done, done.total, done.note, done.position, done.at]))})
        if decision.compensated is not None:
            workflow.upsert_memo({COMPENSATED: packed("true") if decision.compensated else None})
        if decision.blocked is not None:
            self._block(decision.blocked)

    def _is_wanted(self, action: StepAction | TransactionAction) -> bool:
        """Several attempts may be decided in one turn (deaths of workers, told at once): only the last is run."""
        if isinstance(self._execution, JobExecution):
            return self._execution.state.attempt == action.attempt
        leaf = self._execution.leaves.get(action.position)
        return isinstance(leaf, AttemptNode) and leaf.state.phase == "running" and leaf.state.attempt == action.attempt

    def _wait(self, wait: Wait) -> None:
        if wait.run_id is not None:
            self._children.await_end(wait, wait.run_id)
        elif wait.fire_at is not None:
            self._timers.arm(wait, wait.fire_at)

    def _show_attributes(self, values: dict[str, Any]) -> None:
        self.journal.attributes |= values
        workflow.upsert_memo({ATTRIBUTES: self._encoded_attributes()})

    def _encoded_attributes(self) -> RawValue:
        codec = self._here.setup.codec
        return packed(codec.encode(self.journal.attributes, dict[str, Any], where="attributes"))

    def _block(self, reason: str) -> None:
        self.journal.blocked = reason
        self._happenings.of_run("run.blocked")
        workflow.upsert_memo({BLOCKED: packed(dumps(reason))})
        if not workflow.unsafe.is_replaying():
            log.error("run.blocked", run_id=self._here.run_id, workflow=self._here.definition.name, reason=reason)

    def _stop(self, *, keep: Sequence[str] = ()) -> None:
        self._timers.clear(keep=keep)
        self._calls.cancel_all()
        for position in self.slots.positions - {OF_RUN}:
            self.slots.give_back(position)
        self._room.clear()

    # --- the end -------------------------------------------------------------------------------

    async def _end(self, decision: Decision, ended: EndStatus) -> RawValue:
        here = self._here
        await here.until(lambda: self._children.are_started and self._requests.are_sent)
        self._stop()
        self.slots.give_back(OF_RUN)
        await here.until(lambda: self.slots.are_sent)
        if decision.continued is not None:
            await self.questions.end("continued as another")
            self._continue_as(decision.continued)
        await self.questions.end(ended)
        started = self.journal.events[0]
        assert isinstance(started, RunStarted), "a journal begins with it"
        await follow(here, started, ended, decision)
        match ended:
            case "succeeded":
                return packed(decision.outcome or "null")
            case "cancelled":
                if workflow.cancellation_reason() is not None and decision.outcome is None:
                    raise asyncio.CancelledError(decision.reason)
                raise cancelled_run(decision.reason, decision.outcome)
            case "failed":
                raise failed_run(decision.outcome, here.setup.codec)

    def _continue_as(self, action: ChildAction) -> NoReturn:
        here = self._here
        setup, new, op = here.setup, here.new, action.op
        start = make_start(
            op, definitions=setup.registry.definitions, codec=setup.codec, now=now(), run_id=action.run_id,
            arguments=action.arguments, keys=action.keys, carried=new.started.carried,
        )  # fmt: skip
        # The key, the labels and what follows are the chain's.
        chain = evolve(start.new, key=new.key, labels=new.labels, follow_ups=new.follow_ups, chosen_id=new.chosen_id)
        unread = [*self._execution.unread(), *self._execution.late(), *here.inbox]
        signals = tuple(SentSignal(each.name, each.value) for each in unread if isinstance(each, SignalReceived))
        workflow.continue_as_new(
            workflow=start.new.workflow,
            args=[*Start(evolve(chain, signals=())).arguments, *sent_signals(signals), *self.streams.carried()],
            memo={**memo_of(chain), **memo_of_batches(self._here.batches)},
            task_queue=setup.task_queue(start.new.queue),
        )


def _run_here(setup: Setup, arguments: Any) -> RunHere:
    """Which run the server has begun, of what."""
    info = workflow.info()
    new = new_run_in(info.raw_memo)
    definition = setup.registry.definitions.find(info.workflow_type, None if new is None else new.version)
    if definition is None:
        # No failure of the run: its task is tried again, until a worker that has the definition polls.
        msg = f"no workflow or job called {info.workflow_type!r} is among the definitions of this worker"
        raise LookupError(msg)
    if new is None:
        args, kwargs = setup.codec.decode_arguments(arguments, definition.arguments)
        op: RunOp[Any] = definition(*args, **kwargs)
        definitions, codec = setup.registry.definitions, setup.codec
        start = make_start(op, definitions=definitions, codec=codec, now=now(), run_id=info.workflow_id)
        new = evolve(start.new, key=None)
    return RunHere(setup, definition, new, _run_id(new, info), batches_in(info.raw_memo))


def _run_id(new: NewRun, info: workflow.Info) -> str:
    if new.key is not None:
        return keyed_run_id(info.workflow_id, info.original_execution_run_id)
    return new.run_id
