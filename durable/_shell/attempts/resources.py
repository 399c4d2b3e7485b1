"""
What steps and jobs share: an HTTP client, a pool, settings. Given to the engine, asked for by type.

An async context manager is entered when the engine opens and left when it closes: in one task that does nothing else,
since many of them (task groups, cancel scopes) may not be left by another task than the one that entered them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

from durable._core.codec.exceptions.safe_text import one_line, shown
from durable._shell.log import log
from durable.errors import DefinitionError, ResourceNotFoundError

T = TypeVar("T")

#: To leave resources in, however short the grace of the engine is.
LEAST_SECONDS: Final = 1.0


class Resources:
    """
    The resources of one engine.

    Args:
        given: The objects; or by the type that they are asked for by, as tests put another in its place. One that is an
            async context manager is entered at opening, and what that gives is the resource. A function (of no
            arguments) is called at each opening, for what can be entered only once.

    Raises:
        DefinitionError: They are no list and no mapping of types.
    """

    def __init__(self, given: Iterable[Any] | Mapping[type[Any], Any] = ()) -> None:
        found: Any = given
        if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
            msg = f"Engine(resources=) takes a list of objects, or a mapping of them by type, found {shown(found, 60)}"
            raise DefinitionError(msg)
        if isinstance(found, Mapping):
            by_kind: list[tuple[Any, Any]] = list(found.items())
        else:
            by_kind = [(None, each) for each in found]
        self._given = by_kind
        for kind, each in by_kind:
            if kind is not None and not isinstance(kind, type):
                msg = f"Engine(resources=) takes a mapping by type, found the key {shown(kind, 60)}"
                raise DefinitionError(msg)
            if isinstance(each, type):
                msg = f"Engine(resources=) takes objects, found the class {each.__qualname__}: call it"
                raise DefinitionError(msg)
        self._held: list[tuple[type[Any], Any]] = []
        self._known: dict[type[Any], Any] = {}
        self._holder: asyncio.Task[None] | None = None
        self._let_go = asyncio.Event()

    async def open(self) -> None:
        """Make and enter them, in their order; raises what that raises, with those before it left again."""
        if not self._given:
            return
        self._let_go = asyncio.Event()
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold(entered), name="durable-resources")
        try:
            await asyncio.shield(entered)
        except BaseException:
            await self.aclose(LEAST_SECONDS)
            raise

    async def aclose(self, seconds: float) -> None:
        """Leave them, the last first: within *seconds*, after which that is cancelled."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        self._let_go.set()
        seconds = max(seconds, LEAST_SECONDS)
        done, _ = await asyncio.wait([holder], timeout=seconds)
        if not done:
            log.error("resources.not_closed", error=f"not left within {seconds:g} s")
            holder.cancel()
            await asyncio.wait([holder], timeout=seconds)
        elif not holder.cancelled() and (error := holder.exception()) is not None:
            log.error("resources.not_closed", error=one_line(error))
        self._held.clear()
        self._known.clear()

    async def _hold(self, entered: asyncio.Future[None]) -> None:
        async with AsyncExitStack() as stack:
            try:
                for kind, given in self._given:
                    each = given() if inspect.isfunction(given) or inspect.ismethod(given) else given
                    if hasattr(type(each), "__aenter__") and hasattr(type(each), "__aexit__"):
                        each = await stack.enter_async_context(each)
                    self._held.append((kind or type(each), each))
            except BaseException as error:
                if not isinstance(error, asyncio.CancelledError):
                    entered.set_exception(error)
                    return
                raise
            entered.set_result(None)
            await self._let_go.wait()

    def get(self, kind: type[T], asked_by: Callable[[], str]) -> T:
        """
        The one of *kind*; *asked_by* says who asks, for an error.

        Raises:
            ResourceNotFoundError: There is none, or more than one.
        """
        if kind not in self._known:
            exact = [each for known, each in self._held if known is kind]
            found = exact or [each for _, each in self._held if isinstance(each, kind)]
            if len(found) != 1:
                held = [known.__qualname__ for known, _ in self._held]
                raise ResourceNotFoundError(kind.__qualname__, asked_by(), held, len(found))
            self._known[kind] = found[0]
        resource: T = self._known[kind]
        return resource


NO_RESOURCES = Resources()
