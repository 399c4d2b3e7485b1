"""
`signal_run` and `cancel_run` in a workflow: exactly once, with the turn that records them, whatever crashes.
"""

from __future__ import annotations

import pytest

from durable import (
    Flow,
    Return,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    Signal,
    cancel_run,
    continue_as,
    current,
    gather,
    settle,
    signal_run,
    start,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import RunStateError
from durable.testing import every_crash

PAID = Signal("paid", int)


@workflow
async def till(payments: int) -> Flow[list[int]]:
    """Takes in so many payments."""
    taken: list[int] = []
    for _ in range(payments):
        amount: int = yield wait_for(PAID)
        taken.append(amount)
    yield Return(taken)


@workflow
async def payer(till_id: str, amounts: list[int]) -> Flow[None]:
    """Pays, in order."""
    for amount in amounts:
        yield signal_run(till_id, PAID, amount)


@workflow
async def canceller(run_id: str) -> Flow[bool]:
    """Cancels a run."""
    asked: bool = yield cancel_run(run_id, "closing time")
    yield Return(asked)


DEFINITIONS = [till, payer, canceller]


async def test_a_workflow_signals_and_cancels_other_runs(engines, reached):
    """
    As `run.signal` and `run.cancel` do: in order, and with what these result in.
    """
    engine = await engines.memory(*DEFINITIONS)
    run = await engine.start(till(3))
    await reached(run, "waiting")
    assert await engine.run(payer(run.id, [1, 2])) is None
    await reached(run, "waiting")
    await engine.run(payer(run.id, [3]))
    assert await run.result(5) == [1, 2, 3]
    assert await engine.run(canceller(run.id)) is False
    other = await engine.start(till(1))
    assert await engine.run(canceller(other.id)) is True
    with pytest.raises(RunCancelledError, match="closing time"):
        await other.result(5)


@workflow
async def tells(run_id: str) -> Flow[list[str]]:
    """Says what came of each."""
    signalled = yield settle(signal_run(run_id, "paid", 1))
    cancelled = yield settle(cancel_run(run_id))
    yield Return([type(each.error).__name__ for each in (signalled, cancelled)])


async def test_a_run_that_is_not_there_or_has_ended_raises_at_the_command(engines):
    """
    RunNotFoundError for an id of no run, RunStateError for a signal to one that has ended; uncaught, it fails the run.
    """
    engine = await engines.memory(tells, *DEFINITIONS)
    ended = await engine.start(till(0))
    await ended.result(5)
    assert await engine.run(tells("nobody")) == ["RunNotFoundError", "RunNotFoundError"]
    assert await engine.run(tells(ended.id)) == ["RunStateError", "NoneType"]
    with pytest.raises(RunFailedError) as failed:
        await engine.run(payer("nobody", [1]))
    cause = failed.value.__cause__
    assert isinstance(cause, RunNotFoundError)
    assert "nobody" in str(cause)
    with pytest.raises(RunFailedError) as failed:
        await engine.run(payer(ended.id, [1]))
    cause = failed.value.__cause__
    assert isinstance(cause, RunStateError)
    assert "it is succeeded" in str(cause)


@workflow
async def family() -> Flow[list[int]]:
    """Pays into a child in the turn that starts it."""
    child = yield start(till(2))
    yield gather(signal_run(child.run_id, PAID, 1), signal_run(child.run_id, PAID, 2))
    taken: list[int] = yield child.result()
    yield Return(taken)


async def test_a_child_that_was_only_just_started_can_be_signalled(engines):
    """
    Its id is known at once, and its row written before what is asked of it.
    """
    engine = await engines.memory(family, till)
    assert await engine.run(family()) == [1, 2]


@workflow
async def own(how: str) -> Flow[str]:
    """Signals, or cancels, itself."""
    if how == "signal":
        yield signal_run(current().run_id, "note", "to myself")
        note: str = yield wait_for("note", str)
        yield Return(note)
    yield cancel_run(current().run_id, "enough of me")


async def test_a_run_may_ask_itself(engines):
    """
    Its own inbox is like that of any other run.
    """
    engine = await engines.memory(own)
    assert await engine.run(own("signal")) == "to myself"
    with pytest.raises(RunCancelledError, match="enough of me"):
        await engine.run(own("cancel"))


@workflow
async def first_of_chain(payments: int) -> Flow[list[int]]:
    """Continues as a till."""
    yield wait_for("on")
    yield continue_as(till(payments))


async def test_a_signal_follows_the_run_that_continued(engines, eventually):
    """
    The id of the first of a chain is enough.
    """
    engine = await engines.memory(first_of_chain, *DEFINITIONS)
    run = await engine.start(first_of_chain(1))
    await run.signal("on")

    async def continued():
        return len([each async for each in engine.runs(workflow="till")]) == 1

    await eventually(continued)
    await engine.run(payer(run.id, [7]))
    assert await run.result(5) == [7]


@transaction
def booked(tx) -> None:
    """Writes nothing."""
    tx.execute("SELECT 1")


@workflow
async def between_transactions(run_id: str) -> Flow[None]:
    """Its turns are written in the transaction of its transactions, too."""
    yield booked()
    yield gather(signal_run(run_id, PAID, 1), booked())
    yield signal_run(run_id, PAID, 2)
    yield booked()


async def test_what_is_asked_beside_a_transaction_is_asked_once(engines):
    """
    Several turns may share a transaction of the file.
    """
    engine = await engines.memory(between_transactions, *DEFINITIONS)
    run = await engine.start(till(3))
    await engine.run(between_transactions(run.id))
    await engine.run(payer(run.id, [3]))
    assert await run.result(5) == [1, 2, 3]


broken = {"now": True}


@step
async def may_fail() -> None:
    """Fails until it is mended."""
    if broken["now"]:
        raise ValueError


@workflow
async def pays_and_fails(run_id: str) -> Flow[None]:
    """The answer to its signal comes when it has failed already."""
    yield gather(signal_run(run_id, PAID, 1), may_fail(), fail_fast=True)


@workflow
async def fails_at_once(run_id: str) -> Flow[None]:
    """A failure in the turn that sends: its answer is that of an ended run."""

    async def sends() -> None:
        await signal_run(run_id, PAID, 1)

    async def breaks() -> None:
        if broken["now"]:
            raise ValueError

    yield gather(sends(), breaks(), fail_fast=True)


@pytest.mark.parametrize("op", [pays_and_fails, fails_at_once])
async def test_a_retry_sends_no_signal_twice(engines, op):
    """
    What was sent stays sent, also where the run ended before it had the answer.
    """
    broken["now"] = True
    engine = await engines.memory(op, *DEFINITIONS)
    run = await engine.start(till(2))
    sender = await engine.start(op(run.id))
    with pytest.raises(RunFailedError):
        await sender.result(5)
    broken["now"] = False
    await sender.retry()
    await sender.result(5)
    await engine.run(payer(run.id, [2]))
    assert await run.result(5) == [1, 2]


async def test_what_was_asked_is_replayed_and_not_asked_again(engines, reached):
    """
    An engine that replays each run after each turn sends no more than another; nor does one that opens the file later.
    """
    engine = await engines.file(*DEFINITIONS, replay_always=True)
    run = await engine.start(till(3))
    await engine.run(payer(run.id, [1, 2]))
    await reached(run, "waiting")
    await engines.crash(engine)
    engine = await engines.file(*DEFINITIONS)
    run = engine.get(run.id)
    await engine.run(payer(run.id, [3]))
    assert await run.result(5) == [1, 2, 3]


@workflow
async def market() -> Flow[list[object]]:
    """A till of its own, that is paid; and one that is closed."""
    paid = yield start(till(2))
    closed = yield start(till(1))
    yield signal_run(paid.run_id, PAID, 1)
    asked: bool = yield cancel_run(closed.run_id, "closing time")
    yield signal_run(paid.run_id, PAID, 2)
    missing = yield settle(signal_run("nobody", "paid"))
    taken: list[int] = yield paid.result()
    end = yield settle(closed.result())
    yield Return([asked, taken, type(missing.error).__name__, str(end.error)])


@pytest.mark.long
def test_a_crash_at_any_commit_neither_loses_nor_doubles_what_was_asked():
    """
    Before and after each commit of the journal.
    """
    survived = every_crash(market(), [market, till])
    assert survived.commits > 5
