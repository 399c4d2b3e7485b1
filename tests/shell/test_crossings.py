"""
Where features meet: windows of `for_each` with pauses and cancels, limits with keys and schedules, `continue_as`
with whatever hangs on a run.
"""

import asyncio

import pytest

from durable import (
    Client,
    Flow,
    KeyConflictError,
    Limit,
    LimitReachedError,
    Return,
    RunCancelledError,
    RunFailedError,
    continue_as,
    for_each,
    gather,
    job,
    race,
    start,
    wait_for,
    workflow,
)


class Gate:
    """
    Holds jobs until they are let go, and knows which began.
    """

    def __init__(self):
        self.began = []
        self.ended = 0
        self.go = asyncio.Event()

    async def __call__(self, number):
        self.began.append(number)
        await self.go.wait()
        self.ended += 1
        return number


@pytest.fixture
def gate():
    """
    A gate for jobs.
    """
    return Gate()


def reports(run):
    async def all_ended():
        return all(info.ended_at is not None for info in await run.children())

    return all_ended


# --- windows of for_each ----------------------------------------------------------------------------


async def test_a_window_that_is_lost_in_the_turn_that_opens_it_starts_nothing(engines, reached, eventually, strays):
    """
    The race is over before a child exists; a pause and its resumption do not bring the window back.
    """
    ran = []

    @job
    async def work(number: int) -> None:
        ran.append(number)

    @workflow
    async def hurried() -> Flow[int]:
        yield wait_for("go")
        winner = yield race(for_each(work, range(5), concurrency=2), wait_for("first"))
        yield wait_for("end")
        yield Return(winner.index)

    engine = await engines.memory(work, hurried)
    run = await engine.start(hurried())
    await reached(run, "waiting")
    await run.signal("first")
    await run.signal("go")

    async def waits_for_the_end():
        return "'end'" in await run.why()

    await eventually(waits_for_the_end)
    await run.pause()
    await run.resume()
    await run.signal("end")
    assert await run.result(5) == 1
    assert ran == []
    assert await strays(engine) == []


async def test_a_second_cancel_leaves_the_window_of_a_clean_up_alone(engines, gate, reached, eventually, strays):
    """
    The clean-up goes through all of its items, however often the run is cancelled meanwhile.
    """

    @job
    async def tidy(number: int) -> int:
        return await gate(number)

    @workflow
    async def careful() -> Flow[None]:
        try:
            yield wait_for("go")
        finally:
            yield for_each(tidy, range(4), concurrency=1)

    engine = await engines.memory(tidy, careful)
    run = await engine.start(careful())
    await reached(run, "waiting")
    await run.cancel("first")

    async def tidies():
        return gate.began == [0]

    await eventually(tidies)
    await run.cancel("second")
    gate.go.set()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    assert gate.began == [0, 1, 2, 3]
    assert await strays(engine) == []


@pytest.mark.parametrize("keep_resident", [0, 4])
@pytest.mark.parametrize("resumed_between", [False, True])
async def test_a_window_that_fails_while_its_parent_is_paused(
    engines, reached, eventually, keep_resident, resumed_between, strays
):
    """
    One child succeeds, another fails: the resumed parent does not wait for a child that nobody starts.
    """
    go = [asyncio.Event() for _ in range(6)]

    @job
    async def work(number: int) -> int:
        await go[number].wait()
        if number == 1:
            raise ValueError(number)
        return number

    @workflow
    async def mapper() -> Flow[list[int]]:
        yield Return((yield for_each(work, range(6), concurrency=3)))

    engine = await engines.memory(work, mapper, keep_resident=keep_resident)
    run = await engine.start(mapper())
    await reached(run, "waiting")

    async def ended(count):
        async def so_many():
            return len([info for info in await run.children() if info.ended_at is not None]) == count

        await eventually(so_many)

    await run.pause()
    go[0].set()
    await ended(1)
    if resumed_between:
        await run.resume()
        await reached(run, "waiting")
        await run.pause()
    go[1].set()
    await ended(2)
    for each in go:
        each.set()
    await eventually(reports(run))
    await run.resume()
    with pytest.raises(RunFailedError) as failed:
        await run.result(5)
    assert [str(error) for error in failed.value.__cause__.exceptions] == ["1"]
    assert len(await run.children()) == (4 if resumed_between else 3)
    assert await strays(engine) == []


