"""
What became of one callback, as the events of its run tell: so that every engine judges a token alike.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from durable._core.journal.events import (
    CallbackCompleted,
    CallbackFailed,
    CallbackOpened,
    Event,
    HeartbeatMissed,
    RunRestarted,
    RunRetried,
    TimerFired,
)
from durable._core.light_frozen import light_define
from durable._core.program.tokens import Place
from durable.errors import TokenEndedError, TokenExpiredError, TokenForeignError

#: What can happen to a callback, once.
CallbackEnd: TypeAlias = CallbackCompleted | CallbackFailed | HeartbeatMissed | TimerFired
ENDS_OF_CALLBACKS: Final = (CallbackCompleted, CallbackFailed, HeartbeatMissed, TimerFired)
#: What sets the callbacks of a run aside.
SETS_ASIDE: Final = (RunRestarted, RunRetried)


@light_define
class CallbackFate:
    """The callback of a token, told the events of its run in their order."""

    place: Place
    opened: CallbackOpened | None = None
    #: The first thing that happened to it, if something has.
    end: CallbackEnd | None = None
    _is_known: bool = False
    _is_aside: bool = False

    def tell(self, event: Event) -> None:
        """Take in an event of the history; those about something else change nothing."""
        if isinstance(event, SETS_ASIDE):
            self._is_aside = True
        elif event.position != self.place.position:
            return
        elif isinstance(event, CallbackOpened):
            self.opened, self.end, self._is_aside = event, None, False
            self._is_known = self._is_known or event.nonce == self.place.nonce
        else:
            self.tell_pending(event)

    def tell_pending(self, event: Event) -> None:
        """Take in an arrival that no turn has taken in yet."""
        if self.end is None and event.position == self.place.position and isinstance(event, ENDS_OF_CALLBACKS):
            self.end = event

    def found(self, *, is_open: bool) -> CallbackOpened:
        """
        The callback; *is_open*: somebody waits at its place.

        Raises:
            TokenForeignError: There is none.
            TokenEndedError: It was that of an attempt of the run which is over.
        """
        opened, place = self.opened, self.place
        if opened is None or not self._is_known:
            reason = "no callback of this journal has this token: it is of another file"
            raise TokenForeignError(place.run_id, place.position, reason)
        is_aside = self._is_aside and not is_open and not isinstance(self.end, CallbackCompleted)
        if opened.nonce != place.nonce or is_aside:
            raise TokenEndedError(place.run_id, place.position, "the attempt of the run that asked is over")
        return opened

    def check_in_time(self) -> None:
        """
        Nothing, unless the time for an answer is over.

        Raises:
            TokenExpiredError: It is.
        """
        if isinstance(self.end, HeartbeatMissed):
            raise TokenExpiredError(self.place.run_id, self.place.position, "a heartbeat was missed")
        if isinstance(self.end, TimerFired):
            raise TokenExpiredError(self.place.run_id, self.place.position, "its deadline is over")
