"""
Turns of many members leave the event loop to others, and nothing is lost or done twice where they are cut off.
"""

import asyncio
import gc
from collections import Counter
from itertools import pairwise

import pytest

from durable import Flow, GroupFailedError, Return, for_each, gather, job, step, wait_for, workflow
from durable._core.run.execution import SLICE, Execution
from durable._shell.commits import commits
from durable._shell.rows.rows import NewRun
from durable._shell.turns import driver as driver_module
from durable._shell.turns import turn_writer
from durable._shell.writes import turn_writes
from durable.errors import JournalIOError, RunBlockedError

pytestmark = pytest.mark.anyio
#: So many that their turn pauses some times.
MANY = 3 * SLICE
CALLS: Counter[int] = Counter()


@job
async def one(number: int) -> int:
    CALLS[number] += 1
    return number


@step
async def counted(number: int) -> int:
    CALLS[number] += 1
    return number


@step
async def refused(number: int) -> int:
    raise ValueError(number)


@workflow
async def jobs(count: int) -> Flow[int]:
    found = yield for_each(one, range(count), concurrency=None)
    yield Return(sum(found))


@job
async def forgotten(number: int) -> int:
    return number


@workflow
async def careless(count: int) -> Flow[None]:
    yield gather(*(one(number) for number in range(count)), forgotten(count))


@workflow
async def fed(count: int) -> Flow[int]:
    found = yield for_each(one, range(count), concurrency=20)
    yield Return(sum(found))


@workflow
async def steps(count: int) -> Flow[int]:
    found = yield gather(*(counted(number) for number in range(count)))
    yield Return(sum(found))


@workflow
async def failing(count: int) -> Flow[int]:
    try:
        yield gather(*(refused(number) for number in range(count)))
    except GroupFailedError as error:
        yield Return(len(error.exceptions))


@workflow
async def counting(count: int) -> Flow[int]:
    for _ in range(count):
        yield counted(1)
    yield wait_for("end")
    yield Return(count)


DEFINITIONS = [jobs, fed, steps, failing, counting, one]


@pytest.fixture(autouse=True)
def _uncounted():
    CALLS.clear()


@pytest.fixture
def pauses(monkeypatch):
    """Turns, and replays, that have paused: one entry a pause. A test may put a function in the place of `then`."""

    class Pauses(list):
        then = staticmethod(lambda: None)

    noted = Pauses()
    begin, proceed, load = Execution.begin_turn, Execution.continue_turn, Execution.load_in_slices

    def note(decision):
        if decision is None:
            noted.append("turn")
            noted.then()
        return decision

    def loading(execution, *arguments):
        for _ in load(execution, *arguments):
            noted.append("replay")
            noted.then()
            yield

    monkeypatch.setattr(Execution, "begin_turn", lambda ex, arrived, **how: note(begin(ex, arrived, **how)))
    monkeypatch.setattr(Execution, "continue_turn", lambda ex: note(proceed(ex)))
    monkeypatch.setattr(Execution, "load_in_slices", loading)
    return noted


@pytest.mark.parametrize("body", [jobs, fed, steps], ids=["jobs", "fed", "steps"])
async def test_others_have_the_loop_while_a_large_turn_is_taken(engines, pauses, body):
    """At each pause the loop goes round once at least; all is done, once."""
    engine = await engines.file(*DEFINITIONS)
    rounds = 0

    async def tick():
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    seen = []
    pauses.then = lambda: seen.append(rounds)
    ticking = asyncio.ensure_future(tick())
    assert await engine.run(body(MANY)) == sum(range(MANY))
    ticking.cancel()
    assert pauses.count("turn") >= 2
    assert all(later > earlier for earlier, later in pairwise(seen))
    assert Counter(range(MANY)) == CALLS


async def test_outcomes_that_come_at_once_are_taken_in_by_several_turns(engines):
    """5,000 failures hold the loop no longer than 250 do: each turn takes so many."""
    engine = await engines.file(*DEFINITIONS)
    assert await engine.run(failing(600)) == 600
    assert (await engine.stats()).commits >= 4  # its first turn, and at least three that take in 250


@pytest.mark.parametrize("body", [jobs, fed, steps], ids=["jobs", "fed", "steps"])
async def test_a_turn_that_is_cut_off_at_a_pause_is_taken_anew(engines, pauses, body):
    """Nothing of it was recorded when the engine closed, so nothing of it has happened: the next engine takes it."""
    engine = await engines.file(*DEFINITIONS)
    closing = []
    pauses.then = lambda: closing or closing.append(asyncio.ensure_future(engine.aclose()))
    run = await engine.start(body(MANY))
    while not closing:
        await asyncio.sleep(0)
    await closing[0]
    pauses.then = lambda: None
    again = await engines.file(*DEFINITIONS)
    assert await again.get(run.id).result() == sum(range(MANY))
    assert Counter(range(MANY)) == CALLS


