"""
The checksum that chains a run's events: of each, and of the checksum of the one before it.

It is computed for every event that is written or read. So the time goes in as its eight bytes: as text, which
releases before schema 4 made of it, it took longer than all the rest. What those wrote keeps its checksum: the two are
told apart by their sign, event by event, since a run begun then may continue now.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from durable._core.codec.codec import Payload

pack_numbers: Final = struct.Struct("<qd").pack
#: Taken from a CRC of 32 bits, so that the difference is negative.
BELOW_OLDER: Final = 1 << 32
#: What no event has for its checksum, of either kind.
_OF_NO_EVENT: Final = 1 << 32


def checksum(before: int, kind: int, position: str | None, at: float, body: str | None, value: Payload | None) -> int:
    """CRC-32 of an event's columns, chained to the checksum of the event *before* it; less 2**32, so it is negative."""
    try:
        before = crc32(pack_numbers(kind, at), before)
    except struct.error:  # one of the two is damaged
        return _OF_NO_EVENT
    if value is None:
        return crc32(f"{position}|{body}".encode(), before) - BELOW_OLDER
    if type(value) is str:  # as nearly all
        return crc32(f"{position}|{body}|{value}".encode(), before) - BELOW_OLDER
    return crc32(_as_bytes(value), crc32(f"{position}|{body}||".encode(), before)) - BELOW_OLDER


def older_checksum(
    before: int, kind: int, position: str | None, at: float, body: str | None, value: Payload | None
) -> int:
    """As `checksum`, of an event that a release before schema 4 wrote: never negative."""
    chained = crc32(f"{kind}|{position}|{at!r}|{body}|".encode(), before)
    return chained if value is None else crc32(_as_bytes(value), chained)


def is_chained(
    recorded: object,
    before: int,
    kind: int,
    position: str | None,
    at: float,
    body: str | None,
    value: Payload | None,
) -> bool:
    """Whether *recorded* is the checksum of such an event behind the one whose checksum is *before*."""
    return recorded == checksum(before, kind, position, at, body, value) or (
        recorded == older_checksum(before, kind, position, at, body, value)
    )


def _as_bytes(value: object) -> bytes:
    """A payload; or a number, where its column is damaged."""
    return value if isinstance(value, bytes) else str(value).encode()
