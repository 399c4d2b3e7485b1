"""
Schedules, light jobs, and what else handles offer.
"""

import asyncio
import uuid

import pytest

from durable import (
    DefinitionError,
    RunFailedError,
    Schedule,
    UsageError,
    context,
    gather,
    job,
    progress,
    set_attributes,
    step,
    wait_for,
    workflow,
)

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


@job(queue="mail", retry=2)
async def send(to: str) -> str:
    calls.append(to)
    if context().attempt == 1 and to == "b":
        raise ValueError("once more")
    return f"sent to {to}"


@workflow
async def mails() -> list[str]:
    return await gather(*(send(name) for name in "abc"))


@workflow
async def fails(why: str) -> None:
    raise ValueError(why)


@workflow
async def scheduled(at: str) -> str:
    return at


@step
async def publishes() -> None:
    set_attributes(step="was here")
    progress(1, 2, "half")


@workflow
async def shows() -> None:
    await publishes()
    progress(2, 2, "all")
    await wait_for("go")


ALL = [mails, send, fails, scheduled, shows]


async def test_light_jobs_are_activities_of_their_parent(engines, client):
    """
    The same results and retries, and no run of their own.
    """
    engine = await engines(*ALL, light_jobs=True)
    run = await engine.start(mails())
    assert await run.result() == ["sent to a", "sent to b", "sent to c"]
    assert sorted(calls) == ["a", "b", "b", "c"]
    described = await client.get_workflow_handle(run.id).describe()
    assert described.history_length < 40
    assert [event.kind for event in await run.history()].count("ChildSucceeded") == 3


async def test_a_schedule_starts_runs(engines, client):
    """
    One for each tick, under an id of the tick; what the code says of it today holds.
    """
    name = f"s-{uuid.uuid4().hex[:6]}"
    schedule = Schedule(name, lambda at: scheduled(at.isoformat()), every=1.0)
    engine = await engines(*ALL, schedules=[schedule])
    found = None
    async with asyncio.timeout(20):
        while found is None:
            runs = [info.id async for info in engine.runs(workflow=scheduled)]
            found = next((each for each in runs if each.startswith(f"schedule:{name}:")), None)
            await asyncio.sleep(0.1)
    assert await engine.get(found).result() in found.replace("schedule:", "")
    await client.get_schedule_handle(name).delete()


async def test_a_schedule_that_no_server_can_keep_is_refused(engines):
    """
    When the engine is made.
    """
    schedule = Schedule("bad", scheduled("x"), every=60, missed="one", overlap="allow")
    with pytest.raises(DefinitionError, match="overlap must be"):
        await engines(*ALL, schedules=[schedule])


async def test_what_a_run_shows_is_seen_from_outside(engines):
    """
    Attributes of steps, progress, steps and waits; `watch` ends with the run.
    """
    engine = await engines(*ALL)
    run = await engine.start(shows())
    async with asyncio.timeout(10):
        while not (info := await run.info()).progress or info.progress.note != "all":
            await asyncio.sleep(0.02)
    assert await run.attributes() == {"step": "was here"}
    (done,) = await run.steps()
    assert (done.name, done.status, done.arguments.args) == ("publishes", "succeeded", ())
    (wait,) = await run.waits()
    assert (wait.kind, wait.name) == ("signal", "go")
    assert "go" in await run.why()
    await run.pause()
    async with asyncio.timeout(10):
        while await run.status() != "paused":
            await asyncio.sleep(0.02)
    await run.signal("go")
    await run.resume()
    assert await run.result() is None
    assert [info.status async for info in run.watch()] == ["succeeded"]


async def test_what_cannot_be_is_refused_at_its_line(engines):
    """
    With what to use instead.
    """
    engine = await engines(*ALL)
    with pytest.raises(UsageError, match="not both"):
        await engine.start(shows(), id="a", key="b")
    with pytest.raises(UsageError, match="key_ttl"):
        await engine.start(shows(), key="b", key_ttl=5)
    with pytest.raises(UsageError, match="coalesce"):
        await engine.start(shows(), key="b", on_conflict="coalesce")


async def test_a_run_that_is_asked_for_alone_tells_its_values(engines):
    """
    Arguments and result; of one that failed why; a list has what the server tells at once.
    """
    engine = await engines(*ALL)
    run = await engine.start(scheduled("noon"))
    await run.result()
    info = await run.info()
    assert (info.arguments.args, info.result, info.error, info.reason) == (("noon",), "noon", None, None)
    broken = await engine.start(fails("it broke"))
    with pytest.raises(RunFailedError):
        await broken.result()
    info = await broken.info()
    assert (info.status, info.result, info.error) == ("failed", None, "ValueError: it broke")
    assert info.reason == info.error
