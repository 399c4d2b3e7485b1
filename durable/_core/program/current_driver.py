"""
Who is in charge of the code that runs in this thread right now.

Workflow code is driven synchronously, so "is a workflow being driven here?" has one answer
a thread. Ops look here to learn whether `await op` records a command (a driver is in charge)
or simply calls the plain function (nobody is). `now`, `patched` and the like ask the driver
in charge, never a global engine, so that another driver can run the same workflow code.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol

from durable.errors import UsageError

if TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from durable._core.program.command import Command
    from durable.errors import RunCancelled

#: Where user code stands: file name and line.
CallSite = tuple[str, int]


class WorkflowContext(Protocol):
    """What workflow code may ask of its driver."""

    run_id: str
    workflow: str

    def created(self, command: Command) -> None: ...
    def superseded(self, command: Command) -> None: ...
    def now(self) -> float: ...
    def uuid4(self) -> UUID: ...
    def random(self) -> Random: ...
    def patched(self, change_id: str) -> bool: ...
    def set_attributes(self, values: dict[str, Any]) -> None: ...
    def emit(self, stream: str, value: Any) -> Awaitable[None]: ...
    def progress(self, done: float, total: float | None, note: str) -> None: ...
    def compensating(self, name: str) -> None: ...
    def take_cancellation(self) -> RunCancelled | None: ...
    def log(self, level: str, event: str, values: dict[str, Any]) -> None: ...
    def position(self) -> str: ...


class _InThread(threading.local):
    driver: WorkflowContext | None = None
    #: Set while a generator is closed and will not be resumed: whatever it asks for is refused.
    dead: bool = False


_here = _InThread()


def driver_in_charge() -> WorkflowContext | None:
    """The driver of the workflow code that runs in this thread, or None outside workflows."""
    return _here.driver


def is_dead() -> bool:
    """True while a generator is being closed and may record nothing."""
    return _here.dead


def require_driver(what: str) -> WorkflowContext:
    """
    The driver in charge.

    Raises:
        UsageError: If no workflow is being driven in this thread.
    """
    driver = _here.driver
    if driver is None:
        msg = f"{what} works in workflow code only: nothing is being driven here (in steps use the standard library)"
        raise UsageError(msg)
    return driver


def put_in_charge(driver: WorkflowContext | None) -> WorkflowContext | None:
    """Put *driver* in charge of this thread; who was before, to be put back in `finally`."""
    before = _here.driver
    _here.driver = driver
    return before


@contextmanager
def dead_mode() -> Generator[None, None, None]:
    """Refuse every command for the length of the block: generators are closed in it."""
    before, _here.dead = _here.dead, True
    driver, _here.driver = _here.driver, None
    try:
        yield
    finally:
        _here.dead = before
        _here.driver = driver


#: Where code stands, by the identity of the code and by instruction: Python looks for the line of an instruction from
#: the first one of its function on, which takes 2 us for the hundredth step of a workflow. Each with its code, so that
#: no other gets the identity of that.
_places: dict[tuple[int, int], tuple[CodeType, CallSite]] = {}
_MOST_PLACES = 4096


def asked_here(depth: int = 2) -> tuple[WorkflowContext | None, CallSite | None]:
    """The driver in charge, and file and line *depth* frames up; None and None outside workflows."""
    driver = _here.driver
    if driver is None:
        return None, None
    frame = sys._getframe(depth)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # inspect costs 50 times as much
    code = frame.f_code
    key = (id(code), frame.f_lasti)
    found = _places.get(key)
    if found is None:
        if len(_places) >= _MOST_PLACES:
            _places.clear()
        found = _places[key] = code, (code.co_filename, frame.f_lineno)
    return driver, found[1]


def call_site(depth: int = 2) -> CallSite | None:
    """File and line *depth* frames up, or None outside workflows (where nobody asks for it)."""
    return asked_here(depth + 1)[1]


def created(command: Command) -> None:
    """Tell the driver in charge that *command* exists, so that it can report one never yielded."""
    driver = _here.driver
    if driver is not None:
        driver.created(command)


def superseded(command: Command) -> None:
    """Tell the driver in charge that a copy took the place of *command*."""
    driver = _here.driver
    if driver is not None:
        driver.superseded(command)
