"""
Runs executions in memory, without a shell: what the decisions ask for happens at once, in an order that tests choose.

`World` answers decisions: steps by calling their plain functions, children by runs of their own, timers by
moving the clock. `again` feeds recorded arrivals to a prefix of a journal: a crash and a recovery.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field

from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import (
    CancelRequested,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildSucceeded,
    CleanupTimedOut,
    Event,
    RequestAccepted,
    RequestRefused,
    RunFailed,
    RunRestarted,
    RunStarted,
    SignalReceived,
    SlotGranted,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepSnoozed,
    StepStopped,
    StepSucceeded,
    TimerFired,
)
from durable._core.journal.payloads import failure_in, failure_payload, rebuilt
from durable._core.journal.waits import Wait
from durable._core.policies.retry import plan, snooze_of
from durable._core.program.functions import Job
from durable._core.program.ops import RunOp
from durable._core.run.decision import ChildAction, Decision, Feed, StepAction, TransactionAction
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution

CODEC = Codec()
START = 1_000.0


def started(op: RunOp[Any], *, seed: str = "seed") -> RunStarted:
    """
    The first event of a run of *op*.
    """
    value = CODEC.encode_arguments(op.args, op.kwargs, op.definition.arguments)
    return RunStarted(op.definition.name, op.definition.options.version, seed, value, START)


def execution(
    op: RunOp[Any], events: Sequence[Event], *, run_id: str = "r", sliced: bool = False, **options: Any
) -> Any:
    """
    An execution of *op* with *events* replayed; *sliced*: with a pause wherever there may be one.
    """
    made = JobExecution if isinstance(op.definition, Job) else Execution
    ex = made(op.definition, events, run_id=run_id, codec=CODEC, **options)
    try:
        if sliced and isinstance(ex, Execution):
            deque(ex.load_in_slices(room=1), maxlen=0)
        else:
            ex.load()
    except BaseException:
        ex.close()
        raise
    return ex


def in_slices(ex: Execution | JobExecution, arrived: Sequence[Event], now: float) -> tuple[Decision, int]:
    """
    A turn with a pause wherever there may be one; and how many there were.
    """
    pauses = 0
    decision = ex.begin_turn(arrived, now=now, room=1) if isinstance(ex, Execution) else ex.advance(arrived, now=now)
    while decision is None:
        pauses += 1
        decision = ex.continue_turn(room=1)
    return decision, pauses


def closed_prefixes(events: Sequence[Event]) -> Iterator[int]:
    """
    Every length at which a crash can cut a journal: before an arrival, and at its end.
    """
    yield from (index for index, event in enumerate(events) if index and event.category == "arrival")
    yield len(events)


def again(op: RunOp[Any], journal: Sequence[Event], survived: int, *, resident: bool = True) -> list[Event]:
    """
    The journal after a crash that only *survived* events outlived, given the same arrivals.
    """
    events = list(journal[:survived])
    ex = execution(op, events)
    arrivals: list[list[Event]] = [[event] for event in journal[survived:] if event.category == "arrival"]
    if survived == 1 and not (arrivals and isinstance(journal[1], CancelRequested)):
        arrivals.insert(0, [])
    for arrived in arrivals:
        if not resident:
            ex.close()
            ex = execution(op, events)
        decision = ex.advance(arrived, now=arrived[0].at if arrived else START)
        events += decision.events
        if ex.ended:
            break
    ex.close()
    return events


@define
class World:
    """
    What happens outside of one run.
    """

    op: RunOp[Any]
    run_id: str = "r"
    #: Which of so many things that can happen does; the first, unless a test says otherwise.
    choose: Callable[[int], int] = lambda _: 0
    #: (name, payload), sent one by one when `choose` says so, or when nothing else can happen.
    signals: list[tuple[str, Any]] = field(factory=list)
    #: Free the execution after each turn and replay it for the next.
    freed: bool = False
    #: Pause wherever a turn may pause.
    sliced: bool = False
    options: dict[str, Any] = field(factory=dict)
    events: list[Event] = field(factory=list)
    decisions: list[Decision] = field(factory=list)
    now: float = START
    steps: list[StepAction | TransactionAction] = field(factory=list)
    #: Steps that were told to end, and have not; and positions of children of which that holds.
    stopping: list[StepAction | TransactionAction] = field(factory=list)
    ending: set[str] = field(factory=set)
    waits: list[Wait] = field(factory=list)
    #: Positions that stand in line for a slot.
    queued: list[str] = field(factory=list)
    joined: list[Event] = field(factory=list)
    #: What refuses requests to other runs, by their ids; the rest accept them, with this value.
    refusing: dict[str, Exception] = field(factory=dict)
    accepting: Any = None
    children: dict[str, World] = field(factory=dict)
    keys: dict[str, str] = field(factory=dict)
    #: Feeds by position, with the items still to come.
    feeds: dict[str, tuple[Feed, list[tuple[int, str, Any]]]] = field(factory=dict)
    cancelled_children: list[str] = field(factory=list)
    ex: Any = None

    def run(self) -> list[Event]:
        """
        Drive the run to its end; its whole journal.
        """
        self.begin()
        while not self.ended:
            assert self.happen(), f"nothing can happen: {self.waits}"
        return self.events

    def begin(self, events: Sequence[Event] = ()) -> Decision:
        """
        The first turn, or the first after a recovery from *events*.
        """
        self.events = list(events) or [started(self.op)]
        self.ex = execution(self.op, self.events, run_id=self.run_id, sliced=self.sliced, **self.options)
        return self.turn()

    def run_on(self) -> Any:
        """
        Drive a run that has begun to its end; its result.
        """
        while not self.ended:
            assert self.happen(), f"nothing can happen: {self.waits}"
        return self.value()

    @property
    def ended(self) -> bool:
        return self.ex.ended and not isinstance(self.events[-1], RunRestarted)

    @property
    def end(self) -> Decision:
        """
        The decision that ended the run.
        """
        return self.decisions[-1]

    def value(self) -> Any:
        """
        The run's result; raises what it failed with.
        """
        assert self.end.ended is not None
        if self.end.ended == "failed":
            raise rebuilt(self.end.outcome, CODEC)
        assert self.end.ended == "succeeded", self.end.ended
        return CODEC.decode(self.end.outcome or "null")

    def turn(self, *arrived: Event) -> Decision:
        """
        One turn, and its actions taken note of.
        """
        if (self.freed and len(self.events) > 1 and arrived) or (self.ex.ended and not self.ended):
            self.ex.close()
            self.ex = execution(self.op, self.events, run_id=self.run_id, sliced=self.sliced, **self.options)
        if self.sliced:
            decision, _ = in_slices(self.ex, arrived, self.now)
        else:
            decision = self.ex.advance(arrived, now=self.now)
        self.decisions.append(decision)
        self.events += decision.events
        self.steps += decision.steps
        self.steps += decision.transactions
        self.queued = [position for position in self.queued if position not in decision.slots_released]
        self.queued += [action.position for action in decision.slots]
        self.stopping += [action for action in self.steps if action.position in decision.cancelled_steps]
        self.steps = [action for action in self.steps if action.position not in decision.cancelled_steps]
        self.ending |= {wait.position for wait in decision.waits_ending}
        self.waits = [wait for wait in self.waits if wait not in decision.waits_closed] + list(decision.waits)
        for position in decision.feeds_closed:
            self.feeds.pop(position, None)
        for feed in decision.feeds:
            self.feeds[feed.position] = (feed, list(feed.children))
        for child in decision.children:
            self._child(child)
        for asked in decision.requests:
            self.joined.append(self._answer(asked.position, asked.run_id))
        self.cancelled_children += decision.cancelled_children
        if self.ended:
            self.ex.close()
        return decision

    def happen(self) -> bool:
        """
        Let one of the things happen that can.
        """
        timers = sorted((wait for wait in self.waits if wait.fire_at is not None), key=lambda wait: wait.fire_at or 0)
        cleanup = [wait for wait in timers if wait.kind == "cleanup"]
        timers = [wait for wait in timers if wait.kind != "cleanup"] or cleanup
        children = [wait for wait in self.waits if wait.kind == "child"]
        possible: list[tuple[Callable[[Any], None], Any]] = [(self._join, event) for event in self.joined]
        possible += [(self.grant, position) for position in self.queued]
        possible += [(self._step, action) for action in self.steps]
        possible += [(self._stop, action) for action in self.stopping]
        possible += [(self._end_child, wait) for wait in children]
        possible += [(self._fire, wait) for wait in timers[:1]]
        possible += [(self._send, signal) for signal in self.signals[:1]]
        if not possible:
            return False
        act, what = possible[self.choose(len(possible)) % len(possible)]
        self.now += 1.0
        act(what)
        return True

    def signal(self, name: str, payload: Any = None) -> Decision:
        """
        A signal from outside.
        """
        return self.turn(SignalReceived(name, CODEC.encode(payload), self.now))

    def ask(self, request: str, name: str, question: Any = None) -> Decision:
        """
        A request from outside, of that id.
        """
        return self.turn(SignalReceived(name, CODEC.encode_by_value(question), self.now, request))

    def cancel(self, reason: str = "") -> Decision:
        """
        A request to cancel.
        """
        return self.turn(CancelRequested(reason, self.now))

    def grant(self, position: str) -> Decision:
        """
        The step at *position* is let in.
        """
        self.queued.remove(position)
        return self.turn(SlotGranted(position, self.now))

    def succeed(self, position: str, value: Any = None) -> Decision:
        """
        The step at *position* returned *value*.
        """
        self._done(position)
        return self.turn(StepSucceeded(position, CODEC.encode(value), self.now))

    def fail(self, position: str, error: Exception) -> Decision:
        """
        The step at *position* failed for good.
        """
        action = self._done(position)
        return self.turn(StepFailed(position, action.attempt, failure_payload(error, CODEC), self.now))

    def retry(self, position: str, error: Exception) -> Decision:
        """
        The attempt of the step at *position* failed, and its policy allows another.
        """
        action = self._done(position)
        payload = failure_payload(error, CODEC)
        return self.turn(StepRetrying(position, action.attempt, self.now + 1.0, payload, self.now))

    def interrupt(self, position: str, *, crashed: bool = True) -> Decision:
        """
        The attempt of the step at *position* was cut off.
        """
        action = self._done(position)
        return self.turn(StepInterrupted(position, action.attempt, crashed, self.now))

    def stop(self, position: str, error: Exception | None = None, *, abandoned: bool = False) -> Decision:
        """
        The attempt of the step at *position*, which was told to end, has; its clean-up failed by *error*.
        """
        action = next(action for action in self.stopping if action.position == position)
        self.stopping.remove(action)
        payload = None if error is None else failure_payload(error, CODEC)
        return self.turn(StepStopped(position, action.attempt, abandoned, payload, self.now))

    def fire(self, position: str) -> Decision:
        """
        The timer at *position* comes due.
        """
        wait = next(wait for wait in self.waits if wait.position == position and wait.fire_at is not None)
        return self._fire(wait)

    def end_child(self, position: str) -> Decision:
        """
        Let the child awaited at *position* run to its end.
        """
        return self._end_child(next(wait for wait in self.waits if wait.kind == "child" and wait.position == position))

    def _done(self, position: str) -> StepAction | TransactionAction:
        steps = self.steps if any(action.position == position for action in self.steps) else self.stopping
        action = next(action for action in steps if action.position == position)
        steps.remove(action)
        return action

    def _step(self, action: StepAction | TransactionAction) -> None:
        self.steps.remove(action)
        self.turn(outcome_of(action, self.now, self.run_id))

    def _stop(self, action: StepAction | TransactionAction) -> None:
        if self.choose(2) % 2:  # it had an outcome all the same
            self.stopping.remove(action)
            self.turn(outcome_of(action, self.now, self.run_id))
        else:
            self.stop(action.position)

    def _fire(self, wait: Wait) -> Decision:
        self.waits.remove(wait)
        self.now = max(self.now, wait.fire_at or 0.0)
        return self.turn(CleanupTimedOut(self.now) if wait.kind == "cleanup" else TimerFired(wait.position, self.now))

    def _send(self, signal: tuple[str, Any]) -> None:
        self.signals.remove(signal)
        self.signal(*signal)

    def _join(self, event: Event) -> None:
        self.joined.remove(event)
        self.turn(evolve(event, at=self.now))

    def _answer(self, position: str, run_id: str) -> Event:
        if run_id in self.refusing:
            return RequestRefused(position, failure_payload(self.refusing[run_id], CODEC))
        return RequestAccepted(position, CODEC.encode(self.accepting))

    def _child(self, action: ChildAction) -> None:
        key = action.op.given.key
        run_id = self.keys.setdefault(key, action.run_id) if key is not None else action.run_id
        self.children.setdefault(run_id, World(action.op, run_id, choose=self.choose))
        if key is not None and not action.awaited:
            self.joined.append(ChildJoined(action.position, run_id))

    def _feed(self, position: str) -> None:
        """
        What the file does when a child of a feed has succeeded, or may fail: it starts the next one.
        """
        feed, items = self.feeds[position]
        if items:
            index, run_id, arguments = items.pop(0)
            args, _ = CODEC.decode_arguments(arguments, feed.op.definition.arguments)
            where = f"{position}.{index}"
            self._child(ChildAction(where, run_id, feed.op.definition(*args), arguments, awaited=True))
            self.waits.append(Wait(where, "child", feed.group, feed.wake_on, position, run_id))

    def _end_child(self, wait: Wait) -> Decision:
        self.waits.remove(wait)
        run_id = wait.run_id or ""
        child = self.children[run_id]
        if wait.position in self.ending and child.ex is None:
            if wait.name in self.feeds:
                del self.feeds[wait.name]
            return self.turn(ChildCancelled(wait.position, run_id, "its parent no longer waits for it", self.now))
        if child.ex is None:
            child.run()
        while child.end.continued is not None:
            run_id = child.end.continued.run_id
            child = self.children.setdefault(run_id, World(child.end.continued.op, run_id))
            child.run()
        if wait.name in self.feeds:
            feed, items = self.feeds[wait.name]
            if child.end.ended != "succeeded" and not feed.tolerate:
                del self.feeds[wait.name]
            else:
                if child.end.ended != "succeeded":
                    self.feeds[wait.name] = evolve(feed, tolerate=(feed.tolerate or 0) - 1), items
                self._feed(wait.name)
        if child.end.ended == "succeeded":
            return self.turn(ChildSucceeded(wait.position, child.end.outcome, self.now))
        if child.end.ended == "failed":
            return self.turn(ChildFailed(wait.position, run_id, child.end.outcome, self.now))
        return self.turn(ChildCancelled(wait.position, run_id, child.end.reason, self.now))


def outcome_of(action: StepAction | TransactionAction, now: float, run_id: str) -> Event:
    """
    What one attempt leads to: its function is really called.
    """
    definition, position = action.op.definition, action.position
    try:
        args = action.op.args if isinstance(action, StepAction) else (None, *action.op.args)
        value = definition.fn(*args, **action.op.kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        return StepSucceeded(position, CODEC.encode(value, definition.result), now)
    except Exception as error:
        if (seconds := snooze_of(error)) is not None:
            return StepSnoozed(position, action.attempt, now + seconds, str(error), now)
        failures, elapsed = action.failures + 1, now - action.first_started_at
        policy = action.op.given.retry or definition.options.retry
        delay = plan(policy, error, failures=failures, elapsed=elapsed, seed=f"{run_id}{position}{failures}")
        payload = failure_payload(error, CODEC, with_traceback=False)
        if delay is None:
            return StepFailed(position, action.attempt, payload, now)
        return StepRetrying(position, action.attempt, now + delay, payload, now)


def run(op: RunOp[Any], **options: Any) -> World:
    """
    A run of *op*, driven to its end.
    """
    world = World(op, **options)
    world.run()
    return world


def failure(event: Event) -> str:
    """
    The error in an event, as people read it.
    """
    assert isinstance(event, (StepFailed, RunFailed, ChildFailed, StepRetrying))
    return failure_of(event.value)


def failure_of(payload: Payload | None) -> str:
    """
    The error in a payload, as people read it.
    """
    found = failure_in(payload, CODEC)
    return f"{found.type_name}: {found.message}"


def kinds(events: Sequence[Event]) -> list[str]:
    """
    The names of *events*, with their positions.
    """
    return [f"{type(event).__name__} {event.position or ''}".strip() for event in events]
