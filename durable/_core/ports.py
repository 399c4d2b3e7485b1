"""
Protocols that the core names and the shell fills. No logic.

`Transaction` and `AsyncTransaction` are what the function of a `@transaction` receives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from durable._core.ops import RunOp

#: Parameters of a statement: by position, or by name.
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Cursor(Protocol):
    """The result of a statement, after DB-API 2.0 (PEP 249)."""

    @property
    def lastrowid(self) -> int | None: ...
    @property
    def rowcount(self) -> int: ...
    @property
    def description(self) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """
    SQL that commits together with the journal.

    Passed to a plain ``def`` decorated with `@transaction`. Commit, rollback, ATTACH and
    writes to the engine's own tables are refused with `TransactionRefusedError`.
    """

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run one statement once for each item of *parameters*."""
        ...

    def enqueue(self, op: RunOp[Any], /) -> str:
        """Stage a job or workflow: its run exists if and only if this transaction commits. Its id."""
        ...


class AsyncTransaction(Protocol):
    """As `Transaction`, for an ``async def``: it has the writer to itself until it returns."""

    async def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement; its rows are fetched already."""
        ...

    async def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run one statement once for each item of *parameters*."""
        ...

    def enqueue(self, op: RunOp[Any], /) -> str:
        """Stage a job or workflow: its run exists if and only if this transaction commits. Its id."""
        ...


class Clock(Protocol):
    """Wall time. Only the shell asks it; the core is told."""

    def now(self) -> float:
        """Epoch seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; returning early is allowed, the caller looks at the time again."""
        ...


class Watched(Protocol):
    """An engine, as clocks and event loops of tests see it."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no step, no turn, no call of the database, no timer that is due."""
        ...

    @property
    def calls_in_flight(self) -> int:
        """How many threads and processes work for it at this moment."""
        ...

    @property
    def next_due_at(self) -> float | None:
        """When the next timer or tick is due, as far as is known; None if there is none."""
        ...

    async def idle(self) -> None:
        """Return once nothing is under way."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """A clock or event loop that lets no time pass while an engine works: each engine tells it when it opens."""

    def attach_engine(self, engine: Watched, /) -> Callable[[], None] | None:
        """Watch *engine*; what it is to call each time that something of what it had under way has ended."""
        ...

    def detach_engine(self, engine: Watched, /) -> None:
        """Watch it no more: it has closed."""
        ...
