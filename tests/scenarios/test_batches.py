"""
Scenarios 41 to 50: batches with callbacks, and what follows the end of a run.
"""

import asyncio

import pytest

from durable import (
    BatchClosedError,
    Finished,
    Flow,
    Queue,
    Retry,
    Return,
    RunFailedError,
    current_batch,
    job,
    step,
    workflow,
)
from tests.scenarios.differences import LISTS, QUEUES, differs, needs_a_file

pytestmark = pytest.mark.anyio

RAN: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def ran():
    """
    What bodies ran, in order.
    """
    RAN.clear()
    BROKEN.clear()
    return RAN


@job
async def member(name: str) -> str:
    RAN.append(name)
    if name in BROKEN:
        raise ConnectionError(name)
    return name


@job(retry=Retry(attempts=3, delay=0.0))
async def shaky(name: str) -> str:
    RAN.append(name)
    if RAN.count(name) < 3:
        raise ConnectionError(name)
    return name


@job
async def callback(event: str) -> None:
    RAN.append(event)


def events():
    """What callbacks ran, in order."""
    return [each for each in RAN if each.startswith("on ")]


CALLBACKS = {name: callback(name.replace("_", " ")) for name in ("on_success", "on_failure", "on_complete")}


@pytest.fixture
def settled(eventually):
    """
    Waits until a batch is finished: its members, nested batches and callbacks have ended.
    """

    async def finished(batch):
        async def is_finished():
            return (await batch.info()).finished_at is not None

        await eventually(is_finished)
        return await batch.info()

    return finished


def counts(info):
    return (info.total, info.pending, info.succeeded, info.failed, info.cancelled)


async def test_success_is_told_once_after_the_last_member(engines, ran, settled):
    """Scenario 41: with the arguments given at creation; a member that succeeded on a retry counts."""
    engine = await engines.file(member, shaky, callback)
    async with engine.batch(on_success=callback("on success of 7"), on_failure=callback("on failure")) as batch:
        for name in "abc":
            batch.add(member(name))
        batch.add(shaky("shaky"))
    assert counts(await settled(batch)) == (4, 0, 4, 0, 0)
    assert events() == ["on success of 7"]
    assert ran[-1] == "on success of 7"
    assert ran.count("shaky") == 3


async def test_failure_is_told_once_and_success_never(engines, ran, settled):
    """Scenario 42: five members die: one first failure, no success, one completion after all are terminal."""
    BROKEN.update("abcde")
    engine = await engines.file(member, callback)
    async with engine.batch(**CALLBACKS) as batch:
        for name in "abcdefg":
            batch.add(member(name))
    assert counts(await settled(batch)) == (7, 0, 2, 5, 0)
    assert sorted(events()) == ["on complete", "on failure"]
    assert set("abcdefg") <= set(ran[: ran.index("on complete")])


async def test_a_failed_attempt_is_no_failed_member(engines, ran, clock, eventually, settled):
    """
    Scenario 43: while a member waits for its retry nothing is told; success and completion come after it.

    There is no event "all were attempted".
    """

    @job(retry=Retry(attempts=2, delay=10.0, jitter=0.0))
    async def later() -> None:
        RAN.append("later")
        if RAN.count("later") == 1:
            raise ConnectionError

    engine = await engines.file(member, later, callback, clock=clock)
    async with engine.batch(**CALLBACKS) as batch:
        batch.add(member("a"))
        batch.add(later())

    async def waits():
        return counts(await batch.info()) == (2, 1, 1, 0, 0) and ran.count("later") == 1

    await eventually(waits)
    assert events() == []
    await clock.passes_until(lambda: ran.count("later") == 2, 11)
    assert counts(await settled(batch)) == (2, 0, 2, 0, 0)
    assert sorted(events()) == ["on complete", "on success"]


async def test_a_callback_is_tried_again_by_its_own_policy(engines, ran, settled):
    """Scenario 44: members are not run again, and the other callbacks are started all the same."""
    engine = await engines.file(member, shaky, callback)
    async with engine.batch(on_success=shaky("on success"), on_complete=callback("on complete")) as batch:
        batch.add(member("a"))
    await settled(batch)
    assert events().count("on success") == 3
    assert events().count("on complete") == 1
    assert ran.count("a") == 1


