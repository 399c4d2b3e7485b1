"""
Signals that are sent with a start: one transaction, and delivered whether the run is new or joined.
"""

from datetime import date

import pytest

from durable import Client, Flow, Return, RunInfo, Signal, gather, start, transaction, wait_for, workflow
from durable.errors import EncodeError, RunStateError

pytestmark = pytest.mark.anyio
due = Signal("due", date)
DAY = date(2026, 1, 2)


@workflow
async def collects(count: int) -> Flow[list[str]]:
    got = []
    for _ in range(count):
        got.append(str((yield wait_for(due))))  # noqa: PERF401 - no comprehension may yield
    yield Return(got)


@workflow
async def parent() -> Flow[list[list[str]]]:
    child = yield start(collects(1), signals=[(due, DAY)])
    awaited = yield gather(collects(1).options(signals=[(due, DAY)]))
    yield Return([(yield child.result()), *awaited])


@transaction
def stages(tx) -> str:
    return tx.enqueue(collects(1).options(signals=[(due, DAY)]))


@workflow
async def staging() -> Flow[str]:
    yield Return((yield stages()))


async def test_a_new_run_has_its_signals_from_its_first_turn(engines):
    """
    In their order; and the start of many.
    """
    engine = await engines.file(collects)
    run = await engine.start(collects(2), signals=[(due, DAY), ("due", date(2026, 1, 3))])
    assert await run.result(5) == ["2026-01-02", "2026-01-03"]
    runs = await engine.start_many([collects(1).options(signals=[(due, DAY)]) for _ in range(3)])
    assert [await run.result(5) for run in runs] == [["2026-01-02"]] * 3


async def test_a_run_that_is_joined_by_its_key_gets_them_as_well(engines, reached):
    """
    Each start sends its own: exactly once each.
    """
    engine = await engines.file(collects)
    first = await engine.start(collects(2), key="k", signals=[(due, DAY)])
    await reached(first, "waiting")
    second = await engine.start(collects(2), key="k", signals=[(due, date(2026, 1, 3))])
    assert first == second
    assert await first.result(5) == ["2026-01-02", "2026-01-03"]


async def test_nothing_is_started_if_a_signal_is_refused(engines):
    """
    One transaction: a payload of another type, or a run that has ended.
    """
    engine = await engines.file(collects)
    with pytest.raises(EncodeError, match="payload of signal 'due'"):
        await engine.start(collects(1), signals=[(due, "soon")])
    run = await engine.start(collects(0), key="k")
    await run.result(5)
    with pytest.raises(RunStateError, match="signal 'due' to"):
        await engine.start_many([collects(1), collects(0).options(key="k", signals=[(due, DAY)])])
    infos: list[RunInfo] = [info async for info in engine.runs()]
    assert [info.run_id for info in infos] == [run.id]


async def test_a_client_sends_them_with_the_start(engines, tmp_db):
    """
    To the engine, and where there is none for whoever opens the file next.
    """
    engine = await engines.file(collects)
    async with Client(tmp_db) as client:
        run = await client.start(collects(1), signals=[(due, DAY)])
        assert await run.result(5) == ["2026-01-02"]
        await engine.aclose()
        run = await client.start(collects(1), signals=[(due, DAY)])
    engine = await engines.file(collects)
    assert await engine.get(run.id).result(5) == ["2026-01-02"]


async def test_children_and_staged_runs_have_theirs_too(engines):
    """
    A start, an awaited child, and a run that a transaction stages.
    """
    engine = await engines.file(collects, parent, staging, replay_always=True)
    assert await engine.run(parent()) == [["2026-01-02"], ["2026-01-02"]]
    staged = await engine.run(staging())
    assert await engine.get(staged).result(5) == ["2026-01-02"]
