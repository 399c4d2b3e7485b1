"""
Answers to callbacks on their way to a run, and why one is refused on its way back.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn, TypeAlias

from temporalio.exceptions import ApplicationError

from durable._core.codec.codec import Payload
from durable._shell.writes.callback_answers import Answered
from durable.errors import (
    CallbackValueError,
    TokenEndedError,
    TokenError,
    TokenExpiredError,
    TokenForeignError,
    TokenUsedError,
)
from durable.temporal._wire.payloads import from_plain, plain

#: The update that answers a callback of a run, and what it does.
ANSWER: Final = "durable.answer"
How: TypeAlias = Literal["complete", "fail", "heartbeat"]

_REFUSED: Final = "durable.callback_refused"
_ANSWERED: Final = "durable.callback_answered"
_KINDS: Final[dict[str, type[TokenError]]] = {
    each.__name__: each for each in (TokenForeignError, TokenUsedError, TokenExpiredError, TokenEndedError)
}


def refusal(error: TokenError | CallbackValueError) -> ApplicationError:
    """*error*, for who has answered."""
    given = list(error.args) if isinstance(error, CallbackValueError) else [error.run_id, error.position, error.reason]
    return ApplicationError(str(error), type(error).__name__, *given, type=_REFUSED)


def answered_already(found: Answered) -> ApplicationError:
    """For who answers a second time, and is to compare."""
    told = [found.run_id, found.position, found.failed, plain(found.value)]
    return ApplicationError("it was answered already", *told, type=_ANSWERED)


def read_refusal(error: BaseException | None) -> Answered | None:
    """
    The answer that there was already, as the run has told it.

    Raises what `refusal` was given; and *error*, if it is something else.
    """
    if not isinstance(error, ApplicationError) or error.type not in (_REFUSED, _ANSWERED):
        _raise(error)
    if error.type == _ANSWERED:
        run_id, position, failed, value = error.details
        payload: Payload = from_plain(value)
        return Answered(run_id, position, failed, payload)
    kind, *given = error.details
    if kind == CallbackValueError.__name__:
        raise CallbackValueError(*given)
    raise _KINDS[kind](*given)


def _raise(error: BaseException | None) -> NoReturn:
    raise error or AssertionError("a refusal has a cause")
