"""What the drivers of one engine share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio
from attrs import define, field

from durable._core.caps import Caps
from durable._core.codec import Codec
from durable._core.definition import RunnableDefinition
from durable._core.execution import Execution
from durable._core.ports import Clock
from durable._shell.commits import Commits
from durable._shell.memory_database import AnyDatabase
from durable._shell.rows import Effects, RunState
from durable._shell.steps import Steps


@define
class Services:
    """What drivers share."""

    path: str
    database: AnyDatabase
    commits: Commits
    codec: Codec
    clock: Clock
    steps: Steps
    definitions: Mapping[str, RunnableDefinition[..., Any]]
    allocate: Callable[[], int]
    spawn: Callable[[Callable[..., Coroutine[Any, Any, None]], Any], None]
    on_effects: Callable[[Effects], None]
    crash_limit: int
    cleanup_seconds: float
    caps: Caps
    #: Makes cancel scopes; kept because `anyio.CancelScope()` looks its backend up each time.
    new_scope: Callable[[], anyio.CancelScope] = field(factory=lambda: type(anyio.CancelScope()))
    keep_resident: int = 0
    #: Freed executions kept as a cache, latest last.
    resident: dict[int, tuple[Execution, RunState, int]] = field(factory=dict)
