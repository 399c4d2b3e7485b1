"""
`durable stats` and `durable schedules`: a journal in numbers, and what ticks.
"""

import asyncio
import fcntl
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading

import anyio.to_thread
import pytest

from durable import Flow, Return, Schedule, job, wait_for, workflow
from durable._cli.journals.owners import owner_of
from durable._shell.ownership.outlived import still_running
from durable._shell.storage import schema
from durable._shell.storage.copies.marks import SCHEMA_VERSION

pytestmark = pytest.mark.anyio


@workflow
async def approval() -> Flow[str]:
    value: str = yield wait_for("approved", timeout=3600)
    yield Return(value)


@job
async def quick(number: int) -> int:
    return number


@job
async def failing() -> None:
    raise ValueError("no")


@job(queue="shut")
async def never() -> None: ...


def facts(said):
    """
    The lines between the title and the first table.
    """
    lines = said.lines[1 : said.lines.index("")]
    return {line[2:15].strip(): line[15:] for line in lines}


def table(said, head):
    """
    The rows of the table whose first column is *head*: that column -> the others.
    """
    lines = said.lines
    (at,) = [index for index, line in enumerate(lines) if line.startswith(head)]
    rows = lines[at : lines.index("", at) if "" in lines[at:] else len(lines)]
    return {row.split()[0]: row.split()[1:] for row in rows}


def empty_journal(path):
    conn = sqlite3.connect(path, isolation_level=None)
    schema.prepare(conn, 0.0)
    conn.close()


async def test_runs_are_counted_by_workflow_and_status(engines, tmp_db, cli, reached):
    """
    A row for each workflow, those with most runs first, a column for each status that there is, and the sums.
    """
    engine = await engines.file(approval, quick, failing, never)
    await engine.queue("shut").pause()
    for run in await engine.start_many([quick(n) for n in range(3)]):
        await run.result(5)
    bad = await engine.start(failing())
    await reached(bad, "failed")
    await reached(await engine.start(approval(), id="oldest"), "waiting")
    await engine.start_many([never(), never()])
    said = cli("stats", "--db", tmp_db)
    assert said.code == 0
    rows = table(said, "WORKFLOW")
    assert rows["WORKFLOW"] == ["RUNS", "PENDING", "WAITING", "SUCCEEDED", "FAILED"]
    assert list(rows) == ["WORKFLOW", "quick", "never", "approval", "failing", "all"]
    assert rows["quick"] == ["3", "3"]
    assert rows["all"] == ["7", "2", "1", "3", "1"]
    assert table(said, "QUEUE")["shut"][:2] == ["2", "0"]
    assert table(said, "QUEUE")["shut"][-1] == "paused"
    shown = facts(said)
    assert shown["schema"] == str(SCHEMA_VERSION)
    assert shown["owner"].startswith(f"pid {os.getpid()} on host {socket.gethostname()} since 20")
    assert shown["waits"] == "1 (1 signal)"
    assert shown["oldest open"].startswith("oldest (approval, waiting), created ")
    assert int(shown["events"]) == (await engine.stats()).events


async def test_json_says_the_same(engines, tmp_db, cli, reached):
    """
    One object; what engines call depth, programs find under that name.
    """
    engine = await engines.file(approval, never)
    await engine.queue("shut").pause()
    await engine.queue("idle").pause()
    await engine.start(never(), id="first")
    await reached(await engine.start(approval()), "waiting")
    (found,) = cli("stats", "--db", tmp_db, "--json").values
    assert found["runs"] == {"pending": 1, "waiting": 1}
    assert found["workflows"] == {"never": {"pending": 1}, "approval": {"waiting": 1}}
    assert found["oldest_open"]["run_id"] == "first"
    assert found["owner"]["pid"] == os.getpid()
    assert found["owner"]["alive"] is True
    assert found["bytes"] == tmp_db.stat().st_size
    assert found["wal_bytes"] > 0
    idle, shut = found["queues"]
    assert (idle["name"], idle["depth"], idle["oldest_wait_seconds"], idle["paused"]) == ("idle", 0, None, True)
    assert (shut["name"], shut["depth"], shut["running"], shut["paused"]) == ("shut", 1, 0, True)
    assert 0 <= shut["oldest_wait_seconds"] < 60


