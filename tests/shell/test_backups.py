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
from durable._shell.ownership import restoring
from durable._shell.storage.copies import backups
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
    told = " ".join(capsys.readouterr().out.split())  # lines are broken
    assert "problem the file is a backup, made 2" in told
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

    def no_links(*_, **__):
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


# --- restoring -----------------------------------------------------------------------------------------


def restored(backup, path):
    return main(["restore", str(backup), "--to", str(path)])


async def test_restoring_sets_aside_what_was_there_with_its_wal(engines, tmp_path, capsys):
    """The journal is what the backup was; what it was before still opens, with what only its WAL had."""
    engine = await engines.file(quick)
    await engine.run(quick(1), id="old")
    await engine.backup(tmp_path / "backup.db")
    await engine.run(quick(2), id="new")
    await engines.crash(engine)
    path = engines.path
    path.chmod(0o640)
    assert restored(tmp_path / "backup.db", path) == 0
    said = capsys.readouterr().out
    kept = next(path.parent.glob(f"{path.name}.replaced-*Z"))
    assert f"what it was before is kept: {kept}, {kept}-wal" in said
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in path.parent.glob(f"{path.name}*")) == sorted(
        [path.name, f"{path.name}.lock", kept.name, f"{kept.name}-wal"]
    )
    engine = await engines.file(quick)
    assert [info.run_id async for info in engine.runs()] == ["old"]
    engines.path = kept
    engine = await engines.file(quick)
    assert [info.run_id async for info in engine.runs()] == ["new", "old"]


async def test_restoring_makes_the_journal_where_there_is_none_and_twice_in_a_second(engines, tmp_path, capsys):
    """On another machine, say; and again, with a name of its own for each that was replaced."""
    engine = await engines.file(quick)
    await engine.run(quick(1), id="a")
    await engine.backup(tmp_path / "backup.db")
    path = tmp_path / "elsewhere.db"
    for _ in range(3):
        assert main(["restore", str(tmp_path / "backup.db"), "--to", str(path), "--json"]) == 0
    assert len(list(tmp_path.glob("elsewhere.db.replaced-*"))) == 2
    async with Engine(path, [quick]) as other:
        assert await other.get("a").result(5) == 1
    assert not list(tmp_path.glob("*.partial"))


async def test_restoring_is_refused_while_the_journal_has_an_owner(engines, tmp_path, capsys):
    """Nothing is changed under a running engine, and it names who that is."""
    engine = await engines.file(quick)
    await engine.run(quick(1), id="a")
    await engine.backup(tmp_path / "backup.db")
    await engine.run(quick(1), id="b")
    assert await asyncio.to_thread(restored, tmp_path / "backup.db", engine.path) == 1
    assert f"is owned by an engine, pid {os.getpid()} (this process)" in capsys.readouterr().err
    assert len([info async for info in engine.runs()]) == 2
    assert not list(tmp_path.glob("*.partial"))


async def test_a_backup_that_is_damaged_or_none_replaces_nothing(engines, tmp_path, capsys):
    """Neither one with pages that do not fit together, nor a text, nor the journal itself."""
    engine = await engines.file(quick, ordering)
    for number in range(50):
        await engine.run(ordering(number))
    backup, path = tmp_path / "backup.db", engines.path
    await engine.backup(backup)
    await engine.aclose()
    found = path.read_bytes()
    with open(backup, "r+b") as file:
        file.seek(backup.stat().st_size - 4096)
        file.write(b"\x0d" + b"\xff" * 4000)
    (tmp_path / "text.db").write_text("no backup at all, but a text " * 50)
    for wrong, code in ((backup, 1), (tmp_path / "text.db", 2), (tmp_path / "none.db", 3), (path, 2)):
        assert restored(wrong, path) == code, wrong
        assert path.read_bytes() == found
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.replaced*"))


@pytest.mark.parametrize("renames", range(1, 4))
async def test_a_restore_that_is_killed_leaves_a_file_that_opens_or_is_refused(
    engines, tmp_path, monkeypatch, renames, capsys
):
    """After each of its steps: never a mixture, and nothing is lost; done again, it succeeds."""
    engine = await engines.file(quick)
    await engine.run(quick(1), id="old")
    await engine.backup(tmp_path / "backup.db")
    await engine.run(quick(2), id="new")
    await engines.crash(engine)
    path, done, rename = engines.path, [], restoring.Path.rename

    class Killed(BaseException):
        pass

    def killed_after(self, target):
        rename(self, target)
        done.append(target)
        if len(done) == renames:
            raise Killed

    monkeypatch.setattr(restoring.Path, "rename", killed_after)
    with pytest.raises(Killed):
        restored(tmp_path / "backup.db", path)
    monkeypatch.undo()
    if renames < 3:
        with pytest.raises(JournalAccessError, match="the file is gone" if renames == 1 else "is not its own"):
            await engines.file(quick)
    assert restored(tmp_path / "backup.db", path) == 0
    engine = await engines.file(quick)
    assert [info.run_id async for info in engine.runs()] == ["old"]
    assert next(tmp_path.glob("*.replaced-*-wal"))
