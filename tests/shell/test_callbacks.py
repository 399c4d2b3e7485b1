"""
Callbacks: a token that somebody outside answers, once, from any process; and what is wrong with one, told apart.
"""

import asyncio
import contextlib
import os
import sqlite3
from typing import Any

import pytest
from anyio import to_thread
from attrs import frozen

from durable import (
    CallbackFailedError,
    CallbackValueError,
    Client,
    EncodeError,
    Engine,
    Flow,
    HeartbeatMissedError,
    Return,
    RunCancelledError,
    RunFailedError,
    TokenEndedError,
    TokenError,
    TokenExpiredError,
    TokenForeignError,
    TokenMalformedError,
    TokenUsedError,
    callback,
    continue_as,
    gather,
    sleep,
    step,
    workflow,
)

pytestmark = pytest.mark.anyio


@frozen
class Payment:
    id: str
    cents: int = 0


HANDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_handed_out():
    HANDED.clear()


@step
async def hand_out(token: str) -> None:
    HANDED.append(token)


@workflow
async def order(timeout: float | None = None, heartbeat: float | None = None) -> Flow[Payment]:
    payment = yield callback("payment", Payment, timeout=timeout, heartbeat=heartbeat)
    yield hand_out(payment.token)
    paid: Payment = yield payment
    yield Return(paid)


@workflow(retry=2)
async def persistent() -> Flow[Any]:
    answer = yield callback()
    yield hand_out(answer.token)
    yield Return((yield answer))


@workflow
async def endless(rounds: int) -> Flow[Any]:
    answer = yield callback("answer")
    yield hand_out(answer.token)
    if rounds:
        yield continue_as(endless(rounds - 1))
    yield Return((yield answer))


async def waiting(engine, reached, op=None, **options):
    """
    A run that was freed, and the token that it has handed out.
    """
    run = await engine.start(order() if op is None else op, **options)
    await reached(run, "waiting")
    return run, HANDED[-1]


async def handed_out(eventually, count):
    """
    Wait until so many tokens are.
    """

    async def there():
        return len(HANDED) >= count

    await eventually(there)


async def test_a_value_completes_it(engines, reached):
    """
    The freed run gets it as its type; what is recorded says nothing else.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    assert await engine.complete(token, Payment("p-1", 500)) is True
    assert await run.result(5) == Payment("p-1", 500)
    assert [each.kind for each in await run.history()][-3:] == ["CallbackAwaited", "CallbackCompleted", "RunSucceeded"]


@pytest.mark.parametrize(
    "error, raised", [(KeyError("card"), KeyError("card")), ("declined", CallbackFailedError("declined"))]
)
async def test_a_failure_raises_in_the_workflow_as_what_it_was(engines, reached, error, raised):
    """
    As one of a step does; a text is an error of its own, with that text.
    """
    engine = await engines.memory(order)
    run, token = await waiting(engine, reached)
    assert await engine.fail(token, error) is True
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert type(caught.value.__cause__) is type(raised)
    assert str(caught.value.__cause__) == str(raised)


async def test_an_equal_answer_again_is_accepted_and_another_is_not(engines, reached):
    """
    Whoever delivers it at least once need not know whether he has; also once the run has ended.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    assert await engine.complete(token, Payment("p")) is True
    for _ in range(2):
        assert await engine.complete(token, Payment("p")) is False
        with pytest.raises(TokenUsedError, match="completed already with something else"):
            await engine.complete(token, Payment("q"))
        with pytest.raises(TokenUsedError, match="completed already"):
            await engine.fail(token, "declined")
        with pytest.raises(TokenUsedError):
            await engine.heartbeat(token)
        await run.result(5)


async def test_an_equal_failure_again_is_accepted(engines, reached):
    """
    As an equal value is.
    """
    engine = await engines.file(order)
    _, token = await waiting(engine, reached)
    assert await engine.fail(token, ValueError("no")) is True
    assert await engine.fail(token, ValueError("no")) is False
    with pytest.raises(TokenUsedError, match="failed already with something else"):
        await engine.fail(token, ValueError("yes"))
    with pytest.raises(TokenUsedError, match="failed already"):
        await engine.complete(token, Payment("p"))


