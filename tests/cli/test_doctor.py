"""
`durable doctor`: what is wrong with a journal, or needs a person.
"""

import asyncio
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from durable import (
    EngineFailedError,
    Flow,
    Retry,
    Return,
    RunFailedError,
    Schedule,
    job,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._shell.ownership.ownership import Ownership

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@step(retry=Retry(attempts=None, delay=0.001, max_delay=0.002, jitter=0))
async def never() -> None:
    raise ConnectionError("down")


@workflow
async def storm() -> Flow[None]:
    yield never()


@workflow
async def waits() -> Flow[str]:
    word: str = yield wait_for("go", str)
    yield Return(word)


@workflow
async def sleeps() -> Flow[None]:
    yield sleep(0.01)


@job
async def fails() -> None:
    raise ValueError("broken")


@workflow
async def compensates() -> Flow[None]:
    try:
        yield fails_at_once()
    except ValueError:
        yield undo()
        raise


@step
async def fails_at_once() -> None:
    raise ValueError("broken")


@step
async def undo() -> None: ...


def found(said):
    return {line.split(maxsplit=1)[1]: line.split(maxsplit=1)[0] for line in said.lines}


def severities(said):
    return [line.split(maxsplit=1)[0] for line in said.lines]


def change(path, sql, *values):
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(sql, values)
        conn.commit()


async def test_a_sound_journal_has_no_problem(engines, cli, tmp_db):
    """
    Exit code 0; what was verified is said, and who owns the file.
    """
    engine = await engines.file(waits)
    run = await engine.start(waits(), id="w")
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 0, said
    assert "problem" not in severities(said)
    assert f"owned by process {os.getpid()}" in said.out
    assert "quick_check: the pages are sound" in said.out
    assert "in the newest 1 runs" in said.out
    assert "oldest open run is w" in said.out
    await run.signal("go", "x")
    await run.result(5)
    await engine.aclose()
    said = cli("doctor", "--db", tmp_db, "--thorough")
    assert "integrity_check: the pages are sound" in said.out
    assert "no engine has the file open" in said.out
    assert all({"severity", "what", "remedy"} == set(each) for each in cli("doctor", "--db", tmp_db, "--json").values)


async def test_runs_that_need_a_person_are_named_with_what_to_do(engines, cli, tmp_db, reached):
    """
    Blocked is a problem; failed and paused are notes; each says what to do.
    """
    engine = await engines.file(waits, fails)
    paused, failed = await engine.start(waits(), id="p"), await engine.start(fails(), id="f")
    await paused.pause()
    await reached(failed, "failed")
    await engine.queue("mail").pause()
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 0
    assert "failed: f (fails: ValueError: broken): `durable debug RUN`" in said.out
    assert "paused: p (waits" in said.out
    assert "paused queues: mail" in said.out
    await engine.aclose()
    change(tmp_db, "UPDATE durable_runs SET status = 'blocked', reason = 'diverged' WHERE run_id = 'p'")
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    assert severities(said)[-1] == "problem"
    assert "blocked: p (waits: diverged)" in said.lines[-1]


async def test_a_schedule_that_stands_still_is_found(engines, cli, tmp_db, clock, reached, eventually):
    """
    The run that holds it up is named; so is a tick that started nothing, a schedule that killed, and one years ahead.
    """
    now = time.time()
    clock.start = now - 2 * 3600
    schedules = [
        Schedule("held", waits(), every=3600),
        Schedule("failing", lambda at: 1 / 0, every=3600),
        Schedule("ahead", fails(), every=3600),
        Schedule("killer", fails(), every=3600),
    ]
    engine = await engines.file(waits, fails, clock=clock, schedules=schedules)
    clock.advance(3600)

    async def there():
        return [info.run_id async for info in engine.runs(workflow="waits")]

    await eventually(there)
    run = engine.get((await there())[0])
    await reached(run, "waiting")
    await run.pause()
    change(tmp_db, "UPDATE durable_schedules SET upto = upto + 1e8 WHERE name = 'ahead'")
    change(tmp_db, "UPDATE durable_schedules SET paused_at = 1, last_error = 'paused, since' WHERE name = 'killer'")
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    assert f"schedule 'held' is held up: run {run.id!r} of an earlier tick is paused" in said.out
    assert "the latest tick of schedule 'failing' started no run: " in said.out
    assert "schedule 'ahead' stands still until 20" in said.out
    assert "schedule 'killer' starts nothing: paused, since" in said.out


async def test_damage_is_found(engines, cli, tmp_db):
    """
    An event that does not match its checksum is named by run and number; so are rows that hang in the air.
    """
    engine = await engines.file(waits)
    await engine.start(waits(), id="w")
    await engine.aclose()
    change(tmp_db, "UPDATE durable_events SET body = '[]' WHERE seq = 1")
    change(tmp_db, "UPDATE durable_waits SET run = 99")
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    assert "event 1" in said.out
    assert "waits of runs that are gone: this should not be" in said.out
    change(tmp_db, "INSERT INTO durable_kinds VALUES (9999, 'Strange')")
    assert "events of kinds [9999] are written by a newer release: upgrade durable" in cli("doctor", "--db", tmp_db).out


async def test_torn_pages_are_found(engines, cli, tmp_db):
    """
    Pages that are overwritten are a problem whatever is on them.
    """
    engine = await engines.file(waits)
    for n in range(50):
        await engine.start(waits(), id=f"w{n}")
    await engine.aclose()
    with open(tmp_db, "r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096))
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    assert "problem" in severities(said)


async def test_surroundings_are_looked_at(engines, cli, tmp_db, monkeypatch):
    """
    Who may read the file, how large its WAL is, how full the disk, on what file system, what is left behind.
    """
    engine = await engines.file(waits)
    await engine.aclose()
    tmp_db.chmod(0o644)
    tmp_db.with_name("app.db.sock").touch()
    with open(tmp_db.with_name("app.db-wal"), "wb") as wal:
        wal.truncate(300 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 5 << 20})())
    monkeypatch.setattr("durable._shell.storage.location.filesystem", lambda _: "nfs4")
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    for words in (
        "others may read",
        "the WAL has 300 MiB",
        "5 MiB are free",
        "network file system (nfs4)",
        "left behind",
    ):
        assert words in said.out, words


