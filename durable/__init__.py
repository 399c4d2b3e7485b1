"""
Durable workflows for asyncio, in one SQLite file.

    from durable import Engine, Flow, Return, step, workflow

    @step
    async def charge(ride_id: int) -> str: ...

    @workflow
    async def ride(ride_id: int) -> Flow[str]:
        charge_id: str = yield charge(ride_id)
        yield Return(charge_id)

    async with Engine("rides.db", [ride]) as engine:
        print(await engine.run(ride(42), key="ride-42"))

A workflow is an async generator that yields commands. The engine journals every command and
outcome; after a crash it replays the function over its journal, so completed steps are skipped.
"""

# Loaded at the first use of a name: the command line reads files without asyncio, in a third of the time.
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from durable._face import *  # noqa: F403 - the names that `_face` lists, for type checkers

    __version__: str


def __getattr__(name: str) -> _Any:
    """The public *name*, of which no more is loaded than its module."""
    if name == "__version__":
        return _import_module("durable._core.release").RELEASE
    if name == "errors":  # ``durable.errors.StepError`` needs no import of its own
        return _import_module("durable.errors")
    found: _Any = None
    if name == "__all__":
        found = _import_module("durable._face").BY_STAR
    elif not name.startswith("_"):  # others are asked for by inspection and imports
        home, _, there = _import_module("durable._face").HOMES.get(name, "").partition(":")
        found = getattr(_import_module(f"durable.{home}"), there or name) if home else None
    if found is None:
        msg = f"module 'durable' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *_import_module("durable._face").HOMES})
