"""
A stream of a run of a server, as its readers see it: `RunStream`, over queries.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from temporalio.service import RPCError, RPCStatusCode

from durable._core.statuses import ENDS, Status
from durable._shell.handles.stream import StreamItem
from durable.temporal._wire.items import STREAM, Chapter, Item, ItemPage, page_in

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

T = TypeVar("T")

#: Seconds between looks where nothing comes: the first, how they grow, the longest.
_FIRST_LOOK: Final = 0.05
_SLOWING: Final = 1.5
_LONGEST_LOOK: Final = 1.0


class TemporalStream(Generic[T]):
    """
    What a run emits under one name: ``async for value in run.stream("tokens")``, or its `items`.

    As `RunStream`: each loop begins anew, gives what is there, and what comes; it ends with the run, or with the last
    that it continued as. A worker of the run answers, which is asked again and again while nothing comes.
    """

    def __init__(
        self,
        asking: Asking,
        workflow_id: str,
        status: Callable[[], Awaitable[Status]],
        name: str,
        after: int,
        kind: Any,
    ) -> None:
        self._asking, self._id, self._status = asking, workflow_id, status
        self._name, self._after, self._kind = name, after, kind

    async def __aiter__(self) -> AsyncIterator[T]:
        """The values. Raises what `items` does."""
        async for item in self.items():
            yield item.value

    async def items(self) -> AsyncGenerator[StreamItem[T]]:
        """
        The items, each with its number and the attempt that emitted it.

        Raises:
            RunNotFoundError: There is no such run, or it is kept no longer.
            DecodeError: An item does not fit the type that was given.
        """
        after, seconds = self._after, _FIRST_LOOK
        while True:
            has_ended = await self._status() in ENDS
            page = await self._page(after)
            chapters = [*page.chapters, Chapter("", page.first)]
            for chapter, following in itertools.pairwise(chapters):
                while after + 1 < following.first:
                    older = await self._page(after, chapter.server_run_id)
                    for seq, item in older.items:
                        yield self._read(seq, item)
                    after = older.items[-1][0] if older.has_more else following.first - 1
            for seq, item in page.items:
                after = seq
                yield self._read(seq, item)
            if page.items:
                seconds = _FIRST_LOOK
            elif has_ended:
                return
            else:
                await asyncio.sleep(seconds)
                seconds = min(seconds * _SLOWING, _LONGEST_LOOK)

    async def _page(self, after: int, server_run_id: str | None = None) -> ItemPage:
        handle = self._asking.client.get_workflow_handle(self._id, run_id=server_run_id)
        try:
            return page_in(await handle.query(STREAM, args=[self._name, after], result_type=str))
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND and server_run_id is not None:  # kept no longer
                return ItemPage([], False, 1, [])  # noqa: FBT003 - a record
            raise

    def _read(self, seq: int, item: Item) -> StreamItem[T]:
        where = f"item of stream {self._name!r} of run {self._id!r}"
        value: T = self._asking.codec.decode(item.value, self._kind, where=where)
        return StreamItem(seq, value, item.position, item.attempt, item.at)
