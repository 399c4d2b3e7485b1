"""
Starting runs and getting their results: the taste of the contract, and every wrong start.
"""

import asyncio
import contextvars
import os
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
from attrs import frozen

from durable import (
    Engine,
    Fatal,
    Flow,
    Retry,
    Return,
    RunFailedError,
    RunNotFoundError,
    StepError,
    gather,
    job,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError, EncodeError, RunExistsError
from tests import children

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@frozen
class Receipt:
    ride_id: int
    charge_id: str


@transaction
def create_ride(tx, user_id: int, pickup: str) -> int:
    return tx.execute("INSERT INTO rides (user_id, pickup) VALUES (?, ?)", (user_id, pickup)).lastrowid


@transaction
def create_tables(tx) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")


@job(queue="drivers", retry=5)
async def notify_drivers(ride_id: int) -> int:
    return ride_id * 10


@job(queue="audit")
async def write_audit(ride_id: int) -> None:
    """Nothing to do."""


@step(retry=Retry(attempts=5, on=ConnectionError, delay=0.0))
async def charge(ride_id: int) -> str:
    return f"ch-{ride_id}"


@workflow
async def ride(user_id: int, pickup: str) -> Flow[Receipt]:
    yield create_tables()
    ride_id: int = yield create_ride(user_id, pickup)
    yield gather(notify_drivers(ride_id), write_audit(ride_id))
    charge_id: str = yield charge(ride_id)
    yield Return(Receipt(ride_id, charge_id))


class TariffError(ValueError):
    """An application's own error."""


@step
async def fail(kind: str) -> None:
    raise TariffError(kind)


@workflow
async def failing(kind: str) -> Flow[None]:
    yield fail(kind)


@workflow
async def recovering(kind: str) -> Flow[str]:
    try:
        yield fail(kind)
    except ValueError as error:
        caught = f"{type(error).__name__} {error}"
    signal: str = yield wait_for("go", str)
    yield Return(f"{caught} {signal}")


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go", str)
    yield Return(value)


async def test_the_taste_of_the_contract_works(engines):
    """
    Transactions, jobs on queues, steps and a typed result work together, and once a key.
    """
    engine = await engines.file(ride, notify_drivers, write_audit)
    run = await engine.start(ride(42, "Main St 1"), key="ride-42")
    assert await run.result(5) == Receipt(1, "ch-1")
    again = await engine.start(ride(42, "Main St 1"), key="ride-42")
    assert again == run
    assert await again.result(5) == Receipt(1, "ch-1")


async def test_a_result_can_be_asked_of_another_engine_later(engines):
    """
    A run's value outlives the engine that executed it, typed where its definition is known.
    """
    engine = await engines.file(ride, notify_drivers, write_audit)
    run = await engine.start(ride(1, "here"), id="r-1")
    await run.result(5)
    await engine.aclose()
    engine = await engines.file(ride, notify_drivers, write_audit)
    assert await engine.get("r-1").result(5) == Receipt(1, "ch-1")


async def test_wrong_arguments_fail_at_the_call(engines):
    """
    A TypeError names the signature, and nothing is recorded.
    """
    engine = await engines.memory(ride)
    with pytest.raises(TypeError, match=r"ride\(.*user_id.*pickup"):
        await engine.start(ride(1))
    with pytest.raises(TypeError, match="colour"):
        await engine.start(ride(1, "x", colour="red"))
    assert [info async for info in engine.runs()] == []


async def test_an_argument_that_cannot_be_recorded_fails_at_the_start(engines):
    """
    An EncodeError names the value, and nothing is recorded.
    """
    engine = await engines.memory(ride)
    with pytest.raises(EncodeError, match="ride"):
        await engine.start(ride(1, object()))
    assert [info async for info in engine.runs()] == []


async def test_a_step_cannot_be_started(engines):
    """
    Only workflows and jobs are runs; the error says what to do.
    """
    engine = await engines.memory(ride)
    with pytest.raises(TypeError, match="@job"):
        await engine.start(charge(1))
    with pytest.raises(TypeError, match="expected a call"):
        await engine.start(ride)


async def test_a_definition_not_given_to_the_engine_cannot_be_started(engines):
    """
    A run that nobody could recover is refused, at the start and as a child.
    """
    engine = await engines.memory(waiting)
    with pytest.raises(DefinitionError, match="failing"):
        await engine.start(failing("x"))

    @workflow(name="waiting")
    async def other() -> Flow[None]:
        yield Return(None)

    with pytest.raises(DefinitionError, match="another one of that name"):
        await engine.start(other())


async def test_a_child_not_given_to_the_engine_is_the_parents_problem(engines, reached):
    """
    A parent that asks for an unknown child is not lost: it is blocked, and says which.
    """
    engine = await engines.memory(ride, write_audit)
    run = await engine.start(ride(1, "x"))
    await reached(run, "blocked")
    assert "notify_drivers" in await run.why()


async def test_two_definitions_of_one_name_are_refused():
    """
    The journal knows definitions by name, so the second of a name is an error before opening.
    """

    @workflow(name="waiting")
    async def other() -> Flow[None]:
        yield Return(None)

    with pytest.raises(DefinitionError, match="two definitions are called 'waiting'"):
        Engine(":memory:", [waiting, other])
    with pytest.raises(DefinitionError, match="need not be listed"):
        Engine(":memory:", [charge])


async def test_an_unknown_run_is_not_found(engines):
    """
    Every question about a run that does not exist raises RunNotFoundError.
    """
    engine = await engines.memory(waiting)
    run = engine.get("nobody")
    for ask in (run.result, run.info, run.history, run.why, run.cancel, run.pause, run.resume, run.retry, run.children):
        with pytest.raises(RunNotFoundError, match="nobody"):
            await ask()
    with pytest.raises(RunNotFoundError):
        await run.signal("go")
    with pytest.raises(RunNotFoundError):
        await run.fork(0)
    with pytest.raises(RunNotFoundError, match="no-key"):
        await engine.find("no-key")


async def test_an_id_names_one_run(engines):
    """
    `id=` with the same arguments gives the same run; with others it is RunExistsError.
    """
    engine = await engines.memory(failing, waiting)
    first = await engine.start(failing("x"), id="mine")
    assert await engine.start(failing("x"), id="mine") == first
    with pytest.raises(RunExistsError, match="mine"):
        await engine.start(failing("y"), id="mine")
    with pytest.raises(RunExistsError, match="same arguments"):
        await engine.start(failing("x"), id="mine", on_conflict="reject")


async def test_start_many_is_one_transaction(engines):
    """
    One that cannot be started keeps all others from starting.
    """
    engine = await engines.memory(failing, waiting)
    with pytest.raises(EncodeError):
        await engine.start_many([waiting(), failing(object())])
    await engine.start(failing("x"), id="taken")
    with pytest.raises(RunExistsError):
        await engine.start_many([waiting(), _with_id(failing("y"), "taken"), waiting()])
    assert [info.run_id async for info in engine.runs()] == ["taken"]
    runs = await engine.start_many([waiting() for _ in range(30)])
    assert len({run.id for run in runs}) == 30


def _with_id(op, run_id):
    from durable._core.authoring.op_constructors import with_options

    return with_options(op, id=run_id)


async def test_a_callers_timeout_does_not_touch_the_run(engines, reached):
    """
    `result(timeout)` gives up waiting, nothing else; so does cancelling the caller.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting())
    await reached(run, "waiting")
    with pytest.raises(TimeoutError, match=r"not ended after 0.01 s, and keeps running: .* waits for signal 'go' at 0"):
        await run.result(0.01)
    asking = asyncio.create_task(run.result())
    await reached(run, "waiting")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await run.status() == "waiting"
    assert not engine._backend.running.waiters
    await run.signal("go", "on")
    assert await run.result(5) == "on"


async def test_a_result_may_be_asked_again_at_once(engines):
    """
    Whether the run is to begin, active, just ended or long ended: the handle of who started it always answers.
    """

    @job
    async def double(number: int) -> int:
        return number * 2

    engine = await engines.file(double, concurrency=1)
    runs = await engine.start_many([double(number) for number in range(5)])
    for number, run in enumerate(runs):
        assert [await run.result(5) for _ in range(3)] == [number * 2] * 3
    assert [await run.result(5) for run in runs] == [0, 2, 4, 6, 8]


async def test_many_may_wait_for_one_result(engines):
    """
    Every caller gets the value, whenever it asked.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting())
    asking = [asyncio.create_task(run.result(5)) for _ in range(50)]
    await asyncio.sleep(0)
    await run.signal("go", "on")
    assert await asyncio.gather(*asking) == ["on"] * 50


