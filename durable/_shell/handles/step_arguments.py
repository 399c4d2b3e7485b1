"""
What the steps of a run were called with.

A journal has digests of that alone, since the code makes it anew in every replay. So where the code is at hand, it is
replayed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from durable._core.codec.codec import Codec
from durable._core.journal.events import Event, RunStarted
from durable._core.journal.history import only
from durable._core.program.command import Command
from durable._core.program.functions import Job, RunnableDefinition, Workflow
from durable._core.program.ops import StepOp, TransactionOp
from durable._core.run.execution import Execution
from durable._core.run.nodes import Node, NodeOwner
from durable._shell.handles.run_info import Arguments


class _Listening(Execution):
    """Notes what steps are called with, by their positions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.called: dict[str, Arguments] = {}

    def open(self, op: Command, position: str, owner: NodeOwner, index: int) -> Node | None:
        if isinstance(op, StepOp | TransactionOp):
            self.called[position] = Arguments(op.args, op.kwargs)
        return super().open(op, position, owner, index)


async def arguments_of_steps(
    definition: RunnableDefinition[..., Any] | None, events: Sequence[Event], run_id: str, codec: Codec
) -> Mapping[str, Arguments]:
    """
    What the steps of a run were called with, by position: none without its *definition*.

    As far as today's code leads through the *events*: what it did otherwise is told when the run is continued.
    """
    if isinstance(definition, Job):
        found: dict[str, Arguments] = {}
        for started in only(events, RunStarted):
            with contextlib.suppress(Exception):
                given = codec.decode_arguments(started.value or "[[],{}]", definition.arguments, where="its arguments")
                found["0"] = Arguments(*given)
        return found
    if not isinstance(definition, Workflow):
        return {}
    execution = _Listening(definition, events, run_id=run_id, codec=codec)
    try:
        for _ in execution.load_in_slices():
            await asyncio.sleep(0)
    except Exception:  # noqa: BLE001, S110 - of the user's code, or that it does not fit: told where it counts
        pass
    finally:
        execution.close()
    return execution.called
