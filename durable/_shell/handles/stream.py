"""
A stream of a run, as its readers see it: what is there, then what comes, until the run has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Generic, TypeVar

from durable._core.light_frozen import late_frozen
from durable._shell.backend import Backend
from durable._shell.reads.stream_rows import PAGE, stream_page
from durable.errors import RunNotFoundError

T = TypeVar("T")


@late_frozen
class StreamItem(Generic[T]):
    """An item of a stream."""

    #: Where a reader continues behind it: ``run.stream(name, after=item.seq)``. It grows, and leaves numbers out.
    seq: int
    value: T
    #: Of the step that emitted it; of the next command, if the workflow itself did.
    position: str
    #: Of the step, from 1: an attempt that is made again emits again. 0: the workflow itself did.
    attempt: int
    #: Epoch seconds, UTC.
    at: float


class RunStream(Generic[T]):
    """
    What a run emits under one name: ``async for value in run.stream("tokens")``, or its `items`.

    Each loop begins anew behind *after*, gives what is there, and waits for what comes. It ends with the run, or with
    the last that it continued as. A reader that takes its time holds nobody up, and misses nothing.
    """

    def __init__(self, backend: Backend, run_id: str, name: str, after: int, kind: Any) -> None:
        self._backend, self._run_id, self._name, self._after, self._kind = backend, run_id, name, after, kind

    async def __aiter__(self) -> AsyncIterator[T]:
        """
        The values.

        Raises:
            RunNotFoundError: There is no such run, or no more: it was pruned.
            DecodeError: An item does not fit the type that was given.
        """
        async for item in self.items():
            yield item.value

    async def items(self) -> AsyncGenerator[StreamItem[T]]:
        """The items, each with its number and the attempt that emitted it. Raises as a loop over the values does."""
        after, backend, run_id = self._after, self._backend, self._run_id
        where = f"item of stream {self._name!r} of run {self._run_id!r}"
        while True:
            page = await backend.read(stream_page, run_id, self._name, after)
            if page is None:
                raise RunNotFoundError("id", run_id)
            for row in page.items:
                after = row.seq
                value: T = backend.codec.decode(row.value, self._kind, where=where)
                yield StreamItem(row.seq, value, row.position, row.attempt, row.at)
            if len(page.items) == PAGE:
                continue
            if page.successor is not None:
                run_id = page.successor
            elif page.ended:
                return
            else:
                await backend.wait_for_news(run_id, page.mark)
