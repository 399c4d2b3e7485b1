"""
Lets steps that may kill the process run one at a time, and records whose turn it is before it begins.

Who is a suspect, and what a death says of it, is decided in `_core/suspicion`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from durable._core.suspicion import Suspect, Suspects
from durable._shell.attempts.running_attempt import RunningAttempt
from durable._shell.commits.commits import Commits
from durable._shell.writes.deaths import note_alone


class Quarantine:
    """Where the suspects of one engine wait."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._suspects = Suspects()
        self._turns: dict[Suspect, asyncio.Future[None]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, run: int, attempt: RunningAttempt) -> AsyncGenerator[None, None]:
        """The turn of *attempt*: begins once no other suspect runs, or at once if it is told to end."""
        suspect = Suspect(run, attempt.position, attempt.attempt)
        try:
            if not self._suspects.enter(suspect):
                turn = self._turns[suspect] = attempt.turn = asyncio.get_running_loop().create_future()
                await turn
            if not attempt.was_told:
                await self._commits.call(lambda conn, _: note_alone(conn, suspect), answers=False)
            yield
        finally:
            attempt.turn = None
            self._turns.pop(suspect, None)
            following = self._suspects.leave(suspect)
            if following is not None and not (turn := self._turns[following]).done():
                turn.set_result(None)
