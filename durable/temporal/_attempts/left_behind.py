"""
What the attempts of one step leave to each other, kept by the server as the heartbeat details of its activity.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle
from temporalio.service import RPCError

from durable._core.codec.codec import Codec, Payload
from durable._core.policies.caps import Caps
from durable._shell.attempts.context import EmittedSoFar, StepContext
from durable.errors import CapExceededError, UsageError
from durable.temporal._attempts.emitting import Emitter
from durable.temporal._wire.items import Item
from durable.temporal._wire.payloads import notes_in, plain_notes


class LeftBehind:
    """Cursors and memos of a step, and counts of how its attempts have ended."""

    def __init__(
        self,
        handle: AsyncActivityHandle,
        emitter: Emitter,
        codec: Codec,
        caps: Caps,
        before: Mapping[str, Any],
        told: Mapping[str, Any],
    ) -> None:
        """*before*: what an earlier attempt left; *told*: what came with the arguments."""
        self._handle = handle
        self._emitter = emitter
        self._codec, self._caps = codec, caps
        self._lock = asyncio.Lock()
        #: Attempts that failed, as a retry policy counts.
        self.failures: int = before.get("failures", told.get("failures", 0))
        #: Attempts that said how they ended: those that did not died.
        self.ended: int = before.get("ended", 0)
        self.notes: dict[str, Payload] = notes_in(before) or notes_in(told)
        self._progress: list[Any] = []
        #: Attributes that are still to be published.
        self.published: dict[str, Any] = {}

    @property
    def details(self) -> dict[str, Any]:
        """As the server keeps it."""
        found = {"failures": self.failures, "ended": self.ended, "notes": plain_notes(self.notes)}
        return {**found, "progress": self._progress} if self._progress else found

    def beat(self) -> None:
        """Give a sign of life, by way of the SDK: which cancels this activity when the server says so."""
        activity.heartbeat(self.details)

    async def send(self) -> None:
        """Have it on the server when this returns; the SDK collects what it is given for a while."""
        async with self._lock:
            self.beat()
            with contextlib.suppress(RPCError, AsyncActivityCancelledError):  # the SDK hears of that, too
                await self._handle.heartbeat(self.details)

    # --- as an attempt notes it ----------------------------------------------------------------

    async def keep(self, position: str, name: str, value: Payload) -> None:  # noqa: ARG002 - there is but one
        """Record a cursor or memo."""
        self.notes[name] = value
        await self.send()

    def emit(
        self, about: StepContext, emitted: EmittedSoFar, stream: str, value: Any, *, sync: bool
    ) -> Awaitable[None]:
        """
        Send an item to the run, with others.

        Raises:
            CapExceededError, EncodeError: It is one too many; or it cannot be recorded.
            UsageError: So much is not sent that a caller who does not wait must stop.
        """
        emitted.items += 1
        if emitted.items > self._caps.stream_items:
            where = f"the step at {about.position} of run {about.run_id!r}"
            raise CapExceededError(where, "number of emitted items", emitted.items, self._caps.stream_items)
        if self._emitter.is_full:
            msg = (
                f"{self._caps.stream_buffer:,} items of streams are not sent, and no more are taken from who does not "
                "wait: `await emit(...)`, or call it in a thread"
            )
            raise UsageError(msg)
        where = f"item of stream {stream!r} of step at {about.position} of run {about.run_id!r}"
        payload = self._codec.encode(value, where=where)
        return self._emitter.add(Item(stream, about.position, about.attempt, payload, time.time()), sync=sync)

    def progress(self, about: StepContext, done: float, total: float | None, note: str) -> None:  # noqa: ARG002
        """Show how far it has come, with the next sign of life."""
        self._progress = [done, total, self._codec.conceal(note)]

    def publish(self, about: StepContext, values: dict[str, Any]) -> None:
        """Publish attributes when the attempt ends."""
        self._codec.encode_by_value(values, where=f"attributes of run {about.run_id!r}")
        self.published |= values
