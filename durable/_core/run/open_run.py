"""
What is open in one run, and what its nodes ask of it: is this command recorded or new, who waits for which signal.

`Execution` drives the code; this is the part that it shares with the nodes of its commands. It holds
the rule of replay: a command is looked up by position; recorded with the same kind and name it goes on, recorded
differently the run diverges, and where nothing is recorded it is new, or in a replay a divergence too.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from durable._core.journal.events import Command as RecordedCommand
from durable._core.journal.events import Event, SignalReceived
from durable._core.journal.payloads import arguments_digest, arguments_payload
from durable._core.journal.waits import Wait
from durable._core.program.ops import RunOp, StartOp, StepOp, TransactionOp
from durable._core.run.decision import Decision, added
from durable._core.run.divergence import Code, alike, diverged
from durable.errors import CapExceededError, EncodeError

if TYPE_CHECKING:
    from durable._core.codec.codec import Codec
    from durable._core.journal.history import History
    from durable._core.program import current_driver
    from durable._core.program.definition import Workflow
    from durable._core.program.ops import Command
    from durable._core.run.nodes import Leaf, Outcome, SignalNode, StrandNode

_E = TypeVar("_E", bound=RecordedCommand)


@lru_cache(maxsize=4096)
def _short(site: current_driver.Site) -> str:
    path, line = site
    return f"{'/'.join(path.rsplit('/', 2)[-2:])}:{line}"


class OpenRun:
    """A run's strands and open commands."""

    def __init__(
        self, definition: Workflow[..., Any], recorded: History, run_id: str, codec: Codec, crash_limit: int
    ) -> None:
        self.history = recorded
        self.started = recorded.started
        self.definition = definition
        self.run_id = run_id
        self.codec = codec
        self.crash_limit = crash_limit
        self.decision = Decision()
        self.runnable: deque[tuple[StrandNode, Outcome]] = deque()
        self.strands: list[StrandNode] = []
        self.leaves: dict[str, Leaf] = {}
        #: Positions of open `for_each`es whose later children the file starts.
        self.feeds: set[str] = set()
        self.signal_waiters: dict[str, list[SignalNode]] = {}
        #: Signals that nobody consumed yet, by name.
        self.signals: dict[str, deque[SignalReceived]] = {}
        #: Recorded commands that the code has not asked for yet.
        self.unmatched = dict(recorded.commands)
        #: Steps whose attempt is under way.
        self.running = 0
        self.time = self.started.at  # of the turn
        self.replaying = False
        #: Set in the replay of a reopened history once all that it holds was delivered.
        self.at_frontier = False
        #: Arrivals taken so far; and how many events were looked at for that, later attempts included.
        self.arrivals = 0
        self.taken = 0
        #: Commands opened since the list was emptied, while somebody looks on (see `Execution.walk`).
        self.opened: list[Any] | None = None
        #: While somebody looks on: the signals that were consumed, by the position of who waited for them.
        self.consumed: dict[str, SignalReceived] = {}
        #: Whether arguments are compared with the recorded ones; positions of those that differ.
        self.compares = False
        self.changed_arguments: list[str] = []
        #: The op that is being opened, and the strand whose code runs right now.
        self.asked: Command | None = None
        self.current: StrandNode | None = None

    @property
    def delivered_all(self) -> bool:
        """Whether nothing that is recorded is still to be delivered."""
        return self.taken >= len(self.history.arrivals)

    # --- commands ----------------------------------------------------------------------------------

    def command(self, event: _E, aliases: Sequence[str] = ()) -> tuple[_E, bool]:
        """
        The recorded event for this command, or *event* itself, recorded now; and whether it is new.

        *aliases* are names that it had in older code.
        """
        position: str = event.position
        recorded = self.unmatched.pop(position, None)
        if self.opened is not None:
            self.opened.append(recorded or event)
        if recorded is not None:
            if type(recorded) is not type(event) or not alike(recorded, event, aliases):
                self.diverge(position, event, recorded)
            if self.compares and (before := getattr(recorded, "digest", "")) and self._digest() not in ("", before):
                self.changed_arguments.append(position)
            return recorded, False
        if self.replaying and not self.history.reopened:
            self.diverge(position, event)
        self.decision.events.append(event)
        return event, True

    def matches(self, position: str, recorded: RecordedCommand) -> bool:
        """
        Take *recorded*, which has the kind and name of what the code asks for at *position*; or leave it to `command`.

        What most replayed commands are: nothing is made of them that would only be compared.
        """
        if self.compares:
            return False
        del self.unmatched[position]
        if self.opened is not None:
            self.opened.append(recorded)
        return True

    def replays(self, position: str) -> Event | None:
        """The command at *position*, if it is recorded already."""
        return self.unmatched.get(position)

    def diverge(self, position: str, requested: Any, recorded: Event | None = None, why: str = "") -> NoReturn:
        """
        The code asks for *requested* (None: for nothing) where something else is recorded.

        Raises:
            NondeterminismError: Always.
        """
        recorded = recorded or self.history.commands.get(position)
        code = Code([] if self.current is None else self.current.strand.frames(), self.definition.fn)
        digest = self._digest() if hasattr(requested, "digest") else ""
        raise diverged(self.run_id, position, recorded, requested, self.history.commands, code, digest, why)

    def _digest(self) -> str:
        """Of the arguments of the command that is being opened; empty where it has none."""
        op = self.asked.op if isinstance(self.asked, StartOp) else self.asked
        match op:
            case StepOp() | TransactionOp():
                return arguments_digest(op.args, op.kwargs, self.codec)
            case RunOp():
                with contextlib.suppress(EncodeError, CapExceededError):
                    return self.codec.digest(arguments_payload(op, self.codec))
            case _:
                pass
        return ""

    def site(self, op: Any) -> str:
        """Where *op* was made, short enough to be recorded with every command."""
        site: current_driver.Site | None = op.site
        if site is None:
            return ""
        return _short(site)

    # --- children, waits, blocks -------------------------------------------------------------------

    def child_id(self, position: str) -> str:
        """The id of the child at *position*: derived, so a child exists exactly once."""
        attempt = self.history.generation
        return f"{self.run_id}/{position}" if attempt == 1 else f"{self.run_id}/{position}@{attempt}"

    def cancel_child(self, run_id: str) -> None:
        """Ask a child to end; one that this very turn would create is not created."""
        children = self.decision.children
        unborn = [child for child in children if child.run_id == run_id]
        if unborn:
            children.remove(unborn[0])
        elif not self.replaying:
            self.decision.cancelled_children = added(self.decision.cancelled_children, run_id)

    def closed_wait(self, wait: Wait) -> None:
        """A wait ended otherwise than by its arrival: its row goes, or is not written at all."""
        if wait in self.decision.waits:
            self.decision.waits.remove(wait)
        elif not self.replaying:
            self.decision.waits_closed = added(self.decision.waits_closed, wait)

    def block(self, reason: str) -> None:
        """The run cannot go on without a person."""
        if not self.replaying:
            self.decision.blocked = reason

    # --- signals -----------------------------------------------------------------------------------

    def receive_signal(self, event: SignalReceived) -> None:
        """Give a signal to whoever has waited longest for its name; else keep it."""
        waiting = self.signal_waiters.get(event.name)
        if waiting:
            waiting[0].receive(event)
        else:
            self.signals.setdefault(event.name, deque()).append(event)

    def take_signal(self, name: str) -> SignalReceived | None:
        """The oldest signal of *name* that nobody consumed yet."""
        kept = self.signals.get(name)
        return kept.popleft() if kept else None
