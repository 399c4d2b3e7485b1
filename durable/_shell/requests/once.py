"""
A request that is recorded once, however often it is asked for.

An owner may die between its commit and its answer, and the client that asked cannot know. So it gives each
request an id, and asks the next owner under the same one. The id is recorded with the effect, in one
transaction, together with the answer: who asks again gets the first answer, and nothing happens twice.
What was refused had no effect, hence is looked at anew.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final, TypeVar

from attrs import evolve, frozen

from durable._shell.requests.encoding import plain_result, result_from
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable.errors import DurableError

R_co = TypeVar("R_co", covariant=True)

#: Seconds for which an id is kept: far longer than a client keeps asking.
KEPT_SECONDS: Final = 3_600.0


@frozen
class Once(JournalRequest[R_co]):
    """*request*, unless it was recorded under this id before."""

    id: str
    request: JournalRequest[R_co]
    #: Why an engine would refuse it, were it not recorded before.
    refusal: DurableError | None = None

    def prepared(self, env: Env) -> Once[R_co]:
        """Itself, with the request prepared."""
        try:
            return evolve(self, request=self.request.prepared(env))
        except DurableError as error:
            return evolve(self, refusal=error)

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> R_co:
        """Do what is asked for, and note the answer; or the answer that was noted."""
        found = conn.execute("SELECT answer FROM durable_requests WHERE id = ?", (self.id,)).fetchone()
        if found is not None:
            return result_from(self.request, json.loads(found[0]))
        if self.refusal is not None:
            raise self.refusal
        result = self.request.record(conn, effects, env)
        conn.execute("DELETE FROM durable_requests WHERE at < ?", (env.now - KEPT_SECONDS,))
        answer = json.dumps(plain_result(self.request, result))
        conn.execute("INSERT INTO durable_requests (id, answer, at) VALUES (?, ?, ?)", (self.id, answer, env.now))
        return result
