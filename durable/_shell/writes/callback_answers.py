"""
Answers to callbacks. Runs on the writer's thread, inside an open transaction.

A callback is open as long as its row is among the waits. Whatever ends that (an answer, its deadline, a heartbeat that
is missed) takes its rows and puts an arrival into the inbox of its run, in one transaction: so there is one end, and
who comes later is told which.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, NoReturn

from durable._core.codec.codec import Payload
from durable._core.journal.callback_fates import ENDS_OF_CALLBACKS, SETS_ASIDE, CallbackFate
from durable._core.journal.columns import from_row
from durable._core.journal.events import CallbackCompleted, CallbackFailed, CallbackOpened, Event
from durable._core.light_frozen import light_frozen
from durable._core.program.tokens import Place, read_token
from durable._core.statuses import ENDS
from durable._shell.reads.run_rows import RunRow, run_by_id
from durable._shell.rows.rows import Effects
from durable._shell.writes.wakeups import close_callback, put_item
from durable.errors import TokenEndedError, TokenExpiredError, TokenForeignError, TokenUsedError

#: What a run knows of a callback, and what set that aside; then what it has not taken in yet.
_HISTORY = """
SELECT e.kind, e.position, e.body, coalesce(e.value, p.value), e.at FROM durable_events AS e
LEFT JOIN durable_payloads AS p ON p.payload = e.payload
WHERE e.run = ? AND (e.position = ? AND e.kind IN (?, ?, ?, ?, ?) OR e.kind IN (?, ?)) ORDER BY e.seq
"""
_INBOX = """
SELECT i.kind, i.position, i.body, coalesce(i.value, p.value), i.at FROM durable_inbox AS i
LEFT JOIN durable_payloads AS p ON p.payload = i.payload
WHERE i.run = ? AND i.position = ? AND i.kind IN (?, ?, ?, ?) ORDER BY i.item
"""
_ENDS: Final = [each.kind for each in ENDS_OF_CALLBACKS]
_ASIDE: Final = [each.kind for each in SETS_ASIDE]
_ROWS = "SELECT min(fire_at) FROM durable_waits WHERE run = ? AND position = ? AND kind IN ('callback', 'heartbeat')"
_IS_OPEN = "SELECT 1 FROM durable_waits WHERE run = ? AND position = ? AND kind = 'callback'"


@light_frozen
class Answered:
    """The answer that a callback has already."""

    run_id: str
    position: str
    failed: bool
    value: Payload


@light_frozen
class _Found:
    """The callback of a token."""

    run: RunRow
    opened: CallbackOpened
    fate: CallbackFate
    is_open: bool

    @property
    def answered(self) -> Answered | None:
        """The answer that it has already."""
        end = self.fate.end
        if not isinstance(end, (CallbackCompleted, CallbackFailed)):
            return None
        return Answered(self.run.run_id, end.position, isinstance(end, CallbackFailed), end.value or "null")


def answer(
    conn: sqlite3.Connection, token: str, event: Callable[[str], Event], now: float, effects: Effects
) -> Answered | None:
    """
    Give a callback its answer, which *event* makes for its position; the one that it has already, if it has.

    Raises:
        TokenError: The token is of no callback that can be answered.
    """
    found = _find(conn, token)
    if (answered := found.answered) is not None:
        return answered
    _check_open(conn, found, now)
    close_callback(conn, found.run.run, found.opened.position)
    put_item(conn, found.run.run, event(found.opened.position), effects, wakes=True)
    return None


def keep_alive(conn: sqlite3.Connection, token: str, now: float, effects: Effects) -> None:
    """
    Note that a callback is still being worked on.

    Raises:
        TokenError: The token is of no callback that is open.
    """
    found = _find(conn, token)
    if found.answered is not None:
        raise TokenUsedError(found.run.run_id, found.opened.position, "it was answered already")
    _check_open(conn, found, now)
    if found.opened.heartbeat is not None:
        due = now + found.opened.heartbeat
        conn.execute(
            "UPDATE durable_waits SET fire_at = ? WHERE run = ? AND position = ? AND kind = 'heartbeat'",
            (due, found.run.run, found.opened.position),
        )
        effects.fires(due)


def _find(conn: sqlite3.Connection, token: str) -> _Found:
    place = read_token(token)
    run = run_by_id(conn, place.run_id)
    if run is None:
        _refuse_foreign(place, "this journal has no such run: the token is of another file, or the run was pruned")
    about, fate = [run.run, place.position], CallbackFate(place)
    for row in conn.execute(_HISTORY, [*about, CallbackOpened.kind, *_ENDS, *_ASIDE]):
        fate.tell(from_row(*row))
    is_open = conn.execute(_IS_OPEN, about).fetchone() is not None
    opened = fate.found(is_open=is_open)
    for row in conn.execute(_INBOX, [*about, *_ENDS]):
        fate.tell_pending(from_row(*row))
    return _Found(run, opened, fate, is_open)


def _check_open(conn: sqlite3.Connection, found: _Found, now: float) -> None:
    run, opened = found.run, found.opened
    found.fate.check_in_time()
    if not found.is_open:
        status = f"the run has ended ({run.status})" if run.status in ENDS else "nobody waits for it any more"
        continued = f", and continued as {run.successor!r}" if run.successor is not None else ""
        raise TokenEndedError(run.run_id, opened.position, status + continued)
    (due,) = conn.execute(_ROWS, (run.run, opened.position)).fetchone()
    if due is not None and due <= now:  # its timer fires this moment
        over = opened.fire_at is not None and opened.fire_at <= now
        raise TokenExpiredError(
            run.run_id, opened.position, "its deadline is over" if over else "a heartbeat was missed"
        )


def _refuse_foreign(place: Place, reason: str) -> NoReturn:
    raise TokenForeignError(place.run_id, place.position, reason)
