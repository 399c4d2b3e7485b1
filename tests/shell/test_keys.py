"""
Idempotency keys: how long they hold, who may take them, and starts that wait for one run together.
"""

import asyncio

import pytest

from durable import (
    Client,
    Flow,
    Limit,
    Return,
    RunFailedError,
    context,
    continue_as,
    gather,
    job,
    step,
    wait_for,
    workflow,
)
from durable.errors import (
    DefinitionError,
    KeyConflictError,
    LimitReachedError,
    RunCancelledError,
    RunNotFoundError,
)

pytestmark = pytest.mark.anyio

RAN: list[object] = []
BROKEN: set[object] = set()


@pytest.fixture(autouse=True)
def _fresh():
    RAN.clear()
    BROKEN.clear()


@job(key=lambda name, version=1: name)
async def sync(name: str, version: int = 1) -> int:
    RAN.append((name, version))
    if version in BROKEN:
        raise ValueError(version)
    return version


@workflow(key=lambda name, version: name, on_conflict="coalesce")
async def refresh(name: str, version: int) -> Flow[int]:
    yield note(version)
    yield wait_for("go")
    yield Return(version)


@step
async def note(version: int) -> None:
    RAN.append(version)


@job
async def quick() -> None: ...


async def number_of(engine, workflow):
    return len([info async for info in engine.runs(workflow=workflow)])


# --- how long ---------------------------------------------------------------------------------------------


async def test_the_time_of_a_key_begins_with_its_run(engines, clock):
    """
    `key_ttl` of a delayed run: while it waits the key is its own, however long; then for that time.
    """
    engine = await engines.memory(sync, clock=clock)
    first = await engine.start(sync("eve"), delay=600, key_ttl=60)
    clock.advance(300)
    assert await engine.start(sync("eve"), delay=300, key_ttl=60) == first
    clock.advance(301)
    assert await first.result(5) == 1
    clock.advance(50)
    assert await engine.start(sync("eve"), key_ttl=60) == first
    clock.advance(11)
    assert await engine.start(sync("eve"), key_ttl=60) != first


async def test_the_time_of_a_key_does_not_pass_in_a_paused_queue(engines, clock):
    """
    Its run has not begun.
    """
    engine = await engines.memory(sync, clock=clock)
    await engine.queue("default").pause()
    first = await engine.start(sync("eve"), key_ttl=60)
    clock.advance(100)
    assert await engine.start(sync("eve"), key_ttl=60) == first
    await engine.queue("default").resume()
    await first.result(5)


async def test_a_run_whose_limit_refuses_the_next_one_keeps_its_key(engines, clock):
    """
    Although its time with that is over: the child that was to take it never was.
    """

    @workflow(key=lambda: "only", key_ttl=10, limit=Limit("one", concurrency=1, on_conflict="reject"))
    async def only() -> Flow[None]:
        yield wait_for("go")

    @workflow
    async def parent() -> Flow[str]:
        try:
            yield only()
        except LimitReachedError:
            yield Return("refused")

    engine = await engines.file(parent, only, clock=clock)
    first = await engine.start(only())
    while not (await first.info()).started_at:
        await asyncio.sleep(0.001)
    clock.advance(11)
    assert await engine.run(parent()) == "refused"
    assert (await engine.find("only")).id == first.id


async def test_prune_keeps_keys(engines, clock):
    """
    The run is gone, what it did is not done again; other arguments are a conflict, and `rerun` is a new run.
    """
    engine = await engines.file(sync, clock=clock)
    first = await engine.start(sync("ada"))
    await first.result(5)
    clock.advance(100)
    assert await engine.prune(older_than=50) == 1
    again = await engine.start(sync("ada"))
    assert (again.id, RAN) == (first.id, [("ada", 1)])
    with pytest.raises(RunNotFoundError, match="pruned"):
        await again.result(1)
    with pytest.raises(KeyConflictError, match=first.id):
        await engine.start(sync("ada", 2))
    with pytest.raises(RunNotFoundError):
        await engine.start(sync("ada"), signals=[("go", 1)])
    assert (await engine.start(sync("ada"), on_conflict="rerun-failed")).id == first.id
    rerun = await engine.start(sync("ada", 3), on_conflict="rerun")
    assert await rerun.result(5) == 3
    assert (await engine.find("ada")).id == rerun.id


async def test_prune_frees_keys_if_that_is_asked_for(engines, clock):
    """
    And those whose time is over, whatever was asked for.
    """
    engine = await engines.memory(sync, clock=clock)
    first = await engine.start(sync("ada"))
    brief = await engine.start(sync("bob"), key_ttl=60)
    await asyncio.gather(first.result(5), brief.result(5))
    clock.advance(55)
    assert await engine.prune(older_than=50, keep_keys=False) == 2
    assert (await engine.start(sync("ada"))).id != first.id
    brief = await engine.start(sync("bob"), key_ttl=60)
    await brief.result(5)
    clock.advance(55)
    assert await engine.prune(older_than=50) == 2
    assert (await engine.start(sync("bob"))).id == brief.id
    clock.advance(10)
    assert await engine.prune(older_than=50) == 0
    kept = await engine._backend.read(lambda conn: conn.execute("SELECT key FROM durable_keys").fetchall())
    assert kept == [("ada",)]
    assert (await engine.start(sync("bob"))).id != brief.id