async def test_steps_that_were_still_to_begin_when_the_engine_closes_begin_in_the_next(engines, monkeypatch):
    """Those of one turn begin in several iterations; none is forgotten, none begins twice."""
    engine = await engines.file(*DEFINITIONS)
    closing = []
    begin = driver_module.AttemptRunner.begin

    def noted(runner, actions, *, alone):
        begin(runner, actions, alone=alone)
        if not closing:
            closing.append(asyncio.ensure_future(engine.aclose()))

    monkeypatch.setattr(driver_module.AttemptRunner, "begin", noted)
    run = await engine.start(steps(MANY))
    while not closing:
        await asyncio.sleep(0)
    await closing[0]
    assert 0 < len(CALLS) < MANY
    again = await engines.file(*DEFINITIONS)
    assert await again.get(run.id).result() == sum(range(MANY))
    assert Counter(range(MANY)) == CALLS


async def test_a_long_run_is_replayed_in_slices(engines, pauses):
    """A run of thousands of steps that wakes up holds the loop no longer than a short one."""
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(counting(1_200))
    while (await run.info()).status != "waiting":
        await asyncio.sleep(0.01)
    await run.signal("end")
    assert await run.result() == 1_200
    assert pauses.count("replay") >= 2


@pytest.mark.parametrize("body", [jobs, steps], ids=["jobs", "steps"])
async def test_a_turn_that_opens_very_much_is_several_commits(engines, monkeypatch, body):
    """So the writer is held no longer by one run with many children than by many runs."""
    written = []
    write = turn_writes.write_turns

    def noted(conn, turns, effects):
        written.extend((len(turn.events), len(turn.children)) for turn in turns)
        write(conn, turns, effects)

    monkeypatch.setattr(commits, "write_turns", noted)
    engine = await engines.file(*DEFINITIONS)
    count = 3_000 if body is steps else 600
    assert await engine.run(body(count)) == sum(range(count))
    assert Counter(range(count)) == CALLS
    assert max(events for events, _ in written) <= driver_module.ROWS_A_COMMIT + 1
    assert max(runs for _, runs in written) <= driver_module.ROWS_A_COMMIT / driver_module.ROWS_OF_CHILD


async def test_nothing_of_a_large_turn_is_written_that_starts_what_the_engine_was_not_given(engines):
    """It is seen before the first of its commits, as in a small one: none of its jobs begins."""
    engine = await engines.file(*DEFINITIONS, careless)
    run = await engine.start(careless(600))
    while (await run.info()).status != "blocked":
        await asyncio.sleep(0.01)
    with pytest.raises(RunBlockedError, match="forgotten"):
        await run.result()
    assert [info.id async for info in engine.runs()] == [run.id]
    assert not CALLS


async def test_what_a_large_turn_starts_is_made_commit_by_commit(engines, monkeypatch):
    """So a garbage collection, which holds the loop, finds no more of it than one commit needs."""
    make, most = turn_writer.TurnWriter.make, 0

    async def noted(writer, decision, now):
        nonlocal most
        made = await make(writer, decision, now)
        most = max(most, sum(type(each) is NewRun for each in gc.get_objects()))
        return made

    monkeypatch.setattr(turn_writer.TurnWriter, "make", noted)
    engine = await engines.file(*DEFINITIONS)
    assert await engine.run(jobs(1_500)) == sum(range(1_500))
    assert 0 < most < 3 * turn_writer.ROWS_A_COMMIT / turn_writer.ROWS_OF_CHILD


async def test_a_turn_of_which_a_later_commit_fails_is_completed_from_what_is_recorded(engines, monkeypatch):
    """What it had opened with the commits before is not opened again."""
    engine = await engines.file(*DEFINITIONS)
    monkeypatch.setattr(driver_module, "RELOAD_PAUSE", 0.01)
    record = driver_module.TurnWriter.record
    unfinished = []

    async def refuse():
        raise JournalIOError("a.db", "injected")

    def third(writer, decision, *others, **more):
        if not more.get("last", True):
            unfinished.append(decision)
            if len(unfinished) == 3:
                return refuse()
        return record(writer, decision, *others, **more)

    monkeypatch.setattr(driver_module.TurnWriter, "record", third)
    assert await engine.run(jobs(600)) == sum(range(600))
    assert len(unfinished) >= 3
    assert Counter(range(600)) == CALLS
