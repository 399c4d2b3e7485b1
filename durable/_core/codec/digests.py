"""
Digests of recorded values: they tell one call from another without what it was called with.

They stand in plain text beside values. A short value can be found out by its digest, by trying all: so where hooks
encrypt they may bring a key for digests, `digest_key`, and these then end with a word that says by which key they were
made: ``0011223344556677.ab12``. Two of different keys say nothing about each other, and count as equal.
"""

from __future__ import annotations

import hashlib
from typing import Final

_BYTES: Final = 8


def digest_of(text: str | bytes, key: bytes | None = None) -> str:
    """
    16 hex digits that tell *text* from another; behind them, which *key* made them.

    Without a key it is for reports and comparisons, not for security.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if key is None:
        return hashlib.blake2b(data, digest_size=_BYTES).hexdigest()
    return f"{hashlib.blake2b(data, digest_size=_BYTES, key=key).hexdigest()}.{_name_of(key)}"


def fits(text: str, recorded: str, key: bytes | None) -> bool:
    """Whether *text* may be what *recorded* is the digest of: a digest by another key than *key* does not tell."""
    name = recorded.partition(".")[2]
    if not name:
        return digest_of(text) == recorded
    return key is None or name != _name_of(key) or digest_of(text, key) == recorded


def may_be_equal(one: str | None, other: str | None) -> bool:
    """Whether two calls, "name:digest" each, may be equal, as far as their digests tell."""
    if one == other or one is None or other is None:
        return one == other
    (name, _, digest), (other_name, _, other_digest) = one.rpartition(":"), other.rpartition(":")
    return name == other_name and digest.partition(".")[2] != other_digest.partition(".")[2]


def _name_of(key: bytes) -> str:
    return hashlib.blake2b(key, digest_size=2, person=b"durable digest").hexdigest()
