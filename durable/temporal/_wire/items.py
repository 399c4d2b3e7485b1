"""
Items of streams on their way from an attempt to its run, and from a run to its readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from temporalio.common import RawValue

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps, loads
from durable.temporal._wire.payloads import from_plain, packed, plain, unpacked_text

#: The signal that brings items, the query that reads them, and the one that tells the chapters.
ITEMS: Final = "durable.items"
STREAM: Final = "durable.stream"
CHAPTERS: Final = "durable.chapters"


class Item(NamedTuple):
    """What was emitted; *attempt* is 0 where the workflow itself did."""

    stream: str
    position: str
    attempt: int
    value: Payload
    at: float


class Chapter(NamedTuple):
    """The items that one run of the server has taken in: a run that continues as another has several."""

    #: The server's id of that run, and the number of the first of them.
    server_run_id: str
    first: int


class ItemPage(NamedTuple):
    """Items of one stream behind a number, each with its own."""

    items: list[tuple[int, Item]]
    has_more: bool
    #: The number of the first item that this run of the server may have; those before are in the chapters.
    first: int
    chapters: list[Chapter]


def packed_items(items: Iterable[Item]) -> RawValue:
    """Items as the argument of a signal."""
    return packed(dumps([[*each[:3], plain(each.value), each.at] for each in items]))


def items_in(raw: RawValue) -> list[Item]:
    """What `packed_items` packed."""
    return [_item(each) for each in loads(unpacked_text(raw))]


def page_text(page: ItemPage) -> str:
    """A page as the answer to a query."""
    items = [[seq, *each[:3], plain(each.value), each.at] for seq, each in page.items]
    return dumps([items, page.has_more, page.first, page.chapters])


def page_in(text: str) -> ItemPage:
    """What `page_text` wrote."""
    items, has_more, first, chapters = loads(text)
    return ItemPage(
        [(seq, _item(each)) for seq, *each in items], has_more, first, [Chapter(*each) for each in chapters]
    )


def packed_chapters(chapters: Sequence[Chapter], following: int) -> list[RawValue]:
    """Where the items of earlier runs of the server are, and the number of the next, as one marked argument."""
    return [packed(dumps([following, *chapters]), CHAPTERS)] if following > 1 else []


def chapters_in(raw: RawValue | None) -> tuple[list[Chapter], int]:
    """What `packed_chapters` packed."""
    if raw is None:
        return [], 1
    following, *chapters = loads(unpacked_text(raw))
    return [Chapter(*each) for each in chapters], following


def _item(told: Sequence[Any]) -> Item:
    stream, position, attempt, value, at = told
    return Item(stream, position, attempt, from_plain(value), at)
