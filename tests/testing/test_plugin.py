"""
The pytest plugin: here, where anyio's plugin runs the tests, and in pytest processes of its users.
"""

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager

import pytest

from durable import Flow, Return, job, sleep, step, wait_for, workflow
from durable._shell.commits.activity import Activity
from durable._shell.ownership.ownership import Ownership
from durable.errors import EngineClosedError, JournalLockedError, UsageError
from durable.testing.engines import Engines

pytestmark = pytest.mark.anyio

YEAR = 365 * 86_400.0


@step
async def charge(ride_id: int) -> str:
    return f"charge-{ride_id}"


@job
async def notify(ride_id: int) -> int:
    return ride_id


@workflow
async def ride(ride_id: int) -> Flow[str]:
    yield notify(ride_id)
    yield sleep(YEAR)
    paid: str = yield charge(ride_id)
    yield Return(paid)


@workflow
async def waiting() -> Flow[None]:
    yield wait_for("never")


# --- in this process -------------------------------------------------------------------------------------


async def test_an_engine_is_in_memory_and_on_the_clock_of_the_test(durable_engine, durable_clock):
    """
    The sample of the plugin's docstring, with a year in it.
    """
    engine = await durable_engine(ride, notify)
    assert engine.path == ":memory:"
    assert await engine.run(ride(42)) == "charge-42"
    assert durable_clock.monotonic() == pytest.approx(YEAR)


@pytest.mark.durable(file=True, concurrency=7, autojump=False, start=1e9)
async def test_a_marker_says_what_engines_are_like(durable_engine, durable_clock, tmp_path):
    """
    On a file, one after the other; options of the call go before those of the marker.
    """
    engine = await durable_engine(ride, notify)
    assert engine.path == str(tmp_path / "app.db")
    assert engine._backend.settings.concurrency == 7
    run = await engine.start(ride(1))
    with pytest.raises(JournalLockedError):
        await durable_engine(ride, notify)
    await engine.idle()
    await engine.aclose()
    assert durable_clock.now() == 1e9
    await durable_clock.advance(YEAR)
    engine = await durable_engine(ride, notify, concurrency=3)
    assert engine._backend.settings.concurrency == 3
    assert await engine.get(run.id).result() == "charge-1"


@pytest.mark.durable(clock=None)
async def test_engines_may_go_by_the_machines_clock(durable_engine, durable_clock):
    """
    `clock=None`, as for `Engine`.
    """
    engine = await durable_engine(waiting)
    assert engine._backend.clock is not durable_clock


@pytest.fixture
async def riding(durable_engine):
    """
    A fixture of a user's that opens an engine.
    """
    return await durable_engine(ride, notify)


async def test_fixtures_of_users_may_open_engines(riding):
    """
    And the test uses them.
    """
    assert await riding.run(ride(3)) == "charge-3"


async def test_what_is_left_is_found():
    """
    A task and a thread are named; where no engine was opened, nothing is.
    """

    stopped = threading.Event()
    engines = Engines(clock=None)
    await engines(waiting)
    thread = threading.Thread(target=stopped.wait, name="durable-reader")
    thread.start()
    task = asyncio.create_task(Activity().wait_busy())
    found = await engines.aclose()
    assert "a thread is left: durable-reader" in found
    assert "a task is left: <Task" in found
    stopped.set()
    thread.join()
    task.cancel()
    assert await Engines().aclose() == ""


@contextmanager
def keeping_locks():
    """
    No engine releases its lock; what does.
    """
    kept = []
    real = Ownership.release

    def keep(ownership):
        kept.append(ownership)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ownership, "release", keep)
        yield lambda: [real(each) for each in kept]


async def test_a_file_that_somebody_still_owns_is_found(tmp_path):
    """
    The lock of an engine that its own closing did not release.
    """
    engines = Engines(tmp_path / "app.db")
    with keeping_locks() as release:
        await engines(waiting)
        assert "a lock is left: " in await engines.aclose()
    release()


