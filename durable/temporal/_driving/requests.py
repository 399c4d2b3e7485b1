"""
What one run asks of others: signals and cancels. The server records them; whether they were taken arrives.
"""

from __future__ import annotations

import asyncio
from functools import partial

from temporalio import workflow
from temporalio.exceptions import FailureError

from durable._core.codec.json_text import dumps
from durable._core.journal.events import RequestAccepted, RequestRefused
from durable._core.journal.payloads import failure_payload
from durable._core.run.decision import CancelAction, SignalAction
from durable.errors import RunNotFoundError
from durable.temporal._driving.here import RunHere, now
from durable.temporal._wire.payloads import packed
from durable.temporal._wire.starts import workflow_id_of


class Requests:
    """Requests of one run to others."""

    def __init__(self, here: RunHere) -> None:
        self._here = here
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, action: SignalAction | CancelAction) -> None:
        """Ask; the answer arrives."""
        task = asyncio.ensure_future(self._send(action))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    @property
    def are_sent(self) -> bool:
        """Whether the server has taken all."""
        return not self._sending

    async def _send(self, action: SignalAction | CancelAction) -> None:
        other = workflow.get_external_workflow_handle(workflow_id_of(action.run_id))
        if isinstance(action, SignalAction):
            send = partial(other.signal, action.name, args=[packed(action.payload), packed(dumps(action.dedup))])
        else:
            send = partial(other.cancel, reason=action.reason)
        try:
            await self._here.surely(send())
        except FailureError:  # the server tells no run that has ended from one that never was
            failure = failure_payload(RunNotFoundError("id", action.run_id), self._here.setup.codec)
            self._here.inbox.append(RequestRefused(action.position, failure, now()))
        else:
            self._here.inbox.append(RequestAccepted(action.position, "true", now()))