async def test_a_cancel_reaches_the_windows_below_before_their_own_parent_turns(
    engines, gate, reached, eventually, strays
):
    """
    The cancelled run waits for a place in its queue; meanwhile no window below it goes on.
    """

    @job
    async def work(number: int) -> int:
        return await gate(number)

    @workflow
    async def inner() -> Flow[None]:
        yield for_each(work, range(6), concurrency=2)

    @workflow(queue="above")
    async def outer() -> Flow[None]:
        yield inner()

    engine = await engines.memory(work, inner, outer)
    run = await engine.start(outer())

    async def two_began():
        return len(gate.began) == 2

    await eventually(two_began)
    await reached(run, "waiting")
    await engine.queue("above").pause()
    await run.cancel()
    gate.go.set()

    async def two_ended():
        return gate.ended == 2 and await reports(engine.get((await run.children())[0].run_id))()

    await eventually(two_ended)
    await engine.queue("above").resume()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    assert gate.began == [0, 1]
    assert await strays(engine) == []


async def test_a_cancel_reaches_jobs_in_line_before_their_own_parent_turns(engines, gate, reached, eventually, strays):
    """
    A job that waits for its slot is not let in any more.
    """

    @job(limit=Limit("one", concurrency=1))
    async def work(number: int) -> int:
        return await gate(number)

    @workflow
    async def inner() -> Flow[None]:
        yield for_each(work, range(4), concurrency=None)

    @workflow(queue="above")
    async def outer() -> Flow[None]:
        yield inner()

    engine = await engines.memory(work, inner, outer)
    run = await engine.start(outer())
    await reached(run, "waiting")
    below = engine.get((await run.children())[0].run_id)

    async def in_line():
        return gate.began == [0] and [info.status for info in await below.children()].count("waiting") == 3

    await eventually(in_line)
    await engine.queue("above").pause()
    await run.cancel()
    gate.go.set()
    await eventually(reports(below))
    await engine.queue("above").resume()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    assert gate.began == [0]
    assert await strays(engine) == []


async def test_failing_fast_spares_a_child_that_nobody_waits_for(engines):
    """
    A helper has started it and does something else: it goes on, as it would if a step had failed.
    """
    go = asyncio.Event()

    @job
    async def slow() -> str:
        await go.wait()
        return "done"

    @job
    async def bad() -> None:
        raise ValueError

    async def helper():
        await start(slow())
        await wait_for("never")

    @workflow
    async def mixed() -> Flow[None]:
        yield gather(helper(), bad(), fail_fast=True)

    engine = await engines.memory(slow, bad, mixed)
    run = await engine.start(mixed())
    with pytest.raises(RunFailedError):
        await run.result(5)
    go.set()
    (child,) = [info async for info in engine.runs(workflow="slow")]
    assert await engine.get(child.run_id).result(5) == "done"


async def test_retrying_a_parent_asks_anew_for_a_child_that_was_cancelled(engines, eventually):
    """
    A cancelled run cannot be retried itself: without a new one, its parent could never go on.
    """

    @job
    async def work(number: int) -> int:
        if number == 2 and not go.is_set():
            await go.wait()
        return number

    @workflow
    async def mapper() -> Flow[list[int]]:
        yield Return((yield for_each(work, range(4), concurrency=1)))

    go = asyncio.Event()
    engine = await engines.memory(work, mapper)
    run = await engine.start(mapper())
    child = engine.get(f"{run.id}~.0.2")

    async def began():
        return any(info.run_id == child.id and info.status == "running" for info in await run.children())

    await eventually(began)
    await child.cancel()
    with pytest.raises(RunFailedError):
        await run.result(5)
    go.set()
    await run.retry()
    assert await run.result(5) == [0, 1, 2, 3]
    assert len(await run.children()) == 5