@pytest.mark.parametrize("reopened", [False, True])
async def test_a_failure_has_its_original_type_as_cause(engines, reopened):
    """
    RunFailedError's cause is rebuilt from the journal: the application's own class and its arguments.
    """
    engine = await engines.file(failing)
    run = await engine.start(failing("night"), id="r")
    with pytest.raises(RunFailedError):
        await run.result(5)
    if reopened:
        await engine.aclose()
        engine = await engines.file(failing)
    with pytest.raises(RunFailedError, match="TariffError: night") as caught:
        await engine.get("r").result(5)
    cause = caught.value.__cause__
    assert type(cause) is TariffError
    assert cause.args == ("night",)
    assert "in fail" in caught.value.traceback
    assert "TariffError" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("reopened", [False, True])
async def test_a_workflow_can_catch_the_original_type(engines, reached, reopened):
    """
    `except ValueError` catches a step's subclass of it on the first run and on replay alike.
    """
    engine = await engines.file(recovering)
    run = await engine.start(recovering("night"), id="r")
    await reached(run, "waiting")
    if reopened:
        await engine.aclose()
        engine = await engines.file(recovering)
        run = engine.get("r")
    await run.signal("go", "on")
    assert await run.result(5) == "TariffError night on"


async def test_an_error_whose_class_is_gone_becomes_a_StepError(engines):
    """
    What cannot be rebuilt here keeps its type's name and message.
    """

    class LocalError(Exception):
        pass

    @job
    async def local() -> None:
        raise LocalError("lost")

    engine = await engines.memory(local)
    with pytest.raises(RunFailedError) as caught:
        await engine.run(local())
    assert isinstance(caught.value.__cause__, StepError)
    assert "LocalError" in caught.value.__cause__.type_name
    assert caught.value.__cause__.message == "lost"


