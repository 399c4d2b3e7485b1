"""
What one run is asked, and answers: each request is an update of the server's, which ends with the answer.
"""

from __future__ import annotations

from typing import Final

from temporalio import workflow
from temporalio.common import RawValue

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps
from durable._core.journal.events import SignalReceived
from durable._core.run.decision import ReplyAction
from durable.temporal._driving.here import RunHere, now
from durable.temporal._wire.payloads import packed, plain

#: What an answer is: the workflow's, its refusal, or that the run has ended without one.
ANSWERED: Final = "answered"
REFUSED: Final = "refused"
UNANSWERED: Final = "unanswered"


class Questions:
    """Requests into one run."""

    def __init__(self, here: RunHere) -> None:
        self._here = here
        self._open: set[str] = set()
        self._answers: dict[str, RawValue] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._open

    async def ask(self, name: str, request: str, question: Payload) -> RawValue:
        """The answer, once there is one: how it was answered, and the value."""
        if request not in self._answers:
            self._open.add(request)
            self._here.inbox.append(SignalReceived(name, question, now(), request))
            await workflow.wait_condition(lambda: request in self._answers)
        return self._answers[request]

    def answer(self, reply: ReplyAction) -> None:
        """The workflow has answered, or refused."""
        self._tell(reply.request, REFUSED if reply.refused else ANSWERED, reply.payload)

    async def end(self, status: str) -> None:
        """The run has ended: who still waits hears that there is no answer."""
        for request in sorted(self._open):
            self._tell(request, UNANSWERED, dumps(status))
        await workflow.wait_condition(workflow.all_handlers_finished)

    def _tell(self, request: str, how: str, value: Payload) -> None:
        self._open.discard(request)
        self._answers[request] = packed(dumps([how, plain(value)]))
