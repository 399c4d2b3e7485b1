"""
What the function of a `@transaction` receives. No logic: the shell fills these protocols.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Unpack

if TYPE_CHECKING:
    from durable._core.program.ops import RunOp
    from durable._core.program.start_options import StartOptions


#: Parameters of a statement: by position, or by name.
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Expression(Protocol):
    """A statement of SQLAlchemy Core: it can be compiled to text."""

    def compile(self, *args: Any, **kwargs: Any) -> Any: ...


#: SQL text, or an expression of SQLAlchemy Core. Of that, the values of the result are as SQLite gives them.
Statement: TypeAlias = str | Expression


class StatementResult(Protocol):
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

    def execute(self, sql: Statement, parameters: Parameters = (), /) -> StatementResult:
        """Run one statement."""
        ...

    def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> StatementResult:
        """Run one statement once for each item of *parameters*."""
        ...

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """
        Stage a job or workflow: its run exists if and only if this transaction commits. Its id.

        Options as `Engine.start`.

        Raises:
            KeyConflictError, LimitReachedError: At once, and may be caught: then nothing is staged.
        """
        ...


class AsyncTransaction(Protocol):
    """As `Transaction`, for an ``async def``: it has the writer to itself until it returns."""

    async def execute(self, sql: Statement, parameters: Parameters = (), /) -> StatementResult:
        """Run one statement; its rows are fetched already."""
        ...

    async def executemany(self, sql: Statement, parameters: Iterable[Parameters], /) -> StatementResult:
        """Run one statement once for each item of *parameters*."""
        ...

    def enqueue(self, op: RunOp[Any], /, **options: Unpack[StartOptions]) -> str:
        """As `Transaction.enqueue`."""
        ...
