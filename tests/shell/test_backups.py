"""
Backups that are put in the place of the file they were made of: what lies beside them is not taken for theirs.
"""

import asyncio
import errno
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from durable import Client, Engine, Flow, Return, Transaction, job, transaction, workflow
from durable._cli.main import main
from durable._shell.storage import backups
from durable._shell.storage.wal import has_commits
from durable.errors import JournalAccessError, JournalError

pytestmark = pytest.mark.anyio


@job
async def quick(number: int) -> int:
    return number


@transaction
def insert(tx: Transaction, number: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, text TEXT)")
    return tx.execute("INSERT INTO orders (text) VALUES (?)", ("x" * 200,)).lastrowid or 0


@workflow
async def ordering(number: int) -> Flow[int]:
    value: int = yield insert(number)
    yield Return(value)


def contents(path):
    return path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()


async def killed(engines, *, backup, before=30, after=10):
    """A file of a killed engine, and a backup of it that is *after* runs older, which replaces the file."""
    engine = await engines.file(quick, ordering)
    for number in range(before):
        await engine.run(ordering(number), id=f"old-{number}")
    await engine.backup(backup)
    for number in range(after):
        await engine.run(ordering(number), id=f"new-{number}")
    await engines.crash(engine)
    path = engines.path
    shutil.copyfile(backup, path)
    return path


@pytest.mark.parametrize("before, after", [(10, 2), (30, 30), (2, 400)])
async def test_a_backup_beside_the_wal_of_a_killed_process_is_refused_untouched(engines, tmp_path, before, after):
    """However much of the WAL has reached the file: by an engine, a client and the command line, and `doctor` tells."""
    path = await killed(engines, backup=tmp_path / "backup.db", before=before, after=after)
    found = contents(path)
    for _ in range(2):
        with pytest.raises(JournalAccessError, match=r"is a backup, made 2.*-wal is not its own.*durable restore"):
            await engines.file(quick, ordering)
        with pytest.raises(JournalAccessError, match="is not its own"):
            await Client(path).open()
    assert main(["list", "--db", str(path)]) == 2
    assert contents(path) == found
    path.with_name(f"{path.name}-wal").unlink()  # as the error says
    engine = await engines.file(quick, ordering)
    assert {info.run_id async for info in engine.runs(limit=1000)} == {f"old-{number}" for number in range(before)}
    assert await engine.run(ordering(1)) == before + 1


async def test_doctor_tells_of_a_wal_that_is_not_the_files(engines, tmp_path, capsys):
    """As a problem, with what to do."""
    path = await killed(engines, backup=tmp_path / "backup.db")
    assert main(["doctor", "--db", str(path)]) == 1
    told = capsys.readouterr().out
    assert "problem  the file is a backup, made 2" in told
    assert f"move {path}-wal away" in told


async def test_a_backup_that_was_opened_has_a_wal_of_its_own(engines, tmp_path):
    """Killed right after its opening, when all that it did is in its WAL alone, or later: it opens again."""
    first = await engines.file(quick)
    await first.run(quick(1), id="a")
    await first.backup(tmp_path / "backup.db")
    await first.aclose()
    engines.path = tmp_path / "backup.db"
    for run_id in ("b", "c"):
        engine = await engines.file(quick)
        await engine.run(quick(2), id=run_id)
        await engines.crash(engine)
        path = engines.path
        assert has_commits(str(path))
        async with Client(path) as client:
            assert await client.get(run_id).result(5) == 2
    engine = await engines.file(quick)
    assert [info.run_id async for info in engine.runs()] == ["c", "b", "a"]


async def test_a_wal_of_a_backup_that_was_opened_before_is_not_that_of_another(engines, tmp_path):
    """Each backup has a mark of its own: the WAL of Monday's does not belong to Tuesday's."""
    first = await engines.file(quick)
    for name in ("monday.db", "tuesday.db"):
        await first.run(quick(1))
        await first.backup(tmp_path / name)
    await first.aclose()
    engines.path = tmp_path / "monday.db"
    engine = await engines.file(quick)
    await engines.crash(engine)
    path = engines.path
    shutil.copyfile(tmp_path / "tuesday.db", path)
    with pytest.raises(JournalAccessError, match="is not its own"):
        await engines.file(quick)


async def test_an_empty_wal_and_what_is_left_of_one_are_no_hindrance(engines, tmp_path):
    """Nothing in them would be applied: a header alone, frames without a commit, no WAL at all."""
    first = await engines.file(quick)
    await first.run(quick(1))
    await first.backup(tmp_path / "backup.db")
    await engines.crash(first)
    wal = engines.path.with_name(f"{engines.path.name}-wal").read_bytes()
    for number, left in enumerate([b"", wal[:20], wal[:32], wal[: 32 + 4120], b"x" * 5000]):
        engines.path = tmp_path / f"{number}.db"
        shutil.copyfile(tmp_path / "backup.db", engines.path)
        (tmp_path / f"{number}.db-wal").write_bytes(left)
        engine = await engines.file(quick)
        assert await engine.run(quick(number)) == number


async def test_a_wal_without_its_file_is_not_thrown_away(engines):
    """SQLite deletes it for a file that is made anew: it has what was committed last."""
    engine = await engines.file(quick)
    await engine.run(quick(1), id="a")
    await engines.crash(engine)
    path = engines.path
    aside = path.with_name("aside.db")
    path.rename(aside)
    with pytest.raises(JournalAccessError, match=r"the file is gone, but .*-wal is there"):
        await engines.file(quick)
    assert not path.exists()
    aside.rename(path)
    engine = await engines.file(quick)
    assert await engine.get("a").result(5) == 1


async def test_a_backup_is_made_where_there_are_no_hard_links(engines, tmp_path, monkeypatch):
    """As on exFAT, or a mounted share: also there it replaces nothing, and leaves nothing behind."""

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(backups.os, "link", no_links)
    engine = await engines.file(quick)
    await engine.run(quick(1), id="a")
    (tmp_path / "backups").mkdir()
    target = tmp_path / "backups" / "copy.db"
    await engine.backup(target)
    with pytest.raises(JournalError, match="exists already, and a backup replaces nothing"):
        await engine.backup(target)
    assert os.listdir(target.parent) == ["copy.db"]
    async with Engine(target, [quick]) as copy:
        assert await copy.get("a").result(5) == 1


async def test_a_database_without_a_journal_is_copied_as_it_is(tmp_path):
    """The mark is a row of the journal's own: where there is none, nothing is added."""
    with closing(sqlite3.connect(tmp_path / "plain.db")) as conn:
        conn.execute("CREATE TABLE t (a)")
        backups.back_up(conn, str(tmp_path / "plain.db"), str(tmp_path / "copy.db"), overwrite=False)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as conn:
        assert conn.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


async def test_reading_beside_an_engine_that_just_opened_a_backup_is_not_refused(engines, tmp_path):
    """The mark is gone with the engine's first transaction; until then its WAL is empty."""
    first = await engines.file(quick)
    await first.run(quick(1), id="a")
    await first.backup(tmp_path / "backup.db")
    await first.aclose()
    engines.path = tmp_path / "backup.db"

    async def look():
        for _ in range(50):
            backups.check_wal(str(engines.path))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    engine = await engines.file(quick)
    await engine.run(quick(1))
    await looking