@pytest.mark.parametrize("meant", [False, True])
async def test_runs_that_are_blocked_fail_a_test_that_does_not_mean_it(meant):
    """
    The report says which, why, and how to mean it.
    """
    turns = iter([waiting, notify, notify, notify])

    @workflow
    async def moody() -> Flow[None]:
        definition = next(turns)
        if definition is notify:
            yield charge(1)
        yield wait_for("never")

    async def test():
        async with Engines(blocked=meant, replay_always=True) as engines:
            engine = await engines(moody)
            run = await engine.start(moody())
            await engine.idle()
            assert await run.status() == "blocked"

    if meant:
        await test()
    else:
        with pytest.raises(AssertionError, match=r"(?s)of moody is blocked: .*charge.*durable\(blocked=True\)"):
            await test()


async def test_the_failure_of_a_test_is_not_hidden_by_what_it_leaves():
    """
    The error comes through, with a note.
    """
    with pytest.raises(LookupError) as raised:
        async with Engines() as engines:
            await engines(waiting)
            thread = threading.Thread(target=(stopped := threading.Event()).wait, name="durable-writer")
            thread.start()
            raise LookupError
    stopped.set()
    thread.join()
    assert "a thread is left" in raised.value.__notes__[0]


def test_engines_are_for_one_loop():
    """
    Another one is refused; those of a loop that has ended cannot be closed, and that is said.
    """
    engines = Engines()
    with asyncio.Runner() as runner:
        engine = runner.run(engines(waiting))
        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(_open(engines))
        engines.close_late()
        with pytest.raises(EngineClosedError):
            runner.run(engine.start(waiting()))
        engines.close_late()
        engine = runner.run(_open(engines))
        runner.run(engine.aclose())
    with pytest.raises(AssertionError, match="has ended without them"):
        engines.close_late()
    with asyncio.Runner() as runner:
        engines = Engines()
        runner.run(engines(waiting))
    engines.close_late(blame=False)
    assert engines.opened == []


async def _open(engines):
    return await engines(waiting)


def test_what_is_left_is_told_by_a_late_closing_too(tmp_path):
    """
    The test did not get as far as its body, and its engine is not closed by halves.
    """
    engines = Engines(tmp_path / "app.db")
    with asyncio.Runner() as runner, keeping_locks() as release:
        runner.run(engines(waiting))
        with pytest.raises(AssertionError, match="a lock is left"):
            engines.close_late()
        release()


# --- in projects of users --------------------------------------------------------------------------------

RIDE = """
from durable import Flow, Return, sleep, step, workflow

@step
async def charge(ride_id: int) -> str:
    return f"charge-{ride_id}"

@workflow
async def ride(ride_id: int) -> Flow[str]:
    yield sleep(365 * 86_400)
    paid: str = yield charge(ride_id)
    yield Return(paid)
"""


TESTS = """
import pytest

MARK

async def test_memory(durable_engine, durable_clock):
    engine = await durable_engine(ride)
    assert await engine.run(ride(7)) == "charge-7"
    assert durable_clock.monotonic() > 30_000_000

@pytest.mark.durable(file=True)
class TestFile:
    async def test_file(self, durable_engine, tmp_path):
        engine = await durable_engine(ride)
        run = await engine.start(ride(8))
        await engine.aclose()
        engine = await durable_engine(ride)
        assert await engine.get(run.id).result() == "charge-8"
        assert (tmp_path / "app.db").exists()

@pytest.fixture
async def engine(durable_engine):
    return await durable_engine(ride)

@pytest.mark.parametrize("number", [1, 2])
async def test_fixture(engine, number):
    assert await engine.run(ride(number)) == f"charge-{number}"

async def test_blocked(durable_engine):
    engine = await durable_engine(ride)
    run = await engine.start(ride(9))
    await engine.aclose()
    assert False, "its own"
"""


STRICT = """
import pytest

@pytest.mark.asyncio
async def test_memory(durable_engine):
    engine = await durable_engine(ride)
    assert await engine.run(ride(7)) == "charge-7"
"""

