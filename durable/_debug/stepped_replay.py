"""
A replay that stands somewhere: forwards it continues, backwards it begins again.

Beginning again is how time travel works here. A generator cannot be turned back, but a replay is
cheap (microseconds a command), executes nothing, and comes to the same place with the same values.
The frames of the user's code are live, so their locals are the real ones, as they were at that moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from durable._core.journal import history
from durable._core.policies.retry import from_record
from durable._core.program.functions import Workflow
from durable._core.run.divergence.comparing import EVERYWHERE, NOWHERE, Comparing
from durable._core.run.execution import Execution
from durable._core.source_places import OURS
from durable.errors import DurableError, NondeterminismError, UsageError

if TYPE_CHECKING:
    from durable._core.codec.codec import Codec
    from durable._core.journal.events import CommandEvent, Event
    from durable._core.recorded.export_format import RunHistory
    from durable._core.run.nodes import StrandNode

#: What a strand did when it was resumed: it asked for a command, returned, raised, or asked for something
#: else than is recorded. "stuck": what is recorded cannot be delivered to it.
StopKind: TypeAlias = Literal["command", "returned", "raised", "diverged", "stuck"]


class Place(NamedTuple):
    """Where code stands: a frame, and a line of it."""

    frame: FrameType
    line: int

    @property
    def file(self) -> str:
        """The path of the source."""
        return self.frame.f_code.co_filename

    @property
    def function(self) -> str:
        """The name of the function."""
        return self.frame.f_code.co_qualname


class Stop(NamedTuple):
    """One stop of a replay: user code was resumed, and came to its next command or its end."""

    #: Of all stops, counted from 0.
    number: int
    kind: StopKind
    #: The strand that was resumed: "" is the body, "3.1" a helper in group 3.
    strand: str
    #: Of the command it asked for; of the one that would have been next, where it ended.
    position: str
    #: The commands that were opened: what it asked for, and the members of that.
    opened: tuple[CommandEvent, ...]
    #: Recorded arrivals that had been delivered by then; the last of them is what led here.
    delivered: int
    #: Where the innermost of its code stands.
    file: str
    line: int
    #: What it returned.
    value: Any = None
    #: What it raised, or how it diverged.
    error: BaseException | None = None


class SteppedReplay:
    """
    A replay of one run, standing at one of its stops.

    Args:
        definition: The workflow.
        recorded: Its history.
        codec: Decodes recorded values.
        compare: Compare arguments with the recorded ones; `changed_arguments` has the positions of those that differ.
    """

    def __init__(
        self, definition: Workflow[..., Any], recorded: RunHistory, codec: Codec, *, compare: bool = False
    ) -> None:
        self.definition = definition
        self.recorded = recorded
        self._codec = codec
        #: Of the first replay, since digests cost.
        self._comparing = Comparing(EVERYWHERE if compare else NOWHERE)
        retry = None if recorded.run.retry is None else from_record(recorded.run.retry)
        #: What replay needs of the events, sorted once.
        self.history = history.read(recorded.events, retry)
        self._execution: Execution | None = None
        self._steps: Iterator[StrandNode] = iter(())
        #: Where it stands; None before the first stop.
        self.stop: Stop | None = None
        #: Where the code of each strand stands, outermost first; the last place for one that ended.
        self._places: dict[str, list[Place]] = {}
        self._over = False
        self._begin()

    # --- moving --------------------------------------------------------------------------------------

    def next(self) -> Stop | None:
        """Continue to the next stop; None, and no move, if there is none."""
        if self._over:
            return None
        execution = self.execution
        try:
            node = next(self._steps, None)
        except DurableError as error:
            self._over = True
            kind: StopKind = "diverged" if isinstance(error, NondeterminismError) else "stuck"
            return self._stand(kind, execution.current, error)
        if node is None:
            self._over = True
            return None
        strand = node.strand
        if strand.raised is not None:
            return self._stand("raised", node, strand.raised)
        return self._stand("returned" if node.closed else "command", node, None)

    def seek(self, number: int) -> Stop:
        """
        Go to stop *number*, forwards or by beginning again.

        Raises:
            UsageError: If the replay has no such stop, or was closed.
        """
        _ = self.execution  # asked for because it raises if the replay was closed
        if self.stop is not None and self.stop.number > number:
            self._begin()
        stop = self.stop
        while stop is None or stop.number < number:
            following = self.next()
            if following is None:
                break
            stop = following
        if stop is None or stop.number != number:
            msg = f"there is no stop {number}: the replay has {0 if stop is None else stop.number + 1}"
            raise UsageError(msg)
        return stop

    def close(self) -> None:
        """Close the user's code, in dead mode."""
        if self._execution is not None:
            self._execution.close()
            self._execution = None
            self._places.clear()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # made in parts only, or the interpreter is going down
            self.close()  # in dead mode, before the garbage collector ends the generators in another

    # --- looking ---------------------------------------------------------------------------------------

    @property
    def execution(self) -> Execution:
        """The current execution."""
        if self._execution is None:
            msg = "this replay was closed"
            raise UsageError(msg)
        return self._execution

    def places(self, strand: str | None = None) -> list[Place]:
        """Where the code of a strand (by default the one that stopped) stands: outermost first."""
        if strand is None:
            strand = self.stop.strand if self.stop is not None else ""
        return self._places.get(strand, [])

    @property
    def changed_arguments(self) -> list[str]:
        """Positions of commands whose arguments differ from the recorded ones, as far as it went."""
        return [each.position for each in self._comparing.changed]

    def strands(self) -> list[tuple[str, str]]:
        """(strand, position of the command that it waits for) of those that are open, in order of their beginning."""
        return [
            (node.strand.prefix, "" if node.current is None else node.current.position)
            for node in self.execution.strands
        ]

    def arrival(self) -> Event | None:
        """The recorded arrival that led to this stop; None at the first."""
        stop = self.stop
        arrived = [*self.history.arrivals, *self.recorded.pending]
        return None if stop is None or not 0 < stop.delivered <= len(arrived) else arrived[stop.delivered - 1]

    # --- inside ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.close()
        recorded = self.recorded
        self._execution = Execution(
            self.definition, recorded.events, run_id=recorded.run.run_id, codec=self._codec, recorded=self.history
        )
        if self.stop is None:
            self._execution.comparing = self._comparing
        latest: Sequence[Event] = recorded.pending or recorded.events
        self._steps = self._execution.walk(recorded.pending, now=latest[-1].at)
        self._over = False
        self.stop = None

    def _stand(self, kind: StopKind, node: StrandNode | None, error: BaseException | None) -> Stop:
        execution = self.execution
        opened = execution.opened
        assert opened is not None
        strand = "" if node is None else node.strand.prefix
        position = "" if node is None else node.strand.position()
        if node is not None:
            self._places[strand] = _places(node, self._places.get(strand, []))
        if isinstance(error, NondeterminismError):
            position = error.position
        elif kind == "command" and node is not None:
            position = node.current.position if node.current is not None else _last(opened, strand, position)
        places = self._places.get(strand)
        stop = Stop(
            0 if self.stop is None else self.stop.number + 1,
            kind,
            strand,
            position,
            tuple(opened),
            execution.taken,
            places[-1].file if places else "",
            places[-1].line if places else 0,
            node.strand.value if node is not None and kind == "returned" else None,
            error,
        )
        opened.clear()
        self.stop = stop
        return stop


def _last(opened: Sequence[CommandEvent], strand: str, position: str) -> str:
    """The command that a strand asked for and that has its outcome already: the first that was opened in it."""
    return next((event.position for event in opened if event.position.rpartition(".")[0] == strand), position)


def _places(node: StrandNode, before: list[Place]) -> list[Place]:
    """Where the code of a strand stands, or stood at its end; *before* is where it stood at its last stop."""
    raised = node.strand.raised
    if raised is not None:
        return _raised_at(raised.__traceback__) or before
    frames = node.strand.frames()
    # A frame outlives its generator while it is held here, and then stands at its last line.
    return [Place(frame, frame.f_lineno) for frame in frames or [frame for frame, _ in before[:1]]]


def _raised_at(traceback: TracebackType | None) -> list[Place]:
    """Where an exception was raised: the user's frames of its traceback."""
    found: list[Place] = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(OURS):
            found.append(Place(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found
