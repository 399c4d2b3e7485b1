"""
What a token is told by the events of its run: a table, without a file or a loop.
"""

import pytest

from durable._core.journal.callback_fates import CallbackFate
from durable._core.journal.events import CallbackCompleted, CallbackOpened, HeartbeatMissed, RunRetried, TimerFired
from durable._core.program.tokens import Place
from durable.errors import TokenEndedError, TokenExpiredError, TokenForeignError

PLACE = Place("r", "1", "mine")


def opened(nonce="mine", position="1"):
    return CallbackOpened(position, "paid", None, None, "int", nonce, "")


def fate_of(*events):
    fate = CallbackFate(PLACE)
    for event in events:
        fate.tell(event)
    return fate


@pytest.mark.parametrize(
    "events, is_open, refused",
    [
        ([], False, TokenForeignError),
        ([opened("another's")], True, TokenForeignError),
        ([opened(position="2")], True, TokenForeignError),
        ([opened()], True, None),
        ([opened(), RunRetried(1, [])], False, TokenEndedError),
        ([opened(), RunRetried(1, [])], True, None),
        ([opened(), RunRetried(1, []), opened("that of the next attempt")], True, TokenEndedError),
        ([opened(), CallbackCompleted("1", "3"), RunRetried(1, [])], False, None),
    ],
)
def test_a_token_is_of_one_attempt_of_its_run(events, is_open, refused):
    """
    What another attempt has made has a token of its own; an answer that was given stays one.
    """
    fate = fate_of(*events)
    if refused is None:
        assert fate.found(is_open=is_open).position == "1"
    else:
        with pytest.raises(refused):
            fate.found(is_open=is_open)


@pytest.mark.parametrize("end", [TimerFired("1"), HeartbeatMissed("1")])
def test_who_is_late_is_told_why(end):
    """
    Also where no turn has taken that in yet; and what came first counts.
    """
    late = fate_of(opened())
    late.tell_pending(end)
    with pytest.raises(TokenExpiredError):
        late.check_in_time()
    answered = fate_of(opened(), CallbackCompleted("1", "3"))
    answered.tell_pending(end)
    answered.check_in_time()
