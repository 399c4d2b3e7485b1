"""
Callbacks, queries and transactions from outside: the same calls on both engines.
"""

import asyncio
import sqlite3

import pytest
from attrs import frozen

from durable import (
    CallbackFailedError,
    CallbackValueError,
    Engine,
    HeartbeatMissedError,
    RunView,
    TokenEndedError,
    TokenError,
    TokenExpiredError,
    TokenForeignError,
    TokenMalformedError,
    TokenUsedError,
    Transaction,
    UsageError,
    callback,
    gather,
    job,
    set_attributes,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.temporal import AppTransactions, TemporalEngine

tokens: list[str] = []


@frozen
class Payment:
    amount: int


@step
async def hand_out(token: str) -> None:
    tokens.append(token)


@workflow
async def paid(timeout: float | None = None, heartbeat: float | None = None, then: float = 0) -> str:
    payment = await callback("payment", Payment, timeout=timeout, heartbeat=heartbeat)
    await hand_out(payment.token)
    set_attributes(state="asked")
    try:
        found = await payment
    except CallbackFailedError as error:
        return f"failed: {error}"
    except HeartbeatMissedError:
        return "silent"
    except TimeoutError:
        return "late"
    if then:
        await sleep(then)
    return f"paid {found.amount}"


@workflow
async def two() -> list[int]:
    first, second = await callback(int), await callback(int)
    await hand_out(first.token)
    await hand_out(second.token)
    return await gather(first, second)


@workflow
async def moved() -> int:
    payment = await callback(Payment)
    await hand_out(payment.token)
    await wait_for("go")
    return (await payment).amount


@paid.query
def state(view: RunView) -> tuple[str, list[str]]:
    return view.attributes.get("state", ""), [each.name for each in view.steps]


@job
def double(n: int) -> int:
    return 2 * n


ALL = [paid, two, moved, double]


@pytest.fixture(autouse=True)
def no_tokens():
    tokens.clear()


@pytest.fixture
async def engine(either_engine):
    """
    Of either kind, with all that the tests start.
    """
    return await either_engine(ALL)


async def handed_out(count=1):
    async with asyncio.timeout(20):
        while len(tokens) < count:
            await asyncio.sleep(0.01)
    return tokens[count - 1]


async def test_a_callback_is_completed_once(engine):
    """
    The same answer again is none; another one is refused, also when the run has ended.
    """
    run = await engine.start(paid(then=0.2))
    token = await handed_out()
    assert await engine.complete(token, Payment(3))
    assert not await engine.complete(token, Payment(3))
    with pytest.raises(TokenUsedError):
        await engine.complete(token, Payment(4))
    assert await run.result() == "paid 3"
    assert not await engine.complete(token, Payment(3))
    with pytest.raises(TokenUsedError):
        await engine.fail(token, "too late")
    with pytest.raises(TokenUsedError):
        await engine.heartbeat(token)


async def test_an_answer_of_another_type_is_refused_and_the_callback_stays_open(engine):
    """
    Who answers hears what is wrong.
    """
    run = await engine.start(paid())
    token = await handed_out()
    with pytest.raises(CallbackValueError, match="payment"):
        await engine.complete(token, "three")
    await engine.complete(token, Payment(3))
    assert await run.result() == "paid 3"


async def test_a_failure_is_raised_where_it_is_awaited(engine):
    """
    A text as a `CallbackFailedError`; the second answer is refused.
    """
    run = await engine.start(paid())
    assert await engine.fail(await handed_out(), "no money")
    assert await run.result() == "failed: no money"
    with pytest.raises(TypeError):
        await engine.fail(tokens[0], 3)


async def test_a_callback_has_a_deadline(engine):
    """
    Counted from when it was made; who is late hears that.
    """
    run = await engine.start(paid(timeout=0.1))
    assert await run.result() == "late"
    with pytest.raises(TokenExpiredError):
        await engine.complete(await handed_out(), Payment(3))


async def test_one_that_is_silent_is_given_up(engine):
    """
    A heartbeat keeps it open, and nothing is in the history of it.
    """
    run = await engine.start(paid(heartbeat=1.0))
    token = await handed_out()
    for _ in range(3):
        await asyncio.sleep(0.5)
        await engine.heartbeat(token)
    assert await run.result() == "silent"
    with pytest.raises(TokenExpiredError):
        await engine.heartbeat(token)
    assert [event.kind for event in await run.history()].count("HeartbeatMissed") == 1


async def test_several_callbacks_are_answered_in_any_order(engine):
    """
    Each value goes to its own.
    """
    run = await engine.start(two())
    await handed_out(2)
    await engine.complete(tokens[1], 2)
    await engine.complete(tokens[0], 1)
    assert await run.result() == [1, 2]


async def test_tokens_that_are_none_are_told_apart(engine):
    """
    Malformed, of nobody, of a run that has ended unanswered.
    """
    with pytest.raises(TokenMalformedError):
        await engine.complete("cb1_nonsense", 1)
    run = await engine.start(paid())
    token = await handed_out()
    await run.cancel()
    with pytest.raises(Exception, match="cancel"):
        await run.result()
    with pytest.raises(TokenEndedError):
        await engine.complete(token, Payment(3))
    async with Engine(":memory:", ALL) as other:
        await other.start(paid(), id="elsewhere")
        with pytest.raises(TokenForeignError):
            await engine.complete(await handed_out(2), Payment(3))
    assert issubclass(TokenForeignError, TokenError)


async def test_a_run_is_queried_while_it_waits_and_when_it_has_ended(engine):
    """
    By a function of its workflow's, or the name of one.
    """
    run = await engine.start(paid())
    token = await handed_out()
    async with asyncio.timeout(20):
        while await run.query(state) != ("asked", ["hand_out"]):
            await asyncio.sleep(0.02)
    await engine.complete(token, Payment(3))
    await run.result()
    assert (await run.query("state"))[0] == "asked"
    with pytest.raises(UsageError, match="no query"):
        await run.query("nothing")


async def test_a_token_holds_where_its_run_moves(client, queue, tmp_path):
    """
    From a file to a server, with the callback open.
    """
    async with Engine(":memory:", ALL) as file:
        run = await file.start(moved(), id=f"moving-{queue}")
        token = await handed_out()
        await run.pause()
        await file.export(run.id, tmp_path / "exported.jsonl")
    async with TemporalEngine(client, queue, ALL) as engine:
        await engine.import_runs(tmp_path / "exported.jsonl")
        there = engine.get(run.id)
        await there.resume()
        assert await engine.complete(token, Payment(5))
        await there.signal("go")
        assert await there.result() == 5


@transaction
def create_order(tx: Transaction, n: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS orders (n INTEGER PRIMARY KEY)")
    tx.execute("INSERT INTO orders VALUES (?)", (n,))
    tx.enqueue(double(n), key=f"double-{n}-of-{id(tokens)}")
    return n


async def test_a_handler_commits_its_rows_with_the_runs_that_they_need(client, queue, tmp_path):
    """
    In the application's database: rows and the run, or neither; without one it is refused.
    """
    path = tmp_path / "app.db"
    transactions = AppTransactions(lambda: sqlite3.connect(path))
    async with TemporalEngine(client, queue, [double], transactions=transactions) as engine:
        assert await engine.transact(create_order(7)) == 7
        assert await (await engine.find(f"double-7-of-{id(tokens)}")).result() == 14
        with pytest.raises(sqlite3.IntegrityError):
            await engine.transact(create_order(7))
    async with TemporalEngine(client, queue, [double], poll=()) as engine:
        with pytest.raises(UsageError, match="AppTransactions"):
            await engine.transact(create_order(8))
