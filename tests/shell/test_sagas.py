"""
A run that was compensated says so wherever it is looked at, and is not retried unless by force.
"""

import pytest

from durable import Client, CompensationError, Engine, RetryRefusedError, RunFailedError, saga, step, workflow

pytestmark = pytest.mark.anyio

DONE: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def nothing_is_done():
    DONE.clear()
    BROKEN.clear()


@step
async def do(what: str) -> None:
    DONE.append(what)
    if what in BROKEN:
        raise ConnectionError(f"{what} does not answer")


@workflow
async def order() -> None:
    async with saga() as undo:
        undo(do("refund"))
        await do("pay")
        undo(do("take back"))
        await do("ship")


async def test_a_compensated_run_is_marked_and_not_retried(tmp_db, tmp_path):
    """
    By the engine, by a client, and in the copy of another file; a retry by force takes the mark away.
    """
    BROKEN.add("ship")
    async with Engine(tmp_db, [order]) as engine:
        run = await engine.start(order(), id="r")
        with pytest.raises(RunFailedError, match="ship does not answer"):
            await run.result(5)
        assert DONE == ["pay", "ship", "take back", "refund"]
        assert (await run.info()).compensated
        async with Client(tmp_db) as client:
            assert (await client.get("r").info()).compensated
            with pytest.raises(RetryRefusedError, match="was compensated") as caught:
                await client.get("r").retry()
        assert caught.value.compensated
        copy = tmp_path / "copy.jsonl"
        await engine.export("r", copy)
        BROKEN.clear()
        assert await run.retry(force=True)
        await run.result(5)
        assert not (await run.info()).compensated
    async with Engine(tmp_path / "other.db", [order]) as other:
        await other.import_runs(copy)
        assert (await other.get("r").info()).compensated


async def test_failures_of_compensations_keep_their_type(tmp_db):
    """
    Callers see which they were, beside the cause, as what they were.
    """
    BROKEN.update(("ship", "refund"))
    async with Engine(tmp_db, [order]) as engine:
        run = await engine.start(order())
        with pytest.raises(RunFailedError, match="1 of 2 compensations failed") as failed:
            await run.result(5)
        cause = failed.value.__cause__
        assert isinstance(cause, CompensationError)
        assert [str(error) for error in cause.exceptions] == ["ship does not answer", "refund does not answer"]
        assert DONE == ["pay", "ship", "take back", "refund"]