LEFT = """
import itertools, pytest
pytestmark = pytest.mark.anyio
counter = itertools.count()

@workflow
async def moody() -> Flow[None]:
    if next(counter):
        yield charge(1)
    yield sleep(60)

async def test_left(durable_engine):
    engine = await durable_engine(moody, replay_always=True)
    await engine.start(moody())

@pytest.mark.durable(True)
async def test_mistaken(durable_engine):
    pass

@pytest.fixture
async def broken(durable_engine):
    await durable_engine(ride)
    raise LookupError("in a fixture")

async def test_never_begun(broken):
    pass
"""

#: pytest-asyncio asks for this where warnings are errors.
SCOPE = ["-o", "asyncio_default_fixture_loop_scope=function"]
#: Name of a project -> its tests, and how pytest is called there.
PROJECTS = {
    "anyio": (TESTS.replace("MARK", "pytestmark = pytest.mark.anyio"), ["-p", "no:asyncio"]),
    "anyio_auto": (TESTS.replace("MARK", ""), ["-p", "no:asyncio", "--anyio-mode", "auto"]),
    "asyncio_auto": (TESTS.replace("MARK", ""), ["--asyncio-mode", "auto", "-p", "no:anyio", *SCOPE]),
    "both": (TESTS.replace("MARK", ""), ["--asyncio-mode", "auto", *SCOPE]),
    "asyncio_strict": (STRICT, ["-p", "no:anyio", *SCOPE]),
    "left": (LEFT, ["-p", "no:asyncio", "--strict-markers"]),
    "markers": ("", ["-p", "no:asyncio", "--markers"]),
}
#: One process runs pytest in all of them, one after the other: most of what a process takes is its imports.
RUNS = """
import contextlib, io, json, os, sys
import pytest

said = {}
for name, (folder, arguments) in json.load(sys.stdin).items():
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", folder, *arguments, folder])
    said[name] = out.getvalue()
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """
    What pytest says in each of the projects, which have no configuration.
    """
    calls = {}
    for name, (tests, arguments) in PROJECTS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / f"test_{name}.py").write_text(RIDE + tests)
        calls[name] = (str(folder), arguments)
    done = subprocess.run(
        [sys.executable, "-c", RUNS], input=json.dumps(calls), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["anyio", "anyio_auto", "asyncio_auto", "both"])
def test_both_plugins_run_tests_with_engines(said, name):
    """
    In memory, on a file, in fixtures of users, in classes; failures are the test's own.
    """
    assert "4 passed" in said[name], said[name]
    assert "1 failed" in said[name], said[name]
    assert "AssertionError: its own" in said[name]


def test_pytest_asyncio_in_strict_mode_needs_its_mark_and_no_more(said):
    """
    Our fixtures are no async ones, so nothing has to be marked but the test.
    """
    assert "1 passed" in said["asyncio_strict"], said["asyncio_strict"]


def test_what_a_test_leaves_fails_it(said):
    """
    Under a plugin of a user's: a run that is blocked by code that is not deterministic; a mistaken marker.
    """
    assert "1 failed, 2 errors" in said["left"], said["left"]
    assert "is blocked" in said["left"]
    assert "options by name only" in said["left"]
    assert "LookupError: in a fixture" in said["left"]
    assert "has ended without them" not in said["left"]


def test_the_marker_is_listed(said):
    """
    With the options that it takes.
    """
    assert "@pytest.mark.durable(file=False" in said["markers"]


def test_the_plugin_is_light():
    """
    Until a fixture is used, a pytest run imports nothing of ours but the plugin: no engine, no asyncio, no structlog.
    """
    code = """
        import sys
        import pytest
        before = set(sys.modules)
        import durable.testing.plugin
        new = set(sys.modules) - before
        print(sorted(name for name in new if not name.startswith("_")))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "['durable', 'durable.testing', 'durable.testing.plugin']"