# --- continue_as ------------------------------------------------------------------------------------


async def test_a_cancel_that_came_too_late_for_a_run_reaches_what_it_continues_as(engines, reached, strays):
    """
    Recorded before the run went on as another, taken in by none of its turns: it is not lost.
    """

    @workflow
    async def loop(number: int) -> Flow[None]:
        yield wait_for("go")
        yield continue_as(loop(number + 1))

    engine = await engines.memory(loop)
    run = await engine.start(loop(0))
    await reached(run, "waiting")
    await engine.queue("default").pause()
    await run.signal("go")
    await run.cancel("enough")
    await engine.queue("default").resume()
    with pytest.raises(RunCancelledError, match="enough"):
        await run.result(5)
    assert await strays(engine) == []


async def test_the_key_of_a_run_that_continues_is_found_with_the_first_arguments(engines, eventually):
    """
    A program that starts its endless loop at each launch finds the one that goes on, whatever that has come to.
    """

    @workflow
    async def loop(number: int) -> Flow[None]:
        if number < 2:
            yield continue_as(loop(number + 1))
        yield wait_for("never")

    engine = await engines.memory(loop)
    await engine.start(loop(0), key="the loop")

    async def goes_on():
        return await (await engine.find("the loop")).status() == "waiting"

    await eventually(goes_on)
    again = await engine.start(loop(0), key="the loop")
    assert again.id == (await engine.find("the loop")).id
    with pytest.raises(KeyConflictError):
        await engine.start(loop(7), key="the loop")
    await again.cancel()


# --- limits -------------------------------------------------------------------------------------------


async def test_a_start_that_its_limit_rejects_replaces_nothing(engines, reached):
    """
    The run that has the key goes on: nothing is there to take its place.
    """

    @workflow(limit=Limit("one", concurrency=1, on_conflict="reject"))
    async def exclusive(number: int) -> Flow[None]:
        yield wait_for("go")

    @workflow
    async def replaces() -> Flow[bool]:
        try:
            yield start(exclusive(1), key="it", on_conflict="replace")
        except LimitReachedError:
            yield Return(value=True)

    engine = await engines.memory(exclusive, replaces)
    run = await engine.start(exclusive(0), key="it")
    await reached(run, "waiting")
    assert await engine.run(replaces()) is True
    await run.signal("go")
    assert await run.result(5) is None


async def test_retrying_a_parent_asks_again_for_a_child_that_was_refused(engines, reached):
    """
    The limit had no slot for it, or its key was another's: there is no run of it to retry.
    """

    @workflow(limit=Limit("one", concurrency=1, on_conflict="reject"))
    async def exclusive(number: int) -> Flow[int]:
        if not number:
            yield wait_for("go")
        yield Return(number)

    @workflow
    async def above(key: str | None) -> Flow[int]:
        if key is None:
            yield Return((yield exclusive(1)))
        child = yield start(exclusive(1), key=key, on_conflict="rerun")
        yield Return((yield child.result()))

    engine = await engines.memory(exclusive, above)
    first = await engine.start(exclusive(0), key="it")
    await reached(first, "waiting")
    parents = [await engine.start(above(key)) for key in (None, "it")]
    for parent in parents:
        with pytest.raises(RunFailedError):
            await parent.result(5)
    await first.signal("go")
    await first.result(5)
    for parent in parents:
        await parent.retry()
        assert await parent.result(5) == 1


