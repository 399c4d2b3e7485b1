"""
Steps and jobs that are async generators: what they yield is emitted, one item after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

from durable._core.program.command import Command
from durable._core.program.saying import emit, speaker


class Streamed(Protocol):
    """The step or job."""

    #: That of the stream, too.
    name: str
    #: Whether it returns the last item, rather than all.
    keeps_last: bool


def streaming(fn: Callable[..., Any], about: Streamed) -> Callable[..., Any]:
    """The coroutine function that emits what *fn* yields, waiting for room, and returns the list of it."""

    async def stream(*args: Any, **kwargs: Any) -> Any:
        items: list[Any] = []
        engine = speaker.get() is not None  # else it is called by itself, in a test
        async with aclosing(fn(*args, **kwargs)) as generator:
            async for item in generator:
                if isinstance(item, Command):
                    msg = f"{about!r} yields {item.describe()}: it may yield values; ops are for a @workflow"
                    raise TypeError(msg)
                if engine:
                    await emit(about.name, item)
                if about.keeps_last:
                    items.clear()
                items.append(item)
        return items if not about.keeps_last else items[0] if items else None

    return stream
