"""
A file that an engine makes is a whole journal from its first moment, and an opening is one transaction.
"""

import contextlib
import errno
import os
import sqlite3
import stat
import threading

import pytest

from durable import Engine, Flow, Return, workflow
from durable._shell.storage import database, new_file, schema
from durable._shell.storage.connections import connected


@workflow
async def doubled(number: int) -> Flow[int]:
    yield Return(2 * number)


def contents(path):
    """
    All that SQLite keeps of a journal, but for what differs from file to file.
    """
    with contextlib.closing(sqlite3.connect(path)) as conn:
        pragmas = ("journal_mode", "page_size", "auto_vacuum", "encoding", "application_id", "user_version")
        return (
            conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall(),
            conn.execute("SELECT * FROM durable_kinds ORDER BY kind").fetchall(),
            conn.execute("SELECT name FROM durable_meta ORDER BY name").fetchall(),
            [conn.execute(f"PRAGMA {pragma}").fetchone() for pragma in pragmas],
            conn.execute("PRAGMA integrity_check").fetchall(),
        )


async def opened(path):
    async with Engine(path, [doubled]) as engine:
        assert await engine.run(doubled(4)) == 8
    return contents(path)


async def test_a_file_that_is_made_whole_is_the_one_that_is_made_in_its_place(tmp_path, monkeypatch):
    """
    Where the system cannot do the former, or refuses it, the latter is done.
    """
    whole = await opened(tmp_path / "whole.db")
    open_file = os.open

    def refuse(path, flags, *mode, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no such files here")
        return open_file(path, flags, *mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert await opened(tmp_path / "refused.db") == whole
    monkeypatch.setattr(new_file, "_CAN", False)
    assert await opened(tmp_path / "in_place.db") == whole


@pytest.mark.parametrize("now", [0.0, 1764561600.0, 1764561600.123456])
def test_a_new_file_is_what_the_statements_make(tmp_path, now):
    """
    Whoever changes a table runs ``python -m tests.shell.pack_journal``.
    """
    path = str(tmp_path / "app.db")
    new_file.make_whole(path, now)
    with contextlib.closing(connected("", "memory")) as conn, contextlib.closing(sqlite3.connect(path)) as found:
        schema.prepare_tables(conn, now)
        for sql in (
            "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master ORDER BY rowid",
            "SELECT name, value, typeof(value) FROM durable_meta ORDER BY rowid",
            *(f"PRAGMA {name}" for name in ("page_count", "page_size", "auto_vacuum", "encoding", "freelist_count")),
            *(f"PRAGMA {name}" for name in ("application_id", "user_version", "schema_version", "integrity_check")),
        ):
            assert found.execute(sql).fetchall() == conn.execute(sql).fetchall(), sql
        assert list(found.iterdump()) == list(conn.iterdump())


def test_what_is_made_has_its_name_last(tmp_path, monkeypatch):
    """
    Synced, and only its user's; until then a crash leaves nothing.
    """
    path, done = tmp_path / "app.db", []
    sync = os.fsync

    def synced(fd):
        done.append(os.fstat(fd).st_size)
        assert not list(tmp_path.iterdir())
        sync(fd)

    monkeypatch.setattr(os, "fsync", synced)
    new_file.make_whole(str(path), 1.0)
    assert done == [path.stat().st_size]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert [each.name for each in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize("end", ["", "-wal", "-journal"])
def test_nothing_is_made_where_something_is(tmp_path, end):
    """
    What SQLite would apply to a file must not meet another.
    """
    path = tmp_path / "app.db"
    (tmp_path / f"app.db{end}").symlink_to(tmp_path / "nowhere")
    new_file.make_whole(str(path), 1.0)
    assert [each.name for each in tmp_path.iterdir()] == [f"app.db{end}"]


async def test_an_opening_is_one_transaction_and_has_both_connections(tmp_path, monkeypatch):
    """
    Each would be a sync. A reader that is opened later might find another file.
    """
    commits = []
    transact = database.transact

    def counted(conn, path, fn):
        commits.append(fn)
        return transact(conn, path, fn)

    monkeypatch.setattr(database, "transact", counted)
    for _ in range(2):
        commits.clear()
        async with Engine(tmp_path / "app.db", [doubled]):
            assert len(commits) == 1
            assert {"durable-writer", "durable-reader"} <= {each.name for each in threading.enumerate()}
            with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as conn:
                assert conn.execute("SELECT 1 FROM durable_meta WHERE name = 'open'").fetchone()


async def test_the_tables_of_the_application_are_made_in_a_file_that_says_that_it_is_open(tmp_path):
    """
    Else a torn copy of that moment would pass.
    """
    said = []

    def tables(tx):
        said.append(tx.execute("SELECT count(*) FROM durable_meta WHERE name = 'open'").fetchone())

    async with Engine(tmp_path / "app.db", [doubled], schema=tables):
        pass
    assert [count for (count,) in said] == [1]
