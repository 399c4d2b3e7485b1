"""
What workflow code may ask of the execution that drives it: the time, dice, patches, attributes.

This is the `WorkflowContext` of a run. Answers are the same on every replay: they are recorded, or
derived from what is. It also knows which ops exist and were not yielded yet.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable._core.journal.events import AttributesSet, Compensated, NowRead, PatchMarked
from durable._core.program.progress import Progress
from durable._core.program.saying import ROOM
from durable._core.run.decision import NOTHING, LogEntry, added, entered
from durable.errors import CapExceededError, InternalError, RunCancelled

if TYPE_CHECKING:
    from durable._core.program.command import Command
    from durable._core.program.current_driver import WorkflowContext
    from durable._core.run.nodes import OpenRun
    from durable._core.run.strand import Strand


class Answers:
    """What the code of one run gets to know."""

    __slots__ = ("_ex", "_now_read_at", "created_ops", "emitted", "patches", "run_id", "workflow")

    def __init__(self, ex: OpenRun) -> None:
        self._ex = ex
        self.run_id = ex.run_id
        self.workflow = ex.definition.name
        self.patches: dict[str, bool] = NOTHING
        self._now_read_at = -1
        #: Items so far, the same in every replay.
        self.emitted = 0
        #: Ops made by this run's code, by identity, that nobody has yielded yet.
        self.created_ops: dict[int, Command] = NOTHING

    def close(self) -> None:
        """Let go of the execution, whose code asks nothing any more."""
        self.created_ops.clear()
        del self._ex

    def now(self) -> float:
        ex = self._ex
        recorded = ex.history.now_reads.get(ex.arrivals)
        if recorded is not None:
            return recorded
        if not ex.may_ask_anew:
            return ex.time  # today's code asks, that of then did not: the time of then instead, as nothing is recorded
        if self._now_read_at != ex.arrivals:
            self._now_read_at = ex.arrivals
            ex.decision.events.append(NowRead(ex.arrivals, ex.time))
        return ex.time

    def random(self) -> Random:
        strand = self._strand()
        strand.draws += 1
        seed = self._ex.started.seed
        return Random(f"{seed}:{strand.position()}:{strand.draws}")  # noqa: S311 - replayable

    def uuid4(self) -> UUID:
        return UUID(int=self.random().getrandbits(128), version=4)

    def patched(self, change_id: str) -> bool:
        known = self.patches.get(change_id)
        if known is None:
            fresh = not self._ex.replaying or self._ex.at_frontier
            known = change_id in self._ex.history.patches or fresh
            self.patches = entered(self.patches, change_id, known)
            if fresh and change_id not in self._ex.history.patches:
                self._ex.decision.events.append(PatchMarked(change_id, self._ex.time))
        return known

    def set_attributes(self, values: dict[str, Any]) -> None:
        ex = self._ex
        # In replay too: what cannot be recorded raises in both, or neither.
        payload = ex.codec.encode_by_value(values, where=f"attributes of run {ex.run_id!r}")
        recorded, at_frontier = ex.history, ex.at_frontier
        if ex.replaying and not (recorded.reopened and (at_frontier or recorded.published)):
            return
        # What a new fork took along is published by its replay, as it is today: an outcome may have been replaced.
        ex.decision.attributes = {**(ex.decision.attributes or {}), **values}
        if not ex.replaying or payload not in (recorded.published[-1:] if at_frontier else recorded.published):
            ex.decision.events.append(AttributesSet(payload, ex.time))

    def emit(self, stream: str, value: Any) -> Awaitable[None]:
        ex, position = self._ex, self.position()
        payload = ex.codec.encode(value, where=f"item of stream {stream!r} of run {ex.run_id!r}")
        self.emitted += 1
        if self.emitted > ex.caps.stream_items:
            raise CapExceededError(f"run {ex.run_id!r}", "number of emitted items", self.emitted, ex.caps.stream_items)
        if not ex.replaying:
            ex.decision.emitted = added(ex.decision.emitted, (stream, position, payload))
        return ROOM

    def progress(self, done: float, total: float | None, note: str) -> None:
        ex = self._ex
        if not ex.replaying:
            ex.decision.progress = Progress(done, total, ex.codec.conceal(note), self.position(), ex.time)

    def compensating(self, name: str) -> None:
        if not self._ex.replaying:
            self._ex.decision.events.append(Compensated(name, self._ex.time))
            self._ex.decision.compensated = True

    def take_cancellation(self) -> RunCancelled | None:
        """The cancellation that the code that runs is to get at its next command, if it is: it gets it now."""
        strand = self._ex.current
        if strand is None or not strand.owes_cancel:
            return None
        strand.owes_cancel = False
        return RunCancelled(self._ex.codec.reveal(self._ex.cancel_reason))

    def log(self, level: str, event: str, values: dict[str, Any]) -> None:
        if not self._ex.replaying:
            decision = self._ex.decision
            decision.logs = added(decision.logs, LogEntry(level, event, values))

    def position(self) -> str:
        return self._strand().position()

    def _strand(self) -> Strand:
        if self._ex.current is None:  # pragma: no cover - user code runs inside a strand
            msg = "no strand is being driven"
            raise InternalError(msg)
        return self._ex.current.strand

    # --- ops that nobody yields ------------------------------------------------------------------

    def created(self, command: Command) -> None:
        if self.created_ops is NOTHING:
            self.created_ops = {id(command): command}
        else:
            self.created_ops[id(command)] = command

    def superseded(self, command: Command) -> None:
        self.created_ops.pop(id(command), None)

    def report(self, dropped: list[Command]) -> None:
        """Warn of ops that were made and never yielded, at the lines that made them."""
        for command in dropped:
            path, line = getattr(command, "site", None) or ("<unknown>", 0)
            message = f"{command.describe()} was created in workflow {self.workflow!r} and never yielded or awaited"
            warnings.warn_explicit(message, RuntimeWarning, path, line)

    def take_dropped(self) -> list[Command]:
        """Ops that nobody can yield any more, as no reference is left; they are forgotten here."""
        counts = _reference_counts(self.created_ops.values())
        found = [key for key, count in zip(self.created_ops, counts, strict=True) if count <= _OURS]
        return [self.created_ops.pop(key) for key in found]


def _reference_counts(commands: Iterable[object]) -> list[int]:
    return [sys.getrefcount(command) for command in commands]


#: References to an op that only `Answers` holds. Measured rather than known: it differs between releases.
_OURS = _reference_counts({0: object()}.values())[0]

if TYPE_CHECKING:
    _fits: type[WorkflowContext] = Answers
