"""
Any order of public calls, crashes between them, against a model of a few lines.

The engine is real; its store is in memory and its time jumps (`durable.testing._crash.lives`), so that a crash is the
loss of everything but what was committed. Runs wait for some signals and return them in order; the model says what
each call answers, what a run's status may be, and how it ends.
"""

import os

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from durable import Flow, KeyConflictError, Return, job, sleep, step, wait_for, workflow
from durable._shell.engine.engine import Engine
from durable.errors import RunStateError
from durable.testing._crash.lives import DAWN, Life, Store, dead_are_silent

DAY = 86_400.0
#: `make soak` tries more.
OFTEN = int(os.environ.get("DURABLE_SIMULATIONS", "1"))


@step
async def note(number: int) -> int:
    return number


@job
async def child(number: int) -> int:
    return number


@workflow
async def collecting(wanted: int, naps: int) -> Flow[list[int]]:
    got: list[int] = []
    for _ in range(naps):
        yield note(1)
        yield sleep(DAY)
    for _ in range(wanted):
        payload: int = yield wait_for("go", int)
        got.append((yield child(payload)))
    yield Return(got)


@define
class Model:
    """What a run should be."""

    key: str
    arguments: tuple[int, int]
    accepted: dict[str, int] = field(factory=dict)
    cancelled: bool = False
    paused: bool = False

    @property
    def complete(self) -> bool:
        return len(self.accepted) >= self.arguments[0]


class PublicCalls(RuleBasedStateMachine):
    """Starts, signals, cancels, pauses, resumes, lets time pass, closes, crashes."""

    runs = Bundle("runs")

    def __init__(self):
        super().__init__()
        self.store = Store()
        self.models: dict[str, Model] = {}
        self.now = DAWN
        self.boot()

    # --- the process ---------------------------------------------------------------------------------------

    def boot(self):
        self.life = Life(self.now)
        self.life.loop.autojump = False  # time passes when a rule says so
        self.engine = Engine(":memory:", [collecting, child], clock=self.life.clock, storage=self.store.open)
        self.do(self.engine.open())

    def do(self, code):
        async def bounded():
            return await code

        return self.life.loop.run_until_complete(bounded())

    def end_life(self):
        self.now = self.life.clock.now()
        self.life.end()
        self.store.bury()
        with dead_are_silent():
            self.life.forget()

    @rule()
    def crash(self):
        """The memory of the process is gone."""
        self.store.severed = True
        self.end_life()
        self.boot()

    @rule()
    def close_and_open(self):
        self.do(self.engine.aclose())
        assert self.life.tasks() == []
        self.end_life()
        self.boot()

    @rule(days=st.integers(1, 3))
    def let_time_pass(self, days):
        async def passing():
            await self.life.loop.advance(days * DAY)
            await self.engine.idle()

        self.do(passing())

    # --- what callers ask --------------------------------------------------------------------------------------

    @rule(target=runs, key=st.sampled_from("abc"), wanted=st.integers(0, 2), naps=st.integers(0, 2))
    def start(self, key, wanted, naps):
        known = self.models.get(key)
        op = collecting(wanted, naps)
        if known is not None and known.arguments != (wanted, naps):
            with pytest.raises(KeyConflictError):
                self.do(self.engine.start(op, key=key))
            return multiple()
        run = self.do(self.engine.start(op, key=key))
        if known is None:
            self.models[key] = Model(key, (wanted, naps))
            return key
        assert run.id == self.run_of(key).id
        return multiple()

    def run_of(self, key):
        return self.do(self.engine.find(key))

    @rule(key=runs, dedup=st.sampled_from(["1", "2", "3"]), payload=st.integers(0, 9))
    def signal(self, key, dedup, payload):
        model, run = self.models[key], self.run_of(key)
        over = self.do(run.info()).ended_at is not None
        if over and dedup not in model.accepted:
            with pytest.raises(RunStateError):
                self.do(run.signal("go", payload, dedup=dedup))
            return
        accepted = self.do(run.signal("go", payload, dedup=dedup))
        assert accepted == (dedup not in model.accepted)
        if accepted:
            model.accepted[dedup] = payload

    @rule(key=runs)
    def cancel(self, key):
        run = self.run_of(key)
        over = self.do(run.info()).ended_at is not None
        assert self.do(run.cancel("because")) == (not over)
        if not over:
            self.models[key].cancelled = True

    @rule(key=runs)
    def pause(self, key):
        run = self.run_of(key)
        if self.do(run.info()).ended_at is None:
            self.do(run.pause())
            self.models[key].paused = True

    @rule(key=runs)
    def resume(self, key):
        run = self.run_of(key)
        if self.do(run.info()).ended_at is None:
            self.do(run.resume())
            self.models[key].paused = False

    # --- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def every_run_is_what_its_model_says(self):
        self.do(self.engine.idle())
        for key, model in self.models.items():
            info = self.do(self.run_of(key).info())
            if info.status == "succeeded":
                assert model.complete
                taken = list(model.accepted.values())[: model.arguments[0]]
                assert self.do(self.run_of(key).result()) == taken
            elif info.status == "cancelled":
                assert model.cancelled
            else:
                assert info.ended_at is None
                if model.paused:
                    assert info.status == "paused", info
                else:
                    assert info.status == "waiting", info
                    assert not model.cancelled
                    assert model.arguments[1] or not model.complete

    def teardown(self):
        """Everything comes to an end once it may."""

        async def to_the_end():
            for key, model in self.models.items():
                run = await self.engine.find(key)
                if (await run.info()).ended_at is None:
                    if model.paused:
                        await run.resume()
                        model.paused = False
                    for number in range(model.arguments[0] - len(model.accepted)):
                        await run.signal("go", number, dedup=f"last-{number}")
                        model.accepted[f"last-{number}"] = number
            await self.life.loop.advance(10 * DAY)
            await self.engine.idle()
            ended = [(await (await self.engine.find(key)).info()).ended_at for key in self.models]
            await self.engine.aclose()
            return ended

        assert None not in self.do(to_the_end())
        self.end_life()


PublicCalls.TestCase.settings = settings(max_examples=10 * OFTEN, stateful_step_count=25, deadline=None)
TestPublicCalls = PublicCalls.TestCase
