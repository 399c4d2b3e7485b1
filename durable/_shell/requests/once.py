"""
A request that is recorded once, however often it is asked for.

An owner may die between its commit and its answer, and the client that asked cannot know. So it gives each
request an id, and asks the next owner under the same one. The id is recorded with the effect, in one
transaction, together with the answer: who asks again gets the first answer, and nothing happens twice. A
refusal is an answer, too: a key that was taken when it was first asked for was taken, whatever came since.

Answers are kept for longer than any client asks, and then deleted: by the engine's housekeeping, and by clients
that record by themselves.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final, TypeVar

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import read_list
from durable._core.light_frozen import light_frozen
from durable._shell.requests.encoding import error_from, plain_error, plain_result, result_from
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.storage.seals import is_sound
from durable.errors import DecodeError, DurableError, EngineClosedError, InternalError, JournalError

R_co = TypeVar("R_co", covariant=True)

#: Seconds for which a client may ask for one thing again and again.
ASKED_SECONDS: Final = 600.0
#: Seconds for which an answer is kept; and how many are, but for those that a client may still ask for.
KEPT_SECONDS: Final = 3_600.0
KEPT_ROWS: Final = 100_000
NEEDED_SECONDS: Final = 3 * ASKED_SECONDS
#: Deleted in one transaction: those of others wait for it.
_PAGE: Final = 5_000

_OLD = "SELECT id FROM durable_requests WHERE at < ? LIMIT 1"
_FORGET = """
DELETE FROM durable_requests WHERE id IN (SELECT id FROM durable_requests WHERE at < ? ORDER BY at LIMIT ?)
"""
_SURPLUS = "SELECT at FROM durable_requests ORDER BY at DESC LIMIT 1 OFFSET ?"


@light_frozen
class Once(JournalRequest[R_co | DurableError]):
    """*request*, unless it was recorded under this id before. A refusal is returned, so that it is recorded, too."""

    id: str
    request: JournalRequest[R_co]
    #: Why an engine would refuse it, were it not recorded before.
    refusal: DurableError | None = None

    @property
    def answered(self) -> tuple[str, Payload] | None:
        """That of the request."""
        return self.request.answered

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return self.request.values

    @property
    def texts(self) -> tuple[str, ...]:
        """See `JournalRequest`."""
        return self.request.texts

    def prepared(self, env: Env) -> Once[R_co]:
        """Itself, with the request prepared."""
        try:
            return evolve(self, request=self.request.prepared(env))
        except DurableError as error:
            return evolve(self, refusal=error)

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> R_co | DurableError:
        """Do what is asked for, and note the answer; or the answer that was noted."""
        found = conn.execute("SELECT answer, refused FROM durable_requests WHERE id = ?", (self.id,)).fetchone()
        if found is not None:
            return self._answer(*found) if is_sound(conn, "durable_requests", self.id) else _unreadable()
        result = self._do(conn, effects, env)
        refused = isinstance(result, DurableError)
        answer = plain_error(result) if isinstance(result, DurableError) else plain_result(self.request, result)
        row = (self.id, json.dumps(answer, default=str), env.now, refused)
        conn.execute("INSERT INTO durable_requests (id, answer, at, refused) VALUES (?, ?, ?, ?)", row)
        return result

    def _answer(self, text: str, refused: int) -> R_co | DurableError:
        """The answer that was noted."""
        if not refused:
            try:
                return result_from(self.request, json.loads(text))
            except (ValueError, RecursionError, DecodeError):
                return _unreadable()
        answer = read_list(text, str, list)
        error = None if answer is None else error_from(*answer)
        return error or InternalError(f"it was refused before, by another release: {text!r:.200}")

    def _do(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> R_co | DurableError:
        """
        What it results in, or the error that refuses it, and then nothing of it.

        Raises:
            EngineClosedError, JournalError: No answer: another owner, or the same later, can do it.
        """
        conn.execute("SAVEPOINT durable_once")
        mine = Effects()
        try:
            if self.refusal is not None:
                raise self.refusal
            result: R_co | DurableError = self.request.record(conn, mine, env)
        except (EngineClosedError, JournalError):
            raise
        except DurableError as error:
            conn.execute("ROLLBACK TO durable_once")
            result = error
        else:
            effects.add(mine)
        conn.execute("RELEASE durable_once")
        return result


def _unreadable() -> InternalError:
    return InternalError("it was recorded before, and what it resulted in cannot be read: look at the journal")


# --- what is kept ---------------------------------------------------------------------------------


@light_frozen
class ForgetAnswers(JournalRequest[bool]):
    """Delete some of the answers that nobody asks for any more; True if there are others. Asked for by the engine."""

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Delete them."""
        return forget_answers(conn, env.now)


def forget_answers(conn: sqlite3.Connection, now: float) -> bool:
    """Delete a page of the answers that nobody asks for any more; True if there are others."""
    return conn.execute(_FORGET, (_kept_since(conn, now), _PAGE)).rowcount == _PAGE


def has_old_answers(conn: sqlite3.Connection, now: float) -> bool:
    """Whether there are answers that nobody asks for any more."""
    return conn.execute(_OLD, (_kept_since(conn, now),)).fetchone() is not None


def _kept_since(conn: sqlite3.Connection, now: float) -> float:
    """The instant since when answers are kept."""
    surplus = conn.execute(_SURPLUS, (KEPT_ROWS - 1,)).fetchone()
    by_age = now - KEPT_SECONDS
    return by_age if surplus is None else max(by_age, min(surplus[0], now - NEEDED_SECONDS))
