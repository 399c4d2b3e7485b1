"""
Middleware: around every attempt and activation, told of failures; called once, in order, harming nothing.
"""

import asyncio
import contextlib
import contextvars

import anyio
import pytest
from structlog.testing import capture_logs

from durable import (
    Activation,
    AttemptFailed,
    Flow,
    Middleware,
    Retry,
    Return,
    RunFailedError,
    RunFailure,
    StepCall,
    Transaction,
    continue_as,
    gather,
    job,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import MiddlewareError, StepInterruptedError

pytestmark = pytest.mark.anyio

NOW = Retry(attempts=3, delay=0.0, jitter=0.0)
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


class Recording(Middleware):
    """Notes all that it is called for."""

    def __init__(self, name: str, seen: list[object]) -> None:
        self.name = name
        self.seen = seen

    async def step(self, call, proceed):
        self.seen.append((self.name, "before", call.step))
        try:
            return await proceed()
        finally:
            self.seen.append((self.name, "after", call.step))

    async def run(self, activation, proceed):
        self.seen.append((self.name, "run", activation.workflow))
        await proceed()
        self.seen.append((self.name, "left", activation.workflow))


class Watching(Middleware):
    """Notes what it is told."""

    def __init__(self):
        self.attempts: list[AttemptFailed] = []
        self.runs: list[RunFailure] = []

    def attempt_failed(self, failure):
        self.attempts.append(failure)

    def run_failed(self, failure):
        self.runs.append(failure)


class Around(Middleware):
    """Does with steps what it was made with."""

    def __init__(self, fn):
        self.fn = fn

    async def step(self, call, proceed):
        return await self.fn(call, proceed)


class AroundRuns(Middleware):
    """Does with runs what it was made with."""

    def __init__(self, fn):
        self.fn = fn

    async def run(self, activation, proceed):
        await self.fn(activation, proceed)


@step
async def add_one(number: int) -> int:
    return number + 1


@step
def in_thread() -> str:
    return request_id.get()


@job(labels={"team": "a"})
async def double(number: int) -> int:
    return number * 2


@workflow
async def adding(number: int) -> Flow[int]:
    value: int = yield add_one(number)
    yield Return(value)


@workflow
async def patient() -> Flow[str]:
    yield add_one(1)
    word: str = yield wait_for("word", str)
    yield add_one(2)
    yield Return(word)


# --- around steps --------------------------------------------------------------------------------


async def test_the_first_middleware_is_the_outermost(engines):
    """
    Each layer surrounds those behind it, around runs as around steps.
    """
    seen: list[object] = []
    engine = await engines.memory(adding, middleware=[Recording("a", seen), Recording("b", seen)])

    assert await engine.run(adding(1)) == 2
    await engine.aclose()

    assert seen == [
        ("a", "run", "adding"),
        ("b", "run", "adding"),
        ("a", "before", "add_one"),
        ("b", "before", "add_one"),
        ("b", "after", "add_one"),
        ("a", "after", "add_one"),
        ("b", "left", "adding"),
        ("a", "left", "adding"),
    ]


async def test_a_call_says_what_is_called(engines):
    """
    Steps and jobs alike, each attempt with its number; arguments cannot be changed through it.
    """
    calls: list[StepCall] = []

    async def note(call, proceed):
        calls.append(call)
        return await proceed()

    @step(retry=NOW)
    async def flaky(a: int, *, b: str) -> None:
        if len(calls) < 2:
            raise ConnectionError(str(a))

    @workflow(name="all-sorts", labels={"team": "b"})
    async def all_sorts() -> Flow[None]:
        yield flaky(1, b="x")
        yield double(4)

    engine = await engines.memory(all_sorts, double, middleware=[Around(note)])
    await engine.run(all_sorts(), id="r")

    assert calls == [
        StepCall("r", "all-sorts", "step", "flaky", "0", 1, (1,), {"b": "x"}, {"team": "b"}),
        StepCall("r", "all-sorts", "step", "flaky", "0", 2, (1,), {"b": "x"}, {"team": "b"}),
        StepCall("r~.1", "double", "job", "double", "0", 1, (4,), {}, {"team": "a"}),
    ]
    with pytest.raises(TypeError):
        calls[0].kwargs["b"] = "y"


async def test_what_a_middleware_returns_is_the_value_of_the_step(engines):
    """
    A changed value is what is recorded, and what the workflow gets.
    """

    async def tenfold(call, proceed):
        return await proceed() * 10

    engine = await engines.memory(adding, middleware=[Around(tenfold)])
    run = await engine.start(adding(1))

    assert await run.result() == 20
    assert [event.value for event in await run.history() if event.kind == "StepSucceeded"] == ["20"]


async def test_a_context_variable_reaches_a_step_in_its_thread(engines):
    """
    A plain function runs in a thread, and sees what the middleware around it has set.
    """

    async def name(call, proceed):
        token = request_id.set(f"{call.run_id}:{call.position}")
        try:
            return await proceed()
        finally:
            request_id.reset(token)

    @workflow(name="threads")
    async def threads() -> Flow[list[str]]:
        first: str = yield in_thread()
        rest: list[str] = yield gather(in_thread(), in_thread())
        yield Return([first, *rest])

    engine = await engines.memory(threads, middleware=[Around(name)])
    assert await engine.run(threads(), id="r") == ["r:0", "r:1.0", "r:1.1"]


@pytest.mark.parametrize("before", [True, False])
async def test_an_error_of_a_middleware_is_the_attempts(engines, before):
    """
    Before or after: the attempt fails with it, and the step's retry policy applies.
    """
    called: list[int] = []

    @step(retry=NOW)
    async def work() -> str:
        called.append(1)
        return "done"

    async def refuse_first(call, proceed):
        if before and call.attempt == 1:
            raise PermissionError("not yet")
        value = await proceed()
        if call.attempt == 1:
            raise PermissionError("not yet")
        return value

    @workflow(name="one")
    async def one() -> Flow[str]:
        value: str = yield work()
        yield Return(value)

    watching = Watching()
    engine = await engines.memory(one, middleware=[Around(refuse_first), watching])

    assert await engine.run(one()) == "done"
    assert len(called) == (1 if before else 2)
    assert [(type(each.error), each.attempt) for each in watching.attempts] == [(PermissionError, 1)]


async def forgets(call, proceed):
    return 7


async def forgets_to_await(call, proceed):
    proceed()
    return 7


async def calls_twice(call, proceed):
    await proceed()
    return await proceed()


async def forgets_to_return(call, proceed):
    await proceed()


async def leaves_it_running(call, proceed):
    leaves_it_running.task = asyncio.ensure_future(proceed())
    await asyncio.sleep(0)
    return 7


@pytest.mark.parametrize(
    "wrong, says",
    [
        (forgets, "without having awaited"),
        (forgets_to_await, "without having awaited"),
        (calls_twice, "twice"),
        (forgets_to_return, "return what proceed gave"),
        (leaves_it_running, "before proceed\\(\\) had ended"),
    ],
)
async def test_proceed_is_awaited_exactly_once_and_its_value_returned(engines, wrong, says):
    """
    Otherwise the attempt fails, naming the middleware and the step; it does not end beside a function still at work.
    """
    ended: list[bool] = []

    @step
    async def slow_one() -> int:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(True)
        return 1

    @workflow(name="one")
    async def one() -> Flow[int]:
        value: int = yield slow_one()
        yield Return(value)

    engine = await engines.memory(one, middleware=[Around(wrong)])

    with pytest.raises(RunFailedError, match=says) as caught:
        await engine.run(one())

    assert isinstance(caught.value.__cause__, MiddlewareError)
    assert caught.value.__cause__.middleware == "Around.step"
    assert "'slow_one'" in caught.value.__cause__.where
    assert len(ended) == (0 if wrong in (forgets, forgets_to_await) else 1)


async def test_a_step_without_a_value_may_pass_on_none(engines):
    """
    None is a value like others where the function gave it.
    """

    @step
    async def nothing() -> None: ...

    @workflow(name="one")
    async def one() -> Flow[None]:
        yield nothing()

    engine = await engines.memory(one, middleware=[Recording("a", [])])
    assert await engine.run(one()) is None


async def test_the_timeout_of_a_step_holds_for_its_middleware(engines):
    """
    A middleware that hangs is cut off like the step itself.
    """

    async def hang(call, proceed):
        await anyio.sleep_forever()

    @step(timeout=0.01)
    async def quick() -> None: ...

    @workflow(name="one")
    async def one() -> Flow[None]:
        yield quick()

    engine = await engines.memory(one, middleware=[Around(hang)])
    with pytest.raises(RunFailedError, match="took longer"):
        await engine.run(one())


# --- around runs ---------------------------------------------------------------------------------


async def test_a_freed_run_is_activated_again(engines, reached):
    """
    Each activation is surrounded: until it is freed, and again from where it wakes.
    """
    seen: list[object] = []
    engine = await engines.memory(patient, middleware=[Recording("a", seen)])
    run = await engine.start(patient())
    await reached(run, "waiting")
    await run.signal("word", "hello")
    assert await run.result() == "hello"
    await engine.aclose()

    assert [entry[1] for entry in seen] == ["run", "before", "after", "left", "run", "before", "after", "left"]


async def test_an_activation_says_what_is_driven(engines):
    """
    Workflows and jobs, with their queue and labels.
    """
    found: list[Activation] = []

    async def note(activation, proceed):
        found.append(activation)
        await proceed()

    engine = await engines.memory(adding, double, middleware=[AroundRuns(note)])
    await engine.run(double(2), id="d", queue="q", priority=3)
    await engine.run(adding(2), id="a")

    assert found == [
        Activation("d", "double", "job", "q", 3, {"team": "a"}),
        Activation("a", "adding", "workflow", "default", 0, {}),
    ]


async def test_an_activation_says_whether_it_is_the_first(engines, reached):
    """
    One that is woken has begun, and so has one that another engine recovers; a run that waited in the queue has not.
    """
    found: list[bool] = []

    async def note(activation, proceed):
        found.append(activation.first)
        await proceed()

    @workflow(name="waits")
    async def waits() -> Flow[None]:
        yield wait_for("go")
        yield wait_for("go")

    engine = await engines.file(waits, middleware=[AroundRuns(note)])
    await engine.queue("default").pause()
    run = await engine.start(waits())
    await engine.aclose()
    engine = await engines.file(waits, middleware=[AroundRuns(note)])
    await engine.queue("default").resume()
    run = engine.get(run.id)
    await reached(run, "waiting")
    await run.signal("go")
    await eventually_found(found, 2)
    await reached(run, "waiting")
    await engine.aclose()
    engine = await engines.file(waits, middleware=[AroundRuns(note)])
    await engine.get(run.id).signal("go")
    await engine.get(run.id).result(5)
    assert found == [True, False, False]


async def eventually_found(found, count):
    async with asyncio.timeout(5):
        while len(found) < count:
            await asyncio.sleep(0.001)


async def test_successes_are_told_once_they_are_on_disk(engines):
    """
    Of workflows and jobs, each once; not that a run continued as another, nor what failed.
    """
    told: list[tuple[str, str, object]] = []

    class Counting(Middleware):
        def run_succeeded(self, success):
            (count,) = engine._backend.running.database._look(
                lambda conn: conn.execute(
                    "SELECT count(*) FROM runs WHERE run_id = ? AND status = 'succeeded'", (success.run_id,)
                ).fetchone()
            )
            told.append((success.workflow, success.value, count))

    @workflow(name="twice")
    async def twice(left: int) -> Flow[int]:
        if left:
            yield continue_as(twice(left - 1))
        yield Return((yield double(4)))

    @job(name="fails")
    async def fails() -> None:
        raise ConnectionError("down")

    engine = await engines.memory(twice, double, fails, middleware=[Counting()])
    assert await engine.run(twice(1)) == 8
    with pytest.raises(RunFailedError):
        await engine.run(fails())
    assert told == [("double", 8, 1), ("twice", 8, 1)]


async def test_context_variables_of_a_run_are_seen_by_all_of_its_steps_and_by_no_other_run(engines):
    """
    Those of a plain sequence, of a group, and in threads.
    """

    async def name(activation, proceed):
        if activation.workflow == "named":
            request_id.set(activation.run_id)
        await proceed()

    @step
    async def on_loop() -> str:
        return request_id.get()

    @workflow(name="named")
    async def named() -> Flow[list[str]]:
        first: str = yield on_loop()
        rest: list[str] = yield gather(on_loop(), in_thread())
        yield Return([first, *rest])

    @workflow(name="other")
    async def other() -> Flow[str]:
        value: str = yield in_thread()
        yield Return(value)

    engine = await engines.memory(named, other, middleware=[AroundRuns(name)])
    assert await engine.run(named(), id="r") == ["r", "r", "r"]
    assert await engine.run(other()) == "none"


async def raises_before(activation, proceed):
    raise PermissionError("not allowed")


async def forgets_the_run(activation, proceed):
    pass


@pytest.mark.parametrize("wrong, says", [(raises_before, "not allowed"), (forgets_the_run, "nothing was executed")])
async def test_a_run_that_is_not_let_through_is_blocked(engines, reached, wrong, says):
    """
    Nothing of it is executed, the reason names the middleware, and it goes on once that is mended.
    """
    seen: list[object] = []
    outer = Recording("outer", seen)
    engine = await engines.file(adding, middleware=[outer, AroundRuns(wrong), Recording("inner", seen)])
    run = await engine.start(adding(1), id="r")
    await reached(run, "blocked")

    assert says in await run.why()
    assert "AroundRuns.run" in await run.why()
    assert [event.kind for event in await run.history()] == ["RunStarted"]
    assert seen == [("outer", "run", "adding")]

    await engine.aclose()
    mended = await engines.file(adding)
    assert await mended.get("r").result() == 2


async def test_an_error_after_a_run_is_logged_and_changes_nothing(engines):
    """
    All that it did is on disk already.
    """

    async def break_after(activation, proceed):
        await proceed()
        raise RuntimeError("too late")

    engine = await engines.memory(adding, middleware=[AroundRuns(break_after)])
    with capture_logs() as logs:
        assert await engine.run(adding(1)) == 2
        assert await engine.run(adding(2)) == 3
        await engine.aclose()
    failed = [entry for entry in logs if entry["event"] == "middleware.failed"]
    assert [(entry["middleware"], "too late" in entry["error"]) for entry in failed] == [("AroundRuns", True)] * 2


async def test_a_timeout_around_a_run_does_not_abandon_it(engines):
    """
    What is cancelled is the middleware's waiting: the run is driven to its end.
    """
    gate = asyncio.Event()
    gave_up = asyncio.Event()

    @step
    async def wait_at_gate() -> str:
        await gate.wait()
        return "through"

    @workflow(name="one")
    async def one() -> Flow[str]:
        value: str = yield wait_at_gate()
        yield Return(value)

    async def impatient(activation, proceed):
        try:
            with anyio.fail_after(0.01):
                await proceed()
        finally:
            gave_up.set()

    engine = await engines.memory(one, middleware=[AroundRuns(impatient)])
    run = await engine.start(one())
    await gave_up.wait()
    gate.set()
    assert await run.result(timeout=5) == "through"


@pytest.mark.parametrize("before", [True, False])
async def test_a_middleware_that_hangs_holds_up_no_closing(engines, before):
    """
    It is cut off with the steps when the grace is over; the run is whole, and goes on at the next opening.
    """
    hung = asyncio.Event()

    async def hang(activation, proceed):
        if not before:
            await proceed()
        hung.set()
        await anyio.sleep_forever()

    engine = await engines.file(adding, middleware=[AroundRuns(hang)], grace=0.0)
    await engine.start(adding(1), id="r")
    await hung.wait()
    with anyio.fail_after(3):
        await engine.aclose()

    engine = await engines.file(adding)
    assert await engine.get("r").result() == 2


async def test_a_run_proceeds_once(engines):
    """
    The second call raises in the middleware, and the run has ended well by then.
    """
    refused: list[str] = []

    async def twice(activation, proceed):
        await proceed()
        try:
            await proceed()
        except MiddlewareError as error:
            refused.append(error.reason)

    engine = await engines.memory(adding, middleware=[AroundRuns(twice)])
    assert await engine.run(adding(1)) == 2
    await engine.aclose()
    assert refused == ["it called proceed twice: call it exactly once"]


# --- told of failures ----------------------------------------------------------------------------


async def test_each_failed_attempt_is_told_with_its_error(engines):
    """
    Of steps, transactions and jobs; the last one has no next; then the run's failure, once.
    """

    @step(retry=NOW)
    async def fails() -> None:
        raise ConnectionError("down")

    @transaction
    def refuses(tx: Transaction) -> None:
        raise ValueError("no")

    @job(retry=Retry(attempts=2, delay=0.0, jitter=0.0), name="task-job")
    async def job_fails() -> None:
        raise KeyError("k")

    @workflow(name="all-fail")
    async def all_fail() -> Flow[None]:
        for op in (fails, refuses, job_fails):
            with contextlib.suppress(ConnectionError, ValueError, KeyError):
                yield op()
        raise RuntimeError("after all that")

    watching = Watching()
    engine = await engines.memory(all_fail, job_fails, middleware=[watching])
    with pytest.raises(RunFailedError):
        await engine.run(all_fail(), id="r")

    assert [
        (each.run_id, each.workflow, each.step, each.position, each.attempt, type(each.error), each.retry_at is None)
        for each in watching.attempts
    ] == [
        ("r", "all-fail", "fails", "0", 1, ConnectionError, False),
        ("r", "all-fail", "fails", "0", 2, ConnectionError, False),
        ("r", "all-fail", "fails", "0", 3, ConnectionError, True),
        ("r", "all-fail", "refuses", "1", 1, ValueError, True),
        ("r~.2", "task-job", "task-job", "0", 1, KeyError, False),
        ("r~.2", "task-job", "task-job", "0", 2, KeyError, True),
    ]
    assert [(each.run_id, each.workflow, type(each.error)) for each in watching.runs] == [
        ("r~.2", "task-job", KeyError),
        ("r", "all-fail", RuntimeError),
    ]
    assert "after all that" in watching.runs[1].reason


async def test_a_run_that_is_tried_again_has_not_failed_for_good(engines):
    """
    With a retry of the whole run, only its last attempt is its failure.
    """
    begun: list[int] = []

    @workflow(name="stubborn", retry=NOW)
    async def stubborn() -> Flow[None]:
        begun.append(1)
        yield add_one(len(begun))
        raise ConnectionError("down")

    watching = Watching()
    engine = await engines.memory(stubborn, middleware=[watching])
    with pytest.raises(RunFailedError):
        await engine.run(stubborn(), id="r")
    assert len(begun) >= 3
    assert [each.run_id for each in watching.runs] == ["r"]


async def test_failures_are_told_once_they_are_on_disk(engines):
    """
    A hook that looks at the file finds what it is told of.
    """
    found: list[object] = []

    class Looking(Middleware):
        def attempt_failed(self, failure):
            found.append(self.look("SELECT count(*) FROM history WHERE event IN ('StepFailed', 'StepRetrying')"))

        def run_failed(self, failure):
            found.append(self.look("SELECT count(*) FROM runs WHERE status = 'failed'"))

        def look(self, sql):
            return engine._backend.running.database._look(lambda conn: conn.execute(sql).fetchone()[0])

    @step(retry=Retry(attempts=2, delay=0.0))
    async def fails() -> None:
        raise ConnectionError("down")

    @workflow(name="failing")
    async def failing() -> Flow[None]:
        yield fails()

    engine = await engines.memory(failing, middleware=[Looking()])
    with pytest.raises(RunFailedError):
        await engine.run(failing())
    assert found == [1, 2, 1]


async def test_an_error_of_a_hook_is_logged_and_changes_nothing(engines):
    """
    Neither the run nor the hooks behind it.
    """

    class Broken(Middleware):
        def attempt_failed(self, failure):
            raise RuntimeError("broken alarm")

        def run_failed(self, failure):
            raise RuntimeError("broken alarm")

        def run_succeeded(self, success):
            raise RuntimeError("broken counter")

    @job(retry=NOW, name="fails")
    async def fails() -> None:
        raise ConnectionError("down")

    watching = Watching()
    engine = await engines.memory(fails, double, middleware=[Broken(), watching])
    with capture_logs() as logs:
        with pytest.raises(RunFailedError, match="down"):
            await engine.run(fails())
        assert await engine.run(double(2)) == 4
    assert len(watching.attempts) == 3
    assert len(watching.runs) == 1
    methods = [entry["method"] for entry in logs if entry["event"] == "middleware.failed"]
    assert methods == ["attempt_failed"] * 3 + ["run_failed", "run_succeeded"]


async def test_a_replay_calls_nothing_for_what_is_recorded(engines, eventually):
    """
    After a kill, steps that ended are not surrounded again, and their failures not told again.
    """
    calls: list[str] = []

    async def note(call, proceed):
        calls.append(f"{call.step}@{call.position}")
        return await proceed()

    @step(retry=NOW)
    async def fails() -> None:
        raise ConnectionError("down")

    @workflow(name="long")
    async def long() -> Flow[str]:
        with contextlib.suppress(ConnectionError):
            yield fails()
        word: str = yield wait_for("word", str)
        yield add_one(1)
        yield Return(word)

    first = Watching()
    engine = await engines.file(long, middleware=[Around(note), first])
    run = await engine.start(long(), id="r")

    async def waits_for_word():
        return "'word'" in await run.why()

    await eventually(waits_for_word)
    assert len(first.attempts) == 3
    await engines.crash(engine)
    calls.clear()

    second = Watching()
    engine = await engines.file(long, middleware=[Around(note), second])
    await engine.get("r").signal("word", "on")
    assert await engine.get("r").result() == "on"
    assert calls == ["add_one@2"]
    assert second.attempts == second.runs == []


async def test_an_attempt_that_a_crash_failed_is_told(engines):
    """
    With ``on_crash="raise"`` the death of the process is the attempt's failure, for steps and jobs.
    """
    started = asyncio.Semaphore(0)

    @step(on_crash="raise")
    async def print_label() -> None:
        started.release()
        await anyio.sleep_forever()

    @job(on_crash="raise", name="label-job")
    async def label_job() -> None:
        started.release()
        await anyio.sleep_forever()

    @workflow(name="labels")
    async def labels() -> Flow[None]:
        yield print_label()

    engine = await engines.file(labels, label_job)
    await engine.start(labels(), id="w")
    await engine.start(label_job(), id="j")
    await started.acquire()
    await started.acquire()
    await engines.crash(engine)

    watching = Watching()
    engine = await engines.file(labels, label_job, middleware=[watching])
    for run_id in ("w", "j"):
        with pytest.raises(RunFailedError):
            await engine.get(run_id).result(timeout=5)
    told = {(each.run_id, each.step, type(each.error)) for each in watching.attempts}
    assert told == {("w", "print_label", StepInterruptedError), ("j", "label-job", StepInterruptedError)}


# --- giving it to an engine ----------------------------------------------------------------------


async def test_what_is_no_middleware_is_refused(engines):
    """
    When the engine is made, with what to give instead.
    """
    with pytest.raises(MiddlewareError, match=r"give an object: Recording\(\)"):
        await engines.memory(adding, middleware=[Recording])
    with pytest.raises(MiddlewareError, match="derive its class"):
        await engines.memory(adding, middleware=[lambda call, proceed: proceed()])

    class Awaited(Middleware):
        async def run_failed(self, failure): ...

    with pytest.raises(MiddlewareError, match="plain `def`"):
        await engines.memory(adding, middleware=[Awaited()])


async def test_what_is_not_overridden_is_not_called(engines):
    """
    A middleware for failures leaves steps and runs on their short path.
    """
    engine = await engines.memory(adding, middleware=[Watching(), Middleware()])
    assert not engine._backend.settings.hooks.around_steps
    assert not engine._backend.settings.hooks.around_runs
    assert engine._backend.settings.hooks.watches_attempts
    assert await engine.run(adding(1)) == 2


# --- engine.events() -----------------------------------------------------------------------------


async def test_events_tell_the_life_of_a_run(engines, eventually):
    """
    Begun once, freed, woken, each failed attempt, ended: in this order.
    """

    @step(retry=Retry(attempts=2, delay=0.0, jitter=0.0))
    async def fails() -> None:
        raise ConnectionError("down")

    @workflow(name="eventful")
    async def eventful() -> Flow[None]:
        yield sleep(0)
        yield wait_for("go")
        yield fails()

    engine = await engines.memory(eventful)
    events = engine.events()
    run = await engine.start(eventful(), id="r")

    async def waits_for_go():
        return "'go'" in await run.why()

    await eventually(waits_for_go)
    await run.signal("go")
    with pytest.raises(RunFailedError):
        await run.result()
    await engine.aclose()

    found = [event async for event in events]
    names = [event.name for event in found]
    assert names[:2] == ["run.ready", "run.started"]
    assert names.count("run.started") == 1
    assert "run.waiting" in names
    assert names[-1] == "run.failed"
    attempts = [(each.step, each.position, each.attempt) for each in found if each.name == "step.attempt_failed"]
    assert attempts == [("fails", "2", 1), ("fails", "2", 2)]


async def test_readers_that_break_or_stall_harm_no_run(engines):
    """
    One raises at its first event, one never reads, one is dropped unread: runs end all the same.
    """
    engine = await engines.memory(adding)
    stalled = engine.events()
    engine.events()
    broken = engine.events()

    async def read_and_break():
        async for _ in broken:
            raise RuntimeError("broken dashboard")

    reader = asyncio.ensure_future(read_and_break())
    assert [await engine.run(adding(number)) for number in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="broken dashboard"):
        await reader
    await engine.aclose()
    assert len([event async for event in stalled]) == 25  # of five a run: ready, started, succeeded, and its step
