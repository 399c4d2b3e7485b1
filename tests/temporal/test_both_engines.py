"""
The same definitions on both engines: the same results, the same journals.
"""

import asyncio

import pytest

from durable import (
    Engine,
    Fatal,
    RequestRefusedError,
    RequestUnansweredError,
    RunFailedError,
    RunStateError,
    replay,
)
from durable.temporal import TemporalEngine
from tests.temporal import flows

#: What is recorded of an attempt that is not the last: a server tries again by itself.
UNTOLD = {"StepRetrying", "StepSnoozed", "TimerFired"}


@pytest.fixture(autouse=True)
def no_calls():
    flows.calls.clear()


@pytest.fixture
async def engine(either_engine):
    """
    Of either kind, with all that the tests start.
    """
    return await either_engine(flows.ALL)


@pytest.mark.parametrize("flow", flows.ALONE, ids=lambda flow: flow.name)
async def test_a_flow_gives_the_same_on_both(engine, flow):
    """
    Values, errors with their attributes, groups, children, timers, dice: nothing of the workflow changes.
    """
    found = await engine.run(flow())
    expected = flows.ALONE[flow]
    assert found == expected if expected is not None else found.name == "a"


async def test_signals_come_in_their_order(engine):
    """
    Also those that are sent before anybody waits; attributes are seen from outside.
    """
    run = await engine.start(flows.told())
    await run.signal("word", "one")
    await run.signal("word", "two")
    assert await run.result() == ["one", "two"]
    assert await run.attributes() == {"state": "done", "words": ["one", "two"]}


async def test_an_error_of_the_workflow_itself_is_its_end(engine):
    """
    With its class, as the cause of what `result` raises.
    """
    with pytest.raises(RunFailedError, match="by itself") as failed:
        await engine.run(flows.failing())
    assert isinstance(failed.value.__cause__, Fatal)


async def test_a_run_is_asked_and_answers(engine):
    """
    An answer, a refusal; the answer that there is, under the same `dedup`; no answer from a run that has ended.
    """
    run = await engine.start(flows.asked())
    assert await run.ask(flows.Approve, "may I?", dedup="q-1") is True
    assert await run.ask(flows.Approve, "may I?", dedup="q-1") is True
    with pytest.raises(RequestRefusedError, match="not twice"):
        await run.ask("approve", "once more?")
    assert await run.result() == "may I?"
    with pytest.raises(RunStateError):
        await run.ask(flows.Approve, "late")


async def test_who_asks_a_run_that_ends_hears_that(engine):
    """
    It is not left waiting.
    """
    run = await engine.start(flows.told())
    asked = asyncio.ensure_future(run.ask(flows.Approve, "may I?"))
    for word in ("one", "two"):
        await run.signal("word", word)
    with pytest.raises((RequestUnansweredError, RunStateError)):
        await asked


async def test_what_follows_a_run_is_started_once(engine):
    """
    By a hook of its definition, whichever engine it is.
    """
    run = await engine.start(flows.followed())
    await run.result()
    if isinstance(engine, TemporalEngine):
        follower = engine.get(f"{run.id}~.then.0")
    else:
        (follower,) = [engine.get(info.id) async for info in engine.runs(workflow=flows.square)]
    assert await follower.result() == 16


def shape(events):
    """
    What two journals have in common: kinds, positions and names, sorted where steps ran at the same time.
    """
    found = []
    for event in events:
        kind = type(event).__name__
        if kind in UNTOLD or getattr(event, "attempt", 1) > 1:
            continue
        name = getattr(event, "name", None) or getattr(event, "workflow", None)
        found.append((kind, getattr(event, "position", None) or "", str(name)))
    return sorted(found)


@pytest.mark.parametrize("flow", [flow for flow in flows.ALONE if flow not in (flows.times, flows.counting)])
async def test_journals_are_equal(client, queue, flow):
    """
    What a server's run has decided is what a file would hold, and `durable.replay` takes it.
    """
    async with Engine(":memory:", flows.ALL) as embedded:
        run = await embedded.start(flow())
        await run.result()
        expected = [each.event for each in await run.history()]
    async with TemporalEngine(client, queue, flows.ALL) as engine:
        run = await engine.start(flow())
        await run.result()
        exported = await run.export()
    assert shape(exported.events) == shape(expected)
    assert replay(exported, flow).verify().ok