@pytest.mark.parametrize("wrong", ["p-1", None, {"cents": 5}, Payment])
async def test_a_wrong_type_is_refused_at_the_caller_and_nothing_is_lost(engines, reached, wrong):
    """
    The callback stays open, nothing is recorded, and the right value completes it.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    before = len(await run.history())
    with pytest.raises((CallbackValueError, EncodeError)):
        await engine.complete(token, wrong)
    assert len(await run.history()) == before
    assert await engine.complete(token, Payment("p")) is True
    assert await run.result(5) == Payment("p")


async def test_a_wrong_type_is_refused_over_the_socket_too(engines, reached, tmp_db):
    """
    A client knows no type: the owner does.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    async with Client(tmp_db) as client:
        with pytest.raises(CallbackValueError, match=r"expected .*Payment"):
            await client.complete(token, "p-1")
        assert await client.complete(token, Payment("p")) is True
        assert await client.complete(token, Payment("p")) is False
        with pytest.raises(TokenUsedError):
            await client.fail(token, "no")
    assert await run.result(5) == Payment("p")


async def test_a_client_answers_where_nobody_owns_the_file(engines, reached, tmp_db):
    """
    It is recorded at once, and the next engine delivers it. What it cannot know to be wrong is raised in the workflow.
    """
    engine = await engines.file(order)
    (good, token), (bad, other) = await waiting(engine, reached), await waiting(engine, reached)
    await engine.aclose()
    async with Client(tmp_db) as client:
        assert await client.complete(token, Payment("p")) is True
        assert await client.complete(token, Payment("p")) is False
        assert await client.complete(other, "wrong") is True
    engine = await engines.file(order)
    assert await engine.get(good.id).result(5) == Payment("p")
    with pytest.raises(RunFailedError) as caught:
        await engine.get(bad.id).result(5)
    assert isinstance(caught.value.__cause__, CallbackValueError)


async def test_its_deadline_counts_from_when_it_was_made(engines, reached, clock):
    """
    Behind it the workflow has a TimeoutError, and whoever answers is told.
    """
    engine = await engines.file(order, clock=clock)
    run, token = await waiting(engine, reached, order(timeout=60))
    assert "answer to callback 'payment' at 0 (due in 1 min)" in await run.why()
    clock.advance(61)
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, TimeoutError)
    with pytest.raises(TokenExpiredError, match="deadline is over"):
        await engine.complete(token, Payment("p"))


async def test_a_heartbeat_keeps_it_alive_and_is_no_event(engines, reached, clock):
    """
    Each counts from itself; the history does not grow.
    """
    engine = await engines.file(order, clock=clock)
    run, token = await waiting(engine, reached, order(heartbeat=10))
    before = len(await run.history())
    for _ in range(5):
        clock.advance(8)
        await engine.heartbeat(token)
    assert len(await run.history()) == before
    assert await run.status() == "waiting"
    clock.advance(11)
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, HeartbeatMissedError)
    with pytest.raises(TokenExpiredError, match="heartbeat was missed"):
        await engine.heartbeat(token)


async def test_a_heartbeat_does_not_move_the_deadline(engines, reached, clock):
    """
    Whoever is alive and never done is out of time all the same.
    """
    engine = await engines.file(order, clock=clock)
    run, token = await waiting(engine, reached, order(timeout=20, heartbeat=10))
    for _ in range(2):
        clock.advance(8)
        await engine.heartbeat(token)
    clock.advance(5)
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert type(caught.value.__cause__) is TimeoutError


async def test_an_answer_that_is_late_by_a_moment_is_late(engines, reached, clock):
    """
    Also if no engine was there whose timer could have said so.
    """
    engine = await engines.file(order, clock=clock)
    _, token = await waiting(engine, reached, order(heartbeat=10))
    await engine.aclose()
    clock.advance(30)
    async with Client(engine.path, clock=clock) as client:
        with pytest.raises(TokenExpiredError, match="heartbeat was missed"):
            await client.complete(token, Payment("p"))