# --- all at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_resident", [0, 4])
async def test_what_hangs_on_a_run_goes_over_to_what_it_continues_as(engines, clock, eventually, keep_resident, strays):
    """
    A slot, a key, a batch, a parent, follow-ups and a hook: each is served once, at the last end; and a prune
    leaves nothing of it.
    """
    log = []

    @job
    async def note(text: str) -> None:
        log.append(text)

    @workflow(limit=Limit("one", concurrency=1), limit_key=lambda _number: "shared")
    async def loop(number: int) -> Flow[int]:
        yield wait_for("go")
        if number < 2:
            yield continue_as(loop(number + 1))
        yield Return(number)

    @loop.on_finish
    def ended(finished):
        return [note(f"hook {finished.value}")]

    @workflow
    async def above() -> Flow[int]:
        yield Return((yield loop(0).then(note("then of the child"))))

    async def inside(engine):
        return [info.run_id async for info in engine.runs(workflow="loop") if info.status == "waiting"]

    definitions = [loop, note, above]
    engine = await engines.file(*definitions, clock=clock, keep_resident=keep_resident)
    async with engine.batch(on_complete=note("complete"), on_success=note("success")) as batch:
        member = await batch.add(loop(0).then(note("then of the member")).options(key="it"))
    parent = await engine.start(above())
    for turn in range(6):
        if turn == 2:
            await engines.crash(engine)
            engine = await engines.file(*definitions, clock=clock, keep_resident=keep_resident)

        async def one_is_inside(engine=engine):
            return len(await inside(engine)) == 1

        await eventually(one_is_inside)
        (run_id,) = await inside(engine)
        await engine.get(run_id).signal("go")

        async def it_went_on(engine=engine, run_id=run_id):
            return run_id not in await inside(engine)

        await eventually(it_went_on)
    assert await engine.get(member.id).result(5) == await engine.get(parent.id).result(5) == 2

    async def all_noted():
        return len(log) == 6 and [info async for info in engine.runs() if info.ended_at is None] == []

    await eventually(all_noted)
    assert sorted(log) == ["complete", "hook 2", "hook 2", "success", "then of the child", "then of the member"]
    assert await strays(engine) == []
    clock.advance(60)
    await engine.prune(older_than=30)
    assert [info async for info in engine.runs()] == []
    assert await strays(engine) == []


async def test_a_cleared_queue_with_a_line_a_batch_and_a_window(engines, reached, eventually, strays):
    """
    All that waits for the slot is cancelled: the batch is complete, the window stops, hooks have run.
    """
    log = []

    @job
    async def note(text: str) -> None:
        log.append(text)

    @workflow(limit=Limit("one", concurrency=1), queue="narrow")
    async def exclusive(number: int) -> Flow[None]:
        yield wait_for("go")

    @exclusive.on_cancel
    def ended(finished):
        return [note(f"cancelled {finished.arguments['number']}")]

    @workflow
    async def above() -> Flow[None]:
        yield for_each(exclusive, [5, 6, 7], concurrency=2)

    engine = await engines.memory(exclusive, above, note)
    first = await engine.start(exclusive(0))
    await reached(first, "waiting")
    async with engine.batch(on_complete=note("complete"), on_success=note("success")) as batch:
        for number in (1, 2):
            batch.add(exclusive(number))
    parent = await engine.start(above())
    await reached(parent, "waiting")
    assert await engine.queue("narrow").clear() == 4
    with pytest.raises(RunFailedError):
        await parent.result(5)

    async def all_noted():
        return len(log) == 5 and (await batch.info()).status == "complete"

    await eventually(all_noted)
    assert sorted(log) == ["cancelled 1", "cancelled 2", "cancelled 5", "cancelled 6", "complete"]
    await first.signal("go")
    await first.result(5)
    assert await strays(engine) == []


async def test_follow_ups_of_what_a_client_starts(engines, tmp_db, eventually):
    """
    Chains of other definitions than that of the run itself, recorded by the client alone.
    """
    log = []

    @job
    async def note(text: str) -> None:
        log.append(text)

    @workflow(limit=Limit("one", concurrency=1))
    async def exclusive(number: int) -> Flow[int]:
        yield Return(number)

    await (await engines.file(exclusive, note)).aclose()
    async with Client(tmp_db) as client:
        run = await client.start(exclusive(1).then(note("a"), exclusive(2).then(note("b"))))
        async with client.batch(on_complete=exclusive(3).then(note("c"))) as batch:
            batch.add(exclusive(4).then(note("d")))
    engine = await engines.file(exclusive, note)
    assert await engine.get(run.id).result(5) == 1

    async def all_noted():
        return sorted(log) == ["a", "b", "c", "d"]

    await eventually(all_noted)
