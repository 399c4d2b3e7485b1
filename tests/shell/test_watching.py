"""
`run.watch()`: what a run is like, at each change of it.
"""

import asyncio

import pytest

from durable import (
    Client,
    EngineClosedError,
    Flow,
    Return,
    RunNotFoundError,
    Service,
    continue_as,
    job,
    progress,
    set_attributes,
    step,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio

doors: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def closed_doors():
    """
    Steps of a test wait until it lets them on.
    """
    doors.clear()
    doors.update({name: asyncio.Event() for name in ("pack", "half", "send")})


@step
async def pack() -> None:
    await doors["pack"].wait()


@step
async def send() -> None:
    progress(1, 2)
    await doors["half"].wait()
    progress(2, 2)
    await doors["send"].wait()


@workflow
async def parcel() -> Flow[str]:
    yield pack()
    set_attributes(packed=True)
    yield wait_for("address")
    yield send()
    yield Return("sent")


def told(info):
    """What tests look at."""
    done = None if info.progress is None else info.progress.done
    return info.status, info.step, dict(info.attributes), done


async def see(infos, status, step=None, done=None):
    """Return the first of *infos* with that status, and at that step, if one is given, with so much done of it."""
    async with asyncio.timeout(10):
        async for info in infos:
            if info.status == status and step in (None, info.step) and done in (None, told(info)[-1]):
                return info
    raise AssertionError(f"it ended, and was never {status} at {step}")


async def walk(run, infos):
    """Let the parcel through, step by step: each is seen before the next may happen."""
    await see(infos, "running", step="pack")
    doors["pack"].set()
    waiting = await see(infos, "waiting")
    assert told(waiting) == ("waiting", "pack", {"packed": True}, None)
    await run.signal("address")
    assert (await see(infos, "running", step="send", done=1)).attributes == {"packed": True}
    doors["half"].set()
    await see(infos, "running", step="send", done=2)
    doors["send"].set()
    assert told(await see(infos, "succeeded")) == ("succeeded", "send", {"packed": True}, 2)
    assert [info async for info in infos] == []


async def test_each_change_is_told_until_the_run_ends(engines):
    """
    Of its status, its step, its attributes and its progress; two who watch one run both see all.
    """
    engine = await engines.memory(parcel)
    run = await engine.start(parcel())
    other = asyncio.create_task(_all(engine.get(run.id)))
    await walk(run, run.watch())
    infos = await other
    assert [told(info) for info in infos[-3:]] == [
        ("running", "send", {"packed": True}, 1),
        ("running", "send", {"packed": True}, 2),
        ("succeeded", "send", {"packed": True}, 2),
    ]
    assert infos[-1] == await run.info()
    assert [told(info) for info in await _all(run)] == [told(infos[-1])]  # an ended one tells that, and no more
    assert not engine._backend.parts.watchers._watchers


async def _all(run):
    return [info async for info in run.watch()]


async def test_a_client_and_a_service_see_the_same(tmp_db):
    """
    The owner says when something has changed, and the file what.
    """
    async with (
        Service(tmp_db, [parcel], durability="process") as service,
        Client(tmp_db) as client,
    ):
        run = await service.start(parcel(), id="of a service")
        await walk(run, service.get("of a service").watch())
        for door in doors.values():
            door.clear()
        await service.start(parcel(), id="of a client")
        await walk(service.get("of a client"), client.get("of a client").watch())


async def test_a_client_watches_through_a_change_of_owners(engines, tmp_db):
    """
    It misses nothing that lasts: while nobody owns the file, it looks now and then.
    """
    doors["pack"].set()
    engine = await engines.file(parcel)
    await engine.start(parcel(), id="p")
    async with Client(tmp_db) as client:
        infos = client.get("p").watch()
        await see(infos, "waiting")
        await engine.aclose()
        await client.get("p").signal("address")
        await see(infos, "running", step="pack")  # recorded by the client itself
        await engines.file(parcel)
        doors["half"].set()
        doors["send"].set()
        await see(infos, "succeeded", step="send")


async def test_what_a_person_does_is_told(engines):
    """
    A pause, a resume and a cancel of a run that waits.
    """
    doors["pack"].set()
    engine = await engines.memory(parcel)
    run = await engine.start(parcel())
    infos = run.watch()
    await see(infos, "waiting")
    await run.pause()
    await see(infos, "paused")
    await run.resume()
    await see(infos, "waiting")
    await run.cancel("lost")
    assert (await see(infos, "cancelled")).reason == "lost"


async def test_a_run_that_continues_as_another_is_followed(engines):
    """
    As its result is: the end that is told is that of the last.
    """
    engine = await engines.memory(counting)
    run = await engine.start(counting(3))
    infos = await _all(run)
    assert infos[-1].status == "succeeded"
    assert infos[-1].arguments.args == (0,)
    assert [info.status for info in infos].count("succeeded") == 1


@workflow
async def counting(n: int) -> Flow[int]:
    if n:
        yield continue_as(counting(n - 1))
    yield Return(n)


async def test_an_unknown_run_is_no_run_to_wait_for(engines, tmp_db):
    """
    Told to who asks first, from wherever.
    """
    engine = await engines.file(parcel)
    with pytest.raises(RunNotFoundError):
        await _all(engine.get("nobody"))
    async with Client(tmp_db) as client:
        with pytest.raises(RunNotFoundError):
            await _all(client.get("nobody"))


async def test_who_watches_an_engine_that_closes_is_told(engines):
    """
    The run is not over, so an end of the loop would say what is not so.
    """
    engine = await engines.memory(parcel)
    infos = (await engine.start(parcel())).watch()
    await anext(infos)
    await engine.aclose()
    with pytest.raises(EngineClosedError):
        await see(infos, "succeeded")


async def test_nothing_is_read_while_nothing_changes(engines, eventually):
    """
    However many watch: there is no timer, and no poll.
    """
    doors["pack"].set()
    engine = await engines.memory(parcel, noise)
    runs = await engine.start_many([parcel() for _ in range(50)])
    statuses = dict.fromkeys(range(50), "")

    async def watch(number, run):
        async for info in run.watch():
            statuses[number] = info.status

    tasks = [asyncio.create_task(watch(*each)) for each in enumerate(runs)]

    async def all_wait():
        return set(statuses.values()) == {"waiting"} and not watchers._is_looking

    watchers = engine._backend.parts.watchers
    await eventually(all_wait)
    assert not watchers._due
    await engine.run(noise())  # a run that nobody watches
    assert not watchers._due
    assert not watchers._is_looking
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not watchers._watchers
    assert not watchers._ids


@job
async def noise() -> None:
    pass


async def test_a_slow_watcher_sees_the_latest_and_the_end(engines):
    """
    It holds nobody up, and nothing is kept for it but what the run is like now.
    """
    for door in doors.values():
        door.set()
    engine = await engines.memory(parcel)
    run = await engine.start(parcel(), signals=[("address", None)])
    infos = run.watch()
    await anext(infos)
    assert await run.result() == "sent"
    assert [info.status async for info in infos][-1] == "succeeded"
