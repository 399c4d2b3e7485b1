"""
What is read of requests into runs. Runs on the reader's thread.
"""

from __future__ import annotations

import sqlite3

from durable._core.codec.codec import Payload
from durable._core.light_tuples import NamedTuple
from durable._core.statuses import Status
from durable._shell.reads.run_rows import damaged
from durable._shell.storage.seals import is_sound

_ASKED = """
SELECT r.run_id, r.status, r.successor IS NOT NULL, r.ended_at IS NOT NULL, r.reason,
       a.answered_at IS NOT NULL, a.refused, a.answer
FROM durable_asked AS a JOIN durable_runs AS r ON r.run = a.run WHERE a.request = ?
"""


class AskedRow(NamedTuple):
    """A request, and the run that is to answer it."""

    run_id: str
    status: Status
    #: Whether that run continued as another.
    continued: int
    ended: int
    #: Why that run is blocked, if it is.
    reason: str | None
    answered: int
    refused: int
    #: Or the reason, if it was refused.
    answer: Payload | None

    @property
    def is_open(self) -> bool:
        """Whether the answer may come without a person."""
        return not (self.answered or self.ended or self.status == "blocked")


def asked_row(conn: sqlite3.Connection, request: str) -> AskedRow | None:
    """
    The request of that id; None if there is none, or its run was pruned.

    Raises:
        JournalDamagedError: It does not fit its seal.
    """
    found = conn.execute(_ASKED, (request,)).fetchone()
    if found is not None and not is_sound(conn, "durable_asked", request):
        raise damaged(conn, f"request {request!r} into run {found[0]!r} does not match its checksum")
    return None if found is None else AskedRow(*found)