async def test_a_parent_that_awaits_a_run_whose_key_alone_is_left(engines, clock):
    """
    It hears that the run is gone: its result cannot be had, and it is not done again.
    """

    @workflow
    async def parent() -> Flow[str]:
        (error,) = yield gather(sync("ada"), return_exceptions=True)
        yield Return(str(error))

    engine = await engines.memory(parent, sync, clock=clock)
    await engine.run(sync("ada"))
    clock.advance(100)
    await engine.prune(older_than=50)
    assert "pruned" in await engine.run(parent())
    assert RAN == [("ada", 1)]


# --- who takes it -----------------------------------------------------------------------------------------


async def test_rerun_failed_repeats_what_has_not_succeeded(engines):
    """
    A run that failed or was cancelled gives its key up, also to other arguments; one that succeeded, or runs, does not.
    """
    engine = await engines.memory(sync)
    BROKEN.add(1)
    failed = await engine.start(sync("ada"))
    with pytest.raises(RunFailedError):
        await failed.result(5)
    BROKEN.clear()
    assert await engine.start(sync("ada")) == failed
    mended = await engine.start(sync("ada"), on_conflict="rerun-failed")
    assert await mended.result(5) == 1
    assert await engine.start(sync("ada"), on_conflict="rerun-failed") == mended
    with pytest.raises(KeyConflictError):
        await engine.start(sync("ada", 2), on_conflict="rerun-failed")
    later = await engine.start(sync("bob"), delay=3600)
    assert await engine.start(sync("bob"), on_conflict="rerun-failed") == later
    await later.cancel()
    with pytest.raises(RunCancelledError):
        await later.result(5)
    assert await (await engine.start(sync("bob", 2), on_conflict="rerun-failed")).result(5) == 2


async def test_a_definition_says_what_becomes_of_a_taken_key(engines):
    """
    Also for children and staged runs; the caller's own word wins.
    """

    @job(key=lambda: "only", on_conflict="rerun")
    async def only() -> int:
        RAN.append("only")
        return len(RAN)

    @workflow
    async def parent() -> Flow[int]:
        yield Return((yield only()))

    engine = await engines.memory(only, parent)
    first = await engine.start(only())
    assert await first.result(5) == 1
    assert await engine.run(parent()) == 2
    assert await engine.run(only()) == 3
    with pytest.raises(KeyConflictError):
        await engine.start(only(), on_conflict="reject")
    with pytest.raises(KeyConflictError):
        await engine.start_many([only().options(on_conflict="reject")])
    assert await engine.run(only(), on_conflict="join") == 3


@pytest.mark.parametrize("given", ["shrug", "RERUN", 1])
def test_an_unknown_word_is_refused_where_it_stands(given):
    """
    At the decorator, at `options`, and at `start`.
    """
    with pytest.raises(DefinitionError, match="coalesce"):
        job(on_conflict=given)
    with pytest.raises(ValueError, match="coalesce"):
        quick().options(on_conflict=given)


# --- coalescing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["engine", "client"])
async def test_starts_coalesce_into_one_run_that_waits(engines, reached, tmp_db, by):
    """
    One is running, one waits behind it, which sees the arguments of the latest start; all who wait get its result.
    """
    engine = await engines.file(refresh)
    async with Client(tmp_db) as client:
        starter = engine if by == "engine" else client
        first = await starter.start(refresh("site", 1))
        await reached(engine.get(first.id), "waiting")
        waiting = [await starter.start(refresh("site", version)) for version in (1, 2, 3, 3)]
        assert len({run.id for run in waiting}) == 1
        second = waiting[0]
        assert second != first
        assert await number_of(engine, "refresh") == 2
        assert f"the end of run {first.id!r}" in await second.why()
        await first.signal("go")
        assert await first.result(5) == 1
        await reached(engine.get(second.id), "waiting")
        assert RAN == [1, 3]
        third = await starter.start(refresh("site", 4))
        assert third not in (first, second)
        await second.signal("go")
        assert [await run.result(5) for run in waiting] == [3, 3, 3, 3]
        await third.signal("go")
        assert await third.result(5) == 4
    assert RAN == [1, 3, 4]


async def test_coalescing_begins_anew_once_all_have_ended(engines):
    """
    However the last one ended.
    """
    engine = await engines.memory(refresh)
    first = await engine.start(refresh("site", 1))
    await first.cancel()
    with pytest.raises(RunCancelledError):
        await first.result(5)
    second = await engine.start(refresh("site", 2), signals=[("go", None)])
    assert await second.result(5) == 2