async def test_the_token_of_another_file_is_refused(engines, reached, tmp_path):
    """
    Whether that has a run of this id or not: a late answer goes nowhere else.
    """
    engine = await engines.file(order)
    await waiting(engine, reached, id="order-1")
    async with Engine(tmp_path / "other.db", [order]) as other:
        for run_id in ("order-1", "order-2"):
            run = await other.start(order(), id=run_id)
            await reached(run, "waiting")
    for token in HANDED[1:]:
        with pytest.raises(TokenForeignError, match="of another file"):
            await engine.complete(token, Payment("p"))


async def test_the_token_of_a_run_that_has_ended_is_refused(engines, reached):
    """
    With how it ended.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    await run.cancel()
    await reached(run, "cancelled")
    for call in (engine.complete(token, Payment("p")), engine.fail(token, "no"), engine.heartbeat(token)):
        with pytest.raises(TokenEndedError, match=r"the run has ended \(cancelled\)"):
            await call
    await engine.delete(run.id)
    with pytest.raises(TokenForeignError, match="or the run was pruned"):
        await engine.complete(token, Payment("p"))


@pytest.mark.parametrize("token", ["", "payment", "cb1_", "cb1_!", 7, None, b"cb1_AAECAwQFBgcICQoLMy4xIHI"])
async def test_what_is_no_token_is_told_so(engines, token):
    """
    In each call, and before anything is asked.
    """
    engine = await engines.memory(order)
    for call in (engine.complete(token), engine.fail(token, "no"), engine.heartbeat(token)):
        with pytest.raises(TokenMalformedError, match="this is no token of a callback"):
            await call


async def test_the_attempt_of_the_run_that_asked_is_the_one_that_is_answered(engines, reached, eventually):
    """
    A whole run that is tried again asks again, by another token; the old one goes nowhere.
    """
    engine = await engines.memory(persistent)
    run, first = await waiting(engine, reached, persistent().options(retry=2))
    await engine.fail(first, "try again")
    await handed_out(eventually, 2)
    await reached(run, "waiting")
    with pytest.raises(TokenEndedError, match="attempt of the run that asked is over"):
        await engine.complete(first, 1)
    await engine.complete(HANDED[1], 2)
    assert await run.result(5) == 2


async def test_a_run_that_is_retried_by_hand_is_answered_by_the_same_token(engines, reached):
    """
    The step that handed it out is not repeated.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    await engine.fail(token, "declined")
    await reached(run, "failed")
    with pytest.raises(TokenUsedError):
        await engine.complete(token, Payment("p"))
    assert await run.retry()
    await reached(run, "waiting")
    assert await engine.complete(token, Payment("p")) is True
    assert await run.result(5) == Payment("p")
    assert [token] == HANDED


async def test_a_fork_is_not_answered_by_the_token_of_the_run(engines, reached, eventually):
    """
    It waits by its own, which a step hands out if it is executed anew.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    fork = await run.fork(1)
    await handed_out(eventually, 2)
    await engine.complete(token, Payment("mine"))
    assert await run.result(5) == Payment("mine")
    assert await fork.status() != "succeeded"
    await engine.complete(HANDED[1], Payment("the fork's"))
    assert await fork.result(5) == Payment("the fork's")


async def test_what_a_run_continues_as_is_not_answered_by_its_token(engines, reached, eventually):
    """
    The answer was to a question of another run.
    """
    engine = await engines.file(endless)
    run, _ = await waiting(engine, reached, endless(0))
    await run.cancel()
    HANDED.clear()
    run = await engine.start(endless(1), id="e")
    await handed_out(eventually, 2)
    with pytest.raises(TokenEndedError, match="continued as 'e~2'"):
        await engine.complete(HANDED[0], 1)
    await engine.complete(HANDED[1], 2)
    assert await run.result(5) == 2


async def test_an_answer_is_kept_by_a_paused_run(engines, reached):
    """
    As a signal is.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached)
    await run.pause()
    assert await engine.complete(token, Payment("p")) is True
    assert await engine.complete(token, Payment("p")) is False
    await run.resume()
    assert await run.result(5) == Payment("p")


