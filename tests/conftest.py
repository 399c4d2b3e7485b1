"""
What tests share: the event loop's kind, Hypothesis's manners, a path for a journal; engines in
memory or on a file, always closed; a crash; a clock that is moved by hand.
"""

import asyncio
import contextlib
import faulthandler
import functools
import gc
import inspect
import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
import structlog
from _pytest.faulthandler import fault_handler_stderr_fd_key
from attrs import evolve
from hypothesis import HealthCheck, settings

from durable import Engine

# No deadline, nor one for making examples: a slow disk or a busy machine is not a wrong answer. In CI the same examples
# every time, so that a red run means the change; at a desk fresh ones, so that new cases are found.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", parent=settings.get_profile("patient"))
settings.register_profile("ci", parent=settings.get_profile("patient"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Whoever starts the tests in the background has them ignore Ctrl-C, and all their children: some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent

# Workers of `make cover` are measured, by this variable. Their own children are not: they die by SIGKILL before they
# could save what they measured, and starting coverage in each would slow the suite for nothing.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_collection_modifyitems(items):
    """
    First the files beside this one, which try whole programs: begun last, the longest would be waited for alone.
    """
    items.sort(key=lambda item: item.path.parent != HERE)
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "obj", None)) and not hasattr(item.obj, "hypothesis"):
            item.obj = cancelled_in_time(item.obj, 0.9 * limit_of(item))


def pytest_collection_finish():
    """
    What stays until the end, thousands of tests and the libraries, is not looked through again at each collection.
    """
    gc.collect()
    gc.freeze()


def limit_of(item):
    """
    Seconds that *item* may take.
    """
    if (marker := item.get_closest_marker("timeout")) is not None:
        return marker.args[0] if marker.args else marker.kwargs["timeout"]
    return item.config.getoption("timeout") or float(item.config.getini("timeout"))


def cancelled_in_time(test, seconds):
    """
    *test*, which is cancelled after *seconds* and says what every task was at.

    The time limit proper is an exception in whatever runs. In the event loop that leaves the test itself waiting, and
    what would tear it down waits for it.
    """

    def show_tasks():
        for task in asyncio.all_tasks():
            task.print_stack(file=sys.stdout)

    @functools.wraps(test)
    async def timed(*args, **kwargs):
        loop = asyncio.get_running_loop()
        if getattr(loop, "jumps", False):  # to any time that somebody waits for
            return await test(*args, **kwargs)
        showing = loop.call_later(seconds, show_tasks)
        try:
            async with asyncio.timeout(seconds + 0.1):
                return await test(*args, **kwargs)
        finally:
            showing.cancel()

    return timed


