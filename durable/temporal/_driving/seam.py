"""
What the driver gives an `Execution` of its own: answers that are the server's, and openers for ops that travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio import workflow

from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import PatchMarked
from durable._core.program.command import Command
from durable._core.program.ops import StepOp, TransactionOp
from durable._core.run.answers import Answers
from durable._core.run.attempts import AttemptNode
from durable._core.run.decision import entered
from durable._core.run.execution import OPENERS
from durable._core.run.nodes import Node, NodeOwner, Opener, OpenRun
from durable.temporal._setup.registry import Registry


class ServerAnswers(Answers):
    """Answers of a run on a server."""

    __slots__ = ()

    def patched(self, change_id: str) -> bool:
        """The server's own marker, since each replay begins with no history here; or that of a journal carried."""
        known = self.patches.get(change_id)
        if known is None:
            ex = self._ex
            carried = change_id in ex.history.patches
            known = carried or (not ex.replaying and workflow.patched(change_id))
            self.patches = entered(self.patches, change_id, known)
            if known and not carried:
                ex.decision.events.append(PatchMarked(change_id, ex.time))
        return known

    def report(self, dropped: list[Command]) -> None:
        if not workflow.unsafe.is_replaying():  # what is a replay to the server is none to the execution
            super().report(dropped)


class Travelling:
    """
    The steps of a run that this turn opens: their arguments as they travel, and where another worker finds them.

    It is asked when the code asks for a step, so that what cannot travel is refused at that line.
    """

    def __init__(self, registry: Registry, codec: Codec) -> None:
        self._registry = registry
        self._codec = codec
        self._checked: dict[str, tuple[Payload, str]] = {}
        #: What opens the ops of the run.
        self.openers: Mapping[type, Opener] = {
            **OPENERS,
            StepOp: _StepOpener(self),
            TransactionOp: _StepOpener(self),
        }

    def check(self, position: str, op: StepOp[Any] | TransactionOp[Any]) -> None:
        """
        Note how *op* travels.

        Raises:
            DefinitionError, EncodeError: It cannot.
        """
        self._checked[position] = self._encoded(op)

    def take(self, position: str, op: StepOp[Any] | TransactionOp[Any]) -> tuple[Payload, str]:
        """The arguments of *op*, and where its function is."""
        return self._checked.pop(position, None) or self._encoded(op)

    def _encoded(self, op: StepOp[Any] | TransactionOp[Any]) -> tuple[Payload, str]:
        place = self._registry.place_of(op)
        where = f"arguments of {op.describe()}"
        codec = op.definition.codec_of(self._codec)
        return codec.encode_arguments(op.args, op.kwargs, op.definition.arguments, where=where), place


class _StepOpener:
    def __init__(self, travelling: Travelling) -> None:
        self._travelling = travelling

    def __call__(self, ex: OpenRun, position: str, owner: NodeOwner, index: int, op: Any, /) -> Node:
        if not ex.replays(position):
            self._travelling.check(position, op)
        return AttemptNode(ex, position, owner, index, op)

    def carried(self, op: Any, codec: Codec, /) -> tuple[str, ...]:
        return AttemptNode.carried(op, codec)