async def test_what_waits_in_inboxes_and_batches_is_counted(engines, tmp_db, cli, reached):
    """
    Lines that only some journals have.
    """
    every = Schedule("often", quick(1), every=3600)
    engine = await engines.file(approval, never, quick, schedules=[every])
    await engine.queue("shut").pause()
    run = await engine.start(approval())
    await reached(run, "waiting")
    await run.signal("other")
    async with engine.batch() as batch:
        batch.add(never())
    shown = facts(cli("stats", "--db", tmp_db))
    assert shown["inbox"] == "1 recorded, but taken in by no turn yet"
    assert shown["batches"] == "1 open"
    assert shown["schedules"] == "1"


async def test_many_workflows_are_summed_up(engines, tmp_db, cli):
    """
    The ten with most runs, and one row for the others; all with --full.
    """
    jobs = [job(name=f"j{n:02}")(quick.fn) for n in range(13)]
    engine = await engines.file(*jobs)
    for each in jobs:
        await engine.run(each(1))
    await engine.run(jobs[12](2))
    said = cli("stats", "--db", tmp_db)
    rows = table(said, "WORKFLOW")
    assert list(rows)[1:3] == ["j12", "j00"]
    assert rows["..."] == ["3", "more:", "--full", "3", "3"]
    assert rows["all"] == ["14", "14"]
    assert len(table(cli("stats", "--db", tmp_db, "--full"), "WORKFLOW")) == 15


def test_an_empty_journal_has_no_runs_and_nobody(tmp_db, cli):
    """
    Nothing but its sizes.
    """
    empty_journal(tmp_db)
    said = cli("stats", "--db", tmp_db)
    assert said.code == 0
    assert said.lines[-1] == "no runs"
    assert facts(said)["owner"] == "nobody"
    assert re.fullmatch(r"\d+ KiB", facts(said)["size"])
    assert cli("stats", "--db", tmp_db, "--json").values[0]["runs"] == {}


async def test_space_that_is_free_to_be_used_again_is_named(engines, tmp_db, cli):
    """
    A file does not shrink when runs are pruned.
    """
    engine = await engines.file(quick)
    for run in await engine.start_many([quick(n) for n in range(300)]):
        await run.result(10)
    await engine.prune(older_than=-1)
    await engine.aclose()
    assert "KiB of it free to be used again" in facts(cli("stats", "--db", tmp_db))["size"]


# --- owners ---------------------------------------------------------------------------------------------


def test_an_owner_that_was_killed_is_gone(tmp_db, cli):
    """
    The side file still names it; its process is no more.
    """
    empty_journal(tmp_db)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    lock = tmp_db.with_name("app.db.lock")
    lock.write_text(json.dumps({"pid": child.pid, "host": socket.gethostname(), "since": "2026-01-01T00:00:00+00:00"}))
    assert facts(cli("stats", "--db", tmp_db))["owner"] == (
        f"nobody; last pid {child.pid} on host {socket.gethostname()} since 2026-01-01T00:00:00+00:00, which is gone"
    )


@pytest.mark.parametrize(
    "said",
    ["", "[]", "no json", '{"pid": "x", "host": "h", "since": "s"}', '{"pid": 1}', "[" * 1024, "\xff"],
)
def test_a_side_file_that_names_nobody_is_nobody(tmp_db, said):
    """
    Whatever stands in it.
    """
    tmp_db.with_name("app.db.lock").write_bytes(said.encode("latin-1"))
    assert owner_of(str(tmp_db)) is None


