"""
Streams: what a run and its steps emit is read alike on both engines.
"""

import asyncio
import time

import pytest

from durable import CapExceededError, Caps, Flow, Return, continue_as, emit, step, wait_for, workflow
from durable.temporal import TemporalEngine


@step
async def answers(words: str) -> int:
    for word in words.split():
        await emit("tokens", word)
    await emit("tokens", "over", sync=True)
    return len(words.split())


@step
def counts(most: int) -> None:
    for n in range(most):
        emit("numbers", n)


@step(retry=2)
async def twice() -> None:
    emit("attempts", "again")
    if not [*await_nothing()]:
        raise ValueError("once more")


def await_nothing():
    twice_called.append(1)
    return twice_called[1:]


twice_called: list[int] = []


@step(stream=True)
async def generates():
    for n in range(3):
        yield n


@workflow
async def talks() -> int:
    emit("tokens", "first")
    found = await answers("to be or not")
    emit("tokens", "last")
    await wait_for("go")
    emit("tokens", "gone")
    return found


@workflow
async def repeats() -> None:
    await twice()


@workflow
async def threads(most: int) -> int:
    await counts(most)
    return await generates()


@workflow
async def loops(n: int = 0) -> Flow[int]:
    emit("rounds", n)
    if n < 3:
        yield continue_as(loops(n + 1))
    yield Return(n)


@workflow
async def long(rounds: int) -> int:
    for n in range(rounds):
        emit("rounds", n)
        await wait_for("next")
    return rounds


ALL = [talks, repeats, threads, loops, long]


@pytest.fixture
async def engine(either_engine):
    """
    Of either kind, with all that the tests start.
    """
    twice_called.clear()
    return await either_engine(ALL, caps=Caps(stream_items=5_000))


async def test_what_a_run_and_its_steps_emit_is_read_in_order(engine):
    """
    While it runs, and when it has ended; from behind any item.
    """
    run = await engine.start(talks())
    found = []
    async for item in run.stream("tokens", str).items():
        found.append(item)
        if item.value == "last":
            await run.signal("go")
    assert [item.value for item in found] == ["first", "to", "be", "or", "not", "over", "last", "gone"]
    assert [item.attempt for item in found] == [0, 1, 1, 1, 1, 1, 0, 0]
    assert await run.result() == 4
    assert [each async for each in run.stream("tokens", after=found[5].seq)] == ["last", "gone"]
    assert [each async for each in run.stream("another")] == []


async def test_an_attempt_that_is_made_again_says_so(engine):
    """
    Its items have its number.
    """
    run = await engine.start(repeats())
    await run.result()
    assert [(item.value, item.attempt) async for item in run.stream("attempts").items()] == [("again", 1), ("again", 2)]


async def test_a_plain_function_emits_from_its_thread(engine):
    """
    And a step that is a generator gives what it yields.
    """
    run = await engine.start(threads(2_500))
    assert await run.result() == 2
    assert [each async for each in run.stream("numbers", int)] == [*range(2_500)]
    names = [event.name for event in await run.history() if event.name]
    assert "generates" in names
    with pytest.raises(Exception, match="emitted items") as failed:
        await engine.run(threads(5_001))
    assert isinstance(failed.value.__cause__, CapExceededError)


async def test_a_stream_outlasts_the_runs_of_a_chain(engine):
    """
    One that continues as another is read as one.
    """
    run = await engine.start(loops())
    assert [each async for each in run.stream("rounds")] == [0, 1, 2, 3]


async def test_a_run_whose_history_was_cut_short_has_its_whole_stream(client, queue):
    """
    The runs of the server before it are asked for theirs.
    """
    async with TemporalEngine(client, queue, ALL, compact_at=20) as engine:
        run = await engine.start(long(15))
        found = []
        async for n in run.stream("rounds", int):
            found.append(n)
            await run.signal("next")
        assert found == [*range(15)]
        assert await run.result() == 15


async def test_a_stream_of_ten_thousand_items_is_no_ten_thousand_events(client, queue):
    """
    They are sent in batches.
    """
    async with TemporalEngine(client, queue, ALL) as engine:
        began = time.monotonic()
        run = await engine.start(threads(10_000))
        async with asyncio.timeout(60):
            await run.result()
        described = await client.get_workflow_handle(run.id).describe()
        assert described.history_length < 400, time.monotonic() - began