async def test_a_fatal_error_is_not_retried(engines):
    """
    `Fatal` fails the step at its first attempt.
    """
    attempts = []

    @job(retry=Retry(attempts=5, delay=0.0))
    async def stolen() -> None:
        attempts.append(1)
        raise Fatal("card stolen")

    engine = await engines.memory(stolen)
    with pytest.raises(RunFailedError, match="card stolen"):
        await engine.run(stolen())
    assert len(attempts) == 1


COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def test_context_variables_do_not_leak_between_runs(engines):
    """
    Each run has its own copied context: what its code sets stays in it, and outlives its turns.
    """

    @workflow
    async def paint(colour: str) -> Flow[list]:
        seen = [COLOUR.get()]
        COLOUR.set(colour)
        yield wait_for("go")
        seen.append(COLOUR.get())
        yield Return(seen)

    engine = await engines.memory(paint, keep_resident=10)
    red, blue = await engine.start_many([paint("red"), paint("blue")])
    await red.signal("go")
    await blue.signal("go")
    assert await red.result(5) == ["none", "red"]
    assert await blue.result(5) == ["none", "blue"]
    assert COLOUR.get() == "none"


async def test_runs_of_plain_coroutines_work_alike(engines):
    """
    A workflow may be a coroutine that awaits ops and returns.
    """

    @workflow
    async def plain(ride_id: int) -> str:
        return await charge(ride_id) + "!"

    engine = await engines.memory(plain)
    assert await engine.run(plain(3), key="p") == "ch-3!"


