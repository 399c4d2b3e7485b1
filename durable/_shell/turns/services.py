"""What the drivers of one engine share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, Protocol

import anyio
from attrs import define, field

from durable._core.admission import Places
from durable._core.codec.codec import Codec
from durable._core.ports import Clock
from durable._core.program.limits import Limit
from durable._core.program.registry import Definitions
from durable._core.run.caps import Caps
from durable._core.run.execution import Execution
from durable._shell.rows.rows import Effects, RunState
from durable._shell.storage.port import AnyDatabase
from durable._shell.turns.activity import Activity
from durable._shell.turns.commits import Commits
from durable._shell.turns.hooks import Hooks
from durable._shell.turns.stand_ins import StandIns
from durable._shell.turns.steps import Steps


class Spawn(Protocol):
    """Runs *fn* in a task of the engine's; in a copy of *context*, or of that in which it was opened."""

    def __call__(
        self, fn: Callable[..., Coroutine[Any, Any, None]], argument: Any, context: Context | None = None, /
    ) -> None: ...


@define
class Services:
    """What drivers share."""

    path: str
    database: AnyDatabase
    commits: Commits
    codec: Codec
    clock: Clock
    steps: Steps
    definitions: Definitions
    #: Those that the engine knew when it was made.
    limits: Mapping[str, Limit]
    places: Places
    allocate: Callable[[], int]
    spawn: Spawn
    on_effects: Callable[[Effects], None]
    hooks: Hooks
    activity: Activity
    #: Whether anybody wants to hear of what turns do.
    is_watched: Callable[[], bool]
    crash_limit: int
    cleanup_seconds: float
    caps: Caps
    #: Makes cancel scopes; kept because `anyio.CancelScope()` looks its backend up each time.
    new_scope: Callable[[], anyio.CancelScope] = field(factory=lambda: type(anyio.CancelScope()))
    keep_resident: int = 0
    #: Replay each run after every turn.
    replay_always: bool = False
    #: What is called in place of functions, in a dry run.
    stand_ins: StandIns | None = None
    #: Ids of batches, and of those around them, by number.
    batches: dict[int, tuple[str, ...]] = field(factory=dict)
    #: Freed executions kept as a cache, latest last.
    resident: dict[int, tuple[Execution, RunState, int]] = field(factory=dict)