async def test_a_delay_and_coalescing_make_one_run_of_a_burst(engines, clock):
    """
    The run that waits for its delay takes the arguments of the latest start, and its delay does not begin anew.
    """
    engine = await engines.file(sync, clock=clock)
    burst = []
    for version in range(1, 6):
        burst.append(await engine.start(sync("site", version), delay=10, on_conflict="coalesce"))
        clock.advance(1)
    assert len(set(burst)) == 1
    clock.advance(5.5)
    assert await burst[0].result(5) == 5
    assert RAN == [("site", 5)]
    assert [event.kind for event in await burst[0].history()][:2] == ["RunStarted", "StepStarted"]


async def test_a_run_that_coalesced_replays_after_a_restart(engines, reached):
    """
    Its first event was written anew: it fits its checksum, and the engine of later reads the latest arguments.
    """
    engine = await engines.file(refresh)
    first = await engine.start(refresh("site", 1))
    await reached(first, "waiting")
    second = await engine.start(refresh("site", 2))
    assert await engine.start(refresh("site", 3)) == second
    await engine.aclose()
    engine = await engines.file(refresh)
    await engine.get(first.id).signal("go")
    await engine.get(second.id).signal("go")
    assert await engine.get(second.id).result(5) == 3


async def test_keys_of_two_workflows_do_not_coalesce(engines, reached):
    """
    The arguments of one are none of the other.
    """
    engine = await engines.memory(refresh, sync)
    first = await engine.start(refresh("site", 1))
    await reached(first, "waiting")
    with pytest.raises(KeyConflictError):
        await engine.start(sync("site"), on_conflict="coalesce")
    await first.signal("go")
    await first.result(5)


async def test_what_waits_behind_a_cancelled_run_begins(engines, reached):
    """
    The end of the first is what it waits for, whatever that is.
    """
    engine = await engines.memory(refresh)
    first = await engine.start(refresh("site", 1))
    await reached(first, "waiting")
    second = await engine.start(refresh("site", 2), signals=[("go", None)])
    await first.cancel()
    assert await second.result(5) == 2
    assert (await engine.find("site")) == second


async def test_a_run_that_waits_in_its_queue_takes_the_latest_arguments(engines):
    """
    Paused, or full: one run is in line, whatever memory knew of it.
    """
    engine = await engines.file(sync)
    await engine.queue("default").pause()
    burst = [await engine.start(sync("site", version), on_conflict="coalesce") for version in (1, 2, 3)]
    assert len(set(burst)) == 1
    await engine.queue("default").resume()
    assert [await run.result(5) for run in burst] == [3, 3, 3]
    assert RAN == [("site", 3)]


@pytest.mark.parametrize("latest", [1, 2], ids=["the same arguments", "other arguments"])
@pytest.mark.parametrize("links", [1, 2])
async def test_what_a_run_continues_as_is_running_for_those_that_coalesce(engines, eventually, latest, links):
    """
    It waits in its queue, with the state of the chain: that is not replaced by the latest arguments, nor joined.
    """
    begun, go = asyncio.Event(), asyncio.Event()

    @step
    async def last_link() -> None:
        begun.set()
        await go.wait()

    @workflow(queue="lane", key=lambda version, done=0: "sum", on_conflict="coalesce")
    async def total(version: int, done: int = 0) -> Flow[list[int]]:
        if version == 1 and done == links - 1:
            yield last_link()
        if version == 1 and done < links:
            yield continue_as(total(version, done + 1))
        yield Return([version, done])

    engine = await engines.memory(total)
    first = await engine.start(total(1))
    await asyncio.wait_for(begun.wait(), 5)
    await engine.queue("lane").pause()
    go.set()

    async def has_continued():
        return await number_of(engine, "total") == links + 1

    await eventually(has_continued)
    second = await engine.start(total(latest))
    assert not second.id.startswith(first.id)
    assert await engine.start(total(3)) == second
    await engine.queue("lane").resume()
    assert await first.result(5) == [1, links]
    assert await second.result(5) == [3, 0]


async def test_no_run_begins_with_arguments_that_were_replaced(engines):
    """
    Starts that meet the first turn of the run: each is of the run that saw its arguments, or those of a later start.
    """
    seen: dict[str, int] = {}

    @job(key=lambda name, version: name, on_conflict="coalesce")
    async def latest(name: str, version: int) -> int:
        seen[context().run_id] = version
        return version

    engine = await engines.file(latest)
    for number in range(60):
        name = f"site {number}"
        runs = []
        for version in range(5):
            runs.append((version, asyncio.ensure_future(engine.start(latest(name, version)))))
            for _ in range(number % 7):
                await asyncio.sleep(0)
        started = [(version, await run) for version, run in runs]
        for version, run in started:
            assert await run.result(5) == seen[run.id] >= version
    assert {info.status async for info in engine.runs()} == {"succeeded"}