@needs_a_file("it is recovered from copies of its file, made at each commit")
async def test_no_crash_tells_anything_twice(engines, ran, monkeypatch, copies, settled):
    """Scenario 45: killed before and after each COMMIT: each callback one run, counts as without a crash."""
    with monkeypatch.context() as patch:
        recorded = copies(patch)
        engine = await engines.file(member, callback)
        async with engine.batch(**CALLBACKS) as batch:
            batch.add(member("a"))
            batch.add(member("b"))
        await settled(batch)
        await engine.aclose()
    begun = 0
    for path in recorded.paths:
        engines.path = path
        engine = await engines.file(member, callback)
        if not [info async for info in engine.runs()]:
            continue  # killed before the batch was acknowledged
        begun += 1
        async with asyncio.timeout(20):
            while set((await engine.stats()).runs) != {"succeeded"}:
                await asyncio.sleep(0.002)
        assert len([info async for info in engine.runs(workflow="callback")]) == 2, path
        assert len([info async for info in engine.runs(workflow="member")]) == 2, path
        await engine.aclose()
    assert begun >= 6


async def test_members_may_add_members(engines, ran, door, eventually, settled):
    """Scenario 46: those that were added, and have ended first, do not complete the batch."""

    @job
    async def adding() -> None:
        for name in "xy":
            await current_batch().add(member(name))
        await door()

    engine = await engines.file(member, adding, callback)
    async with engine.batch(**CALLBACKS) as batch:
        batch.add(adding())
    await door.reached()

    async def two_have_ended():
        return counts(await batch.info()) == (3, 1, 2, 0, 0)

    await eventually(two_have_ended)
    assert events() == []
    door.open()
    assert counts(await settled(batch)) == (3, 0, 3, 0, 0)
    assert sorted(events()) == ["on complete", "on success"]


async def test_a_batch_waits_for_batches_in_it_and_for_their_callbacks(engines, ran, door, eventually, settled):
    """Scenario 47: a callback of the first inner batch adds a second one; the outer events come after both."""

    @job
    async def and_more() -> None:
        async with current_batch().parent.batch(on_success=callback("on inner 2")) as second:
            second.add(member("second"))
        await door()

    engine = await engines.file(member, callback, and_more)
    async with engine.batch(on_success=callback("on outer")) as outer:
        async with outer.batch(on_success=and_more()) as first:
            first.add(member("first"))
    await door.reached()

    async def inner_is_told():
        return "on inner 2" in ran

    await eventually(inner_is_told)
    assert events() == ["on inner 2"]
    door.open()
    await settled(outer)
    assert events() == ["on inner 2", "on outer"]
    assert [name for name in ran if name in ("first", "second")] == ["first", "second"]


@differs(LISTS)
async def test_a_finished_batch_takes_nothing_more(engines, ran, eventually, settled):
    """Scenario 48: BatchClosedError, and nothing starts; an error inside the block starts nothing either."""
    engine = await engines.file(member, callback)
    async with engine.batch(**CALLBACKS) as batch:
        batch.add(member("a"))
    await settled(batch)
    with pytest.raises(BatchClosedError):
        await batch.add(member("late"))
    with pytest.raises(LookupError):
        async with engine.batch(**CALLBACKS) as other:
            other.add(member("never"))
            raise LookupError

    async def three_have_succeeded():
        return sorted([info.status async for info in engine.runs()]) == ["succeeded"] * 3

    assert engines.differs(LISTS) or await three_have_succeeded()
    await eventually(three_have_succeeded)
    assert sorted(ran) == ["a", "on complete", "on success"]


@differs(QUEUES)
async def test_a_cancelled_batch_has_not_succeeded(engines, ran, door, settled):
    """Scenario 49: members that have not begun never do, and count as cancelled; no success is told."""

    @job(queue="one")
    async def held(name: str) -> None:
        RAN.append(name)
        if name == "b":
            await door()

    engine = await engines.file(held, callback, queues=[Queue("one", concurrency=1)])
    async with engine.batch(**CALLBACKS) as batch:
        for name in "abcd":
            batch.add(held(name))
    await door.reached()
    await batch.cancel()
    found = await settled(batch)
    await door.left()
    assert "on success" not in events()
    assert (found.total, found.pending, found.failed) == (4, 0, 0)
    if not engines.differs(QUEUES):
        assert (found.succeeded, found.cancelled) == (1, 3)
        assert [name for name in ran if len(name) == 1] == ["a", "b"]


