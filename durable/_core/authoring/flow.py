"""
Plain functions for workflow code, deterministic on replay.

They answer through the driver in charge, so they work in workflow code only; in steps use the
standard library's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable._core.light_frozen import light_frozen
from durable._core.program import current_driver
from durable._core.program.definition import check_name

if TYPE_CHECKING:
    from random import Random


def now() -> datetime:
    """
    The time of the current turn, as an aware datetime in UTC; the same on every replay.

    Example:
        >>> @workflow
        ... async def order() -> bool:
        ...     return now().tzinfo is UTC
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        True
    """
    return datetime.fromtimestamp(current_driver.require_driver("now()").now(), UTC)


def uuid4() -> UUID:
    """
    A random UUID, seeded by run and position: the same on every replay.

    Example:
        >>> @workflow
        ... async def order() -> int:
        ...     return len(str(uuid4()))  # the same id on every replay
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        36
    """
    return current_driver.require_driver("uuid4()").uuid4()


def random() -> Random:
    """
    A `random.Random` seeded by run and position: the same on every replay.

    Example:
        >>> @workflow
        ... async def order() -> bool:
        ...     return random().random() < 1  # the same number on every replay
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        True
    """
    return current_driver.require_driver("random()").random()


def patched(change_id: str) -> bool:
    """
    Whether this run follows the code *with* the change called *change_id*.

    True for runs that come here for the first time with the new code (recorded, so it stays
    true); False for runs whose recorded history passed here before the change. Keep the old
    branch in the ``else`` until no run needs it.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(item: str) -> int:
        ...     cents = await price(item)
        ...     if patched("taxes"):  # False in runs that came by here before this line was written
        ...         cents += 1
        ...     return cents
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order("tea"))
        4
    """
    return current_driver.require_driver("patched()").patched(check_name("change id", change_id))


@light_frozen
class Current:
    """Where workflow code stands."""

    run_id: str
    workflow: str
    #: The position of the next command.
    position: str


def current() -> Current:
    """
    The run id, workflow and position of the workflow code that asks.

    Example:
        >>> @workflow
        ... async def order() -> str:
        ...     return current().workflow
        >>> async with Engine(":memory:", [order]) as engine:
        ...     await engine.run(order())
        'order'
    """
    driver = current_driver.require_driver("current()")
    return Current(driver.run_id, driver.workflow, driver.position())


class Logger:
    """
    A logger for workflow code that is silent during replay.

    An entry is logged (as ``durable.workflow``, with run id and workflow) once the turn that made
    it is on disk, so each is logged once however often the code is replayed.
    """

    def debug(self, event: str, **values: Any) -> None:
        """Log at level debug."""
        current_driver.require_driver("logger").log("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Log at level info."""
        current_driver.require_driver("logger").log("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log at level warning."""
        current_driver.require_driver("logger").log("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log at level error."""
        current_driver.require_driver("logger").log("error", event, values)


logger = Logger()
