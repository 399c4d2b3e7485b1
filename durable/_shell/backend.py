"""
Where handles and steps ask: an engine, or a client of one. No logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeVar

from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp
from durable._shell.reads.asked_rows import AskedRow
from durable._shell.reads.run_rows import RunRow
from durable._shell.reports.watched_rows import Watched
from durable._shell.requests.request import JournalRequest
from durable._shell.rows.engine_events import EngineEvent, WantedEvents
from durable._shell.rows.rows import NewRun, RunResult

T = TypeVar("T")
R = TypeVar("R")


class Backend(Protocol):
    """Where a handle asks: an engine, or a client of one."""

    @property
    def path(self) -> str:
        """The journal's file."""
        ...

    @property
    def codec(self) -> Codec:
        """Writes and reads values."""
        ...

    @property
    def clock(self) -> Clock:
        """What time it is."""
        ...

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """The result of a function of `reads`, called with a connection and *args*."""
        ...

    async def request(self, request: JournalRequest[R], /) -> R:
        """Have a request recorded; its result once it is on disk."""
        ...

    async def scrub(self) -> None:
        """Have the file written anew, without what was deleted."""
        ...

    async def end_of(self, run_id: str, number: int = 0, /, *, wait: bool = False) -> tuple[RunRow | None, RunResult]:
        """
        The run called *run_id* (or the one it continued as) and its outcome, once it has ended.

        Unless it is to *wait*, a run that is blocked has "blocked" for an outcome.

        No row where its *number* tells that it is active here: its outcome then comes with the commit that ends it.
        """
        ...

    async def wait_for_news(self, run_id: str, mark: str) -> None:
        """Return once something about the run called *run_id* is not as it was, see `stream_rows.news_mark`."""
        ...

    async def answer_of(self, request: str, run_id: str) -> AskedRow:
        """
        The request of that id into the run called *run_id*, once the run has answered it, or cannot.

        Raises:
            RunNotFoundError: There is no such run, or no more: it was pruned.
        """
        ...

    def watch(self, run_id: str) -> AsyncGenerator[Watched]:
        """
        The run called *run_id* as it is, then as it is after each change, until it has ended.

        Raises:
            RunNotFoundError: There is no such run.
        """
        ...

    def events(self, wanted: WantedEvents) -> AsyncGenerator[EngineEvent]:
        """What happens from now on, as far as it is *wanted*."""
        ...

    async def end_of_batch(self, batch_id: str) -> None:
        """Return once a batch is finished."""
        ...

    def definition(self, workflow: str, version: int) -> RunnableDefinition[..., Any] | None:
        """The workflow or job of that name and version, as far as it is known here."""
        ...

    def new_run(self, op: RunOp[Any], *, run_id: str | None = None, in_line: bool = False) -> NewRun:
        """
        The run that *op* starts, not yet recorded.

        With *in_line* it is about to be, and gets its place in its queue at once, where that is known here.
        """
        ...

    def template(self, op: RunOp[Any]) -> NewRun:
        """What *op* starts when its time comes."""
        ...
