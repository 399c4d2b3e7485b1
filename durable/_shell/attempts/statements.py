"""
Statements of the application: SQL text, or an expression of SQLAlchemy Core, which becomes text here.

Nothing of SQLAlchemy is imported unless a statement of it is given: it is not one of our dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durable._core.codec.exceptions.safe_text import name_of
from durable._core.program.transactions import Parameters, Statement
from durable.errors import UsageError


def as_sql(statement: Statement, parameters: Parameters = ()) -> tuple[str, Parameters]:
    """
    The text and the parameters of *statement*.

    Raises:
        UsageError: It is neither text nor an expression of SQLAlchemy, or one with defaults that Python computes.
    """
    if isinstance(statement, str):
        return statement, parameters
    given = dict(parameters) if isinstance(parameters, Mapping) else {}
    if parameters and not given:
        msg = "an expression of SQLAlchemy takes its parameters by name"
        raise UsageError(msg)
    compiled, convert = _compiled(statement, [*given])
    return str(compiled), convert(given)


def as_many(statement: Statement, rows: Iterable[Parameters]) -> tuple[str, Iterable[Parameters]]:
    """The text of *statement*, and the parameters of each of its executions."""
    if isinstance(statement, str):
        return statement, rows
    found: list[Any] = list(rows)
    compiled, convert = _compiled(statement, [*found[0]] if found else [])
    return str(compiled), [convert(dict(row)) for row in found]


def _compiled(statement: Any, names: list[str]) -> Any:
    """What SQLite's dialect makes of it, and what gives its parameters."""
    if not callable(getattr(statement, "compile", None)):
        msg = f"tx.execute takes SQL text or an expression of SQLAlchemy Core, found {name_of(statement)}"
        raise UsageError(msg)
    from sqlalchemy.dialects import sqlite  # noqa: PLC0415  # whoever gives such a statement has it

    dialect: Any = sqlite.dialect(paramstyle="named")
    compiled = statement.compile(dialect=dialect, column_keys=names, compile_kwargs={"render_postcompile": True})
    computed = [*getattr(compiled, "insert_prefetch", ()), *getattr(compiled, "update_prefetch", ())]
    if computed:
        columns = ", ".join(sorted(column.name for column in computed))
        msg = f"defaults that Python computes ({columns}) are not: give their values, or use server_default="
        raise UsageError(msg)
    processors = {
        name: bound.type.dialect_impl(dialect).bind_processor(dialect)
        for name, bound in getattr(compiled, "binds", {}).items()
    }

    def convert(given: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = compiled.construct_params(given) if processors else {}
        return {name: _processed(processors.get(name), value) for name, value in found.items()}

    return compiled, convert


def _processed(processor: Any, value: Any) -> Any:
    return value if processor is None else processor(value)
