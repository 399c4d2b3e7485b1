"""
Moving through a replay, and knowing what changed: the debugger's legs.

A walker knows all stops from one silent pass, goes to any of them, and remembers what the locals of each
strand looked like where it stopped before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from durable._core.recorded.memos import RecordedMemo, memos_in
from durable._debug import looking_around as look
from durable._debug.replay import outcomes_of
from durable._debug.stepped_replay import Place, SteppedReplay, Stop
from durable.errors import UsageError

if TYPE_CHECKING:
    from pdb import Pdb

    from durable._core.codec.codec import Codec
    from durable._core.journal.events import CommandEvent
    from durable._core.program.functions import Workflow
    from durable._core.recorded.export_format import RunHistory


class Walker:
    """
    Goes from stop to stop of one replay.

    Args:
        definition: The workflow.
        recorded: Its history.
        codec: Decodes recorded values.
        new_pdb: Makes what `breakpoint()` in workflow code opens; it opens nothing without.
        seconds: How long a walk over many stops may take, where nobody sits who could interrupt it.
    """

    def __init__(
        self,
        definition: Workflow[..., Any],
        recorded: RunHistory,
        codec: Codec,
        new_pdb: Callable[[], Pdb] | None = None,
        *,
        seconds: float | None = None,
    ) -> None:
        self.new_pdb = new_pdb
        self.codec = codec
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.replay = SteppedReplay(definition, recorded, codec)
        #: All stops of the replay.
        self.stops: list[Stop] = []
        with breakpoints(None):
            while (stop := self.replay.next()) is not None:
                self.stops.append(stop)
                self._in_time()
        execution = self.replay.execution
        #: What came of each command, and which are open at the end.
        self.outcomes = outcomes_of(recorded, execution.consumed)
        self.open = frozenset(execution.leaves)
        #: What steps have recorded by `memo`, by position.
        self.memos: dict[str, list[RecordedMemo]] = {}
        for memo in memos_in(recorded.notes):
            self.memos.setdefault(memo.position, []).append(memo)
        # By stop: the one before it in the same strand, or -1.
        self._before: list[int] = []
        latest: dict[str, int] = {}
        for stop in self.stops:
            self._before.append(latest.get(stop.strand, -1))
            latest[stop.strand] = stop.number
        # What the locals of a strand looked like, at which stop.
        self._seen: dict[str, tuple[int, dict[str, str]]] = {}
        #: What the locals here were at this strand's stop before.
        self.locals_before: dict[str, str] = {}
        self._furthest = -1

    @property
    def stop(self) -> Stop | None:
        """Where it stands."""
        return self.replay.stop

    def go(self, number: int) -> Stop:
        """Stand at a stop, and know what the strand's locals were at its stop before: that stop."""
        before, strand = self._before[number], self.stops[number].strand
        with breakpoints(None):
            if before >= 0 and self._seen.get(strand, (-1, {}))[0] != before:
                self.replay.seek(before)
                self._seen[strand] = (before, look.locals_in(self.innermost()))
            if self._furthest >= 0:
                self.replay.seek(min(number, self._furthest))
        with breakpoints(self.new_pdb if number > self._furthest else None):
            stop = self.replay.seek(number)
        self.arrived(number)
        return stop

    def arrived(self, number: int) -> None:
        """The replay was moved to a stop by somebody else: take note of the locals there."""
        strand = self.stops[number].strand
        at, seen = self._seen.get(strand, (-1, {}))
        self.locals_before = seen if at == self._before[number] else {}
        self._seen[strand] = (number, look.locals_in(self.innermost()))
        self._furthest = max(self._furthest, number)

    def stop_of(self, position: str) -> int | None:
        """The stop at which the command at *position* was asked for; None if none was."""
        for stop in self.stops:
            if stop.position == position or any(event.position == position for event in stop.opened):
                return stop.number
        return None

    def told(self, event: CommandEvent) -> str:
        """A command, and what came of it."""
        return look.with_outcome(event, self.outcomes.get(event.position), self.codec, self.open)

    def along(self, numbers: range) -> Iterator[tuple[Stop, list[Place]]]:
        """Walk over stops, forward: each with the places where its code stands."""
        for number in numbers:
            with breakpoints(self.new_pdb if number > self._furthest else None):
                stop = self.replay.seek(number)
            self._furthest = max(self._furthest, number)
            self._in_time()
            yield stop, self.replay.places()

    def _in_time(self) -> None:
        """
        Say so if the time allowed is over. Between two stops the code is the user's own, and not interrupted.

        Raises:
            UsageError: It is.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            msg = f"replaying run {self.replay.recorded.run.run_id!r} takes too long here: `durable debug` has no limit"
            raise UsageError(msg)

    def innermost(self) -> Place | None:
        """Where the innermost function of the strand that stopped stands."""
        places = self.replay.places() if self.stop is not None else []
        return places[-1] if places else None


@contextmanager
def breakpoints(new_pdb: Callable[[], Pdb] | None) -> Generator[None]:
    """
    What `breakpoint()` in workflow code does in this block: opens *new_pdb* there, or nothing.

    On ground that was walked before it does nothing: going back replays it, and must not ask again.
    """

    def hook(*_: Any, **__: Any) -> None:
        if new_pdb is not None:
            new_pdb().set_trace(sys._getframe(1))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    before, sys.breakpointhook = sys.breakpointhook, hook
    tracing = sys.gettrace()
    try:
        yield
    finally:
        sys.breakpointhook = before
        sys.settrace(tracing)  # since pdb ends it by `continue`, and leaves its own on by `next`