def watch(item):
    """
    End the process, and say where each thread of it is, if *item* has twice the time that it may take.

    A time limit is an exception in the main thread, once: a test that swallows it, or is torn down for ever after it,
    would hang its worker, and with it CI, until somebody looks.
    """
    faulthandler.dump_traceback_later(
        2 * limit_of(item) + 30, exit=True, file=item.config.stash[fault_handler_stderr_fd_key]
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """
    Each test is watched, with all that sets it up and tears it down.
    """
    watch(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node):
    """
    Pytest itself has ended the watch at a failure, for those who debug it: what tears it down is watched, too.
    """
    if isinstance(node, pytest.Item):
        watch(node)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """
    asyncio only: anyio's own fixture would run every test on trio as well wherever trio is installed.
    """
    return "asyncio"


@pytest.fixture(autouse=True)
def unconfigured():
    """
    Structlog as it is where no application has configured it: `capture_logs` of a test before leaves it configured.
    """
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture
def tmp_db(tmp_path: Path) -> Path:
    """
    Where a test's journal goes; nothing is there yet.
    """
    return tmp_path / "app.db"


class Engines:
    """Opens engines, and closes those that a test left open."""

    def __init__(self, path):
        self.path = path
        self.opened = []

    def differs(self, _kind):
        """Whether they differ in this from engines of a file (tests/scenarios/differences.py): they are those."""
        return False

    def scaled(self, many, _few):
        """How many of something: *many*, where an engine is fast."""
        return many

    async def memory(self, *definitions, **options):
        """An engine whose journal is gone with it: enough wherever nothing is opened again."""
        return await self._open(":memory:", definitions, options)

    async def file(self, *definitions, tables=False, **options):
        """An engine on the test's file, which is made by the first of them, and has the application's *tables*."""
        return await self._open(self.path, definitions, {"durability": "process", **options})

    def rows(self, query):
        """What the application's tables hold."""
        with contextlib.closing(sqlite3.connect(self.path)) as conn:
            return conn.execute(query).fetchall()

    async def crash(self, engine):
        """
        The file as a kill at this moment would leave it, and a path to it.

        The engine itself is then closed, on the file that nobody looks at any more.
        """
        copy = self.path.with_name(f"crashed-{len(self.opened)}.db")
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{engine.path}{suffix}", f"{copy}{suffix}")
        await closed_within(engine, 0.0)
        self.path = copy

    async def _open(self, path, definitions, options):
        engine = Engine(path, definitions, **{"grace": 2.0, **options})
        await engine.open()
        self.opened.append(engine)
        return engine


async def closed_within(engine, seconds):
    """Close an engine: what its steps are at is of no use to anybody, so they get *seconds* at most."""
    if (running := engine._backend.running) is not None:
        running.settings = evolve(running.settings, grace=min(running.settings.grace, seconds))
    await engine.aclose()


@pytest.fixture
async def engines(tmp_db):
    """
    Engines of one test.
    """
    made = Engines(tmp_db)
    yield made
    for engine in made.opened:
        await closed_within(engine, 0.2)


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.offset = 0.0
        self.start = time.time()
        self._moved = asyncio.Event()

    def now(self):
        return self.start + self.offset

    def monotonic(self):
        return self.offset

    async def sleep(self, seconds):
        until = self.offset + seconds
        while self.offset < until:
            await self._moved.wait()

    def advance(self, seconds):
        """Let *seconds* pass."""
        self.offset += seconds
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def passes(self, seconds):
        """As `advance`, where another clock has to be waited for."""
        self.advance(seconds)

    async def passes_until(self, condition, seconds):
        """Let *seconds* pass, once more and once more, until *condition* holds."""
        async with asyncio.timeout(20):
            while not condition():
                self.advance(seconds)
                await asyncio.sleep(0.001)


@pytest.fixture
async def clock():
    """
    Time, moved by hand.
    """
    return HandClock()


async def until(condition, timeout=20.0, every=0.002):
    """Return once the (async) condition holds: for what has no event of its own."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(every)


async def until_status(run, status, timeout=20.0, every=0.002):
    """Return once a run has a status."""

    async def there():
        return await run.status() == status

    try:
        await until(there, timeout, every)
    except TimeoutError:
        raise AssertionError(f"not {status}: {await run.why()}") from None


@pytest.fixture
def reached():
    """
    Waits until a run has a status.
    """
    return until_status


@pytest.fixture
def eventually():
    """
    Waits until an async condition holds.
    """
    return until


#: (table, column) of what belongs to a run.
_OWNED = [
    ("durable_events", "run"),
    ("durable_waits", "run"),
    ("durable_waits", "target"),
    ("durable_inbox", "run"),
    ("durable_dedup", "run"),
    ("durable_asked", "run"),
    ("durable_notes", "run"),
    ("durable_feeds", "run"),
    ("durable_feed_items", "run"),
    ("durable_slots", "run"),
    ("durable_stream_items", "run"),
    ("durable_runs", "parent"),
    ("durable_runs", "follows"),
]
_OF_OPEN_RUNS = ["durable_waits", "durable_inbox", "durable_feeds", "durable_feed_items", "durable_slots"]


def strays_in(conn):
    """Rows whose run or batch does not exist, or whose run has ended and should have none; payloads that none has."""
    found = []
    for table, column in _OWNED:
        found += conn.execute(
            f"SELECT '{table}', '{column}', {column} FROM {table} WHERE {column} IS NOT NULL "
            f"AND {column} NOT IN (SELECT run FROM durable_runs)"
        )
    for table in _OF_OPEN_RUNS:
        found += conn.execute(
            f"SELECT '{table}', 'ended', r.run_id FROM {table} JOIN durable_runs AS r USING (run) "
            "WHERE r.ended_at IS NOT NULL"
        )
    for column in ("batch", "callback"):
        found += conn.execute(
            f"SELECT 'durable_runs', '{column}', {column} FROM durable_runs WHERE {column} IS NOT NULL "
            f"AND {column} NOT IN (SELECT batch FROM durable_batches)"
        )
    found += conn.execute(
        "SELECT 'durable_payloads', 'payload', payload FROM durable_payloads WHERE payload NOT IN "
        "(SELECT payload FROM durable_events WHERE payload IS NOT NULL "
        "UNION SELECT payload FROM durable_inbox WHERE payload IS NOT NULL)"
    )
    return found


@pytest.fixture
def strays():
    """
    What an engine's file holds that belongs to nothing any more.
    """

    async def look(engine):
        return await engine._backend.read(strays_in)

    return look


@pytest.fixture
def file_strays():
    """
    As `strays`, of a file that nobody has open.
    """

    def look(path):
        with contextlib.closing(sqlite3.connect(path)) as conn:
            return strays_in(conn)

    return look
