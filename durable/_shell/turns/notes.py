"""
The cursors and memos of one run's steps: kept at once, given to later attempts, dropped once nobody can ask for them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from attrs import field

from durable._core.codec.codec import Payload
from durable._core.journal.events import Event, RunRetried, StepStarted, StepSucceeded
from durable._core.journal.history import only
from durable._core.light_frozen import light_define
from durable._core.program.progress import Progress
from durable._core.run.decision import Decision
from durable._shell.attempts.context import EmittedSoFar, StepContext
from durable._shell.attempts.running_attempt import AnyAttempt
from durable._shell.loops import running_loop
from durable._shell.reads.event_rows import notes_left
from durable._shell.rows.rows import DroppedNotes, Effects
from durable._shell.rows.said import AttributesPublished, Emitted, ProgressMade, Said
from durable._shell.turns.merging import merging
from durable._shell.turns.services import Services
from durable._shell.writes.turn_writes import keep_note
from durable.errors import CapExceededError, UsageError

#: What few steps have costs the others nothing.
_NONE: Final[frozenset[str]] = frozenset()


@light_define(eq=False)
class StepNotes:
    """What the steps of one run have noted."""

    _run: int
    _services: Services
    _is_job: bool = field(default=False, alias="is_job")  # named for type checkers that know no attrs
    #: Positions of steps that have left something.
    _dirty: frozenset[str] = field(default=_NONE, init=False)
    #: Those of steps whose memos go when they have succeeded.
    _not_kept: frozenset[str] = field(default=_NONE, init=False)
    #: In a run that was retried: names by position of the steps that were ever asked for.
    asked_before: Mapping[str, str] = field(default=MappingProxyType({}), init=False)

    def recorded(self, events: Sequence[Event]) -> None:
        """Learn from *events*, all that is recorded, which steps may have left something in an earlier life."""
        if any(only(events, RunRetried)):
            self.asked_before = {event.position: event.name for event in only(events, StepStarted)}

    async def keep(self, position: str, name: str, value: Payload) -> None:
        """Record a cursor or memo; returns once it is on disk."""
        run, at = self._run, self._services.clock.now()
        self._dirty |= {position}

        def insert(conn: sqlite3.Connection, _: Effects) -> None:
            keep_note(conn, run, position, name, value, at)

        await self._services.commits.call(insert, answers=False)

    def emit(
        self, about: StepContext, emitted: EmittedSoFar, stream: str, value: Any, *, sync: bool
    ) -> Awaitable[None]:
        """
        Write an item that an attempt emits, with the next commit.

        It is encoded as others read it, who know of no codec that its step may have.

        Raises:
            CapExceededError, EncodeError: It is one too many; or it cannot be recorded.
            UsageError: So much is not on disk that a caller who does not wait must stop.
        """
        services, commits = self._services, self._services.commits
        emitted.items += 1
        if emitted.items > services.caps.stream_items:
            where = f"the step at {about.position} of run {about.run_id!r}"
            raise CapExceededError(where, "number of emitted items", emitted.items, services.caps.stream_items)
        if commits.is_crowded_by(emitted.last):
            msg = (
                f"{commits.unsaid:,} items of streams are not on disk, and no more are taken from who does not wait: "
                "`await emit(...)`, or call it in a thread"
            )
            raise UsageError(msg)
        where = f"item of stream {stream!r} of step at {about.position} of run {about.run_id!r}"
        payload = services.codec.encode(value, where=where)
        item = Emitted(self._run, stream, about.position, about.attempt, payload, services.clock.now())
        emitted.last = self._say(item, sync=sync)
        return emitted.last

    def progress(self, about: StepContext, done: float, total: float | None, note: str) -> None:
        """Write how far the run has come, with the next commit."""
        services = self._services
        made = Progress(done, total, services.codec.conceal(note), about.position, services.clock.now())
        self._say(ProgressMade(self._run, made), sync=False)

    def publish(self, about: StepContext, values: dict[str, Any]) -> None:
        """
        Write attributes, with the next commit.

        Raises:
            CapExceededError, EncodeError: They cannot be recorded.
        """
        codec = self._services.codec
        codec.encode_by_value(values, where=f"attributes of run {about.run_id!r}")
        self._say(AttributesPublished(self._run, merging(values, codec)), sync=False)

    def _say(self, said: Said, *, sync: bool) -> Awaitable[None]:
        commits = self._services.commits
        if running_loop() is None:
            return commits.say_in_thread(said, sync=sync)
        return commits.say(said, sync=sync)

    def keep_no_memos(self, action: AnyAttempt) -> None:
        """Let the memos of a step go once it has succeeded."""
        self._not_kept |= {action.position}

    def may_be_left(self, action: AnyAttempt) -> bool:
        """Whether an earlier attempt may have left something for this one."""
        return action.attempt > 1 or action.position in self.asked_before

    async def left(self, action: AnyAttempt, run_id: str) -> dict[str, Payload]:
        """What earlier attempts have left for this one, by name."""
        found = await self._services.read(run_id, partial(notes_left, run=self._run, position=action.position))
        if found:
            self._dirty |= {action.position}
        return found

    def dropped(self, decision: Decision) -> DroppedNotes | None:
        """What goes, or is kept for people, with *decision*: a step has succeeded, or nobody can ask for it again."""
        everything = bool(decision.waits) and decision.waits[-1].kind == "restart"  # and asks for all anew
        if not (everything or self._dirty or self.asked_before):
            return None
        done: list[str] = []
        kept: list[str] = []
        ended = False
        if self._dirty and not everything:
            # A failed run may be retried: its failed steps then continue from their cursors. All stay dirty: a
            # turn that is not written is done again.
            ended = decision.ended is not None and decision.ended != "failed"
            done = [event.position for event in only(decision.events, StepSucceeded) if event.position in self._dirty]
            if self._is_job and decision.ended == "succeeded":  # all that is recorded of it
                done = [*self._dirty]
            kept = [position for position in done if position not in self._not_kept]
            done = [position for position in done if position in self._not_kept]
        if self.asked_before:  # if the mended code asks for another step, what is there is not for it
            done += [
                event.position
                for event in only(decision.events, StepStarted)
                if self.asked_before.get(event.position, event.name) != event.name
            ]
        return DroppedNotes(done, succeeded=kept, ended=ended, everything=everything)
