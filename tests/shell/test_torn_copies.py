"""
Copies that `cp` makes of a file while an engine writes to it: told, and refused where they are torn.
"""

import shutil
import sqlite3
from contextlib import closing
from functools import partial

import pytest
from structlog.testing import capture_logs

from durable import Client, Engine, Flow, Return, Transaction, job, transaction, workflow
from durable._cli.main import main
from durable.errors import JournalDamagedError

pytestmark = pytest.mark.anyio


@job
async def quick(number: int) -> int:
    return number


@transaction
def insert(tx: Transaction, number: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
    return tx.execute("INSERT INTO orders (text) VALUES (?)", (f"{number:0300}",)).lastrowid or 0


@workflow
async def ordering(number: int) -> Flow[int]:
    value: int = yield insert(number)
    yield Return(value)


async def order(engine, first, count):
    for run in await engine.start_many([ordering(number) for number in range(first, first + count)]):
        await run.result()
    await engine._backend.running.database.checkpoint()


@pytest.fixture
async def torn(engines, tmp_path):
    """
    A copy of a live file of which one half is older than the other: a checkpoint came while it was made.
    """
    engine = await engines.file(quick, ordering)
    await order(engine, 0, 100)
    path = tmp_path / "copy.db"
    with open(path, "wb") as copy, open(engine.path, "rb") as file:
        copy.write(file.read(120 << 10))
        await order(engine, 100, 100)
        shutil.copyfileobj(file, copy)
    path.chmod(0o600)
    return path


async def test_a_torn_copy_is_refused_untouched_and_told_by_doctor(torn, capsys):
    """
    By an engine and by a client that would own it, in words that say how it came about and what to do.
    """
    before = torn.read_bytes()
    for opening in (Engine(torn, [quick, ordering]).open, partial(asked, torn)):
        with pytest.raises(JournalDamagedError, match=r"torn copy.*durable backup"):
            await opening()
    assert torn.read_bytes() == before
    assert main(["doctor", "--db", str(torn)]) == 1
    said = capsys.readouterr().out
    assert "a copy, made while an engine had the journal open" in said
    assert "problem" in said


async def asked(path):
    async with Client(path) as client:
        await client.start(quick(1))


async def test_a_copy_that_is_whole_is_told_once_and_opens(engines, tmp_path, capsys):
    """
    As a snapshot is, and Litestream's: what runs, resumes.
    """
    engine = await engines.file(quick, ordering)
    await order(engine, 0, 20)
    path = tmp_path / "copy.db"
    with closing(sqlite3.connect(engine.path)) as conn:
        conn.execute("VACUUM INTO ?", (str(path),))
    path.chmod(0o600)
    main(["doctor", "--db", str(path)])
    assert "a copy, made while an engine had the journal open" in capsys.readouterr().out
    for told in (1, 0):
        with capture_logs() as logs:
            async with Engine(path, [quick, ordering]) as other:
                assert await other.run(quick(1)) == 1
        assert len([each for each in logs if "is a copy" in each.get("notice", "")]) == told


async def test_what_was_closed_killed_or_backed_up_is_no_copy(engines, tmp_path):
    """
    A closed file may be copied with `cp`, one whose engine was killed opens as ever, and a backup is one of its own.
    """
    engine = await engines.file(quick, ordering)
    await order(engine, 0, 3)
    await engine.backup(tmp_path / "backup.db")
    path = engine.path
    await engines.crash(engine)
    for end in ("", "-wal"):
        shutil.copyfile(f"{engines.path}{end}", f"{path}{end}")  # into the file that it was
    with capture_logs() as logs:
        async with Engine(path, [quick, ordering]) as engine:
            assert await engine.run(quick(1)) == 1
        shutil.copyfile(path, tmp_path / "closed.db")
        for path in (tmp_path / "closed.db", tmp_path / "backup.db"):
            async with Engine(path, [quick, ordering]) as engine:
                assert await engine.run(quick(2)) == 2
    assert [each for each in logs if "is a copy" in each.get("notice", "")] == []
