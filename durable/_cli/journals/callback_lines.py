"""
The callbacks of a run, one line each, from its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from durable._cli.terminal.output import iso
from durable._core.durations import span
from durable._core.journal.events import (
    CallbackCompleted,
    CallbackFailed,
    CallbackOpened,
    Event,
    HeartbeatMissed,
    TimerFired,
)
from durable._core.journal.history import effective
from durable._core.program.tokens import make_token
from durable._core.statuses import ENDS
from durable._shell.reads.run_rows import RunRow

_ENDED: Final[dict[type, str]] = {
    CallbackCompleted: "completed",
    CallbackFailed: "failed",
    HeartbeatMissed: "timed out",
    TimerFired: "timed out",
}


class CallbackLine(NamedTuple):
    """A callback as it stands."""

    position: str
    name: str
    type: str
    #: open, completed, failed, timed out, or closed: its run has ended.
    status: str
    due_at: float | None
    #: Of one that is open. Who reads the file may answer.
    token: str | None

    def in_words(self, now: float) -> str:
        """For people."""
        named = f"{self.name} ({self.type})" if self.name and self.type else self.name or self.type
        due = "" if self.due_at is None or self.token is None else f", due in {span(max(0.0, self.due_at - now))}"
        told = f"{self.position}  {named}  {self.status}{due}".replace("    ", "  ")
        return told if self.token is None else f"{told}: durable complete {self.token}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "position": self.position,
            "name": self.name or None,
            "type": self.type or None,
            "status": self.status,
            "due_at": None if self.due_at is None else iso(self.due_at),
            "token": self.token,
        }


def callbacks_in(row: RunRow, events: Iterable[Event]) -> list[CallbackLine]:
    """The callbacks of a run in the order in which they were made: those that count."""
    found: dict[str, CallbackLine] = {}
    over = row.status in ENDS
    for event in effective([*events])[0]:
        if isinstance(event, CallbackOpened):
            token = None if over else make_token(row.run_id, event.position, event.nonce)
            status = "closed" if over else "open"
            found[event.position] = CallbackLine(event.position, event.name, event.type, status, event.fire_at, token)
        elif type(event) in _ENDED and event.position in found:
            found[event.position] = found[event.position]._replace(status=_ENDED[type(event)], token=None)
    return list(found.values())
