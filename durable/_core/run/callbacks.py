"""
Callbacks: open beside what follows them, answered from outside, and awaited as often as the code likes.

One is a leaf, since it is what arrivals are for; but the code has its handle at once. Who awaits it is a node of its
own, which has no arrival: it hears of the answer from the callback.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard, assert_never

from durable._core.codec.codec import Codec
from durable._core.journal.events import (
    CallbackArrival,
    CallbackAwaited,
    CallbackCompleted,
    CallbackFailed,
    CallbackOpened,
    Event,
    HeartbeatMissed,
    TimerFired,
)
from durable._core.journal.payloads import rebuilt
from durable._core.journal.waits import Wait
from durable._core.program.callbacks import Callback, CallbackOp
from durable._core.program.tokens import make_nonce
from durable._core.run.decision import added, entered
from durable._core.run.nodes import CANCELLED, Leaf, Node, NodeOutcome, NodeOwner, Opener, OpenRun
from durable.errors import CallbackValueError, DecodeError, HeartbeatMissedError, UsageError

#: What can happen to a callback, once.
_Answer: TypeAlias = CallbackArrival | TimerFired


class CallbackNode(Leaf[_Answer]):
    """`callback`."""

    __slots__ = ("answer", "opened", "silence", "takers", "type")

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: CallbackOp[Any]) -> None:
        super().__init__(ex, position, owner, index)
        self.type = op.type
        #: What happened to it, once something has; and who is to hear of that.
        self.answer: _Answer | None = None
        self.takers: list[AnswerNode] = []
        #: The row that says how long it may be silent, beside that of its deadline.
        self.silence: Wait | None = None
        type_name = nonce = ""
        if not ex.replays(position):  # nothing is made of it that would only be compared
            type_name = "" if op.type is Any else ex.codec.rule(op.type).name
            nonce = make_nonce(ex.token_key, ex.run_id, position, ex.history.run_attempt)
        fire_at = None if op.timeout is None else ex.time + op.timeout
        self.opened, fresh = ex.command(
            CallbackOpened(position, op.name, fire_at, op.heartbeat, type_name, nonce, ex.site(op), ex.time)
        )
        opened = self.opened
        # Of no group: it is not what its owner waits for.
        self.wait = Wait(position, "callback", position, name=opened.name, fire_at=opened.fire_at)
        if opened.heartbeat is not None:
            self.silence = Wait(position, "heartbeat", position, fire_at=opened.at + opened.heartbeat)
        if fresh:
            for wait in self._waits():
                ex.decision.waits = added(ex.decision.waits, wait)
        ex.callbacks = entered(ex.callbacks, position, self)
        self.report(NodeOutcome(Callback(ex.run_id, position, opened.nonce, opened.name, op.site)))

    def _waits(self) -> list[Wait]:
        return [wait for wait in (self.wait, self.silence) if wait is not None]

    def accepts(self, event: Event) -> TypeGuard[_Answer]:
        return isinstance(event, (CallbackCompleted, CallbackFailed, HeartbeatMissed, TimerFired))

    def deliver(self, event: _Answer, /) -> None:
        del self.ex.leaves[self.position]
        self.withdraw()
        self.wait = None
        self.answer = event
        takers, self.takers = self.takers, []
        for taker in takers:
            if not taker.closed:  # by the one before it, as two members of a race
                taker.report(self.told(event))

    def withdraw(self) -> None:
        # Whatever became of one of its rows, the other goes too.
        for wait in self._waits():
            self.ex.closed_wait(wait)

    def told(self, event: _Answer) -> NodeOutcome:
        """What the code is told: each time a value or error of its own."""
        match event:
            case CallbackCompleted():
                return self._value(event)
            case CallbackFailed():
                return NodeOutcome(error=self.delivered(rebuilt(event.value, self.ex.codec)))
            case HeartbeatMissed():
                missed = HeartbeatMissedError(self.opened.name, self.position, self.opened.heartbeat or 0.0)
                return NodeOutcome(error=self.delivered(missed))
            case TimerFired():
                late = TimeoutError(f"{self.opened.describe()} at {self.position} was not answered in time")
                return NodeOutcome(error=self.delivered(late))
            case _:
                assert_never(event)

    def _value(self, event: CallbackCompleted) -> NodeOutcome:
        try:
            return NodeOutcome(read_answer(self.opened, self.position, self.type, event.value or "null", self.ex.codec))
        except CallbackValueError as error:
            return NodeOutcome(error=self.delivered(error))


def read_answer(opened: CallbackOpened, position: str, type_: Any, payload: str | bytes, codec: Codec) -> Any:
    """
    The value in *payload*, as the code wants it.

    Raises:
        CallbackValueError: It is not of that type.
    """
    try:
        return codec.decode_by_value(payload, type_, where=f"answer to {opened.describe()}")
    except DecodeError as error:
        refused = CallbackValueError(opened.name, position, error.path, error.expected, error.reason)
        raise refused from error.__cause__


class AnswerNode(Node):
    """Who awaits a callback."""

    __slots__ = ("callback",)

    def __init__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: Callback[Any]) -> None:
        super().__init__(ex, position, owner, index)
        found = ex.callbacks.get(op.position)
        if found is None or op.run_id != ex.run_id:
            msg = f"the callback at {op.position} of run {op.run_id!r} cannot be awaited in run {ex.run_id!r}"
            self.report(NodeOutcome(error=UsageError(msg)))
            return
        self.callback = found
        ex.command(CallbackAwaited(position, found.opened.name, found.position, ex.site(op), ex.time))
        if found.answer is not None:
            self.report(found.told(found.answer))
        else:
            found.takers.append(self)

    def cancel(self) -> None:
        """Wait no longer: the callback stays open, for who awaits it later."""
        if not self.closed:
            if self in self.callback.takers:
                self.callback.takers.remove(self)
            self.report(CANCELLED)


OPENERS: dict[type, Opener] = {CallbackOp: CallbackNode, Callback: AnswerNode}
