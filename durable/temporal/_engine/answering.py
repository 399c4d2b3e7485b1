"""
Answers to callbacks, from outside: the run that waits is asked, or, once it has ended, its history.
"""

from __future__ import annotations

from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from durable._core.codec.codec import Payload
from durable._core.program.tokens import Place, read_token
from durable._shell.requests.callback_requests import is_new
from durable._shell.writes.callback_answers import Answered
from durable.errors import RunNotFoundError, TokenEndedError, TokenForeignError, TokenUsedError
from durable.temporal._driving.callbacks import answer_in, fate_of
from durable.temporal._engine.asking import Asking
from durable.temporal._engine.handle import TemporalRun
from durable.temporal._wire.answers import ANSWER, How, read_refusal
from durable.temporal._wire.payloads import packed
from durable.temporal._wire.starts import workflow_id_of


async def answer(asking: Asking, token: str, how: How, payload: Payload) -> bool:
    """
    Answer the callback of *token*; False if it has an equal answer.

    Raises:
        TokenError, CallbackValueError: As `Engine.complete`.
    """
    place = read_token(token)
    try:
        await asking.handle_on(workflow_id_of(place.run_id)).execute_update(ANSWER, args=[token, how, packed(payload)])
    except WorkflowUpdateFailedError as error:
        found = read_refusal(error.cause)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        found = await _answered(TemporalRun(asking, place.run_id), place)
        if how == "heartbeat":
            raise TokenUsedError(place.run_id, place.position, "it was answered already") from None
    else:
        return True
    return is_new(found, payload, asking.codec, failed=how == "fail")


async def _answered(run: TemporalRun[object], place: Place) -> Answered:
    """The answer that a callback of a run has which has ended."""
    try:
        exported = await run.export()
    except RunNotFoundError:
        reason = "the server has no such run: the token is of another engine, or the run is kept no longer"
        raise TokenForeignError(place.run_id, place.position, reason) from None
    fate = fate_of(place, exported.events, exported.pending, is_open=False)
    found = answer_in(fate)
    fate.check_in_time()
    if found is None:
        raise TokenEndedError(place.run_id, place.position, f"the run has ended ({exported.run.status})")
    return found