async def test_one_runs_failure_leaves_the_others_alone(engines):
    """
    A workflow that raises, one that returns what cannot be recorded, and a good one, side by side.
    """

    @workflow
    async def raises() -> Flow[None]:
        raise KeyError("mine")
        yield

    @workflow
    async def unrecordable() -> Flow[object]:
        yield Return(object())

    engine = await engines.memory(raises, unrecordable, waiting)
    bad, worse, good = await engine.start_many([raises(), unrecordable(), waiting()])
    await good.signal("go", "fine")
    assert await good.result(5) == "fine"
    with pytest.raises(RunFailedError) as caught:
        await bad.result(5)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RunFailedError) as caught:
        await worse.result(5)
    assert isinstance(caught.value.__cause__, EncodeError)


async def test_a_bug_of_ours_blocks_one_run(engines, monkeypatch, reached):
    """
    It is reported as an InternalError with a traceback; other runs and the engine go on.
    """
    from durable._core.run.execution import Execution

    engine = await engines.memory(failing, waiting)
    good = await engine.start(waiting())
    await reached(good, "waiting")
    with monkeypatch.context() as patch:
        patch.setattr(Execution, "begin_turn", lambda *_, **__: 1 / 0)
        bad = await engine.start(waiting())
        await reached(bad, "blocked")
    assert "Please report this" in await bad.why()
    assert "ZeroDivisionError" in await bad.why()
    await good.signal("go", "fine")
    assert await good.result(5) == "fine"
    await bad.resume()
    await bad.signal("go", "mended")
    assert await bad.result(5) == "mended"


@pytest.mark.parametrize("interruption", ["SIGINT", "SIGINT twice", "SIGTERM"])
@pytest.mark.parametrize("kind", ["step", "job"])
def test_a_signal_in_a_step_is_no_failure_of_it(tmp_path, interruption, kind):
    """
    Ctrl-C, and a handler that exits, end the program as they would anywhere; the step runs again at the next opening.
    """
    script = textwrap.dedent(
        f"""
        import asyncio, signal, sys
        from durable import Engine, Flow, Return, context, job, step, workflow

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))

        async def leave() -> int:
            if context().attempt == 1:
                for name in {interruption.replace(" twice", " SIGINT")!r}.split():
                    signal.raise_signal(getattr(signal, name))
                await asyncio.sleep(60)
            return context().attempt

        @workflow(name="top")
        async def one() -> Flow[int]:
            value: int = yield step(leave)()
            yield Return(value)

        top = one if "{kind}" == "step" else job(name="top")(leave)

        async def main():
            async with Engine(sys.argv[1], [top], grace=0.2) as engine:
                print("result", await engine.run(top(), key="k"))

        asyncio.run(main())
        """
    )

    def go():
        return children.run(
            [sys.executable, "-c", script, str(tmp_path / "app.db")],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )

    first = go()
    assert first.returncode != 0
    if interruption == "SIGTERM":
        assert first.returncode == 7, first.stderr
    second = go()
    assert "result 2" in second.stdout.split("\n"), second.stdout + second.stderr


async def test_a_result_that_was_not_awaited_is_named(engines):
    """
    The usual slip of who returns a helper's coroutine: the error asks for the await.
    """

    async def helper() -> int:
        return 1

    @workflow
    async def forgetful() -> int:
        made.append(helper())
        return made[-1]

    made = []
    engine = await engines.memory(forgetful)
    with pytest.raises(RunFailedError, match=r"found coroutine: the annotation asks for int \(was it not awaited\?\)"):
        await engine.run(forgetful())
    made.pop().close()
