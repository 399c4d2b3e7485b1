"""
Callbacks of one run: each answer is an update of the server's, which is looked at before it is taken.

One that is refused leaves nothing in the server's history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from durable._core.codec.codec import Payload
from durable._core.journal.callback_fates import CallbackFate
from durable._core.journal.events import CallbackCompleted, CallbackFailed, CallbackOpened, Event
from durable._core.journal.waits import Wait
from durable._core.program.tokens import Place, read_token
from durable._core.run.callbacks import CallbackNode, read_answer
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution
from durable._shell.writes.callback_answers import Answered
from durable.errors import CallbackValueError, TokenEndedError, TokenError, TokenUsedError
from durable.temporal._driving.here import RunHere, now
from durable.temporal._driving.timers import Timers
from durable.temporal._wire.answers import How, answered_already, refusal


class Callbacks:
    """Takes the answers to the callbacks of one run."""

    def __init__(self, here: RunHere, timers: Timers) -> None:
        self._here = here
        self._timers = timers

    def check(
        self,
        execution: Execution | JobExecution | None,
        events: Sequence[Event],
        token: str,
        how: How,
        payload: Payload,
    ) -> None:
        """
        Nothing, if the callback of *token* is open and takes this answer.

        *execution* is None where the run has brought *events* along and was not replayed yet: nobody knows the type of
        the answer then.

        Raises:
            ApplicationError: It does not; `read_refusal` of what that holds tells why.
        """
        try:
            place = read_token(token)
            node = execution.leaves.get(place.position) if isinstance(execution, Execution) else None
            fate = fate_of(place, events, self._here.inbox, is_open=isinstance(node, CallbackNode))
            answered = answer_in(fate)
            if answered is not None:
                if how == "heartbeat":
                    raise TokenUsedError(place.run_id, place.position, "it was answered already")
                raise answered_already(answered)
            fate.check_in_time()
            if execution is None:
                return
            if not isinstance(node, CallbackNode):
                raise TokenEndedError(place.run_id, place.position, "nobody waits for it any more")
            if how == "complete":
                read_answer(node.opened, node.position, node.type, payload, self._here.setup.codec)
        except (TokenError, CallbackValueError) as error:
            raise refusal(error) from None

    def take(self, events: Sequence[Event], token: str, how: How, payload: Payload) -> None:
        """Take an answer that was looked at."""
        position = read_token(token).position
        opened = next(
            each for each in reversed(events) if isinstance(each, CallbackOpened) and each.position == position
        )
        self._timers.disarm(Wait(position, "heartbeat", position))
        match how:
            case "heartbeat":
                if opened.heartbeat is not None:
                    self._timers.arm(Wait(position, "heartbeat", position), now() + opened.heartbeat)
                return
            case "complete":
                answer: Event = CallbackCompleted(position, payload, now())
            case "fail":
                answer = CallbackFailed(position, payload, now())
            case _:
                assert_never(how)
        self._timers.disarm(Wait(position, "callback", position))
        self._here.inbox.append(answer)


def fate_of(place: Place, events: Iterable[Event], pending: Iterable[Event], *, is_open: bool) -> CallbackFate:
    """
    What became of the callback at *place*.

    Raises:
        TokenForeignError, TokenEndedError: There is none.
    """
    fate = CallbackFate(place)
    for event in events:
        fate.tell(event)
    fate.found(is_open=is_open)
    for event in pending:
        fate.tell_pending(event)
    return fate


def answer_in(fate: CallbackFate) -> Answered | None:
    """The answer that it has, if it has one."""
    end = fate.end
    if not isinstance(end, (CallbackCompleted, CallbackFailed)):
        return None
    return Answered(fate.place.run_id, end.position, isinstance(end, CallbackFailed), end.value or "null")
