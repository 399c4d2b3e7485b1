"""
Steps alone, and steps replaced.
"""

import sqlite3

import pytest

from durable import Flow, Return, context, cursor, job, memo, replay, step, transaction, workflow
from durable.errors import DryRunError, EncodeError, UsageError
from durable.testing import (
    Call,
    assert_commands,
    assert_same_journal,
    journal_lines,
    parametrize_histories,
    replaced,
    run_step,
)
from tests.core.drive import World, run
from tests.histories import workflows

pytestmark = pytest.mark.anyio


@step
async def charge(ride_id: int, cents: int = 100) -> str:
    return f"real-{ride_id}-{cents}"


@job
def tell(ride_id: int) -> str:
    return f"real {ride_id}"


@transaction
def book(tx, name: str) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS rides (name TEXT)")
    return tx.execute("INSERT INTO rides VALUES (?)", (name,)).lastrowid


@workflow
async def ride(ride_id: int) -> Flow[list]:
    number: int = yield book("a")
    paid: str = yield charge(ride_id)
    told: str = yield tell(ride_id)
    yield Return([number, paid, told])


@workflow
async def trip(ride_id: int) -> Flow[list]:
    paid: str = yield charge(ride_id)
    told: str = yield tell(ride_id)
    yield Return([paid, told])


async def test_fakes_take_the_places_of_functions_and_give_them_back(engines):
    """
    In engines and outside; async for plain and plain for async; calls are kept.
    """

    async def told(ride_id: int) -> str:
        return "fake"

    engine = await engines.memory(ride, tell)
    with (
        replaced(charge, lambda ride_id, cents=100: "fake") as charges,
        replaced(tell, told) as tellings,
        replaced(book, lambda name: 7) as bookings,
    ):
        assert await engine.run(ride(3)) == [7, "fake", "fake"]
        assert await charge(9, cents=5) == "fake"
        assert charges == [Call((3,), {}), Call((9, 5), {})]
        assert [call.args for call in tellings] == [(3,)]
        assert [call.args for call in bookings] == [("a",)]
    assert await engine.run(ride(3)) == [1, "real-3-100", "real 3"]
    assert await charge(1) == "real-1-100"


async def test_a_fake_that_cannot_be_called_so_is_refused():
    """
    Before anything runs: the signatures are compared. Workflows are not replaced.
    """
    with pytest.raises(DryRunError, match="the fake of <step 'charge'>: it takes"):
        replaced(charge, lambda: "x")
    with pytest.raises(TypeError, match="replace the steps"):
        replaced(ride, lambda ride_id: [])
    with pytest.raises(TypeError, match="found 7"):
        replaced(7, lambda: None)
    with pytest.raises(ZeroDivisionError), replaced(tell, lambda ride_id: "x"):
        raise ZeroDivisionError
    assert tell.fn(1) == "real 1"


@step
async def crawl(pages: int) -> str:
    done = cursor(0)
    for page in range(done.value, pages):
        title = await memo("title", fetch, page)
        await done.advance(page + 1)
        if title == "page 2" and context().attempt == 1:
            raise ConnectionError(title)
    return f"{context().idempotency_key} {context().attempt} {context().labels.get('team')}"


async def fetch(page: int) -> str:
    return f"page {page}"


async def test_a_step_alone_has_context_cursor_and_memos():
    """
    The first attempt fails; the next goes on from what it left.
    """
    with pytest.raises(ConnectionError) as failed:
        await run_step(crawl(5), run_id="r", position="3.1")
    left = failed.value.__durable_left__
    found = await run_step(crawl(5), attempt=2, run_id="r", position="3.1", left=left, labels={"team": "a"})
    assert found.value == "r:3.1 2 a"
    assert found.cursor == 5
    assert set(found.memos) == {"title:1", "title:2", "title:3"}


async def test_jobs_transactions_and_what_cannot_be_recorded():
    """
    A transaction has a database of its own, or the one given; results are encoded and decoded.
    """
    assert (await run_step(tell(3))).value == "real 3"
    assert (await run_step(book("x"))).value == 1
    connection = sqlite3.connect(":memory:")
    await run_step(book("x"), tx=connection)
    assert (await run_step(book("y"), tx=connection)).value == 2
    connection.close()

    @step
    async def bad() -> float:
        return float("nan")

    with pytest.raises(EncodeError, match="result of step 'bad'"):
        await run_step(bad())
    with pytest.raises(UsageError, match="use an engine"):
        await run_step(ride(1))


async def test_nothing_of_a_steps_context_is_left_behind():
    """
    After it, the test is outside of a step again.
    """
    await run_step(charge(1))
    with pytest.raises(UsageError, match="works while a step"):
        context()


# --- journals ------------------------------------------------------------------------------------------


def test_a_journal_diff_shows_what_differs():
    """
    Commands and outcomes, not times and lines.
    """
    one, same, other = run(trip(1)).events, run(trip(1)).events, run(trip(2)).events
    assert_same_journal(one, same)
    with pytest.raises(AssertionError, match="the journals differ") as failed:
        assert_same_journal(other, one)
    assert "-StepSucceeded(position='0', value='\"real-1-100\"')" in str(failed.value)
    assert "+StepSucceeded(position='0', value='\"real-2-100\"')" in str(failed.value)
    assert_same_journal(other, one, ignoring=["value"])
    assert not any("at=" in line for line in journal_lines(one))


def test_commands_are_compared_by_position_and_name():
    """
    What the workflow asked for, in words.
    """
    events = run(trip(1)).events
    assert_commands(events, ["0 step 'charge'", "1 child 'tell'"])
    with pytest.raises(AssertionError, match="other commands") as failed:
        assert_commands(events, ["0 step 'charge'"])
    assert "+1 child 'tell'" in str(failed.value)
    world = World(ride(1))
    world.begin()
    assert_commands(world.events, ["0 transaction 'book'"])


@parametrize_histories("tests/histories")
def test_exported_journals_are_replayed(history):
    """
    Each run of a workflow in the folder is a test of its own.
    """
    assert replay(history, workflows).verify().verdict == "same"


def test_a_folder_without_histories_is_an_error(tmp_path):
    """
    A test that tests nothing must not pass.
    """
    with pytest.raises(ValueError, match="no exported runs"):
        parametrize_histories(tmp_path)
