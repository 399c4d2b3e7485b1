"""
Whatever the user's code raises, wherever: its run has an end, and neither the engine nor another run is harmed.

Each kind of `tests.core.hostile_exceptions` is raised in each place where the engine calls code of the user's; all
kinds in one engine, all runs of a place at once.
"""

import asyncio
import contextlib
import contextvars
import gc
import os
import signal
import threading
import time
import traceback
from datetime import timedelta

import pytest

import durable
from durable import (
    Flow,
    Limit,
    Middleware,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    Schedule,
    StepError,
    gather,
    job,
    settle,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.attempts import asking
from tests.core.hostile_exceptions import KINDS, OUTSIDERS, Touchy

pytestmark = pytest.mark.anyio

EVERY = {**KINDS, **OUTSIDERS}
#: What is large, and takes two thirds of the time. How it is recorded does not depend on where it is raised: so each is
#: raised in one place of those below, in all of them by `make test-long`, and everywhere by `make soak`.
LARGE = [
    "StrHuge", "chain_of_two_ways", "deep_argument", "deep_attribute", "deep_traceback", "group_of_groups",
    "huge_attribute", "huge_message", "long_chain", "long_line", "many_attributes", "nested_groups_of_five_thousand",
    "wide_group",
]  # fmt: skip
#: On the loop, in a thread, on the writer's; what workflow code raises, and what it was given; middleware and hooks.
THOROUGH = ["in_step", "in_job_thread", "in_async_transaction", "in_coroutine", "caught", "before_run", "hook"]


def raised_in(*places):
    """Parameters: each of *places*, and what is raised there; by themselves the large ones that take long."""
    found = []
    for place in places:
        turn = THOROUGH.index(place) if place in THOROUGH else None
        large = LARGE if "DURABLE_LONG" in os.environ else [] if turn is None else LARGE[turn :: len(THOROUGH)]
        found.append(pytest.param(place, [kind for kind in EVERY if kind not in LARGE or kind in large], id=place))
        if turn is not None and len(large) < len(LARGE):
            rest = [kind for kind in LARGE if kind not in large]
            found.append(pytest.param(place, rest, id=f"{place}, large", marks=pytest.mark.long))
    return found


def fail(kind):
    """
    Raise one of that *kind*.
    """
    error = EVERY[kind]()
    raise error


@step
async def ok(number: int) -> int:
    return number


@step
async def in_step(kind: str) -> int:
    fail(kind)


@step
def in_thread(kind: str) -> int:
    fail(kind)


@step(thread=False)
def on_the_loop(kind: str) -> int:
    fail(kind)


@step(timeout=30)
async def in_time(kind: str) -> int:
    await asyncio.sleep(0)
    fail(kind)


@step(process=True)
def in_process(kind: str) -> int:
    fail(kind)


@transaction
def in_transaction(tx, kind: str) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    fail(kind)


@transaction
async def in_async_transaction(tx, kind: str) -> int:
    await tx.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    fail(kind)


@job
async def in_job(kind: str) -> int:
    fail(kind)


@job
def in_job_thread(kind: str) -> int:
    fail(kind)


@job(key=fail)
def in_key(kind: str) -> None: ...


@job(limit=Limit("keyed", concurrency=1), limit_key=fail)
def in_limit_key(kind: str) -> None: ...


@step(limit="keyed", limit_key=fail)
def in_limit_key_of_step(kind: str) -> None: ...


@step(retry=Retry(3, on=lambda error: fail(str(error)), delay=0.0))
async def in_predicate(kind: str) -> None:
    raise ValueError(kind)


@workflow
async def alone(place: str, kind: str) -> Flow[int]:
    yield DEFINITIONS[place](kind)


@workflow
async def together(place: str, kind: str) -> Flow[int]:
    yield gather(DEFINITIONS[place](kind), ok(1))


@workflow
async def caught(place: str, kind: str) -> Flow[str]:
    settled = yield settle(gather(DEFINITIONS[place](kind), ok(1)))
    yield ok(2)
    if settled.error is None:
        yield Return("?")
    raise settled.error


@workflow
async def in_body(kind: str) -> Flow[int]:
    yield ok(1)
    fail(kind)


@workflow
async def in_coroutine(kind: str) -> int:
    await ok(1)
    fail(kind)


@workflow
async def in_helper(kind: str) -> int:
    async def helper():
        await ok(1)
        fail(kind)

    await gather(helper(), ok(2))


@workflow(retry=Retry(2, on=lambda error: fail(str(error)), delay=0.0))
async def in_predicate_of_workflow(kind: str) -> int:
    raise ValueError(kind)


@workflow
async def healthy() -> int:
    return await ok(1) + await ok(2)


DEFINITIONS = {
    each.name: each
    for each in (
        in_step, in_thread, on_the_loop, in_time, in_process, in_transaction, in_async_transaction, in_predicate,
        in_limit_key_of_step, in_job, in_job_thread, in_key, in_limit_key,
    )
}  # fmt: skip
WORKFLOWS = (alone, together, caught, in_body, in_coroutine, in_helper, in_predicate_of_workflow, healthy)
CODE = {each.name: each for each in (in_body, in_coroutine, in_helper, in_job, in_job_thread)}
JOBS = (in_job, in_job_thread, in_key, in_limit_key)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """
    What never gives its text is not waited for.

    Nor does anybody look on while garbage is collected, as Hypothesis does: what is raised in a thread to end it is
    lost in such a function, and its loop makes all that follows slow.
    """
    monkeypatch.setattr(asking, "PATIENCE", 0.02)
    looking_on = gc.callbacks.copy()
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(looking_on)


async def all_end(engine, ops, kinds):
    """
    Start *ops* of all *kinds*: each run fails, by a type or a text; and another one is as healthy as ever.
    """
    runs = {kind: await engine.start(op) for kind, op in zip(kinds, ops, strict=True)}
    for kind, run in runs.items():
        async with asyncio.timeout(20):
            with pytest.raises((RunFailedError, RunCancelledError)):
                await run.result()
            assert kind == "RunCancelled" or await run.status() == "failed", kind
    assert await engine.run(healthy()) == 3


@pytest.mark.parametrize("place, kinds", raised_in(*(name for name in DEFINITIONS if name != "in_process")))
async def test_whatever_a_command_raises_fails_its_run(engines, place, kinds):
    """
    Steps, transactions, jobs, their predicates and keys.
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    await all_end(engine, [alone(place, kind) for kind in kinds], kinds)


@pytest.mark.parametrize("place", ["in_step", "in_transaction", "in_job"])
@pytest.mark.parametrize("around, kinds", raised_in("together", "caught"))
async def test_whatever_a_member_of_a_group_raises_fails_its_run(engines, place, around, kinds):
    """
    As a group, and once more where workflow code raises what it was given.
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    group = {"together": together, "caught": caught}[around]
    await all_end(engine, [group(place, kind) for kind in kinds], kinds)


@pytest.mark.parametrize("code, kinds", raised_in(*CODE))
async def test_whatever_the_code_of_a_run_raises_fails_it(engines, code, kinds):
    """
    Workflows and jobs, generators, coroutines and helpers.
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    await all_end(engine, [CODE[code](kind) for kind in kinds], kinds)


@pytest.mark.parametrize("_place, kinds", raised_in("in_predicate_of_workflow"))
async def test_whatever_a_predicate_of_a_workflow_raises_fails_its_run(engines, _place, kinds):
    """
    A policy that cannot say whether to go on, does not.
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    await all_end(engine, [in_predicate_of_workflow(kind) for kind in kinds], kinds)


SOME = [
    "BothRaise", "StrExits", "StrOdd", "ClassLies", "Untouchable", "WithMeta", "NoHash", "NoReduce", "demanding",
    "forgetful", "touchy_argument", "odd_attribute_names", "causes_in_a_circle", "wide_group", "hostile_group",
    "huge_message", "stop_iteration", "os_error", "validation_error", "import_error", *OUTSIDERS,
]  # fmt: skip


async def test_whatever_a_function_raises_in_a_process_fails_its_run(engines):
    """
    What cannot be sent from there is told all the same, and what exits there takes no worker along.
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    await all_end(engine, [alone("in_process", kind) for kind in SOME], SOME)


class Spoils(Middleware):
    """Fails in one of its methods, as long as it is told to."""

    def __init__(self, method):
        self.method, self.kind = method, None

    def spoil(self, method):
        kind = self.kind
        if kind is not None and method == self.method.partition(" ")[0]:
            fail(kind)

    async def step(self, call, proceed):
        if call.step != "ok":
            self.spoil("before_step")
        value = await proceed()
        if call.step != "ok":
            self.spoil("after_step")
        return value

    async def run(self, activation, proceed):
        if activation.workflow == "steady":
            self.spoil("before_run")
        await proceed()
        if activation.workflow == "steady":
            self.spoil("after_run")

    def attempt_failed(self, failure):
        self.spoil("attempt_failed")

    def run_failed(self, failure):
        self.spoil("run_failed")


@job
async def steady() -> int:
    return 1


@job
async def failing() -> int:
    raise ValueError("no")


@pytest.mark.parametrize(
    "method, kinds", raised_in("before_step", "after_step", "attempt_failed", "run_failed", "after_run")
)
async def test_whatever_middleware_raises_harms_nobody(engines, method, kinds):
    """
    Around a step it fails the attempt; what it is told of is over.
    """
    spoils = Spoils(method)
    engine = await engines.memory(steady, failing, healthy, middleware=[spoils])
    for kind in kinds:
        spoils.kind = kind
        async with asyncio.timeout(20):
            if method.endswith("step"):
                with pytest.raises(RunFailedError):
                    await engine.run(steady())
            elif method == "after_run":
                assert await engine.run(steady()) == 1
            else:
                with pytest.raises(RunFailedError, match="no"):
                    await engine.run(failing())
        spoils.kind = None
    assert await engine.run(healthy()) == 3


@pytest.mark.parametrize("method, kinds", raised_in("before_run"))
async def test_whatever_middleware_raises_before_a_run_blocks_it_by_name(engines, reached, method, kinds):
    """
    Nothing of the run was executed, and a person decides: `why` says what it was.
    """
    spoils = Spoils(method)
    engine = await engines.memory(steady, healthy, middleware=[spoils])
    for kind in kinds:
        spoils.kind = kind
        run = await engine.start(steady())
        await reached(run, "blocked")
        assert "Spoils.run" in await run.why(), kind
        spoils.kind = None
        await run.resume()
        assert await run.result(5) == 1
    assert await engine.run(healthy()) == 3


@pytest.mark.parametrize("place, kinds", raised_in("hook", "key"))
async def test_whatever_a_hook_raises_harms_no_run(engines, place, kinds):
    """
    The run is over; a key that its follow-up has not got starts nothing.
    """
    raised = []

    @job
    async def over() -> int:
        return 1

    @over.on_success
    def hook(_finished):
        return fail(raised[-1]) if place == "hook" else in_key(raised[-1])

    engine = await engines.memory(over, in_key, healthy)
    for kind in kinds:
        raised.append(kind)
        async with asyncio.timeout(20):
            assert await engine.run(over()) == 1
    assert await engine.run(healthy()) == 3


@pytest.mark.parametrize("place, kinds", raised_in("function", "key"))
async def test_whatever_the_function_of_a_schedule_raises_stops_no_schedule(engines, clock, eventually, place, kinds):
    """
    Its tick is not started, its row says why, and others go on.
    """
    left = kinds.copy()
    started = []

    @job
    async def tick() -> None:
        started.append(1)

    def make(_at):
        kind = left.pop()
        return fail(kind) if place == "function" else in_key(kind)

    schedules = [
        Schedule("bad", make, every=timedelta(seconds=10)),
        Schedule("good", tick(), every=timedelta(seconds=10)),
    ]
    engine = await engines.memory(tick, in_key, healthy, schedules=schedules, clock=clock)
    while left:
        before = len(started)
        clock.advance(10)

        async def ticked(before=before):
            return len(started) > before

        await eventually(ticked, 20)
    assert (await engine.schedule("bad").info()).last_error
    assert await engine.run(healthy()) == 3


@pytest.mark.parametrize("definition", ["in_step", "in_thread", "in_process", "in_transaction", "in_async_transaction"])
async def test_an_exit_of_the_functions_own_is_a_step_error(engines, definition):
    """
    `argparse` in a thread calls `sys.exit(2)`: the attempt fails, as StepError("SystemExit(2)").
    """
    engine = await engines.memory(*WORKFLOWS, *JOBS)
    for kind, text in (
        ("SystemExit", "SystemExit(2)"),
        ("KeyboardInterrupt", "KeyboardInterrupt()"),
        ("GeneratorExit", "GeneratorExit('g')"),
        ("Abort", "Abort('library')"),
    ):
        with pytest.raises(RunFailedError) as caught:
            await engine.run(alone(definition, kind))
        error = caught.value.__cause__
        assert isinstance(error, StepError)
        assert str(error) == text
        assert "in fail" in caught.value.traceback


async def test_an_exit_ends_no_program_through_a_task_of_middleware(engines):
    """
    asyncio lets a SystemExit in a task end its loop, and a time limit around `proceed` makes a task.
    """

    class Limited(Middleware):
        async def step(self, call, proceed):
            return await asyncio.wait_for(proceed(), 5)

    engine = await engines.memory(*WORKFLOWS, *JOBS, middleware=[Limited()])
    for kind in ("SystemExit", "KeyboardInterrupt"):
        with pytest.raises(RunFailedError, match=kind):
            await engine.run(alone("in_step", kind))
    assert await engine.run(healthy()) == 3


async def test_what_no_attempt_can_mend_is_tried_once(engines):
    """
    A value that cannot be recorded, is too large or too deep: its effect is not repeated.
    """
    calls = []
    deep: list = []
    deep.append(deep)
    values = {"class": object(), "large": "x" * 2_000_000, "deep": deep, "number": float("nan")}

    @step(retry=Retry(5, delay=0.0))
    async def effect(kind: str) -> object:
        calls.append(kind)
        return values[kind]

    @job(retry=Retry(5, delay=0.0))
    def effect_of_job(kind: str) -> object:
        calls.append(kind)
        return values[kind]

    @workflow
    async def one(kind: str) -> object:
        return await effect(kind)

    engine = await engines.memory(one, effect_of_job)
    for kind in values:
        for op in (one(kind), effect_of_job(kind)):
            with pytest.raises(RunFailedError):
                await engine.run(op)
    assert sorted(calls) == sorted([*values, *values])


async def test_a_worker_that_is_interrupted_runs_its_step_again(engines, tmp_path):
    """
    Ctrl-C reaches the workers of a terminal, too: how the function would have ended is unknown, so it is not a failure.
    """
    engine = await engines.memory(interrupted_once)
    assert await engine.run(interrupted_once(str(tmp_path / "been"))) == "again"


@job(process=True)
def interrupted_once(path: str) -> str:
    if os.path.exists(path):
        return "again"
    open(path, "w").close()
    signal.raise_signal(signal.SIGINT)
    return "?"


@pytest.mark.parametrize("busy", [False, True])
async def test_the_text_of_an_error_is_not_waited_for(engines, monkeypatch, busy):
    """
    The run has ended before anybody has it, be it that the thread waits or works; and many texts are given up as one.
    """
    monkeypatch.setattr(asking, "PATIENCE", 0.1)
    asked, given, may_end = [], [], threading.Event()

    class Late:
        def __repr__(self):
            asked.append(self)
            until = time.monotonic() + 10
            while not may_end.is_set() and time.monotonic() < until:
                if not busy:
                    may_end.wait(0.05)
            given.append(self)
            may_end.set()  # somebody waited for it: the test has failed, and is to end
            return "late"

    class Slow(Exception):
        def __str__(self):
            return repr(Late())

    @job
    async def slow(attributes: int) -> None:
        error = Slow()
        for number in range(attributes):
            setattr(error, f"a{number}", Late())
        raise error

    engine = await engines.memory(slow)
    try:
        for attributes in (0, 300):
            with pytest.raises(RunFailedError):
                await engine.run(slow(attributes))
            assert asked
            assert given == []
        assert len(asked) < 30  # 300 that take a tenth of a second each would be waited for, too
    finally:
        may_end.set()


async def test_what_a_workflow_logs_harms_no_run(engines):
    """
    A value that cannot be rendered costs its line in the log, and nothing else.
    """

    @workflow
    async def logs() -> int:
        durable.logger.info("looked at", value=Touchy())
        return await ok(1)

    engine = await engines.memory(logs)
    assert await engine.run(logs()) == 1


async def test_errors_of_the_engine_are_no_context_of_the_users(engines):
    """
    A turn that is made anew, since a signal came before its end was recorded, tells nothing of that.
    """

    @step
    async def signals_itself() -> None:
        await engine.get("r").signal("late")

    @workflow
    async def ends_badly() -> Flow[None]:
        yield settle(wait_for("late", timeout=0))
        try:
            raise KeyError("early")
        except KeyError as error:
            kept = error
        yield signals_itself()
        raise kept

    engine = await engines.memory(ends_badly)
    run = await engine.start(ends_badly(), id="r")
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    error = caught.value.__cause__
    assert (type(error), error.__context__) == (KeyError, None)


async def test_whoever_logs_a_failed_run_sees_the_line_that_raised(engines):
    """
    Of the step and of the workflow, once each: in the traceback of what `result()` raises.
    """

    @step
    async def declined() -> None:
        raise ValueError("no such card")

    @workflow
    async def ride() -> Flow[None]:
        yield declined()

    engine = await engines.memory(ride)
    with pytest.raises(RunFailedError) as caught:
        await engine.run(ride())
    text = "".join(traceback.format_exception(caught.value))
    assert text.count('raise ValueError("no such card")') == 1
    assert text.count("yield declined()") == 1


async def test_texts_are_asked_for_in_the_context_of_the_error():
    """
    The thread sees the context variables of whoever records, and several questions share one deadline.
    """
    colour = contextvars.ContextVar("colour", default="none")
    colour.set("red")
    ask = asking.Asking()
    assert ask(lambda _: colour.get(), None) == "red"
    with pytest.raises(TimeoutError):
        ask(lambda _: str(threading.Event().wait(1)), None)
    with pytest.raises(TimeoutError):
        ask(str, 1)


async def test_a_loop_without_end_in_a_text_is_stopped(eventually):
    """
    It would take a processor for as long as the program runs.
    """

    def loops(_):
        while True:
            pass

    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        asking.Asking()(loops, None)

    async def is_over():
        return before.issuperset(threading.enumerate())

    await eventually(is_over)


async def test_a_loop_that_was_not_stopped_is_stopped_when_another_text_is_asked_for(eventually):
    """
    What is raised in it may get lost: where its thread collects garbage, or in an `except` that takes all.
    """

    def loops_twice(_):
        for _ in range(2):
            with contextlib.suppress(BaseException):
                while True:
                    pass

    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        asking.Asking()(loops_twice, None)

    async def is_over():
        assert asking.Asking()(str, 1) == "1"
        return before.issuperset(threading.enumerate())

    await eventually(is_over)
