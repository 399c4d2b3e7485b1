"""
The scenarios of `tests/scenarios` once more, each on an engine of a file and on a Temporal server.

A server has nothing in common with a file but what the contract says, so here is all that stands for it in a test: what
opens engines, what has them die, and what has time pass. One test of a scenario is one namespace of the server's.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import sqlite3

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from durable.temporal import AppTransactions, TemporalEngine
from tests.conftest import Engines, HandClock, closed_within, until, until_status
from tests.scenarios.conftest import Hosts, door, doors, meter
from tests.temporal.cases import has_failed
from tests.temporal.dev_server import NAMESPACES, skipping_binary

__all__ = ["door", "doors", "meter"]

_namespaces = itertools.count()
#: Seconds between looks at a server: it has other work.
_LOOK_EVERY = 0.03


def pytest_generate_tests(metafunc):
    """
    Each scenario that opens engines on both.
    """
    if "engine_kind" in metafunc.fixturenames:
        about_files = metafunc.definition.get_closest_marker("needs_a_file")
        metafunc.parametrize("engine_kind", ["embedded"] if about_files else ["embedded", "temporal"])


class Servers:
    """Opens engines of a server, as `Engines` of tests/conftest.py do of a file; closes those that a test left open."""

    def __init__(self, address, namespace, tables, differences):
        self.address, self.namespace, self._tables = address, namespace, tables
        self._expected, self._told = differences, set()
        self._connected = None
        self._opened = []
        self._cached = 1_000

    def differs(self, kind):
        """That it does; *kind* is one that the test is marked with."""
        assert kind in self._expected, f"mark the test with @differs: {kind}"
        self._told.add(kind)
        return True

    def scaled(self, _many, few):
        """How many of something."""
        return few

    async def file(self, *definitions, clock=None, tables=False, **options):
        """An engine on the test's namespace; its transactions commit with the application's *tables*, in a file."""
        given = {"grace": 0.3, "cached_runs": self._cached, **options}
        if clock is None:
            client = await self._client()
        else:  # that server knows no lists, and leaves a run for ever to the worker that had it in memory
            client = await clock.client_of(self.namespace)
            # A step must not be taken for dead because time passes that nobody has lived through.
            given |= {"searchable": False, "cached_runs": 0, "worker_timeout": 1e6}
        if tables:
            given["transactions"] = AppTransactions(self._connect)
        engine = TemporalEngine(client, "q", definitions, **given)
        await engine.open()
        self._opened.append(engine)
        return engine

    memory = file

    def _connect(self):
        return sqlite3.connect(self._tables)

    def rows(self, query):
        """What the application's tables hold."""
        with contextlib.closing(self._connect()) as conn:
            return conn.execute(query).fetchall()

    async def crash(self, engine):
        """The worker is gone with all it has in memory; those to come have nothing there, and replay each turn."""
        self._opened.remove(engine)
        await engine.aclose()
        self._cached = 0

    async def close(self):
        """At the end of a test."""
        for engine in self._opened:
            if engine._steps is not None:  # it is open
                await engine.aclose()

    def check(self):
        """Hold that a test tells all that it is marked with."""
        assert self._told == self._expected, f"marked with @differs, and not told: {self._expected - self._told}"

    async def _client(self):
        self._connected = self._connected or await Client.connect(self.address, namespace=self.namespace)
        return self._connected


class ServersClock:
    """The time of a server that skips it, when it is told to and not by itself."""

    def __init__(self, environment):
        self._environment = environment
        self._address = environment.client.service_client.config.target_host

    async def client_of(self, namespace):
        """A client of that server."""
        return await Client.connect(self._address, namespace=namespace)

    async def passes(self, seconds):
        """Let *seconds* pass."""
        await self._environment.sleep(seconds)

    async def passes_until(self, condition, seconds):
        """Let *seconds* pass, once more and once more, until *condition* holds."""
        pause = 0.1  # longer and longer: what a worker is at must end before its time has passed, however slow it is
        async with asyncio.timeout(50):
            while not condition():
                await self.passes(seconds)
                for _ in range(10):
                    await asyncio.sleep(pause / 10)
                    if condition():
                        break
                pause = min(pause * 1.5, 3.0)


@pytest.fixture
def namespace(engine_kind):
    """
    A namespace of the test's own, if it is run on a server.
    """
    if engine_kind != "embedded" and "TEMPORAL_ADDRESS" in os.environ:
        pytest.skip("that server has no namespaces for scenarios: a dev server is started with them")
    number = 0 if engine_kind == "embedded" else next(_namespaces)
    assert number < NAMESPACES, "the dev server is started with too few"
    return f"scenario-{number}"


@pytest.fixture
async def engines(engine_kind, request, tmp_db, address, namespace):
    """
    Engines of one test, of the kind that it is run on.
    """
    if engine_kind == "embedded":
        files = Engines(tmp_db)
        yield files
        for engine in files.opened:
            await closed_within(engine, 0.2)
        return
    marked = {difference for mark in request.node.iter_markers("differs") for difference in mark.args}
    servers = Servers(address, namespace, tmp_db, marked)
    yield servers
    await servers.close()
    if not has_failed(request.node):
        servers.check()


@pytest.fixture(scope="session")
async def skipping_server():
    """
    A server that skips time.
    """
    program = skipping_binary()
    if program is None:
        pytest.skip("the test server is not installed: make test-temporal")
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=program) as environment:
        yield environment


@pytest.fixture
async def clock(engine_kind, skipping_server):
    """
    Time, moved by hand.
    """
    return HandClock() if engine_kind == "embedded" else ServersClock(skipping_server)


@pytest.fixture
def reached(engine_kind):
    """
    Waits until a run has a status.
    """
    return until_status if engine_kind == "embedded" else functools.partial(until_status, every=_LOOK_EVERY)


@pytest.fixture
def eventually(engine_kind):
    """
    Waits until an async condition holds.
    """
    return until if engine_kind == "embedded" else functools.partial(until, every=_LOOK_EVERY)


@pytest.fixture
def hosts(engine_kind, tmp_db, tmp_path, address, namespace):
    """
    Processes on the test's file, or on its namespace.
    """
    return Hosts(tmp_db if engine_kind == "embedded" else f"temporal://{address}/{namespace}", tmp_path)
