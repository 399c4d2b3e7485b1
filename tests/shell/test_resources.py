"""
Resources: entered before anything runs, asked for by type, left after everything has ended.
"""

import asyncio
import re
from contextlib import asynccontextmanager

import anyio
import pytest
from structlog.testing import capture_logs

from durable import (
    DefinitionError,
    Engine,
    ResourceNotFoundError,
    RunFailedError,
    UsageError,
    job,
    resource,
    step,
    workflow,
)
from durable.testing import run_step

pytestmark = pytest.mark.anyio

TOLD: list[str] = []


@pytest.fixture(autouse=True)
def nothing_is_told():
    TOLD.clear()


class Settings:
    def __init__(self, name="real"):
        self.name = name


class Client:
    """An async context manager that is left by the task that entered it, or complains."""

    def __init__(self, name="client"):
        self.name = name

    async def __aenter__(self):
        self.group = anyio.create_task_group()
        await self.group.__aenter__()
        TOLD.append(f"{self.name} entered")
        return self

    async def __aexit__(self, *error):
        TOLD.append(f"{self.name} left")
        return await self.group.__aexit__(*error)


@step
async def ask() -> str:
    TOLD.append("asked")
    return f"{resource(Settings).name} {resource(Client).name}"


@step
def ask_in_a_thread() -> str:
    return resource(Settings).name


@job
async def ask_as_a_job() -> str:
    return resource(Settings).name


@workflow
async def asking() -> list[str]:
    return [await ask(), await ask_in_a_thread(), await ask_as_a_job()]


@step
async def ask_for(name: str) -> str:
    return str(resource({"str": str, "Settings": Settings, "Base": Base}[name]))


@workflow
async def asking_for(name: str) -> str:
    return await ask_for(name)


class Base:
    pass


class First(Base):
    pass


class Second(Base):
    pass


async def test_steps_threads_and_jobs_share_what_the_engine_was_given(tmp_db):
    """
    An async context manager is entered at opening and left at closing, also by an engine that is closed elsewhere.
    """
    made = lambda: Client()  # noqa: PLW0108 - a class would be asked for, a function is called
    engine = Engine(tmp_db, [asking, ask_as_a_job], resources=[Settings(), made])
    for _ in range(2):  # what a function makes is made anew
        await asyncio.create_task(engine.open())
        assert await engine.run(asking()) == ["real client", "real", "real"]
        await asyncio.create_task(engine.aclose())
    assert TOLD == ["client entered", "asked", "client left"] * 2


async def test_what_is_interrupted_ends_before_its_resources_do(tmp_db):
    """
    The clean-up of a step that the grace cuts off still has them.
    """
    begun = asyncio.Event()

    @step
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            TOLD.append(f"cleaned up with {resource(Client).name}")

    @workflow
    async def patient() -> None:
        await slow()

    async with Engine(tmp_db, [patient], resources=[Client()], grace=0.05) as engine:
        await engine.start(patient())
        await begun.wait()
    assert TOLD == ["client entered", "cleaned up with client", "client left"]


async def test_they_are_left_in_reverse_and_where_one_cannot_be_entered_none_stays(tmp_db):
    """
    Opening raises what it raised, and the file is free again.
    """

    @asynccontextmanager
    async def broken():
        raise ConnectionError("no database")
        yield

    engine = Engine(tmp_db, [asking], resources=[Client("a"), Client("b"), broken()])
    with pytest.raises(ConnectionError, match="no database"):
        await engine.open()
    assert TOLD == ["a entered", "b entered", "b left", "a left"]
    async with Engine(tmp_db, [asking]):
        pass


async def test_one_that_does_not_let_go_does_not_keep_the_engine_open(tmp_db):
    """
    It is cancelled after the grace, and the log says so.
    """

    @asynccontextmanager
    async def stubborn():
        yield Settings()
        await asyncio.sleep(60)

    with capture_logs() as logs:
        async with asyncio.timeout(5), Engine(tmp_db, [asking], resources=[stubborn()], grace=0.05):
            pass
    assert [entry["error"] for entry in logs if entry["event"] == "resources.not_closed"] == ["not left within 1 s"]


async def test_tests_put_another_in_its_place(tmp_db):
    """
    By its type, whatever the other one is; also around a single step.
    """

    class Fake:
        name = "fake"

    fakes = {Settings: Fake(), Client: Fake()}
    async with Engine(tmp_db, [asking, ask_as_a_job], resources=fakes) as engine:
        assert await engine.run(asking()) == ["fake fake", "fake", "fake"]
    assert (await run_step(ask(), resources=[Settings("one step's"), Client()])).value == "one step's client"
    assert TOLD[-3:] == ["client entered", "asked", "client left"]


@pytest.mark.parametrize(
    "name, given, told",
    [
        (
            "str",
            [Settings()],
            r"step at 0 of run '.*' \(asking_for\) asks for resource\(str\), and the engine has Settings\.",
        ),
        ("str", [], r"and the engine has none\. Give it one: Engine\(path, definitions, resources=\[\.\.\.\]\)"),
        ("Settings", [Settings(), Settings()], r"of which the engine has 2 \(of Settings, Settings\)\."),
        ("Base", [First(), Second()], r"of which the engine has 2 \(of First, Second\).*resources=\{Base: \.\.\.\}"),
    ],
)
async def test_a_resource_that_is_not_the_one_is_told_with_what_there_is(tmp_db, name, given, told):
    """
    An unknown type, and one that several fit.
    """
    async with Engine(tmp_db, [asking_for], resources=given) as engine:
        with pytest.raises(RunFailedError) as failed:
            await engine.run(asking_for(name))
    cause = failed.value.__cause__
    assert isinstance(cause, ResourceNotFoundError)
    assert re.search(told, str(cause))


async def test_a_base_class_finds_the_one_that_fits(tmp_db):
    """
    The very type goes before one that only fits.
    """

    @step
    async def kinds() -> list[str]:
        return [type(resource(Base)).__name__, type(resource(Second)).__name__]

    @workflow
    async def asked() -> list[str]:
        return await kinds()

    base, second = Base(), Second()
    async with Engine(tmp_db, [asked], resources=[base, second]) as engine:
        assert await engine.run(asked()) == ["Base", "Second"]


async def test_nobody_else_is_answered():
    """
    Outside of steps there is no engine to ask.
    """
    with pytest.raises(UsageError, match=r"resource\(\) works while a step or job of an engine runs"):
        resource(Settings)


@pytest.mark.parametrize("given", ["settings", 5, Settings(), [Settings], {"settings": Settings()}])
def test_what_are_no_resources_is_refused(given):
    """
    When the engine is made.
    """
    with pytest.raises(DefinitionError, match=r"Engine\(resources=\) takes"):
        Engine(":memory:", [], resources=given)
