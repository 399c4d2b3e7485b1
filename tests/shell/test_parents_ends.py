"""What becomes of children, staged runs and shared children when their parent ends or no longer waits for them."""

from __future__ import annotations

import pytest

from durable import (
    Engine,
    Flow,
    Return,
    RunCancelledError,
    RunFailedError,
    job,
    race,
    settle,
    sleep,
    start,
    timeout,
    transaction,
    wait_for,
    workflow,
)


@workflow
async def kid(n: int) -> Flow[str]:
    """Ends when it is told to."""
    yield wait_for("go")
    yield Return(f"kid {n}")


@job
async def mail(order: int) -> int:
    """Sends nothing."""
    return order


@transaction
def book(tx, order: int) -> str:
    """An order, and the mail about it."""
    tx.execute("CREATE TABLE IF NOT EXISTS orders (id)")
    tx.execute("INSERT INTO orders VALUES (?)", (order,))
    return tx.enqueue(mail(order).options(delay=0.05))


@workflow
async def shop(order: int, how: str) -> Flow[None]:
    """Books, stages a mail, and comes to a bad end."""
    yield book(order)
    if how == "fails":
        raise ValueError
    yield wait_for("never")


@pytest.mark.parametrize("how", ["cancelled", "fails"])
async def test_a_staged_run_runs_whatever_becomes_of_the_run_that_staged_it(engines, reached, how):
    """
    Its rows are committed with those it is about: it is nobody's child for cancelling.
    """
    engine = await engines.memory(shop, mail)
    run = await engine.start(shop(7, how))
    await reached(run, "waiting" if how == "cancelled" else "failed")
    if how == "cancelled":
        await run.cancel("changed my mind")
    with pytest.raises(RunCancelledError if how == "cancelled" else RunFailedError):
        await run.result()
    (staged,) = await run.children()
    assert await engine.get(staged.run_id).result() == 7


@workflow
async def starts(on_parent_end: str) -> Flow[str]:
    """Starts a child, and waits for something else."""
    child = yield start(kid(1), on_parent_end=on_parent_end)  # type: ignore[arg-type]  # a literal of the test's
    yield wait_for("end")
    yield Return(child.run_id)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "ended"])
async def test_a_started_child_is_left_alone_unless_it_is_tied(engines, reached, cancelled):
    """
    `start` abandons by default; `on_parent_end="cancel"` asks the child to end once its parent has, in any way.
    """
    engine = await engines.memory(starts, kid)
    runs = {how: await engine.start(starts(how)) for how in ("abandon", "cancel")}
    for run in runs.values():
        await reached(run, "waiting")
        if cancelled:
            await run.cancel()
        else:
            await run.signal("end")
        if cancelled:
            with pytest.raises(RunCancelledError):
                await run.result()
        else:
            await run.result()
    (tied,) = await runs["cancel"].children()
    with pytest.raises(RunCancelledError, match="its parent has ended"):
        await engine.get(tied.run_id).result()
    (free,) = await runs["abandon"].children()
    await engine.get(free.run_id).signal("go")
    assert await engine.get(free.run_id).result() == "kid 1"


def test_what_is_no_choice_is_refused_where_it_is_written():
    """
    A misspelled `on_parent_end` raises at once.
    """
    with pytest.raises(ValueError, match="must be abandon or cancel, found 'stop'"):
        start(kid(1), on_parent_end="stop")  # type: ignore[arg-type]  # what is tested


@workflow
async def impatient() -> Flow[str]:
    """Waits for a started child, not for long; then races it."""
    child = yield start(kid(2))
    yield settle(timeout(child.result(), 0.02))
    yield race(child.result(), sleep(0.02))
    yield Return(child.run_id)


async def test_a_timeout_or_race_over_the_result_of_a_child_leaves_it_alone(engines):
    """
    Who waits for a handle's result has not asked for the run, and does not end it.
    """
    engine = await engines.memory(impatient, kid)
    child = engine.get(await engine.run(impatient()))
    await child.signal("go")
    assert await child.result() == "kid 2"


@workflow
async def awaits(key: str, seconds: float) -> Flow[str]:
    """Awaits a child with a key, for a while."""
    ended = yield settle(timeout(kid(3).options(key=key), seconds))
    yield Return(repr(ended.error) if ended.error else ended.value)


async def test_a_shared_child_ends_only_when_nobody_wants_it(engines, reached):
    """
    A keyed child that another parent or a caller joined survives the timeout of the parent that was first.
    """
    engine = await engines.memory(awaits, kid)
    first = await engine.start(awaits("shared", 0.2))
    await reached(first, "waiting")
    second = await engine.start(awaits("shared", 60))
    await reached(second, "waiting")
    assert "TimeoutError" in await first.result()
    child = await engine.find("shared")
    await child.signal("go")
    assert await second.result() == "kid 3"

    third = await engine.start(awaits("joined", 0.2))
    await reached(third, "waiting")
    outside = await engine.start(kid(3), key="joined")
    assert "TimeoutError" in await third.result()
    await outside.signal("go")
    assert await outside.result() == "kid 3"

    alone = await engine.start(awaits("alone", 0.02))
    assert "TimeoutError" in await alone.result()
    with pytest.raises(RunCancelledError):
        await (await engine.find("alone")).result()


@pytest.mark.parametrize("how", ["abandon", "cancel"])
async def test_what_becomes_of_a_child_travels_with_it(engines, reached, tmp_path, how):
    """
    A tied child of an imported parent ends with it; one that is merely started does not.
    """
    engine = await engines.file(starts, kid)
    run = await engine.start(starts(how), id="r")
    await reached(run, "waiting")
    await engine.export("r", tmp_path / "r.jsonl", tree=True)
    async with Engine(tmp_path / "other.db", [starts, kid], durability="process") as other:
        await other.import_runs(tmp_path / "r.jsonl")
        for run_id in ("r", "r~.0"):
            await other.get(run_id).resume()
        await reached(other.get("r~.0"), "waiting")
        await other.get("r").signal("end")
        assert await other.get("r").result(5) == "r~.0"
        if how == "cancel":
            with pytest.raises(RunCancelledError, match="its parent has ended"):
                await other.get("r~.0").result(5)
        else:
            await other.get("r~.0").signal("go")
            assert await other.get("r~.0").result(5) == "kid 1"