@pytest.mark.parametrize(
    "pid, host",
    [(1, "elsewhere"), (-1, None), (0, None), (10**30, None)],
)
def test_whether_an_owner_lives_is_told_by_the_lock_and_not_by_its_number(tmp_db, pid, host):
    """
    Whatever number and host it wrote: nobody has the lock, so it is gone; whoever has it lives.
    """
    said = {"pid": pid, "host": host or socket.gethostname(), "since": "s"}
    tmp_db.with_name("app.db.lock").write_text(json.dumps(said))
    owner = owner_of(str(tmp_db))
    assert owner.pid == pid
    assert owner.alive is False
    with tmp_db.with_name("app.db.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert owner_of(str(tmp_db)).alive is True


# --- schedules --------------------------------------------------------------------------------------------


async def test_schedules_say_when_they_tick_and_what_came_of_it(engines, tmp_db, cli, clock):
    """
    The next tick, the latest, the run started last, what was skipped; in one line each.
    """
    hourly = Schedule("hourly", approval(), every=3600)
    engine = await engines.file(approval, quick, schedules=[hourly, Schedule("held", quick(1), cron="0 3 * * *")])
    await engine.schedule("held").pause()
    run = await engine.schedule("hourly").trigger()
    said = cli("schedules", "--db", tmp_db)
    assert said.code == 0
    assert said.lines[0].split() == ["SCHEDULE", "TICKS", "NEXT", "LAST", "LAST", "RUN", "SKIPPED"]
    held, line = said.lines[1:]
    assert held.startswith("held ")
    assert "paused" in held
    assert "every 3600" in line
    assert "  in 1 h  " in line
    assert run.id in line


async def test_a_schedule_is_made_up_for_and_deleted(engines, tmp_db, cli, clock):
    """
    Beside an engine, and where nobody has the file; what the program lists is not deleted.
    """
    engine = await engines.file(approval, quick, schedules=[Schedule("hourly", approval(), every=3600)])
    await engine.schedules.create("daily", quick(1), cron="0 3 * * *")
    said = await anyio.to_thread.run_sync(lambda: cli("schedules", "daily", "--backfill", "3d", "0s", "--db", tmp_db))
    assert said.lines[0] == "schedule 'daily': 3 ticks have their runs:"
    assert all(line.startswith("  schedule:daily:20") and "T03:00:00" in line for line in said.lines[1:])
    said = await anyio.to_thread.run_sync(lambda: cli("schedules", "hourly", "--delete", "--db", tmp_db))
    assert (said.code, "is one of the program's" in said.err) == (2, True)
    await engine.aclose()
    (shown,) = cli("schedules", "daily", "--json", "--db", tmp_db).values
    assert (shown["stored"], shown["overlap"], shown["missed"]) == (True, "skip", "one")
    said = await anyio.to_thread.run_sync(lambda: cli("schedules", "daily", "--delete", "--db", tmp_db))
    assert said.lines == ["schedule 'daily': deleted"]
    assert cli("schedules", "daily", "--db", tmp_db).code == 3
    assert cli("schedules", "--delete", "--db", tmp_db).code == 2


async def test_one_schedule_is_shown_with_all_that_is_known(engines, tmp_db, cli):
    """
    With times, and its last error; in JSON each is an object.
    """

    def choose(at):
        raise LookupError("nothing to do")

    engine = await engines.file(approval, schedules=[Schedule("bad", choose, every=3600)])
    with pytest.raises(Exception, match="nothing to do"):
        await engine.schedule("bad").trigger()
    await engine.aclose()
    conn = sqlite3.connect(tmp_db)
    with conn:
        conn.execute(
            "UPDATE durable_schedules SET last_error = 'the function failed', skipped = 2, last_skipped_at = 1e9, "
            "last_at = 1e9, triggers = '[[\"asked\", 1e9]]', paused_at = 1e9, next_at = NULL, "
            "timezone = 'Europe/Zurich'"
        )
    conn.close()
    said = cli("schedules", "bad", "--db", tmp_db)
    assert said.lines[0] == "bad"
    assert "  next          paused" in said.lines
    assert "  last run      none yet" in said.lines
    assert "  last error    the function failed" in said.lines
    (skipped,) = [line for line in said.lines if line.startswith("  skipped")]
    assert skipped.startswith("  skipped       2, the latest 2001-09-0")
    (asked,) = [line for line in said.lines if line.startswith("  asked for")]
    assert asked.startswith("  asked for     asked, 2001-09-0")
    assert asked.endswith(": the next engine starts it")
    assert "LAST ERROR" in cli("schedules", "--db", tmp_db).lines[0]
    assert "Europe/Zurich" in cli("schedules", "--db", tmp_db).lines[1]
    (found,) = cli("schedules", "--db", tmp_db, "--json").values
    assert found["name"] == "bad"
    assert found["last_at"] == "2001-09-09T01:46:40.000Z"
    assert found["triggers"] == [{"run_id": "asked", "at": "2001-09-09T01:46:40.000Z"}]
    assert found["next_at"] is None


async def test_a_schedule_that_no_engine_has_ticks_no_more(engines, tmp_db, cli):
    """
    The last engine was not given it. One whose tick is overdue says for how long.
    """
    engine = await engines.file(quick, schedules=[Schedule("gone", quick(1), every=60)])
    await engine.aclose()
    engine = await engines.file(quick)
    await engine.aclose()
    assert "none: no engine has it" in cli("schedules", "--db", tmp_db).out
    conn = sqlite3.connect(tmp_db)
    with conn:
        conn.execute("UPDATE durable_schedules SET next_at = 1e9")
    conn.close()
    said = cli("schedules", "gone", "--db", tmp_db)
    assert re.search(r"next +2001-09-0.* \(due for [\d,]+ d", said.out)


def test_no_schedule_and_an_unknown_one_are_told_apart(tmp_db, cli):
    """
    An empty list is not an error; a name that nobody has is exit code 3.
    """
    empty_journal(tmp_db)
    assert cli("schedules", "--db", tmp_db).out == "no schedules\n"
    assert cli("schedules", "--db", tmp_db, "--json").out == ""
    said = cli("schedules", "nightly", "--db", tmp_db)
    assert said.code == 3
    assert "no schedule is called 'nightly' in this journal" in said.err


# --- all that only read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "stats", "schedules"])
def test_the_leanest_commands_load_neither_asyncio_nor_attrs_nor_structlog(tmp_db, command):
    """
    A fresh process answers without what an engine needs: that is most of its time.
    """
    code = (
        "import sys; from durable._cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'asyncio', 'attr', 'attrs', 'structlog', 'anyio', 'aiosqlite', 'durable._shell.engine.engine'};"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    empty_journal(tmp_db)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", code, command, "--db", tmp_db, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("command", ["list", "stats", "schedules"])
async def test_reading_writes_nothing(engines, tmp_db, cli, command):
    """
    The file of a journal that nobody has open stays as it is, byte for byte.
    """
    engine = await engines.file(quick, schedules=[Schedule("s", quick(1), every=3600)])
    await engine.run(quick(1))
    await engine.aclose()
    before = tmp_db.read_bytes()
    assert cli(command, "--db", tmp_db).code == 0
    assert tmp_db.read_bytes() == before


async def test_functions_that_outlive_their_attempts_are_told(engines, tmp_db, cli):
    """
    By `durable stats` and `durable show`, from another process, as long as they run.
    """
    out = threading.Event()

    @job
    def plain() -> None:
        began.set()
        out.wait(10)

    began = threading.Event()
    engine = await engines.file(plain)
    run = await engine.start(plain(), id="r")
    while not began.is_set():
        await asyncio.sleep(0.001)
    await run.cancel()
    while not still_running(engine.path):
        await asyncio.sleep(0.001)
    said = cli("stats", "--db", tmp_db)
    assert facts(said)["in a thread"] == (
        "the last attempt of step 'plain' at 0 of run r is over, and its function still runs"
    )
    (value,) = cli("stats", "--db", tmp_db, "--json").values
    assert value["still_running"] == [{"run_id": "r", "position": "0", "name": "plain"}]
    assert "its last attempt is still running in a thread ('plain' at 0)" in cli("show", "r", "--db", tmp_db).out
    out.set()
    await run.result(5)
    (value,) = cli("stats", "--db", tmp_db, "--json").values
    assert value["still_running"] == []
