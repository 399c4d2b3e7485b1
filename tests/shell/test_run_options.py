"""
What `op.options(...)` and `start(...)` say of one run is recorded with it.
"""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from durable import Client, Flow, Retry, Return, gather, job, start, workflow
from durable._core.authoring.op_constructors import with_options
from durable._shell.requests.run_requests import StartRuns
from durable.errors import RunFailedError, RunStateError, UsageError


@pytest.fixture
def calls():
    """
    What was called, in order.
    """
    return []


def definitions(calls, failures=2):
    @job(retry=Retry(attempts=10, on=LookupError, delay=0.0))
    async def shaky(name: str) -> int:
        calls.append(name)
        if calls.count(name) <= failures:
            raise ConnectionError(name)
        return calls.count(name)

    @workflow
    async def whole(name: str) -> Flow[int]:
        calls.append(name)
        if calls.count(name) <= failures:
            raise ConnectionError(name)
        yield Return(calls.count(name))

    return shaky, whole


NOW = Retry(attempts=3, delay=0.0, on=ConnectionError)


@pytest.mark.parametrize("which", [0, 1], ids=["job", "workflow"])
async def test_a_run_has_the_retry_policy_that_it_was_started_with(engines, calls, which):
    """
    It takes the place of the definition's, for this run only; types are told by name, their children included.
    """
    both = definitions(calls)
    engine = await engines.memory(*both)
    assert await engine.run(both[which]("a").options(retry=Retry(attempts=3, delay=0.0, on=OSError))) == 3
    assert await engine.run(both[which]("b").options(retry=NOW)) == 3
    with pytest.raises(RunFailedError):
        await engine.run(both[which]("c"))
    assert calls == ["a"] * 3 + ["b"] * 3 + ["c"]


async def test_children_and_follow_ups_have_theirs(engines, calls, eventually):
    """
    An awaited child, a started one, and what follows a run.
    """
    shaky, _ = definitions(calls)

    @workflow
    async def parent() -> Flow[list[int]]:
        child = yield start(shaky("started"), retry=NOW)
        first: tuple[int, int] = yield gather(shaky("awaited").options(retry=NOW), child.result())
        yield Return([*first])

    engine = await engines.memory(shaky, parent)
    assert await engine.run(parent().then(shaky("after").options(retry=NOW))) == [3, 3]

    async def followed():
        return calls.count("after") == 3

    await eventually(followed)


async def test_it_survives_a_restart(engines, calls, clock, reached, eventually):
    """
    A run that waits for its next attempt when the process dies gets as many as it was given.
    """
    shaky, whole = definitions(calls)
    engine = await engines.file(shaky, whole, clock=clock)
    later = Retry(attempts=3, delay=60.0, jitter=0.0)
    runs = [await engine.start(each("x" + each.name).options(retry=later)) for each in (shaky, whole)]
    for run in runs:
        await reached(run, "waiting")
    await engines.crash(engine)
    engine = await engines.file(shaky, whole, clock=clock)
    assert len(calls) == 2

    async def all_ended():
        clock.advance(61)
        return all([await engine.get(run.id).status() == "succeeded" for run in runs])

    await eventually(all_ended)
    assert [await engine.get(run.id).result() for run in runs] == [3, 3]
    assert len(calls) == 6


def test_a_predicate_cannot_be_recorded(calls):
    """
    A function stays with the program: it is refused where it is written, and told where it may stand.
    """
    shaky, whole = definitions(calls)
    with pytest.raises(UsageError, match="predicate can only stand on"):
        shaky("a").options(retry=Retry(on=lambda error: True))
    with pytest.raises(UsageError, match="predicate can only stand on"):
        start(whole("a"), retry=Retry(on=lambda error: True))


# --- another time -------------------------------------------------------------------------------


@job
async def later() -> str:
    return "done"


async def test_a_pending_run_can_be_given_another_time(engines, clock, eventually, tmp_db):
    """
    Earlier, later or at once, by an engine or a client; the last word counts, also over a restart.
    """
    engine = await engines.file(later, clock=clock)
    sooner, postponed, at_once, kept = [await engine.start(later(), delay=3600) for _ in range(4)]
    await sooner.reschedule(delay=timedelta(minutes=1))
    await postponed.reschedule(at=datetime.fromtimestamp(clock.now() + 7200, UTC))
    await at_once.reschedule()
    assert await at_once.result(5) == "done"
    clock.advance(61)
    assert await sooner.result(5) == "done"
    await engine.aclose()
    async with Client(tmp_db, clock=clock) as client:
        await client.get(kept.id).reschedule(delay=10)
    engine = await engines.file(later, clock=clock)
    clock.advance(10)
    assert await engine.get(kept.id).result(5) == "done"
    clock.advance(3600)
    await engine.idle()
    assert await engine.get(postponed.id).status() == "pending"
    clock.advance(3600)
    assert await engine.get(postponed.id).result(5) == "done"


async def test_a_run_without_a_delay_is_given_no_other_time(engines, clock):
    """
    It stands in line, is active, or has ended: it may begin this very moment.
    """
    engine = await engines.memory(later, clock=clock)
    await engine.queue("default").pause()
    run = await engine.start(later())
    with pytest.raises(RunStateError, match="Its delay is over, or it had none; pause it instead"):
        await run.reschedule(delay=10)
    await engine.queue("default").resume()
    await run.result(5)
    with pytest.raises(RunStateError, match="reschedule"):
        await run.reschedule()
    with pytest.raises(UsageError, match=r"either at= .* or delay="):
        await run.reschedule(at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize("reserved", ["order-1/0", "order-1~.0", "chain~2", "batch:0", "schedule:often:2030-01-01"])
async def test_ids_that_the_engine_makes_cannot_be_chosen(engines, reserved):
    """
    Of children, successors, members and ticks: whoever took one first would stand in the way of the run it is for.

    Neither by a caller, nor by a request that another process sends.
    """

    @job
    async def double(number: int) -> int:
        return 2 * number

    engine = await engines.memory(double)
    with pytest.raises(UsageError, match=f"a run id must not contain .*{reserved[:5]}.*another separator"):
        await engine.start(double(1), id=reserved)
    sent = evolve(engine._backend.new_run(with_options(double(1), id="fine")), run_id=reserved)
    with pytest.raises(UsageError, match="a run id must not contain"):
        await engine._backend.request_of_client(StartRuns((sent,)))
    assert await (await engine.start(double(1), id="order-1.0")).result(5) == 2
