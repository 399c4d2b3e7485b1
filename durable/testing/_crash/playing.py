"""
One play of a scenario: as many lives of the process as it takes, and the faults that strike them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypedDict

from attrs import define, field, frozen

from durable._core.admission import Queue
from durable._core.authoring.registry import Given
from durable._core.authoring.schedules import Schedule
from durable._core.codec.codec import ValueCodec
from durable._core.policies.caps import Caps
from durable._core.policies.limits import Limit
from durable._core.program.current_driver import driver_in_charge
from durable._core.program.ops import RunOp
from durable._core.program.requests import Request, name_of
from durable._shell.attempts.middleware import Middleware, StepCall
from durable._shell.engine.engine import Engine
from durable._shell.handles.asking import put_question
from durable._shell.handles.journal import backend_of
from durable._shell.reads import run_rows
from durable._shell.reads.callback_rows import open_token
from durable._shell.rows.carried import Carried
from durable._shell.storage.memory import MEMORY
from durable.errors import DefinitionError, JournalError, RunExistsError, RunStateError, TokenError, UsageError
from durable.testing._crash.facts import ROOT, is_over, read_outcome
from durable.testing._crash.faults import CLOCK_SECONDS, Fault, GlitchError, journal_error
from durable.testing._crash.invariants import Ledger, Outcome
from durable.testing._crash.lives import DAWN, Life, ProcessLost, Store, dead_are_silent
from durable.testing._crash.sites import DELIVERY, STEP_AFTER, STEP_BEFORE, Site, files_of, point, watching

#: Jumps of the time in one life: more are a loop without end.
MAX_JUMPS: Final = 10_000
#: Lives of one play: a fault strikes once, so that more are a bug of ours.
MAX_LIVES: Final = 10


class EngineOptions(TypedDict, total=False):
    """Options of `Engine` that mean something in a scenario."""

    queues: Iterable[Queue]
    schedules: Iterable[Schedule]
    limits: Iterable[Limit]
    concurrency: int
    keep_resident: int
    codec: ValueCodec | None
    crash_limit: int
    cleanup_timeout: float
    caps: Caps
    middleware: Iterable[Middleware]
    replay_always: bool
    resources: Iterable[Any] | Mapping[type[Any], Any]
    carry: Iterable[Carried]


@frozen
class World:
    """What is played, and what it needs: the arguments of `Scenario`."""

    op: RunOp[Any]
    definitions: list[Given]
    tables: str
    signals: Mapping[str | Request[Any, Any], list[Any]]
    callbacks: Mapping[str, list[Any]]
    ledger: Ledger
    before: Callable[[], object] | None
    downtime: float
    order: int | None
    patience: float
    options: EngineOptions


@frozen
class Played:
    """What one play came to, and how often each site was reached in it."""

    outcome: Outcome
    hits: Mapping[Site, int] = field(repr=False)


class _Steps(Middleware):
    """Counts attempts, and reaches the points before and after each."""

    def __init__(self, play: Play) -> None:
        self._play = play

    async def step(self, call: StepCall, proceed: Callable[[], Awaitable[Any]]) -> Any:
        self._play.begun[call.run_id, call.position] += 1
        self._play.reach(point(STEP_BEFORE))
        value = await proceed()
        self._play.reach(point(STEP_AFTER))
        return value


@define(eq=False)
class _Delivery:
    """A signal or request that is sent until it is acknowledged."""

    signal: str | Request[Any, Any]
    payload: Any
    dedup: str
    run_id: str | None = None


@define(eq=False)
class _Answer:
    """What a callback is answered with until that is acknowledged."""

    answer: Any
    token: str | None = None


class Play:
    """One play, to be played once."""

    def __init__(self, world: World, faults: Iterable[Fault]) -> None:
        self.world = world
        self.pending = deque(faults)
        self.begun: Counter[tuple[str, str]] = Counter()
        self.hits: Counter[Site] = Counter()
        self._since: Counter[Site] = Counter()  # as `hits`, from where the last fault struck
        self._lost = self._disturbed = 0
        self._store = Store(world.tables, lambda name: self.reach(point(name)))
        self._life: Life | None = None
        self._engine: Engine | None = None
        self._twice = False
        self._started = False
        #: Whether the engine could not be opened, and is to be again.
        self._again = False
        #: Whether an error struck workflow code: a replay finds that it is not deterministic, and so it was.
        self._mending = self._excused = False
        self._unsent = {
            signal: deque(
                _Delivery(signal, payload, f"{name_of(signal)}-{number}") for number, payload in enumerate(payloads)
            )
            for signal, payloads in world.signals.items()
        }
        self._answers = {name: deque(map(_Answer, answers)) for name, answers in world.callbacks.items()}

    def play(self) -> Played:
        """Play."""
        _check_no_loop()
        if not self.pending:
            return self._play()
        with dead_are_silent():
            return self._play()

    def _play(self) -> Played:
        ledger = self.world.ledger
        ledger.clear()
        if self.world.before is not None:
            self.world.before()
        left: list[str] = []
        lives: list[Life] = []
        now = DAWN
        with watching(files_of(self.world.definitions), self.reach) as again:
            for _ in range(MAX_LIVES):
                self._life = life = Life(now, self.world.order)
                lives.append(life)
                try:
                    whole = life.live(self._live(life, again), self.world.patience) and not self._again
                    if whole:
                        left += [f"a task is left: {task}" for task in life.tasks()]
                finally:
                    self._life = None
                    life.end()
                left += [f"the event loop complains: {complaint}" for complaint in life.complaints]
                self._store.bury()
                again()
                if whole:
                    break
                ledger.silent = False
                now = life.clock.now() + self.world.downtime
        settings = backend_of(self._opened()).settings
        with self._store.looked_at() as conn:
            outcome = read_outcome(
                conn,
                settings.definitions,
                settings.codec,
                begun=self.begun,
                effects=ledger.effects(),
                left=left,
                lost=self._lost,
                disturbed=self._disturbed,
                excused=self._excused,
            )
        ledger.silent = True
        for life in lives:
            life.forget()
        ledger.silent = False
        return Played(outcome, dict(self.hits))

    # --- the world around the engine ---------------------------------------------------------------------------

    async def _live(self, life: Life, again: Callable[[], None]) -> None:
        """One life. No `finally`: when the process is lost, nothing more is to happen."""
        world = self.world
        options: EngineOptions = {
            **world.options,
            "middleware": [_Steps(self), *world.options.get("middleware", ())],
        }
        self._engine = engine = Engine(MEMORY, world.definitions, clock=life.clock, storage=self._store.open, **options)
        try:
            await engine.open()
        except JournalError:  # a fault struck just then: its supervisor starts it again
            self._again = True
            return
        self._again = False
        backend = backend_of(engine)
        workload = backend.require_running().workload
        jumps = 0
        while jumps < MAX_JUMPS:
            again()
            if not self._started and not await self._start(engine):
                await life.loop.moved()
                continue
            await life.loop.settled()
            if not workload.is_idle:
                jumps += 1
                if not await life.loop.moved():
                    break  # a step that waits for what will not come: playing on would take for ever
            elif await backend.read(is_over):
                break
            elif not await self._deliver(engine) and not await self._mend(engine):
                jumps += 1
                if workload.next_due_at is None or not await life.loop.moved():
                    break
        await engine.aclose()

    async def _mend(self, engine: Engine) -> bool:
        """Resume a run that an error in its workflow code has blocked, as a person would; False if there is none."""
        if not self._mending:
            return False
        self._mending = False
        blocked = [info async for info in engine.runs(status="blocked")]
        for info in blocked:
            with suppress(JournalError):
                await engine.get(info.run_id).resume()
        return bool(blocked)

    async def _start(self, engine: Engine) -> bool:
        """Start the run, also if nobody knows whether it was started before; False if that has to be tried again."""
        for _ in range(self._times()):
            try:
                await engine.start(self.world.op, id=ROOT)
            except RunExistsError:
                pass
            except JournalError:
                return False
            except DefinitionError as error:
                if not isinstance(error.__cause__, (GlitchError, asyncio.CancelledError)):
                    raise
                return False  # the function that makes its key was struck
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                return False
        self._started = True
        return True

    async def _deliver(self, engine: Engine) -> bool:
        """Send a signal to a run that waits for it, or answer a callback that is open; False if there is none."""
        for signal, unsent in self._unsent.items():
            if not unsent:
                continue
            delivery = unsent[0]
            if delivery.run_id is None:
                delivery.run_id = await backend_of(engine).read(run_rows.waiting_for_signal, name_of(signal))
            if delivery.run_id is not None:
                await self._send(engine, delivery)
                return True
        for name, answers in self._answers.items():
            if not answers:
                continue
            answer = answers[0]
            if answer.token is None:
                answer.token = await backend_of(engine).read(open_token, name)
            if answer.token is not None:
                await self._answer(engine, name, answer.token, answer.answer)
                return True
        return False

    async def _answer(self, engine: Engine, name: str, token: str, answer: Any) -> None:
        for _ in range(self._times()):
            try:
                if isinstance(answer, Exception):
                    await engine.fail(token, answer)
                else:
                    await engine.complete(token, answer)
            except TokenError:
                pass  # its run has ended, or waits no longer
            except JournalError:
                return  # it is given again later, since it was not acknowledged
        self._answers[name].popleft()

    async def _send(self, engine: Engine, delivery: _Delivery) -> None:
        backend, run_id, signal, dedup = backend_of(engine), delivery.run_id or "", delivery.signal, delivery.dedup
        for _ in range(self._times()):
            try:
                if isinstance(signal, Request):  # its answer stands in the journal: nobody waits for it here
                    await put_question(backend, run_id, signal, delivery.payload, dedup, new_id=dedup)
                else:
                    await engine.get(run_id).signal(signal, delivery.payload, dedup=dedup)
            except RunStateError:
                pass  # it has ended, and so has nothing to say
            except JournalError:
                return  # it is sent again later, since it was not acknowledged
        self._unsent[signal].popleft()

    def _times(self) -> int:
        """How often what is about to be delivered is."""
        self.reach(point(DELIVERY))
        twice, self._twice = self._twice, False
        return 2 if twice else 1

    # --- faults ------------------------------------------------------------------------------------------------

    def reach(self, site: Site) -> None:
        """A site is reached: strike, if it is time for that."""
        life = self._life
        if life is None or not life.is_here:
            return
        self._store.check()
        self.hits[site] += 1
        self._since[site] += 1
        if not self.pending:
            return
        fault = self.pending[0]
        if fault.site == site and fault.hit == self._since[site]:
            self.pending.popleft()
            self._since.clear()
            self._strike(fault, life)

    def _strike(self, fault: Fault, life: Life) -> None:
        self._disturbed += 1
        match fault.kind:
            case "crash":
                self._lost += 1
                self._store.severed = self.world.ledger.silent = True
                life.lose()
                raise ProcessLost
            case "exception" | "cancellation":
                if driver_in_charge() is not None:
                    self._mending = self._excused = True
                raise asyncio.CancelledError if fault.kind == "cancellation" else GlitchError(f"at {fault.site}")
            case "cancel":
                life.loop.call_soon_threadsafe(self._cancel, life)
            case "lost_acknowledgement" | "no_commit" | "busy":
                raise journal_error(fault.kind, MEMORY)
            case "duplicate":
                self._twice = True
            case "clock_forward" | "clock_back":
                life.clock.set_by(CLOCK_SECONDS[fault.kind])

    def _cancel(self, life: Life) -> None:
        life.keep(self._cancelling())

    def _opened(self) -> Engine:
        assert self._engine is not None, "each life begins with one"
        return self._engine

    async def _cancelling(self) -> None:
        with suppress(JournalError, UsageError):  # not started yet, over, or not open: nobody to cancel
            await self._opened().get(ROOT).cancel("durable.testing")


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    msg = (
        "crash tests bring event loops of their own: call this from a plain `def test_...()`, or from async code by "
        "`await anyio.to_thread.run_sync(...)`"
    )
    raise UsageError(msg)