async def test_what_waits_for_it_names_it(engines, reached, tmp_db):
    """
    `why()`, lists of runs, and the view `waits` of the file.
    """
    engine = await engines.file(order)
    run, _ = await waiting(engine, reached, order(heartbeat=60))
    assert (await run.why()).startswith(f"run {run.id!r} waits for the answer to callback 'payment' at 0, for ")
    with sqlite3.connect(tmp_db) as conn:
        assert conn.execute("SELECT kind, name FROM waits ORDER BY kind").fetchall() == [
            ("callback", "payment"),
            ("heartbeat", None),
        ]
    await run.cancel()


async def test_the_same_token_is_for_every_one_of_them(engines, reached):
    """
    All errors of tokens are `TokenError`s, so that a webhook catches one.
    """
    for error in (TokenUsedError, TokenExpiredError, TokenEndedError, TokenForeignError, TokenMalformedError):
        assert issubclass(error, TokenError)


async def test_many_callbacks_are_answered_each_by_its_own(engines, reached, eventually):
    """
    In whatever order; none gets what is another's.
    """

    @workflow
    async def many() -> list[int]:
        handles = await gather(*(callback(f"n-{number}", int) for number in range(30)))
        await gather(*(hand_out(handle.token) for handle in handles))
        return await gather(*handles)

    engine = await engines.memory(many)
    run = await engine.start(many())
    await handed_out(eventually, 30)
    assert len(set(HANDED)) == 30
    for number, token in reversed(list(enumerate(HANDED))):
        await engine.complete(token, number)
    assert await run.result(20) == list(range(30))


async def test_it_is_not_lost_while_the_run_does_something_else(engines, eventually):
    """
    An answer during a timer, a step, or before anybody awaits it, is there when it is.
    """

    @workflow
    async def busy() -> Any:
        handle = await callback(int)
        await hand_out(handle.token)
        await sleep(0.3)
        return await handle

    engine = await engines.file(busy)
    run = await engine.start(busy())
    await handed_out(eventually, 1)
    await engine.complete(HANDED[0], 7)
    assert await run.result(5) == 7


