"""
Requests about callbacks: complete, fail, keep alive.
"""

from __future__ import annotations

import sqlite3

from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import CallbackCompleted, CallbackFailed
from durable._core.light_frozen import light_frozen
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.writes.callback_answers import Answered, answer, keep_alive
from durable.errors import TokenUsedError


@light_frozen
class CompleteCallback(JournalRequest[Answered | None]):
    """Answer a callback with *value*; the answer that it has already, if it has."""

    token: str
    value: Payload

    @property
    def answered(self) -> tuple[str, Payload]:
        """See `JournalRequest`."""
        return self.token, self.value

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return (self.value,)

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return True

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Answered | None:
        """Put it into the inbox of its run, and wake that."""
        return answer(conn, self.token, lambda at: CallbackCompleted(at, self.value, env.now), env.now, effects)


@light_frozen
class FailCallback(JournalRequest[Answered | None]):
    """Answer a callback with a failure; the answer that it has already, if it has."""

    token: str
    failure: Payload

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return (self.failure,)

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return True

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Answered | None:
        """Put it into the inbox of its run, and wake that."""
        return answer(conn, self.token, lambda at: CallbackFailed(at, self.failure, env.now), env.now, effects)


@light_frozen
class KeepCallback(JournalRequest[None]):
    """A callback is still being worked on."""

    token: str

    @property
    def is_short(self) -> bool:
        """See `JournalRequest`."""
        return True

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> None:
        """Let it be silent for as long as it may, from now on."""
        keep_alive(conn, self.token, env.now, effects)


def is_new(found: Answered | None, payload: Payload, codec: Codec, *, failed: bool) -> bool:
    """
    Whether an answer was recorded just now: what is *found* is None. False if it is equal to the one that was there.

    Looked at where it was asked for, since only a codec can tell: what it encrypts never looks the same twice.

    Raises:
        TokenUsedError: It is another one.
    """
    if found is None:
        return True
    if found.failed == failed and codec.canonical_of(found.value) == codec.canonical_of(payload):
        return False
    answered = "failed" if found.failed else "completed"
    again = "" if found.failed != failed else " with something else"
    raise TokenUsedError(found.run_id, found.position, f"it was {answered} already{again}")


REQUESTS = (CompleteCallback, FailCallback, KeepCallback)
