"""
Room in the WAL: a commit that is synced writes over zeros. Whatever becomes of them, the commits are what they were.
"""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from durable._shell.storage import wal_room
from durable._shell.storage.database import Database
from durable._shell.storage.wal_room import ENOUGH_BYTES, LEAST_BYTES, WalRoom

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """
    The disk has room, whichever disk it is.
    """
    free = [1 << 40]
    monkeypatch.setattr(wal_room, "free_bytes", lambda _path: free[0])
    return free


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


def wal(path):
    return Path(f"{path}-wal")


@contextlib.asynccontextmanager
async def opened(path, durability="full"):
    database = await Database.open(path, durability=durability, prepare=prepare)
    try:
        yield database
    finally:
        await database.aclose()


def prepare(conn):
    conn.execute("CREATE TABLE IF NOT EXISTS t (v)")


def insert(value):
    return lambda conn: conn.execute("INSERT INTO t VALUES (?)", (value,))


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return [value for (value,) in conn.execute("SELECT v FROM t ORDER BY rowid")]


async def lengths(path, commits, durability="full"):
    """
    How long the WAL was after each of *commits*, none of which needs more than two pages.
    """
    found = []
    async with opened(path, durability) as database:
        for number in range(commits):
            await database.write(insert(number))
            found.append(wal(path).stat().st_size)
    assert rows(path) == list(range(commits))
    return found


async def test_few_commits_make_the_wal_longer(path):
    found = await lengths(path, 200)
    assert len(set(found)) < 12
    assert found[-1] < 2 * 200 * 2 * 4200


async def test_where_nothing_is_synced_there_is_nothing_to_gain(path):
    found = await lengths(path, 20, "process")
    assert len(set(found)) == 20


async def test_a_copy_at_any_moment_has_what_was_committed(path, tmp_path):
    """What a killed process leaves: the zeros are no frames, nor are those that stand behind a torn frame."""
    async with opened(path) as database:
        for number in range(40):
            await database.write(insert(number))
            copy = tmp_path / f"copy-{number}" / "app.db"
            copy.parent.mkdir()
            shutil.copy(path, copy)
            shutil.copy(wal(path), wal(copy))
            assert rows(copy) == list(range(number + 1))


async def test_a_full_disk_is_not_filled_up(path, free):
    free[0] = wal_room.FREE_BYTES
    found = await lengths(path, 20)
    assert len(set(found)) == 20


async def test_what_cannot_be_had_is_done_without(path, monkeypatch):
    asked = []

    def refuse(*_arguments):
        asked.append(True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    found = await lengths(path, 20)
    assert len(set(found)) == 20
    assert 0 < len(asked) < 5  # rather than with each commit


async def test_a_file_that_has_taken_its_place_is_left_alone(path):
    async with opened(path) as database:
        await database.write(insert(1))
        wal(path).rename(f"{path}-aside")
        wal(path).write_bytes(b"another's" * 100_000)
        await database.write(insert(2))
        assert wal(path).read_bytes() == b"another's" * 100_000
        wal(path).unlink()
        wal(path).symlink_to(path.parent / "elsewhere")
        (path.parent / "elsewhere").write_bytes(b"another's" * 300_000)
        await database.write(insert(3))
        assert (path.parent / "elsewhere").read_bytes() == b"another's" * 300_000
        wal(path).unlink()
        await database.write(insert(4))
        Path(f"{path}-aside").rename(wal(path))
    assert rows(path) == [1, 2, 3, 4]


def test_it_is_made_within_the_transaction_and_for_a_wal_with_a_header(tmp_path):
    """Outside of it another program may write there; and an empty WAL has none."""
    path = tmp_path / "app.db"
    wal(path).touch()
    room = WalRoom(str(path), wal(path).stat())
    room.before(len)([])
    assert wal(path).stat().st_size == 0
    wal(path).write_bytes(b"x" * 5000)
    room = WalRoom(str(path), wal(path).stat())
    called = room.before(len)
    assert wal(path).stat().st_size == 5000
    assert called([1, 2]) == 2
    assert wal(path).read_bytes() == b"x" * 5000 + bytes(LEAST_BYTES)
    assert room.before(len) is len


def test_a_wal_that_is_long_enough_is_looked_at_no_more(tmp_path, monkeypatch):
    path = tmp_path / "app.db"
    wal(path).write_bytes(b"x")
    os.truncate(wal(path), ENOUGH_BYTES)
    room = WalRoom(str(path), wal(path).stat())
    room.before(len)([])
    monkeypatch.delattr(os, "stat")
    assert room.before(len) is len
