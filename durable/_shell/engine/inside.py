"""
What a step or job asks of the engine that runs it, through `current_batch`.

The same as from outside, but for one thing: a step may go on while its engine closes, and what
it records then must not fail because nobody else may ask any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from durable._core.program.ops import RunOp
from durable._shell.backend import Backend
from durable._shell.reads.run_rows import RunRow
from durable._shell.requests.request import Env, Request
from durable._shell.rows.rows import NewRun, Outcome
from durable._shell.storage.port import AnyDatabase
from durable._shell.turns.commits import Commits

R = TypeVar("R")


class Inside:
    """An engine, as its own steps see it."""

    def __init__(self, engine: Backend, commits: Commits, database: AnyDatabase, allocate: Callable[[], int]) -> None:
        self._engine = engine
        self._commits = commits
        self._database = database
        self._allocate = allocate
        self.path = engine.path
        self.codec = engine.codec
        self.clock = engine.clock

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of a function of `event_rows`."""
        return await self._database.read(lambda conn: fn(conn, *args))

    async def request(self, request: Request[R]) -> R:
        """Have a request recorded; its result once it is on disk."""
        if not request.for_steps:
            return await self._engine.request(request)
        env = Env(self.clock.now(), self.path, self._allocate)
        return await self._commits.call(lambda conn, effects: request.record(conn, effects, env))

    async def end_of(self, run_id: str, number: int = 0, /) -> tuple[RunRow | None, Outcome]:
        """A run and its outcome, once it has ended."""
        return await self._engine.end_of(run_id, number)

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished."""
        await self._engine.end_of_batch(batch_id)

    def result_type(self, workflow: str, version: int) -> Any:
        """What a workflow or job returns."""
        return self._engine.result_type(workflow, version)

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None) -> NewRun:
        """The run that *op* starts."""
        return self._engine.new_run(op, run_id=run_id)

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        return self._engine.template(op)
