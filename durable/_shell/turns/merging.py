"""
Merges what a run publishes into what it has published before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from durable._core.codec.codec import Codec, Payload


def merging(values: Mapping[str, Any], codec: Codec) -> Callable[[Payload | None], Payload]:
    """What gives the attributes of a run, from those that are stored."""

    def merge(before: Payload | None) -> Payload:
        known = {} if before is None else codec.decode(before, dict[str, Any], where="attributes")
        return codec.encode_by_value({**known, **values}, where="attributes")

    return merge
