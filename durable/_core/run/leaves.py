"""
Commands that one arrival ends: timers, signals, children, requests to other runs. Steps are in `attempts`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Never, TypeAlias, TypeGuard, assert_never

from durable._core import run_ids
from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.parts import add_note
from durable._core.journal.events import (
    CancelAsked,
    Channel,
    ChildArrival,
    ChildAwaited,
    ChildCancelled,
    ChildFailed,
    ChildJoined,
    ChildStarted,
    ChildSucceeded,
    Event,
    ReplySent,
    RequestAccepted,
    RequestAnswer,
    RequestRefused,
    SignalAwaited,
    SignalReceived,
    SignalSent,
    TimerFired,
    TimerSet,
)
from durable._core.journal.payloads import arguments_payload, call_digest, call_forms, encoded_signal, keys_of, rebuilt
from durable._core.program.ops import AwaitRunOp, CancelRunOp, Child, RunOp, SignalRunOp, SleepOp, StartOp, WaitForOp
from durable._core.program.requests import Asked, ReplyOp, Request, WaitForRequestOp
from durable._core.run.decision import CancelAction, ChildAction, ReplyAction, SignalAction, added, entered, removed
from durable._core.run.nodes import (
    CANCELLED,
    LateOutcome,
    Leaf,
    Node,
    NodeOutcome,
    NodeOwner,
    NumberedSignal,
    Opener,
    OpenRun,
    StrandNode,
    TimerLeaf,
)
from durable.errors import CapExceededError, DecodeError, EncodeError, RunCancelledError, SignalPayloadError, UsageError


class TimerNode(TimerLeaf):
    """`sleep` and `sleep_until`."""

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: SleepOp) -> None:
        super().__init__(ex, position, owner, index)
        name = "sleep" if op.until is None else "sleep_until"
        fire_at = op.until if op.until is not None else ex.time + (op.seconds or 0.0)
        event, fresh = ex.command(TimerSet(position, name, fire_at, ex.site(op), op.name, ex.time))
        self.wait_for("timer", name=event.called, fire_at=event.fire_at, fresh=fresh)


class SignalNode(TimerLeaf):
    """`wait_for`."""

    __slots__ = ("channel", "name", "request", "type")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: WaitForOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.name, self.type = op.name, op.type
        #: Of the requests that it waits for, if these are what it does.
        self.request = op.request if isinstance(op, WaitForRequestOp) else None
        answers = self.request is not None
        self.channel: Channel = op.name, answers
        fire_at = None if op.timeout is None else ex.time + op.timeout
        event, fresh = ex.command(SignalAwaited(position, op.name, fire_at, ex.site(op), ex.time, answers))
        while buffered := ex.take_signal(self.channel):
            if self.receive(buffered):
                return
        waiters = ex.signal_waiters.get(self.channel, ())
        ex.signal_waiters = entered(ex.signal_waiters, self.channel, added(waiters, self))
        self.wait_for("request" if answers else "signal", name=op.name, fire_at=event.fire_at, fresh=fresh)

    def receive(self, signal: NumberedSignal) -> bool:
        """Consume *signal*; False if it is a request that was turned away, so that this still waits."""
        ex, event = self.ex, signal.event
        if self.request is not None:
            return self._receive_request(signal, self.request)
        self._consume(event)
        try:
            value = ex.codec.decode_by_value(event.value or "null", self.type, where=f"payload of signal {self.name!r}")
        except DecodeError as error:
            # The sender's mistake: raised in the workflow, which can answer it, rather than
            # blocking a run for ever on a payload that no change of code makes fit.
            refused = SignalPayloadError(self.name, error.path, error.expected, error.reason)
            refused.__cause__ = error.__cause__
            self.close(NodeOutcome(error=self.delivered(refused)), arrived=False)
        else:
            self._give_to_owner(signal, value)
        return True

    def _receive_request(self, signal: NumberedSignal, request: Request[Any, Any]) -> bool:
        ex, event = self.ex, signal.event
        if event.request in ex.history.turned_away:
            return False
        try:
            where = f"question of request {self.name!r}"
            value = ex.codec.decode_by_value(event.value or "null", self.type, where=where)
        except DecodeError as error:
            if ex.replaying and not ex.history.reopened:
                raise  # the code has seen it: it is its type that has changed
            ex.turn_away(event, error.about("question"))
            return False
        self._consume(event)
        ex.unanswered = entered(ex.unanswered, event.request, signal)
        self._give_to_owner(signal, Asked(value, event.request, request))
        return True

    def _consume(self, event: SignalReceived) -> None:
        self.ex.heard += 1
        if self.ex.opened is not None:
            self.ex.consumed = entered(self.ex.consumed, self.position, event)

    def _give_to_owner(self, signal: NumberedSignal, value: Any) -> None:
        if not isinstance(self.owner, StrandNode):  # a group, which may lose before any code has seen it
            self.ex.unseen = entered(self.ex.unseen, self.position, signal)
        self.close(NodeOutcome(value), arrived=False)

    def close(self, outcome: NodeOutcome, *, arrived: bool = True) -> None:
        removed(self.ex.signal_waiters.get(self.channel, ()), self)
        super().close(outcome, arrived=arrived)

    def deliver(self, _event: TimerFired, /) -> None:
        self._expire(arrived=True)

    @property
    def overdue(self) -> bool:
        """Whether its time is over, although no timer has said so yet."""
        return self.wait is not None and self.wait.fire_at is not None and self.wait.fire_at <= self.ex.time

    def give_up(self) -> None:
        """End without waiting for the timer."""
        self._expire(arrived=False)

    def _expire(self, *, arrived: bool) -> None:
        what = "signal" if self.request is None else "request"
        limit = TimeoutError(f"no {what} {self.name!r} came in time")
        self.close(NodeOutcome(error=self.delivered(limit)), arrived=arrived)


ChildOp: TypeAlias = RunOp[Any] | StartOp[Any] | AwaitRunOp[Any]


class ChildNode(Leaf[ChildArrival]):
    """A child run awaited, a start with a key, or the result of a run that exists."""

    __slots__ = ("is_stopping", "own", "run_id", "starting", "type")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: ChildOp) -> None:
        super().__init__(ex, position, owner, index)
        self.starting = isinstance(op, StartOp)
        #: Whether it ends with the wait for it.
        self.own = isinstance(op, RunOp)
        self.is_stopping = False
        if isinstance(op, AwaitRunOp):
            self.run_id, self.type = op.run_id, op.type
            _, fresh = ex.command(ChildAwaited(position, op.run_id, ex.site(op), ex.time))
            self.wait_for("child", run_id=self.run_id, fresh=fresh)
            return
        run_op = op.op if isinstance(op, StartOp) else op
        self.type = run_op.definition.result
        arguments: Payload = ""
        keys: tuple[str | None, str] = None, ""
        recorded, name = ex.replays(position), run_op.definition.name
        if not recorded:  # before anything is recorded: what fails is raised at the user's line
            arguments = arguments_payload(run_op, ex.codec)
            keys = keys_of(run_op, arguments, ex.codec)
        event, fresh = None, False
        if isinstance(recorded, ChildStarted) and recorded.awaited is not self.starting:
            event = ex.taken_as(position, ChildStarted, name)
        if event is None:
            event, fresh = ex.command(
                ChildStarted(
                    position,
                    name,
                    run_op.given.id or ex.child_id(position),
                    not self.starting,
                    ex.site(op),
                    call_digest(run_op, arguments, ex.codec) if arguments else "",
                    ex.time,
                ),
                run_op.definition.aliases,
            )
        self.run_id = event.run_id
        if not fresh and not ex.old_ids:
            ex.old_ids = run_ids.is_old_child(self.run_id, ex.run_id)
        feed, fed = owner.feed_of(index) if isinstance(owner, Node) else (None, False)
        if fresh and not fed:
            tied = isinstance(op, StartOp) and op.on_parent_end == "cancel"
            child = ChildAction(
                position, self.run_id, run_op, arguments, awaited=not self.starting, ends_with_parent=tied, keys=keys
            )
            ex.decision.children = added(ex.decision.children, child)
        given = run_op.given
        may_exist = given.key is not None or given.id is not None or run_op.definition.options.key is not None
        if self.starting and not may_exist:  # else `ChildJoined` tells which run it is
            self.close(NodeOutcome(Child(self.run_id, self.type)))
            return
        self.wait_for("child", name=feed, run_id=self.run_id, fresh=fresh and not (self.starting or fed))

    @staticmethod
    def carried(op: ChildOp, codec: Codec, /) -> tuple[str, ...]:
        if isinstance(op, AwaitRunOp):
            return ()
        return call_forms(op.op if isinstance(op, StartOp) else op, codec)

    def accepts(self, event: Event) -> TypeGuard[ChildArrival]:
        return isinstance(event, ChildArrival)

    def deliver(self, event: ChildArrival, /) -> None:
        ended = LateOutcome if self.is_stopping else NodeOutcome
        match event:
            case ChildSucceeded():
                where = f"result of run {self.run_id!r}"
                self.close(ended(self.ex.codec.decode(event.value or "null", self.type, where=where)))
            case ChildFailed():
                error = rebuilt(event.value, self.ex.codec)
                if event.run_id:
                    add_note(error, f"in run {event.run_id!r}, started at {self.position} of {self.ex.run_id!r}")
                self.close(ended(error=self.delivered(error)))
            case ChildCancelled() if self.is_stopping:
                self.close(CANCELLED)
            case ChildCancelled():
                cancelled = RunCancelledError(event.run_id, self.ex.codec.reveal(event.reason))
                self.close(NodeOutcome(error=self.delivered(cancelled)))
            case ChildJoined():
                self.run_id = event.run_id
                if self.starting:
                    self.close(NodeOutcome(Child(event.run_id, self.type)))
            case _:
                assert_never(event)

    @property
    def stopping(self) -> bool:
        return self.is_stopping

    def tell_to_end(self) -> bool:
        ex = self.ex
        if not self.own or ex.is_unborn(self.run_id) or not ex.note_cancel(self.position):
            return False
        self.is_stopping = True
        if not ex.replaying:
            assert self.wait is not None
            ex.cancel_child(self.run_id)
            ex.decision.waits_ending = added(ex.decision.waits_ending, self.wait)
        return True

    def given_up(self, now: float) -> Event:
        return ChildCancelled(self.position, self.run_id, "it was not waited for any longer", at=now)

    def withdraw(self) -> None:
        # One that was only started, or is awaited by its handle, is left alone; unless this turn would create it.
        if self.own or self.ex.is_unborn(self.run_id):
            self.ex.cancel_child(self.run_id)


class RequestNode(Leaf[RequestAnswer]):
    """
    `signal_run` and `cancel_run`: done in the transaction that records them, which only then knows the answer.

    So there is nothing to withdraw when nobody waits for that any more.
    """

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: SignalRunOp | CancelRunOp) -> None:
        super().__init__(ex, position, owner, index)
        action: SignalAction | CancelAction
        match op:
            case SignalRunOp():
                payload: Payload = ""
                if not ex.replays(position):  # before anything is recorded: what fails is raised at the user's line
                    _, payload = encoded_signal(op.signal, op.payload, ex.codec)
                digest = ex.codec.digest(payload) if payload else ""
                _, fresh = ex.command(SignalSent(position, op.name, op.run_id, ex.site(op), digest, ex.time))
                # A person's retry may ask for it again, and sends nothing then.
                dedup = f"{ex.run_id}/{position}@{ex.history.run_attempt} {op.name}"
                action = SignalAction(position, op.run_id, op.name, payload, dedup)
            case CancelRunOp():
                reason = "" if ex.replays(position) else ex.codec.conceal(op.reason)
                _, fresh = ex.command(CancelAsked(position, op.run_id, reason, ex.site(op), ex.time))
                action = CancelAction(position, op.run_id, reason)
            case _:
                assert_never(op)
        if fresh:
            ex.decision.requests = added(ex.decision.requests, action)

    @staticmethod
    def carried(op: SignalRunOp | CancelRunOp, codec: Codec, /) -> tuple[str, ...]:
        if isinstance(op, SignalRunOp):
            with contextlib.suppress(EncodeError, CapExceededError):
                return (codec.canonical_of(encoded_signal(op.signal, op.payload, codec)[1]),)
        return ()

    def accepts(self, event: Event) -> TypeGuard[RequestAnswer]:
        return isinstance(event, RequestAnswer)

    def deliver(self, event: RequestAnswer, /) -> None:
        match event:
            case RequestAccepted():
                where = f"answer to the request at {self.position}"
                self.close(NodeOutcome(self.ex.codec.load_plain(event.value or "null", where=where)))
            case RequestRefused():
                self.close(NodeOutcome(error=self.delivered(rebuilt(event.value, self.ex.codec))))
            case _:
                assert_never(event)


class ReplyNode(Leaf[Never]):
    """`asked.reply` and `asked.refuse`: over as soon as it is recorded."""

    __slots__ = ()

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: ReplyOp) -> None:
        super().__init__(ex, position, owner, index)
        asked = op.asked
        payload = _encoded_reply(op, ex.codec)  # before anything is recorded: what fails is raised at the user's line
        if asked.id not in ex.unanswered:
            msg = f"{op.describe()}: this workflow has answered it already, or never got it. A request is answered once"
            self.close(NodeOutcome(error=self.delivered(UsageError(msg))))
            return
        del ex.unanswered[asked.id]
        event = ReplySent(
            position, asked.request.name, asked.id, op.refused, ex.site(op), ex.codec.digest(payload), payload, ex.time
        )
        _, fresh = ex.command(event)
        if fresh:
            ex.decision.replies = added(ex.decision.replies, ReplyAction(asked.id, payload, op.refused))
        self.close(NodeOutcome())

    @staticmethod
    def carried(op: ReplyOp, codec: Codec, /) -> tuple[str, ...]:
        with contextlib.suppress(EncodeError, CapExceededError):
            return (codec.canonical_of(_encoded_reply(op, codec)),)
        return ()

    def accepts(self, event: Event) -> TypeGuard[Never]:  # noqa: ARG002 - nothing happens to it
        return False


def _encoded_reply(op: ReplyOp, codec: Codec) -> Payload:
    if op.refused:
        return codec.encode(op.value, str, where=f"reason of the {op.describe()}")
    return codec.encode(op.value, op.asked.request.answer, where=op.describe())


OPENERS: dict[type, Opener] = {
    SleepOp: TimerNode,
    WaitForOp: SignalNode,
    WaitForRequestOp: SignalNode,
    ReplyOp: ReplyNode,
    RunOp: ChildNode,
    StartOp: ChildNode,
    AwaitRunOp: ChildNode,
    SignalRunOp: RequestNode,
    CancelRunOp: RequestNode,
}
