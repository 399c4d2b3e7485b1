"""
The application's own tables: made when the file is first opened, and changed by the migrations that it has not had.

One transaction an opening: all of what is new, or nothing. How many steps a file has had is a row of `durable_meta`.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from durable._core.codec.exceptions.safe_text import one_line, shown
from durable._core.light_frozen import light_frozen
from durable._core.program.functions import TransactionStep
from durable._core.program.ops import RunOp, kind_of
from durable._core.program.transactions import Transaction
from durable._shell.attempts.transaction import SyncTransaction
from durable._shell.log import log
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.storage.guard import Guard
from durable._shell.storage.port import AnyDatabase
from durable.errors import DefinitionError, MigrationError, UsageError

#: A step: SQL statements, in one text or in several, or a function of the transaction.
SchemaStep: TypeAlias = str | Iterable[str] | Callable[[Transaction], object]

_NAME: Final = "application_schema"
_READ: Final = f"SELECT value FROM durable_meta WHERE name = '{_NAME}'"  # noqa: S608 - a constant
_WRITE: Final = f"INSERT OR REPLACE INTO durable_meta (name, value) VALUES ('{_NAME}', ?)"  # noqa: S608 - a constant


@light_frozen
class ApplicationSchema:
    """The steps that a file must have had, in order: the schema, then the migrations."""

    steps: tuple[SchemaStep, ...] = ()

    @classmethod
    def of(cls, schema: SchemaStep | None, migrations: Iterable[SchemaStep]) -> ApplicationSchema:
        """
        What `Engine` was given.

        Raises:
            DefinitionError: One is neither text nor a function; or there are migrations of no schema.
        """
        given: Any = migrations
        if isinstance(given, str) or callable(given) or not isinstance(given, Iterable):
            msg = f"Engine(migrations=) takes a list, each item as schema=, found {shown(given, 60)}"
            raise DefinitionError(msg)
        later = tuple(migrations)
        if schema is None:
            if later:
                msg = "Engine(migrations=) change the tables that Engine(schema=) has made: give both"
                raise DefinitionError(msg)
            return cls()
        return cls(tuple(_step(each, number) for number, each in enumerate((schema, *later))))

    async def prepare(self, database: AnyDatabase, path: str, begun: Callable[[sqlite3.Connection], None]) -> None:
        """
        Have the file get the steps that it has not had, in a transaction that *begun* begins.

        Raises:
            MigrationError: One failed, from what it raised; the file is as it was before.
        """
        if self.steps:
            await database.write(lambda conn: self._catch_up(conn, database.guard, path, begun))

    def _catch_up(
        self, conn: sqlite3.Connection, guard: Guard, path: str, begun: Callable[[sqlite3.Connection], None]
    ) -> None:
        row = conn.execute(_READ).fetchone()
        had = 0 if row is None else int(row[0])
        if had > len(self.steps):  # an older program after a newer one: its tables are those of the newer
            notice = f"its tables had {had} steps of schema= and migrations=, and this program knows {len(self.steps)}"
            log.warning("journal.notice", path=path, notice=notice)
        if had < len(self.steps):
            begun(conn)
        for number in range(had, len(self.steps)):
            tx = SyncTransaction(conn, guard, _no_runs, Effects())
            try:
                _perform(self.steps[number], tx)
            except Exception as error:
                raise MigrationError(path, _called(number), one_line(error)) from error
            finally:
                tx.close()
        if had < len(self.steps):
            conn.execute(_WRITE, (len(self.steps),))


NO_SCHEMA: Final = ApplicationSchema()


def _called(number: int) -> str:
    """The name of a step, as the program gave it."""
    return "schema=" if number == 0 else f"migrations=[...][{number - 1}]"


def _step(given: Any, number: int) -> SchemaStep:
    if isinstance(given, TransactionStep):
        msg = f"Engine({_called(number)}) takes a plain function, found {given!r}: give {given.name}.fn"
        raise DefinitionError(msg)
    if isinstance(given, str) or callable(given):
        step: SchemaStep = given
        return step
    texts: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(text, str) for text in texts):
        msg = f"Engine({_called(number)}) takes SQL, as text or a list, or a function, found {shown(given, 60)}"
        raise DefinitionError(msg)
    return texts


def _perform(step: SchemaStep, tx: Transaction) -> None:
    if callable(step):
        found = step(tx)
        if inspect.isawaitable(found) or inspect.isgenerator(found) or inspect.isasyncgen(found):
            if inspect.iscoroutine(found):
                found.close()  # else Python tells, much later, that it was never awaited
            msg = f"it gave {kind_of(found)}, and ran nothing: give a plain function of the transaction"
            raise TypeError(msg)
        return
    for text in (step,) if isinstance(step, str) else step:
        for statement in statements(text):
            tx.execute(statement)


def statements(script: str) -> list[str]:
    """The statements of a script: what ends them is a semicolon outside of strings, comments and triggers."""
    found: list[str] = []
    begun = ""
    for part in script.split(";"):
        begun += part + ";"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    rest = begun.removesuffix(";")
    return [each for each in [*found, rest] if _says_something(each)]


def _says_something(statement: str) -> bool:
    lines = (line.split("--")[0] for line in statement.splitlines())
    return bool("".join(lines).strip().strip(";").strip())


def _no_runs(op: RunOp[Any]) -> NewRun:
    msg = f"{op.describe()} cannot be enqueued while the file is opened: start it once the engine is open"
    raise UsageError(msg)
