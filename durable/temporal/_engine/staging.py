"""
The runs that transactions stage: how they are kept in an outbox, and how they are started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from attrs import frozen
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.ops import RunOp
from durable._shell.rows import templates
from durable._shell.rows.carried import Carry
from durable.temporal._transactions.app_transactions import Staging
from durable.temporal._wire.starts import Start, labels_of, make_start


@frozen
class StagedRuns:
    """Starts runs of an outbox."""

    client: Client
    definitions: Definitions
    codec: Codec
    clock: Clock
    task_queue: Callable[[str], str]
    searchable: bool
    carry: Carry

    def staged(self, op: RunOp[Any], run_id: str) -> tuple[str, str]:
        """The id of the run that *op* starts, and how it is kept."""
        start = make_start(
            op, definitions=self.definitions, codec=self.codec, now=self.clock.now(), run_id=run_id,
            carried=self.carry.captured(self.codec),
        )  # fmt: skip
        return start.workflow_id, templates.to_json([start.new])

    async def start(self, run_id: str, kept: str) -> None:
        """Start a run that was staged; nothing, if it exists."""
        (template,) = templates.from_json(kept)
        start = Start(templates.begun(template, run=0, run_id=template.run_id, now=self.clock.now()))
        new = start.new
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await self.client.start_workflow(
                new.workflow,
                args=start.arguments,
                id=run_id,
                task_queue=self.task_queue(new.queue),
                memo=start.memo,
                priority=start.priority,
                start_delay=start.delay,
                search_attributes=labels_of(new) if self.searchable else None,
                id_reuse_policy=start.reuse,
            )


_fits: type[Staging] = StagedRuns