async def test_an_old_sqlite_is_told_where_others_may_write(engines, cli, tmp_db, monkeypatch):
    """
    Two writers at once could damage the file: of one that only engines write, nothing is said.
    """
    monkeypatch.setattr("durable._shell.storage.connections.version_notices", lambda _: ["SQLite can damage it"])
    engine = await engines.file(waits)
    await engine.aclose()
    assert "SQLite can damage it" not in cli("doctor", "--db", tmp_db).out
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.execute("CREATE TABLE orders (id INTEGER)")
    said = cli("doctor", "--db", tmp_db)
    assert "warning  SQLite can damage it" in said.out
    assert said.code == 0


async def test_a_live_engine_says_how_it_is(engines, tmp_db):
    """
    Healthy, or degraded and why. Asked by a process of its own.
    """
    engine = await engines.file(waits)

    async def doctor():
        command = [sys.executable, "-m", "durable", "doctor", "--db", str(tmp_db)]
        asked = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        return (await asked.communicate())[0].decode(), asked.returncode

    out, code = await doctor()
    assert "ok       the engine is healthy" in out
    assert code == 0
    # Under a name that no check of the engine's own clears while the doctor starts.
    engine._backend.running.troubles.begin("told", "its folder is out of sight")
    out, code = await doctor()
    assert "warning  the engine is degraded: its folder is out of sight" in out
    assert code == 0


async def test_an_engine_that_failed_is_told_until_the_next_one_comes(engines, cli, tmp_db):
    """
    Also while its process lives on; that was no death of the process, so no step is suspected for it.
    """
    engine = await engines.file(waits)
    engine._backend.running.supervisor.fail(OSError("the disk is gone"))
    with pytest.raises(EngineFailedError):
        await engine.wait_closed()
    said = cli("doctor", "--db", tmp_db)
    assert said.code == 1
    assert "the last engine failed: OSError: the disk is gone" in said.out
    with Ownership.acquire(tmp_db) as next_one:
        assert next_one.last_words() is None
    engine = await engines.file(waits)
    await engine.aclose()
    assert "failed" not in cli("doctor", "--db", tmp_db).out


