"""
Runs that continue from their journals: retried, forked, moved between a file and a server, compacted.
"""

import pytest

from durable import (
    DurableError,
    Engine,
    ExportFormatError,
    Flow,
    RetryRefusedError,
    Return,
    RunFailedError,
    RunStateError,
    UsageError,
    gather,
    job,
    replay,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable.temporal import journal_of

calls: list[str] = []
broken = {"yes"}


@pytest.fixture(autouse=True)
def as_new():
    calls.clear()
    broken.add("yes")


@step
async def note(what: str) -> str:
    calls.append(what)
    return what


@step
async def fragile() -> str:
    calls.append("fragile")
    if "yes" in broken:
        raise ValueError("broken")
    return "mended"


@job
async def fragile_job() -> str:
    calls.append("fragile job")
    if "yes" in broken:
        raise ValueError("broken")
    return "mended"


@workflow
async def mended() -> Flow[list[str]]:
    first: str = yield note("first")
    both: list[str] = yield gather(fragile(), fragile_job())
    yield Return([first, *both])


@workflow
async def refunds() -> Flow[None]:
    try:
        yield fragile()
    except ValueError:
        yield note("refund")
        raise


@workflow
async def moves() -> Flow[list[object]]:
    set_attributes(at="start")
    first: str = yield note("first")
    word: str = yield wait_for("word", str)
    yield sleep(0.01)
    second: str = yield note("second")
    yield Return([first, word, second])


@workflow
async def many(n: int) -> Flow[int]:
    set_attributes(n=n)
    total = 0
    for _ in range(n):
        yield note("again")
        yield sleep(0)
        total += 1
    yield Return(total)


@workflow(name="moves")
async def other_moves() -> None:
    await sleep(1)
    await note("other")


ALL = [mended, refunds, moves, many, fragile_job]


async def test_a_failed_run_continues_from_what_failed(engines):
    """
    What had succeeded is not repeated; a child that failed is retried, too.
    """
    engine = await engines(*ALL)
    run = await engine.start(mended())
    with pytest.raises(RunFailedError):
        await run.result()
    broken.clear()
    calls.clear()
    assert await run.retry()
    assert await run.result() == ["first", "mended", "mended"]
    assert sorted(calls) == ["fragile", "fragile job"]
    assert await engine.get(run.id).result() == ["first", "mended", "mended"]


async def test_a_run_whose_failure_led_to_steps_is_retried_by_force_only(engines):
    """
    As in an embedded engine: it would continue as if there had been no refund.
    """
    engine = await engines(*ALL)
    run = await engine.start(refunds())
    with pytest.raises(RunFailedError):
        await run.result()
    with pytest.raises(RetryRefusedError, match="note"):
        await run.retry()
    broken.clear()
    assert await run.retry(force=True)
    assert await run.result() is None


async def test_a_fork_continues_with_another_outcome(engines):
    """
    A new run, with what was recorded before the position.
    """
    engine = await engines(*ALL)
    run = await engine.start(moves(), signals=[("word", "a")])
    assert await run.result() == ["first", "a", "second"]
    calls.clear()
    forked = await run.fork(at="0", replace={"0": "other"}, id="forked")
    assert await forked.result() == ["other", "a", "second"]  # the signal had come before
    assert calls == ["second"]


async def test_a_waiting_run_moves_from_a_file_to_a_server_and_back(engines, tmp_path):
    """
    It continues where it stood, with its id, and nothing is done twice.
    """
    engine = await engines(*ALL)
    async with Engine(tmp_path / "a.db", ALL) as embedded:
        run = await embedded.start(moves(), id="traveller")
        async for info in run.watch():
            if info.status == "waiting":
                break
        await run.pause()
        await embedded.export(run.id, tmp_path / "traveller.jsonl")
    imported = await engine.import_runs(tmp_path / "traveller.jsonl")
    assert imported.runs == ["traveller"]
    assert (await engine.import_runs(tmp_path / "traveller.jsonl")).present == ["traveller"]
    there = engine.get("traveller")
    assert await there.resume()
    assert "word" in await there.why()
    assert await there.attributes() == {"at": "start"}
    left = await there.leave()
    async with Engine(tmp_path / "b.db", ALL) as embedded:
        await embedded.import_runs([left])
        back = embedded.get("traveller")
        await back.resume()
        await back.signal("word", "home")
        assert await back.result() == ["first", "home", "second"]
    assert calls == ["first", "second"]
    with pytest.raises(RunStateError):
        await there.leave()


async def test_a_downloaded_history_is_a_journal(engines, client, tmp_path):
    """
    Without a server, by the code that the run has followed; other code is told.
    """
    engine = await engines(*ALL)
    run = await engine.start(moves(), signals=[("word", "a")])
    await run.result()
    exported = await run.export()
    history = await client.get_workflow_handle(run.id).fetch_history()
    path = tmp_path / "history.json"
    path.write_text(history.to_json())
    found = await journal_of(path, ALL)
    assert found.events == exported.events
    assert replay(found, moves).verify().ok
    with pytest.raises(DurableError, match="does not replay"):
        await journal_of(path, [many, fragile_job, other_moves])
    path.write_text("{}")
    with pytest.raises((ExportFormatError, DurableError)):
        await journal_of(path, ALL)


@pytest.mark.parametrize("name", ["prune", "transaction", "queue"])
async def test_what_only_a_journal_has_is_refused_with_what_to_use(engines, name):
    """
    On engines, and on runs; what nobody has is an AttributeError as ever.
    """
    engine = await engines(*ALL)
    with pytest.raises(UsageError, match="not known on Temporal"):
        getattr(engine, name)
    with pytest.raises(UsageError, match="another delay"):
        getattr(engine.get("x"), "reschedule")  # noqa: B009 - it is the access that is refused
    assert not hasattr(engine, "nonsense")


async def test_a_long_run_continues_as_a_fresh_one_of_the_server(engines, client):
    """
    Which has its journal: nothing is repeated, and its id and attributes stay.
    """
    engine = await engines(*ALL, compact_at=60)
    run = await engine.start(many(30))
    assert await run.result() == 30
    assert len(calls) == 30
    assert await run.attributes() == {"n": 30}
    described = await client.get_workflow_handle(run.id).describe()
    assert described.history_length < 200
    assert len(await run.history()) == 1 + 30 * 4 + 2
