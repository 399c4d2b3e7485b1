"""
What running code says of itself: items of streams, progress, attributes. It is no part of a history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from durable._core.codec.codec import Payload
from durable._core.light_tuples import NamedTuple
from durable._core.program.progress import Progress


class Emitted(NamedTuple):
    """An item of a stream of a run."""

    run: int
    stream: str
    #: Of the step; of the next command, if the workflow itself said it.
    position: str
    #: Of the step, from 1; 0 if the workflow itself said it.
    attempt: int
    value: Payload
    at: float


class ProgressMade(NamedTuple):
    """How far a run has come: the latest counts."""

    run: int
    progress: Progress


class AttributesPublished(NamedTuple):
    """What a step has published: merged over what is there."""

    run: int
    merge: Callable[[Payload | None], Payload]


Said: TypeAlias = Emitted | ProgressMade | AttributesPublished
