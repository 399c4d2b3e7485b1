"""
What running code says of itself: `emit`, `progress`, `set_attributes`; in workflows, steps and jobs alike.

Workflow code says it through its driver: it is written with the turn, and replay is silent. A step says it through
its attempt, which the shell puts in charge: it is written with the next commit, before the outcome of the step.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Generator
from contextvars import ContextVar
from typing import Any, Final, Protocol

from durable._core.program import current_driver
from durable._core.program.definition import check_name
from durable.errors import UsageError

#: Characters of a note.
_LONGEST_NOTE: Final = 1_000


class Speaker(Protocol):
    """An attempt of a step or job, for what its function says."""

    def emit(self, stream: str, value: Any, *, sync: bool) -> Awaitable[None]: ...
    def progress(self, done: float, total: float | None, note: str) -> None: ...
    def set_attributes(self, values: dict[str, Any]) -> None: ...


class _Room:
    """What is awaited where there is room already."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


ROOM: Final = _Room()
#: The attempt that runs here, if one does.
speaker: ContextVar[Speaker | None] = ContextVar("durable_speaker", default=None)


def _speaker(what: str) -> Speaker:
    found = speaker.get()
    if found is None:
        msg = (
            f"{what} works in workflows, steps and jobs of an engine, and nothing of that kind runs here. (No process "
            "knows the step that started it; a thread does in a copy of its context: contextvars.copy_context().run)"
        )
        raise UsageError(msg)
    return found


def emit(stream: str, item: Any, *, sync: bool = False) -> Awaitable[None]:
    """
    Append *item* to a stream of this run, which others follow: ``async for item in run.stream("tokens")``.

    A plain call suffices, in threads, too: it is on disk with the next commit, and before the outcome of its step.
    ``await emit(...)`` waits until the buffer has room, with *sync* until the item is on disk; in a thread the call
    itself does. In workflow code an item is emitted once, and never by a replay; it is on disk before anything that
    the code starts after it begins, with *sync* or without. A step that is tried again emits again: its items bear the
    number of the attempt.

    Raises:
        EncodeError, CapExceededError: The item cannot be recorded; or there are too many, see `Caps`.
        UsageError: The buffer is full, and the call cannot wait; or nothing of an engine runs here.

    Example:
        >>> @workflow
        ... async def order() -> None:
        ...     emit("log", "packed")
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     [line async for line in run.stream("log", str)]
        ['packed']
    """
    check_name("the name of a stream", stream)
    driver = current_driver.driver_in_charge()
    if driver is not None:
        return driver.emit(stream, item)
    return _speaker("emit()").emit(stream, item, sync=sync)


def progress(done: float, total: float | None = None, note: str | None = None) -> None:
    """
    Tell how far this run has come: *done* of *total* (None: nobody knows), and a *note* for people.

    It is shown by `run.info().progress`, ``durable show`` and ``durable list``. The latest counts; call it as often as
    you like.

    Raises:
        ValueError: *done* or *total* is no finite number of at least 0.
        UsageError: Nothing of an engine runs here.

    Example:
        >>> @workflow
        ... async def order() -> None:
        ...     progress(1, 3, "packed")
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.result()
        ...     (await run.info()).progress.done
        1
    """
    for name, value in (("done", done), ("total", total)):
        given: Any = value
        if not (given is None and name == "total") and (
            isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf
        ):
            msg = f"progress({name}=) takes a number from 0 on, found {value!r:.60}"
            raise ValueError(msg)
    text = "" if note is None else str(note)[:_LONGEST_NOTE]
    driver = current_driver.driver_in_charge()
    if driver is not None:
        driver.progress(done, total, text)
    else:
        _speaker("progress()").progress(done, total, text)


def set_attributes(**values: Any) -> None:
    """
    Publish values that can be read from outside (`run.attributes`), merged over earlier ones.

    What a step publishes is merged when it is written: if all values together are too large then, the log says so.

    Raises:
        EncodeError, CapExceededError: They cannot be recorded.
        UsageError: Nothing of an engine runs here.

    Example:
        >>> @workflow
        ... async def order() -> None:
        ...     set_attributes(stage="packed")
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.result()
        ...     await run.attributes()
        {'stage': 'packed'}
    """
    driver = current_driver.driver_in_charge()
    if driver is not None:
        driver.set_attributes(values)
    else:
        _speaker("set_attributes()").set_attributes(values)
