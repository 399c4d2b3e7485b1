"""
The two tables of ours in the application's database: outcomes of transactions, and the runs that they have staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

#: What stands for a parameter in the SQL of a DB-API module.
Placeholder: TypeAlias = Literal["?", "%s"]

_CREATE: Final = (
    """CREATE TABLE IF NOT EXISTS durable_outcomes (
    step_key VARCHAR(2600) PRIMARY KEY, -- run id and position: the idempotency key of the transaction
    outcome TEXT, -- its value as JSON; null while it runs
    recorded_at DOUBLE PRECISION NOT NULL -- epoch seconds
)""",
    """CREATE TABLE IF NOT EXISTS durable_outbox (
    run_id VARCHAR(2600) PRIMARY KEY, -- of a run that is to be started
    step_key VARCHAR(2600) NOT NULL, -- of the transaction that has staged it
    start TEXT NOT NULL -- the run, as JSON
)""",
)


class Tables:
    """Statements about them, on an open connection. None of them commits."""

    def __init__(self, placeholder: Placeholder) -> None:
        self._placeholder = placeholder

    def _statement(self, conn: Any, sql: str, parameters: Sequence[Any] = ()) -> Any:
        cursor = conn.cursor()
        if self._placeholder == "%s":
            sql = sql.replace("?", "%s")
        cursor.execute(sql, tuple(parameters))
        return cursor

    def create(self, conn: Any) -> None:
        """Make them, where they are not there yet."""
        for sql in _CREATE:
            self._statement(conn, sql)

    def claim(self, conn: Any, key: str, now: float) -> None:
        """Begin the transaction called *key*: another attempt of it waits here, then fails if this one commits."""
        self._statement(conn, "INSERT INTO durable_outcomes (step_key, recorded_at) VALUES (?, ?)", (key, now))

    def record(self, conn: Any, key: str, outcome: str) -> None:
        """Note its outcome."""
        self._statement(conn, "UPDATE durable_outcomes SET outcome = ? WHERE step_key = ?", (outcome, key))

    def outcome(self, conn: Any, key: str) -> str | None:
        """Its outcome, if it has committed."""
        row = self._statement(conn, "SELECT outcome FROM durable_outcomes WHERE step_key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def stage(self, conn: Any, run_id: str, key: str, start: str) -> None:
        """Note a run that is to be started."""
        self._statement(
            conn, "INSERT INTO durable_outbox (run_id, step_key, start) VALUES (?, ?, ?)", (run_id, key, start)
        )

    def staged(self, conn: Any, key: str | None) -> list[tuple[str, str]]:
        """Runs that are to be started, and how: those that the transaction called *key* has staged, or all."""
        sql = "SELECT run_id, start FROM durable_outbox"
        if key is None:
            return list(self._statement(conn, sql).fetchall())
        of_one = "SELECT run_id, start FROM durable_outbox WHERE step_key = ?"
        return list(self._statement(conn, of_one, (key,)).fetchall())

    def started(self, conn: Any, run_id: str) -> None:
        """A staged run has been started."""
        self._statement(conn, "DELETE FROM durable_outbox WHERE run_id = ?", (run_id,))

    def forget(self, conn: Any, before: float) -> int:
        """Drop the outcomes that were recorded *before*; how many."""
        return int(self._statement(conn, "DELETE FROM durable_outcomes WHERE recorded_at < ?", (before,)).rowcount)