async def test_what_does_not_get_on_is_found(engines, cli, tmp_db, reached, eventually, monkeypatch):
    """
    Timers that nobody fires, runs that nobody begins, steps that fail for ever, histories that grow.
    """
    engine = await engines.file(sleeps, storm, fails)
    await engine.queue("default").pause()
    queued = await engine.start(fails(), id="queued")
    await engine.queue("default").resume()
    await reached(queued, "failed")
    run = await engine.start(storm(), id="storm")

    async def stormy():
        return sum(event.kind == "StepRetrying" for event in await run.history()) >= 21

    await eventually(stormy)
    await engine.aclose()
    long_ago = time.time() - 3600
    change(
        tmp_db,
        "INSERT OR REPLACE INTO durable_waits (run, grp, position, kind, wake_on, fire_at, since) "
        "SELECT run, '0', '0', 'retry', 'any', ?, 0 FROM durable_runs WHERE run_id = 'storm'",
        long_ago,
    )
    change(tmp_db, "UPDATE durable_runs SET status = 'pending', ready_at = ? WHERE run_id = 'queued'", long_ago)
    monkeypatch.setattr("durable._cli.commands.look.doctor._LONG_HISTORY", 20)
    said = cli("doctor", "--db", tmp_db)
    for words in (
        "a timer of run storm at 0 has been due for 1 h: start an engine",
        "run queued has waited for a slot for 1 h: start an engine",
        "the step at 0 of run storm has failed",
        "run storm has ",
    ):
        assert words in said.out, f"{words}\n{said.out}"


async def test_a_large_file_is_not_read_as_a_whole(engines, cli, tmp_db, monkeypatch):
    """
    Moments, not minutes: what was left out is said.
    """
    engine = await engines.file(waits)
    await engine.aclose()
    monkeypatch.setattr("durable._cli.commands.look.doctor._LARGE_BYTES", 1)
    assert (
        "the file is large: its pages were not verified: durable doctor --thorough" in cli("doctor", "--db", tmp_db).out
    )


async def test_runs_that_others_deleted_are_counted_anew_when_somebody_says_so(engines, cli, tmp_db):
    """
    Runs are counted as an engine writes them. Doctor compares, and what it says helps.
    """
    engine = await engines.file(waits)
    for run in await engine.start_many([waits() for _ in range(3)]):
        await run.signal("go", "x")
        await run.result(5)
    assert (await engine.stats()).runs == {"succeeded": 3}
    await engine.aclose()
    assert "counted wrong" not in cli("doctor", "--db", tmp_db).out
    change(tmp_db, "DELETE FROM durable_runs WHERE run = 1")
    assert "counted wrong" in cli("doctor", "--db", tmp_db).out
    change(tmp_db, "DELETE FROM durable_meta WHERE name = 'counted'")
    engine = await engines.file(waits)
    assert (await engine.stats()).runs == {"succeeded": 2}
    assert "counted wrong" not in cli("doctor", "--db", tmp_db).out


def test_a_check_that_meets_what_cannot_be_in_a_sound_file_is_a_finding():
    """Where a damaged page lets a time be NULL, say: the other checks are still made, and all of it is shown."""
    from durable._cli.commands.look.doctor import _found

    def _times(file):
        yield file.now - None

    class File:
        now = 1.0

    (finding,) = _found(_times, File())
    assert finding.severity == "problem"
    assert "times could not be checked" in finding.what


async def test_a_failed_run_that_made_up_for_it_is_not_to_be_retried(engines, cli, tmp_db):
    """
    Doctor and show advise a fork or a new run; `retry` is refused and names what ran, `--anyway` does it.
    """
    engine = await engines.file(compensates)
    with pytest.raises(RunFailedError):
        await (await engine.start(compensates(), id="c")).result(5)
    await engine.aclose()
    said = cli("doctor", "--db", tmp_db)
    assert "steps of run c ran because of its failure, the first at 1" in said.out
    assert "`durable fork RUN --at POSITION`, or start a new run" in said.out
    shown = cli("show", "--db", tmp_db, "c")
    assert "ran since the failure\n  step 'undo' at 1\n  a retry is refused" in shown.out
    assert cli("show", "--db", tmp_db, "c", "--json").values[0]["ran_since_failure"] == ["1"]


async def test_a_retry_that_is_refused_says_what_ran(engines, cli, tmp_db):
    """
    The exit code is that of a finding; nothing was changed.
    """
    engine = await engines.file(compensates)
    with pytest.raises(RunFailedError):
        await (await engine.start(compensates(), id="c")).result(5)
    await engine.aclose()
    said = await anyio.to_thread.run_sync(lambda: cli("retry", "--db", tmp_db, "c"))
    assert (said.code, "since its failure there ran step 'undo' at 1." in said.out) == (1, True)
    said = await anyio.to_thread.run_sync(lambda: cli("retry", "--db", tmp_db, "c", "--anyway"))
    assert (said.code, said.out) == (0, "c: resumed from what failed\n")
