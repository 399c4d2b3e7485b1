"""
Where handles and steps ask: an engine, or a client of one. No logic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.ops import RunOp
from durable._shell.reads.run_rows import RunRow
from durable._shell.requests.request import Request
from durable._shell.rows.rows import NewRun, Outcome

T = TypeVar("T")
R = TypeVar("R")


class Backend(Protocol):
    """Where a handle asks: an engine, or a client of one."""

    path: str
    codec: Codec
    clock: Clock

    async def read(self, fn: Callable[..., T], *args: Any) -> T: ...
    async def request(self, request: Request[R], /) -> R: ...
    async def end_of(self, run_id: str, number: int = 0, /) -> tuple[RunRow | None, Outcome]: ...
    async def end_of_batch(self, batch_id: str) -> None: ...
    def result_type(self, workflow: str, version: int) -> Any: ...
    def new_run(self, op: RunOp[Any], *, run_id: str | None = None) -> NewRun: ...
    def template(self, op: RunOp[Any]) -> NewRun: ...