@job
async def note(text: str) -> str:
    RAN.append(text)
    if text in BROKEN:
        raise ConnectionError(text)
    return text


@step
async def act(text: str) -> str:
    RAN.append(text)
    if text in BROKEN:
        raise ConnectionError(text)
    return text


@workflow
async def trip(name: str) -> Flow[str]:
    value: str = yield act(name)
    yield Return(value)


@trip.on_success
def and_then(finished: Finished) -> list:
    return [note(f"hook of {finished.value}")]


async def followers(engine, *names):
    """The runs that follow the end of others, by what they note."""
    found = {}
    async for info in engine.runs(workflow="note"):
        run = engine.get(info.run_id)
        text = next(event.value for event in await run.history() if event.kind == "RunStarted")
        found.setdefault(next(name for name in names if name in text), []).append(run)
    return found


async def test_what_follows_a_run_follows_its_success_alone(engines, ran, eventually):
    """Scenario 50, without a crash: each once, and nothing after a failure; what fails of it is its own affair."""
    op = trip("t").then(note("A"), note("B").options(delay=0.05))
    engine = await engines.file(trip, note)
    BROKEN.update(("t", "B"))
    with pytest.raises(RunFailedError):
        await engine.run(op)
    BROKEN.discard("t")
    run = await engine.start(op)
    assert await run.result(20) == "t"

    async def all_have_run():
        return len(ran) == 5

    await eventually(all_have_run)
    assert sorted(ran) == ["A", "B", "hook of t", "t", "t"]
    assert await run.status() == "succeeded"


@needs_a_file("it is recovered from copies of its file, made at each commit")
async def test_what_follows_a_success_is_started_once(engines, tmp_db, ran, clock, monkeypatch, copies, reached):
    """
    Scenario 50: A at once, B in five minutes, and what a hook returns: each once, even with a crash before
    and after every COMMIT; none of them after a failure; a failing B leaves its run successful.
    """
    op = trip("t").then(note("A"), note("B").options(delay=300))
    expected = {"A", "B", "hook of t"}

    async def life():
        engine = await engines.file(trip, note, clock=clock)
        run = await engine.start(op, id="r")
        assert await run.result(20) == "t"
        found = await followers(engine, *expected)
        assert {name: len(runs) for name, runs in found.items()} == dict.fromkeys(expected, 1), engines.path
        return engine, {name: runs[0] for name, runs in found.items()}

    with monkeypatch.context() as patch:
        recorded = copies(patch)
        engine, runs = await life()
        for name in ("A", "hook of t"):
            assert await runs[name].result(20) == name
        assert await runs["B"].status() == "pending"
        await engine.aclose()
    assert ran.count("A") == 1
    assert "B" not in ran
    assert len(recorded.paths) >= 8
    for path in recorded.paths:
        engines.path, started_at = path, clock.offset
        engine, runs = await life()
        for name in ("A", "hook of t"):
            assert await runs[name].result(20) == name
        assert await runs["B"].status() == "pending"
        await clock.passes(301)
        assert await runs["B"].result(20) == "B"
        assert (await engine.stats()).runs == {"succeeded": 4}, path
        clock.offset = started_at
        await engine.aclose()

    engines.path = tmp_db.with_name("failing.db")
    engine = await engines.file(trip, note, clock=clock)
    BROKEN.update(("t", "B"))
    ran.clear()
    failing = await engine.start(op)
    with pytest.raises(RunFailedError):
        await failing.result(20)
    await clock.passes(301)
    assert (await engine.stats()).runs == {"failed": 1}
    assert ran == ["t"]

    BROKEN.discard("t")
    run = await engine.start(op)
    assert await run.result(20) == "t"
    await clock.passes(301)
    (late,) = (await followers(engine, *expected))["B"]
    await reached(late, "failed")
    assert await run.status() == "succeeded"
    assert (await followers(engine, *expected)).keys() == expected
