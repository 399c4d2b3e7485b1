"""
Scenarios 41 to 50: batches with callbacks, and what follows the end of a run.
"""

import pytest

from durable import Finished, Flow, Return, RunFailedError, job, step, workflow

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
        assert await run.result(5) == "t"
        found = await followers(engine, *expected)
        assert {name: len(runs) for name, runs in found.items()} == dict.fromkeys(expected, 1), engines.path
        return engine, {name: runs[0] for name, runs in found.items()}

    with monkeypatch.context() as patch:
        recorded = copies(patch)
        engine, runs = await life()
        for name in ("A", "hook of t"):
            assert await runs[name].result(5) == name
        assert await runs["B"].status() == "pending"
        await engine.aclose()
    assert ran.count("A") == 1
    assert "B" not in ran
    assert len(recorded.paths) >= 8
    for path in recorded.paths:
        engines.path, started_at = path, clock.offset
        engine, runs = await life()
        for name in ("A", "hook of t"):
            assert await runs[name].result(5) == name
        assert await runs["B"].status() == "pending"
        clock.advance(301)
        assert await runs["B"].result(5) == "B"
        assert (await engine.stats()).runs == {"succeeded": 4}, path
        clock.offset = started_at
        await engine.aclose()

    engines.path = tmp_db.with_name("failing.db")
    engine = await engines.file(trip, note, clock=clock)
    BROKEN.update(("t", "B"))
    ran.clear()
    failing = await engine.start(op)
    with pytest.raises(RunFailedError):
        await failing.result(5)
    clock.advance(301)
    assert (await engine.stats()).runs == {"failed": 1}
    assert ran == ["t"]

    BROKEN.discard("t")
    run = await engine.start(op)
    assert await run.result(5) == "t"
    clock.advance(301)
    (late,) = (await followers(engine, *expected))["B"]
    await reached(late, "failed")
    assert await run.status() == "succeeded"
    assert (await followers(engine, *expected)).keys() == expected
