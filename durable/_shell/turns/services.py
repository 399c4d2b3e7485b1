"""What the drivers of one engine share."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import anyio
from attrs import field

from durable._core.admission import Places
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import CallbackOpened
from durable._core.light_frozen import light_define
from durable._core.light_tuples import NamedTuple
from durable._core.policies.caps import Caps
from durable._core.policies.limits import Limit
from durable._core.ports import Clock
from durable._core.program.ops import RunOp
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.stand_ins import StandIns
from durable._shell.attempts.steps import Steps
from durable._shell.commits.activity import Activity
from durable._shell.commits.commits import Commits, Turn
from durable._shell.commits.quarantine import Quarantine
from durable._shell.commits.residents import Residents
from durable._shell.commits.witness import Witness
from durable._shell.log import log
from durable._shell.rows.carried import Carry
from durable._shell.rows.new_runs import make_run
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.storage.port import AnyDatabase
from durable._shell.writes.deaths import LastLife
from durable.errors import EngineClosedError, JournalAccessError, JournalFullError, JournalIOError

T = TypeVar("T")

#: Seconds before a run goes back to what is recorded after a commit that failed, and before a read is tried again.
RELOAD_PAUSE = 1.0


class Spawn(Protocol):
    """Runs *fn* in a task of the engine's; in a copy of *context*, or of that in which it was opened."""

    def __call__(
        self, fn: Callable[..., Coroutine[Any, Any, object]], argument: Any, context: Context | None = None, /
    ) -> None: ...


def _is_not_over() -> bool:
    return False


class AnswerType(NamedTuple):
    """What a callback waits for, as the code of its run has it."""

    opened: CallbackOpened
    type: Any


@light_define
class Services:
    """What drivers share."""

    path: str
    database: AnyDatabase
    commits: Commits
    codec: Codec
    clock: Clock
    steps: Steps
    definitions: Definitions
    #: The context variables that runs take along.
    carry: Carry
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
    #: What the engine before this one left, in case that it died.
    last_life: LastLife
    quarantine: Quarantine
    witness: Witness
    cleanup_seconds: float
    caps: Caps
    residents: Residents
    #: What the tokens of callbacks are made of.
    token_key: str
    #: Makes cancel scopes; kept because `anyio.CancelScope()` looks its backend up each time.
    new_scope: Callable[[], anyio.CancelScope] = field(factory=lambda: type(anyio.CancelScope()))
    #: Replay each run after every turn.
    replay_always: bool = False
    #: Takes the first turns of runs that are about to be created, of those that may begin at once.
    begin_unborn: Callable[[Sequence[NewRun]], Sequence[Turn]] = lambda _: ()
    #: What is called in place of functions, in a dry run.
    stand_ins: StandIns | None = None
    #: What the callbacks of runs wait for that were replayed to know that, by their tokens.
    answer_types: dict[str, AnswerType] = field(factory=dict)
    #: Held by who learns them of a run, by its id.
    answer_locks: WeakValueDictionary[str, asyncio.Lock] = field(factory=WeakValueDictionary)
    #: Ids of batches, and of those around them, by number.
    batches: dict[int, tuple[str, ...]] = field(factory=dict)

    def may_begin_early(self) -> bool:
        """Whether nobody is to know of a run, or be asked about it, before it is created."""
        return not (self.replay_always or self.hooks.around_runs or self.is_watched()) and self.witness.is_idle

    async def read(
        self, run_id: str, fn: Callable[[sqlite3.Connection], T], is_over: Callable[[], bool] = _is_not_over
    ) -> T:
        """
        The result of *fn* on the reader's connection; waits out a disk that fails, until *is_over*.

        Raises:
            EngineClosedError: The disk fails, and nobody needs the result any more.
        """
        while True:
            try:
                return await self.database.read(fn)
            except (JournalIOError, JournalFullError, JournalAccessError) as error:
                if is_over():
                    raise EngineClosedError("the engine closed before its file could be read again") from error
                log.warning("read.failed", run_id=run_id, error=str(error))
                await asyncio.sleep(RELOAD_PAUSE)

    def new_run(
        self,
        op: RunOp[Any],
        now: float,
        *,
        run_id: str | None = None,
        parent: int | None = None,
        position: str | None = None,
        arguments: Payload | None = None,
        keys: tuple[str | None, str] | None = None,
        carried: str = "",
    ) -> NewRun:
        """The run that *op* starts, see `make_run`."""
        return make_run(
            op,
            definitions=self.definitions,
            codec=self.codec,
            allocate=self.allocate,
            now=now,
            places=self.places,
            run_id=run_id,
            parent=parent,
            position=position,
            arguments=arguments,
            keys=keys,
            carried=carried,
        )
