"""
Months that pass in a moment, on the server that skips time; and engines that close, whatever steps do.
"""

import asyncio
import contextlib
import shutil
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from durable import Flow, Return, now, sleep, step, workflow
from durable.temporal import TemporalEngine

PROGRAM = shutil.which("temporal-test-server", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")


@step
async def charge(month: int) -> int:
    return month


@workflow
async def subscription(months: int) -> Flow[list[int]]:
    before, paid = now(), []
    for month in range(months):
        paid += [(yield charge(month))]
        yield sleep(timedelta(days=30))
    assert now() - before >= timedelta(days=30 * months)
    yield Return(paid)


class Told:
    """
    What the test and its steps tell each other.
    """

    begun = threading.Event()
    may_end = threading.Event()
    ended = threading.Event()


@step
async def stubborn() -> None:
    Told.begun.set()
    while not Told.may_end.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
    Told.ended.set()


@step
def blocking() -> None:
    Told.begun.set()
    Told.may_end.wait(20)
    Told.ended.set()


@workflow
async def never_ends(in_thread: bool) -> None:
    await (blocking() if in_thread else stubborn())


@pytest.mark.skipif(PROGRAM is None, reason="the test server is not installed")
async def test_a_year_passes_in_a_moment(queue):
    """
    Durable timers are the server's, and this one skips what nobody waits for.
    """
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=PROGRAM) as environment:
        client = environment.client
        async with TemporalEngine(client, queue, [subscription], searchable=False) as engine:
            assert await engine.run(subscription(12)) == [*range(12)]


@pytest.mark.parametrize("in_thread", [False, True], ids=["swallows its cancellation", "blocks its thread"])
async def test_an_engine_closes_whatever_its_steps_do(client, queue, in_thread):
    """
    After the grace and the time for clean-up, with what is left behind; the step is another worker's then.
    """
    for event in (Told.begun, Told.may_end, Told.ended):
        event.clear()
    engine = TemporalEngine(client, queue, [never_ends], grace=0.1, cleanup_timeout=0.2)
    await engine.open()
    run = await engine.start(never_ends(in_thread))
    await asyncio.to_thread(Told.begun.wait, 20)
    async with asyncio.timeout(20):
        await engine.aclose()
    assert not Told.ended.is_set()
    assert await run.status() in ("running", "waiting")
    Told.may_end.set()
    await asyncio.to_thread(Told.ended.wait, 20)