async def test_it_is_answered_from_a_thread(engines, reached):
    """
    As a webhook of a synchronous framework does.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached, order(heartbeat=60))
    await to_thread.run_sync(engine.from_thread.heartbeat, token)
    with pytest.raises(CallbackValueError):
        await to_thread.run_sync(engine.from_thread.complete, token, 7)
    assert await to_thread.run_sync(engine.from_thread.complete, token, Payment("p")) is True
    with pytest.raises(TokenUsedError):
        await to_thread.run_sync(engine.from_thread.fail, token, "no")
    assert await run.result(5) == Payment("p")


async def test_a_run_that_moves_to_another_file_takes_its_token_along(engines, reached, tmp_path):
    """
    Exported and imported, it is the same run; a redacted export has no token that is of use.
    """
    engine = await engines.file(order)
    run, token = await waiting(engine, reached, order(heartbeat=60))
    await engine.export(run.id, tmp_path / "moved.jsonl")
    await engine.export(run.id, tmp_path / "redacted.jsonl", redact=lambda where: where.value)
    nonce = next(each.event.nonce for each in await run.history() if each.kind == "CallbackOpened")
    assert nonce in (tmp_path / "moved.jsonl").read_text()
    assert nonce not in (tmp_path / "redacted.jsonl").read_text()
    async with Engine(tmp_path / "other.db", [order]) as other:
        await other.import_runs(tmp_path / "moved.jsonl")
        await other.get(run.id).resume()
        await other.heartbeat(token)
        assert await other.complete(token, Payment("p")) is True
        assert await other.get(run.id).result(5) == Payment("p")


async def test_answers_that_are_encrypted_are_compared_by_what_they_mean(engines, reached, tmp_db):
    """
    Hooks may never write the same twice.
    """

    class Salted:
        def encode(self, data):
            return os.urandom(8) + data[::-1]

        def decode(self, data):
            return data[8:][::-1]

    engine = await engines.file(order, codec=Salted())
    run, token = await waiting(engine, reached)
    async with Client(tmp_db, codec=Salted()) as client:
        assert await client.complete(token, Payment("p")) is True
        assert await client.complete(token, Payment("p")) is False
        with pytest.raises(TokenUsedError):
            await client.complete(token, Payment("q"))
    assert await run.result(5) == Payment("p")


async def test_the_time_for_an_answer_and_for_a_heartbeat_may_be_over_together(engines, reached, clock):
    """
    While nobody had the file: what was due first is what the workflow gets, and it is one thing.
    """
    engine = await engines.file(order, clock=clock)
    run, token = await waiting(engine, reached, order(timeout=20, heartbeat=10))
    await engine.aclose()
    clock.advance(100)
    engine = await engines.file(order, clock=clock)
    with pytest.raises(RunFailedError) as caught:
        await engine.get(run.id).result(5)
    assert isinstance(caught.value.__cause__, HeartbeatMissedError)
    with pytest.raises(TokenExpiredError):
        await engine.complete(token, Payment("p"))


async def test_an_answer_behind_a_heartbeat_that_was_missed_is_not_acknowledged(engines, reached, clock):
    """
    Also while the run is paused, and has not taken in that it was.
    """
    engine = await engines.file(order, clock=clock)
    run, token = await waiting(engine, reached, order(heartbeat=10))
    await run.pause()
    clock.advance(11)
    await engine.idle()
    with pytest.raises(TokenExpiredError, match="heartbeat was missed"):
        await engine.complete(token, Payment("p"))
    await run.resume()
    with pytest.raises(RunFailedError):
        await run.result(5)


async def test_nothing_is_left_of_it_once_its_run_has_ended(engines, reached, strays):
    """
    No row waits for what nobody will answer.
    """
    engine = await engines.file(order)
    runs = [await waiting(engine, reached, order(timeout=60, heartbeat=60)) for _ in range(3)]
    await engine.complete(runs[0][1], Payment("p"))
    await engine.fail(runs[1][1], "no")
    await runs[2][0].cancel()
    for run, _ in runs:
        with contextlib.suppress(RunFailedError, RunCancelledError):
            await run.result(5)
    assert not await strays(engine)


def collecting(begun, count):
    """
    A workflow that waits for *count* callbacks at once; *begun* grows with each of its replays.
    """

    @workflow
    async def collect() -> Flow[int]:
        begun.append(1)
        open_ones = []
        for _ in range(count):
            one = yield callback("number", int)
            open_ones.append(one)
        yield hand_out(" ".join(one.token for one in open_ones))
        numbers: list[int] = yield gather(*open_ones)
        yield Return(sum(numbers))

    return collect


async def test_a_run_is_replayed_once_for_the_types_of_all_its_callbacks(engines, reached):
    """
    And once for each answer that wakes it; not twice for each. What is of another type is refused, and may come again.
    """
    collect = collecting(begun := [], 6)
    engine = await engines.memory(collect)
    run = await engine.start(collect())
    await reached(run, "waiting")
    tokens, before = HANDED[0].split(), len(begun)
    for number, token in enumerate(tokens):
        for _ in range(2):
            with pytest.raises(CallbackValueError):
                await engine.complete(token, "many")
        await engine.complete(token, number)
        if token != tokens[-1]:
            await reached(run, "waiting")
    assert await run.result(5) == 15
    assert len(begun) - before <= len(tokens) + 1


async def test_a_run_is_replayed_once_for_a_hundred_answers_that_come_at_once(engines, reached):
    """
    To learn the types of all its callbacks, and once more when they are there.
    """
    collect = collecting(begun := [], 100)
    engine = await engines.memory(collect)
    run = await engine.start(collect())
    await reached(run, "waiting")
    tokens, before = HANDED[0].split(), len(begun)
    await asyncio.gather(*(engine.complete(token, 1) for token in tokens))
    assert await run.result(5) == 100
    assert len(begun) - before <= 4
