"""
The streams of one run: what its code has emitted, and what its steps have sent.

They are kept in the memory of a worker, as everything of the run is, and come again when the server replays it. A fresh
run of the server begins with none of them, and knows which runs before it have the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from temporalio import workflow
from temporalio.common import RawValue

from durable.temporal._wire.items import CHAPTERS, Chapter, Item, ItemPage, chapters_in, packed_chapters

#: Of one page: items, and characters or bytes of their values.
_PAGE: Final = 500
_PAGE_SIZE: Final = 1_000_000
#: Runs of the server whose items are still known to the last of a chain.
_CHAPTERS: Final = 1_000


class Streams:
    """The items of one run of the server, and where those of earlier ones are."""

    def __init__(self, marked: Mapping[str, RawValue]) -> None:
        self._chapters, self._first = chapters_in(marked.get(CHAPTERS))
        self._items: list[Item] = []

    def take(self, items: Iterable[Item]) -> None:
        """Append *items*."""
        self._items += items

    def page(self, stream: str, after: int) -> ItemPage:
        """The items of *stream* with numbers above *after*."""
        found: list[tuple[int, Item]] = []
        size = 0
        for index in range(max(0, after + 1 - self._first), len(self._items)):
            item = self._items[index]
            if item.stream == stream:
                if len(found) == _PAGE or size > _PAGE_SIZE:
                    return ItemPage(found, True, self._first, self._chapters)  # noqa: FBT003 - a record
                found.append((self._first + index, item))
                size += len(item.value)
        return ItemPage(found, False, self._first, self._chapters)  # noqa: FBT003 - a record

    def carried(self) -> list[RawValue]:
        """What the run that continues this one is told, among its arguments."""
        mine = [Chapter(workflow.info().run_id, self._first)] if self._items else []
        return packed_chapters([*self._chapters, *mine][-_CHAPTERS:], self._first + len(self._items))
