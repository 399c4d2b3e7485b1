"""
What the engine logs, and where: structlog where the application has configured it, else the standard library.
"""

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import structlog

from durable import Engine, Flow, Retry, Return, RunFailedError, call, context, logger, step, workflow
from durable._shell.engine import running

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def plain():
    """
    An application that has not configured structlog, whatever the test before did.
    """
    before, configured = structlog.get_config(), structlog.is_configured()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if configured:
        structlog.configure(**before)


@pytest.fixture
def lines():
    """
    Entries of an application that has configured structlog, and merges context variables.
    """
    found = []

    def keep(_logger, level, entry):
        found.append({**entry, "level": level})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    return found


@step
async def tell(word: str) -> None:
    structlog.get_logger("shop").info(word)


@step
def tell_in_thread(word: str) -> None:
    structlog.get_logger("shop").info(word)


class NotYetError(Exception):
    """Of the first attempt."""


@step(retry=2)
async def second_time() -> None:
    structlog.get_logger("shop").info("trying")
    if context().attempt == 1:
        raise NotYetError


@workflow
async def retrying() -> Flow[None]:
    yield second_time().options(retry=Retry(attempts=2, delay=0))


async def look_up() -> None:
    raise LookupError("no such\nthing")


@workflow
async def failing() -> Flow[None]:
    yield call(look_up)


@workflow
async def shop() -> Flow[str]:
    yield tell("one")
    logger.warning("between", name="cart")
    yield tell_in_thread("two")
    yield Return("done")


async def test_the_applications_lines_carry_run_workflow_step_and_attempt(lines, engines):
    """
    Also those of plain functions in threads; and not once the attempt is over, where the run's own task goes on.
    """
    engine = await engines.memory(shop)
    run = await engine.start(shop())
    assert await run.result() == "done"
    told = {line["event"]: line for line in lines}
    about = {"run_id": run.id, "workflow": shop.name, "level": "info"}
    assert told["one"] == {"event": "one", **about, "step": tell.name, "attempt": 1}
    assert told["two"] == {"event": "two", **about, "step": tell_in_thread.name, "attempt": 1}
    assert told["between"] == {"event": "between", **about, "level": "warning", "name": "cart"}
    assert structlog.contextvars.get_contextvars() == {}


async def test_each_attempt_is_told_apart(lines, engines):
    """
    The number in the application's lines is that of the attempt.
    """
    engine = await engines.memory(retrying)
    await engine.run(retrying())
    assert [line["attempt"] for line in lines if line["event"] == "trying"] == [1, 2]


async def test_a_failed_run_is_one_error_with_its_traceback(caplog, engines):
    """
    Of the failed attempts before it nobody hears at the level of warnings: the workflow might have handled them.
    """
    caplog.set_level(logging.INFO, logger="durable")
    engine = await engines.memory(failing)
    run = await engine.start(failing())
    with pytest.raises(RunFailedError):
        await run.result()
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (told.name, told.levelname, told.event) == ("durable", "ERROR", "run.failed")
    assert (told.run_id, told.workflow, told.error) == (run.id, failing.name, "LookupError: no such")
    text = logging.Formatter().format(told)
    line, _, traceback = text.partition("\n")
    assert line == f"run.failed run_id={run.id} workflow={failing.name} error='LookupError: no such'"
    assert traceback.startswith("Traceback (most recent call last):\n  File ")
    assert "in failing" in traceback
    assert 'raise LookupError("no such\\nthing")' in traceback
    assert traceback.endswith("LookupError: no such\nthing")
    (tried,) = [record for record in caplog.records if record.event == "step.attempt_failed"]
    assert tried.levelno == logging.INFO


async def test_a_failed_run_tells_structlog_once_too(lines, engines):
    """
    As `exception`, where its renderers look for the text of a traceback.
    """
    engine = await engines.memory(failing)
    run = await engine.start(failing())
    with pytest.raises(RunFailedError):
        await run.result()
    (told,) = [line for line in lines if line["level"] == "error"]
    assert (told["event"], told["run_id"]) == ("run.failed", run.id)
    assert told["exception"].endswith("LookupError: no such\nthing")


async def test_a_value_may_be_called_as_a_part_of_a_record_is(caplog, engines):
    """
    What a workflow logs is in the line; the record keeps its own name, message and arguments.
    """
    engine = await engines.memory(shop)
    await engine.run(shop())
    (told,) = [record for record in caplog.records if record.name == "durable.workflow"]
    assert told.name == "durable.workflow"
    assert told.getMessage().startswith("between run_id=")
    assert told.getMessage().endswith("name=cart")


async def test_the_bug_of_sqlite_is_told_once_a_process_where_others_may_write(caplog, monkeypatch, tmp_path):
    """
    As a warning that says what to do. A journal in memory and a file with no tables but ours have one writer: silence.
    """
    monkeypatch.setattr(running, "_told", set())
    monkeypatch.setattr("durable._shell.storage.database.version_notices", lambda _: ["SQLite can damage it"])
    for path in (":memory:", tmp_path / "ours.db"):
        async with Engine(path, [shop], durability="process"):
            pass
    assert "SQLite can damage it" not in caplog.text
    for name in ("one.db", "two.db"):
        with closing(sqlite3.connect(tmp_path / name)) as conn:
            conn.execute("CREATE TABLE orders (id INTEGER)")
        async with Engine(tmp_path / name, [shop], durability="process"):
            pass
    (told,) = [record for record in caplog.records if "SQLite can damage it" in record.getMessage()]
    assert told.levelno == logging.WARNING
    assert str(tmp_path / "one.db") in told.getMessage()


PROGRAM = """
import asyncio, sys
from durable import Engine, Flow, logger, workflow

@workflow
async def sinking() -> Flow[None]:
    logger.info("not told")
    logger.warning("told")
    raise OSError("sunk")
    yield

async def main():
    async with Engine(sys.argv[1], [sinking]) as engine:
        run = await engine.start(sinking(), id="mine")
        try:
            await run.result()
        except Exception:
            assert "structlog" not in sys.modules

asyncio.run(main())
"""


def test_a_program_that_configures_nothing_hears_of_what_is_wrong_on_stderr(tmp_path):
    """
    By the last resort of the standard library. Stdout is the program's.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "app.db"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == ""
    told = done.stderr.splitlines()
    told.remove("told run_id=mine workflow=sinking")
    assert told[0] == "run.failed run_id=mine workflow=sinking error='OSError: sunk'"
    assert (told[1], told[-1]) == ("Traceback (most recent call last):", "OSError: sunk")
    assert len(told) == 4  # with the frame, of a program that is in no file
